#include "proto/tailcfg_util.h"

#include <errno.h>
#include <string.h>

static void patch_done(struct tailcfg_peer_change *p)
{
	free(p->capmap);
	free(p->endpoints);
}

void tailcfg_user_done(struct tailcfg_user *u)
{
	free(u->login);
	free(u->display);
	free(u->picture);
	*u = (struct tailcfg_user){ 0 };
}

static void ping_free(struct tailcfg_ping *p)
{
	if (!p)
		return;
	free(p->url);
	free(p->types);
	free(p->payload);
	free(p);
}
DEFINE_CLEANUP(struct tailcfg_ping *, ping_free)

void tailcfg_map_done(struct tailcfg_map_response *m)
{
	ping_free(m->ping);
	free(m->browse_url);
	free(m->peers);
	free(m->peers_changed);
	free(m->peers_removed);
	free(m->seen);
	free(m->online);
	for (size_t i = 0; i < m->n_patches; i++)
		patch_done(&m->patches[i]);
	free(m->patches);
	for (size_t i = 0; i < m->n_filters; i++)
		free(m->filters[i].name);
	free(m->filters);
	for (size_t i = 0; i < m->n_users; i++)
		tailcfg_user_done(&m->users[i]);
	free(m->users);
	free(m->domain);
	tailcfg_strv_free(m->health, m->n_health);
	*m = (struct tailcfg_map_response){ 0 };
}

/* Each reader gets the value of one member. Absent and null have been sorted out before. */

static int read_bool(struct json_slice v, bool *ret)
{
	if (!json_slice_is(v, "true") && !json_slice_is(v, "false"))
		return -EBADMSG;
	*ret = json_slice_is(v, "true");
	return 0;
}

static int read_text(struct json_slice v, size_t max, char **ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	int r;

	r = json_slice_read(v, &j);
	if (r < 0 || !json_is_string(j))
		return r == -ENOMEM ? r : -EBADMSG;
	free(*ret);
	*ret = tailcfg_text(json_string_value(j), max);
	return *ret ? 0 : -ENOMEM;
}

static int read_time(struct json_slice v, int64_t *ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	int r;

	r = json_slice_read(v, &j);
	if (r < 0 || !json_is_string(j))
		return r == -ENOMEM ? r : -EBADMSG;
	return json_time_parse(json_string_value(j), ret);
}

/* A list whose elements stay slices. */
static int read_nodes(struct json_slice v, struct json_slice **ret, size_t *ret_n)
{
	struct json_slice e;
	struct json_scan s;
	int r;

	r = json_scan_array(v, &s);
	if (r < 0)
		return r;
	while (json_scan_element(&s, &e)) {
		r = tailcfg_grow(ret, *ret_n, TAILCFG_PEERS_MAX, sizeof(**ret));
		if (r < 0)
			return r;
		(*ret)[(*ret_n)++] = e;
	}
	return json_scan_ok(&s) ? 0 : -EBADMSG;
}

static int slice_int(struct json_slice v, int64_t *ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	int r;

	r = json_slice_read(v, &j);
	if (r < 0 || !json_is_integer(j))
		return r == -ENOMEM ? r : -EBADMSG;
	*ret = json_integer_value(j);
	return 0;
}

static int read_removed(struct json_slice v, struct tailcfg_map_response *m)
{
	struct json_slice e;
	struct json_scan s;
	int64_t id;
	int r;

	r = json_scan_array(v, &s);
	if (r < 0)
		return r;
	while (json_scan_element(&s, &e)) {
		r = tailcfg_grow(&m->peers_removed, m->n_peers_removed, TAILCFG_PEERS_MAX,
				 sizeof(id));
		if (r < 0)
			return r;
		if (slice_int(e, &id) < 0)
			m->n_skipped++;
		else
			m->peers_removed[m->n_peers_removed++] = id;
	}
	return json_scan_ok(&s) ? 0 : -EBADMSG;
}

