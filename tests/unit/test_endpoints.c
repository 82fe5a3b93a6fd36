/* endpoints: which of this machine's addresses are told to others, and for how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/endpoints.h"
#include "lib/cleanup.h"
#include "tests/unit/addr_text.h"

#define MSEC UINT64_C(1000)
#define SEC  UINT64_C(1000000)
#define T0   (5000 * SEC)

static void test_local(void **state)
{
	struct addr out[16];
	struct addr v[] = { ip("127.0.0.1"),   ip("::1"),
			    ip("192.168.1.9"), ip("10.1.2.3"),
			    ip("100.64.0.3"),  ip("fe80::1"),
			    ip("169.254.9.9"), ip("fd00::5"),
			    ip("2001:db8::3"), ip("2001:db8::1"),
			    ip("2001:db8::2"), ip("2001:db8:0:1::1"),
			    ip("192.168.1.9"), ip("fd7a:115c:a1e0::3") };
	struct addr spare[] = { ip("127.0.0.1"), ip("fd00::5"), ip("169.254.9.9"), ip("fe80::1") };
	struct addr none[] = { ip("::1"), ip("127.0.0.1"), ip("100.64.0.3") };

	(void)state;
	assert_int_equal(own_endpoints_local(v, ARRAY_SIZE(v), out, ARRAY_SIZE(out)), 5);
	assert_true(addr_equal(&out[0], &v[3]));
	assert_true(addr_equal(&out[1], &v[2]));
	assert_int_equal(own_endpoints_local(spare, ARRAY_SIZE(spare), out, ARRAY_SIZE(out)), 2);
	assert_true(addr_equal(&out[0], &spare[2]));
	assert_int_equal(own_endpoints_local(none, ARRAY_SIZE(none), out, ARRAY_SIZE(out)), 2);
	assert_int_equal(own_endpoints_local(NULL, 0, out, ARRAY_SIZE(out)), 0);
}

static void test_own_endpoints(void **state)
{
	struct endpoint a = ep("203.0.113.9:1000"), b = ep("203.0.113.9:1001"),
			once = ep("203.0.113.9:1002"), six = ep("[2001:db8::9]:5");
	struct addr local[] = { ip("10.1.2.3"), ip("203.0.113.9") };
	struct own_endpoints_cache cache = { .n = 0 };
	struct own_endpoints_input in = {
		.local = local, .n_local = 2, .port = 41641, .fixed_port = true
	};
	struct own_endpoints o, p;
	struct report r;

	(void)state;
	own_endpoints_determine(&cache, &in, T0, &o);
	assert_int_equal(o.n, 2);
	assert_int_equal(o.v[0].type, OWN_ENDPOINT_LOCAL);

	report_init(&r, T0);
	report_stun(&r, 1, 4, &a, MSEC);
	report_stun(&r, 2, 4, &b, MSEC);
	report_stun(&r, 3, 4, &b, MSEC);
	report_stun(&r, 4, 4, &once, MSEC);
	report_stun(&r, 1, 6, &six, MSEC);
	in.report = &r;
	own_endpoints_determine(&cache, &in, T0, &o);
	assert_int_equal(o.n, 5);
	assert_true(endpoint_equal(&o.v[0].at, &a));
	assert_true(endpoint_equal(&o.v[1].at, &six));
	assert_true(endpoint_equal(&o.v[2].at, &b)); /* seen twice; the one seen once is left out */
	assert_int_equal(o.v[2].type, OWN_ENDPOINT_STUN);
	/* the mapping varies and the port is fixed: perhaps somebody forwards it */
	assert_int_equal(o.v[3].type, OWN_ENDPOINT_STUN4_LOCAL_PORT);
	assert_int_equal(o.v[3].at.port, 41641);
	assert_true(
	    addr_equal(&o.v[4].at.addr, &local[0])); /* 203.0.113.9:41641 stands there already */

	/* a round without answers: what was found stays for five minutes, in whatever order */
	in.report = NULL;
	own_endpoints_determine(&cache, &in, T0 + 300 * SEC, &p);
	assert_true(own_endpoints_equal(&o, &p));
	own_endpoints_determine(&cache, &in, T0 + 310 * SEC, &p);
	assert_false(own_endpoints_equal(&o, &p));
	assert_int_equal(p.n, 2);
	report_done(&r);

	/* a NAT that gives a new port each time: the newest six of an address */
	in.fixed_port = false;
	in.n_local = 0;
	for (unsigned int i = 0; i < 50; i++) {
		report_init(&r, T0);
		a.port = (uint16_t)(2000 + i);
		report_stun(&r, 1, 4, &a, MSEC);
		in.report = &r;
		own_endpoints_determine(&cache, &in, T0 + 400 * SEC + i * SEC, &p);
		report_done(&r);
	}
	assert_int_equal(p.n, OWN_ENDPOINTS_PER_IP);
	assert_true(endpoint_equal(&p.v[0].at, &a));
	in.report = NULL;
	in.portmapped = ep("198.51.100.4:4");
	in.explicit = &six;
	in.n_explicit = 1;
	own_endpoints_determine(&cache, &in, T0 + 2000 * SEC, &p);
	assert_int_equal(p.n, 2);
	assert_int_equal(p.v[0].type, OWN_ENDPOINT_PORTMAPPED);
	assert_int_equal(p.v[1].type, OWN_ENDPOINT_EXPLICIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_local),
		cmocka_unit_test(test_own_endpoints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
