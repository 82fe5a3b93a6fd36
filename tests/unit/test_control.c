/* control: whole conversations with a server of the test's own, on loopback. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <cmocka.h>
#include <sodium.h>
#include <zstd.h>

#include "daemon/control/control.h"
#include "lib/h2.h"
#include "lib/httpd.h"
#include "proto/ts2021.h"
#include "proto/ts2021_conn.h"

#define REQUESTS_MAX 64
#define CONNS_MAX    16

struct world;

struct conn {
	struct world *w;
	struct ts2021_conn *ts;
	struct h2 *h2;
};

/* The server: answers to register come from a list, maps when the test says so. */
struct world {
	struct loop *loop;

	struct httpd *httpd;
	struct key_pair server_key;
	char url[64];
	struct conn conns[CONNS_MAX];
	size_t n_conns;
	unsigned int keys, heads;
	struct {
		char path[64];
		char *body;
	} req[REQUESTS_MAX];
	size_t n_req, n_lite;
	const char *const *answers; /* to register, in turn; the last one again and again */
	size_t n_register;
	struct h2_stream *held;	    /* a register that waits for a person */
	int map_status;
	bool flaps; /* a good map, and at once a bad one */
	struct h2_stream *stream;
	unsigned int n_streams;
	unsigned int lost_streams;

	struct control *control;
	struct netmap *nm;
	struct key_pair machine, node, old_node, disco;
	struct key pin;
	enum control_state state;
	char text[256], url_shown[256], failed[256], login[64];
	unsigned int n_failed, n_permanent, n_first, n_maps, n_keys_made, n_registered;
	bool logged_out;
	int logout_result;
};

/* ---- server ---- */

static void map_closed(void *data, struct h2_stream *st, int error)
{
	struct world *w = data;

	(void)error;
	if (w->stream == st)
		w->stream = NULL;
	w->lost_streams++;
}

static void held_closed(void *data, struct h2_stream *st, int error)
{
	struct world *w = data;

	(void)error;
	if (w->held == st)
		w->held = NULL;
}

static void answer_register(struct world *w, struct h2_stream *st, const char *body)
{
	const char *a = w->answers[0];

	w->n_register++;
	if (w->answers[1])
		w->answers++;
	if (strstr(body, "\"Followup\"") && strcmp(a, "hold") == 0) {
		w->held = st;
		h2_on_closed(st, held_closed, w);
	} else if (*a == '!') {
		h2_respond(st, (int)strtol(a + 1, NULL, 10), "text/plain", "no\n", 3);
	} else {
		h2_respond(st, 200, "application/json", a, strlen(a));
	}
}

static void send_map(struct world *w, const char *json);
static const char *first_map(struct world *w, const char *more, char out[static 1024]);

static void answer_map(struct world *w, struct h2_stream *st, const char *body)
{
	if (w->map_status != 200) {
		h2_respond(st, w->map_status, "text/plain", "node not found\n", 15);
	} else if (strstr(body, "\"Stream\":true")) {
		w->n_streams++;
		w->stream = st;
		h2_on_closed(st, map_closed, w);
		h2_respond_start(st, 200, NULL);
		if (w->flaps) {
			char map[1024];

			send_map(w, first_map(w, "", map));
			send_map(w, "{\"Node\":");
		}
	} else {
		w->n_lite++;
		h2_respond(st, 200, NULL, NULL, 0);
	}
}

static void on_request(void *data, struct h2_stream *st, const char *method, const char *path,
		       const uint8_t *body, size_t len)
{
	struct conn *k = data;
	struct world *w = k->w;
	size_t i = w->n_req < REQUESTS_MAX ? w->n_req++ : REQUESTS_MAX - 1;

	(void)method;
	free(w->req[i].body);
	w->req[i].body = strndup((const char *)body, len);
	snprintf(w->req[i].path, sizeof(w->req[i].path), "%s", path);
	if (strcmp(path, "/machine/register") == 0)
		answer_register(w, st, w->req[i].body);
	else if (strcmp(path, "/machine/map") == 0)
		answer_map(w, st, w->req[i].body);
	else
		h2_respond(st, 200, NULL, NULL, 0);
}

static const struct h2_server_ops server_ops = { .on_request = on_request };

static int conn_write(void *data, const uint8_t *p, size_t n)
{
	struct conn *k = data;

	return ts2021_conn_write(k->ts, p, n);
}

static const struct h2_io conn_io = { .write = conn_write };

