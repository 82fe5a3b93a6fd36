/* path: every state with every event, which address is better, candidates and their rules, and one
 * path driven by hand with a clock of the test's own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/candidates.h"
#include "daemon/path/path.h"
#include "lib/cleanup.h"

#define MSEC UINT64_C(1000)
#define SEC UINT64_C(1000000)
#define T0 (1000 * SEC)

static struct endpoint ep(const char *s)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(s, strlen(s), &e), 0);
	return e;
}

/* ---- the table ---- */

#define R PATH_STATE_RELAY
#define D PATH_STATE_DIRECT
#define Q PATH_STATE_DOUBTFUL
#define H PATH_STATE_HELD

static void test_machine(void **state)
{
	/*                                          relay direct doubtful held */
	static const enum path_state want[PATH_EVENTS][PATH_STATES] = {
	    [PATH_EVENT_PONG] = {D, D, D, D},	    [PATH_EVENT_ADOPTED] = {D, D, Q, H},
	    [PATH_EVENT_TRUST_LOST] = {R, Q, Q, Q}, [PATH_EVENT_KERNEL_ALONE] = {H, H, H, H},
	    [PATH_EVENT_BEST_LOST] = {R, R, R, R},  [PATH_EVENT_LINK_CHANGED] = {R, Q, Q, H},
	    [PATH_EVENT_IDLE] = {R, R, R, H},	    [PATH_EVENT_RESET] = {R, R, R, R},
	};

	(void)state;
	for (size_t e = 0; e < PATH_EVENTS; e++) {
		assert_non_null(path_event_name((enum path_event)e));
		for (size_t s = 0; s < PATH_STATES; s++)
			assert_int_equal(path_next((enum path_state)s, (enum path_event)e),
					 want[e][s]);
	}
	assert_string_equal(path_state_name(PATH_STATE_DOUBTFUL), "doubtful");
}

/* disco.md 8 */
static void test_better(void **state)
{
	static const struct {
		const char *a;
		unsigned int a_msec;
		const char *b;
		unsigned int b_msec;
		bool better;
	} t[] = {
	    {"1.2.3.4:5", 10, "1.2.3.4:5", 20, false}, /* the same one */
	    {"1.2.3.4:5", 10, NULL, 0, true},
	    {NULL, 0, "1.2.3.4:5", 10, false},
	    {"10.0.0.1:5", 100, "1.2.3.4:5", 91, true}, /* private has 20 points, the other 9 */
	    {"10.0.0.1:5", 100, "1.2.3.4:5", 30, false},
	    {"[2001:db8::1]:5", 100, "1.2.3.4:5", 91, true}, /* IPv6 has 10 */
	    {"[2001:db8::1]:5", 100, "1.2.3.4:5", 89, false},
	    {"1.2.3.4:5", 99, "1.2.3.5:5", 100, false}, /* one point is not enough */
	    {"1.2.3.4:5", 98, "1.2.3.5:5", 100, true},
	    {"1.2.3.4:5", 100, "1.2.3.5:5", 100, false},
	    {"1.2.3.4:5", 0, "1.2.3.5:5", 100, true},
	    {"169.254.0.1:5", 100, "10.0.0.1:5", 95, true},
	    {"[fd00::1]:5", 100, "10.0.0.1:5", 95, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct endpoint a = t[i].a ? ep(t[i].a) : (struct endpoint){0};
		struct endpoint b = t[i].b ? ep(t[i].b) : (struct endpoint){0};

		assert_int_equal(path_better(&a, t[i].a_msec * MSEC, &b, t[i].b_msec * MSEC),
				 t[i].better);
	}
}

/* ---- candidates ---- */

static void test_candidates_usable(void **state)
{
	static const char *const bad[] = {
	    "127.0.0.1:1",  "0.0.0.0:1",	"224.0.0.1:1",
	    "1.2.3.4:0",    "[::1]:1",		"[fe80::1]:1",
	    "100.64.0.1:1", "127.64.0.3:41643", "[fd7a:115c:a1e0::1]:1"};
	static const char *const good[] = {"192.168.1.2:41641", "[2001:db8::1]:1", "169.254.3.4:1",
					   "[fd00::1]:1", "100.115.92.1:1"};
	struct endpoint e = {0};

	(void)state;
	assert_false(candidate_usable(&e));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e = ep(bad[i]);
		assert_false(candidate_usable(&e));
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		e = ep(good[i]);
		assert_true(candidate_usable(&e));
	}
}

