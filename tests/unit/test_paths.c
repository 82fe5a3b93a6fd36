/* paths: two engines with model kernels, NATs and a relay between them, on a clock of the test's
 * own; then strangers, forgers, keys that change, and what ten thousand idle peers cost.
 *
 *   alice 10.0.1.2 -- NAT 198.51.100.1 --+-- NAT 198.51.100.2 -- bob 10.0.2.2
 *        |                             10 ms                          |
 *        +--------- relay 1 ---------- 20 ms ---------- relay 2 ------+
 */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/path/paths.h"
#include "lib/cleanup.h"

#define MSEC	UINT64_C(1000)
#define SEC	UINT64_C(1000000)
#define T0	(1000 * SEC)
#define WG_PORT 41641

enum nat {
	NAT_PUBLIC,  /* no NAT, no filter */
	NAT_EASY,    /* one mapping, answers only from where something went */
	NAT_HARD,    /* a mapping for each destination, same filter */
	NAT_BLOCKED, /* no UDP */
};

enum kind { EV_UDP, EV_DERP, EV_STUN, EV_DUMP };

struct event {
	uint64_t at, taken;
	enum kind kind;
	unsigned int node; /* who gets it; for UDP: who sent it */
	struct endpoint from, to;
	uint16_t region;
	size_t len;
	uint8_t data[1400];
};

struct flow { /* of a NAT */
	struct endpoint remote;
	uint16_t port;
	uint64_t used;
};

struct node {
	struct paths *p;
	struct key_pair node, disco;
	enum nat nat;
	struct addr priv, pub;
	struct flow flows[64];
	size_t n_flows;
	uint16_t next_port;
	uint64_t wake;
	bool dead; /* the daemon; the kernel goes on */
	/* the kernel's peer */
	struct endpoint kernel; /* family 0 = relay address */
	uint64_t rx, tx;
	uint64_t keepalive_at;
	uint8_t seen[1 << 13]; /* replay window */
	/* the application */
	uint64_t every, next_send;
	uint32_t seq;
	unsigned int sent, got, got_direct, sets, stuns;
	uint64_t last_got, worst_gap;
	enum path_state now_state;
};

static struct sim {
	uint64_t now;
	struct node n[2];
	struct event *ev;
	size_t n_ev, cap_ev;
	bool cut[2]; /* UDP sent by node i is lost */
	bool relay_down, dumping;
	unsigned int loss_percent, udp_packets, seed;
	uint64_t nat_timeout;
} S;

static unsigned int chance(void)
{
	S.seed = S.seed * 1103515245U + 12345U;
	return (S.seed >> 16) % 100;
}

static struct event *post(enum kind kind, unsigned int node, uint64_t after)
{
	struct event *e;

	if (S.n_ev == S.cap_ev) {
		S.cap_ev = S.cap_ev ? S.cap_ev * 2 : 256;
		S.ev = reallocarray(S.ev, S.cap_ev, sizeof(*S.ev));
		assert_non_null(S.ev);
	}
	e = &S.ev[S.n_ev++];
	memset(e, 0, offsetof(struct event, data));
	e->kind = kind;
	e->node = node;
	e->at = S.now + after;
	return e;
}

/* ---- network ---- */

static uint16_t nat_out(struct node *n, const struct endpoint *to)
{
	struct flow *f;

	for (size_t i = 0; i < n->n_flows; i++) {
		f = &n->flows[i];
		if (endpoint_equal(&f->remote, to) && S.now - f->used < S.nat_timeout) {
			f->used = S.now;
			return f->port;
		}
	}
	assert_in_range(n->n_flows, 0, ARRAY_SIZE(n->flows) - 1);
	f = &n->flows[n->n_flows++];
	*f = (struct flow){ *to, n->nat == NAT_HARD ? n->next_port++ : n->next_port, S.now };
	return f->port;
}

static bool nat_in(struct node *n, const struct endpoint *to, const struct endpoint *from)
{
	if (n->nat == NAT_PUBLIC)
		return to->port == WG_PORT;
	for (size_t i = 0; i < n->n_flows; i++)
		if (n->flows[i].port == to->port && endpoint_equal(&n->flows[i].remote, from) &&
		    S.now - n->flows[i].used < S.nat_timeout)
			return true;
	return false;
}

static void udp_send(unsigned int i, const struct endpoint *to, const void *p, size_t len)
{
	struct node *n = &S.n[i];
	struct event *e;

	S.udp_packets++;
	if (n->nat == NAT_BLOCKED)
		return;
	e = post(EV_UDP, i, 10 * MSEC);
	e->to = *to;
	e->from = (struct endpoint){ n->pub, n->nat == NAT_PUBLIC ? WG_PORT : nat_out(n, to) };
	assert_in_range(len, 1, sizeof(e->data));
	memcpy(e->data, p, len);
	e->len = len;
	if (S.cut[i] || chance() < S.loss_percent)
		S.n_ev--;
}

static void derp_send(unsigned int i, uint16_t region, const void *p, size_t len)
{
	struct event *e;

	if (S.relay_down)
		return;
	e = post(EV_DERP, !i, 20 * MSEC);
	e->region = region;
	memcpy(e->data, p, len);
	e->len = len;
}

/* ---- model kernel: packets are { 4, kind, seq } ---- */

static void wg_send(unsigned int i, uint8_t kind)
{
	struct node *n = &S.n[i];
	uint8_t pkt[32] = { 4, kind };
	struct paths_send how;
	uint32_t seq = n->seq++;

	memcpy(pkt + 2, &seq, sizeof(seq));
	n->tx += sizeof(pkt);
	n->sent += !kind;
	n->keepalive_at = 0;
	if (n->kernel.addr.family) {
		udp_send(i, &n->kernel, pkt, sizeof(pkt));
		return;
	}
	if (n->dead)
		return; /* nobody reads the relay socket */
	assert_int_equal(paths_send_how(n->p, 7, S.now, &how), 0);
	assert_true(key_equal(&how.dst, &S.n[!i].node.pub));
	assert_int_equal(how.region, 1 + !i);
	derp_send(i, how.region, pkt, sizeof(pkt));
	if (how.copy)
		udp_send(i, &how.to, pkt, sizeof(pkt));
}

static void wg_receive(unsigned int i, const uint8_t *pkt, const struct endpoint *src, bool direct)
{
	struct node *n = &S.n[i];
	uint32_t seq;

	memcpy(&seq, pkt + 2, sizeof(seq));
	seq %= sizeof(n->seen) * 8;
	if (n->seen[seq / 8] & (1 << seq % 8))
		return; /* a replay changes nothing */
	n->seen[seq / 8] |= (uint8_t)(1 << seq % 8);
	n->seen[(seq / 8 + sizeof(n->seen) / 2) % sizeof(n->seen)] = 0;
	n->kernel = *src;
	n->rx += 32;
	if (pkt[1])
		return; /* keepalive */
	n->got++;
	n->got_direct += direct;
	if (n->last_got)
		n->worst_gap = MAX(n->worst_gap, S.now - n->last_got);
	n->last_got = S.now;
	if (!n->keepalive_at)
		n->keepalive_at = S.now + 10 * SEC;
}

/* ---- what the engines want ---- */

