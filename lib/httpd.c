#include "lib/httpd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>

#include "lib/log.h"

#define BURST_LEAST	     16 /* connections whose memory is worth giving back: each may have had a body of 1 MiB, */
#define BURST_USEC	     USEC_PER_SEC /* so long after they have gone */
#define MAX_CONNS_DEFAULT    4096
#define MAX_PER_ADDR_DEFAULT 256
#define HEAD_DEFAULT	     (10 * USEC_PER_SEC)
#define IDLE_DEFAULT	     (60 * USEC_PER_SEC)
#define ACCEPTS_PER_EVENT    64
#define ACCEPT_PAUSE	     (100 * USEC_PER_MSEC)
#define ROOM_AGE_USEC	     (250 * USEC_PER_MSEC) /* so long everybody has for a request, however many come */
#define ROOM_LOOKS_MAX	     64
#define ROOM_AT_ONCE	     16 /* when memory is short: some of them, ten times a second */
#define SHORT_SAID_USEC	     (60 * USEC_PER_SEC)
#define STREAM_QUEUE_MAX     (4u << 20)
#define IN_MAX		     (64u << 10)

struct httpd_route_entry {
	char *method; /* NULL = any */
	char *path;
	size_t len;
	bool prefix;
	size_t body_max;
	httpd_fn *fn;
	void *data;
};

struct httpd_listener {
	struct httpd_listener *next;
	struct httpd *h;
	int fd;
	struct loop_io *io;
	struct loop_timer *pause;
	struct tls_ctx *tls;
	char *path; /* of a Unix socket that we bound */
	bool is_unix;
	int spare; /* of a Unix socket: a descriptor for the operator, when there is none; -1 while it is given away */
};

struct httpd {
	struct loop *loop;
	struct httpd_opts o;
	char *server;
	struct httpd_listener *listeners;
	struct httpd_conn *conns; /* by since_usec */
	unsigned int n_conns, burst; /* burst: the most there were since they were few */
	struct loop_timer *calm;     /* a while after a burst */
	uint64_t short_said_usec;
	struct httpd_route_entry *routes;
	size_t n_routes;
	bool dead;
};

enum conn_state {
	CONN_STATE_IDLE, /* between requests */
	CONN_STATE_HEAD, /* part of a head is here */
	CONN_STATE_BODY,
	CONN_STATE_BUSY, /* the handler has it */
};

struct httpd_conn {
	struct httpd_conn *prev, *next;
	struct httpd *h;
	struct stream *s;
	struct loop_timer *timer;
	struct httpd_peer peer;
	enum conn_state state;
	uint64_t since_usec; /* accepted, or the last request answered */
	struct httpd_req *q;
	size_t unsent; /* of an answer, when the idle timer was set */
	bool dead;
};

struct httpd_req {
	struct httpd_conn *c;
	const struct httpd_route_entry *route;
	char *bytes; /* that the views in head point into */
	struct http_head head;
	struct http_chunked chunked;
	struct buf body, extra;
	loop_fn *gone;
	void *gone_data;
	bool is_head, keep, started, chunks;
};

bool httpd_peer_may(const struct httpd_peer *p, uid_t uid, gid_t gid)
{
	if (!p->is_unix || p->uid == (uid_t)-1)
		return false;
	if (p->uid == 0 || (uid != (uid_t)-1 && p->uid == uid))
		return true;
	if (gid == (gid_t)-1)
		return false;
	if (p->gid == gid)
		return true;
	for (size_t i = 0; i < p->n_groups; i++)
		if (p->groups[i] == gid)
			return true;
	return false;
}

/* ---- requests and connections come and go */

static void req_bury(void *p)
{
	struct httpd_req *q = p;

	free(q->bytes);
	buf_done_secret(&q->body); /* may have held a key */
	buf_done(&q->extra);
	free(q);
}

static void req_drop(struct httpd_req *q)
{
	q->c->q = NULL;
	loop_defer_free(q->c->h->loop, q, req_bury);
}

static void conn_bury(void *p)
{
	free(p);
}

