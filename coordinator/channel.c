#include "coordinator/channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/map/mapjson.h"
#include "coordinator/state/register.h"
#include "coordinator/state/request.h"
#include "lib/h2.h"
#include "lib/log.h"
#include "proto/ts2021_conn.h"

#define CHANNEL_OUT_MAX	     (1u << 20)
#define CHANNEL_STRANGER_USEC (60 * USEC_PER_SEC) /* idle, of a machine without a node */
#define CHANNEL_IDLE_USEC    (600 * USEC_PER_SEC)
#define CHANNEL_SILENT_USEC  (10 * USEC_PER_SEC) /* not one record that decrypts */
#define CHANNEL_SWEEP_USEC   (10 * USEC_PER_SEC) /* requests and answers have one to two of it to be whole */
#define CHANNEL_STRANGER_BODIES (256u << 10)

struct channel {
	struct channel *prev, *next, *next_dead;
	struct channels *cs;
	struct ts2021_conn *conn;
	struct h2 *h2;
	struct key machine;
	uint64_t id;
	uint64_t used_usec; /* last request */
	bool dead;
	bool proven; /* a record has decrypted: who is there holds the key; a replayed handshake ends here */
	bool counted; /* others than those behind a proxy on this host have a share for each site */
	struct addr from; /* its site */
	struct table_link by_machine, by_addr;
};

struct channels {
	struct coord *c;
	struct channel *first, *dead;
	unsigned int n;
	uint64_t last_id;
	struct table by_machine;
	struct table by_addr; /* those of machines that had no node when last looked at */
	struct loop_defer *reaper;
	struct loop_timer *sweeper; /* while there are connections */
	uint64_t sweep_usec;	    /* when it looks, while armed */
};

/* ---- life of a connection */

static void channel_free(struct channel *ch)
{
	struct channels *cs = ch->cs;

	/* Streams end first: their sessions forget them. */
	h2_free(ch->h2);
	ts2021_conn_free(ch->conn);
	if (ch->prev)
		ch->prev->next = ch->next;
	else
		cs->first = ch->next;
	if (ch->next)
		ch->next->prev = ch->prev;
	table_del(&cs->by_machine, &ch->by_machine);
	table_del(&cs->by_addr, &ch->by_addr);
	cs->n--;
	free(ch);
}

/* It ends when whoever is in the middle of something with it has returned. */
static void channel_kill(struct channel *ch)
{
	if (ch->dead)
		return;
	ch->dead = true;
	ch->next_dead = ch->cs->dead;
	ch->cs->dead = ch;
	loop_defer_arm(ch->cs->reaper);
}

static void channels_reap(void *data)
{
	struct channels *cs = data;

	while (cs->dead) {
		struct channel *ch = cs->dead;

		cs->dead = ch->next_dead;
		channel_free(ch);
	}
}

static bool channel_is_stranger(const struct channel *ch)
{
	return !registry_node_of_machine_any(&ch->cs->c->reg, &ch->machine);
}

/* ---- what has its time */

/* When it is to be looked at: soon while something is on its way, else when it has been idle for too long. */
static uint64_t channel_due(const struct channel *ch, uint64_t now)
{
	uint64_t most = !ch->proven		? CHANNEL_SILENT_USEC :
			channel_is_stranger(ch) ? CHANNEL_STRANGER_USEC :
						  CHANNEL_IDLE_USEC;

	if (h2_under_way(ch->h2))
		return now + CHANNEL_SWEEP_USEC;
	return (h2_open_streams(ch->h2) ? now : ch->used_usec) + most;
}

static void channel_watch(struct channel *ch)
{
	struct channels *cs = ch->cs;
	uint64_t now = loop_now(cs->c->loop);
	uint64_t due = channel_due(ch, now);

	due = MAX(due, now + CHANNEL_SWEEP_USEC); /* not one by one */
	if (loop_timer_armed(cs->sweeper) && cs->sweep_usec <= due)
		return;
	cs->sweep_usec = due;
	loop_timer_at(cs->sweeper, due);
}

static int channel_io_write(void *data, const uint8_t *p, size_t n)
{
	struct channel *ch = data;

	if (!ch->dead && ch->h2)
		channel_watch(ch);
	return ch->dead ? -EPIPE : ts2021_conn_write(ch->conn, p, n);
}

