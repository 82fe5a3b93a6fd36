#include "lib/httpd_priv.h"

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <utlist.h>

#define BURST_LEAST	     16 /* connections whose memory is worth giving back: each may have had a body of 1 MiB, */
#define BURST_USEC	     USEC_PER_SEC /* so long after they have gone */
#define MAX_CONNS_DEFAULT    4096
#define MAX_PER_ADDR_DEFAULT 256
#define HEAD_DEFAULT	     (10 * USEC_PER_SEC)
#define IDLE_DEFAULT	     (60 * USEC_PER_SEC)
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

/* Unlinks the connection; its stream has been taken away or ended before. */
static void conn_drop(struct httpd_conn *c)
{
	struct httpd *h = c->h;

	if (c->dead)
		return;
	c->dead = true;
	if (c->state == CONN_STATE_ENDING)
		DL_DELETE(h->ending, c);
	else
		DL_DELETE(h->conns, c);
	h->n_conns--;
	if (h->burst >= BURST_LEAST && h->n_conns <= h->burst / 16) {
		h->burst = 0;
		loop_timer_in(h->calm, BURST_USEC);
	}
	loop_timer_free(c->timer);
	c->timer = NULL;
	httpd_listen_take_spares(h);
	loop_defer_free(h->loop, c, conn_bury);
}

void httpd_conn_abort(struct httpd_conn *c)
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

static bool conn_over(const struct httpd_conn *c)
{
	return c->dead || c->state == CONN_STATE_ENDING;
}

static void conn_ended(void *data)
{
	struct httpd_conn *c = data;

	c->s = NULL; /* has freed itself */
	conn_drop(c);
}

/* It has its descriptor until the other side has read all and ended, too: so long it counts. */
static void conn_finish(struct httpd_conn *c)
{
	struct httpd *h = c->h;

	if (c->q)
		req_drop(c->q);
	/* What is written to a Unix socket is the other side's already: no need to keep a descriptor that is missing. */
	if (c->peer.is_unix && !stream_pending(c->s) && httpd_listen_spare_away(h)) {
		stream_free(TAKE(c->s));
		conn_drop(c);
		return;
	}
	loop_timer_stop(c->timer);
	DL_DELETE(h->conns, c);
	DL_APPEND(h->ending, c);
	c->state = CONN_STATE_ENDING;
	c->since_usec = loop_now(h->loop);
	stream_finish(c->s, conn_ended, c);
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
	if (r == 0 && !conn_over(c))
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
		case CONN_STATE_ENDING:
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
		httpd_conn_abort(c);
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
		httpd_conn_abort(c);
}

int httpd_conn_new(struct httpd *h, int fd, struct tls_ctx *tls, const struct httpd_peer *peer)
{
	static const struct stream_ops ops = {
		.on_input = conn_input,
		.on_drained = conn_drained,
		.on_closed = conn_closed,
	};
	CLEANUP(free) struct httpd_conn *c = calloc(1, sizeof(*c));
	struct stream_opts so = { .ops = &ops, .tls = tls, .in_max = IN_MAX, .handshake_usec = h->o.head_usec };
	int r;

	if (!c)
		return -ENOMEM;
	c->h = h;
	c->peer = *peer;
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
		httpd_conn_abort(h->conns);
	while (h->ending) { /* they end by themselves, as they would have */
		struct httpd_conn *c = h->ending;

		stream_finish(TAKE(c->s), NULL, NULL);
		conn_drop(c);
	}
	loop_timer_free(h->calm);
	loop_defer_free(h->loop, h, httpd_bury);
}