/* A copy of the listening socket, for nothing but its number. */
static bool take_spare(struct httpd_listener *l)
{
	if (!l->is_unix || l->spare >= 0)
		return true;
	l->spare = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
	if (l->spare >= 0)
		return true;
	loop_timer_in(l->pause, ACCEPT_PAUSE);
	return false;
}

static bool spare_is_away(const struct httpd *h)
{
	for (const struct httpd_listener *l = h->listeners; l; l = l->next)
		if (l->is_unix && l->spare < 0)
			return true;
	return false;
}

/* A descriptor may have come free: before anything else of this program has it. Who waited is served at once. */
static void take_spares(struct httpd *h)
{
	for (struct httpd_listener *l = h->listeners; l; l = l->next)
		if (l->is_unix && l->spare < 0 && take_spare(l))
			loop_io_set(l->io, EPOLLIN);
}

/* Unlinks the connection; its stream has been taken away or ended before. */
static void conn_drop(struct httpd_conn *c)
{
	struct httpd *h = c->h;

	if (c->dead)
		return;
	c->dead = true;
	DL_DELETE(h->conns, c);
	h->n_conns--;
	if (h->burst >= BURST_LEAST && h->n_conns <= h->burst / 16) {
		h->burst = 0;
		loop_timer_in(h->calm, BURST_USEC);
	}
	loop_timer_free(c->timer);
	c->timer = NULL;
	take_spares(h);
	loop_defer_free(h->loop, c, conn_bury);
}

/* The client is gone (or the server goes): whoever holds the request hears of it. */
static void conn_abort(struct httpd_conn *c)
{
	struct httpd_req *q = c->q;

	if (c->dead)
		return;
	if (q && c->state == CONN_STATE_BUSY && q->gone)
		q->gone(q->gone_data);
	if (c->q)
		req_drop(c->q);
	stream_free(TAKE(c->s));
	conn_drop(c);
}

static void conn_finish(struct httpd_conn *c)
{
	if (c->q)
		req_drop(c->q);
	/* What is written to a Unix socket is the other side's already: no need to keep a descriptor that is missing. */
	if (c->peer.is_unix && !stream_pending(c->s) && spare_is_away(c->h))
		stream_free(TAKE(c->s));
	else
		stream_finish(TAKE(c->s));
	conn_drop(c);
}

static int conn_write(struct httpd_conn *c, const void *p, size_t n)
{
	/* An answer is written whole: what one request may cost is the handler's decision. */
	stream_set_limits(c->s, stream_pending(c->s) + n + STREAM_QUEUE_MAX, 0);
	return stream_write(c->s, p, n);
}

/* A refusal before there is a request; the connection ends with it. */
static void conn_refuse(struct httpd_conn *c, int status)
{
	CLEANUP(buf_done) struct buf b = { .max = 4096 };

	http_put_status(&b, status);
	http_put_header(&b, "Content-Type", "text/plain; charset=utf-8");
	http_put_header(&b, "Connection", "close");
	http_put_header_int(&b, "Content-Length", (int64_t)strlen(http_reason(status)) + 1);
	http_put_end(&b);
	buf_printf(&b, "%s\n", http_reason(status));
	if (!b.bad)
		conn_write(c, buf_data(&b), b.len);
	conn_finish(c);
}

/* ---- routing */

/* The longest path that fits; *ret_other_method says that a path fits but its method does not. */
static const struct httpd_route_entry *route_find(const struct httpd *h, const struct http_head *head,
						  bool *ret_other_method)
{
	const struct httpd_route_entry *best = NULL;
	bool is_head = http_str_eq(head->method, "HEAD");

	*ret_other_method = false;
	for (size_t i = 0; i < h->n_routes; i++) {
		const struct httpd_route_entry *e = &h->routes[i];

		if (e->prefix ? head->path.len < e->len : head->path.len != e->len)
			continue;
		if (memcmp(head->path.p, e->path, e->len) != 0)
			continue;
		if (e->method && !http_str_eq(head->method, e->method) && !(is_head && strcmp(e->method, "GET") == 0)) {
			*ret_other_method = true;
			continue;
		}
		/* Exact beats prefix of the same length, a named method beats any. */
		if (!best || e->len > best->len || (e->len == best->len && best->prefix && !e->prefix) ||
		    (e->len == best->len && best->prefix == e->prefix && !best->method && e->method))
			best = e;
	}
	return best;
}

