/* httpd, httpc, stream, tls and dial together, over real sockets of this process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/httpc.h"
#include "lib/httpd.h"
#include "lib/key.h"

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

static void guard(void *data)
{
	(void)data;
	fail_msg("took too long");
}

static void open_world(struct world *w, const struct httpd_opts *o)
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

static void close_world(struct world *w)
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

static void hello(void *data, struct httpd_req *q)
{
	struct world *w = data;

	w->calls++;
	w->may = httpd_peer_may(httpd_peer_of(q), getuid(), (gid_t)-1);
	httpd_header(q, "X-Path", "hello");
	httpd_respond_text(q, 200, "hello");
}

static void echo(void *data, struct httpd_req *q)
{
	struct world *w = data;
	size_t n;
	const uint8_t *p = httpd_body(q, &n);

	w->calls++;
	httpd_respond(q, 200, "application/octet-stream", p, n);
}

static void send_big(void *data, struct httpd_req *q)
{
	((struct world *)data)->calls++;
	httpd_respond(q, 200, NULL, big, sizeof(big));
}

static void held_gone(void *data)
{
	struct world *w = data;

	w->gone++;
	w->held = NULL;
	loop_exit(w->loop, 0);
}

static void later(void *data)
{
	struct world *w = data;

	httpd_respond_text(TAKE(w->held), 202, "later");
}

static void hold(void *data, struct httpd_req *q)
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

static void chunks(void *data, struct httpd_req *q)
{
	(void)data;
	assert_int_equal(httpd_respond_start(q, 200, "text/plain"), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(httpd_send(q, "part ", 5), 0);
	assert_int_equal(httpd_send(q, big, (4u << 20) + 1), -ENOBUFS);
	httpd_end(q);
}

static void taken_input(void *data, struct stream *s)
{
	struct world *w = data;
	struct buf *in = stream_input(s);

	snprintf(w->taken_bytes, sizeof(w->taken_bytes), "%.*s", (int)in->len, (const char *)buf_data(in));
	buf_consume(in, in->len);
	stream_write(s, "raw answer", 10);
}

static void taken_closed(void *data, struct stream *s, int error, const char *why)
{
	struct world *w = data;

	(void)error;
	(void)why;
	stream_free(s);
	w->taken = NULL;
}

static void take(void *data, struct httpd_req *q)
{
	static const struct stream_ops ops = { .on_input = taken_input, .on_closed = taken_closed };
	struct world *w = data;

	w->taken = httpd_take(q);
	stream_set_ops(w->taken, &ops, w);
}

static void routes(struct world *w)
{
	assert_int_equal(httpd_route(w->h, "GET", "/hello", 0, hello, w), 0);
	assert_int_equal(httpd_route(w->h, "POST", "/echo", 1000, echo, w), 0);
	assert_int_equal(httpd_route(w->h, NULL, "/hold", 0, hold, w), 0);
	assert_int_equal(httpd_route(w->h, "GET", "/big", 0, send_big, w), 0);
	assert_int_equal(httpd_route(w->h, "GET", "/chunks/", 0, chunks, w), 0);
	assert_int_equal(httpd_route(w->h, "GET", "/derp", 0, take, w), 0);
}

static void listen_tcp(struct world *w)
{
	struct endpoint any = { .addr = addr_v4(127, 0, 0, 1) };

	routes(w);
	assert_int_equal(httpd_listen_tcp(w->h, &any, w->server, &w->at), 0);
}

/* ---- httpc */

static void answered(void *data, int r, const struct httpc_answer *a, const char *why)
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

static void ask(struct world *w, const char *path, struct httpc_opts *o)
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

static void raw_input(void *data, struct stream *s)
{
	struct world *w = data;
	struct buf *in = stream_input(s);

	buf_put(&w->in, buf_data(in), in->len);
	buf_consume(in, in->len);
	if (w->raw_want && w->in.len >= w->raw_want)
		loop_exit(w->loop, 0);
}

static int see_cert(void *data, const struct tls_cert *c)
{
	struct world *w = data;

	if (!w->certs++)
		memcpy(w->leaf, c->sha256, 32);
	w->last_cert = *c;
	return 0;
}

