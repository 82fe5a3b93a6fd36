/* netcheck: plans, and rounds on a clock of the test's own against model servers (near, far, silent, UDP
 * blocked). */
#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/netcheck.h"
#include "lib/cleanup.h"
#include "lib/json.h"
#include "tests/unit/addr_text.h"

#define MSEC UINT64_C(1000)
#define SEC  UINT64_C(1000000)
#define T0   (5000 * SEC)

/* n regions 1 … n with one node 192.0.2.ID each, and its IPv6 2001:db8::ID. */
static struct derp_map map_of(unsigned int n, const char *extra)
{
	char text[16384];
	size_t at = 0;
	struct derp_map m;
	json_t *j;

	at += (size_t)snprintf(text + at, sizeof(text) - at, "{\"Regions\":{");
	for (unsigned int i = 1; i <= n; i++)
		at += (size_t)snprintf(
		    text + at, sizeof(text) - at,
		    "%s\"%u\":{\"RegionID\":%u,\"RegionCode\":\"r%u\",\"RegionName\":\"R%u\","
		    "\"Nodes\":[{\"Name\":\"%ua\",\"RegionID\":%u,\"HostName\":\"derp%u.example."
		    "com\","
		    "\"IPv4\":\"192.0.2.%u\",\"IPv6\":\"2001:db8::%u\"}]}",
		    i > 1 ? "," : "", i, i, i, i, i, i, i, i, i);
	at += (size_t)snprintf(text + at, sizeof(text) - at, "%s}}", extra ? extra : "");
	assert_int_equal(json_read(text, at, sizeof(text), &j), 0);
	assert_int_equal(derp_map_decode(j, &m), 0);
	json_decref(j);
	return m;
}

/* ---- plans ---- */

static void test_full_plan(void **state)
{
	static const char *const extra =
	    ",\"8\":{\"RegionID\":8,\"RegionCode\":\"x\",\"RegionName\":\"X\",\"NoMeasureNoHome\":"
	    "true,"
	    "\"Nodes\":[{\"Name\":\"8a\",\"RegionID\":8,\"HostName\":\"h\"}]}"
	    ",\"9\":{\"RegionID\":9,\"RegionCode\":\"y\",\"RegionName\":\"Y\",\"Avoid\":true,"
	    "\"Nodes\":[{\"Name\":\"9a\",\"RegionID\":9,\"HostName\":\"h\",\"IPv6\":\"none\"},"
	    "{\"Name\":\"9b\",\"RegionID\":9,\"HostName\":\"h\",\"STUNPort\":-1}]}";
	struct derp_map m = map_of(2, extra);
	struct netcheck_input in = { .map = &m, .have4 = true, .have6 = true };
	struct netcheck_list l[8];
	size_t n = netcheck_plan(&in, l);

	(void)state;
	assert_int_equal(n, 5); /* two families for 1 and 2; of 9 only IPv4 of its first node */
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(l[i].region, i / 2);
		assert_int_equal(l[i].family, i % 2 ? 6 : 4);
		assert_int_equal(l[i].n, 3);
		for (unsigned int t = 0; t < 3; t++) {
			assert_int_equal(l[i].tries[t].delay_usec, t * 100 * MSEC);
			assert_int_equal(l[i].tries[t].node, 0);
		}
	}
	assert_int_equal(l[4].n, 2); /* the second try would go to the node without STUN */
	assert_int_equal(l[4].tries[1].delay_usec, 200 * MSEC);
	in.have6 = false;
	assert_int_equal(netcheck_plan(&in, l), 3);
	in.have4 = false;
	assert_int_equal(netcheck_plan(&in, l), 0);
	in.map = NULL;
	assert_int_equal(netcheck_plan(&in, l), 0);
	derp_map_done(&m);
}

