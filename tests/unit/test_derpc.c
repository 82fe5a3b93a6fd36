/*
 * derpc: a node's relay connections against our own relay on loopback, one loop for both: plain and
 * TLS with its rules for certificates, fast start, routes, homes, failing relays of a region.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <sodium.h>

#include "daemon/relay/derpc.h"
#include "lib/httpd.h"
#include "proto/derp.h"
#include "relay/metacert.h"
#include "relay/relay.h"

#define REGION 900

struct node {
	struct world *w;
	struct derpc *d;
	struct key_pair key;
	unsigned int ups, downs, gones, packets;
	char text[256], last[64];
	struct key from;
	int64_t via;
};

struct world {
	struct loop *loop;
	struct httpd *httpd;
	struct tls_ctx *server_tls, *client_tls;
	struct relay *relay;
	struct key_pair key;
	struct endpoint at;
	struct loop_timer *guard, *poll;
	struct derp_map map;
	struct node a, b;
	uint64_t since;
	bool timed_out;
};

/* The nonces of the boxes that greet relays; linked with --wrap. */
static uint8_t greeted[8][DERP_NONCE_LEN];
static unsigned int n_greeted;

int __real_derp_put_client_info(struct buf *out, const struct derp_client_info *info, const struct key_pair *client,
				const struct key *server, const uint8_t nonce[static DERP_NONCE_LEN]);
int __wrap_derp_put_client_info(struct buf *out, const struct derp_client_info *info, const struct key_pair *client,
				const struct key *server, const uint8_t nonce[static DERP_NONCE_LEN]);
int __wrap_derp_put_client_info(struct buf *out, const struct derp_client_info *info, const struct key_pair *client,
				const struct key *server, const uint8_t nonce[static DERP_NONCE_LEN])
{
	memcpy(greeted[n_greeted++ % ARRAY_SIZE(greeted)], nonce, DERP_NONCE_LEN);
	return __real_derp_put_client_info(out, info, client, server, nonce);
}

static void node_packet(void *data, int64_t region, const struct key *src, const uint8_t *p,
			size_t len)
{
	struct node *n = data;

	n->packets++;
	n->from = *src;
	n->via = region;
	snprintf(n->last, sizeof(n->last), "%.*s", (int)len, (const char *)p);
}

static void node_gone(void *data, int64_t region, const struct key *peer, uint8_t reason)
{
	struct node *n = data;

	(void)region;
	(void)peer;
	(void)reason;
	n->gones++;
}

static void node_state(void *data, int64_t region, bool connected, const char *text)
{
	struct node *n = data;

	(void)region;
	if (connected)
		n->ups++;
	else
		n->downs++;
	snprintf(n->text, sizeof(n->text), "%s", text);
}

static const struct derpc_ops node_ops = { .on_packet = node_packet,
					   .on_peer_gone = node_gone,
					   .on_state = node_state };

static void world_guard(void *data)
{
	struct world *w = data;

	w->timed_out = true;
	loop_exit(w->loop, 0);
}

/* The steps of a test: each is run again and again until it says that it is done. */
struct step {
	bool (*done)(struct world *w);
	void (*act)(struct world *w);
};
static const struct step *steps;

static void world_poll(void *data)
{
	struct world *w = data;

	while (steps->done && steps->done(w)) {
		if (steps->act)
			steps->act(w);
		steps++;
	}
	if (!steps->done)
		loop_exit(w->loop, 0);
	else
		loop_timer_in(w->poll, 2 * USEC_PER_MSEC);
}

enum how {
	HOW_PLAIN,
	HOW_TLS,
	HOW_TLS_META,
};

