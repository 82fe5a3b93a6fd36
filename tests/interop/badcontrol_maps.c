/* badcontrol_maps: misdeeds in what is told of the mesh. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "tests/interop/badcontrol.h"

/* ---- maps that cannot be read, or do harm by it ---- */

static void map_never(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	(void)st;
	(void)good;
}

static void map_length(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	(void)good;
	h2_send(st, "\xff\xff\xff\xff{\"Node\":", 12);
}

/* 63 MiB are announced, the most that may come, and an eighth of them comes. */
static void map_stall(struct conn *c, struct h2_stream *st, const json_t *good)
{
	static char part[1 << 20];

	(void)c;
	(void)good;
	memset(part, ' ', sizeof(part));
	h2_send(st, "\0\0\xf0\x03", 4);
	for (int i = 0; i < 8; i++)
		h2_send(st, part, sizeof(part));
}

static void map_garbage(struct conn *c, struct h2_stream *st, const json_t *good)
{
	uint8_t noise[300];

	(void)c;
	(void)good;
	randombytes_buf(noise, sizeof(noise));
	memcpy(noise, "\xc8\0\0\0", 4);
	h2_send(st, noise, sizeof(noise));
}

static void map_truncated(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	char *text = json_dumps(good, 0);
	uint32_t n;

	(void)c;
	ts2021_frame_put(&b, TS2021_ENCODING_ZSTD, text, strlen(text));
	free(text);
	n = (uint32_t)b.len - 4 - 10;
	for (int i = 0; i < 4; i++)
		b.data[b.head + (size_t)i] = (uint8_t)(n >> 8 * i);
	h2_send(st, buf_data(&b), b.len);
}

/* begin, then what, again and again, n bytes of it, then end, as one compressed message: a few KiB on the
 * way, whatever n is. */
static void put_bomb(struct buf *b, const char *begin, const char *what, size_t n, const char *end)
{
	static char fill[3 << 18], out[1 << 20];
	ZSTD_CCtx *z = ZSTD_createCCtx();
	size_t at = b->len, len;

	for (size_t i = 0, k = strlen(what); i < sizeof(fill); i += k)
		memcpy(fill + i, what, k);
	buf_put_le32(b, 0);
	for (int part = 0; part < 3; part++) {
		const char *p = part == 0 ? begin : part == 1 ? fill : end;
		size_t left = part == 1 ? n : strlen(p), k;

		for (; left; left -= k) {
			k = MIN(left, sizeof(fill));
			ZSTD_inBuffer in = { p, k, 0 };
			ZSTD_outBuffer to = { out, sizeof(out), 0 };

			ZSTD_compressStream2(z, &to, &in, part == 2 && left == k ? ZSTD_e_end : ZSTD_e_continue);
			buf_put(b, out, to.pos);
		}
	}
	ZSTD_freeCCtx(z);
	len = b->len - at - 4;
	for (int i = 0; i < 4; i++)
		b->data[b->head + at + (size_t)i] = (uint8_t)(len >> 8 * i);
}

static void map_bomb(struct conn *c, struct h2_stream *st, const json_t *good)
{
	static struct buf b;

	(void)c;
	(void)good;
	if (!b.len)
		put_bomb(&b, "{\"Node\":\"", "x", 1u << 27, "\"}");
	h2_send(st, buf_data(&b), b.len);
}

static void map_deep(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)c;
	(void)good;
	put_bomb(&b, "{\"Node\":", "[", 100000, "1}");
	h2_send(st, buf_data(&b), b.len);
}

/* Small on the way and small as text, for what it is when it is read: twenty million empty lists. */
static void map_tree(struct conn *c, struct h2_stream *st, const json_t *good)
{
	static struct buf b;

	(void)c;
	send_map(st, good);
	if (!b.len) {
		put_bomb(&b, "{\"DERPMap\":{\"Regions\":{},\"x\":[", "[],", 60000000, "[]]}}");
		put_bomb(&b, "{\"PacketFilter\":[{\"SrcIPs\":[", "{},", 60000000, "{}]}]}");
		put_bomb(&b, "{\"Health\":[", "[],", 60000000, "[]]}");
	}
	h2_send(st, buf_data(&b), b.len);
}

/* Deep where nobody looks: a member that no version knows. */
static void map_deep_unknown(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)c;
	send_map(st, good);
	put_bomb(&b, "{\"Novelty\":", "[", 100000, "1}");
	h2_send(st, buf_data(&b), b.len);
}

static void map_no_node(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	(void)good;
	send_text(st, "{\"Node\":{\"ID\":-1},\"Peers\":[]}");
}

/* A good one, so that all failures are forgiven, and at once a bad one: again and again. */
static void map_flap(struct conn *c, struct h2_stream *st, const json_t *good)
{
	send_map(st, good);
	map_garbage(c, st, good);
}

