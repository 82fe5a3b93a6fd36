#include "proto/tailcfg_util.h"

#include <errno.h>
#include <string.h>

void tailcfg_node_free(struct tailcfg_node *n)
{
	if (!n)
		return;
	free(n->stable_id);
	free(n->name);
	free(n->addresses);
	free(n->allowed_ips);
	free(n->primary_routes);
	free(n->endpoints);
	tailcfg_strv_free(n->tags, n->n_tags);
	free(n->capmap);
	free(n->hostname);
	free(n->os);
	free(n->client);
	free(n);
}

static int cmp_prefix(const void *a, const void *b)
{
	return prefix_cmp(a, b);
}

/* Sorted, so that the same set in another order is no change. */
static void sort_prefixes(struct prefix *v, size_t *n)
{
	size_t kept = 0;

	if (*n < 2)
		return;
	qsort(v, *n, sizeof(*v), cmp_prefix);
	for (size_t i = 0; i < *n; i++) {
		if (i == 0 || !prefix_equal(&v[i], &v[kept - 1]))
			v[kept++] = v[i];
	}
	*n = kept;
}

static bool same_set(const struct prefix *sorted, size_t n, const struct prefix *other, size_t m)
{
	if (n != m)
		return false;
	for (size_t i = 0; i < m; i++) {
		if (!bsearch(&other[i], sorted, n, sizeof(*sorted), cmp_prefix))
			return false;
	}
	return true;
}

static int decode_routes(struct tailcfg_node *n, const json_t *o)
{
	int r;

	r = tailcfg_prefixes_decode(json_get(o, "Addresses"), false, &n->addresses, &n->n_addresses);
	if (r < 0)
		return r;
	r = tailcfg_prefixes_decode(json_get(o, "PrimaryRoutes"), true, &n->primary_routes,
				    &n->n_primary_routes);
	if (r < 0)
		return r;
	if (!json_get(o, "AllowedIPs")) {
		n->allowed_same = true;
		return 0;
	}
	r = tailcfg_prefixes_decode(json_get(o, "AllowedIPs"), true, &n->allowed_ips,
				    &n->n_allowed_ips);
	if (r < 0)
		return r;
	sort_prefixes(n->allowed_ips, &n->n_allowed_ips);
	if (same_set(n->allowed_ips, n->n_allowed_ips, n->addresses, n->n_addresses)) {
		n->allowed_same = true;
		free(TAKE(n->allowed_ips));
		n->n_allowed_ips = 0;
	}
	return 0;
}

/* Names reach files, resolvers and terminals: letters, digits, '.', '-', '_' and nothing else. */
static int decode_name(struct tailcfg_node *n, const json_t *o)
{
	const char *s = json_get_str(o, "Name");
	size_t len = s ? strnlen(s, TAILCFG_NAME_MAX) : 0;

	n->name = malloc(len + 1);
	if (!n->name)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		char c = s[i];

		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		else if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '_')
			c = '-';
		n->name[i] = c;
	}
	n->name[len] = '\0';
	return 0;
}

static int decode_hostinfo(struct tailcfg_node *n, const json_t *h)
{
	const json_t *services = json_get(h, "Services");
	int r;

	for (size_t i = 0; i < json_array_size(services); i++) {
		const char *proto = json_get_str(json_array_get(services, i), "Proto");

		if (proto && strcmp(proto, "peerapi-dns-proxy") == 0)
			n->exit_dns = true;
	}
	r = tailcfg_text_decode(h, "Hostname", &n->hostname);
	if (r == 0)
		r = tailcfg_text_decode(h, "OS", &n->os);
	return r == 0 ? tailcfg_text_decode(h, "IPNVersion", &n->client) : r;
}

static int decode_home(const json_t *o)
{
	int64_t home = json_get_int(o, "HomeDERP", 0);
	const char *legacy = json_get_str(o, "DERP");
	struct endpoint e;

	if (home == 0 && legacy && strncmp(legacy, "127.3.3.40:", 11) == 0 &&
	    endpoint_parse(legacy, strlen(legacy), &e) == 0)
		home = e.port;
	return home > 0 && home <= UINT16_MAX ? (int)home : 0;
}

static enum tailcfg_tristate decode_tristate(const json_t *o, const char *name)
{
	const json_t *v = json_get(o, name);

	if (!json_is_boolean(v))
		return TAILCFG_UNKNOWN;
	return json_is_true(v) ? TAILCFG_YES : TAILCFG_NO;
}

