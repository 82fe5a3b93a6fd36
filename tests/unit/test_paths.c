/*
 * paths: two engines in a small world of the test's own; then handshakes that cross, keys that change,
 * and what ten thousand idle peers cost.
 */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/paths.h"
#include "lib/cleanup.h"
#include "tests/unit/paths_sim.h"
#include "tests/unit/paths_tap.h"

/* ---- pairs ---- */

static void test_pairs(void **state)
{
	static const struct {
		enum nat a, b;
		bool direct;
		uint64_t within;
	} t[] = {
		{ NAT_PUBLIC, NAT_PUBLIC, true, 100 * MSEC },
		{ NAT_PUBLIC, NAT_EASY, true, 200 * MSEC },
		{ NAT_EASY, NAT_PUBLIC, true, 200 * MSEC },
		{ NAT_EASY, NAT_EASY, true, 300 * MSEC },
		{ NAT_HARD, NAT_PUBLIC, true, 300 * MSEC },
		{ NAT_PUBLIC, NAT_HARD, true, 300 * MSEC },
		{ NAT_HARD, NAT_EASY, false, 0 },
		{ NAT_HARD, NAT_HARD, false, 0 },
		{ NAT_BLOCKED, NAT_PUBLIC, false, 0 },
		{ NAT_EASY, NAT_BLOCKED, false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		uint64_t took;

		for (int both = 0; both < 2; both++) {
			sim_init(t[i].a, t[i].b);
			run(40 * SEC); /* long enough that NATs have forgotten the STUN mappings */
			talk(50 * MSEC, both ? 70 * MSEC : 0);
			/* without answers the kernel of the silent side still sends keepalives */
			took = run_until(PATH_STATE_DIRECT, 20 * SEC);
			if (t[i].direct) {
				if (took > (both ? t[i].within : 11 * SEC))
					print_error("pair %zu took %llu us\n", i,
						    (unsigned long long)took);
				assert_true(took <= (both ? t[i].within : 11 * SEC));
				run(10 * SEC);
				no_packet_lost();
				talk(50 * MSEC, both ? 70 * MSEC : 0);
				S.n[1].got = S.n[1].got_direct = 0;
				S.n[1].last_got = 0;
				run(10 * SEC);
				assert_int_equal(S.n[1].got, S.n[1].got_direct);
				assert_in_range(S.n[0].sets, 1, 3);
			} else {
				assert_true(took == UINT64_MAX);
				assert_int_equal(S.n[1].got_direct, 0);
			}
			if (!t[i].direct)
				no_packet_lost();
			/* never a gap, whichever way they went */
			assert_true(S.n[1].worst_gap < 150 * MSEC);
			sim_done();
		}
	}
}

/* The first packet is never lost, and a peer of which the map knows no address finds us. */
static void test_first_packet(void **state)
{
	struct paths_peer_config c;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	for (unsigned int i = 0; i < 2; i++) { /* no endpoints in either map */
		c = (struct paths_peer_config){ .id = 7,
						.node = S.n[!i].node.pub,
						.disco = S.n[!i].disco.pub,
						.home = (uint16_t)(1 + !i) };
		assert_int_equal(paths_peer_set(S.n[i].p, &c, S.now), PATHS_PEER_SAME);
	}
	wg_send(0, 0);
	run(30 * MSEC);
	assert_int_equal(S.n[1].got, 1);
	assert_int_equal(S.n[1].got_direct, 0);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, 20 * SEC) <= 500 * MSEC);
	sim_done();
}

static void test_death_and_restore(void **state)
{
	(void)state;
	for (int one_way = 0; one_way < 2; one_way++) {
		uint64_t took;

		for (uint64_t phase = 0; phase < 3; phase++) {
			sim_init_direct();
			run(10 * SEC + phase * SEC);
			S.n[0].worst_gap = S.n[1].worst_gap = 0;
			S.cut[0] = true;
			S.cut[1] = !one_way;
			took = run_until(PATH_STATE_RELAY, 20 * SEC);
			assert_true(one_way || took <= 8100 * MSEC);
			run(15 * SEC);
			/* what was lost: until the second missed pong */
			assert_true(S.n[1].worst_gap <= 6 * SEC);
			assert_true(S.n[0].worst_gap <= (one_way ? SEC : 6 * SEC));
			S.n[1].got = 0;
			run(SEC);
			assert_in_range(S.n[1].got, 19, 21);
			assert_int_not_equal(mode(0), PATH_STATE_DIRECT);
			assert_int_not_equal(mode(0), PATH_STATE_HELD);
			S.n[0].worst_gap = S.n[1].worst_gap = 0;
			S.cut[0] = S.cut[1] = false;
			assert_true(run_until(PATH_STATE_DIRECT, 20 * SEC) <= 7 * SEC);
			assert_true(S.n[0].worst_gap < 150 * MSEC && S.n[1].worst_gap < 150 * MSEC);
			sim_done();
		}
	}
}

