/* candidates: which addresses may be tried at all, where they come from, how long and how many are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/candidates.h"
#include "lib/cleanup.h"
#include "tests/unit/addr_text.h"

#define SEC UINT64_C(1000000)
#define T0 (1000 * SEC)

static void test_candidates_usable(void **state)
{
	static const char *const bad[] = {
	    "127.0.0.1:1",  "0.0.0.0:1",	"224.0.0.1:1",
	    "1.2.3.4:0",    "[::1]:1",		"[fe80::1]:1",
	    "100.64.0.1:1", "127.64.0.3:41643", "[fd7a:115c:a1e0::1]:1"};
	static const char *const good[] = {"192.168.1.2:41641", "[2001:db8::1]:1", "169.254.3.4:1",
					   "[fd00::1]:1", "100.115.92.1:1"};
	struct endpoint e = {0};

	(void)state;
	assert_false(candidate_usable(&e));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e = ep(bad[i]);
		assert_false(candidate_usable(&e));
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		e = ep(good[i]);
		assert_true(candidate_usable(&e));
	}
}

static void test_candidates_sources(void **state)
{
	struct endpoint a = ep("1.1.1.1:1"), b = ep("2.2.2.2:2"), c = ep("3.3.3.3:3");
	struct endpoint ab[] = {a, b}, cb[] = {c, b};
	struct candidates s = {0};

	(void)state;
	candidates_update(&s, CANDIDATE_SOURCE_MAP, ab, 2, NULL, T0);
	assert_int_equal(s.n, 2);
	/* known from the map: a ping does not make it expire */
	candidates_add(&s, &a, CANDIDATE_SOURCE_PING, NULL, T0);
	/* learned from a ping: the map does not keep it */
	candidates_add(&s, &c, CANDIDATE_SOURCE_PING, NULL, T0);
	candidates_expire(&s, NULL, T0 + CANDIDATE_HEARD_USEC);
	assert_int_equal(s.n, 3);
	candidates_update(&s, CANDIDATE_SOURCE_MAP, cb, 2, NULL, T0); /* a is gone at once */
	assert_null(candidates_find(&s, &a));
	assert_non_null(candidates_find(&s, &c));
	candidates_expire(&s, NULL, T0 + CANDIDATE_HEARD_USEC + 1);
	assert_null(candidates_find(&s, &c));
	assert_int_equal(s.n, 1);

	/* while a CallMeMaybe lists an address it stays; one without it takes it, whatever the map
	 * says */
	candidates_update(&s, CANDIDATE_SOURCE_CALL, ab, 2, NULL, T0);
	candidates_update(&s, CANDIDATE_SOURCE_MAP, NULL, 0, NULL, T0);
	assert_int_equal(s.n, 2);
	candidates_update(&s, CANDIDATE_SOURCE_MAP, ab, 2, NULL, T0);
	candidates_update(&s, CANDIDATE_SOURCE_CALL, cb, 2, NULL, T0);
	assert_null(candidates_find(&s, &a));
	assert_int_equal(s.n, 2);

	/* the address in use is never taken away by a list, but lives on as a learned one */
	candidates_update(&s, CANDIDATE_SOURCE_CALL, NULL, 0, &b, T0);
	assert_int_equal(s.n, 1);
	candidates_expire(&s, &b, T0 + 100 * SEC);
	assert_int_equal(s.n, 1);
	candidates_expire(&s, NULL, T0 + 100 * SEC);
	assert_int_equal(s.n, 0);
	candidates_done(&s);
}

static void test_candidates_bounded(void **state)
{
	struct endpoint list[CANDIDATES_MAX + 8], first;
	struct candidates s = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		list[i] = (struct endpoint){addr_v4(9, 9, 9, (uint8_t)(i + 1)), 77};
	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		assert_non_null(
		    candidates_add(&s, &list[i], CANDIDATE_SOURCE_PING, &list[0], T0 + i));
	assert_int_equal(s.n, CANDIDATES_MAX);
	first = list[0];
	assert_non_null(candidates_find(&s, &first)); /* in use */
	assert_null(candidates_find(&s, &list[1]));   /* the oldest went */
	candidates_done(&s);
	/* what the map lists is not pushed out by whoever pings */
	candidates_update(&s, CANDIDATE_SOURCE_MAP, list, CANDIDATES_MAX, NULL, T0);
	assert_null(candidates_add(&s, &list[CANDIDATES_MAX], CANDIDATE_SOURCE_PING, NULL, T0));
	assert_int_equal(s.n, CANDIDATES_MAX);
	candidates_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_candidates_usable),
		cmocka_unit_test(test_candidates_sources),
		cmocka_unit_test(test_candidates_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
