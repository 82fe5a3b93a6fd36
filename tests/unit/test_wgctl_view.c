/* wgctl's text: golden files of status, details, netcheck, ping, whois; names; states; hostile
 * names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "lib/json.h"
#include "tests/unit/golden.h"
#include "wgctl/cli.h"
#include "wgctl/view.h"

#define SEC INT64_C(1000000000)
#define NOW (INT64_C(1795000000) * SEC) /* 2026-11-18T11:06:40Z */

static json_t *load(const char *path)
{
	json_t *j = json_load_file(path, 0, NULL);

	assert_non_null(j);
	return j;
}

static void assert_view(const char *golden, struct buf *b)
{
	assert_false(b->bad);
	assert_true(golden_is(golden, buf_data(b), b->len));
	buf_done(b);
}

static const struct view_status plain = { .self = true, .peers = true, .now_unix_nsec = NOW };

static void test_status(void **state)
{
	static const struct {
		const char *golden;
		struct view_status o;
	} cases[] = {
		{ "tests/data/wgctl/status.txt", { .self = true, .peers = true } },
		{ "tests/data/wgctl/status-header.txt",
		  { .self = true, .peers = true, .header = true } },
		{ "tests/data/wgctl/status-active.txt", { .peers = true, .active = true } },
		{ "tests/data/wgctl/status-self.txt", { .self = true } },
		{ "tests/data/wgctl/status-color.txt",
		  { .self = true, .peers = true, .color = true } },
		{ "tests/data/wgctl/status-detail.txt",
		  { .self = true, .peers = true, .detail = true } },
	};
	CLEANUP(json_decref) json_t *j = load("tests/data/wgctl/status.json");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct view_status o = cases[i].o;
		struct buf b = { 0 };

		o.now_unix_nsec = NOW;
		view_status(j, &o, &b);
		assert_view(cases[i].golden, &b);
	}
}

/* The documents that the daemon's builder made are read by this reader. */
static void test_of_daemon(void **state)
{
	CLEANUP(json_decref) json_t *j = load("tests/data/api/status-running.json");
	struct buf b = { 0 };

	(void)state;
	view_status(j, &plain, &b);
	assert_view("tests/data/wgctl/status-of-daemon.txt", &b);
}

/* Of itself, a node that is in no map has no more than the name of its host. */
static void test_of_fresh_daemon(void **state)
{
	CLEANUP(json_decref) json_t *j = load("tests/data/api/status-fresh.json");
	struct view_status detail = plain;
	struct buf b = { 0 };
	bool self;

	(void)state;
	detail.detail = true;
	view_status(j, &plain, &b);
	view_status(j, &detail, &b);
	assert_null(strstr(buf_str(&b), "gw1"));
	assert_null(view_find(j, "gw1", &self));
	buf_done(&b);
}

static void test_not_running(void **state)
{
	static const struct {
		const char *json, *text;
		int exit;
	} cases[] = {
		{ "{\"BackendState\":\"Running\"}", NULL, 0 },
		{ "{\"BackendState\":\"Starting\",\"Self\":{}}", NULL, 0 },
		{ "{\"BackendState\":\"Starting\",\"Self\":null,\"LoginServer\":\"http://x\"}",
		  "Kernscale is starting, and not logged in to http://x yet", 4 },
		{ "{\"BackendState\":\"Starting\",\"Self\":{\"InNetworkMap\":false},\"LoginServer\":\"http://x\"}",
		  "Kernscale is starting, and not logged in to http://x yet", 4 },
		{ "{\"BackendState\":\"Stopped\"}", "Kernscale is stopped.", 3 },
		{ "{\"BackendState\":\"NeedsLogin\",\"AuthURL\":\"\"}", "Logged out.", 4 },
		{ "{\"BackendState\":\"NeedsLogin\",\"AuthURL\":\"http://x/\\u001b[2J\"}",
		  "Logged out.\nLog in at: http://x/\\x1b[2J", 4 },
		{ "{\"BackendState\":\"NeedsMachineAuth\"}",
		  "Machine is not yet approved by tailnet admin.", 4 },
		{ "{\"BackendState\":\"NoState\"}", "unexpected state: NoState", 1 },
		{ "{}", "unexpected state: ", 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP(json_decref) json_t *j = json_loads(cases[i].json, 0, NULL);
		struct buf b = { 0 };
		int r = -1;
		const char *s = view_not_running(j, &b, &r);

		assert_int_equal(r, cases[i].exit);
		assert_int_equal(!s, !cases[i].text);
		if (s)
			assert_string_equal(s, cases[i].text);
		buf_done(&b);
	}
}

static void test_find(void **state)
{
	static const struct {
		const char *what, *host;
		bool self;
	} cases[] = { { "db1", "db1", false },
		      { "DB1", "db1", false },
		      { "db1.mesh.test", "db1", false },
		      { "db1.mesh.test.", "db1", false },
		      { "100.64.0.9", "db1", false },
		      { "fd7a:115c:a1e0:0::9", "db1", false },
		      { "gw1", "gw1", true },
		      { "100.64.0.7", "gw1", true },
		      { "nodns", "nodns", false },
		      { "db", NULL, false },
		      { "db1.mesh", NULL, false },
		      { "", NULL, false },
		      { ".", NULL, false },
		      { "100.64.0.99", NULL, false } };
	CLEANUP(json_decref) json_t *j = load("tests/data/wgctl/status.json");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool self = !cases[i].self;
		const json_t *p = view_find(j, cases[i].what, &self);

		assert_int_equal(!p, !cases[i].host);
		if (!p)
			continue;
		assert_int_equal(self, cases[i].self);
		assert_string_equal(json_get_str(p, "HostName"), cases[i].host);
	}
}