int httpd_route(struct httpd *h, const char *method, const char *path, size_t body_max, httpd_fn *fn, void *data)
{
	struct httpd_route_entry *all = reallocarray(h->routes, h->n_routes + 1, sizeof(*all));
	struct httpd_route_entry e = { .body_max = body_max, .fn = fn, .data = data, .len = strlen(path) };

	if (!all)
		return -ENOMEM;
	h->routes = all;
	for (struct httpd_conn *c = h->conns; c; c = c->next)
		assert(!c->q); /* routes are made before anybody is served: requests point into the table */
	if (e.len == 0)
		return -EINVAL;
	e.prefix = path[e.len - 1] == '/' || path[e.len - 1] == '*';
	if (path[e.len - 1] == '*')
		e.len--;
	if (strcmp(path, "/") == 0)
		e.prefix = false; /* the front page; everything is "/" followed by a star */
	e.path = strdup(path);
	e.method = method ? strdup(method) : NULL;
	if (!e.path || (method && !e.method)) {
		free(e.path);
		free(e.method);
		return -ENOMEM;
	}
	h->routes[h->n_routes++] = e;
	return 0;
}

/* ---- one request */

static void next_request(struct httpd_conn *c)
{
	c->state = CONN_STATE_IDLE;
	c->since_usec = loop_now(c->h->loop);
	DL_DELETE(c->h->conns, c);
	DL_APPEND(c->h->conns, c);
	c->unsent = stream_pending(c->s);
	loop_timer_in(c->timer, c->h->o.idle_usec);
	stream_resume(c->s); /* what was sent behind the request waits in the stream */
}

static void answered(struct httpd_req *q)
{
	struct httpd_conn *c = q->c;

	if (!q->keep) {
		conn_finish(c);
		return;
	}
	req_drop(q);
	next_request(c);
}

static void put_answer_head(struct httpd_req *q, struct buf *b, int status, const char *type)
{
	http_put_status(b, status);
	if (type)
		http_put_header(b, "Content-Type", type);
	if (q->c->h->server)
		http_put_header(b, "Server", q->c->h->server);
	if (!q->keep)
		http_put_header(b, "Connection", "close");
	else if (q->head.minor == 0)
		http_put_header(b, "Connection", "keep-alive");
	buf_put(b, buf_data(&q->extra), q->extra.len);
	b->bad |= q->extra.bad;
}

void httpd_header(struct httpd_req *q, const char *name, const char *value)
{
	http_put_header(&q->extra, name, value);
}

void httpd_respond(struct httpd_req *q, int status, const char *type, const void *body, size_t len)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	bool bodyless = status == 204 || status == 304 || status < 200;

	assert(!q->started);
	put_answer_head(q, &b, status, type);
	if (!bodyless)
		http_put_header_int(&b, "Content-Length", (int64_t)len);
	http_put_end(&b);
	if (!q->is_head && !bodyless)
		buf_put(&b, body, len);
	if (b.bad || conn_write(q->c, buf_data(&b), b.len) < 0)
		q->keep = false; /* too big, out of memory, or the client has gone: the stream says so itself */
	answered(q);
}

void httpd_respond_text(struct httpd_req *q, int status, const char *text)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	buf_printf(&b, "%s\n", text);
	httpd_respond(q, status, "text/plain; charset=utf-8", buf_data(&b), b.len);
}

int httpd_respond_start(struct httpd_req *q, int status, const char *type)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	int r;

	assert(!q->started);
	q->started = true;
	q->chunks = q->head.minor == 1;
	if (!q->chunks)
		q->keep = false; /* its end is the connection's */
	put_answer_head(q, &b, status, type);
	if (q->chunks)
		http_put_header(&b, "Transfer-Encoding", "chunked");
	http_put_end(&b);
	r = b.bad ? -ENOMEM : conn_write(q->c, buf_data(&b), b.len);
	if (r < 0)
		q->keep = false;
	return r;
}

