#include "proto/ts2021.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>

#include "lib/cleanup.h"
#include "lib/cursor.h"

/* ---- upgrade */

void ts2021_put_request(struct buf *b, const char *host, const uint8_t initiation[static NOISE_INITIATION_LEN])
{
	CLEANUP(buf_done) struct buf text = { .max = 256 };

	http_base64_put(&text, initiation, NOISE_INITIATION_LEN);
	http_put_request(b, "POST", TS2021_PATH, host);
	http_put_header(b, "Content-Length", "0");
	http_put_header(b, "Connection", "upgrade");
	http_put_header(b, "Upgrade", TS2021_PROTOCOL);
	if (buf_str(&text))
		http_put_header(b, TS2021_HANDSHAKE_HEADER, buf_str(&text));
	else
		b->bad = true;
	http_put_end(b);
}

void ts2021_put_response(struct buf *b)
{
	http_put_status(b, 101);
	http_put_header(b, "Connection", "upgrade");
	http_put_header(b, "Upgrade", TS2021_PROTOCOL);
	http_put_end(b);
}

int ts2021_read_request(const struct http_head *h, uint8_t initiation[static NOISE_INITIATION_LEN])
{
	uint8_t got[NOISE_INITIATION_LEN];
	struct http_str text;

	if (!http_has_token(h, "Upgrade", TS2021_PROTOCOL))
		return -EPROTO;
	text = http_find(h, TS2021_HANDSHAKE_HEADER);
	if (!text.p || http_base64_decode(text, got, sizeof(got)) != NOISE_INITIATION_LEN)
		return -EBADMSG;
	memcpy(initiation, got, sizeof(got));
	return 0;
}

int ts2021_read_response(const struct http_head *h)
{
	if (h->status != 101 || !http_str_eq(http_find(h, "Upgrade"), TS2021_PROTOCOL) ||
	    !http_has_token(h, "Connection", "upgrade"))
		return -EPROTO;
	return 0;
}

/* ---- records */

void ts2021_records_done(struct ts2021_records *r)
{
	buf_done(&r->part);
	key_wipe(&r->rx.key);
}

static int record_open(struct noise_cipher *rx, const uint8_t *p, size_t n, struct buf *out)
{
	/* Room for the plaintext, and for one byte where it is empty. */
	uint8_t *to = buf_tail(out, n - NOISE_RECORD_HEADER - NOISE_TAG + 1);
	int k;

	if (!to)
		return -ENOBUFS;
	k = noise_open(rx, p, n, to);
	if (k < 0)
		return k;
	buf_commit(out, (size_t)k);
	return 0;
}

/* Opens the whole records at p. Bytes used, or negative. */
static ssize_t records_open(struct noise_cipher *rx, const uint8_t *p, size_t n, struct buf *out)
{
	size_t at = 0;

	for (;;) {
		int len = noise_record_length(p + at, n - at), r;

		if (len == -EAGAIN || (len > 0 && (size_t)len > n - at))
			return (ssize_t)at;
		if (len < 0)
			return len;
		r = record_open(rx, p + at, (size_t)len, out);
		if (r < 0)
			return r;
		at += (size_t)len;
	}
}

int ts2021_records_feed(struct ts2021_records *r, const uint8_t *p, size_t n, struct buf *out)
{
	ssize_t k;

	/* Fill up the record that was begun, byte by byte as far as its header says. */
	while (r->part.len && n) {
		int len = noise_record_length(buf_data(&r->part), r->part.len);
		size_t want = len == -EAGAIN ? NOISE_RECORD_HEADER : (size_t)MAX(len, 0), take;

		if (len < 0 && len != -EAGAIN)
			return len;
		take = MIN(want - r->part.len, n);
		if (buf_put(&r->part, p, take) < 0)
			return -ENOMEM;
		p += take;
		n -= take;
		k = records_open(&r->rx, buf_data(&r->part), r->part.len, out);
		if (k < 0)
			return (int)k;
		buf_consume(&r->part, (size_t)k);
	}
	if (n == 0)
		return 0;
	k = records_open(&r->rx, p, n, out);
	if (k < 0)
		return (int)k;
	if ((size_t)k == n) {
		buf_done(&r->part);
		return 0;
	}
	return buf_put(&r->part, p + k, n - (size_t)k);
}

int ts2021_records_put(struct noise_cipher *tx, const uint8_t *p, size_t n, struct buf *out)
{
	while (n) {
		size_t k = MIN(n, (size_t)NOISE_PLAIN_MAX);
		uint8_t *to = buf_tail(out, k + NOISE_RECORD_HEADER + NOISE_TAG);
		int r;

		if (!to)
			return -ENOBUFS;
		r = noise_seal(tx, p, k, to);
		if (r < 0)
			return r;
		buf_commit(out, (size_t)r);
		p += k;
		n -= k;
	}
	return 0;
}

