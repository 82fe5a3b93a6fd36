#pragma once
/*
 * candidates: the addresses at which one peer may be reached, and what is known of each.
 *
 * Owns a bounded array that grows as needed. Pure: no time of its own, no I/O. The rules by which
 * an address goes are those of stock nodes (who pings us for how long, which list names it), with
 * one difference: the address in use (keep) is never taken away by a list.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "proto/disco.h"

#define CANDIDATES_MAX 32
/* How long an address lives that only the peer's own pings told us of. */
#define CANDIDATE_HEARD_USEC UINT64_C(45000000)

enum candidate_source {
	CANDIDATE_SOURCE_MAP = 1,  /* the netmap lists it */
	CANDIDATE_SOURCE_CALL = 2, /* the latest CallMeMaybe lists it */
	CANDIDATE_SOURCE_PING = 4, /* the peer pinged, or its packets came, from there */
};

struct candidate {
	struct endpoint at;
	struct addr local; /* ours, at which its last ping or pong came in; family 0 = none yet */
	uint8_t sources;   /* of enum candidate_source */
	uint8_t first;	   /* the one through which it was learned */
	bool has_txid;
	struct disco_txid txid; /* of the last ping from there */
	uint32_t latency_usec;
	uint64_t heard; /* last ping from there; 0 = never, and so on */
	uint64_t pinged;
	uint64_t ponged;
};

struct candidates {
	struct candidate *v;
	uint8_t n, cap;
};

void candidates_done(struct candidates *c);
/* False for what no peer can have: loopback, multicast, IPv6 link-local, addresses inside the mesh.
 */
bool candidate_usable(const struct endpoint *e);
struct candidate *candidates_find(struct candidates *c, const struct endpoint *e);
/* Adds or marks; a full set gives up its oldest learned address, never keep. NULL: unusable, full,
 * no memory. */
struct candidate *candidates_add(struct candidates *c, const struct endpoint *e,
				 enum candidate_source source, const struct endpoint *keep,
				 uint64_t now_usec);
/* The whole list of that source is now this one. source: MAP or CALL. */
void candidates_update(struct candidates *c, enum candidate_source source, const struct endpoint *v,
		       size_t n, const struct endpoint *keep, uint64_t now_usec);
/* Drops learned addresses that went silent. */
void candidates_expire(struct candidates *c, const struct endpoint *keep, uint64_t now_usec);