static void test_candidates_sources(void **state)
{
	struct endpoint a = ep("1.1.1.1:1"), b = ep("2.2.2.2:2"), c = ep("3.3.3.3:3");
	struct endpoint ab[] = {a, b}, cb[] = {c, b};
	struct candidates s = {0};

	(void)state;
	candidates_update(&s, CANDIDATE_SOURCE_MAP, ab, 2, NULL, T0);
	assert_int_equal(s.n, 2);
	/* known from the map: a ping does not make it expire */
	candidates_add(&s, &a, CANDIDATE_SOURCE_PING, NULL, T0);
	/* learned from a ping: the map does not keep it */
	candidates_add(&s, &c, CANDIDATE_SOURCE_PING, NULL, T0);
	candidates_expire(&s, NULL, T0 + CANDIDATE_HEARD_USEC);
	assert_int_equal(s.n, 3);
	candidates_update(&s, CANDIDATE_SOURCE_MAP, cb, 2, NULL, T0); /* a is gone at once */
	assert_null(candidates_find(&s, &a));
	assert_non_null(candidates_find(&s, &c));
	candidates_expire(&s, NULL, T0 + CANDIDATE_HEARD_USEC + 1);
	assert_null(candidates_find(&s, &c));
	assert_int_equal(s.n, 1);

	/* while a CallMeMaybe lists an address it stays; one without it takes it, whatever the map
	 * says */
	candidates_update(&s, CANDIDATE_SOURCE_CALL, ab, 2, NULL, T0);
	candidates_update(&s, CANDIDATE_SOURCE_MAP, NULL, 0, NULL, T0);
	assert_int_equal(s.n, 2);
	candidates_update(&s, CANDIDATE_SOURCE_MAP, ab, 2, NULL, T0);
	candidates_update(&s, CANDIDATE_SOURCE_CALL, cb, 2, NULL, T0);
	assert_null(candidates_find(&s, &a));
	assert_int_equal(s.n, 2);

	/* the address in use is never taken away by a list, but lives on as a learned one */
	candidates_update(&s, CANDIDATE_SOURCE_CALL, NULL, 0, &b, T0);
	assert_int_equal(s.n, 1);
	candidates_expire(&s, &b, T0 + 100 * SEC);
	assert_int_equal(s.n, 1);
	candidates_expire(&s, NULL, T0 + 100 * SEC);
	assert_int_equal(s.n, 0);
	candidates_done(&s);
}

static void test_candidates_bounded(void **state)
{
	struct endpoint list[CANDIDATES_MAX + 8], first;
	struct candidates s = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		list[i] = (struct endpoint){addr_v4(9, 9, 9, (uint8_t)(i + 1)), 77};
	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		assert_non_null(
		    candidates_add(&s, &list[i], CANDIDATE_SOURCE_PING, &list[0], T0 + i));
	assert_int_equal(s.n, CANDIDATES_MAX);
	first = list[0];
	assert_non_null(candidates_find(&s, &first)); /* in use */
	assert_null(candidates_find(&s, &list[1]));   /* the oldest went */
	candidates_done(&s);
	/* what the map lists is not pushed out by whoever pings */
	candidates_update(&s, CANDIDATE_SOURCE_MAP, list, CANDIDATES_MAX, NULL, T0);
	assert_null(candidates_add(&s, &list[CANDIDATES_MAX], CANDIDATE_SOURCE_PING, NULL, T0));
	assert_int_equal(s.n, CANDIDATES_MAX);
	candidates_done(&s);
}

/* ---- one path, by hand ---- */

struct rig {
	struct path_env env;
	struct path *p;
	uint64_t now;
	struct {
		struct endpoint to;
		struct disco_txid txid;
		uint64_t at;
	} sent[256];
	size_t n_sent;
	unsigned int calls, dumps, sets, changes;
	uint32_t txid;
	struct endpoint kernel;
	uint64_t rx, tx; /* as the last dump had them */
	bool dumped;
	bool no_relay;
};

static int rig_ping(void *peer, const struct endpoint *to, struct disco_txid *ret)
{
	struct rig *r = peer;

	if (!to && r->no_relay)
		return -ENETUNREACH;
	r->txid++;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->b, &r->txid, sizeof(r->txid));
	assert_in_range(r->n_sent, 0, ARRAY_SIZE(r->sent) - 1);
	r->sent[r->n_sent].to = to ? *to : (struct endpoint){0};
	r->sent[r->n_sent].txid = *ret;
	r->sent[r->n_sent++].at = r->now;
	return 0;
}

