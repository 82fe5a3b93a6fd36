#include "coordinator/coord.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/clockstep.h"
#include "lib/log.h"
#include "relay/relay.h"

struct coord_held {
	struct coord_held *next;
	uint64_t mark;
	loop_fn *fn;
	void *data;
};

/* ---- the tick */

static void coord_tick_at(struct coord *c, uint64_t usec)
{
	if (loop_timer_armed(c->tick) && c->tick_usec <= usec)
		return;
	c->tick_usec = usec;
	loop_timer_at(c->tick, usec);
}

void coord_look(struct coord *c)
{
	if (c->tick)
		coord_tick_at(c, loop_now(c->loop) + USEC_PER_SEC);
}

/* ---- the registry's changes */

static void sink_user(void *data, const struct registry_user *u, bool gone)
{
	struct coord *c = data;

	if (c->store)
		store_put_user(c->store, u, gone);
	coord_look(c);
	if (c->fanout)
		fanout_user_changed(c->fanout);
}

static void sink_authkey(void *data, const struct authkey *k, bool gone)
{
	struct coord *c = data;

	if (c->store)
		store_put_authkey(c->store, k, gone);
	coord_look(c);
}

static void sink_node(void *data, struct node *n, bool gone, bool soon)
{
	struct coord *c = data;

	n->unsaved = soon && !gone;
	coord_look(c);
	if (!c->store || soon)
		return;
	store_put_node(c->store, n, gone);
	n->stored_mark = store_mark(c->store);
}

static void sink_netinfo(void *data, const struct key *machine, const char *json, uint32_t home)
{
	struct coord *c = data;

	if (c->store)
		store_put_netinfo(c->store, machine, json, home);
	coord_look(c);
}

static void sink_changed(void *data, struct node *n)
{
	struct coord *c = data;

	if (c->fanout)
		fanout_node_changed(c->fanout, n);
}

static void sink_removed(void *data, struct node *n)
{
	struct coord *c = data;

	if (c->fanout)
		fanout_node_removed(c->fanout, n);
	if (c->relay)
		relay_disconnect(c->relay, &n->node_key);
}

static const struct registry_sink coord_sink = {
	.user = sink_user,
	.authkey = sink_authkey,
	.node = sink_node,
	.netinfo = sink_netinfo,
	.changed = sink_changed,
	.removed = sink_removed,
};

void coord_attach(struct coord *c)
{
	c->reg.sink = &coord_sink;
	c->reg.sink_data = c;
	if (!c->held_end)
		c->held_end = &c->held;
}

/* ---- answers that wait for the disk */

uint64_t coord_mark(struct coord *c)
{
	return c->store ? store_mark(c->store) : 0;
}

void coord_when_stored(struct coord *c, uint64_t mark, loop_fn *fn, void *data)
{
	struct coord_held *h;

	if (!c->store || store_committed(c->store) >= mark) {
		fn(data);
		return;
	}
	h = malloc(sizeof(*h));
	if (!h) {
		fn(data); /* memory for one answer: it is early, but the state is right */
		return;
	}
	*h = (struct coord_held){ .mark = mark, .fn = fn, .data = data };
	*c->held_end = h;
	c->held_end = &h->next;
}

static void coord_release(struct coord *c, uint64_t committed)
{
	while (c->held && c->held->mark <= committed) {
		struct coord_held *h = c->held;

		c->held = h->next;
		if (!c->held)
			c->held_end = &c->held;
		h->fn(h->data);
		free(h);
	}
}

static void coord_on_commit(void *data)
{
	struct coord *c = data;

	coord_release(c, store_committed(c->store));
}

bool coord_writable(struct coord *c)
{
	return !c->store || !store_failing(c->store);
}

/* ---- what has its time */

/* What nodes say of themselves is gathered for a second. While nothing can be written, it waits in them and not in a
 * queue that grows. */
static uint64_t coord_save(struct coord *c, uint64_t now)
{
	for (size_t i = 0; i < c->reg.n_node; i++) {
		struct node *n = c->reg.node[i];

		if (!n->unsaved)
			continue;
		if (!coord_writable(c))
			return now;
		n->unsaved = false;
		store_put_node(c->store, n, false);
	}
	return UINT64_MAX;
}

static void coord_on_tick(void *data)
{
	struct coord *c = data;
	uint64_t now = loop_clock(), due, next;

	if (store_lost(c->store)) {
		log_err("memory is ahead of the database: ending, to start again from what is written");
		loop_exit(c->loop, 1);
		return;
	}
	due = coord_save(c, now);
	next = fanout_tick(c->fanout, now, loop_wall_nsec());
	due = MIN(due, next);
	next = signins_tick(&c->signins, now);
	due = MIN(due, next);
	if (due != UINT64_MAX)
		coord_tick_at(c, MAX(due, now + USEC_PER_SEC));
}

static void coord_on_event(void *data)
{
	coord_look(data);
}

/* What expires by the wall clock may be due now, or not for long. */
static void coord_on_clock(void *data, int64_t by_nsec)
{
	(void)by_nsec;
	coord_look(data);
}

int coord_start(struct coord *c, char why[static STORE_WHY_MAX])
{
	int r;

	registry_init(&c->reg);
	c->reg.v4.prefix = c->cfg.v4;
	c->reg.v6.prefix = c->cfg.v6;
	c->reg.v4.random = c->reg.v6.random = c->cfg.allocate_random;
	c->reg.node_expiry_sec = c->cfg.node_expiry_sec;
	c->held_end = &c->held;
	r = store_open(c->cfg.db_path, c->cfg.db_wal, why, &c->store);
	if (r == 0)
		r = store_load(c->store, &c->reg, why);
	if (r < 0)
		return r;
	coord_attach(c);
	snprintf(why, STORE_WHY_MAX, "out of memory or descriptors");
	r = store_start(c->store, c->loop, coord_on_commit, c);
	if (r == 0)
		r = fanout_new(c->loop, &c->reg, &c->cfg, &c->fanout);
	if (r == 0)
		r = loop_timer_new(c->loop, coord_on_tick, c, &c->tick);
	if (r == 0)
		r = clockstep_new(c->loop, coord_on_clock, c, &c->clockstep);
	if (r < 0)
		return r;
	fanout_on_stream(c->fanout, coord_on_event, c);
	coord_look(c);
	return 0;
}

void coord_done(struct coord *c)
{
	for (size_t i = 0; c->store && i < c->reg.n_node; i++)
		if (c->reg.node[i]->unsaved)
			store_put_node(c->store, c->reg.node[i], false);
	store_free(c->store); /* writes what is queued */
	c->store = NULL;
	if (c->held_end)
		coord_release(c, UINT64_MAX);
	loop_timer_free(c->tick);
	c->tick = NULL;
	clockstep_free(c->clockstep);
	c->clockstep = NULL;
	signins_done(&c->signins);
	fanout_free(c->fanout);
	c->fanout = NULL;
	c->reg.sink = NULL;
	registry_done(&c->reg);
	key_pair_wipe(&c->noise_key);
}
