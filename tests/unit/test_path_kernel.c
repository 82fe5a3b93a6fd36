/* path: what the kernel does by itself (it roams, and forwards while the daemon is dead) and what its counters say. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/path.h"
#include "lib/cleanup.h"
#include "tests/unit/addr_text.h"
#include "tests/unit/path_rig.h"

/* ---- the kernel moves by itself ---- */

/* The peer's disco brings us together with its first packet: what the kernel answered before the first dump of this
 * path is traffic all the same, and what it had before is not. */
static void test_counted_before(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint four = ep(eps[0]);
	struct path_counters c;
	struct rig r;

	(void)state;
	for (int sent = 0; sent < 2; sent++) {
		rig_init(&r, eps);
		path_call_me(r.p, &four, 1, r.now);
		rig_pong(&r, &four, MSEC);
		assert_false(path_active(r.p, r.now));
		c = rig_counters(&r, &four, 276, 220);
		c.received = true;
		c.sent = sent;
		path_counters(r.p, &c, r.now);
		assert_int_equal(path_active(r.p, r.now), sent);
		assert_int_equal(r.p->rx_grew, 0);
		path_free(r.p);
	}
}

static void test_roaming(void **state)
{
	const char *const eps[] = {"[2001:db8::1]:41641", "198.51.100.1:41641", NULL};
	struct endpoint six = ep(eps[0]), four = ep(eps[1]), odd = ep("203.0.113.99:9");
	struct path_counters c;
	unsigned int sets, n;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &four, 10 * MSEC);
	rig_pong(&r, &six, 0);
	assert_true(endpoint_equal(&r.kernel, &six)); /* IPv6 is better */
	sets = r.sets;

	/* the peer prefers IPv4 and moves the kernel: both answered, so its choice is taken, and
	 * kept */
	r.now += SEC;
	c = rig_counters(&r, &four, 1000, 1000);
	path_counters(r.p, &c, r.now);
	assert_true(endpoint_equal(&r.p->best, &four));
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	for (int i = 0; i < 30; i++) {
		path_traffic(r.p, r.now);
		rig_run(&r, T0 + (3U + 3U * (unsigned int)i) * SEC); /* with the heartbeat */
		rig_pong(&r, &four, 10 * MSEC);
		rig_pong(&r, &six, 0);
		c = rig_counters(&r, &four, 1000U + (unsigned int)i, 2000);
		path_counters(r.p, &c, r.now);
	}
	assert_true(endpoint_equal(&r.p->best, &four));
	assert_int_equal(r.sets, sets); /* no fight */

	/* somewhere unheard of: pinged, and set back when nothing answers */
	c = rig_counters(&r, &odd, 5000, 3000);
	path_counters(r.p, &c, r.now);
	assert_int_equal(pings_to(&r, &odd), 1);
	assert_int_equal(r.sets, sets);
	path_traffic(r.p, r.now);
	rig_run(&r, r.now + 100 * MSEC);
	rig_pong(&r, &by_relay, MSEC);
	rig_run(&r, r.now + 2 * SEC);
	assert_int_equal(r.sets, sets + 1);
	assert_true(endpoint_equal(&r.kernel, &four));
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);

	/* that the daemon answered by relay then does not count when one pong is lost now */
	path_traffic(r.p, r.now);
	rig_run(&r, r.now + 3 * SEC);
	rig_pong(&r, &by_relay, MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	rig_pong(&r, &four, 0);

	/* the same, and it answers: the peer has moved */
	rig_pong(&r, &four, 0);
	r.now += 6 * SEC;
	path_traffic(r.p, r.now);
	c = rig_counters(&r, &odd, 6000, 4000);
	path_counters(r.p, &c, r.now);
	rig_pong(&r, &odd, 5 * MSEC);
	assert_true(endpoint_equal(&r.p->best, &odd));
	assert_int_equal(r.sets, sets + 1);

	/* a dump begun before our own change says nothing */
	rig_run(&r, r.now + 3010 * MSEC);
	rig_pong(&r, &odd, 0);
	c = rig_counters(&r, &six, 6000, 4000);
	c.taken = r.p->set - 1;
	n = pings_to(&r, &six);
	path_counters(r.p, &c, r.now);
	assert_int_equal(pings_to(&r, &six), n);
	assert_true(endpoint_equal(&r.p->best, &odd));
	/* a relayed packet took the kernel to the relay address: direct is set again */
	r.now += SEC;
	c = rig_counters(&r, &by_relay, 6000, 4000);
	path_counters(r.p, &c, r.now);
	assert_int_equal(r.sets, sets + 2);
	assert_true(endpoint_equal(&r.kernel, &odd));
	path_free(r.p);
}

static void test_roamed_while_relayed(void **state)
{
	struct endpoint x = ep("203.0.113.9:41641");
	struct path_counters c;
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	path_relay_traffic(r.p, r.now);
	c = rig_counters(&r, &x, 100, 100);
	path_counters(r.p, &c, r.now);
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	assert_int_equal(pings_to(&r, &x), 1);
	rig_run(&r, r.now + 100 * MSEC);
	rig_pong(&r, &by_relay, MSEC); /* its daemon lives, and yet x does not answer */
	rig_run(&r, r.now + 3 * SEC);
	assert_int_equal(r.sets, 1); /* one-way: our packets would be lost there */
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);
}

static void test_adopted_at_start(void **state)
{
	struct endpoint x = ep("203.0.113.9:41641");
	struct path_counters c;
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	c = rig_counters(&r, &x, 100, 100);
	c.at_start = true;
	path_counters(r.p, &c, r.now);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	assert_int_equal(r.sets, 0); /* as found */
	assert_int_equal(pings_to(&r, &x), 1);
	rig_pong(&r, &x, MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	assert_int_equal(r.sets, 0);
	path_free(r.p);

	rig_init(&r, NULL); /* an old session is not: it rests on the relay */
	c.handshake_age_sec = 1000;
	path_counters(r.p, &c, r.now);
	rig_run(&r, r.now + 10 * SEC);
	assert_int_equal(r.sets, 1);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);
}

