/* h2: client and server joined by two queues in memory: ceilings, resets, floods, lifetimes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/h2.h"

#define STREAMS_MAX 300

struct side {
	struct h2 *h2;
	struct buf out; /* on its way to the other side */
	int fail;	/* what write() says */
};

struct pair {
	struct side c, s;
	bool stuck; /* the server's bytes are not taken away */
	/* server */
	struct h2_stream *st[STREAMS_MAX];
	int n_st, s_closed, s_error;
	size_t body_len;
	char method[16];
	int mode;
	/* client */
	int status[STREAMS_MAX], ended[STREAMS_MAX], error[STREAMS_MAX];
	size_t got[STREAMS_MAX];
	int ponged, session_error;
};

static struct pair *p;
static int numbers[STREAMS_MAX];

static int side_write(void *data, const uint8_t *bytes, size_t n)
{
	struct side *x = data;

	return x->fail ? x->fail : buf_put(&x->out, bytes, n);
}

static size_t side_pending(void *data)
{
	struct side *x = data;

	return x->out.len;
}

static const struct h2_io io = { .write = side_write, .pending = side_pending };

/* Carries bytes until nothing moves. */
static void pump(void)
{
	for (;;) {
		struct buf b = p->c.out, d;

		p->c.out = (struct buf){ 0 };
		if (b.len && p->s.h2)
			h2_feed(p->s.h2, buf_data(&b), b.len);
		d = (struct buf){ 0 };
		if (!p->stuck) {
			d = p->s.out;
			p->s.out = (struct buf){ 0 };
		}
		if (d.len && p->c.h2)
			h2_feed(p->c.h2, buf_data(&d), d.len);
		if (d.len && p->s.h2)
			h2_drained(p->s.h2);
		if (b.len && p->c.h2)
			h2_drained(p->c.h2);
		if (!b.len && !d.len) {
			buf_done(&b);
			buf_done(&d);
			return;
		}
		buf_done(&b);
		buf_done(&d);
	}
}

static void st_closed(void *data, struct h2_stream *st, int error)
{
	(void)data;
	p->s_closed++;
	p->s_error = error;
	assert_int_equal(h2_send(st, "x", 1), -EPIPE);
	assert_int_equal(h2_end(st), -EPIPE);
	for (int i = 0; i < p->n_st; i++)
		if (p->st[i] == st)
			p->st[i] = NULL;
}

static void on_request(void *data, struct h2_stream *st, const char *method, const char *path,
		       const uint8_t *body, size_t len)
{
	(void)data;
	(void)path;
	(void)body;
	p->body_len = len;
	snprintf(p->method, sizeof(p->method), "%s", method);
	h2_on_closed(st, st_closed, NULL);
	p->st[p->n_st++] = st;
	switch (p->mode) {
	case 0: /* answered later */
		break;
	case 1:
		assert_int_equal(h2_respond_start(st, 200, "text/plain"), 0);
		break;
	case 2:
		h2_free(p->s.h2);
		p->s.h2 = NULL;
		break;
	case 3:
		assert_int_equal(h2_respond(st, 200, NULL, NULL, 0), 0);
		break;
	}
}

static void rq_headers(void *data, struct h2_stream *st, int status)
{
	(void)st;
	p->status[*(int *)data] = status;
}

static void rq_data(void *data, struct h2_stream *st, const uint8_t *bytes, size_t n)
{
	(void)st;
	(void)bytes;
	p->got[*(int *)data] += n;
}

static void rq_end(void *data, struct h2_stream *st, int error)
{
	(void)st;
	p->ended[*(int *)data]++;
	p->error[*(int *)data] = error;
}

static const struct h2_client_ops client_ops = { .on_headers = rq_headers, .on_data = rq_data, .on_end = rq_end };
static const struct h2_server_ops server_ops = { .on_request = on_request };

static void on_error(void *data, int r, const char *why)
{
	(void)data;
	assert_non_null(why);
	p->session_error = r;
}