static int op_send_udp(void *data, const struct endpoint *to, const struct addr *from,
		       const void *p, size_t len)
{
	struct node *n = data;

	if (from && from->family)
		assert_true(addr_equal(from, &n->priv));
	udp_send((unsigned int)(n - S.n), to, p, len);
	return 0;
}

static int op_send_derp(void *data, uint16_t region, const struct key *dst, const void *p,
			size_t len)
{
	struct node *n = data;
	unsigned int i = (unsigned int)(n - S.n);

	assert_true(key_equal(dst, &S.n[!i].node.pub));
	derp_send(i, region, p, len);
	return S.relay_down ? -ENETDOWN : 0;
}

static void op_set_endpoint(void *data, uint32_t id, const struct endpoint *e)
{
	struct node *n = data;

	assert_int_equal(id, 7);
	assert_false(S.dumping); /* one socket to the kernel, and it is being read */
	n->kernel = e ? *e : (struct endpoint){ 0 };
	n->sets++;
}

static void op_restun(void *data)
{
	post(EV_STUN, (unsigned int)((struct node *)data - S.n), 30 * MSEC);
}

static void op_dump(void *data)
{
	post(EV_DUMP, (unsigned int)((struct node *)data - S.n), MSEC)->taken = S.now;
}

static void op_changed(void *data, uint32_t id, enum path_state old, enum path_state now,
		       const char *why)
{
	(void)id;
	(void)old;
	assert_non_null(why);
	((struct node *)data)->now_state = now;
}

static void op_wake(void *data, uint64_t when)
{
	((struct node *)data)->wake = when;
}

static const char *op_region_code(void *data, uint16_t region)
{
	(void)data;
	return region == 2 ? "fra" : NULL;
}

static const struct paths_ops ops = {
	.send_udp = op_send_udp,
	.send_derp = op_send_derp,
	.set_endpoint = op_set_endpoint,
	.restun = op_restun,
	.dump = op_dump,
	.changed = op_changed,
	.wake = op_wake,
	.region_code = op_region_code,
};

/* ---- events ---- */

static void stun_done(unsigned int i)
{
	struct endpoint server = { addr_v4(192, 0, 2, 1), 3478 }, v[2];
	struct node *n = &S.n[i];
	size_t k = 0;

	n->stuns++;
	if (n->nat == NAT_PUBLIC)
		v[k++] = (struct endpoint){ n->pub, WG_PORT };
	else if (n->nat != NAT_BLOCKED)
		v[k++] = (struct endpoint){ n->pub, nat_out(n, &server) };
	v[k++] = (struct endpoint){ n->priv, WG_PORT };
	paths_set_own_endpoints(n->p, v, k, S.now);
}

static void dump_done(const struct event *e)
{
	struct node *n = &S.n[e->node];
	struct path_counters c = { .taken = e->taken,
				   .rx_bytes = n->rx,
				   .tx_bytes = n->tx,
				   .direct = n->kernel.addr.family,
				   .endpoint = n->kernel,
				   .handshake_age_sec = 60 };

	S.dumping = true;
	paths_counters(n->p, 7, &c, S.now);
	S.dumping = false;
}

static void derp_arrived(const struct event *e)
{
	static const struct endpoint relay;
	struct node *n = &S.n[e->node];
	struct paths_deliver d;

	if (paths_derp_received(n->p, e->region, &S.n[!e->node].node.pub, e->data, e->len, S.now))
		return;
	assert_int_equal(paths_deliver_how(n->p, e->region, &S.n[!e->node].node.pub, S.now, &d), 0);
	assert_int_equal(d.id, 7);
	if (d.inject)
		assert_true(addr_equal(&d.dst, &n->priv)); /* never loopback */
	wg_receive(e->node, e->data, d.inject ? &d.src : &relay, false);
}

static void udp_arrived(const struct event *e)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct node *n = &S.n[i];

		if (i == e->node || !addr_equal(&e->to.addr, &n->pub) || n->nat == NAT_BLOCKED ||
		    !nat_in(n, &e->to, &e->from))
			continue;
		if (e->data[0] == 4)
			wg_receive(i, e->data, &e->from, true);
		else if (!n->dead)
			assert_true(
			    paths_udp_received(n->p, &e->from, &n->priv, e->data, e->len, S.now));
	}
}

static void handle(const struct event *e)
{
	bool dead = S.n[e->node].dead;

	switch (e->kind) {
	case EV_UDP:
		udp_arrived(e);
		break;
	case EV_DERP:
		if (dead && !S.n[!e->node].dead)
			paths_peer_gone(S.n[!e->node].p, e->region, &S.n[e->node].node.pub);
		else if (!dead)
			derp_arrived(e);
		break;
	case EV_STUN:
		if (!dead)
			stun_done(e->node);
		break;
	case EV_DUMP:
		if (!dead)
			dump_done(e);
		break;
	}
}

/* Runs for that long. */
static void run(uint64_t for_usec)
{
	uint64_t until = S.now + for_usec;

	for (;;) {
		struct event e = { .at = UINT64_MAX };
		size_t first = 0;
		uint64_t at = until;

		for (size_t i = 0; i < S.n_ev; i++)
			if (S.ev[i].at < e.at) {
				first = i;
				e.at = S.ev[i].at;
			}
		at = MIN(at, e.at);
		for (unsigned int i = 0; i < 2; i++) {
			const struct node *n = &S.n[i];

			if (!n->dead)
				at = MIN(at, n->wake);
			if (n->every)
				at = MIN(at, n->next_send);
			if (n->keepalive_at)
				at = MIN(at, n->keepalive_at);
		}
		if (at >= until)
			break;
		S.now = MAX(S.now, at);
		if (e.at <= S.now) {
			e = S.ev[first];
			memmove(&S.ev[first], &S.ev[first + 1], (S.n_ev - first - 1) * sizeof(e));
			S.n_ev--;
			handle(&e);
			continue;
		}
		for (unsigned int i = 0; i < 2; i++) {
			struct node *n = &S.n[i];

			if (!n->dead && n->wake <= S.now)
				paths_tick(n->p, S.now);
			if (n->every && n->next_send <= S.now) {
				n->next_send = S.now + n->every;
				wg_send(i, 0);
			}
			if (n->keepalive_at && n->keepalive_at <= S.now)
				wg_send(i, 1);
		}
	}
	S.now = until;
}

static void know(unsigned int i, bool with_endpoints)
{
	struct node *me = &S.n[i], *o = &S.n[!i];
	struct endpoint server = { addr_v4(192, 0, 2, 1), 3478 };
	struct endpoint v[] = { { o->priv, WG_PORT },
				{ o->pub, o->nat == NAT_PUBLIC || o->nat == NAT_BLOCKED
					      ? WG_PORT
					      : nat_out(o, &server) } };
	struct paths_peer_config c = { .id = 7,
				       .node = o->node.pub,
				       .disco = o->disco.pub,
				       .home = (uint16_t)(1 + !i),
				       .endpoints = v,
				       .n_endpoints =
					   with_endpoints ? o->nat == NAT_BLOCKED ? 1 : 2 : 0 };

	assert_int_equal(paths_peer_set(me->p, &c, S.now), PATHS_PEER_NEW);
}

