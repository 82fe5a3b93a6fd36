/* tailcfg: register and map messages, the recorded ones and the odd ones. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "proto/tailcfg.h"

#define K1 "0101010101010101010101010101010101010101010101010101010101010101"
#define K2 "0202020202020202020202020202020202020202020202020202020202020202"
#define S(text) ((struct json_slice){ text, strlen(text) })

static void test_scan(void **state)
{
	static const char *const bad[] = {
		"", "{", "[]", "{\"a\":1", "{\"a\":1,}", "{\"a\" 1}", "{\"a\":}", "{a:1}", "{\"a\":[}]}",
		"{\"a\":1}x", "{\"a\":1 \"b\":2}", "{,}", "{\"a\":\"x}", "{\"a\\\":1}",
		"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}",
	};
	struct json_slice name, v;
	struct json_scan s;
	int64_t id;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		bool ok = json_scan_object(S(bad[i]), &s) == 0;

		while (ok && json_scan_member(&s, &name, &v))
			;
		assert_false(ok && json_scan_ok(&s));
	}
	assert_int_equal(json_scan_object(S(" {\"a\" : [1,{\"]\":2}] , \"b\\\"\":null}\n"), &s), 0);
	assert_true(json_scan_member(&s, &name, &v));
	assert_true(json_slice_is(name, "a"));
	assert_true(json_slice_is(v, "[1,{\"]\":2}]"));
	assert_true(json_scan_member(&s, &name, &v));
	assert_true(json_slice_is(name, "b\\\""));
	assert_true(json_slice_is_null(v));
	assert_false(json_scan_member(&s, &name, &v));
	assert_true(json_scan_ok(&s));
	assert_int_equal(json_slice_int(S("{\"X\":{\"ID\":1},\"ID\":77}"), "ID", &id), 0);
	assert_int_equal(id, 77);
	assert_int_equal(json_slice_int(S("{\"ID\":-1}"), "ID", &id), -EBADMSG);
	assert_int_equal(json_slice_int(S("{\"IDs\":1}"), "ID", &id), -ENOENT);
}

static struct tailcfg_node *node(const char *text)
{
	struct tailcfg_node *n = NULL;

	assert_int_equal(tailcfg_node_decode(S(text), &n), 0);
	return n;
}

static void test_node(void **state)
{
	CLEANUP(tailcfg_node_free) struct tailcfg_node *n = node(
		"{\"ID\":7,\"StableID\":\"7\",\"Name\":\"Box 1\\u001b.mesh.test.\",\"User\":2147455555,"
		"\"Key\":\"nodekey:" K1 "\",\"DiscoKey\":null,\"Addresses\":[\"100.64.0.7/32\","
		"\"fd7a:115c:a1e0::7/128\"],\"AllowedIPs\":[\"fd7a:115c:a1e0::7/128\",\"100.64.0.7/32\"],"
		"\"Endpoints\":[\"192.0.2.1:1\",\"192.0.2.1:1\",\"0.0.0.0:5\",\"x\",\"[2001:db8::1]:2\"],"
		"\"DERP\":\"127.3.3.40:12\",\"KeyExpiry\":\"0001-01-01T00:00:00Z\",\"Online\":false,"
		"\"Hostinfo\":{\"Hostname\":\"a\\u009bb\\nc\",\"OS\":\"linux\"},\"Cap\":131,"
		"\"CapMap\":{\"z\":null,\"a\":[1]},\"MachineAuthorized\":true,\"Unknown\":{\"x\":[]}}");
	CLEANUP(tailcfg_node_free) struct tailcfg_node *again = NULL;
	CLEANUP(buf_done) struct buf one = { 0 }, two = { 0 };
	size_t k;

	(void)state;
	assert_int_equal(n->id, 7);
	assert_string_equal(n->name, "box-1-.mesh.test.");
	assert_string_equal(n->hostname, "a??b?c");
	assert_true(key_is_zero(&n->disco));
	assert_true(n->allowed_same);
	assert_non_null(tailcfg_node_allowed(n, &k));
	assert_int_equal(k, 2);
	assert_int_equal(n->n_endpoints, 2);
	assert_int_equal(n->home_derp, 12);
	assert_int_equal(n->key_expiry, 0);
	assert_int_equal(n->online, TAILCFG_NO);
	assert_string_equal(n->capmap, "{\"a\":[1],\"z\":null}");
	assert_true(tailcfg_node_has_cap(n, "z"));
	assert_false(tailcfg_node_has_cap(n, "y"));
	assert_int_equal(tailcfg_node_encode(n, &one), 0);
	assert_int_equal(tailcfg_node_decode((struct json_slice){ buf_str(&one), one.len }, &again), 0);
	assert_int_equal(tailcfg_node_encode(again, &two), 0);
	assert_string_equal(buf_str(&one), buf_str(&two));
}

static void test_node_refused(void **state)
{
	static const char *const bad[] = {
		"{}", "[]", "null", "{\"ID\":1}", "{\"ID\":1,\"Key\":\"\"}",
		"{\"ID\":0,\"Key\":\"nodekey:" K1 "\"}",
		"{\"ID\":1,\"Key\":\"discokey:" K1 "\"}",
		"{\"ID\":1,\"Key\":\"nodekey:" K1 "\",\"Addresses\":[\"100.64.0.1\"]}",
		"{\"ID\":1,\"Key\":\"nodekey:" K1 "\",\"KeyExpiry\":\"\"}",
		"{\"ID\":1,\"Key\":\"nodekey:" K1 "\",\"DiscoKey\":\"nodekey:" K2 "\"}",
	};
	struct tailcfg_node *n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(tailcfg_node_decode(S(bad[i]), &n) < 0);
}

static void test_sources(const struct tailcfg_rule *r)
{
	static const struct {
		const char *prefix;
		bool is;
	} cases[] = {
		{ "100.64.0.0/32", true },	{ "100.115.91.255/32", true }, { "100.115.92.0/32", false },
		{ "100.64.0.0/11", true },	{ "100.64.0.0/10", false },    { "100.63.255.255/32", false },
		{ "fd7a:115c:a1e0::1/128", true }, { "fd7a:115c:a1e0::/47", false }, { "10.1.2.3/32", true },
		{ "10.1.2.2/31", false },	{ "::/0", false },	       { "0.0.0.0/0", false },
	};
	struct prefix p;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(prefix_parse(cases[i].prefix, strlen(cases[i].prefix), &p), 0);
		if (tailcfg_rule_has_source(r, &p) != cases[i].is)
			fail_msg("%s", cases[i].prefix);
	}
}

static void test_rules(void **state)
{
	static const char text[] =
		"[{\"SrcIPs\":[\"100.64.0.0-100.115.91.255\",\"fd7a:115c:a1e0::/48\",\"10.0.0.1/8\","
		"\"192.0.2.9-192.0.2.1\",\"1.1.1.1-::1\",\"cap:x/y\",\"10.1.2.3\",5],"
		"\"DstPorts\":[{\"IP\":\"*\",\"Ports\":{\"First\":22,\"Last\":22}},"
		"{\"IP\":\"cap:no\",\"Ports\":{\"First\":0,\"Last\":1}},{\"IP\":\"10.0.0.0/8\",\"Ports\":"
		"{\"First\":9,\"Last\":1}}],\"IPProto\":[6,300,6,-1]},"
		"{\"SrcIPs\":[\"*\"],\"SrcBits\":[1],\"DstPorts\":[]},"
		"{\"SrcIPs\":[\"*\"],\"DstPorts\":[{\"IP\":\"*\",\"Ports\":{\"First\":0,\"Last\":65535}}]},"
		"{\"SrcIPs\":[\"*\"],\"DstPorts\":[{\"IP\":\"*\",\"Ports\":{\"First\":0,\"Last\":65535}}],"
		"\"IPProto\":[999]},{\"SrcIPs\":[\"*\"],\"CapGrant\":[{\"Dsts\":[\"10.0.0.1/32\"]}]}]";
	CLEANUP(tailcfg_rules_done) struct tailcfg_rules r = { 0 }, again = { 0 };
	CLEANUP(buf_done) struct buf one = { 0 }, two = { 0 };
	char out[ADDR_TEXT_MAX];

	(void)state;
	assert_int_equal(tailcfg_rules_decode(S(text), &r), 0);
	assert_int_equal(r.n, 4);
	assert_int_equal(r.n_skipped, 4 + 2 + 1);
	assert_int_equal(r.rule[0].n_src, 4);
	assert_string_equal(addr_text(&r.rule[0].src[1].hi, out),
			    "fd7a:115c:a1e0:ffff:ffff:ffff:ffff:ffff");
	assert_int_equal(r.rule[0].src[2].kind, TAILCFG_NET_CAP);
	assert_string_equal(r.rule[0].src[2].cap, "x/y");
	assert_int_equal(r.rule[0].n_dst, 1);
	assert_int_equal(r.rule[0].n_proto, 1);
	assert_false(r.rule[0].proto_default);
	assert_false(tailcfg_rule_opens_all(&r.rule[0]));
	assert_true(tailcfg_rule_opens_all(&r.rule[1]));
	assert_false(tailcfg_rule_opens_all(&r.rule[2])); /* no protocol remains */
	assert_true(r.rule[3].cap_grant);
	assert_false(tailcfg_rule_opens_all(&r.rule[3]));
	test_sources(&r.rule[0]);
	assert_int_equal(tailcfg_rules_encode(&r, &one), 0);
	assert_int_equal(tailcfg_rules_decode((struct json_slice){ buf_str(&one), one.len }, &again), 0);
	assert_int_equal(again.n_skipped, 0);
	assert_int_equal(tailcfg_rules_encode(&again, &two), 0);
	assert_string_equal(buf_str(&one), buf_str(&two));
	tailcfg_rules_done(&again);
	assert_int_equal(tailcfg_rules_decode(S("null"), &again), 0);
	assert_int_equal(again.n, 0);
	assert_int_equal(tailcfg_rules_decode(S("{}"), &again), -EBADMSG);
}