static void world_start(struct world *w, enum how how)
{
	static const char *const names[] = { "localhost", "127.0.0.1" };
	const struct endpoint any = { .addr = addr_v4(127, 0, 0, 1) };
	struct relay_config c = { .key = &w->key };
	uint8_t meta[METACERT_MAX];

	*w = (struct world){ 0 };
	key_pair_generate(&w->key);
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(httpd_new(w->loop, NULL, &w->httpd), 0);
	assert_int_equal(relay_new(w->loop, &c, &w->relay), 0);
	assert_int_equal(relay_route(w->relay, w->httpd), 0);
	if (how != HOW_PLAIN)
		assert_int_equal(tls_server_self(names, 2, NULL, NULL, &w->server_tls), 0);
	if (how == HOW_TLS_META) {
		int n = metacert_make(&w->key.pub, meta);

		assert_int_equal(tls_server_append_cert(w->server_tls, meta, (size_t)n), 0);
	}
	assert_int_equal(httpd_listen_tcp(w->httpd, &any, w->server_tls, &w->at), 0);
	assert_int_equal(tls_client_new(NULL, &w->client_tls), 0);
	assert_int_equal(loop_timer_new(w->loop, world_guard, w, &w->guard), 0);
	assert_int_equal(loop_timer_new(w->loop, world_poll, w, &w->poll), 0);
}

static void world_map(struct world *w, const char *host, const char *cert, int first_dead)
{
	struct derp_region r = { .id = REGION };
	struct derp_node *n;

	r.code = strdup("tst");
	r.name = strdup("Test");
	r.nodes = calloc(2, sizeof(*r.nodes));
	for (int i = 0; i < 2; i++) {
		n = &r.nodes[r.n_nodes++];
		n->name = strdup(i ? "900b" : "900a");
		n->region_id = REGION;
		n->hostname = strdup(host);
		n->cert_name = strdup(cert);
		n->ipv4 = strdup("127.0.0.1");
		n->ipv6 = strdup("none");
		n->stun_test_ip = strdup("");
		n->derp_port = first_dead && !i ? first_dead : w->at.port;
	}
	derp_map_done(&w->map);
	assert_int_equal(derp_map_put(&w->map, &r), 0);
}

static void node_start(struct world *w, struct node *n, bool plain)
{
	const struct derpc_opts o = { .ops = &node_ops, .data = n, .tls = w->client_tls };

	n->w = w;
	key_pair_generate(&n->key);
	assert_int_equal(derpc_new(w->loop, &o, &n->d), 0);
	if (plain)
		assert_int_equal(derpc_set_plain_host(n->d, "127.0.0.1", w->at.port), 0);
	derpc_set_self(n->d, &n->key);
	assert_int_equal(derpc_set_map(n->d, &w->map), 0);
}

static void world_run(struct world *w, const struct step *todo)
{
	steps = todo;
	loop_timer_in(w->guard, 8 * USEC_PER_SEC);
	loop_timer_in(w->poll, 0);
	loop_run(w->loop);
	if (w->timed_out)
		fail_msg("step %zu does not come: a: %s; b: %s", (size_t)(steps - todo), w->a.text,
			 w->b.text);
}

static void world_done(struct world *w)
{
	derpc_free(w->a.d);
	derpc_free(w->b.d);
	httpd_free(w->httpd);
	relay_free(w->relay);
	tls_ctx_unref(w->server_tls);
	tls_ctx_unref(w->client_tls);
	loop_timer_free(w->guard);
	loop_timer_free(w->poll);
	loop_free(w->loop);
	derp_map_done(&w->map);
}

static bool both_up(struct world *w)
{
	return derpc_connected(w->a.d, REGION) && derpc_connected(w->b.d, REGION);
}

static bool a_up(struct world *w)
{
	return derpc_connected(w->a.d, REGION);
}

static void a_sends(struct world *w)
{
	assert_int_equal(derpc_send(w->a.d, REGION, &w->b.key.pub, "hello", 5), 0);
}

static bool b_heard(struct world *w)
{
	return w->b.packets == 1;
}

static void b_answers(struct world *w)
{
	assert_string_equal(w->b.last, "hello");
	assert_memory_equal(&w->b.from, &w->a.key.pub, sizeof(struct key));
	assert_int_equal(derpc_send(w->b.d, REGION, &w->b.from, "back", 4), 0);
}

static bool a_heard(struct world *w)
{
	return w->a.packets == 1;
}

static void b_leaves(struct world *w)
{
	assert_string_equal(w->a.last, "back");
	assert_int_equal(relay_stats(w->relay)->home_connections, 2);
	derpc_set_self(w->b.d, NULL);
}

static bool a_knows(struct world *w)
{
	return w->a.gones == 1;
}