int httpd_send(struct httpd_req *q, const void *p, size_t n)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	size_t queued = stream_pending(q->c->s);

	if (n == 0 || q->is_head)
		return 0;
	if (n > STREAM_QUEUE_MAX || queued > STREAM_QUEUE_MAX - n)
		return -ENOBUFS;
	if (!q->chunks)
		return conn_write(q->c, p, n);
	buf_printf(&b, "%zx\r\n", n);
	buf_put(&b, p, n);
	buf_put(&b, "\r\n", 2);
	return b.bad ? -ENOMEM : conn_write(q->c, buf_data(&b), b.len);
}

size_t httpd_pending(const struct httpd_req *q)
{
	return stream_pending(q->c->s);
}

void httpd_end(struct httpd_req *q)
{
	assert(q->started);
	if (q->chunks && !q->is_head && conn_write(q->c, "0\r\n\r\n", 5) < 0)
		q->keep = false;
	answered(q);
}

void httpd_on_gone(struct httpd_req *q, loop_fn *fn, void *data)
{
	q->gone = fn;
	q->gone_data = data;
}

static void orphan_closed(void *data, struct stream *s, int error, const char *why)
{
	(void)data;
	(void)error;
	(void)why;
	stream_free(s);
}

static void orphan_input(void *data, struct stream *s)
{
	(void)data;
	(void)s;
}

struct stream *httpd_take(struct httpd_req *q)
{
	static const struct stream_ops orphan = { .on_input = orphan_input, .on_closed = orphan_closed };
	struct httpd_conn *c = q->c;
	struct stream *s = TAKE(c->s);

	stream_set_ops(s, &orphan, NULL);
	req_drop(q);
	conn_drop(c);
	return s;
}

const struct http_head *httpd_head(const struct httpd_req *q)
{
	return &q->head;
}

struct http_str httpd_path(const struct httpd_req *q)
{
	return q->head.path;
}

const uint8_t *httpd_body(const struct httpd_req *q, size_t *ret_len)
{
	*ret_len = q->body.len;
	return buf_data(&q->body);
}

const struct httpd_peer *httpd_peer_of(const struct httpd_req *q)
{
	return &q->c->peer;
}

struct loop *httpd_loop(const struct httpd_req *q)
{
	return q->c->h->loop;
}

/* ---- reading */

/* False: it has been refused. With a body, which nobody will read, the connection ends. */
static bool gate_opens(struct httpd_req *q)
{
	const struct httpd_opts *o = &q->c->h->o;
	bool keep = q->keep;

	if (!o->gate)
		return true;
	q->keep = keep && !q->head.chunked && q->head.content_length <= 0;
	q->c->state = CONN_STATE_BUSY;
	if (!o->gate(o->gate_data, q))
		return false;
	q->keep = keep;
	return true;
}