static void test_map(void **state)
{
	static const char text[] =
		"{\"PingRequest\":{\"URL\":\"http://h/ping?id=1\\u0026x\",\"Types\":\"c2n\",\"Payload\":\"AA==\"},"
		"\"PopBrowserURL\":\"javascript:x\",\"ControlTime\":\"2026-11-22T11:35:06.1Z\",\"Node\":null,"
		"\"Peers\":[],\"PeersRemoved\":[3,\"x\",4],\"OnlineChange\":{\"5\":true,\"x\":true,\"6\":null},"
		"\"PeersChangedPatch\":[{\"NodeID\":3,\"DERPRegion\":2,\"Endpoints\":[]},{\"NodeID\":4,"
		"\"Endpoints\":null,\"Key\":\"nodekey:" K1 "\",\"DiscoKey\":\"discokey:" K2 "\","
		"\"KeyExpiry\":\"0001-01-01T00:00:00Z\",\"CapMap\":{}},{\"NodeID\":0}],"
		"\"PacketFilters\":{\"*\":null,\"a\\u0062\":[],\"c\":null},\"Health\":[],\"Domain\":\"\","
		"\"UserProfiles\":[{\"ID\":1,\"LoginName\":\"u\"},{}],\"TKAInfo\":{\"Disabled\":true},"
		"\"SSHPolicy\":{\"rules\":[]}}\n";
	CLEANUP(tailcfg_map_done) struct tailcfg_map_response m = { 0 };

	(void)state;
	assert_int_equal(tailcfg_map_decode(S(text), &m), 0);
	assert_false(m.keep_alive);
	assert_string_equal(m.ping->url, "http://h/ping?id=1&x");
	assert_string_equal(m.ping->types, "c2n");
	assert_string_equal(m.ping->payload, "AA==");
	assert_null(m.browse_url);
	assert_null(m.node.p);
	assert_int_equal(m.n_peers, 0);
	assert_int_equal(m.n_peers_removed, 2);
	assert_int_equal(m.n_online, 1);
	assert_int_equal(m.n_patches, 2);
	assert_int_equal(m.patches[0].has, TAILCFG_PATCH_DERP | TAILCFG_PATCH_ENDPOINTS);
	assert_int_equal(m.patches[1].has, TAILCFG_PATCH_KEY | TAILCFG_PATCH_DISCO |
						   TAILCFG_PATCH_KEY_EXPIRY | TAILCFG_PATCH_CAPMAP);
	assert_true(m.filters_clear);
	assert_int_equal(m.n_filters, 2);
	assert_string_equal(m.filters[0].name, "ab");
	assert_true(json_slice_is(m.filters[0].text, "[]"));
	assert_true(json_slice_is_null(m.filters[1].text));
	assert_true(m.has_health);
	assert_int_equal(m.n_users, 1);
	assert_true(m.tka_off);
	assert_false(m.tailnet_lock);
	assert_int_equal(m.n_skipped, 1 + 2 + 1 + 1);
	tailcfg_map_done(&m);
	assert_int_equal(tailcfg_map_decode(S("{\"KeepAlive\":true}"), &m), 0);
	assert_true(m.keep_alive);
	assert_int_equal(tailcfg_map_decode(S("{\"Node\":{},\"Node\":{}}"), &m), -EBADMSG);
	assert_int_equal(tailcfg_map_decode(S("{\"Peers\":{}}"), &m), -EBADMSG);
	assert_int_equal(tailcfg_map_decode(S("{\"KeepAlive\":1}"), &m), -EBADMSG);
	assert_int_equal(tailcfg_map_decode(S("[]"), &m), -EBADMSG);
	assert_int_equal(tailcfg_map_decode((struct json_slice){ "{\"DNSConfig\":{\"Routes\":{\"a\":[1\0]}}}", 35 }, &m),
			 -EBADMSG);
}