static void pair_open(struct pair *x, int mode)
{
	memset(x, 0, sizeof(*x));
	p = x;
	x->mode = mode;
	assert_int_equal(h2_server_new(&io, &x->s, &server_ops, NULL, &x->s.h2), 0);
	assert_int_equal(h2_client_new(&io, &x->c, &x->c.h2), 0);
	h2_set_error(x->c.h2, on_error, NULL);
	pump();
}

static void pair_close(struct pair *x)
{
	h2_free(x->c.h2);
	h2_free(x->s.h2);
	buf_done(&x->c.out);
	buf_done(&x->s.out);
}

static struct h2_stream *ask(int i, const void *body, size_t len)
{
	struct h2_request rq = { .path = "/x", .body = body, .body_len = len };
	struct h2_stream *st;

	assert_int_equal(h2_request(p->c.h2, &rq, &client_ops, &numbers[i], &st), 0);
	return st;
}

static void test_later(void **state)
{
	struct pair x;

	(void)state;
	pair_open(&x, 0);
	ask(0, NULL, 0);
	pump();
	assert_string_equal(x.method, "GET");
	assert_int_equal(x.status[0], 0);
	assert_int_equal(h2_send(x.st[0], "x", 1), -EPROTO); /* not started */
	assert_int_equal(h2_respond(x.st[0], 404, "text/plain", "no", 2), 0);
	pump();
	assert_int_equal(x.status[0], 404);
	assert_int_equal(x.got[0], 2);
	assert_int_equal(x.ended[0], 1);
	assert_int_equal(x.error[0], 0);
	assert_int_equal(x.s_closed, 1);
	assert_int_equal(x.s_error, 0);
	assert_int_equal(h2_open_streams(x.s.h2), 0);
	pair_close(&x);
}

/* An answer to HEAD says how long it would be; a body with it would be an error for the client. */
static void test_head(void **state)
{
	struct h2_request rq = { .method = "HEAD", .path = "/x" };
	struct h2_stream *st;
	struct pair x;

	(void)state;
	pair_open(&x, 0);
	assert_int_equal(h2_request(x.c.h2, &rq, &client_ops, &numbers[0], &st), 0);
	pump();
	assert_string_equal(x.method, "HEAD");
	assert_int_equal(h2_respond(x.st[0], 404, "text/plain", "no", 2), 0);
	pump();
	assert_int_equal(x.status[0], 404);
	assert_int_equal(x.got[0], 0);
	assert_int_equal(x.ended[0], 1);
	assert_int_equal(x.error[0], 0);
	assert_int_equal(x.s_error, 0);
	pair_close(&x);
}

static void test_empty(void **state)
{
	struct pair x;

	(void)state;
	pair_open(&x, 3);
	ask(0, "{}", 2);
	pump();
	assert_string_equal(x.method, "POST");
	assert_int_equal(x.status[0], 200);
	assert_int_equal(x.ended[0], 1);
	pair_close(&x);
}

/* Many viewers share one copy, also while they wait; a slow one meets its ceiling and the others do not. */
static void test_fan_out(void **state)
{
	struct blob *b = blob_new(NULL, 1u << 20);
	struct pair x;

	(void)state;
	memset(b->data, 'b', b->len);
	pair_open(&x, 1);
	for (int i = 0; i < 200; i++)
		ask(i, "{}", 2);
	pump();
	assert_int_equal(x.n_st, 200);
	x.stuck = true;
	for (int i = 0; i < 200; i++) {
		assert_int_equal(h2_send(x.st[i], "\0\0\x10\0", 4), 0);
		assert_int_equal(h2_send_blob(x.st[i], b), 0);
	}
	assert_true(b->refs > 150);			  /* queued, not copied */
	assert_true(x.s.out.len < 2 * H2_TRANSPORT_HIGH); /* and the transport is not flooded */
	h2_set_queue_max(x.st[7], 2u << 20);
	assert_int_equal(h2_send_blob(x.st[7], b), -ENOBUFS);
	assert_true(h2_pending(x.st[7]) <= (1u << 20) + 4);
	assert_int_equal(h2_send_blob(x.st[8], b), 0);
	h2_reset(x.st[7]);
	x.stuck = false;
	pump();
	assert_int_equal(b->refs, 1);
	assert_int_equal(x.ended[7], 1);
	assert_int_equal(x.error[7], -ECONNRESET);
	assert_int_equal(x.got[8], (2u << 20) + 4);
	assert_int_equal(x.got[199], (1u << 20) + 4);
	assert_int_equal(h2_end(x.st[8]), 0);
	pump();
	assert_int_equal(x.ended[8], 1);
	assert_int_equal(x.error[8], 0);
	pair_close(&x);
	assert_int_equal(x.s_closed, 200);
	blob_unref(b);
}

