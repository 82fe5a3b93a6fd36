#include "coordinator/map/fanout.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "coordinator/map/mapjson.h"
#include "lib/blob.h"
#include "lib/buf.h"
#include "lib/json.h"
#include "lib/log.h"

#define FANOUT_GATHER_USEC  (10 * USEC_PER_MSEC)
#define FANOUT_BATCH	    64 /* changed nodes in one message */
#define FANOUT_GROUP	    64 /* ids in one piece of a first map */
#define FANOUT_QUEUE_MAX    (4u << 20)
#define FANOUT_KEEPALIVE    (50 * USEC_PER_SEC)
#define FANOUT_KEEPALIVE_BY 9 /* seconds of spread */
#define FANOUT_EXPIRY_USEC  (60 * USEC_PER_SEC) /* an expiry is looked at so often: a host may sleep, its timers too */

enum coding {
	CODING_PLAIN,
	CODING_ZSTD,
	CODING_COUNT,
};

/* Text that many messages have in common, in both codings, made when first asked for. */
struct piece {
	struct blob *coded[CODING_COUNT];
	bool empty; /* nothing to say, and known to be so */
};

struct map_session {
	struct map_session *prev, *next;
	struct fanout *f;
	struct node *node; /* NULL: another stream took over, or the node is gone */
	struct h2_stream *st;
	enum coding coding;
	bool dead; /* its stream is over; goes when nobody walks the list */
	uint64_t sent_usec, keepalive_usec;
};

struct fanout {
	struct loop *loop;
	struct registry *reg;
	const struct settings *cfg;
	struct map_session *sessions;
	uint64_t n_sessions;
	unsigned int walking; /* the list of sessions */
	int64_t ticked_nsec;
	struct node *dirty, **dirty_end;
	uint64_t *removed;
	size_t n_removed, cap_removed;
	struct loop_timer *timer;
	loop_fn *on_stream;
	void *on_stream_data;
	uint64_t busy_until; /* not before, so that a storm does not take the whole thread */
	struct piece *group;
	size_t n_group;
	struct piece tail, comma, keepalive;
	struct buf dns, derpmap;
	ZSTD_CCtx *zstd;
	struct fanout_stats stats;
};

/* ---- pieces */

static void piece_drop(struct piece *p)
{
	for (int i = 0; i < CODING_COUNT; i++)
		if (p->coded[i])
			blob_unref(p->coded[i]);
	*p = (struct piece){ 0 };
}

/* The text coded as one zstd frame, or as it is. Owned by the caller; NULL: no memory. */
static struct blob *fanout_code(struct fanout *f, enum coding coding, const void *p, size_t len)
{
	size_t room = ZSTD_compressBound(len), n;
	uint8_t *tmp;
	struct blob *b;

	if (coding == CODING_PLAIN)
		return blob_new(p, len);
	tmp = malloc(room);
	if (!tmp)
		return NULL;
	n = ZSTD_compressCCtx(f->zstd, tmp, room, p, len, 1);
	b = ZSTD_isError(n) ? NULL : blob_new(tmp, n);
	free(tmp);
	return b;
}

static struct blob *piece_get(struct fanout *f, struct piece *p, enum coding coding, const struct buf *text)
{
	if (!p->coded[coding] && !text->bad) {
		p->coded[coding] = fanout_code(f, coding, buf_data(text), text->len);
		f->stats.pieces_made++;
	}
	f->stats.pieces_used++;
	return p->coded[coding];
}

/* A whole message: length, then the coded text. */
static struct blob *fanout_message(struct fanout *f, enum coding coding, const struct buf *text)
{
	CLEANUP(blob_unref) struct blob *body = NULL;
	struct blob *b;

	if (text->bad)
		return NULL;
	body = fanout_code(f, coding, buf_data(text), text->len);
	b = body ? blob_new(NULL, body->len + 4) : NULL;
	if (!b)
		return NULL;
	for (int i = 0; i < 4; i++)
		b->data[i] = (uint8_t)(body->len >> (8 * i));
	memcpy(b->data + 4, body->data, body->len);
	return b;
}

/* ---- texts */

static struct blob *fanout_node_json(struct fanout *f, struct node *n)
{
	if (!n->json) {
		struct buf b = { 0 };

		mapjson_node(&b, n, f->cfg->dns.base_domain, loop_wall_nsec());
		if (!b.bad)
			n->json = blob_new(buf_data(&b), b.len);
		buf_done(&b);
	}
	return n->json;
}

static void fanout_put_node(struct fanout *f, struct node *n, struct buf *b)
{
	const struct blob *j = fanout_node_json(f, n);

	if (j)
		buf_put(b, j->data, j->len);
	else
		b->bad = true;
}

