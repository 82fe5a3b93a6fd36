#include "lib/buf.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_done(struct buf *b)
{
	free(b->data);
	*b = (struct buf){ .max = b->max };
}

void buf_done_secret(struct buf *b)
{
	if (b->data)
		sodium_memzero(b->data, b->cap);
	buf_done(b);
}

int buf_reserve(struct buf *b, size_t more)
{
	size_t max = b->max ? b->max : BUF_MAX_DEFAULT;
	size_t want, cap;
	uint8_t *p;

	if (b->bad)
		return -ENOMEM;
	if (more > max || b->len > max - more) {
		b->bad = true;
		return -ENOBUFS;
	}
	want = b->len + more;
	if (b->head && (want > b->cap - b->head)) {
		memmove(b->data, b->data + b->head, b->len);
		b->head = 0;
	}
	if (want <= b->cap - b->head)
		return 0;
	cap = b->cap ? b->cap : 256;
	while (cap < want)
		cap *= 2;
	p = malloc(cap + 1); /* and the end of buf_str(): what is whole needs no memory to be read */
	if (!p) {
		b->bad = true;
		return -ENOMEM;
	}
	if (b->len)
		memcpy(p, b->data + b->head, b->len);
	if (b->data)
		sodium_memzero(b->data, b->cap); /* a grown buffer may have held a secret */
	free(b->data);
	b->data = p;
	b->cap = cap;
	b->head = 0;
	return 0;
}

uint8_t *buf_tail(struct buf *b, size_t n)
{
	if (buf_reserve(b, n) < 0)
		return NULL;
	return b->data ? b->data + b->head + b->len : (uint8_t *)(uintptr_t) "";
}

int buf_put(struct buf *b, const void *p, size_t n)
{
	int r = buf_reserve(b, n);

	if (r < 0)
		return r;
	if (n)
		memcpy(b->data + b->head + b->len, p, n);
	b->len += n;
	return 0;
}

int buf_put_str(struct buf *b, const char *s)
{
	return buf_put(b, s, strlen(s));
}

int buf_put_u8(struct buf *b, uint8_t v)
{
	return buf_put(b, &v, 1);
}

int buf_put_be16(struct buf *b, uint16_t v)
{
	uint8_t x[2] = { (uint8_t)(v >> 8), (uint8_t)v };

	return buf_put(b, x, sizeof(x));
}

int buf_put_be32(struct buf *b, uint32_t v)
{
	uint8_t x[4] = { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };

	return buf_put(b, x, sizeof(x));
}

int buf_put_be64(struct buf *b, uint64_t v)
{
	int r = buf_put_be32(b, (uint32_t)(v >> 32));

	return r < 0 ? r : buf_put_be32(b, (uint32_t)v);
}

int buf_put_le32(struct buf *b, uint32_t v)
{
	return buf_put_be32(b, __builtin_bswap32(v));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	int n, r;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0) {
		r = -EINVAL;
		b->bad = true;
	} else {
		r = buf_reserve(b, (size_t)n + 1);
		if (r == 0) {
			vsnprintf((char *)b->data + b->head + b->len, (size_t)n + 1, fmt, again);
			b->len += (size_t)n;
		}
	}
	va_end(again);
	return r;
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= b->len);
	b->head += n;
	b->len -= n;
	if (b->len == 0)
		b->head = 0;
}

void buf_clear(struct buf *b)
{
	b->head = b->len = 0;
	b->bad = false;
}

const char *buf_str(struct buf *b)
{
	if (b->bad)
		return NULL;
	if (!b->data)
		return "";
	b->data[b->head + b->len] = '\0';
	return (const char *)b->data + b->head;
}
