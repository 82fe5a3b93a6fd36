#pragma once
/*
 * ts2021_conn: the Noise channel as a connection: upgrade, handshake, early payload, then bytes both ways.
 *
 * The one file of this folder with I/O, all of it by struct stream, which it owns. Carries HTTP/2
 * (lib/h2.h) for both roles. May be freed inside its callbacks.
 */
#include <stdint.h>

#include "lib/cleanup.h"
#include "lib/httpd.h"
#include "lib/key.h"
#include "lib/stream.h"

struct ts2021_conn;

struct ts2021_conn_ops {
	/* Client: handshake done; write now. Server: not called (it is ready when made). Optional. */
	void (*on_ready)(void *data, struct ts2021_conn *c);
	/* Plaintext behind the early payload. */
	void (*on_input)(void *data, struct ts2021_conn *c, const uint8_t *p, size_t n);
	void (*on_drained)(void *data, struct ts2021_conn *c); /* optional */
	/* Around the work on what one turn of the loop received, on_input calls and records without any: to know what it
	 * costs. Optional. */
	void (*on_batch)(void *data, struct ts2021_conn *c, bool begins);
	/* Last callback; the owner frees. error 0: the peer's orderly end. -EKEYREJECTED: the server has another key
	 * or refuses the version (closed right after 101, control.md T3; or status 400); -EPROTO: it did not upgrade (why holds the status). */
	void (*on_closed)(void *data, struct ts2021_conn *c, int error, const char *why);
};

struct ts2021_client_opts {
	const char *host;		/* Host header, with port */
	const struct key_pair *machine; /* copied, wiped */
	const struct key *server;
	uint16_t version;
	uint64_t handshake_usec; /* 0 = 10 s */
};

/* Takes the stream (TLS may still be shaking hands) on success. */
int ts2021_conn_client(struct stream *s, const struct ts2021_client_opts *o,
		       const struct ts2021_conn_ops *ops, void *data, struct ts2021_conn **ret);
/*
 * Takes over a request for TS2021_PATH: writes 101, response and early payload. On failure the request has been
 * answered (400) and the result is negative. early: send the early payload (stock clients take both).
 */
int ts2021_conn_server(struct httpd_req *q, const struct key_pair *server, bool early,
		       const struct ts2021_conn_ops *ops, void *data, struct ts2021_conn **ret);
void ts2021_conn_free(struct ts2021_conn *c);
DEFINE_CLEANUP(struct ts2021_conn *, ts2021_conn_free)

/* As stream_write(): all or nothing, -ENOBUFS, -EPIPE. */
int ts2021_conn_write(struct ts2021_conn *c, const uint8_t *p, size_t n);
size_t ts2021_conn_pending(const struct ts2021_conn *c);
/* Client: the server's key; server: the client's machine key. */
const struct key *ts2021_conn_peer(const struct ts2021_conn *c);
uint16_t ts2021_conn_version(const struct ts2021_conn *c);
struct stream *ts2021_conn_stream(struct ts2021_conn *c); /* borrowed: peer address, limits */