static void fanout_put_self(struct fanout *f, struct node *n, struct buf *b)
{
	const struct blob *j = fanout_node_json(f, n);

	if (j)
		mapjson_self(b, (const char *)j->data, j->len, f->cfg);
	else
		b->bad = true;
}

static void fanout_put_time(struct buf *b)
{
	char text[40];

	buf_printf(b, "{\"ControlTime\":\"%s\"", json_time_text(loop_wall_nsec(), text));
}

/* Peers of a group of ids, with commas between them, but for one node. */
static void fanout_put_group(struct fanout *f, size_t group, const struct node *but, struct buf *b)
{
	const struct registry *reg = f->reg;
	uint64_t end = (group + 1) * FANOUT_GROUP;
	size_t was = b->len;

	for (size_t i = registry_node_index(reg, group * FANOUT_GROUP);
	     i < reg->n_node && reg->node[i]->id < end; i++) {
		struct node *n = reg->node[i];

		if (!n->announced || n == but)
			continue;
		if (b->len > was)
			buf_put_u8(b, ',');
		fanout_put_node(f, n, b);
	}
}

static void fanout_put_profiles(struct fanout *f, struct buf *b)
{
	bool tagged = false, comma = false;

	for (size_t i = 0; i < f->reg->n_node && !tagged; i++)
		tagged = node_wire_user(f->reg->node[i]) == USER_TAGGED_DEVICES;
	if (tagged) {
		mapjson_tagged_devices(b);
		comma = true;
	}
	for (size_t i = 0; i < f->reg->n_user; i++) {
		if (!f->reg->user[i]->nodes)
			continue;
		if (comma)
			buf_put_u8(b, ',');
		comma = true;
		mapjson_user(b, f->reg->user[i]);
	}
}

/* What comes behind the peers in every first map. */
static struct blob *fanout_tail(struct fanout *f, enum coding coding)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	if (f->tail.coded[coding])
		return f->tail.coded[coding];
	buf_put_str(&b, "],\"UserProfiles\":[");
	fanout_put_profiles(f, &b);
	buf_put_str(&b, "],\"DERPMap\":");
	buf_put(&b, buf_data(&f->derpmap), f->derpmap.len);
	buf_put_str(&b, ",\"DNSConfig\":");
	buf_put(&b, buf_data(&f->dns), f->dns.len);
	buf_put_u8(&b, ',');
	mapjson_rest(&b, f->cfg);
	buf_put_u8(&b, '}');
	return piece_get(f, &f->tail, coding, &b);
}

static struct blob *fanout_comma(struct fanout *f, enum coding coding)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	buf_put_u8(&b, ',');
	return piece_get(f, &f->comma, coding, &b);
}

static struct piece *fanout_group(struct fanout *f, size_t group)
{
	if (group >= f->n_group) {
		struct piece *grown = reallocarray(f->group, group + 64, sizeof(*grown));

		if (!grown)
			return NULL;
		memset(grown + f->n_group, 0, (group + 64 - f->n_group) * sizeof(*grown));
		f->group = grown;
		f->n_group = group + 64;
	}
	return &f->group[group];
}

static void fanout_group_changed(struct fanout *f, uint64_t id)
{
	if (id / FANOUT_GROUP < f->n_group)
		piece_drop(&f->group[id / FANOUT_GROUP]);
}

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
	CLEANUP(blob_unref) struct blob *b = fanout_message(s->f, s->coding, text);

	session_send(s, b);
}

/* ---- the first map */

struct first_map {
	struct blob **part;
	size_t n, cap, len;
	bool bad;
};

static void first_add(struct first_map *m, struct blob *b) /* takes the reference */
{
	struct blob **grown;

	if (!b) {
		m->bad = true;
		return;
	}
	if (m->n == m->cap) {
		grown = reallocarray(m->part, m->cap ? m->cap * 2 : 64, sizeof(struct blob *));
		if (!grown) {
			m->bad = true;
			blob_unref(b);
			return;
		}
		m->part = grown;
		m->cap = m->cap ? m->cap * 2 : 64;
	}
	m->part[m->n++] = b;
	m->len += b->len;
}

static void first_done(struct first_map *m)
{
	for (size_t i = 0; i < m->n; i++)
		blob_unref(m->part[i]);
	free(m->part);
}

static void first_add_group(struct fanout *f, size_t group, struct node *self, enum coding coding,
			    bool *comma, struct first_map *m)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct piece *p = fanout_group(f, group);
	bool own = self->id / FANOUT_GROUP == group;
	struct blob *coded;

	if (!p) {
		m->bad = true;
		return;
	}
	if (!own && p->empty)
		return;
	if (own || !p->coded[coding]) {
		fanout_put_group(f, group, own ? self : NULL, &b);
		if (!b.len) {
			p->empty = !own;
			return;
		}
	}
	coded = own ? fanout_code(f, coding, buf_data(&b), b.len) :
		      blob_ref(piece_get(f, p, coding, &b));
	if (*comma)
		first_add(m, blob_ref(fanout_comma(f, coding)));
	*comma = true;
	first_add(m, coded);
}