static void map_bye(struct conn *c, struct h2_stream *st, const json_t *good)
{
	send_map(st, good);
	c->ends = true;
}

static void map_good(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	send_map(st, good);
}

static void alive_tick(struct conn *c)
{
	static struct buf many;

	for (int i = 0; i < 1000 && !many.bad && many.len < 30000; i++)
		ts2021_frame_put(&many, TS2021_ENCODING_ZSTD, "{\"KeepAlive\":true}", 18);
	for (int k = 0; k < PIECES && c->map && h2_pending(c->map) < FULL; k++)
		if (h2_send(c->map, buf_data(&many), many.len) < 0)
			return;
}

/* Keep-alives of a mebibyte that take a hundred bytes on the way. */
static void blank_tick(struct conn *c)
{
	static struct buf b;

	while (b.len < 30000)
		put_bomb(&b, "{\"KeepAlive\":true", " ", 1000000, "}");
	for (int k = 0; k < PIECES && c->map && h2_pending(c->map) < FULL; k++)
		if (h2_send(c->map, buf_data(&b), b.len) < 0)
			return;
}

static void pings_tick(struct conn *c)
{
	static const char *const urls[] = { "http://127.0.0.1:7777", "https://127.0.0.1:7777",
					    "http://[::1]:7777", "http://localhost:7777",
					    "http://169.254.169.254:7777", "/machine/ping" };
	static unsigned long n;
	char url[80], text[160];

	for (int i = 0; i < 100 && c->map && h2_pending(c->map) < FULL; i++, n++) {
		snprintf(url, sizeof(url), "%s/%lu", urls[n % ARRAY_SIZE(urls)], n);
		snprintf(text, sizeof(text), "{\"KeepAlive\":true,\"PingRequest\":{\"URL\":\"%s\"}}", url);
		send_text(c->map, text);
	}
}

/* ---- maps that can be read ---- */

static json_t *first_peer(json_t *m)
{
	return json_array_get(json_get(m, "Peers"), 0);
}

static json_t *add_peer(json_t *m, int id)
{
	json_t *p = json_deep_copy(first_peer(m));
	char text[KEY_TEXT_MAX + 32];
	struct key_pair k;

	key_pair_generate(&k);
	json_object_set_new(p, "ID", json_integer(id));
	json_object_set_new(p, "Key", json_string(key_text(KEY_KIND_NODE, &k.pub, text)));
	json_object_set_new(p, "DiscoKey", json_string(key_text(KEY_KIND_DISCO, &k.pub, text)));
	snprintf(text, sizeof(text), "mallory%d.mesh.test.", id);
	json_object_set_new(p, "Name", json_string(text));
	snprintf(text, sizeof(text), "100.64.7.%d/32", id % 250);
	json_object_set_new(p, "Addresses", json_pack("[s]", text));
	json_object_del(p, "AllowedIPs");
	json_array_append_new(json_get(m, "Peers"), p);
	return p;
}

/* Peers that claim everything, us, a friend's address, loopback; keys twice; numbers twice; endpoints at alice herself. */
static void map_thieves(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);
	const json_t *self = json_get(json_get(m, "Node"), "Addresses");
	const json_t *friends = json_get(first_peer(m), "Addresses");
	json_t *p;

	(void)c;
	json_object_set_new(add_peer(m, 901), "AllowedIPs", json_pack("[s,s,s]", "0.0.0.0/0", "::/0", "0.0.0.0/0"));
	json_object_set_new(add_peer(m, 902), "AllowedIPs", json_deep_copy(self));
	json_object_set_new(add_peer(m, 903), "AllowedIPs", json_deep_copy(friends));
	p = add_peer(m, 904);
	json_object_set_new(p, "Addresses", json_deep_copy(friends));
	json_object_set_new(p, "AllowedIPs", json_pack("[s,s,s,s]", "127.0.0.0/8", "224.0.0.0/4", "::1/128", "100.64.0.0/10"));
	p = add_peer(m, 905);
	json_object_set_new(p, "Addresses", json_deep_copy(self));
	json_object_set(add_peer(m, 906), "Key", json_get(first_peer(m), "Key"));
	json_object_set(add_peer(m, 907), "Key", json_get(json_get(m, "Node"), "Key"));
	json_object_set(add_peer(m, 908), "ID", json_get(json_get(m, "Node"), "ID"));
	json_object_set_new(add_peer(m, 909), "Endpoints",
			    json_pack("[s,s,s,s,s]", "127.0.0.1:41641", "255.255.255.255:1", "224.0.0.1:9", "[::1]:41641",
				      "198.51.100.11:41641"));
	send_map(st, m);
}

