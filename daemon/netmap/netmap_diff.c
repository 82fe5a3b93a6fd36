#include "daemon/netmap/netmap_diff.h"

#include <string.h>

#include "daemon/netmap/netmap.h"

static bool same_endpoints(const struct tailcfg_node *a, const struct endpoint *e, size_t n)
{
	if (a->n_endpoints != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		bool found = false;

		for (size_t k = 0; k < n && !found; k++)
			found = endpoint_equal(&a->endpoints[k], &e[i]);
		if (!found)
			return false;
	}
	return true;
}

static bool same_prefixes(const struct prefix *a, size_t n, const struct prefix *b, size_t m)
{
	if (n != m)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!prefix_equal(&a[i], &b[i]))
			return false;
	}
	return true;
}

static bool same_allowed(const struct tailcfg_node *a, const struct tailcfg_node *b)
{
	size_t n, m;
	const struct prefix *p = tailcfg_node_allowed(a, &n), *q = tailcfg_node_allowed(b, &m);

	/* Stored lists are sorted, and never stored where they equal the addresses. */
	return a->allowed_same == b->allowed_same && same_prefixes(p, n, q, m);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_info(const struct tailcfg_node *a, const struct tailcfg_node *b)
{
	if (a->user != b->user || a->cap != b->cap || a->created != b->created ||
	    a->n_tags != b->n_tags || a->exit_dns != b->exit_dns ||
	    key_cmp(&a->machine, &b->machine) != 0 || !same_text(a->hostname, b->hostname) ||
	    !same_text(a->os, b->os) || !same_text(a->client, b->client) ||
	    !same_text(a->stable_id, b->stable_id) ||
	    !same_prefixes(a->primary_routes, a->n_primary_routes, b->primary_routes,
			   b->n_primary_routes))
		return false;
	for (size_t i = 0; i < a->n_tags; i++) {
		if (strcmp(a->tags[i], b->tags[i]) != 0)
			return false;
	}
	return true;
}

static unsigned int disco_aspect(const struct key *a, const struct key *b)
{
	if (key_cmp(a, b) == 0)
		return 0;
	/* New peers come first without one: none to some is no change of key (control.md 7.8). */
	return key_is_zero(a) || key_is_zero(b) ? NETMAP_DISCO_SET : NETMAP_DISCO;
}

unsigned int netmap_diff_nodes(const struct tailcfg_node *a, const struct tailcfg_node *b)
{
	unsigned int d = disco_aspect(&a->disco, &b->disco);

	d |= key_cmp(&a->key, &b->key) ? NETMAP_KEY : 0;
	d |= same_endpoints(a, b->endpoints, b->n_endpoints) ? 0 : NETMAP_ENDPOINTS;
	d |= a->home_derp != b->home_derp ? NETMAP_HOME : 0;
	d |= same_prefixes(a->addresses, a->n_addresses, b->addresses, b->n_addresses)
		 ? 0
		 : NETMAP_ADDRESSES;
	d |= same_allowed(a, b) ? 0 : NETMAP_ALLOWED;
	d |= a->online != b->online || a->last_seen != b->last_seen ? NETMAP_ONLINE : 0;
	d |= a->key_expiry != b->key_expiry ? NETMAP_KEY_EXPIRY : 0;
	d |= same_text(a->name, b->name) ? 0 : NETMAP_NAME;
	d |= !same_text(a->capmap, b->capmap) || a->machine_authorized != b->machine_authorized ||
		     a->wireguard_only != b->wireguard_only || a->jailed != b->jailed ||
		     a->unsigned_peerapi_only != b->unsigned_peerapi_only
		 ? NETMAP_CAPS
		 : 0;
	d |= same_info(a, b) ? 0 : NETMAP_INFO;
	return d;
}

unsigned int netmap_diff_patch(const struct tailcfg_node *n, const struct tailcfg_peer_change *p)
{
	unsigned int d = 0;

	if (p->has & TAILCFG_PATCH_DERP && p->derp_region != n->home_derp)
		d |= NETMAP_HOME;
	if (p->has & TAILCFG_PATCH_CAP && p->cap != n->cap)
		d |= NETMAP_INFO;
	if (p->has & TAILCFG_PATCH_CAPMAP && !same_text(p->capmap, n->capmap))
		d |= NETMAP_CAPS;
	if (p->has & TAILCFG_PATCH_ENDPOINTS && !same_endpoints(n, p->endpoints, p->n_endpoints))
		d |= NETMAP_ENDPOINTS;
	if (p->has & TAILCFG_PATCH_KEY && key_cmp(&p->key, &n->key) != 0)
		d |= NETMAP_KEY;
	if (p->has & TAILCFG_PATCH_DISCO)
		d |= disco_aspect(&n->disco, &p->disco);
	if ((p->has & TAILCFG_PATCH_ONLINE &&
	     n->online != (p->online ? TAILCFG_YES : TAILCFG_NO)) ||
	    (p->has & TAILCFG_PATCH_LAST_SEEN && p->last_seen != n->last_seen))
		d |= NETMAP_ONLINE;
	if (p->has & (TAILCFG_PATCH_KEY_EXPIRY | TAILCFG_PATCH_KEY) &&
	    p->key_expiry != n->key_expiry)
		d |= NETMAP_KEY_EXPIRY;
	return d;
}
