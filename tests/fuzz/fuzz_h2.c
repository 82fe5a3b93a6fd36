/*
 * HTTP/2 server and client fed with arbitrary bytes. Handlers answer in every way there is, by the path's second byte.
 *
 * words: lib/h2*.c
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/h2.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#define HELD_MAX 8

struct fuzz {
	struct h2 *h2;
	struct h2_stream *held[HELD_MAX];
	size_t n_held, opened, closed, written;
	bool free_it;
};

static int sink(void *data, const uint8_t *p, size_t n)
{
	struct fuzz *f = data;

	(void)p;
	f->written += n;
	return f->written > (64u << 20) ? -ENOBUFS : 0;
}

static void closed(void *data, struct h2_stream *st, int error)
{
	struct fuzz *f = data;

	(void)error;
	f->closed++;
	for (size_t i = 0; i < f->n_held; i++)
		if (f->held[i] == st)
			f->held[i] = f->held[--f->n_held];
}

static void on_request(void *data, struct h2_stream *st, const char *method, const char *path,
		       const uint8_t *body, size_t len)
{
	struct fuzz *f = data;

	f->opened++;
	h2_on_closed(st, closed, f);
	h2_header(st, method);
	switch (path[0] ? path[1] : 0) {
	case 'r':
		h2_reset(st);
		break;
	case 's':
		h2_respond_start(st, 200, NULL);
		h2_send(st, body, len);
		if (f->n_held < HELD_MAX)
			f->held[f->n_held++] = st;
		break;
	case 'e':
		h2_respond_start(st, 200, "text/plain");
		h2_send(st, path, strlen(path));
		h2_end(st);
		break;
	case 'f':
		f->free_it = true;
		h2_free(f->h2);
		f->h2 = NULL;
		break;
	default:
		h2_respond(st, 200, "application/json", body, len);
	}
}

static void ignore_data(void *data, struct h2_stream *st, const uint8_t *p, size_t n)
{
	(void)data;
	(void)st;
	assert(n == 0 || p);
}

static void client_end(void *data, struct h2_stream *st, int error)
{
	struct fuzz *f = data;

	(void)st;
	(void)error;
	f->closed++;
}

static const struct h2_io io = { .write = sink };

static void serve(const uint8_t *p, size_t n, size_t step)
{
	static const struct h2_server_ops ops = { .on_request = on_request };
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
	struct fuzz f = { 0 };

	if (h2_server_new(&io, &f, &ops, &f, &f.h2) < 0)
		return;
	h2_feed(f.h2, (const uint8_t *)preface, sizeof(preface) - 1);
	for (size_t i = 0; i < n && f.h2; i += step) {
		if (h2_feed(f.h2, p + i, n - i < step ? n - i : step) < 0)
			break;
		if (f.n_held)
			h2_send(f.held[0], "more", 4);
	}
	h2_free(f.h2);
	assert(f.opened == f.closed);
}

static void ask(const uint8_t *p, size_t n)
{
	static const struct h2_client_ops ops = { .on_data = ignore_data, .on_end = client_end };
	struct fuzz f = { 0 };
	struct h2_request rq = { .path = "/", .body = "{}", .body_len = 2 };
	struct h2_stream *st;

	if (h2_client_new(&io, &f, &f.h2) < 0)
		return;
	for (int i = 0; i < 3; i++)
		f.opened += h2_request(f.h2, &rq, &ops, &f, &st) == 0;
	h2_feed(f.h2, p, n);
	h2_free(f.h2);
	assert(f.opened == f.closed);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (n == 0)
		return 0;
	if (p[0] & 1)
		ask(p + 1, n - 1);
	else
		serve(p + 1, n - 1, p[0] & 2 ? 3 : n);
	return 0;
}
