#pragma once
/*
 * stream: a non-blocking byte stream on the loop, over a TCP or Unix socket, plain or TLS.
 *
 * Owns the descriptor, the queue of what is still to be written (bounded) and the bytes read but not
 * yet consumed (bounded: it stops reading when full). Everything here may be called inside the
 * stream's own callbacks, stream_free() included. Never blocks, never raises SIGPIPE, never logs.
 *
 * An idle stream holds no buffers: input is read into memory shared by all streams of the thread and
 * copied only when the callback leaves some of it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/loop.h"
#include "lib/tls.h"

struct stream;

struct stream_ops {
	/* TLS is up (for a plain stream: at once, on the first turn of the loop). Optional. */
	void (*on_ready)(void *data, struct stream *s);
	/* stream_input(s) has new bytes: consume what is whole, leave the rest. */
	void (*on_input)(void *data, struct stream *s);
	/* The queue has become empty again after a write that did not fit the socket. Optional. */
	void (*on_drained)(void *data, struct stream *s);
	/* The last callback: error 0 is the peer's orderly end, else a negative errno. why is for people, never NULL.
	 * The owner calls stream_free(), here or later. */
	void (*on_closed)(void *data, struct stream *s, int error, const char *why);
};

struct stream_opts {
	const struct stream_ops *ops;
	void *data;
	struct tls_ctx *tls;	  /* NULL: plain. A server context makes it the TLS server. */
	struct tls_expect expect; /* client role only */
	size_t out_max;		  /* most bytes queued; 0 = 1 MiB */
	size_t in_max;		  /* most bytes unread; 0 = 64 KiB */
	uint64_t handshake_usec;  /* TLS handshake deadline; 0 = 10 s */
};

/* Takes the connected fd on success only (makes it non-blocking, TCP_NODELAY). */
int stream_new(struct loop *l, int fd, const struct stream_opts *o, struct stream **ret);
/* At once, queue dropped. No callback comes any more. NULL is fine. */
void stream_free(struct stream *s);
DEFINE_CLEANUP(struct stream *, stream_free)
/* Gives the stream up: what is queued is written (while something moves every 10 s, for two minutes), then it closes and
 * frees itself. No callback comes any more, input is thrown away. In on_closed with error 0, for the other side may
 * only have ended its own half, it does the same.
 * gone (may be NULL) is told when it has freed itself, perhaps before this returns; until then stream_free() ends it at
 * once, untold, and a second call names another to be told. */
void stream_finish(struct stream *s, loop_fn *gone, void *data);

/* A new owner. Unread input is announced to the new on_input on the loop's next turn. */
void stream_set_ops(struct stream *s, const struct stream_ops *ops, void *data);
void stream_set_limits(struct stream *s, size_t out_max, size_t in_max); /* 0 = as it is */

/*
 * Writes at once what the socket takes and queues the rest. All or nothing: -ENOBUFS when the queue would pass its
 * limit (nothing written), -EPIPE once the stream is closed. Before the handshake is done everything is queued.
 */
int stream_write(struct stream *s, const void *p, size_t n);
/* Between cork and uncork writes are only queued, so that several leave as one segment or TLS record. Nests. */
void stream_cork(struct stream *s);
void stream_uncork(struct stream *s);
size_t stream_pending(const struct stream *s); /* bytes queued */

/* Unread bytes: take them with buf_data() and buf_consume(); nothing else may be done to the buffer, and views die
 * with the callback. */
struct buf *stream_input(struct stream *s);
/* Says that input was consumed outside on_input: reading goes on. */
void stream_resume(struct stream *s);
/* Stops reading (no on_input) until stream_resume(). */
void stream_pause(struct stream *s);

bool stream_ready(const struct stream *s);
bool stream_closed(const struct stream *s);
struct loop *stream_loop(const struct stream *s);
int stream_fd(const struct stream *s); /* borrowed */
/* -EAFNOSUPPORT for a Unix socket. */
int stream_peer(const struct stream *s, struct endpoint *ret);
int stream_local(const struct stream *s, struct endpoint *ret);
/* The address it sends from is none of this host's any more: TCP itself would only notice by silence. */
bool stream_stranded(const struct stream *s);
/* Plain streams with nothing queued only: gives the descriptor back and frees the stream; unread bytes are appended
 * to rest (may be NULL). -EOPNOTSUPP for TLS, -EAGAIN while something is queued. */
int stream_detach(struct stream *s, struct buf *rest);

bool stream_is_tls(const struct stream *s);
int stream_tls_version(const struct stream *s); /* 0x0303, 0x0304; 0 = plain or not ready */
/* Calls fn for each certificate the peer presented, leaf first. Returns how many, or what fn returned below 0. */
int stream_peer_certs(const struct stream *s, int (*fn)(void *data, const struct tls_cert *c),
		      void *data);