static int req_new(struct httpd_conn *c, const uint8_t *p, size_t n)
{
	struct httpd_req *q = calloc(1, sizeof(*q));
	bool other;

	if (!q)
		return 500;
	q->c = c;
	c->q = q;
	q->bytes = malloc(n);
	if (!q->bytes)
		return 500;
	memcpy(q->bytes, p, n);
	if (http_request_parse(q->bytes, n, &q->head) < 0)
		return 400;
	q->is_head = http_str_eq(q->head.method, "HEAD");
	q->keep = q->head.keep_alive;
	q->extra.max = HTTP_HEAD_MAX;
	q->route = route_find(c->h, &q->head, &other);
	if (!q->route) {
		if (q->head.chunked || q->head.content_length > 0)
			return other ? 405 : 404;
		c->state = CONN_STATE_BUSY;
		httpd_respond_text(q, other ? 405 : 404, http_reason(other ? 405 : 404));
		return 0;
	}
	if (!gate_opens(q))
		return 0;
	if (q->head.content_length > 0 && (uint64_t)q->head.content_length > q->route->body_max)
		return 413;
	if (q->head.chunked && q->route->body_max == 0)
		return 413;
	q->body.max = q->route->body_max + 1;
	c->state = CONN_STATE_BODY;
	if (http_has_token(&q->head, "Expect", "100-continue"))
		conn_write(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	return 0;
}

/* 0 go on, 1 wait for bytes, above 99 a status to refuse with. */
static int head_input(struct httpd_conn *c)
{
	struct buf *in = stream_input(c->s);
	struct http_head probe;
	int n, r;

	if (in->len == 0)
		return 1;
	if (c->state == CONN_STATE_IDLE) {
		c->state = CONN_STATE_HEAD;
		loop_timer_in(c->timer, c->h->o.head_usec);
	}
	n = http_request_parse(buf_data(in), in->len, &probe);
	if (n == -EAGAIN)
		return 1;
	if (n < 0)
		return n == -ENOBUFS ? 431 : n == -EPROTONOSUPPORT ? 505 : 400;
	r = req_new(c, buf_data(in), (size_t)n);
	if (r == 0 && !c->dead && c->s)
		buf_consume(stream_input(c->s), (size_t)n);
	return r;
}

static int body_bytes(struct httpd_req *q, struct buf *in)
{
	size_t want, n;
	int r;

	if (q->head.chunked) {
		r = http_chunked_feed(&q->chunked, buf_data(in), in->len, &q->body);
		if (r < 0)
			return r == -EBADMSG ? 400 : 413;
		buf_consume(in, (size_t)r);
		if (q->body.len > q->route->body_max)
			return 413;
		return q->chunked.done ? 0 : 1;
	}
	want = q->head.content_length > 0 ? (size_t)q->head.content_length - q->body.len : 0;
	n = MIN(want, in->len);
	if (buf_put(&q->body, buf_data(in), n) < 0)
		return 500;
	buf_consume(in, n);
	return n < want ? 1 : 0;
}

static int body_input(struct httpd_conn *c)
{
	struct httpd_req *q = c->q;
	int r = body_bytes(q, stream_input(c->s));

	if (r)
		return r;
	loop_timer_stop(c->timer);
	c->state = CONN_STATE_BUSY;
	q->route->fn(q->route->data, q);
	return 0;
}

static void conn_input(void *data, struct stream *s)
{
	struct httpd_conn *c = data;
	int r = 0;

	(void)s;
	while (!c->dead && r == 0) {
		switch (c->state) {
		case CONN_STATE_IDLE:
			/* Who does not read the last answer is given no other: conn_drained() goes on. */
			r = stream_pending(c->s) ? 1 : head_input(c);
			break;
		case CONN_STATE_HEAD:
			r = head_input(c);
			break;
		case CONN_STATE_BODY:
			r = body_input(c);
			break;
		case CONN_STATE_BUSY:
			r = 1;
			break;
		}
	}
	if (!c->dead && r > 1)
		conn_refuse(c, r);
}

static void conn_drained(void *data, struct stream *s)
{
	struct httpd_conn *c = data;

	if (c->state == CONN_STATE_IDLE)
		stream_resume(s);
}

static void conn_closed(void *data, struct stream *s, int error, const char *why)
{
	struct httpd_conn *c = data;

	(void)why;
	/* One that has asked all it wanted and says so still reads what is on its way. */
	if (!error && c->state == CONN_STATE_IDLE && stream_pending(s))
		conn_finish(c);
	else
		conn_abort(c);
}

static void conn_timeout(void *data)
{
	struct httpd_conn *c = data;
	size_t unsent = stream_pending(c->s);

	if (c->state == CONN_STATE_IDLE && unsent && unsent < c->unsent) {
		c->unsent = unsent; /* slow, but reading */
		loop_timer_in(c->timer, c->h->o.idle_usec);
		return;
	}
	if (c->state == CONN_STATE_BODY || (c->state == CONN_STATE_HEAD && stream_ready(c->s)))
		conn_refuse(c, 408);
	else
		conn_abort(c);
}

/* ---- accepting */

static void peer_groups(int fd, struct httpd_peer *p)
{
	CLEANUP(free) gid_t *all = NULL;
	socklen_t n = sizeof(p->groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, p->groups, &n) == 0) {
		p->n_groups = n / sizeof(gid_t);
		return;
	}
	if (errno != ERANGE || n > 65536 * sizeof(gid_t))
		return;
	all = malloc(n);
	if (all && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, all, &n) == 0) {
		p->n_groups = MIN(n / sizeof(gid_t), (size_t)HTTPD_GROUPS_MAX);
		memcpy(p->groups, all, p->n_groups * sizeof(gid_t));
	}
}

