/* paths: strangers, forgers and floods at an engine whose sends are only looked at. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/paths.h"
#include "tests/unit/paths_tap.h"

static void test_strangers(void **state)
{
	struct endpoint from = { addr_v4(203, 0, 113, 5), 4000 },
			other = { addr_v4(203, 0, 113, 6), 5 };
	struct addr local = addr_v4(10, 0, 0, 9);
	struct disco_msg ping = { .type = DISCO_TYPE_PING },
			 call = { .type = DISCO_TYPE_CALL_ME_MAYBE }, m;
	struct key_pair bob_disco, bob_node, eve_disco, eve_node, nobody;
	uint8_t wire[DISCO_WIRE_MAX], plain[256];
	struct disco_shared k;
	struct tap t;
	size_t n;
	int r;

	(void)state;
	key_pair_generate(&bob_disco);
	key_pair_generate(&bob_node);
	key_pair_generate(&eve_disco);
	key_pair_generate(&eve_node);
	key_pair_generate(&nobody);
	tap_init(&t);
	tap_peer(&t, 1, &bob_node.pub, &bob_disco.pub);
	tap_peer(&t, 2, &eve_node.pub, &eve_disco.pub); /* a member too, with her own disco key */
	ping.ping.node = bob_node.pub;

	/* unknown key: consumed, silent */
	n = box(&nobody, &t.disco.pub, &ping, wire);
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	/* a known key on a box of somebody else's; broken; short; for another receiver */
	memcpy(wire + DISCO_MAGIC_LEN, bob_disco.pub.b, KEY_LEN);
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	n = box(&bob_disco, &nobody.pub, &ping, wire);
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	n = box(&bob_disco, &t.disco.pub, &ping, wire);
	for (size_t i = DISCO_HEADER_LEN; i < n; i++)
		assert_true(paths_udp_received(t.p, &from, &local, wire, i, T0));
	assert_int_equal(t.n_udp + t.n_derp, 0);
	/* not disco at all: WireGuard's */
	assert_false(paths_udp_received(t.p, &from, &local, "\x04\0\0\0hello", 9, T0));
	assert_false(paths_derp_received(t.p, 3, &bob_node.pub, "\x04\0\0\0hello", 9, T0));

	/* the real one: a pong to its source, from where it came in, and a ping back */
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	assert_int_equal(t.n_udp, 2);
	assert_true(endpoint_equal(&t.udp_to, &from));
	assert_true(addr_equal(&t.udp_from, &local));
	assert_int_equal(disco_shared_init(&bob_disco.priv, &t.disco.pub, &k), 0);
	r = disco_open(&k, t.udp, t.udp_len, plain, sizeof(plain));
	assert_true(r > 0 && disco_msg_decode(plain, (size_t)r, &m) == 0);
	assert_int_equal(m.type, DISCO_TYPE_PONG);
	assert_memory_equal(&m.pong.txid, &ping.ping.txid, sizeof(ping.ping.txid));
	assert_true(endpoint_equal(&m.pong.seen, &from));
	/* replayed: nothing; replayed from elsewhere: answered there once, as stock nodes do */
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	assert_int_equal(t.n_udp, 2);
	for (int i = 0; i < 5; i++)
		assert_true(paths_udp_received(t.p, &other, &local, wire, n, T0));
	assert_int_equal(t.n_udp, 3);
	assert_true(endpoint_equal(&t.udp_to, &other));

	/* by relay: the answer goes there, and names the region as 127.3.3.40 */
	assert_true(paths_derp_received(t.p, 5, &bob_node.pub, wire, n, T0));
	assert_int_equal(t.n_derp, 1);
	assert_int_equal(t.region, 5);
	r = disco_open(&k, t.derp, t.derp_len, plain, sizeof(plain));
	assert_true(r > 0 && disco_msg_decode(plain, (size_t)r, &m) == 0);
	assert_int_equal(m.pong.seen.port, 5);
	assert_true(addr_equal(&m.pong.seen.addr, &(struct addr){ 4, { 127, 3, 3, 40 } }));
	assert_true(paths_derp_received(t.p, 5, &nobody.pub, wire, n, T0)); /* no member */
	assert_int_equal(t.n_derp, 1);

	/* CallMeMaybe: not by UDP, not from another member's relay client, not with another's key
	 */
	t.n_udp = 0;
	call.call.n = 1;
	call.call.at[0] = other;
	call.call.at[0].port = 9;
	n = box(&bob_disco, &t.disco.pub, &call, wire);
	paths_udp_received(t.p, &from, &local, wire, n, T0 + 10 * SEC);
	paths_derp_received(t.p, 5, &eve_node.pub, wire, n, T0 + 10 * SEC);
	paths_derp_received(t.p, 5, &nobody.pub, wire, n, T0 + 10 * SEC);
	assert_int_equal(t.n_udp, 0);
	paths_derp_received(t.p, 5, &bob_node.pub, wire, n, T0 + 10 * SEC);
	assert_int_equal(t.n_udp, 3);  /* the new address and the two that pinged */
	assert_int_equal(t.n_derp, 1); /* no CallMeMaybe in return */
	/* types of peer relays are for others */
	t.n_udp = t.n_derp = 0;
	for (uint8_t type = 4; type < 12; type++) {
		uint8_t inner[80] = { type };

		r = disco_seal(&k, &bob_disco.pub, NULL, inner, sizeof(inner), wire, sizeof(wire));
		assert_true(paths_udp_received(t.p, &from, &local, wire, (size_t)r, T0 + 11 * SEC));
		assert_true(
		    paths_derp_received(t.p, 5, &bob_node.pub, wire, (size_t)r, T0 + 11 * SEC));
	}
	assert_int_equal(t.n_udp + t.n_derp, 0);
	assert_int_equal(t.n_sets, 0);
	paths_free(t.p);
}