/* While alice doubts, her packets go both ways; when she gives up, one. */
static void test_both_ways(void **state)
{
	struct paths_send how;
	struct endpoint direct;

	(void)state;
	sim_init_direct();
	run(10 * SEC);
	direct = S.n[0].kernel;
	S.cut[1] = true; /* her pongs are lost, and nothing else */
	for (int i = 0; i < 1000 && mode(0) != PATH_STATE_DOUBTFUL; i++)
		run(10 * MSEC);
	assert_int_equal(mode(0), PATH_STATE_DOUBTFUL);
	assert_int_equal(S.n[0].kernel.addr.family, 0);
	assert_int_equal(paths_send_how(S.n[0].p, 7, S.now, &how), 0);
	assert_true(how.copy);
	assert_true(endpoint_equal(&how.to, &direct));
	assert_true(addr_equal(&how.from, &S.n[0].priv));
	S.relay_down = true;
	S.n[1].got_direct = 0;
	run(500 * MSEC);
	assert_in_range(S.n[1].got_direct, 8, 11); /* the copies arrive */
	S.relay_down = false;
	run(5 * SEC);
	assert_int_equal(mode(0), PATH_STATE_RELAY);
	assert_int_equal(paths_send_how(S.n[0].p, 7, S.now, &how), 0);
	assert_false(how.copy);
	assert_int_equal(how.region, 2);
	assert_int_equal(paths_send_how(S.n[0].p, 8, S.now, &how), -ENOENT);
	sim_done();
}

/* What bob sends by relay while alice is direct does not move her kernel. */
static void test_relayed_while_direct(void **state)
{
	struct endpoint direct;

	(void)state;
	sim_init_direct();
	run(10 * SEC);
	direct = S.n[0].kernel;
	S.n[0].sets = 0;
	for (int i = 0; i < 100; i++) {
		uint8_t pkt[32] = { 4, 0 };
		uint32_t seq = S.n[1].seq++;

		memcpy(pkt + 2, &seq, sizeof(seq));
		derp_send(1, 1, pkt, sizeof(pkt));
		S.n[1].sent++;
		for (int k = 0; k < 10; k++) {
			run(7 * MSEC);
			assert_true(endpoint_equal(&S.n[0].kernel, &direct));
		}
	}
	assert_int_equal(S.n[0].sets, 0);
	no_packet_lost();
	/* and what moved it all the same is seen by the next dump, and put right after it */
	S.n[0].kernel = (struct endpoint){ 0 };
	run(4 * SEC);
	assert_true(endpoint_equal(&S.n[0].kernel, &direct));
	assert_int_equal(S.n[0].sets, 1);
	sim_done();
}

/* The relays go down while all is direct: nothing happens. */
static void test_relay_loss(void **state)
{
	struct paths_status s;

	(void)state;
	sim_init_direct();
	S.relay_down = true;
	S.n[0].worst_gap = S.n[0].sets = 0;
	run(120 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	assert_int_equal(S.n[0].sets, 0);
	assert_true(S.n[0].worst_gap < 100 * MSEC);
	S.cut[0] = S.cut[1] = true;
	run(40 * SEC);
	assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now, &s), 0);
	assert_int_not_equal(s.state, PATH_STATE_DIRECT);
	assert_int_not_equal(s.state, PATH_STATE_HELD);
	assert_string_equal(s.reason, "relay fra is unreachable");
	sim_done();
}

