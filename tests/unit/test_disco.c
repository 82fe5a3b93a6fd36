/* disco, tsmp: the published vector, recorded sessions with stock nodes, refusals, limits, nonces. */
#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/cleanup.h"
#include "proto/disco.h"
#include "proto/tsmp.h"
#include "tests/unit/addr_text.h"

static size_t unhex(const char *s, uint8_t *out, size_t cap)
{
	size_t n = 0;

	assert_int_equal(sodium_hex2bin(out, cap, s, strlen(s), NULL, &n, NULL), 0);
	return n;
}

static struct key key_of(const char *hex)
{
	struct key k;

	assert_int_equal(key_parse(KEY_KIND_HEX, hex, strlen(hex), &k), 0);
	return k;
}

/* protocol/disco.md 19 */
static void test_vector(void **state)
{
	static const char *const wire_hex =
	    "5453f09f92ac07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"
	    "000102030405060708090a0b0c0d0e0f1011121314151617"
	    "e3168b8c1b1b068322f7749b2fcef7f96e35b9664ff6c133f25b23b691a0369de92cb2e6c0983503939e"
	    "0f912929f20fd957193786d13abf9e297d229021";
	struct key a_priv, b_priv, a_pub, b_pub, sender;
	struct disco_shared ab, ba;
	struct disco_msg m = {.type = DISCO_TYPE_PING}, back;
	uint8_t want[256], wire[256], plain[256], nonce[DISCO_NONCE_LEN];
	size_t n;
	int r;

	(void)state;
	for (size_t i = 0; i < KEY_LEN; i++)
		b_priv.b[i] = (uint8_t)(0x40 + i);
	/* clamped, as the document gives them: 00 02 03 .. 1e 1f 60 */
	a_priv = key_of("0002030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f60");
	assert_int_equal(key_public(&a_priv, &a_pub), 0);
	assert_int_equal(key_public(&b_priv, &b_pub), 0);
	sender = key_of("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c");
	assert_true(key_equal(&a_pub, &sender));
	assert_int_equal(disco_shared_init(&a_priv, &b_pub, &ab), 0);
	assert_int_equal(disco_shared_init(&b_priv, &a_pub, &ba), 0);
	assert_memory_equal(ab.b, ba.b, sizeof(ab.b));
	n = unhex("9e37e3406bf2f4e3027022945e0f1e159739ceae2cca4d45aa3592ea30e07183", want,
		  sizeof(want));
	assert_memory_equal(ab.b, want, n);

	for (size_t i = 0; i < sizeof(nonce); i++)
		nonce[i] = (uint8_t)i;
	for (size_t i = 0; i < DISCO_TXID_LEN; i++)
		m.ping.txid.b[i] = (uint8_t)(0xa0 + i);
	for (size_t i = 0; i < KEY_LEN; i++)
		m.ping.node.b[i] = (uint8_t)(0xc0 + i % 16);
	r = disco_msg_encode(&m, plain, sizeof(plain));
	assert_int_equal(r, 46);
	r = disco_seal(&ab, &a_pub, nonce, plain, (size_t)r, wire, sizeof(wire));
	assert_int_equal(r, 124);
	n = unhex(wire_hex, want, sizeof(want));
	assert_int_equal(n, 124);
	assert_memory_equal(wire, want, n);

	assert_int_equal(disco_sender(wire, n, &sender), 0);
	assert_true(key_equal(&sender, &a_pub));
	r = disco_open(&ba, wire, n, plain, sizeof(plain));
	assert_int_equal(r, 46);
	assert_int_equal(disco_msg_decode(plain, (size_t)r, &back), 0);
	assert_int_equal(back.type, DISCO_TYPE_PING);
	assert_true(back.ping.has_node);
	assert_true(key_equal(&back.ping.node, &m.ping.node));
	assert_memory_equal(back.ping.txid.b, m.ping.txid.b, DISCO_TXID_LEN);
	for (size_t i = 0; i < n; i++) { /* nothing but the sender's key may be changed unseen */
		if (i >= DISCO_MAGIC_LEN && i < DISCO_MAGIC_LEN + KEY_LEN)
			continue;
		wire[i] ^= 0x20;
		assert_int_equal(disco_open(&ba, wire, n, plain, sizeof(plain)), -EBADMSG);
		wire[i] ^= 0x20;
	}
	for (size_t i = 0; i < n; i++)
		assert_int_equal(disco_open(&ba, wire, i, plain, sizeof(plain)), -EBADMSG);
	assert_int_equal(disco_open(&ba, wire, n, plain, 45), -ENOBUFS);
}