static void test_patch(void **state)
{
	CLEANUP(tailcfg_node_free) struct tailcfg_node *n =
		node("{\"ID\":3,\"Key\":\"nodekey:" K1 "\",\"KeyExpiry\":\"2020-01-01T00:00:00Z\","
		     "\"Expired\":true,\"Endpoints\":[\"192.0.2.1:1\"],\"CapMap\":{\"a\":[]}}");
	CLEANUP(tailcfg_map_done) struct tailcfg_map_response m = { 0 };

	(void)state;
	assert_int_equal(tailcfg_map_decode(S("{\"PeersChangedPatch\":[{\"NodeID\":3,\"Key\":\"nodekey:" K2
					      "\"},{\"NodeID\":3,\"Endpoints\":[],\"CapMap\":{},"
					      "\"Online\":false}]}"),
					    &m),
			 0);
	tailcfg_node_patch(n, &m.patches[0]);
	assert_int_equal(n->key.b[0], 2);
	assert_int_equal(n->key_expiry, 0);
	assert_false(n->expired);
	assert_int_equal(n->n_endpoints, 1);
	tailcfg_node_patch(n, &m.patches[1]);
	assert_int_equal(n->n_endpoints, 0);
	assert_null(n->capmap);
	assert_int_equal(n->online, TAILCFG_NO);
}

