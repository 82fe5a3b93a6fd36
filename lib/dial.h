#pragma once
/*
 * dial: from host and port to a connected TCP socket, on the loop.
 *
 * Looks the name up with c-ares over marked sockets (a literal needs no look-up), then races the
 * addresses: IPv6 first, IPv4 200 ms later, the next one whenever one fails. Where the name cannot be
 * looked up, the last good addresses from the cache are tried. Owns its sockets until it hands one over.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define DIAL_ADDRS_MAX 16
#define DIAL_MARK      0x80000u /* keeps our own traffic out of the tunnel: the routing rules look at it */

struct dial;
struct dial_cache;

/* Last good addresses by name, at most 64 names; the owner may save and restore it with get and put. */
int dial_cache_new(struct dial_cache **ret);
void dial_cache_free(struct dial_cache *c);
DEFINE_CLEANUP(struct dial_cache *, dial_cache_free)
int dial_cache_put(struct dial_cache *c, const char *host, const struct addr *a, size_t n);
size_t dial_cache_get(const struct dial_cache *c, const char *host, struct addr *out, size_t max);

struct dial_opts {
	uint32_t mark;		  /* SO_MARK of every socket, look-ups included; EPERM is ignored. 0 = none */
	uint64_t address_usec;	  /* for one address; 0 = 3 s */
	uint64_t total_usec;	  /* for everything; 0 = 10 s */
	struct dial_cache *cache; /* borrowed, outlives the dial; NULL = none */
	const struct addr *addrs; /* given addresses are used instead of a look-up (copied) */
	size_t n_addrs;
	uint8_t family; /* 4 or 6: only these; 0 = both */
};

/* Once. fd: the caller's connected, non-blocking socket and to = where it leads; or a negative errno (-ENOENT: no
 * such name) with why for people. The dial is freed by itself when the callback returns. */
typedef void dial_fn(void *data, int fd, const struct endpoint *to, const char *why);

/* opts may be NULL. The callback never comes inside dial_start(). Bytes of host: name or literal, with or without []. */
int dial_start(struct loop *l, const char *host, uint16_t port, const struct dial_opts *o, dial_fn *fn,
	       void *data, struct dial **ret);
/* Only the look-up, with the same cache and order. Once: r == 0 and the addresses (views), or a negative errno. */
typedef void dial_lookup_fn(void *data, int r, const struct addr *a, size_t n, const char *why);
int dial_lookup(struct loop *l, const char *host, const struct dial_opts *o, dial_lookup_fn *fn, void *data,
		struct dial **ret);

/* No callback any more. Not after the callback. NULL is fine. */
void dial_cancel(struct dial *d);
DEFINE_CLEANUP(struct dial *, dial_cancel)
