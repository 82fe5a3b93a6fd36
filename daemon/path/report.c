#include "daemon/path/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/json.h"

#define STICKY_USEC 10000 /* a new home has to be so much nearer */

void report_init(struct report *r, uint64_t now)
{
	*r = (struct report){ .started = now,
			      .mapping_varies = -1,
			      .upnp = -1,
			      .pmp = -1,
			      .pcp = -1,
			      .captive_portal = -1 };
}

void report_done(struct report *r)
{
	free(r->regions);
	r->regions = NULL;
	r->n_regions = r->cap_regions = 0;
}

int report_copy(const struct report *r, struct report *ret)
{
	struct report c = *r;

	c.regions = NULL;
	c.cap_regions = r->n_regions;
	if (r->n_regions) {
		c.regions = malloc(r->n_regions * sizeof(*c.regions));
		if (!c.regions)
			return -ENOMEM;
		memcpy(c.regions, r->regions, r->n_regions * sizeof(*c.regions));
	}
	*ret = c;
	return 0;
}

const struct report_region *report_region(const struct report *r, int64_t id)
{
	for (size_t i = 0; i < r->n_regions; i++)
		if (r->regions[i].id == id)
			return &r->regions[i];
	return NULL;
}

bool report_has_family(const struct report *r, uint8_t family)
{
	for (size_t i = 0; i < r->n_regions; i++)
		if (family == 4 ? r->regions[i].v4_usec : r->regions[i].v6_usec)
			return true;
	return false;
}

static void lower(uint64_t *best, uint64_t usec)
{
	if (!*best || usec < *best)
		*best = usec;
}

static int add_latency(struct report *r, int64_t id, uint8_t family, uint64_t usec)
{
	struct report_region *x = NULL;

	usec = MAX(usec, 1); /* 0 would be no answer */
	for (size_t i = 0; !x && i < r->n_regions; i++)
		if (r->regions[i].id == id)
			x = &r->regions[i];
	if (!x) {
		if (r->n_regions == r->cap_regions) {
			size_t cap = r->cap_regions ? r->cap_regions * 2 : 8;

			x = reallocarray(r->regions, cap, sizeof(*x));
			if (!x)
				return -ENOMEM;
			r->regions = x;
			r->cap_regions = cap;
		}
		x = &r->regions[r->n_regions++];
		*x = (struct report_region){ .id = id };
	}
	lower(&x->latency_usec, usec);
	lower(family == 4 ? &x->v4_usec : &x->v6_usec, usec);
	return 0;
}

static void count(struct report *r, const struct endpoint *seen)
{
	for (size_t i = 0; i < r->n_counters; i++) {
		if (endpoint_equal(&r->counters[i].at, seen)) {
			r->counters[i].n++;
			return;
		}
	}
	if (r->n_counters < REPORT_COUNTERS_MAX)
		r->counters[r->n_counters++] = (struct report_counter){ *seen, 1 };
}

int report_stun(struct report *r, int64_t region, uint8_t family, const struct endpoint *seen,
		uint64_t latency_usec)
{
	int e = add_latency(r, region, family, latency_usec);

	if (e < 0)
		return e;
	r->udp = true;
	if (family == 4)
		r->ipv4 = true;
	else
		r->ipv6 = true;
	if (seen->addr.family != family)
		return 0; /* not an address of ours that this probe can tell */
	count(r, seen);
	if (family == 6) {
		r->global_v6 = *seen; /* the latest */
	} else if (!r->global_v4.addr.family) {
		r->global_v4 = *seen; /* the first */
	} else if (!endpoint_equal(&r->global_v4, seen)) {
		r->mapping_varies = 1;
	} else if (r->mapping_varies < 0) {
		r->mapping_varies = 0;
	}
	return 0;
}

int report_https(struct report *r, int64_t region, uint8_t family, uint64_t latency_usec)
{
	int e = add_latency(r, region, family, latency_usec);

	if (e < 0)
		return e;
	if (family == 4)
		r->ipv4 = true;
	else
		r->ipv6 = true;
	return 0;
}

/* ---- NetInfo ---- */

static json_t *tri(int v)
{
	return v < 0 ? NULL : json_boolean(v);
}

/* Steals v; NULL is left out: absent means unknown. */
static void put(json_t *o, const char *name, json_t *v)
{
	if (v)
		json_object_set_new(o, name, v);
}

