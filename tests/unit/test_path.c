/* path: every state with every event, which address is better, and what one path
 * does by what it is told and when. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/path.h"
#include "lib/cleanup.h"
#include "tests/unit/addr_text.h"
#include "tests/unit/path_rig.h"

/* ---- the table ---- */

#define R PATH_STATE_RELAY
#define D PATH_STATE_DIRECT
#define Q PATH_STATE_DOUBTFUL
#define H PATH_STATE_HELD

static void test_machine(void **state)
{
	/*                                          relay direct doubtful held */
	static const enum path_state want[PATH_EVENTS][PATH_STATES] = {
	    [PATH_EVENT_PONG] = {D, D, D, D},	    [PATH_EVENT_ADOPTED] = {D, D, Q, H},
	    [PATH_EVENT_TRUST_LOST] = {R, Q, Q, Q}, [PATH_EVENT_KERNEL_ALONE] = {H, H, H, H},
	    [PATH_EVENT_BEST_LOST] = {R, R, R, R},  [PATH_EVENT_LINK_CHANGED] = {R, Q, Q, H},
	    [PATH_EVENT_IDLE] = {R, R, R, H},	    [PATH_EVENT_RESET] = {R, R, R, R},
	};

	(void)state;
	for (size_t e = 0; e < PATH_EVENTS; e++) {
		assert_non_null(path_event_name((enum path_event)e));
		for (size_t s = 0; s < PATH_STATES; s++)
			assert_int_equal(path_next((enum path_state)s, (enum path_event)e),
					 want[e][s]);
	}
	assert_string_equal(path_state_name(PATH_STATE_DOUBTFUL), "doubtful");
}

/* disco.md 8 */
static void test_better(void **state)
{
	static const struct {
		const char *a;
		unsigned int a_msec;
		const char *b;
		unsigned int b_msec;
		bool better;
	} t[] = {
	    {"1.2.3.4:5", 10, "1.2.3.4:5", 20, false}, /* the same one */
	    {"1.2.3.4:5", 10, NULL, 0, true},
	    {NULL, 0, "1.2.3.4:5", 10, false},
	    {"10.0.0.1:5", 100, "1.2.3.4:5", 91, true}, /* private has 20 points, the other 9 */
	    {"10.0.0.1:5", 100, "1.2.3.4:5", 30, false},
	    {"[2001:db8::1]:5", 100, "1.2.3.4:5", 91, true}, /* IPv6 has 10 */
	    {"[2001:db8::1]:5", 100, "1.2.3.4:5", 89, false},
	    {"1.2.3.4:5", 99, "1.2.3.5:5", 100, false}, /* one point is not enough */
	    {"1.2.3.4:5", 98, "1.2.3.5:5", 100, true},
	    {"1.2.3.4:5", 100, "1.2.3.5:5", 100, false},
	    {"1.2.3.4:5", 0, "1.2.3.5:5", 100, true},
	    {"169.254.0.1:5", 100, "10.0.0.1:5", 95, true},
	    {"[fd00::1]:5", 100, "10.0.0.1:5", 95, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct endpoint a = t[i].a ? ep(t[i].a) : (struct endpoint){0};
		struct endpoint b = t[i].b ? ep(t[i].b) : (struct endpoint){0};

		assert_int_equal(path_better(&a, t[i].a_msec * MSEC, &b, t[i].b_msec * MSEC),
				 t[i].better);
	}
}

static void test_discovery(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", "192.168.1.2:41641", NULL};
	struct endpoint a = ep(eps[0]), b = ep(eps[1]);
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	assert_int_equal(r.n_sent, 0); /* nothing without traffic */
	path_relay_traffic(r.p, r.now);
	assert_int_equal(r.n_sent, 2); /* at once, both, and one CallMeMaybe */
	assert_int_equal(r.calls, 1);
	for (int i = 0; i < 100; i++)
		path_relay_traffic(r.p, r.now);
	assert_int_equal(r.n_sent, 2);
	/* with traffic and no answer: every 6 s, as stock nodes do */
	for (int i = 0; i < 300; i++) {
		rig_run(&r, r.now + 100 * MSEC);
		path_relay_traffic(r.p, r.now);
	}
	assert_in_range(pings_to(&r, &a), 5, 7);
	assert_in_range(r.calls, 5, 7);
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	assert_int_equal(r.sets, 0);

	/* an answer: direct from now on, to the address that was pinged */
	assert_int_equal(rig_pong(&r, &a, 10 * MSEC), 0);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	assert_true(endpoint_equal(&r.kernel, &a));
	assert_int_equal(r.sets, 1);
	/* a private address at the same latency is better */
	assert_int_equal(rig_pong(&r, &b, 0), 0);
	assert_true(endpoint_equal(&r.kernel, &b));
	/* a pong that nobody waits for */
	assert_int_equal(rig_pong(&r, &b, 0), -ENOENT);
	path_free(r.p);
}

static void test_call_without_candidates(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	for (int i = 0; i < 1200; i++) {
		path_relay_traffic(r.p, r.now);
		rig_run(&r, r.now + 100 * MSEC);
	}
	/* in 120 s: at 0, 5, 15, 35, 75 s and so on, not every heartbeat */
	assert_in_range(r.calls, 4, 6);
	path_free(r.p);
}

static void test_death_and_recovery(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	uint64_t good;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &a, 20 * MSEC);
	good = r.now;
	path_traffic(r.p, r.now);
	rig_run(&r, good + 3500 * MSEC); /* the heartbeat at 3 s is lost */
	assert_int_equal(pings_to(&r, &a), 2);
	assert_int_equal(r.dumps, 0);
	rig_run(&r, good + 4200 * MSEC); /* missed: counters, a relayed ping, another try */
	assert_int_equal(r.dumps, 1);
	assert_int_equal(pings_to(&r, &a), 3);
	assert_int_equal(pings_to(&r, &by_relay), 1);
	rig_pong(&r, &by_relay, 30 * MSEC); /* the daemon is alive */
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	rig_run(&r, good + 5500 * MSEC); /* the second is missed too */
	assert_int_equal(r.p->state, PATH_STATE_DOUBTFUL);
	assert_int_equal(r.kernel.addr.family, 0);
	rig_run(&r, good + 8500 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	path_traffic(r.p, r.now);
	rig_run(&r, r.now + 7 * SEC);
	assert_int_equal(rig_pong(&r, &a, 10 * MSEC), 0); /* back */
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);

	/* without a relay to ask, trust lasts its 6.5 s */
	good = r.now;
	r.no_relay = true;
	path_traffic(r.p, r.now);
	rig_run(&r, good + 6400 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	rig_run(&r, good + 6600 * MSEC);
	assert_int_not_equal(r.p->state, PATH_STATE_DIRECT);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);
}

