#pragma once
/*
 * paths_sim: two engines with model kernels, NATs and a relay between them, on a clock of the test's own.
 *
 *   alice 10.0.1.2 -- NAT 198.51.100.1 --+-- NAT 198.51.100.2 -- bob 10.0.2.2
 *        |                             10 ms                          |
 *        +--------- relay 1 ---------- 20 ms ---------- relay 2 ------+
 *
 * S is that world. Each of the two is peer 7 of the other; run() lets time pass, talk() makes their
 * applications send, and what they got, how long they waited and where their kernels sent is counted.
 */
#include "daemon/path/paths.h"
#include "tests/unit/paths_tap.h"

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
	uint64_t rx, tx, dumped_rx, dumped_tx;
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

static struct path_counters dump_of(struct node *n, uint64_t taken)
{
	struct path_counters c = { .taken = taken,
				   .received = n->rx > n->dumped_rx,
				   .sent = n->tx > n->dumped_tx,
				   .direct = n->kernel.addr.family,
				   .endpoint = n->kernel,
				   .handshake_age_sec = 60 };

	n->dumped_rx = n->rx;
	n->dumped_tx = n->tx;
	return c;
}

static void dump_done(const struct event *e)
{
	struct node *n = &S.n[e->node];
	struct path_counters c = dump_of(n, e->taken);

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

/* Two that talk both ways behind easy NATs, and have found the direct path. */
static void sim_init_direct(void)
{
	sim_init(NAT_EASY, NAT_EASY);
	talk(50 * MSEC, 50 * MSEC);
	assert_true(run_until(PATH_STATE_DIRECT, SEC) <= SEC);
}
