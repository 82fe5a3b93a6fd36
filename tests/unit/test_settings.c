/* settings: Headscale's files are read; what cannot be done safely stops the start, all in one go. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "coordinator/settings.h"

#define BASE                                                                                       \
	"server_url: https://hs.example.com:8443/\nlisten_addr: 0.0.0.0:8080\n"                    \
	"dns: {base_domain: mesh.test}\nderp: {paths: [/tmp/derp.yaml]}\n"

static void test_full(void **state)
{
	static const char text[] =
		"server_url: https://[2001:db8::1]:8443\n"
		"listen_addr: \":8080\"\nmetrics_listen_addr: 127.0.0.1:9090\n"
		"grpc_listen_addr: 127.0.0.1:50443\nunix_socket: /run/x.sock\n"
		"unix_socket_permission: \"0750\"\nnoise:\n  private_key_path: /k\n"
		"prefixes:\n  v4: 100.64.1.0/24\n  v6: fd7a:115c:a1e0:1::/64\n  allocation: random\n"
		"derp:\n  server: {enabled: true, region_id: 901, region_code: bj, verify_clients: no, "
		"ipv4: 192.0.2.1, stun_listen_addr: \"0.0.0.0:3479\"}\n"
		"  urls: []\n  paths: [/a, /b]\n  update_frequency: 24h\n"
		"database: {type: sqlite, sqlite: {path: /db, write_ahead_log: false}, gorm: {slow: 1}}\n"
		"dns:\n  magic_dns: true\n  base_domain: Mesh.Test.\n  override_local_dns: true\n"
		"  nameservers:\n    global: [223.5.5.5, \"https://dns.nextdns.io/abc\"]\n"
		"    split: {corp.test: [10.0.0.1]}\n"
		"  search_domains: [a.test]\n  extra_records: [{name: x.mesh.test, type: A, value: 100.64.0.9}]\n"
		"node: {expiry: 180d, ephemeral: {inactivity_timeout: 30m}}\n"
		"log: {level: error, format: text}\nlogtail: {enabled: true}\nrandomize_client_port: true\n"
		"colour: red\n";
	CLEANUP(settings_done) struct settings c = { 0 };
	struct settings_report rep = { 0 };

	(void)state;
	assert_int_equal(settings_parse(text, sizeof(text) - 1, &c, &rep), 0);
	assert_string_equal(c.server_host, "2001:db8::1");
	assert_int_equal(c.server_port, 8443);
	assert_true(c.server_https);
	assert_int_equal(c.listen.port, 8080);
	assert_int_equal(c.unix_socket_mode, 0750);
	assert_int_equal(c.v4.bits, 24);
	assert_true(c.allocate_random);
	assert_int_equal(c.derp.region_id, 901);
	assert_false(c.derp.verify_clients);
	assert_int_equal(c.derp.stun.port, 3479);
	assert_int_equal(c.derp.paths.n, 2);
	assert_int_equal(c.derp.update_sec, 86400);
	assert_false(c.db_wal);
	assert_string_equal(c.dns.base_domain, "mesh.test");
	assert_int_equal(c.dns.global.n, 2);
	assert_int_equal(c.dns.n_split, 1);
	assert_string_equal(c.dns.split[0].servers.v[0], "10.0.0.1");
	assert_string_equal(c.dns.records[0].value, "100.64.0.9");
	assert_int_equal(c.node_expiry_sec, 180 * 86400);
	assert_int_equal(c.ephemeral_sec, 1800);
	assert_int_equal(c.log_level, LOG_LEVEL_ERR);
	assert_true(c.logtail && c.randomize_port);
	assert_non_null(strstr(buf_str(&rep.warnings), "colour: unknown key"));
	assert_non_null(strstr(buf_str(&rep.warnings), "grpc_listen_addr has no effect"));
	settings_report_done(&rep);
}

/* A mesh has the families that are named, or both when none is. */
static void test_families(void **state)
{
	static const struct {
		const char *text;
		uint8_t v4, v6;
	} t[] = {
		{ BASE, 10, 48 },
		{ BASE "prefixes: {allocation: random}\n", 10, 48 },
		{ BASE "prefixes: {v4: 100.64.0.0/16}\n", 16, 0 },
		{ BASE "prefixes: {v4: 100.64.0.0/16, v6: ''}\n", 16, 0 },
		{ BASE "prefixes: {v6: 'fd7a:115c:a1e0::/64'}\n", 0, 64 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct settings_report rep = { 0 };
		struct settings c = { 0 };

		assert_int_equal(settings_parse(t[i].text, strlen(t[i].text), &c, &rep), 0);
		assert_int_equal(c.v4.bits, t[i].v4);
		assert_int_equal(c.v4.addr.family, t[i].v4 ? 4 : 0);
		assert_int_equal(c.v6.bits, t[i].v6);
		assert_int_equal(c.v6.addr.family, t[i].v6 ? 6 : 0);
		settings_done(&c);
		settings_report_done(&rep);
	}
}

/* Name servers that are named are used, unless the file says that they are not. */
static void test_override(void **state)
{
#define DNS(more) "server_url: https://hs.example.com\nderp: {paths: [a]}\ndns: {base_domain: mesh.test" more "}\n"
#define GLOBAL	  ", nameservers: {global: [9.9.9.9]}"
	static const struct {
		const char *text;
		bool override;
	} t[] = {
		{ DNS(""), false },
		{ DNS(GLOBAL), true },
		{ DNS(GLOBAL ", override_local_dns: null"), true },
		{ DNS(GLOBAL ", override_local_dns: true"), true },
		{ DNS(GLOBAL ", override_local_dns: false"), false },
		{ DNS(", nameservers: {global: []}"), false },
		{ DNS(", nameservers: {split: {corp.test: [10.0.0.1]}}"), false },
		{ DNS(", override_local_dns: false"), false },
	};
	static const char none[] = DNS(", override_local_dns: true");
	struct settings_report rep = { 0 };
	struct settings c = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		assert_int_equal(settings_parse(t[i].text, strlen(t[i].text), &c, &rep), 0);
		if (c.dns.override_local != t[i].override)
			fail_msg("%s: %d", t[i].text, c.dns.override_local);
		settings_done(&c);
		settings_report_done(&rep);
		rep = (struct settings_report){ 0 };
	}
	assert_int_equal(settings_parse(none, sizeof(none) - 1, &c, &rep), -EINVAL);
	assert_non_null(strstr(buf_str(&rep.problems), "override_local_dns"));
	settings_report_done(&rep);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{ BASE "policy: {path: /etc/passwd}\n", "policy.path" },
		{ BASE "policy: {mode: file, path: /does/not/exist}\n", "policy.path" },
		{ BASE "policy: {mode: database}\n", "policy.mode" },
		{ BASE "acl_policy_path: /x\n", "acl_policy_path" },
		{ BASE "oidc: {issuer: 'https://x'}\n", "oidc.issuer" },
		{ BASE "database: {type: postgres}\n", "postgres" },
		{ BASE "tls_letsencrypt_hostname: x\n", "tls_letsencrypt" },
		{ BASE "tls_cert_path: /x\n", "tls_key_path" },
		{ BASE "prefixes: {allocation: best}\n", "allocation" },
		{ BASE "prefixes: {v4: 100.64.0.0}\n", "prefixes.v4" },
		{ BASE "prefixes: {v4: 100.64.0.0/32}\n", "no room" },
		{ BASE "prefixes: {v4: '', v6: ''}\n", "at least one of v4 and v6" },
		{ BASE "node: {ephemeral: {inactivity_timeout: 60s}}\n", "inactivity_timeout" },
		{ BASE "unix_socket_permission: rwx\n", "unix_socket_permission" },
		{ "server_url: hs.example.com\nderp: {paths: [a]}\ndns: {base_domain: m.t}\n", "server_url" },
		{ "server_url: http://a.m.t\nderp: {paths: [a]}\ndns: {base_domain: m.t}\n", "base_domain" },
		{ "server_url: http://a.b\nderp: {paths: [a]}\n", "base_domain" },
		{ "server_url: http://a.b\ndns: {base_domain: m.t}\n", "at least one relay" },
		{ BASE "dns: {base_domain: x.y}\n", "line 5" },
		{ "a: [\n", "line" },
		{ "- a\n", "not a list" },
		{ "*x\n", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct settings_report rep = { 0 };
		struct settings c = { 0 };

		assert_int_equal(settings_parse(bad[i].text, strlen(bad[i].text), &c, &rep), -EINVAL);
		assert_null(c.server_url);
		if (!strstr(buf_str(&rep.problems), bad[i].words))
			fail_msg("%s: said only %s", bad[i].text, buf_str(&rep.problems));
		settings_report_done(&rep);
	}
}

