#include "daemon/netmap/netmap_routes.h"

enum route_kind {
	ROUTE_OWN,     /* always routed */
	ROUTE_SUBNET,  /* where the user accepts routes */
	ROUTE_DEFAULT, /* for a chosen exit node only */
};

static enum route_kind route_kind(const struct tailcfg_node *n, const struct prefix *p)
{
	if (prefix_is_default(p))
		return ROUTE_DEFAULT;
	if (!prefix_is_single(p))
		return ROUTE_SUBNET;
	for (size_t i = 0; i < n->n_addresses; i++) {
		if (prefix_equal(&n->addresses[i], p))
			return ROUTE_OWN;
	}
	return addr_is_tailnet(&p->addr) ? ROUTE_OWN : ROUTE_SUBNET;
}

/* Those of a peer's prefixes that may be routed at all; which of them are is route_taken()'s. */
static const struct prefix *peer_prefixes(const struct netmap *nm, const struct tailcfg_node *n,
					  size_t *count)
{
	*count = 0;
	if (!netmap_peer_usable(nm, n))
		return NULL;
	if (!n->unsigned_peerapi_only)
		return tailcfg_node_allowed(n, count);
	*count = n->n_addresses;
	return n->addresses;
}

/* What no server may send into the tunnel in a peer's name: our own addresses, and those that name
 * this host or its links. */
static bool is_never_a_peers(const struct netmap *nm, const struct prefix *p)
{
	const struct addr *a = &p->addr;

	if (prefix_is_default(p))
		return false; /* asked for apart */
	if (addr_is_unspecified(a) || addr_is_loopback(a) || addr_is_multicast(a) ||
	    addr_is_link_local(a))
		return true;
	for (size_t i = 0; nm->self && i < nm->self->n_addresses; i++)
		if (addr_equal(&nm->self->addresses[i].addr, a) && prefix_is_single(p))
			return true;
	return false;
}

static bool route_taken(const struct netmap *nm, const struct tailcfg_node *n,
			const struct prefix *p, bool accept_routes)
{
	enum route_kind kind = route_kind(n, p);

	if (is_never_a_peers(nm, p))
		return false;
	return kind == ROUTE_OWN || (kind == ROUTE_SUBNET && accept_routes);
}

size_t netmap_peer_routes(const struct netmap *nm, const struct tailcfg_node *n, bool accept_routes,
			  struct prefix *out, size_t max)
{
	size_t n_prefixes, count = 0;
	const struct prefix *p = peer_prefixes(nm, n, &n_prefixes);

	for (size_t i = 0; i < n_prefixes; i++) {
		if (!route_taken(nm, n, &p[i], accept_routes))
			continue;
		if (count < max)
			out[count] = p[i];
		count++;
	}
	return count;
}

/* Some rule that opens everything has this source; any source at all for p NULL. */
static bool filter_opens_all(const struct netmap *nm, const struct prefix *p)
{
	for (size_t i = 0; i < nm->n_filters; i++) {
		const struct tailcfg_rules *rules = &nm->filters[i].rules;

		for (size_t k = 0; k < rules->n; k++) {
			if (tailcfg_rule_opens_all(&rules->rule[k]) &&
			    (!p || tailcfg_rule_has_source(&rules->rule[k], p)))
				return true;
		}
	}
	return false;
}

bool netmap_filter_is_allow_all(const struct netmap *nm, bool accept_routes)
{
	if (!filter_opens_all(nm, NULL))
		return false;
	for (size_t i = 0; i < netmap_n_peers(nm); i++) {
		const struct tailcfg_node *n = netmap_peer_at(nm, i);
		size_t n_prefixes;
		const struct prefix *p = peer_prefixes(nm, n, &n_prefixes);

		if (n->jailed) /* whatever the rules say, it may only answer */
			return false;
		for (size_t k = 0; k < n_prefixes; k++) {
			struct prefix masked = prefix_masked(&p[k]);

			if (route_taken(nm, n, &p[k], accept_routes) &&
			    !filter_opens_all(nm, &masked))
				return false;
		}
	}
	return true;
}