static void conn_input(void *data, struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	struct conn *k = data;

	(void)c;
	h2_feed(k->h2, p, n);
}

static void conn_drop(struct conn *k)
{
	h2_free(TAKE(k->h2));
	ts2021_conn_free(TAKE(k->ts));
}

static void conn_closed(void *data, struct ts2021_conn *c, int error, const char *why)
{
	(void)c;
	(void)error;
	(void)why;
	conn_drop(data);
}

static const struct ts2021_conn_ops conn_ops = { .on_input = conn_input, .on_closed = conn_closed };

static void on_upgrade(void *data, struct httpd_req *q)
{
	struct world *w = data;
	struct conn *k = &w->conns[w->n_conns++];

	assert_true(w->n_conns < CONNS_MAX);
	k->w = w;
	if (ts2021_conn_server(q, &w->server_key, true, &conn_ops, k, &k->ts) < 0)
		return;
	assert_int_equal(h2_server_new(&conn_io, k, &server_ops, k, &k->h2), 0);
}

static void on_key(void *data, struct httpd_req *q)
{
	struct world *w = data;
	char text[KEY_TEXT_MAX], body[256];

	w->keys++;
	snprintf(body, sizeof(body), "{\"legacyPublicKey\":\"mkey:%064d\",\"publicKey\":\"%s\"}\n", 0,
		 key_text(KEY_KIND_MACHINE, &w->server_key.pub, text));
	httpd_respond(q, 200, "application/json", body, strlen(body));
}

static void on_head(void *data, struct httpd_req *q)
{
	struct world *w = data;

	w->heads++;
	httpd_respond(q, 200, NULL, NULL, 0);
}

static void send_map(struct world *w, const char *json)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	assert_non_null(w->stream);
	assert_int_equal(ts2021_frame_put(&b, TS2021_ENCODING_ZSTD, json, strlen(json)), 0);
	assert_int_equal(h2_send(w->stream, buf_data(&b), b.len), 0);
}

static const char *first_map(struct world *w, const char *more, char out[static 1024])
{
	char key[KEY_TEXT_MAX];

	snprintf(out, 1024,
		 "{\"Node\":{\"ID\":1,\"StableID\":\"1\",\"Name\":\"me.mesh.test.\",\"Key\":\"%s\",\"Addresses\":"
		 "[\"100.64.0.1/32\"],\"MachineAuthorized\":true%s},\"PacketFilters\":{\"base\":null}}",
		 key_text(KEY_KIND_NODE, &w->node.pub, key), more);
	return out;
}

/* ---- node ---- */

static void on_state(void *data, enum control_state state, const char *text)
{
	struct world *w = data;

	w->state = state;
	snprintf(w->text, sizeof(w->text), "%s", text);
}

static void on_map(void *data, const struct netmap_changes *c, bool first)
{
	struct world *w = data;

	(void)c;
	w->n_maps++;
	w->n_first += first;
}

static void on_auth_url(void *data, const char *url)
{
	struct world *w = data;

	snprintf(w->url_shown, sizeof(w->url_shown), "%s", url);
}

static void on_login_failed(void *data, const char *text, bool permanent)
{
	struct world *w = data;

	snprintf(w->failed, sizeof(w->failed), "%s", text);
	w->n_failed++;
	w->n_permanent += permanent;
}

static int on_node_key(void *data, const struct key_pair *node, const struct key_pair *old)
{
	struct world *w = data;

	w->node = *node;
	w->old_node = *old;
	w->n_keys_made++;
	return 0;
}

static void on_registered(void *data, const struct key_pair *node, const char *login)
{
	struct world *w = data;

	assert_memory_equal(node->pub.b, w->node.pub.b, 32);
	snprintf(w->login, sizeof(w->login), "%s", login);
	w->n_registered++;
}

static int on_server_key(void *data, const char *url, const struct key *key)
{
	struct world *w = data;

	assert_string_equal(url, w->url);
	w->pin = *key;
	return 0;
}

static const struct control_ops ops = {
	.on_state = on_state,
	.on_map = on_map,
	.on_auth_url = on_auth_url,
	.on_login_failed = on_login_failed,
	.on_node_key = on_node_key,
	.on_registered = on_registered,
	.on_server_key = on_server_key,
};

/* ---- the world ---- */

