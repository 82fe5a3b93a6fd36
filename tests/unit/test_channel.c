/* The whole way in one process: dial, TLS, HTTP upgrade, Noise, HTTP/2, both roles, over the real loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "lib/dial.h"
#include "lib/h2.h"
#include "lib/httpc.h"
#include "lib/httpd.h"
#include "proto/ts2021.h"
#include "proto/ts2021_conn.h"

#define BIG (6u << 20)

/* One accepted channel of the server. */
struct served {
	struct served *next;
	struct world *w;
	struct ts2021_conn *conn;
	struct h2 *h2;
};

struct world {
	struct loop *loop;
	struct httpd *httpd;
	struct endpoint at;
	struct tls_ctx *server_tls, *client_tls;
	struct key_pair server_key, machine;
	struct served *served;
	struct loop_timer *guard;
	bool tls, early, other_key;
	struct key_pair known_key; /* what the client takes for the server's */
	/* server's view */
	struct h2_stream *poll;
	struct blob *blob;
	int poll_closed, poll_error, seen_version;
	char seen_auth[64];
	struct key seen_machine;
	/* client's view */
	struct dial *dial;
	struct stream *stream;
	struct ts2021_conn *conn;
	struct h2 *h2;
	int ready, closed, close_error;
	char close_why[200];
	struct buf got;
	int status, ended, end_error, n_ended;
	size_t reset_after;
	struct h2_stream *client_stream;
	void (*scene)(struct world *w);
};

static int conn_write(void *data, const uint8_t *p, size_t n)
{
	return ts2021_conn_write(data, p, n);
}

static size_t conn_pending(void *data)
{
	return ts2021_conn_pending(data);
}

static const struct h2_io conn_io = { .write = conn_write, .pending = conn_pending };

/* ---- server */

static void poll_closed(void *data, struct h2_stream *st, int error)
{
	struct world *w = data;

	assert_ptr_equal(st, w->poll);
	assert_int_equal(h2_send(st, "x", 1), -EPIPE);
	w->poll = NULL;
	w->poll_closed++;
	w->poll_error = error;
	if (w->ended)
		loop_exit(w->loop, 0);
}

static void on_request(void *data, struct h2_stream *st, const char *method, const char *path,
		       const uint8_t *body, size_t len)
{
	struct served *s = data;
	struct world *w = s->w;
	const char *lb = h2_header(st, "ts-lb");

	snprintf(w->seen_auth, sizeof(w->seen_auth), "%s %s", method, lb ? lb : "-");
	if (strcmp(path, "/echo") == 0) {
		h2_respond(st, 200, "application/octet-stream", body, len);
	} else if (strcmp(path, "/poll") == 0) {
		w->poll = st;
		h2_on_closed(st, poll_closed, w);
		assert_int_equal(h2_respond_start(st, 200, NULL), 0);
		assert_int_equal(h2_send_blob(st, w->blob), 0);
		assert_int_equal(h2_send(st, "tail", 4), 0);
	} else {
		h2_respond(st, 404, "text/plain", "no\n", 3);
	}
}

static void served_free(struct served *s)
{
	struct served **at = &s->w->served;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	h2_free(s->h2);
	ts2021_conn_free(s->conn);
	free(s);
}

static void served_input(void *data, struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	struct served *s = data;

	(void)c;
	if (h2_feed(s->h2, p, n) < 0)
		served_free(s);
}

static void served_drained(void *data, struct ts2021_conn *c)
{
	struct served *s = data;

	(void)c;
	if (h2_drained(s->h2) < 0)
		served_free(s);
}

static void served_closed(void *data, struct ts2021_conn *c, int error, const char *why)
{
	(void)c;
	(void)error;
	(void)why;
	served_free(data);
}

static const struct ts2021_conn_ops served_ops = { .on_input = served_input,
						   .on_drained = served_drained,
						   .on_closed = served_closed };
static const struct h2_server_ops h2_ops = { .on_request = on_request };

