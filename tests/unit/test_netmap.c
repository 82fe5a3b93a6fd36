/* netmap: what each message changes, on made-up maps and on recorded ones (tests/data/map). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/netmap/netmap.h"
#include "daemon/netmap/netmap_routes.h"
#include "lib/file.h"
#include "tests/unit/netmap_text.h"

#define NSEC INT64_C(1000000000)
#define NOW  (INT64_C(1800000000) * NSEC) /* 2027-01-15 */

static int apply(struct netmap *nm, const char *text, size_t len, int64_t now,
		 struct netmap_changes *ret)
{
	CLEANUP(tailcfg_map_done) struct tailcfg_map_response m = { 0 };
	int r;

	r = tailcfg_map_decode((struct json_slice){ text, len }, &m);
	return r < 0 ? r : netmap_apply(nm, &m, now ? now : m.control_time, ret);
}

static void expect_(struct netmap *nm, const char *text, const char *want, int64_t now, int line)
{
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	CLEANUP(buf_done) struct buf b = { 0 };

	assert_int_equal(apply(nm, text, strlen(text), now, &c), 0);
	if (strcmp(changes_text(&c, &b), want) != 0)
		fail_msg("line %d: got  %s\n          want %s", line, buf_str(&b), want);
}
#define expect(nm, text, want) expect_(nm, text, want, NOW, __LINE__)

#define KEY(d)	 "\"Key\":\"nodekey:" d d d d d d d d d d d d d d d d d d d d d d d d d d d d d d d d "\""
#define DISCO(d) "\"DiscoKey\":\"discokey:" d d d d d d d d d d d d d d d d d d d d d d d d d d d d d d d d "\""
#define SELF	 "\"Node\":{\"ID\":1,\"Name\":\"me.mesh.test.\"," KEY("01") ",\"Addresses\":[\"100.64.0.1/32\"]}"
#define PEER(id, k, more) "{\"ID\":" id "," KEY(k) ",\"Addresses\":[\"100.64.0." id "/32\"]" more "}"

static struct netmap *map_of(const char *first)
{
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	struct netmap *nm = NULL;

	assert_int_equal(netmap_new(&nm), 0);
	assert_int_equal(apply(nm, first, strlen(first), NOW, &c), 0);
	return nm;
}

static void test_first(void **state)
{
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	CLEANUP(netmap_free) struct netmap *nm = NULL;

	(void)state;
	assert_int_equal(netmap_new(&nm), 0);
	expect(nm, "{\"KeepAlive\":true,\"Peers\":[" PEER("2", "02", "") "]}", "delta");
	assert_int_equal(apply(nm, "{\"Domain\":\"x\"}", 14, NOW, &c), -EPROTO);
	assert_int_equal(apply(nm, "{\"Node\":{}}", 11, NOW, &c), -EPROTO);
	expect(nm, "{" SELF ",\"Peers\":[" PEER("3", "03", "") "," PEER("2", "02", "") ",{\"ID\":9}],"
		   "\"PeersChanged\":[" PEER("5", "05", "") "],\"Domain\":\"mesh.test\"}",
	       "full +self +3 +2 domain skipped=1");
	assert_int_equal(netmap_n_peers(nm), 2);
	assert_int_equal(netmap_peer_at(nm, 0)->id, 2);
	assert_ptr_equal(netmap_peer_by_key(nm, &netmap_peer_at(nm, 1)->key), netmap_peer_at(nm, 1));
	/* Peers: [] is "unchanged", a non-empty one replaces and hides the other members */
	expect(nm, "{\"Peers\":[],\"ControlTime\":\"2027-01-15T08:00:00Z\"}", "delta");
	expect(nm, "{\"Peers\":[" PEER("3", "03", "") "],\"PeersRemoved\":[3]}", "delta -2");
	/* in a new stream, what is absent is empty */
	netmap_stream_begin(nm);
	assert_int_equal(netmap_n_peers(nm), 1);
	expect(nm, "{" SELF "}", "full -3");
}

