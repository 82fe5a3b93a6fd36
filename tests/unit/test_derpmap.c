/* derpmap: JSON there and back, merging, limits, what the fields of a node mean. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "lib/json.h"
#include "proto/derpmap.h"

static const char whole[] =
    "{\"HomeParams\":{\"RegionScore\":{\"900\":0.8}},\"Regions\":{"
    "\"10\":{\"RegionID\":10,\"RegionCode\":\"a\",\"RegionName\":\"A\",\"Nodes\":[]},"
    "\"900\":{\"RegionID\":900,\"RegionCode\":\"ber\",\"RegionName\":\"Berlin\",\"Latitude\":52.52,"
    "\"Longitude\":13.4,\"Nodes\":[{\"Name\":\"900a\",\"RegionID\":900,\"HostName\":\"derp1."
    "example.net\","
    "\"IPv4\":\"203.0.113.7\",\"IPv6\":\"none\",\"STUNPort\":-1,\"DERPPort\":8443,\"CanPort80\":"
    "true}]}},"
    "\"omitDefaultRegions\":true}";

static int decode(const char *s, struct derp_map *ret)
{
	CLEANUP(json_decref) json_t *j = json_loads(s, 0, NULL);

	assert_non_null(j);
	return derp_map_decode(j, ret);
}

static void test_whole(void **state)
{
	CLEANUP(json_decref) json_t *want = json_loads(whole, 0, NULL);
	CLEANUP(json_decref) json_t *got = NULL;
	const struct derp_region *r;
	struct derp_region copy;
	struct derp_map m;
	struct addr a;

	(void)state;
	assert_int_equal(decode(whole, &m), 0);
	assert_int_equal(m.n_regions, 2);
	assert_int_equal(m.regions[0].id, 10);
	r = derp_map_find(&m, 900);
	assert_non_null(r);
	assert_null(derp_map_find(&m, 11));
	assert_true(derp_map_score(&m, 900) > 0.79 && derp_map_score(&m, 900) < 0.81);
	assert_true(derp_map_score(&m, 10) > 0.99);
	assert_int_equal(derp_node_port(&r->nodes[0]), 8443);
	assert_int_equal(derp_node_stun_port(&r->nodes[0]), 0);
	assert_int_equal(derp_node_addr(r->nodes[0].ipv4, 4, &a), 1);
	assert_int_equal(derp_node_addr(r->nodes[0].ipv6, 6, &a), -EAFNOSUPPORT);
	assert_int_equal(derp_node_addr("", 6, &a), 0);
	got = derp_map_encode(&m);
	assert_true(json_equal(got, want));
	assert_int_equal(derp_region_copy(r, &copy), 0);
	assert_true(derp_region_equal(r, &copy));
	copy.nodes[0].derp_port = 1;
	assert_false(derp_region_equal(r, &copy));
	derp_region_done(&copy);
	derp_map_done(&m);
}

static void test_merge(void **state)
{
	struct derp_region region = { 0 };
	struct derp_map m, u;

	(void)state;
	assert_int_equal(decode(whole, &m), 0);
	assert_int_equal(decode("{\"HomeParams\":{\"RegionScore\":null}}", &u), 0);
	derp_map_merge(&m, &u);
	assert_int_equal(m.n_regions, 2);
	assert_int_equal(m.n_scores, 1);
	assert_true(m.omit_default_regions);
	assert_int_equal(
	    decode("{\"HomeParams\":{\"RegionScore\":{}},\"Regions\":{\"10\":null}}", &u), 0);
	derp_map_merge(&m, &u);
	assert_int_equal(m.n_regions, 0);
	assert_int_equal(m.n_scores, 0);
	assert_false(m.omit_default_regions);
	region.id = 7;
	region.code = strdup("x");
	region.name = strdup("y");
	assert_int_equal(derp_map_put(&m, &region), 0);
	assert_non_null(derp_map_find(&m, 7));
	assert_null(region.code);
	derp_map_done(&m);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"[]",
		"{\"Regions\":[]}",
		"{\"Regions\":{\"1\":{\"RegionID\":2,\"Nodes\":[]}}}",
		"{\"Regions\":{\"0\":{\"RegionID\":0,\"Nodes\":[]}}}",
		"{\"Regions\":{\"65536\":{\"RegionID\":65536,\"Nodes\":[]}}}",
		"{\"Regions\":{\"1\":{\"RegionID\":1,\"Nodes\":{}}}}",
		"{\"Regions\":{\"1\":{\"RegionID\":1,\"Nodes\":[1]}}}",
		"{\"Regions\":{\"1\":{\"RegionID\":1,\"Nodes\":[{\"Name\":5}]}}}",
		"{\"Regions\":{\"1\":{\"RegionID\":1,\"Nodes\":[{\"DERPPort\":70000}]}}}",
		"{\"Regions\":{\"1\":{\"RegionID\":1,\"Nodes\":[{\"STUNPort\":-2}]}}}",
	};
	struct derp_map m;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(decode(bad[i], &m), -EBADMSG);
}

/* Codes and names are shown: nothing in them acts on a terminal. */
static void test_texts(void **state)
{
	struct derp_map m;

	(void)state;
	assert_int_equal(decode("{\"Regions\":{\"1\":{\"RegionID\":1,\"RegionCode\":\"a\\u001b[31m\\u009b\\n\",\"RegionName\":"
				"\"\\u007f\",\"Nodes\":[]}}}", &m), 0);
	assert_string_equal(m.regions[0].code, "a?[31m???");
	assert_string_equal(m.regions[0].name, "?");
	derp_map_done(&m);
}

static void test_pin(void **state)
{
	char pin[] = "sha256-raw:07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";
	char name[] = "derp.example.net";
	struct derp_node n = { .cert_name = pin };
	uint8_t h[32];

	(void)state;
	assert_int_equal(derp_node_pin(&n, h), 1);
	assert_int_equal(h[0], 0x07);
	pin[13] = 'g';
	assert_int_equal(derp_node_pin(&n, h), -EBADMSG);
	n.cert_name = name;
	assert_int_equal(derp_node_pin(&n, h), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_pin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
