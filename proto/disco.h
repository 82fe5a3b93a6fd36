#pragma once
/*
 * disco: the messages by which peers find a direct path to each other.
 *
 * Pure codec: sealing and opening the outer box (magic, sender key, nonce, NaCl box), and the
 * messages inside it. The caller keeps the keys and looks the sender up; nothing here allocates,
 * logs or touches the network. Types 04 to 09 (peer relays) are recognised by number only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/key.h"

#define DISCO_MAGIC "TS\xf0\x9f\x92\xac"
#define DISCO_MAGIC_LEN 6
#define DISCO_NONCE_LEN 24
#define DISCO_TAG_LEN 16
#define DISCO_HEADER_LEN (DISCO_MAGIC_LEN + KEY_LEN + DISCO_NONCE_LEN) /* 62 */
#define DISCO_OVERHEAD (DISCO_HEADER_LEN + DISCO_TAG_LEN)
#define DISCO_TXID_LEN 12
#define DISCO_ENDPOINT_LEN 18
#define DISCO_ENDPOINTS_MAX 64 /* of one CallMeMaybe; what follows them is not read */
#define DISCO_PLAIN_MAX 9000   /* a ping padded for an MTU probe */
#define DISCO_WIRE_MAX (DISCO_OVERHEAD + 2 + DISCO_ENDPOINTS_MAX * DISCO_ENDPOINT_LEN)

enum disco_type {
	DISCO_TYPE_PING = 1,
	DISCO_TYPE_PONG = 2,
	DISCO_TYPE_CALL_ME_MAYBE = 3,
};

struct disco_txid {
	uint8_t b[DISCO_TXID_LEN];
};

struct disco_msg {
	uint8_t type; /* enum disco_type, or another number: then nothing below is set */
	union {
		struct {
			struct disco_txid txid;
			bool has_node;
			struct key node; /* the sender's node key */
		} ping;
		struct {
			struct disco_txid txid;
			struct endpoint seen; /* what the answerer saw as source */
		} pong;
		struct {
			size_t n;
			struct endpoint at[DISCO_ENDPOINTS_MAX];
		} call;
	};
};

/* The key both sides compute from their own private and the other's public key; wiped by its owner.
 */
struct disco_shared {
	uint8_t b[32];
};

/* True for what goes to disco and not to WireGuard: the magic and a whole header. */
bool disco_looks_like(const void *p, size_t len);
/* -EBADMSG unless disco_looks_like(). */
int disco_sender(const void *p, size_t len, struct key *ret);

/* -EBADMSG for a public key of small order. */
int disco_shared_init(const struct key *priv, const struct key *peer_pub, struct disco_shared *ret);

/* The bytes inside the box. Returns their number; -ENOBUFS when cap is too small. */
int disco_msg_encode(const struct disco_msg *m, uint8_t *out, size_t cap);
/* -EBADMSG for a message shorter than its type asks for. A malformed CallMeMaybe is an empty one.
 */
int disco_msg_decode(const void *p, size_t len, struct disco_msg *ret);

/* nonce (DISCO_NONCE_LEN bytes) NULL takes a random one. Returns the length on the wire; -ENOBUFS.
 */
int disco_seal(const struct disco_shared *k, const struct key *self_pub, const uint8_t *nonce,
	       const void *plain, size_t len, uint8_t *out, size_t cap);
/* Returns the length of the plain text; -EBADMSG when the box does not open, -ENOBUFS over cap. */
int disco_open(const struct disco_shared *k, const void *p, size_t len, uint8_t *out, size_t cap);
