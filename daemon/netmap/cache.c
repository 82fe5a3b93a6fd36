/* The last good map on disk: a first map message in our own words, with whose it is. */
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "daemon/netmap/netmap.h"
#include "lib/file.h"

#define CACHE_VERSION 1
#define TRIM_BYTES    (256u << 10) /* what a big map took for a moment goes back */

static int put_json(struct buf *out, const char *name, json_t *j)
{
	CLEANUP(json_decref) json_t *own = j;

	buf_printf(out, ",\"%s\":", name);
	return own ? json_write(own, out) : -ENOMEM;
}

static int put_filters(const struct netmap *nm, struct buf *out)
{
	int r = 0;

	buf_put_str(out, ",\"PacketFilters\":{");
	for (size_t i = 0; i < nm->n_filters && r == 0; i++) {
		CLEANUP(json_decref) json_t *name = json_string(nm->filters[i].name);

		if (i)
			buf_put_u8(out, ',');
		if (json_write(name, out) < 0)
			return -ENOMEM;
		buf_put_u8(out, ':');
		r = tailcfg_rules_encode(&nm->filters[i].rules, out);
	}
	buf_put_u8(out, '}');
	return r;
}

static int put_map(const struct netmap *nm, struct buf *out)
{
	int r;

	buf_put_str(out, "{\"Node\":");
	r = tailcfg_node_encode(nm->self, out);
	buf_put_str(out, ",\"Peers\":[");
	for (size_t i = 0; i < nm->peers.n && r == 0; i++) {
		if (i)
			buf_put_u8(out, ',');
		r = tailcfg_node_encode(nm->peers.by_id[i]->node, out);
	}
	buf_put_str(out, "],\"UserProfiles\":[");
	for (size_t i = 0; i < nm->n_users && r == 0; i++) {
		if (i)
			buf_put_u8(out, ',');
		r = tailcfg_user_encode(&nm->users[i], out);
	}
	buf_put_u8(out, ']');
	if (r == 0 && nm->derp.n_regions)
		r = put_json(out, "DERPMap", derp_map_encode(&nm->derp));
	if (r == 0 && nm->dns_text)
		buf_printf(out, ",\"DNSConfig\":%s", nm->dns_text);
	if (r == 0)
		r = put_filters(nm, out);
	if (r == 0 && nm->domain)
		r = put_json(out, "Domain", json_string(nm->domain));
	if (r == 0 && nm->tailnet_lock)
		buf_put_str(out, ",\"TKAInfo\":{}");
	buf_put_u8(out, '}');
	return r;
}

int netmap_encode(const struct netmap *nm, const char *server_url, struct buf *out)
{
	int r;

	if (!nm->self)
		return -ENODATA;
	buf_printf(out, "{\"KernscaleNetmap\":%d", CACHE_VERSION);
	r = put_json(out, "ServerURL", json_string(server_url));
	buf_put_str(out, ",\"Map\":");
	if (r == 0)
		r = put_map(nm, out);
	buf_put_str(out, "}\n");
	return r < 0 ? r : out->bad ? -ENOMEM : 0;
}

static int read_header(struct json_slice text, const char *server_url, struct json_slice *ret_map)
{
	CLEANUP(json_decref) json_t *url = NULL;
	struct json_slice name, v, map = { 0 };
	struct json_scan s;
	int64_t version;
	int r;

	r = json_slice_int(text, "KernscaleNetmap", &version);
	if (r < 0)
		return -EBADMSG;
	if (version != CACHE_VERSION)
		return -EPROTONOSUPPORT;
	r = json_scan_object(text, &s);
	if (r < 0)
		return r;
	while (json_scan_member(&s, &name, &v)) {
		if (json_slice_is(name, "Map"))
			map = v;
		r = json_slice_is(name, "ServerURL") && !url ? json_slice_read(v, &url) : 0;
		if (r < 0)
			return r == -ENOMEM ? r : -EBADMSG;
	}
	if (!json_scan_ok(&s) || !map.p || !json_is_string(url))
		return -EBADMSG;
	if (server_url && strcmp(json_string_value(url), server_url) != 0)
		return -ESTALE;
	*ret_map = map;
	return 0;
}

int netmap_decode(struct json_slice text, const char *server_url, const struct key *node_key,
		  int64_t wall_now, struct netmap **ret)
{
	CLEANUP(tailcfg_map_done) struct tailcfg_map_response m = { 0 };
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	CLEANUP(netmap_free) struct netmap *nm = NULL;
	struct json_slice map;
	int r;

	r = read_header(text, server_url, &map);
	if (r == 0)
		r = tailcfg_map_decode(map, &m);
	if (r == 0)
		r = netmap_new(&nm);
	if (r == 0)
		r = netmap_apply(nm, &m, wall_now, &c);
	if (r < 0)
		return r == -EPROTO ? -EBADMSG : r;
	if (!nm->self) /* a message that changes nothing is no map */
		return -EBADMSG;
	if (node_key && key_cmp(&nm->self->key, node_key) != 0)
		return -ESTALE;
	/* Who is online is the one thing that certainly went stale. */
	for (size_t i = 0; i < nm->peers.n; i++)
		nm->peers.by_id[i]->node->online = TAILCFG_UNKNOWN;
	netmap_stream_begin(nm);
	*ret = TAKE(nm);
	return 0;
}

int netmap_load(const char *path, const char *server_url, const struct key *node_key,
		int64_t wall_now, struct netmap **ret)
{
	CLEANUP(buf_done) struct buf b = { .max = NETMAP_BYTES_MAX + 1 };
	int r;

	r = file_read(path, NETMAP_BYTES_MAX, &b);
	if (r < 0)
		return r;
	r = netmap_decode((struct json_slice){ (const char *)buf_data(&b), b.len }, server_url, node_key,
			  wall_now, ret);
	if (b.len > TRIM_BYTES) {
		buf_done(&b);
		malloc_trim(0);
	}
	return r;
}