static void upgrade(void *data, struct httpd_req *q)
{
	struct world *w = data;
	struct served *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->w = w;
	if (ts2021_conn_server(q, &w->server_key, w->early, &served_ops, s, &s->conn) < 0) {
		free(s);
		return;
	}
	s->next = w->served;
	w->served = s;
	w->seen_version = ts2021_conn_version(s->conn);
	w->seen_machine = *ts2021_conn_peer(s->conn);
	assert_int_equal(h2_server_new(&conn_io, s->conn, &h2_ops, s, &s->h2), 0);
}

/* ---- client */

static void client_ready(void *data, struct ts2021_conn *c)
{
	struct world *w = data;

	w->ready++;
	assert_int_equal(h2_client_new(&conn_io, c, &w->h2), 0);
	w->scene(w);
}

static void client_input(void *data, struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	struct world *w = data;

	(void)c;
	assert_int_equal(h2_feed(w->h2, p, n), 0);
}

static void client_drained(void *data, struct ts2021_conn *c)
{
	struct world *w = data;

	(void)c;
	assert_int_equal(h2_drained(w->h2), 0);
}

static void client_closed(void *data, struct ts2021_conn *c, int error, const char *why)
{
	struct world *w = data;

	(void)c;
	w->closed++;
	w->close_error = error;
	snprintf(w->close_why, sizeof(w->close_why), "%s", why);
	loop_exit(w->loop, 0);
}

static const struct ts2021_conn_ops client_ops = { .on_ready = client_ready,
						   .on_input = client_input,
						   .on_drained = client_drained,
						   .on_closed = client_closed };

static void early_closed(void *data, struct stream *s, int error, const char *why)
{
	(void)data;
	(void)s;
	fail_msg("stream closed: %d %s", error, why);
}

static void early_input(void *data, struct stream *s)
{
	(void)data;
	(void)s;
	fail_msg("input before the upgrade");
}

static void dialled(void *data, int fd, const struct endpoint *to, const char *why)
{
	static const struct stream_ops none = { .on_input = early_input, .on_closed = early_closed };
	struct world *w = data;
	struct stream_opts so = { .ops = &none, .tls = w->tls ? w->client_tls : NULL };
	struct ts2021_client_opts co = { .host = "127.0.0.1:1", .machine = &w->machine,
					 .server = w->other_key ? &w->known_key.pub : &w->server_key.pub,
					 .version = 131 };

	w->dial = NULL;
	if (fd < 0)
		fail_msg("dial: %s", why);
	assert_int_equal(to->port, w->at.port);
	so.expect.name = "127.0.0.1";
	so.expect.insecure = true;
	assert_int_equal(stream_new(w->loop, fd, &so, &w->stream), 0);
	assert_int_equal(ts2021_conn_client(w->stream, &co, &client_ops, w, &w->conn), 0);
}

static void guard(void *data)
{
	(void)data;
	fail_msg("took too long");
}

static void world_open(struct world *w)
{
	static const char *const names[] = { "127.0.0.1" };
	struct endpoint any = { .addr = addr_v4(127, 0, 0, 1) };

	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(loop_timer_new(w->loop, guard, w, &w->guard), 0);
	loop_timer_in(w->guard, 20 * USEC_PER_SEC);
	key_pair_generate(&w->server_key);
	key_pair_generate(&w->machine);
	if (w->tls) {
		assert_int_equal(tls_server_self(names, 1, NULL, NULL, &w->server_tls), 0);
		assert_int_equal(tls_client_new(NULL, &w->client_tls), 0);
	}
	w->blob = blob_new(NULL, BIG);
	assert_non_null(w->blob);
	randombytes_buf_deterministic(w->blob->data, BIG, (const uint8_t *)"0123456789abcdef0123456789abcdef");
	assert_int_equal(httpd_new(w->loop, NULL, &w->httpd), 0);
	assert_int_equal(httpd_route(w->httpd, NULL, TS2021_PATH, 0, upgrade, w), 0);
	assert_int_equal(httpd_listen_tcp(w->httpd, &any, w->server_tls, &w->at), 0);
}

static void world_run(struct world *w)
{
	assert_int_equal(dial_start(w->loop, "127.0.0.1", w->at.port, NULL, dialled, w, &w->dial), 0);
	assert_int_equal(loop_run(w->loop), 0);
}

