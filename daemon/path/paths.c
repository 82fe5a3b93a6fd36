#include "daemon/path/paths.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "proto/disco.h"

#define SECOND		 UINT64_C(1000000)
#define SHARED_SLOTS	 512
#define SHARED_PER_SEC	 2000  /* key agreements: 0.1 ms each, and whoever knows a peer's key can ask for one */
#define DISCO_PER_SEC	 20000 /* boxes opened: 10,000 active peers make 7,000 */
#define USER_PINGS_MAX	 32
#define REGIONS_DOWN_MAX 64
#define RESTUN_GAP_USEC	 (5 * SECOND)
#define LAZY_DUMPS	 5 /* nothing but idle paths of dead daemons: so much more seldom */

struct paths_peer {
	struct paths *owner;
	struct paths_peer *next_id, *next_node, *next_disco;
	struct path *path; /* NULL while idle */
	struct endpoint *endpoints;
	uint64_t due;
	uint32_t id;
	uint32_t slot; /* in the heap, while there is a path */
	uint16_t home, heard; /* regions: its own, and where it was last heard */
	uint8_t n_endpoints;
	struct key node;
	struct key disco;     /* in use */
	struct key map_disco; /* as the map last said */
};

struct shared_slot {
	struct key disco; /* zero = free */
	struct disco_shared shared;
};

struct bucket {
	uint64_t since;
	unsigned int used;
};

struct user_ping {
	int handle; /* 0 = free */
	uint32_t id;
	uint64_t until;
	paths_ping_fn *fn;
	void *data;
};

struct paths {
	const struct paths_ops *ops;
	void *data;
	struct path_env env;
	uint64_t now; /* of the entry that runs */

	struct key_pair disco;
	struct key node;
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	struct shared_slot *shared;
	struct bucket agreements, boxes;

	struct paths_peer **by_id, **by_node, **by_disco;
	size_t n_buckets, n_peers;
	struct paths_peer **heap; /* peers with a path, the one that is due first at 0 */
	size_t n_heap, cap_heap;

	struct endpoint own[DISCO_ENDPOINTS_MAX];
	size_t n_own;
	uint64_t own_at, restun_at; /* 0 = never */
	bool no_udp;

	uint64_t dumped, dump_at; /* dump_at 0 = none wanted */
	bool dump_asked;
	uint64_t wake_at;

	uint16_t down[REGIONS_DOWN_MAX];
	size_t n_down;
	struct user_ping users[USER_PINGS_MAX];
	int last_handle;

	uint8_t plain[DISCO_PLAIN_MAX];
};

/* ---- tables ---- */

static size_t slot_of(const struct paths *p, const void *k, size_t len)
{
	uint64_t h;

	crypto_shorthash((unsigned char *)&h, k, len, p->hash_key);
	return (size_t)h;
}

static size_t bucket_of(const struct paths *p, const void *k, size_t len)
{
	return slot_of(p, k, len) & (p->n_buckets - 1);
}

#define LINK(p, table, field, key)                                                                 \
	do {                                                                                       \
		struct paths_peer **link_ = &(p)->table[bucket_of(p, &(key), sizeof(key))];        \
		peer->field = *link_;                                                              \
		*link_ = peer;                                                                     \
	} while (0)

#define UNLINK(p, table, field, key)                                                               \
	do {                                                                                       \
		struct paths_peer **link_ = &(p)->table[bucket_of(p, &(key), sizeof(key))];        \
		while (*link_ && *link_ != peer)                                                   \
			link_ = &(*link_)->field;                                                  \
		if (*link_)                                                                        \
			*link_ = peer->field;                                                      \
	} while (0)

static struct paths_peer *find_id(const struct paths *p, uint32_t id)
{
	struct paths_peer *peer = p->by_id[bucket_of(p, &id, sizeof(id))];

	while (peer && peer->id != id)
		peer = peer->next_id;
	return peer;
}

