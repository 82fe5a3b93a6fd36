#include "daemon/netmap/netmap_peers.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

void netmap_peers_init(struct netmap_peers *ps)
{
	*ps = (struct netmap_peers){ 0 };
	/* A server that picks keys must not be able to pick collisions. */
	randombytes_buf(ps->seed, sizeof(ps->seed));
}

static void peer_free(struct netmap_peer *p)
{
	tailcfg_node_free(p->node);
	free(p);
}

void netmap_peers_done(struct netmap_peers *ps)
{
	for (size_t i = 0; i < ps->n; i++)
		peer_free(ps->by_id[i]);
	free(ps->by_id);
	free(ps->slots);
	free(ps->by_addr);
	*ps = (struct netmap_peers){ 0 };
}

/* Index of the first peer whose id is not below. */
static size_t lower_bound(const struct netmap_peers *ps, int64_t id)
{
	size_t lo = 0, hi = ps->n;

	if (ps->n && ps->by_id[ps->n - 1]->node->id < id)
		return ps->n; /* lists come sorted */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (ps->by_id[mid]->node->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct netmap_peer *netmap_peers_by_id(const struct netmap_peers *ps, int64_t id)
{
	size_t i = lower_bound(ps, id);

	return i < ps->n && ps->by_id[i]->node->id == id ? ps->by_id[i] : NULL;
}

static size_t home_slot(const struct netmap_peers *ps, const struct key *key)
{
	uint64_t h;

	_Static_assert(sizeof(h) == crypto_shorthash_BYTES, "size of the hash");
	crypto_shorthash((uint8_t *)&h, key->b, sizeof(key->b), ps->seed);
	return h & (ps->n_slots - 1);
}

struct netmap_peer *netmap_peers_by_key(const struct netmap_peers *ps, const struct key *key)
{
	if (!ps->n_slots)
		return NULL;
	for (size_t i = home_slot(ps, key); ps->slots[i]; i = (i + 1) & (ps->n_slots - 1)) {
		if (key_cmp(&ps->slots[i]->node->key, key) == 0)
			return ps->slots[i];
	}
	return NULL;
}

void netmap_peers_key_insert(struct netmap_peers *ps, struct netmap_peer *p)
{
	size_t i = home_slot(ps, &p->node->key);

	while (ps->slots[i])
		i = (i + 1) & (ps->n_slots - 1);
	ps->slots[i] = p;
}

void netmap_peers_key_remove(struct netmap_peers *ps, const struct netmap_peer *p)
{
	size_t mask = ps->n_slots - 1, hole = home_slot(ps, &p->node->key);

	while (ps->slots[hole] != p) {
		assert(ps->slots[hole]);
		hole = (hole + 1) & mask;
	}
	/* What follows moves up into the hole, unless it would pass its own home. */
	for (size_t i = (hole + 1) & mask; ps->slots[i]; i = (i + 1) & mask) {
		size_t home = home_slot(ps, &ps->slots[i]->node->key);

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			ps->slots[hole] = ps->slots[i];
			hole = i;
		}
	}
	ps->slots[hole] = NULL;
}

void netmap_peers_addrs_changed(struct netmap_peers *ps)
{
	free(TAKE(ps->by_addr));
	ps->n_addrs = 0;
}

static int address_order(const void *a, const void *b)
{
	const struct netmap_address *x = a, *y = b;
	int r = addr_cmp(&x->addr, &y->addr);

	return r ? r : (x->id > y->id) - (x->id < y->id);
}

static int make_by_addr(struct netmap_peers *ps)
{
	size_t n = 0;

	for (size_t i = 0; i < ps->n; i++)
		n += ps->by_id[i]->node->n_addresses;
	ps->by_addr = calloc(n + 1, sizeof(*ps->by_addr));
	if (!ps->by_addr)
		return -ENOMEM;
	for (size_t i = 0; i < ps->n; i++) {
		const struct tailcfg_node *t = ps->by_id[i]->node;

		for (size_t k = 0; k < t->n_addresses; k++)
			ps->by_addr[ps->n_addrs++] = (struct netmap_address){ t->addresses[k].addr, t->id };
	}
	qsort(ps->by_addr, n, sizeof(*ps->by_addr), address_order);
	return 0;
}

struct netmap_peer *netmap_peers_by_addr(struct netmap_peers *ps, const struct addr *a)
{
	size_t lo = 0, hi;

	if (!ps->by_addr && make_by_addr(ps) < 0)
		return NULL;
	for (hi = ps->n_addrs; lo < hi;) {
		size_t mid = lo + (hi - lo) / 2;

		if (addr_cmp(&ps->by_addr[mid].addr, a) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < ps->n_addrs && addr_equal(&ps->by_addr[lo].addr, a) ?
		       netmap_peers_by_id(ps, ps->by_addr[lo].id) :
		       NULL;
}

static int grow_slots(struct netmap_peers *ps)
{
	size_t n = ps->n_slots ? ps->n_slots * 2 : 16;
	struct netmap_peer **slots;

	if (2 * (ps->n + 1) <= ps->n_slots)
		return 0;
	slots = calloc(n, sizeof(struct netmap_peer *));
	if (!slots)
		return -ENOMEM;
	free(ps->slots);
	ps->slots = slots;
	ps->n_slots = n;
	for (size_t i = 0; i < ps->n; i++)
		netmap_peers_key_insert(ps, ps->by_id[i]);
	return 0;
}

static int grow_ids(struct netmap_peers *ps)
{
	size_t cap = ps->cap ? ps->cap + ps->cap / 2 : 8;
	struct netmap_peer **v;

	if (ps->n < ps->cap)
		return 0;
	v = realloc(ps->by_id, cap * sizeof(struct netmap_peer *));
	if (!v)
		return -ENOMEM;
	ps->by_id = v;
	ps->cap = cap;
	return 0;
}

int netmap_peers_add(struct netmap_peers *ps, struct tailcfg_node *n, struct netmap_peer **ret)
{
	struct netmap_peer *p;
	size_t at;

	if (ps->n >= TAILCFG_PEERS_MAX)
		return -ENOBUFS;
	if (grow_ids(ps) < 0 || grow_slots(ps) < 0)
		return -ENOMEM;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->node = n;
	at = lower_bound(ps, n->id);
	memmove(ps->by_id + at + 1, ps->by_id + at, (ps->n - at) * sizeof(struct netmap_peer *));
	ps->by_id[at] = p;
	ps->n++;
	netmap_peers_key_insert(ps, p);
	netmap_peers_addrs_changed(ps);
	*ret = p;
	return 0;
}

void netmap_peers_remove(struct netmap_peers *ps, struct netmap_peer *p)
{
	size_t at = lower_bound(ps, p->node->id);

	netmap_peers_key_remove(ps, p);
	netmap_peers_addrs_changed(ps);
	ps->n--;
	memmove(ps->by_id + at, ps->by_id + at + 1, (ps->n - at) * sizeof(struct netmap_peer *));
	peer_free(p);
}

void netmap_peers_sweep(struct netmap_peers *ps)
{
	size_t kept = 0;

	for (size_t i = 0; i < ps->n; i++) {
		struct netmap_peer *p = ps->by_id[i];

		if (!p->leaving) {
			ps->by_id[kept++] = p;
			continue;
		}
		netmap_peers_key_remove(ps, p);
		peer_free(p);
	}
	if (kept != ps->n)
		netmap_peers_addrs_changed(ps);
	ps->n = kept;
}
