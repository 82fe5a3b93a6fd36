/*
 * The cache of the map: what loads saves, and loads the same.
 *
 * words: proto/tailcfg*.c proto/derpmap.c daemon/netmap/cache.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/netmap/netmap.h"
#include "tests/fuzz/json_mutator.h"

#define NOW INT64_C(1800000000000000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	CLEANUP(buf_done) struct buf a = { 0 }, b = { 0 };
	CLEANUP(netmap_free) struct netmap *nm = NULL;
	CLEANUP(netmap_free) struct netmap *again = NULL;

	if (netmap_decode((struct json_slice){ (const char *)data, len }, NULL, NULL, NOW, &nm) < 0)
		return 0;
	if (netmap_encode(nm, "x", &a) < 0)
		abort();
	if (netmap_decode((struct json_slice){ buf_str(&a), a.len }, "x", &nm->self->key, NOW,
			  &again) < 0 ||
	    netmap_encode(again, "x", &b) < 0 || a.len != b.len ||
	    memcmp(buf_data(&a), buf_data(&b), a.len) != 0)
		abort();
	return 0;
}