static void a_forgot(struct world *w)
{
	assert_int_equal(derpc_send(w->b.d, REGION, &w->a.key.pub, "x", 1), -ENETDOWN);
	assert_int_equal(derpc_send(w->a.d, 5, &w->b.key.pub, "x", 1), -ENOENT);
}

static const struct step conversation[] = {
	{ both_up, a_sends },  { b_heard, b_answers }, { a_heard, b_leaves },
	{ a_knows, a_forgot }, { NULL, NULL },
};

static void talk(struct world *w, bool plain)
{
	node_start(w, &w->a, plain);
	node_start(w, &w->b, plain);
	derpc_set_home(w->a.d, REGION);
	derpc_set_home(w->b.d, REGION);
	world_run(w, conversation);
	assert_int_equal(w->a.ups, 1);
	assert_int_equal(w->a.downs, 0);
}

static void test_plain(void **state)
{
	struct world w;

	(void)state;
	world_start(&w, HOW_PLAIN);
	world_map(&w, "127.0.0.1", "", 0);
	talk(&w, true);
	world_done(&w);
}

static void pin_text(const struct world *w, char out[static 80])
{
	uint8_t h[32];
	char hex[65];

	assert_int_equal(tls_server_leaf_sha256(w->server_tls, h), 0);
	snprintf(out, 80, "sha256-raw:%s", sodium_bin2hex(hex, sizeof(hex), h, sizeof(h)));
}

static void test_pin(void **state)
{
	static const enum how hows[] = { HOW_TLS, HOW_TLS_META };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hows); i++) {
		struct derpc_info info;
		struct world w;
		char pin[80];

		world_start(&w, hows[i]);
		pin_text(&w, pin);
		world_map(&w, "127.0.0.1", pin, 0);
		talk(&w, false);
		assert_int_equal(derpc_list(w.a.d, &info, 1), 1);
		assert_true(info.tls && info.home && info.connected);
		assert_string_equal(info.node, "900a");
		world_done(&w);
	}
}

static bool a_failed(struct world *w)
{
	return w->a.downs >= 2;
}

static void expect_failure(enum how how, const char *host, const char *cert, const char *text)
{
	static const struct step failure[] = { { a_failed, NULL }, { NULL, NULL } };
	struct world w;

	world_start(&w, how);
	world_map(&w, host, cert, 0);
	node_start(&w, &w.a, false);
	derpc_set_home(w.a.d, REGION);
	world_run(&w, failure);
	assert_int_equal(w.a.ups, 0);
	if (!strstr(w.a.text, text))
		fail_msg("\"%s\" does not say \"%s\"", w.a.text, text);
	world_done(&w);
}

static void test_not_trusted(void **state)
{
	(void)state;
	expect_failure(HOW_TLS, "localhost", "", "certificate");
	expect_failure(HOW_TLS_META, "127.0.0.1", "", "certificate");
	expect_failure(
	    HOW_TLS, "127.0.0.1",
	    "sha256-raw:07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c",
	    "pinned");
	expect_failure(HOW_TLS, "127.0.0.1", "sha256-raw:07", "pin");
	/* A plain relay where nobody allowed one. */
	expect_failure(HOW_PLAIN, "127.0.0.1", "", "TLS");
}

/* The first relay of the region takes no TCP, the second serves. */
static void test_next_node(void **state)
{
	static const struct step up[] = { { a_up, NULL }, { NULL, NULL } };
	struct derpc_info info;
	struct world w;

	(void)state;
	world_start(&w, HOW_PLAIN);
	world_map(&w, "127.0.0.1", "", 1);
	node_start(&w, &w.a, true);
	derpc_set_home(w.a.d, REGION);
	world_run(&w, up);
	assert_int_equal(derpc_list(w.a.d, &info, 1), 1);
	assert_string_equal(info.node, "900b");
	assert_int_equal(relay_stats(w.relay)->not_ideal_connections, 1);
	world_done(&w);
}

static bool b_up(struct world *w)
{
	return derpc_connected(w->b.d, REGION);
}