static void peer_fill(const struct httpd_listener *l, int fd, const struct sockaddr *sa, struct httpd_peer *p)
{
	struct ucred u;
	socklen_t n = sizeof(u);

	p->is_unix = l->is_unix;
	p->is_tls = l->tls != NULL;
	p->uid = (uid_t)-1;
	p->gid = (gid_t)-1;
	if (!l->is_unix) {
		endpoint_from_sockaddr(sa, &p->remote);
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) == 0) {
		p->uid = u.uid;
		p->gid = u.gid;
		p->pid = u.pid;
		peer_groups(fd, p);
	}
}

/* One user of this machine, or what one customer of a provider has: an IPv4 address, an IPv6 /64. */
static bool same_origin(const struct httpd_peer *a, const struct httpd_peer *b)
{
	const struct addr *x = &a->remote.addr, *y = &b->remote.addr;

	if (a->is_unix || b->is_unix)
		return a->is_unix && b->is_unix && a->uid == b->uid;
	return x->family == y->family && memcmp(x->b, y->b, x->family == 6 ? 8 : sizeof(x->b)) == 0;
}

/* Root and the user that we are may do more to us than to ask. */
static bool is_operator(const struct httpd_peer *p)
{
	return p->is_unix && (p->uid == 0 || p->uid == geteuid());
}

static bool over_limit(const struct httpd *h, const struct httpd_peer *p)
{
	unsigned int same = 0, most = h->o.max_conns_per_addr;

	if (h->n_conns >= h->o.max_conns)
		return true;
	if (is_operator(p))
		return false;
	/* No user may keep the others out; and all together, of which one person can be many (subuid),
	 * not root. */
	if (p->is_unix && h->n_conns >= h->o.max_conns / 4 * 3)
		return true;
	if (p->is_unix)
		most = MIN(most, h->o.max_conns / 4);
	else if (addr_is_loopback(&p->remote.addr))
		return false;
	for (const struct httpd_conn *c = h->conns; c; c = c->next)
		same += same_origin(&c->peer, p);
	return same >= most;
}

/* Once a minute: it is the operator's limit that is too low, or somebody's flood. */
static void say_short(struct httpd *h, const char *why)
{
	uint64_t now = loop_now(h->loop);

	if (h->short_said_usec && now - h->short_said_usec < SHORT_SAID_USEC)
		return;
	h->short_said_usec = now;
	log_warning("no room for new connections (%s): they wait, and the oldest that ask nothing are closed", why);
}

/* Who is honest asks within a round trip or two: who has asked nothing for longest makes room, so that silent
 * connections do not keep others out. */
static bool make_room(struct httpd *h)
{
	uint64_t now = loop_now(h->loop);
	struct httpd_conn *c = h->conns;

	for (int i = 0; c && i < ROOM_LOOKS_MAX; i++, c = c->next) {
		if (c->state == CONN_STATE_BUSY || c->peer.is_unix || now - c->since_usec < ROOM_AGE_USEC)
			continue;
		conn_abort(c);
		return true;
	}
	return false;
}

