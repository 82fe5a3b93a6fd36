/* Disco and TSMP: any bytes decode or are refused; what decodes is encoded and read again alike. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "proto/disco.h"
#include "proto/tsmp.h"

static void message(const uint8_t *data, size_t size)
{
	struct disco_msg m, again;
	uint8_t out[DISCO_WIRE_MAX], twice[DISCO_WIRE_MAX];
	int n;

	if (disco_msg_decode(data, size, &m) < 0)
		return;
	n = disco_msg_encode(&m, out, sizeof(out));
	if (n < 0)
		return; /* a type that we do not make */
	assert(disco_msg_decode(out, (size_t)n, &again) == 0);
	assert(disco_msg_encode(&again, twice, sizeof(twice)) == n);
	assert(memcmp(out, twice, (size_t)n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct disco_shared shared = {{1}};
	static const struct key self = {{2}};
	static const uint8_t nonce[DISCO_NONCE_LEN];
	static uint8_t plain[DISCO_PLAIN_MAX], wire[DISCO_PLAIN_MAX + DISCO_OVERHEAD];
	struct tsmp_msg t;
	struct key sender;
	uint8_t out[TSMP_MAX];
	int n;

	message(data, size);
	if (disco_sender(data, size, &sender) == 0)
		disco_open(&shared, data, size, plain, sizeof(plain));
	n = disco_seal(&shared, &self, nonce, data, size, wire, sizeof(wire));
	if (n >= 0) {
		assert(disco_open(&shared, wire, (size_t)n, plain, sizeof(plain)) == (int)size);
		assert(size == 0 || memcmp(plain, data, size) == 0);
	}
	if (tsmp_decode(data, size, &t) == 0 && tsmp_encode(&t, out) > 0)
		assert(tsmp_decode(out, (size_t)tsmp_encode(&t, out), &t) == 0);
	return 0;
}