/* A map of more regions than anybody has: some of them are asked, and home is among them. */
static void test_plan_is_bounded(void **state)
{
	struct derp_map m = map_of(70, NULL);
	struct netcheck_input in = { .map = &m, .have4 = true, .have6 = true, .full = true, .home = 70 };
	struct netcheck_list l[140];

	(void)state;
	assert_int_equal(netcheck_plan(&in, l), 2 * NETCHECK_REGIONS_MAX);
	assert_int_equal(l[2 * NETCHECK_REGIONS_MAX - 1].region, 69);
	in.home = 1;
	assert_int_equal(netcheck_plan(&in, l), 2 * NETCHECK_REGIONS_MAX);
	assert_int_equal(l[2 * NETCHECK_REGIONS_MAX - 1].region, 63);
	derp_map_done(&m);
}

static void test_incremental_plan(void **state)
{
	struct derp_map m = map_of(6, NULL);
	struct netcheck_input in = { .map = &m, .have4 = true, .have6 = true, .home = 5 };
	struct endpoint seen4 = ep("203.0.113.9:41641"), seen6 = ep("[2001:db8::99]:41641");
	struct netcheck_list l[14];
	struct report last;
	size_t n;

	(void)state;
	report_init(&last, T0);
	for (int64_t id = 1; id <= 6; id++) {
		assert_int_equal(report_stun(&last, id, 4, &seen4, (uint64_t)(id * 10) * MSEC), 0);
		assert_int_equal(report_stun(&last, id, 6, &seen6, (uint64_t)(id * 10) * MSEC), 0);
	}
	in.last = &last;
	n = netcheck_plan(&in, l);
	assert_int_equal(n, 7); /* 1 and 2 with both, 3 (rank 2: even) with IPv4, home with both */
	assert_int_equal(m.regions[l[0].region].id, 1);
	assert_int_equal(l[0].n, 2);
	assert_int_equal(l[0].tries[1].delay_usec, 12 * MSEC);
	assert_int_equal(m.regions[l[4].region].id, 3);
	assert_int_equal(l[4].family, 4);
	assert_int_equal(l[4].n, 1);
	assert_int_equal(m.regions[l[5].region].id, 5);
	assert_int_equal(l[5].n, 4);
	assert_int_equal(l[5].tries[2].delay_usec, 2 * 60 * MSEC + 100 * MSEC);

	/* netcheck.md 5.2: home at 10 ms: 0, 12, 124, 186 ms */
	in.home = 1;
	n = netcheck_plan(&in, l);
	assert_int_equal(n, 5);
	assert_int_equal(l[0].n, 4);
	assert_int_equal(l[0].tries[1].delay_usec, 12 * MSEC);
	assert_int_equal(l[0].tries[2].delay_usec, 124 * MSEC);
	assert_int_equal(l[0].tries[3].delay_usec, 186 * MSEC);
	report_done(&last);

	/* IPv6 did not work: only the first try of the best asks again */
	report_init(&last, T0);
	for (int64_t id = 1; id <= 6; id++)
		assert_int_equal(report_stun(&last, id, 4, &seen4, (uint64_t)(id * 10) * MSEC), 0);
	n = netcheck_plan(&in, l);
	assert_int_equal(n, 5);
	assert_int_equal(l[1].family, 6);
	assert_int_equal(l[1].n, 1);
	assert_int_equal(l[4].family, 4); /* rank 2: no IPv6 */
	in.full = true;
	assert_int_equal(netcheck_plan(&in, l), 12);
	report_done(&last);
	derp_map_done(&m);
}

static void test_provisional(void **state)
{
	struct derp_map one = map_of(1, NULL), many = map_of(3, NULL);
	struct addr v[] = { ip("127.0.0.1"), ip("169.254.1.1"), ip("100.64.0.7"), ip("fe80::1"),
			    ip("fd7a:115c:a1e0::1") };

	(void)state;
	assert_int_equal(netcheck_provisional_home(&one, 0), 1);
	assert_int_equal(netcheck_provisional_home(&one, 9), 1); /* the saved one is gone */
	assert_int_equal(netcheck_provisional_home(&many, 0), 0);
	assert_int_equal(netcheck_provisional_home(&many, 3), 3);
	assert_false(netcheck_usable(v, ARRAY_SIZE(v), 4));
	assert_false(netcheck_usable(v, ARRAY_SIZE(v), 6));
	v[0] = ip("10.0.0.1");
	v[3] = ip("fd00::1");
	assert_true(netcheck_usable(v, ARRAY_SIZE(v), 4));
	assert_true(netcheck_usable(v, ARRAY_SIZE(v), 6));
	derp_map_done(&one);
	derp_map_done(&many);
}

