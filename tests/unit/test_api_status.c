/* status: golden documents for a running, a stopped and a fresh node; what is hidden; whois;
 * netcheck; verdicts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/api/api.h"
#include "lib/json.h"
#include "tests/unit/golden.h"

#define SEC INT64_C(1000000000)
#define NOW (INT64_C(1795000000) * SEC)

static struct addr addr_of(const char *s)
{
	struct addr a = { 0 };

	assert_int_equal(addr_parse(s, strlen(s), &a), 0);
	return a;
}

static struct endpoint endpoint_of(const char *s)
{
	struct endpoint e = { 0 };

	assert_int_equal(endpoint_parse(s, strlen(s), &e), 0);
	return e;
}

static struct key key_of(uint8_t first)
{
	struct key k = { 0 };

	k.b[0] = first;
	return k;
}

/* What the daemon's glue keeps: here two peers, one direct and one by relay, and one that is
 * left out. */
struct world {
	struct addr self[2], db[2], lap[1];
	struct prefix db_allowed[2], lap_routes[1];
	struct endpoint db_endpoints[2];
	const char *db_tags[2];
};

static bool world_peer(void *data, size_t i, struct api_status_peer *ret)
{
	struct world *w = data;

	if (i == 0) {
		*ret = (struct api_status_peer){
			.pub = key_of(2),
			.node_id = 9,
			.stable_id = "n9",
			.hostname = "db1",
			.dns_name = "db1.mesh.test",
			.os = "linux",
			.user_id = 1,
			.addrs = w->db,
			.n_addrs = 2,
			.allowed = w->db_allowed,
			.n_allowed = 2,
			.endpoints = w->db_endpoints,
			.n_endpoints = 2,
			.tags = w->db_tags,
			.n_tags = 2,
			.current = w->db_endpoints[0],
			.relay = "fra",
			.rx_bytes = 998,
			.tx_bytes = 1204,
			.created = NOW - 86400 * SEC,
			.last_handshake = NOW - 64 * SEC,
			.last_write = NOW - SEC,
			.online = true,
			.active = true,
			.in_engine = true,
			.path = API_PATH_DIRECT,
			.latency_usec = 12345,
		};
		return true;
	}
	if (i == 1)
		return false;
	*ret = (struct api_status_peer){
		.pub = key_of(3),
		.node_id = 12,
		.stable_id = "n12",
		.hostname = "lap\xff",
		.dns_name = "lap.mesh.test.",
		.os = "macOS",
		.user_id = 2,
		.addrs = w->lap,
		.n_addrs = 1,
		.primary_routes = w->lap_routes,
		.n_primary_routes = 1,
		.relay = "fra",
		.last_seen = NOW - 3 * 86400 * SEC,
		.expired = true,
		.key_expiry = NOW - SEC,
		.path = API_PATH_RELAY,
		.reason = "it answers no probe",
	};
	return true;
}

static void world_fill(struct world *w)
{
	w->self[0] = addr_of("100.64.0.7");
	w->self[1] = addr_of("fd7a:115c:a1e0::7");
	w->db[0] = addr_of("100.64.0.9");
	w->db[1] = addr_of("fd7a:115c:a1e0::9");
	w->lap[0] = addr_of("100.64.0.12");
	w->db_allowed[0] = prefix_of(&w->db[0]);
	w->db_allowed[1] = prefix_of(&w->db[1]);
	assert_int_equal(prefix_parse("10.9.0.0/16", 11, &w->lap_routes[0]), 0);
	w->db_endpoints[0] = endpoint_of("203.0.113.9:41641");
	w->db_endpoints[1] = endpoint_of("[2001:db8::9]:41641");
	w->db_tags[0] = "tag:db";
	w->db_tags[1] = "tag:prod";
}

static const struct api_status_user users[] = {
	{ .id = 1, .login_name = "ops@example.org", .display_name = "Ops" },
	{ .id = 2, .login_name = "ana@example.org" },
};
static const char *const health[] = { "relay fra is not reachable: Connection refused" };

static struct api_status_input running(struct world *w)
{
	world_fill(w);
	return (struct api_status_input){
		.version = "0.1.0",
		.state = API_STATE_RUNNING,
		.have_node_key = true,
		.tailnet_name = "mesh.test",
		.magic_dns_suffix = "mesh.test",
		.login_server = "https://mesh.test",
		.interface = "kernscale0",
		.port = 41641,
		.health = health,
		.n_health = 1,
		.filter = API_FILTER_REPLIES_ONLY,
		.filter_reason = "the policy has rules that this version does not enforce yet",
		.auth_url = "https://mesh.test/a/secret",
		.home_relay_id = 900,
		.home_relay_code = "fra",
		.home_relay_connected = true,
		.control_connected = true,
		.have_self = true,
		.self = { .pub = key_of(1),
			  .node_id = 7,
			  .stable_id = "n7",
			  .hostname = "gw1",
			  .dns_name = "gw1.mesh.test",
			  .os = "linux",
			  .user_id = 1,
			  .addrs = w->self,
			  .n_addrs = 2,
			  .relay = "fra",
			  .online = true },
		.n_users = 2,
		.users = users,
		.n_peers = 3,
		.peer = world_peer,
		.data = w,
	};
}