static void run_(struct world *w, bool (*until)(struct world *), int line)
{
	uint64_t deadline = loop_now(w->loop) + 10 * USEC_PER_SEC;

	while (!until(w)) {
		assert_true(loop_iterate(w->loop, USEC_PER_MSEC) >= 0);
		if (loop_now(w->loop) > deadline)
			fail_msg("line %d: it does not come; state %s: %s", line,
				 control_state_name(w->state), w->text);
	}
}
#define run(w, until) run_(w, until, __LINE__)

static uint64_t settle_until;
static bool settled(struct world *w)
{
	return loop_now(w->loop) >= settle_until;
}

/* Long enough for anything that should not happen. */
static void settle(struct world *w)
{
	settle_until = loop_now(w->loop) + 120 * USEC_PER_MSEC;
	run(w, settled);
}

static void serve(struct world *w, const struct endpoint *at)
{
	struct endpoint bound;

	assert_int_equal(httpd_new(w->loop, NULL, &w->httpd), 0);
	assert_int_equal(httpd_route(w->httpd, "GET", "/key", 0, on_key, w), 0);
	assert_int_equal(httpd_route(w->httpd, "POST", "/ts2021", 0, on_upgrade, w), 0);
	assert_int_equal(httpd_route(w->httpd, "GET", "/ping", 0, on_head, w), 0);
	assert_int_equal(httpd_listen_tcp(w->httpd, at, NULL, &bound), 0);
	snprintf(w->url, sizeof(w->url), "http://127.0.0.1:%u", bound.port);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct endpoint at = { .addr = addr_v4(127, 0, 0, 1) };

	*state = w;
	w->map_status = 200;
	assert_int_equal(loop_new(&w->loop), 0);
	key_pair_generate(&w->server_key);
	key_pair_generate(&w->machine);
	key_pair_generate(&w->disco);
	serve(w, &at);
	assert_int_equal(netmap_new(&w->nm), 0);
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	control_free(w->control);
	for (size_t i = 0; i < w->n_conns; i++)
		conn_drop(&w->conns[i]);
	httpd_free(w->httpd);
	netmap_free(w->nm);
	for (size_t i = 0; i < REQUESTS_MAX; i++)
		free(w->req[i].body);
	loop_free(w->loop);
	free(w);
	return 0;
}

static void make_control(struct world *w, bool registered)
{
	static char hostname[] = "box", os[] = "linux";
	struct tailcfg_hostinfo h = { .hostname = hostname, .os = os };
	struct control_config cfg = { .server_url = w->url,
				      .machine = &w->machine,
				      .node = &w->node,
				      .registered = registered,
				      .disco = &w->disco.pub,
				      .server_key = key_is_zero(&w->pin) ? NULL : &w->pin,
				      .netmap = w->nm };

	assert_int_equal(control_new(w->loop, &cfg, &ops, w, &w->control), 0);
	assert_int_equal(control_set_hostinfo(w->control, &h), 0);
}

static const char *body_of(const struct world *w, const char *path, size_t nth)
{
	for (size_t i = 0; i < w->n_req; i++) {
		if (strcmp(w->req[i].path, path) == 0 && nth-- == 0)
			return w->req[i].body;
	}
	fail_msg("no such request of %s", path);
	return NULL;
}
#define REGISTER(nth) body_of(w, "/machine/register", nth)

static bool has_stream(struct world *w)
{
	return w->stream != NULL;
}
static bool running(struct world *w)
{
	return w->state == CONTROL_STATE_RUNNING;
}
static bool told_once(struct world *w)
{
	return w->n_lite >= 1;
}
static bool told_twice(struct world *w)
{
	return w->n_lite >= 2;
}
static bool needs_login(struct world *w)
{
	return w->state == CONTROL_STATE_NEEDS_LOGIN;
}
static bool expired(struct world *w)
{
	return w->state == CONTROL_STATE_EXPIRED;
}

#define OK "{\"Login\":{\"ID\":1,\"LoginName\":\"u\"},\"MachineAuthorized\":true}\n"
#define KEY_ARG "hskey-auth-1-2"

static void come_up(struct world *w)
{
	char map[1024];

	run(w, has_stream);
	send_map(w, first_map(w, "", map));
	run(w, running);
}

static const char *const accepted[] = { OK, NULL };

/* With a key, for the first time, until the map is there. */
static void log_in(struct world *w, const char *const *answers)
{
	w->answers = answers;
	make_control(w, false);
	assert_int_equal(control_login(w->control, KEY_ARG, false), 0);
	come_up(w);
}