static void test_deltas(void **state)
{
	CLEANUP(netmap_free) struct netmap *nm =
		map_of("{" SELF ",\"Peers\":[" PEER("2", "02", "") "," PEER("3", "03", "") "]}");
	struct key k2 = { { 0 } }, k9 = { { 0 } };

	(void)state;
	memset(k2.b, 2, 32);
	memset(k9.b, 9, 32);
	/* the same again, any number of times */
	expect(nm, "{" SELF ",\"PeersChanged\":[" PEER("2", "02", "") "," PEER("3", "03", "") "]}",
	       "delta");
	/* the same in other words */
	expect(nm, "{\"PeersChanged\":[" PEER("2", "02", ",\"Endpoints\":[],\"Tags\":null") "]}", "delta");
	/* new peers come first without disco key, then without home */
	expect(nm, "{\"PeersChanged\":[" PEER("2", "02", "," DISCO("aa")) "]}", "delta 2:disco-set");
	expect(nm, "{\"PeersChanged\":[" PEER("2", "02", "," DISCO("aa") ",\"HomeDERP\":900") "]}",
	       "delta 2:home");
	expect(nm, "{\"PeersChanged\":[" PEER("2", "02", "," DISCO("ab") ",\"HomeDERP\":900") "]}",
	       "delta 2:disco");
	/* a full node replaces: what is absent is gone */
	expect(nm, "{\"PeersChanged\":[" PEER("2", "02", "") "]}", "delta 2:disco-set,home");
	/* several members about one peer give one entry */
	expect(nm, "{\"PeersChanged\":[" PEER("4", "04", "") "],\"OnlineChange\":{\"4\":true,\"77\":true},"
		   "\"PeersChangedPatch\":[{\"NodeID\":2,\"DERPRegion\":1},{\"NodeID\":2,\"Online\":true},"
		   "{\"NodeID\":88,\"Online\":true}]}",
	       "delta +4 2:home,online");
	/* removed and named again in one message: it stays */
	expect(nm, "{\"PeersRemoved\":[4,5],\"PeersChanged\":[" PEER("4", "04", ",\"Online\":true") "]}",
	       "delta");
	expect(nm, "{\"PeersRemoved\":[4]}", "delta -4");
	/* a patched node is compared with what it became */
	expect(nm, "{\"PeersChangedPatch\":[{\"NodeID\":2," KEY("09") "}]}", "delta 2:key");
	assert_null(netmap_peer_by_key(nm, &k2));
	assert_int_equal(netmap_peer_by_key(nm, &k9)->id, 2);
	expect(nm, "{\"PeersChanged\":[" PEER("2", "02", "") "]}", "delta 2:key,home,online");
	/* seen now, seen never */
	expect(nm, "{\"PeerSeenChange\":{\"2\":true}}", "delta 2:online");
	assert_int_equal(netmap_peer_by_id(nm, 2)->last_seen, NOW);
	expect(nm, "{\"PeerSeenChange\":{\"2\":false}}", "delta 2:online");
}

static void test_key_owner(void **state)
{
	CLEANUP(netmap_free) struct netmap *nm =
		map_of("{" SELF ",\"Peers\":[" PEER("2", "02", "") "," PEER("3", "03", "") "]}");

	(void)state;
	/* one key, one node; we are not our own peer */
	expect(nm, "{\"PeersChanged\":[" PEER("4", "02", "") "," PEER("5", "01", "") "," PEER("1", "06", "") "]}",
	       "delta skipped=3");
	expect(nm, "{\"PeersChangedPatch\":[{\"NodeID\":3," KEY("02") "}]}", "delta skipped=1");
	expect(nm, "{\"PeersChangedPatch\":[{\"NodeID\":3," KEY("01") "}]}", "delta skipped=1");
	/* deleted and registered anew with the same key: first out, then in */
	expect(nm, "{\"PeersRemoved\":[2],\"PeersChanged\":[" PEER("4", "02", "") "]}", "delta -2 +4");
	assert_null(netmap_peer_by_id(nm, 2));
	/* a server that calls us by a peer's id or key takes that peer away */
	expect(nm, "{\"Node\":" PEER("3", "11", "") ",\"PeersChanged\":[" PEER("3", "03", "") "]}",
	       "delta +self -3 skipped=1");
	expect(nm, "{\"Node\":" PEER("3", "02", "") "}", "delta self:key -4");
}

