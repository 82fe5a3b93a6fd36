#include "proto/disco.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "lib/cursor.h"

_Static_assert(DISCO_NONCE_LEN == crypto_box_NONCEBYTES, "nonce of crypto_box");
_Static_assert(DISCO_TAG_LEN == crypto_box_MACBYTES, "tag of crypto_box");

bool disco_looks_like(const void *p, size_t len)
{
	return len >= DISCO_HEADER_LEN && memcmp(p, DISCO_MAGIC, DISCO_MAGIC_LEN) == 0;
}

int disco_sender(const void *p, size_t len, struct key *ret)
{
	if (!disco_looks_like(p, len))
		return -EBADMSG;
	memcpy(ret->b, (const uint8_t *)p + DISCO_MAGIC_LEN, KEY_LEN);
	return 0;
}

int disco_shared_init(const struct key *priv, const struct key *peer_pub, struct disco_shared *ret)
{
	struct disco_shared k;

	if (crypto_box_beforenm(k.b, peer_pub->b, priv->b) != 0)
		return -EBADMSG;
	*ret = k;
	sodium_memzero(&k, sizeof(k));
	return 0;
}

static uint8_t *put_endpoint(uint8_t *p, const struct endpoint *e)
{
	addr_to16(&e->addr, p);
	p[16] = (uint8_t)(e->port >> 8);
	p[17] = (uint8_t)e->port;
	return p + DISCO_ENDPOINT_LEN;
}

static struct endpoint read_endpoint(struct cursor *c)
{
	struct endpoint e = {0};
	uint8_t ip[16];

	cursor_copy(c, ip, sizeof(ip));
	e.addr = addr_from16(ip);
	e.port = cursor_be16(c);
	return e;
}

int disco_msg_encode(const struct disco_msg *m, uint8_t *out, size_t cap)
{
	size_t need = 2;
	uint8_t *p = out;

	switch (m->type) {
	case DISCO_TYPE_PING:
		need += DISCO_TXID_LEN + KEY_LEN;
		break;
	case DISCO_TYPE_PONG:
		need += DISCO_TXID_LEN + DISCO_ENDPOINT_LEN;
		break;
	case DISCO_TYPE_CALL_ME_MAYBE:
		if (m->call.n > DISCO_ENDPOINTS_MAX)
			return -ENOBUFS;
		need += m->call.n * DISCO_ENDPOINT_LEN;
		break;
	default:
		return -EPROTONOSUPPORT;
	}
	if (need > cap)
		return -ENOBUFS;
	*p++ = m->type;
	*p++ = 0; /* version */
	if (m->type == DISCO_TYPE_PING) {
		memcpy(p, m->ping.txid.b, DISCO_TXID_LEN);
		/* always: 32 bytes of padding would read as a node key of zeros */
		memcpy(p + DISCO_TXID_LEN, m->ping.node.b, KEY_LEN);
	} else if (m->type == DISCO_TYPE_PONG) {
		memcpy(p, m->pong.txid.b, DISCO_TXID_LEN);
		put_endpoint(p + DISCO_TXID_LEN, &m->pong.seen);
	} else {
		for (size_t i = 0; i < m->call.n; i++)
			p = put_endpoint(p, &m->call.at[i]);
	}
	return (int)need;
}

int disco_msg_decode(const void *buf, size_t len, struct disco_msg *ret)
{
	struct cursor c = cursor_of(buf, len);
	struct disco_msg m;
	uint8_t version;

	memset(&m, 0, sizeof(m));
	m.type = cursor_u8(&c);
	version = cursor_u8(&c);
	switch (m.type) {
	case DISCO_TYPE_PING:
		cursor_copy(&c, m.ping.txid.b, DISCO_TXID_LEN);
		m.ping.has_node = c.left >= KEY_LEN; /* only clients before 1.16 leave it out */
		if (m.ping.has_node)
			cursor_copy(&c, m.ping.node.b, KEY_LEN);
		break;
	case DISCO_TYPE_PONG:
		cursor_copy(&c, m.pong.txid.b, DISCO_TXID_LEN);
		m.pong.seen = read_endpoint(&c);
		break;
	case DISCO_TYPE_CALL_ME_MAYBE:
		if (version != 0 || c.left % DISCO_ENDPOINT_LEN)
			break; /* an empty list, not an error: disco.md 3 */
		while (c.left && m.call.n < DISCO_ENDPOINTS_MAX)
			m.call.at[m.call.n++] = read_endpoint(&c);
		break;
	default:
		break;
	}
	if (!cursor_ok(&c)) /* what is left over is padding */
		return -EBADMSG;
	*ret = m;
	return 0;
}

int disco_seal(const struct disco_shared *k, const struct key *self_pub, const uint8_t *nonce,
	       const void *plain, size_t len, uint8_t *out, size_t cap)
{
	uint8_t *n = out + DISCO_MAGIC_LEN + KEY_LEN;

	if (cap < DISCO_OVERHEAD || len > cap - DISCO_OVERHEAD)
		return -ENOBUFS;
	memcpy(out, DISCO_MAGIC, DISCO_MAGIC_LEN);
	memcpy(out + DISCO_MAGIC_LEN, self_pub->b, KEY_LEN);
	if (nonce)
		memcpy(n, nonce, DISCO_NONCE_LEN);
	else
		randombytes_buf(n, DISCO_NONCE_LEN);
	if (crypto_box_easy_afternm(out + DISCO_HEADER_LEN, plain, len, n, k->b) != 0)
		return -EBADMSG;
	return (int)(DISCO_OVERHEAD + len);
}

int disco_open(const struct disco_shared *k, const void *buf, size_t len, uint8_t *out, size_t cap)
{
	const uint8_t *p = buf;
	size_t n;

	if (!disco_looks_like(p, len) || len < DISCO_OVERHEAD)
		return -EBADMSG;
	n = len - DISCO_OVERHEAD;
	if (n > cap)
		return -ENOBUFS;
	if (crypto_box_open_easy_afternm(out, p + DISCO_HEADER_LEN, n + DISCO_TAG_LEN,
					 p + DISCO_MAGIC_LEN + KEY_LEN, k->b) != 0)
		return -EBADMSG;
	return (int)n;
}
