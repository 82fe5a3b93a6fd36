#pragma once
/*
 * derpc: the node's connections to relays: which regions, and when.
 *
 * Keeps the home region connected always, others while packets are sent to them. A relay that does
 * not keep a connection is dialled as seldom as one that takes none, and what it says of itself is
 * told once a second. Owns its connections and a copy of the regions; tells of packets and states
 * through struct derpc_ops: on_state may come inside the derpc_set_ calls,
 * derpc_check() and derpc_restart(), nothing comes inside derpc_send(). The callbacks may send, and
 * must not set a new map or free the object. All else (disco or WireGuard, to whom a packet
 * belongs) is the caller's.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/dial.h"
#include "lib/key.h"
#include "lib/loop.h"
#include "lib/tls.h"
#include "proto/derpmap.h"

struct derpc;

struct derpc_ops {
	/* p lives during the call. */
	void (*on_packet)(void *data, int64_t region, const struct key *src, const uint8_t *p,
			  size_t len);
	/* The peer is not (any more) at that region; enum derp_gone_reason. */
	void (*on_peer_gone)(void *data, int64_t region, const struct key *peer, uint8_t reason);
	/* text: what failed, or the relay's health message; "" when all is well. Never NULL. */
	void (*on_state)(void *data, int64_t region, bool connected, const char *text);
};

struct derpc_opts {
	const struct derpc_ops *ops;
	void *data;
	struct tls_ctx *tls;	  /* client context; a reference is taken */
	uint32_t mark;		  /* of all sockets: DIAL_MARK keeps them out of the tunnel */
	struct dial_cache *cache; /* borrowed; NULL = none */
	/*
	 * Relays without TLS, for closed networks: a relay is dialled plain after TLS with it
	 * failed, and with TLS again after that. Without it only the host of
	 * derpc_set_plain_host() is plain.
	 */
	bool allow_plain;
};

int derpc_new(struct loop *l, const struct derpc_opts *o, struct derpc **ret);
void derpc_free(struct derpc *d);
DEFINE_CLEANUP(struct derpc *, derpc_free)

/* The node's key pair (copied); a different one ends all connections. NULL: none, stay silent. */
void derpc_set_self(struct derpc *d, const struct key_pair *self);
/*
 * The regions (copied). Connections to changed or removed ones end; that of a changed home is made
 * anew. -ENOMEM leaves everything as it was.
 */
int derpc_set_map(struct derpc *d, const struct derp_map *map);
/* 0: none. Tells every open relay, and dials the new home at once. */
void derpc_set_home(struct derpc *d, int64_t region);
/* The relay inside a coordinator at http://host:port speaks without TLS. NULL: there is none. */
int derpc_set_plain_host(struct derpc *d, const char *host, uint16_t port);
/* false: closes all and dials no more, until true. */
void derpc_set_network(struct derpc *d, bool up);
/* After a change of links or addresses: what does not answer within 3 s is dialled anew. */
void derpc_check(struct derpc *d);
/* Closes all connections; home is dialled again at once. */
void derpc_restart(struct derpc *d);

/*
 * To a peer over a region; dials it where needed, and keeps 32 packets meanwhile, the oldest
 * dropped.
 * 0, -ENOENT: no such region, -EMSGSIZE, -ENETDOWN: no key or network, -ENOMEM.
 */
int derpc_send(struct derpc *d, int64_t region, const struct key *dst, const void *p, size_t len);
/* Its relay would be dialled without TLS now. */
bool derpc_is_plain(const struct derpc *d, int64_t region);
int64_t derpc_home(const struct derpc *d);
bool derpc_connected(const struct derpc *d, int64_t region);

struct derpc_info {
	int64_t region;
	bool home, connected, dialling, tls;
	struct endpoint remote; /* of a connected relay */
	const char *node;	/* its name; borrowed until the map changes */
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, tx_dropped;
	uint64_t heard_usec;   /* 0: never */
	unsigned int failures; /* in a row */
	const char *text;      /* last failure or health message; "" */
};
/* Regions that are connected, being dialled, or failing. Returns how many were written. */
size_t derpc_list(const struct derpc *d, struct derpc_info *out, size_t max);
