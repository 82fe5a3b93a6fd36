#include "coordinator/map/fanout.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/map/mapjson.h"
#include "coordinator/map/mapmsg.h"
#include "coordinator/map/presence.h"
#include "lib/blob.h"
#include "lib/buf.h"
#include "lib/log.h"

#define FANOUT_GATHER_USEC  (10 * USEC_PER_MSEC)
#define FANOUT_BATCH	    64 /* changed nodes in one message */
#define FANOUT_QUEUE_MAX    (4u << 20)
#define FANOUT_KEEPALIVE    (50 * USEC_PER_SEC)
#define FANOUT_KEEPALIVE_BY 9 /* seconds of spread */

struct map_session {
	struct map_session *prev, *next;
	struct fanout *f;
	struct node *node; /* NULL: another stream took over, or the node is gone */
	struct h2_stream *st;
	enum coding coding;
	bool dead; /* its stream is over; goes when nobody walks the list */
	bool waits; /* for its first map: no relay is known yet */
	uint64_t sent_usec, keepalive_usec;
};

struct fanout {
	struct loop *loop;
	struct registry *reg;
	struct map_session *sessions;
	uint64_t n_sessions;
	unsigned int walking; /* the list of sessions */
	bool begin; /* there are relays now, and sessions that wait for them */
	struct node *dirty, **dirty_end;
	uint64_t *removed;
	size_t n_removed, cap_removed;
	struct loop_timer *timer;
	loop_fn *on_stream;
	void *on_stream_data;
	uint64_t busy_until; /* not before, so that a storm does not take the whole thread */
	struct mapmsg msg;
	struct presence presence;
	struct fanout_stats stats;
};

/* ---- sending */

static void fanout_stream(struct fanout *f)
{
	if (f->on_stream)
		f->on_stream(f->on_stream_data);
}

static void session_free(struct map_session *s)
{
	struct fanout *f = s->f;

	if (s->prev)
		s->prev->next = s->next;
	else if (f->sessions == s)
		f->sessions = s->next;
	if (s->next)
		s->next->prev = s->prev;
	f->n_sessions--;
	if (s->node && s->node->session == s) {
		s->node->session = NULL;
		s->node->gone_usec = loop_clock();
		fanout_stream(f);
	}
	h2_stream_unref(s->st);
	free(s);
}

/* Sending to one session can end others of the same connection, so nothing is freed under a walk. */
static void session_on_closed(void *data, struct h2_stream *st, int error)
{
	struct map_session *s = data;

	(void)st;
	(void)error;
	s->dead = true;
	if (!s->f->walking)
		session_free(s);
}

static void fanout_walked(struct fanout *f)
{
	if (--f->walking)
		return;
	for (struct map_session *s = f->sessions, *next; s; s = next) {
		next = s->next;
		if (s->dead)
			session_free(s);
	}
}

static void session_sent(struct map_session *s, size_t len)
{
	s->sent_usec = loop_clock();
	s->f->stats.messages++;
	s->f->stats.bytes += len;
}

/* It does not take what it is sent: the next full map puts it right. The session goes in on_closed. */
static void session_slow(struct map_session *s)
{
	log_remote(LOG_LEVEL_INFO, "node %s: reads too slowly, its stream is ended", s->node->given);
	s->f->stats.slow++;
	if (!s->dead)
		h2_reset(s->st);
}

static void session_send(struct map_session *s, struct blob *b)
{
	if (s->dead)
		return;
	if (!b || h2_send_blob(s->st, b) < 0)
		session_slow(s);
	else
		session_sent(s, b->len);
}

/* A message for one session alone. */
static void session_send_text(struct map_session *s, const struct buf *text)
{
	CLEANUP(blob_unref) struct blob *b = mapmsg_new(&s->f->msg, s->coding, text);

	session_send(s, b);
}

/* ---- streams */

static int session_send_first(struct map_session *s)
{
	struct mapmsg_first m = { 0 };
	uint8_t len[4];
	int r;

	mapmsg_first(&s->f->msg, s->node, s->coding, &m);
	r = m.bad ? -ENOMEM : 0;
	for (int i = 0; i < 4; i++)
		len[i] = (uint8_t)(m.len >> (8 * i));
	if (r == 0) {
		h2_set_queue_max(s->st, m.len + FANOUT_QUEUE_MAX);
		r = h2_send(s->st, len, sizeof(len));
	}
	for (size_t i = 0; i < m.n && r == 0; i++)
		r = h2_send_blob(s->st, m.part[i]);
	if (r == 0)
		session_sent(s, m.len);
	mapmsg_first_done(&m);
	return r;
}

/* A stock client that is told of no relay leaves its home for good (control.md 12.3): its stream is open, and says
 * nothing but that it is alive until some relay is known. */
