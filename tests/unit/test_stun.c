/* stun: vectors, what stock nodes sent and took, and what must get no answer. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include <sodium.h>

#include "lib/json.h"
#include "proto/stun.h"
#include "tests/unit/addr_text.h"

static size_t unhex(const char *hex, uint8_t *out, size_t cap)
{
	size_t n;

	assert_int_equal(sodium_hex2bin(out, cap, hex, strlen(hex), NULL, &n, NULL), 0);
	return n;
}

static const char request_hex[] =
    "000100142112a4420102030405060708090a0b0c802200087461696c6e6f646580280004b32c370f";

static void test_vectors(void **state)
{
	static const struct {
		const char *src, *hex;
		bool ours; /* mapped IPv4 in family 2 is read but not written */
	} t[] = {
		{ "203.0.113.9:41641",
		  "0101000c2112a4420102030405060708090a0b0c00200008000183bbea12d54b", true },
		{ "203.0.113.9:41641",
		  "010100182112a4420102030405060708090a0b0c00200014000283bb"
		  "2112a442010203040506f8f7c20a7a05",
		  false },
		{ "[2001:db8::9]:41641",
		  "010100182112a4420102030405060708090a0b0c00200014000283bb"
		  "0113a9fa0102030405060708090a0b05",
		  true },
		/* 8020, and MAPPED-ADDRESS alone */
		{ "203.0.113.9:41641",
		  "0101000c2112a4420102030405060708090a0b0c80200008000183bbea12d54b", false },
		{ "203.0.113.9:41641",
		  "0101000c2112a4420102030405060708090a0b0c000100080001a2a9cb007109", false },
		/* an unknown attribute before, bytes behind the attributes */
		{ "203.0.113.9:41641",
		  "010100142112a4420102030405060708090a0b0c7777000361626300"
		  "00200008000183bbea12d54bffff",
		  false },
	};
	uint8_t txid[12], got[12], b[64], want[64];

	(void)state;
	for (uint8_t i = 0; i < sizeof(txid); i++)
		txid[i] = (uint8_t)(i + 1);
	stun_request_encode(txid, b);
	assert_int_equal(unhex(request_hex, want, sizeof(want)), STUN_REQUEST_LEN);
	assert_memory_equal(b, want, STUN_REQUEST_LEN);
	assert_int_equal(stun_request_decode(b, STUN_REQUEST_LEN, got), 0);
	assert_memory_equal(got, txid, sizeof(txid));
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct endpoint src = ep(t[i].src), back;
		size_t n = unhex(t[i].hex, want, sizeof(want));

		if (t[i].ours) {
			assert_int_equal(stun_response_encode(txid, &src, b), n);
			assert_memory_equal(b, want, n);
		}
		assert_int_equal(stun_response_decode(want, n, got, &back), 0);
		assert_true(endpoint_equal(&src, &back));
		assert_memory_equal(got, txid, sizeof(txid));
		for (size_t cut = 0; cut < n; cut++)
			if (i != ARRAY_SIZE(t) - 1 || cut < n - 2)
				assert_int_equal(stun_response_decode(want, cut, got, &back),
						 -EBADMSG);
	}
}

static void test_sessions(void **state)
{
	json_t *j = json_load_file("tests/data/stun/sessions.json", 0, NULL), *e;
	size_t i;

	(void)state;
	assert_true(json_array_size(j) >= 16);
	json_array_foreach (j, i, e) {
		struct endpoint src = ep(json_get_str(e, "src")), back;
		uint8_t req[64], res[64], out[64], txid[12], txid2[12];
		size_t n;

		n = unhex(json_get_str(e, "request"), req, sizeof(req));
		assert_int_equal(n, STUN_REQUEST_LEN);
		assert_int_equal(stun_request_decode(req, n, txid), 0);
		stun_request_encode(txid, out);
		assert_memory_equal(out, req, STUN_REQUEST_LEN);
		n = unhex(json_get_str(e, "response"), res, sizeof(res));
		assert_int_equal(stun_response_decode(res, n, txid2, &back), 0);
		assert_memory_equal(txid, txid2, sizeof(txid));
		assert_true(endpoint_equal(&src, &back));
		if (n == 32) {
			assert_int_equal(stun_response_encode(txid, &src, out), n);
			assert_memory_equal(out, res, n);
		}
	}
	json_decref(j);
}

static void test_silence(void **state)
{
	uint8_t good[64], b[64], txid[12];
	size_t n = unhex(request_hex, good, sizeof(good));
	/* SOFTWARE behind other attributes is taken, as long as FINGERPRINT is last. */
	static const char other_order[] =
	    "0001001c2112a4420102030405060708090a0b0c0006000475736572802200087461696c6e6f6465";
	static const char no_value[] = "000100102112a4420102030405060708dda9c3d8802200087461696c6e6f646580280000";

	(void)state;
	for (size_t cut = 0; cut < n; cut++)
		assert_int_equal(stun_request_decode(good, cut, txid), -EBADMSG);
	for (size_t bit = 0; bit < n * 8; bit++) {
		memcpy(b, good, n);
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(stun_request_decode(b, n, txid), -EBADMSG);
	}
	/* FINGERPRINT without its value, where it would be zero. */
	assert_int_equal(unhex(no_value, b, sizeof(b)), 36);
	assert_int_equal(stun_request_decode(b, 36, txid), -EBADMSG);
	/* No fingerprint. */
	assert_int_equal(unhex(other_order, b, sizeof(b)), 40);
	assert_int_equal(stun_request_decode(b, 40, txid), -EBADMSG);
	/* Something behind the fingerprint. */
	memcpy(b, good, n);
	memcpy(b + n, "\x77\x77\0\0", 4);
	assert_int_equal(stun_request_decode(b, n + 4, txid), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_silence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