/* The last descriptor is for the operator: any other user could hold it. The rest of the answer is not waited for. */
static void refuse_stranger(int fd)
{
	static const char text[] = "HTTP/1.1 503 Service Unavailable\r\n"
				   "Content-Type: text/plain; charset=utf-8\r\n"
				   "Connection: close\r\n"
				   "Content-Length: 23\r\n\r\n"
				   "no descriptor is free\r\n";

	send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int conn_new(struct httpd_listener *l, int fd, const struct sockaddr *sa)
{
	static const struct stream_ops ops = {
		.on_input = conn_input,
		.on_drained = conn_drained,
		.on_closed = conn_closed,
	};
	CLEANUP(free) struct httpd_conn *c = calloc(1, sizeof(*c));
	struct httpd *h = l->h;
	struct stream_opts so = { .ops = &ops, .tls = l->tls, .in_max = IN_MAX, .handshake_usec = h->o.head_usec };
	int r;

	if (!c)
		return -ENOMEM;
	c->h = h;
	peer_fill(l, fd, sa, &c->peer);
	if (!take_spare(l) && !is_operator(&c->peer)) {
		refuse_stranger(fd);
		return -EMFILE;
	}
	if (over_limit(h, &c->peer))
		return -EUSERS;
	r = loop_timer_new(h->loop, conn_timeout, c, &c->timer);
	if (r < 0)
		return r;
	so.data = c;
	r = stream_new(h->loop, fd, &so, &c->s);
	if (r < 0) {
		loop_timer_free(c->timer);
		return r;
	}
	loop_timer_in(c->timer, h->o.head_usec);
	c->since_usec = loop_now(h->loop);
	DL_APPEND(h->conns, c);
	h->n_conns++;
	h->burst = MAX(h->burst, h->n_conns);
	TAKE(c);
	return 0;
}

/* The connection stays in the backlog and would wake us for ever. */
static void accept_pause(struct httpd_listener *l)
{
	loop_io_set(l->io, 0);
	loop_timer_in(l->pause, ACCEPT_PAUSE);
}

/* For accept4() there is a descriptor again: the one that was kept for it. */
static bool give_spare(struct httpd_listener *l)
{
	if (l->spare < 0)
		return false;
	l->spare = fd_close(l->spare);
	return true;
}

/* Somebody waits and there is no room: true when it has been made, else what waits goes on waiting in the backlog,
 * without being a connection of ours. */
static bool accept_room(struct httpd_listener *l, const char *why)
{
	struct pollfd p = { .fd = l->fd, .events = POLLIN };

	if (poll(&p, 1, 0) != 1) /* accept4() looks for a descriptor before it looks for a connection */
		return false;
	say_short(l->h, why);
	if (make_room(l->h) || give_spare(l))
		return true;
	accept_pause(l);
	return false;
}

static bool accept_full(const struct httpd_listener *l)
{
	return !l->is_unix && l->h->n_conns >= l->h->o.max_conns;
}

static void accept_event(void *data, int fd, uint32_t events)
{
	struct httpd_listener *l = data;

	(void)events;
	if (loop_short_of_memory(l->h->loop)) {
		say_short(l->h, strerror(ENOMEM));
		for (int i = 0; i < ROOM_AT_ONCE && make_room(l->h); i++)
			;
		accept_pause(l);
		return;
	}
	for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
		union sockaddr_any a = { 0 };
		socklen_t n = sizeof(a);
		int c;

		if (accept_full(l) && !accept_room(l, "as many as are allowed"))
			return;
		c = accept4(fd, &a.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (c >= 0) {
			int r = conn_new(l, c, &a.sa);

			if (r < 0) {
				close(c);
				take_spare(l);
			}
			if (r != -ENOMEM)
				continue;
			say_short(l->h, strerror(ENOMEM));
			accept_pause(l);
			return;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			if (accept_room(l, strerror(errno)))
				continue;
			return;
		}
		if (errno == EAGAIN)
			return;
	}
}

static void accept_again(void *data)
{
	struct httpd_listener *l = data;

	loop_io_set(l->io, EPOLLIN);
	take_spare(l);
}

static void listener_free(struct httpd_listener *l)
{
	if (!l)
		return;
	loop_io_free(l->io);
	loop_timer_free(l->pause);
	tls_ctx_unref(l->tls);
	fd_close(l->spare);
	fd_close(l->fd);
	if (l->path)
		unlink(l->path);
	free(l->path);
	free(l);
}
DEFINE_CLEANUP(struct httpd_listener *, listener_free)

int httpd_listen_fd(struct httpd *h, int fd, struct tls_ctx *tls)
{
	CLEANUP(listener_free) struct httpd_listener *l = calloc(1, sizeof(*l));
	int domain = 0, r;
	socklen_t n = sizeof(domain);

	if (!l)
		return -ENOMEM;
	l->fd = l->spare = -1;
	l->h = h;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
		return -errno;
	l->is_unix = domain == AF_UNIX;
	r = loop_timer_new(h->loop, accept_again, l, &l->pause);
	if (r < 0)
		return r;
	r = loop_io_new(h->loop, fd, EPOLLIN, accept_event, l, &l->io);
	if (r < 0)
		return r;
	l->tls = tls ? tls_ctx_ref(tls) : NULL;
	l->fd = fd;
	if (!take_spare(l)) {
		r = -EMFILE;
		l->fd = -1; /* the caller's */
		return r;
	}
	l->next = h->listeners;
	h->listeners = TAKE(l);
	return 0;
}

int httpd_listen_tcp(struct httpd *h, const struct endpoint *at, struct tls_ctx *tls, struct endpoint *bound)
{
	CLEANUP(fd_close) int fd = -1;
	union sockaddr_any a;
	socklen_t n = endpoint_to_sockaddr(at, &a);
	int one = 1, zero = 0, r;

	if (n == 0)
		return -EINVAL;
	fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a.sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, addr_is_unspecified(&at->addr) ? &zero : &one,
			   sizeof(int));
	if (bind(fd, &a.sa, n) < 0 || listen(fd, 1024) < 0)
		return -errno;
	n = sizeof(a);
	if (bound && (getsockname(fd, &a.sa, &n) < 0 || endpoint_from_sockaddr(&a.sa, bound) < 0))
		return -EINVAL;
	r = httpd_listen_fd(h, fd, tls);
	if (r == 0)
		TAKE_FD(fd);
	return r;
}