static struct paths_peer *find_node(const struct paths *p, const struct key *node)
{
	struct paths_peer *peer = p->by_node[bucket_of(p, node, sizeof(*node))];

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

/* The first peer with that key; one key may belong to several (disco.md 1). */
static struct paths_peer *find_disco(const struct paths *p, const struct key *disco)
{
	return match_disco(p->by_disco[bucket_of(p, disco, sizeof(*disco))], disco);
}

static void link_peer(struct paths *p, struct paths_peer *peer)
{
	LINK(p, by_id, next_id, peer->id);
	LINK(p, by_node, next_node, peer->node);
	if (!key_is_zero(&peer->disco))
		LINK(p, by_disco, next_disco, peer->disco);
}

static int tables_resize(struct paths *p, size_t n)
{
	struct paths_peer **id = calloc(n, sizeof(struct paths_peer *)), **old = p->by_id;
	struct paths_peer **node = calloc(n, sizeof(struct paths_peer *));
	struct paths_peer **disco = calloc(n, sizeof(struct paths_peer *));
	size_t n_old = p->n_buckets;

	if (!id || !node || !disco) {
		free(id);
		free(node);
		free(disco);
		return -ENOMEM;
	}
	free(p->by_node);
	free(p->by_disco);
	p->by_id = id;
	p->by_node = node;
	p->by_disco = disco;
	p->n_buckets = n;
	for (size_t i = 0; i < n_old; i++) {
		for (struct paths_peer *peer = old[i], *next; peer; peer = next) {
			next = peer->next_id;
			link_peer(p, peer);
		}
	}
	free(old);
	return 0;
}

/* ---- the heap of active peers ---- */

static void heap_put(struct paths *p, size_t i, struct paths_peer *peer)
{
	p->heap[i] = peer;
	peer->slot = (uint32_t)i;
}

static void heap_up(struct paths *p, size_t i)
{
	struct paths_peer *peer = p->heap[i];

	for (; i && p->heap[(i - 1) / 2]->due > peer->due; i = (i - 1) / 2)
		heap_put(p, i, p->heap[(i - 1) / 2]);
	heap_put(p, i, peer);
}

static void heap_down(struct paths *p, size_t i)
{
	struct paths_peer *peer = p->heap[i];

	for (;;) {
		size_t c = 2 * i + 1;

		if (c + 1 < p->n_heap && p->heap[c + 1]->due < p->heap[c]->due)
			c++;
		if (c >= p->n_heap || p->heap[c]->due >= peer->due)
			break;
		heap_put(p, i, p->heap[c]);
		i = c;
	}
	heap_put(p, i, peer);
}

static int heap_add(struct paths *p, struct paths_peer *peer)
{
	if (p->n_heap == p->cap_heap) {
		size_t cap = p->cap_heap ? p->cap_heap * 2 : 16;
		struct paths_peer **v = reallocarray(p->heap, cap, sizeof(struct paths_peer *));

		if (!v)
			return -ENOMEM;
		p->heap = v;
		p->cap_heap = cap;
	}
	peer->due = UINT64_MAX;
	heap_put(p, p->n_heap++, peer);
	return 0;
}

static void heap_drop(struct paths *p, struct paths_peer *peer)
{
	size_t i = peer->slot;
	struct paths_peer *last = p->heap[--p->n_heap];

	if (last == peer)
		return;
	heap_put(p, i, last);
	heap_up(p, i);
	heap_down(p, last->slot);
}

static void reschedule(struct paths_peer *peer)
{
	struct paths *p = peer->owner;
	uint64_t due = path_due(peer->path);

	if (due <= p->now) /* never twice in one instant */
		due = p->now + 1;
	if (due == peer->due)
		return;
	peer->due = due;
	heap_up(p, peer->slot);
	heap_down(p, peer->slot);
}

/* ---- limits, keys ---- */

static bool bucket_take(struct bucket *b, unsigned int per_sec, uint64_t now)
{
	if (now - b->since >= SECOND) {
		b->since = now;
		b->used = 0;
	}
	return b->used < per_sec && ++b->used;
}

static void shared_forget(struct paths *p)
{
	sodium_memzero(p->shared, SHARED_SLOTS * sizeof(*p->shared));
}

static const struct disco_shared *shared_with(struct paths *p, const struct key *disco)
{
	struct shared_slot *s = &p->shared[slot_of(p, disco, sizeof(*disco)) % SHARED_SLOTS];

	if (memcmp(&s->disco, disco, sizeof(*disco)) == 0)
		return &s->shared;
	if (!bucket_take(&p->agreements, SHARED_PER_SEC, p->now))
		return NULL;
	if (disco_shared_init(&p->disco.priv, disco, &s->shared) < 0) {
		s->disco = key_zero;
		return NULL;
	}
	s->disco = *disco;
	return &s->shared;
}

/* ---- sending ---- */

static bool region_down(const struct paths *p, uint16_t region)
{
	for (size_t i = 0; i < p->n_down; i++)
		if (p->down[i] == region)
			return true;
	return false;
}

void paths_relay_state(struct paths *p, uint16_t region, bool reachable)
{
	for (size_t i = 0; i < p->n_down; i++) {
		if (p->down[i] != region)
			continue;
		if (reachable)
			p->down[i] = p->down[--p->n_down];
		return;
	}
	if (!reachable && p->n_down < REGIONS_DOWN_MAX)
		p->down[p->n_down++] = region;
}

static uint16_t region_of(const struct paths *p, const struct paths_peer *peer)
{
	if (!peer->home || (region_down(p, peer->home) && peer->heard && !region_down(p, peer->heard)))
		return peer->heard;
	return peer->home;
}

static int seal(struct paths *p, const struct key *disco, const struct disco_msg *m,
		uint8_t wire[static DISCO_WIRE_MAX])
{
	uint8_t plain[DISCO_WIRE_MAX - DISCO_OVERHEAD];
	const struct disco_shared *k = shared_with(p, disco);
	int n;

	if (!k)
		return -ENOKEY;
	n = disco_msg_encode(m, plain, sizeof(plain));
	if (n < 0)
		return n;
	return disco_seal(k, &p->disco.pub, NULL, plain, (size_t)n, wire, DISCO_WIRE_MAX);
}

static int send_udp(struct paths *p, const struct key *disco, const struct disco_msg *m,
		    const struct endpoint *to, const struct addr *from)
{
	uint8_t wire[DISCO_WIRE_MAX];
	int n = seal(p, disco, m, wire);

	return n < 0 ? n : p->ops->send_udp(p->data, to, from, wire, (size_t)n);
}

static int send_derp(struct paths *p, const struct key *disco, const struct disco_msg *m,
		     uint16_t region, const struct key *dst)
{
	uint8_t wire[DISCO_WIRE_MAX];
	int n;

	if (!region)
		return -EHOSTUNREACH;
	n = seal(p, disco, m, wire);
	if (n < 0)
		return n;
	n = p->ops->send_derp(p->data, region, dst, wire, (size_t)n);
	paths_relay_state(p, region, n >= 0);
	return n;
}

static int on_ping(void *data, const struct endpoint *to, struct disco_txid *ret)
{
	struct paths_peer *peer = data;
	struct paths *p = peer->owner;
	struct disco_msg m = { .type = DISCO_TYPE_PING };
	int r;

	if (key_is_zero(&peer->disco))
		return -ENOKEY;
	randombytes_buf(m.ping.txid.b, sizeof(m.ping.txid.b));
	m.ping.node = p->node;
	r = to ? send_udp(p, &peer->disco, &m, to, NULL) :
		 send_derp(p, &peer->disco, &m, region_of(p, peer), &peer->node);
	if (r < 0)
		return r;
	*ret = m.ping.txid;
	return 0;
}

static void on_call_me(void *data)
{
	struct paths_peer *peer = data;
	struct paths *p = peer->owner;
	struct disco_msg m = { .type = DISCO_TYPE_CALL_ME_MAYBE };

	/* What we have goes out at once; when the round finds other addresses, the peer hears again. */
	if ((!p->own_at || p->now - p->own_at > PATHS_FRESH_USEC) &&
	    (!p->restun_at || p->now - p->restun_at >= RESTUN_GAP_USEC)) {
		p->restun_at = p->now;
		p->ops->restun(p->data);
	}
	if (!p->n_own || key_is_zero(&peer->disco))
		return;
	m.call.n = p->n_own;
	memcpy(m.call.at, p->own, p->n_own * sizeof(*p->own));
	send_derp(p, &peer->disco, &m, region_of(p, peer), &peer->node);
}

static void on_set_endpoint(void *data, const struct endpoint *e)
{
	struct paths_peer *peer = data;

	peer->owner->ops->set_endpoint(peer->owner->data, peer->id, e);
}

static void on_dump(void *data)
{
	struct paths_peer *peer = data;

	peer->owner->dump_asked = true;
}

static void on_changed(void *data, enum path_state old, enum path_event why)
{
	struct paths_peer *peer = data;
	struct paths *p = peer->owner;

	if (!p->dump_at)
		p->dump_at = MAX(p->dumped + p->env.dump_gap_usec, p->now);
	if (p->ops->changed)
		p->ops->changed(p->data, peer->id, old, peer->path->state, path_event_name(why));
}

static const struct path_ops path_ops = {
	.ping = on_ping,
	.call_me = on_call_me,
	.set_endpoint = on_set_endpoint,
	.dump = on_dump,
	.changed = on_changed,
};

/* ---- beginning and end of every entry ---- */

static void begin(struct paths *p, uint64_t now)
{
	p->now = now;
}

static uint64_t next_due(const struct paths *p)
{
	uint64_t at = p->n_heap ? p->heap[0]->due : UINT64_MAX;

	if (p->dump_at)
		at = MIN(at, p->dump_at);
	for (size_t i = 0; i < USER_PINGS_MAX; i++)
		if (p->users[i].handle)
			at = MIN(at, p->users[i].until);
	return at;
}

static void end(struct paths *p)
{
	uint64_t at;

	if (p->dump_asked) {
		p->dump_asked = false;
		at = MAX(p->now, p->dumped + SECOND); /* at most one a second */
		p->dump_at = p->dump_at ? MIN(p->dump_at, at) : at;
	}
	at = next_due(p);
	if (at == p->wake_at)
		return;
	p->wake_at = at;
	p->ops->wake(p->data, at);
}

/* The peer's active part, made if need be; NULL without memory. */
static struct path *path_of(struct paths_peer *peer)
{
	struct paths *p = peer->owner;