static void test_login(void **state)
{
	struct world *w = *state;
	struct tailcfg_endpoint eps[2] = { { .type = TAILCFG_ENDPOINT_STUN },
					   { .type = TAILCFG_ENDPOINT_LOCAL } };
	struct tailcfg_endpoint back[2];
	struct tailcfg_netinfo net = { .preferred_derp = 900, .n_latency = 1 };
	const char *lite;

	log_in(w, accepted);
	assert_int_equal(w->keys, 1);
	assert_int_equal(w->n_register, 1);
	assert_string_equal(w->login, "u");
	assert_memory_equal(w->pin.b, w->server_key.pub.b, 32);
	assert_non_null(strstr(REGISTER(0), "\"Auth\":{\"AuthKey\":\"" KEY_ARG "\"}"));
	run(w, told_once);
	lite = body_of(w, "/machine/map", 0);
	assert_non_null(strstr(lite, "\"OmitPeers\":true"));
	assert_non_null(strstr(lite, "\"DiscoKey\":\"discokey:"));
	assert_null(strstr(lite, "\"Endpoints\""));
	assert_null(strstr(lite, "NetInfo"));
	/* several news of one moment are one request; the same again, in another order, is none */
	assert_int_equal(endpoint_parse("192.0.2.1:41641", 15, &eps[0].ep), 0);
	assert_int_equal(endpoint_parse("10.0.0.1:41641", 14, &eps[1].ep), 0);
	back[0] = eps[1];
	back[1] = eps[0];
	control_set_endpoints(w->control, eps, 2);
	control_set_netinfo(w->control, &net);
	run(w, told_twice);
	net.latency[0] = (struct tailcfg_latency){ 900, 4, 12345 };
	control_set_netinfo(w->control, &net);
	control_set_endpoints(w->control, back, 2);
	settle(w);
	assert_int_equal(w->n_lite, 2);
	lite = body_of(w, "/machine/map", 2);
	assert_non_null(strstr(lite, "\"Endpoints\":[\"10.0.0.1:41641\",\"192.0.2.1:41641\"],\"EndpointTypes\":[1,2]"));
	assert_non_null(strstr(lite, "\"PreferredDERP\":900"));
	assert_int_equal(w->n_conns, 1);
	/* the key goes with the login, never again with a request */
	assert_int_equal(w->n_register, 1);
}

static void test_restart(void **state)
{
	static const char *const answers[] = { OK, NULL };
	struct world *w = *state;

	w->answers = answers;
	key_pair_generate(&w->node);
	w->pin = w->server_key.pub;
	make_control(w, true);
	control_start(w->control);
	come_up(w);
	assert_int_equal(w->keys, 0); /* the pin serves */
	assert_null(strstr(REGISTER(0), "Auth"));
	assert_int_equal(w->n_keys_made, 0);
	/* a login of a node that is known costs no key */
	assert_int_equal(control_login(w->control, KEY_ARG, false), 0);
	settle(w);
	assert_int_equal(w->n_register, 2);
	assert_null(strstr(REGISTER(1), "Auth"));
	assert_true(running(w));
	assert_int_equal(w->n_streams, 1);
}

static void test_bad_key(void **state)
{
	static const char *const answers[] = { "{\"Error\":\"authkey already used\"}", NULL };
	struct world *w = *state;

	w->answers = answers;
	make_control(w, false);
	assert_int_equal(control_login(w->control, KEY_ARG, false), 0);
	run(w, needs_login);
	settle(w);
	assert_int_equal(w->n_permanent, 1);
	assert_string_equal(w->failed, "authkey already used");
	assert_int_equal(w->n_register, 1);
	assert_int_equal(control_login(w->control, "", false), -EINVAL);
}

static void test_passing_error(void **state)
{
	static const char *const answers[] = { "{\"Error\":\"database is locked\"}", "!500", OK, NULL };
	struct world *w = *state;

	log_in(w, answers);
	assert_int_equal(w->n_register, 3);
	assert_int_equal(w->n_permanent, 0);
	assert_non_null(strstr(REGISTER(2), KEY_ARG));
}