static void put_latency(json_t *o, int64_t id, const char *family, uint64_t usec)
{
	char name[32];

	if (!usec)
		return;
	snprintf(name, sizeof(name), "%lld-%s", (long long)id, family);
	put(o, name, json_real((double)usec / 1e6));
}

json_t *report_netinfo(const struct report *r, int64_t home, bool latencies)
{
	CLEANUP(json_decref) json_t *o = json_object();
	json_t *d;

	if (!o)
		return NULL;
	put(o, "MappingVariesByDestIP", tri(r->mapping_varies));
	put(o, "WorkingIPv6", json_boolean(r->ipv6));
	put(o, "OSHasIPv6", json_boolean(r->os_has_ipv6));
	put(o, "WorkingUDP", json_boolean(r->udp));
	put(o, "WorkingICMPv4", json_boolean(r->icmpv4));
	put(o, "UPnP", tri(r->upnp));
	put(o, "PMP", tri(r->pmp));
	put(o, "PCP", tri(r->pcp));
	if (home)
		put(o, "PreferredDERP", json_integer(home));
	if (latencies && r->n_regions) {
		d = json_object();
		for (size_t i = 0; d && i < r->n_regions; i++) {
			put_latency(d, r->regions[i].id, "v4", r->regions[i].v4_usec);
			put_latency(d, r->regions[i].id, "v6", r->regions[i].v6_usec);
		}
		put(o, "DERPLatency", d);
	}
	return TAKE(o);
}

/* ---- home ---- */

void report_history_done(struct report_history *h)
{
	for (size_t i = 0; i < h->n; i++)
		report_done(&h->past[i]);
	h->n = 0;
}

static void forget_first(struct report_history *h)
{
	report_done(&h->past[0]);
	h->n--;
	memmove(&h->past[0], &h->past[1], h->n * sizeof(h->past[0]));
}

int report_history_add(struct report_history *h, const struct report *r)
{
	struct report copy;
	int e = report_copy(r, &copy);

	if (e < 0)
		return e;
	while (h->n &&
	       (h->n == REPORT_HISTORY_MAX || r->ended - h->past[0].ended > REPORT_HISTORY_USEC))
		forget_first(h);
	h->past[h->n++] = copy;
	return 0;
}

static uint64_t scaled(const struct derp_map *map, int64_t id, uint64_t usec)
{
	double score = map ? derp_map_score(map, id) : 1.0;

	return score > 0 && score != 1.0 ? (uint64_t)((double)usec * score) : usec;
}

static uint64_t latency_in(const struct report *r, int64_t id)
{
	const struct report_region *x = report_region(r, id);

	return x ? x->latency_usec : 0;
}

/* The lowest in the history and in this report. */
static uint64_t best_recent(const struct report_history *h, const struct report *r, int64_t id)
{
	uint64_t best = latency_in(r, id), usec;

	for (size_t i = 0; i < h->n; i++) {
		if (r->ended - h->past[i].ended > REPORT_HISTORY_USEC)
			continue;
		usec = latency_in(&h->past[i], id);
		if (usec && usec < best)
			best = usec;
	}
	return best;
}

int64_t report_choose_home(const struct report_history *h, const struct report *r,
			   const struct derp_map *map, int64_t previous, uint64_t heard)
{
	uint64_t best = 0, current, usec;
	int64_t home = 0;

	for (size_t i = 0; i < r->n_regions; i++) {
		int64_t id = r->regions[i].id;

		usec = scaled(map, id, best_recent(h, r, id));
		if (home && (usec > best || (usec == best && id > home)))
			continue;
		home = id;
		best = usec;
	}
	if (!home) /* no data at all: a home that talks is kept */
		return previous && heard && r->ended - heard <= REPORT_KEEP_USEC ? previous : 0;
	if (!previous || home == previous)
		return home;
	current = scaled(map, previous, latency_in(r, previous));
	if (!current && !(heard && (heard >= r->started || r->ended - heard <= REPORT_HEARD_USEC)))
		return home; /* not accessible */
	/* Neither 10 ms nor a third nearer: not worth that all peers have to learn of it. */
	if (current < best + STICKY_USEC || best > current / 3 * 2)
		return previous;
	return home;
}
