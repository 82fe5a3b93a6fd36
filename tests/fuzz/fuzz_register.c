/*
 * Answers to GET /key and to register, whatever they hold.
 *
 * words: proto/tailcfg*.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "proto/tailcfg.h"
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	CLEANUP(tailcfg_register_done) struct tailcfg_register_response r = { 0 };
	struct json_slice text = { (const char *)data, len };
	CLEANUP(buf_done) struct buf out = { 0 };
	struct tailcfg_hostinfo h = { 0 };
	struct key k;

	(void)tailcfg_server_key_decode(text, &k);
	if (tailcfg_register_decode(text, &r) == 0 && *r.auth_url) {
		/* what was taken can be sent back as it is */
		struct tailcfg_register_request q = { .followup = r.auth_url, .hostinfo = &h };

		if (tailcfg_register_encode(&q, &out) < 0)
			abort();
	}
	return 0;
}