/* A member that floods with new source ports costs bounded memory and bounded pings. */
static void test_flood(void **state)
{
	struct endpoint from = { addr_v4(203, 0, 113, 5), 1 };
	struct addr local = addr_v4(10, 0, 0, 9);
	struct disco_msg ping = { .type = DISCO_TYPE_PING };
	struct key_pair bob_disco, bob_node;
	uint8_t wire[DISCO_WIRE_MAX];
	struct tap t;
	size_t n, before;

	(void)state;
	key_pair_generate(&bob_disco);
	key_pair_generate(&bob_node);
	tap_init(&t);
	tap_peer(&t, 1, &bob_node.pub, &bob_disco.pub);
	ping.ping.node = bob_node.pub;
	before = mallinfo2().uordblks;
	for (uint32_t i = 0; i < 5000; i++) {
		from.port = (uint16_t)(i + 1);
		memcpy(ping.ping.txid.b, &i, sizeof(i));
		n = box(&bob_disco, &t.disco.pub, &ping, wire);
		paths_udp_received(t.p, &from, &local, wire, n, T0 + i * 100);
	}
	assert_in_range(t.n_udp, 100, 110); /* a pong each to the first hundred, hardly a ping */
	assert_true(mallinfo2().uordblks - before < 16384);
	paths_free(t.p);
}

/* Somebody who knows bob's disco key, and no secret, sends forged boxes by the ten thousand: what bob
 * sends from where he is known to be is answered all the same. */
