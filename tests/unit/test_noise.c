#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "lib/noise.h"
#include "tests/unit/weak_keys.h"

/* control.md 4.5, made with the reference implementation */
#define VERSION 125

static void unhex(const char *s, uint8_t *out, size_t n)
{
	size_t got;

	assert_int_equal(sodium_hex2bin(out, n, s, strlen(s), " \n", &got, NULL), 0);
	assert_int_equal(got, n);
}

#define assert_hex(p, n, hex)                                                                      \
	do {                                                                                       \
		uint8_t want_[n];                                                                  \
		unhex(hex, want_, n);                                                              \
		assert_memory_equal(p, want_, n);                                                  \
	} while (0)

static struct key_pair counting(uint8_t from)
{
	struct key_pair p;

	for (size_t i = 0; i < KEY_LEN; i++)
		p.priv.b[i] = (uint8_t)(from + i);
	assert_int_equal(key_public(&p.priv, &p.pub), 0);
	return p;
}

struct session {
	struct noise_handshake c, s;
	struct noise_transport ct, st;
	uint8_t initiation[NOISE_INITIATION_LEN], response[NOISE_RESPONSE_LEN];
};

static void vector_session(struct session *x)
{
	struct key_pair machine = counting(0), ce = counting(0x20), server = counting(0x40), se = counting(0x60);

	assert_int_equal(noise_initiator_start(&x->c, &machine, &server.pub, VERSION, &ce, x->initiation), 0);
	assert_int_equal(noise_responder_read(&x->s, &server, x->initiation, sizeof(x->initiation)), 0);
	assert_true(key_equal(&x->s.peer_static, &machine.pub));
	assert_int_equal(x->s.version, VERSION);
	/* What the messages do not show: both sides stand at the same place, with the vector's values. */
	assert_memory_equal(x->c.h, x->s.h, 32);
	assert_hex(x->c.ck, 32, "73bb1d44126d3a26576ea1cb0f5e52179cc8698322bcbe9934bba7a93cb5fe56");
	assert_hex(x->c.k, 32, "bd761e8eae56cf7a36fb09d4dc0ba32340e08830255e0a18e040342ed8b159ad");
	assert_hex(x->s.ck, 32, "73bb1d44126d3a26576ea1cb0f5e52179cc8698322bcbe9934bba7a93cb5fe56");
	assert_hex(x->s.k, 32, "bd761e8eae56cf7a36fb09d4dc0ba32340e08830255e0a18e040342ed8b159ad");
	assert_int_equal(noise_responder_reply(&x->s, &se, x->response, &x->st), 0);
	assert_int_equal(noise_initiator_finish(&x->c, x->response, &x->ct), 0);
}

static void vector(void **state)
{
	static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	struct key_pair server = counting(0x40);
	struct session x;
	uint8_t out[64];
	int n;

	(void)state;
	assert_hex(server.pub.b, 32, "79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a");
	vector_session(&x);
	assert_hex(x.initiation, sizeof(x.initiation),
		   "007d010060358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"
		   "ad5b8febedeb97415be53612205e6bfab385e34cb127dd8854c4f9afb10f9b0e1d4a3493d5a8"
		   "28045700b48796dc4574489a3b06d6aa2a1d01ad9c0675236a56");
	assert_hex(x.response, sizeof(x.response),
		   "020030675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f2600b2"
		   "64bbb9b4d5660fd6ac9c32062c");
	assert_hex(x.ct.hash, 32, "322143f3b8bb2ccf6426190dae69c6e26e7ac7f38537cd4737e19bbd261a098f");
	assert_hex(x.ct.tx.key.b, 32, "1ffa520b7b784b83355f4ca5754d333f51f53ff31d9d98f697c22e8f79b66e22");
	assert_hex(x.ct.rx.key.b, 32, "1657d025486888648386e46e37e6722a42c605d3f1b0ec24454190a645355089");
	assert_memory_equal(&x.ct.tx, &x.st.rx, sizeof(x.ct.tx));
	assert_memory_equal(&x.ct.rx, &x.st.tx, sizeof(x.ct.rx));
	n = noise_seal(&x.ct.tx, preface, sizeof(preface) - 1, out);
	assert_int_equal(n, 43);
	assert_hex(out, 43, "040028e42e01d8573d1173d84370e6f20edf94d699eeecda7e16e9df232e7952f0f78675a9b5941bce62c2");
	n = noise_seal(&x.st.tx, (const uint8_t *)"\xff\xff\xffTS", 5, out);
	assert_int_equal(n, 24);
	assert_hex(out, 24, "040015970a14771e3986da5bc61cb910623aa7aba8c4df6f");
	/* The second record shows the counter's byte order. */
	n = noise_seal(&x.st.tx, (const uint8_t *)"hello", 5, out);
	assert_int_equal(n, 24);
	assert_hex(out, 24, "040015891ee68f2f7ea27b189b4bf52d8002bee5dbd132a2");
}