static void sim_init(enum nat a, enum nat b)
{
	struct event *keep = S.ev;
	size_t cap = S.cap_ev;

	S = (struct sim){
		.now = T0, .ev = keep, .cap_ev = cap, .seed = 1, .nat_timeout = 30 * SEC
	};
	for (unsigned int i = 0; i < 2; i++) {
		struct node *n = &S.n[i];

		key_pair_generate(&n->node);
		key_pair_generate(&n->disco);
		n->nat = i ? b : a;
		n->priv = addr_v4(10, 0, (uint8_t)(1 + i), 2);
		n->pub = addr_v4(198, 51, 100, (uint8_t)(1 + i));
		n->next_port = (uint16_t)(20000 + 1000 * i);
		n->wake = UINT64_MAX;
		assert_int_equal(paths_new(&ops, n, &n->p), 0);
		paths_set_self(n->p, &n->disco, &n->node.pub, S.now);
	}
	for (unsigned int i = 0; i < 2; i++) {
		know(i, true);
		stun_done(i);
	}
}

static void sim_done(void)
{
	for (unsigned int i = 0; i < 2; i++)
		paths_free(S.n[i].p);
	S.n_ev = 0;
}

static void talk(uint64_t a_every, uint64_t b_every)
{
	S.n[0].every = a_every;
	S.n[0].next_send = S.now;
	S.n[1].every = b_every;
	S.n[1].next_send = S.now;
}

static enum path_state mode(unsigned int i)
{
	struct paths_status s;

	assert_int_equal(paths_peer_status(S.n[i].p, 7, S.now, &s), 0);
	return s.state;
}

/* Runs until both are in that mode; the time it took, UINT64_MAX when it took longer than max. */
static uint64_t run_until(enum path_state m, uint64_t max)
{
	uint64_t start = S.now;

	while (S.now - start <= max) {
		if (mode(0) == m && mode(1) == m)
			return S.now - start;
		run(5 * MSEC);
	}
	return UINT64_MAX;
}

static void no_packet_lost(void)
{
	talk(0, 0);
	run(SEC);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(S.n[i].got, S.n[!i].sent);
}

/* ---- pairs ---- */

static void test_pairs(void **state)
{
	static const struct {
		enum nat a, b;
		bool direct;
		uint64_t within;
	} t[] = {
		{ NAT_PUBLIC, NAT_PUBLIC, true, 100 * MSEC },
		{ NAT_PUBLIC, NAT_EASY, true, 200 * MSEC },
		{ NAT_EASY, NAT_PUBLIC, true, 200 * MSEC },
		{ NAT_EASY, NAT_EASY, true, 300 * MSEC },
		{ NAT_HARD, NAT_PUBLIC, true, 300 * MSEC },
		{ NAT_PUBLIC, NAT_HARD, true, 300 * MSEC },
		{ NAT_HARD, NAT_EASY, false, 0 },
		{ NAT_HARD, NAT_HARD, false, 0 },
		{ NAT_BLOCKED, NAT_PUBLIC, false, 0 },
		{ NAT_EASY, NAT_BLOCKED, false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		uint64_t took;

		for (int both = 0; both < 2; both++) {
			sim_init(t[i].a, t[i].b);
			run(40 * SEC); /* long enough that NATs have forgotten the STUN mappings */
			talk(50 * MSEC, both ? 70 * MSEC : 0);
			/* without answers the kernel of the silent side still sends keepalives */
			took = run_until(PATH_STATE_DIRECT, 20 * SEC);
			if (t[i].direct) {
				if (took > (both ? t[i].within : 11 * SEC))
					print_error("pair %zu took %llu us\n", i,
						    (unsigned long long)took);
				assert_true(took <= (both ? t[i].within : 11 * SEC));
				run(10 * SEC);
				no_packet_lost();
				talk(50 * MSEC, both ? 70 * MSEC : 0);
				S.n[1].got = S.n[1].got_direct = 0;
				S.n[1].last_got = 0;
				run(10 * SEC);
				assert_int_equal(S.n[1].got, S.n[1].got_direct);
				assert_in_range(S.n[0].sets, 1, 3);
			} else {
				assert_true(took == UINT64_MAX);
				assert_int_equal(S.n[1].got_direct, 0);
			}
			if (!t[i].direct)
				no_packet_lost();
			/* never a gap, whichever way they went */
			assert_true(S.n[1].worst_gap < 150 * MSEC);
			sim_done();
		}
	}
}

/* The first packet is never lost, and a peer of which the map knows no address finds us. */
static void test_first_packet(void **state)
{
	struct paths_peer_config c;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	for (unsigned int i = 0; i < 2; i++) { /* no endpoints in either map */
		c = (struct paths_peer_config){ .id = 7,
						.node = S.n[!i].node.pub,
						.disco = S.n[!i].disco.pub,
						.home = (uint16_t)(1 + !i) };
		assert_int_equal(paths_peer_set(S.n[i].p, &c, S.now), PATHS_PEER_SAME);
	}
	wg_send(0, 0);
	run(30 * MSEC);
	assert_int_equal(S.n[1].got, 1);
	assert_int_equal(S.n[1].got_direct, 0);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, 20 * SEC) <= 500 * MSEC);
	sim_done();
}

static void test_death_and_restore(void **state)
{
	(void)state;
	for (int one_way = 0; one_way < 2; one_way++) {
		uint64_t took;

		for (uint64_t phase = 0; phase < 3; phase++) {
			sim_init(NAT_EASY, NAT_EASY);
			talk(50 * MSEC, 50 * MSEC);
			assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
			run(10 * SEC + phase * SEC);
			S.n[0].worst_gap = S.n[1].worst_gap = 0;
			S.cut[0] = true;
			S.cut[1] = !one_way;
			took = run_until(PATH_STATE_RELAY, 20 * SEC);
			assert_true(one_way || took <= 8100 * MSEC);
			run(15 * SEC);
			/* what was lost: until the second missed pong */
			assert_true(S.n[1].worst_gap <= 6 * SEC);
			assert_true(S.n[0].worst_gap <= (one_way ? SEC : 6 * SEC));
			S.n[1].got = 0;
			run(SEC);
			assert_in_range(S.n[1].got, 19, 21);
			assert_int_not_equal(mode(0), PATH_STATE_DIRECT);
			assert_int_not_equal(mode(0), PATH_STATE_HELD);
			S.n[0].worst_gap = S.n[1].worst_gap = 0;
			S.cut[0] = S.cut[1] = false;
			assert_true(run_until(PATH_STATE_DIRECT, 20 * SEC) <= 7 * SEC);
			assert_true(S.n[0].worst_gap < 150 * MSEC && S.n[1].worst_gap < 150 * MSEC);
			sim_done();
		}
	}
}

/* While alice doubts, her packets go both ways; when she gives up, one. */
static void test_both_ways(void **state)
{
	struct paths_send how;
	struct endpoint direct;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	run(10 * SEC);
	direct = S.n[0].kernel;
	S.cut[1] = true; /* her pongs are lost, and nothing else */
	for (int i = 0; i < 1000 && mode(0) != PATH_STATE_DOUBTFUL; i++)
		run(10 * MSEC);
	assert_int_equal(mode(0), PATH_STATE_DOUBTFUL);
	assert_int_equal(S.n[0].kernel.addr.family, 0);
	assert_int_equal(paths_send_how(S.n[0].p, 7, S.now, &how), 0);
	assert_true(how.copy);
	assert_true(endpoint_equal(&how.to, &direct));
	assert_true(addr_equal(&how.from, &S.n[0].priv));
	S.relay_down = true;
	S.n[1].got_direct = 0;
	run(500 * MSEC);
	assert_in_range(S.n[1].got_direct, 8, 11); /* the copies arrive */
	S.relay_down = false;
	run(5 * SEC);
	assert_int_equal(mode(0), PATH_STATE_RELAY);
	assert_int_equal(paths_send_how(S.n[0].p, 7, S.now, &how), 0);
	assert_false(how.copy);
	assert_int_equal(how.region, 2);
	assert_int_equal(paths_send_how(S.n[0].p, 8, S.now, &how), -ENOENT);
	sim_done();
}