/* Not home: dialled when there is something to send, which waits for the connection and arrives. */
static void test_lazy(void **state)
{
	static const struct step todo[] = { { b_up, a_sends }, { b_heard, NULL }, { NULL, NULL } };
	struct derpc_info info;
	struct world w;

	(void)state;
	world_start(&w, HOW_PLAIN);
	world_map(&w, "127.0.0.1", "", 0);
	node_start(&w, &w.a, true);
	node_start(&w, &w.b, true);
	derpc_set_home(w.b.d, REGION);
	assert_int_equal(derpc_list(w.a.d, &info, 1), 0);
	world_run(&w, todo);
	assert_string_equal(w.b.last, "hello");
	assert_int_equal(relay_stats(w.relay)->home_connections, 1);
	world_done(&w);
}

/* The relay closes: the connection is made again by itself. */
static void a_kicked(struct world *w)
{
	assert_int_equal(relay_disconnect(w->relay, &w->a.key.pub), 1);
}

static bool a_again(struct world *w)
{
	return w->a.ups == 2 && w->a.downs == 1;
}

static void a_restarts(struct world *w)
{
	derpc_restart(w->a.d);
	assert_false(derpc_connected(w->a.d, REGION));
}

static bool a_thrice(struct world *w)
{
	return w->a.ups == 3;
}

static void a_checks(struct world *w)
{
	derpc_check(w->a.d);
}

static bool a_answered(struct world *w)
{
	return relay_stats(w->relay)->sent_pong == 1;
}

/* A changed map makes the connection anew; the same one does not. */
static void a_new_map(struct world *w)
{
	assert_int_equal(derpc_set_map(w->a.d, &w->map), 0);
	assert_true(derpc_connected(w->a.d, REGION));
	w->map.regions[0].nodes[1].derp_port = 9;
	assert_int_equal(derpc_set_map(w->a.d, &w->map), 0);
	assert_false(derpc_connected(w->a.d, REGION));
}

static bool a_fourth(struct world *w)
{
	return w->a.ups == 4;
}

static void test_reconnect(void **state)
{
	static const struct step todo[] = { { a_up, a_kicked },	    { a_again, a_restarts },
					    { a_thrice, a_checks }, { a_answered, a_new_map },
					    { a_fourth, NULL },	    { NULL, NULL } };
	struct world w;

	(void)state;
	n_greeted = 0;
	world_start(&w, HOW_PLAIN);
	world_map(&w, "127.0.0.1", "", 0);
	node_start(&w, &w.a, true);
	derpc_set_home(w.a.d, REGION);
	world_run(&w, todo);
	assert_int_equal(relay_stats(w.relay)->accepts, 4);
	world_done(&w);
	assert_int_equal(n_greeted, 4);
	for (size_t i = 0; i < n_greeted; i++)
		for (size_t k = 0; k < i; k++)
			assert_memory_not_equal(greeted[i], greeted[k], DERP_NONCE_LEN);
}

/* A relay that greets everybody and then ends the connection, for ever. */
static void kick_always(struct world *w)
{
	relay_disconnect(w->relay, &w->a.key.pub);
}

static bool a_kicked_for_a_while(struct world *w)
{
	if (w->a.ups > w->a.downs)
		kick_always(w);
	return loop_now(w->loop) - w->since >= 1500 * USEC_PER_MSEC;
}

static void test_flapping(void **state)
{
	static const struct step todo[] = { { a_kicked_for_a_while, NULL }, { NULL, NULL } };
	struct derpc_info info;
	struct world w;

	(void)state;
	world_start(&w, HOW_PLAIN);
	world_map(&w, "127.0.0.1", "", 0);
	node_start(&w, &w.a, true);
	derpc_set_home(w.a.d, REGION);
	w.since = loop_now(w.loop);
	world_run(&w, todo);
	/* n² · 10 ms between them: some ten in that time, not a hundred. */
	assert_in_range(w.a.ups, 3, 15);
	assert_int_equal(derpc_list(w.a.d, &info, 1), 1);
	assert_true(info.failures + 1 >= w.a.ups);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),	    cmocka_unit_test(test_pin),
		cmocka_unit_test(test_not_trusted), cmocka_unit_test(test_next_node),
		cmocka_unit_test(test_lazy),	    cmocka_unit_test(test_reconnect),
		cmocka_unit_test(test_flapping),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