static void test_reset_by_client(void **state)
{
	struct h2_stream *c, *kept;
	struct pair x;

	(void)state;
	pair_open(&x, 1);
	c = ask(0, "{}", 2);
	pump();
	kept = h2_stream_ref(x.st[0]);
	h2_reset(c);
	assert_int_equal(x.error[0], -ECANCELED);
	pump();
	assert_int_equal(x.s_closed, 1);
	assert_int_equal(x.s_error, -ECONNRESET);
	assert_int_equal(h2_send(kept, "x", 1), -EPIPE); /* memory is still there */
	assert_int_equal(h2_respond(kept, 200, NULL, NULL, 0), -EPIPE);
	h2_reset(kept);
	h2_stream_unref(kept);
	/* the session goes on */
	ask(1, "{}", 2);
	pump();
	assert_int_equal(x.status[1], 200);
	pair_close(&x);
	assert_int_equal(x.error[1], -EPIPE);
}

static void test_body_limit(void **state)
{
	static uint8_t body[H2_BODY_MAX + 1];
	struct pair x;

	(void)state;
	pair_open(&x, 3);
	ask(0, body, H2_BODY_MAX);
	ask(1, body, H2_BODY_MAX + 1);
	pump();
	assert_int_equal(x.status[0], 200);
	assert_int_equal(x.body_len, H2_BODY_MAX);
	assert_int_equal(x.status[1], 413);
	assert_int_equal(x.n_st, 1);
	pair_close(&x);
}

static void test_header_limit(void **state)
{
	static char value[6000];
	struct h2_header big[] = { { "a", value }, { "b", value }, { "c", value } };
	struct h2_request rq = { .path = "/x", .headers = big, .n_headers = 2 };
	struct h2_stream *st;
	struct pair x;

	(void)state;
	memset(value, 'v', sizeof(value) - 1);
	pair_open(&x, 3);
	assert_int_equal(h2_request(x.c.h2, &rq, &client_ops, &numbers[0], &st), 0);
	pump();
	assert_int_equal(x.status[0], 200);
	rq.n_headers = 3;
	assert_int_equal(h2_request(x.c.h2, &rq, &client_ops, &numbers[1], &st), 0);
	pump();
	assert_int_equal(x.n_st, 1);
	assert_int_equal(x.error[1], -ECONNRESET);
	pair_close(&x);
}

static void pong(void *data)
{
	struct pair *x = data;

	x->ponged++;
}

static void test_ping_goaway(void **state)
{
	struct h2_stream *st;
	struct h2_request rq = { .path = "/x" };
	struct pair x;

	(void)state;
	pair_open(&x, 1);
	assert_int_equal(h2_ping(x.s.h2, pong, &x), 0);
	assert_int_equal(h2_ping(x.s.h2, pong, &x), -EALREADY);
	pump();
	assert_int_equal(x.ponged, 1);
	ask(0, NULL, 0);
	pump();
	h2_goaway(x.s.h2);
	pump();
	assert_int_equal(h2_request(x.c.h2, &rq, &client_ops, &numbers[1], &st), -EPIPE);
	assert_int_equal(x.ended[0], 0); /* what runs goes on */
	assert_int_equal(h2_send(x.st[0], "bye", 3), 0);
	assert_int_equal(h2_end(x.st[0]), 0);
	pump();
	assert_int_equal(x.got[0], 3);
	assert_int_equal(x.ended[0], 1);
	pair_close(&x);
}