/* ---- rounds ---- */

struct host {
	struct netcheck *n;
	struct derp_map map;
	uint64_t now, wake;
	uint64_t rtt[16];   /* by region; 0 = silent */
	uint64_t https[16]; /* the same */
	bool varies, fail_send, wanted, dns_fails;
	bool insist;
	int64_t no4; /* this region does not answer over IPv4 */
	unsigned int sent, lookups, done, hints;
	int64_t hint, home;
	struct report got; /* shallow */
	struct {
		uint64_t at;
		uint8_t kind; /* 1 STUN, 2 HTTPS, 3 look-up */
		int64_t region;
		uint32_t cookie;
		uint8_t family;
		uint8_t data[STUN_RESPONSE_MAX];
		size_t len;
	} ev[256];
	size_t n_ev;
};

static int64_t region_of_addr(const struct addr *a)
{
	return a->b[a->family == 4 ? 3 : 15];
}

static int host_send(void *data, const struct endpoint *to, const void *p, size_t len)
{
	struct host *h = data;
	int64_t region = region_of_addr(&to->addr);
	struct endpoint seen = { to->addr.family == 4 ? addr_v4(203, 0, 113, 9)
						      : ip("2001:db8::99"),
				 (uint16_t)(41641 + (h->varies ? region : 0)) };
	uint8_t txid[STUN_TXID_LEN];

	assert_int_equal(len, STUN_REQUEST_LEN);
	assert_int_equal(to->port, 3478);
	assert_int_equal(stun_request_decode(p, len, txid), 0);
	h->sent++;
	if (h->fail_send)
		return -ENETUNREACH;
	if (!h->rtt[region] || (region == h->no4 && to->addr.family == 4))
		return 0;
	assert_in_range(h->n_ev, 0, ARRAY_SIZE(h->ev) - 1);
	h->ev[h->n_ev].at = h->now + h->rtt[region];
	h->ev[h->n_ev].kind = 1;
	h->ev[h->n_ev].len = stun_response_encode(txid, &seen, h->ev[h->n_ev].data);
	h->n_ev++;
	return 0;
}

static void host_lookup(void *data, const char *name, uint8_t family, uint32_t cookie)
{
	struct host *h = data;

	h->lookups++;
	assert_non_null(strstr(name, "example.com"));
	h->ev[h->n_ev].at = h->now + 5 * MSEC;
	h->ev[h->n_ev].kind = 3;
	h->ev[h->n_ev].family = family;
	h->ev[h->n_ev++].cookie = cookie;
}

static void host_https(void *data, int64_t region)
{
	struct host *h = data;

	if (h->https[region] == 1) { /* fails at once, from within */
		netcheck_https(h->n, region, 4, 0, h->now);
		return;
	}
	if (!h->https[region])
		return; /* never an answer */
	h->ev[h->n_ev].at = h->now + h->https[region];
	h->ev[h->n_ev].kind = 2;
	h->ev[h->n_ev++].region = region;
}

static uint64_t host_heard(void *data, int64_t region)
{
	(void)data;
	(void)region;
	return 0;
}

static bool host_wanted(void *data)
{
	return ((struct host *)data)->wanted;
}

static void host_hint(void *data, int64_t region)
{
	struct host *h = data;

	h->hints++;
	h->hint = region;
}

static void host_done(void *data, const struct report *r)
{
	struct host *h = data;

	h->done++;
	h->got = *r;
	if (h->insist) { /* one more, from within */
		h->insist = false;
		netcheck_start(h->n, true, h->now);
	}
	if (r->preferred)
		h->home = r->preferred;
	netcheck_set_home(h->n, h->home);
}

