#include "daemon/path/netcheck.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

#define RETRY_FIRST_USEC   100000 /* full plan */
#define RETRY_DEFAULT_USEC 200000 /* latency not known */
#define RETRY_LATER_USEC   50000  /* more for each try from the third on */
#define FASTEST		   3

/* ---- plan ---- */

/* -EAFNOSUPPORT fields are invalid or the literal "none". */
static bool node_has(const struct derp_node *n, uint8_t family)
{
	struct addr a;

	return derp_node_addr(family == 4 ? n->ipv4 : n->ipv6, family, &a) >= 0 &&
	       derp_node_stun_port(n);
}

static bool add_try(struct netcheck_list *l, const struct derp_region *r, size_t i, uint64_t delay)
{
	size_t node = i % r->n_nodes;

	if (!node_has(&r->nodes[node], l->family))
		return false;
	l->tries[l->n++] =
	    (struct netcheck_try){ (uint16_t)node, (uint32_t)MIN(delay, UINT32_MAX) };
	return true;
}

static size_t plan_full(const struct netcheck_input *in, struct netcheck_list *out)
{
	size_t n = 0, others = 0;

	for (size_t i = 0; i < in->map->n_regions; i++) {
		const struct derp_region *r = &in->map->regions[i];

		if (r->no_measure_no_home || !r->n_nodes)
			continue;
		if (r->id != in->home && others++ >= NETCHECK_REGIONS_MAX - 1)
			continue;
		for (uint8_t family = 4; family <= 6; family += 2) {
			struct netcheck_list l = { .region = (uint32_t)i, .family = family };

			if (family == 4 ? !in->have4 : !in->have6)
				continue;
			for (size_t t = 0; t < 3; t++)
				add_try(&l, r, t, t * RETRY_FIRST_USEC);
			if (l.n)
				out[n++] = l;
		}
	}
	return n;
}

/* Indexes of the fastest regions by the last report, then home; returns how many. */
static size_t choose_regions(const struct netcheck_input *in, uint32_t out[static FASTEST + 1])
{
	uint64_t best[FASTEST] = { 0 };
	size_t n = 0;

	for (size_t i = 0; i < in->map->n_regions; i++) {
		const struct derp_region *r = &in->map->regions[i];
		const struct report_region *x = report_region(in->last, r->id);
		uint64_t usec = x ? x->latency_usec : UINT64_MAX;
		size_t at = n;

		if (r->no_measure_no_home || !r->n_nodes || (r->avoid && r->id != in->home))
			continue;
		while (at && best[at - 1] > usec)
			at--;
		if (at == FASTEST)
			continue;
		n = MIN(n + 1, (size_t)FASTEST);
		memmove(&best[at + 1], &best[at], (n - at - 1) * sizeof(best[0]));
		memmove(&out[at + 1], &out[at], (n - at - 1) * sizeof(out[0]));
		best[at] = usec;
		out[at] = (uint32_t)i;
	}
	for (size_t i = 0; i < in->map->n_regions; i++) {
		const struct derp_region *r = &in->map->regions[i];
		bool in_already = false;

		if (r->id != in->home || r->no_measure_no_home || !r->n_nodes)
			continue;
		for (size_t k = 0; k < n; k++)
			in_already |= out[k] == i;
		if (!in_already)
			out[n++] = (uint32_t)i;
	}
	return n;
}

static void plan_region(const struct netcheck_input *in, uint32_t region, size_t rank,
			struct netcheck_list *v4, struct netcheck_list *v6)
{
	const struct derp_region *r = &in->map->regions[region];
	const struct report_region *x = report_region(in->last, r->id);
	bool had4 = report_has_family(in->last, 4), had6 = report_has_family(in->last, 6);
	bool do4 = in->have4, do6 = in->have6, home = r->id == in->home;
	uint64_t latency = x && x->latency_usec ? x->latency_usec * 6 / 5 : RETRY_DEFAULT_USEC;
	size_t tries = home ? 4 : rank <= 1 ? 2 : 1;

	if (rank >= 2 && !home) {
		if (had4 && had6) {
			do4 = do4 && rank % 2 == 0;
			do6 = do6 && rank % 2 == 1;
		} else {
			do6 = do6 && had6;
		}
	}
	for (size_t t = 0; t < tries; t++) {
		uint64_t delay = t * latency + (t >= 2 ? t * RETRY_LATER_USEC : 0);

		if (do4)
			add_try(v4, r, t, delay);
		if (do6 && (t == 0 || had6))
			add_try(v6, r, t, delay);
	}
}