static bool parse_id(struct json_slice name, int64_t *ret)
{
	int64_t id = 0;

	if (!name.len || name.len > 16)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		if (name.p[i] < '0' || name.p[i] > '9')
			return false;
		id = id * 10 + (name.p[i] - '0');
	}
	*ret = id;
	return true;
}

static int read_flags(struct json_slice v, struct tailcfg_flag **ret, size_t *ret_n,
		      size_t *skipped)
{
	struct tailcfg_flag f;
	struct json_slice name, value;
	struct json_scan s;
	int r;

	r = json_scan_object(v, &s);
	if (r < 0)
		return r;
	while (json_scan_member(&s, &name, &value)) {
		if (!parse_id(name, &f.node_id) || read_bool(value, &f.on) < 0) {
			(*skipped)++;
			continue;
		}
		r = tailcfg_grow(ret, *ret_n, TAILCFG_PEERS_MAX, sizeof(f));
		if (r < 0)
			return r;
		(*ret)[(*ret_n)++] = f;
	}
	return json_scan_ok(&s) ? 0 : -EBADMSG;
}

static int patch_scalars(const json_t *o, struct tailcfg_peer_change *p)
{
	const json_t *online = json_get(o, "Online");
	int64_t derp = json_get_int(o, "DERPRegion", 0), cap = json_get_int(o, "Cap", 0);
	int r;

	p->node_id = json_get_int(o, "NodeID", 0);
	if (p->node_id <= 0 || derp < 0 || derp > UINT16_MAX)
		return -EBADMSG;
	if (derp) {
		p->has |= TAILCFG_PATCH_DERP;
		p->derp_region = (int)derp;
	}
	if (cap > 0 && cap < 1 << 20) {
		p->has |= TAILCFG_PATCH_CAP;
		p->cap = (int)cap;
	}
	if (json_is_boolean(online)) {
		p->has |= TAILCFG_PATCH_ONLINE;
		p->online = json_is_true(online);
	}
	p->has |= json_get(o, "LastSeen") ? TAILCFG_PATCH_LAST_SEEN : 0;
	p->has |= json_get(o, "KeyExpiry") ? TAILCFG_PATCH_KEY_EXPIRY : 0;
	r = tailcfg_time_decode(o, "LastSeen", &p->last_seen);
	return r == 0 ? tailcfg_time_decode(o, "KeyExpiry", &p->key_expiry) : r;
}

static int patch_decode(struct json_slice v, struct tailcfg_peer_change *ret)
{
	CLEANUP(json_decref) json_t *o = NULL;
	struct tailcfg_peer_change p = { 0 };
	int r;

	r = json_slice_read(v, &o);
	if (r == 0)
		r = patch_scalars(o, &p);
	if (r == 0)
		r = tailcfg_key_decode(o, "Key", KEY_KIND_NODE, &p.key);
	if (r == 0)
		r = tailcfg_key_decode(o, "DiscoKey", KEY_KIND_DISCO, &p.disco);
	if (r < 0)
		return r;
	/* No peer has the zero key: such a patch would take the peer away by other means. */
	p.has |= key_is_zero(&p.key) ? 0 : TAILCFG_PATCH_KEY;
	p.has |= json_get(o, "DiscoKey") ? TAILCFG_PATCH_DISCO : 0;
	if (json_is_object(json_get(o, "CapMap"))) {
		p.has |= TAILCFG_PATCH_CAPMAP;
		r = tailcfg_capmap_decode(json_get(o, "CapMap"), &p.capmap);
	}
	if (r == 0 && json_is_array(json_get(o, "Endpoints"))) {
		p.has |= TAILCFG_PATCH_ENDPOINTS;
		r = tailcfg_endpoints_decode(json_get(o, "Endpoints"), &p.endpoints,
					     &p.n_endpoints);
	}
	if (r < 0) {
		patch_done(&p);
		return r;
	}
	*ret = p;
	return 0;
}