static void test_requests(void **state)
{
	static char hostname[] = "box\"1", os[] = "linux", client[] = "1-kernscale";
	struct tailcfg_hostinfo h = { .hostname = hostname, .os = os, .client_version = client };
	struct tailcfg_register_request q = { .version = 131, .auth_key = "hskey-auth-1", .hostinfo = &h };
	struct tailcfg_endpoint eps[] = { { .type = TAILCFG_ENDPOINT_STUN } };
	struct tailcfg_map_request mq = { .version = 131, .hostinfo = &h };
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)state;
	memset(q.node_key.b, 1, 32);
	assert_int_equal(tailcfg_register_encode(&q, &b), 0);
	assert_string_equal(buf_str(&b),
			    "{\"Version\":131,\"NodeKey\":\"nodekey:" K1 "\",\"OldNodeKey\":\"nodekey:"
			    "0000000000000000000000000000000000000000000000000000000000000000\","
			    "\"Hostinfo\":{\"IPNVersion\":\"1-kernscale\",\"OS\":\"linux\",\"Hostname\":"
			    "\"box\\\"1\"},\"Auth\":{\"AuthKey\":\"hskey-auth-1\"}}");
	q.auth_key = "a\"b";
	assert_int_equal(tailcfg_register_encode(&q, &b), -EINVAL);
	q.auth_key = NULL;
	q.followup = "http://x/ y";
	assert_int_equal(tailcfg_register_encode(&q, &b), -EINVAL);
	buf_clear(&b);
	q.followup = NULL;
	q.logout = true;
	assert_int_equal(tailcfg_register_encode(&q, &b), 0);
	assert_non_null(strstr(buf_str(&b), "\"Expiry\":\"1970-01-01T00:02:03Z\""));
	buf_clear(&b);
	assert_int_equal(endpoint_parse("192.0.2.1:41641", 15, &eps[0].ep), 0);
	h.net = (struct tailcfg_netinfo){ .preferred_derp = 900, .working_udp = TAILCFG_YES };
	mq.has_endpoints = true;
	mq.endpoints = eps;
	mq.n_endpoints = 1;
	memset(mq.node_key.b, 1, 32);
	memset(mq.disco_key.b, 2, 32);
	assert_int_equal(tailcfg_map_encode(&mq, &b), 0);
	assert_string_equal(
		buf_str(&b),
		"{\"Version\":131,\"Compress\":\"zstd\",\"KeepAlive\":true,\"NodeKey\":\"nodekey:" K1
		"\",\"DiscoKey\":\"discokey:" K2 "\",\"OmitPeers\":true,\"Hostinfo\":{\"IPNVersion\":"
		"\"1-kernscale\",\"OS\":\"linux\",\"Hostname\":\"box\\\"1\",\"NetInfo\":{\"WorkingUDP\":"
		"true,\"PreferredDERP\":900}},\"Endpoints\":[\"192.0.2.1:41641\"],\"EndpointTypes\":[2]}");
}

