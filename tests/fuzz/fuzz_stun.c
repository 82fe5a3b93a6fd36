/* STUN both ways: what is taken encodes and decodes to the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/stun.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t txid[STUN_TXID_LEN], back[STUN_TXID_LEN], out[STUN_RESPONSE_MAX];
	struct endpoint e, e2;
	size_t n;

	if (stun_request_decode(data, size, txid) == 0) {
		stun_request_encode(txid, out);
		if (stun_request_decode(out, STUN_REQUEST_LEN, back) < 0 ||
		    memcmp(txid, back, sizeof(txid)))
			abort();
	}
	if (stun_response_decode(data, size, txid, &e) == 0) {
		n = stun_response_encode(txid, &e, out);
		if (!n || stun_response_decode(out, n, back, &e2) < 0 || !endpoint_equal(&e, &e2) ||
		    memcmp(txid, back, sizeof(txid)))
			abort();
	}
	return 0;
}