static void host_wake(void *data, uint64_t when)
{
	((struct host *)data)->wake = when;
}

static const struct netcheck_ops host_ops = { .send_udp = host_send,
					      .lookup = host_lookup,
					      .https = host_https,
					      .heard = host_heard,
					      .wanted = host_wanted,
					      .hint = host_hint,
					      .done = host_done,
					      .wake = host_wake };

static void host_init(struct host *h, unsigned int regions, const char *extra)
{
	*h = (struct host){ .now = T0, .wake = UINT64_MAX };
	h->map = map_of(regions, extra);
	assert_int_equal(netcheck_new(&host_ops, h, &h->n), 0);
	netcheck_set_map(h->n, &h->map, h->now);
	netcheck_set_host(h->n, true, false, true);
}

static void host_done_free(struct host *h)
{
	netcheck_free(h->n);
	derp_map_done(&h->map);
}

static void host_run(struct host *h, uint64_t for_usec)
{
	uint64_t until = h->now + for_usec;

	for (;;) {
		size_t first = 0;
		uint64_t at = UINT64_MAX;

		for (size_t i = 0; i < h->n_ev; i++)
			if (h->ev[i].at < at) {
				at = h->ev[i].at;
				first = i;
			}
		if (MIN(at, h->wake) > until)
			break;
		h->now = MAX(h->now, MIN(at, h->wake));
		if (at > h->now) {
			h->wake = UINT64_MAX;
			netcheck_tick(h->n, h->now);
			continue;
		}
		__auto_type e = h->ev[first];

		h->ev[first] = h->ev[--h->n_ev];
		if (e.kind == 1)
			assert_true(netcheck_received(h->n, e.data, e.len, h->now));
		else if (e.kind == 2)
			netcheck_https(h->n, e.region, 4, h->https[e.region] / 2, h->now);
		else
			netcheck_address(h->n, e.cookie,
					 h->dns_fails	 ? NULL
					 : e.family == 4 ? &(struct addr){ 4, { 192, 0, 2, 7 } }
							 : NULL,
					 h->now);
	}
	h->now = until;
}

static void test_round(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 4, NULL);
	h.rtt[1] = 80 * MSEC;
	h.rtt[2] = 20 * MSEC;
	h.rtt[3] = 40 * MSEC;
	h.rtt[4] = 90 * MSEC;
	netcheck_start(h.n, false, h.now);
	assert_int_equal(h.sent, 4); /* all at once */
	host_run(&h, 21 * MSEC);
	assert_int_equal(h.hint, 2); /* the nearest is the first to answer: home at once */
	host_run(&h, 70 * MSEC);
	assert_int_equal(h.done, 1); /* with all four answers nothing is waited for */
	assert_int_equal(h.hints, 1);
	assert_int_equal(h.got.preferred, 2);
	assert_true(h.got.udp && h.got.ipv4 && !h.got.ipv6 && h.got.os_has_ipv6);
	assert_int_equal(h.got.mapping_varies, 0);
	assert_int_equal(h.got.n_regions, 4);
	assert_int_equal(h.sent, 4); /* no try was repeated in vain */
	/* nothing by itself while it is not wanted */
	host_run(&h, 600 * SEC);
	assert_int_equal(h.done, 1);
	assert_int_equal(h.wake, UINT64_MAX);

	h.wanted = true;
	h.sent = h.done = 0;
	netcheck_start(h.n, false, h.now); /* five minutes later: all again */
	host_run(&h, SEC);
	assert_int_equal(h.got.n_regions, 4);
	h.sent = h.done = 0;
	host_run(&h, 120 * SEC);
	assert_in_range(h.done, 4, 6);	   /* every 20 to 26 s */
	assert_true(h.sent <= h.done * 8); /* and only the nearest three */
	assert_int_equal(h.got.n_regions, 3);
	host_done_free(&h);
}