static void test_one_lost_pong(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &a, 20 * MSEC);
	for (int i = 0; i < 20; i++) { /* every first try is lost, every second answered */
		path_traffic(r.p, r.now);
		rig_run(&r, r.now + 4100 * MSEC);
		rig_pong(&r, &by_relay, 10 * MSEC);
		rig_pong(&r, &a, 10 * MSEC);
		assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	}
	assert_int_equal(r.sets, 1);
	path_free(r.p);
}

static void test_idle(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	unsigned int before;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &a, MSEC);
	for (int i = 0; i < 14; i++) {
		rig_run(&r, r.now + 3 * SEC + 2 * MSEC);
		rig_pong(&r, &a, MSEC);
		assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	}
	rig_run(&r, T0 + 49 * SEC); /* 45 s without a send */
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	assert_int_equal(r.kernel.addr.family, 0);
	before = (unsigned int)r.n_sent;
	rig_run(&r, r.now + 100 * SEC);
	assert_int_equal(r.n_sent, before); /* silence */
	assert_true(path_releasable(r.p, r.now));
	path_free(r.p);
}

static void test_ping_back(void **state)
{
	struct endpoint x = ep("203.0.113.5:1000"), y = ep("203.0.113.5:1001");
	struct addr local = addr_v4(192, 168, 0, 7);
	struct disco_txid id = {{1}};
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	assert_int_equal(path_ping_heard(r.p, &x, &local, &id, r.now), 1);
	assert_int_equal(pings_to(&r, &x), 1);				   /* pinged in answer */
	assert_int_equal(path_ping_heard(r.p, &x, &local, &id, r.now), 0); /* the same once more */
	assert_int_equal(path_ping_heard(r.p, &y, &local, &id, r.now),
			 1);	       /* from elsewhere it is none */
	for (int i = 0; i < 50; i++) { /* a storm is answered, and pinged back once a second */
		id.b[1]++;
		r.now += 100 * MSEC;
		assert_int_equal(path_ping_heard(r.p, &x, &local, &id, r.now), 1);
	}
	assert_in_range(r.n_sent, 5, 7);
	rig_pong(&r, &x, MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	assert_true(addr_equal(&r.p->local, &local));
	r.n_sent = 0;
	r.now += 2 * SEC;
	id.b[1]++;
	assert_int_equal(path_ping_heard(r.p, &x, &local, &id, r.now), 1);
	assert_int_equal(r.n_sent, 0); /* trusted: no need */
	path_free(r.p);
}

static void test_calls_bounded(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]), victims[DISCO_ENDPOINTS_MAX];
	unsigned int pings = 0;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	assert_int_equal(rig_pong(&r, &a, 10 * MSEC), 0);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	for (unsigned int i = 0; i < 3000; i++) { /* 10 s */
		unsigned int beats;

		for (size_t k = 0; k < ARRAY_SIZE(victims); k++)
			victims[k] = (struct endpoint){
			    addr_v4(203, 0, (uint8_t)(i % 200), (uint8_t)(k + 1)), 53};
		r.n_sent = 0;
		path_call_me(r.p, victims, ARRAY_SIZE(victims), r.now);
		path_traffic(r.p, r.now);
		rig_run(&r, r.now + 10 * SEC / 3000);
		pings += (unsigned int)r.n_sent;
		beats = pings_to(&r, &a);
		if (beats)
			assert_int_equal(rig_pong(&r, &a, 0), 0);
		assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	}
	assert_int_equal(r.sets, 1);
	/* four at once and one a second, each to the addresses that are kept of it, and heartbeats */
	assert_in_range(pings, 10 * CANDIDATES_MAX / 2, 15 * CANDIDATES_MAX);
	path_free(r.p);
}