static void test_rotation(void **state)
{
	static const char *const answers[] = { "{\"NodeKeyExpired\":true}", "{\"NodeKeyExpired\":true}", OK, NULL };
	struct world *w = *state;
	char old[KEY_TEXT_MAX], want[128];
	struct key before;

	w->answers = answers;
	key_pair_generate(&w->node);
	before = w->node.pub;
	w->pin = w->server_key.pub;
	make_control(w, true);
	control_start(w->control);
	run(w, expired);
	settle(w); /* nobody asked for a login: nothing goes on */
	assert_int_equal(w->n_register, 1);
	assert_int_equal(w->n_keys_made, 0);
	assert_int_equal(control_login(w->control, KEY_ARG, false), 0);
	come_up(w);
	assert_int_equal(w->n_register, 3);
	assert_int_equal(w->n_keys_made, 1);
	assert_memory_not_equal(w->node.pub.b, before.b, 32);
	assert_null(strstr(REGISTER(1), "Auth"));
	snprintf(want, sizeof(want), "\"OldNodeKey\":\"%s\"", key_text(KEY_KIND_NODE, &before, old));
	assert_non_null(strstr(REGISTER(2), want));
	assert_non_null(strstr(REGISTER(2), KEY_ARG));
}

static bool url_shown(struct world *w)
{
	return *w->url_shown && w->held;
}

static void test_person(void **state)
{
	static const char *const answers[] = { "{\"AuthURL\":\"http://h/register/abc\"}", "hold", NULL };
	struct world *w = *state;

	w->answers = answers;
	make_control(w, false);
	control_start(w->control);
	run(w, needs_login);
	assert_int_equal(w->n_register, 0); /* not before somebody wants it */
	assert_int_equal(control_login(w->control, NULL, false), 0);
	run(w, url_shown);
	assert_string_equal(w->url_shown, "http://h/register/abc");
	assert_non_null(strstr(REGISTER(1), "\"Followup\":\"http://h/register/abc\""));
	/* the connection breaks meanwhile: the waiting goes on */
	conn_drop(&w->conns[0]);
	run(w, url_shown);
	h2_respond(w->held, 200, "application/json", OK, strlen(OK));
	come_up(w);
	assert_int_equal(w->n_keys_made, 1);
}

static void test_deleted(void **state)
{
	static const char *const answers[] = { OK, "{\"AuthURL\":\"http://h/register/abc\"}", NULL };
	struct world *w = *state;
	struct tailcfg_netinfo net = { .preferred_derp = 1 };

	log_in(w, answers);
	w->map_status = 404;
	control_set_netinfo(w->control, &net);
	run(w, needs_login);
	settle(w);
	assert_int_equal(w->n_register, 2);
	assert_string_equal(w->url_shown, "");
}

static bool second_stream(struct world *w)
{
	return w->n_streams >= 2 && w->stream;
}
static bool third_stream(struct world *w)
{
	return w->n_streams >= 3 && w->stream;
}
static bool fourth_stream(struct world *w)
{
	return w->n_streams >= 4 && w->stream;
}

static void test_stream_again(void **state)
{
	struct world *w = *state;
	char map[1024];

	log_in(w, accepted);
	/* the stream ends: again, on the same connection */
	h2_end(w->stream);
	run(w, second_stream);
	assert_int_equal(w->n_conns, 1);
	/* its first message has no node: again */
	send_map(w, "{\"Domain\":\"x\"}");
	run(w, third_stream);
	assert_int_equal(netmap_n_peers(w->nm), 0);
	assert_non_null(w->nm->self); /* the old map stays meanwhile */
	/* rubbish: again; and the connection breaks: dialled again, with the known key */
	send_map(w, "{\"Node\":");
	run(w, fourth_stream);
	send_map(w, first_map(w, ",\"Online\":true", map));
	run(w, running);
	conn_drop(&w->conns[0]);
	w->stream = NULL;
	run(w, has_stream);
	send_map(w, first_map(w, "", map));
	run(w, running);
	assert_int_equal(w->n_conns, 2);
	assert_int_equal(w->keys, 1);
	assert_int_equal(w->n_register, 1);
	settle(w);
	assert_int_equal(w->n_lite, 1); /* it knows all of it already */
}

static bool syncing(struct world *w)
{
	return w->state == CONTROL_STATE_SYNCING;
}

/* The node's end of its connection. */
static int nodes_fd(const struct world *w)
{
	uint16_t port = htons((uint16_t)strtoul(strrchr(w->url, ':') + 1, NULL, 10));

	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_in sin = { 0 };
		socklen_t n = sizeof(sin);

		if (getpeername(fd, (struct sockaddr *)&sin, &n) == 0 && sin.sin_family == AF_INET && sin.sin_port == port)
			return fd;
	}
	fail_msg("the node has no connection");
	return -1;
}

