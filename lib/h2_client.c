/* h2's clients: a request, and what comes back. */
#include "lib/h2.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/h2_session.h"

#define EXTRA_HEADERS_MAX 16

void h2_client_header(struct h2_stream *st, const uint8_t *name, size_t nn, const uint8_t *value, size_t vn)
{
	/* nghttp2 has checked that it is three digits. */
	if (h2_name_is(name, nn, ":status") && vn == 3)
		st->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
	/* The one header of answers that a caller acts on; the rest is not kept. */
	if (h2_name_is(name, nn, "retry-after") && vn < 64 && !st->headers.len) {
		buf_put(&st->headers, name, nn);
		buf_put_u8(&st->headers, 0);
		buf_put(&st->headers, value, vn);
		buf_put_u8(&st->headers, 0);
	}
}

void h2_client_headers(struct h2_stream *st)
{
	int status = st->status;

	if (status / 100 == 1) { /* interim */
		st->status = 0;
		return;
	}
	if (!st->complete) {
		st->complete = true;
		if (st->ops->on_headers && !st->reset)
			st->ops->on_headers(st->data, st, status);
	}
}

int h2_client_new(const struct h2_io *io, void *io_data, struct h2 **ret)
{
	static const nghttp2_settings_entry iv[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADER_LIST_MAX },
	};
	CLEANUP(h2_free) struct h2 *h = NULL;
	int r = h2_session_new(false, io, io_data, &h);

	if (r == 0)
		r = h2_session_open(h, iv, ARRAY_SIZE(iv));
	if (r < 0)
		return r;
	*ret = TAKE(h);
	return 0;
}

static int request_submit(struct h2_stream *st, const struct h2_request *rq)
{
	nghttp2_data_provider body = { .read_callback = h2_read_queue };
	nghttp2_nv all[EXTRA_HEADERS_MAX + 5];
	char length[24];
	size_t n = 0;
	int32_t id;

	all[n++] = h2_nv(":method", rq->method ? rq->method : rq->body_len ? "POST" : "GET");
	all[n++] = h2_nv(":scheme", rq->scheme ? rq->scheme : "https");
	all[n++] = h2_nv(":authority", rq->authority ? rq->authority : "unused");
	all[n++] = h2_nv(":path", rq->path);
	if (rq->body_len) {
		snprintf(length, sizeof(length), "%zu", rq->body_len);
		all[n++] = h2_nv("content-length", length);
	}
	if (rq->n_headers > EXTRA_HEADERS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < rq->n_headers; i++)
		all[n++] = h2_nv(rq->headers[i].name, rq->headers[i].value);
	id = nghttp2_submit_request(st->h->ng, NULL, all, n, rq->body_len ? &body : NULL, st);
	if (id < 0)
		return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPIPE;
	st->id = id;
	return 0;
}

int h2_request(struct h2 *h, const struct h2_request *rq, const struct h2_client_ops *ops, void *data,
	       struct h2_stream **ret)
{
	CLEANUP(blob_unref) struct blob *body = NULL;
	struct h2_stream *st;
	int r;

	if (h->dead || h->failed || !nghttp2_session_check_request_allowed(h->ng))
		return -EPIPE;
	st = h2_stream_new(h);
	if (!st)
		return -ENOMEM;
	st->queue_max = SIZE_MAX;
	st->secret = true;
	if (rq->body_len) {
		body = blob_new(rq->body, rq->body_len);
		r = body ? h2_queue_blob(st, body) : -ENOMEM;
	} else {
		r = 0;
	}
	st->ending = true;
	if (r == 0)
		r = request_submit(st, rq);
	if (r < 0) {
		h2_stream_unlink(st);
		h2_stream_unref(st);
		return r;
	}
	st->ops = ops;
	st->data = data;
	*ret = st;
	/* A failing transport ends the stream by its on_end, and the session by on_error. */
	h2_stream_ref(st);
	h2_flush(h);
	h2_stream_unref(st);
	return 0;
}