static size_t channel_io_pending(void *data)
{
	return ts2021_conn_pending(((struct channel *)data)->conn);
}

static const struct h2_io channel_io = { .write = channel_io_write, .pending = channel_io_pending };

static void channel_on_input(void *data, struct ts2021_conn *conn, const uint8_t *p, size_t n)
{
	struct channel *ch = data;

	(void)conn;
	ch->proven = true;
	if (!ch->dead && h2_feed(ch->h2, p, n) < 0)
		channel_kill(ch);
	if (!ch->dead)
		channel_watch(ch);
}

static void channel_on_drained(void *data, struct ts2021_conn *conn)
{
	struct channel *ch = data;

	(void)conn;
	if (!ch->dead && h2_drained(ch->h2) < 0)
		channel_kill(ch);
}

static void channel_on_closed(void *data, struct ts2021_conn *conn, int error, const char *why)
{
	struct channel *ch = data;

	(void)conn;
	log_debug("connection %llu: closed: %s (%d)", (unsigned long long)ch->id, why, error);
	channel_kill(ch);
}

static void channel_on_error(void *data, int r, const char *why)
{
	struct channel *ch = data;

	log_debug("connection %llu: %s (%d)", (unsigned long long)ch->id, why, r);
	channel_kill(ch);
}

static const struct ts2021_conn_ops channel_conn_ops = {
	.on_input = channel_on_input,
	.on_drained = channel_on_drained,
	.on_closed = channel_on_closed,
};

/* ---- answers */

/* One that waits for the disk; the stream may be gone by then. */
struct answer {
	struct h2_stream *st;
	int status;
	struct buf body;
};

static void answer_drop(struct answer *a)
{
	h2_stream_unref(TAKE(a->st));
	buf_done(&a->body);
}

static void answer_on_closed(void *data, struct h2_stream *st, int error)
{
	(void)st;
	(void)error;
	answer_drop(data); /* who asks and goes leaves next to nothing, however long the disk takes */
}

static void answer_send(void *data)
{
	struct answer *a = data;

	if (a->st) {
		h2_on_closed(a->st, NULL, NULL);
		h2_respond(a->st, a->status, a->body.len ? "application/json" : NULL, buf_data(&a->body),
			   a->body.len);
		answer_drop(a);
	}
	free(a);
}

/* Takes the body. It is sent once what it says is on disk: that is, what was queued up to the mark. */
static void channel_answer(struct channel *ch, struct h2_stream *st, int status, struct buf *body, uint64_t mark)
{
	struct answer *a = body->bad ? NULL : malloc(sizeof(*a));

	if (!a) {
		buf_done(body);
		h2_respond(st, 500, NULL, NULL, 0);
		return;
	}
	*a = (struct answer){ .st = h2_stream_ref(st), .status = status, .body = *body };
	*body = (struct buf){ 0 };
	h2_on_closed(st, answer_on_closed, a);
	coord_when_stored(ch->cs->c, mark, answer_send, a);
}

static void channel_text(struct h2_stream *st, int status, const char *text)
{
	h2_respond(st, status, "text/plain; charset=utf-8", text, strlen(text));
}

/* For what tells nobody that something of his is stored. While the database takes no writes it is at once: who knows when
 * it will again, and strangers can have as many of these as they like. */
static uint64_t channel_mark(const struct channel *ch)
{
	return coord_writable(ch->cs->c) ? coord_mark(ch->cs->c) : 0;
}

/* What it says may rest on something that is not on disk yet (a key that is used). */
static void channel_answer_error(struct channel *ch, struct h2_stream *st, const char *error)
{
	struct buf b = { 0 };

	ch->cs->c->register_failures++;
	mapjson_register_error(&b, error);
	channel_answer(ch, st, 200, &b, channel_mark(ch));
}

/* While the database takes no writes: at once, for who knows when it will again. */
static void channel_answer_later(struct channel *ch, struct h2_stream *st)
{
	struct buf b = { 0 };

	ch->cs->c->register_failures++;
	mapjson_register_error(&b, "the coordinator cannot write its database now: try again later");
	channel_answer(ch, st, 200, &b, 0);
}