static size_t plan_incremental(const struct netcheck_input *in, struct netcheck_list *out)
{
	uint32_t regions[FASTEST + 1];
	size_t k = choose_regions(in, regions), n = 0;

	for (size_t i = 0; i < k; i++) {
		struct netcheck_list v4 = { .region = regions[i], .family = 4 };
		struct netcheck_list v6 = { .region = regions[i], .family = 6 };

		plan_region(in, regions[i], i, &v4, &v6);
		if (v4.n)
			out[n++] = v4;
		if (v6.n)
			out[n++] = v6;
	}
	return n;
}

size_t netcheck_plan(const struct netcheck_input *in, struct netcheck_list *out)
{
	if (!in->map)
		return 0;
	return in->full || !in->last || !in->last->n_regions ? plan_full(in, out)
							     : plan_incremental(in, out);
}

static bool can_be_home(const struct derp_region *r)
{
	if (r->no_measure_no_home || r->avoid)
		return false;
	for (size_t i = 0; i < r->n_nodes; i++)
		if (!r->nodes[i].stun_only)
			return true;
	return false;
}

int64_t netcheck_provisional_home(const struct derp_map *map, int64_t saved)
{
	const struct derp_region *r = saved ? derp_map_find(map, saved) : NULL;
	int64_t only = 0;

	if (r && can_be_home(r))
		return saved;
	for (size_t i = 0; i < map->n_regions; i++) {
		if (!can_be_home(&map->regions[i]))
			continue;
		if (only)
			return 0;
		only = map->regions[i].id;
	}
	return only;
}

bool netcheck_usable(const struct addr *v, size_t n, uint8_t family)
{
	for (size_t i = 0; i < n; i++) {
		if (v[i].family != family || addr_is_loopback(&v[i]) || addr_is_link_local(&v[i]) ||
		    addr_is_tailnet(&v[i]))
			continue;
		if (family == 4 || (v[i].b[0] & 0xe0) == 0x20 || (v[i].b[0] & 0xfe) == 0xfc)
			return true;
	}
	return false;
}

/* ---- engine ---- */

struct probe_sent {
	uint64_t at; /* 0 = not sent */
	uint8_t txid[STUN_TXID_LEN];
};

struct list {
	struct netcheck_list plan;
	uint8_t next;	 /* try */
	bool over;	 /* answered, of no use any more, or nowhere to send to */
	uint8_t looking; /* bits: that try waits for its address */
	struct probe_sent sent[NETCHECK_TRIES_MAX];
};

struct https {
	int64_t region;
	uint8_t family;
	bool over;
	uint64_t latency_usec;
};

struct netcheck {
	const struct netcheck_ops *ops;
	void *data;
	const struct derp_map *map;
	bool have4, have6, os_has_ipv6;
	int64_t home;

	bool running, again, again_full, hinted;
	struct report now;  /* of the round that runs */
	struct report last; /* finished */
	bool has_last;
	uint64_t last_full; /* when the last full round ended; 0 = never */
	struct report_history history;
	struct list *lists;
	size_t n_lists;
	struct https *https;
	size_t n_https;
	uint64_t stop_at; /* the stop timer; 0 = not armed */
	uint32_t round;	  /* in cookies, so that a late answer is told from a new one */
	uint64_t next_at; /* the next periodic round; 0 = none */
	uint64_t wake_at;
	uint64_t clock;
	bool busy; /* in an entry, so that ops may call back */
};

int netcheck_new(const struct netcheck_ops *ops, void *data, struct netcheck **ret)
{
	struct netcheck *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->ops = ops;
	n->data = data;
	n->have4 = true;
	n->wake_at = UINT64_MAX;
	*ret = n;
	return 0;
}

static void round_free(struct netcheck *n)
{
	free(n->lists);
	free(n->https);
	n->lists = NULL;
	n->https = NULL;
	n->n_lists = n->n_https = 0;
	n->running = false;
}

void netcheck_free(struct netcheck *n)
{
	if (!n)
		return;
	round_free(n);
	report_done(&n->now);
	report_done(&n->last);
	report_history_done(&n->history);
	free(n);
}

void netcheck_set_host(struct netcheck *n, bool have4, bool have6, bool os_has_ipv6)
{
	n->have4 = have4;
	n->have6 = have6;
	n->os_has_ipv6 = os_has_ipv6;
}

void netcheck_set_home(struct netcheck *n, int64_t region)
{
	n->home = region;
}

bool netcheck_running(const struct netcheck *n)
{
	return n->running;
}

const struct report *netcheck_report(const struct netcheck *n)
{
	return n->has_last ? &n->last : NULL;
}

