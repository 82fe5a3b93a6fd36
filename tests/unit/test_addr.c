/* addr: text and socket forms there and back, refusals, classification. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "lib/addr.h"

static void test_endpoint_text(void **state)
{
	static const char *const good[] = { "192.0.2.1:41641", "[2001:db8::1]:1", "0.0.0.0:0" };
	static const char *const bad[] = { "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "2001:db8::1:1",
					   "[192.0.2.1]:1", "[::1]", "[::1:1", "1.2.3.4:01", "", ":1",
					   "1.2.3.4:1 ", "[fe80::1%eth0]:1" };
	char out[ENDPOINT_TEXT_MAX];
	struct endpoint e;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(endpoint_parse(good[i], strlen(good[i]), &e), 0);
		assert_string_equal(endpoint_text(&e, out), good[i]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(endpoint_parse(bad[i], strlen(bad[i]), &e), -EBADMSG);
}

static void test_mapped(void **state)
{
	uint8_t m[16] = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 1 }, back[16];
	struct addr a = addr_from16(m);

	(void)state;
	assert_int_equal(a.family, 4);
	addr_to16(&a, back);
	assert_memory_equal(m, back, 16);
}

static void test_prefix(void **state)
{
	struct prefix p;
	struct addr a;
	char out[PREFIX_TEXT_MAX];

	(void)state;
	assert_int_equal(prefix_parse("100.64.0.0/10", 13, &p), 0);
	assert_int_equal(addr_parse("100.127.255.255", 15, &a), 0);
	assert_true(prefix_contains(&p, &a));
	assert_int_equal(addr_parse("100.128.0.0", 11, &a), 0);
	assert_false(prefix_contains(&p, &a));
	assert_int_equal(prefix_parse("10.1.2.3/8", 10, &p), 0);
	p = prefix_masked(&p);
	assert_string_equal(prefix_text(&p, out), "10.0.0.0/8");
	assert_int_equal(prefix_parse("10.0.0.0", 8, &p), -EBADMSG);
	assert_int_equal(prefix_parse("10.0.0.0/33", 11, &p), -EBADMSG);
	assert_int_equal(prefix_parse("::/0", 4, &p), 0);
	assert_true(prefix_is_default(&p));
	assert_int_equal(addr_parse("100.115.92.1", 12, &a), 0);
	assert_false(addr_is_tailnet(&a));
	assert_int_equal(addr_parse("fd7a:115c:a1e0::7", 17, &a), 0);
	assert_true(addr_is_tailnet(&a));
}

static void test_next(void **state)
{
	struct addr a = addr_v4(100, 64, 255, 255), n = addr_next(&a);
	struct addr want = addr_v4(100, 65, 0, 0);

	(void)state;
	assert_true(addr_equal(&n, &want));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_endpoint_text),
		cmocka_unit_test(test_mapped),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_next),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