static int read_patches(struct json_slice v, struct tailcfg_map_response *m)
{
	struct tailcfg_peer_change p;
	struct json_slice e;
	struct json_scan s;
	int r;

	r = json_scan_array(v, &s);
	if (r < 0)
		return r;
	while (json_scan_element(&s, &e)) {
		r = tailcfg_grow(&m->patches, m->n_patches, TAILCFG_PEERS_MAX, sizeof(p));
		if (r < 0)
			return r;
		r = patch_decode(e, &p);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			m->n_skipped++;
		else
			m->patches[m->n_patches++] = p;
	}
	return json_scan_ok(&s) ? 0 : -EBADMSG;
}

static int read_filters(struct json_slice v, struct tailcfg_map_response *m)
{
	struct json_slice name, value;
	struct json_scan s;
	int r;

	r = json_scan_object(v, &s);
	if (r < 0)
		return r;
	while (json_scan_member(&s, &name, &value)) {
		struct tailcfg_named_filter f = { .text = value };

		if (json_slice_is(name, "*")) {
			m->filters_clear |= json_slice_is_null(value);
			continue;
		}
		r = tailcfg_grow(&m->filters, m->n_filters, TAILCFG_FILTERS_MAX, sizeof(f));
		if (r < 0)
			return r;
		r = read_text((struct json_slice){ name.p - 1, name.len + 2 }, TAILCFG_NAME_MAX,
			      &f.name);
		if (r < 0)
			return r;
		m->filters[m->n_filters++] = f;
	}
	return json_scan_ok(&s) ? 0 : -EBADMSG;
}

static int user_decode(const json_t *o, struct tailcfg_user *ret)
{
	struct tailcfg_user u = { .id = json_get_int(o, "ID", 0) };
	int r;

	r = tailcfg_text_decode(o, "LoginName", &u.login);
	if (r == 0)
		r = tailcfg_text_decode(o, "DisplayName", &u.display);
	if (r == 0)
		r = tailcfg_text_decode(o, "ProfilePicURL", &u.picture);
	if (r < 0) {
		tailcfg_user_done(&u);
		return r;
	}
	*ret = u;
	return 0;
}

int tailcfg_user_encode(const struct tailcfg_user *u, struct buf *out)
{
	CLEANUP(json_decref) json_t *o =
		json_pack("{s:I,s:s,s:s}", "ID", (json_int_t)u->id, "LoginName", u->login,
			  "DisplayName", u->display);

	if (!o)
		return -ENOMEM;
	if (*u->picture)
		json_object_set_new(o, "ProfilePicURL", json_string(u->picture));
	return json_write(o, out);
}

static int read_users(struct json_slice v, struct tailcfg_map_response *m)
{
	struct json_slice e;
	struct json_scan s;
	int r;

	r = json_scan_array(v, &s);
	if (r < 0)
		return r;
	while (json_scan_element(&s, &e)) {
		CLEANUP(json_decref) json_t *o = NULL;

		r = tailcfg_grow(&m->users, m->n_users, TAILCFG_USERS_MAX, sizeof(*m->users));
		if (r < 0)
			return r;
		r = json_slice_read(e, &o);
		if (r == -ENOMEM)
			return r;
		if (r < 0 || json_get_int(o, "ID", 0) <= 0) {
			m->n_skipped++;
			continue;
		}
		r = user_decode(o, &m->users[m->n_users]);
		if (r < 0)
			return r;
		m->n_users++;
	}
	return json_scan_ok(&s) ? 0 : -EBADMSG;
}

