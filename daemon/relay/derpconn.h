#pragma once
/*
 * derpconn: one attempt at a relay connection, from dialling to its end, as a DERP client.
 *
 * Owns its socket and its timers; the packets that wait are the region's and outlive it. Knows
 * nothing of homes, routes or trying again: derpc does. One object is one attempt; on_down is its
 * last callback. Callbacks never come inside the calls below; derpconn_free() may be called in
 * them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/dial.h"
#include "lib/key.h"
#include "lib/loop.h"
#include "lib/tls.h"
#include "proto/derpmap.h"

struct derpconn;

#define DERP_QUEUE_PACKETS 32

/* SendPacket frames that wait for a connection or its socket; the oldest makes room. */
struct derp_queue {
	struct buf at[DERP_QUEUE_PACKETS];
	unsigned int head, n;
	uint64_t dropped;
};
/* 0; -EMSGSIZE; -ENOMEM. */
int derp_queue_push(struct derp_queue *q, const struct key *dst, const uint8_t *p, size_t len);
void derp_queue_clear(struct derp_queue *q);

/* How far an attempt came. */
enum derpconn_reach {
	DERPCONN_REACH_NOTHING, /* no TCP connection */
	DERPCONN_REACH_TCP,
	DERPCONN_REACH_TLS, /* or a plain stream: HTTP and the greeting are next */
	DERPCONN_REACH_UP,
};

struct derpconn_ops {
	void (*on_up)(void *data,
		      struct derpconn *c); /* ServerInfo is in: the relay has admitted us */
	void (*on_packet)(void *data, struct derpconn *c, const struct key *src, const uint8_t *p,
			  size_t len);
	void (*on_gone)(void *data, struct derpconn *c, const struct key *peer, uint8_t reason);
	void (*on_health)(void *data, struct derpconn *c, const char *text); /* "" is well again */
	void (*on_down)(void *data, struct derpconn *c, int error, const char *why);
};

struct derpconn_opts {
	const struct derpconn_ops *ops;
	void *data;
	const struct derp_region *region; /* borrowed, outlives the connection */
	const struct key_pair *self;	  /* the node's; borrowed likewise */
	struct derp_queue *queue;	  /* likewise */
	struct tls_ctx *tls;
	uint32_t mark;
	struct dial_cache *cache;
	size_t first_node; /* where in the list to begin */
	bool home;	   /* says NotePreferred as it greets */
	bool plain_all;	   /* every relay of the region without TLS */
	/* The relay inside a coordinator with an http:// address has no TLS; host NULL: none. */
	const char *plain_host; /* borrowed */
	uint16_t plain_port;
};

int derpconn_new(struct loop *l, const struct derpconn_opts *o, struct derpconn **ret);
void derpconn_free(struct derpconn *c);
DEFINE_CLEANUP(struct derpconn *, derpconn_free)

/* Sends what waits in the queue, as far as connection and socket allow. */
void derpconn_run(struct derpconn *c);
void derpconn_prefer(struct derpconn *c, bool home);
/* The relay has to answer within the time, or the connection is down. */
void derpconn_check(struct derpconn *c, uint64_t within_usec);

bool derpconn_up(const struct derpconn *c);
bool derpconn_tls(const struct derpconn *c);
bool derpconn_fast(const struct derpconn *c); /* knew the relay's key by its certificates */
enum derpconn_reach derpconn_reached(const struct derpconn *c);
size_t derpconn_node(const struct derpconn *c); /* index of the node dialled last */
const struct endpoint *derpconn_remote(const struct derpconn *c);
const struct key *derpconn_server_key(const struct derpconn *c);

/* Whether a relay is dialled without TLS: all are, or it is the one at this host and port. */
bool derpconn_is_plain(const struct derp_node *n, bool all, const char *host, uint16_t port);
