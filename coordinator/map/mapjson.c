#include "coordinator/map/mapjson.h"

#include <string.h>

#include "lib/json.h"

void mapjson_string(struct buf *b, const char *s)
{
	buf_put_u8(b, '"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c < 0x20)
			buf_printf(b, "\\u%04x", c);
		else
			buf_put_u8(b, c);
	}
	buf_put_u8(b, '"');
}

static void mapjson_key(struct buf *b, const char *name, enum key_kind kind, const struct key *k)
{
	char text[KEY_TEXT_MAX];

	buf_printf(b, ",\"%s\":\"%s\"", name, key_text(kind, k, text));
}

static void mapjson_time(struct buf *b, const char *name, int64_t t_nsec)
{
	char text[40];

	buf_printf(b, ",\"%s\":\"%s\"", name, json_time_text(t_nsec, text));
}

void mapjson_fqdn(struct buf *b, const struct node *n, const char *base_domain)
{
	if (*base_domain)
		buf_printf(b, "%s.%s.", n->given, base_domain);
	else
		buf_printf(b, "%s.", n->given);
}

static void mapjson_addresses(struct buf *b, const char *name, const struct node *n)
{
	char text[ADDR_TEXT_MAX];

	buf_printf(b, ",\"%s\":[", name);
	if (n->v4.family)
		buf_printf(b, "\"%s/32\"%s", addr_text(&n->v4, text), n->v6.family ? "," : "");
	if (n->v6.family)
		buf_printf(b, "\"%s/128\"", addr_text(&n->v6, text));
	buf_put_u8(b, ']');
}

static void mapjson_endpoints(struct buf *b, const struct node *n)
{
	char text[ENDPOINT_TEXT_MAX];

	buf_put_str(b, ",\"Endpoints\":[");
	for (size_t i = 0; i < n->n_endpoint; i++)
		buf_printf(b, "%s\"%s\"", i ? "," : "", endpoint_text(&n->endpoint[i], text));
	buf_put_u8(b, ']');
}

/* NetInfo goes back in where the node had it: as the last member of its Hostinfo. */
static void mapjson_hostinfo(struct buf *b, const struct node *n)
{
	size_t len = strlen(n->hostinfo);

	if (!n->netinfo || len < 2) {
		buf_printf(b, ",\"Hostinfo\":%s", n->hostinfo);
		return;
	}
	buf_put_str(b, ",\"Hostinfo\":");
	buf_put(b, n->hostinfo, len - 1);
	buf_printf(b, "%s\"NetInfo\":%s}", len > 2 ? "," : "", n->netinfo);
}

static void mapjson_tags(struct buf *b, const struct node *n)
{
	if (!n->tags.n)
		return;
	buf_put_str(b, ",\"Tags\":[");
	for (size_t i = 0; i < n->tags.n; i++) {
		if (i)
			buf_put_u8(b, ',');
		mapjson_string(b, n->tags.v[i]);
	}
	buf_put_u8(b, ']');
}

void mapjson_node(struct buf *b, const struct node *n, const char *base_domain, int64_t now_nsec)
{
	bool expired = node_expired(n, now_nsec);

	buf_printf(b, "{\"ID\":%llu,\"StableID\":\"%llu\",\"Name\":\"", (unsigned long long)n->id,
		   (unsigned long long)n->id);
	mapjson_fqdn(b, n, base_domain);
	buf_printf(b, "\",\"User\":%llu", (unsigned long long)node_wire_user(n));
	mapjson_key(b, "Key", KEY_KIND_NODE, &n->node_key);
	if (n->expiry_nsec)
		mapjson_time(b, "KeyExpiry", n->expiry_nsec);
	mapjson_key(b, "Machine", KEY_KIND_MACHINE, &n->machine_key);
	if (!key_is_zero(&n->disco_key))
		mapjson_key(b, "DiscoKey", KEY_KIND_DISCO, &n->disco_key);
	mapjson_addresses(b, "Addresses", n);
	mapjson_addresses(b, "AllowedIPs", n);
	mapjson_endpoints(b, n);
	if (n->home)
		buf_printf(b, ",\"HomeDERP\":%u", n->home);
	mapjson_hostinfo(b, n);
	mapjson_time(b, "Created", n->created_nsec);
	buf_printf(b, ",\"Cap\":%u", n->cap);
	mapjson_tags(b, n);
	if (!n->online && n->last_seen_nsec)
		mapjson_time(b, "LastSeen", n->last_seen_nsec);
	buf_printf(b, ",\"Online\":%s,\"MachineAuthorized\":%s", n->online ? "true" : "false",
		   expired ? "false" : "true");
	buf_put_str(b, expired ? ",\"Expired\":true}" : "}");
}

