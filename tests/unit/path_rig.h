#pragma once
/* path_rig: one path with a kernel, a peer and a clock of the test's own, driven by hand. */
#include <string.h>

#include <cmocka.h>

#include "daemon/path/path.h"
#include "lib/cleanup.h"
#include "tests/unit/addr_text.h"

#define MSEC UINT64_C(1000)
#define SEC UINT64_C(1000000)
#define T0 (1000 * SEC)

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

/* A dump with these counters; the first one is where they begin. */
static struct path_counters rig_counters(struct rig *r, const struct endpoint *e,
					 uint64_t rx, uint64_t tx)
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

static const struct endpoint by_relay;
