#pragma once
/*
 * ts2021: what stands around the Noise records of the control protocol: the HTTP upgrade heads, the
 * early payload, and the framed messages of a map stream (control.md 3, 5.1, 7.3). Pure.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/http.h"
#include "lib/key.h"
#include "lib/noise.h"

#define TS2021_PATH		"/ts2021"
#define TS2021_PROTOCOL		"tailscale-control-protocol"
#define TS2021_HANDSHAKE_HEADER "X-Tailscale-Handshake"
#define TS2021_EARLY_HEADER	9
#define TS2021_EARLY_MAX	(10u << 20) /* as stock */
#define TS2021_FRAME_MAX	(64u << 20)
#define TS2021_MESSAGE_MAX	(64u << 20) /* 10,000 nodes take 15 MiB */
/* What a compressed frame may grow to: so many times its size, and so much more. Maps have keys in them, which do not
 * shrink: 4 to 15 times. */
#define TS2021_GROWTH_MAX	128
#define TS2021_GROWTH_FREE	(1u << 20)

/* Upgrade. host: with port. */
void ts2021_put_request(struct buf *b, const char *host,
			const uint8_t initiation[static NOISE_INITIATION_LEN]);
void ts2021_put_response(struct buf *b);
/* 0 and the initiation; -EPROTO: not this upgrade; -EBADMSG: handshake header missing or wrong. */
int ts2021_read_request(const struct http_head *h, uint8_t initiation[static NOISE_INITIATION_LEN]);
/* 0: switched as it should. -EPROTO: another status, or 101 without the right headers. */
int ts2021_read_response(const struct http_head *h);

/* Records from a byte stream. Zero-initialise, set .rx; a partial record waits in .part. */
struct ts2021_records {
	struct noise_cipher rx;
	struct buf part;
};
void ts2021_records_done(struct ts2021_records *r);
/* Takes all n bytes and appends the plaintext of whole records to out. -EBADMSG ends the connection. */
int ts2021_records_feed(struct ts2021_records *r, const uint8_t *p, size_t n, struct buf *out);
/* Seals n bytes as records onto out. */
int ts2021_records_put(struct noise_cipher *tx, const uint8_t *p, size_t n, struct buf *out);

/* Early payload in front of p: its whole length with *json, *json_len set to the view; 0: there is none, all
 * bytes are HTTP/2; -EAGAIN: more bytes needed; -ENOBUFS: longer than TS2021_EARLY_MAX. */
int ts2021_early_read(const uint8_t *p, size_t len, const char **json, size_t *json_len);
void ts2021_early_put(struct buf *b, const struct key *challenge);

/* Map stream. Decoding takes any split; a message is NUL-terminated and valid until the next call. */
enum ts2021_coding {
	TS2021_CODING_PLAIN,
	TS2021_CODING_ZSTD,
};
struct ts2021_frames {
	enum ts2021_coding coding;
	size_t frame_max, message_max; /* 0 = the limits above */
	struct buf in, message;
	size_t taken; /* bytes of in that the current message stands in */
	void *dctx;   /* ZSTD_DCtx, made when first needed */
};
void ts2021_frames_init(struct ts2021_frames *f, enum ts2021_coding coding);
void ts2021_frames_done(struct ts2021_frames *f);
/* Appends bytes of the response body. -ENOBUFS: a frame over its limit. */
int ts2021_frames_feed(struct ts2021_frames *f, const uint8_t *p, size_t n);
/* 1 and the next message, 0 when none is whole yet, -EBADMSG, -ENOBUFS. */
int ts2021_frames_next(struct ts2021_frames *f, const char **msg, size_t *len);

enum ts2021_encoding {
	TS2021_ENCODING_PLAIN,	  /* JSON as it is */
	TS2021_ENCODING_ZSTD_RAW, /* a valid zstd frame of raw blocks: no CPU, no gain */
	TS2021_ENCODING_ZSTD,	  /* level 1 */
};
/* Appends length prefix and body. Thread-safe. */
int ts2021_frame_put(struct buf *b, enum ts2021_encoding e, const void *json, size_t len);