/* Somebody answers: -EADDRINUSE. A socket that nobody answers on is removed; anything else is left alone. */
static int clear_stale(const struct sockaddr_un *a)
{
	CLEANUP(fd_close) int fd = -1;
	struct stat st;

	if (lstat(a->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno == EAGAIN)
		return -EADDRINUSE;
	if (errno != ECONNREFUSED)
		return -errno;
	return unlink(a->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

int httpd_listen_unix(struct httpd *h, const char *path, mode_t mode)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	CLEANUP(fd_close) int fd = -1;
	int r;

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, path, strlen(path));
	r = clear_stale(&a);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	fchmod(fd, mode); /* never wider than asked for, from the first moment */
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	if (chmod(path, mode) < 0 || listen(fd, 128) < 0) {
		r = -errno;
		unlink(path);
		return r;
	}
	r = httpd_listen_fd(h, fd, NULL);
	if (r < 0) {
		unlink(path);
		return r;
	}
	TAKE_FD(fd);
	h->listeners->path = strdup(path);
	return 0;
}

void httpd_stop_listening(struct httpd *h)
{
	while (h->listeners) {
		struct httpd_listener *l = h->listeners;

		h->listeners = l->next;
		listener_free(l);
	}
}

unsigned int httpd_conns(const struct httpd *h)
{
	return h->n_conns;
}

/* ---- life */

/* What many connections took would stay ours, in pieces between what is in use. */
static void httpd_trim(void *data)
{
	(void)data;
	malloc_trim(0);
}

int httpd_new(struct loop *l, const struct httpd_opts *o, struct httpd **ret)
{
	CLEANUP(httpd_free) struct httpd *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return -ENOMEM;
	h->loop = l;
	if (o)
		h->o = *o;
	if (!h->o.max_conns)
		h->o.max_conns = MAX_CONNS_DEFAULT;
	if (!h->o.max_conns_per_addr)
		h->o.max_conns_per_addr = MAX_PER_ADDR_DEFAULT;
	if (!h->o.head_usec)
		h->o.head_usec = HEAD_DEFAULT;
	if (!h->o.idle_usec)
		h->o.idle_usec = IDLE_DEFAULT;
	if (h->o.server) {
		h->server = strdup(h->o.server);
		if (!h->server)
			return -ENOMEM;
	}
	r = loop_timer_new(l, httpd_trim, h, &h->calm);
	if (r < 0)
		return r;
	*ret = TAKE(h);
	return 0;
}

static void httpd_bury(void *p)
{
	struct httpd *h = p;

	for (size_t i = 0; i < h->n_routes; i++) {
		free(h->routes[i].method);
		free(h->routes[i].path);
	}
	free(h->routes);
	free(h->server);
	free(h);
}

void httpd_free(struct httpd *h)
{
	if (!h || h->dead)
		return;
	h->dead = true;
	httpd_stop_listening(h);
	while (h->conns)
		conn_abort(h->conns);
	loop_timer_free(h->calm);
	loop_defer_free(h->loop, h, httpd_bury);
}