/* The connection is dead, and what finds it out is the next request: the one after that is not put off until the
 * dead one would have been silent for two minutes. */
static void test_dead_meanwhile(void **state)
{
	struct world *w = *state;

	log_in(w, accepted);
	h2_end(w->stream);
	run(w, syncing);
	stream_pause(ts2021_conn_stream(w->conns[0].ts));
	assert_int_equal(shutdown(nodes_fd(w), SHUT_WR), 0);
	w->stream = NULL;
	run(w, has_stream);
	assert_int_equal(w->n_conns, 2);
}

static unsigned int streams_wanted;
static bool next_stream(struct world *w)
{
	return w->n_streams >= streams_wanted && w->stream;
}

/* A frame of the server's own making; the node drops that stream, asks for the next, and keeps what it has. */
static void send_bad(struct world *w, const void *frame, size_t n)
{
	streams_wanted = w->n_streams + 1;
	assert_int_equal(h2_send(w->stream, frame, n), 0);
	run(w, next_stream);
	assert_non_null(w->nm->self);
}

/* 70 MiB of zeros in a few KiB. */
static void put_bomb(struct buf *b)
{
	static uint8_t zeros[1 << 16], out[1 << 17];
	ZSTD_CCtx *z = ZSTD_createCCtx();

	buf_put_le32(b, 0);
	for (int i = 0; i < 70 * 16; i++) {
		ZSTD_inBuffer in = { zeros, sizeof(zeros), 0 };
		ZSTD_outBuffer to = { out, sizeof(out), 0 };

		ZSTD_compressStream2(z, &to, &in, i == 70 * 16 - 1 ? ZSTD_e_end : ZSTD_e_continue);
		assert_int_equal(in.pos, in.size);
		buf_put(b, out, to.pos);
	}
	ZSTD_freeCCtx(z);
	assert_true(!b->bad && b->len < 16384);
	b->data[b->head] = (uint8_t)(b->len - 4);
	b->data[b->head + 1] = (uint8_t)((b->len - 4) >> 8);
}

/* What a server can say to do harm: endless lengths, frames that grow, deep JSON, noise. */
static void test_hostile_map(void **state)
{
	static const char key[] = "{\"Node\":", peers[] = "{\"PeersChanged\":[{\"ID\":-1},[],null,7,\"x\",{\"ID\":1e300}]}";
	CLEANUP(buf_done) struct buf bomb = { 0 }, deep = { 0 }, frame = { 0 };
	struct world *w = *state;
	uint8_t noise[300];
	char map[1024];

	log_in(w, accepted);
	send_bad(w, "\xff\xff\xff\xff", 4);
	send_bad(w, "\0\0\0\0", 4);
	randombytes_buf(noise, sizeof(noise));
	noise[0] = 200;
	noise[1] = noise[2] = noise[3] = 0;
	send_bad(w, noise, sizeof(noise));
	put_bomb(&bomb);
	send_bad(w, buf_data(&bomb), bomb.len);
	buf_put(&deep, key, sizeof(key) - 1);
	for (int i = 0; i < 200000; i++)
		buf_put_u8(&deep, '[');
	assert_int_equal(ts2021_frame_put(&frame, TS2021_ENCODING_ZSTD, buf_data(&deep), deep.len), 0);
	send_bad(w, buf_data(&frame), frame.len);
	/* entries that make no sense cost themselves only */
	send_map(w, first_map(w, "", map));
	run(w, running);
	send_map(w, peers);
	settle(w);
	assert_int_equal(w->state, CONTROL_STATE_RUNNING);
	assert_int_equal(netmap_n_peers(w->nm), 0);
	assert_int_equal(w->n_conns, 1);
}

static void settle_for(struct world *w, uint64_t msec)
{
	settle_until = loop_now(w->loop) + msec * USEC_PER_MSEC;
	run(w, settled);
}

/* A server whose map does not stay, or that registers a node and then does not know it, is asked less and less often. */
static void test_flapping(void **state)
{
	struct world *w = *state;

	log_in(w, accepted);
	w->flaps = true;
	send_map(w, "{\"Node\":");
	settle_for(w, 600);
	assert_in_range(w->n_streams, 4, 14);
	assert_int_equal(w->n_conns, 1);
	w->flaps = false;
	w->map_status = 404;
	w->n_register = 0;
	control_kick(w->control);
	settle_for(w, 600);
	assert_in_range(w->n_register, 4, 14);
	w->map_status = 200;
	control_kick(w->control);
	come_up(w);
}

