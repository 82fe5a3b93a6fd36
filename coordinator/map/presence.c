#include "coordinator/map/presence.h"

#include "lib/log.h"

#define PRESENCE_EXPIRY_USEC (60 * USEC_PER_SEC) /* an expiry is looked at so often: a host may sleep, its timers too */

void presence_init(struct presence *p, struct registry *reg, const struct settings *cfg)
{
	*p = (struct presence){ .reg = reg, .cfg = cfg };
	/* That we were away is no news of others: who was online is, until it does not come back. */
	for (size_t i = 0; i < reg->n_node; i++)
		if (reg->node[i]->online)
			reg->node[i]->gone_usec = loop_clock() + PRESENCE_RETURN_USEC - PRESENCE_OFFLINE_USEC;
}

/* Of a node that has no stream. Ephemeral and without one yet, in this life of ours: it is waited for from now on, by
 * the clock that nobody sets. Nobody is removed for the time that we were not there, for that long everybody had none. */
static uint64_t node_tick_away(struct presence *p, struct node *n, uint64_t now_usec)
{
	uint64_t ephemeral = p->cfg->ephemeral_sec * USEC_PER_SEC;

	if (!n->gone_usec)
		n->gone_usec = now_usec;
	if (now_usec < n->gone_usec + ephemeral)
		return n->gone_usec + ephemeral;
	log_info("node %s: ephemeral and gone, deleted", n->given);
	registry_node_delete(p->reg, n);
	return UINT64_MAX;
}

/* Tells when it is due again. */
static uint64_t node_tick(struct presence *p, struct node *n, uint64_t now_usec, int64_t now_nsec)
{
	uint64_t due = UINT64_MAX;

	if (n->gone_usec && n->online && now_usec >= n->gone_usec + PRESENCE_OFFLINE_USEC)
		registry_node_set_online(p->reg, n, false, now_nsec);
	if (n->gone_usec && n->online)
		due = n->gone_usec + PRESENCE_OFFLINE_USEC;
	if (n->expiry_nsec && (n->expiry_nsec <= p->ticked_nsec) != (n->expiry_nsec <= now_nsec)) {
		log_info("node %s: its key has expired%s", n->given,
			 n->expiry_nsec <= now_nsec ? "" : " no more: the clock was set back");
		registry_node_expired(p->reg, n);
	}
	if (n->expiry_nsec > now_nsec)
		due = MIN(due, now_usec + MIN((uint64_t)(n->expiry_nsec - now_nsec) / 1000 + 1, PRESENCE_EXPIRY_USEC));
	if (n->ephemeral && !n->online) {
		uint64_t away = node_tick_away(p, n, now_usec); /* the node may be gone */

		due = MIN(due, away);
	}
	return due;
}

uint64_t presence_tick(struct presence *p, uint64_t now_usec, int64_t now_nsec)
{
	uint64_t due = UINT64_MAX, next;

	if (!p->ticked_nsec)
		p->ticked_nsec = now_nsec;
	for (size_t i = p->reg->n_node; i-- > 0;) {
		next = node_tick(p, p->reg->node[i], now_usec, now_nsec);
		due = MIN(due, next);
	}
	p->ticked_nsec = now_nsec;
	return due;
}