static void rig_call_me(void *peer)
{
	((struct rig *)peer)->calls++;
}

static void rig_set(void *peer, const struct endpoint *e)
{
	struct rig *r = peer;

	r->sets++;
	r->kernel = e ? *e : (struct endpoint){0};
}

static void rig_dump(void *peer)
{
	((struct rig *)peer)->dumps++;
}

static void rig_changed(void *peer, enum path_state old, enum path_event why)
{
	(void)old;
	(void)why;
	((struct rig *)peer)->changes++;
}

static const struct path_ops rig_ops = {rig_ping, rig_call_me, rig_set, rig_dump, rig_changed};

static void rig_init(struct rig *r, const char *const *eps)
{
	struct endpoint v[8];
	size_t n = 0;

	*r = (struct rig){.env = {.ops = &rig_ops, .dump_gap_usec = 3 * SEC}, .now = T0};
	r->p = path_new(&r->env, r, r->now);
	assert_non_null(r->p);
	for (; eps && eps[n]; n++)
		v[n] = ep(eps[n]);
	path_set_endpoints(r->p, v, n, r->now);
}

/* Runs to that time; nothing answers. */
static void rig_run(struct rig *r, uint64_t until)
{
	while (path_due(r->p) <= until) {
		r->now = MAX(r->now + 1, path_due(r->p));
		path_tick(r->p, r->now);
		if (path_releasable(r->p, r->now))
			break;
	}
	r->now = until;
}

static unsigned int pings_to(const struct rig *r, const struct endpoint *to)
{
	unsigned int n = 0;

	for (size_t i = 0; i < r->n_sent; i++)
		n += endpoint_equal(&r->sent[i].to, to);
	return n;
}

/* The last ping to that address is answered. */
static int rig_pong(struct rig *r, const struct endpoint *to, uint64_t after)
{
	struct addr local = addr_v4(192, 168, 0, 7);
	struct path_ping ping;

	for (size_t i = r->n_sent; i-- > 0;)
		if (endpoint_equal(&r->sent[i].to, to)) {
			r->now += after;
			return path_pong(r->p, &r->sent[i].txid, to->addr.family ? &local : NULL,
					 r->now, &ping);
		}
	return -ENOENT;
}

static const struct endpoint by_relay;

static void test_discovery(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", "192.168.1.2:41641", NULL};
	struct endpoint a = ep(eps[0]), b = ep(eps[1]);
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	assert_int_equal(r.n_sent, 0); /* nothing without traffic */
	path_relay_traffic(r.p, r.now);
	assert_int_equal(r.n_sent, 2); /* at once, both, and one CallMeMaybe */
	assert_int_equal(r.calls, 1);
	for (int i = 0; i < 100; i++)
		path_relay_traffic(r.p, r.now);
	assert_int_equal(r.n_sent, 2);
	/* with traffic and no answer: every 6 s, as stock nodes do */
	for (int i = 0; i < 300; i++) {
		rig_run(&r, r.now + 100 * MSEC);
		path_relay_traffic(r.p, r.now);
	}
	assert_in_range(pings_to(&r, &a), 5, 7);
	assert_in_range(r.calls, 5, 7);
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	assert_int_equal(r.sets, 0);

	/* an answer: direct from now on, to the address that was pinged */
	assert_int_equal(rig_pong(&r, &a, 10 * MSEC), 0);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	assert_true(endpoint_equal(&r.kernel, &a));
	assert_int_equal(r.sets, 1);
	/* a private address at the same latency is better */
	assert_int_equal(rig_pong(&r, &b, 0), 0);
	assert_true(endpoint_equal(&r.kernel, &b));
	/* a pong that nobody waits for */
	assert_int_equal(rig_pong(&r, &b, 0), -ENOENT);
	path_free(r.p);
}

static void test_call_without_candidates(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	for (int i = 0; i < 1200; i++) {
		path_relay_traffic(r.p, r.now);
		rig_run(&r, r.now + 100 * MSEC);
	}
	/* in 120 s: at 0, 5, 15, 35, 75 s and so on, not every heartbeat */
	assert_in_range(r.calls, 4, 6);
	path_free(r.p);
}