	if (peer->path)
		return peer->path;
	peer->path = path_new(&p->env, peer, p->now);
	if (!peer->path)
		return NULL;
	if (heap_add(p, peer) < 0) {
		path_free(TAKE(peer->path));
		return NULL;
	}
	path_set_endpoints(peer->path, peer->endpoints, peer->n_endpoints, p->now);
	return peer->path;
}

static void path_drop(struct paths_peer *peer)
{
	if (!peer->path)
		return;
	heap_drop(peer->owner, peer);
	path_free(TAKE(peer->path));
}

static void run_dump(struct paths *p)
{
	bool watched = false, active = false;

	p->dumped = p->now;
	p->dump_at = 0;
	p->ops->dump(p->data);
	for (size_t i = 0; i < p->n_heap; i++) {
		const struct path *x = p->heap[i]->path;

		if (!x || !path_watched(x, p->now))
			continue;
		watched = true;
		active |= x->state != PATH_STATE_HELD || path_active(x, p->now);
	}
	if (watched)
		p->dump_at = p->now + p->env.dump_gap_usec * (active ? 1 : LAZY_DUMPS);
}

static void expire_user_pings(struct paths *p)
{
	for (size_t i = 0; i < USER_PINGS_MAX; i++) {
		struct user_ping u = p->users[i];

		if (!u.handle || u.until > p->now)
			continue;
		p->users[i].handle = 0;
		u.fn(u.data, NULL);
	}
}

void paths_tick(struct paths *p, uint64_t now)
{
	begin(p, now);
	while (p->n_heap && p->heap[0]->due <= now) {
		struct paths_peer *peer = p->heap[0];

		path_tick(peer->path, now);
		if (path_releasable(peer->path, now))
			path_drop(peer);
		else
			reschedule(peer);
	}
	if (p->dump_at && p->dump_at <= now)
		run_dump(p);
	expire_user_pings(p);
	p->wake_at = 0; /* the caller's timer has fired: set it again in any case */
	end(p);
}

/* ---- ourselves ---- */

int paths_new(const struct paths_ops *ops, void *data, struct paths **ret)
{
	CLEANUP(paths_free) struct paths *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->ops = ops;
	p->data = data;
	p->env = (struct path_env){ .ops = &path_ops, .dump_gap_usec = PATHS_DUMP_USEC };
	p->wake_at = UINT64_MAX;
	randombytes_buf(p->hash_key, sizeof(p->hash_key));
	p->shared = calloc(SHARED_SLOTS, sizeof(*p->shared));
	if (!p->shared || tables_resize(p, 64) < 0)
		return -ENOMEM;
	*ret = TAKE(p);
	return 0;
}

static void peer_free(struct paths_peer *peer)
{
	path_free(peer->path);
	free(peer->endpoints);
	free(peer);
}

void paths_free(struct paths *p)
{
	if (!p)
		return;
	for (size_t i = 0; p->by_id && i < p->n_buckets; i++) {
		for (struct paths_peer *peer = p->by_id[i], *next; peer; peer = next) {
			next = peer->next_id;
			peer_free(peer);
		}
	}
	if (p->shared)
		shared_forget(p);
	key_pair_wipe(&p->disco);
	free(p->shared);
	free(p->by_id);
	free(p->by_node);
	free(p->by_disco);
	free(p->heap);
	free(p);
}

/* Calls fn for every active path, then puts the heap in order: fn may change when each is due. */
static void for_active(struct paths *p, void (*fn)(struct path *, uint64_t))
{
	for (size_t i = 0; i < p->n_heap; i++)
		fn(p->heap[i]->path, p->now);
	for (size_t i = 0; i < p->n_heap; i++) {
		p->heap[i]->due = MAX(path_due(p->heap[i]->path), p->now + 1);
		heap_up(p, i);
	}
}

static void forget_pings(struct path *x, uint64_t now)
{
	(void)now;
	x->n_pings = 0;
}

void paths_set_self(struct paths *p, const struct key_pair *disco, const struct key *node_pub,
		    uint64_t now)
{
	begin(p, now);
	if (memcmp(&p->disco, disco, sizeof(*disco)) != 0) {
		shared_forget(p);
		for_active(p, forget_pings);
	}
	p->disco = *disco;
	p->node = *node_pub;
	end(p);
}

static bool same_set(const struct endpoint *a, size_t n, const struct endpoint *b, size_t m)
{
	size_t i, j;

	if (n != m)
		return false;
	for (i = 0; i < n; i++) {
		for (j = 0; j < m && !endpoint_equal(&a[i], &b[j]); j++)
			;
		if (j == m)
			return false;
	}
	return true;
}

void paths_set_own_endpoints(struct paths *p, const struct endpoint *v, size_t n, uint64_t now)
{
	begin(p, now);
	n = MIN(n, DISCO_ENDPOINTS_MAX);
	p->own_at = now;
	if (!same_set(p->own, p->n_own, v, n)) {
		if (n)
			memcpy(p->own, v, n * sizeof(*v));
		p->n_own = n;
		for_active(p, path_renew);
	}
	end(p);
}

void paths_set_udp_works(struct paths *p, bool works)
{
	p->no_udp = !works;
}

void paths_link_changed(struct paths *p, uint64_t now)
{
	begin(p, now);
	p->own_at = 0; /* stale: the next CallMeMaybe waits for no timer */
	for_active(p, path_link_changed);
	end(p);
}

/* ---- peers ---- */

static int set_endpoints(struct paths_peer *peer, const struct endpoint *v, size_t n)
{
	struct endpoint *copy = NULL;

	n = MIN(n, PATHS_ENDPOINTS_MAX);
	if (n == peer->n_endpoints && (n == 0 || memcmp(peer->endpoints, v, n * sizeof(*v)) == 0))
		return 0;
	if (n) {
		copy = malloc(n * sizeof(*v));
		if (!copy)
			return -ENOMEM;
		memcpy(copy, v, n * sizeof(*v));
	}
	free(peer->endpoints);
	peer->endpoints = copy;
	peer->n_endpoints = (uint8_t)n;
	if (peer->path)
		path_set_endpoints(peer->path, copy, n, peer->owner->now);
	return 0;
}

static void set_disco(struct paths_peer *peer, const struct key *disco)
{
	struct paths *p = peer->owner;

	if (!key_is_zero(&peer->disco))
		UNLINK(p, by_disco, next_disco, peer->disco);
	peer->disco = *disco;
	if (!key_is_zero(&peer->disco))
		LINK(p, by_disco, next_disco, peer->disco);
	if (peer->path)
		peer->path->n_pings = 0; /* sealed for a key that is gone */
}

static int peer_new(struct paths *p, const struct paths_peer_config *c)
{
	struct paths_peer *peer;

	if (p->n_peers >= PATHS_PEERS_MAX)
		return -ENOBUFS;
	if (p->n_peers >= p->n_buckets && tables_resize(p, p->n_buckets * 2) < 0)
		return -ENOMEM;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return -ENOMEM;
	peer->owner = p;
	peer->id = c->id;
	peer->node = c->node;
	peer->disco = peer->map_disco = c->disco;
	peer->home = c->home;
	if (set_endpoints(peer, c->endpoints, c->n_endpoints) < 0) {
		free(peer);
		return -ENOMEM;
	}
	link_peer(p, peer);
	p->n_peers++;
	p->env.dump_gap_usec = MAX(PATHS_DUMP_USEC, p->n_peers * 1000);
	return PATHS_PEER_NEW;
}

static int peer_update(struct paths_peer *peer, const struct paths_peer_config *c)
{
	bool reset = false;
	int r;

	peer->home = c->home;
	if (memcmp(&c->disco, &peer->map_disco, sizeof(c->disco)) != 0) {
		peer->map_disco = c->disco;
		/* Known already when the peer told it in the tunnel (disco.md 15.2). */
		if (memcmp(&c->disco, &peer->disco, sizeof(c->disco)) != 0) {
			reset = !key_is_zero(&peer->disco) && !key_is_zero(&c->disco);
			set_disco(peer, &c->disco);
		}
	}
	r = set_endpoints(peer, c->endpoints, c->n_endpoints);
	if (reset && peer->path)
		path_reset(peer->path, peer->owner->now);
	if (peer->path)
		reschedule(peer);
	return r < 0 ? r : reset ? PATHS_PEER_RESET : PATHS_PEER_SAME;
}

int paths_peer_set(struct paths *p, const struct paths_peer_config *c, uint64_t now)
{
	struct paths_peer *peer = find_id(p, c->id), *other = find_node(p, &c->node);
	int r;

	if (other && other != peer)
		return -EEXIST;
	begin(p, now);
	if (peer && !other) { /* the same number with another node key is another peer */
		paths_peer_remove(p, c->id);
		peer = NULL;
	}
	r = peer ? peer_update(peer, c) : peer_new(p, c);
	end(p);
	return r;
}

void paths_peer_remove(struct paths *p, uint32_t id)
{
	struct paths_peer *peer = find_id(p, id);

	if (!peer)
		return;
	path_drop(peer);
	UNLINK(p, by_id, next_id, peer->id);
	UNLINK(p, by_node, next_node, peer->node);
	if (!key_is_zero(&peer->disco))
		UNLINK(p, by_disco, next_disco, peer->disco);
	p->n_peers--;
	p->env.dump_gap_usec = MAX(PATHS_DUMP_USEC, p->n_peers * 1000);
	peer_free(peer);
	end(p);
}

int paths_peer_disco_key(struct paths *p, uint32_t id, const struct key *disco, uint64_t now)
{
	struct paths_peer *peer = find_id(p, id);

	if (!peer)
		return -ENOENT;
	if (key_is_zero(disco) || memcmp(disco, &peer->disco, sizeof(*disco)) == 0)
		return 0;
	begin(p, now);
	set_disco(peer, disco);
	if (peer->path)
		reschedule(peer);
	end(p);
	return 0;
}

bool paths_peer_by_key(const struct paths *p, const struct key *node, uint32_t *ret_id)
{
	const struct paths_peer *peer = find_node(p, node);

	if (peer)
		*ret_id = peer->id;
	return peer;
}

size_t paths_count(const struct paths *p)
{
	return p->n_peers;
}

bool paths_any_active(const struct paths *p, uint64_t now)
{
	for (size_t i = 0; i < p->n_heap; i++)
		if (path_active(p->heap[i]->path, now))
			return true;
	return false;
}

/* ---- disco in ---- */

static void user_pong(struct paths *p, const struct path_ping *ping, uint16_t region)
{
	struct paths_pong pong = { .relayed = !ping->to.addr.family,
				   .region = region,
				   .from = ping->to,
				   .latency_usec = p->now - ping->sent };

	for (size_t i = 0; ping->user && i < USER_PINGS_MAX; i++)
		if (p->users[i].handle == (int)ping->user)
			p->users[i].fn(p->users[i].data, &pong);
}

/* local NULL: by relay. */
static void pong_received(struct paths *p, struct paths_peer *peer, const struct key *disco,
			  const struct disco_msg *m, const struct addr *local, uint16_t region)
{
	struct path_ping ping;

	for (; peer; peer = match_disco(peer->next_disco, disco)) {
		if (!peer->path || path_pong(peer->path, &m->pong.txid, local, p->now, &ping) < 0)
			continue;
		reschedule(peer);
		user_pong(p, &ping, region);
		return;
	}
}

static void answer(const struct disco_msg *m, const struct endpoint *seen,
		   struct disco_msg *ret)
{
	*ret = (struct disco_msg){ .type = DISCO_TYPE_PONG };
	ret->pong.txid = m->ping.txid;
	ret->pong.seen = *seen;
}

static void udp_ping_received(struct paths *p, struct paths_peer *first, const struct key *disco,
			      const struct disco_msg *m, const struct endpoint *from,
			      const struct addr *local)
{
	struct paths_peer *named = m->ping.has_node ? find_node(p, &m->ping.node) : NULL;
	struct disco_msg pong;
	bool reply = false;

	if (named && memcmp(&named->disco, disco, sizeof(*disco)) != 0)
		named = NULL;
	for (struct paths_peer *peer = first; peer; peer = match_disco(peer->next_disco, disco)) {
		if (named && peer != named)
			continue;
		/* Without memory for more, at least the answer. */
		if (!path_of(peer)) {
			reply = true;
			continue;
		}
		if (path_ping_heard(peer->path, from, local, &m->ping.txid, p->now))
			reply = true;
		reschedule(peer);
	}
	if (!reply)
		return;
	if (!p->dump_at) /* it may be about to send there as well */
		p->dump_at = MAX(p->dumped + p->env.dump_gap_usec, p->now);
	answer(m, from, &pong);
	send_udp(p, disco, &pong, from, local);
}

/* The message in a box from a known peer; NULL for all others, who hear nothing. */
static struct paths_peer *open_box(struct paths *p, const void *buf, size_t len, struct key *ret_disco,
				   struct disco_msg *ret)
{
	const struct disco_shared *k;
	struct paths_peer *peer;
	int n;

