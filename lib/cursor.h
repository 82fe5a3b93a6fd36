#pragma once
/*
 * cursor: bounds-checked reading of bytes that somebody else supplied.
 *
 * Borrows the buffer. A read past the end yields zero and marks the cursor bad for good, so that a
 * decoder reads as the format's description and one check at the end (cursor_ok, cursor_done)
 * covers it. Never allocates, never logs.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cursor {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static inline struct cursor cursor_of(const void *buf, size_t len)
{
	return (struct cursor){ .p = buf, .left = len };
}

uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_be16(struct cursor *c);
uint32_t cursor_be32(struct cursor *c);
uint64_t cursor_be64(struct cursor *c);
uint32_t cursor_le32(struct cursor *c);

/* Copies n bytes to dst; on a short buffer dst is zeroed and the cursor goes bad. */
void cursor_copy(struct cursor *c, void *dst, size_t n);

/* Gives a view of the next n bytes (NULL and bad when there are fewer); n == 0 gives a non-NULL view. */
const uint8_t *cursor_take(struct cursor *c, size_t n);
void cursor_skip(struct cursor *c, size_t n);

/* True when no read failed. */
static inline bool cursor_ok(const struct cursor *c)
{
	return !c->bad;
}

/* True when no read failed and nothing is left over. */
static inline bool cursor_done(const struct cursor *c)
{
	return !c->bad && c->left == 0;
}