static void test_expiry(void **state)
{
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	CLEANUP(buf_done) struct buf b = { 0 };
	CLEANUP(netmap_free) struct netmap *nm = map_of(
		"{" SELF ",\"Peers\":[" PEER("2", "02", "," DISCO("aa") ",\"KeyExpiry\":\"2027-01-15T09:00:00Z\"")
		"," PEER("3", "03", "," DISCO("ab") ",\"Expired\":true") "]}");
	int64_t later = NOW + 3600 * NSEC;
	struct prefix out[4];

	(void)state;
	assert_true(netmap_peer_usable(nm, netmap_peer_by_id(nm, 2)));
	assert_false(netmap_peer_usable(nm, netmap_peer_by_id(nm, 3)));
	assert_int_equal(netmap_peer_routes(nm, netmap_peer_by_id(nm, 2), false, out, 4), 1);
	assert_int_equal(netmap_peer_routes(nm, netmap_peer_by_id(nm, 3), false, out, 4), 0);
	assert_int_equal(netmap_tick(nm, NOW, &c), later);
	assert_true(netmap_changes_empty(&c));
	assert_int_equal(netmap_tick(nm, later, &c), 0);
	assert_string_equal(changes_text(&c, &b), "delta 2:expired");
	netmap_changes_done(&c);
	assert_false(netmap_peer_usable(nm, netmap_peer_by_id(nm, 2)));
	/* the server's clock counts: it is an hour behind ours */
	expect_(nm, "{\"ControlTime\":\"2027-01-15T08:00:00Z\"}", "delta", later, __LINE__);
	assert_int_equal(netmap_tick(nm, later, &c), later + 3600 * NSEC);
	assert_string_equal(changes_text(&c, &b), "delta 2:expired");
	netmap_changes_done(&c);
	/* ours is set ten years forward, and back: the server's goes on as before */
	netmap_clock_stepped(nm, 10 * 365 * 86400 * NSEC);
	assert_int_equal(netmap_tick(nm, later + 10 * 365 * 86400 * NSEC, &c),
			 later + (3600 + 10 * 365 * 86400) * NSEC);
	assert_true(netmap_changes_empty(&c));
	netmap_clock_stepped(nm, -10 * 365 * 86400 * NSEC);
	assert_int_equal(netmap_tick(nm, later, &c), later + 3600 * NSEC);
	/* a date past what 64 bits hold, by a server that is behind us, is never */
	expect_(nm, "{\"PeersChangedPatch\":[{\"NodeID\":2,\"KeyExpiry\":\"9999-12-31T00:00:00Z\"}],"
		    "\"ControlTime\":\"2027-01-15T08:00:00Z\"}",
		"delta 2:key-expiry", later, __LINE__);
	assert_int_equal(netmap_tick(nm, later, &c), INT64_MAX);
	/* a new key without a date is not expired, whatever was said of the old one */
	expect(nm, "{\"PeersChangedPatch\":[{\"NodeID\":3," KEY("33") "},{\"NodeID\":2,\"KeyExpiry\":"
		   "\"0001-01-01T00:00:00Z\"}]}",
	       "delta 3:key,expired 2:key-expiry");
	/* with a clock that cannot be right nothing expires */
	expect_(nm, "{\"PeersChangedPatch\":[{\"NodeID\":2,\"KeyExpiry\":\"2000-01-01T00:00:00Z\"}],"
		    "\"ControlTime\":\"1971-01-01T00:00:00Z\"}",
		"delta 2:key-expiry", 365 * 86400 * NSEC, __LINE__);
}

