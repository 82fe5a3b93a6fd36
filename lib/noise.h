#pragma once
/*
 * noise: Noise_IK_25519_ChaChaPoly_BLAKE2s as the control protocol uses it (control.md 4). Pure.
 *
 * Differs from the Noise specification in one place: the record counter in the nonce is big-endian.
 * Secrets live in these structs and are wiped by their *_wipe().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/key.h"

#define NOISE_INITIATION_LEN 101
#define NOISE_RESPONSE_LEN   51
#define NOISE_RECORD_HEADER  3
#define NOISE_TAG	     16
#define NOISE_FRAME_MAX	     4096
#define NOISE_PLAIN_MAX	     (NOISE_FRAME_MAX - NOISE_RECORD_HEADER - NOISE_TAG) /* 4077 */

enum noise_type {
	NOISE_TYPE_INITIATION = 1,
	NOISE_TYPE_RESPONSE = 2,
	NOISE_TYPE_ERROR = 3,
	NOISE_TYPE_RECORD = 4,
};

struct noise_handshake {
	uint8_t h[32], ck[32], k[32]; /* hash, chaining key, last cipher key */
	struct key_pair static_key;   /* ours */
	struct key_pair ephemeral;    /* ours */
	struct key peer_static;
	struct key peer_ephemeral;
	uint16_t version;
};

/* One direction. */
struct noise_cipher {
	struct key key;
	uint64_t counter; /* of the next record; UINT64_MAX is never used */
};

struct noise_transport {
	struct noise_cipher tx, rx;
	uint8_t hash[32]; /* handshake hash: names this session */
};

/* ephemeral NULL: a fresh one (tests and replays give their own). -EBADMSG for a key that gives no secret. */
int noise_initiator_start(struct noise_handshake *n, const struct key_pair *machine, const struct key *server,
			  uint16_t version, const struct key_pair *ephemeral,
			  uint8_t out[static NOISE_INITIATION_LEN]);
/* -EBADMSG: form; -EACCES: does not decrypt, that is, not from the server whose key we have. Wipes n. */
int noise_initiator_finish(struct noise_handshake *n, const uint8_t in[static NOISE_RESPONSE_LEN],
			   struct noise_transport *ret);

/* peer_static then names the client's machine key, version what it claims. */
int noise_responder_read(struct noise_handshake *n, const struct key_pair *server, const uint8_t *in, size_t len);
/* Wipes n but for peer_static and version. */
int noise_responder_reply(struct noise_handshake *n, const struct key_pair *ephemeral,
			  uint8_t out[static NOISE_RESPONSE_LEN], struct noise_transport *ret);

void noise_handshake_wipe(struct noise_handshake *n);
void noise_transport_wipe(struct noise_transport *t);

/* One record of n <= NOISE_PLAIN_MAX bytes; out has room for n + 19; in and out may not overlap. Length of the frame,
 * -ENOBUFS too long, -EOVERFLOW counter used up. */
int noise_seal(struct noise_cipher *c, const uint8_t *plain, size_t n, uint8_t *out);
/* A whole frame, header included, into out (room for len - 19, and not less than 1). Length of the plaintext (may be 0); -EBADMSG. */
int noise_open(struct noise_cipher *c, const uint8_t *frame, size_t len, uint8_t *out);
/* Looks at the header in front of p: length of the whole frame, -EAGAIN fewer than 3 bytes, -EBADMSG not a record or
 * too long or too short. The frame itself may not be there yet. */
int noise_record_length(const uint8_t *p, size_t len);
