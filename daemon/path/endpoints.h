#pragma once
/*
 * endpoints: the addresses at which this node says it can be reached (MapRequest.Endpoints,
 * CallMeMaybe).
 *
 * Pure. Remembers what STUN found for five minutes, because a mapping that is not seen for a moment
 * is mostly still there and every change is news to all peers.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/path/report.h"
#include "lib/addr.h"

#define OWN_ENDPOINTS_MAX	 48
#define OWN_ENDPOINTS_CACHE_MAX	 32
#define OWN_ENDPOINTS_CACHE_USEC UINT64_C(310000000)
#define OWN_ENDPOINTS_PER_IP	 6

/* Codes of the wire: tailcfg.EndpointType. */
enum own_endpoint_type {
	OWN_ENDPOINT_UNKNOWN = 0,
	OWN_ENDPOINT_LOCAL = 1,
	OWN_ENDPOINT_STUN = 2,
	OWN_ENDPOINT_PORTMAPPED = 3,
	OWN_ENDPOINT_STUN4_LOCAL_PORT = 4, /* a guess: somebody forwarded our fixed port by hand */
	OWN_ENDPOINT_EXPLICIT = 5,
};

struct own_endpoint {
	struct endpoint at;
	uint8_t type; /* enum own_endpoint_type */
};

struct own_endpoints {
	struct own_endpoint v[OWN_ENDPOINTS_MAX]; /* in the order of the wire */
	size_t n;
};

struct own_endpoints_cache {
	struct {
		struct own_endpoint e;
		uint64_t seen;
	} v[OWN_ENDPOINTS_CACHE_MAX];
	size_t n;
};

struct own_endpoints_input {
	const struct report *report; /* NULL = none yet */
	const struct addr *local;    /* of interfaces that are up, without our own tunnel */
	size_t n_local;
	uint16_t port;		    /* of WireGuard */
	bool fixed_port;	    /* configured, so that somebody may forward it */
	struct endpoint portmapped; /* family 0 = none */
	const struct endpoint *explicit;
	size_t n_explicit;
};

/* cache is updated. */
void own_endpoints_determine(struct own_endpoints_cache *cache,
			     const struct own_endpoints_input *in, uint64_t now,
			     struct own_endpoints *ret);
/* Which interface addresses are told: see disco.md 10. Sorted; returns how many of out's max. */
size_t own_endpoints_local(const struct addr *v, size_t n, struct addr *out, size_t max);
/* As sets: order does not matter. */
bool own_endpoints_equal(const struct own_endpoints *a, const struct own_endpoints *b);
