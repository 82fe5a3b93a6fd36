/* relay: sessions of stock clients, byte by byte (tests/data/derp), the relay having the key it had then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/json.h"
#include "proto/derp.h"
#include "tests/unit/relay_sim.h"

struct session {
	json_t *j;
	size_t at; /* in its "bytes" */
	struct client c;
	struct key pub;
	struct session *peer; /* NULL: the other node is not here */
	unsigned int sent, received, gone;
};

static uint8_t *session_bytes(const struct session *s, const char **dir, size_t *len)
{
	const json_t *b = json_array_get(json_get(s->j, "bytes"), s->at);
	const char *hex = json_get_str(b, "hex");
	size_t n = strlen(hex) / 2;
	uint8_t *p = malloc(n + 1);

	*dir = json_get_str(b, "dir");
	assert_int_equal(sodium_hex2bin(p, n + 1, hex, 2 * n, NULL, len, NULL), 0);
	p[n] = 0;
	return p;
}

static struct key session_key(const struct session *s, const char *name)
{
	const char *hex = json_get_str(s->j, name);
	struct key k;

	assert_int_equal(key_parse(KEY_KIND_HEX, hex, strlen(hex), &k), 0);
	return k;
}

static void session_load(struct session *s, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "tests/data/derp/server-%s.json", name);
	*s = (struct session){ .j = json_load_file(path, 0, NULL) };
	assert_non_null(s->j);
	s->pub = session_key(s, "client_public");
}

/* Every header that the client took then. */
static void session_head(struct session *s, const char *want)
{
	struct http_head old, now;
	size_t n = 0;

	while (n < 4 || memcmp(s->c.bytes + n - 4, "\r\n\r\n", 4)) {
		assert_int_equal(recv(s->c.fd, s->c.bytes + n, 1, 0), 1);
		n++;
	}
	assert_true(http_response_parse(want, strlen(want), &old) > 0);
	assert_int_equal(http_response_parse(s->c.bytes, n, &now), n);
	assert_int_equal(now.status, old.status);
	for (size_t i = 0; i < old.n_headers; i++) {
		char name[64], value[128];

		snprintf(name, sizeof(name), "%.*s", HTTP_STR_FMT(old.header[i].name));
		snprintf(value, sizeof(value), "%.*s", HTTP_STR_FMT(old.header[i].value));
		assert_true(http_str_ieq(http_find(&now, name), value));
	}
}

/* The next frame but for PeerGone, of which only "not here" is right where the other is not. */
static void session_expect(struct session *s, uint8_t type, struct derp_frame *ret)
{
	for (;;) {
		struct derp_gone g;

		assert_int_equal(client_get(&s->c, PATIENCE_MSEC, ret), 1);
		if (ret->type != DERP_FRAME_PEER_GONE)
			break;
		assert_null(s->peer);
		assert_int_equal(derp_gone_decode(ret->body, ret->len, &g), 0);
		assert_int_equal(g.reason, DERP_GONE_NOT_HERE);
		s->gone++;
	}
	assert_int_equal(ret->type, type);
}

static void session_frame(struct session *s, const struct server *srv, const uint8_t *p, size_t len)
{
	struct derp_server_info si;
	struct derp_frame f;

	if (p[0] == DERP_FRAME_PEER_GONE || (p[0] == DERP_FRAME_RECV_PACKET && !s->peer))
		return;
	session_expect(s, p[0], &f);
	if (p[0] == DERP_FRAME_SERVER_INFO) { /* the shared key is the same from either side */
		assert_int_equal(derp_server_info_open(f.body, f.len, &srv->key.priv, &s->pub, &si), 0);
		assert_int_equal(si.version, 2);
		return;
	}
	assert_int_equal(f.len, len - DERP_HEADER_LEN);
	assert_memory_equal(f.body, p + DERP_HEADER_LEN, f.len);
	s->received += p[0] == DERP_FRAME_RECV_PACKET;
}

/* False: at the end, or the other node has to speak first. */
static bool session_step(struct session *s, const struct server *srv)
{
	const char *dir;
	uint8_t *p;
	size_t len;

	if (s->at == json_array_size(json_get(s->j, "bytes")))
		return false;
	p = session_bytes(s, &dir, &len);
	if (!strcmp(dir, "s2c") && p[0] == DERP_FRAME_RECV_PACKET && s->peer && s->peer->sent == s->received) {
		free(p);
		return false;
	}
	s->at++;
	if (!strncmp(dir, "c2s", 3)) {
		put(s->c.fd, p, len);
		s->sent += !strcmp(dir, "c2s") && p[0] == DERP_FRAME_SEND_PACKET;
	} else if (!strcmp(dir, "s2c-http")) {
		session_head(s, (const char *)p);
	} else {
		session_frame(s, srv, p, len);
	}
	free(p);
	return true;
}

/* It is still there, and what it sent has been handled. */
static void session_sync(struct session *s)
{
	static const uint8_t token[DERP_PING_LEN] = "syncsync";
	struct derp_frame f;
	struct buf b = { 0 };

	derp_put_ping(&b, DERP_FRAME_PING, token);
	client_put(&s->c, &b);
	session_expect(s, DERP_FRAME_PONG, &f);
	assert_memory_equal(f.body, token, sizeof(token));
}

/* Both ends where both were recorded. */
static void sessions_replay(const char *one, const char *other)
{
	struct session s[2] = { 0 };
	struct server srv = { 0 };
	size_t n = other ? 2 : 1;
	unsigned int sent = 0;
	bool moved = true;

	session_load(&s[0], one);
	if (other) {
		session_load(&s[1], other);
		s[0].peer = &s[1];
		s[1].peer = &s[0];
	}
	srv.key.priv = session_key(&s[0], "server_private");
	assert_int_equal(key_public(&srv.key.priv, &srv.key.pub), 0);
	server_start(&srv);
	for (size_t i = 0; i < n; i++) {
		s[i].c.fd = tcp(&srv);
		derp_reader_init(&s[i].c.rd, DERP_ROLE_CLIENT);
	}
	while (moved) {
		moved = false;
		for (size_t i = 0; i < n; i++)
			while (session_step(&s[i], &srv))
				moved = true;
	}
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(s[i].at, json_array_size(json_get(s[i].j, "bytes")));
		assert_int_equal(s[i].received, s[i].peer ? s[i].peer->sent : 0);
		session_sync(&s[i]);
		sent += s[i].sent;
	}
	server_stop(&srv);
	assert_int_equal(srv.end.packets_received, sent);
	assert_int_equal(srv.end.home_connections, n);
	assert_int_equal(srv.end.protocol_errors, 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(other || s[i].gone == (sent < 3 ? sent : 3)); /* three at once, then one a second */
		client_done(&s[i].c);
		json_decref(s[i].j);
	}
}

static void test_stock_sessions(void **state)
{
	(void)state;
	sessions_replay("faststart-1", "faststart-2");
	sessions_replay("101", NULL);
	sessions_replay("peergone", NULL);
	sessions_replay("ping", NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stock_sessions),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