static void first_build(struct fanout *f, struct node *n, enum coding coding, struct first_map *m)
{
	CLEANUP(buf_done) struct buf head = { 0 };
	uint64_t last = f->reg->last_node;
	bool comma = false;

	fanout_put_time(&head);
	buf_put_str(&head, ",\"Node\":");
	fanout_put_self(f, n, &head);
	buf_put_str(&head, ",\"Peers\":[");
	first_add(m, head.bad ? NULL : fanout_code(f, coding, buf_data(&head), head.len));
	for (size_t g = 0; g <= last / FANOUT_GROUP && !m->bad; g++)
		first_add_group(f, g, n, coding, &comma, m);
	first_add(m, blob_ref(fanout_tail(f, coding)));
}

static int session_send_first(struct map_session *s)
{
	struct first_map m = { 0 };
	uint8_t len[4];
	int r;

	first_build(s->f, s->node, s->coding, &m);
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
	first_done(&m);
	return r;
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
		r = session_send_first(s);
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

static void node_json_drop(struct node *n)
{
	if (n->json)
		blob_unref(n->json);
	n->json = NULL;
}

void fanout_node_changed(struct fanout *f, struct node *n)
{
	node_json_drop(n);
	fanout_group_changed(f, n->id);
	if (n->changes & NODE_CHANGE_FULL)
		piece_drop(&f->tail); /* its owner may be a new one */
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

void fanout_node_removed(struct fanout *f, struct node *n)
{
	struct map_session *s = n->session;

	fanout_unqueue(f, n);
	node_json_drop(n);
	fanout_group_changed(f, n->id);
	piece_drop(&f->tail);
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

		if (!grown)
			return;
		f->removed = grown;
		f->cap_removed = cap;
	}
	f->removed[f->n_removed++] = n->id;
	fanout_arm(f);
}

void fanout_user_changed(struct fanout *f)
{
	piece_drop(&f->tail);
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
		fanout_put_node(f, n, out);
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
		buf_put(out, buf_data(&f->dns), f->dns.len);
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
	fanout_put_time(out);
	head = out->len;
	if (n_removed)
		buf_put_str(out, ",\"PeersRemoved\":[");
	for (size_t i = 0; i < n_removed; i++)
		buf_printf(out, "%s%llu", i ? "," : "", (unsigned long long)f->removed[i]);
	if (n_removed)
		buf_put_u8(out, ']');
	batch_put_changed(f, b, but, out);
	batch_put_patches(b, but, out);
	if (out->len == head)
		buf_clear(out);
	else
		buf_put_u8(out, '}');
}

static void session_send_self(struct map_session *s)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	fanout_put_time(&b);
	buf_put_str(&b, ",\"Node\":");
	fanout_put_self(s->f, s->node, &b);
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
		if (!s->node)
			continue;
		if (s->node->batch & NODE_CHANGE_SELF)
			session_send_self(s);
		if (s->node->batch & ~(uint32_t)NODE_CHANGE_SELF) { /* nobody is told of itself as a peer */
			batch_text(f, &b, n_removed, s->node, &own);
			if (own.len)
				session_send_text(s, &own);
			continue;
		}
		if (!common.len)
			continue;
		if (!coded[s->coding])
			coded[s->coding] = fanout_message(f, s->coding, &common);
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
	/* A storm gets half of the thread at most; the longer a round takes, the more each next one gathers. */
	end = loop_clock();
	f->busy_until = end + (end - start);
	if (f->dirty || f->n_removed)
		fanout_arm(f);
}

int fanout_set_derpmap(struct fanout *f, const char *json, size_t len)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	bool first = !f->derpmap.len;
	struct blob *coded[CODING_COUNT] = { 0 };

	if (len == f->derpmap.len && !memcmp(json, buf_data(&f->derpmap), len))
		return 0;
	buf_clear(&f->derpmap);
	if (buf_put(&f->derpmap, json, len) < 0)
		return -ENOMEM;
	piece_drop(&f->tail);
	if (first)
		return 0;
	fanout_put_time(&b);
	buf_put_str(&b, ",\"DERPMap\":");
	buf_put(&b, json, len);
	buf_put_u8(&b, '}');
	f->walking++;
	for (struct map_session *s = f->sessions; s; s = s->next) {
		if (!s->node)
			continue;
		if (!coded[s->coding])
			coded[s->coding] = fanout_message(f, s->coding, &b);
		session_send(s, coded[s->coding]);
	}
	fanout_walked(f);
	for (int i = 0; i < CODING_COUNT; i++)
		if (coded[i])
			blob_unref(coded[i]);
	return 0;
}