static void test_death_and_recovery(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	uint64_t good;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &a, 20 * MSEC);
	good = r.now;
	path_traffic(r.p, r.now);
	rig_run(&r, good + 3500 * MSEC); /* the heartbeat at 3 s is lost */
	assert_int_equal(pings_to(&r, &a), 2);
	assert_int_equal(r.dumps, 0);
	rig_run(&r, good + 4200 * MSEC); /* missed: counters, a relayed ping, another try */
	assert_int_equal(r.dumps, 1);
	assert_int_equal(pings_to(&r, &a), 3);
	assert_int_equal(pings_to(&r, &by_relay), 1);
	rig_pong(&r, &by_relay, 30 * MSEC); /* the daemon is alive */
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	rig_run(&r, good + 5500 * MSEC); /* the second is missed too */
	assert_int_equal(r.p->state, PATH_STATE_DOUBTFUL);
	assert_int_equal(r.kernel.addr.family, 0);
	rig_run(&r, good + 8500 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	path_traffic(r.p, r.now);
	rig_run(&r, r.now + 7 * SEC);
	assert_int_equal(rig_pong(&r, &a, 10 * MSEC), 0); /* back */
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);

	/* without a relay to ask, trust lasts its 6.5 s */
	good = r.now;
	r.no_relay = true;
	path_traffic(r.p, r.now);
	rig_run(&r, good + 6400 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	rig_run(&r, good + 6600 * MSEC);
	assert_int_not_equal(r.p->state, PATH_STATE_DIRECT);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);
}

static void test_one_lost_pong(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &a, 20 * MSEC);
	for (int i = 0; i < 20; i++) { /* every first try is lost, every second answered */
		path_traffic(r.p, r.now);
		rig_run(&r, r.now + 4100 * MSEC);
		rig_pong(&r, &by_relay, 10 * MSEC);
		rig_pong(&r, &a, 10 * MSEC);
		assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	}
	assert_int_equal(r.sets, 1);
	path_free(r.p);
}

static void test_idle(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	unsigned int before;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &a, MSEC);
	for (int i = 0; i < 14; i++) {
		rig_run(&r, r.now + 3 * SEC + 2 * MSEC);
		rig_pong(&r, &a, MSEC);
		assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	}
	rig_run(&r, T0 + 49 * SEC); /* 45 s without a send */
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	assert_int_equal(r.kernel.addr.family, 0);
	before = (unsigned int)r.n_sent;
	rig_run(&r, r.now + 100 * SEC);
	assert_int_equal(r.n_sent, before); /* silence */
	assert_true(path_releasable(r.p, r.now));
	path_free(r.p);
}