static void test_forged_flood(void **state)
{
	struct endpoint home = { addr_v4(198, 51, 100, 2), 41641 },
			from = { addr_v4(203, 0, 113, 5), 1 };
	struct addr local = addr_v4(10, 0, 0, 9);
	struct disco_msg ping = { .type = DISCO_TYPE_PING }, pong = { .type = DISCO_TYPE_PONG }, m;
	struct key_pair bob_disco, bob_node, eve;
	uint8_t wire[DISCO_WIRE_MAX], forged[DISCO_WIRE_MAX], plain[256];
	struct disco_shared k;
	struct tap t;
	size_t n, n_forged;
	int r;

	(void)state;
	key_pair_generate(&bob_disco);
	key_pair_generate(&bob_node);
	key_pair_generate(&eve);
	tap_init(&t);
	tap_peer(&t, 1, &bob_node.pub, &bob_disco.pub);
	ping.ping.node = bob_node.pub;
	ping.ping.has_node = true;
	n = box(&bob_disco, &t.disco.pub, &ping, wire);
	paths_udp_received(t.p, &home, &local, wire, n, T0);
	assert_int_equal(t.n_udp, 2); /* a pong and a ping, which bob answers */
	assert_int_equal(disco_shared_init(&bob_disco.priv, &t.disco.pub, &k), 0);
	/* the ping goes first, the pong last: ask for another one */
	assert_int_equal(paths_ping(t.p, 1, tap_pong, NULL, T0 + 1), 1);
	r = disco_open(&k, t.udp, t.udp_len, plain, sizeof(plain));
	assert_true(r > 0 && disco_msg_decode(plain, (size_t)r, &m) == 0);
	assert_int_equal(m.type, DISCO_TYPE_PING);
	pong.pong.txid = m.ping.txid;
	pong.pong.seen = home;
	n = box(&bob_disco, &t.disco.pub, &pong, wire);
	paths_udp_received(t.p, &home, &local, wire, n, T0 + 2);
	assert_int_equal(t.n_sets, 1);

	n_forged = box(&eve, &t.disco.pub, &ping, forged);
	memcpy(forged + DISCO_MAGIC_LEN, bob_disco.pub.b, KEY_LEN);
	for (uint32_t sec = 1; sec < 4; sec++) {
		for (uint32_t i = 0; i < 30000; i++) {
			from.port = (uint16_t)(i + 1);
			paths_udp_received(t.p, &from, &local, forged, n_forged, T0 + sec * SEC + i);
			if (i % 3000 == 0) /* by relays as well */
				paths_derp_received(t.p, 3, &bob_node.pub, forged, n_forged,
						    T0 + sec * SEC + i);
		}
		t.n_udp = 0;
		memcpy(ping.ping.txid.b, &sec, sizeof(sec));
		n = box(&bob_disco, &t.disco.pub, &ping, wire);
		paths_udp_received(t.p, &home, &local, wire, n, T0 + sec * SEC + 40000);
		assert_int_equal(t.n_udp, 1);
		assert_true(endpoint_equal(&t.udp_to, &home));
	}
	assert_int_equal(t.n_sets, 1); /* and nothing moved */

	/* a relay that invents handshakes: ten a second go on; data, and the next second, do */
	for (r = 0, n = 0; n < 1000; n++)
		r += paths_relayed_allowed(t.p, &bob_node.pub, (const uint8_t *)"\1\0\0\0x", 5,
					   T0 + 5 * SEC + n);
	assert_int_equal(r, 10);
	assert_true(paths_relayed_allowed(t.p, &bob_node.pub, (const uint8_t *)"\4\0\0\0x", 5,
					  T0 + 5 * SEC + n));
	assert_true(paths_relayed_allowed(t.p, &bob_node.pub, (const uint8_t *)"\1\0\0\0x", 5,
					  T0 + 6 * SEC));
	assert_false(paths_relayed_allowed(t.p, &eve.pub, (const uint8_t *)"\4\0\0\0x", 5,
					   T0 + 6 * SEC));
	paths_free(t.p);
}

/* Inside the tunnel a peer is heard a few times a second, and the next one not less for it. */
static void test_tsmp(void **state)
{
	struct key_pair disco, bob, carol;
	unsigned int heard = 0;
	struct tap t;

	(void)state;
	key_pair_generate(&disco);
	key_pair_generate(&bob);
	key_pair_generate(&carol);
	tap_init(&t);
	tap_peer(&t, 1, &bob.pub, &disco.pub);
	tap_peer(&t, 2, &carol.pub, &disco.pub);
	for (uint64_t i = 0; i < 30000; i++)
		heard += paths_tsmp_allowed(t.p, 1, T0 + i * 100);
	assert_int_equal(heard, 15); /* in three seconds */
	assert_true(paths_tsmp_allowed(t.p, 2, T0 + 3 * SEC));
	assert_true(paths_tsmp_allowed(t.p, 1, T0 + 3 * SEC));
	assert_false(paths_tsmp_allowed(t.p, 3, T0 + 3 * SEC));
	paths_free(t.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_forged_flood),
		cmocka_unit_test(test_tsmp),
	};

	return key_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