/* ---- time */

/* Each tells when it is due again. */
static uint64_t session_tick(struct map_session *s, uint64_t now_usec)
{
	static const char text[] = "{\"KeepAlive\":true}";
	CLEANUP(buf_done) struct buf b = { 0 };
	struct fanout *f = s->f;

	if (now_usec < s->sent_usec + s->keepalive_usec)
		return s->sent_usec + s->keepalive_usec;
	if (!f->keepalive.coded[s->coding]) {
		buf_put_str(&b, text);
		f->keepalive.coded[s->coding] = fanout_message(f, s->coding, &b);
	}
	session_send(s, f->keepalive.coded[s->coding]);
	return now_usec + s->keepalive_usec;
}

/* Of a node that has no stream. Ephemeral and without one yet, in this life of ours: it is waited for from now on, by
 * the clock that nobody sets. Nobody is removed for the time that we were not there, for that long everybody had none. */
static uint64_t node_tick_away(struct fanout *f, struct node *n, uint64_t now_usec)
{
	uint64_t ephemeral = f->cfg->ephemeral_sec * USEC_PER_SEC;

	if (!n->gone_usec)
		n->gone_usec = now_usec;
	if (now_usec < n->gone_usec + ephemeral)
		return n->gone_usec + ephemeral;
	log_info("node %s: ephemeral and gone, deleted", n->given);
	registry_node_delete(f->reg, n);
	return UINT64_MAX;
}

static uint64_t node_tick(struct fanout *f, struct node *n, uint64_t now_usec, int64_t now_nsec)
{
	uint64_t due = UINT64_MAX;

	if (n->gone_usec && n->online && now_usec >= n->gone_usec + FANOUT_OFFLINE_USEC)
		registry_node_set_online(f->reg, n, false, now_nsec);
	if (n->gone_usec && n->online)
		due = n->gone_usec + FANOUT_OFFLINE_USEC;
	if (n->expiry_nsec && (n->expiry_nsec <= f->ticked_nsec) != (n->expiry_nsec <= now_nsec)) {
		log_info("node %s: its key has expired%s", n->given,
			 n->expiry_nsec <= now_nsec ? "" : " no more: the clock was set back");
		registry_node_expired(f->reg, n);
	}
	if (n->expiry_nsec > now_nsec)
		due = MIN(due, now_usec + MIN((uint64_t)(n->expiry_nsec - now_nsec) / 1000 + 1, FANOUT_EXPIRY_USEC));
	if (n->ephemeral && !n->online) {
		uint64_t away = node_tick_away(f, n, now_usec); /* the node may be gone */

		due = MIN(due, away);
	}
	return due;
}

uint64_t fanout_tick(struct fanout *f, uint64_t now_usec, int64_t now_nsec)
{
	uint64_t due = UINT64_MAX, next;

	if (!f->ticked_nsec)
		f->ticked_nsec = now_nsec;
	f->walking++;
	for (struct map_session *s = f->sessions; s; s = s->next) {
		if (!s->node || s->dead)
			continue;
		next = session_tick(s, now_usec);
		due = MIN(due, next);
	}
	fanout_walked(f);
	for (size_t i = f->reg->n_node; i-- > 0;) {
		next = node_tick(f, f->reg->node[i], now_usec, now_nsec);
		due = MIN(due, next);
	}
	f->ticked_nsec = now_nsec;
	return due;
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
	f->cfg = cfg;
	f->dirty_end = &f->dirty;
	f->zstd = ZSTD_createCCtx();
	if (!f->zstd)
		return -ENOMEM;
	mapjson_dns(&f->dns, cfg);
	if (f->dns.bad)
		return -ENOMEM;
	r = loop_timer_new(l, fanout_on_timer, f, &f->timer);
	if (r < 0)
		return r;
	for (size_t i = 0; i < reg->n_node; i++) {
		struct node *n = reg->node[i];

		n->known = n->announced; /* whoever comes has them in its first map */
		/* That we were away is no news of others: who was online is, until it does not come back. */
		if (n->online)
			n->gone_usec = loop_clock() + FANOUT_RETURN_USEC - FANOUT_OFFLINE_USEC;
	}
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
	for (size_t i = 0; i < f->reg->n_node; i++)
		node_json_drop(f->reg->node[i]);
	for (size_t i = 0; i < f->n_group; i++)
		piece_drop(&f->group[i]);
	piece_drop(&f->tail);
	piece_drop(&f->comma);
	piece_drop(&f->keepalive);
	buf_done(&f->dns);
	buf_done(&f->derpmap);
	free(f->group);
	free(f->removed);
	loop_timer_free(f->timer);
	ZSTD_freeCCtx(f->zstd);
	free(f);
}