static void test_routes(void **state)
{
	CLEANUP(netmap_free) struct netmap *nm = map_of(
		"{" SELF ",\"Peers\":[" PEER("2", "02", "," DISCO("aa") ",\"AllowedIPs\":[\"100.64.0.2/32\","
		"\"10.0.0.0/8\",\"0.0.0.0/0\",\"::/0\",\"100.99.0.1/32\",\"100.115.92.1/32\"]") ","
		PEER("3", "03", ",\"AllowedIPs\":[\"100.64.0.3/32\"]") ","
		PEER("4", "04", "," DISCO("ab") ",\"UnsignedPeerAPIOnly\":true,\"AllowedIPs\":[\"10.0.0.0/8\"]")
		",{\"ID\":5," KEY("05") "," DISCO("ac") ",\"Addresses\":[\"0.0.0.0/0\",\"10.1.0.0/16\"]},"
		PEER("6", "06", "," DISCO("ad") ",\"AllowedIPs\":["
		"\"100.64.0.6/32\",\"100.64.0.1/32\",\"127.0.0.1/32\",\"127.0.0.0/8\",\"224.0.0.0/4\",\"169.254.0.0/16\","
		"\"0.0.0.0/8\",\"::1/128\",\"fe80::/10\"]") "]}");
	struct prefix out[8];
	char text[PREFIX_TEXT_MAX];

	(void)state;
	assert_int_equal(netmap_peer_routes(nm, netmap_peer_by_id(nm, 2), false, out, 8), 2);
	assert_string_equal(prefix_text(&out[0], text), "100.64.0.2/32");
	assert_string_equal(prefix_text(&out[1], text), "100.99.0.1/32");
	assert_int_equal(netmap_peer_routes(nm, netmap_peer_by_id(nm, 2), true, out, 8), 4);
	assert_int_equal(netmap_peer_routes(nm, netmap_peer_by_id(nm, 3), true, out, 8), 0);
	assert_int_equal(netmap_peer_routes(nm, netmap_peer_by_id(nm, 4), true, out, 8), 1);
	/* nothing of a peer's says where this host itself is */
	assert_int_equal(netmap_peer_routes(nm, netmap_peer_by_id(nm, 6), true, out, 8), 1);
	assert_string_equal(prefix_text(&out[0], text), "100.64.0.6/32");
	/* addresses that are no addresses give nothing by themselves */
	assert_int_equal(netmap_peer_routes(nm, netmap_peer_by_id(nm, 5), false, out, 8), 0);
}

#define ALL "{\"SrcIPs\":[\"*\"],\"DstPorts\":[{\"IP\":\"*\",\"Ports\":{\"First\":0,\"Last\":65535}}]}"

static void test_filters(void **state)
{
	CLEANUP(netmap_free) struct netmap *nm = map_of("{" SELF "}");

	(void)state;
	assert_false(netmap_filter_is_allow_all(nm, false)); /* nothing said: nothing allowed */
	expect(nm, "{\"PacketFilter\":[" ALL "]}", "delta filter");
	assert_true(netmap_filter_is_allow_all(nm, false));
	expect(nm, "{\"PacketFilters\":{\"base\":[" ALL "]}}", "delta");
	expect(nm, "{\"PacketFilters\":{\"x\":[],\"base\":[]}}", "delta filter");
	assert_false(netmap_filter_is_allow_all(nm, false));
	assert_int_equal(nm->n_filters, 2);
	expect(nm, "{\"PacketFilters\":{\"x\":null}}", "delta filter");
	assert_int_equal(nm->n_filters, 1);
	expect(nm, "{\"PacketFilter\":[" ALL "],\"PacketFilters\":{\"*\":null,\"y\":[]}}", "delta filter");
	assert_int_equal(nm->n_filters, 1);
	assert_string_equal(nm->filters[0].name, "y");
	/* what cannot be read allows nothing */
	expect(nm, "{\"PacketFilters\":{\"y\":{}}}", "delta filter skipped=1");
	assert_int_equal(nm->filters[0].rules.n, 0);
	expect(nm, "{\"PacketFilters\":{\"y\":[" ALL "]}}", "delta filter");
	netmap_stream_begin(nm);
	expect(nm, "{" SELF ",\"PacketFilters\":{\"y\":[" ALL "]}}", "full");
	netmap_stream_begin(nm);
	expect(nm, "{" SELF "}", "full filter");
	assert_false(netmap_filter_is_allow_all(nm, false));
}