/* What bob sends by relay while alice is direct does not move her kernel. */
static void test_relayed_while_direct(void **state)
{
	struct endpoint direct;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	run(10 * SEC);
	direct = S.n[0].kernel;
	S.n[0].sets = 0;
	for (int i = 0; i < 100; i++) {
		uint8_t pkt[32] = { 4, 0 };
		uint32_t seq = S.n[1].seq++;

		memcpy(pkt + 2, &seq, sizeof(seq));
		derp_send(1, 1, pkt, sizeof(pkt));
		S.n[1].sent++;
		for (int k = 0; k < 10; k++) {
			run(7 * MSEC);
			assert_true(endpoint_equal(&S.n[0].kernel, &direct));
		}
	}
	assert_int_equal(S.n[0].sets, 0);
	no_packet_lost();
	/* and what moved it all the same is seen by the next dump, and put right after it */
	S.n[0].kernel = (struct endpoint){ 0 };
	run(4 * SEC);
	assert_true(endpoint_equal(&S.n[0].kernel, &direct));
	assert_int_equal(S.n[0].sets, 1);
	sim_done();
}

/* The relays go down while all is direct: nothing happens. */
static void test_relay_loss(void **state)
{
	struct paths_status s;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	S.relay_down = true;
	S.n[0].worst_gap = S.n[0].sets = 0;
	run(120 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	assert_int_equal(S.n[0].sets, 0);
	assert_true(S.n[0].worst_gap < 100 * MSEC);
	S.cut[0] = S.cut[1] = true;
	run(40 * SEC);
	assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now, &s), 0);
	assert_int_not_equal(s.state, PATH_STATE_DIRECT);
	assert_int_not_equal(s.state, PATH_STATE_HELD);
	assert_string_equal(s.reason, "relay fra is unreachable");
	sim_done();
}

/* bob's daemon dies; his kernel lives on. alice must not notice. */
static void test_dead_daemon(void **state)
{
	static const uint64_t back_every[] = { 50 * MSEC, 0 }; /* traffic both ways; one way only */

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(back_every); k++) {
		sim_init(NAT_EASY, NAT_EASY);
		talk(50 * MSEC, 50 * MSEC);
		assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
		run(12 * SEC);
		talk(50 * MSEC, back_every[k]);
		S.n[1].dead = true;
		S.n[0].sets = 0;
		S.n[1].worst_gap = 0;
		run(300 * SEC);
		assert_int_equal(mode(0), PATH_STATE_HELD);
		assert_int_equal(S.n[0].sets, 0);
		assert_true(S.n[1].worst_gap < 100 * MSEC); /* alice's packets all arrived */
		S.n[1].dead = false;			    /* restarted, same keys */
		run(4 * SEC);
		assert_int_equal(mode(0), PATH_STATE_DIRECT);
		assert_true(S.n[1].worst_gap < 150 * MSEC);
		sim_done();
	}

	/* his host dies as a whole: within seconds alice sends by relay, where he may turn up again
	 */
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	run(12 * SEC);
	S.n[1].dead = S.cut[1] = true;
	talk(50 * MSEC, 0);
	S.n[1].keepalive_at = 0;
	run(30 * SEC);
	assert_true(mode(0) == PATH_STATE_RELAY || mode(0) == PATH_STATE_DOUBTFUL);
	sim_done();
}

/* bob's NAT forgets him: his packets come from a new port, and only the kernel sees it. */
static void test_rebinding(void **state)
{
	(void)state;
	sim_init(NAT_PUBLIC, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	run(5 * SEC);
	S.n[1].n_flows = 0;
	S.n[1].next_port = 33333;
	S.n[0].worst_gap = S.n[1].worst_gap = 0;
	run(20 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	assert_int_equal(mode(1), PATH_STATE_DIRECT);
	assert_int_equal(S.n[0].kernel.port, 33333);
	assert_true(S.n[0].worst_gap < 150 * MSEC);
	assert_true(S.n[1].worst_gap < 150 * MSEC);
	sim_done();
}

/* alice's host gets another address: she says so at once. */
static void test_link_change(void **state)
{
	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	run(5 * SEC);
	S.n[0].pub = addr_v4(203, 0, 113, 77);
	S.n[0].priv = addr_v4(10, 9, 9, 9);
	S.n[0].n_flows = 0;
	S.n[0].next_port = 40000;
	S.n[0].worst_gap = S.n[1].worst_gap = 0;
	paths_link_changed(S.n[0].p, S.now);
	assert_int_equal(S.n[0].kernel.addr.family, 0);
	run(3 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	/* bob learns it from her CallMeMaybe and pings */
	assert_true(S.n[1].worst_gap < 150 * MSEC);
	run(5 * SEC);
	assert_int_equal(mode(1), PATH_STATE_DIRECT);
	assert_true(addr_equal(&S.n[1].kernel.addr, &S.n[0].pub));
	sim_done();
}

static void test_loss(void **state)
{
	unsigned int sent;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	S.loss_percent = 10;
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, 20 * SEC) <= 15 * SEC);
	S.n[1].got = S.n[0].sets = 0;
	sent = S.n[0].seq;
	run(600 * SEC);
	sent = S.n[0].seq - sent;
	assert_true(S.n[1].got >= sent * 88 / 100);
	/* 19 % of the pings fail; two in a row every 80 s or so */
	assert_true(S.n[0].sets <= 24);
	sim_done();
}

static void test_idle(void **state)
{
	unsigned int packets;
	struct paths_status s;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	run(5 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	talk(0, 0);
	run(70 * SEC);
	assert_int_equal(S.n[0].kernel.addr.family, 0);
	assert_int_equal(S.n[1].kernel.addr.family, 0);
	packets = S.udp_packets;
	run(3600 * SEC);
	assert_int_equal(S.udp_packets, packets);
	assert_int_equal(S.n[0].wake, UINT64_MAX); /* no timer at all */
	assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now, &s), 0);
	assert_false(s.active);
	assert_false(paths_any_active(S.n[0].p, S.now));
	assert_string_equal(s.reason, "");
	/* and again, after the NATs have forgotten everything */
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	assert_true(paths_any_active(S.n[0].p, S.now));
	sim_done();
}

/* The daemon hands in the time of the loop's turn here and the clock's there: a step back of
 * milliseconds must not look like an age of centuries. */