static void raw_ready(void *data, struct stream *s)
{
	struct world *w = data;

	w->certs = 0;
	if (stream_is_tls(s)) {
		assert_int_equal(stream_tls_version(s), 0x0304);
		assert_true(stream_peer_certs(s, see_cert, w) > 0);
	}
}

static void raw_closed(void *data, struct stream *s, int error, const char *why)
{
	struct world *w = data;

	(void)s;
	w->raw_closed++;
	w->raw_error = error;
	snprintf(w->raw_why, sizeof(w->raw_why), "%s", why);
	loop_exit(w->loop, 0);
}

static const struct stream_ops raw_ops = { .on_ready = raw_ready, .on_input = raw_input, .on_closed = raw_closed };

static int connect_raw(const struct world *w)
{
	union sockaddr_any a;
	socklen_t n = endpoint_to_sockaddr(&w->at, &a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, &a.sa, n), 0);
	return fd;
}

static void raw(struct world *w, const struct tls_expect *e, const char *text)
{
	struct stream_opts so = { .ops = &raw_ops, .data = w, .tls = e ? w->client : NULL };

	if (e)
		so.expect = *e;
	assert_int_equal(stream_new(w->loop, connect_raw(w), &so, &w->raw), 0);
	assert_int_equal(stream_write(w->raw, text, strlen(text)), 0);
	loop_run(w->loop);
	buf_str(&w->in);
}

/* ---- tests */

static void test_plain(void **state)
{
	struct world w;
	struct httpc_opts o = { 0 };

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	ask(&w, "/hello", &o);
	assert_int_equal(w.r, 0);
	assert_int_equal(w.status, 200);
	assert_string_equal(buf_str(&w.body), "hello\n");
	assert_false(w.may); /* rights are for Unix sockets */
	close_world(&w);
}

static void test_statuses(void **state)
{
	static const struct {
		const char *text, *want;
	} t[] = {
		{ "GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 " },
		{ "POST /hello HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 " },
		{ "GET /hello HTTP/1.1\nConnection: close\n\n", "HTTP/1.1 400 " },
		{ "GET /hello HTTP/3.0\r\n\r\n", "HTTP/1.1 505 " },
		{ "POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", "HTTP/1.1 413 " },
		{ "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", "HTTP/1.1 200 " },
		{ "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400 " },
		{ "GET /hello HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 413 " },
		{ "HEAD /hello HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char text[4096];
		struct world w;

		if (i == 5) /* one byte over the limit, in chunks */
			snprintf(text, sizeof(text), "%s%01001d\r\n0\r\n\r\n", t[i].text, 0);
		else
			snprintf(text, sizeof(text), "%s", t[i].text);
		open_world(&w, NULL);
		listen_tcp(&w);
		raw(&w, NULL, text);
		assert_int_equal(w.raw_closed, 1);
		if (strncmp((char *)w.in.data, i == 5 ? "HTTP/1.1 413 " : t[i].want, 13) != 0)
			fail_msg("%s -> %s", text, (char *)w.in.data);
		if (i == 8) {
			assert_non_null(strstr((char *)w.in.data, "Content-Length: 6"));
			assert_null(strstr((char *)w.in.data, "\r\n\r\nhello"));
		}
		close_world(&w);
	}
}

static void test_pipeline(void **state)
{
	static const char two[] = "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\noneGET /nothing HTTP/1.1\r\n\r\n"
				  "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
	struct world w;
	const char *at;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	raw(&w, NULL, two);
	assert_int_equal(w.calls, 2);
	assert_int_equal(w.raw_error, 0);
	at = strstr((char *)w.in.data, "\r\n\r\none");
	assert_non_null(at);
	at = strstr(at, "HTTP/1.1 404");
	assert_non_null(at);
	assert_non_null(strstr(at, "\r\n\r\ntwo"));
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);
}

static void test_held(void **state)
{
	struct httpc_opts o = { 0 };
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	ask(&w, "/hold?answer=1", &o);
	assert_int_equal(w.r, 0);
	assert_int_equal(w.status, 202);
	assert_int_equal(w.gone, 0);
	close_world(&w);

	open_world(&w, NULL);
	listen_tcp(&w);
	raw(&w, NULL, "GET /hold HTTP/1.1\r\n\r\n");
	assert_int_equal(w.gone, 1);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);

	/* the server goes while it holds */
	open_world(&w, NULL);
	listen_tcp(&w);
	w.raw_want = 1;
	raw(&w, NULL, "GET /hello HTTP/1.1\r\n\r\n");
	httpd_free(TAKE(w.h));
	close_world(&w);
}

