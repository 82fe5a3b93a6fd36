#pragma once
/*
 * h2_session: what the two roles of h2 share: h2.c is the session and the streams' queues of bytes to be sent,
 * h2_client.c makes requests and h2_server.c takes and answers them. For these three only.
 */
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/h2.h"

#define H2_STREAM_WINDOW   (1 << 20)
#define H2_METHOD_MAX	   16
#define H2_REQUEST_HEADERS 16 /* beyond :method and :path a handler sees so many */

struct h2_piece;

struct h2_stream {
	unsigned int refs;
	struct h2 *h;		     /* NULL once closed */
	struct h2_stream *prev, *next; /* of the session's open streams */
	int32_t id;
	int reset; /* errno that we chose by h2_reset, 0 = none */
	/* what waits to be sent */
	struct h2_piece *first, **last;
	size_t pending, n_pieces, queue_max;
	size_t aged; /* what waited when h2_age() looked last */
	bool is_aged;
	bool secret;  /* what is sent may hold a key */
	bool ending;  /* no more comes: END_STREAM after the queue */
	bool started; /* headers are out */
	bool deferred;
	/* client */
	const struct h2_client_ops *ops;
	void *data;
	/* server */
	void (*on_closed)(void *data, struct h2_stream *st, int error);
	void *closed_data;
	char method[H2_METHOD_MAX], *path;
	struct buf headers; /* name NUL value NUL … */
	unsigned int n_headers;
	size_t header_bytes;
	struct buf body;
	int status;
	bool refused, complete;
};

struct h2 {
	nghttp2_session *ng;
	const struct h2_io *io;
	void *io_data;
	bool server;
	const struct h2_server_ops *ops;
	void *data;
	struct h2_stream *open;
	size_t n_open;
	size_t bodies, bodies_max; /* of requests that are not complete */
	void (*on_pong)(void *data);
	void *pong_data;
	void (*on_error)(void *data, int r, const char *why);
	void *error_data;
	unsigned int busy; /* depth of calls that must find the session after a callback */
	int failed;
	bool lost; /* something that nghttp2 was to be told, for want of memory */
	bool told, dead;
};

/* ---- h2.c */
/* Callbacks are set, nothing is sent; h2_session_open() sends SETTINGS. */
int h2_session_new(bool server, const struct h2_io *io, void *io_data, struct h2 **ret);
int h2_session_open(struct h2 *h, const nghttp2_settings_entry *iv, size_t n);
/* Between them no callback frees the session. h2_leave() gives its state, and frees it where that was asked for. */
void h2_enter(struct h2 *h);
int h2_leave(struct h2 *h);
/* Sends what is due, unless a callback of nghttp2 is running: then its caller does. */
int h2_flush(struct h2 *h);
struct h2_stream *h2_stream_new(struct h2 *h);
void h2_stream_unlink(struct h2_stream *st);
/* The request's body, wiped: a login has its key in it. */
void h2_body_drop(struct h2_stream *st);
/* To the queue; h2_read_queue() gives it to nghttp2, h2_wake() says that there is something again. */
int h2_queue_blob(struct h2_stream *st, struct blob *b);
ssize_t h2_read_queue(nghttp2_session *ng, int32_t id, uint8_t *out, size_t max, uint32_t *flags,
		      nghttp2_data_source *src, void *data);
int h2_wake(struct h2_stream *st);

/* ---- h2_client.c: what nghttp2 says of an answer */
void h2_client_header(struct h2_stream *st, const uint8_t *name, size_t nn, const uint8_t *value, size_t vn);
void h2_client_headers(struct h2_stream *st);

/* ---- h2_server.c: and of a request */
int h2_server_header(struct h2_stream *st, const uint8_t *name, size_t nn, const uint8_t *value, size_t vn);
void h2_server_data(struct h2_stream *st, const uint8_t *p, size_t n);
void h2_server_complete(struct h2_stream *st);

static inline bool h2_usable(const struct h2_stream *st)
{
	return st->h && !st->reset && !st->h->failed && !st->h->dead;
}

static inline bool h2_name_is(const uint8_t *p, size_t n, const char *s)
{
	return strlen(s) == n && memcmp(p, s, n) == 0;
}

static inline nghttp2_nv h2_nv(const char *name, const char *value)
{
	return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name, .value = (uint8_t *)(uintptr_t)value,
			     .namelen = strlen(name), .valuelen = strlen(value), .flags = NGHTTP2_NV_FLAG_NONE };
}