static void test_clock_steps_back(void **state)
{
	struct path_counters c = { .handshake_age_sec = 1 };
	struct paths_status s;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	run(5 * SEC);
	S.n[0].sets = 0;
	for (int i = 0; i < 2000; i++) {
		run(13 * MSEC);
		c.taken = S.now - 5 * MSEC;
		c.rx_bytes = S.n[0].rx;
		c.tx_bytes = S.n[0].tx;
		c.direct = true;
		c.endpoint = S.n[0].kernel;
		paths_counters(S.n[0].p, 7, &c, c.taken);
		paths_tick(S.n[0].p, S.now - 9 * MSEC);
		paths_set_own_endpoints(S.n[0].p, &c.endpoint, i % 2, S.now - 20 * MSEC);
		assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now - 30 * MSEC, &s), 0);
		assert_int_equal(s.state, PATH_STATE_DIRECT);
		assert_true(s.active);
		assert_true(paths_any_active(S.n[0].p, S.now - 30 * MSEC));
	}
	assert_int_equal(S.n[0].sets, 0);
	sim_done();
}

static unsigned int pongs_relayed, pongs_direct, pings_over;

static void on_pong(void *data, const struct paths_pong *pong)
{
	assert_ptr_equal(data, &S);
	if (!pong)
		pings_over++;
	else if (pong->relayed) {
		assert_int_equal(pong->region,
				 2); /* his home: the answer takes the way of the ping */
		assert_in_range(pong->latency_usec, 40 * MSEC, 41 * MSEC);
		pongs_relayed++;
	} else {
		assert_in_range(pong->latency_usec, 20 * MSEC, 21 * MSEC);
		pongs_direct++;
	}
}

static void test_user_ping(void **state)
{
	int h, open = 0;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	assert_true(paths_ping(S.n[0].p, 7, on_pong, &S, S.now) > 0);
	run(50 * MSEC);
	assert_int_equal(pongs_relayed, 1);
	run(SEC);
	assert_true(paths_ping(S.n[0].p, 7, on_pong, &S, S.now) > 0);
	run(50 * MSEC);
	assert_int_equal(pongs_direct, 1); /* the first one has opened the way */
	assert_int_equal(pongs_relayed, 1);
	run(6 * SEC);
	assert_int_equal(pings_over, 2);
	h = paths_ping(S.n[0].p, 7, on_pong, &S, S.now);
	paths_ping_cancel(S.n[0].p, h);
	run(6 * SEC);
	assert_int_equal(pings_over, 2);
	assert_int_equal(pongs_direct, 1);
	assert_int_equal(paths_ping(S.n[0].p, 8, on_pong, &S, S.now), -ENOENT);
	for (int i = 0; i < 40; i++) {
		h = paths_ping(S.n[0].p, 7, on_pong, &S, S.now);
		open += h > 0;
	}
	assert_int_equal(h, -ENOBUFS);
	assert_true(open > 0);
	sim_done();
	assert_int_equal(pings_over, 2 + open); /* nobody is left waiting */
}

static void test_reasons(void **state)
{
	struct paths_status s;

	(void)state;
	sim_init(NAT_BLOCKED, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	run(10 * SEC);
	assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now, &s), 0);
	assert_int_equal(s.state, PATH_STATE_RELAY);
	assert_true(s.active);
	assert_int_equal(s.region, 2);
	assert_string_equal(s.reason, "none of its 2 addresses answers");
	paths_set_udp_works(S.n[0].p, false);
	assert_int_equal(paths_peer_status(S.n[0].p, 7, S.now, &s), 0);
	assert_string_equal(s.reason, "no UDP gets out of this host's network");
	assert_int_equal(paths_peer_status(S.n[0].p, 9, S.now, &s), -ENOENT);
	sim_done();
}

/* ---- strangers and forgers ---- */

struct tap { /* an engine whose sends are only looked at */
	struct paths *p;
	uint8_t udp[DISCO_WIRE_MAX], derp[DISCO_WIRE_MAX];
	int n_udp, n_derp, n_sets;
	size_t udp_len, derp_len;
	struct endpoint udp_to;
	struct addr udp_from;
	uint16_t region;
};

static int tap_udp(void *data, const struct endpoint *to, const struct addr *from, const void *p,
		   size_t len)
{
	struct tap *t = data;

	t->n_udp++;
	t->udp_to = *to;
	t->udp_from = from ? *from : (struct addr){ 0 };
	memcpy(t->udp, p, len);
	t->udp_len = len;
	return 0;
}

static int tap_derp(void *data, uint16_t region, const struct key *dst, const void *p, size_t len)
{
	struct tap *t = data;

	(void)dst;
	t->n_derp++;
	t->region = region;
	memcpy(t->derp, p, len);
	t->derp_len = len;
	return 0;
}

static void tap_pong(void *data, const struct paths_pong *pong)
{
	(void)data;
	(void)pong;
}

static void tap_set(void *data, uint32_t id, const struct endpoint *e)
{
	(void)id;
	(void)e;
	((struct tap *)data)->n_sets++;
}

static void tap_nothing(void *data)
{
	(void)data;
}

static void tap_wake(void *data, uint64_t when)
{
	(void)data;
	(void)when;
}

static const struct paths_ops tap_ops = { .send_udp = tap_udp,
					  .send_derp = tap_derp,
					  .set_endpoint = tap_set,
					  .restun = tap_nothing,
					  .dump = tap_nothing,
					  .wake = tap_wake };

static size_t box(const struct key_pair *from, const struct key *to, const struct disco_msg *m,
		  uint8_t *wire)
{
	struct disco_shared k;
	uint8_t plain[DISCO_WIRE_MAX];
	int n = disco_msg_encode(m, plain, sizeof(plain));

	assert_true(n > 0);
	assert_int_equal(disco_shared_init(&from->priv, to, &k), 0);
	n = disco_seal(&k, &from->pub, NULL, plain, (size_t)n, wire, DISCO_WIRE_MAX);
	assert_true(n > 0);
	return (size_t)n;
}

