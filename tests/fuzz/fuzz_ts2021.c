/*
 * ts2021: records, early payload and handshakes from arbitrary bytes. The first byte chooses; a stream of records is
 * given the right key, so that the fuzzer gets behind the tag by the seeds that it changes little.
 *
 * words: lib/http.c proto/ts2021.c
 */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "lib/cleanup.h"
#include "proto/ts2021.h"
#include "tests/fuzz/agree.h"

/* libsodium's, but that keys agree once only. */
int crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p)
{
	return agree(crypto_scalarmult_curve25519, n, p, q);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static int records(const uint8_t *p, size_t n, size_t step, struct buf *out)
{
	struct ts2021_records r = { .rx = { .counter = 0 } };
	int k = 0;

	memset(r.rx.key.b, 7, KEY_LEN);
	for (size_t i = 0; i < n && k == 0; i += step)
		k = ts2021_records_feed(&r, p + i, MIN(step, n - i), out);
	assert(r.part.len < NOISE_FRAME_MAX);
	ts2021_records_done(&r);
	return k;
}

static void early(const uint8_t *p, size_t n)
{
	const char *json = NULL;
	size_t len = 0;
	int r = ts2021_early_read(p, n, &json, &len);

	assert(r <= 0 || ((size_t)r <= n && (const uint8_t *)json + len == p + r));
}

static struct key_pair server, ephemeral;

/* What our responder answers to our initiator. */
static const uint8_t *right_answer(void)
{
	static uint8_t answer[NOISE_RESPONSE_LEN];
	uint8_t first[NOISE_INITIATION_LEN];
	struct noise_handshake hs;
	struct noise_transport t;

	if (answer[0])
		return answer;
	memset(server.priv.b, 9, KEY_LEN);
	memset(ephemeral.priv.b, 8, KEY_LEN);
	assert(key_public(&server.priv, &server.pub) == 0);
	assert(key_public(&ephemeral.priv, &ephemeral.pub) == 0);
	assert(noise_initiator_start(&hs, &server, &server.pub, 131, &ephemeral, first) == 0);
	assert(noise_responder_read(&hs, &server, first, sizeof(first)) == 0);
	assert(noise_responder_reply(&hs, &ephemeral, answer, &t) == 0);
	return answer;
}

static void handshake(const uint8_t *p, size_t n)
{
	const uint8_t *right = right_answer();
	struct noise_handshake hs;
	struct noise_transport t;
	uint8_t out[NOISE_RESPONSE_LEN];
	struct http_head h;

	if (noise_responder_read(&hs, &server, p, n) == 0)
		assert(noise_responder_reply(&hs, &ephemeral, out, &t) == 0);
	/* nobody guesses a tag */
	if (n >= NOISE_RESPONSE_LEN &&
	    noise_initiator_start(&hs, &server, &server.pub, 131, &ephemeral, (uint8_t[NOISE_INITIATION_LEN]){ 0 }) == 0)
		assert((noise_initiator_finish(&hs, p, &t) == 0) == (memcmp(p, right, NOISE_RESPONSE_LEN) == 0));
	if (http_request_parse(p, n, &h) > 0)
		ts2021_read_request(&h, (uint8_t[NOISE_INITIATION_LEN]){ 0 });
	if (http_response_parse(p, n, &h) > 0)
		ts2021_read_response(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	CLEANUP(buf_done) struct buf a = { 0 }, b = { 0 };

	key_init();
	if (n == 0)
		return 0;
	switch (p[0] % 3) {
	case 0:
		assert(records(p + 1, n - 1, n, &a) == records(p + 1, n - 1, 5, &b));
		assert(a.len == b.len && memcmp(buf_data(&a), buf_data(&b), a.len) == 0);
		break;
	case 1:
		early(p + 1, n - 1);
		break;
	default:
		handshake(p + 1, n - 1);
	}
	return 0;
}