static void test_ping_back(void **state)
{
	struct endpoint x = ep("203.0.113.5:1000"), y = ep("203.0.113.5:1001");
	struct addr local = addr_v4(192, 168, 0, 7);
	struct disco_txid id = {{1}};
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	assert_int_equal(path_ping_heard(r.p, &x, &local, &id, r.now), 1);
	assert_int_equal(pings_to(&r, &x), 1);				   /* pinged in answer */
	assert_int_equal(path_ping_heard(r.p, &x, &local, &id, r.now), 0); /* the same once more */
	assert_int_equal(path_ping_heard(r.p, &y, &local, &id, r.now),
			 1);	       /* from elsewhere it is none */
	for (int i = 0; i < 50; i++) { /* a storm is answered, and pinged back once a second */
		id.b[1]++;
		r.now += 100 * MSEC;
		assert_int_equal(path_ping_heard(r.p, &x, &local, &id, r.now), 1);
	}
	assert_in_range(r.n_sent, 5, 7);
	rig_pong(&r, &x, MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	assert_true(addr_equal(&r.p->local, &local));
	r.n_sent = 0;
	r.now += 2 * SEC;
	id.b[1]++;
	assert_int_equal(path_ping_heard(r.p, &x, &local, &id, r.now), 1);
	assert_int_equal(r.n_sent, 0); /* trusted: no need */
	path_free(r.p);
}

/* ---- the kernel moves by itself ---- */

/* A dump with these counters; the first one is where they begin. */
static struct path_counters counters(struct rig *r, const struct endpoint *e, uint64_t rx,
				     uint64_t tx)
{
	struct path_counters c = {.taken = r->now,
				  .received = r->dumped && rx > r->rx,
				  .sent = r->dumped && tx > r->tx,
				  .direct = e->addr.family,
				  .endpoint = *e,
				  .handshake_age_sec = 10};

	r->dumped = true;
	r->rx = rx;
	r->tx = tx;
	return c;
}

/* The peer's disco brings us together with its first packet: what the kernel answered before the first dump of this
 * path is traffic all the same, and what it had before is not. */
static void test_counted_before(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint four = ep(eps[0]);
	struct path_counters c;
	struct rig r;

	(void)state;
	for (int sent = 0; sent < 2; sent++) {
		rig_init(&r, eps);
		path_call_me(r.p, &four, 1, r.now);
		rig_pong(&r, &four, MSEC);
		assert_false(path_active(r.p, r.now));
		c = counters(&r, &four, 276, 220);
		c.received = true;
		c.sent = sent;
		path_counters(r.p, &c, r.now);
		assert_int_equal(path_active(r.p, r.now), sent);
		assert_int_equal(r.p->rx_grew, 0);
		path_free(r.p);
	}
}

static void test_roaming(void **state)
{
	const char *const eps[] = {"[2001:db8::1]:41641", "198.51.100.1:41641", NULL};
	struct endpoint six = ep(eps[0]), four = ep(eps[1]), odd = ep("203.0.113.99:9");
	struct path_counters c;
	unsigned int sets, n;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &four, 10 * MSEC);
	rig_pong(&r, &six, 0);
	assert_true(endpoint_equal(&r.kernel, &six)); /* IPv6 is better */
	sets = r.sets;

	/* the peer prefers IPv4 and moves the kernel: both answered, so its choice is taken, and
	 * kept */
	r.now += SEC;
	c = counters(&r, &four, 1000, 1000);
	path_counters(r.p, &c, r.now);
	assert_true(endpoint_equal(&r.p->best, &four));
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	for (int i = 0; i < 30; i++) {
		path_traffic(r.p, r.now);
		rig_run(&r, T0 + (3U + 3U * (unsigned int)i) * SEC); /* with the heartbeat */
		rig_pong(&r, &four, 10 * MSEC);
		rig_pong(&r, &six, 0);
		c = counters(&r, &four, 1000U + (unsigned int)i, 2000);
		path_counters(r.p, &c, r.now);
	}
	assert_true(endpoint_equal(&r.p->best, &four));
	assert_int_equal(r.sets, sets); /* no fight */

	/* somewhere unheard of: pinged, and set back when nothing answers */
	c = counters(&r, &odd, 5000, 3000);
	path_counters(r.p, &c, r.now);
	assert_int_equal(pings_to(&r, &odd), 1);
	assert_int_equal(r.sets, sets);
	path_traffic(r.p, r.now);
	rig_run(&r, r.now + 100 * MSEC);
	rig_pong(&r, &by_relay, MSEC);
	rig_run(&r, r.now + 2 * SEC);
	assert_int_equal(r.sets, sets + 1);
	assert_true(endpoint_equal(&r.kernel, &four));
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);

	/* that the daemon answered by relay then does not count when one pong is lost now */
	path_traffic(r.p, r.now);
	rig_run(&r, r.now + 3 * SEC);
	rig_pong(&r, &by_relay, MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	rig_pong(&r, &four, 0);

	/* the same, and it answers: the peer has moved */
	rig_pong(&r, &four, 0);
	r.now += 6 * SEC;
	path_traffic(r.p, r.now);
	c = counters(&r, &odd, 6000, 4000);
	path_counters(r.p, &c, r.now);
	rig_pong(&r, &odd, 5 * MSEC);
	assert_true(endpoint_equal(&r.p->best, &odd));
	assert_int_equal(r.sets, sets + 1);

	/* a dump begun before our own change says nothing */
	rig_run(&r, r.now + 3010 * MSEC);
	rig_pong(&r, &odd, 0);
	c = counters(&r, &six, 6000, 4000);
	c.taken = r.p->set - 1;
	n = pings_to(&r, &six);
	path_counters(r.p, &c, r.now);
	assert_int_equal(pings_to(&r, &six), n);
	assert_true(endpoint_equal(&r.p->best, &odd));
	/* a relayed packet took the kernel to the relay address: direct is set again */
	r.now += SEC;
	c = counters(&r, &by_relay, 6000, 4000);
	path_counters(r.p, &c, r.now);
	assert_int_equal(r.sets, sets + 2);
	assert_true(endpoint_equal(&r.kernel, &odd));
	path_free(r.p);
}

static void test_roamed_while_relayed(void **state)
{
	struct endpoint x = ep("203.0.113.9:41641");
	struct path_counters c;
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	path_relay_traffic(r.p, r.now);
	c = counters(&r, &x, 100, 100);
	path_counters(r.p, &c, r.now);
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	assert_int_equal(pings_to(&r, &x), 1);
	rig_run(&r, r.now + 100 * MSEC);
	rig_pong(&r, &by_relay, MSEC); /* its daemon lives, and yet x does not answer */
	rig_run(&r, r.now + 3 * SEC);
	assert_int_equal(r.sets, 1); /* one-way: our packets would be lost there */
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);
}

