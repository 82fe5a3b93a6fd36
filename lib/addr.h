#pragma once
/*
 * addr: IP addresses, prefixes and endpoints as values, with their text and socket forms.
 *
 * IPv4-mapped IPv6 is unmapped on the way in, so that one host has one form.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ADDR_TEXT_MAX	  48 /* INET6_ADDRSTRLEN, rounded up */
#define PREFIX_TEXT_MAX	  52
#define ENDPOINT_TEXT_MAX 56

struct addr {
	uint8_t family; /* 0 = none, 4, 6 */
	uint8_t b[16];	/* IPv4: first four; the rest zero, so that memcmp compares */
};

struct prefix {
	struct addr addr;
	uint8_t bits;
};

struct endpoint {
	struct addr addr;
	uint16_t port; /* host order */
};

union sockaddr_any {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_storage storage;
};

struct addr addr_v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d);
struct addr addr_from4(const void *b4);	      /* four bytes */
struct addr addr_from16(const void *b16);     /* sixteen bytes, unmapped */
void addr_to16(const struct addr *a, uint8_t out[static 16]); /* IPv4 as ::ffff:a.b.c.d; none as zeros */
static inline size_t addr_len(const struct addr *a)
{
	return a->family == 4 ? 4 : a->family == 6 ? 16 : 0;
}
static inline unsigned int addr_bits(const struct addr *a)
{
	return a->family == 4 ? 32 : 128;
}
static inline int addr_af(const struct addr *a)
{
	return a->family == 4 ? AF_INET : a->family == 6 ? AF_INET6 : AF_UNSPEC;
}

bool addr_equal(const struct addr *a, const struct addr *b);
int addr_cmp(const struct addr *a, const struct addr *b);
bool addr_is_loopback(const struct addr *a);
bool addr_is_link_local(const struct addr *a); /* 169.254/16, fe80::/10 */
bool addr_is_private(const struct addr *a);    /* 10/8, 172.16/12, 192.168/16, fc00::/7 */
bool addr_is_multicast(const struct addr *a);
bool addr_is_unspecified(const struct addr *a);
bool addr_is_cgnat(const struct addr *a);      /* 100.64.0.0/10 */
bool addr_is_tailnet(const struct addr *a);    /* 100.64/10 without 100.115.92/23; fd7a:115c:a1e0::/48 */
/* What one customer of a provider has, to count by: an IPv4 address itself, an IPv6 address's /64. */
struct addr addr_site(const struct addr *a);
/* The next address (for ranges and allocation); wraps to zero at the end. */
struct addr addr_next(const struct addr *a);

/* Text without port or brackets. parse: exactly len characters, no zone; -EBADMSG. */
const char *addr_text(const struct addr *a, char out[static ADDR_TEXT_MAX]);
int addr_parse(const char *s, size_t len, struct addr *ret);

bool prefix_equal(const struct prefix *a, const struct prefix *b);
int prefix_cmp(const struct prefix *a, const struct prefix *b);
bool prefix_contains(const struct prefix *p, const struct addr *a);
bool prefix_is_single(const struct prefix *p);
bool prefix_is_default(const struct prefix *p);
struct prefix prefix_of(const struct addr *a);	 /* /32 or /128 */
struct prefix prefix_masked(const struct prefix *p); /* host bits cleared */
struct addr prefix_last(const struct prefix *p);     /* host bits set */
const char *prefix_text(const struct prefix *p, char out[static PREFIX_TEXT_MAX]);
/* "a/n"; the slash is mandatory. Host bits are kept (see prefix_masked). -EBADMSG. */
int prefix_parse(const char *s, size_t len, struct prefix *ret);

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);
int endpoint_cmp(const struct endpoint *a, const struct endpoint *b);
const char *endpoint_text(const struct endpoint *e, char out[static ENDPOINT_TEXT_MAX]);
int endpoint_parse(const char *s, size_t len, struct endpoint *ret); /* "a:p", "[v6]:p" */
/* 0 on success, -EAFNOSUPPORT for other families. */
int endpoint_from_sockaddr(const struct sockaddr *sa, struct endpoint *ret);
/* Returns the length of the socket address; 0 when e has no address. */
socklen_t endpoint_to_sockaddr(const struct endpoint *e, union sockaddr_any *ret);