/* What can tell nothing new is not asked again. */
static void test_no_try_in_vain(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 2, NULL);
	netcheck_set_host(h.n, true, true, true);
	h.rtt[1] = 30 * MSEC;
	h.rtt[2] = 40 * MSEC;
	netcheck_start(h.n, true, h.now);
	host_run(&h, SEC);
	assert_int_equal(h.sent, 4);
	assert_true(h.got.ipv6);
	assert_int_equal(h.got.global_v6.addr.family, 6);
	host_done_free(&h);

	host_init(&h, 3, NULL);
	netcheck_set_host(h.n, true, true, true);
	h.rtt[1] = 30 * MSEC;
	h.rtt[2] = 40 * MSEC;
	h.rtt[3] = 80 * MSEC;
	h.no4 = 3; /* known by IPv6, and the mapping by the two others: no more tries */
	netcheck_start(h.n, true, h.now);
	host_run(&h, 101 * MSEC);
	assert_int_equal(h.sent, 6);
	assert_int_equal(h.done, 1);
	assert_int_equal(report_region(&h.got, 3)->v4_usec, 0);
	host_done_free(&h);
}

static void test_far_region_is_not_waited_for(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 5, NULL);
	for (unsigned int i = 1; i <= 4; i++)
		h.rtt[i] = i * 10 * MSEC;
	h.rtt[5] = 900 * MSEC;
	netcheck_start(h.n, true, h.now);
	host_run(&h, 29 * MSEC + 2 * 30 * MSEC);
	assert_int_equal(h.done, 0);
	host_run(&h, 5 * MSEC); /* 30 ms for three, twice that again */
	assert_int_equal(h.done, 1);
	assert_int_equal(h.got.n_regions, 4);
	host_done_free(&h);
}

static void test_retries_and_silence(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 2, NULL);
	h.rtt[1] = 50 * MSEC;
	netcheck_start(h.n, true, h.now);
	host_run(&h, 2999 * MSEC);
	assert_int_equal(h.done, 0);
	/* two to the one that answers (a second answer tells whether the mapping varies) … */
	assert_int_equal(h.sent, 1 + 3);
	host_run(&h, MSEC);
	assert_int_equal(h.done, 1);
	assert_int_equal(h.got.preferred, 1);
	assert_int_equal(h.got.mapping_varies, -1);
	h.varies = true;
	h.rtt[2] = 60 * MSEC;
	netcheck_start(h.n, true, h.now);
	host_run(&h, SEC);
	assert_int_equal(h.got.mapping_varies, 1);
	host_done_free(&h);
}

static void test_udp_blocked(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 3, NULL);
	h.https[1] = 200 * MSEC;
	h.https[2] = 80 * MSEC;
	netcheck_start(h.n, false, h.now);
	host_run(&h, 585 * MSEC);
	assert_int_equal(h.hint, 2); /* half a second of silence, then the first to answer by TCP */
	host_run(&h, 4 * SEC);
	assert_int_equal(h.done, 0);
	host_run(&h, SEC); /* region 3 never answers */
	assert_int_equal(h.done, 1);
	assert_false(h.got.udp);
	assert_true(h.got.ipv4 && h.got.ipv4_can_send);
	assert_int_equal(h.got.preferred, 2);
	assert_int_equal(h.got.global_v4.addr.family, 0);
	assert_int_equal(h.got.n_regions, 2);

	/* UDP comes late, but it comes: what HTTPS said is not mixed in */
	h.home = 0;
	h.rtt[3] = 700 * MSEC;
	h.https[3] = 100 * MSEC;
	netcheck_start(h.n, true, h.now);
	host_run(&h, 5 * SEC);
	assert_int_equal(h.done, 2);
	assert_true(h.got.udp);
	assert_int_equal(h.got.n_regions, 1);
	/* nothing gets out at all: over at once where there is no HTTPS either */
	h.rtt[3] = 0;
	memset(h.https, 0, sizeof(h.https));
	h.fail_send = true;
	netcheck_start(h.n, true, h.now);
	host_run(&h, 5 * SEC);
	assert_int_equal(h.done, 3);
	assert_false(h.got.ipv4_can_send);
	assert_int_equal(h.got.preferred, 0);
	host_done_free(&h);
}