void mapjson_self(struct buf *b, const char *peer_json, size_t len, const struct settings *cfg)
{
	buf_put(b, peer_json, len - 1);
	buf_printf(b, ",\"CapMap\":{\"https://tailscale.com/cap/is-admin\":[],"
		      "\"https://tailscale.com/cap/ssh\":[],\"default-auto-update\":[%s]",
		   cfg->auto_update ? "true" : "false");
	if (cfg->taildrop)
		buf_put_str(b, ",\"https://tailscale.com/cap/file-sharing\":[]");
	if (cfg->randomize_port)
		buf_put_str(b, ",\"randomize-client-port\":[]");
	buf_put_str(b, "}}");
}

void mapjson_patch(struct buf *b, const struct node *n, uint32_t changes)
{
	buf_printf(b, "{\"NodeID\":%llu", (unsigned long long)n->id);
	if (changes & NODE_CHANGE_HOME && n->home)
		buf_printf(b, ",\"DERPRegion\":%u", n->home);
	if (changes & NODE_CHANGE_ENDPOINTS)
		mapjson_endpoints(b, n);
	if (changes & NODE_CHANGE_DISCO)
		mapjson_key(b, "DiscoKey", KEY_KIND_DISCO, &n->disco_key);
	if (changes & NODE_CHANGE_ONLINE) {
		buf_printf(b, ",\"Online\":%s", n->online ? "true" : "false");
		if (!n->online)
			mapjson_time(b, "LastSeen", n->last_seen_nsec);
	}
	buf_put_u8(b, '}');
}

static const char *mapjson_display(const struct registry_user *u)
{
	return *u->display ? u->display : u->name;
}

static const char *mapjson_login(const struct registry_user *u)
{
	return *u->email ? u->email : u->name;
}

void mapjson_user(struct buf *b, const struct registry_user *u)
{
	buf_printf(b, "{\"ID\":%llu,\"LoginName\":", (unsigned long long)u->id);
	mapjson_string(b, mapjson_login(u));
	buf_put_str(b, ",\"DisplayName\":");
	mapjson_string(b, mapjson_display(u));
	if (*u->picture) {
		buf_put_str(b, ",\"ProfilePicURL\":");
		mapjson_string(b, u->picture);
	}
	buf_put_u8(b, '}');
}

void mapjson_tagged_devices(struct buf *b)
{
	buf_printf(b, "{\"ID\":%llu,\"LoginName\":\"tagged-devices\",\"DisplayName\":\"Tagged Devices\"}",
		   (unsigned long long)USER_TAGGED_DEVICES);
}

static void mapjson_resolver(struct buf *b, const char *addr)
{
	buf_put_str(b, "{\"Addr\":");
	mapjson_string(b, addr);
	buf_put_u8(b, '}');
}

static void mapjson_resolvers(struct buf *b, const struct settings_list *l)
{
	buf_put_u8(b, '[');
	for (size_t i = 0; i < l->n; i++) {
		if (i)
			buf_put_u8(b, ',');
		mapjson_resolver(b, l->v[i]);
	}
	buf_put_u8(b, ']');
}

/* Reverse zones of the prefixes: whole octets (v4) and nibbles (v6); an empty list makes them local. */
static void mapjson_reverse(struct buf *b, const struct prefix *p, bool *comma)
{
	unsigned int step = p->addr.family == 4 ? 8 : 4;
	unsigned int whole = p->bits / step, spare = p->bits % step;
	unsigned int count = spare ? 1u << (step - spare) : 1;
	unsigned int labels = spare ? whole + 1 : whole;

	if (!p->addr.family || !labels)
		return;
	for (unsigned int k = 0; k < count; k++) {
		buf_printf(b, "%s\"", *comma ? "," : "");
		*comma = true;
		for (unsigned int i = labels; i-- > 0;) {
			unsigned int v = p->addr.family == 4 ?
						 p->addr.b[i] :
						 (p->addr.b[i / 2] >> (i % 2 ? 0 : 4)) & 15u;

			if (spare && i == labels - 1)
				v += k;
			buf_printf(b, p->addr.family == 4 ? "%u." : "%x.", v);
		}
		buf_put_str(b, p->addr.family == 4 ? "in-addr.arpa.\":[]" : "ip6.arpa.\":[]");
	}
}