static void test_stream_answer(void **state)
{
	struct httpc_opts o = { 0 };
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	ask(&w, "/chunks/x", &o);
	assert_int_equal(w.r, 0);
	assert_string_equal(buf_str(&w.body), "part part part ");
	close_world(&w);
	/* HTTP/1.0 has no chunks: the end of the connection is the end of the answer */
	open_world(&w, NULL);
	listen_tcp(&w);
	raw(&w, NULL, "GET /chunks/x HTTP/1.0\r\n\r\n");
	assert_non_null(strstr((char *)w.in.data, "\r\n\r\npart part part "));
	assert_null(strstr((char *)w.in.data, "chunked"));
	close_world(&w);
}

static void test_big(void **state)
{
	struct httpc_opts o = { .max_body = BIG };
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	ask(&w, "/big", &o);
	assert_int_equal(w.r, 0);
	assert_int_equal(w.body.len, BIG);
	assert_memory_equal(buf_data(&w.body), big, BIG);
	close_world(&w);
	open_world(&w, NULL);
	listen_tcp(&w);
	o = (struct httpc_opts){ .max_body = BIG - 1 };
	ask(&w, "/big", &o);
	assert_int_equal(w.r, -ENOBUFS);
	close_world(&w);
}

static void read_on(void *data)
{
	struct world *w = data;

	w->done = w->calls; /* until now nothing was read */
	stream_resume(w->raw);
}

/* Says text, reads nothing for a while, then all until the server closes. */
static void raw_late(struct world *w, const char *text, bool half)
{
	struct stream_opts so = { .ops = &raw_ops, .data = w };
	struct loop_timer *t;

	w->in.max = 5 * BIG;
	assert_int_equal(stream_new(w->loop, connect_raw(w), &so, &w->raw), 0);
	stream_pause(w->raw);
	assert_int_equal(stream_write(w->raw, text, strlen(text)), 0);
	if (half)
		assert_int_equal(shutdown(stream_fd(w->raw), SHUT_WR), 0);
	assert_int_equal(loop_timer_new(w->loop, read_on, w, &t), 0);
	loop_timer_in(t, 100 * USEC_PER_MSEC);
	loop_run(w->loop);
	loop_timer_free(t);
}

/* Who asks and asks and never reads costs one answer, not one for each question. */
static void test_unread(void **state)
{
#define ONE "GET /big HTTP/1.1\r\n\r\n"
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	raw_late(&w, ONE ONE ONE "GET /big HTTP/1.1\r\nConnection: close\r\n\r\n", false);
	assert_int_equal(w.done, 1);
	assert_int_equal(w.calls, 4); /* nobody was forgotten */
	assert_int_equal(w.raw_error, 0);
	assert_in_range(w.in.len, 4u * BIG, 4u * BIG + 4096);
	close_world(&w);
}

/* One that ends its half after the question reads the answer to its last byte. */
static void test_half_close(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	raw_late(&w, ONE, true);
	assert_int_equal(w.done, 1);
	assert_int_equal(w.raw_error, 0);
	assert_in_range(w.in.len, BIG, BIG + 4096);
	assert_memory_equal(buf_data(&w.in) + w.in.len - BIG, big, BIG);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);
}

static void connect_unix(const struct world *w, int *fd, int n)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	memcpy(a.sun_path, w->path, strlen(w->path));
	for (int i = 0; i < n; i++) {
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&a, sizeof(a)), 0);
	}
}

/* A user of this machine cannot take all connections of a socket that is open to everybody. */
static void test_unix_share(void **state)
{
	const struct httpd_opts o = { .max_conns = 16 };
	struct world w;
	int fd[6 + 9];

	(void)state;
	if (geteuid() != 0)
		skip();
	open_world(&w, &o);
	routes(&w);
	assert_int_equal(chmod(w.dir, 0755), 0);
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0666), 0);
	assert_int_equal(seteuid(65534), 0);
	connect_unix(&w, fd, 6);
	assert_int_equal(seteuid(0), 0);
	for (int i = 0; i < 10; i++)
		assert_true(loop_iterate(w.loop, USEC_PER_MSEC) >= 0);
	assert_int_equal(httpd_conns(w.h), 4);
	connect_unix(&w, fd + 6, 9);
	for (int i = 0; i < 10; i++)
		assert_true(loop_iterate(w.loop, USEC_PER_MSEC) >= 0);
	assert_int_equal(httpd_conns(w.h), 13);
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	close_world(&w);
}

