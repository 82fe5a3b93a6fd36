#include "daemon/path/peertab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

uint64_t peertab_hash(const struct peertab *t, const void *k, size_t len)
{
	uint64_t h;

	crypto_shorthash((unsigned char *)&h, k, len, t->hash_key);
	return h;
}

static size_t bucket_of(const struct peertab *t, const void *k, size_t len)
{
	return (size_t)peertab_hash(t, k, len) & (t->n_buckets - 1);
}

#define LINK(t, table, field, key)                                                                 \
	do {                                                                                       \
		struct paths_peer **link_ = &(t)->table[bucket_of(t, &(key), sizeof(key))];        \
		peer->field = *link_;                                                              \
		*link_ = peer;                                                                     \
	} while (0)

#define UNLINK(t, table, field, key)                                                               \
	do {                                                                                       \
		struct paths_peer **link_ = &(t)->table[bucket_of(t, &(key), sizeof(key))];        \
		while (*link_ && *link_ != peer)                                                   \
			link_ = &(*link_)->field;                                                  \
		if (*link_)                                                                        \
			*link_ = peer->field;                                                      \
	} while (0)

struct paths_peer *peertab_by_id(const struct peertab *t, uint32_t id)
{
	struct paths_peer *peer = t->by_id[bucket_of(t, &id, sizeof(id))];

	while (peer && peer->id != id)
		peer = peer->next_id;
	return peer;
}

struct paths_peer *peertab_by_node(const struct peertab *t, const struct key *node)
{
	struct paths_peer *peer = t->by_node[bucket_of(t, node, sizeof(*node))];

	while (peer && memcmp(&peer->node, node, sizeof(*node)) != 0)
		peer = peer->next_node;
	return peer;
}

static struct paths_peer *match_disco(struct paths_peer *peer, const struct key *disco)
{
	while (peer && memcmp(&peer->disco, disco, sizeof(*disco)) != 0)
		peer = peer->next_disco;
	return peer;
}

struct paths_peer *peertab_by_disco(const struct peertab *t, const struct key *disco)
{
	return match_disco(t->by_disco[bucket_of(t, disco, sizeof(*disco))], disco);
}

struct paths_peer *peertab_next_disco(const struct paths_peer *peer)
{
	return match_disco(peer->next_disco, &peer->disco);
}

static void link_peer(struct peertab *t, struct paths_peer *peer)
{
	LINK(t, by_id, next_id, peer->id);
	LINK(t, by_node, next_node, peer->node);
	if (!key_is_zero(&peer->disco))
		LINK(t, by_disco, next_disco, peer->disco);
}

static int resize(struct peertab *t, size_t n)
{
	struct paths_peer **id = calloc(n, sizeof(struct paths_peer *)), **old = t->by_id;
	struct paths_peer **node = calloc(n, sizeof(struct paths_peer *));
	struct paths_peer **disco = calloc(n, sizeof(struct paths_peer *));
	size_t n_old = t->n_buckets;

	if (!id || !node || !disco) {
		free(id);
		free(node);
		free(disco);
		return -ENOMEM;
	}
	free(t->by_node);
	free(t->by_disco);
	t->by_id = id;
	t->by_node = node;
	t->by_disco = disco;
	t->n_buckets = n;
	for (size_t i = 0; i < n_old; i++) {
		for (struct paths_peer *peer = old[i], *next; peer; peer = next) {
			next = peer->next_id;
			link_peer(t, peer);
		}
	}
	free(old);
	return 0;
}

int peertab_init(struct peertab *t)
{
	*t = (struct peertab){ 0 };
	randombytes_buf(t->hash_key, sizeof(t->hash_key));
	return resize(t, 64);
}

static void peer_free(struct paths_peer *peer)
{
	path_free(peer->path);
	free(peer->endpoints);
	free(peer);
}

void peertab_done(struct peertab *t)
{
	for (size_t i = 0; t->by_id && i < t->n_buckets; i++) {
		for (struct paths_peer *peer = t->by_id[i], *next; peer; peer = next) {
			next = peer->next_id;
			peer_free(peer);
		}
	}
	free(t->by_id);
	free(t->by_node);
	free(t->by_disco);
	free(t->heap);
	*t = (struct peertab){ 0 };
}

int peertab_add(struct peertab *t, struct paths_peer *peer)
{
	if (t->n >= t->n_buckets && resize(t, t->n_buckets * 2) < 0)
		return -ENOMEM;
	link_peer(t, peer);
	t->n++;
	return 0;
}

void peertab_remove(struct peertab *t, struct paths_peer *peer)
{
	peertab_rest(t, peer);
	UNLINK(t, by_id, next_id, peer->id);
	UNLINK(t, by_node, next_node, peer->node);
	if (!key_is_zero(&peer->disco))
		UNLINK(t, by_disco, next_disco, peer->disco);
	t->n--;
	peer_free(peer);
}

void peertab_set_disco(struct peertab *t, struct paths_peer *peer, const struct key *disco)
{
	if (!key_is_zero(&peer->disco))
		UNLINK(t, by_disco, next_disco, peer->disco);
	peer->disco = *disco;
	if (!key_is_zero(&peer->disco))
		LINK(t, by_disco, next_disco, peer->disco);
}

/* ---- the heap of active peers ---- */

static void put(struct peertab *t, size_t i, struct paths_peer *peer)
{
	t->heap[i] = peer;
	peer->slot = (uint32_t)i;
}

static void up(struct peertab *t, size_t i)
{
	struct paths_peer *peer = t->heap[i];

	for (; i && t->heap[(i - 1) / 2]->due > peer->due; i = (i - 1) / 2)
		put(t, i, t->heap[(i - 1) / 2]);
	put(t, i, peer);
}

static void down(struct peertab *t, size_t i)
{
	struct paths_peer *peer = t->heap[i];

	for (;;) {
		size_t c = 2 * i + 1;

		if (c + 1 < t->n_heap && t->heap[c + 1]->due < t->heap[c]->due)
			c++;
		if (c >= t->n_heap || t->heap[c]->due >= peer->due)
			break;
		put(t, i, t->heap[c]);
		i = c;
	}
	put(t, i, peer);
}

int peertab_activate(struct peertab *t, struct paths_peer *peer, struct path *path)
{
	if (t->n_heap == t->cap_heap) {
		size_t cap = t->cap_heap ? t->cap_heap * 2 : 16;
		struct paths_peer **v = reallocarray(t->heap, cap, sizeof(struct paths_peer *));

		if (!v)
			return -ENOMEM;
		t->heap = v;
		t->cap_heap = cap;
	}
	peer->path = path;
	peer->due = UINT64_MAX;
	put(t, t->n_heap++, peer);
	return 0;
}

void peertab_rest(struct peertab *t, struct paths_peer *peer)
{
	struct paths_peer *last;
	size_t i = peer->slot;

	if (!peer->path)
		return;
	path_free(TAKE(peer->path));
	last = t->heap[--t->n_heap];
	if (last == peer)
		return;
	put(t, i, last);
	up(t, i);
	down(t, last->slot);
}

void peertab_set_due(struct peertab *t, struct paths_peer *peer, uint64_t due)
{
	if (due == peer->due)
		return;
	peer->due = due;
	up(t, peer->slot);
	down(t, peer->slot);
}

void peertab_sort(struct peertab *t)
{
	for (size_t i = 0; i < t->n_heap; i++)
		up(t, i);
}