/* ---- a dead daemon is not a dead peer ---- */

static void direct_then_silent(struct rig *r, const struct endpoint *a, bool rx_grows,
			       bool relay_answers, uint64_t *rx)
{
	struct path_counters c;
	uint64_t tx = 1000;

	path_relay_traffic(r->p, r->now);
	rig_pong(r, a, 10 * MSEC);
	c = rig_counters(r, a, *rx, tx);
	path_counters(r->p, &c, r->now);
	for (int i = 0; i < 4; i++) {
		if (rx_grows)
			*rx += 100;
		tx += 100;
		c = rig_counters(r, a, *rx, tx);
		if (!r->p->kernel.addr.family) {
			c.direct = false;
			c.endpoint = by_relay;
		}
		path_counters(r->p, &c, r->now);
		rig_run(r, r->now + 2100 * MSEC);
		if (relay_answers)
			rig_pong(r, &by_relay, MSEC);
	}
}

static void test_dead_daemon(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	struct path_counters c;
	uint64_t rx = 1000, tx = 10000;
	struct rig r;

	(void)state;
	/* silent by both ways, and the kernel's counter grows: held */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	assert_int_equal(r.p->state, PATH_STATE_HELD);
	assert_true(endpoint_equal(&r.kernel, &a));
	assert_int_equal(r.sets, 1); /* not for a moment by relay */
	for (int i = 0; i < 40;
	     i++) { /* for minutes, with traffic one way: the counter grows every 10 s */
		tx += 100;
		if (i % 4 == 0)
			rx += 32;
		c = rig_counters(&r, &a, rx, tx);
		path_counters(r.p, &c, r.now);
		rig_run(&r, r.now + 3 * SEC);
		assert_int_equal(r.p->state, PATH_STATE_HELD);
	}
	/* idle does not take it away, and costs nothing */
	rx += 32;
	c = rig_counters(&r, &a, rx, tx);
	path_counters(r.p, &c, r.now);
	r.n_sent = 0;
	rig_run(&r, r.now + 60 * SEC);
	r.n_sent = 0;
	rig_run(&r, r.now + 600 * SEC);
	assert_int_equal(r.n_sent, 0);
	assert_int_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.sets, 1);
	/* now its kernel is gone too: what we send is unanswered */
	for (int i = 0; i < 8; i++) {
		r.n_sent = 0;
		tx += 100;
		c = rig_counters(&r, &a, rx, tx);
		path_counters(r.p, &c, r.now);
		rig_run(&r, r.now + 3 * SEC);
	}
	assert_int_not_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);

	/* the daemon answers by relay: the path is dead, whatever the counter does (cut one way) */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, true, &rx);
	assert_int_not_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);

	/* silent by both ways, and nothing comes back: dead as a whole */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, false, false, &rx);
	assert_int_not_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);

	/* held, and the daemon comes back: it has to answer there, else its path is doubtful */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	path_relay_heard(r.p, false, r.now);
	rig_pong(&r, &a, 10 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	path_free(r.p);
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	path_relay_heard(r.p, false, r.now);
	rig_pong(&r, &by_relay, 20 * MSEC);
	rig_run(&r, r.now + 1100 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DOUBTFUL);
	path_free(r.p);
	/* held, and it sends by relay: it does not trust the path */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	path_relay_heard(r.p, true, r.now);
	rig_pong(&r, &by_relay, 20 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DOUBTFUL);
	path_free(r.p);
	/* roamed to while its daemon is dead: its kernel found us, and is held there */
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	path_gone(r.p);
	c = rig_counters(&r, &a, 100, 100);
	path_counters(r.p, &c, r.now);
	rig_run(&r, r.now + 3 * SEC);
	assert_int_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.sets, 0);
	path_free(r.p);
}

/* The daemon is dead; somebody sends again what he recorded, a relay invents packets of the peer. */
static void test_replayed_to_held(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]), thief = ep("203.0.113.66:6");
	struct addr local = addr_v4(192, 168, 0, 7);
	struct path_counters c;
	uint64_t rx = 1000, tx = 10000;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	assert_int_equal(r.p->state, PATH_STATE_HELD);
	r.sets = r.n_sent = 0;
	for (unsigned int i = 0; i < 300; i++) { /* half a minute, ten times a second each */
		struct disco_txid id = {{1, 2, 3, 4, (uint8_t)i}};

		path_ping_heard(r.p, i % 2 ? &thief : &a, &local, &id, r.now);
		path_relay_heard(r.p, i % 3 == 0, r.now);
		if (i % 30 == 0) {
			rx += 32;
			tx += 100;
			c = rig_counters(&r, &a, rx, tx);
			path_counters(r.p, &c, r.now);
		}
		rig_run(&r, r.now + 100 * MSEC);
		r.n_sent = r.n_sent > 150 ? 0 : r.n_sent;
		assert_int_equal(r.p->state, PATH_STATE_HELD);
	}
	assert_int_equal(r.sets, 0);
	assert_true(endpoint_equal(&r.p->kernel, &a));
	path_free(r.p);
}

/* A peer that calls without end and names others' addresses: the pings are bounded, and the path in
 * use is watched all the same. */
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counted_before),
		cmocka_unit_test(test_roaming),
		cmocka_unit_test(test_roamed_while_relayed),
		cmocka_unit_test(test_adopted_at_start),
		cmocka_unit_test(test_dead_daemon),
		cmocka_unit_test(test_replayed_to_held),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
