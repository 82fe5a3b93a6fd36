#pragma once
/* httpd_world: a server and its clients in one loop, over real sockets: what is asked of httpc, tls and dial as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/httpc.h"
#include "lib/httpd.h"

#define BIG (8u << 20) /* more than sockets hold */

struct world {
	struct loop *loop;
	struct httpd *h;
	struct endpoint at;
	struct tls_ctx *server, *client;
	char dir[32], path[64];
	struct loop_timer *timer;
	/* handler side */
	struct httpd_req *held;
	struct stream *taken;
	char taken_bytes[64];
	int calls, gone;
	bool may;
	/* client side */
	int done, r, status;
	char why[256];
	struct buf body;
	/* raw client */
	struct stream *raw;
	struct buf in;
	int raw_closed, raw_error;
	char raw_why[256];
	size_t raw_want; /* leave the loop when so many bytes are here */
	int certs, want_done;
	struct tls_cert last_cert;
	uint8_t leaf[32];
};

static char big[BIG];

static inline void guard(void *data)
{
	(void)data;
	fail_msg("took too long");
}

static inline void open_world(struct world *w, const struct httpd_opts *o)
{
	memset(w, 0, sizeof(*w));
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(loop_timer_new(w->loop, guard, w, &w->timer), 0);
	loop_timer_in(w->timer, 10 * USEC_PER_SEC);
	assert_int_equal(httpd_new(w->loop, o, &w->h), 0);
	snprintf(w->dir, sizeof(w->dir), "/tmp/httpd.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/sock", w->dir);
	w->want_done = 1;
}

static inline void close_world(struct world *w)
{
	stream_free(w->raw);
	stream_free(w->taken);
	httpd_free(w->h);
	tls_ctx_unref(w->server);
	tls_ctx_unref(w->client);
	buf_done(&w->in);
	buf_done(&w->body);
	loop_timer_free(w->timer);
	loop_free(w->loop);
	rmdir(w->dir);
}

/* ---- handlers */

static inline void hello(void *data, struct httpd_req *q)
{
	struct world *w = data;

	w->calls++;
	w->may = httpd_peer_may(httpd_peer_of(q), getuid(), (gid_t)-1);
	httpd_header(q, "X-Path", "hello");
	httpd_respond_text(q, 200, "hello");
}

static inline void echo(void *data, struct httpd_req *q)
{
	struct world *w = data;
	size_t n;
	const uint8_t *p = httpd_body(q, &n);

	w->calls++;
	httpd_respond(q, 200, "application/octet-stream", p, n);
}

static inline void send_big(void *data, struct httpd_req *q)
{
	((struct world *)data)->calls++;
	httpd_respond(q, 200, NULL, big, sizeof(big));
}

static inline void held_gone(void *data)
{
	struct world *w = data;

	w->gone++;
	w->held = NULL;
	loop_exit(w->loop, 0);
}

static inline void later(void *data)
{
	struct world *w = data;

	httpd_respond_text(TAKE(w->held), 202, "later");
}

static inline void hold(void *data, struct httpd_req *q)
{
	struct world *w = data;

	w->calls++;
	w->held = q;
	httpd_on_gone(q, held_gone, w);
	if (http_query_get(httpd_head(q)->query, "answer", (char[8]){ 0 }, 8) >= 0) {
		loop_timer_free(w->timer);
		assert_int_equal(loop_timer_new(w->loop, later, w, &w->timer), 0);
		loop_timer_in(w->timer, 20 * USEC_PER_MSEC);
	} else {
		stream_free(TAKE(w->raw)); /* the client goes away */
	}
}

