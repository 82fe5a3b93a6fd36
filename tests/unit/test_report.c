/* report: what an answer says of the network, and the choice of a home relay by the last minutes. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/report.h"
#include "lib/cleanup.h"
#include "lib/json.h"
#include "tests/unit/addr_text.h"

#define MSEC UINT64_C(1000)
#define SEC  UINT64_C(1000000)
#define T0   (5000 * SEC)

static void test_effects(void **state)
{
	struct endpoint a = ep("203.0.113.9:1"), b = ep("203.0.113.9:2"),
			six = ep("[2001:db8::9]:1"), six2 = ep("[2001:db8::9]:2");
	struct report r;
	json_t *j;

	(void)state;
	report_init(&r, T0);
	assert_int_equal(r.mapping_varies, -1);
	report_stun(&r, 1, 4, &a, 30 * MSEC);
	assert_true(r.udp && r.ipv4 && !r.ipv6);
	assert_int_equal(r.mapping_varies, -1); /* one answer proves nothing */
	report_stun(&r, 1, 4, &a, 20 * MSEC);
	assert_int_equal(r.mapping_varies, 0);
	assert_int_equal(report_region(&r, 1)->latency_usec, 20 * MSEC);
	report_stun(&r, 2, 4, &b, 40 * MSEC);
	assert_int_equal(r.mapping_varies, 1);
	report_stun(&r, 2, 4, &a, 50 * MSEC);
	assert_int_equal(r.mapping_varies, 1);	       /* for good */
	assert_true(endpoint_equal(&r.global_v4, &a)); /* the first */
	report_stun(&r, 2, 6, &six, 10 * MSEC);
	report_stun(&r, 1, 6, &six2, 10 * MSEC);
	assert_true(endpoint_equal(&r.global_v6, &six2)); /* the latest */
	assert_int_equal(report_region(&r, 2)->latency_usec, 10 * MSEC);
	assert_int_equal(report_region(&r, 2)->v4_usec, 40 * MSEC);
	assert_null(report_region(&r, 3));
	assert_int_equal(r.n_counters, 4);
	j = report_netinfo(&r, 2, true);
	assert_int_equal(json_get_int(j, "PreferredDERP", 0), 2);
	assert_true(json_get_bool(j, "WorkingUDP", false));
	assert_true(json_get_bool(j, "MappingVariesByDestIP", false));
	assert_null(json_object_get(j, "UPnP"));
	assert_true(json_get_real(json_get(j, "DERPLatency"), "2-v4", 0) > 0.0399);
	json_decref(j);
	report_done(&r);

	report_init(&r, T0);
	report_https(&r, 5, 4, 7 * MSEC);
	assert_false(r.udp);
	assert_true(r.ipv4);
	/* many mappings do not grow without end */
	for (unsigned int i = 1; i < 1000; i++) {
		a.port = (uint16_t)i;
		report_stun(&r, 5, 4, &a, MSEC);
	}
	assert_int_equal(r.n_counters, REPORT_COUNTERS_MAX);
	report_done(&r);
}

/* netcheck.md 7; times in msec, a pair for each region 1, 2; 0 = no answer. */
static void test_home(void **state)
{
	static const struct {
		unsigned int round[3][2];
		int64_t previous, want;
		unsigned int heard_before_msec; /* 0 = never */
	} t[] = {
		{ { { 4000, 5000 }, { 4000, 3000 } }, 1, 1, 0 }, /* not a third faster */
		{ { { 4000, 5000 }, { 4000, 3000 }, { 4000, 1000 } }, 1, 2, 0 },
		{ { { 34, 23 } }, 1, 1, 0 },
		{ { { 34, 22 } }, 1, 2, 0 },
		{ { { 4, 1 } }, 1, 1, 0 },     /* less than 10 ms apart */
		{ { { 0, 50 } }, 1, 2, 0 },    /* home is silent */
		{ { { 0, 50 } }, 1, 1, 5000 }, /* but it talks */
		{ { { 0, 50 } }, 1, 2, 9000 },
		{ { { 0, 0 } }, 1, 1, 100000 }, /* no data: kept for two minutes */
		{ { { 0, 0 } }, 1, 0, 121000 },
		{ { { 0, 0 } }, 1, 0, 0 },
		{ { { 50, 50 } }, 0, 1, 0 },
		{ { { 100, 10 }, { 100, 60 } }, 1, 2, 0 }, /* the best of the last minutes counts */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct report_history h = { .n = 0 };
		struct endpoint seen = ep("203.0.113.9:1");
		int64_t home = t[i].previous;

		for (size_t k = 0; k < 3; k++) {
			struct report r;

			if (k && !t[i].round[k][0] && !t[i].round[k][1])
				break;
			report_init(&r, T0 + k * 20 * SEC);
			for (int64_t id = 1; id <= 2; id++)
				if (t[i].round[k][id - 1])
					report_stun(&r, id, 4, &seen, t[i].round[k][id - 1] * MSEC);
			r.ended = r.started + 100 * MSEC;
			home = report_choose_home(
			    &h, &r, NULL, home,
			    t[i].heard_before_msec ? r.ended - t[i].heard_before_msec * MSEC : 0);
			report_history_add(&h, &r);
			report_done(&r);
		}
		if (home != t[i].want)
			print_error("case %zu\n", i);
		assert_int_equal(home, t[i].want);
		report_history_done(&h);
	}
}

static void test_history_bounded(void **state)
{
	struct report_history h = { .n = 0 };
	struct endpoint seen = ep("203.0.113.9:1");
	struct report r;

	(void)state;
	for (unsigned int i = 0; i < 1000; i++) {
		report_init(&r, T0 + i * SEC);
		r.ended = r.started;
		report_stun(&r, 1, 4, &seen, i ? 100 * MSEC : MSEC);
		report_history_add(&h, &r);
		assert_true(h.n <= REPORT_HISTORY_MAX);
		report_done(&r);
	}
	report_init(&r, T0 + 3000 * SEC);
	r.ended = r.started;
	report_stun(&r, 1, 4, &seen, 100 * MSEC);
	report_history_add(&h, &r);
	assert_int_equal(h.n, 1); /* what is older than five minutes is forgotten */
	report_done(&r);
	report_history_done(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_effects),
		cmocka_unit_test(test_home),
		cmocka_unit_test(test_history_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