static void test_register_answer(void **state)
{
	CLEANUP(tailcfg_register_done) struct tailcfg_register_response r = { 0 };
	struct key k;

	(void)state;
	/* as recorded from a stock server */
	assert_int_equal(
		tailcfg_register_decode(
			S("{\"User\":{\"ID\":1,\"DisplayName\":\"u\",\"Created\":\"2026-11-22T11:34:59.1Z\"},"
			  "\"Login\":{\"ID\":1,\"Provider\":\"\",\"LoginName\":\"u\",\"DisplayName\":\"u\"},"
			  "\"NodeKeyExpired\":false,\"MachineAuthorized\":true,\"AuthURL\":\"\","
			  "\"NodeKeySignature\":null,\"Error\":\"\"}\n"),
			&r),
		0);
	assert_string_equal(r.user.login, "u");
	assert_string_equal(r.error, "");
	assert_string_equal(r.auth_url, "");
	assert_true(r.machine_authorized);
	tailcfg_register_done(&r);
	assert_int_equal(tailcfg_register_decode(S("{\"AuthURL\":\"http://h/a b\"}"), &r), -EBADMSG);
	assert_int_equal(tailcfg_register_decode(S("{\"Error\":\"no\\nway\",\"NodeKeySignature\":\"AA==\"}"), &r),
			 0);
	assert_string_equal(r.error, "no?way");
	assert_true(r.wants_signature);
	assert_int_equal(tailcfg_server_key_decode(S("{\"legacyPublicKey\":\"x\",\"publicKey\":\"mkey:" K1 "\"}"),
						   &k),
			 0);
	assert_int_equal(k.b[31], 1);
	assert_int_equal(tailcfg_server_key_decode(S("{}"), &k), -EBADMSG);
}

/* Lists of nothing take fifty times their text: refused before they do. Long texts that are what they say are read. */
static void test_tree_limit(void **state)
{
	static const char *const items[] = { "[],", "{},", "0,", "\"\"," };
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
		CLEANUP(json_decref) json_t *j = NULL;

		buf_clear(&b);
		buf_put_u8(&b, '[');
		while (b.len < (16u << 20))
			buf_put_str(&b, items[i]);
		buf_put_str(&b, "0]");
		assert_int_equal(json_slice_read((struct json_slice){ buf_str(&b), b.len }, &j), -ENOBUFS);
	}
	buf_clear(&b);
	buf_put_u8(&b, '[');
	for (int i = 0; i < 100000; i++)
		buf_printf(&b, "\"fd7a:115c:a1e0::%x:%x/128\",", (unsigned int)i >> 16, (unsigned int)i & 0xffff);
	buf_put_str(&b, "\"\"]");
	{
		CLEANUP(json_decref) json_t *j = NULL;

		assert_int_equal(json_slice_read((struct json_slice){ buf_str(&b), b.len }, &j), 0);
		assert_int_equal(json_array_size(j), 100001);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scan),	cmocka_unit_test(test_node),
		cmocka_unit_test(test_node_refused), cmocka_unit_test(test_rules),
		cmocka_unit_test(test_map),	cmocka_unit_test(test_patch),
		cmocka_unit_test(test_requests), cmocka_unit_test(test_register_answer),
		cmocka_unit_test(test_tree_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