/* bob's daemon dies; his kernel lives on. alice must not notice. */
static void test_dead_daemon(void **state)
{
	static const uint64_t back_every[] = { 50 * MSEC, 0 }; /* traffic both ways; one way only */

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(back_every); k++) {
		sim_init_direct();
		run(12 * SEC);
		talk(50 * MSEC, back_every[k]);
		S.n[1].dead = true;
		S.n[0].sets = 0;
		S.n[1].worst_gap = 0;
		run(300 * SEC);
		assert_int_equal(mode(0), PATH_STATE_HELD);
		assert_int_equal(S.n[0].sets, 0);
		assert_true(S.n[1].worst_gap < 100 * MSEC); /* alice's packets all arrived */
		S.n[1].dead = false;			    /* restarted, same keys */
		run(4 * SEC);
		assert_int_equal(mode(0), PATH_STATE_DIRECT);
		assert_true(S.n[1].worst_gap < 150 * MSEC);
		sim_done();
	}

	/* his host dies as a whole: within seconds alice sends by relay, where he may turn up again
	 */
	sim_init_direct();
	run(12 * SEC);
	S.n[1].dead = S.cut[1] = true;
	talk(50 * MSEC, 0);
	S.n[1].keepalive_at = 0;
	run(30 * SEC);
	assert_true(mode(0) == PATH_STATE_RELAY || mode(0) == PATH_STATE_DOUBTFUL);
	sim_done();
}

/* bob's NAT forgets him: his packets come from a new port, and only the kernel sees it. */
static void test_rebinding(void **state)
{
	(void)state;
	sim_init(NAT_PUBLIC, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	run(5 * SEC);
	S.n[1].n_flows = 0;
	S.n[1].next_port = 33333;
	S.n[0].worst_gap = S.n[1].worst_gap = 0;
	run(20 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	assert_int_equal(mode(1), PATH_STATE_DIRECT);
	assert_int_equal(S.n[0].kernel.port, 33333);
	assert_true(S.n[0].worst_gap < 150 * MSEC);
	assert_true(S.n[1].worst_gap < 150 * MSEC);
	sim_done();
}

/* alice's host gets another address: she says so at once. */
static void test_link_change(void **state)
{
	(void)state;
	sim_init_direct();
	run(5 * SEC);
	S.n[0].pub = addr_v4(203, 0, 113, 77);
	S.n[0].priv = addr_v4(10, 9, 9, 9);
	S.n[0].n_flows = 0;
	S.n[0].next_port = 40000;
	S.n[0].worst_gap = S.n[1].worst_gap = 0;
	paths_link_changed(S.n[0].p, S.now);
	assert_int_equal(S.n[0].kernel.addr.family, 0);
	run(3 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	/* bob learns it from her CallMeMaybe and pings */
	assert_true(S.n[1].worst_gap < 150 * MSEC);
	run(5 * SEC);
	assert_int_equal(mode(1), PATH_STATE_DIRECT);
	assert_true(addr_equal(&S.n[1].kernel.addr, &S.n[0].pub));
	sim_done();
}

static void test_loss(void **state)
{
	unsigned int sent;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	S.loss_percent = 10;
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, 20 * SEC) <= 15 * SEC);
	S.n[1].got = S.n[0].sets = 0;
	sent = S.n[0].seq;
	run(600 * SEC);
	sent = S.n[0].seq - sent;
	assert_true(S.n[1].got >= sent * 88 / 100);
	/* 19 % of the pings fail; two in a row every 80 s or so */
	assert_true(S.n[0].sets <= 24);
	sim_done();
}

static void test_idle(void **state)
{
	unsigned int packets;
	struct paths_status s;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	run(5 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	talk(0, 0);
	run(70 * SEC);
	assert_int_equal(S.n[0].kernel.addr.family, 0);
	assert_int_equal(S.n[1].kernel.addr.family, 0);
	packets = S.udp_packets;
	run(3600 * SEC);
	assert_int_equal(S.udp_packets, packets);
	assert_int_equal(S.n[0].wake, UINT64_MAX); /* no timer at all */
	assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now, &s), 0);
	assert_false(s.active);
	assert_false(paths_any_active(S.n[0].p, S.now));
	assert_string_equal(s.reason, "");
	/* and again, after the NATs have forgotten everything */
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	assert_true(paths_any_active(S.n[0].p, S.now));
	sim_done();
}

/* The daemon hands in the time of the loop's turn here and the clock's there: a step back of
 * milliseconds must not look like an age of centuries. */
