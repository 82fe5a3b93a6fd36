#include "lib/key.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "lib/hex.h"

static const char *const key_prefixes[] = {
	[KEY_KIND_MACHINE] = "mkey:",	   [KEY_KIND_NODE] = "nodekey:",
	[KEY_KIND_DISCO] = "discokey:",	   [KEY_KIND_CHALLENGE] = "chalpub:",
	[KEY_KIND_NL] = "nlpub:",	   [KEY_KIND_PRIVATE] = "privkey:",
	[KEY_KIND_HEX] = "",
};

bool key_equal(const struct key *a, const struct key *b)
{
	return sodium_memcmp(a->b, b->b, KEY_LEN) == 0;
}

bool key_is_zero(const struct key *k)
{
	return sodium_is_zero(k->b, KEY_LEN);
}

/* A clamped private key is a multiple of both cofactors and not of the large primes: the result is zero for these alone,
 * which libsodium tells (RFC 7748, 6.1). */
bool key_is_weak(const struct key *pub)
{
	static const struct key any = { { [31] = 64 } };
	uint8_t secret[KEY_LEN];

	return crypto_scalarmult(secret, any.b, pub->b) != 0;
}

int key_cmp(const struct key *a, const struct key *b)
{
	return memcmp(a->b, b->b, KEY_LEN);
}

void key_wipe(struct key *k)
{
	sodium_memzero(k, sizeof(*k));
}

const char *key_text(enum key_kind kind, const struct key *k, char out[static KEY_TEXT_MAX])
{
	size_t n = strlen(key_prefixes[kind]);

	memcpy(out, key_prefixes[kind], n);
	sodium_bin2hex(out + n, KEY_TEXT_MAX - n, k->b, KEY_LEN);
	return out;
}

int key_parse(enum key_kind kind, const char *text, size_t len, struct key *ret)
{
	size_t n = strlen(key_prefixes[kind]);
	struct key k;

	if (len != n + 2 * KEY_LEN || memcmp(text, key_prefixes[kind], n) != 0)
		return -EBADMSG;
	for (size_t i = 0; i < KEY_LEN; i++) {
		int hi = hex_digit(text[n + 2 * i]), lo = hex_digit(text[n + 2 * i + 1]);

		if (hi < 0 || lo < 0) {
			key_wipe(&k);
			return -EBADMSG;
		}
		k.b[i] = (uint8_t)(hi << 4 | lo);
	}
	*ret = k;
	if (kind == KEY_KIND_PRIVATE)
		key_wipe(&k);
	return 0;
}

const char *key_short(const struct key *k, char out[static 8])
{
	char text[sodium_base64_ENCODED_LEN(KEY_LEN, sodium_base64_VARIANT_ORIGINAL)];

	sodium_bin2base64(text, sizeof(text), k->b, KEY_LEN, sodium_base64_VARIANT_ORIGINAL);
	out[0] = '[';
	memcpy(out + 1, text, 5);
	out[6] = ']';
	out[7] = '\0';
	return out;
}

int key_public(const struct key *priv, struct key *ret_pub)
{
	struct key pub;

	if (crypto_scalarmult_base(pub.b, priv->b) != 0)
		return -EBADMSG;
	*ret_pub = pub;
	return 0;
}

void key_pair_generate(struct key_pair *ret)
{
	do {
		randombytes_buf(ret->priv.b, KEY_LEN);
		ret->priv.b[0] &= 248;
		ret->priv.b[31] = (uint8_t)((ret->priv.b[31] & 127) | 64);
	} while (key_public(&ret->priv, &ret->pub) < 0);
}

void key_pair_wipe(struct key_pair *p)
{
	sodium_memzero(p, sizeof(*p));
}

int key_init(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}
