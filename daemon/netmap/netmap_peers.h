#pragma once
/*
 * netmap_peers: the set of peers of one map, found by id (sorted array), by key (hash table) and by address (sorted
 * array, made when it is asked for).
 *
 * For the files of daemon/netmap only. Owns the nodes.
 */
#include <stdint.h>

#include "proto/tailcfg.h"

struct netmap_peer {
	struct tailcfg_node *node;
	uint8_t digest[16]; /* of the text the node stands for; zero when a patch changed it */
	uint32_t change;    /* during netmap_apply: index + 1 of its entry in the changes */
	bool expired;
	bool leaving; /* during netmap_apply: gone unless the message still names it */
};

struct netmap_address {
	struct addr addr;
	int64_t id;
};

struct netmap_peers {
	struct netmap_peer **by_id;
	size_t n, cap;
	struct netmap_peer **slots; /* open addressing; a power of two of them, at most half full */
	size_t n_slots;
	uint8_t seed[16];
	struct netmap_address *by_addr; /* NULL: not made since the last change */
	size_t n_addrs;
};

void netmap_peers_init(struct netmap_peers *ps);
void netmap_peers_done(struct netmap_peers *ps);
struct netmap_peer *netmap_peers_by_id(const struct netmap_peers *ps, int64_t id);
struct netmap_peer *netmap_peers_by_key(const struct netmap_peers *ps, const struct key *key);
/* Of several with that address the one with the lowest id. NULL also when there is no memory to look. */
struct netmap_peer *netmap_peers_by_addr(struct netmap_peers *ps, const struct addr *a);
/* Takes the node; neither its id nor its key is in the set. -ENOMEM, -ENOBUFS. */
int netmap_peers_add(struct netmap_peers *ps, struct tailcfg_node *n, struct netmap_peer **ret);
/* Before and after a change of p->node->key. */
void netmap_peers_key_remove(struct netmap_peers *ps, const struct netmap_peer *p);
void netmap_peers_key_insert(struct netmap_peers *ps, struct netmap_peer *p);
/* After a change of some p->node->addresses. */
void netmap_peers_addrs_changed(struct netmap_peers *ps);
void netmap_peers_remove(struct netmap_peers *ps, struct netmap_peer *p);
/* Removes all that are leaving. */
void netmap_peers_sweep(struct netmap_peers *ps);