/* More requests than the server takes at once wait in the client; a GOAWAY ends them. */
static void test_goaway_waiting(void **state)
{
	struct pair x;

	(void)state;
	pair_open(&x, 1);
	for (int i = 0; i < 251; i++)
		ask(i, NULL, 0);
	pump();
	assert_int_equal(x.ended[250], 0);
	h2_goaway(x.s.h2);
	pump();
	h2_end(x.st[0]);
	pump();
	assert_int_equal(x.ended[0], 1);
	assert_int_equal(x.ended[250], 1);
	assert_true(x.error[250] < 0);
	pair_close(&x);
}

static void test_free_inside(void **state)
{
	struct pair x;

	(void)state;
	pair_open(&x, 2);
	ask(0, "{}", 2);
	ask(1, "{}", 2);
	pump();
	assert_null(x.s.h2);
	assert_int_equal(x.s_closed, 1);
	assert_int_equal(x.s_error, -EPIPE);
	pair_close(&x);
	assert_int_equal(x.ended[0], 1);
	assert_int_equal(x.ended[1], 1);
}

static void test_transport_fails(void **state)
{
	struct pair x;

	(void)state;
	pair_open(&x, 1);
	ask(0, NULL, 0);
	pump();
	x.c.fail = -EPIPE;
	ask(1, NULL, 0);
	assert_int_equal(x.session_error, -EPIPE);
	assert_int_equal(x.error[0], -EPIPE);
	assert_int_equal(x.error[1], -EPIPE);
	assert_int_equal(h2_feed(x.c.h2, (const uint8_t *)"", 1), -EPIPE);
	assert_true(h2_finished(x.c.h2));
	pair_close(&x);
}

static void test_garbage(void **state)
{
	static const uint8_t ping[17] = { 0, 0, 8, 6 };
	struct pair x;
	int r = 0;

	(void)state;
	pair_open(&x, 1);
	assert_true(h2_feed(x.s.h2, (const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18) < 0);
	pair_close(&x);
	/* PINGs whose answers nobody takes */
	pair_open(&x, 1);
	x.stuck = true;
	buf_put(&x.s.out, (uint8_t[H2_TRANSPORT_HIGH + 1]){ 0 }, H2_TRANSPORT_HIGH + 1);
	for (int i = 0; i < 1000 && r == 0; i++)
		r = h2_feed(x.s.h2, ping, sizeof(ping));
	assert_int_equal(r, -ENOBUFS);
	pair_close(&x);
}

static void test_streams_limit(void **state)
{
	struct pair x;

	(void)state;
	pair_open(&x, 1);
	for (int i = 0; i < 260; i++)
		ask(i, NULL, 0);
	pump();
	assert_int_equal(x.n_st, H2_STREAMS_MAX); /* the client waits with the rest */
	assert_int_equal(h2_open_streams(x.s.h2), H2_STREAMS_MAX);
	pair_close(&x);
}

/* ---- a client that writes frames of its own */

static int raw_feed(uint8_t type, uint8_t flags, uint32_t id, const void *body, size_t n)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	const uint8_t head[] = { (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags, 0, (uint8_t)(id >> 16),
				 (uint8_t)(id >> 8), (uint8_t)id };

	buf_put(&b, head, sizeof(head));
	buf_put(&b, body, n);
	return h2_feed(p->s.h2, buf_data(&b), b.len);
}

static void raw_frame(uint8_t type, uint8_t flags, uint32_t id, const void *body, size_t n)
{
	assert_int_equal(raw_feed(type, flags, id, body, n), 0);
	buf_clear(&p->s.out);
}

static void raw_open(struct pair *x, int mode, uint8_t window)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	const uint8_t settings[] = { 0, 4, 0, 0, 0, window };

	memset(x, 0, sizeof(*x));
	p = x;
	x->mode = mode;
	assert_int_equal(h2_server_new(&io, &x->s, &server_ops, NULL, &x->s.h2), 0);
	assert_int_equal(h2_feed(x->s.h2, (const uint8_t *)preface, sizeof(preface) - 1), 0);
	raw_frame(4, 0, 0, settings, sizeof(settings));
}