/* ---- /machine/register */

/* Waits for the node's own row alone: who has been in for long is answered although others cannot be let in. */
static void channel_answer_node(struct channel *ch, struct h2_stream *st, const struct node *n,
				bool key_expired)
{
	const struct registry_user *u = NULL;
	struct buf b = { 0 };

	if (n && !node_tagged(n))
		u = registry_user(&ch->cs->c->reg, n->user);
	mapjson_register(&b, u, key_expired);
	channel_answer(ch, st, 200, &b, n ? n->stored_mark : channel_mark(ch));
}

/* The login waits for a person, at an address that is answered. Takes what is in q. */
static void channel_ask_person(struct channel *ch, struct h2_stream *st, struct register_request *q)
{
	struct coord *c = ch->cs->c;
	const struct signin *x = signin_new(&c->signins, &ch->machine, ch->counted ? &ch->from : NULL, q, loop_clock());
	struct buf b = { 0 };
	char url[1024];

	if (!x) {
		h2_respond(st, 500, NULL, NULL, 0);
		return;
	}
	coord_look(c); /* it ends some time */
	snprintf(url, sizeof(url), "%s/register/%s", c->cfg.server_url, x->id);
	mapjson_register_url(&b, url);
	h2_respond(st, 200, "application/json", buf_data(&b), b.len);
	buf_done(&b);
}

/* A follow-up that waits for an operator. */
struct followup {
	struct signin_wait wait;
	struct coord *c;
	struct h2_stream *st;
	struct key machine;
	struct key node_key;
};

static void followup_free(struct followup *f)
{
	signin_unwait(&f->wait);
	h2_stream_unref(f->st);
	free(f);
}

static void followup_on_closed(void *data, struct h2_stream *st, int error)
{
	(void)st;
	(void)error;
	followup_free(data);
}

static void followup_stored(void *data)
{
	struct followup *f = data;
	const struct node *n = registry_node_by_key(&f->c->reg, &f->node_key);
	struct buf b = { 0 };

	if (n)
		mapjson_register(&b, node_tagged(n) ? NULL : registry_user(&f->c->reg, n->user), false);
	else
		mapjson_register_error(&b, "the node was deleted meanwhile");
	h2_respond(f->st, 200, "application/json", buf_data(&b), b.len);
	buf_done(&b);
	followup_free(f);
}

static void followup_on_end(struct signin_wait *w, enum signin_end end)
{
	struct followup *f = container_of(w, struct followup, wait);
	struct buf b = { 0 };

	h2_on_closed(f->st, NULL, NULL);
	switch (end) {
	case SIGNIN_APPROVED:
		coord_when_stored(f->c, coord_mark(f->c), followup_stored, f);
		return;
	case SIGNIN_REJECTED:
		mapjson_register_error(&b, "the login was rejected by an operator");
		break;
	case SIGNIN_EXPIRED:
		mapjson_register_error(&b, "the login was not approved in time: run `up` again");
		break;
	}
	h2_respond(f->st, 200, "application/json", buf_data(&b), b.len);
	buf_done(&b);
	followup_free(f);
}

static void channel_wait(struct channel *ch, struct h2_stream *st, struct register_request *q)
{
	struct coord *c = ch->cs->c;
	struct signin *x = signin_followed(&c->signins, q->followup, &ch->machine);
	struct followup *f;

	if (!x || !key_equal(&x->q.node_key, &q->node_key)) { /* too late, or not its own: another URL */
		channel_ask_person(ch, st, q);
		return;
	}
	f = calloc(1, sizeof(*f));
	if (!f) {
		h2_respond(st, 500, NULL, NULL, 0);
		return;
	}
	f->c = c;
	f->st = h2_stream_ref(st);
	f->machine = ch->machine;
	f->node_key = q->node_key;
	f->wait.fn = followup_on_end;
	signin_wait(x, &f->wait);
	h2_on_closed(st, followup_on_closed, f);
}