/* Ops that call back, and callers whose clock went back by a turn of the loop. */
static void test_from_within(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 3, NULL);
	h.https[1] = h.https[2] = 1;
	h.https[3] = 40 * MSEC;
	h.insist = true;
	netcheck_start(h.n, false, h.now);
	host_run(&h, 3 * SEC);
	assert_int_equal(h.done, 1);
	assert_int_equal(h.got.n_regions, 1);
	assert_true(netcheck_running(h.n));
	h.rtt[1] = 50 * MSEC;
	netcheck_tick(h.n, h.now - SEC);
	netcheck_start(h.n, false, h.now - 2 * SEC);
	host_run(&h, 20 * SEC);
	assert_int_equal(h.done, 3);
	assert_int_equal(report_region(&h.got, 1)->latency_usec, 50 * MSEC);
	host_done_free(&h);
}

static void test_names(void **state)
{
	static const char *const extra =
	    ",\"7\":{\"RegionID\":7,\"RegionCode\":\"x\",\"RegionName\":\"X\","
	    "\"Nodes\":[{\"Name\":\"7a\",\"RegionID\":7,\"HostName\":\"derp7.example.com\"}]}"
	    ",\"6\":{\"RegionID\":6,\"RegionCode\":\"y\",\"RegionName\":\"Y\","
	    "\"Nodes\":[{\"Name\":\"6a\",\"RegionID\":6,\"HostName\":\"192.0.2.6\"}]}";
	struct host h;

	(void)state;
	host_init(&h, 0, ""); /* no region: over before it began, but not from within */
	netcheck_start(h.n, false, h.now);
	assert_int_equal(h.done, 0);
	host_run(&h, 0);
	assert_int_equal(h.done, 1);
	host_done_free(&h);

	host_init(&h, 0, extra + 1);
	h.rtt[7] = h.rtt[6] = 30 * MSEC;
	netcheck_start(h.n, false, h.now);
	assert_int_equal(h.lookups, 1); /* an address needs none */
	host_run(&h, SEC);
	assert_int_equal(h.done, 1);
	assert_int_equal(h.got.n_regions, 2);
	assert_int_equal(report_region(&h.got, 7)->latency_usec,
			 30 * MSEC); /* without the look-up */
	h.dns_fails = true;
	netcheck_start(h.n, true, h.now);
	host_run(&h, SEC);
	assert_int_equal(h.done, 2); /* does not wait for what cannot be asked */
	assert_int_equal(h.got.n_regions, 1);
	/* a late answer to a look-up of an earlier round is none */
	netcheck_start(h.n, true, h.now);
	netcheck_address(h.n, 0, &(struct addr){ 4, { 192, 0, 2, 7 } }, h.now);
	host_run(&h, SEC);
	assert_int_equal(h.got.n_regions, 1);
	host_done_free(&h);
}

static void test_coalesced(void **state)
{
	struct host h;

	(void)state;
	host_init(&h, 2, NULL);
	h.rtt[1] = h.rtt[2] = 50 * MSEC;
	netcheck_start(h.n, false, h.now);
	for (int i = 0; i < 10; i++)
		netcheck_start(h.n, i == 5, h.now);
	assert_true(netcheck_running(h.n));
	host_run(&h, 10 * SEC);
	assert_int_equal(h.done, 2); /* one more, not ten */
	assert_true(h.got.full);
	/* a new map in the middle of a round: begun anew with it */
	netcheck_start(h.n, false, h.now);
	host_run(&h, 10 * MSEC);
	derp_map_done(&h.map);
	h.map = map_of(1, NULL);
	netcheck_set_map(h.n, &h.map, h.now);
	host_run(&h, 5 * SEC);
	assert_int_equal(h.done, 3);
	assert_int_equal(h.got.n_regions, 1);
	/* Without a map the round is over, with no empty report, and no other one is begun. */
	netcheck_start(h.n, true, h.now);
	host_run(&h, 10 * MSEC);
	assert_true(netcheck_running(h.n));
	netcheck_set_map(h.n, NULL, h.now);
	assert_false(netcheck_running(h.n));
	assert_true(h.wake == UINT64_MAX);
	host_run(&h, 60 * SEC);
	assert_int_equal(h.done, 3);
	assert_int_equal(netcheck_report(h.n)->n_regions, 1);
	host_done_free(&h);
}