static void test_clock_steps_back(void **state)
{
	struct path_counters c;
	struct paths_status s;

	(void)state;
	sim_init_direct();
	run(5 * SEC);
	S.n[0].sets = 0;
	for (int i = 0; i < 2000; i++) {
		run(13 * MSEC);
		c = dump_of(&S.n[0], S.now - 5 * MSEC);
		paths_counters(S.n[0].p, 7, &c, c.taken);
		paths_tick(S.n[0].p, S.now - 9 * MSEC);
		paths_set_own_endpoints(S.n[0].p, &c.endpoint, i % 2, S.now - 20 * MSEC);
		assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now - 30 * MSEC, &s), 0);
		assert_int_equal(s.state, PATH_STATE_DIRECT);
		assert_true(s.active);
		assert_true(paths_any_active(S.n[0].p, S.now - 30 * MSEC));
	}
	assert_int_equal(S.n[0].sets, 0);
	sim_done();
}

static unsigned int pongs_relayed, pongs_direct, pings_over;

static void on_pong(void *data, const struct paths_pong *pong)
{
	assert_ptr_equal(data, &S);
	if (!pong)
		pings_over++;
	else if (pong->relayed) {
		assert_int_equal(pong->region,
				 2); /* his home: the answer takes the way of the ping */
		assert_in_range(pong->latency_usec, 40 * MSEC, 41 * MSEC);
		pongs_relayed++;
	} else {
		assert_in_range(pong->latency_usec, 20 * MSEC, 21 * MSEC);
		pongs_direct++;
	}
}

static void test_user_ping(void **state)
{
	int h, open = 0;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	assert_true(paths_ping(S.n[0].p, 7, on_pong, &S, S.now) > 0);
	run(50 * MSEC);
	assert_int_equal(pongs_relayed, 1);
	run(SEC);
	assert_true(paths_ping(S.n[0].p, 7, on_pong, &S, S.now) > 0);
	run(50 * MSEC);
	assert_int_equal(pongs_direct, 1); /* the first one has opened the way */
	assert_int_equal(pongs_relayed, 1);
	run(6 * SEC);
	assert_int_equal(pings_over, 2);
	h = paths_ping(S.n[0].p, 7, on_pong, &S, S.now);
	paths_ping_cancel(S.n[0].p, h);
	run(6 * SEC);
	assert_int_equal(pings_over, 2);
	assert_int_equal(pongs_direct, 1);
	assert_int_equal(paths_ping(S.n[0].p, 8, on_pong, &S, S.now), -ENOENT);
	for (int i = 0; i < 40; i++) {
		h = paths_ping(S.n[0].p, 7, on_pong, &S, S.now);
		open += h > 0;
	}
	assert_int_equal(h, -ENOBUFS);
	assert_true(open > 0);
	sim_done();
	assert_int_equal(pings_over, 2 + open); /* nobody is left waiting */
}

static void test_reasons(void **state)
{
	struct paths_status s;

	(void)state;
	sim_init(NAT_BLOCKED, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	run(10 * SEC);
	assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now, &s), 0);
	assert_int_equal(s.state, PATH_STATE_RELAY);
	assert_true(s.active);
	assert_int_equal(s.region, 2);
	assert_string_equal(s.reason, "none of its 2 addresses answers");
	paths_set_udp_works(S.n[0].p, false);
	assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now, &s), 0);
	assert_string_equal(s.reason, "no UDP gets out of this host's network");
	assert_int_equal(paths_peer_status(S.n[0].p, 9, S.now, &s), -ENOENT);
	sim_done();
}

/* Of two handshakes that cross on the relay, exactly one gets to a kernel. */
static void test_crossing(void **state)
{
	static const uint8_t initiation[] = { 1, 0, 0, 0, 9 }, response[] = { 2, 0, 0, 0, 9 },
			     data[] = { 4, 0, 0, 0, 9 };
	unsigned int n = 0, winner = 0;
	struct tap t[2];

	(void)state;
	tap_init(&t[0]);
	tap_init(&t[1]);
	for (unsigned int i = 0; i < 2; i++) {
		const struct key *peer = &t[!i].node.pub;

		tap_peer(&t[i], 1, peer, &t[!i].disco.pub);
		/* nothing on the way from here: the peer's gets in */
		assert_true(paths_relayed_allowed(t[i].p, peer, initiation, 5, T0));
		paths_relayed_sent(t[i].p, 1, data, 5, T0);
		assert_true(paths_relayed_allowed(t[i].p, peer, initiation, 5, T0));
	}
	for (unsigned int i = 0; i < 2; i++)
		paths_relayed_sent(t[i].p, 1, initiation, 5, T0 + SEC + i);
	for (unsigned int i = 0; i < 2; i++) {
		const struct key *peer = &t[!i].node.pub;

		if (paths_relayed_allowed(t[i].p, peer, initiation, 5, T0 + SEC + 50 * MSEC))
			n++;
		else
			winner = i;
		assert_true(paths_relayed_allowed(t[i].p, peer, data, 5, T0 + SEC + 50 * MSEC));
	}
	assert_int_equal(n, 1);
	/* answered: what comes next is new */
	for (unsigned int i = 0; i < 2; i++) {
		const struct key *peer = &t[!i].node.pub;

		if (i == winner)
			assert_true(paths_relayed_allowed(t[i].p, peer, response, 5, T0 + SEC + 100 * MSEC));
		assert_true(paths_relayed_allowed(t[i].p, peer, initiation, 5, T0 + SEC + 101 * MSEC));
		/* and one that was never answered is in nobody's way for long */
		paths_relayed_sent(t[i].p, 1, initiation, 5, T0 + 2 * SEC);
		assert_true(paths_relayed_allowed(t[i].p, peer, initiation, 5, T0 + 2 * SEC + 500 * MSEC));
	}
	paths_free(t[0].p);
	paths_free(t[1].p);
}