/* derp.md trap 2: what stands behind the head belongs to the new owner; and nothing is written for it. */
static void test_take(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	w.raw_want = 10;
	raw(&w, NULL, "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\nclient info");
	assert_string_equal(w.taken_bytes, "client info");
	assert_int_equal(w.in.len, 10);
	assert_memory_equal(w.in.data, "raw answer", 10);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);
}

static void test_unix(void **state)
{
	struct httpc_opts o = { .url = "http://local/hello" };
	struct httpd_peer p = { .is_unix = true, .uid = 1000, .gid = 1000, .n_groups = 1, .groups = { 7 } };
	struct world w;
	struct stat st;

	(void)state;
	open_world(&w, NULL);
	routes(&w);
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0660), 0);
	assert_int_equal(stat(w.path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	/* somebody answers there */
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0660), -EADDRINUSE);
	o.unix_path = w.path;
	ask(&w, "", &o);
	assert_int_equal(w.r, 0);
	assert_int_equal(w.status, 200);
	assert_true(w.may);
	close_world(&w);
	assert_int_equal(access(w.path, F_OK), -1);

	assert_true(httpd_peer_may(&p, 1000, (gid_t)-1));
	assert_true(httpd_peer_may(&p, (uid_t)-1, 7));
	assert_true(httpd_peer_may(&p, (uid_t)-1, 1000));
	assert_false(httpd_peer_may(&p, (uid_t)-1, 8));
	assert_false(httpd_peer_may(&p, 999, (gid_t)-1));
	p.is_unix = false;
	assert_false(httpd_peer_may(&p, 1000, 7));
}

static void test_unix_stale(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct httpc_opts o = { .url = "http://local/hello" };
	struct world w;
	int fd;

	(void)state;
	open_world(&w, NULL);
	routes(&w);
	memcpy(a.sun_path, w.path, strlen(w.path));
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0666), 0);
	httpd_stop_listening(w.h); /* takes its socket with it */
	/* nobody there: the request fails by its callback */
	o.unix_path = w.path;
	ask(&w, "", &o);
	assert_int_equal(w.r, -ENOENT);
	close_world(&w);
	/* what is no socket is left alone */
	open_world(&w, NULL);
	fd = creat(w.path, 0600);
	close(fd);
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0666), -EEXIST);
	unlink(w.path);
	close_world(&w);
}

/* Who comes waits for a place, and whoever has asked nothing for longest makes it, but not within its first moments. */
static void test_limits(void **state)
{
	struct httpd_opts o = { .max_conns = 2 };
	uint64_t from = loop_clock();
	struct world w;
	char c;
	int a, b;

	(void)state;
	open_world(&w, &o);
	listen_tcp(&w);
	a = connect_raw(&w);
	b = connect_raw(&w);
	raw(&w, NULL, "GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n");
	assert_int_equal(w.raw_closed, 1);
	assert_memory_equal(w.in.data, "HTTP/1.1 200 ", 13);
	assert_true(loop_clock() - from >= 250 * USEC_PER_MSEC);
	assert_int_equal(httpd_conns(w.h), 1);
	assert_int_equal(recv(a, &c, 1, MSG_DONTWAIT), 0);
	assert_int_equal(recv(b, &c, 1, MSG_DONTWAIT), -1);
	close(a);
	close(b);
	close_world(&w);
}