static void channel_apply(struct channel *ch, struct h2_stream *st, const struct register_request *q,
			  const struct register_decision *d, int64_t now)
{
	struct coord *c = ch->cs->c;
	const struct registry_user *u = NULL;
	struct node *n = NULL;
	struct buf b = { 0 };
	int r;

	if (!coord_writable(c)) {
		channel_answer_later(ch, st);
		return;
	}
	if (d->outcome == REGISTER_LOGOUT && !node_tagged(d->node))
		u = registry_user(&c->reg, d->node->user);
	r = register_apply(&c->reg, &ch->machine, q, d, now, &n);
	if (r < 0) {
		log_remote(LOG_LEVEL_WARNING, "register: %s", strerror(-r));
		channel_answer_error(ch, st, r == -ENOSPC ? "no addresses are left in the mesh's prefix" :
							    "the coordinator is out of memory");
		return;
	}
	if (d->outcome == REGISTER_LOGOUT) {
		mapjson_register(&b, u, true);
		channel_answer(ch, st, 200, &b, coord_mark(c));
		return;
	}
	log_info("node %s: %s (id %llu)", n->given,
		 d->outcome == REGISTER_CREATE ? "joined" : "logged in again", (unsigned long long)n->id);
	channel_answer_node(ch, st, n, false);
}

static void channel_register(struct channel *ch, struct h2_stream *st, const uint8_t *body, size_t len)
{
	struct register_request q;
	struct register_decision d;
	int64_t now = loop_wall_nsec();
	int r = register_request_parse(body, len, &q);

	ch->cs->c->registers++;
	if (r < 0 && !q.version) {
		channel_text(st, 400, "malformed register request\n");
		return;
	}
	if (r < 0) {
		channel_answer_error(ch, st, r == -ENOBUFS ? "the register request is too large" :
							     "the register request is malformed");
		return;
	}
	register_decide(&ch->cs->c->reg, &ch->machine, &q, now, &d);
	log_debug("connection %llu: register: %s", (unsigned long long)ch->id,
		  register_outcome_name(d.outcome));
	switch (d.outcome) {
	case REGISTER_REFUSE:
		log_remote(LOG_LEVEL_INFO, "register from %s: refused: %s",
			   q.hostinfo.hostname ? q.hostinfo.hostname : "?", d.error);
		if (q.auth_key && !coord_writable(ch->cs->c)) /* its use by another may yet be lost */
			channel_answer_later(ch, st);
		else
			channel_answer_error(ch, st, d.error);
		break;
	case REGISTER_OK:
		channel_answer_node(ch, st, d.node, false);
		break;
	case REGISTER_KEY_EXPIRED:
	case REGISTER_GONE:
		channel_answer_node(ch, st, d.node, true);
		break;
	case REGISTER_LOGOUT:
	case REGISTER_CREATE:
	case REGISTER_RELOGIN:
		channel_apply(ch, st, &q, &d, now);
		break;
	case REGISTER_WAIT:
		channel_wait(ch, st, &q);
		break;
	case REGISTER_ASK:
		channel_ask_person(ch, st, &q);
		break;
	}
	register_request_done(&q);
}

/* ---- /machine/map */

/* What a lite update, or the first request of a node, says about it. */
static void channel_store(struct channel *ch, struct node *n, const struct map_request *q)
{
	struct registry *reg = &ch->cs->c->reg;

	if (!key_is_zero(&q->disco_key)) {
		registry_node_set_disco(reg, n, &q->disco_key);
		n->disco_source = ch->id;
	}
	if (q->has_endpoints)
		registry_node_set_endpoints(reg, n, q->endpoint, q->n_endpoint);
	if (q->hostinfo.text)
		registry_node_set_hostinfo(reg, n, q->hostinfo.hostname, q->hostinfo.text);
	if (q->hostinfo.netinfo)
		registry_node_set_netinfo(reg, n, q->hostinfo.netinfo, q->hostinfo.home);
}

static void channel_map_stream(struct channel *ch, struct h2_stream *st, struct node *n,
			       const struct map_request *q)
{
	/* A stream's words may be older than a lite update's that is already stored. Its disco key
	 * counts on a new connection: the stream of a restarted daemon can come before its update,
	 * and peers would be given the dead key (control.md 7.2).
	 * One that has not spoken since we started is believed: what is on disk may lack the last second
	 * before a crash, and no lite update need come until something changes. */
	if (key_is_zero(&n->disco_key) || !n->disco_source) {
		channel_store(ch, n, q);
	} else if (!key_is_zero(&q->disco_key) && n->disco_source != ch->id) {
		registry_node_set_disco(&ch->cs->c->reg, n, &q->disco_key);
		n->disco_source = ch->id;
	}
	fanout_open(ch->cs->c->fanout, n, st, q->zstd);
}

