#include "proto/tailcfg_util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int copy_text(const char *s, char **ret)
{
	*ret = s ? strdup(s) : NULL;
	return s && !*ret ? -ENOMEM : 0;
}

static int copy_lists(const struct tailcfg_hostinfo *h, struct tailcfg_hostinfo *c)
{
	if (h->n_routable_ips) {
		c->routable_ips = malloc(h->n_routable_ips * sizeof(*c->routable_ips));
		if (!c->routable_ips)
			return -ENOMEM;
		memcpy(c->routable_ips, h->routable_ips,
		       h->n_routable_ips * sizeof(*c->routable_ips));
		c->n_routable_ips = h->n_routable_ips;
	}
	c->request_tags = h->n_request_tags ? calloc(h->n_request_tags, sizeof(char *)) : NULL;
	if (h->n_request_tags && !c->request_tags)
		return -ENOMEM;
	for (size_t i = 0; i < h->n_request_tags; i++) {
		c->request_tags[i] = strdup(h->request_tags[i]);
		if (!c->request_tags[i])
			return -ENOMEM;
		c->n_request_tags++;
	}
	return 0;
}

int tailcfg_hostinfo_copy(const struct tailcfg_hostinfo *h, struct tailcfg_hostinfo *ret)
{
	struct tailcfg_hostinfo c = { .shields_up = h->shields_up, .net = h->net };
	int r;

	r = copy_text(h->hostname, &c.hostname);
	r = r ? r : copy_text(h->client_version, &c.client_version);
	r = r ? r : copy_text(h->os, &c.os);
	r = r ? r : copy_text(h->os_version, &c.os_version);
	r = r ? r : copy_text(h->distro, &c.distro);
	r = r ? r : copy_text(h->distro_version, &c.distro_version);
	r = r ? r : copy_text(h->distro_codename, &c.distro_codename);
	r = r ? r : copy_text(h->machine, &c.machine);
	r = r ? r : copy_text(h->package, &c.package);
	r = r ? r : copy_lists(h, &c);
	if (r < 0) {
		tailcfg_hostinfo_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}

void tailcfg_hostinfo_done(struct tailcfg_hostinfo *h)
{
	free(h->hostname);
	free(h->client_version);
	free(h->os);
	free(h->os_version);
	free(h->distro);
	free(h->distro_version);
	free(h->distro_codename);
	free(h->machine);
	free(h->package);
	free(h->routable_ips);
	tailcfg_strv_free(h->request_tags, h->n_request_tags);
	*h = (struct tailcfg_hostinfo){ 0 };
}

static void put_text(json_t *o, const char *name, const char *s)
{
	if (s && *s)
		json_object_set_new(o, name, json_string(s));
}

static void put_tristate(json_t *o, const char *name, enum tailcfg_tristate v)
{
	if (v != TAILCFG_UNKNOWN)
		json_object_set_new(o, name, json_boolean(v == TAILCFG_YES));
}

static json_t *netinfo_json(const struct tailcfg_netinfo *n)
{
	json_t *o = json_object(), *latency = json_object();

	put_tristate(o, "MappingVariesByDestIP", n->mapping_varies);
	put_tristate(o, "WorkingIPv6", n->working_ipv6);
	put_tristate(o, "OSHasIPv6", n->os_has_ipv6);
	put_tristate(o, "WorkingUDP", n->working_udp);
	put_tristate(o, "WorkingICMPv4", n->working_icmpv4);
	put_tristate(o, "UPnP", n->upnp);
	put_tristate(o, "PMP", n->pmp);
	put_tristate(o, "PCP", n->pcp);
	json_object_set_new(o, "PreferredDERP", json_integer(n->preferred_derp));
	for (size_t i = 0; i < n->n_latency && i < ARRAY_SIZE(n->latency); i++) {
		char name[32];

		snprintf(name, sizeof(name), "%d-v%d", n->latency[i].region, n->latency[i].family);
		json_object_set_new(latency, name, json_real(n->latency[i].usec / 1e6));
	}
	if (json_object_size(latency))
		json_object_set(o, "DERPLatency", latency);
	json_decref(latency);
	return o;
}

static json_t *hostinfo_json(const struct tailcfg_hostinfo *h)
{
	json_t *o = json_object();

	put_text(o, "IPNVersion", h->client_version);
	put_text(o, "OS", h->os);
	put_text(o, "OSVersion", h->os_version);
	put_text(o, "Distro", h->distro);
	put_text(o, "DistroVersion", h->distro_version);
	put_text(o, "DistroCodeName", h->distro_codename);
	put_text(o, "Package", h->package);
	put_text(o, "Hostname", h->hostname);
	put_text(o, "Machine", h->machine);
	if (h->shields_up)
		json_object_set_new(o, "ShieldsUp", json_true());
	if (h->n_routable_ips)
		json_object_set_new(o, "RoutableIPs",
				    tailcfg_prefixes_json(h->routable_ips, h->n_routable_ips));
	if (h->n_request_tags)
		json_object_set_new(o, "RequestTags",
				    tailcfg_strv_json(h->request_tags, h->n_request_tags));
	/* Without a home relay NetInfo stays away: the server would store "none" (control.md 8.3). */
	if (h->net.preferred_derp)
		json_object_set_new(o, "NetInfo", netinfo_json(&h->net));
	return o;
}

int tailcfg_hostinfo_encode(const struct tailcfg_hostinfo *h, struct buf *out)
{
	CLEANUP(json_decref) json_t *o = hostinfo_json(h);

	return o ? json_write(o, out) : -ENOMEM;
}

/* Keys of all servers are printable words; anything else is a mistake of whoever pasted it, and
 * would not survive the way into JSON as it is. */
static bool auth_key_ok(const char *s)
{
	size_t n = strlen(s);

	for (size_t i = 0; i < n; i++) {
		if (s[i] <= ' ' || s[i] >= 0x7f || s[i] == '"' || s[i] == '\\')
			return false;
	}
	return n > 0 && n <= 1024;
}

int tailcfg_register_encode(const struct tailcfg_register_request *q, struct buf *out)
{
	CLEANUP(json_decref) json_t *o = json_object();
	int r;

	if ((q->auth_key && !auth_key_ok(q->auth_key)) ||
	    (q->followup && !tailcfg_url_ok(q->followup)))
		return -EINVAL;
	if (!o)
		return -ENOMEM;
	json_object_set_new(o, "Version", json_integer(q->version));
	json_object_set_new(o, "NodeKey", json_key(KEY_KIND_NODE, &q->node_key));
	json_object_set_new(o, "OldNodeKey", json_key(KEY_KIND_NODE, &q->old_node_key));
	put_text(o, "Followup", q->followup);
	if (q->logout)
		json_object_set_new(o, "Expiry", json_string("1970-01-01T00:02:03Z"));
	if (q->ephemeral)
		json_object_set_new(o, "Ephemeral", json_true());
	json_object_set_new(o, "Hostinfo", hostinfo_json(q->hostinfo));
	r = json_write(o, out);
	if (r < 0 || !q->auth_key)
		return r;
	/* The secret never enters a JSON tree, which could not be wiped. */
	out->len--;
	buf_put_str(out, ",\"Auth\":{\"AuthKey\":\"");
	buf_put_str(out, q->auth_key);
	return buf_put_str(out, "\"}}");
}

int tailcfg_map_encode(const struct tailcfg_map_request *q, struct buf *out)
{
	CLEANUP(json_decref) json_t *o = json_object();
	json_t *eps, *types;

	if (!o)
		return -ENOMEM;
	json_object_set_new(o, "Version", json_integer(q->version));
	json_object_set_new(o, "Compress", json_string("zstd"));
	json_object_set_new(o, "KeepAlive", json_true());
	json_object_set_new(o, "NodeKey", json_key(KEY_KIND_NODE, &q->node_key));
	json_object_set_new(o, "DiscoKey", json_key(KEY_KIND_DISCO, &q->disco_key));
	json_object_set_new(o, q->stream ? "Stream" : "OmitPeers", json_true());
	json_object_set_new(o, "Hostinfo", hostinfo_json(q->hostinfo));
	if (q->has_endpoints) {
		eps = json_array();
		types = json_array();
		for (size_t i = 0; i < q->n_endpoints; i++) {
			json_array_append_new(eps, json_endpoint(&q->endpoints[i].ep));
			json_array_append_new(types, json_integer(q->endpoints[i].type));
		}
		json_object_set_new(o, "Endpoints", eps);
		json_object_set_new(o, "EndpointTypes", types);
	}
	return json_write(o, out);
}