static void world_close(struct world *w)
{
	h2_free(w->h2);
	w->h2 = NULL;
	ts2021_conn_free(w->conn);
	while (w->served)
		served_free(w->served);
	httpd_free(w->httpd);
	tls_ctx_unref(w->server_tls);
	tls_ctx_unref(w->client_tls);
	blob_unref(w->blob);
	buf_done(&w->got);
	loop_timer_free(w->guard);
	loop_free(w->loop);
}

/* ---- scenes */

static void rq_headers(void *data, struct h2_stream *st, int status)
{
	struct world *w = data;

	(void)st;
	w->status = status;
}

static void rq_data(void *data, struct h2_stream *st, const uint8_t *p, size_t n)
{
	struct world *w = data;

	assert_int_equal(buf_put(&w->got, p, n), 0);
	if (w->reset_after && w->got.len >= w->reset_after)
		h2_reset(st);
}

static void rq_end(void *data, struct h2_stream *st, int error)
{
	struct world *w = data;

	(void)st;
	w->ended++;
	w->end_error = error;
	if (!w->poll)
		loop_exit(w->loop, 0);
}

static const struct h2_client_ops rq_ops = { .on_headers = rq_headers, .on_data = rq_data, .on_end = rq_end };

static void echo(struct world *w)
{
	static const struct h2_header extra[] = { { "ts-lb", "nodekey:abc" } };
	struct h2_request rq = { .path = "/echo", .body = w->blob->data, .body_len = 900000,
				 .headers = extra, .n_headers = 1 };
	struct h2_stream *st;

	assert_int_equal(h2_request(w->h2, &rq, &rq_ops, w, &st), 0);
}

static void test_echo(void **state)
{
	for (int i = 0; i < 4; i++) {
		struct world w = { .tls = i & 1, .early = i & 2, .scene = echo };

		(void)state;
		world_open(&w);
		world_run(&w);
		assert_int_equal(w.closed, 0);
		assert_int_equal(w.ended, 1);
		assert_int_equal(w.end_error, 0);
		assert_int_equal(w.status, 200);
		assert_int_equal(w.got.len, 900000);
		assert_memory_equal(buf_data(&w.got), w.blob->data, w.got.len);
		assert_string_equal(w.seen_auth, "POST nodekey:abc");
		assert_int_equal(w.seen_version, 131);
		assert_true(key_equal(&w.seen_machine, &w.machine.pub));
		world_close(&w);
	}
}

static void poll(struct world *w)
{
	struct h2_request rq = { .method = "POST", .path = "/poll" };

	assert_int_equal(h2_request(w->h2, &rq, &rq_ops, w, &w->client_stream), 0);
}

/* More than both windows and the transport's ceiling: it only arrives if windows are opened and drains are told. */
static void test_stream_big(void **state)
{
	struct world w = { .tls = true, .early = true, .scene = poll, .reset_after = BIG + 4 };

	(void)state;
	world_open(&w);
	world_run(&w);
	assert_int_equal(w.got.len, BIG + 4);
	assert_memory_equal(buf_data(&w.got), w.blob->data, BIG);
	assert_memory_equal(buf_data(&w.got) + BIG, "tail", 4);
	assert_int_equal(w.end_error, -ECANCELED);
	/* The server has heard of the reset. */
	assert_int_equal(w.poll_closed, 1);
	assert_int_equal(w.poll_error, -ECONNRESET);
	world_close(&w);
}

static void wrong(struct world *w)
{
	(void)w;
	fail_msg("a wrong key was accepted");
}

static void test_wrong_key(void **state)
{
	struct world w = { .scene = wrong };

	(void)state;
	world_open(&w);
	key_pair_generate(&w.known_key);
	w.other_key = true;
	world_run(&w);
	assert_int_equal(w.closed, 1);
	assert_int_equal(w.close_error, -EKEYREJECTED);
	assert_non_null(strstr(w.close_why, "status 400"));
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_stream_big),
		cmocka_unit_test(test_wrong_key),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
