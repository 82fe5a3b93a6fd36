#pragma once
/*
 * report: what one round of measurement found about this host's network, and which relay is home.
 *
 * Pure. Owns its arrays. The effects of each answer are those of stock nodes (netcheck.md 5.4), and
 * so is the choice of the home region from the reports of the last minutes (7).
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "proto/derpmap.h"

#define REPORT_COUNTERS_MAX 32
#define REPORT_HISTORY_MAX  24
#define REPORT_HISTORY_USEC UINT64_C(305000000) /* 5 min 5 s */
#define REPORT_HEARD_USEC                                                                          \
	UINT64_C(8000000)		     /* a frame from home that recently: it is accessible  \
					      */
#define REPORT_KEEP_USEC UINT64_C(120000000) /* without any data: so long a home is kept */

struct report_region { /* latencies in microseconds, 0 = no answer */
	int64_t id;
	uint64_t latency_usec, v4_usec, v6_usec;
};

struct report_counter {
	struct endpoint at;
	unsigned int n;
};

struct report {
	uint64_t started, ended; /* monotonic */
	bool full;
	bool udp, ipv4, ipv6; /* a round trip */
	bool ipv4_can_send, ipv6_can_send, os_has_ipv6, icmpv4;
	int mapping_varies; /* -1 not known, else 0 or 1; IPv4 only */
	int upnp, pmp, pcp; /* -1 not checked */
	int captive_portal; /* -1 not checked */
	int64_t preferred;  /* 0 = unknown */
	struct endpoint global_v4, global_v6;
	struct report_counter counters[REPORT_COUNTERS_MAX]; /* addresses seen, both families */
	size_t n_counters;
	struct report_region *regions; /* that answered */
	size_t n_regions, cap_regions;
};

void report_init(struct report *r, uint64_t now);
void report_done(struct report *r);
static inline void report_done_cleanup(struct report *r)
{
	report_done(r);
}
/* A copy with memory of its own. -ENOMEM. */
int report_copy(const struct report *r, struct report *ret);

/* NULL when it did not answer. */
const struct report_region *report_region(const struct report *r, int64_t id);
bool report_has_family(const struct report *r, uint8_t family); /* some region answered over it */

/* A STUN answer: family is that of the probe, seen our address as the server sees it. -ENOMEM. */
int report_stun(struct report *r, int64_t region, uint8_t family, const struct endpoint *seen,
		uint64_t latency_usec);
/* An answer over HTTPS: no proof of UDP. */
int report_https(struct report *r, int64_t region, uint8_t family, uint64_t latency_usec);

/* The Hostinfo.NetInfo that control is told. latencies: false gives what decides whether to tell.
 */
json_t *report_netinfo(const struct report *r, int64_t home, bool latencies);

struct report_history {
	struct report past[REPORT_HISTORY_MAX]; /* newest last */
	size_t n;
};

void report_history_done(struct report_history *h);
/* Forgets what is too old and keeps a copy. -ENOMEM. */
int report_history_add(struct report_history *h, const struct report *r);

/* heard: when a frame last came from the region previous (monotonic; 0 = never). */
int64_t report_choose_home(const struct report_history *h, const struct report *r,
			   const struct derp_map *map, int64_t previous, uint64_t heard);
