#include "coordinator/signin.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void signin_make_id(char out[static SIGNIN_ID_MAX])
{
	uint8_t r[12];
	char hex[25];

	randombytes_buf(r, sizeof(r));
	snprintf(out, SIGNIN_ID_MAX, "hskey-authreq-%s", sodium_bin2hex(hex, sizeof(hex), r, sizeof(r)));
}

/* Who makes room where so many are enough: the oldest of those. */
struct signin_share {
	struct signin *oldest;
	size_t n;
};

static void signin_count(struct signin_share *h, struct signin *x)
{
	if (!h->n++)
		h->oldest = x;
}

/* Room for one more: the oldest of the machine or the site goes when it has its share, else the oldest of all. */
static void signin_make_room(struct signins *s, const struct key *machine, const struct addr *from)
{
	struct signin_share own = { 0 }, site = { 0 };

	for (size_t i = 0; i < s->n; i++) {
		if (key_equal(&s->v[i]->machine, machine))
			signin_count(&own, s->v[i]);
		if (from && addr_equal(&s->v[i]->from, from))
			signin_count(&site, s->v[i]);
	}
	if (own.n >= SIGNIN_MACHINE_MAX)
		signin_finish(s, own.oldest, SIGNIN_EXPIRED);
	else if (site.n >= SIGNIN_SITE_MAX)
		signin_finish(s, site.oldest, SIGNIN_EXPIRED);
	else if (s->n == SIGNIN_MAX)
		signin_finish(s, s->v[0], SIGNIN_EXPIRED);
}

struct signin *signin_new(struct signins *s, const struct key *machine, const struct addr *from,
			  struct register_request *q, uint64_t now_usec)
{
	struct signin *x;

	for (size_t i = 0; i < s->n; i++)
		if (key_equal(&s->v[i]->machine, machine) &&
		    key_equal(&s->v[i]->q.node_key, &q->node_key))
			return s->v[i];
	signin_make_room(s, machine, from);
	x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	signin_make_id(x->id);
	x->machine = *machine;
	if (from)
		x->from = *from;
	x->q = *q;
	*q = (struct register_request){ 0 };
	x->until_usec = now_usec + SIGNIN_USEC;
	s->v[s->n++] = x;
	return x;
}

struct signin *signin_find(const struct signins *s, const char *id)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i]->id, id))
			return s->v[i];
	return NULL;
}

struct signin *signin_followed(const struct signins *s, const char *url, const struct key *machine)
{
	const char *slash = strrchr(url, '/');
	struct signin *x = slash ? signin_find(s, slash + 1) : NULL;

	return x && key_equal(&x->machine, machine) ? x : NULL;
}

void signin_wait(struct signin *s, struct signin_wait *w)
{
	w->on = s;
	w->next = s->waits;
	s->waits = w;
}

void signin_unwait(struct signin_wait *w)
{
	if (!w->on)
		return;
	for (struct signin_wait **p = &w->on->waits; *p; p = &(*p)->next) {
		if (*p == w) {
			*p = w->next;
			break;
		}
	}
	w->on = NULL;
}

void signin_finish(struct signins *s, struct signin *x, enum signin_end end)
{
	size_t i;

	for (i = 0; s->v[i] != x; i++)
		;
	memmove(s->v + i, s->v + i + 1, (s->n - i - 1) * sizeof(struct signin *));
	s->n--;
	while (x->waits) {
		struct signin_wait *w = x->waits;

		x->waits = w->next;
		w->on = NULL;
		w->fn(w, end);
	}
	register_request_done(&x->q);
	free(x);
}

uint64_t signins_tick(struct signins *s, uint64_t now_usec)
{
	while (s->n && now_usec >= s->v[0]->until_usec)
		signin_finish(s, s->v[0], SIGNIN_EXPIRED);
	return s->n ? s->v[0]->until_usec : UINT64_MAX;
}

void signins_done(struct signins *s)
{
	while (s->n)
		signin_finish(s, s->v[0], SIGNIN_EXPIRED);
}