/* Small on the way: a mebibyte of blanks around a keep-alive. */
static void put_blank(struct buf *b)
{
	size_t n = 1u << 20;
	char *text = malloc(n + 1);

	assert_non_null(text);
	memset(text, ' ', n);
	memcpy(text, "{\"KeepAlive\":true", 17);
	memcpy(text + n - 1, "}", 2);
	assert_int_equal(ts2021_frame_put(b, TS2021_ENCODING_ZSTD, text, n), 0);
	free(text);
}

/* A server that sends more than can be read in good time: others have their turn all the while. */
static void test_flood(void **state)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct world *w = *state;
	struct control_status s;
	unsigned int first, before;

	log_in(w, accepted);
	for (int i = 0; i < 200; i++)
		put_blank(&b);
	assert_in_range(b.len, 1, 60000);
	control_status(w->control, &s);
	first = before = s.maps;
	assert_int_equal(h2_send(w->stream, buf_data(&b), b.len), 0);
	while (before < first + 100) {
		assert_true(loop_iterate(w->loop, USEC_PER_SEC) >= 0);
		control_status(w->control, &s);
		assert_in_range(s.maps - before, 0, 100);
		before = s.maps;
	}
	assert_int_equal(w->state, CONTROL_STATE_RUNNING);
	/* what waits goes with the conversation */
	control_stop(w->control);
	settle(w);
}

static bool key_changed(struct world *w)
{
	return w->state == CONTROL_STATE_SERVER_KEY_CHANGED;
}

static void test_server_key(void **state)
{
	static const char *const answers[] = { OK, NULL };
	struct world *w = *state;
	struct key_pair first;

	w->answers = answers;
	key_pair_generate(&w->node);
	key_pair_generate(&first);
	w->pin = first.pub;
	make_control(w, true);
	control_start(w->control);
	run(w, key_changed);
	settle(w);
	assert_int_equal(w->n_register, 0);
	assert_memory_equal(w->pin.b, first.pub.b, 32); /* not stored by itself */
	assert_int_equal(w->n_permanent, 1);
	assert_int_equal(control_accept_server_key(w->control), 0);
	come_up(w);
	assert_memory_equal(w->pin.b, w->server_key.pub.b, 32);
	assert_int_equal(control_accept_server_key(w->control), -EALREADY);
}

static bool head_came(struct world *w)
{
	return w->heads > 0;
}
static bool c2n_came(struct world *w)
{
	return strcmp(w->req[w->n_req - 1].path, "/machine/c2n/7") == 0;
}

static void test_pings(void **state)
{
	struct world *w = *state;
	char m[512];

	log_in(w, accepted);
	/* with a keep-alive too; the same URL once only */
	snprintf(m, sizeof(m), "{\"KeepAlive\":true,\"PingRequest\":{\"URL\":\"%s/ping?id=1\"}}", w->url);
	send_map(w, m);
	send_map(w, m);
	run(w, head_came);
	settle(w);
	assert_int_equal(w->heads, 1);
	/* POST /echo HTTP/1.1, Content-Length: 2, "hi" */
	send_map(w, "{\"PingRequest\":{\"URL\":\"https://unused/machine/c2n/7\",\"URLIsNoise\":true,\"Types\":\"c2n\","
		    "\"Payload\":\"UE9TVCAvZWNobyBIVFRQLzEuMQ0KSG9zdDogeA0KQ29udGVudC1MZW5ndGg6IDINCg0KaGk=\"}}");
	run(w, c2n_came);
	assert_string_equal(w->req[w->n_req - 1].body,
			    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
			    "Content-Length: 2\r\n\r\nhi");
	assert_true(running(w));
	/* nobody's way to other hosts, and the server by another name is the server; not as often as somebody wishes */
	send_map(w, "{\"PingRequest\":{\"URL\":\"http://192.0.2.1:9/ping?id=2\"}}");
	settle(w);
	assert_int_equal(w->heads, 2);
	for (int i = 0; i < 20; i++) {
		snprintf(m, sizeof(m), "{\"PingRequest\":{\"URL\":\"%s/ping?id=%d\"}}", w->url, 10 + i);
		send_map(w, m);
		settle_for(w, 10);
	}
	settle(w);
	assert_in_range(w->heads, 3, 5);
}