static inline void chunks(void *data, struct httpd_req *q)
{
	(void)data;
	assert_int_equal(httpd_respond_start(q, 200, "text/plain"), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(httpd_send(q, "part ", 5), 0);
	assert_int_equal(httpd_send(q, big, (4u << 20) + 1), -ENOBUFS);
	httpd_end(q);
}

static inline void taken_input(void *data, struct stream *s)
{
	struct world *w = data;
	struct buf *in = stream_input(s);

	snprintf(w->taken_bytes, sizeof(w->taken_bytes), "%.*s", (int)in->len, (const char *)buf_data(in));
	buf_consume(in, in->len);
	stream_write(s, "raw answer", 10);
}

static inline void taken_closed(void *data, struct stream *s, int error, const char *why)
{
	struct world *w = data;

	(void)error;
	(void)why;
	stream_free(s);
	w->taken = NULL;
}

static inline void take(void *data, struct httpd_req *q)
{
	static const struct stream_ops ops = { .on_input = taken_input, .on_closed = taken_closed };
	struct world *w = data;

	w->taken = httpd_take(q);
	stream_set_ops(w->taken, &ops, w);
}

static inline void routes(struct world *w)
{
	assert_int_equal(httpd_route(w->h, "GET", "/hello", 0, hello, w), 0);
	assert_int_equal(httpd_route(w->h, "POST", "/echo", 1000, echo, w), 0);
	assert_int_equal(httpd_route(w->h, NULL, "/hold", 0, hold, w), 0);
	assert_int_equal(httpd_route(w->h, "GET", "/big", 0, send_big, w), 0);
	assert_int_equal(httpd_route(w->h, "GET", "/chunks/", 0, chunks, w), 0);
	assert_int_equal(httpd_route(w->h, "GET", "/derp", 0, take, w), 0);
}

static inline void listen_tcp(struct world *w)
{
	struct endpoint any = { .addr = addr_v4(127, 0, 0, 1) };

	routes(w);
	assert_int_equal(httpd_listen_tcp(w->h, &any, w->server, &w->at), 0);
}

/* ---- httpc */

static inline void answered(void *data, int r, const struct httpc_answer *a, const char *why)
{
	struct world *w = data;

	w->r = r;
	snprintf(w->why, sizeof(w->why), "%s", why);
	if (a) {
		w->status = a->head->status;
		buf_clear(&w->body);
		buf_put(&w->body, a->body, a->len);
	}
	if (++w->done == w->want_done)
		loop_exit(w->loop, 0);
}

static inline void ask(struct world *w, const char *path, struct httpc_opts *o)
{
	char url[256];
	struct httpc *c;

	snprintf(url, sizeof(url), "%s://127.0.0.1:%u%s", w->server ? "https" : "http", w->at.port ? w->at.port : 80, path);
	if (!o->url)
		o->url = url;
	o->tls = w->client;
	assert_int_equal(httpc_start(w->loop, o, answered, w, &c), 0);
	assert_int_equal(w->done, 0);
	loop_run(w->loop);
}

/* ---- a client that writes what it wants */

static inline void raw_input(void *data, struct stream *s)
{
	struct world *w = data;
	struct buf *in = stream_input(s);

	buf_put(&w->in, buf_data(in), in->len);
	buf_consume(in, in->len);
	if (w->raw_want && w->in.len >= w->raw_want)
		loop_exit(w->loop, 0);
}

static inline int see_cert(void *data, const struct tls_cert *c)
{
	struct world *w = data;

	if (!w->certs++)
		memcpy(w->leaf, c->sha256, 32);
	w->last_cert = *c;
	return 0;
}

static inline void raw_ready(void *data, struct stream *s)
{
	struct world *w = data;

	w->certs = 0;
	if (stream_is_tls(s)) {
		assert_int_equal(stream_tls_version(s), 0x0304);
		assert_true(stream_peer_certs(s, see_cert, w) > 0);
	}
}

static inline void raw_closed(void *data, struct stream *s, int error, const char *why)
{
	struct world *w = data;

	(void)s;
	w->raw_closed++;
	w->raw_error = error;
	snprintf(w->raw_why, sizeof(w->raw_why), "%s", why);
	loop_exit(w->loop, 0);
}

static const struct stream_ops raw_ops = { .on_ready = raw_ready, .on_input = raw_input, .on_closed = raw_closed };

static inline int connect_raw(const struct world *w)
{
	union sockaddr_any a;
	socklen_t n = endpoint_to_sockaddr(&w->at, &a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, &a.sa, n), 0);
	return fd;
}

static inline void raw(struct world *w, const struct tls_expect *e, const char *text)
{
	struct stream_opts so = { .ops = &raw_ops, .data = w, .tls = e ? w->client : NULL };

	if (e)
		so.expect = *e;
	assert_int_equal(stream_new(w->loop, connect_raw(w), &so, &w->raw), 0);
	assert_int_equal(stream_write(w->raw, text, strlen(text)), 0);
	loop_run(w->loop);
	buf_str(&w->in);
}