static void test_strangers(void **state)
{
	struct endpoint from = { addr_v4(203, 0, 113, 5), 4000 },
			other = { addr_v4(203, 0, 113, 6), 5 };
	struct addr local = addr_v4(10, 0, 0, 9);
	struct disco_msg ping = { .type = DISCO_TYPE_PING },
			 call = { .type = DISCO_TYPE_CALL_ME_MAYBE }, m;
	struct key_pair me_disco, me_node, bob_disco, bob_node, eve_disco, eve_node;
	struct paths_peer_config c = { .id = 1, .home = 3 };
	uint8_t wire[DISCO_WIRE_MAX], plain[256];
	struct disco_shared k;
	struct tap t = { 0 };
	size_t n;
	int r;

	(void)state;
	key_pair_generate(&me_disco);
	key_pair_generate(&me_node);
	key_pair_generate(&bob_disco);
	key_pair_generate(&bob_node);
	key_pair_generate(&eve_disco);
	key_pair_generate(&eve_node);
	assert_int_equal(paths_new(&tap_ops, &t, &t.p), 0);
	paths_set_self(t.p, &me_disco, &me_node.pub, T0);
	c.node = bob_node.pub;
	c.disco = bob_disco.pub;
	assert_int_equal(paths_peer_set(t.p, &c, T0), PATHS_PEER_NEW);
	c.id = 2; /* eve is a member too, with her own disco key */
	c.node = eve_node.pub;
	c.disco = eve_disco.pub;
	assert_int_equal(paths_peer_set(t.p, &c, T0), PATHS_PEER_NEW);
	ping.ping.node = bob_node.pub;

	/* unknown key: consumed, silent */
	struct key_pair nobody;

	key_pair_generate(&nobody);
	n = box(&nobody, &me_disco.pub, &ping, wire);
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	/* a known key on a box of somebody else's; broken; short; for another receiver */
	memcpy(wire + DISCO_MAGIC_LEN, bob_disco.pub.b, KEY_LEN);
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	n = box(&bob_disco, &nobody.pub, &ping, wire);
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	n = box(&bob_disco, &me_disco.pub, &ping, wire);
	for (size_t i = DISCO_HEADER_LEN; i < n; i++)
		assert_true(paths_udp_received(t.p, &from, &local, wire, i, T0));
	assert_int_equal(t.n_udp + t.n_derp, 0);
	/* not disco at all: WireGuard's */
	assert_false(paths_udp_received(t.p, &from, &local, "\x04\0\0\0hello", 9, T0));
	assert_false(paths_derp_received(t.p, 3, &bob_node.pub, "\x04\0\0\0hello", 9, T0));

	/* the real one: a pong to its source, from where it came in, and a ping back */
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	assert_int_equal(t.n_udp, 2);
	assert_true(endpoint_equal(&t.udp_to, &from));
	assert_true(addr_equal(&t.udp_from, &local));
	assert_int_equal(disco_shared_init(&bob_disco.priv, &me_disco.pub, &k), 0);
	r = disco_open(&k, t.udp, t.udp_len, plain, sizeof(plain));
	assert_true(r > 0 && disco_msg_decode(plain, (size_t)r, &m) == 0);
	assert_int_equal(m.type, DISCO_TYPE_PONG);
	assert_memory_equal(&m.pong.txid, &ping.ping.txid, sizeof(ping.ping.txid));
	assert_true(endpoint_equal(&m.pong.seen, &from));
	/* replayed: nothing; replayed from elsewhere: answered there once, as stock nodes do */
	assert_true(paths_udp_received(t.p, &from, &local, wire, n, T0));
	assert_int_equal(t.n_udp, 2);
	for (int i = 0; i < 5; i++)
		assert_true(paths_udp_received(t.p, &other, &local, wire, n, T0));
	assert_int_equal(t.n_udp, 3);
	assert_true(endpoint_equal(&t.udp_to, &other));

	/* by relay: the answer goes there, and names the region as 127.3.3.40 */
	assert_true(paths_derp_received(t.p, 5, &bob_node.pub, wire, n, T0));
	assert_int_equal(t.n_derp, 1);
	assert_int_equal(t.region, 5);
	r = disco_open(&k, t.derp, t.derp_len, plain, sizeof(plain));
	assert_true(r > 0 && disco_msg_decode(plain, (size_t)r, &m) == 0);
	assert_int_equal(m.pong.seen.port, 5);
	assert_true(addr_equal(&m.pong.seen.addr, &(struct addr){ 4, { 127, 3, 3, 40 } }));
	assert_true(paths_derp_received(t.p, 5, &nobody.pub, wire, n, T0)); /* no member */
	assert_int_equal(t.n_derp, 1);

	/* CallMeMaybe: not by UDP, not from another member's relay client, not with another's key
	 */
	t.n_udp = 0;
	call.call.n = 1;
	call.call.at[0] = other;
	call.call.at[0].port = 9;
	n = box(&bob_disco, &me_disco.pub, &call, wire);
	paths_udp_received(t.p, &from, &local, wire, n, T0 + 10 * SEC);
	paths_derp_received(t.p, 5, &eve_node.pub, wire, n, T0 + 10 * SEC);
	paths_derp_received(t.p, 5, &nobody.pub, wire, n, T0 + 10 * SEC);
	assert_int_equal(t.n_udp, 0);
	paths_derp_received(t.p, 5, &bob_node.pub, wire, n, T0 + 10 * SEC);
	assert_int_equal(t.n_udp, 3);  /* the new address and the two that pinged */
	assert_int_equal(t.n_derp, 1); /* no CallMeMaybe in return */
	/* types of peer relays are for others */
	t.n_udp = t.n_derp = 0;
	for (uint8_t type = 4; type < 12; type++) {
		uint8_t inner[80] = { type };

		r = disco_seal(&k, &bob_disco.pub, NULL, inner, sizeof(inner), wire, sizeof(wire));
		assert_true(paths_udp_received(t.p, &from, &local, wire, (size_t)r, T0 + 11 * SEC));
		assert_true(
		    paths_derp_received(t.p, 5, &bob_node.pub, wire, (size_t)r, T0 + 11 * SEC));
	}
	assert_int_equal(t.n_udp + t.n_derp, 0);
	assert_int_equal(t.n_sets, 0);
	paths_free(t.p);
}

/* A member that floods with new source ports costs bounded memory and bounded pings. */
static void test_flood(void **state)
{
	struct endpoint from = { addr_v4(203, 0, 113, 5), 1 };
	struct addr local = addr_v4(10, 0, 0, 9);
	struct disco_msg ping = { .type = DISCO_TYPE_PING };
	struct key_pair me, node, bob_disco, bob_node;
	struct paths_peer_config c = { .id = 1, .home = 3 };
	uint8_t wire[DISCO_WIRE_MAX];
	struct tap t = { 0 };
	size_t n, before;

	(void)state;
	key_pair_generate(&me);
	key_pair_generate(&node);
	key_pair_generate(&bob_disco);
	key_pair_generate(&bob_node);
	assert_int_equal(paths_new(&tap_ops, &t, &t.p), 0);
	paths_set_self(t.p, &me, &node.pub, T0);
	c.node = bob_node.pub;
	c.disco = bob_disco.pub;
	assert_int_equal(paths_peer_set(t.p, &c, T0), PATHS_PEER_NEW);
	ping.ping.node = bob_node.pub;
	before = mallinfo2().uordblks;
	for (uint32_t i = 0; i < 5000; i++) {
		from.port = (uint16_t)(i + 1);
		memcpy(ping.ping.txid.b, &i, sizeof(i));
		n = box(&bob_disco, &me.pub, &ping, wire);
		paths_udp_received(t.p, &from, &local, wire, n, T0 + i * 100);
	}
	assert_in_range(t.n_udp, 100, 110); /* a pong each to the first hundred, hardly a ping */
	assert_true(mallinfo2().uordblks - before < 16384);
	paths_free(t.p);
}

/* Somebody who knows bob's disco key, and no secret, sends forged boxes by the ten thousand: what bob
 * sends from where he is known to be is answered all the same. */
