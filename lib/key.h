#pragma once
/*
 * key: 32-byte keys, their text forms and their making.
 *
 * Text form (control.md 1.1; upstream types/key): prefix + 64 lower-case hex digits. Private keys
 * are wiped by their owner (key_wipe) and have a text form for state files only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEY_LEN	     32
#define KEY_TEXT_MAX 80 /* longest prefix, 64 digits, NUL */

struct key {
	uint8_t b[KEY_LEN];
};

struct key_pair {
	struct key pub;
	struct key priv;
};

enum key_kind {
	KEY_KIND_MACHINE,   /* mkey: */
	KEY_KIND_NODE,	    /* nodekey: */
	KEY_KIND_DISCO,	    /* discokey: */
	KEY_KIND_CHALLENGE, /* chalpub: */
	KEY_KIND_NL,	    /* nlpub: */
	KEY_KIND_PRIVATE,   /* privkey: (state files only) */
	KEY_KIND_HEX,	    /* no prefix */
};

static const struct key key_zero;

/* Constant time. */
bool key_equal(const struct key *a, const struct key *b);
bool key_is_zero(const struct key *k);
/* A public key of small order, zero among them: the secret that anybody has with it is known to all. */
bool key_is_weak(const struct key *pub);
int key_cmp(const struct key *a, const struct key *b); /* order for sorting, not for secrets */
void key_wipe(struct key *k);

/* Writes the text form into out (KEY_TEXT_MAX bytes) and returns out. */
const char *key_text(enum key_kind kind, const struct key *k, char out[static KEY_TEXT_MAX]);
/* Reads exactly len characters. -EBADMSG when prefix, length or digits are wrong. */
int key_parse(enum key_kind kind, const char *text, size_t len, struct key *ret);
/* Log form: [ABcde] as stock programs print node keys. out: 8 bytes. */
const char *key_short(const struct key *k, char out[static 8]);

/* A fresh clamped X25519 private key and its public key. sodium_init() has been called (key_init). */
void key_pair_generate(struct key_pair *ret);
/* pub from priv. -EBADMSG for a private key that gives no public key. */
int key_public(const struct key *priv, struct key *ret_pub);
void key_pair_wipe(struct key_pair *p);
/* Once, at start of every program. -EIO when there is no randomness. */
int key_init(void);