static void test_link_change_and_reset(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &a, 10 * MSEC);
	r.n_sent = r.calls = 0;
	path_link_changed(r.p, r.now);
	assert_int_equal(r.p->state, PATH_STATE_DOUBTFUL); /* both ways until it answers again */
	assert_int_equal(r.kernel.addr.family, 0);
	assert_int_equal(pings_to(&r, &a), 1);
	assert_int_equal(r.calls, 1);
	rig_pong(&r, &a, 10 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	r.sets = r.n_sent = 0;
	path_reset(r.p, r.now); /* the caller sets the relay address with the new peer */
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	assert_int_equal(r.sets, 0);
	assert_int_equal(pings_to(&r, &a), 1);
	rig_pong(&r, &a, 10 * MSEC);
	assert_true(endpoint_equal(&r.kernel, &a));
	path_free(r.p);
}

/* Any order of events: states stay what they say, memory bounded, timers in the future. */
static void test_walk(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", "192.168.1.2:41641", "[2001:db8::1]:41641",
				   NULL};
	struct endpoint at[4] = {ep(eps[0]), ep(eps[1]), ep(eps[2]), ep("203.0.113.7:7")};
	struct addr local = addr_v4(192, 168, 0, 7);
	unsigned int seed = 1, seen[PATH_STATES] = {0};
	uint64_t rx = 0, tx = 0;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	for (unsigned int i = 0; i < 200000; i++) {
		struct endpoint *x;
		struct disco_txid id = {{0}};
		struct path_counters c;

		seed = seed * 1103515245U + 12345U;
		x = &at[(seed >> 8) % ARRAY_SIZE(at)];
		memcpy(id.b, &i, sizeof(i));
		switch ((seed >> 16) % 16) {
		case 0:
		case 1:
			path_relay_traffic(r.p, r.now);
			break;
		case 2:
		case 3:
		case 4:
			rig_pong(&r, x, MSEC);
			break;
		case 5:
			rig_pong(&r, &by_relay, MSEC);
			break;
		case 6:
			path_ping_heard(r.p, x, &local, &id, r.now);
			break;
		case 7:
			path_call_me(r.p, at, (seed >> 20) % 5, r.now);
			break;
		case 8:
			path_set_endpoints(r.p, at, (seed >> 20) % 5, r.now);
			break;
		case 9:
			path_relay_heard(r.p, seed & 0x100000, r.now);
			break;
		case 10:
			if ((seed >> 20) % 8 == 0)
				path_gone(r.p);
			break;
		case 11:
		case 12:
			rx += (seed >> 20) & 1;
			tx += (seed >> 21) & 1;
			c = rig_counters(&r, (seed >> 22) & 1 ? x : &r.kernel, rx, tx);
			path_counters(r.p, &c, r.now);
			break;
		case 13:
			if ((seed >> 20) % 16 == 0)
				path_link_changed(r.p, r.now);
			break;
		case 14:
			if ((seed >> 20) % 16 == 0) {
				path_reset(r.p, r.now);
				r.kernel = by_relay;
			}
			break;
		default:
			r.n_sent = r.n_sent > 100 ? 0 : r.n_sent;
			rig_run(&r, r.now + (seed >> 20) % 3000 * MSEC);
		}
		r.n_sent = r.n_sent > 150 ? 0 : r.n_sent;
		seen[r.p->state]++;
		assert_true(r.p->cands.n <= CANDIDATES_MAX && r.p->n_pings <= PATH_PINGS_MAX);
		assert_true((r.p->state == PATH_STATE_RELAY) == !r.p->best.addr.family);
		/* the kernel was told what the state says, unless it is being watched where it went
		 */
		if (!r.p->roam.addr.family) {
			const struct endpoint *want =
			    r.p->state == PATH_STATE_DIRECT || r.p->state == PATH_STATE_HELD
				? &r.p->best
				: &by_relay;

			assert_true(endpoint_equal(&r.p->kernel, want));
		}
		if (r.p->state == PATH_STATE_DIRECT)
			assert_true(path_due(r.p) <= r.p->trusted_until + 1);
		if (r.p->state == PATH_STATE_DOUBTFUL)
			assert_true(path_due(r.p) <= r.now + PATH_PING_USEC);
	}
	for (size_t i = 0; i < PATH_STATES; i++)
		assert_true(seen[i] > 1000);
	path_free(r.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_machine),
	    cmocka_unit_test(test_better),
	    cmocka_unit_test(test_discovery),
	    cmocka_unit_test(test_call_without_candidates),
	    cmocka_unit_test(test_death_and_recovery),
	    cmocka_unit_test(test_one_lost_pong),
	    cmocka_unit_test(test_idle),
	    cmocka_unit_test(test_ping_back),
	    cmocka_unit_test(test_calls_bounded),
	    cmocka_unit_test(test_link_change_and_reset),
	    cmocka_unit_test(test_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