static const char raw_head[] = "\x83\x87\x84\x01\x01x"; /* POST, https, /, authority x */

static void raw_post(uint32_t id, bool whole)
{
	raw_frame(1, whole ? 5 : 4, id, raw_head, sizeof(raw_head) - 1);
}

/* Settings, over and over: answers that nobody takes, and more at once than there are. */
static void test_settings_flood(void **state)
{
	uint8_t many[33 * 6] = { 0 };
	struct pair x;
	int i, r = 0;

	(void)state;
	raw_open(&x, 0, 255);
	buf_put(&x.s.out, (uint8_t[H2_TRANSPORT_HIGH + 1]){ 0 }, H2_TRANSPORT_HIGH + 1);
	for (i = 0; i < 1000 && r == 0; i++)
		r = raw_feed(4, 0, 0, NULL, 0);
	assert_int_equal(r, -ENOBUFS);
	assert_in_range(i, 100, 110);
	pair_close(&x);
	raw_open(&x, 0, 255);
	for (i = 0; i < 33; i++)
		many[i * 6 + 1] = 3;
	assert_true(raw_feed(4, 0, 0, many, sizeof(many)) < 0);
	pair_close(&x);
}

/* Requests that are taken back, as fast as it goes: no more of them are begun. */
static void test_reset_flood(void **state)
{
	static const uint8_t cancel[] = { 0, 0, 0, 8 };
	struct pair x;
	int r = 0, i;

	(void)state;
	raw_open(&x, 0, 255);
	for (i = 0; i < 5000 && r == 0; i++) {
		r = raw_feed(1, 4, (uint32_t)i * 2 + 1, raw_head, sizeof(raw_head) - 1);
		if (r == 0)
			r = raw_feed(3, 0, (uint32_t)i * 2 + 1, cancel, sizeof(cancel));
		buf_clear(&x.s.out);
	}
	assert_true(r < 0);
	assert_in_range(i, 1000, 1500);
	pair_close(&x);
	raw_open(&x, 0, 255);
	raw_post(1, true); /* which is not answered yet, and goes on */
	for (i = 1; i < 5000; i++) {
		assert_int_equal(raw_feed(1, 4, (uint32_t)i * 2 + 1, raw_head, sizeof(raw_head) - 1), 0);
		if (h2_open_streams(x.s.h2) == 1)
			break;
		assert_int_equal(raw_feed(3, 0, (uint32_t)i * 2 + 1, cancel, sizeof(cancel)), 0);
		buf_clear(&x.s.out);
	}
	assert_in_range(i, 1000, 1500);
	assert_int_equal(h2_respond(x.st[0], 200, NULL, NULL, 0), 0);
	pair_close(&x);
}

/* More requests than are allowed, of one that never reads: each wants a refusal. */
static void test_refusals_flood(void **state)
{
	struct pair x;
	int r = 0, i;

	(void)state;
	raw_open(&x, 0, 255);
	buf_put(&x.s.out, (uint8_t[H2_TRANSPORT_HIGH + 1]){ 0 }, H2_TRANSPORT_HIGH + 1);
	for (i = 0; i < 50000 && r == 0; i++)
		r = raw_feed(1, 4, (uint32_t)i * 2 + 1, raw_head, sizeof(raw_head) - 1);
	assert_int_equal(r, -ENOBUFS);
	assert_in_range(i, H2_STREAMS_MAX, 2500);
	pair_close(&x);
}