static void test_adopted_at_start(void **state)
{
	struct endpoint x = ep("203.0.113.9:41641");
	struct path_counters c;
	struct rig r;

	(void)state;
	rig_init(&r, NULL);
	c = counters(&r, &x, 100, 100);
	c.at_start = true;
	path_counters(r.p, &c, r.now);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	assert_int_equal(r.sets, 0); /* as found */
	assert_int_equal(pings_to(&r, &x), 1);
	rig_pong(&r, &x, MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	assert_int_equal(r.sets, 0);
	path_free(r.p);

	rig_init(&r, NULL); /* an old session is not: it rests on the relay */
	c.handshake_age_sec = 1000;
	path_counters(r.p, &c, r.now);
	rig_run(&r, r.now + 10 * SEC);
	assert_int_equal(r.sets, 1);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);
}

/* ---- a dead daemon is not a dead peer ---- */

static void direct_then_silent(struct rig *r, const struct endpoint *a, bool rx_grows,
			       bool relay_answers, uint64_t *rx)
{
	struct path_counters c;
	uint64_t tx = 1000;

	path_relay_traffic(r->p, r->now);
	rig_pong(r, a, 10 * MSEC);
	c = counters(r, a, *rx, tx);
	path_counters(r->p, &c, r->now);
	for (int i = 0; i < 4; i++) {
		if (rx_grows)
			*rx += 100;
		tx += 100;
		c = counters(r, a, *rx, tx);
		if (!r->p->kernel.addr.family) {
			c.direct = false;
			c.endpoint = by_relay;
		}
		path_counters(r->p, &c, r->now);
		rig_run(r, r->now + 2100 * MSEC);
		if (relay_answers)
			rig_pong(r, &by_relay, MSEC);
	}
}

static void test_dead_daemon(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	struct path_counters c;
	uint64_t rx = 1000, tx = 10000;
	struct rig r;

	(void)state;
	/* silent by both ways, and the kernel's counter grows: held */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	assert_int_equal(r.p->state, PATH_STATE_HELD);
	assert_true(endpoint_equal(&r.kernel, &a));
	assert_int_equal(r.sets, 1); /* not for a moment by relay */
	for (int i = 0; i < 40;
	     i++) { /* for minutes, with traffic one way: the counter grows every 10 s */
		tx += 100;
		if (i % 4 == 0)
			rx += 32;
		c = counters(&r, &a, rx, tx);
		path_counters(r.p, &c, r.now);
		rig_run(&r, r.now + 3 * SEC);
		assert_int_equal(r.p->state, PATH_STATE_HELD);
	}
	/* idle does not take it away, and costs nothing */
	rx += 32;
	c = counters(&r, &a, rx, tx);
	path_counters(r.p, &c, r.now);
	r.n_sent = 0;
	rig_run(&r, r.now + 60 * SEC);
	r.n_sent = 0;
	rig_run(&r, r.now + 600 * SEC);
	assert_int_equal(r.n_sent, 0);
	assert_int_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.sets, 1);
	/* now its kernel is gone too: what we send is unanswered */
	for (int i = 0; i < 8; i++) {
		r.n_sent = 0;
		tx += 100;
		c = counters(&r, &a, rx, tx);
		path_counters(r.p, &c, r.now);
		rig_run(&r, r.now + 3 * SEC);
	}
	assert_int_not_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);

	/* the daemon answers by relay: the path is dead, whatever the counter does (cut one way) */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, true, &rx);
	assert_int_not_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);

	/* silent by both ways, and nothing comes back: dead as a whole */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, false, false, &rx);
	assert_int_not_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.kernel.addr.family, 0);
	path_free(r.p);

	/* held, and the daemon comes back: it has to answer there, else its path is doubtful */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	path_relay_heard(r.p, false, r.now);
	rig_pong(&r, &a, 10 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	path_free(r.p);
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	path_relay_heard(r.p, false, r.now);
	rig_pong(&r, &by_relay, 20 * MSEC);
	rig_run(&r, r.now + 1100 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DOUBTFUL);
	path_free(r.p);
	/* held, and it sends by relay: it does not trust the path */
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	path_relay_heard(r.p, true, r.now);
	rig_pong(&r, &by_relay, 20 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DOUBTFUL);
	path_free(r.p);
	/* roamed to while its daemon is dead: its kernel found us, and is held there */
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	path_gone(r.p);
	c = counters(&r, &a, 100, 100);
	path_counters(r.p, &c, r.now);
	rig_run(&r, r.now + 3 * SEC);
	assert_int_equal(r.p->state, PATH_STATE_HELD);
	assert_int_equal(r.sets, 0);
	path_free(r.p);
}

