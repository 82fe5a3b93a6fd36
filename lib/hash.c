#include "lib/hash.h"

#include <sodium.h>
#include <stdbool.h>

uint64_t hash_keyed(const void *p, size_t len)
{
	static uint8_t secret[crypto_shorthash_KEYBYTES];
	static bool made;
	uint64_t h;

	if (!made) {
		randombytes_buf(secret, sizeof(secret));
		made = true;
	}
	crypto_shorthash((uint8_t *)&h, p, len, secret);
	return h;
}