static uint64_t stun_end(const struct netcheck *n)
{
	return n->now.started + NETCHECK_STUN_USEC;
}

/* Would one more answer on this list tell anything? */
static bool would_help(const struct netcheck *n, const struct list *l)
{
	if (!report_region(&n->now, n->map->regions[l->plan.region].id))
		return true;
	if (l->plan.family == 6)
		return !report_has_family(&n->now, 6);
	return n->now.mapping_varies < 0;
}

static uint64_t try_at(const struct netcheck *n, const struct list *l)
{
	return n->now.started + l->plan.tries[l->next].delay_usec;
}

/* The txid carries which list and try it belongs to; the rest is random, and compared. */
static void probe_send(struct netcheck *n, struct list *l, size_t t, const struct addr *to,
		       uint64_t now)
{
	const struct derp_node *node =
	    &n->map->regions[l->plan.region].nodes[l->plan.tries[t].node];
	struct endpoint e = { *to, derp_node_stun_port(node) };
	struct probe_sent *s = &l->sent[t];
	uint32_t index = (uint32_t)(l - n->lists);
	uint8_t req[STUN_REQUEST_LEN];
	int r;

	randombytes_buf(s->txid, sizeof(s->txid));
	s->txid[0] = (uint8_t)(index >> 8);
	s->txid[1] = (uint8_t)index;
	s->txid[2] = (uint8_t)t;
	stun_request_encode(s->txid, req);
	s->at = now;
	r = n->ops->send_udp(n->data, &e, req, sizeof(req));
	if (r < 0 && r != -EPERM) { /* a firewall's refusal counts as sent */
		s->at = 0;
		if (l->next >= l->plan.n)
			l->over = true;
		return;
	}
	if (l->plan.family == 4)
		n->now.ipv4_can_send = true;
	else
		n->now.ipv6_can_send = true;
}

static int literal(const char *s, uint8_t family, struct addr *ret)
{
	struct addr a;

	if (addr_parse(s, strlen(s), &a) < 0 || a.family != family)
		return -ENOENT;
	*ret = a;
	return 0;
}

/* 1: at *ret; 0: its name has to be looked up; -ENOENT: it has none of that family. */
static int node_address(const struct derp_node *node, uint8_t family, struct addr *ret)
{
	struct addr other;
	int r;

	if (*node->stun_test_ip)
		return literal(node->stun_test_ip, family, ret) < 0 ? -ENOENT : 1;
	r = derp_node_addr(family == 4 ? node->ipv4 : node->ipv6, family, ret);
	if (r != 0)
		return r < 0 ? -ENOENT : 1;
	if (literal(node->hostname, family, ret) == 0)
		return 1;
	return literal(node->hostname, family == 4 ? 6 : 4, &other) == 0 ? -ENOENT : 0;
}

static void run_try(struct netcheck *n, struct list *l, uint64_t now)
{
	size_t t = l->next++;
	const struct derp_node *node =
	    &n->map->regions[l->plan.region].nodes[l->plan.tries[t].node];
	struct addr a;
	int r;

	if (!would_help(n, l)) {
		l->over = true;
		return;
	}
	r = node_address(node, l->plan.family, &a);
	if (r > 0) {
		probe_send(n, l, t, &a, now);
	} else if (r == 0 && n->ops->lookup) {
		l->looking |= (uint8_t)(1U << t);
		n->ops->lookup(n->data, node->hostname, l->plan.family,
			       (n->round & 0x3fff) << 18 | (uint32_t)(l - n->lists) << 2 |
				   (uint32_t)t);
	}
}

/* Nothing was sent, nothing is being looked up, and no try is left. */
static bool hopeless(const struct list *l)
{
	if (l->next < l->plan.n || l->looking)
		return false;
	for (size_t t = 0; t < l->plan.n; t++)
		if (l->sent[t].at)
			return false;
	return true;
}

static bool all_over(const struct netcheck *n)
{
	for (size_t i = 0; i < n->n_lists; i++)
		if (!n->lists[i].over && !hopeless(&n->lists[i]))
			return false;
	return true;
}

/* ---- HTTPS ---- */

static void https_start(struct netcheck *n)
{
	size_t others = 0;

	if (n->https || !n->ops->https || !n->map)
		return;
	n->https = calloc(n->map->n_regions + 1, sizeof(*n->https));
	if (!n->https)
		return;
	for (size_t i = 0; i < n->map->n_regions; i++)
		if (can_be_home(&n->map->regions[i]) &&
		    (n->map->regions[i].id == n->home || others++ < NETCHECK_HTTPS_MAX - 1))
			n->https[n->n_https++].region = n->map->regions[i].id;
	for (size_t i = 0; i < n->n_https; i++)
		n->ops->https(n->data, n->https[i].region);
}