static void test_disco_key_change(void **state)
{
	struct key_pair fresh, third;
	struct paths_peer_config c;

	(void)state;
	sim_init_direct();
	key_pair_generate(&fresh);
	key_pair_generate(&third);
	/* bob restarts with another disco key, and alice's map says so */
	S.n[1].disco = fresh;
	paths_set_self(S.n[1].p, &fresh, &S.n[1].node.pub, S.now);
	c = (struct paths_peer_config){
		.id = 7, .node = S.n[1].node.pub, .disco = fresh.pub, .home = 2
	};
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), PATHS_PEER_RESET);
	S.n[0].kernel = (struct endpoint){ 0 };
	assert_int_equal(mode(0), PATH_STATE_RELAY);
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), PATHS_PEER_SAME);
	assert_true(run_until(PATH_STATE_DIRECT, 10 * SEC) <= 7 * SEC);
	/* the next one comes through the tunnel, before the map says it: no reset */
	S.n[1].disco = third;
	paths_set_self(S.n[1].p, &third, &S.n[1].node.pub, S.now);
	assert_int_equal(paths_peer_disco_key(S.n[0].p, 7, &third.pub, S.now), 0);
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now),
			 PATHS_PEER_SAME); /* an old map: no way back */
	run(2 * SEC);
	c.disco = third.pub;
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), PATHS_PEER_SAME);
	run(10 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	assert_int_equal(mode(1), PATH_STATE_DIRECT);
	/* a node key is one peer's only; the same number with another key is a new peer */
	c.id = 8;
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), -EEXIST);
	c.id = 7;
	c.node = fresh.pub;
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), PATHS_PEER_NEW);
	assert_int_equal(paths_count(S.n[0].p), 1);
	paths_peer_remove(S.n[0].p, 7);
	assert_int_equal(paths_count(S.n[0].p), 0);
	talk(0, 0);
	sim_done();
}