static void test_plain_layouts(void **state)
{
	struct disco_msg m = {.type = DISCO_TYPE_PONG}, back;
	uint8_t out[256], want[64];
	size_t n;

	(void)state;
	memset(m.pong.txid.b, 7, DISCO_TXID_LEN);
	m.pong.seen = ep("203.0.113.9:41641");
	n = unhex("020007070707070707070707070700000000000000000000ffffcb007109a2a9", want,
		  sizeof(want));
	assert_int_equal(disco_msg_encode(&m, out, sizeof(out)), (int)n);
	assert_memory_equal(out, want, n);
	assert_int_equal(disco_msg_decode(out, n, &back), 0);
	assert_true(endpoint_equal(&back.pong.seen, &m.pong.seen));
	assert_int_equal(disco_msg_decode(out, n - 1, &back), -EBADMSG);

	m = (struct disco_msg){.type = DISCO_TYPE_CALL_ME_MAYBE};
	m.call.n = 2;
	m.call.at[0] = ep("203.0.113.9:41641");
	m.call.at[1] = ep("[2001:db8::9]:1");
	n = unhex("030000000000000000000000ffffcb007109a2a920010db80000000000000000000000090001",
		  want, sizeof(want));
	assert_int_equal(disco_msg_encode(&m, out, sizeof(out)), (int)n);
	assert_memory_equal(out, want, n);
	assert_int_equal(disco_msg_decode(out, n, &back), 0);
	assert_int_equal(back.call.n, 2);
	assert_true(endpoint_equal(&back.call.at[1], &m.call.at[1]));
	/* a broken list or a later version is an empty list */
	assert_int_equal(disco_msg_decode(out, n - 1, &back), 0);
	assert_int_equal(back.call.n, 0);
	out[1] = 1;
	assert_int_equal(disco_msg_decode(out, n, &back), 0);
	assert_int_equal(back.call.n, 0);
}

static void test_limits(void **state)
{
	uint8_t big[2 + (DISCO_ENDPOINTS_MAX + 5) * DISCO_ENDPOINT_LEN] = {
	    DISCO_TYPE_CALL_ME_MAYBE};
	uint8_t out[256];
	struct disco_msg m;

	(void)state;
	assert_int_equal(disco_msg_decode(big, sizeof(big), &m), 0);
	assert_int_equal(m.call.n, DISCO_ENDPOINTS_MAX);
	assert_int_equal(disco_msg_encode(&m, out, sizeof(out)), -ENOBUFS);
	assert_int_equal(disco_msg_decode("", 0, &m), -EBADMSG);
	assert_int_equal(disco_msg_decode("\x01", 1, &m), -EBADMSG);
	/* ping without node key, ping with padding, peer relay types, types nobody knows */
	memset(big, 0, sizeof(big));
	big[0] = DISCO_TYPE_PING;
	assert_int_equal(disco_msg_decode(big, 14, &m), 0);
	assert_false(m.ping.has_node);
	assert_int_equal(disco_msg_decode(big, 13, &m), -EBADMSG);
	assert_int_equal(disco_msg_decode(big, sizeof(big), &m), 0);
	assert_true(m.ping.has_node);
	for (unsigned int t = 4; t < 256; t++) {
		big[0] = (uint8_t)t;
		assert_int_equal(disco_msg_decode(big, 2, &m), 0);
		assert_int_equal(m.type, t);
	}
	assert_false(disco_looks_like(DISCO_MAGIC, 6));
	memcpy(big, DISCO_MAGIC, DISCO_MAGIC_LEN);
	assert_true(disco_looks_like(big, DISCO_HEADER_LEN));
	assert_false(disco_looks_like(big, DISCO_HEADER_LEN - 1));
}

