#pragma once
/*
 * h2: HTTP/2 sessions of nghttp2 over any byte transport, client and server. No I/O of its own.
 *
 * The owner feeds what the transport read and gives a function that writes; both ends keep windows
 * open by themselves. Everything may be called inside the callbacks, h2_free() included. When the
 * transport has more than H2_TRANSPORT_HIGH bytes queued, sending stops until h2_drained().
 *
 * A stream handle is valid until its on_closed (server) or on_end (client) has returned; calls made
 * on it there give -EPIPE. Who cannot promise that takes a reference.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/blob.h"
#include "lib/cleanup.h"
#include "lib/http.h"

#define H2_TRANSPORT_HIGH   (256u << 10)
#define H2_HEADER_LIST_MAX  16384
#define H2_STREAMS_MAX	    250
#define H2_BODY_MAX	    (1u << 20)
#define H2_BODIES_MAX	    (3u << 20) /* all bodies of a session that are on their way in */
#define H2_STREAM_QUEUE_MAX (16u << 20) /* default ceiling of h2_send, see h2_set_queue_max */

struct h2;
struct h2_stream;

struct h2_io {
	/* All or nothing; negative ends the session. */
	int (*write)(void *data, const uint8_t *p, size_t n);
	/* Bytes that wait in the transport; NULL = none ever. */
	size_t (*pending)(void *data);
};

struct h2_header {
	const char *name; /* lower case */
	const char *value;
};

/* ---- both */
/* Bytes from the transport. 0, or negative: the session is over (streams have been closed), drop the transport. */
int h2_feed(struct h2 *h, const uint8_t *p, size_t n);
/* The transport has room again. 0 or negative as above. */
int h2_drained(struct h2 *h);
/* Closes every stream (callbacks come with -EPIPE), frees. Sends nothing. */
void h2_free(struct h2 *h);
DEFINE_CLEANUP(struct h2 *, h2_free)
/* GOAWAY: no new streams, running ones end. */
void h2_goaway(struct h2 *h);
/* PING; on_pong comes when it is answered. */
int h2_ping(struct h2 *h, void (*on_pong)(void *data), void *data);
/* True when neither side will send anything any more: GOAWAY and no streams. */
bool h2_finished(const struct h2 *h);
size_t h2_open_streams(const struct h2 *h);
/* Told once when a write fails outside of h2_feed() and h2_drained(); streams have been closed by then. */
void h2_set_error(struct h2 *h, void (*on_error)(void *data, int r, const char *why), void *data);

struct h2_stream *h2_stream_ref(struct h2_stream *st);
void h2_stream_unref(struct h2_stream *st);
/* Drops what is queued and ends the stream (RST_STREAM CANCEL). Its last callback follows, as soon as that has been
 * handed to the transport: perhaps before this returns. */
void h2_reset(struct h2_stream *st);

/* ---- client */
struct h2_client_ops {
	/* Final status (1xx are skipped). Optional. */
	void (*on_headers)(void *data, struct h2_stream *st, int status);
	void (*on_data)(void *data, struct h2_stream *st, const uint8_t *p, size_t n);
	/* Once, last. error 0: complete; -EPIPE: session gone; -ECONNRESET: reset by the server; -ECANCELED: h2_reset. */
	void (*on_end)(void *data, struct h2_stream *st, int error);
};
struct h2_request {
	const char *method;    /* NULL = GET, or POST with a body */
	const char *scheme;    /* NULL = https */
	const char *authority; /* NULL = "unused" */
	const char *path;
	const struct h2_header *headers;
	size_t n_headers;
	const void *body; /* copied */
	size_t body_len;
};
/* Sends preface and SETTINGS at once. */
int h2_client_new(const struct h2_io *io, void *io_data, struct h2 **ret);
/* *ret is set before anything is sent: where the transport fails at once, on_end comes before this returns 0. */
int h2_request(struct h2 *h, const struct h2_request *rq, const struct h2_client_ops *ops, void *data,
	       struct h2_stream **ret);

/* ---- server */
struct h2_server_ops {
	/* A whole request: body up to H2_BODY_MAX (more is answered 413 by itself). Views die with the callback. Answer now
	 * or keep st. */
	void (*on_request)(void *data, struct h2_stream *st, const char *method, const char *path,
			   const uint8_t *body, size_t len);
};
/* Sends SETTINGS at once. */
int h2_server_new(const struct h2_io *io, void *io_data, const struct h2_server_ops *ops, void *data,
		  struct h2 **ret);
/* Another ceiling than H2_BODIES_MAX; a body beyond it is answered 413. */
void h2_set_bodies_max(struct h2 *h, size_t max);
/* To be called now and then (there is no clock in here): requests whose body was not complete at the last call either,
 * and whole answers of which nothing was taken since, are reset. */
void h2_age(struct h2 *h);
/* There is something that h2_age() has to look at: a body that is not complete, an answer that is not all sent. */
bool h2_under_way(const struct h2 *h);
/* Value of a request header (lower-case name), NULL. While st lives. A client has "retry-after" of the answer and
 * nothing else. */
const char *h2_header(const struct h2_stream *st, const char *name);
/* Told once when the stream is over, however it ended: 0 all was sent, else as on_end. */
void h2_on_closed(struct h2_stream *st, void (*fn)(void *data, struct h2_stream *st, int error), void *data);
/* The whole answer. type NULL: no content-type. */
int h2_respond(struct h2_stream *st, int status, const char *type, const void *body, size_t len);
/* A streamed one: start, send…, end. */
int h2_respond_start(struct h2_stream *st, int status, const char *type);
/* -ENOBUFS: over the ceiling, nothing queued; the caller resets the slow reader or waits. -EPIPE: closed. */
int h2_send(struct h2_stream *st, const void *p, size_t n);
int h2_send_blob(struct h2_stream *st, struct blob *b); /* takes a reference of its own */
void h2_set_queue_max(struct h2_stream *st, size_t max);
size_t h2_pending(const struct h2_stream *st);
int h2_end(struct h2_stream *st);