/* ---- early payload */

static const uint8_t early_magic[5] = { 0xff, 0xff, 0xff, 'T', 'S' };

int ts2021_early_read(const uint8_t *p, size_t len, const char **json, size_t *json_len)
{
	struct cursor c = cursor_of(p, len);
	const uint8_t *body;
	uint32_t n;

	/* HTTP/2 cannot begin so: it would be a frame of 16 MiB. */
	if (memcmp(p, early_magic, MIN(len, sizeof(early_magic))) != 0)
		return 0;
	if (len < TS2021_EARLY_HEADER)
		return -EAGAIN;
	cursor_skip(&c, sizeof(early_magic));
	n = cursor_be32(&c);
	if (n > TS2021_EARLY_MAX)
		return -ENOBUFS;
	body = cursor_take(&c, n);
	if (!cursor_ok(&c))
		return -EAGAIN;
	*json = (const char *)body;
	*json_len = n;
	return (int)(TS2021_EARLY_HEADER + n);
}

void ts2021_early_put(struct buf *b, const struct key *challenge)
{
	char text[KEY_TEXT_MAX], json[KEY_TEXT_MAX + 32];
	int n = snprintf(json, sizeof(json), "{\"nodeKeyChallenge\":\"%s\"}",
			 key_text(KEY_KIND_CHALLENGE, challenge, text));

	buf_put(b, early_magic, sizeof(early_magic));
	buf_put_be32(b, (uint32_t)n);
	buf_put(b, json, (size_t)n);
}

/* ---- map frames */

void ts2021_frames_init(struct ts2021_frames *f, enum ts2021_coding coding)
{
	*f = (struct ts2021_frames){ .coding = coding };
}

void ts2021_frames_done(struct ts2021_frames *f)
{
	buf_done(&f->in);
	buf_done(&f->message);
	ZSTD_freeDCtx(f->dctx);
	f->dctx = NULL;
}

static uint32_t le32(const uint8_t *p)
{
	struct cursor c = cursor_of(p, 4);

	return cursor_le32(&c);
}

int ts2021_frames_feed(struct ts2021_frames *f, const uint8_t *p, size_t n)
{
	size_t max = f->frame_max ? f->frame_max : TS2021_FRAME_MAX;

	buf_consume(&f->in, f->taken);
	f->taken = 0;
	/* One whole frame and whatever came with its last bytes. */
	f->in.max = max + 4 + n + 1;
	if (f->in.len >= 4 && le32(buf_data(&f->in)) > max)
		return -ENOBUFS;
	return buf_put(&f->in, p, n);
}

/*
 * Self-contained zstd frames, one or, as RFC 8878 and stock decoders have it, several whose contents follow each
 * other. Nothing that they say of their size is believed: memory grows with what comes out.
 */
static int inflate(struct ts2021_frames *f, const uint8_t *p, size_t n, size_t max)
{
	ZSTD_inBuffer in = { p, n, 0 };
	size_t left = 1;

	if (!f->dctx) {
		f->dctx = ZSTD_createDCtx();
		if (!f->dctx)
			return -ENOMEM;
		ZSTD_DCtx_setParameter(f->dctx, ZSTD_d_windowLogMax, 27);
	}
	ZSTD_DCtx_reset(f->dctx, ZSTD_reset_session_only);
	buf_clear(&f->message);
	f->message.max = max + ZSTD_DStreamOutSize() + 1;
	while (left || in.pos < in.size) {
		uint8_t *to = buf_tail(&f->message, ZSTD_DStreamOutSize());
		ZSTD_outBuffer out = { to, to ? ZSTD_DStreamOutSize() : 0, 0 };

		if (!to)
			return -ENOBUFS;
		left = ZSTD_decompressStream(f->dctx, &out, &in);
		if (ZSTD_isError(left))
			return -EBADMSG;
		buf_commit(&f->message, out.pos);
		if (f->message.len > max)
			return -ENOBUFS;
		if (left && in.pos == in.size && out.pos < out.size)
			return -EBADMSG; /* ends in the middle */
	}
	return 0;
}

static int message_of(struct ts2021_frames *f, const uint8_t *p, size_t n)
{
	size_t max = f->message_max ? f->message_max : TS2021_MESSAGE_MAX;
	int r;

	switch (f->coding) {
	case TS2021_CODING_ZSTD:
		return inflate(f, p, n, MIN(max, n * TS2021_GROWTH_MAX + TS2021_GROWTH_FREE));
	case TS2021_CODING_PLAIN:
		if (n > max)
			return -ENOBUFS;
		buf_clear(&f->message);
		f->message.max = max + 1;
		r = buf_put(&f->message, p, n);
		return r;
	}
	unreachable();
}