static int session_begin(struct map_session *s)
{
	s->waits = !s->f->msg.derpmap.len;
	if (!s->waits)
		return session_send_first(s);
	s->sent_usec = loop_clock();
	return 0;
}

/* True when all that waited have begun; else the next turn goes on. */
static bool fanout_begin(struct fanout *f)
{
	unsigned int left = FANOUT_BATCH;

	f->walking++;
	for (struct map_session *s = f->sessions; s && left; s = s->next) {
		if (!s->waits || !s->node || s->dead)
			continue;
		if (session_begin(s) < 0 && !s->dead)
			h2_reset(s->st);
		left--;
	}
	fanout_walked(f);
	return left > 0;
}

/* The newer stream of a node wins; the older one ends without the node going offline. */
static void session_retire(struct map_session *s)
{
	s->node->session = NULL;
	s->node = NULL;
	h2_end(s->st);
}

int fanout_open(struct fanout *f, struct node *n, struct h2_stream *st, bool zstd)
{
	struct map_session *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		h2_respond(st, 500, NULL, NULL, 0);
		return -ENOMEM;
	}
	if (n->session)
		session_retire(n->session);
	s->f = f;
	s->node = n;
	s->st = h2_stream_ref(st);
	s->coding = zstd ? CODING_ZSTD : CODING_PLAIN;
	s->keepalive_usec = FANOUT_KEEPALIVE + randombytes_uniform(FANOUT_KEEPALIVE_BY * USEC_PER_SEC);
	s->next = f->sessions;
	if (s->next)
		s->next->prev = s;
	f->sessions = s;
	f->n_sessions++;
	n->session = s;
	n->gone_usec = 0;
	registry_node_set_online(f->reg, n, true, loop_wall_nsec());
	fanout_stream(f);
	n->changes &= ~(uint32_t)NODE_CHANGE_SELF; /* the first map says it */
	h2_on_closed(st, session_on_closed, s);
	f->walking++;
	r = h2_respond_start(st, 200, "application/json");
	if (r == 0)
		r = session_begin(s);
	if (r < 0 && !s->dead)
		h2_reset(st);
	fanout_walked(f);
	return 0;
}

/* ---- changes */

static void fanout_arm(struct fanout *f)
{
	uint64_t at = loop_now(f->loop) + FANOUT_GATHER_USEC;

	if (!loop_timer_armed(f->timer))
		loop_timer_at(f->timer, at > f->busy_until ? at : f->busy_until);
}

void fanout_node_changed(struct fanout *f, struct node *n)
{
	mapmsg_node_changed(&f->msg, n);
	if (n->changes & NODE_CHANGE_FULL || !n->known)
		mapmsg_owners_changed(&f->msg); /* its owner may be a new one */
	if (!n->changes || n->queued)
		return;
	n->queued = true;
	n->next_dirty = NULL;
	*f->dirty_end = n;
	f->dirty_end = &n->next_dirty;
	fanout_arm(f);
}

static void fanout_unqueue(struct fanout *f, struct node *n)
{
	struct node **p = &f->dirty;

	if (!n->queued)
		return;
	while (*p != n)
		p = &(*p)->next_dirty;
	*p = n->next_dirty;
	if (f->dirty_end == &n->next_dirty)
		f->dirty_end = p;
	n->queued = false;
}

/* What cannot be said on the streams is said by the first maps of those that follow. */
static void fanout_end_streams(struct fanout *f)
{
	log_warning("no memory to say which node is gone: all map streams are ended, and will be asked for again");
	f->walking++;
	for (struct map_session *s = f->sessions; s; s = s->next)
		if (s->node && !s->dead)
			h2_reset(s->st);
	fanout_walked(f);
}

void fanout_node_removed(struct fanout *f, struct node *n)
{
	struct map_session *s = n->session;

	fanout_unqueue(f, n);
	mapmsg_node_changed(&f->msg, n);
	mapmsg_owners_changed(&f->msg);
	if (s) {
		n->session = NULL;
		s->node = NULL;
		h2_end(s->st);
	}
	if (!n->announced)
		return;
	if (f->n_removed == f->cap_removed) {
		size_t cap = f->cap_removed ? f->cap_removed * 2 : 64;
		uint64_t *grown = reallocarray(f->removed, cap, sizeof(*grown));

		if (!grown) {
			fanout_end_streams(f);
			return;
		}
		f->removed = grown;
		f->cap_removed = cap;
	}
	f->removed[f->n_removed++] = n->id;
	fanout_arm(f);
}

void fanout_user_changed(struct fanout *f)
{
	mapmsg_owners_changed(&f->msg);
}

struct batch {
	struct node *node[FANOUT_BATCH];
	size_t n;
};

