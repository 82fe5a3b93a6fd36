#pragma once
/*
 * netcheck: measures the network around this host by STUN, and HTTPS where UDP is blocked.
 *
 * Owns the plan of the running round, the history and the schedule. Borrows the relay map, sockets
 * and clock through struct netcheck_ops: no system call of its own. STUN has to leave from the
 * WireGuard port, else what it finds is not true of WireGuard. Never blocks. Ops may call
 * netcheck_start(), _address() and _https() from within, nothing else.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/path/report.h"
#include "lib/addr.h"
#include "lib/cleanup.h"
#include "proto/derpmap.h"
#include "proto/stun.h"

#define NETCHECK_TRIES_MAX	4
#define NETCHECK_STUN_USEC	UINT64_C(3000000)
#define NETCHECK_REPORT_USEC	UINT64_C(5000000)
#define NETCHECK_FULL_USEC	UINT64_C(300000000) /* between full rounds */
#define NETCHECK_REGIONS_MAX	64 /* asked in one round: servers that a map names by the thousand are not ours to storm */
#define NETCHECK_HTTPS_MAX	16 /* of them by HTTPS, which takes a connection each */
#define NETCHECK_ENOUGH		3		    /* regions: then the rest gets as long again */
#define NETCHECK_HTTPS_USEC	UINT64_C(500000) /* silence after which HTTPS is tried beside STUN */
#define NETCHECK_AGAIN_MIN_USEC UINT64_C(20000000)
#define NETCHECK_AGAIN_MAX_USEC UINT64_C(26000000)

/* ---- the plan: pure ---- */

struct netcheck_try {
	uint16_t node; /* of the region */
	uint32_t delay_usec;
};

struct netcheck_list {	 /* ends at its first answer */
	uint32_t region; /* index in the map */
	uint8_t family;	 /* 4 or 6 */
	uint8_t n;
	struct netcheck_try tries[NETCHECK_TRIES_MAX];
};

struct netcheck_input {
	const struct derp_map *map;
	const struct report *last; /* NULL = none: a full plan */
	bool full;
	int64_t home;	   /* 0 = none */
	bool have4, have6; /* this host has usable addresses */
};

/* Fills out, at most 2 for each region of the map; returns how many. */
size_t netcheck_plan(const struct netcheck_input *in, struct netcheck_list *out);
/* Where to go before anything is measured: the saved home if it still is one, or the only region
 * there is; else 0. */
int64_t netcheck_provisional_home(const struct derp_map *map, int64_t saved);
/* Is there any address of that family from which servers can be asked? */
bool netcheck_usable(const struct addr *v, size_t n, uint8_t family);

/* ---- the engine ---- */

struct netcheck_ops {
	/* From the WireGuard port. Negative errno when not sent. */
	int (*send_udp)(void *data, const struct endpoint *to, const void *p, size_t len);
	/* Look up host; answer by netcheck_address(), with that cookie. Not from within. NULL: such
	 * nodes are not measured by STUN. */
	void (*lookup)(void *data, const char *host, uint8_t family, uint32_t cookie);
	/* GET https://…/derp/latency-check on a connection to the region; netcheck_https() tells
	 * the time from request to response head. NULL: not done. */
	void (*https)(void *data, int64_t region);
	/* When a frame last came from that region (monotonic; 0 = never). */
	uint64_t (*heard)(void *data, int64_t region);
	/* Periodic rounds are wanted: there are peers and one had traffic in the last 45 s. */
	bool (*wanted)(void *data);
	/* The first answer while there is no home: a good guess, at once. May be NULL. */
	void (*hint)(void *data, int64_t region);
	/* A round is over. r->preferred is the home to have (0: none found). r stays valid until
	 * the next round is over. */
	void (*done)(void *data, const struct report *r);
	/* Call netcheck_tick() then. UINT64_MAX = no need. */
	void (*wake)(void *data, uint64_t when_usec);
};

struct netcheck;

int netcheck_new(const struct netcheck_ops *ops, void *data, struct netcheck **ret);
void netcheck_free(struct netcheck *n);
DEFINE_CLEANUP(struct netcheck *, netcheck_free)

/* map: borrowed until the next call; a running round is given up and begun anew. NULL = none: the
 * round is given up for good, and done() does not come. */
void netcheck_set_map(struct netcheck *n, const struct derp_map *map, uint64_t now);
void netcheck_set_host(struct netcheck *n, bool have4, bool have6, bool os_has_ipv6);
/* The home that is in use. */
void netcheck_set_home(struct netcheck *n, int64_t region);

/* Asks for a round; while one runs, for one more after it. full: all regions.
 * done() never comes from within. */
void netcheck_start(struct netcheck *n, bool full, uint64_t now);
bool netcheck_running(const struct netcheck *n);
/* The last finished report; NULL before the first. */
const struct report *netcheck_report(const struct netcheck *n);

/* True when it was a STUN answer, wanted or not. */
bool netcheck_received(struct netcheck *n, const void *p, size_t len, uint64_t now);
/* addr NULL: no such address. */
void netcheck_address(struct netcheck *n, uint32_t cookie, const struct addr *addr, uint64_t now);
/* latency_usec 0: it failed. */
void netcheck_https(struct netcheck *n, int64_t region, uint8_t family, uint64_t latency_usec,
		    uint64_t now);
void netcheck_tick(struct netcheck *n, uint64_t now);
