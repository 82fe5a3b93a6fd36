#include "daemon/path/endpoints.h"

#include <string.h>

#include "lib/cleanup.h"

#define LOCAL_MAX	64
#define V6_PER_SUBNET	2
#define STUN_SEEN_TWICE 2

static bool is_ula(const struct addr *a)
{
	return a->family == 6 && (a->b[0] & 0xfe) == 0xfc;
}

enum local_kind {
	LOCAL_NEVER,
	LOCAL_LOOPBACK,
	LOCAL_SPARE, /* only if there is nothing better */
	LOCAL_GOOD,
};

static enum local_kind local_kind(const struct addr *a)
{
	if (!a->family || addr_is_tailnet(a) || addr_is_multicast(a) || addr_is_unspecified(a))
		return LOCAL_NEVER;
	if (addr_is_loopback(a))
		return LOCAL_LOOPBACK;
	if (addr_is_link_local(a))
		return a->family == 4 ? LOCAL_SPARE : LOCAL_NEVER;
	return is_ula(a) ? LOCAL_SPARE : LOCAL_GOOD;
}

static unsigned int in_subnet(const struct addr *a, const struct addr *v, size_t n)
{
	unsigned int k = 0;

	for (size_t i = 0; i < n; i++)
		k += v[i].family == 6 && memcmp(v[i].b, a->b, 8) == 0;
	return k;
}

static size_t insert(struct addr *out, size_t n, size_t max, const struct addr *a)
{
	size_t at = n;

	if (a->family == 6 && in_subnet(a, out, n) >= V6_PER_SUBNET)
		return n;
	for (size_t i = 0; i < n; i++)
		if (addr_equal(&out[i], a))
			return n;
	if (n == max)
		return n;
	for (; at && addr_cmp(&out[at - 1], a) > 0; at--)
		out[at] = out[at - 1];
	out[at] = *a;
	return n + 1;
}

size_t own_endpoints_local(const struct addr *v, size_t n, struct addr *out, size_t max)
{
	size_t k = 0;

	for (enum local_kind kind = LOCAL_GOOD; !k && kind > LOCAL_NEVER; kind--)
		for (size_t i = 0; i < n; i++)
			if (local_kind(&v[i]) == kind)
				k = insert(out, k, max, &v[i]);
	return k;
}

static void add(struct own_endpoints *o, const struct endpoint *e, uint8_t type)
{
	if (!e->addr.family || !e->port || o->n == OWN_ENDPOINTS_MAX)
		return;
	for (size_t i = 0; i < o->n; i++)
		if (endpoint_equal(&o->v[i].at, e))
			return; /* the first source names it */
	o->v[o->n++] = (struct own_endpoint){ *e, type };
}

static void cache_drop(struct own_endpoints_cache *c, size_t i)
{
	memmove(&c->v[i], &c->v[i + 1], (c->n - i - 1) * sizeof(c->v[0]));
	c->n--;
}

/* Newest last. A NAT that gives a new port each time must not fill the list. */
static void remember(struct own_endpoints_cache *c, const struct own_endpoint *e, uint64_t now)
{
	unsigned int same = 0;

	for (size_t i = c->n; i-- > 0;) {
		if (endpoint_equal(&c->v[i].e.at, &e->at) ||
		    (addr_equal(&c->v[i].e.at.addr, &e->at.addr) && ++same >= OWN_ENDPOINTS_PER_IP))
			cache_drop(c, i);
	}
	if (c->n == OWN_ENDPOINTS_CACHE_MAX)
		cache_drop(c, 0);
	c->v[c->n].e = *e;
	c->v[c->n++].seen = now;
}

static void add_found(struct own_endpoints *o, const struct own_endpoints_input *in)
{
	const struct report *r = in->report;
	struct endpoint guess;

	add(o, &in->portmapped, OWN_ENDPOINT_PORTMAPPED);
	if (!r)
		return;
	add(o, &r->global_v4, OWN_ENDPOINT_STUN);
	add(o, &r->global_v6, OWN_ENDPOINT_STUN);
	for (size_t i = 0; i < r->n_counters; i++)
		if (r->counters[i].n >= STUN_SEEN_TWICE)
			add(o, &r->counters[i].at, OWN_ENDPOINT_STUN);
	if (r->mapping_varies == 1 && in->fixed_port && r->global_v4.addr.family) {
		guess = (struct endpoint){ r->global_v4.addr, in->port };
		add(o, &guess, OWN_ENDPOINT_STUN4_LOCAL_PORT);
	}
}

void own_endpoints_determine(struct own_endpoints_cache *cache,
			     const struct own_endpoints_input *in, uint64_t now,
			     struct own_endpoints *ret)
{
	struct own_endpoints o = { 0 };
	struct addr local[LOCAL_MAX];
	size_t n;

	add_found(&o, in);
	for (size_t i = cache->n; i-- > 0;)
		if (now - cache->v[i].seen >= OWN_ENDPOINTS_CACHE_USEC)
			cache_drop(cache, i);
	for (size_t i = 0; i < o.n; i++)
		remember(cache, &o.v[i], now);
	for (size_t i = 0; i < cache->n; i++)
		add(&o, &cache->v[i].e.at, cache->v[i].e.type);
	for (size_t i = 0; i < in->n_explicit; i++)
		add(&o, &in->explicit[i], OWN_ENDPOINT_EXPLICIT);
	n = own_endpoints_local(in->local, in->n_local, local, LOCAL_MAX);
	for (size_t i = 0; i < n; i++)
		add(&o, &(struct endpoint){ local[i], in->port }, OWN_ENDPOINT_LOCAL);
	*ret = o;
}

bool own_endpoints_equal(const struct own_endpoints *a, const struct own_endpoints *b)
{
	size_t i, j;

	if (a->n != b->n)
		return false;
	for (i = 0; i < a->n; i++) {
		for (j = 0; j < b->n && (!endpoint_equal(&a->v[i].at, &b->v[j].at) ||
					 a->v[i].type != b->v[j].type);
		     j++)
			;
		if (j == b->n)
			return false;
	}
	return true;
}