static void batch_take(struct fanout *f, struct batch *b)
{
	b->n = 0;
	while (f->dirty && b->n < FANOUT_BATCH) {
		struct node *n = f->dirty;

		f->dirty = n->next_dirty;
		n->queued = false;
		n->batch = n->changes;
		n->changes = 0;
		if (n->announced && !n->known)
			n->batch |= NODE_CHANGE_FULL;
		if (!n->announced)
			n->batch &= NODE_CHANGE_SELF;
		b->node[b->n++] = n;
	}
	if (!f->dirty)
		f->dirty_end = &f->dirty;
}

static void batch_put_changed(struct fanout *f, const struct batch *b, const struct node *but,
			      struct buf *out)
{
	const char *before = ",\"PeersChanged\":[";
	bool any = false, fresh = false, tagged = false;

	for (size_t i = 0; i < b->n; i++) {
		struct node *n = b->node[i];

		if (!(n->batch & NODE_CHANGE_FULL) || n == but)
			continue;
		buf_put_str(out, any ? "," : before);
		mapmsg_put_node(&f->msg, n, out);
		any = true;
		fresh |= !n->known || n->batch & NODE_CHANGE_OWNER;
	}
	if (!any)
		return;
	buf_put_str(out, "],\"UserProfiles\":[");
	any = false;
	for (size_t i = 0; i < b->n; i++) {
		uint64_t id = node_wire_user(b->node[i]);
		const struct registry_user *u = registry_user(f->reg, id);
		size_t k = 0;

		if (!(b->node[i]->batch & NODE_CHANGE_FULL) || b->node[i] == but)
			continue;
		while (k < i && (node_wire_user(b->node[k]) != id || b->node[k] == but ||
				 !(b->node[k]->batch & NODE_CHANGE_FULL)))
			k++;
		if (k < i || (!u && tagged))
			continue;
		if (any)
			buf_put_u8(out, ',');
		any = true;
		if (u) {
			mapjson_user(out, u);
		} else {
			mapjson_tagged_devices(out);
			tagged = true;
		}
	}
	buf_put_u8(out, ']');
	/* Stock clients show an owner they do not know only when the same message rebuilds their map. */
	if (fresh) {
		buf_put_str(out, ",\"DNSConfig\":");
		buf_put(out, buf_data(&f->msg.dns), f->msg.dns.len);
	}
}

static void batch_put_patches(const struct batch *b, const struct node *but, struct buf *out)
{
	bool any = false;

	for (size_t i = 0; i < b->n; i++) {
		uint32_t c = b->node[i]->batch & (uint32_t)~(NODE_CHANGE_SELF | NODE_CHANGE_OWNER);

		if (!c || c & NODE_CHANGE_FULL || b->node[i] == but)
			continue;
		buf_put_str(out, any ? "," : ",\"PeersChangedPatch\":[");
		mapjson_patch(out, b->node[i], c);
		any = true;
	}
	if (any)
		buf_put_u8(out, ']');
}

/* What peers hear of this batch; empty when there is nothing. but: the viewer, where it is in the batch. */
static void batch_text(struct fanout *f, const struct batch *b, size_t n_removed, const struct node *but,
		       struct buf *out)
{
	size_t head;

	buf_clear(out);
	mapmsg_put_time(out);
	head = out->len;
	if (n_removed)
		buf_put_str(out, ",\"PeersRemoved\":[");
	for (size_t i = 0; i < n_removed; i++)
		buf_printf(out, "%s%llu", i ? "," : "", (unsigned long long)f->removed[i]);
	if (n_removed)
		buf_put_u8(out, ']');
	batch_put_changed(f, b, but, out);
	batch_put_patches(b, but, out);
	if (out->len == head && !out->bad)
		buf_clear(out);
	else
		buf_put_u8(out, '}');
}

static void session_send_self(struct map_session *s)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	mapmsg_put_time(&b);
	buf_put_str(&b, ",\"Node\":");
	mapmsg_put_self(&s->f->msg, s->node, &b);
	buf_put_u8(&b, '}');
	session_send_text(s, &b);
}