	if (disco_sender(buf, len, ret_disco) < 0)
		return NULL;
	peer = find_disco(p, ret_disco);
	if (!peer || !bucket_take(&p->boxes, DISCO_PER_SEC, p->now))
		return NULL;
	k = shared_with(p, ret_disco);
	if (!k)
		return NULL;
	n = disco_open(k, buf, len, p->plain, sizeof(p->plain));
	if (n < 0 || disco_msg_decode(p->plain, (size_t)n, ret) < 0)
		return NULL;
	return peer;
}

bool paths_udp_received(struct paths *p, const struct endpoint *from, const struct addr *to_local,
			const void *buf, size_t len, uint64_t now)
{
	struct paths_peer *peer;
	struct disco_msg m;
	struct key disco;

	if (!disco_looks_like(buf, len))
		return false;
	begin(p, now);
	peer = open_box(p, buf, len, &disco, &m);
	if (!peer)
		return true;
	switch (m.type) {
	case DISCO_TYPE_PING:
		udp_ping_received(p, peer, &disco, &m, from, to_local);
		break;
	case DISCO_TYPE_PONG:
		pong_received(p, peer, &disco, &m, to_local, 0);
		break;
	default: /* CallMeMaybe counts by relay only; the rest is for peer relays */
		break;
	}
	end(p);
	return true;
}

static void derp_ping_received(struct paths *p, uint16_t region, const struct paths_peer *from,
			       const struct key *disco, const struct disco_msg *m)
{
	struct endpoint seen = { .addr = addr_v4(127, 3, 3, 40), .port = region };
	struct disco_msg pong;

	answer(m, &seen, &pong);
	send_derp(p, disco, &pong, region, &from->node);
}

bool paths_derp_received(struct paths *p, uint16_t region, const struct key *src, const void *buf,
			 size_t len, uint64_t now)
{
	struct paths_peer *peer, *from;
	struct disco_msg m;
	struct key disco;

	if (!disco_looks_like(buf, len))
		return false;
	begin(p, now);
	peer = open_box(p, buf, len, &disco, &m);
	from = find_node(p, src);
	if (!peer || !from)
		return true;
	from->heard = region;
	if (from->path) {
		path_relay_heard(from->path, false, now);
		reschedule(from);
	}
	switch (m.type) {
	case DISCO_TYPE_PING:
		derp_ping_received(p, region, from, &disco, &m);
		break;
	case DISCO_TYPE_PONG:
		pong_received(p, peer, &disco, &m, NULL, region);
		break;
	case DISCO_TYPE_CALL_ME_MAYBE:
		if (memcmp(&from->disco, &disco, sizeof(disco)) != 0 || !path_of(from))
			break;
		path_call_me(from->path, m.call.at, m.call.n, now);
		reschedule(from);
		break;
	default:
		break;
	}
	end(p);
	return true;
}

void paths_peer_gone(struct paths *p, uint16_t region, const struct key *src)
{
	struct paths_peer *peer = find_node(p, src);

	if (peer && peer->path && region == region_of(p, peer))
		path_gone(peer->path);
}

/* ---- kernel and shuttle ---- */

void paths_counters(struct paths *p, uint32_t id, const struct path_counters *c, uint64_t now)
{
	struct paths_peer *peer = find_id(p, id);

	if (!peer)
		return;
	if (!peer->path && !c->direct)
		return; /* at rest, as it should be */
	begin(p, now);
	if (path_of(peer)) {
		path_counters(peer->path, c, now);
		reschedule(peer);
	}
	end(p);
}

int paths_send_how(struct paths *p, uint32_t id, uint64_t now, struct paths_send *ret)
{
	struct paths_peer *peer = find_id(p, id);
	struct paths_send s = { 0 };

	if (!peer)
		return -ENOENT;
	begin(p, now);
	s.region = region_of(p, peer);
	s.dst = peer->node;
	if (path_of(peer)) {
		path_relay_traffic(peer->path, now);
		s.copy = peer->path->best.addr.family;
		s.to = peer->path->best;
		s.from = peer->path->local;
		reschedule(peer);
	}
	end(p);
	*ret = s;
	return 0;
}

/* Our address on the way to where the kernel sends; false when none is known. */
static bool local_of_kernel(struct path *x, struct addr *ret)
{
	const struct candidate *c;

	if (endpoint_equal(&x->kernel, &x->best)) {
		*ret = x->local;
	} else {
		c = candidates_find(&x->cands, &x->kernel);
		*ret = c ? c->local : (struct addr){ 0 };
	}
	return ret->family && ret->family == x->kernel.addr.family;
}

int paths_deliver_how(struct paths *p, uint16_t region, const struct key *src, uint64_t now,
		      struct paths_deliver *ret)
{
	struct paths_peer *peer = find_node(p, src);
	struct paths_deliver d = { 0 };