static void assert_golden(const char *path, const json_t *j)
{
	char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9));

	assert_non_null(text);
	assert_true(golden_is(path, text, strlen(text)));
	free(text);
}

static json_t *document(const struct api_status_input *in, bool peers, bool hide)
{
	struct buf b = { 0 };
	json_t *j = NULL;

	assert_int_equal(api_status_write(in, peers, hide, &b), 0);
	assert_int_equal(json_read(buf_data(&b), b.len, b.len, &j), 0);
	buf_done(&b);
	return j;
}

static void test_running(void **state)
{
	struct world w = { 0 };
	struct api_status_input in = running(&w);
	CLEANUP(json_decref) json_t *j = document(&in, true, false);

	(void)state;
	assert_golden("tests/data/api/status-running.json", j);
	assert_int_equal(json_object_size(json_get(j, "Peer")), 2);
}

/* Who may not log the node in does not get the URL that would. */
static void test_hidden(void **state)
{
	struct world w = { 0 };
	struct api_status_input in = running(&w);
	CLEANUP(json_decref) json_t *j = document(&in, false, true);

	(void)state;
	assert_string_equal(json_get_str(j, "AuthURL"), "");
	assert_int_equal(json_object_size(json_get(j, "Peer")), 0);
	assert_true(json_is_object(json_get(j, "Peer")));
}

static void test_fresh(void **state)
{
	struct api_status_input in = { .version = "0.1.0",
				       .state = API_STATE_NEEDS_LOGIN,
				       .self = { .hostname = "gw1", .os = "linux" } };
	CLEANUP(json_decref) json_t *j = document(&in, true, false);

	(void)state;
	assert_golden("tests/data/api/status-fresh.json", j);
}

/* Every key that stock's users read is there (ipnstate), whatever the node's state. */
static void test_stock_keys(void **state)
{
	static const char *const top[] = {
		"Version",	  "TUN",	 "BackendState",   "HaveNodeKey", "AuthURL",
		"TailscaleIPs",	  "Self",	 "ExitNodeStatus", "Health",	  "MagicDNSSuffix",
		"CurrentTailnet", "CertDomains", "ExtraRecords",   "Peer",	  "User",
		"ClientVersion",  "schema"
	};
	static const char *const peer[] = {
		"ID",	    "NodeID",	      "PublicKey",    "HostName",      "DNSName",
		"OS",	    "UserID",	      "TailscaleIPs", "AllowedIPs",    "Addrs",
		"CurAddr",  "Relay",	      "PeerRelay",    "RxBytes",       "TxBytes",
		"Created",  "LastWrite",      "LastSeen",     "LastHandshake", "Online",
		"ExitNode", "ExitNodeOption", "Active",	      "PeerAPIURL",    "Capabilities",
		"CapMap",   "InNetworkMap",   "InMagicSock",  "InEngine"
	};
	struct world w = { 0 };
	struct api_status_input in[] = { running(&w), { .state = API_STATE_NEEDS_LOGIN } };

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(in); k++) {
		CLEANUP(json_decref) json_t *j = document(&in[k], true, false);

		for (size_t i = 0; i < ARRAY_SIZE(top); i++)
			assert_non_null(json_object_get(j, top[i]));
		for (size_t i = 0; i < ARRAY_SIZE(peer); i++)
			assert_non_null(json_object_get(json_get(j, "Self"), peer[i]));
		assert_int_equal(json_get_bool(json_get(j, "Self"), "Online", k == 1), k == 0);
	}
}

static void test_whois(void **state)
{
	struct world w = { 0 };
	struct api_status_peer p = { 0 };
	CLEANUP(json_decref) json_t *j = NULL;
	CLEANUP(json_decref) json_t *nobody = NULL;

	(void)state;
	world_fill(&w);
	world_peer(&w, 0, &p);
	j = api_whois_json(&p, &users[0]);
	assert_golden("tests/data/api/whois.json", j);
	nobody = api_whois_json(&p, NULL);
	assert_int_equal(json_get_int(json_get(nobody, "UserProfile"), "ID", -1), 0);
}