static void fanout_flush(struct fanout *f)
{
	CLEANUP(buf_done) struct buf common = { 0 };
	CLEANUP(buf_done) struct buf own = { 0 };
	struct blob *coded[CODING_COUNT] = { 0 };
	size_t n_removed = f->n_removed;
	struct batch b;

	batch_take(f, &b);
	batch_text(f, &b, n_removed, NULL, &common);
	f->walking++;
	for (struct map_session *s = f->sessions; s; s = s->next) {
		if (!s->node || s->waits)
			continue;
		if (s->node->batch & NODE_CHANGE_SELF)
			session_send_self(s);
		if (s->node->batch & ~(uint32_t)NODE_CHANGE_SELF) { /* nobody is told of itself as a peer */
			batch_text(f, &b, n_removed, s->node, &own);
			if (own.len || own.bad)
				session_send_text(s, &own);
			continue;
		}
		if (!common.len && !common.bad)
			continue;
		if (!coded[s->coding])
			coded[s->coding] = mapmsg_new(&f->msg, s->coding, &common);
		session_send(s, coded[s->coding]);
	}
	fanout_walked(f);
	for (size_t i = 0; i < b.n; i++) {
		b.node[i]->known |= b.node[i]->announced;
		b.node[i]->batch = 0;
	}
	for (int i = 0; i < CODING_COUNT; i++)
		if (coded[i])
			blob_unref(coded[i]);
	f->n_removed -= n_removed;
	f->stats.flushes++;
}

static void fanout_on_timer(void *data)
{
	struct fanout *f = data;
	uint64_t start = loop_clock(), end;

	fanout_flush(f);
	if (f->begin)
		f->begin = !fanout_begin(f);
	/* A storm gets half of the thread at most; the longer a round takes, the more each next one gathers. */
	end = loop_clock();
	f->busy_until = end + (end - start);
	if (f->dirty || f->n_removed || f->begin)
		fanout_arm(f);
}

int fanout_set_derpmap(struct fanout *f, const char *json, size_t len)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	bool first = !f->msg.derpmap.len;
	struct blob *coded[CODING_COUNT] = { 0 };
	int r = mapmsg_set_derpmap(&f->msg, json, len);

	if (r > 0 && first && f->sessions) {
		f->begin = true;
		fanout_arm(f);
	}
	if (r <= 0 || first)
		return r < 0 ? r : 0;
	mapmsg_put_time(&b);
	buf_put_str(&b, ",\"DERPMap\":");
	buf_put(&b, json, len);
	buf_put_u8(&b, '}');
	f->walking++;
	for (struct map_session *s = f->sessions; s; s = s->next) {
		if (!s->node || s->waits)
			continue;
		if (!coded[s->coding])
			coded[s->coding] = mapmsg_new(&f->msg, s->coding, &b);
		session_send(s, coded[s->coding]);
	}
	fanout_walked(f);
	for (int i = 0; i < CODING_COUNT; i++)
		if (coded[i])
			blob_unref(coded[i]);
	return 0;
}

/* ---- time */

/* Tells when it is due again. */
static uint64_t session_tick(struct map_session *s, uint64_t now_usec)
{
	if (now_usec < s->sent_usec + s->keepalive_usec)
		return s->sent_usec + s->keepalive_usec;
	session_send(s, mapmsg_keepalive(&s->f->msg, s->coding));
	return now_usec + s->keepalive_usec;
}

uint64_t fanout_tick(struct fanout *f, uint64_t now_usec, int64_t now_nsec)
{
	uint64_t due = UINT64_MAX, next;

	f->walking++;
	for (struct map_session *s = f->sessions; s; s = s->next) {
		if (!s->node || s->dead)
			continue;
		next = session_tick(s, now_usec);
		due = MIN(due, next);
	}
	fanout_walked(f);
	next = presence_tick(&f->presence, now_usec, now_nsec);
	return MIN(due, next);
}

void fanout_on_stream(struct fanout *f, loop_fn *fn, void *data)
{
	f->on_stream = fn;
	f->on_stream_data = data;
}

void fanout_stats(const struct fanout *f, struct fanout_stats *ret)
{
	*ret = f->stats;
	ret->sessions = f->n_sessions;
	ret->pieces_made = f->msg.pieces_made;
	ret->pieces_used = f->msg.pieces_used;
}

/* ---- life */

int fanout_new(struct loop *l, struct registry *reg, const struct settings *cfg, struct fanout **ret)
{
	CLEANUP(fanout_free) struct fanout *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	f->loop = l;
	f->reg = reg;
	f->dirty_end = &f->dirty;
	presence_init(&f->presence, reg, cfg);
	r = mapmsg_init(&f->msg, reg, cfg);
	if (r < 0)
		return r;
	r = loop_timer_new(l, fanout_on_timer, f, &f->timer);
	if (r < 0)
		return r;
	for (size_t i = 0; i < reg->n_node; i++) /* whoever comes has them in its first map */
		reg->node[i]->known = reg->node[i]->announced;
	*ret = TAKE(f);
	return 0;
}

void fanout_free(struct fanout *f)
{
	if (!f)
		return;
	while (f->sessions) { /* connections are gone before us; a leftover has no stream any more */
		f->sessions->node = NULL;
		session_free(f->sessions);
	}
	mapmsg_done(&f->msg);
	free(f->removed);
	loop_timer_free(f->timer);
	free(f);
}
