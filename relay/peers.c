#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "relay/client.h"

struct relay_peer *relay_peer_find(const struct relay *r, const struct key *k)
{
	struct relay_peer *p;

	HASH_FIND(hh, r->peers, k->b, KEY_LEN, p);
	return p;
}

/* Gauges of duplicate keys follow the number of connections. */
static void peer_count(struct relay *r, const struct relay_peer *p, unsigned int was)
{
	if (was > 1)
		r->stats.dup_connections -= was;
	if (p->n_clients > 1)
		r->stats.dup_connections += p->n_clients;
	r->stats.dup_keys += (p->n_clients > 1) - (was > 1);
}

static struct relay_client *peer_best(const struct relay_peer *p)
{
	struct relay_client *i, *best = NULL;

	DL_FOREACH2(p->clients, i, peer_next)
	if (!best || i->last_spoke > best->last_spoke)
		best = i;
	return best;
}

/* One key must not take everybody's places: who has been silent for longest goes. */
static void peer_trim(struct relay_peer *p)
{
	struct relay_client *i, *silent = NULL;
	unsigned int n = 0;

	DL_FOREACH2(p->clients, i, peer_next)
	{
		if (i->state == CLIENT_STATE_DEAD)
			continue;
		n++;
		if (!silent || i->last_spoke < silent->last_spoke)
			silent = i;
	}
	if (n > RELAY_KEY_CLIENTS)
		relay_client_drop(silent, "too many connections of one key");
}

int relay_peer_join(struct relay_client *c)
{
	struct relay *r = c->relay;
	struct relay_peer *p = relay_peer_find(r, &c->key);

	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p)
			return -ENOMEM;
		p->key = c->key;
		p->id = ++r->next_id;
		HASH_ADD(hh, r->peers, key.b, KEY_LEN, p);
		if (!p->hh.tbl) {
			free(p);
			return -ENOMEM;
		}
		r->stats.keys++;
	}
	DL_APPEND2(p->clients, c, peer_prev, peer_next);
	p->n_clients++;
	peer_count(r, p, p->n_clients - 1);
	p->active = c;
	c->peer = p;
	c->last_spoke = ++r->spoke;
	peer_trim(p);
	return 0;
}

void relay_peer_spoke(struct relay_client *c)
{
	if (c->peer->n_clients == 1)
		return;
	c->last_spoke = ++c->relay->spoke;
	c->peer->active = c;
}

static void edge_free(struct relay *r, struct relay_edge *e)
{
	DL_DELETE2(e->peer->out, e, out_prev, out_next);
	DL_DELETE2(e->client->in, e, in_prev, in_next);
	e->client->n_in--;
	HASH_DEL(r->edges, e);
	free(e);
}

void relay_edge_note(struct relay_client *dst, struct relay_peer *src)
{
	struct relay_edge_id id = { .src = src->id, .dst = dst->id };
	struct relay *r = dst->relay;
	struct relay_edge *e;

	if (dst->last_src == src->id)
		return;
	HASH_FIND(hh, r->edges, &id, sizeof(id), e);
	if (e) {
		dst->last_src = src->id;
		return;
	}
	if (dst->n_in == RELAY_EDGES_MAX || HASH_COUNT(r->edges) >= RELAY_EDGES_ALL)
		return;
	e = calloc(1, sizeof(*e));
	if (!e)
		return; /* the notice is lost, the packet is not */
	e->id = id;
	HASH_ADD(hh, r->edges, id, sizeof(e->id), e);
	if (!e->hh.tbl) {
		free(e);
		return;
	}
	e->peer = src;
	e->client = dst;
	DL_APPEND2(src->out, e, out_prev, out_next);
	DL_APPEND2(dst->in, e, in_prev, in_next);
	dst->n_in++;
	dst->last_src = src->id;
}

void relay_edges_drop(struct relay_client *c)
{
	while (c->in)
		edge_free(c->relay, c->in);
	c->last_src = 0;
}

/* The key has left: those it had sent to forget their route to it. */
static void peer_gone(struct relay *r, struct relay_peer *p)
{
	while (p->out) {
		struct relay_client *c = p->out->client;

		edge_free(r, p->out);
		if (c->last_src == p->id)
			c->last_src = 0;
		relay_client_gone(c, &p->key, DERP_GONE_DISCONNECTED);
	}
	HASH_DEL(r->peers, p);
	r->stats.keys--;
	free(p);
}

void relay_peer_leave(struct relay_client *c)
{
	struct relay_peer *p = c->peer;
	struct relay *r = c->relay;

	if (!p)
		return;
	c->peer = NULL;
	DL_DELETE2(p->clients, c, peer_prev, peer_next);
	p->n_clients--;
	peer_count(r, p, p->n_clients + 1);
	if (!p->n_clients) {
		p->active = NULL;
		peer_gone(r, p);
		return;
	}
	if (p->active == c)
		p->active = peer_best(p);
}