/* Bodies that never end: bounded for all of a session together, and in time. */
static void test_endless_bodies(void **state)
{
	static uint8_t data[16384];
	const int each = H2_BODY_MAX / (int)sizeof(data) - 1;
	struct pair x;

	(void)state;
	raw_open(&x, 3, 255);
	for (uint32_t id = 1; id <= 9; id += 2) {
		raw_post(id, false);
		for (int i = 0; i < each; i++)
			raw_frame(0, 0, id, data, sizeof(data));
	}
	assert_int_equal(h2_open_streams(x.s.h2), 5);
	raw_frame(0, 1, 1, data, 5); /* the first were in time, the last had no room */
	assert_int_equal(x.n_st, 1);
	assert_int_equal(x.body_len, (size_t)each * sizeof(data) + 5);
	raw_frame(0, 1, 9, data, 5);
	assert_int_equal(x.n_st, 1);
	raw_post(11, false); /* what was answered made room again */
	raw_frame(0, 1, 11, data, sizeof(data));
	assert_int_equal(x.n_st, 2);
	assert_int_equal(h2_open_streams(x.s.h2), 3);
	h2_age(x.s.h2);
	assert_int_equal(h2_open_streams(x.s.h2), 3);
	raw_post(13, false); /* younger */
	raw_frame(0, 1, 3, data, 5);
	assert_int_equal(x.n_st, 3);
	h2_age(x.s.h2);
	assert_int_equal(h2_open_streams(x.s.h2), 1);
	h2_age(x.s.h2);
	assert_int_equal(h2_open_streams(x.s.h2), 0);
	pair_close(&x);
}

/* Answers that nobody takes are kept as long; those that are being written, and long polls, stay. */
static void test_unread_answers(void **state)
{
	struct pair x;

	(void)state;
	raw_open(&x, 0, 0); /* window 0 */
	for (uint32_t id = 1; id <= 7; id += 2)
		raw_post(id, true);
	assert_int_equal(x.n_st, 4);
	assert_int_equal(h2_respond(x.st[0], 200, NULL, "answer", 6), 0);
	assert_int_equal(h2_respond(x.st[1], 200, NULL, "answer", 6), 0);
	assert_int_equal(h2_respond_start(x.st[2], 200, NULL), 0);
	assert_int_equal(h2_send(x.st[2], "part", 4), 0);
	h2_age(x.s.h2);
	raw_frame(8, 0, 3, "\0\0\0\3", 4); /* WINDOW_UPDATE: three bytes of the second */
	h2_age(x.s.h2);
	assert_int_equal(h2_open_streams(x.s.h2), 3);
	assert_null(x.st[0]);
	assert_int_equal(x.s_closed, 1);
	h2_age(x.s.h2);
	h2_age(x.s.h2);
	assert_int_equal(h2_open_streams(x.s.h2), 2);
	assert_null(x.st[1]);
	assert_non_null(x.st[2]);
	assert_non_null(x.st[3]);
	pair_close(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_later),	     cmocka_unit_test(test_empty),	     cmocka_unit_test(test_fan_out),
		cmocka_unit_test(test_reset_by_client), cmocka_unit_test(test_body_limit), cmocka_unit_test(test_header_limit),
		cmocka_unit_test(test_ping_goaway), cmocka_unit_test(test_goaway_waiting),  cmocka_unit_test(test_free_inside), cmocka_unit_test(test_transport_fails),
		cmocka_unit_test(test_garbage),	     cmocka_unit_test(test_streams_limit),
		cmocka_unit_test(test_endless_bodies), cmocka_unit_test(test_unread_answers),
		cmocka_unit_test(test_head), cmocka_unit_test(test_settings_flood), cmocka_unit_test(test_reset_flood),
		cmocka_unit_test(test_refusals_flood),
	};

	for (int i = 0; i < STREAMS_MAX; i++)
		numbers[i] = i;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
