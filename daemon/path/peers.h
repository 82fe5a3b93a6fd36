#pragma once
/*
 * peers: the table of peers behind paths: by number, by node key, by disco key, by when they are
 * due.
 *
 * Owns the peers and their active paths. No decisions. Only paths*.c include it.
 */
#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/path/path.h"
#include "lib/addr.h"
#include "lib/key.h"

struct paths;

struct paths_peer {
	struct paths *owner;
	struct paths_peer *next_id, *next_node, *next_disco;
	struct path *path; /* NULL while idle */
	struct endpoint *endpoints;
	uint64_t due;
	uint32_t id;
	uint32_t slot;	      /* in the heap, while there is a path */
	uint16_t home, heard; /* regions: its own, and where it was last heard */
	uint8_t n_endpoints;
	struct key node;
	struct key disco;     /* in use */
	struct key map_disco; /* as the map last said */
};

struct peers {
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	struct paths_peer **by_id, **by_node, **by_disco;
	size_t n_buckets, n;
	struct paths_peer **heap; /* peers with a path, the one that is due first at 0 */
	size_t n_heap, cap_heap;
};

int peers_init(struct peers *t);
void peers_done(struct peers *t); /* frees the peers */
uint64_t peers_hash(const struct peers *t, const void *k, size_t len);

struct paths_peer *peers_by_id(const struct peers *t, uint32_t id);
struct paths_peer *peers_by_node(const struct peers *t, const struct key *node);
/* The first peer with that key, and the next one: one key may belong to several (disco.md 1). */
struct paths_peer *peers_by_disco(const struct peers *t, const struct key *disco);
struct paths_peer *peers_next_disco(const struct paths_peer *peer);

/* Takes the peer over. -ENOMEM: it stays the caller's. */
int peers_add(struct peers *t, struct paths_peer *peer);
void peers_remove(struct peers *t, struct paths_peer *peer); /* frees it */
void peers_set_disco(struct peers *t, struct paths_peer *peer, const struct key *disco);

/* Takes the path over, due never. -ENOMEM: it stays the caller's. */
int peers_activate(struct peers *t, struct paths_peer *peer, struct path *path);
void peers_rest(struct peers *t, struct paths_peer *peer); /* frees its path, if any */
void peers_set_due(struct peers *t, struct paths_peer *peer, uint64_t due);
/* After many ->due were changed. */
void peers_sort(struct peers *t);