static void test_timeouts(void **state)
{
	struct httpd_opts o = { .head_usec = 50 * USEC_PER_MSEC, .idle_usec = 50 * USEC_PER_MSEC };
	struct world w;

	(void)state;
	open_world(&w, &o);
	listen_tcp(&w);
	raw(&w, NULL, "GET /hello HT");
	assert_memory_equal(w.in.data, "HTTP/1.1 408 ", 13);
	close_world(&w);
	open_world(&w, &o);
	listen_tcp(&w);
	raw(&w, NULL, "GET /hello HTTP/1.1\r\n\r\n"); /* answered, then idle */
	assert_memory_equal(w.in.data, "HTTP/1.1 200 ", 13);
	assert_int_equal(w.raw_closed, 1);
	close_world(&w);
	open_world(&w, &o);
	listen_tcp(&w);
	raw(&w, NULL, "POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf");
	assert_memory_equal(w.in.data, "HTTP/1.1 408 ", 13);
	close_world(&w);
}

/* ---- TLS */

static void open_tls(struct world *w, const char *const *names, size_t n)
{
	char cert[64], key[64];
	struct stat st;

	open_world(w, NULL);
	snprintf(cert, sizeof(cert), "%s/cert.pem", w->dir);
	snprintf(key, sizeof(key), "%s/key.pem", w->dir);
	assert_int_equal(tls_server_self(names, n, cert, key, &w->server), 0);
	assert_int_equal(stat(key, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* It is its own CA. */
	assert_int_equal(tls_client_new(cert, &w->client), 0);
	unlink(cert);
	unlink(key);
	listen_tcp(w);
}

static void test_tls_verify(void **state)
{
	static const char *const good[] = { "relay.example.com", "127.0.0.1" }, *const other[] = { "relay.example.com", "127.0.0.2" };
	struct httpc_opts o = { 0 };
	struct world w;

	(void)state;
	open_tls(&w, good, 2);
	ask(&w, "/hello", &o);
	if (w.r)
		fail_msg("%s", w.why);
	assert_int_equal(w.status, 200);
	close_world(&w);

	/* another address in the certificate */
	open_tls(&w, other, 2);
	o = (struct httpc_opts){ 0 };
	ask(&w, "/hello", &o);
	assert_true(w.r < 0);
	assert_non_null(strstr(w.why, "IP address mismatch"));
	assert_int_equal(w.calls, 0);
	close_world(&w);

	/* nobody's CA */
	open_tls(&w, good, 2);
	tls_ctx_unref(w.client);
	assert_int_equal(tls_client_new(NULL, &w.client), 0);
	o = (struct httpc_opts){ 0 };
	ask(&w, "/hello", &o);
	assert_true(w.r < 0);
	assert_non_null(strstr(w.why, "self-signed"));
	close_world(&w);

	/* insecure takes it */
	open_tls(&w, other, 2);
	o = (struct httpc_opts){ .insecure = true };
	ask(&w, "/hello", &o);
	assert_int_equal(w.r, 0);
	close_world(&w);
}

static void test_tls_pin(void **state)
{
	static const char *const names[] = { "x.example" };
	struct httpc_opts o = { 0 };
	struct world w;
	uint8_t pin[32];

	(void)state;
	for (int wrong = 0; wrong < 2; wrong++) {
		open_tls(&w, names, 1);
		assert_int_equal(tls_server_leaf_sha256(w.server, pin), 0);
		pin[31] ^= (uint8_t)wrong;
		o = (struct httpc_opts){ .pin_sha256 = pin };
		ask(&w, "/hello", &o);
		assert_int_equal(w.r, wrong ? -EACCES : 0);
		assert_int_equal(w.calls, !wrong);
		close_world(&w);
	}
}

/* derp.md 3: CN of 71 characters, serial 2, at the end of the chain; clients that verify do not mind it. */
static void make_meta(uint8_t **der, int *len)
{
	static const char cn[] = "derpkey00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	X509 *x = X509_new();

	assert_int_equal(strlen(cn), 71);
	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 2);
	X509_gmtime_adj(X509_getm_notBefore(x), -86400);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_set_pubkey(x, k);
	assert_int_equal(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", V_ASN1_PRINTABLESTRING,
						    (const unsigned char *)cn, -1, -1, 0), 1);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	assert_true(X509_sign(x, k, NULL) > 0);
	*der = NULL;
	*len = i2d_X509(x, der);
	X509_free(x);
	EVP_PKEY_free(k);
}