/* The daemon is dead; somebody sends again what he recorded, a relay invents packets of the peer. */
static void test_replayed_to_held(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]), thief = ep("203.0.113.66:6");
	struct addr local = addr_v4(192, 168, 0, 7);
	struct path_counters c;
	uint64_t rx = 1000, tx = 10000;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	direct_then_silent(&r, &a, true, false, &rx);
	assert_int_equal(r.p->state, PATH_STATE_HELD);
	r.sets = r.n_sent = 0;
	for (unsigned int i = 0; i < 300; i++) { /* half a minute, ten times a second each */
		struct disco_txid id = {{1, 2, 3, 4, (uint8_t)i}};

		path_ping_heard(r.p, i % 2 ? &thief : &a, &local, &id, r.now);
		path_relay_heard(r.p, i % 3 == 0, r.now);
		if (i % 30 == 0) {
			rx += 32;
			tx += 100;
			c = counters(&r, &a, rx, tx);
			path_counters(r.p, &c, r.now);
		}
		rig_run(&r, r.now + 100 * MSEC);
		r.n_sent = r.n_sent > 150 ? 0 : r.n_sent;
		assert_int_equal(r.p->state, PATH_STATE_HELD);
	}
	assert_int_equal(r.sets, 0);
	assert_true(endpoint_equal(&r.p->kernel, &a));
	path_free(r.p);
}

/* A peer that calls without end and names others' addresses: the pings are bounded, and the path in
 * use is watched all the same. */
static void test_calls_bounded(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]), victims[DISCO_ENDPOINTS_MAX];
	unsigned int pings = 0;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	assert_int_equal(rig_pong(&r, &a, 10 * MSEC), 0);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	for (unsigned int i = 0; i < 3000; i++) { /* 10 s */
		unsigned int beats;

		for (size_t k = 0; k < ARRAY_SIZE(victims); k++)
			victims[k] = (struct endpoint){
			    addr_v4(203, 0, (uint8_t)(i % 200), (uint8_t)(k + 1)), 53};
		r.n_sent = 0;
		path_call_me(r.p, victims, ARRAY_SIZE(victims), r.now);
		path_traffic(r.p, r.now);
		rig_run(&r, r.now + 10 * SEC / 3000);
		pings += (unsigned int)r.n_sent;
		beats = pings_to(&r, &a);
		if (beats)
			assert_int_equal(rig_pong(&r, &a, 0), 0);
		assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	}
	assert_int_equal(r.sets, 1);
	/* four at once and one a second, each to the addresses that are kept of it, and heartbeats */
	assert_in_range(pings, 10 * CANDIDATES_MAX / 2, 15 * CANDIDATES_MAX);
	path_free(r.p);
}

static void test_link_change_and_reset(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", NULL};
	struct endpoint a = ep(eps[0]);
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	path_relay_traffic(r.p, r.now);
	rig_pong(&r, &a, 10 * MSEC);
	r.n_sent = r.calls = 0;
	path_link_changed(r.p, r.now);
	assert_int_equal(r.p->state, PATH_STATE_DOUBTFUL); /* both ways until it answers again */
	assert_int_equal(r.kernel.addr.family, 0);
	assert_int_equal(pings_to(&r, &a), 1);
	assert_int_equal(r.calls, 1);
	rig_pong(&r, &a, 10 * MSEC);
	assert_int_equal(r.p->state, PATH_STATE_DIRECT);
	r.sets = r.n_sent = 0;
	path_reset(r.p, r.now); /* the caller sets the relay address with the new peer */
	assert_int_equal(r.p->state, PATH_STATE_RELAY);
	assert_int_equal(r.sets, 0);
	assert_int_equal(pings_to(&r, &a), 1);
	rig_pong(&r, &a, 10 * MSEC);
	assert_true(endpoint_equal(&r.kernel, &a));
	path_free(r.p);
}