/* The state before any Diffie-Hellman, and after the first, is gone when noise_initiator_start() returns: its hash shows
 * in that a wrong version or a wrong static key changes everything behind it. */
static void wrong_keys(void **state)
{
	struct key_pair machine = counting(0), other = counting(0x80), server = counting(0x40);
	uint8_t m[NOISE_INITIATION_LEN], resp[NOISE_RESPONSE_LEN];
	struct noise_handshake c, s;
	struct noise_transport ct, st;

	(void)state;
	assert_int_equal(noise_initiator_start(&c, &machine, &other.pub, VERSION, NULL, m), 0);
	assert_int_equal(noise_responder_read(&s, &server, m, sizeof(m)), -EACCES);
	assert_true(sodium_is_zero((uint8_t *)&s, sizeof(s)));

	/* another version than the one in the prologue */
	assert_int_equal(noise_initiator_start(&c, &machine, &server.pub, VERSION, NULL, m), 0);
	m[1] ^= 1;
	assert_int_equal(noise_responder_read(&s, &server, m, sizeof(m)), -EACCES);
	m[1] ^= 1;

	/* each byte of the message counts */
	for (size_t i = 0; i < sizeof(m); i++) {
		m[i] ^= 0x40;
		assert_true(noise_responder_read(&s, &server, m, sizeof(m)) < 0);
		m[i] ^= 0x40;
	}
	assert_int_equal(noise_responder_read(&s, &server, m, sizeof(m) - 1), -EBADMSG);

	/* a response by somebody who has not the server's key */
	assert_int_equal(noise_responder_read(&s, &server, m, sizeof(m)), 0);
	assert_int_equal(noise_responder_reply(&s, NULL, resp, &st), 0);
	for (size_t i = 0; i < sizeof(resp); i++) {
		struct noise_handshake copy = c;

		resp[i] ^= 0x40;
		assert_true(noise_initiator_finish(&copy, resp, &ct) < 0);
		resp[i] ^= 0x40;
	}
	assert_int_equal(noise_initiator_finish(&c, resp, &ct), 0);
	assert_memory_equal(ct.hash, st.hash, 32);
	assert_true(sodium_is_zero((uint8_t *)&c, sizeof(c)));
	/* the responder keeps who it was, and no secret */
	assert_true(key_equal(&s.peer_static, &machine.pub));
	assert_int_equal(s.version, VERSION);
	assert_true(sodium_is_zero((uint8_t *)&s.static_key, sizeof(s.static_key)));
}

/* Whoever plays one of these knows the secret without a private key. As the server's key, as the ephemeral one, and as
 * the machine's: that is behind a cipher that is still good, and must not be what is refused for its tag. */
static void low_order(void **state)
{
	struct key_pair machine = counting(0), server = counting(0x40), weak;
	struct noise_handshake c, s;
	uint8_t m[NOISE_INITIATION_LEN];

	(void)state;
	for (size_t i = 0; i < WEAK_KEYS; i++) {
		weak = (struct key_pair){ .pub = weak_key(i), .priv = machine.priv };
		assert_int_equal(noise_initiator_start(&c, &machine, &weak.pub, VERSION, NULL, m), -EBADMSG);
		assert_int_equal(noise_initiator_start(&c, &machine, &server.pub, VERSION, NULL, m), 0);
		memcpy(m + 5, weak.pub.b, KEY_LEN);
		assert_int_equal(noise_responder_read(&s, &server, m, sizeof(m)), -EBADMSG);
		assert_int_equal(noise_initiator_start(&c, &weak, &server.pub, VERSION, NULL, m), 0);
		assert_int_equal(noise_responder_read(&s, &server, m, sizeof(m)), -EBADMSG);
		assert_true(sodium_is_zero((uint8_t *)&s, sizeof(s)));
	}
}

