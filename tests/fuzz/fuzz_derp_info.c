/*
 * ClientInfo and ServerInfo: the input as it is (a box that does not open), and as the JSON text
 * inside a box that opens.
 *
 * words: proto/derp.c
 */
#include <sodium.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/derp.h"
#include "tests/fuzz/agree.h"
#include "tests/fuzz/json_mutator.h"

static int box_key(uint8_t *out, const uint8_t *secret, const uint8_t *pub)
{
	return crypto_box_beforenm(out, pub, secret);
}

/* libsodium's, but that keys agree once only. */
int crypto_box_easy(unsigned char *c, const unsigned char *m, unsigned long long n, const unsigned char *nonce,
		    const unsigned char *pub, const unsigned char *secret)
{
	uint8_t k[crypto_box_BEFORENMBYTES];

	return agree(box_key, secret, pub, k) != 0 ? -1 : crypto_box_easy_afternm(c, m, n, nonce, k);
}

int crypto_box_open_easy(unsigned char *m, const unsigned char *c, unsigned long long n, const unsigned char *nonce,
			 const unsigned char *pub, const unsigned char *secret)
{
	uint8_t k[crypto_box_BEFORENMBYTES];

	if (n < crypto_box_MACBYTES || agree(box_key, secret, pub, k) != 0)
		return -1;
	return crypto_box_open_easy_afternm(m, c, n, nonce, k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct key_pair client, server;
	uint8_t nonce[DERP_NONCE_LEN] = { 0 };
	struct derp_client_info ci;
	struct derp_server_info si;
	struct buf b = { 0 };
	struct key who;
	uint8_t *p;

	if (!client.priv.b[1]) {
		memset(&client.priv, 0x41, sizeof(client.priv));
		memset(&server.priv, 0x42, sizeof(server.priv));
		if (key_init() < 0 || key_public(&client.priv, &client.pub) < 0 ||
		    key_public(&server.priv, &server.pub) < 0)
			abort();
	}
	if (derp_client_info_open(data, size, &server.priv, &who, &ci) == 0 ||
	    derp_server_info_open(data, size, &client.priv, &server.pub, &si) == 0)
		abort(); /* nobody guesses a box */
	buf_put(&b, client.pub.b, KEY_LEN);
	buf_put(&b, nonce, sizeof(nonce));
	p = buf_tail(&b, size + DERP_MAC_LEN);
	if (!p || crypto_box_easy(p, data, size, nonce, server.pub.b, client.priv.b) < 0)
		abort();
	buf_commit(&b, size + DERP_MAC_LEN);
	if (derp_client_info_open(buf_data(&b), b.len, &server.priv, &who, &ci) == 0) {
		struct derp_client_info back;
		struct buf out = { 0 };

		if (derp_put_client_info(&out, &ci, &client, &server.pub, nonce) < 0 ||
		    derp_client_info_open(buf_data(&out) + DERP_HEADER_LEN,
					  out.len - DERP_HEADER_LEN, &server.priv, &who,
					  &back) < 0 ||
		    back.version != ci.version || back.can_ack_pings != ci.can_ack_pings ||
		    back.has_mesh_key != ci.has_mesh_key)
			abort();
		buf_done(&out);
	}
	derp_server_info_open(buf_data(&b) + KEY_LEN, b.len - KEY_LEN, &server.priv, &client.pub,
			      &si);
	buf_done(&b);
	return 0;
}
