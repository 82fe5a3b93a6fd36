#include "daemon/path/candidates.h"

#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

void candidates_done(struct candidates *c)
{
	free(c->v);
	*c = (struct candidates){ 0 };
}

bool candidate_usable(const struct endpoint *e)
{
	const struct addr *a = &e->addr;

	if (!e->port || (a->family != 4 && a->family != 6))
		return false;
	if (addr_is_unspecified(a) || addr_is_multicast(a) || addr_is_loopback(a))
		return false;
	if (a->family == 6 && addr_is_link_local(a))
		return false; /* without a zone it names nobody */
	/* An address of the mesh itself would carry the tunnel inside the tunnel. */
	return !addr_is_tailnet(a);
}

struct candidate *candidates_find(struct candidates *c, const struct endpoint *e)
{
	for (size_t i = 0; i < c->n; i++)
		if (endpoint_equal(&c->v[i].at, e))
			return &c->v[i];
	return NULL;
}

static void drop(struct candidates *c, struct candidate *x)
{
	*x = c->v[--c->n];
}

static bool is_kept(const struct candidate *x, const struct endpoint *keep)
{
	return keep && endpoint_equal(&x->at, keep);
}

/* The learned address that has been silent for longest. */
static bool drop_oldest(struct candidates *c, const struct endpoint *keep)
{
	struct candidate *oldest = NULL;

	for (size_t i = 0; i < c->n; i++) {
		struct candidate *x = &c->v[i];

		if (x->sources != CANDIDATE_SOURCE_PING || is_kept(x, keep))
			continue;
		if (!oldest || MAX(x->heard, x->ponged) < MAX(oldest->heard, oldest->ponged))
			oldest = x;
	}
	if (oldest)
		drop(c, oldest);
	return oldest;
}

static bool make_room(struct candidates *c, const struct endpoint *keep)
{
	struct candidate *v;
	uint8_t cap;

	if (c->n < c->cap)
		return true;
	if (c->cap == CANDIDATES_MAX)
		return drop_oldest(c, keep);
	cap = c->cap ? (uint8_t)MIN(c->cap * 2, CANDIDATES_MAX) : 4;
	v = reallocarray(c->v, cap, sizeof(*v));
	if (!v)
		return false;
	c->v = v;
	c->cap = cap;
	return true;
}

struct candidate *candidates_add(struct candidates *c, const struct endpoint *e,
				 enum candidate_source source, const struct endpoint *keep,
				 uint64_t now_usec)
{
	struct candidate *x = candidates_find(c, e);

	if (!x) {
		if (!candidate_usable(e) || !make_room(c, keep))
			return NULL;
		x = &c->v[c->n++];
		*x = (struct candidate){ .at = *e, .first = source };
	}
	x->sources |= source;
	if (source == CANDIDATE_SOURCE_PING)
		x->heard = now_usec;
	return x;
}

static bool listed(const struct endpoint *e, const struct endpoint *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (endpoint_equal(e, &v[i]))
			return true;
	return false;
}

/* Takes the source away from x. True when x has to go. */
static bool unlist(struct candidate *x, enum candidate_source source, const struct endpoint *keep,
		   uint64_t now_usec)
{
	bool gone;

	x->sources &= (uint8_t)~source;
	if (source == CANDIDATE_SOURCE_CALL)
		gone = true; /* the peer says that it is there no more, whatever the map says */
	else
		gone = !(x->sources & CANDIDATE_SOURCE_CALL) && x->first != CANDIDATE_SOURCE_PING;
	if (!gone || !is_kept(x, keep))
		return gone;
	/* It answers: from now on it lives as long as it does so. */
	x->sources = x->first = CANDIDATE_SOURCE_PING;
	x->heard = now_usec;
	return false;
}

void candidates_update(struct candidates *c, enum candidate_source source, const struct endpoint *v,
		       size_t n, const struct endpoint *keep, uint64_t now_usec)
{
	for (size_t i = c->n; i-- > 0;) {
		struct candidate *x = &c->v[i];

		if ((x->sources & source) && !listed(&x->at, v, n) &&
		    unlist(x, source, keep, now_usec))
			drop(c, x);
	}
	for (size_t i = 0; i < n; i++)
		candidates_add(c, &v[i], source, keep, now_usec);
}

void candidates_expire(struct candidates *c, const struct endpoint *keep, uint64_t now_usec)
{
	for (size_t i = c->n; i-- > 0;) {
		struct candidate *x = &c->v[i];

		if (x->first != CANDIDATE_SOURCE_PING || (x->sources & CANDIDATE_SOURCE_CALL) ||
		    is_kept(x, keep))
			continue;
		if (now_usec - MAX(x->heard, x->ponged) > CANDIDATE_HEARD_USEC)
			drop(c, x);
	}
}