static void test_tls_meta(void **state)
{
	static const char *const names[] = { "127.0.0.1" };
	struct tls_expect e = { .name = "127.0.0.1" };
	uint8_t *der, leaf[32];
	struct world w;
	int len;

	(void)state;
	open_tls(&w, names, 1);
	make_meta(&der, &len);
	assert_int_equal(tls_server_append_cert(w.server, der, (size_t)len), 0);
	w.raw_want = 10;
	raw(&w, &e, "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\nclient info");
	if (w.raw_closed)
		fail_msg("%s", w.raw_why);
	assert_string_equal(w.taken_bytes, "client info");
	assert_int_equal(w.certs, 2);
	assert_int_equal(tls_server_leaf_sha256(w.server, leaf), 0);
	assert_memory_equal(w.leaf, leaf, 32);
	assert_memory_equal(w.last_cert.cn, "derpkey0011", 11);
	assert_int_equal(strlen(w.last_cert.cn), 71);
	assert_true(w.last_cert.serial_known && w.last_cert.serial == 2);
	OPENSSL_free(der);
	close_world(&w);
}

static void test_tls_files(void **state)
{
	static const char *const one[] = { "a.example" }, *const two[] = { "a.example", "b.example" };
	uint8_t first[32], again[32];
	char dir[] = "/tmp/tls.XXXXXX", cert[64], key[64];
	struct tls_ctx *t;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(cert, sizeof(cert), "%s/c", dir);
	snprintf(key, sizeof(key), "%s/k", dir);
	assert_int_equal(tls_server_new(cert, key, &t), -ENOENT);
	assert_int_equal(tls_server_self(one, 1, cert, key, &t), 0);
	tls_server_leaf_sha256(t, first);
	tls_ctx_unref(t);
	/* kept over a restart */
	assert_int_equal(tls_server_self(one, 1, cert, key, &t), 0);
	tls_server_leaf_sha256(t, again);
	assert_memory_equal(first, again, 32);
	tls_ctx_unref(t);
	/* a name more: made anew */
	assert_int_equal(tls_server_self(two, 2, cert, key, &t), 0);
	tls_server_leaf_sha256(t, again);
	assert_memory_not_equal(first, again, 32);
	assert_int_equal(tls_server_reload(t), 0);
	/* broken files change nothing */
	assert_int_equal(truncate(cert, 10), 0);
	assert_int_equal(tls_server_reload(t), -EBADMSG);
	tls_server_leaf_sha256(t, first);
	assert_memory_equal(first, again, 32);
	tls_ctx_unref(t);
	assert_int_equal(tls_server_self((const char *const[]){ "a,DNS:evil" }, 1, NULL, NULL, &t), -EINVAL);
	unlink(cert);
	unlink(key);
	rmdir(dir);
}

static void test_tls_garbage(void **state)
{
	static const char *const names[] = { "127.0.0.1" };
	struct tls_expect e = { .name = "127.0.0.1" };
	struct world w;

	(void)state;
	/* plain bytes to a TLS listener */
	open_tls(&w, names, 1);
	raw(&w, NULL, "GET /hello HTTP/1.1\r\n\r\n");
	assert_int_equal(w.raw_closed, 1);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);
	/* TLS to a plain listener */
	open_world(&w, NULL);
	assert_int_equal(tls_client_new(NULL, &w.client), 0);
	listen_tcp(&w);
	raw(&w, &e, "GET /hello HTTP/1.1\r\n\r\n");
	assert_int_equal(w.raw_closed, 1);
	assert_true(w.raw_error < 0);
	close_world(&w);
}

/* ---- dial */

static void dial_answer(void *data, int fd, const struct endpoint *to, const char *why)
{
	struct world *w = data;

	w->r = fd;
	if (fd >= 0) {
		w->at = *to;
		close(fd);
	}
	snprintf(w->why, sizeof(w->why), "%s", why);
	loop_exit(w->loop, 0);
}

static void lookup_answer(void *data, int r, const struct addr *a, size_t n, const char *why)
{
	struct world *w = data;

	(void)why;
	w->r = r;
	assert_int_equal(n, r < 0 ? 0 : 1);
	assert_true(r < 0 || addr_is_loopback(a));
	loop_exit(w->loop, 0);
}

