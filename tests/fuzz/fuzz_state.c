/*
 * The state file: what loads saves, and loads the same.
 *
 * words: daemon/state.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/state.h"
#include "lib/buf.h"
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	CLEANUP(buf_done) struct buf a = { 0 }, b = { 0 };
	struct state s, again;

	if (state_decode((struct json_slice){ (const char *)data, len }, &s) < 0)
		return 0;
	if (state_encode(&s, &a) < 0 ||
	    state_decode((struct json_slice){ buf_str(&a), a.len }, &again) < 0 ||
	    state_encode(&again, &b) < 0 || a.len != b.len ||
	    memcmp(buf_data(&a), buf_data(&b), a.len) != 0)
		abort();
	state_done(&s);
	state_done(&again);
	return 0;
}