static void test_self_expires(void **state)
{
	static const char *const answers[] = { OK, "{\"NodeKeyExpired\":true}", NULL };
	struct world *w = *state;
	char map[1024];

	log_in(w, answers);
	send_map(w, first_map(w, ",\"Expired\":true,\"KeyExpiry\":\"2024-01-01T00:00:00Z\"", map));
	run(w, expired);
	settle(w);
	assert_int_equal(w->n_register, 2);
	assert_non_null(w->stream); /* the server may take it back */
	send_map(w, first_map(w, "", map));
	run(w, running);
	settle(w);
	assert_int_equal(w->n_register, 2);
}

static bool approval(struct world *w)
{
	return w->state == CONTROL_STATE_NEEDS_APPROVAL;
}

static void test_approval(void **state)
{
	static const char *const answers[] = { OK, NULL };
	struct world *w = *state;
	char map[1024], *authorized;

	w->answers = answers;
	make_control(w, false);
	assert_int_equal(control_login(w->control, KEY_ARG, false), 0);
	run(w, has_stream);
	first_map(w, "", map);
	authorized = strstr(map, "MachineAuthorized");
	*authorized = 'X';
	send_map(w, map);
	run(w, approval);
	*authorized = 'M';
	send_map(w, map);
	run(w, running);
}

static void logged_out(void *data, int r)
{
	struct world *w = data;

	w->logged_out = true;
	w->logout_result = r;
}

static bool is_logged_out(struct world *w)
{
	return w->logged_out;
}

static void test_logout(void **state)
{
	static const char *const answers[] = { OK, "{\"NodeKeyExpired\":true}", NULL };
	struct world *w = *state;

	log_in(w, answers);
	assert_int_equal(control_logout(w->control, logged_out, w), 0);
	assert_int_equal(control_logout(w->control, logged_out, w), -EALREADY);
	run(w, is_logged_out);
	assert_int_equal(w->logout_result, 0);
	assert_int_equal(w->state, CONTROL_STATE_STOPPED);
	assert_true(key_is_zero(&w->node.pub));
	assert_non_null(strstr(REGISTER(1), "\"Expiry\":\"1970-01-01T00:02:03Z\""));
	assert_null(strstr(REGISTER(1), "Auth"));
	control_start(w->control);
	run(w, needs_login);
	assert_int_equal(w->n_register, 2);
}

/* The way out where a server has another key: at once, though nobody there is told. */
static void test_logout_elsewhere(void **state)
{
	struct world *w = *state;
	struct key_pair first;

	key_pair_generate(&w->node);
	key_pair_generate(&first);
	w->pin = first.pub;
	make_control(w, true);
	control_start(w->control);
	run(w, key_changed);
	assert_int_equal(control_logout(w->control, logged_out, w), 0);
	settle(w);
	assert_true(w->logged_out);
	assert_int_equal(w->logout_result, -EKEYREJECTED);
	assert_int_equal(w->state, CONTROL_STATE_STOPPED);
	assert_true(key_is_zero(&w->node.pub));
	assert_int_equal(w->n_register, 0);
}

static void test_stop_and_start(void **state)
{
	struct world *w = *state;

	log_in(w, accepted);
	control_stop(w->control);
	settle(w);
	assert_int_equal(w->state, CONTROL_STATE_STOPPED);
	assert_null(w->stream);
	control_start(w->control);
	come_up(w);
	assert_int_equal(w->n_keys_made, 1);
	control_start(w->control);
	settle(w);
	assert_true(running(w));
}

static void test_config(void **state)
{
	struct world *w = *state;
	struct control_config cfg = { .machine = &w->machine, .node = &w->node,
				      .disco = &w->disco.pub, .netmap = w->nm };
	static const char *const bad[] = { "", "hs.example.com", "ftp://x", "https://needs-tls",
					   "http://a b", "http://" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		cfg.server_url = bad[i];
		assert_int_equal(control_new(w->loop, &cfg, &ops, w, &w->control), -EINVAL);
	}
}

#define world_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		world_test(test_login),	       world_test(test_restart),
		world_test(test_bad_key),      world_test(test_passing_error),
		world_test(test_rotation),     world_test(test_person),
		world_test(test_deleted),      world_test(test_stream_again),
		world_test(test_server_key),   world_test(test_pings),
		world_test(test_self_expires), world_test(test_approval),
		world_test(test_logout),       world_test(test_logout_elsewhere),
		world_test(test_dead_meanwhile), world_test(test_flapping),     world_test(test_stop_and_start),
		world_test(test_flood),
		world_test(test_config),       world_test(test_hostile_map),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
