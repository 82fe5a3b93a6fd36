/* prefs: JSON there and back, refusals with their sentence, merging, what is not supported yet. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/api/prefs.h"
#include "lib/cleanup.h"
#include "lib/json.h"

static int parse(const char *text, struct prefs *p, char why[static PREFS_WHY_MAX])
{
	CLEANUP(json_decref) json_t *j = NULL;

	assert_int_equal(json_read(text, strlen(text), 4096, &j), 0);
	return prefs_from_json(j, p, why);
}

static void test_round_trip(void **state)
{
	static const char *const texts[] = {
		"{}",
		"{\"login-server\":\"https://mesh.example.org:8443\",\"hostname\":\"gw-1\"}",
		"{\"accept-dns\":false,\"accept-routes\":true,\"advertise-routes\":[\"10.0.0.0/"
		"8\",\"fd00::/64\"],"
		"\"advertise-exit-node\":true,\"advertise-tags\":[\"tag:a\",\"tag:b-2\"],\"exit-"
		"node\":\"100.64.0.9\","
		"\"exit-node-allow-lan-access\":false,\"shields-up\":true,\"ssh\":false,\"snat-"
		"subnet-routes\":false,"
		"\"stateful-filtering\":true,\"netfilter-mode\":\"nodivert\",\"operator\":\"ana\","
		"\"nickname\":\"x\","
		"\"report-posture\":true}",
	};
	struct prefs p;
	char why[PREFS_WHY_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		CLEANUP(json_decref) json_t *back = NULL;
		char *out;

		assert_int_equal(parse(texts[i], &p, why), 0);
		back = prefs_to_json(&p);
		out = json_dumps(back, JSON_COMPACT);
		assert_string_equal(out, texts[i]);
		free(out);
	}
	assert_true(parse("{\"login-server\":\"http://h///\"}", &p, why) == 0);
	assert_string_equal(p.login_server, "http://h");
}

static void test_refused(void **state)
{
	static const struct {
		const char *json, *why; /* part of the sentence */
	} cases[] = {
		{ "[]", "object" },
		{ "{\"no-such\":1}", "unknown preference" },
		{ "{\"ssh\":1}", "ssh must be true or false" },
		{ "{\"hostname\":7}", "hostname must be a text" },
		{ "{\"hostname\":\"a b\"}", "not allowed" },
		{ "{\"hostname\":\"-a\"}", "not allowed" },
		{ "{\"hostname\":\"a\\u0000b\"}", "not allowed" },
		{ "{\"hostname\":"
		  "\"0123456789012345678901234567890123456789012345678901234567890123\"}",
		  "longer than 63" },
		{ "{\"login-server\":\"mesh.example.org\"}", "http:// or https://" },
		{ "{\"login-server\":\"ftp://mesh\"}", "http:// or https://" },
		{ "{\"login-server\":\"http://\"}", "http:// or https://" },
		{ "{\"login-server\":\"http://user:pw@host\"}", "http:// or https://" },
		{ "{\"login-server\":\"http://host?q\"}", "http:// or https://" },
		{ "{\"netfilter-mode\":\"maybe\"}", "on, nodivert or off" },
		{ "{\"advertise-routes\":\"10.0.0.0/8\"}", "list" },
		{ "{\"advertise-routes\":[\"10.0.0.1\"]}", "not a prefix" },
		{ "{\"advertise-routes\":[\"10.0.0.1/8\"]}", "bits set" },
		{ "{\"advertise-tags\":[\"db\"]}", "tag:" },
		{ "{\"advertise-tags\":[\"tag:\"]}", "tag:" },
		{ "{\"advertise-tags\":[\"tag:a b\"]}", "tag:" },
		{ "{\"advertise-tags\":[1]}", "tag:" },
	};
	struct prefs p;
	char why[PREFS_WHY_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(parse(cases[i].json, &p, why), -EBADMSG);
		assert_non_null(strstr(why, cases[i].why));
	}
}

static void test_too_many_routes(void **state)
{
	CLEANUP(json_decref) json_t *o = json_object();
	json_t *routes = json_array();
	struct prefs p;
	char why[PREFS_WHY_MAX];

	(void)state;
	json_object_set_new(o, "advertise-routes", routes);
	for (size_t i = 0; i < PREFS_ROUTES_MAX; i++)
		json_array_append_new(routes, json_string("10.0.0.0/8"));
	assert_int_equal(prefs_from_json(o, &p, why), 0);
	assert_int_equal(p.n_routes, PREFS_ROUTES_MAX);
	json_array_append_new(routes, json_string("10.0.0.0/8"));
	assert_int_equal(prefs_from_json(o, &p, why), -EBADMSG);
}

static void test_merge(void **state)
{
	struct prefs have, change;
	char why[PREFS_WHY_MAX];

	(void)state;
	prefs_default(&have);
	assert_int_equal(have.set, PREFS_ALL);
	assert_true(have.snat);
	assert_string_equal(have.netfilter_mode, "on");
	assert_int_equal(parse("{\"hostname\":\"a\",\"snat-subnet-routes\":true}", &change, why),
			 0);
	assert_int_equal(prefs_merge(&have, &change), PREFS_HOSTNAME);
	assert_int_equal(prefs_merge(&have, &change), 0); /* the second time nothing differs */
	assert_string_equal(have.hostname, "a");
	assert_int_equal(parse("{\"advertise-tags\":[\"tag:a\"],\"hostname\":\"\"}", &change, why),
			 0);
	assert_int_equal(prefs_merge(&have, &change), PREFS_ADVERTISE_TAGS | PREFS_HOSTNAME);
	assert_int_equal(have.n_tags, 1);
	assert_int_equal(have.set, PREFS_ALL);
}

/* Nothing that is asked for is dropped in silence: it is acted on, true already, or refused by
 * name. */
static void test_supported(void **state)
{
	static const struct {
		const char *json;
		int r;
		const char *why;
	} cases[] = {
		{ "{\"login-server\":\"http://h\",\"hostname\":\"x\"}", 0, "" },
		{ "{\"accept-dns\":false,\"ssh\":false,\"snat-subnet-routes\":true,\"netfilter-"
		  "mode\":\"on\","
		  "\"exit-node\":\"\",\"advertise-routes\":[]}",
		  0, "" },
		{ "{\"accept-dns\":true}", -EOPNOTSUPP,
		  "--accept-dns=true is not supported yet, only --accept-dns=false is" },
		{ "{\"snat-subnet-routes\":false}", -EOPNOTSUPP,
		  "--snat-subnet-routes=false is not supported yet" },
		{ "{\"netfilter-mode\":\"off\"}", -EOPNOTSUPP,
		  "--netfilter-mode=off is not supported yet, only on is" },
		{ "{\"exit-node\":\"gw\"}", -EOPNOTSUPP,
		  "--exit-node=gw is not supported yet, only an empty value is" },
		{ "{\"advertise-routes\":[\"10.0.0.0/8\"]}", -EOPNOTSUPP, "--advertise-routes=" },
	};
	struct prefs p;
	char why[PREFS_WHY_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(parse(cases[i].json, &p, why), 0);
		assert_int_equal(prefs_check_supported(&p, why), cases[i].r);
		assert_non_null(strstr(why, cases[i].why));
	}
	prefs_default(&p);
	assert_int_equal(prefs_check_supported(&p, why), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),	cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_many_routes), cmocka_unit_test(test_merge),
		cmocka_unit_test(test_supported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