int ts2021_frames_next(struct ts2021_frames *f, const char **msg, size_t *len)
{
	size_t max = f->frame_max ? f->frame_max : TS2021_FRAME_MAX;
	uint32_t n;
	int r;

	buf_consume(&f->in, f->taken);
	f->taken = 0;
	if (f->in.len == 0) {
		/* What a big first map took is not kept for the small ones after it. */
		buf_done(&f->in);
		if (f->message.cap > (256u << 10)) {
			buf_done(&f->message);
			ZSTD_freeDCtx(f->dctx);
			f->dctx = NULL;
		}
		return 0;
	}
	if (f->in.len < 4)
		return 0;
	n = le32(buf_data(&f->in));
	if (n > max)
		return -ENOBUFS;
	if (f->in.len - 4 < n)
		return 0;
	r = message_of(f, buf_data(&f->in) + 4, n);
	if (r < 0)
		return r;
	f->taken = 4 + (size_t)n;
	*len = f->message.len;
	*msg = buf_str(&f->message);
	return *msg ? 1 : -ENOMEM;
}

/* control.md 7.3: single segment, four bytes of size, raw blocks. */
static void put_raw_frame(struct buf *b, const uint8_t *p, size_t len)
{
	static const uint8_t magic[4] = { 0x28, 0xb5, 0x2f, 0xfd };
	size_t block = 128u << 10;

	buf_put(b, magic, sizeof(magic));
	if (len <= 255) {
		buf_put_u8(b, 0x20);
		buf_put_u8(b, (uint8_t)len);
	} else {
		buf_put_u8(b, 0xa0);
		buf_put_le32(b, (uint32_t)len);
	}
	do {
		size_t n = MIN(len, block);
		uint32_t header = (uint32_t)(n << 3) | (n == len);

		buf_put_u8(b, (uint8_t)header);
		buf_put_u8(b, (uint8_t)(header >> 8));
		buf_put_u8(b, (uint8_t)(header >> 16));
		buf_put(b, p, n);
		p += n;
		len -= n;
	} while (len);
}

static size_t raw_frame_len(size_t len)
{
	size_t blocks = len ? (len + (128u << 10) - 1) / (128u << 10) : 1;

	return 4 + (len <= 255 ? 2 : 5) + 3 * blocks + len;
}

static pthread_key_t cctx_key;

static void cctx_free(void *p)
{
	ZSTD_freeCCtx(p);
}

static void cctx_key_make(void)
{
	pthread_key_create(&cctx_key, cctx_free);
}

/* Half a megabyte at level 1: made once for each thread that encodes. */
static ZSTD_CCtx *cctx_of_thread(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	ZSTD_CCtx *c;

	pthread_once(&once, cctx_key_make);
	c = pthread_getspecific(cctx_key);
	if (c)
		return c;
	c = ZSTD_createCCtx();
	if (c && pthread_setspecific(cctx_key, c) != 0) {
		ZSTD_freeCCtx(c);
		return NULL;
	}
	return c;
}

static int put_zstd_frame(struct buf *b, const void *json, size_t len)
{
	ZSTD_CCtx *cctx = cctx_of_thread();
	size_t bound = ZSTD_compressBound(len), n, at = b->len;
	uint8_t *to;

	if (!cctx)
		return -ENOMEM;
	to = buf_tail(b, 4 + bound);
	if (!to)
		return -ENOBUFS;
	n = ZSTD_compressCCtx(cctx, to + 4, bound, json, len, 1);
	if (ZSTD_isError(n) || n > TS2021_FRAME_MAX)
		return -ENOBUFS;
	buf_put_le32(b, (uint32_t)n);
	buf_commit(b, n);
	return b->bad || b->len != at + 4 + n ? -ENOBUFS : 0;
}

int ts2021_frame_put(struct buf *b, enum ts2021_encoding e, const void *json, size_t len)
{
	size_t body = len;

	if (len > TS2021_MESSAGE_MAX)
		return -ENOBUFS;
	switch (e) {
	case TS2021_ENCODING_ZSTD:
		return put_zstd_frame(b, json, len);
	case TS2021_ENCODING_ZSTD_RAW:
		body = raw_frame_len(len);
		break;
	case TS2021_ENCODING_PLAIN:
		break;
	}
	if (body > TS2021_FRAME_MAX)
		return -ENOBUFS;
	buf_put_le32(b, (uint32_t)body);
	if (e == TS2021_ENCODING_ZSTD_RAW)
		put_raw_frame(b, json, len);
	else
		buf_put(b, json, len);
	return b->bad ? -ENOMEM : 0;
}
