#pragma once
/*
 * authkey: pre-auth keys: their text, and what of them is kept.
 *
 * Text: hskey-auth-<12 hex>-<64 hex>. The 12 digits name the key, the 64 are the secret; only a
 * BLAKE2b hash of the secret is kept. A slow hash would buy nothing against 256 random bits, and
 * costs tens of milliseconds a registration (server-ux.md 6).
 */
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/state/strs.h"
#include "coordinator/state/table.h"

#define AUTHKEY_NAME_LEN   12
#define AUTHKEY_SECRET_LEN 64
#define AUTHKEY_HASH_LEN   32
#define AUTHKEY_TEXT_MAX   96
#define AUTHKEY_TAGS_MAX   32

struct authkey {
	uint64_t id;
	uint64_t user; /* 0: none, then it has tags */
	char name[AUTHKEY_NAME_LEN + 1];
	uint8_t hash[AUTHKEY_HASH_LEN];
	bool reusable, ephemeral, used;
	int64_t created_nsec, expiry_nsec; /* expiry 0: never */
	struct strs tags;
	struct table_link by_name;
};

/* A fresh one: text to be shown once, name and hash to be kept. */
void authkey_generate(char text[static AUTHKEY_TEXT_MAX], struct authkey *k);
/* Splits a text. -EBADMSG when it is no such key. secret points into text. */
int authkey_split(const char *text, char name[static AUTHKEY_NAME_LEN + 1], const char **secret);
/* Constant time. */
bool authkey_matches(const struct authkey *k, const char *secret);
