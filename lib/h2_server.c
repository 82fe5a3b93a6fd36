/* h2's servers: a request as it comes in, and its answer. */
#include "lib/h2.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/h2_session.h"

#define PATH_MAX_BYTES 2048

int h2_server_header(struct h2_stream *st, const uint8_t *name, size_t nn, const uint8_t *value, size_t vn)
{
	st->header_bytes += nn + vn + 32; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
	if (st->header_bytes > H2_HEADER_LIST_MAX)
		return -ENOBUFS;
	if (h2_name_is(name, nn, ":method")) {
		if (vn >= sizeof(st->method))
			return -EBADMSG;
		memcpy(st->method, value, vn);
	} else if (h2_name_is(name, nn, ":path")) {
		if (vn > PATH_MAX_BYTES || st->path)
			return -EBADMSG;
		st->path = strndup((const char *)value, vn);
		return st->path ? 0 : -ENOMEM;
	} else if (name[0] != ':' && st->n_headers < H2_REQUEST_HEADERS) {
		st->n_headers++;
		buf_put(&st->headers, name, nn);
		buf_put_u8(&st->headers, 0);
		buf_put(&st->headers, value, vn);
		buf_put_u8(&st->headers, 0);
	}
	return 0;
}

static void server_refuse(struct h2_stream *st)
{
	st->refused = true;
	h2_body_drop(st);
	h2_respond(st, 413, "text/plain", "request body too large\n", 23);
}

void h2_server_data(struct h2_stream *st, const uint8_t *p, size_t n)
{
	struct h2 *h = st->h;

	if (st->refused)
		return;
	if (h->bodies + n > h->bodies_max || buf_put(&st->body, p, n) < 0) {
		server_refuse(st);
		return;
	}
	h->bodies += n;
	if (st->body.len > H2_BODY_MAX)
		server_refuse(st);
}

void h2_server_complete(struct h2_stream *st)
{
	static const char front[] = "/";

	if (st->complete || st->refused)
		return;
	st->complete = true;
	h2_stream_ref(st);
	st->h->ops->on_request(st->h->data, st, st->method, st->path ? st->path : front, buf_data(&st->body),
			       st->body.len);
	h2_body_drop(st); /* a long poll keeps no copy of its request */
	h2_stream_unref(st);
}

int h2_server_new(const struct h2_io *io, void *io_data, const struct h2_server_ops *ops, void *data,
		  struct h2 **ret)
{
	static const nghttp2_settings_entry iv[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_STREAMS_MAX },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADER_LIST_MAX },
	};
	CLEANUP(h2_free) struct h2 *h = NULL;
	int r = h2_session_new(true, io, io_data, &h);

	if (r < 0)
		return r;
	h->ops = ops;
	h->data = data;
	r = h2_session_open(h, iv, ARRAY_SIZE(iv));
	if (r < 0)
		return r;
	*ret = TAKE(h);
	return 0;
}

const char *h2_header(const struct h2_stream *st, const char *name)
{
	const char *p = (const char *)buf_data(&st->headers);
	const char *end = p + st->headers.len;

	while (p < end) {
		const char *value = p + strlen(p) + 1;

		if (strcmp(p, name) == 0)
			return value;
		p = value + strlen(value) + 1;
	}
	return NULL;
}

void h2_set_bodies_max(struct h2 *h, size_t max)
{
	h->bodies_max = max;
}

static bool on_its_way(const struct h2_stream *st)
{
	return (!st->complete && !st->refused) || st->ending;
}

/* The same as at the last look: a body that is still not whole, or an answer of which nothing was taken. */
static bool stuck(struct h2_stream *st)
{
	bool body = !st->complete && !st->refused;
	bool again = st->is_aged && (body || (st->ending && st->aged == st->pending));

	st->is_aged = on_its_way(st);
	st->aged = st->pending;
	return again;
}

bool h2_under_way(const struct h2 *h)
{
	for (const struct h2_stream *st = h->open; st; st = st->next)
		if (!st->reset && on_its_way(st))
			return true;
	return false;
}

void h2_age(struct h2 *h)
{
	struct h2_stream *st, *next;

	if (h->dead || h->failed || h->busy)
		return;
	h2_enter(h); /* streams that end stay in the list until we have seen it all */
	for (st = h->open; st; st = next) {
		next = st->next;
		if (!st->reset && stuck(st))
			h2_reset(st);
	}
	h2_leave(h);
	h2_flush(h);
}

void h2_on_closed(struct h2_stream *st, void (*fn)(void *data, struct h2_stream *st, int error), void *data)
{
	st->on_closed = fn;
	st->closed_data = data;
}

int h2_respond_start(struct h2_stream *st, int status, const char *type)
{
	nghttp2_data_provider body = { .read_callback = h2_read_queue };
	char code[8];
	nghttp2_nv all[2];
	size_t n = 0;

	if (!h2_usable(st))
		return -EPIPE;
	if (st->started)
		return -EALREADY;
	snprintf(code, sizeof(code), "%03d", status);
	all[n++] = h2_nv(":status", code);
	if (type)
		all[n++] = h2_nv("content-type", type);
	if (nghttp2_submit_response(st->h->ng, st->id, all, n, &body) != 0)
		return -ENOMEM;
	st->started = true;
	return h2_flush(st->h);
}

int h2_respond(struct h2_stream *st, int status, const char *type, const void *p, size_t len)
{
	CLEANUP(blob_unref) struct blob *b = NULL;
	nghttp2_data_provider body = { .read_callback = h2_read_queue };
	char code[8], length[24];
	nghttp2_nv all[3];
	size_t n = 0;
	int r = 0;

	if (!h2_usable(st))
		return -EPIPE;
	if (st->started)
		return -EALREADY;
	snprintf(code, sizeof(code), "%03d", status);
	snprintf(length, sizeof(length), "%zu", len);
	all[n++] = h2_nv(":status", code);
	if (type)
		all[n++] = h2_nv("content-type", type);
	if (status != 204 && status != 304)
		all[n++] = h2_nv("content-length", length);
	if (!strcmp(st->method, "HEAD"))
		len = 0;
	st->queue_max = SIZE_MAX;
	if (len) {
		b = blob_new(p, len);
		r = b ? h2_queue_blob(st, b) : -ENOMEM;
	}
	if (r < 0)
		return r;
	st->ending = st->started = true;
	if (nghttp2_submit_response(st->h->ng, st->id, all, n, len ? &body : NULL) != 0)
		return -ENOMEM;
	return h2_flush(st->h);
}

int h2_send_blob(struct h2_stream *st, struct blob *b)
{
	int r;

	if (h2_usable(st) && !st->started)
		return -EPROTO;
	r = h2_queue_blob(st, b);
	return r < 0 ? r : h2_wake(st);
}

int h2_send(struct h2_stream *st, const void *p, size_t n)
{
	CLEANUP(blob_unref) struct blob *b = blob_new(p, n);

	return b ? h2_send_blob(st, b) : -ENOMEM;
}

void h2_set_queue_max(struct h2_stream *st, size_t max)
{
	st->queue_max = max;
}

size_t h2_pending(const struct h2_stream *st)
{
	return st->pending;
}

int h2_end(struct h2_stream *st)
{
	if (!h2_usable(st))
		return -EPIPE;
	st->ending = true;
	return st->started ? h2_wake(st) : -EPROTO;
}
