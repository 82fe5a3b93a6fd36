#pragma once
/*
 * buf: a growable byte buffer with a ceiling, for building messages and for stream queues.
 *
 * Owns its memory. Readable bytes are data[head .. head+len). A failed append marks the buffer bad
 * for good (out of memory, over max), so that an encoder is checked once, at its end.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data; /* cap + 1 bytes */
	size_t head, len, cap;
	size_t max; /* most bytes that may be held; 0 = BUF_MAX_DEFAULT */
	bool bad;
};

#define BUF_MAX_DEFAULT (UINT64_C(256) << 20)

void buf_done(struct buf *b);	    /* frees; the struct can be used again */
void buf_done_secret(struct buf *b); /* the same, wiping first */
static inline void buf_done_cleanup(struct buf *b)
{
	buf_done(b);
}

/* 0, or -ENOMEM / -ENOBUFS (over max) */
int buf_reserve(struct buf *b, size_t more);
int buf_put(struct buf *b, const void *p, size_t n);
int buf_put_str(struct buf *b, const char *s);
int buf_put_u8(struct buf *b, uint8_t v);
int buf_put_be16(struct buf *b, uint16_t v);
int buf_put_be32(struct buf *b, uint32_t v);
int buf_put_be64(struct buf *b, uint64_t v);
int buf_put_le32(struct buf *b, uint32_t v);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Room for n bytes at the end, to be written by the caller and committed by buf_commit; NULL on failure. */
uint8_t *buf_tail(struct buf *b, size_t n);
static inline void buf_commit(struct buf *b, size_t n)
{
	b->len += n;
}

static inline const uint8_t *buf_data(const struct buf *b)
{
	return b->data ? b->data + b->head : (const uint8_t *)"";
}

/* Drops n readable bytes from the front (n <= len). */
void buf_consume(struct buf *b, size_t n);
void buf_clear(struct buf *b);
/* NUL-terminates (not counted in len) and returns the text; NULL only when bad. */
const char *buf_str(struct buf *b);