static void map_names(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);
	static char longest[10240 + 1];
	const char *const names[] = { EVIL, "../../etc/passwd", "$(reboot)", longest, "", "%s%n" };
	const char *id;
	json_t *p;

	(void)c;
	memset(longest, 'x', sizeof(longest) - 1);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		p = add_peer(m, 901 + (int)i);
		json_object_set_new(p, "Name", json_string(names[i]));
		json_object_set_new(p, "StableID", json_string(names[i]));
		json_object_set_new(p, "Tags", json_pack("[s,s]", names[i], "tag:x" EVIL));
		json_object_set_new(p, "User", json_integer(901));
		json_object_set_new(p, "Hostinfo",
				    json_pack("{s:s,s:s,s:s}", "Hostname", names[i], "OS", EVIL, "IPNVersion", EVIL));
	}
	json_object_set_new(m, "Domain", json_string(EVIL));
	json_object_set_new(m, "Health", json_pack("[s,s]", EVIL, longest));
	json_object_set_new(m, "UserProfiles", json_pack("[{s:i,s:s,s:s,s:s}]", "ID", 901, "LoginName", EVIL,
							 "DisplayName", longest, "ProfilePicURL", EVIL));
	json_object_set_new(m, "PopBrowserURL", json_string("https://x/" EVIL));
	json_object_set_new(m, "DNSConfig", json_pack("{s:[s],s:[{s:s}]}", "Domains", EVIL, "Resolvers", "Addr", EVIL));
	json_object_foreach(json_get(json_get(m, "DERPMap"), "Regions"), id, p) {
		json_object_set_new(p, "RegionCode", json_string(EVIL));
		json_object_set_new(p, "RegionName", json_string(EVIL));
	}
	send_map(st, m);
}

/* The frame of a large map, which takes its time. */
static struct buf ready;
static const struct misdeed *ready_for;

/* As text, since the tree would take longer to make than the map to read. */
static void send_with(struct h2_stream *st, const json_t *good, const char *member, const struct buf *value)
{
	CLEANUP(json_decref) json_t *m = json_copy((json_t *)(uintptr_t)good);
	CLEANUP(buf_done) struct buf b = { 0 };
	char *text;

	json_object_del(m, member);
	text = json_dumps(m, JSON_COMPACT);
	buf_put(&b, text, strlen(text) - 1);
	buf_printf(&b, ",\"%s\":", member);
	buf_put(&b, buf_data(value), value->len);
	buf_put_str(&b, "}");
	buf_done(&ready);
	ts2021_frame_put(&ready, TS2021_ENCODING_ZSTD, buf_data(&b), b.len);
	ready_for = misdeed_now();
	h2_send(st, buf_data(&ready), ready.len);
	free(text);
}

/* It was made for the one who asked before. */
static bool send_ready(struct h2_stream *st)
{
	if (ready_for != misdeed_now())
		return false;
	h2_send(st, buf_data(&ready), ready.len);
	return true;
}

static void map_rules(struct conn *c, struct h2_stream *st, const json_t *good)
{
	char *base = json_dumps(json_get(json_get(good, "PacketFilters"), "base"), 0);
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)c;
	if (send_ready(st)) {
		free(base);
		return;
	}
	buf_printf(&b, "{\"base\":%s,\"many\":[{}", base);
	for (unsigned int i = 0; i < 100000; i++)
		buf_printf(&b, ",{\"SrcIPs\":[\"10.%u.%u.%u\"],\"DstPorts\":[{\"IP\":\"*\",\"Ports\":"
			   "{\"First\":%u,\"Last\":65535}}]}", i / 65536, i / 256 % 256, i % 256, i % 1000);
	buf_put_str(&b, "]}");
	send_with(st, good, "PacketFilters", &b);
	free(base);
}

static uint64_t id_plain(unsigned int i)
{
	return 10000 + i;
}

/* All those numbers fall on one place, for who multiplies by the golden ratio and takes the upper bits. */
static uint64_t id_colliding(unsigned int i)
{
	static const uint64_t inverse = UINT64_C(0xf1de83e19937733d);

	return (((UINT64_C(1) << 42) + 1 + i) * inverse) & INT64_MAX;
}

static void send_peers(struct h2_stream *st, const json_t *good, unsigned int count, uint64_t (*id)(unsigned int i))
{
	char *friends = json_dumps(json_array_get(json_get(good, "Peers"), 0), JSON_COMPACT);
	CLEANUP(buf_done) struct buf b = { 0 };

	buf_printf(&b, "[%s", friends);
	free(friends);
	for (unsigned int i = 0; i < count; i++)
		buf_printf(&b, ",{\"ID\":%llu,\"StableID\":\"%u\",\"Name\":\"m%u.mesh.test.\",\"Key\":\"nodekey:%064x\","
			   "\"DiscoKey\":\"discokey:%064x\",\"Addresses\":[\"100.%u.%u.%u/32\"],\"HomeDERP\":902,"
			   "\"Endpoints\":[\"198.51.100.10:%u\"],\"Hostinfo\":{\"Hostname\":\"m%u\"},"
			   "\"MachineAuthorized\":true}",
			   (unsigned long long)id(i), i, i, i + 0x10000000, i + 0x20000000, 65 + i / 65536,
			   i / 256 % 256, i % 256, 1024 + i % 60000, i);
	buf_put_str(&b, "]");
	send_with(st, good, "Peers", &b);
}