static int decode_keys(struct tailcfg_node *n, const json_t *o)
{
	int r;

	r = tailcfg_key_decode(o, "Key", KEY_KIND_NODE, &n->key);
	if (r == 0)
		r = tailcfg_key_decode(o, "Machine", KEY_KIND_MACHINE, &n->machine);
	if (r == 0)
		r = tailcfg_key_decode(o, "DiscoKey", KEY_KIND_DISCO, &n->disco);
	if (r == 0)
		r = tailcfg_time_decode(o, "KeyExpiry", &n->key_expiry);
	if (r == 0)
		r = tailcfg_time_decode(o, "Created", &n->created);
	if (r == 0)
		r = tailcfg_time_decode(o, "LastSeen", &n->last_seen);
	return r == 0 && key_is_zero(&n->key) ? -EBADMSG : r;
}

static int decode_object(struct tailcfg_node *n, const json_t *o)
{
	size_t skipped = 0;
	int r;

	n->id = json_get_int(o, "ID", 0);
	if (n->id <= 0)
		return -EBADMSG;
	n->user = json_get_int(o, "User", 0);
	n->home_derp = decode_home(o);
	n->cap = (int)MAX(0, MIN(json_get_int(o, "Cap", 0), 1 << 20));
	n->online = decode_tristate(o, "Online");
	n->machine_authorized = json_get_bool(o, "MachineAuthorized", false);
	n->expired = json_get_bool(o, "Expired", false);
	n->wireguard_only = json_get_bool(o, "IsWireGuardOnly", false);
	n->jailed = json_get_bool(o, "IsJailed", false);
	n->unsigned_peerapi_only = json_get_bool(o, "UnsignedPeerAPIOnly", false);
	r = decode_keys(n, o);
	if (r == 0)
		r = tailcfg_text_decode(o, "StableID", &n->stable_id);
	if (r == 0)
		r = decode_name(n, o);
	if (r == 0)
		r = decode_routes(n, o);
	if (r == 0)
		r = tailcfg_endpoints_decode(json_get(o, "Endpoints"), &n->endpoints,
					     &n->n_endpoints);
	if (r == 0)
		r = tailcfg_strv_decode(json_get(o, "Tags"), TAILCFG_TAGS_MAX, &n->tags, &n->n_tags,
					&skipped);
	if (r == 0)
		r = tailcfg_capmap_decode(json_get(o, "CapMap"), &n->capmap);
	return r == 0 ? decode_hostinfo(n, json_get(o, "Hostinfo")) : r;
}

int tailcfg_node_decode(struct json_slice text, struct tailcfg_node **ret)
{
	CLEANUP(tailcfg_node_free) struct tailcfg_node *n = NULL;
	CLEANUP(json_decref) json_t *o = NULL;
	int r;

	if (text.len > TAILCFG_NODE_TEXT_MAX)
		return -ENOBUFS;
	r = json_slice_read(text, &o);
	if (r < 0)
		return r;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	r = decode_object(n, o);
	if (r < 0)
		return r;
	*ret = TAKE(n);
	return 0;
}

static void put_time(json_t *o, const char *name, int64_t unix_nsec)
{
	char text[40];

	if (unix_nsec)
		json_object_set_new(o, name, json_string(json_time_text(unix_nsec, text)));
}

static void put_key(json_t *o, const char *name, enum key_kind kind, const struct key *k)
{
	if (!key_is_zero(k))
		json_object_set_new(o, name, json_key(kind, k));
}

static void put_true(json_t *o, const char *name, bool v)
{
	if (v)
		json_object_set_new(o, name, json_true());
}

static json_t *hostinfo_json(const struct tailcfg_node *n)
{
	json_t *h = json_object();

	json_object_set_new(h, "Hostname", json_string(n->hostname));
	json_object_set_new(h, "OS", json_string(n->os));
	json_object_set_new(h, "IPNVersion", json_string(n->client));
	if (n->exit_dns)
		json_object_set_new(h, "Services",
				    json_pack("[{s:s,s:i}]", "Proto", "peerapi-dns-proxy", "Port", 1));
	return h;
}