/* One disco key, two node keys: txid and node key tell them apart. */
static void test_shared_disco_key(void **state)
{
	struct endpoint from = { addr_v4(203, 0, 113, 5), 1 };
	struct addr local = addr_v4(10, 0, 0, 9);
	struct disco_msg ping = { .type = DISCO_TYPE_PING };
	struct key_pair disco, a, b;
	uint8_t wire[DISCO_WIRE_MAX];
	struct tap t;
	struct paths_status s;
	struct disco_shared k;
	uint8_t plain[256];
	struct disco_msg m;
	size_t n;
	int r;

	(void)state;
	key_pair_generate(&disco);
	key_pair_generate(&a);
	key_pair_generate(&b);
	tap_init(&t);
	tap_peer(&t, 1, &a.pub, &disco.pub);
	tap_peer(&t, 2, &b.pub, &disco.pub);
	ping.ping.node = a.pub;
	n = box(&disco, &t.disco.pub, &ping, wire);
	paths_udp_received(t.p, &from, &local, wire, n, T0);
	assert_int_equal(t.n_udp, 2);
	/* answer the ping back, which was the first of the two: find it by asking for another one
	 */
	ping.ping.txid.b[0] = 1;
	n = box(&disco, &t.disco.pub, &ping, wire);
	t.n_udp = 0;
	paths_udp_received(t.p, &from, &local, wire, n, T0 + 2 * SEC);
	assert_int_equal(t.n_udp, 2);
	paths_ping(t.p, 1, on_pong, &S, T0 + 2 * SEC);
	assert_int_equal(disco_shared_init(&disco.priv, &t.disco.pub, &k), 0);
	r = disco_open(&k, t.udp, t.udp_len, plain, sizeof(plain));
	assert_true(r > 0 && disco_msg_decode(plain, (size_t)r, &m) == 0);
	assert_int_equal(m.type, DISCO_TYPE_PING);
	ping = (struct disco_msg){ .type = DISCO_TYPE_PONG };
	memcpy(&ping.pong.txid, &m.ping.txid, sizeof(m.ping.txid));
	ping.pong.seen = from;
	n = box(&disco, &t.disco.pub, &ping, wire);
	pongs_direct = 0;
	paths_udp_received(t.p, &from, &local, wire, n, T0 + 2020 * MSEC);
	assert_int_equal(pongs_direct, 1);
	assert_int_equal(paths_peer_status(t.p, 1, T0 + 3 * SEC, &s), 0);
	assert_int_equal(s.state, PATH_STATE_DIRECT);
	assert_int_equal(paths_peer_status(t.p, 2, T0 + 3 * SEC, &s), 0);
	assert_int_equal(s.state, PATH_STATE_RELAY);
	paths_free(t.p);
}

static void test_many(void **state)
{
	struct endpoint v[4];
	struct key_pair node;
	struct paths_peer_config c = { .home = 1, .endpoints = v, .n_endpoints = 4 };
	struct paths_send how;
	struct tap t;
	size_t before, idle, active;
	uint32_t id;

	(void)state;
	tap_init(&t);
	before = mallinfo2().uordblks;
	for (uint32_t i = 0; i < 10000; i++) {
		randombytes_buf(&c.node, sizeof(c.node));
		/* a real public key now and then: those are sent to below */
		if (i % 100 == 0)
			key_pair_generate(&node);
		c.disco = i % 100 == 0 ? node.pub : c.node;
		c.id = 4 * i + 1;
		for (size_t k = 0; k < 4; k++)
			v[k] = (struct endpoint){
				addr_v4(10, (uint8_t)k, (uint8_t)(i >> 8), (uint8_t)i), 41641
			};
		assert_int_equal(paths_peer_set(t.p, &c, T0), PATHS_PEER_NEW);
	}
	assert_true(paths_peer_by_key(t.p, &c.node, &id));
	assert_int_equal(id, 4 * 9999 + 1);
	idle = mallinfo2().uordblks - before;
#if !defined(__SANITIZE_ADDRESS__)
	assert_in_range(idle / 10000, 100, 400);
#endif
	before = mallinfo2().uordblks;
	for (uint32_t i = 0; i < 10000; i += 100)
		assert_int_equal(paths_send_how(t.p, 4 * i + 1, T0 + i, &how), 0);
	active = mallinfo2().uordblks - before;
#if !defined(__SANITIZE_ADDRESS__)
	assert_in_range(active / 100, 100, 2000);
#endif
	assert_int_equal(t.n_udp, 400); /* all addresses of all hundred */
	for (uint64_t now = T0; now < T0 + 100 * SEC; now += 100 * MSEC)
		paths_tick(t.p, now);
#if !defined(__SANITIZE_ADDRESS__)
	assert_true(mallinfo2().uordblks - before < active / 4 + 4096); /* given back */
#endif
	for (uint32_t i = 0; i < 10000; i++)
		paths_peer_remove(t.p, 4 * i + 1);
	assert_int_equal(paths_count(t.p), 0);
	(void)idle;
	(void)active;
	paths_free(t.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_first_packet),
		cmocka_unit_test(test_death_and_restore),
		cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_relayed_while_direct),
		cmocka_unit_test(test_relay_loss),
		cmocka_unit_test(test_dead_daemon),
		cmocka_unit_test(test_rebinding),
		cmocka_unit_test(test_link_change),
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_clock_steps_back),
		cmocka_unit_test(test_user_ping),
		cmocka_unit_test(test_reasons),
		cmocka_unit_test(test_crossing),
		cmocka_unit_test(test_disco_key_change),
		cmocka_unit_test(test_shared_disco_key),
		cmocka_unit_test(test_many),
	};
	int r;

	if (key_init() < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	free(S.ev);
	return r;
}
