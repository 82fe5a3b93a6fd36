/* control: whole conversations with a server of the test's own, on loopback. */
#include "tests/unit/control_world.h"

#include <netinet/in.h>
#include <sys/socket.h>

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

/* The clock that a key expires by is the server's: a message that only tells the time can be the end of one. */
static void test_self_expires_by_server(void **state)
{
	static const char *const answers[] = { OK, "{\"NodeKeyExpired\":true}", NULL };
	struct world *w = *state;
	char map[1024], more[256], text[40];

	log_in(w, answers);
	snprintf(more, sizeof(more), ",\"KeyExpiry\":\"%s\"", json_time_text(loop_wall_nsec() + 3600 * INT64_C(1000000000), text));
	send_map(w, first_map(w, more, map));
	settle(w);
	assert_true(running(w));
	snprintf(more, sizeof(more), "{\"KeepAlive\":true,\"ControlTime\":\"%s\"}",
		 json_time_text(loop_wall_nsec() + 7200 * INT64_C(1000000000), text));
	send_map(w, more);
	run(w, expired);
}

/* The map's owner looks at the clock, too, and whoever looks first is told by the map. */
static void test_self_expires_seen_by_other(void **state)
{
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	static const char *const answers[] = { OK, "{\"NodeKeyExpired\":true}", NULL };
	struct world *w = *state;
	char map[1024], more[256], text[40];

	log_in(w, answers);
	snprintf(more, sizeof(more), ",\"KeyExpiry\":\"%s\"", json_time_text(loop_wall_nsec() + INT64_C(1500000000), text));
	send_map(w, first_map(w, more, map));
	settle(w);
	assert_true(running(w));
	netmap_tick(w->nm, loop_wall_nsec() + INT64_C(2000000000), &c);
	assert_int_equal(c.self, NETMAP_EXPIRED);
	run(w, expired);
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

int main(void)
{
	static const struct CMUnitTest tests[] = {
		world_test(test_login),
		world_test(test_restart),
		world_test(test_bad_key),
		world_test(test_passing_error),
		world_test(test_rotation),
		world_test(test_person),
		world_test(test_deleted),
		world_test(test_stream_again),
		world_test(test_server_key),
		world_test(test_pings),
		world_test(test_self_expires),
		world_test(test_self_expires_by_server),
		world_test(test_self_expires_seen_by_other),
		world_test(test_approval),
		world_test(test_logout),
		world_test(test_logout_elsewhere),
		world_test(test_dead_meanwhile),
		world_test(test_stop_and_start),
		world_test(test_config),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