static int64_t id_at(struct netmap *nm, uint8_t d)
{
	struct addr a = addr_v4(100, 64, 0, d);
	const struct tailcfg_node *n = netmap_peer_by_addr(nm, &a);

	return n ? n->id : 0;
}

/* Whose address it is, before and after each kind of change. */
static void test_addresses(void **state)
{
	CLEANUP(netmap_free) struct netmap *nm = map_of("{" SELF "}");

	(void)state;
	assert_int_equal(id_at(nm, 1), 0); /* that is our own */
	expect(nm, "{\"PeersChanged\":[" PEER("3", "03", "") "," PEER("2", "02", "") "]}", "delta +3 +2");
	assert_int_equal(id_at(nm, 2), 2);
	assert_int_equal(id_at(nm, 3), 3);
	assert_int_equal(id_at(nm, 4), 0);
	expect(nm, "{\"PeersChanged\":[{\"ID\":3," KEY("03") ",\"Addresses\":[\"100.64.0.9/32\",\"100.64.0.4/32\"]}]}",
	       "delta 3:addresses,allowed");
	assert_int_equal(id_at(nm, 3), 0);
	assert_int_equal(id_at(nm, 4), 3);
	assert_int_equal(id_at(nm, 9), 3);
	expect(nm, "{\"PeersChanged\":[{\"ID\":4," KEY("04") ",\"Addresses\":[\"100.64.0.9/32\",\"100.64.0.2/32\"]}]}", "delta +4");
	assert_int_equal(id_at(nm, 9), 3);
	assert_int_equal(id_at(nm, 2), 2);
	expect(nm, "{\"PeersRemoved\":[2]}", "delta -2");
	assert_int_equal(id_at(nm, 2), 4);
	expect(nm, "{\"PeersRemoved\":[3,4]}", "delta -3 -4");
	assert_int_equal(id_at(nm, 9), 0);
}

/* How servers write "*" as a source out: the mesh's ranges (without those of ChromeOS), and subnet routes. */
#define MESH(dst, more)                                                                                       \
	"{\"PacketFilter\":[{\"SrcIPs\":[\"100.64.0.0-100.115.91.255\",\"100.115.94.0-100.127.255.255\","     \
	"\"fd7a:115c:a1e0::/48\"" more "],\"DstPorts\":[{\"IP\":\"" dst "\",\"Ports\":{\"First\":0,\"Last\":65535}}]}]}"
#define MESH_PEER PEER("7", "07", "," DISCO("17"))
#define CHROMEOS  "{\"ID\":8," KEY("08") "," DISCO("18") ",\"Addresses\":[\"100.115.92.9/32\"]}"

