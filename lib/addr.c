#include "lib/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"

struct addr addr_from4(const void *b4)
{
	struct addr a = { .family = 4 };

	memcpy(a.b, b4, 4);
	return a;
}

struct addr addr_v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	return addr_from4((uint8_t[]){ a, b, c, d });
}

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

struct addr addr_from16(const void *b16)
{
	struct addr a = { .family = 6 };

	if (memcmp(b16, mapped, sizeof(mapped)) == 0)
		return addr_from4((const uint8_t *)b16 + 12);
	memcpy(a.b, b16, 16);
	return a;
}

void addr_to16(const struct addr *a, uint8_t out[static 16])
{
	memset(out, 0, 16);
	if (a->family == 4) {
		memcpy(out, mapped, sizeof(mapped));
		memcpy(out + 12, a->b, 4);
	} else if (a->family == 6) {
		memcpy(out, a->b, 16);
	}
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	return addr_cmp(a, b) == 0;
}

int addr_cmp(const struct addr *a, const struct addr *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->b, b->b, addr_len(a));
}

static bool in(const struct addr *a, uint8_t family, const uint8_t *net, unsigned int bits)
{
	struct prefix p = { .addr = { .family = family }, .bits = (uint8_t)bits };

	memcpy(p.addr.b, net, family == 4 ? 4 : 16);
	return prefix_contains(&p, a);
}
#define IN4(a, bits, ...) in(a, 4, (const uint8_t[4]){ __VA_ARGS__ }, bits)
#define IN6(a, bits, ...) in(a, 6, (const uint8_t[16]){ __VA_ARGS__ }, bits)

bool addr_is_loopback(const struct addr *a)
{
	return IN4(a, 8, 127) || IN6(a, 128, [15] = 1);
}

bool addr_is_link_local(const struct addr *a)
{
	return IN4(a, 16, 169, 254) || IN6(a, 10, 0xfe, 0x80);
}

bool addr_is_private(const struct addr *a)
{
	return IN4(a, 8, 10) || IN4(a, 12, 172, 16) || IN4(a, 16, 192, 168) || IN6(a, 7, 0xfc);
}

bool addr_is_multicast(const struct addr *a)
{
	return IN4(a, 4, 224) || IN6(a, 8, 0xff);
}

bool addr_is_unspecified(const struct addr *a)
{
	static const uint8_t zero[16];

	return memcmp(a->b, zero, addr_len(a)) == 0;
}

bool addr_is_cgnat(const struct addr *a)
{
	return IN4(a, 10, 100, 64);
}

bool addr_is_tailnet(const struct addr *a)
{
	return (addr_is_cgnat(a) && !IN4(a, 23, 100, 115, 92)) ||
	       IN6(a, 48, 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0);
}

struct addr addr_site(const struct addr *a)
{
	struct addr site = *a;

	if (site.family == 6)
		memset(site.b + 8, 0, 8);
	return site;
}

struct addr addr_next(const struct addr *a)
{
	struct addr n = *a;

	for (size_t i = addr_len(a); i-- > 0;)
		if (++n.b[i] != 0)
			break;
	return n;
}

const char *addr_text(const struct addr *a, char out[static ADDR_TEXT_MAX])
{
	if (a->family == 0 || !inet_ntop(addr_af(a), a->b, out, ADDR_TEXT_MAX))
		snprintf(out, ADDR_TEXT_MAX, "none");
	return out;
}

int addr_parse(const char *s, size_t len, struct addr *ret)
{
	char text[ADDR_TEXT_MAX];
	uint8_t b[16];

	if (len >= sizeof(text))
		return -EBADMSG;
	memcpy(text, s, len);
	text[len] = '\0';
	if (strlen(text) != len)
		return -EBADMSG;
	if (inet_pton(AF_INET, text, b) == 1)
		*ret = addr_from4(b);
	else if (inet_pton(AF_INET6, text, b) == 1)
		*ret = addr_from16(b);
	else
		return -EBADMSG;
	return 0;
}

bool prefix_equal(const struct prefix *a, const struct prefix *b)
{
	return a->bits == b->bits && addr_equal(&a->addr, &b->addr);
}

int prefix_cmp(const struct prefix *a, const struct prefix *b)
{
	int r = addr_cmp(&a->addr, &b->addr);

	return r ? r : (int)a->bits - (int)b->bits;
}

bool prefix_contains(const struct prefix *p, const struct addr *a)
{
	unsigned int bytes = p->bits / 8, rest = p->bits % 8;

	if (p->addr.family != a->family || memcmp(p->addr.b, a->b, bytes) != 0)
		return false;
	return rest == 0 || ((p->addr.b[bytes] ^ a->b[bytes]) >> (8 - rest)) == 0;
}

bool prefix_is_single(const struct prefix *p)
{
	return p->bits == addr_bits(&p->addr);
}

