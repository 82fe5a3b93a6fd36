#include "proto/stun.h"

#include <errno.h>
#include <string.h>

#include "lib/cursor.h"

#define STUN_HEADER_LEN	     20
#define STUN_COOKIE	     0x2112a442u
#define STUN_FINGERPRINT_LEN 8
#define STUN_FINGERPRINT_XOR 0x5354554eu

enum {
	STUN_BINDING_REQUEST = 0x0001,
	STUN_BINDING_SUCCESS = 0x0101,
};

enum {
	STUN_ATTR_MAPPED = 0x0001,
	STUN_ATTR_XOR_MAPPED = 0x0020,
	STUN_ATTR_XOR_MAPPED_ALT = 0x8020,
	STUN_ATTR_SOFTWARE = 0x8022,
	STUN_ATTR_FINGERPRINT = 0x8028,
};

static const char stun_software[8] = { 't', 'a', 'i', 'l', 'n', 'o', 'd', 'e' };

/* CRC-32 of IEEE 802.3, four bits at a time: requests are 40 bytes, a big table gains nothing. */
static uint32_t stun_fingerprint(const uint8_t *p, size_t len)
{
	static const uint32_t nibble[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
		0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
		0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		crc = crc >> 4 ^ nibble[crc & 15];
		crc = crc >> 4 ^ nibble[crc & 15];
	}
	return ~crc ^ STUN_FINGERPRINT_XOR;
}

static void put_be16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put_be32(uint8_t *p, uint32_t v)
{
	put_be16(p, v >> 16);
	put_be16(p + 2, v & 0xffff);
}

bool stun_is(const void *p, size_t len)
{
	struct cursor c = cursor_of(p, len);
	uint8_t first = cursor_u8(&c);

	cursor_skip(&c, 3);
	return cursor_be32(&c) == STUN_COOKIE && len >= STUN_HEADER_LEN && !(first & 0xc0);
}

void stun_request_encode(const uint8_t txid[static STUN_TXID_LEN],
			 uint8_t out[static STUN_REQUEST_LEN])
{
	put_be16(out, STUN_BINDING_REQUEST);
	put_be16(out + 2, STUN_REQUEST_LEN - STUN_HEADER_LEN);
	put_be32(out + 4, STUN_COOKIE);
	memcpy(out + 8, txid, STUN_TXID_LEN);
	put_be16(out + 20, STUN_ATTR_SOFTWARE);
	put_be16(out + 22, sizeof(stun_software));
	memcpy(out + 24, stun_software, sizeof(stun_software));
	put_be16(out + 32, STUN_ATTR_FINGERPRINT);
	put_be16(out + 34, 4);
	put_be32(out + 36, stun_fingerprint(out, STUN_REQUEST_LEN - STUN_FINGERPRINT_LEN));
}

/* One attribute with its padding; *ret is a view of its value. */
static uint16_t stun_attr(struct cursor *c, struct cursor *ret)
{
	uint16_t type = cursor_be16(c);
	uint16_t len = cursor_be16(c);

	*ret = cursor_of(cursor_take(c, len), len);
	cursor_skip(c, -len & 3u);
	return type;
}

int stun_request_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN])
{
	struct cursor c = cursor_of(p, len);
	uint8_t txid[STUN_TXID_LEN];
	bool software = false;
	uint16_t last = 0;
	uint32_t crc = 0;

	if (!stun_is(p, len) || cursor_be16(&c) != STUN_BINDING_REQUEST)
		return -EBADMSG;
	cursor_skip(&c, 6); /* the length field is not looked at: the datagram has one */
	cursor_copy(&c, txid, sizeof(txid));
	while (c.left) {
		struct cursor v;

		last = stun_attr(&c, &v);
		if (!cursor_ok(&c))
			return -EBADMSG;
		if (last == STUN_ATTR_SOFTWARE && v.left == sizeof(stun_software) &&
		    !memcmp(v.p, stun_software, sizeof(stun_software)))
			software = true;
		if (last == STUN_ATTR_FINGERPRINT) { /* a shorter one makes a question of less than 40 bytes */
			if (v.left != 4)
				return -EBADMSG;
			crc = cursor_be32(&v);
		}
	}
	if (!software || last != STUN_ATTR_FINGERPRINT ||
	    len < STUN_HEADER_LEN + STUN_FINGERPRINT_LEN ||
	    crc != stun_fingerprint(p, len - STUN_FINGERPRINT_LEN))
		return -EBADMSG;
	memcpy(ret_txid, txid, sizeof(txid));
	return 0;
}