/* What has no effect is named; the same key saying what is so anyway is not. */
static void test_idle(void **state)
{
	static const struct {
		const char *text, *words;
	} idle[] = {
		{ BASE "metrics_listen_addr: 127.0.0.1:9090\n", "metrics_listen_addr has no effect: there are no metrics" },
		{ BASE "metrics_listen_addr: \"\"\n", NULL },
		{ BASE "log: {format: json}\n", "log.format: 'json' has no effect: log lines are text" },
		{ BASE "log: {format: text}\n", NULL },
		{ BASE "log: {format: \"\"}\n", NULL },
		{ BASE "database: {debug: true}\n", "database.debug has no effect" },
		{ BASE "database: {debug: false}\n", NULL },
		{ BASE "node: {routes: {strategy: x}}\n", "node.routes.strategy has no effect" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++) {
		CLEANUP(settings_done) struct settings c = { 0 };
		struct settings_report rep = { 0 };
		const char *said;

		assert_int_equal(settings_parse(idle[i].text, strlen(idle[i].text), &c, &rep), 0);
		said = buf_str(&rep.warnings) ? buf_str(&rep.warnings) : "";
		if (idle[i].words ? !strstr(said, idle[i].words) : *said)
			fail_msg("%s: said \"%s\"", idle[i].text, said);
		settings_report_done(&rep);
	}
}

/* Every problem is named at once, not one a start. */
static void test_all_at_once(void **state)
{
	static const char text[] = "server_url: x\nderp: {paths: [a]}\nprefixes: {v4: z}\nnode: {expiry: soon}\n";
	struct settings_report rep = { 0 };
	struct settings c = { 0 };
	const char *p;
	int lines = 0;

	(void)state;
	assert_int_equal(settings_parse(text, sizeof(text) - 1, &c, &rep), -EINVAL);
	for (p = buf_str(&rep.problems); (p = strchr(p, '\n')); p++)
		lines++;
	assert_int_equal(lines, 4); /* and base_domain */
	settings_report_done(&rep);
}

static void test_empty_policy(void **state)
{
	char path[] = "/tmp/test_settings_XXXXXX", text[256];
	int fd = mkstemp(path);
	struct settings_report rep = { 0 };
	CLEANUP(settings_done) struct settings c = { 0 };

	(void)state;
	assert_true(fd >= 0);
	snprintf(text, sizeof(text), BASE "policy: {mode: file, path: %s}\n", path);
	assert_int_equal(settings_parse(text, strlen(text), &c, &rep), 0);
	settings_done(&c);
	assert_int_equal(write(fd, "\n{}\n", 4), 4);
	assert_int_equal(settings_parse(text, strlen(text), &c, &rep), -EINVAL);
	settings_report_done(&rep);
	unlink(path);
	close(fd);
}

static void test_duration(void **state)
{
	static const struct {
		const char *text;
		int64_t sec; /* -1: refused */
	} cases[] = { { "0", 0 },     { "30m", 1800 }, { "1h30m", 5400 }, { "180d", 15552000 },
		      { "1500ms", 2 }, { "10", -1 },   { "h", -1 },	  { "", -1 },
		      { "-1h", -1 },  { "1hh", -1 },   { "99999999999d", -1 } };
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int r = settings_duration_parse(cases[i].text, &v);

		assert_int_equal(r, cases[i].sec < 0 ? -EBADMSG : 0);
		if (r == 0)
			assert_int_equal(v, cases[i].sec);
	}
}

/* The example that is installed can be used as it is, and has nothing to warn of. */
static void test_example(void **state)
{
	CLEANUP(settings_done) struct settings c = { 0 };
	struct settings_report r = { 0 };

	(void)state;
	assert_int_equal(settings_load("docs/kernscale-coordinator.yaml", &c, &r), 0);
	assert_null(buf_str(&r.problems) && *buf_str(&r.problems) ? "problems" : NULL);
	assert_null(buf_str(&r.warnings) && *buf_str(&r.warnings) ? "warnings" : NULL);
	assert_string_equal(c.db_path, SETTINGS_STATE_DEFAULT "/db.sqlite");
	assert_true(c.derp.enabled);
	settings_report_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_families),
		cmocka_unit_test(test_override),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_all_at_once),
		cmocka_unit_test(test_empty_policy),
		cmocka_unit_test(test_duration),
		cmocka_unit_test(test_example),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