static void test_stray_answers(void **state)
{
	struct endpoint seen = ep("6.6.6.6:6");
	uint8_t txid[STUN_TXID_LEN] = { 0 }, wire[STUN_RESPONSE_MAX];
	struct host h;
	size_t len;

	(void)state;
	host_init(&h, 2, NULL);
	assert_false(netcheck_received(h.n, "\x04\0\0\0", 4, h.now)); /* WireGuard */
	len = stun_response_encode(txid, &seen, wire);
	assert_true(netcheck_received(h.n, wire, len, h.now)); /* not running */
	netcheck_start(h.n, false, h.now);
	for (unsigned int i = 0; i < 65536;
	     i++) { /* guesses: index and try are known, the rest is not */
		txid[0] = 0;
		txid[1] = (uint8_t)(i & 3);
		txid[2] = (uint8_t)(i >> 2 & 3);
		txid[3] = (uint8_t)(i >> 4);
		len = stun_response_encode(txid, &seen, wire);
		assert_true(netcheck_received(h.n, wire, len, h.now));
	}
	host_run(&h, 6 * SEC);
	assert_int_equal(h.done, 1);
	assert_false(h.got.udp);
	host_done_free(&h);
}

/* Answers that stock servers gave. */
static void test_recorded(void **state)
{
	char line[1024], req_hex[128], resp_hex[128], seen_text[64];
	unsigned int n = 0;
	FILE *f = fopen("tests/data/disco/stun.txt", "r");

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		uint8_t req[64], resp[64], txid[STUN_TXID_LEN], txid2[STUN_TXID_LEN],
		    again[STUN_REQUEST_LEN];
		struct endpoint seen, want;
		struct report r;
		size_t k, m;

		if (line[0] == '#')
			continue;
		assert_int_equal(sscanf(line, "%127s %127s %63s", req_hex, resp_hex, seen_text), 3);
		assert_int_equal(
		    sodium_hex2bin(req, sizeof(req), req_hex, strlen(req_hex), NULL, &k, NULL), 0);
		assert_int_equal(
		    sodium_hex2bin(resp, sizeof(resp), resp_hex, strlen(resp_hex), NULL, &m, NULL),
		    0);
		assert_int_equal(stun_request_decode(req, k, txid), 0);
		stun_request_encode(txid, again);
		assert_int_equal(k, sizeof(again));
		assert_memory_equal(again, req, k); /* our request is theirs */
		assert_int_equal(stun_response_decode(resp, m, txid2, &seen), 0);
		assert_memory_equal(txid, txid2, sizeof(txid));
		want = ep(seen_text);
		assert_true(endpoint_equal(&seen, &want));
		report_init(&r, T0);
		report_stun(&r, 1, seen.addr.family, &seen, MSEC);
		assert_int_equal(r.ipv6, seen.addr.family == 6); /* mapped IPv4 is no IPv6 */
		report_done(&r);
		n++;
	}
	fclose(f);
	assert_true(n >= 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_plan),
		cmocka_unit_test(test_plan_is_bounded),
		cmocka_unit_test(test_incremental_plan),
		cmocka_unit_test(test_provisional),
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_no_try_in_vain),
		cmocka_unit_test(test_far_region_is_not_waited_for),
		cmocka_unit_test(test_retries_and_silence),
		cmocka_unit_test(test_udp_blocked),
		cmocka_unit_test(test_from_within),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_coalesced),
		cmocka_unit_test(test_stray_answers),
		cmocka_unit_test(test_recorded),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
