#pragma once
/*
 * peertab: the table of peers behind paths: by number, by node key, by disco key, by when they are
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
	bool set_later; /* the kernel has to be told its endpoint, at the next tick */
	uint32_t boxes_sec;    /* the second in which these were counted: */
	uint16_t boxes_known;  /* boxes with its key from addresses that answered us */
	uint16_t boxes_strange; /* good ones from elsewhere */
	uint16_t handshakes;	/* of WireGuard's, that a relay brought in its name */
	uint16_t tsmp;		/* messages of its daemon's inside the tunnel */
	uint64_t initiated; /* when our kernel's handshake went to it by relay, unanswered; 0 = none */
	struct key node;
	struct key disco;     /* in use */
	struct key map_disco; /* as the map last said */
};

struct peertab {
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	struct paths_peer **by_id, **by_node, **by_disco;
	size_t n_buckets, n;
	struct paths_peer **heap; /* peers with a path, the one that is due first at 0 */
	size_t n_heap, cap_heap;
};

int peertab_init(struct peertab *t);
void peertab_done(struct peertab *t); /* frees the peers */
uint64_t peertab_hash(const struct peertab *t, const void *k, size_t len);

struct paths_peer *peertab_by_id(const struct peertab *t, uint32_t id);
struct paths_peer *peertab_by_node(const struct peertab *t, const struct key *node);
/* The first peer with that key, and the next one: one key may belong to several (disco.md 1). */
struct paths_peer *peertab_by_disco(const struct peertab *t, const struct key *disco);
struct paths_peer *peertab_next_disco(const struct paths_peer *peer);

/* Takes the peer over. -ENOMEM: it stays the caller's. */
int peertab_add(struct peertab *t, struct paths_peer *peer);
void peertab_remove(struct peertab *t, struct paths_peer *peer); /* frees it */
void peertab_set_disco(struct peertab *t, struct paths_peer *peer, const struct key *disco);

/* Takes the path over, due never. -ENOMEM: it stays the caller's. */
int peertab_activate(struct peertab *t, struct paths_peer *peer, struct path *path);
void peertab_rest(struct peertab *t, struct paths_peer *peer); /* frees its path, if any */
void peertab_set_due(struct peertab *t, struct paths_peer *peer, uint64_t due);
/* After many ->due were changed. */
void peertab_sort(struct peertab *t);
