#include "lib/noise.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"

#define HASH_LEN   32
#define HASH_BLOCK 64

/* libsodium has BLAKE2b only. Fetched once: an implicit fetch costs more than the hash. */
static EVP_MD *blake2s;

static void blake2s_fetch(void)
{
	blake2s = EVP_MD_fetch(NULL, "BLAKE2S-256", NULL);
}

static inline void EVP_MD_CTX_free_cleanup(EVP_MD_CTX **c)
{
	EVP_MD_CTX_free(*c);
}

struct piece {
	const void *p;
	size_t n;
};

static int hash(const struct piece *in, size_t n, uint8_t out[static HASH_LEN])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	CLEANUP(EVP_MD_CTX_free) EVP_MD_CTX *c = NULL;

	pthread_once(&once, blake2s_fetch);
	c = EVP_MD_CTX_new();
	if (!blake2s || !c || EVP_DigestInit_ex2(c, blake2s, NULL) != 1)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (EVP_DigestUpdate(c, in[i].p, in[i].n) != 1)
			return -ENOMEM;
	return EVP_DigestFinal_ex(c, out, NULL) == 1 ? 0 : -ENOMEM;
}

/* HMAC over unkeyed BLAKE2s: its own keyed mode gives other values (control.md T2). Keys here are never longer than a
 * block. */
static int hmac(const uint8_t key[static HASH_LEN], const struct piece *in, size_t n, uint8_t out[static HASH_LEN])
{
	uint8_t pad[HASH_BLOCK], inner[HASH_LEN];
	struct piece all[4] = { { pad, sizeof(pad) } };
	int r;

	assert(n < ARRAY_SIZE(all));
	memset(pad, 0x36, sizeof(pad));
	for (size_t i = 0; i < HASH_LEN; i++)
		pad[i] ^= key[i];
	memcpy(all + 1, in, n * sizeof(*in));
	r = hash(all, n + 1, inner);
	if (r == 0) {
		for (size_t i = 0; i < sizeof(pad); i++)
			pad[i] ^= 0x36 ^ 0x5c;
		r = hash((struct piece[]){ { pad, sizeof(pad) }, { inner, sizeof(inner) } }, 2, out);
	}
	sodium_memzero(pad, sizeof(pad));
	sodium_memzero(inner, sizeof(inner));
	return r;
}

static int hkdf2(const uint8_t ck[static HASH_LEN], const void *ikm, size_t n, uint8_t out1[static HASH_LEN],
		 uint8_t out2[static HASH_LEN])
{
	uint8_t t[HASH_LEN], first[HASH_LEN];
	int r = hmac(ck, (struct piece[]){ { ikm, n } }, 1, t);

	if (r == 0)
		r = hmac(t, (struct piece[]){ { "\1", 1 } }, 1, first);
	if (r == 0)
		r = hmac(t, (struct piece[]){ { first, sizeof(first) }, { "\2", 1 } }, 2, out2);
	if (r == 0)
		memcpy(out1, first, sizeof(first));
	sodium_memzero(t, sizeof(t));
	sodium_memzero(first, sizeof(first));
	return r;
}

/* ---- symmetric state */

static int mix(struct noise_handshake *n, const void *p, size_t len)
{
	return hash((struct piece[]){ { n->h, sizeof(n->h) }, { p, len } }, 2, n->h);
}

static int mix_dh(struct noise_handshake *n, const struct key *priv, const struct key *pub)
{
	uint8_t dh[KEY_LEN];
	int r;

	/* Says -1 for an all-zero result, that is, for a low-order public key. */
	if (crypto_scalarmult(dh, priv->b, pub->b) != 0)
		return -EBADMSG;
	r = hkdf2(n->ck, dh, sizeof(dh), n->ck, n->k);
	sodium_memzero(dh, sizeof(dh));
	return r;
}