static void channel_map(struct channel *ch, struct h2_stream *st, const uint8_t *body, size_t len)
{
	struct map_request q;
	struct node *n;
	int r = map_request_parse(body, len, &q);

	if (r < 0) {
		channel_text(st, r == -ENOMEM ? 500 : 400, "malformed map request\n");
		return;
	}
	n = registry_node_by_key(&ch->cs->c->reg, &q.node_key);
	if (q.version < REQUEST_CAP_MIN) {
		channel_text(st, 400, "unsupported client version\n");
	} else if (!n || !key_equal(&n->machine_key, &ch->machine)) {
		channel_text(st, 404, "node not found\n");
	} else {
		registry_node_set_cap(&ch->cs->c->reg, n, q.version);
		if (q.stream) {
			channel_map_stream(ch, st, n, &q);
		} else {
			channel_store(ch, n, &q);
			h2_respond(st, 200, NULL, NULL, 0);
		}
	}
	map_request_done(&q);
}

/* ---- requests */

static void channel_on_request(void *data, struct h2_stream *st, const char *method, const char *path,
			       const uint8_t *body, size_t len)
{
	static const char *const later[] = { "/machine/set-dns",	 "/machine/id-token",
					     "/machine/feature/query", "/machine/set-device-attr",
					     "/machine/audit-log",	 "/machine/whoami",
					     "/machine/c2n" };
	struct channel *ch = data;
	size_t n = strcspn(path, "?");
	bool post = !strcmp(method, "POST");

	ch->used_usec = loop_now(ch->cs->c->loop);
	if (post && n == 17 && !strncmp(path, "/machine/register", n)) {
		channel_register(ch, st, body, len);
		return;
	}
	if (post && n == 12 && !strncmp(path, "/machine/map", n)) {
		channel_map(ch, st, body, len);
		return;
	}
	if (n == 22 && !strncmp(path, "/machine/update-health", n)) {
		h2_respond(st, 204, NULL, NULL, 0);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
		if (strlen(later[i]) == n && !strncmp(path, later[i], n)) {
			channel_text(st, 501, "Not implemented yet\n");
			return;
		}
	}
	channel_text(st, 404, "404 page not found\n");
}

static const struct h2_server_ops channel_h2_ops = { .on_request = channel_on_request };

/* ---- all of them */

static unsigned int channels_of_machine(const struct channels *cs, const struct key *machine)
{
	unsigned int n = 0;

	for (struct table_link *l = table_find(&cs->by_machine, machine, sizeof(*machine)); l;
	     l = table_more(l))
		n += key_equal(&container_of(l, struct channel, by_machine)->machine, machine);
	return n;
}

/* Which of two of a machine has to make room: one that has proven nothing before one that has, then the one used
 * least recently, which a daemon may have left behind. */
static bool channel_goes_first(const struct channel *a, const struct channel *b)
{
	if (a->proven != b->proven)
		return b->proven;
	return a->used_usec < b->used_usec;
}

/* Strangers' connections from one site. What has a node by now is not counted any more. */
static unsigned int channels_of_strangers(struct channels *cs, const struct addr *from)
{
	struct table_link *l, *next;
	unsigned int n = 0;

	for (l = table_find(&cs->by_addr, from, sizeof(*from)); l; l = next) {
		struct channel *ch = container_of(l, struct channel, by_addr);

		next = table_more(l);
		if (!channel_is_stranger(ch))
			table_del(&cs->by_addr, l);
		else
			n += addr_equal(&ch->from, from);
	}
	return n;
}

/* Behind a proxy on this host everybody comes from loopback. */
static bool channel_counts(const struct httpd_peer *peer)
{
	return !peer->is_unix && !addr_is_loopback(&peer->remote.addr);
}