static void test_filter_of_ranges(void **state)
{
	CLEANUP(netmap_free) struct netmap *nm = map_of("{" SELF "}");

	(void)state;
	expect(nm, MESH("*", ""), "delta filter");
	expect(nm, "{\"PeersChanged\":[" MESH_PEER "]}", "delta +7");
	assert_true(netmap_filter_is_allow_all(nm, false));
	/* a peer that the ranges leave out: the filter no longer holds for all */
	expect(nm, "{\"PeersChanged\":[" CHROMEOS "]}", "delta +8");
	assert_false(netmap_filter_is_allow_all(nm, false));
	expect(nm, "{\"PeersRemoved\":[8]}", "delta -8");
	assert_true(netmap_filter_is_allow_all(nm, false));
	expect(nm, MESH("100.64.0.0/10", ""), "delta filter"); /* not everywhere */
	assert_false(netmap_filter_is_allow_all(nm, false));
	expect(nm, MESH("*", ""), "delta filter");
	assert_true(netmap_filter_is_allow_all(nm, false));
	/* nor for one that is jailed, which no rule lets in */
	expect(nm, "{\"PeersChanged\":[" PEER("7", "07", "," DISCO("17") ",\"IsJailed\":true") "]}", "delta 7:caps");
	assert_false(netmap_filter_is_allow_all(nm, false));
	expect(nm, "{\"PeersChanged\":[" MESH_PEER "]}", "delta 7:caps");
	assert_true(netmap_filter_is_allow_all(nm, false));
}

static void test_rest(void **state)
{
	CLEANUP(netmap_free) struct netmap *nm = map_of("{" SELF "}");
	char out[64];

	(void)state;
	assert_string_equal(netmap_suffix(nm, out, sizeof(out)), "mesh.test");
	expect(nm, "{\"DERPMap\":{\"Regions\":{\"900\":{\"RegionID\":900,\"Nodes\":[{\"Name\":\"a\",\"RegionID\":900,"
		   "\"HostName\":\"h\"}]}}}}",
	       "delta derp");
	expect(nm, "{\"DERPMap\":{\"HomeParams\":{\"RegionScore\":{\"900\":2.0}}}}", "delta derp");
	assert_int_equal(nm->derp.n_regions, 1);
	expect(nm, "{\"DERPMap\":[]}", "delta skipped=1");
	expect(nm, "{\"DNSConfig\":{\"Proxied\":true,\"Domains\":[\"mesh.test\"],\"Routes\":{\".x.test.\":[],"
		   "\"y\":[{\"Addr\":\"192.0.2.53\"}]}}}",
	       "delta dns");
	assert_int_equal(nm->dns.n_routes, 2);
	assert_string_equal(nm->dns.routes[0].suffix, "x.test");
	assert_string_equal(nm->dns.routes[1].resolvers[0], "192.0.2.53");
	expect(nm, "{\"DNSConfig\":{}}", "delta dns");
	assert_false(nm->dns.proxied);
	expect(nm, "{\"UserProfiles\":[{\"ID\":2,\"LoginName\":\"b\"},{\"ID\":1,\"LoginName\":\"a\"}]}",
	       "delta users");
	expect(nm, "{\"UserProfiles\":[{\"ID\":2,\"LoginName\":\"b\"}]}", "delta");
	assert_string_equal(netmap_user(nm, 1)->login, "a");
	assert_null(netmap_user(nm, 3));
	expect(nm, "{\"Health\":[\"x\"]}", "delta health");
	expect(nm, "{\"Health\":[\"x\"]}", "delta");
	expect(nm, "{\"Health\":[]}", "delta health");
	expect(nm, "{\"TKAInfo\":{}}", "delta");
	assert_true(nm->tailnet_lock);
	expect(nm, "{}", "delta");
	assert_true(nm->tailnet_lock);
}

static struct netmap *replay(const char *name, bool update)
{
	CLEANUP(buf_done) struct buf in = { 0 }, want = { 0 }, got = { 0 }, line = { 0 };
	struct netmap *nm = NULL;
	const char *p, *end;
	char path[256];
	int n = 0;

	snprintf(path, sizeof(path), "tests/data/map/%s.jsonl", name);
	assert_int_equal(file_read(path, 1 << 20, &in), 0);
	assert_int_equal(netmap_new(&nm), 0);
	for (p = buf_str(&in); *p; p = end + 1) {
		CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };

		end = strchr(p, '\n');
		assert_non_null(end);
		n++;
		if (end == p) {
			netmap_stream_begin(nm);
			continue;
		}
		if (apply(nm, p, (size_t)(end - p), 0, &c) < 0)
			fail_msg("%s line %d: refused", path, n);
		buf_printf(&got, "%d %s\n", n, changes_text(&c, &line));
	}
	snprintf(path, sizeof(path), "tests/data/map/%s.expect", name);
	if (update)
		assert_int_equal(file_replace(path, buf_data(&got), got.len, 0644), 0);
	assert_int_equal(file_read(path, 1 << 20, &want), 0);
	assert_string_equal(buf_str(&got), buf_str(&want));
	return nm;
}

static void test_recorded(void **state)
{
	static const char *const names[] = {
		"hs-fast", "hs-slow", "hs-observer-deltas", "hs-observer-rotation-ephemeral",
		"hs-rotate-expire-self", "lifecycle-1", "lifecycle-2", "lifecycle-3", "lifecycle-4",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP(netmap_free) struct netmap *nm =
			replay(names[i], getenv("KERNSCALE_UPDATE_EXPECT") != NULL);
		CLEANUP(buf_done) struct buf one = { 0 }, two = { 0 };
		CLEANUP(netmap_free) struct netmap *again = NULL;
		struct key other = { { 1 } };
		struct json_slice text;

		/* through the cache and back it is the same map */
		assert_int_equal(netmap_encode(nm, "http://a", &one), 0);
		text = (struct json_slice){ buf_str(&one), one.len };
		assert_int_equal(netmap_decode(text, "http://b", NULL, NOW, &again), -ESTALE);
		assert_int_equal(netmap_decode(text, "http://a", &other, NOW, &again), -ESTALE);
		assert_int_equal(netmap_decode(text, "http://a", &nm->self->key, NOW, &again), 0);
		assert_int_equal(netmap_n_peers(again), netmap_n_peers(nm));
		for (size_t k = 0; k < nm->peers.n; k++)
			again->peers.by_id[k]->node->online = nm->peers.by_id[k]->node->online;
		assert_int_equal(netmap_encode(again, "http://a", &two), 0);
		assert_string_equal(buf_str(&one), buf_str(&two));
		assert_int_equal(netmap_filter_is_allow_all(nm, false), netmap_filter_is_allow_all(again, false));
	}
}

/* However deep a message nests: what was taken of it can be read back from the cache. */
static void test_cache_deep(void **state)
{
	(void)state;
	for (size_t depth = 1; depth < 60; depth++) {
		CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
		CLEANUP(netmap_free) struct netmap *nm = map_of("{" SELF ",\"Peers\":[" PEER("2", "02", "") "]}");
		CLEANUP(netmap_free) struct netmap *again = NULL;
		CLEANUP(buf_done) struct buf b = { 0 };
		char open[64] = "", shut[64] = "";

		memset(open, '[', depth);
		memset(shut, ']', depth);
		buf_printf(&b, "{\"DNSConfig\":{\"x\":%s%s},\"PeersChangedPatch\":[{\"NodeID\":2,\"CapMap\":{\"c\":%s%s}}]}", open,
			   shut, open, shut);
		apply(nm, buf_str(&b), b.len, NOW, &c);
		assert_true(depth > 28 || netmap_peer_at(nm, 0)->capmap);
		assert_true(depth < 40 || !netmap_peer_at(nm, 0)->capmap);
		buf_clear(&b);
		assert_int_equal(netmap_encode(nm, "http://a", &b), 0);
		assert_int_equal(netmap_decode((struct json_slice){ buf_str(&b), b.len }, "http://a", NULL, NOW, &again), 0);
		assert_int_equal(!netmap_peer_at(again, 0)->capmap, !netmap_peer_at(nm, 0)->capmap);
	}
}