static int seal_mix(struct noise_handshake *n, const void *plain, size_t len, uint8_t *out)
{
	static const uint8_t zero[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
	unsigned long long got;

	crypto_aead_chacha20poly1305_ietf_encrypt(out, &got, plain, len, n->h, sizeof(n->h), NULL, zero, n->k);
	return mix(n, out, (size_t)got);
}

static int open_mix(struct noise_handshake *n, const uint8_t *in, size_t len, uint8_t *out)
{
	static const uint8_t zero[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

	if (crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, in, len, n->h, sizeof(n->h), zero, n->k) != 0)
		return -EACCES;
	return mix(n, in, len);
}

static int start(struct noise_handshake *n, uint16_t version, const struct key *server)
{
	static const char name[] = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
	char prologue[48];
	int len, r;

	n->version = version;
	r = hash((struct piece[]){ { name, sizeof(name) - 1 } }, 1, n->h);
	if (r < 0)
		return r;
	memcpy(n->ck, n->h, sizeof(n->ck));
	len = snprintf(prologue, sizeof(prologue), "Tailscale Control Protocol v%u", version);
	r = mix(n, prologue, (size_t)len);
	return r < 0 ? r : mix(n, server->b, KEY_LEN);
}

static void take_ephemeral(struct noise_handshake *n, const struct key_pair *given)
{
	if (given)
		n->ephemeral = *given;
	else
		key_pair_generate(&n->ephemeral);
}

/* Keys of the two directions: the first is the initiator's for sending. */
static int split(struct noise_handshake *n, bool initiator, struct noise_transport *t)
{
	struct noise_cipher *first = initiator ? &t->tx : &t->rx, *second = initiator ? &t->rx : &t->tx;
	int r = hkdf2(n->ck, NULL, 0, first->key.b, second->key.b);

	if (r < 0)
		return r;
	first->counter = second->counter = 0;
	memcpy(t->hash, n->h, sizeof(t->hash));
	return 0;
}

/* ---- initiator */

int noise_initiator_start(struct noise_handshake *n, const struct key_pair *machine, const struct key *server,
			  uint16_t version, const struct key_pair *ephemeral,
			  uint8_t out[static NOISE_INITIATION_LEN])
{
	int r;

	memset(n, 0, sizeof(*n));
	n->static_key = *machine;
	n->peer_static = *server;
	take_ephemeral(n, ephemeral);
	out[0] = (uint8_t)(version >> 8);
	out[1] = (uint8_t)version;
	out[2] = NOISE_TYPE_INITIATION;
	out[3] = 0;
	out[4] = NOISE_INITIATION_LEN - 5;
	memcpy(out + 5, n->ephemeral.pub.b, KEY_LEN);
	r = start(n, version, server);
	if (r == 0)
		r = mix(n, n->ephemeral.pub.b, KEY_LEN);
	if (r == 0)
		r = mix_dh(n, &n->ephemeral.priv, server); /* es */
	if (r == 0)
		r = seal_mix(n, machine->pub.b, KEY_LEN, out + 37); /* s */
	if (r == 0)
		r = mix_dh(n, &machine->priv, server); /* ss */
	if (r == 0)
		r = seal_mix(n, NULL, 0, out + 85);
	if (r < 0)
		noise_handshake_wipe(n);
	return r;
}

static int initiator_finish(struct noise_handshake *n, const uint8_t *in, struct noise_transport *t)
{
	uint8_t nothing[1];
	int r;

	if (in[0] != NOISE_TYPE_RESPONSE || in[1] != 0 || in[2] != NOISE_RESPONSE_LEN - 3)
		return -EBADMSG;
	memcpy(n->peer_ephemeral.b, in + 3, KEY_LEN);
	r = mix(n, n->peer_ephemeral.b, KEY_LEN);
	if (r == 0)
		r = mix_dh(n, &n->ephemeral.priv, &n->peer_ephemeral); /* ee */
	if (r == 0)
		r = mix_dh(n, &n->static_key.priv, &n->peer_ephemeral); /* se */
	if (r == 0)
		r = open_mix(n, in + 35, NOISE_TAG, nothing);
	return r < 0 ? r : split(n, true, t);
}

int noise_initiator_finish(struct noise_handshake *n, const uint8_t in[static NOISE_RESPONSE_LEN],
			   struct noise_transport *ret)
{
	struct noise_transport t = { 0 };
	int r = initiator_finish(n, in, &t);

	if (r == 0)
		*ret = t;
	noise_transport_wipe(&t);
	noise_handshake_wipe(n);
	return r;
}

/* ---- responder */

static int responder_read(struct noise_handshake *n, const uint8_t *in)
{
	uint8_t nothing[1];
	int r;

	memcpy(n->peer_ephemeral.b, in + 5, KEY_LEN);
	r = start(n, (uint16_t)(in[0] << 8 | in[1]), &n->static_key.pub);
	if (r == 0)
		r = mix(n, n->peer_ephemeral.b, KEY_LEN);
	if (r == 0)
		r = mix_dh(n, &n->static_key.priv, &n->peer_ephemeral); /* es */
	if (r == 0)
		r = open_mix(n, in + 37, KEY_LEN + NOISE_TAG, n->peer_static.b);
	if (r == 0)
		r = mix_dh(n, &n->static_key.priv, &n->peer_static); /* ss */
	return r < 0 ? r : open_mix(n, in + 85, NOISE_TAG, nothing);
}

int noise_responder_read(struct noise_handshake *n, const struct key_pair *server, const uint8_t *in, size_t len)
{
	int r;

	memset(n, 0, sizeof(*n));
	if (len != NOISE_INITIATION_LEN || in[2] != NOISE_TYPE_INITIATION || in[3] != 0 ||
	    in[4] != NOISE_INITIATION_LEN - 5)
		return -EBADMSG;
	n->static_key = *server;
	r = responder_read(n, in);
	if (r < 0)
		noise_handshake_wipe(n);
	return r;
}

static int responder_reply(struct noise_handshake *n, uint8_t *out, struct noise_transport *t)
{
	int r;

	out[0] = NOISE_TYPE_RESPONSE;
	out[1] = 0;
	out[2] = NOISE_RESPONSE_LEN - 3;
	memcpy(out + 3, n->ephemeral.pub.b, KEY_LEN);
	r = mix(n, n->ephemeral.pub.b, KEY_LEN);
	if (r == 0)
		r = mix_dh(n, &n->ephemeral.priv, &n->peer_ephemeral); /* ee */
	if (r == 0)
		r = mix_dh(n, &n->ephemeral.priv, &n->peer_static); /* se */
	if (r == 0)
		r = seal_mix(n, NULL, 0, out + 35);
	return r < 0 ? r : split(n, false, t);
}

int noise_responder_reply(struct noise_handshake *n, const struct key_pair *ephemeral,
			  uint8_t out[static NOISE_RESPONSE_LEN], struct noise_transport *ret)
{
	struct noise_transport t = { 0 };
	struct key peer = n->peer_static;
	uint16_t version = n->version;
	int r;

	take_ephemeral(n, ephemeral);
	r = responder_reply(n, out, &t);
	if (r == 0)
		*ret = t;
	noise_transport_wipe(&t);
	noise_handshake_wipe(n);
	n->peer_static = peer;
	n->version = version;
	return r;
}

void noise_handshake_wipe(struct noise_handshake *n)
{
	sodium_memzero(n, sizeof(*n));
}

void noise_transport_wipe(struct noise_transport *t)
{
	sodium_memzero(t, sizeof(*t));
}

/* ---- records */

/* Four zero bytes and the counter as big-endian: not what the Noise specification says (control.md T1). */
static void nonce_of(uint64_t counter, uint8_t out[static crypto_aead_chacha20poly1305_ietf_NPUBBYTES])
{
	memset(out, 0, 4);
	for (int i = 0; i < 8; i++)
		out[4 + i] = (uint8_t)(counter >> (56 - 8 * i));
}

int noise_seal(struct noise_cipher *c, const uint8_t *plain, size_t n, uint8_t *out)
{
	uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

	if (n > NOISE_PLAIN_MAX)
		return -ENOBUFS;
	if (c->counter == UINT64_MAX)
		return -EOVERFLOW;
	nonce_of(c->counter, nonce);
	out[0] = NOISE_TYPE_RECORD;
	out[1] = (uint8_t)((n + NOISE_TAG) >> 8);
	out[2] = (uint8_t)(n + NOISE_TAG);
	crypto_aead_chacha20poly1305_ietf_encrypt(out + NOISE_RECORD_HEADER, NULL, plain, n, NULL, 0, NULL, nonce,
						  c->key.b);
	c->counter++;
	return (int)(NOISE_RECORD_HEADER + n + NOISE_TAG);
}

int noise_record_length(const uint8_t *p, size_t len)
{
	size_t n;

	if (len < NOISE_RECORD_HEADER)
		return len && p[0] != NOISE_TYPE_RECORD ? -EBADMSG : -EAGAIN;
	n = (size_t)p[1] << 8 | p[2];
	if (p[0] != NOISE_TYPE_RECORD || n < NOISE_TAG || n > NOISE_FRAME_MAX - NOISE_RECORD_HEADER)
		return -EBADMSG;
	return (int)(NOISE_RECORD_HEADER + n);
}

int noise_open(struct noise_cipher *c, const uint8_t *frame, size_t len, uint8_t *out)
{
	uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
	int n = noise_record_length(frame, len);

	if (n < 0 || (size_t)n != len || c->counter == UINT64_MAX)
		return -EBADMSG;
	nonce_of(c->counter, nonce);
	if (crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, frame + NOISE_RECORD_HEADER,
						      len - NOISE_RECORD_HEADER, NULL, 0, nonce, c->key.b) != 0)
		return -EBADMSG;
	c->counter++;
	return (int)(len - NOISE_RECORD_HEADER - NOISE_TAG);
}
