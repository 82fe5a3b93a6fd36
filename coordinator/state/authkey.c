#include "coordinator/state/authkey.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define AUTHKEY_PREFIX "hskey-auth-"

static void authkey_hash(const char *secret, uint8_t out[static AUTHKEY_HASH_LEN])
{
	crypto_generichash(out, AUTHKEY_HASH_LEN, (const uint8_t *)secret, strlen(secret), NULL, 0);
}

void authkey_generate(char text[static AUTHKEY_TEXT_MAX], struct authkey *k)
{
	uint8_t name[AUTHKEY_NAME_LEN / 2], secret[AUTHKEY_SECRET_LEN / 2];
	char hex[AUTHKEY_SECRET_LEN + 1];

	randombytes_buf(name, sizeof(name));
	randombytes_buf(secret, sizeof(secret));
	sodium_bin2hex(k->name, sizeof(k->name), name, sizeof(name));
	sodium_bin2hex(hex, sizeof(hex), secret, sizeof(secret));
	authkey_hash(hex, k->hash);
	snprintf(text, AUTHKEY_TEXT_MAX, AUTHKEY_PREFIX "%s-%s", k->name, hex);
	sodium_memzero(secret, sizeof(secret));
	sodium_memzero(hex, sizeof(hex));
}

int authkey_split(const char *text, char name[static AUTHKEY_NAME_LEN + 1], const char **secret)
{
	static const char alphabet[] = "0123456789abcdefABCDEFGHIJKLMNOPQRSTUVWXYZghijklmnopqrstuvwxyz-_";
	const size_t head = strlen(AUTHKEY_PREFIX);

	if (strncmp(text, AUTHKEY_PREFIX, head) ||
	    strlen(text) != head + AUTHKEY_NAME_LEN + 1 + AUTHKEY_SECRET_LEN ||
	    text[head + AUTHKEY_NAME_LEN] != '-' || text[head + strspn(text + head, alphabet)])
		return -EBADMSG;
	memcpy(name, text + head, AUTHKEY_NAME_LEN);
	name[AUTHKEY_NAME_LEN] = '\0';
	*secret = text + head + AUTHKEY_NAME_LEN + 1;
	return 0;
}

bool authkey_matches(const struct authkey *k, const char *secret)
{
	uint8_t h[AUTHKEY_HASH_LEN];

	authkey_hash(secret, h);
	return sodium_memcmp(h, k->hash, sizeof(h)) == 0;
}