static bool https_over(const struct netcheck *n)
{
	for (size_t i = 0; i < n->n_https; i++)
		if (!n->https[i].over)
			return false;
	return true;
}

/* ---- a round ---- */

static void hint(struct netcheck *n, int64_t region)
{
	if (n->hinted || n->home || !n->ops->hint)
		return;
	n->hinted = true;
	n->ops->hint(n->data, region);
}

static void wake(struct netcheck *n, uint64_t at)
{
	if (at == n->wake_at)
		return;
	n->wake_at = at;
	n->ops->wake(n->data, at);
}

static bool stun_over(const struct netcheck *n, uint64_t now)
{
	return all_over(n) || now >= stun_end(n) || (n->stop_at && now >= n->stop_at);
}

static bool round_over(const struct netcheck *n, uint64_t now)
{
	if (!stun_over(n, now))
		return false;
	return n->now.udp || https_over(n) || now - n->now.started >= NETCHECK_REPORT_USEC;
}

static void schedule(struct netcheck *n, uint64_t now)
{
	uint64_t at = UINT64_MAX;

	if (!n->running) {
		wake(n, n->next_at ? n->next_at : UINT64_MAX);
		return;
	}
	if (round_over(n, now)) {
		wake(n, now);
		return;
	}
	for (size_t i = 0; i < n->n_lists; i++) {
		const struct list *l = &n->lists[i];

		if (!l->over && l->next < l->plan.n)
			at = MIN(at, try_at(n, l));
	}
	if (!n->now.udp && !n->https)
		at = MIN(at, n->now.started + NETCHECK_HTTPS_USEC);
	if (n->stop_at)
		at = MIN(at, n->stop_at);
	/* once STUN's time is over, only HTTPS is waited for */
	wake(n, MIN(at, now < stun_end(n) ? stun_end(n) : n->now.started + NETCHECK_REPORT_USEC));
}

static void begin_round(struct netcheck *n, bool full, uint64_t now)
{
	struct netcheck_input in = { .map = n->map,
				     .last = n->has_last ? &n->last : NULL,
				     .home = n->home,
				     .have4 = n->have4,
				     .have6 = n->have6 };
	struct netcheck_list *plan;
	size_t k = n->map ? n->map->n_regions : 0;

	in.full = full || !n->last_full || now - n->last_full >= NETCHECK_FULL_USEC;
	round_free(n);
	report_done(&n->now);
	report_init(&n->now, now);
	n->now.os_has_ipv6 = n->os_has_ipv6;
	n->now.full = in.full || !in.last || !in.last->n_regions;
	n->round++;
	n->stop_at = n->next_at = 0;
	n->running = true;
	plan = calloc(2 * k + 1, sizeof(*plan));
	n->lists = calloc(2 * k + 1, sizeof(*n->lists));
	if (plan && n->lists) {
		n->n_lists = netcheck_plan(&in, plan);
		for (size_t i = 0; i < n->n_lists; i++)
			n->lists[i].plan = plan[i];
	}
	free(plan);
}

static void end_round(struct netcheck *n, uint64_t now)
{
	struct report *r = &n->now;
	uint64_t heard = n->home && n->ops->heard ? n->ops->heard(n->data, n->home) : 0;
	bool again = n->again, again_full = n->again_full;

	for (size_t i = 0; !r->udp && i < n->n_https; i++)
		if (n->https[i].latency_usec)
			report_https(r, n->https[i].region, n->https[i].family,
				     n->https[i].latency_usec);
	r->ended = now;
	r->preferred = report_choose_home(&n->history, r, n->map, n->home, heard);
	report_history_add(&n->history, r);
	if (r->full && r->n_regions)
		n->last_full = now;
	round_free(n);
	report_done(&n->last);
	n->last = *r;
	n->has_last = true;
	report_init(r, now);
	n->again = n->again_full = false;
	if (again)
		n->next_at = now + 1;
	else if (n->ops->wanted && n->ops->wanted(n->data))
		n->next_at = now + NETCHECK_AGAIN_MIN_USEC +
			     randombytes_uniform(NETCHECK_AGAIN_MAX_USEC - NETCHECK_AGAIN_MIN_USEC);
	n->again_full = again_full;
	n->ops->done(n->data, &n->last);
}