/* Any order of events: states stay what they say, memory bounded, timers in the future. */
static void test_walk(void **state)
{
	const char *const eps[] = {"198.51.100.1:41641", "192.168.1.2:41641", "[2001:db8::1]:41641",
				   NULL};
	struct endpoint at[4] = {ep(eps[0]), ep(eps[1]), ep(eps[2]), ep("203.0.113.7:7")};
	struct addr local = addr_v4(192, 168, 0, 7);
	unsigned int seed = 1, seen[PATH_STATES] = {0};
	uint64_t rx = 0, tx = 0;
	struct rig r;

	(void)state;
	rig_init(&r, eps);
	for (unsigned int i = 0; i < 200000; i++) {
		struct endpoint *x;
		struct disco_txid id = {{0}};
		struct path_counters c;

		seed = seed * 1103515245U + 12345U;
		x = &at[(seed >> 8) % ARRAY_SIZE(at)];
		memcpy(id.b, &i, sizeof(i));
		switch ((seed >> 16) % 16) {
		case 0:
		case 1:
			path_relay_traffic(r.p, r.now);
			break;
		case 2:
		case 3:
		case 4:
			rig_pong(&r, x, MSEC);
			break;
		case 5:
			rig_pong(&r, &by_relay, MSEC);
			break;
		case 6:
			path_ping_heard(r.p, x, &local, &id, r.now);
			break;
		case 7:
			path_call_me(r.p, at, (seed >> 20) % 5, r.now);
			break;
		case 8:
			path_set_endpoints(r.p, at, (seed >> 20) % 5, r.now);
			break;
		case 9:
			path_relay_heard(r.p, seed & 0x100000, r.now);
			break;
		case 10:
			if ((seed >> 20) % 8 == 0)
				path_gone(r.p);
			break;
		case 11:
		case 12:
			rx += (seed >> 20) & 1;
			tx += (seed >> 21) & 1;
			c = counters(&r, (seed >> 22) & 1 ? x : &r.kernel, rx, tx);
			path_counters(r.p, &c, r.now);
			break;
		case 13:
			if ((seed >> 20) % 16 == 0)
				path_link_changed(r.p, r.now);
			break;
		case 14:
			if ((seed >> 20) % 16 == 0) {
				path_reset(r.p, r.now);
				r.kernel = by_relay;
			}
			break;
		default:
			r.n_sent = r.n_sent > 100 ? 0 : r.n_sent;
			rig_run(&r, r.now + (seed >> 20) % 3000 * MSEC);
		}
		r.n_sent = r.n_sent > 150 ? 0 : r.n_sent;
		seen[r.p->state]++;
		assert_true(r.p->cands.n <= CANDIDATES_MAX && r.p->n_pings <= PATH_PINGS_MAX);
		assert_true((r.p->state == PATH_STATE_RELAY) == !r.p->best.addr.family);
		/* the kernel was told what the state says, unless it is being watched where it went
		 */
		if (!r.p->roam.addr.family) {
			const struct endpoint *want =
			    r.p->state == PATH_STATE_DIRECT || r.p->state == PATH_STATE_HELD
				? &r.p->best
				: &by_relay;

			assert_true(endpoint_equal(&r.p->kernel, want));
		}
		if (r.p->state == PATH_STATE_DIRECT)
			assert_true(path_due(r.p) <= r.p->trusted_until + 1);
		if (r.p->state == PATH_STATE_DOUBTFUL)
			assert_true(path_due(r.p) <= r.now + PATH_PING_USEC);
	}
	for (size_t i = 0; i < PATH_STATES; i++)
		assert_true(seen[i] > 1000);
	path_free(r.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_machine),
	    cmocka_unit_test(test_better),
	    cmocka_unit_test(test_candidates_usable),
	    cmocka_unit_test(test_candidates_sources),
	    cmocka_unit_test(test_candidates_bounded),
	    cmocka_unit_test(test_discovery),
	    cmocka_unit_test(test_call_without_candidates),
	    cmocka_unit_test(test_death_and_recovery),
	    cmocka_unit_test(test_one_lost_pong),
	    cmocka_unit_test(test_idle),
	    cmocka_unit_test(test_ping_back),
	    cmocka_unit_test(test_roaming),
	    cmocka_unit_test(test_counted_before),
	    cmocka_unit_test(test_roamed_while_relayed),
	    cmocka_unit_test(test_adopted_at_start),
	    cmocka_unit_test(test_dead_daemon),
	    cmocka_unit_test(test_replayed_to_held),
	    cmocka_unit_test(test_calls_bounded),
	    cmocka_unit_test(test_link_change_and_reset),
	    cmocka_unit_test(test_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