static void records(void **state)
{
	static uint8_t plain[NOISE_PLAIN_MAX + 1], back[NOISE_FRAME_MAX];
	uint8_t frame[NOISE_FRAME_MAX + 1];
	struct noise_cipher again, later;
	struct session x;
	int n;

	(void)state;
	vector_session(&x);
	randombytes_buf(plain, sizeof(plain));
	n = noise_seal(&x.ct.tx, plain, NOISE_PLAIN_MAX, frame);
	assert_int_equal(n, NOISE_FRAME_MAX);
	assert_int_equal(noise_record_length(frame, 3), NOISE_FRAME_MAX);
	again = x.st.rx;
	assert_int_equal(noise_open(&x.st.rx, frame, (size_t)n, back), NOISE_PLAIN_MAX);
	assert_memory_equal(back, plain, NOISE_PLAIN_MAX);
	/* replayed */
	assert_int_equal(noise_open(&x.st.rx, frame, (size_t)n, back), -EBADMSG);
	assert_int_equal(x.st.rx.counter, 1);
	/* cut, padded, changed */
	assert_int_equal(noise_open(&again, frame, (size_t)n - 1, back), -EBADMSG);
	frame[n] = 0;
	assert_int_equal(noise_open(&again, frame, (size_t)n + 1, back), -EBADMSG);
	frame[100] ^= 1;
	assert_int_equal(noise_open(&again, frame, (size_t)n, back), -EBADMSG);
	frame[100] ^= 1;
	assert_int_equal(noise_open(&again, frame, (size_t)n, back), NOISE_PLAIN_MAX);
	/* too long */
	assert_int_equal(noise_seal(&x.ct.tx, plain, NOISE_PLAIN_MAX + 1, frame), -ENOBUFS);
	/* out of order: the second of two is not the next */
	later = x.ct.tx;
	n = noise_seal(&later, plain, 10, frame);
	n = noise_seal(&later, plain, 10, frame);
	assert_int_equal(noise_open(&x.st.rx, frame, (size_t)n, back), -EBADMSG);
	/* empty records are legal */
	n = noise_seal(&x.ct.tx, NULL, 0, frame);
	assert_int_equal(n, 19);
	assert_int_equal(noise_open(&x.st.rx, frame, (size_t)n, back), 0);
}

static void counter_end(void **state)
{
	struct session x;
	uint8_t frame[64], back[64];
	int n;

	(void)state;
	vector_session(&x);
	x.ct.tx.counter = x.st.rx.counter = UINT64_MAX - 1;
	n = noise_seal(&x.ct.tx, (const uint8_t *)"last", 4, frame);
	assert_int_equal(n, 23);
	assert_int_equal(noise_open(&x.st.rx, frame, (size_t)n, back), 4);
	assert_int_equal(noise_seal(&x.ct.tx, (const uint8_t *)"over", 4, frame), -EOVERFLOW);
	assert_int_equal(noise_open(&x.st.rx, frame, (size_t)n, back), -EBADMSG);
}

static void record_header(void **state)
{
	static const struct {
		uint8_t b[3];
		size_t n;
		int want;
	} t[] = {
		{ { 4, 0, 16 }, 3, 19 },
		{ { 4, 0, 15 }, 3, -EBADMSG },
		{ { 4, 0x0f, 0xfd }, 3, 4096 },
		{ { 4, 0x0f, 0xfe }, 3, -EBADMSG },
		{ { 4, 0x0f }, 2, -EAGAIN },
		{ { 4 }, 1, -EAGAIN },
		{ { 3 }, 1, -EBADMSG },
		{ { 2, 0, 48 }, 3, -EBADMSG },
		{ { 0 }, 0, -EAGAIN },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		assert_int_equal(noise_record_length(t[i].b, t[i].n), t[i].want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vector),	 cmocka_unit_test(wrong_keys),	  cmocka_unit_test(low_order),
		cmocka_unit_test(records),	 cmocka_unit_test(counter_end), cmocka_unit_test(record_header),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