static void send_due(struct netcheck *n, uint64_t now)
{
	for (size_t i = 0; i < n->n_lists; i++) {
		struct list *l = &n->lists[i];

		while (!l->over && l->next < l->plan.n && try_at(n, l) <= now)
			run_try(n, l, now);
	}
	if (!n->now.udp && (stun_over(n, now) || now - n->now.started >= NETCHECK_HTTPS_USEC))
		https_start(n);
}

/* The end of every entry. An op that calls back only leaves word: the outer entry acts on it. */
static void settle(struct netcheck *n, bool may_end, uint64_t now)
{
	if (n->busy)
		return;
	n->busy = true;
	if (n->running)
		send_due(n, now);
	if (n->running && may_end && round_over(n, now))
		end_round(n, now);
	n->busy = false;
	schedule(n, now);
}

/* Callers' clocks differ by the length of a turn of the loop: never backwards. */
static uint64_t clock_of(struct netcheck *n, uint64_t now)
{
	n->clock = MAX(n->clock, now);
	return n->clock;
}

void netcheck_tick(struct netcheck *n, uint64_t now)
{
	now = clock_of(n, now);
	n->wake_at = 0;
	if (!n->running && n->next_at && now >= n->next_at) {
		bool full = n->again_full;

		n->again_full = false;
		begin_round(n, full, now);
	}
	settle(n, true, now);
}

void netcheck_start(struct netcheck *n, bool full, uint64_t now)
{
	now = clock_of(n, now);
	if (n->running) {
		n->again = true;
		n->again_full |= full;
		return;
	}
	begin_round(n, full, now);
	settle(n, false, now); /* whoever asks is not answered from within */
}

void netcheck_set_map(struct netcheck *n, const struct derp_map *map, uint64_t now)
{
	bool running = n->running;

	round_free(n); /* its lists point into the old map */
	n->map = map;
	n->last_full = 0;
	if (!map) { /* nothing to measure by, and no empty report either */
		n->again = n->again_full = false;
		n->next_at = n->stop_at = 0;
		schedule(n, clock_of(n, now));
	} else if (running)
		netcheck_start(n, true, now);
}

bool netcheck_received(struct netcheck *n, const void *p, size_t len, uint64_t now)
{
	uint8_t txid[STUN_TXID_LEN];
	struct endpoint seen;
	struct list *l;
	int64_t region;
	size_t i, t;

	if (!stun_is(p, len))
		return false;
	now = clock_of(n, now);
	if (stun_response_decode(p, len, txid, &seen) < 0 || !n->running)
		return true;
	i = (size_t)txid[0] << 8 | txid[1];
	t = txid[2];
	if (i >= n->n_lists || t >= n->lists[i].plan.n)
		return true;
	l = &n->lists[i];
	if (l->over || !l->sent[t].at || memcmp(l->sent[t].txid, txid, sizeof(txid)) != 0)
		return true;
	l->over = true;
	region = n->map->regions[l->plan.region].id;
	if (report_stun(&n->now, region, l->plan.family, &seen, now - l->sent[t].at) < 0)
		return true;
	hint(n, region);
	if (n->now.n_regions == NETCHECK_ENOUGH && !n->stop_at) {
		uint64_t most = 0;

		for (size_t k = 0; k < n->now.n_regions; k++)
			most = MAX(most, n->now.regions[k].latency_usec);
		n->stop_at = now + most * (n->now.full ? 2 : 1);
	}
	settle(n, true, now);
	return true;
}

void netcheck_address(struct netcheck *n, uint32_t cookie, const struct addr *addr, uint64_t now)
{
	size_t i = cookie >> 2 & 0xffff, t = cookie & 3;
	struct list *l;

	now = clock_of(n, now);
	if (!n->running || cookie >> 18 != (n->round & 0x3fff) || i >= n->n_lists)
		return;
	l = &n->lists[i];
	if (!(l->looking & (1U << t)))
		return;
	l->looking &= (uint8_t) ~(1U << t);
	if (addr && addr->family == l->plan.family && !l->over)
		probe_send(n, l, t, addr, now);
	settle(n, true, now);
}

void netcheck_https(struct netcheck *n, int64_t region, uint8_t family, uint64_t latency_usec,
		    uint64_t now)
{
	now = clock_of(n, now);
	if (!n->running)
		return;
	for (size_t i = 0; i < n->n_https; i++) {
		struct https *h = &n->https[i];

		if (h->region != region || h->over)
			continue;
		h->over = true;
		h->family = family;
		h->latency_usec = latency_usec;
		if (latency_usec)
			hint(n, region);
	}
	settle(n, true, now);
}