static void test_recorded(void **state)
{
	char line[4096], dir[8], via[64], disco[80], node[80], wire_hex[2048], plain_hex[1024];
	unsigned int seen[4] = {0};
	struct key priv = {0}, pub = {0}, self_node = {0};
	FILE *f = fopen("tests/data/disco/recorded.txt", "r");

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		uint8_t wire[1024], plain[512], got[512], again[1024];
		struct disco_shared shared;
		struct key peer, peer_node, sender;
		struct disco_msg m;
		size_t n, len;

		if (line[0] == '#')
			continue;
		if (sscanf(line, "key %79s %79s %79s", wire_hex, disco, node) == 3) {
			priv = key_of(wire_hex);
			pub = key_of(disco);
			self_node = key_of(node);
			continue;
		}
		assert_int_equal(sscanf(line, "%7s %63s %79s %79s %2047s %1023s", dir, via, disco,
					node, wire_hex, plain_hex),
				 6);
		peer = key_of(disco);
		peer_node = key_of(node);
		n = unhex(wire_hex, wire, sizeof(wire));
		len = unhex(plain_hex, plain, sizeof(plain));
		assert_int_equal(disco_shared_init(&priv, &peer, &shared), 0);
		assert_int_equal(disco_sender(wire, n, &sender), 0);
		assert_true(key_equal(&sender, dir[0] == 'i' ? &peer : &pub));
		assert_int_equal(disco_open(&shared, wire, n, got, sizeof(got)), (int)len);
		assert_memory_equal(got, plain, len);
		assert_int_equal(disco_msg_decode(plain, len, &m), 0);
		assert_in_range(m.type, 1, 3);
		if (m.type == DISCO_TYPE_PING)
			assert_true(
			    key_equal(&m.ping.node, dir[0] == 'i' ? &peer_node : &self_node));
		seen[m.type]++;
		/* our own encoder makes the same bytes */
		assert_int_equal(disco_msg_encode(&m, got, sizeof(got)), (int)len);
		assert_memory_equal(got, plain, len);
		assert_int_equal(disco_seal(&shared, &sender, wire + DISCO_MAGIC_LEN + KEY_LEN, got,
					    len, again, sizeof(again)),
				 (int)n);
		assert_memory_equal(again, wire, n);
	}
	fclose(f);
	assert_true(seen[1] >= 10 && seen[2] >= 8 && seen[3] >= 3);
}

static void test_tsmp(void **state)
{
	char line[1024];
	uint8_t ip[256], out[TSMP_MAX];
	struct tsmp_msg m;
	unsigned int packets = 0;
	FILE *f = fopen("tests/data/disco/tsmp.txt", "r");

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		size_t n, head;

		if (line[0] == '#')
			continue;
		line[strcspn(line, "\n")] = 0;
		n = unhex(line, ip, sizeof(ip));
		head = (ip[0] & 15U) * 4U;
		assert_int_equal(ip[9], TSMP_IPPROTO);
		assert_int_equal(tsmp_decode(ip + head, n - head, &m), 0);
		assert_int_equal(m.type, TSMP_TYPE_DISCO_KEY);
		assert_int_equal(tsmp_encode(&m, out), (int)(n - head));
		assert_memory_equal(out, ip + head, n - head);
		assert_int_equal(tsmp_decode(ip + head, n - head - 1, &m), -EBADMSG);
		packets++;
	}
	fclose(f);
	assert_true(packets > 0);
	assert_int_equal(tsmp_decode("p12345678", 9, &m), 0);
	m.type = TSMP_TYPE_PONG;
	m.ping.peerapi_port = 0x1234;
	assert_int_equal(tsmp_encode(&m, out), 11);
	assert_memory_equal(out, "o12345678\x12\x34", 11);
	assert_int_equal(tsmp_decode(out, 9, &m), 0); /* without the port */
	assert_int_equal(m.ping.peerapi_port, 0);
	assert_int_equal(tsmp_decode("!\x06"
				     "A\x01\x02\x03\x04\x01",
				     8, &m),
			 0);
	assert_int_equal(m.rejected.dst_port, 0x304);
	assert_true(m.rejected.maybe_broken);
	assert_int_equal(tsmp_decode("", 0, &m), -EBADMSG);
}

static int nonce_cmp(const void *a, const void *b)
{
	return memcmp(a, b, DISCO_NONCE_LEN);
}

/* One key serves two nodes for days, so no two boxes may share a nonce (compare GO-2024-3057). */
static void test_nonces(void **state)
{
	enum { BOXES = 100000 };
	static uint8_t nonces[BOXES][DISCO_NONCE_LEN];
	struct key_pair a, b;
	struct disco_shared k;
	uint8_t plain[16] = { 0 }, wire[DISCO_OVERHEAD + sizeof(plain)];

	(void)state;
	key_pair_generate(&a);
	key_pair_generate(&b);
	assert_int_equal(disco_shared_init(&a.priv, &b.pub, &k), 0);
	for (size_t i = 0; i < BOXES; i++) {
		assert_int_equal(disco_seal(&k, &a.pub, NULL, plain, sizeof(plain), wire, sizeof(wire)), sizeof(wire));
		memcpy(nonces[i], wire + DISCO_HEADER_LEN - DISCO_NONCE_LEN, DISCO_NONCE_LEN);
	}
	qsort(nonces, BOXES, DISCO_NONCE_LEN, nonce_cmp);
	for (size_t i = 1; i < BOXES; i++)
		assert_memory_not_equal(nonces[i - 1], nonces[i], DISCO_NONCE_LEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_vector), cmocka_unit_test(test_plain_layouts),
	    cmocka_unit_test(test_limits), cmocka_unit_test(test_recorded),
	    cmocka_unit_test(test_tsmp),	   cmocka_unit_test(test_nonces),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