static int read_ping(struct json_slice v, struct tailcfg_map_response *m)
{
	CLEANUP(ping_free) struct tailcfg_ping *p = NULL;
	CLEANUP(json_decref) json_t *o = NULL;
	const char *url, *payload;
	int r;

	r = json_slice_read(v, &o);
	if (r < 0)
		return r;
	url = json_get_str(o, "URL");
	if (!url || (!tailcfg_url_ok(url) && *url != '/')) {
		m->n_skipped++;
		return 0;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->over_noise = json_get_bool(o, "URLIsNoise", false);
	p->url = strdup(url);
	r = tailcfg_text_decode(o, "Types", &p->types);
	if (r < 0 || !p->url)
		return -ENOMEM;
	payload = json_get_str(o, "Payload");
	if (payload && !(p->payload = strdup(payload)))
		return -ENOMEM;
	m->ping = TAKE(p);
	return 0;
}

static int read_health(struct json_slice v, struct tailcfg_map_response *m)
{
	CLEANUP(json_decref) json_t *o = NULL;
	int r;

	r = json_slice_read(v, &o);
	if (r < 0 || !json_is_array(o))
		return r == -ENOMEM ? r : -EBADMSG;
	while (json_array_size(o) > TAILCFG_HEALTH_MAX)
		json_array_remove(o, json_array_size(o) - 1);
	m->has_health = true;
	return tailcfg_strv_decode(o, TAILCFG_HEALTH_MAX, &m->health, &m->n_health, &m->n_skipped);
}

static int read_browse(struct json_slice v, struct tailcfg_map_response *m)
{
	int r;

	r = read_text(v, TAILCFG_URL_MAX + 1, &m->browse_url);
	if (r == 0 && !tailcfg_url_ok(m->browse_url))
		free(TAKE(m->browse_url));
	return r;
}

static int read_tka(struct json_slice v, struct tailcfg_map_response *m)
{
	CLEANUP(json_decref) json_t *o = NULL;
	int r;

	r = json_slice_read(v, &o);
	if (r == 0)
		m->tka_off = json_get_bool(o, "Disabled", false);
	m->tailnet_lock = r == 0 && !m->tka_off;
	return r;
}

enum member {
	MEMBER_KEEP_ALIVE, MEMBER_PING, MEMBER_BROWSE, MEMBER_TIME, MEMBER_NODE, MEMBER_DERP,
	MEMBER_DNS, MEMBER_FILTER, MEMBER_MESSAGES, MEMBER_PEERS, MEMBER_CHANGED, MEMBER_REMOVED,
	MEMBER_SEEN, MEMBER_ONLINE, MEMBER_PATCHES, MEMBER_FILTERS, MEMBER_USERS, MEMBER_DOMAIN,
	MEMBER_HEALTH, MEMBER_TKA,
};

static const char *const member_names[] = {
	[MEMBER_KEEP_ALIVE] = "KeepAlive",
	[MEMBER_PING] = "PingRequest",
	[MEMBER_BROWSE] = "PopBrowserURL",
	[MEMBER_TIME] = "ControlTime",
	[MEMBER_NODE] = "Node",
	[MEMBER_DERP] = "DERPMap",
	[MEMBER_DNS] = "DNSConfig",
	[MEMBER_FILTER] = "PacketFilter",
	[MEMBER_MESSAGES] = "DisplayMessages",
	[MEMBER_PEERS] = "Peers",
	[MEMBER_CHANGED] = "PeersChanged",
	[MEMBER_REMOVED] = "PeersRemoved",
	[MEMBER_SEEN] = "PeerSeenChange",
	[MEMBER_ONLINE] = "OnlineChange",
	[MEMBER_PATCHES] = "PeersChangedPatch",
	[MEMBER_FILTERS] = "PacketFilters",
	[MEMBER_USERS] = "UserProfiles",
	[MEMBER_DOMAIN] = "Domain",
	[MEMBER_HEALTH] = "Health",
	[MEMBER_TKA] = "TKAInfo",
};

static int read_member(enum member member, struct json_slice v, struct tailcfg_map_response *m)
{
	switch (member) {
	case MEMBER_KEEP_ALIVE:
		return read_bool(v, &m->keep_alive);
	case MEMBER_PING:
		return read_ping(v, m);
	case MEMBER_BROWSE:
		return read_browse(v, m);
	case MEMBER_TIME:
		return read_time(v, &m->control_time);
	case MEMBER_NODE:
		m->node = v;
		return 0;
	case MEMBER_DERP:
		m->derp_map = v;
		return 0;
	case MEMBER_DNS:
		m->dns = v;
		return 0;
	case MEMBER_FILTER:
		m->packet_filter = v;
		return 0;
	case MEMBER_MESSAGES:
		m->display_messages = v;
		return 0;
	case MEMBER_PEERS:
		return read_nodes(v, &m->peers, &m->n_peers);
	case MEMBER_CHANGED:
		return read_nodes(v, &m->peers_changed, &m->n_peers_changed);
	case MEMBER_REMOVED:
		return read_removed(v, m);
	case MEMBER_SEEN:
		return read_flags(v, &m->seen, &m->n_seen, &m->n_skipped);
	case MEMBER_ONLINE:
		return read_flags(v, &m->online, &m->n_online, &m->n_skipped);
	case MEMBER_PATCHES:
		return read_patches(v, m);
	case MEMBER_FILTERS:
		return read_filters(v, m);
	case MEMBER_USERS:
		return read_users(v, m);
	case MEMBER_DOMAIN:
		return read_text(v, TAILCFG_NAME_MAX, &m->domain);
	case MEMBER_HEALTH:
		return read_health(v, m);
	case MEMBER_TKA:
		return read_tka(v, m);
	}
	unreachable();
}

int tailcfg_map_decode(struct json_slice text, struct tailcfg_map_response *ret)
{
	CLEANUP(tailcfg_map_done) struct tailcfg_map_response m = { 0 };
	struct json_slice name, value;
	struct json_scan s;
	uint32_t seen = 0;
	int r;

	if (text.len > TAILCFG_MAP_TEXT_MAX)
		return -ENOBUFS;
	/* jansson passes over it, and a copy of a part ends there: the kept map could not be read again. */
	if (memchr(text.p, '\0', text.len))
		return -EBADMSG;
	r = json_scan_object(text, &s);
	if (r < 0)
		return r;
	while (json_scan_member(&s, &name, &value)) {
		for (size_t i = 0; i < ARRAY_SIZE(member_names); i++) {
			if (!json_slice_is(name, member_names[i]))
				continue;
			if (seen & (UINT32_C(1) << i))
				return -EBADMSG; /* twice: two readers would see two things */
			seen |= UINT32_C(1) << i;
			r = json_slice_is_null(value) ? 0 : read_member((enum member)i, value, &m);
			if (r < 0)
				return r;
		}
	}
	if (!json_scan_ok(&s))
		return -EBADMSG;
	*ret = m;
	m = (struct tailcfg_map_response){ 0 };
	return 0;
}

/* ---- DNS ---- */

void tailcfg_dns_done(struct tailcfg_dns *d)
{
	tailcfg_strv_free(d->resolvers, d->n_resolvers);
	tailcfg_strv_free(d->domains, d->n_domains);
	for (size_t i = 0; i < d->n_routes; i++) {
		free(d->routes[i].suffix);
		tailcfg_strv_free(d->routes[i].resolvers, d->routes[i].n_resolvers);
	}
	free(d->routes);
	*d = (struct tailcfg_dns){ 0 };
}

#define DNS_LIST_MAX 4096

static int resolvers_decode(const json_t *list, char ***ret, size_t *ret_n)
{
	size_t count = json_array_size(list);
	int r;

	for (size_t i = 0; i < count; i++) {
		const char *addr = json_get_str(json_array_get(list, i), "Addr");

		if (!addr)
			continue;
		r = tailcfg_grow(ret, *ret_n, DNS_LIST_MAX, sizeof(**ret));
		if (r < 0)
			return r;
		(*ret)[*ret_n] = tailcfg_text(addr, TAILCFG_URL_MAX);
		if (!(*ret)[*ret_n])
			return -ENOMEM;
		(*ret_n)++;
	}
	return 0;
}

static char *suffix_text(const char *s)
{
	char *t;
	size_t n;

	while (*s == '.')
		s++;
	t = tailcfg_text(s, TAILCFG_NAME_MAX);
	for (n = t ? strlen(t) : 0; n && t[n - 1] == '.'; n--)
		t[n - 1] = '\0';
	return t;
}

static int dns_routes_decode(json_t *routes, struct tailcfg_dns *d)
{
	const char *name;
	json_t *list;
	int r;

	json_object_foreach(routes, name, list) {
		r = tailcfg_grow(&d->routes, d->n_routes, DNS_LIST_MAX, sizeof(*d->routes));
		if (r < 0)
			return r;
		d->routes[d->n_routes] = (struct tailcfg_dns_route){ .suffix = suffix_text(name) };
		if (!d->routes[d->n_routes++].suffix)
			return -ENOMEM;
		r = resolvers_decode(list, &d->routes[d->n_routes - 1].resolvers,
				     &d->routes[d->n_routes - 1].n_resolvers);
		if (r < 0)
			return r;
	}
	return 0;
}

int tailcfg_dns_decode(struct json_slice text, struct tailcfg_dns *ret)
{
	CLEANUP(json_decref) json_t *o = NULL;
	struct tailcfg_dns d = { 0 };
	size_t skipped = 0;
	int r;

	r = json_slice_read(text, &o);
	if (r < 0 || !json_is_object(o))
		return r == -ENOMEM ? r : -EBADMSG;
	d.proxied = json_get_bool(o, "Proxied", false);
	r = resolvers_decode(json_get(o, "Resolvers"), &d.resolvers, &d.n_resolvers);
	if (r == 0)
		r = tailcfg_strv_decode(json_get(o, "Domains"), DNS_LIST_MAX, &d.domains,
					&d.n_domains, &skipped);
	if (r == 0)
		r = dns_routes_decode(json_get(o, "Routes"), &d);
	if (r < 0) {
		tailcfg_dns_done(&d);
		return r;
	}
	*ret = d;
	return 0;
}

/* ---- register answer ---- */

void tailcfg_register_done(struct tailcfg_register_response *r)
{
	free(r->error);
	free(r->auth_url);
	tailcfg_user_done(&r->user);
	*r = (struct tailcfg_register_response){ 0 };
}

int tailcfg_register_decode(struct json_slice text, struct tailcfg_register_response *ret)
{
	CLEANUP(tailcfg_register_done) struct tailcfg_register_response a = { 0 };
	CLEANUP(json_decref) json_t *o = NULL;
	const char *url;
	int r;

	if (text.len > TAILCFG_REGISTER_TEXT_MAX)
		return -ENOBUFS;
	r = json_slice_read(text, &o);
	if (r < 0 || !json_is_object(o))
		return r == -ENOMEM ? r : -EBADMSG;
	a.node_key_expired = json_get_bool(o, "NodeKeyExpired", false);
	a.machine_authorized = json_get_bool(o, "MachineAuthorized", false);
	a.wants_signature = json_string_length(json_get(o, "NodeKeySignature")) > 0;
	r = tailcfg_text_decode(o, "Error", &a.error);
	if (r < 0)
		return r;
	url = json_get_str(o, "AuthURL");
	if (url && *url && !tailcfg_url_ok(url))
		return -EBADMSG; /* it would be shown to a person, and sent back as it is */
	a.auth_url = strdup(url ? url : "");
	if (!a.auth_url)
		return -ENOMEM;
	r = user_decode(json_get(o, json_get(o, "Login") ? "Login" : "User"), &a.user);
	if (r < 0)
		return r;
	*ret = a;
	a = (struct tailcfg_register_response){ 0 };
	return 0;
}

int tailcfg_server_key_decode(struct json_slice text, struct key *ret)
{
	CLEANUP(json_decref) json_t *o = NULL;
	struct key k;
	int r;

	r = json_slice_read(text, &o);
	if (r < 0 || !json_is_object(o))
		return r == -ENOMEM ? r : -EBADMSG;
	r = json_get_key(o, "publicKey", KEY_KIND_MACHINE, &k);
	if (r < 0)
		return -EBADMSG;
	if (key_is_zero(&k))
		return -EPROTONOSUPPORT;
	*ret = k;
	return 0;
}