/* What the cookie and the transaction id are to an address in XOR-MAPPED-ADDRESS. */
static void stun_mask(uint8_t *ip, size_t len, const uint8_t *txid)
{
	uint8_t mask[4 + STUN_TXID_LEN];

	put_be32(mask, STUN_COOKIE);
	memcpy(mask + 4, txid, STUN_TXID_LEN);
	for (size_t i = 0; i < len; i++)
		ip[i] ^= mask[i];
}

size_t stun_response_encode(const uint8_t txid[static STUN_TXID_LEN], const struct endpoint *src,
			    uint8_t out[static STUN_RESPONSE_MAX])
{
	size_t ip = addr_len(&src->addr);

	if (!ip)
		return 0;
	put_be16(out, STUN_BINDING_SUCCESS);
	put_be16(out + 2, (unsigned int)(8 + ip));
	put_be32(out + 4, STUN_COOKIE);
	memcpy(out + 8, txid, STUN_TXID_LEN);
	put_be16(out + 20, STUN_ATTR_XOR_MAPPED);
	put_be16(out + 22, (unsigned int)(4 + ip));
	out[24] = 0;
	out[25] = ip == 4 ? 1 : 2;
	put_be16(out + 26, src->port ^ (STUN_COOKIE >> 16));
	memcpy(out + 28, src->addr.b, ip);
	stun_mask(out + 28, ip, txid);
	return 28 + ip;
}

/* MAPPED-ADDRESS and XOR-MAPPED-ADDRESS; bytes behind the address are let be, as upstream does. */
static int stun_mapped(struct cursor v, const uint8_t *xor_txid, struct endpoint *ret)
{
	struct endpoint e = { 0 };
	uint8_t ip[16], family;

	cursor_skip(&v, 1);
	family = cursor_u8(&v);
	e.port = cursor_be16(&v);
	if (family != 1 && family != 2)
		return -EBADMSG;
	cursor_copy(&v, ip, family == 1 ? 4 : 16);
	if (!cursor_ok(&v))
		return -EBADMSG;
	if (xor_txid) {
		e.port ^= STUN_COOKIE >> 16;
		stun_mask(ip, family == 1 ? 4 : 16, xor_txid);
	}
	e.addr = family == 1 ? addr_from4(ip) : addr_from16(ip);
	*ret = e;
	return 0;
}

int stun_response_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN],
			 struct endpoint *ret)
{
	struct endpoint xored = { 0 }, plain = { 0 };
	struct cursor c = cursor_of(p, len);
	uint8_t txid[STUN_TXID_LEN];
	uint16_t attrs;
	int r = 0;

	if (!stun_is(p, len) || cursor_be16(&c) != STUN_BINDING_SUCCESS)
		return -EBADMSG;
	attrs = cursor_be16(&c);
	cursor_skip(&c, 4);
	cursor_copy(&c, txid, sizeof(txid));
	if (attrs > c.left)
		return -EBADMSG;
	c.left = attrs; /* what follows the attributes is not ours */
	while (c.left) {
		struct cursor v;
		uint16_t type = stun_attr(&c, &v);

		if (!cursor_ok(&c))
			return -EBADMSG;
		if (type == STUN_ATTR_XOR_MAPPED || type == STUN_ATTR_XOR_MAPPED_ALT)
			r = stun_mapped(v, txid, &xored);
		else if (type == STUN_ATTR_MAPPED)
			r = stun_mapped(v, NULL, &plain);
		if (r < 0)
			return r;
	}
	if (!xored.addr.family && !plain.addr.family)
		return -EBADMSG;
	*ret = xored.addr.family ? xored : plain;
	memcpy(ret_txid, txid, sizeof(txid));
	return 0;
}
