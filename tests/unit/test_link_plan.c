/* link_plan: the rules in order, and sorted differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/kernel/link_plan.h"

static void test_rules(void **state)
{
	struct link_rules_config c = { LINK_RULE_BASE, LINK_TABLE, LINK_MARK, LINK_MARK_MASK, true, true, true };
	struct link_rule r[LINK_RULES_MAX];

	(void)state;
	assert_int_equal(link_rules_wanted(&c, r), 10);
	for (size_t i = 1; i < 5; i++)
		assert_true(r[i - 1].priority < r[i].priority);
	/* The marked ones end before anything of the tunnel is asked. */
	assert_int_equal(r[2].action, LINK_RULE_UNREACHABLE);
	assert_int_equal(r[2].mask, 0xff0000);
	assert_true(r[3].suppress_default);
	assert_int_equal(r[3].table, 254);
	assert_int_equal(r[4].table, 52);
	assert_int_equal(r[4].mask, 0);
	c.lan_first = false;
	c.v6 = false;
	assert_int_equal(link_rules_wanted(&c, r), 4);
	assert_int_equal(r[3].priority, 5270);
}

static int compare_int(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void test_diff(void **state)
{
	static const int wanted[] = { 1, 3, 4, 9 }, actual[] = { 0, 3, 3, 4, 10 };
	struct link_diff d;

	(void)state;
	assert_int_equal(link_diff(wanted, 4, actual, 5, sizeof(int), compare_int, &d), 0);
	assert_int_equal(d.n_add, 2);
	assert_true(d.add[0] && !d.add[1] && !d.add[2] && d.add[3]);
	assert_int_equal(d.n_del, 3); /* 0, the second 3, 10 */
	assert_true(d.del[0] && !d.del[1] && d.del[2] && !d.del[3] && d.del[4]);
	link_diff_done(&d);
	assert_int_equal(link_diff(wanted, 4, wanted, 4, sizeof(int), compare_int, &d), 0);
	assert_int_equal(d.n_add + d.n_del, 0);
	link_diff_done(&d);
	assert_int_equal(link_diff(NULL, 0, NULL, 0, sizeof(int), compare_int, &d), 0);
	link_diff_done(&d);
}

static void test_order(void **state)
{
	struct link_route a = { { addr_v4(10, 0, 0, 0), 8 }, false }, b = a;

	(void)state;
	assert_int_equal(link_route_cmp(&a, &b), 0);
	b.throw = true;
	assert_true(link_route_cmp(&a, &b) < 0 && link_route_cmp(&b, &a) > 0);
	b = a;
	b.dst.bits = 9;
	assert_true(link_route_cmp(&a, &b) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_diff),
		cmocka_unit_test(test_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
