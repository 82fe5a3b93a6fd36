#pragma once
/* control_world: a node's control, and a server of the test's own on loopback that says what the test wants. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

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

static inline void map_closed(void *data, struct h2_stream *st, int error)
{
	struct world *w = data;

	(void)error;
	if (w->stream == st)
		w->stream = NULL;
	w->lost_streams++;
}

static inline void held_closed(void *data, struct h2_stream *st, int error)
{
	struct world *w = data;

	(void)error;
	if (w->held == st)
		w->held = NULL;
}

static inline void answer_register(struct world *w, struct h2_stream *st, const char *body)
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

static inline void send_map(struct world *w, const char *json);
static inline const char *first_map(struct world *w, const char *more, char out[static 1024]);

static inline void answer_map(struct world *w, struct h2_stream *st, const char *body)
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

static inline void on_request(void *data, struct h2_stream *st, const char *method, const char *path,
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

static inline int conn_write(void *data, const uint8_t *p, size_t n)
{
	struct conn *k = data;

	return ts2021_conn_write(k->ts, p, n);
}

static const struct h2_io conn_io = { .write = conn_write };

static inline void conn_input(void *data, struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	struct conn *k = data;

	(void)c;
	h2_feed(k->h2, p, n);
}

static inline void conn_drop(struct conn *k)
{
	h2_free(TAKE(k->h2));
	ts2021_conn_free(TAKE(k->ts));
}

static inline void conn_closed(void *data, struct ts2021_conn *c, int error, const char *why)
{
	(void)c;
	(void)error;
	(void)why;
	conn_drop(data);
}

static const struct ts2021_conn_ops conn_ops = { .on_input = conn_input, .on_closed = conn_closed };

static inline void on_upgrade(void *data, struct httpd_req *q)
{
	struct world *w = data;
	struct conn *k = &w->conns[w->n_conns++];

	assert_true(w->n_conns < CONNS_MAX);
	k->w = w;
	if (ts2021_conn_server(q, &w->server_key, true, &conn_ops, k, &k->ts) < 0)
		return;
	assert_int_equal(h2_server_new(&conn_io, k, &server_ops, k, &k->h2), 0);
}

static inline void on_key(void *data, struct httpd_req *q)
{
	struct world *w = data;
	char text[KEY_TEXT_MAX], body[256];

	w->keys++;
	snprintf(body, sizeof(body), "{\"legacyPublicKey\":\"mkey:%064d\",\"publicKey\":\"%s\"}\n", 0,
		 key_text(KEY_KIND_MACHINE, &w->server_key.pub, text));
	httpd_respond(q, 200, "application/json", body, strlen(body));
}

static inline void on_head(void *data, struct httpd_req *q)
{
	struct world *w = data;

	w->heads++;
	httpd_respond(q, 200, NULL, NULL, 0);
}

static inline void send_map(struct world *w, const char *json)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	assert_non_null(w->stream);
	assert_int_equal(ts2021_frame_put(&b, TS2021_ENCODING_ZSTD, json, strlen(json)), 0);
	assert_int_equal(h2_send(w->stream, buf_data(&b), b.len), 0);
}

static inline const char *first_map(struct world *w, const char *more, char out[static 1024])
{
	char key[KEY_TEXT_MAX];

	snprintf(out, 1024,
		 "{\"Node\":{\"ID\":1,\"StableID\":\"1\",\"Name\":\"me.mesh.test.\",\"Key\":\"%s\",\"Addresses\":"
		 "[\"100.64.0.1/32\"],\"MachineAuthorized\":true%s},\"PacketFilters\":{\"base\":null}}",
		 key_text(KEY_KIND_NODE, &w->node.pub, key), more);
	return out;
}

/* ---- node ---- */

static inline void on_state(void *data, enum control_state state, const char *text)
{
	struct world *w = data;

	w->state = state;
	snprintf(w->text, sizeof(w->text), "%s", text);
}

static inline void on_map(void *data, const struct netmap_changes *c, bool first)
{
	struct world *w = data;

	(void)c;
	w->n_maps++;
	w->n_first += first;
}

static inline void on_auth_url(void *data, const char *url)
{
	struct world *w = data;

	snprintf(w->url_shown, sizeof(w->url_shown), "%s", url);
}

static inline void on_login_failed(void *data, const char *text, bool permanent)
{
	struct world *w = data;

	snprintf(w->failed, sizeof(w->failed), "%s", text);
	w->n_failed++;
	w->n_permanent += permanent;
}

static inline int on_node_key(void *data, const struct key_pair *node, const struct key_pair *old)
{
	struct world *w = data;

	w->node = *node;
	w->old_node = *old;
	w->n_keys_made++;
	return 0;
}

static inline void on_registered(void *data, const struct key_pair *node, const char *login)
{
	struct world *w = data;

	assert_memory_equal(node->pub.b, w->node.pub.b, 32);
	snprintf(w->login, sizeof(w->login), "%s", login);
	w->n_registered++;
}

static inline int on_server_key(void *data, const char *url, const struct key *key)
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

static inline void run_(struct world *w, bool (*until)(struct world *), int line)
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
static inline bool settled(struct world *w)
{
	return loop_now(w->loop) >= settle_until;
}

/* Long enough for anything that should not happen. */
static inline void settle(struct world *w)
{
	settle_until = loop_now(w->loop) + 120 * USEC_PER_MSEC;
	run(w, settled);
}

static inline void settle_for(struct world *w, uint64_t msec)
{
	settle_until = loop_now(w->loop) + msec * USEC_PER_MSEC;
	run(w, settled);
}

static inline void serve(struct world *w, const struct endpoint *at)
{
	struct endpoint bound;

	assert_int_equal(httpd_new(w->loop, NULL, &w->httpd), 0);
	assert_int_equal(httpd_route(w->httpd, "GET", "/key", 0, on_key, w), 0);
	assert_int_equal(httpd_route(w->httpd, "POST", "/ts2021", 0, on_upgrade, w), 0);
	assert_int_equal(httpd_route(w->httpd, "GET", "/ping", 0, on_head, w), 0);
	assert_int_equal(httpd_listen_tcp(w->httpd, at, NULL, &bound), 0);
	snprintf(w->url, sizeof(w->url), "http://127.0.0.1:%u", bound.port);
}

static inline int set_up(void **state)
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

static inline int tear_down(void **state)
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

static inline void make_control(struct world *w, bool registered)
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

static inline const char *body_of(const struct world *w, const char *path, size_t nth)
{
	for (size_t i = 0; i < w->n_req; i++) {
		if (strcmp(w->req[i].path, path) == 0 && nth-- == 0)
			return w->req[i].body;
	}
	fail_msg("no such request of %s", path);
	return NULL;
}
#define REGISTER(nth) body_of(w, "/machine/register", nth)

static inline bool has_stream(struct world *w)
{
	return w->stream != NULL;
}
static inline bool running(struct world *w)
{
	return w->state == CONTROL_STATE_RUNNING;
}

#define OK "{\"Login\":{\"ID\":1,\"LoginName\":\"u\"},\"MachineAuthorized\":true}\n"
#define KEY_ARG "hskey-auth-1-2"

static inline void come_up(struct world *w)
{
	char map[1024];

	run(w, has_stream);
	send_map(w, first_map(w, "", map));
	run(w, running);
}

static const char *const accepted[] = { OK, NULL };

/* With a key, for the first time, until the map is there. */
static inline void log_in(struct world *w, const char *const *answers)
{
	w->answers = answers;
	make_control(w, false);
	assert_int_equal(control_login(w->control, KEY_ARG, false), 0);
	come_up(w);
}

#define world_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
