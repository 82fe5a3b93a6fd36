#include "daemon/kernel/wg_plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

/* One wanted prefix and who wants it. */
struct claim {
	struct prefix prefix;
	size_t want;
};

struct planner {
	const struct wg_device *actual;
	const struct wg_want **want; /* sorted by key */
	size_t n;
	struct claim *claims; /* sorted by prefix */
	size_t n_claims;
	struct wg_plan plan;
	size_t cap, prefix_cap;
};

static int compare_want(const void *a, const void *b)
{
	const struct wg_want *const *x = a, *const *y = b;

	return key_cmp(&(*x)->key, &(*y)->key);
}

static int compare_claim(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	return prefix_cmp(&x->prefix, &y->prefix);
}

static int compare_prefix(const void *a, const void *b)
{
	return prefix_cmp(a, b);
}

static int sort_wanted(struct planner *p, const struct wg_want *wanted, size_t n)
{
	p->want = calloc(n + 1, sizeof(*p->want));
	if (!p->want)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		p->want[i] = &wanted[i];
	p->n = n;
	qsort(p->want, n, sizeof(*p->want), compare_want);
	for (size_t i = 1; i < n; i++)
		if (key_cmp(&p->want[i - 1]->key, &p->want[i]->key) == 0)
			return -EINVAL;
	return 0;
}

static int sort_claims(struct planner *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n; i++)
		n += p->want[i]->n_allowed;
	p->claims = calloc(n + 1, sizeof(*p->claims));
	if (!p->claims)
		return -ENOMEM;
	for (size_t i = 0; i < p->n; i++)
		for (size_t k = 0; k < p->want[i]->n_allowed; k++)
			p->claims[p->n_claims++] =
				(struct claim){ prefix_masked(&p->want[i]->allowed[k]), i };
	qsort(p->claims, n, sizeof(*p->claims), compare_claim);
	for (size_t i = 1; i < n; i++)
		if (prefix_equal(&p->claims[i - 1].prefix, &p->claims[i].prefix))
			return -EINVAL;
	return 0;
}

static bool is_claimed(const struct planner *p, const struct prefix *prefix)
{
	struct claim c = { .prefix = *prefix };

	return bsearch(&c, p->claims, p->n_claims, sizeof(c), compare_claim);
}

static struct wg_change *add_change(struct planner *p, enum wg_change_kind kind,
				    const struct key *key)
{
	struct wg_change *c;

	if (p->plan.n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 16;
		struct wg_change *more = reallocarray(p->plan.changes, cap, sizeof(*more));

		if (!more)
			return NULL;
		p->plan.changes = more;
		p->cap = cap;
	}
	c = &p->plan.changes[p->plan.n++];
	*c = (struct wg_change){ .kind = kind, .key = *key };
	return c;
}

/* Appends to the plan's own prefixes, whose room was counted beforehand. */
static const struct prefix *add_prefix(struct planner *p, const struct prefix *prefix)
{
	struct prefix *at = &p->plan.prefixes[p->plan.n_prefixes++];

	*at = *prefix;
	return at;
}

static bool peer_has(const struct wg_peer *peer, const struct prefix *prefix)
{
	return peer && peer->n_allowed > 0 &&
	       bsearch(prefix, peer->allowed, peer->n_allowed, sizeof(*prefix), compare_prefix);
}

static int plan_peer(struct planner *p, const struct wg_want *w, const struct wg_peer *have)
{
	bool set_endpoint = w->endpoint.addr.family &&
			    (!have || !have->endpoint.addr.family ||
			     (w->force_endpoint && !endpoint_equal(&w->endpoint, &have->endpoint)));
	bool set_keepalive = w->keepalive_sec != (have ? have->keepalive_sec : 0);
	const struct prefix *first = &p->plan.prefixes[p->plan.n_prefixes];
	struct wg_change *c;
	size_t added = 0;

	for (size_t i = 0; i < w->n_allowed; i++) {
		struct prefix m = prefix_masked(&w->allowed[i]);

		if (!peer_has(have, &m)) {
			add_prefix(p, &m);
			added++;
		}
	}
	if (have && !set_endpoint && !set_keepalive && added == 0)
		return 0;
	c = add_change(p, WG_CHANGE_PEER, &w->key);
	if (!c)
		return -ENOMEM;
	c->create = !have;
	c->set_endpoint = set_endpoint;
	c->endpoint = w->endpoint;
	c->set_keepalive = set_keepalive;
	c->keepalive_sec = w->keepalive_sec;
	c->allowed = first;
	c->n_allowed = added;
	return 0;
}