static void map_too_many(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	if (!send_ready(st))
		send_peers(st, good, 100010, id_plain);
}

/* On a slow machine (SLOWNESS, tests/scenario/all) fewer: the kernel takes so long for each new peer. */
static void map_colliding(struct conn *c, struct h2_stream *st, const json_t *good)
{
	const char *slow = getenv("SLOWNESS");

	(void)c;
	if (!send_ready(st))
		send_peers(st, good, slow && strtoul(slow, NULL, 10) > 1 ? 5000 : 20000, id_colliding);
}

static json_t *relay(int id, int node, const char *host)
{
	char name[24];

	snprintf(name, sizeof(name), "%d-%d", id, node);
	return json_pack("{s:s,s:i,s:s,s:i}", "Name", name, "RegionID", id, "HostName", host, "DERPPort", 9);
}

static void put_regions(json_t *m, int count, int nodes)
{
	static const char *const hosts[] = { "127.0.0.1", "nowhere.invalid", "../../x", EVIL, "255.255.255.255",
					     "[::1]", "localhost", "224.0.0.1", "a b c", "x@y:99/../?" };
	json_t *regions = json_get(json_get(m, "DERPMap"), "Regions"), *list;
	char id[16];

	for (int i = 1; i <= count; i++) {
		list = json_array();
		for (int k = 0; k < nodes; k++)
			json_array_append_new(list, relay(i, k, hosts[(i + k) % (int)ARRAY_SIZE(hosts)]));
		snprintf(id, sizeof(id), "%d", i);
		if (!json_get(regions, id))
			json_object_set_new(regions, id,
					    json_pack("{s:i,s:s,s:s,s:o}", "RegionID", i, "RegionCode", "evil",
						      "RegionName", EVIL, "Nodes", list));
		else
			json_decref(list);
	}
}

static void map_relays(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);

	(void)c;
	put_regions(m, 1000, 8);
	send_map(st, m);
}

static void map_too_many_relays(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);

	(void)c;
	put_regions(m, 5000, 1);
	send_map(st, m);
}

/* We alone are left, and ourselves among those who go. */
static void map_alone(struct conn *c, struct h2_stream *st, const json_t *good)
{
	json_t *gone = json_array();
	CLEANUP(json_decref) json_t *m = json_pack("{s:o}", "PeersRemoved", gone);
	const json_t *p;
	size_t i;

	(void)c;
	send_map(st, good);
	json_array_append(gone, json_get(json_get(good, "Node"), "ID"));
	json_array_foreach(json_get(good, "Peers"), i, p)
		json_array_append(gone, json_get(p, "ID"));
	send_map(st, m);
}

/* No misdeed: only port 22 is open, and who does not hold to it is found out. */
static void map_narrow(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);

	(void)c;
	json_object_set_new(m, "PacketFilters",
			    json_pack("{s:[{s:[s],s:[{s:s,s:{s:i,s:i}}]}]}", "base", "SrcIPs", "*", "DstPorts", "IP", "*",
				      "Ports", "First", 22, "Last", 22));
	send_map(st, m);
}

const struct misdeed map_misdeeds[] = {
	{ "map-never", .map = map_never },
	{ "map-length", .map = map_length },
	{ "map-stall", .map = map_stall },
	{ "map-garbage", .map = map_garbage },
	{ "map-truncated", .map = map_truncated },
	{ "map-bomb", .map = map_bomb },
	{ "map-deep", .map = map_deep },
	{ "map-deep-unknown", .map = map_deep_unknown },
	{ "map-tree", .map = map_tree },
	{ "map-no-node", .map = map_no_node },
	{ "map-flap", .map = map_flap },
	{ "map-bye", .map = map_bye },
	{ "map-alive", .map = map_good, .tick = alive_tick },
	{ "map-blank", .map = map_good, .tick = blank_tick },
	{ "map-pings", .map = map_good, .tick = pings_tick },
	{ "map-thieves", .map = map_thieves },
	{ "map-names", .map = map_names },
	{ "map-too-many", .map = map_too_many },
	{ "map-colliding", .map = map_colliding },
	{ "map-rules", .map = map_rules },
	{ "map-relays", .map = map_relays },
	{ "map-too-many-relays", .map = map_too_many_relays },
	{ "map-alone", .map = map_alone },
	{ "map-narrow", .map = map_narrow },
	{ 0 },
};