static void test_forged_flood(void **state)
{
	struct endpoint home = { addr_v4(198, 51, 100, 2), 41641 },
			from = { addr_v4(203, 0, 113, 5), 1 };
	struct addr local = addr_v4(10, 0, 0, 9);
	struct disco_msg ping = { .type = DISCO_TYPE_PING }, pong = { .type = DISCO_TYPE_PONG }, m;
	struct key_pair me, node, bob_disco, bob_node, eve;
	struct paths_peer_config c = { .id = 1, .home = 3 };
	uint8_t wire[DISCO_WIRE_MAX], forged[DISCO_WIRE_MAX], plain[256];
	struct disco_shared k;
	struct tap t = { 0 };
	size_t n, n_forged;
	int r;

	(void)state;
	key_pair_generate(&me);
	key_pair_generate(&node);
	key_pair_generate(&bob_disco);
	key_pair_generate(&bob_node);
	key_pair_generate(&eve);
	assert_int_equal(paths_new(&tap_ops, &t, &t.p), 0);
	paths_set_self(t.p, &me, &node.pub, T0);
	c.node = bob_node.pub;
	c.disco = bob_disco.pub;
	assert_int_equal(paths_peer_set(t.p, &c, T0), PATHS_PEER_NEW);
	ping.ping.node = bob_node.pub;
	ping.ping.has_node = true;
	n = box(&bob_disco, &me.pub, &ping, wire);
	paths_udp_received(t.p, &home, &local, wire, n, T0);
	assert_int_equal(t.n_udp, 2); /* a pong and a ping, which bob answers */
	assert_int_equal(disco_shared_init(&bob_disco.priv, &me.pub, &k), 0);
	/* the ping goes first, the pong last: ask for another one */
	assert_int_equal(paths_ping(t.p, 1, tap_pong, NULL, T0 + 1), 1);
	r = disco_open(&k, t.udp, t.udp_len, plain, sizeof(plain));
	assert_true(r > 0 && disco_msg_decode(plain, (size_t)r, &m) == 0);
	assert_int_equal(m.type, DISCO_TYPE_PING);
	pong.pong.txid = m.ping.txid;
	pong.pong.seen = home;
	n = box(&bob_disco, &me.pub, &pong, wire);
	paths_udp_received(t.p, &home, &local, wire, n, T0 + 2);
	assert_int_equal(t.n_sets, 1);

	n_forged = box(&eve, &me.pub, &ping, forged);
	memcpy(forged + DISCO_MAGIC_LEN, bob_disco.pub.b, KEY_LEN);
	for (uint32_t sec = 1; sec < 4; sec++) {
		for (uint32_t i = 0; i < 30000; i++) {
			from.port = (uint16_t)(i + 1);
			paths_udp_received(t.p, &from, &local, forged, n_forged, T0 + sec * SEC + i);
			if (i % 3000 == 0) /* by relays as well */
				paths_derp_received(t.p, 3, &bob_node.pub, forged, n_forged,
						    T0 + sec * SEC + i);
		}
		t.n_udp = 0;
		memcpy(ping.ping.txid.b, &sec, sizeof(sec));
		n = box(&bob_disco, &me.pub, &ping, wire);
		paths_udp_received(t.p, &home, &local, wire, n, T0 + sec * SEC + 40000);
		assert_int_equal(t.n_udp, 1);
		assert_true(endpoint_equal(&t.udp_to, &home));
	}
	assert_int_equal(t.n_sets, 1); /* and nothing moved */

	/* a relay that invents handshakes: ten a second go on; data, and the next second, do */
	for (r = 0, n = 0; n < 1000; n++)
		r += paths_relayed_allowed(t.p, &bob_node.pub, (const uint8_t *)"\1\0\0\0x", 5,
					   T0 + 5 * SEC + n);
	assert_int_equal(r, 10);
	assert_true(paths_relayed_allowed(t.p, &bob_node.pub, (const uint8_t *)"\4\0\0\0x", 5,
					  T0 + 5 * SEC + n));
	assert_true(paths_relayed_allowed(t.p, &bob_node.pub, (const uint8_t *)"\1\0\0\0x", 5,
					  T0 + 6 * SEC));
	assert_false(paths_relayed_allowed(t.p, &eve.pub, (const uint8_t *)"\4\0\0\0x", 5,
					   T0 + 6 * SEC));
	paths_free(t.p);
}

/* Of two handshakes that cross on the relay, exactly one gets to a kernel. */
static void test_crossing(void **state)
{
	static const uint8_t initiation[] = { 1, 0, 0, 0, 9 }, response[] = { 2, 0, 0, 0, 9 },
			     data[] = { 4, 0, 0, 0, 9 };
	struct key_pair disco, a, b;
	struct tap t[2] = { 0 };
	unsigned int n = 0, winner = 0;

	(void)state;
	key_pair_generate(&disco);
	key_pair_generate(&a);
	key_pair_generate(&b);
	for (unsigned int i = 0; i < 2; i++) {
		struct paths_peer_config c = { .id = 1, .home = 3, .disco = disco.pub };

		c.node = i ? a.pub : b.pub;
		assert_int_equal(paths_new(&tap_ops, &t[i], &t[i].p), 0);
		paths_set_self(t[i].p, &disco, i ? &b.pub : &a.pub, T0);
		assert_int_equal(paths_peer_set(t[i].p, &c, T0), PATHS_PEER_NEW);
		/* nothing on the way from here: the peer's gets in */
		assert_true(paths_relayed_allowed(t[i].p, &c.node, initiation, 5, T0));
		paths_relayed_sent(t[i].p, 1, data, 5, T0);
		assert_true(paths_relayed_allowed(t[i].p, &c.node, initiation, 5, T0));
	}
	for (unsigned int i = 0; i < 2; i++)
		paths_relayed_sent(t[i].p, 1, initiation, 5, T0 + SEC + i);
	for (unsigned int i = 0; i < 2; i++) {
		const struct key *peer = i ? &a.pub : &b.pub;

		if (paths_relayed_allowed(t[i].p, peer, initiation, 5, T0 + SEC + 50 * MSEC))
			n++;
		else
			winner = i;
		assert_true(paths_relayed_allowed(t[i].p, peer, data, 5, T0 + SEC + 50 * MSEC));
	}
	assert_int_equal(n, 1);
	/* answered: what comes next is new */
	for (unsigned int i = 0; i < 2; i++) {
		const struct key *peer = i ? &a.pub : &b.pub;

		if (i == winner)
			assert_true(paths_relayed_allowed(t[i].p, peer, response, 5, T0 + SEC + 100 * MSEC));
		assert_true(paths_relayed_allowed(t[i].p, peer, initiation, 5, T0 + SEC + 101 * MSEC));
		/* and one that was never answered is in nobody's way for long */
		paths_relayed_sent(t[i].p, 1, initiation, 5, T0 + 2 * SEC);
		assert_true(paths_relayed_allowed(t[i].p, peer, initiation, 5, T0 + 2 * SEC + 500 * MSEC));
	}
	paths_free(t[0].p);
	paths_free(t[1].p);
}

static void test_disco_key_change(void **state)
{
	struct key_pair fresh, third;
	struct paths_peer_config c;

	(void)state;
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
	key_pair_generate(&fresh);
	key_pair_generate(&third);
	/* bob restarts with another disco key, and alice's map says so */
	S.n[1].disco = fresh;
	paths_set_self(S.n[1].p, &fresh, &S.n[1].node.pub, S.now);
	c = (struct paths_peer_config){
		.id = 7, .node = S.n[1].node.pub, .disco = fresh.pub, .home = 2
	};
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), PATHS_PEER_RESET);
	S.n[0].kernel = (struct endpoint){ 0 };
	assert_int_equal(mode(0), PATH_STATE_RELAY);
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), PATHS_PEER_SAME);
	assert_true(run_until(PATH_STATE_DIRECT, 10 * SEC) <= 7 * SEC);
	/* the next one comes through the tunnel, before the map says it: no reset */
	S.n[1].disco = third;
	paths_set_self(S.n[1].p, &third, &S.n[1].node.pub, S.now);
	assert_int_equal(paths_peer_disco_key(S.n[0].p, 7, &third.pub, S.now), 0);
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now),
			 PATHS_PEER_SAME); /* an old map: no way back */
	run(2 * SEC);
	c.disco = third.pub;
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), PATHS_PEER_SAME);
	run(10 * SEC);
	assert_int_equal(mode(0), PATH_STATE_DIRECT);
	assert_int_equal(mode(1), PATH_STATE_DIRECT);
	/* a node key is one peer's only; the same number with another key is a new peer */
	c.id = 8;
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), -EEXIST);
	c.id = 7;
	c.node = fresh.pub;
	assert_int_equal(paths_peer_set(S.n[0].p, &c, S.now), PATHS_PEER_NEW);
	assert_int_equal(paths_count(S.n[0].p), 1);
	paths_peer_remove(S.n[0].p, 7);
	assert_int_equal(paths_count(S.n[0].p), 0);
	talk(0, 0);
	sim_done();
}

