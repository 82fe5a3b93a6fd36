#include "lib/blob.h"

#include <string.h>

struct blob *blob_new(const void *p, size_t len)
{
	struct blob *b;

	if (len > SIZE_MAX / 2)
		return NULL;
	b = malloc(sizeof(*b) + len);
	if (!b)
		return NULL;
	atomic_init(&b->refs, 1);
	b->len = len;
	if (p && len)
		memcpy(b->data, p, len);
	return b;
}

struct blob *blob_ref(struct blob *b)
{
	if (b)
		atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

void blob_unref(struct blob *b)
{
	if (b && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
		free(b);
}