static void test_dial(void **state)
{
	struct addr bad_first[] = { addr_v4(127, 0, 0, 3), addr_v4(127, 0, 0, 1) };
	struct dial_opts o = { .mark = DIAL_MARK };
	struct endpoint at;
	struct dial *d;
	struct world w;

	(void)state;
	/* one address refuses, the next one takes it */
	open_world(&w, NULL);
	listen_tcp(&w);
	at = w.at;
	o.addrs = bad_first;
	o.n_addrs = 2;
	assert_int_equal(dial_start(w.loop, "relay.invalid", at.port, &o, dial_answer, &w, &d), 0);
	loop_run(w.loop);
	assert_true(w.r >= 0);
	assert_true(endpoint_equal(&w.at, &at));
	close_world(&w);
	/* nobody there */
	open_world(&w, NULL);
	assert_int_equal(dial_start(w.loop, "[127.0.0.3]", at.port, NULL, dial_answer, &w, &d), 0);
	loop_run(w.loop);
	assert_int_equal(w.r, -ECONNREFUSED);
	assert_non_null(strstr(w.why, "127.0.0.3"));
	close_world(&w);
	/* names by the hosts file, without a resolver */
	open_world(&w, NULL);
	listen_tcp(&w);
	o = (struct dial_opts){ .family = 4 };
	at = w.at;
	assert_int_equal(dial_start(w.loop, "localhost", at.port, &o, dial_answer, &w, &d), 0);
	loop_run(w.loop);
	if (w.r < 0)
		fail_msg("%s", w.why);
	close_world(&w);
	/* only the look-up, with a cache and without one */
	for (int i = 0; i < 2; i++) {
		open_world(&w, NULL);
		if (i == 0)
			assert_int_equal(dial_cache_new(&o.cache), 0);
		assert_int_equal(dial_lookup(w.loop, "localhost", &o, lookup_answer, &w, &d), 0);
		loop_run(w.loop);
		assert_int_equal(w.r, 0);
		assert_int_equal(dial_cache_get(o.cache, "localhost", bad_first, 2), i == 0);
		dial_cache_free(TAKE(o.cache));
		close_world(&w);
	}
	/* given up */
	open_world(&w, NULL);
	assert_int_equal(dial_start(w.loop, "127.0.0.1", at.port, NULL, dial_answer, &w, &d), 0);
	dial_cancel(d);
	close_world(&w);
	open_world(&w, NULL);
	assert_int_equal(dial_start(w.loop, "a b", 1, NULL, dial_answer, &w, &d), -EINVAL);
	close_world(&w);
}

static void test_dial_cache(void **state)
{
	struct addr a = addr_v4(192, 0, 2, 1), out[4];
	struct dial_cache *c;
	char name[32];

	(void)state;
	assert_int_equal(dial_cache_new(&c), 0);
	assert_int_equal(dial_cache_get(c, "x", out, 4), 0);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "host%d", i);
		a.b[3] = (uint8_t)i;
		assert_int_equal(dial_cache_put(c, name, &a, 1), 0);
		assert_int_equal(dial_cache_put(c, "KEPT", &a, 1), 0);
	}
	assert_int_equal(dial_cache_get(c, "host0", out, 4), 0); /* the oldest went */
	assert_int_equal(dial_cache_get(c, "HOST99", out, 4), 1);
	assert_int_equal(out[0].b[3], 99);
	assert_int_equal(dial_cache_get(c, "kept", out, 4), 1);
	dial_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),	    cmocka_unit_test(test_statuses),   cmocka_unit_test(test_pipeline),
		cmocka_unit_test(test_held),	    cmocka_unit_test(test_stream_answer), cmocka_unit_test(test_big),
		cmocka_unit_test(test_take),	    cmocka_unit_test(test_unix),       cmocka_unit_test(test_unix_stale),
		cmocka_unit_test(test_limits),	    cmocka_unit_test(test_timeouts),   cmocka_unit_test(test_tls_verify),
		cmocka_unit_test(test_tls_pin),	    cmocka_unit_test(test_tls_meta),   cmocka_unit_test(test_tls_files),
		cmocka_unit_test(test_tls_garbage), cmocka_unit_test(test_dial),       cmocka_unit_test(test_dial_cache),
		cmocka_unit_test(test_unread),	    cmocka_unit_test(test_half_close),  cmocka_unit_test(test_unix_share),
	};

	if (key_init() < 0)
		return 1;
	randombytes_buf(big, sizeof(big));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
