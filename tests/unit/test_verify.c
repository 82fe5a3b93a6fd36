/* verify: a controller is asked about clients: yes, no, nonsense, errors, silence, absence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/httpd.h"
#include "lib/json.h"
#include "proto/derp.h"
#include "relay/relay.h"
#include "relay/verify.h"

/*
 * One loop holds controller, relay and a client: a stream that greets the relay and notes whether
 * it was let in.
 */
struct world {
	struct loop *loop;
	struct httpd *httpd;
	struct relay *relay;
	struct verify *verify;
	struct key_pair server, client;
	struct endpoint at;
	struct loop_timer *guard;
	struct stream *s;
	struct derp_reader rd;
	unsigned int asked;
	int status;
	const char *answer;
	bool in, out;
};

static void controller(void *data, struct httpd_req *q)
{
	CLEANUP(json_decref) json_t *j = NULL;
	struct world *w = data;
	size_t len;
	const uint8_t *body = httpd_body(q, &len);
	struct key k;

	assert_int_equal(json_read(body, len, 4096, &j), 0);
	assert_int_equal(json_get_key(j, "NodePublic", KEY_KIND_NODE, &k), 0);
	assert_memory_equal(&k, &w->client.pub, sizeof(k));
	assert_string_equal(json_get_str(j, "Source"), "127.0.0.1");
	w->asked++;
	if (w->status)
		httpd_respond(q, w->status, "application/json", w->answer, strlen(w->answer));
}

static void client_ready(void *data, struct stream *s)
{
	static const char text[] =
	    "GET /derp HTTP/1.1\r\nHost: x\r\nDerp-Fast-Start: 1\r\nUpgrade: DERP\r\n\r\n";
	struct derp_client_info info = { .version = 2 };
	const uint8_t nonce[DERP_NONCE_LEN] = { 7 };
	struct world *w = data;
	struct buf b = { 0 };

	buf_put_str(&b, text);
	assert_int_equal(derp_put_client_info(&b, &info, &w->client, &w->server.pub, nonce), 0);
	assert_int_equal(stream_write(s, buf_data(&b), b.len), 0);
	buf_done(&b);
}

static void client_input(void *data, struct stream *s)
{
	struct buf *in = stream_input(s);
	const uint8_t *p = buf_data(in);
	struct world *w = data;
	struct derp_frame f;
	size_t len = in->len;

	while (derp_reader_next(&w->rd, &p, &len, &f) == 1)
		w->in = w->in || f.type == DERP_FRAME_SERVER_INFO;
	buf_consume(in, in->len);
	if (w->in)
		loop_exit(w->loop, 0);
}

static void client_closed(void *data, struct stream *s, int error, const char *why)
{
	struct world *w = data;

	(void)s;
	(void)error;
	(void)why;
	w->out = true;
	loop_exit(w->loop, 0);
}

static const struct stream_ops client_ops = { .on_ready = client_ready,
					      .on_input = client_input,
					      .on_closed = client_closed };

static void guard(void *data)
{
	loop_exit(data, 1);
}

/* true: let in; false: closed. What is not reachable is a port that nobody listens on. */
static bool admitted(bool reachable, bool fail_open, int status, const char *answer,
		     unsigned int asked)
{
	const struct endpoint any = { .addr = addr_v4(127, 0, 0, 1) };
	struct world w = { .status = status, .answer = answer };
	struct relay_config c = { .key = &w.server,
				  .admit = verify_admit,
				  .greet_usec = 1500 * USEC_PER_MSEC };
	struct stream_opts so = { .ops = &client_ops, .data = &w };
	struct verify_opts vo = { .fail_open = fail_open };
	union sockaddr_any sa;
	char url[128];
	int fd;

	key_pair_generate(&w.server);
	key_pair_generate(&w.client);
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(httpd_new(w.loop, NULL, &w.httpd), 0);
	assert_int_equal(httpd_listen_tcp(w.httpd, &any, NULL, &w.at), 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/verify", reachable ? w.at.port : 1);
	vo.url = url;
	assert_int_equal(verify_new(w.loop, &vo, &w.verify), 0);
	c.admit_data = w.verify;
	assert_int_equal(relay_new(w.loop, &c, &w.relay), 0);
	verify_set_relay(w.verify, w.relay);
	assert_int_equal(relay_route(w.relay, w.httpd), 0);
	assert_int_equal(httpd_route(w.httpd, "POST", "/verify", 4096, controller, &w), 0);
	derp_reader_init(&w.rd, DERP_ROLE_CLIENT);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, &sa.sa, endpoint_to_sockaddr(&w.at, &sa)), 0);
	assert_int_equal(stream_new(w.loop, fd, &so, &w.s), 0);
	assert_int_equal(loop_timer_new(w.loop, guard, w.loop, &w.guard), 0);
	loop_timer_in(w.guard, 8 * USEC_PER_SEC);
	assert_int_equal(loop_run(w.loop), 0);
	assert_true(w.in != w.out);
	assert_int_equal(w.asked, asked);
	stream_free(w.s);
	derp_reader_done(&w.rd);
	verify_free(w.verify);
	relay_free(w.relay);
	httpd_free(w.httpd);
	loop_timer_free(w.guard);
	loop_free(w.loop);
	return w.in;
}

static void test_answers(void **state)
{
	(void)state;
	assert_true(admitted(true, false, 200, "{\"Allow\":true}", 1));
	assert_true(admitted(true, true, 200, "{\"Allow\":true,\"More\":[1]}", 1));
	assert_false(admitted(true, true, 200, "{\"Allow\":false}", 1));
	assert_false(admitted(true, true, 200, "{}", 1));
	assert_false(admitted(true, true, 200, "true", 1));
	assert_false(admitted(true, true, 200, "", 1));
	assert_false(admitted(true, true, 500, "{\"Allow\":true}", 1));
	assert_false(admitted(true, true, 404, "{\"Allow\":true}", 1));
}

static void test_unreachable(void **state)
{
	(void)state;
	assert_true(admitted(false, true, 200, "", 0));
	assert_false(admitted(false, false, 200, "", 0));
}

/* A controller that never answers: the relay's own patience ends. */
static void test_silent(void **state)
{
	(void)state;
	assert_false(admitted(true, true, 0, NULL, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_silent),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