static void test_cache_file(void **state)
{
	CLEANUP(netmap_free) struct netmap *nm = map_of("{" SELF ",\"Peers\":[" PEER("2", "02", "") "]}");
	CLEANUP(netmap_free) struct netmap *again = NULL;
	CLEANUP(buf_done) struct buf b = { 0 };
	char dir[] = "/tmp/ks-netmap-XXXXXX", path[64];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/netmap.json", dir);
	assert_int_equal(netmap_load(path, NULL, NULL, NOW, &again), -ENOENT);
	assert_int_equal(netmap_encode(nm, "http://a", &b), 0);
	assert_int_equal(file_replace(path, buf_data(&b), b.len, 0600), 0);
	buf_clear(&b);
	assert_int_equal(netmap_load(path, "http://a", &nm->self->key, NOW, &again), 0);
	assert_int_equal(netmap_n_peers(again), 1);
	/* then the server says the same: nobody has anything to do */
	expect(again, "{" SELF ",\"Peers\":[" PEER("2", "02", "") "]}", "full");
	/* cut at any byte it is refused, not half taken */
	assert_int_equal(file_read(path, 1 << 20, &b), 0);
	for (size_t n = 0; n + 2 < b.len; n++) {
		struct netmap *none = NULL;

		assert_true(netmap_decode((struct json_slice){ (const char *)buf_data(&b), n }, NULL,
					  NULL, NOW, &none) < 0);
	}
	/* nor a message that only says that the server lives */
	buf_clear(&b);
	buf_put_str(&b, "{\"KernscaleNetmap\":1,\"ServerURL\":\"http://a\",\"Map\":{" SELF ",\"KeepAlive\":true}}");
	netmap_free(TAKE(again));
	assert_int_equal(netmap_decode((struct json_slice){ buf_str(&b), b.len }, NULL, &nm->self->key, NOW, &again),
			 -EBADMSG);
	unlink(path);
	rmdir(dir);
}

/* n joins: everybody is told of everybody, again and again. */
static void test_flood(void **state)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	CLEANUP(netmap_free) struct netmap *nm = map_of("{" SELF "}");

	(void)state;
	buf_put_str(&b, "{\"PeersChanged\":[");
	for (unsigned int i = 2; i < 2002; i++)
		buf_printf(&b, "%s{\"ID\":%u,\"Key\":\"nodekey:%064x\",\"Addresses\":[\"100.64.%u.%u/32\"]}",
			   i > 2 ? "," : "", i, i * 2654435761u, i / 256, i % 256);
	buf_put_str(&b, "]}");
	for (int round = 0; round < 20; round++) {
		CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };

		assert_int_equal(apply(nm, buf_str(&b), b.len, NOW, &c), 0);
		assert_int_equal(c.n_peers, round ? 0 : 2000);
	}
	for (size_t i = 0; i < 2000; i++) {
		const struct tailcfg_node *n = netmap_peer_at(nm, i);

		assert_int_equal(n->id, i + 2);
		assert_ptr_equal(netmap_peer_by_key(nm, &n->key), n);
	}
	/* every second one leaves; the others are still found by key */
	buf_clear(&b);
	buf_put_str(&b, "{\"PeersRemoved\":[0");
	for (unsigned int i = 2; i < 2002; i += 2)
		buf_printf(&b, ",%u", i);
	buf_put_str(&b, "]}");
	{
		CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };

		assert_int_equal(apply(nm, buf_str(&b), b.len, NOW, &c), 0);
		assert_int_equal(c.n_peers, 1000);
	}
	for (size_t i = 0; i < 1000; i++)
		assert_ptr_equal(netmap_peer_by_key(nm, &netmap_peer_at(nm, i)->key), netmap_peer_at(nm, i));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first),	   cmocka_unit_test(test_deltas),
		cmocka_unit_test(test_key_owner),  cmocka_unit_test(test_expiry),
		cmocka_unit_test(test_routes),	   cmocka_unit_test(test_filters),
		cmocka_unit_test(test_filter_of_ranges), cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_rest),	   cmocka_unit_test(test_recorded),
		cmocka_unit_test(test_cache_deep),
		cmocka_unit_test(test_cache_deep),
		cmocka_unit_test(test_cache_file), cmocka_unit_test(test_flood),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