/* One disco key, two node keys: txid and node key tell them apart. */
static void test_shared_disco_key(void **state)
{
	struct endpoint from = { addr_v4(203, 0, 113, 5), 1 };
	struct addr local = addr_v4(10, 0, 0, 9);
	struct disco_msg ping = { .type = DISCO_TYPE_PING };
	struct key_pair me, node, disco, a, b;
	struct paths_peer_config c = { .home = 3 };
	uint8_t wire[DISCO_WIRE_MAX];
	struct tap t = { 0 };
	struct paths_status s;
	struct disco_shared k;
	uint8_t plain[256];
	struct disco_msg m;
	size_t n;
	int r;

	(void)state;
	key_pair_generate(&me);
	key_pair_generate(&node);
	key_pair_generate(&disco);
	key_pair_generate(&a);
	key_pair_generate(&b);
	assert_int_equal(paths_new(&tap_ops, &t, &t.p), 0);
	paths_set_self(t.p, &me, &node.pub, T0);
	c.disco = disco.pub;
	c.id = 1;
	c.node = a.pub;
	assert_int_equal(paths_peer_set(t.p, &c, T0), PATHS_PEER_NEW);
	c.id = 2;
	c.node = b.pub;
	assert_int_equal(paths_peer_set(t.p, &c, T0), PATHS_PEER_NEW);
	ping.ping.node = a.pub;
	n = box(&disco, &me.pub, &ping, wire);
	paths_udp_received(t.p, &from, &local, wire, n, T0);
	assert_int_equal(t.n_udp, 2);
	/* answer the ping back, which was the first of the two: find it by asking for another one
	 */
	ping.ping.txid.b[0] = 1;
	n = box(&disco, &me.pub, &ping, wire);
	t.n_udp = 0;
	paths_udp_received(t.p, &from, &local, wire, n, T0 + 2 * SEC);
	assert_int_equal(t.n_udp, 2);
	paths_ping(t.p, 1, on_pong, &S, T0 + 2 * SEC);
	assert_int_equal(disco_shared_init(&disco.priv, &me.pub, &k), 0);
	r = disco_open(&k, t.udp, t.udp_len, plain, sizeof(plain));
	assert_true(r > 0 && disco_msg_decode(plain, (size_t)r, &m) == 0);
	assert_int_equal(m.type, DISCO_TYPE_PING);
	ping = (struct disco_msg){ .type = DISCO_TYPE_PONG };
	memcpy(&ping.pong.txid, &m.ping.txid, sizeof(m.ping.txid));
	ping.pong.seen = from;
	n = box(&disco, &me.pub, &ping, wire);
	pongs_direct = 0;
	paths_udp_received(t.p, &from, &local, wire, n, T0 + 2020 * MSEC);
	assert_int_equal(pongs_direct, 1);
	assert_int_equal(paths_peer_status(t.p, 1, T0 + 3 * SEC, &s), 0);
	assert_int_equal(s.state, PATH_STATE_DIRECT);
	assert_int_equal(paths_peer_status(t.p, 2, T0 + 3 * SEC, &s), 0);
	assert_int_equal(s.state, PATH_STATE_RELAY);
	paths_free(t.p);
}

static void test_many(void **state)
{
	struct endpoint v[4];
	struct key_pair me, node;
	struct paths_peer_config c = { .home = 1, .endpoints = v, .n_endpoints = 4 };
	struct paths_send how;
	struct tap t = { 0 };
	size_t before, idle, active;
	uint32_t id;

	(void)state;
	key_pair_generate(&me);
	key_pair_generate(&node);
	assert_int_equal(paths_new(&tap_ops, &t, &t.p), 0);
	paths_set_self(t.p, &me, &node.pub, T0);
	before = mallinfo2().uordblks;
	for (uint32_t i = 0; i < 10000; i++) {
		randombytes_buf(&c.node, sizeof(c.node));
		/* a real public key now and then: those are sent to below */
		if (i % 100 == 0)
			key_pair_generate(&node);
		c.disco = i % 100 == 0 ? node.pub : c.node;
		c.id = 4 * i + 1;
		for (size_t k = 0; k < 4; k++)
			v[k] = (struct endpoint){
				addr_v4(10, (uint8_t)k, (uint8_t)(i >> 8), (uint8_t)i), 41641
			};
		assert_int_equal(paths_peer_set(t.p, &c, T0), PATHS_PEER_NEW);
	}
	assert_true(paths_peer_by_key(t.p, &c.node, &id));
	assert_int_equal(id, 4 * 9999 + 1);
	idle = mallinfo2().uordblks - before;
#if !defined(__SANITIZE_ADDRESS__)
	assert_in_range(idle / 10000, 100, 400);
#endif
	before = mallinfo2().uordblks;
	for (uint32_t i = 0; i < 10000; i += 100)
		assert_int_equal(paths_send_how(t.p, 4 * i + 1, T0 + i, &how), 0);
	active = mallinfo2().uordblks - before;
#if !defined(__SANITIZE_ADDRESS__)
	assert_in_range(active / 100, 100, 2000);
#endif
	assert_int_equal(t.n_udp, 400); /* all addresses of all hundred */
	for (uint64_t now = T0; now < T0 + 100 * SEC; now += 100 * MSEC)
		paths_tick(t.p, now);
#if !defined(__SANITIZE_ADDRESS__)
	assert_true(mallinfo2().uordblks - before < active / 4 + 4096); /* given back */
#endif
	for (uint32_t i = 0; i < 10000; i++)
		paths_peer_remove(t.p, 4 * i + 1);
	assert_int_equal(paths_count(t.p), 0);
	(void)idle;
	(void)active;
	paths_free(t.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_first_packet),
		cmocka_unit_test(test_death_and_restore),
		cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_relayed_while_direct),
		cmocka_unit_test(test_relay_loss),
		cmocka_unit_test(test_dead_daemon),
		cmocka_unit_test(test_rebinding),
		cmocka_unit_test(test_link_change),
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_clock_steps_back),
		cmocka_unit_test(test_user_ping),
		cmocka_unit_test(test_reasons),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_flood), cmocka_unit_test(test_forged_flood),
		cmocka_unit_test(test_crossing),
		cmocka_unit_test(test_disco_key_change),
		cmocka_unit_test(test_shared_disco_key),
		cmocka_unit_test(test_many),
	};
	int r;

	if (key_init() < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	free(S.ev);
	return r;
}