static void put_lists(json_t *o, const struct tailcfg_node *n)
{
	json_t *eps = json_array();

	json_object_set_new(o, "Addresses", tailcfg_prefixes_json(n->addresses, n->n_addresses));
	if (!n->allowed_same)
		json_object_set_new(o, "AllowedIPs",
				    tailcfg_prefixes_json(n->allowed_ips, n->n_allowed_ips));
	if (n->n_primary_routes)
		json_object_set_new(o, "PrimaryRoutes",
				    tailcfg_prefixes_json(n->primary_routes, n->n_primary_routes));
	for (size_t i = 0; i < n->n_endpoints; i++)
		json_array_append_new(eps, json_endpoint(&n->endpoints[i]));
	json_object_set_new(o, "Endpoints", eps);
	if (n->n_tags)
		json_object_set_new(o, "Tags", tailcfg_strv_json(n->tags, n->n_tags));
	if (n->capmap)
		json_object_set_new(o, "CapMap",
				    json_loads(n->capmap, JSON_ALLOW_NUL, NULL));
}

int tailcfg_node_encode(const struct tailcfg_node *n, struct buf *out)
{
	CLEANUP(json_decref) json_t *o = json_object();

	if (!o)
		return -ENOMEM;
	json_object_set_new(o, "ID", json_integer(n->id));
	json_object_set_new(o, "StableID", json_string(n->stable_id));
	json_object_set_new(o, "Name", json_string(n->name));
	json_object_set_new(o, "User", json_integer(n->user));
	put_key(o, "Key", KEY_KIND_NODE, &n->key);
	put_key(o, "Machine", KEY_KIND_MACHINE, &n->machine);
	put_key(o, "DiscoKey", KEY_KIND_DISCO, &n->disco);
	put_time(o, "KeyExpiry", n->key_expiry);
	put_time(o, "Created", n->created);
	put_time(o, "LastSeen", n->last_seen);
	put_lists(o, n);
	if (n->home_derp)
		json_object_set_new(o, "HomeDERP", json_integer(n->home_derp));
	json_object_set_new(o, "Cap", json_integer(n->cap));
	json_object_set_new(o, "Hostinfo", hostinfo_json(n));
	if (n->online != TAILCFG_UNKNOWN)
		json_object_set_new(o, "Online", json_boolean(n->online == TAILCFG_YES));
	put_true(o, "MachineAuthorized", n->machine_authorized);
	put_true(o, "Expired", n->expired);
	put_true(o, "IsWireGuardOnly", n->wireguard_only);
	put_true(o, "IsJailed", n->jailed);
	put_true(o, "UnsignedPeerAPIOnly", n->unsigned_peerapi_only);
	return json_write(o, out);
}

const struct prefix *tailcfg_node_allowed(const struct tailcfg_node *n, size_t *ret_n)
{
	*ret_n = n->allowed_same ? n->n_addresses : n->n_allowed_ips;
	return n->allowed_same ? n->addresses : n->allowed_ips;
}

bool tailcfg_node_has_cap(const struct tailcfg_node *n, const char *cap)
{
	CLEANUP(json_decref) json_t *o = NULL;

	if (!n->capmap)
		return false;
	o = json_loads(n->capmap, JSON_ALLOW_NUL, NULL);
	return json_object_get(o, cap) != NULL;
}

void tailcfg_node_patch(struct tailcfg_node *n, struct tailcfg_peer_change *p)
{
	if (p->has & TAILCFG_PATCH_DERP)
		n->home_derp = p->derp_region;
	if (p->has & TAILCFG_PATCH_CAP)
		n->cap = p->cap;
	if (p->has & TAILCFG_PATCH_CAPMAP) {
		free(n->capmap);
		n->capmap = TAKE(p->capmap);
	}
	if (p->has & TAILCFG_PATCH_ENDPOINTS) {
		free(n->endpoints);
		n->endpoints = TAKE(p->endpoints);
		n->n_endpoints = p->n_endpoints;
	}
	if (p->has & TAILCFG_PATCH_KEY) {
		/* A zero KeyExpiry is dropped by servers that omit what is empty, so a new key
		 * without one is not expired (control.md T45). */
		if (!(p->has & TAILCFG_PATCH_KEY_EXPIRY)) {
			n->key_expiry = 0;
			n->expired = false;
		}
		n->key = p->key;
	}
	if (p->has & TAILCFG_PATCH_DISCO)
		n->disco = p->disco;
	if (p->has & TAILCFG_PATCH_ONLINE)
		n->online = p->online ? TAILCFG_YES : TAILCFG_NO;
	if (p->has & TAILCFG_PATCH_LAST_SEEN)
		n->last_seen = p->last_seen;
	if (p->has & TAILCFG_PATCH_KEY_EXPIRY) {
		n->key_expiry = p->key_expiry;
		/* A date ahead, or none, takes back what an expired one had said. Whether a date has
		 * passed is for whoever holds the clock. */
		n->expired = false;
	}
}
