#pragma once
/*
 * blob: bytes that many owners share, unchanged from the moment they are shared.
 *
 * Counted atomically, so that a worker thread may build what the loop's thread sends.
 */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/cleanup.h"

struct blob {
	atomic_uint refs;
	size_t len;
	uint8_t data[];
};

/* A blob of len bytes to be filled in before it is shared; p may be NULL (uninitialised). NULL: no memory. */
struct blob *blob_new(const void *p, size_t len);
struct blob *blob_ref(struct blob *b); /* NULL gives NULL */
void blob_unref(struct blob *b);
DEFINE_CLEANUP(struct blob *, blob_unref)