void mapjson_dns(struct buf *b, const struct settings *cfg)
{
	bool comma = false;

	buf_printf(b, "{\"Proxied\":%s,\"%s\":", cfg->dns.magic ? "true" : "false",
		   cfg->dns.override_local ? "Resolvers" : "FallbackResolvers");
	mapjson_resolvers(b, &cfg->dns.global);
	buf_put_str(b, ",\"Routes\":{");
	if (cfg->dns.magic) {
		mapjson_reverse(b, &cfg->v4, &comma);
		mapjson_reverse(b, &cfg->v6, &comma);
	}
	for (size_t i = 0; i < cfg->dns.n_split; i++) {
		if (comma)
			buf_put_u8(b, ',');
		comma = true;
		mapjson_string(b, cfg->dns.split[i].domain);
		buf_put_u8(b, ':');
		mapjson_resolvers(b, &cfg->dns.split[i].servers);
	}
	buf_put_str(b, "},\"Domains\":[");
	comma = *cfg->dns.base_domain;
	if (comma)
		mapjson_string(b, cfg->dns.base_domain);
	for (size_t i = 0; i < cfg->dns.search.n; i++) {
		if (comma)
			buf_put_u8(b, ',');
		comma = true;
		mapjson_string(b, cfg->dns.search.v[i]);
	}
	buf_put_u8(b, ']');
	if (cfg->dns.n_records)
		buf_put_str(b, ",\"ExtraRecords\":[");
	for (size_t i = 0; i < cfg->dns.n_records; i++) {
		buf_put_str(b, i ? ",{\"Name\":" : "{\"Name\":");
		mapjson_string(b, cfg->dns.records[i].name);
		buf_put_str(b, ",\"Type\":");
		mapjson_string(b, cfg->dns.records[i].type);
		buf_put_str(b, ",\"Value\":");
		mapjson_string(b, cfg->dns.records[i].value);
		buf_put_u8(b, '}');
	}
	buf_put_str(b, cfg->dns.n_records ? "]}" : "}");
}

void mapjson_rest(struct buf *b, const struct settings *cfg)
{
	/* Without a policy everything is allowed; a configured policy has stopped the start. */
	buf_put_str(b, "\"PacketFilters\":{\"base\":[{\"SrcIPs\":[\"*\"],\"DstPorts\":[{\"IP\":\"*\","
		       "\"Ports\":{\"First\":0,\"Last\":65535}}]}]},\"Domain\":");
	mapjson_string(b, *cfg->dns.base_domain ? cfg->dns.base_domain : cfg->server_host);
	buf_put_str(b, ",\"CollectServices\":false");
	if (!cfg->logtail)
		buf_put_str(b, ",\"Debug\":{\"DisableLogTail\":true}");
}

static void mapjson_register_tail(struct buf *b, bool key_expired, const char *url, const char *error)
{
	buf_printf(b, "\"NodeKeyExpired\":%s,\"MachineAuthorized\":%s,\"AuthURL\":", key_expired ? "true" : "false",
		   key_expired || *error || *url ? "false" : "true");
	mapjson_string(b, url);
	buf_put_str(b, ",\"Error\":");
	mapjson_string(b, error);
	buf_put_u8(b, '}');
}

void mapjson_register(struct buf *b, const struct registry_user *u, bool key_expired)
{
	const char *login = u ? mapjson_login(u) : "tagged-devices";
	unsigned long long id = u ? u->id : USER_TAGGED_DEVICES;

	buf_printf(b, "{\"User\":{\"ID\":%llu,\"DisplayName\":", id);
	mapjson_string(b, u ? mapjson_display(u) : "Tagged Devices");
	if (u)
		mapjson_time(b, "Created", u->created_nsec);
	buf_printf(b, "},\"Login\":{\"ID\":%llu,\"Provider\":\"\",\"LoginName\":", id);
	mapjson_string(b, login); /* empty, a stock client would not keep its profile */
	buf_put_str(b, ",\"DisplayName\":");
	mapjson_string(b, u ? mapjson_display(u) : "Tagged Devices");
	buf_put_str(b, "},");
	mapjson_register_tail(b, key_expired, "", "");
}

void mapjson_register_error(struct buf *b, const char *error)
{
	buf_put_u8(b, '{');
	mapjson_register_tail(b, false, "", error);
}

void mapjson_register_url(struct buf *b, const char *url)
{
	buf_put_u8(b, '{');
	mapjson_register_tail(b, false, url, "");
}
