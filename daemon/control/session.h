#pragma once
/*
 * session: one connection to the coordination server: TCP, TLS, upgrade, Noise, HTTP/2.
 *
 * Owns everything below it. Never dials again by itself: when it has closed, its owner frees it. Reads no
 * faster than policy.h's toll allows, and gives the loop its turn: session_tired().
 */
#include "lib/cleanup.h"
#include "lib/dial.h"
#include "lib/h2.h"
#include "lib/key.h"
#include "lib/loop.h"
#include "lib/tls.h"

struct session;

struct session_ops {
	void (*on_ready)(void *data);
	/* Once, last; every request has ended with -EPIPE. error: -EKEYREJECTED where the server has another
	 * key or refuses our version; 0 its orderly end; else what went wrong. */
	void (*on_closed)(void *data, int error, const char *why);
	/* After session_tired() was true: time to go on with what waits. */
	void (*on_turn)(void *data);
};

struct session_opts {
	const char *server_url;
	const struct key_pair *machine;
	const struct key *server_key;
	struct tls_ctx *tls; /* for https:// */
	uint32_t mark;
	struct dial_cache *cache;
};

int session_new(struct loop *l, const struct session_opts *o, const struct session_ops *ops,
		void *data, struct session **ret);
/* Also inside its callbacks. Running requests end with -EPIPE before this returns. */
void session_free(struct session *s);
DEFINE_CLEANUP(struct session *, session_free)

bool session_ready(const struct session *s);
/* -ENOTCONN before on_ready. */
int session_request(struct session *s, const char *method, const char *path, const struct key *node,
		    const void *body, size_t len, const struct h2_client_ops *ops, void *data,
		    struct h2_stream **ret);
/* Asked between two pieces of work on what was received: true when this turn of the loop has had its time. What is
 * left has to wait then; nothing more is read, and on_turn comes. */
bool session_tired(struct session *s);
/* fn when the server has answered. */
int session_ping(struct session *s, void (*fn)(void *data), void *data);