static void test_pong(void **state)
{
	static const struct {
		const char *json, *text;
		bool direct;
	} cases[] = {
		{ "{\"NodeName\":\"db1\",\"NodeIP\":\"100.64.0.9\",\"LatencySeconds\":0.0342,"
		  "\"Endpoint\":\"\","
		  "\"DERPRegionID\":900,\"DERPRegionCode\":\"fra\"}",
		  "pong from db1 (100.64.0.9) via DERP(fra) in 34ms\n", false },
		{ "{\"NodeName\":\"db1\",\"NodeIP\":\"100.64.0.9\",\"LatencySeconds\":0.012,"
		  "\"Endpoint\":\"203.0.113.9:41641\"}",
		  "pong from db1 (100.64.0.9) via 203.0.113.9:41641 in 12ms\n", true },
		{ "{\"NodeName\":\"db1\",\"NodeIP\":\"100.64.0.9\",\"LatencySeconds\":1.2034,"
		  "\"Endpoint\":\"[2001:db8::9]:1\"}",
		  "pong from db1 (100.64.0.9) via [2001:db8::9]:1 in 1.203s\n", true },
		{ "{\"NodeName\":\"db1\",\"NodeIP\":\"100.64.0.9\",\"LatencySeconds\":0.0001,"
		  "\"Endpoint\":\"192.0.2.1:1\"}",
		  "pong from db1 (100.64.0.9) via 192.0.2.1:1 in 0s\n", true },
		{ "{\"NodeName\":\"a\\nb\",\"LatencySeconds\":-5}",
		  "pong from a\\x0ab () via DERP() in 0s\n", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP(json_decref) json_t *j = json_loads(cases[i].json, 0, NULL);
		struct buf b = { 0 };
		bool direct = !cases[i].direct;

		view_pong(j, &b, &direct);
		assert_string_equal(buf_str(&b), cases[i].text);
		assert_int_equal(direct, cases[i].direct);
		buf_done(&b);
	}
}

static void test_netcheck(void **state)
{
	static const char *const names[] = { "full", "blocked" };

	(void)state;
	setenv("TZ", "Test-2:00", 1); /* two hours east */
	tzset();
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[128];
		struct buf b = { 0 };
		json_t *j;

		snprintf(path, sizeof(path), "tests/data/wgctl/netcheck-%s.json", names[i]);
		j = load(path);
		view_netcheck(j, false, &b);
		json_decref(j);
		snprintf(path, sizeof(path), "tests/data/wgctl/netcheck-%s.txt", names[i]);
		assert_view(path, &b);
	}
	setenv("TZ", "UTC", 1);
	tzset();
}

static void test_whois(void **state)
{
	CLEANUP(json_decref) json_t *j = load("tests/data/api/whois.json");
	struct buf b = { 0 };

	(void)state;
	view_whois(j, &b);
	assert_view("tests/data/wgctl/whois-tagged.txt", &b);
	json_object_del(json_get(j, "Node"), "Tags");
	view_whois(j, &b);
	assert_view("tests/data/wgctl/whois.txt", &b);
}

/* Whatever the document holds, no line of output carries a control character, and nothing
 * crashes. */
static void test_hostile(void **state)
{
	static const char *const texts[] = {
		"{}",
		"{\"Self\":1,\"Peer\":[],\"Health\":{},\"User\":7}",
		"{\"Self\":{\"TailscaleIPs\":[1],\"UserID\":\"x\",\"LastSeen\":\"never\"},\"Peer\":"
		"{\"k\":null,\"l\":7,\"m\":{}}}",
		"{\"MagicDNSSuffix\":\"...\",\"Self\":{\"DNSName\":\"...\",\"HostName\":\"\\u001b]"
		"0;x\\u0007\"},"
		"\"Health\":[\"\\u001b[31m\",3,null]}",
		"{\"Peer\":{\"a\":{\"HostName\":\"\\u202e\\u0085\",\"Active\":true,\"CurAddr\":"
		"\"\\r\\n\",\"RxBytes\":-1,"
		"\"TxBytes\":-9223372036854775807,\"LatencySeconds\":1e308,\"LastHandshake\":"
		"\"9999-12-31T23:59:59Z\"}},"
		"\"PacketFilter\":{\"State\":\"replies-only\",\"Reason\":\"\\u009b1m\"}}",
	};
	struct view_status o = {
		.self = true, .peers = true, .header = true, .detail = true, .now_unix_nsec = NOW
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		CLEANUP(json_decref) json_t *j = json_loads(texts[i], 0, NULL);
		struct buf b = { 0 };

		assert_non_null(j);
		view_status(j, &o, &b);
		view_netcheck(j, true, &b);
		view_whois(j, &b);
		assert_false(b.bad);
		for (size_t k = 0; k < b.len; k++) {
			uint8_t c = buf_data(&b)[k];

			assert_true(c >= 0x20 || c == '\n' || c == '\t');
			assert_true(c != 0x7f);
		}
		assert_null(memmem(buf_data(&b), b.len, "\xe2\x80\xae", 3));
		assert_null(memmem(buf_data(&b), b.len, "\xc2\x9b", 2));
		buf_done(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status),	    cmocka_unit_test(test_of_daemon),
		cmocka_unit_test(test_of_fresh_daemon),
		cmocka_unit_test(test_not_running), cmocka_unit_test(test_find),
		cmocka_unit_test(test_pong),	    cmocka_unit_test(test_netcheck),
		cmocka_unit_test(test_whois),	    cmocka_unit_test(test_hostile),
	};

	setenv("TZ", "UTC", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