static bool channels_full(struct channels *cs, const struct httpd_peer *peer)
{
	struct addr from = addr_site(&peer->remote.addr);

	return cs->n >= CHANNEL_MAX ||
	       (channel_counts(peer) && channels_of_strangers(cs, &from) >= CHANNEL_STRANGERS_MAX);
}

/* One too many of a machine. */
static void channels_trim(struct channels *cs, const struct key *machine)
{
	struct channel *oldest = NULL;

	if (channels_of_machine(cs, machine) < CHANNEL_MACHINE_MAX)
		return;
	for (struct table_link *l = table_find(&cs->by_machine, machine, sizeof(*machine)); l;
	     l = table_more(l)) {
		struct channel *ch = container_of(l, struct channel, by_machine);

		if (!ch->dead && key_equal(&ch->machine, machine) &&
		    (!oldest || channel_goes_first(ch, oldest)))
			oldest = ch;
	}
	if (oldest)
		channel_kill(oldest);
}

void channel_upgrade(void *data, struct httpd_req *q)
{
	const struct httpd_peer *peer = httpd_peer_of(q);
	struct channels *cs = data;
	struct channel *ch = NULL;

	if (channels_full(cs, peer) || table_reserve(&cs->by_machine) < 0 || table_reserve(&cs->by_addr) < 0 ||
	    !(ch = calloc(1, sizeof(*ch)))) {
		httpd_respond_text(q, 503, "too many connections");
		return;
	}
	ch->cs = cs;
	ch->counted = channel_counts(peer);
	ch->from = addr_site(&peer->remote.addr);
	if (ts2021_conn_server(q, &cs->c->noise_key, true, &channel_conn_ops, ch, &ch->conn) < 0) {
		free(ch);
		return;
	}
	ch->id = ++cs->last_id;
	ch->machine = *ts2021_conn_peer(ch->conn);
	ch->used_usec = loop_now(cs->c->loop);
	channels_trim(cs, &ch->machine);
	ch->next = cs->first;
	if (ch->next)
		ch->next->prev = ch;
	cs->first = ch;
	cs->n++;
	table_add(&cs->by_machine, &ch->by_machine, &ch->machine, sizeof(ch->machine));
	if (channel_is_stranger(ch))
		table_add(&cs->by_addr, &ch->by_addr, &ch->from, sizeof(ch->from));
	stream_set_limits(ts2021_conn_stream(ch->conn), CHANNEL_OUT_MAX, 0);
	if (h2_server_new(&channel_io, ch, &channel_h2_ops, ch, &ch->h2) < 0) {
		channel_kill(ch);
		return;
	}
	h2_set_error(ch->h2, channel_on_error, ch);
	if (channel_is_stranger(ch))
		h2_set_bodies_max(ch->h2, CHANNEL_STRANGER_BODIES);
	channel_watch(ch);
}

static void channels_sweep(void *data)
{
	struct channels *cs = data;
	uint64_t now = loop_now(cs->c->loop);

	for (struct channel *ch = cs->first; ch; ch = ch->next) {
		if (!ch->dead)
			h2_age(ch->h2);
		if (!ch->dead && channel_due(ch, now) <= now)
			channel_kill(ch);
		if (!ch->dead)
			channel_watch(ch);
	}
}

unsigned int channels_count(const struct channels *cs)
{
	return cs->n;
}

int channels_new(struct coord *c, struct channels **ret)
{
	CLEANUP(channels_free) struct channels *cs = calloc(1, sizeof(*cs));
	int r;

	if (!cs)
		return -ENOMEM;
	cs->c = c;
	r = loop_defer_new(c->loop, channels_reap, cs, &cs->reaper);
	if (r == 0)
		r = loop_timer_new(c->loop, channels_sweep, cs, &cs->sweeper);
	if (r < 0)
		return r;
	*ret = TAKE(cs);
	return 0;
}

void channels_free(struct channels *cs)
{
	if (!cs)
		return;
	cs->dead = NULL;
	while (cs->first)
		channel_free(cs->first);
	table_done(&cs->by_machine);
	table_done(&cs->by_addr);
	loop_defer_drop(cs->reaper);
	loop_timer_free(cs->sweeper);
	free(cs);
}