static void test_expiry(void **state)
{
	enum { WEEK = 7 * 86400 };
	static const struct {
		int64_t expiry;
		const char *when;
	} cases[] = {
		{ 0, NULL },
		{ INT64_MIN, NULL },
		{ INT64_MAX, NULL },
		{ NOW, NULL }, /* the state says that */
		{ NOW + 1, "2026-11-18 11:06 UTC" },
		{ NOW + WEEK * SEC, "2026-11-25 11:06 UTC" },
		{ NOW + WEEK * SEC + 1, NULL },
	};
	char text[160], want[160];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(api_expiry_health(cases[i].expiry, NOW, text, sizeof(text)), !!cases[i].when);
		if (!cases[i].when)
			continue;
		snprintf(want, sizeof(want), "The node key expires at %s, and this node leaves the mesh; log in again "
			 "before: wgctl up --force-reauth", cases[i].when);
		assert_string_equal(text, want);
	}
}

static void test_netcheck(void **state)
{
	static const struct api_netcheck_region regions[] = {
		{ 900, "ber", "Berlin", 12300, 12300, 0 },
		{ 2, "fra", "Frankfurt", 21000, 21000, 30000 },
		{ 10, "syd", "Sydney", 0, 0, 0 },
	};
	struct api_netcheck n = {
		.now_unix_nsec = NOW + 234567891,
		.udp = true,
		.ipv4 = true,
		.ipv4_can_send = true,
		.os_has_ipv6 = true,
		.mapping_varies = 0,
		.upnp = -1,
		.pmp = 1,
		.pcp = 0,
		.captive_portal = -1,
		.preferred_derp = 900,
		.global_v4 = endpoint_of("203.0.113.9:41641"),
		.regions = regions,
		.n_regions = 3,
	};
	CLEANUP(json_decref) json_t *j = api_netcheck_json(&n);

	(void)state;
	assert_golden("tests/data/api/netcheck.json", j);
}

static void test_pong(void **state)
{
	struct api_pong p = { .node_name = "db1",
			      .node_ip = addr_of("100.64.0.9"),
			      .latency_usec = 34000,
			      .derp_region = 900,
			      .derp_code = "fra" };
	CLEANUP(json_decref) json_t *relayed = api_pong_json(&p);
	CLEANUP(json_decref) json_t *direct = NULL;

	(void)state;
	assert_string_equal(json_get_str(relayed, "DERPRegionCode"), "fra");
	assert_string_equal(json_get_str(relayed, "Endpoint"), "");
	p.endpoint = endpoint_of("203.0.113.9:41641");
	direct = api_pong_json(&p);
	assert_string_equal(json_get_str(direct, "Endpoint"), "203.0.113.9:41641");
	assert_string_equal(json_get_str(direct, "DERPRegionCode"), "");
	assert_int_equal(json_get_int(direct, "DERPRegionID", -1), 0);
}

/* Every state by every wish. */
static void test_judge(void **state)
{
#define W API_VERDICT_WAIT
#define A API_VERDICT_ANSWER
#define F API_VERDICT_FAIL
	static const struct {
		struct api_state s;
		enum api_verdict by_wish[3]; /* RUNNING, OUTCOME, PROGRESS */
	} cases[] = {
		{ { .state = API_STATE_NO_STATE }, { W, W, W } },
		{ { .state = API_STATE_NEEDS_LOGIN }, { W, W, W } },
		{ { .state = API_STATE_NEEDS_LOGIN, .auth_url = "" }, { W, W, W } },
		{ { .state = API_STATE_NEEDS_LOGIN, .auth_url = "http://x" }, { W, W, A } },
		{ { .state = API_STATE_NEEDS_MACHINE_AUTH }, { W, W, A } },
		{ { .state = API_STATE_STOPPED }, { W, F, F } },
		{ { .state = API_STATE_STARTING }, { W, W, W } },
		{ { .state = API_STATE_RUNNING }, { W, W, W } }, /* no address yet */
		{ { .state = API_STATE_RUNNING, .n_addrs = 1 }, { A, A, A } },
		{ { .state = API_STATE_RUNNING, .n_addrs = 1, .failed = true }, { A, A, A } },
		{ { .state = API_STATE_NEEDS_LOGIN, .failed = true }, { W, F, F } },
		{ { .state = API_STATE_STARTING, .failed = true }, { W, F, F } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (int wish = 0; wish < 3; wish++) {
			struct api_error e = { .text = "untouched" };

			assert_int_equal(api_judge(&cases[i].s, (enum api_wish)wish, &e),
					 cases[i].by_wish[wish]);
			assert_int_equal(!strcmp(e.text, "untouched"), cases[i].by_wish[wish] != F);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_running), cmocka_unit_test(test_hidden),
		cmocka_unit_test(test_fresh),	cmocka_unit_test(test_stock_keys),
		cmocka_unit_test(test_whois),	cmocka_unit_test(test_expiry),
		cmocka_unit_test(test_netcheck),
		cmocka_unit_test(test_pong),	cmocka_unit_test(test_judge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