	if (!peer)
		return -ENOENT;
	d.id = peer->id;
	peer->heard = region;
	if (peer->path) {
		begin(p, now);
		path_relay_heard(peer->path, true, now);
		if (peer->path->kernel.addr.family && local_of_kernel(peer->path, &d.dst)) {
			d.inject = true;
			d.src = peer->path->kernel;
		} else { /* the packet takes the kernel to the relay address */
			peer->path->kernel = (struct endpoint){ 0 };
		}
		reschedule(peer);
		end(p);
	}
	*ret = d;
	return 0;
}

/* ---- asking ---- */

int paths_ping(struct paths *p, uint32_t id, paths_ping_fn *fn, void *data, uint64_t now)
{
	struct paths_peer *peer = find_id(p, id);
	struct user_ping *u = NULL;

	if (!peer)
		return -ENOENT;
	if (key_is_zero(&peer->disco))
		return -ENOKEY;
	for (size_t i = 0; !u && i < USER_PINGS_MAX; i++)
		if (!p->users[i].handle)
			u = &p->users[i];
	if (!u)
		return -ENOBUFS;
	begin(p, now);
	if (!path_of(peer))
		return -ENOMEM;
	p->last_handle = p->last_handle == INT32_MAX ? 1 : p->last_handle + 1;
	*u = (struct user_ping){ .handle = p->last_handle,
				 .id = id,
				 .until = now + PATH_PING_USEC,
				 .fn = fn,
				 .data = data };
	path_ping_user(peer->path, (uint32_t)u->handle, now);
	reschedule(peer);
	end(p);
	return u->handle;
}

void paths_ping_cancel(struct paths *p, int handle)
{
	for (size_t i = 0; handle > 0 && i < USER_PINGS_MAX; i++)
		if (p->users[i].handle == handle)
			p->users[i].handle = 0;
}

static unsigned int count_pinged(const struct path *x)
{
	unsigned int n = 0;

	for (size_t i = 0; i < x->cands.n; i++)
		n += x->cands.v[i].pinged != 0;
	return n;
}

static void relay_reason(const struct paths *p, const struct paths_peer *peer, uint64_t now,
			 char out[static PATHS_REASON_MAX])
{
	const struct path *x = peer->path;
	uint16_t region = region_of(p, peer);

	if (!region)
		snprintf(out, PATHS_REASON_MAX, "no relay is known for this peer");
	else if (region_down(p, region))
		snprintf(out, PATHS_REASON_MAX, "relay %u is unreachable", region);
	else if (key_is_zero(&peer->disco))
		snprintf(out, PATHS_REASON_MAX, "the peer has no disco key");
	else if (!x || !path_active(x, now))
		out[0] = 0;
	else if (p->no_udp)
		snprintf(out, PATHS_REASON_MAX, "no UDP gets out of this host's network");
	else if (!x->cands.n)
		snprintf(out, PATHS_REASON_MAX, "the peer told no address where UDP reaches it");
	else if (x->gone)
		snprintf(out, PATHS_REASON_MAX, "relay %u says that the peer is not connected", region);
	else
		snprintf(out, PATHS_REASON_MAX, "none of its %u addresses answers", count_pinged(x));
}

int paths_peer_status(const struct paths *p, uint32_t id, uint64_t now, struct paths_status *ret)
{
	const struct paths_peer *peer = find_id(p, id);
	struct paths_status s = { 0 };
	const struct path *x;

	if (!peer)
		return -ENOENT;
	x = peer->path;
	s.region = region_of(p, peer);
	if (x) {
		s.state = x->state;
		s.active = path_active(x, now);
		s.last_pong = x->ponged;
		if (x->state != PATH_STATE_RELAY)
			s.latency_usec = x->latency_usec;
	}
	switch (s.state) {
	case PATH_STATE_RELAY:
		relay_reason(p, peer, now, s.reason);
		break;
	case PATH_STATE_DIRECT:
		s.current = x->best;
		break;
	case PATH_STATE_HELD:
		s.current = x->best;
		snprintf(s.reason, sizeof(s.reason),
			 "the peer's daemon is silent, its kernel still answers");
		break;
	case PATH_STATE_DOUBTFUL:
		snprintf(s.reason, sizeof(s.reason), "no answer from the direct address for %llu s",
			 x->ponged ? (unsigned long long)((now - x->ponged) / SECOND) : 0ULL);
		break;
	}
	*ret = s;
	return 0;
}