static const struct wg_peer *find_peer(const struct wg_device *d, const struct key *key)
{
	size_t lo = 0, hi = d->n_peers;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = key_cmp(&d->peers[mid].key, key);

		if (c == 0)
			return &d->peers[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool is_wanted(const struct planner *p, const struct key *key)
{
	struct wg_want w = { .key = *key };
	const struct wg_want *at = &w;

	return p->n > 0 && bsearch(&at, p->want, p->n, sizeof(*p->want), compare_want);
}

static int plan_drops(struct planner *p, const struct wg_peer *have)
{
	for (size_t i = 0; i < have->n_allowed; i++) {
		struct wg_change *c;

		if (is_claimed(p, &have->allowed[i]))
			continue; /* stays here, or has been moved by adding it elsewhere */
		c = add_change(p, WG_CHANGE_DROP_PREFIX, &have->key);
		if (!c)
			return -ENOMEM;
		c->allowed = add_prefix(p, &have->allowed[i]);
		c->n_allowed = 1;
	}
	return 0;
}

static int plan_unwanted(struct planner *p, enum wg_change_kind kind)
{
	for (size_t i = 0; i < p->actual->n_peers; i++) {
		const struct wg_peer *have = &p->actual->peers[i];

		if (is_wanted(p, &have->key) || (kind == WG_CHANGE_CLOSE && have->n_allowed == 0))
			continue;
		if (!add_change(p, kind, &have->key))
			return -ENOMEM;
	}
	return 0;
}

static int plan_all(struct planner *p)
{
	size_t unwanted = 0;
	int r = 0;

	for (size_t i = 0; i < p->actual->n_peers; i++)
		unwanted += !is_wanted(p, &p->actual->peers[i].key);
	for (size_t i = 0; i < p->n && r == 0; i++)
		r = plan_peer(p, p->want[i], find_peer(p->actual, &p->want[i]->key));
	if (r == 0 && unwanted > WG_REMOVE_BATCH)
		r = plan_unwanted(p, WG_CHANGE_CLOSE);
	for (size_t i = 0; i < p->actual->n_peers && r == 0; i++)
		if (is_wanted(p, &p->actual->peers[i].key))
			r = plan_drops(p, &p->actual->peers[i]);
	return r < 0 ? r : plan_unwanted(p, WG_CHANGE_REMOVE);
}

int wg_plan(const struct wg_device *actual, const struct wg_want *wanted, size_t n,
	    struct wg_plan *ret)
{
	struct planner p = { .actual = actual };
	int r;

	r = sort_wanted(&p, wanted, n);
	if (r == 0)
		r = sort_claims(&p);
	if (r == 0) {
		size_t most = p.n_claims;

		for (size_t i = 0; i < actual->n_peers; i++)
			most += actual->peers[i].n_allowed;
		p.plan.prefixes = calloc(most + 1, sizeof(*p.plan.prefixes));
		r = p.plan.prefixes ? plan_all(&p) : -ENOMEM;
	}
	free(p.want);
	free(p.claims);
	if (r < 0) {
		wg_plan_done(&p.plan);
		return r;
	}
	*ret = p.plan;
	return 0;
}

void wg_plan_forget(struct wg_plan *p, size_t n)
{
	struct wg_change *less;

	if (n == 0)
		return;
	p->n -= n;
	memmove(p->changes, p->changes + n, p->n * sizeof(*p->changes));
	less = reallocarray(p->changes, p->n + 1, sizeof(*less));
	if (less)
		p->changes = less;
}

void wg_plan_done(struct wg_plan *p)
{
	free(p->changes);
	free(p->prefixes);
	*p = (struct wg_plan){ 0 };
}