bool prefix_is_default(const struct prefix *p)
{
	return p->bits == 0;
}

struct prefix prefix_of(const struct addr *a)
{
	return (struct prefix){ .addr = *a, .bits = (uint8_t)addr_bits(a) };
}

struct prefix prefix_masked(const struct prefix *p)
{
	struct prefix m = *p;

	for (unsigned int i = p->bits; i < addr_bits(&p->addr); i++)
		m.addr.b[i / 8] &= (uint8_t)~(0x80 >> (i % 8));
	return m;
}

struct addr prefix_last(const struct prefix *p)
{
	struct addr a = p->addr;

	for (unsigned int i = p->bits; i < addr_bits(&a); i++)
		a.b[i / 8] |= (uint8_t)(0x80 >> (i % 8));
	return a;
}

const char *prefix_text(const struct prefix *p, char out[static PREFIX_TEXT_MAX])
{
	char a[ADDR_TEXT_MAX];

	snprintf(out, PREFIX_TEXT_MAX, "%s/%u", addr_text(&p->addr, a), p->bits);
	return out;
}

/* A decimal number of one to max_digits digits without sign or leading zero. */
static int parse_number(const char *s, size_t len, size_t max_digits, unsigned int max,
			unsigned int *ret)
{
	unsigned int v = 0;

	if (len == 0 || len > max_digits || (len > 1 && s[0] == '0'))
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -EBADMSG;
		v = v * 10 + (unsigned int)(s[i] - '0');
	}
	if (v > max)
		return -EBADMSG;
	*ret = v;
	return 0;
}

int prefix_parse(const char *s, size_t len, struct prefix *ret)
{
	const char *slash = memchr(s, '/', len);
	struct prefix p;
	unsigned int bits;
	size_t n;

	if (!slash)
		return -EBADMSG;
	n = (size_t)(slash - s);
	if (addr_parse(s, n, &p.addr) < 0 ||
	    parse_number(slash + 1, len - n - 1, 3, addr_bits(&p.addr), &bits) < 0)
		return -EBADMSG;
	p.bits = (uint8_t)bits;
	*ret = p;
	return 0;
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && addr_equal(&a->addr, &b->addr);
}

int endpoint_cmp(const struct endpoint *a, const struct endpoint *b)
{
	int r = addr_cmp(&a->addr, &b->addr);

	return r ? r : (int)a->port - (int)b->port;
}

const char *endpoint_text(const struct endpoint *e, char out[static ENDPOINT_TEXT_MAX])
{
	char a[ADDR_TEXT_MAX];

	snprintf(out, ENDPOINT_TEXT_MAX, e->addr.family == 6 ? "[%s]:%u" : "%s:%u",
		 addr_text(&e->addr, a), e->port);
	return out;
}

int endpoint_parse(const char *s, size_t len, struct endpoint *ret)
{
	const char *colon = memrchr(s, ':', len);
	struct endpoint e;
	unsigned int port;
	size_t n;

	if (!colon)
		return -EBADMSG;
	n = (size_t)(colon - s);
	if (parse_number(colon + 1, len - n - 1, 5, 65535, &port) < 0)
		return -EBADMSG;
	if (n >= 2 && s[0] == '[' && s[n - 1] == ']') {
		if (!memchr(s + 1, ':', n - 2) || addr_parse(s + 1, n - 2, &e.addr) < 0)
			return -EBADMSG;
	} else if (memchr(s, ':', n) || addr_parse(s, n, &e.addr) < 0) {
		return -EBADMSG;
	}
	e.port = (uint16_t)port;
	*ret = e;
	return 0;
}

int endpoint_from_sockaddr(const struct sockaddr *sa, struct endpoint *ret)
{
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in4;

		memcpy(&in4, sa, sizeof(in4));
		*ret = (struct endpoint){ addr_from4(&in4.sin_addr), ntohs(in4.sin_port) };
		return 0;
	}
	if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, sa, sizeof(in6));
		*ret = (struct endpoint){ addr_from16(&in6.sin6_addr), ntohs(in6.sin6_port) };
		return 0;
	}
	return -EAFNOSUPPORT;
}

socklen_t endpoint_to_sockaddr(const struct endpoint *e, union sockaddr_any *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (e->addr.family == 4) {
		ret->in.sin_family = AF_INET;
		ret->in.sin_port = htons(e->port);
		memcpy(&ret->in.sin_addr, e->addr.b, 4);
		return sizeof(ret->in);
	}
	if (e->addr.family == 6) {
		ret->in6.sin6_family = AF_INET6;
		ret->in6.sin6_port = htons(e->port);
		memcpy(&ret->in6.sin6_addr, e->addr.b, 16);
		return sizeof(ret->in6);
	}
	return 0;
}
