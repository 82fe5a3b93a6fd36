/*
 * site: who shares the places of a relay: clients that are admitted are counted by where they come from, and while all
 * places are taken, the site with the most of them, if they are more than a quarter, gives one up for a site that has
 * fewer.
 *
 * While places are free nobody is refused: a whole company may come from one address.
 */
#include <errno.h>
#include <stdlib.h>

#include "relay/client.h"

static bool site_is_crowded(const struct relay *r, const struct relay_site *s)
{
	return s->n > MAX(r->cfg.max_clients / 4, 1);
}

static struct relay_site *site_find(const struct relay *r, const struct addr *at)
{
	struct relay_site *s;

	HASH_FIND(hh, r->sites, at, sizeof(*at), s);
	return s;
}

/* Behind a proxy on this host everybody comes from loopback. */
static bool site_counts(const struct addr *a)
{
	return a->family && !addr_is_loopback(a);
}

int relay_site_join(struct relay_client *c)
{
	struct addr at = addr_site(&c->remote);
	struct relay *r = c->relay;
	struct relay_site *s;

	if (!site_counts(&at))
		return 0;
	s = site_find(r, &at);
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return -ENOMEM;
		s->at = at;
		HASH_ADD(hh, r->sites, at, sizeof(s->at), s);
		if (!s->hh.tbl) {
			free(s);
			return -ENOMEM;
		}
	}
	DL_APPEND2(s->clients, c, site_prev, site_next);
	c->site = s;
	s->n++;
	if (!s->crowded && site_is_crowded(r, s)) {
		s->crowded = true;
		DL_APPEND2(r->crowded, s, crowded_prev, crowded_next);
	}
	return 0;
}

void relay_site_leave(struct relay_client *c)
{
	struct relay_site *s = c->site;
	struct relay *r = c->relay;

	if (!s)
		return;
	c->site = NULL;
	DL_DELETE2(s->clients, c, site_prev, site_next);
	s->n--;
	if (s->crowded && !site_is_crowded(r, s)) {
		s->crowded = false;
		DL_DELETE2(r->crowded, s, crowded_prev, crowded_next);
	}
	if (s->n)
		return;
	HASH_DEL(r->sites, s);
	free(s);
}

struct relay_client *relay_site_yields(const struct relay *r, const struct addr *from)
{
	struct addr at = addr_site(from);
	const struct relay_site *own = site_counts(&at) ? site_find(r, &at) : NULL, *s, *most = NULL;

	DL_FOREACH2(r->crowded, s, crowded_next)
	if (!most || s->n > most->n)
		most = s;
	/* With fewer than it would have here, or two sites would push each other out for ever. */
	if (!most || most->n <= (own ? own->n + 1 : 1))
		return NULL;
	return most->clients->site_prev; /* the newest: a flood goes before those who were there */
}
