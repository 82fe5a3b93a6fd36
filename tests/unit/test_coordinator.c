/* coordinator: nodes that log in, stream maps and hear of each other. */
#include "tests/unit/coordinator_world.h"
#include "tests/unit/weak_keys.h"

#include <arpa/inet.h>

static void test_first_map(void **state)
{
	struct server *s = *state;
	struct node_client *a = joined(s, "box"), *b = joined(s, "box");
	json_t *m, *self, *peer;

	client_stream(b);
	m = client_map(b, WAIT_MSEC);
	assert_non_null(m);
	assert_int_equal(b->status, 200);
	self = json_get(m, "Node");
	assert_string_equal(json_get_str(self, "Name"), "h-1.mesh.test."); /* they call themselves h meanwhile */
	assert_string_equal(json_get_str(self, "StableID"), "2");
	assert_true(json_get_bool(self, "MachineAuthorized", false));
	assert_non_null(json_get(json_get(self, "CapMap"), "https://tailscale.com/cap/is-admin"));
	assert_int_equal(json_array_size(json_get(m, "Peers")), 1);
	peer = json_array_get(json_get(m, "Peers"), 0);
	assert_int_equal(json_get_int(peer, "ID", 0), 1);
	assert_int_equal(json_get_int(peer, "HomeDERP", 0), 900);
	assert_int_equal(json_get_int(peer, "Cap", 0), 131);
	assert_true(json_is_boolean(json_get(peer, "Online")));
	assert_true(json_is_array(json_get(peer, "Endpoints")));
	assert_non_null(json_get(peer, "Hostinfo"));
	assert_null(json_get(peer, "CapMap"));
	assert_non_null(json_get(json_get(json_get(m, "DERPMap"), "Regions"), "900"));
	assert_int_equal(json_array_size(json_get(json_get(m, "PacketFilters"), "base")), 1);
	assert_true(json_is_array(json_get(json_get(json_get(m, "DNSConfig"), "Routes"), "64.100.in-addr.arpa.")));
	assert_int_equal(json_array_size(json_get(m, "UserProfiles")), 1);
	assert_true(json_get_bool(json_get(m, "Debug"), "DisableLogTail", false));
	json_decref(m);
	client_free(a);
	client_free(b);
}

static void test_deltas(void **state)
{
	struct server *s = *state;
	struct node_client *a = joined(s, "a"), *b;
	json_t *m, *p;

	client_stream(a);
	json_decref(client_map(a, WAIT_MSEC));
	b = joined(s, "b");
	m = client_map_with(a, "PeersChanged");
	/* What stock clients need in the same message to show the new peer's owner. */
	assert_int_equal(json_array_size(json_get(m, "UserProfiles")), 1);
	assert_non_null(json_get(m, "DNSConfig"));
	assert_int_equal(json_get_int(json_array_get(json_get(m, "PeersChanged"), 0), "ID", 0), 2);
	json_decref(m);
	client_stream(b);
	json_decref(client_map(b, WAIT_MSEC));
	m = client_map_with(a, "PeersChangedPatch");
	p = json_array_get(json_get(m, "PeersChangedPatch"), 0);
	assert_true(json_get_bool(p, "Online", false));
	json_decref(m);
	assert_null(client_map(b, 50)); /* its first map said all of that */

	assert_int_equal(client_update(b, "\"Endpoints\":[\"192.0.2.7:7\"],"), 200);
	m = client_map_with(a, "PeersChangedPatch");
	p = json_array_get(json_get(m, "PeersChangedPatch"), 0);
	assert_int_equal(json_object_size(p), 2);
	assert_string_equal(json_string_value(json_array_get(json_get(p, "Endpoints"), 0)), "192.0.2.7:7");
	assert_null(json_get(m, "PeersChanged"));
	json_decref(m);
	m = client_map_with(b, "Node"); /* and the node itself */
	assert_null(json_get(m, "PeersChangedPatch"));
	json_decref(m);

	/* The same again reaches nobody. */
	assert_int_equal(client_update(b, "\"Endpoints\":[\"192.0.2.7:7\"],"), 200);
	assert_null(client_map(a, 150));
	assert_null(client_map(b, 0));

	/* Absent leaves them, an empty list clears them. */
	assert_int_equal(client_update(b, ""), 200);
	assert_null(client_map(a, 100));
	assert_int_equal(client_update(b, "\"Endpoints\":[],"), 200);
	m = client_map_with(a, "PeersChangedPatch");
	p = json_array_get(json_get(m, "PeersChangedPatch"), 0);
	assert_true(json_is_array(json_get(p, "Endpoints")));
	assert_int_equal(json_array_size(json_get(p, "Endpoints")), 0);
	json_decref(m);

	json_decref(admin(s, "DELETE", "/api/v1/node/2", ""));
	m = client_map_with(a, "PeersRemoved");
	assert_int_equal(json_integer_value(json_array_get(json_get(m, "PeersRemoved"), 0)), 2);
	json_decref(m);
	while ((m = client_map(b, WAIT_MSEC)))
		json_decref(m);
	assert_true(b->stream_over);
	assert_int_equal(client_update(b, ""), 404);
	client_free(a);
	client_free(b);
}

static void test_newest_stream_wins(void **state)
{
	struct server *s = *state;
	struct node_client *a = joined(s, "a"), *b = joined(s, "b"), again;
	json_t *m;

	client_stream(a);
	json_decref(client_map(a, WAIT_MSEC));
	client_stream(b);
	json_decref(client_map(b, WAIT_MSEC));
	for (bool came = false; !came;) { /* that b is there is what a is told last */
		char *text;

		m = client_map(a, WAIT_MSEC);
		assert_non_null(m);
		text = json_dumps(m, 0);
		came = strstr(text, "\"Online\": true");
		free(text);
		json_decref(m);
	}
	while ((m = client_map(a, 500))) /* or all but last */
		json_decref(m);
	again = (struct node_client){ .machine = b->machine, .node = b->node, .disco = b->disco };
	client_connect(s, &again);
	client_stream(&again);
	m = client_map(&again, WAIT_MSEC);
	assert_non_null(json_get(m, "Node"));
	json_decref(m);
	while ((m = client_map(b, WAIT_MSEC)))
		json_decref(m);
	assert_true(b->stream_over);
	assert_null(client_map(a, 200)); /* nobody went offline */
	node_client_close(&again);
	buf_done(&again.plain);
	buf_done(&again.body);
	client_free(a);
	client_free(b);
}

static void test_refusals(void **state)
{
	struct server *s = *state;
	struct node_client *a = joined(s, "a"), *b = client_new(s);
	struct key_pair own = b->node;
	json_t *j;

	assert_non_null(strstr(client_register(b, s->reusable, "b", 112), "unsupported client version"));
	assert_non_null(strstr(client_register(b, "hskey-auth-x", "b", 131), "invalid pre auth key"));
	assert_non_null(strstr(client_register(b, NULL, "b", 131), "http://127.0.0.1:8080/register/hskey-authreq-"));
	b->node = a->node; /* somebody else's node */
	assert_non_null(strstr(client_register(b, s->reusable, "b", 131), "different machine key"));
	assert_int_equal(client_update(b, ""), 404);
	b->node = own;
	client_send(b, "/machine/map", "{\"Version\":131,");
	assert_int_equal(client_answer(b), 400);
	client_send(b, "/machine/register", "[]");
	assert_int_equal(client_answer(b), 400);
	client_send(b, "/machine/id-token", "{}");
	assert_int_equal(client_answer(b), 501);
	client_send(b, "/machine/other", "{}");
	assert_int_equal(client_answer(b), 404);
	j = admin(s, "GET", "/api/v1/node", "");
	assert_int_equal(json_array_size(json_get(j, "nodes")), 1); /* none of this left a node behind */
	json_decref(j);
	client_free(a);
	client_free(b);
}

/* 64 connections, all requests on the wire before the first answer is read. */
static void test_one_off_key(void **state)
{
	struct server *s = *state;
	struct node_client *c[64];
	char key[128], text[1024], nk[KEY_TEXT_MAX];
	int in = 0, out = 0;
	json_t *j;

	make_key(s, "{\"user\":\"1\"}", key);
	for (int i = 0; i < 64; i++)
		c[i] = client_new(s);
	for (int i = 0; i < 64; i++) {
		snprintf(text, sizeof(text), "{\"Version\":131,\"NodeKey\":\"%s\",\"Auth\":{\"AuthKey\":\"%s\"},\"Hostinfo\":{}}",
			 key_text(KEY_KIND_NODE, &c[i]->node.pub, nk), key);
		client_send(c[i], "/machine/register", text);
	}
	for (int i = 0; i < 64; i++) {
		assert_int_equal(client_answer(c[i]), 200);
		assert_int_equal(json_read(buf_data(&c[i]->body), c[i]->body.len, 1 << 20, &j), 0);
		if (json_get_bool(j, "MachineAuthorized", false))
			in++;
		else if (!strcmp(json_get_str(j, "Error"), "authkey already used"))
			out++;
		json_decref(j);
		client_free(c[i]);
	}
	assert_int_equal(in, 1);
	assert_int_equal(out, 63);
	j = admin(s, "GET", "/api/v1/node", "");
	assert_int_equal(json_array_size(json_get(j, "nodes")), 1);
	json_decref(j);
}

/* What a node was told stands: it is there after kill -9, its key spent, its stream comes back. */
static void test_killed(void **state)
{
	struct server *s = *state;
	struct node_client *a = client_new(s), *b;
	char key[128];
	json_t *m;

	make_key(s, "{\"user\":\"1\"}", key);
	assert_string_equal(client_register(a, key, "a", 131), "");
	server_kill(s); /* at once, not even a turn of the loop later */
	node_client_close(a);
	server_start(s);
	client_connect(s, a);
	assert_string_equal(client_register(a, NULL, "a", 131), "");
	b = client_new(s);
	assert_string_equal(client_register(b, key, "b", 131), "authkey already used");
	client_stream(a);
	m = client_map(a, WAIT_MSEC);
	assert_int_equal(json_get_int(json_get(m, "Node"), "ID", 0), 1);
	json_decref(m);
	client_free(a);
	client_free(b);
}

/* What a node said of itself in the last second before a kill may not be on disk. Its stream, the first that comes
 * back, says it again; later the stream's words are older than what updates said. */
static void test_words_after_kill(void **state)
{
	static const char told[] = "\"Endpoints\":[\"192.0.2.1:41641\"],", old[] = "\"Endpoints\":[\"192.0.2.9:9\"],";
	struct server *s = *state;
	struct node_client *a = joined(s, "a"), *b = joined(s, "b");
	json_t *m, *peer;

	sleep(2); /* on disk without endpoints */
	assert_int_equal(client_update(a, told), 200);
	server_kill(s);
	server_start(s);
	for (int i = 0; i < 2; i++) { /* its own words, and then older ones */
		node_client_close(a);
		node_client_close(b);
		client_connect(s, a);
		client_connect(s, b);
		assert_int_equal(node_client_stream(a, i ? old : told), 0);
		json_decref(client_map(a, WAIT_MSEC));
		client_stream(b);
		m = client_map(b, WAIT_MSEC);
		peer = json_array_get(json_get(m, "Peers"), 0);
		assert_non_null(json_get(peer, "Endpoints"));
		assert_string_equal(json_string_value(json_array_get(json_get(peer, "Endpoints"), 0)), "192.0.2.1:41641");
		json_decref(m);
	}
	client_free(a);
	client_free(b);
}

/* Interactive: the node waits, an operator lets it in. */
static void test_interactive(void **state)
{
	struct server *s = *state;
	struct node_client *a = client_new(s);
	char url[256], text[2048], nk[KEY_TEXT_MAX];
	json_t *j = NULL;

	snprintf(url, sizeof(url), "%s", client_register(a, NULL, "a", 131));
	snprintf(text, sizeof(text), "{\"Version\":131,\"NodeKey\":\"%s\",\"Followup\":\"%s\",\"Hostinfo\":{}}",
		 key_text(KEY_KIND_NODE, &a->node.pub, nk), url);
	client_send(a, "/machine/register", text);
	assert_false(client_read(a, 50) && a->answered);
	snprintf(text, sizeof(text), "{\"user\":\"alice\",\"authId\":\"%s\"}", strrchr(url, '/') + 1);
	json_decref(admin(s, "POST", "/api/v1/auth/register", text));
	assert_int_equal(client_answer(a), 200);
	assert_int_equal(json_read(buf_data(&a->body), a->body.len, 1 << 20, &j), 0);
	assert_true(json_get_bool(j, "MachineAuthorized", false));
	json_decref(j);
	assert_int_equal(client_update(a, ""), 200);
	client_free(a);
}

/* Polls for the login at this address, with that node's key. The answer's Error and AuthURL; static. */
static const char *followed(struct node_client *c, const struct key *node, const char *url)
{
	static char said[512];
	char text[1024], nk[KEY_TEXT_MAX];
	json_t *j = NULL;

	snprintf(text, sizeof(text), "{\"Version\":131,\"NodeKey\":\"%s\",\"Followup\":\"%s\",\"Hostinfo\":{}}",
		 key_text(KEY_KIND_NODE, node, nk), url);
	client_send(c, "/machine/register", text);
	assert_int_equal(client_answer(c), 200);
	assert_int_equal(json_read(buf_data(&c->body), c->body.len, 1 << 20, &j), 0);
	snprintf(said, sizeof(said), "%s%s", json_get_str(j, "Error"), json_get_str(j, "AuthURL"));
	assert_false(json_get_bool(j, "MachineAuthorized", false));
	assert_null(memmem(buf_data(&c->body), c->body.len, "alice", 5));
	json_decref(j);
	return said;
}

/* A login belongs to the machine that began it: who knows its address and its node key learns nothing from it, neither
 * while it waits nor when it has been approved (Headscale #3393). */
static void test_followup_of_others(void **state)
{
	struct server *s = *state;
	struct node_client *a = client_new(s), *b = client_new(s);
	char url[256], text[512];
	json_t *j;

	snprintf(url, sizeof(url), "%s", client_register(a, NULL, "a", 131));
	assert_non_null(strstr(url, "/register/hskey-authreq-"));
	assert_non_null(strstr(followed(b, &a->node.pub, url), "/register/hskey-authreq-")); /* one of its own */
	assert_null(strstr(followed(b, &a->node.pub, url), url));
	assert_null(strstr(followed(b, &b->node.pub, url), url));
	snprintf(text, sizeof(text), "{\"user\":\"alice\",\"authId\":\"%s\"}", strrchr(url, '/') + 1);
	json_decref(admin(s, "POST", "/api/v1/auth/register", text));
	assert_string_equal(client_register(a, NULL, "a", 131), "");
	assert_non_null(strstr(followed(b, &a->node.pub, url), "different machine key"));
	assert_null(strstr(followed(b, &b->node.pub, url), url));
	j = admin(s, "GET", "/api/v1/node", "");
	assert_int_equal(json_array_size(json_get(j, "nodes")), 1);
	json_decref(j);
	client_free(a);
	client_free(b);
}

/* A map stream with somebody else's node key is refused, and whose key it is keeps its own (Headscale bad78332). */
static void test_stream_of_others(void **state)
{
	struct server *s = *state;
	struct node_client *a = joined(s, "a"), *b = joined(s, "b"), *stranger = client_new(s);
	struct node_client *others[] = { b, stranger };
	bool told = false;

	client_stream(a);
	json_decref(client_map(a, WAIT_MSEC));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct key_pair own = others[i]->node;

		others[i]->node = a->node;
		others[i]->status = 0;
		client_stream(others[i]);
		while (!others[i]->stream_over)
			assert_true(client_read(others[i], WAIT_MSEC));
		assert_int_equal(others[i]->status, 404);
		others[i]->node = own;
	}
	assert_int_equal(client_update(b, "\"Endpoints\":[\"192.0.2.7:7\"],"), 200);
	while (!told) { /* by itself, or with what else is new of b */
		json_t *m = client_map(a, WAIT_MSEC);
		char *text = json_dumps(m, 0);

		assert_non_null(m);
		told = strstr(text, "192.0.2.7:7");
		free(text);
		json_decref(m);
	}
	assert_false(a->stream_over);
	client_free(a);
	client_free(b);
	client_free(stranger);
}

/* The status of an answer on the public port. */
static int asked(const struct server *s, const char *method, const char *path)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(s->port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), status = 0;
	char text[1024], nk[KEY_TEXT_MAX], body[128] = "";
	size_t got = 0;
	ssize_t n;

	if (strcmp(method, "GET") && strcmp(method, "HEAD"))
		snprintf(body, sizeof(body), "{\"NodePublic\":\"%s\"}", key_text(KEY_KIND_NODE, &s->noise, nk));
	n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		     method, path, strlen(body), body);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(write(fd, text, (size_t)n), n);
	memset(text, 0, sizeof(text));
	while (got < sizeof(text) - 1 && (n = read(fd, text + got, sizeof(text) - 1 - got)) > 0)
		got += (size_t)n;
	close(fd);
	if (sscanf(text, "HTTP/1.1 %d ", &status) != 1)
		fail_msg("%s %s: answered with '%s'", method, path, text);
	return status;
}

/* What anybody may ask, with which methods; all else on the public port is refused, and nothing of it is the admin
 * socket's, however it is written. */
static void test_public_routes(void **state)
{
	static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE" };
	static const struct {
		const char *path, *methods;
	} routes[] = {
		{ "/", "GET HEAD" },
		{ "/key?v=131", "GET HEAD" },
		{ "/key", "" },
		{ "/health", "GET HEAD" },
		{ "/version", "GET HEAD" },
		{ "/verify", "POST" },
		{ "/bootstrap-dns", "GET HEAD" },
		{ "/robots.txt", "GET HEAD" },
		{ "/ts2021", "" },
		{ "/register/", "" },
		{ "/register/hskey-authreq-000000000000000000000000", "" },
		{ "/derp", "" },
		{ "/derp/probe", "GET HEAD" },
		{ "/derp/latency-check", "GET HEAD" },
		{ "/machine/register", "" },
		{ "/machine/map", "" },
		{ "/metrics", "" },
		{ "/debug/pprof/", "" },
		{ "/api", "" },
		{ "/api/v1", "" },
		{ "/api/v1/", "" },
		{ "/api/v1/node", "" },
		{ "/api/v1/node/1", "" },
		{ "/api/v1/node/1/expire", "" },
		{ "/api/v1/user", "" },
		{ "/api/v1/preauthkey", "" },
		{ "/api/v1/auth/register", "" },
		{ "//api/v1/node", "" },
		{ "/./api/v1/node", "" },
		{ "/%61pi/v1/node", "" },
		{ "/API/v1/node", "" },
		{ "/register/../api/v1/node", "" },
		{ "/health/../api/v1/node", "" },
		{ "/health/", "" },
		{ "/key/", "" },
	};
	struct server *s = *state;
	json_t *j;

	server_kill(s);
	snprintf(s->derp, sizeof(s->derp), "server: {enabled: true, region_id: 900, stun_listen_addr: \"127.0.0.1:0\", "
		 "private_key_path: %s/derp.key}", s->dir);
	server_start(s);
	client_free(joined(s, "a")); /* node 1, that a DELETE would find */
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(methods); k++) {
			int status = asked(s, methods[k], routes[i].path);
			bool meant = strstr(routes[i].methods, methods[k]);

			if (meant ? status != 200 : status < 400 || status > 599)
				fail_msg("%s %s: %d", methods[k], routes[i].path, status);
		}
	}
	j = admin(s, "GET", "/api/v1/node", "");
	assert_int_equal(json_array_size(json_get(j, "nodes")), 1);
	json_decref(j);
	j = admin(s, "GET", "/api/v1/user", "");
	assert_int_equal(json_array_size(json_get(j, "users")), 1);
	json_decref(j);
}

/* A key whose secret everybody knows is no node's. */
static void test_weak_keys(void **state)
{
	struct server *s = *state;
	struct node_client *a = client_new(s);
	json_t *j;

	for (size_t i = 0; i < WEAK_KEYS; i++) {
		a->node.pub = weak_key(i);
		if (!strstr(client_register(a, s->reusable, "a", 131), i ? "small order" : "no node key"))
			fail_msg("weak key %zu is a node's", i);
	}
	j = admin(s, "GET", "/api/v1/node", "");
	assert_int_equal(json_array_size(json_get(j, "nodes")), 0);
	json_decref(j);
	client_free(a);
}

#define BUSY   12
#define ROUNDS 40

/* An update with 60 KB in it that does not compress. */
static void client_update_big(struct node_client *c)
{
	static const char set[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-";
	static char text[70000];
	size_t n;

	node_client_map_text(c, false, "", text);
	n = strlen(text) - 2; /* reopen Hostinfo */
	n += (size_t)sprintf(text + n, ",\"X\":\"");
	for (int k = 0; k < 60000; k++)
		text[n++] = set[random() & 63];
	sprintf(text + n, "\"}}");
	client_send(c, "/machine/map", text);
	assert_int_equal(client_answer(c), 200);
}

/*
 * A stream that nobody reads must not hold the server's memory: it is ended, and a new one starts afresh. Some
 * 30 MB are said while it is not read, more than queue, windows and sockets hold together.
 */
static void test_slow_reader(void **state)
{
	struct server *s = *state;
	struct node_client *slow = joined(s, "slow"), *busy[BUSY], again;
	json_t *m;

	for (int i = 0; i < BUSY; i++)
		busy[i] = joined(s, "busy");
	client_stream(slow);
	json_decref(client_map(slow, WAIT_MSEC));
	for (int k = 0; k < ROUNDS; k++)
		for (int i = 0; i < BUSY; i++)
			client_update_big(busy[i]);
	while ((m = client_map(slow, WAIT_MSEC)))
		json_decref(m);
	assert_true(slow->stream_over);
	again = (struct node_client){ .machine = slow->machine, .node = slow->node, .disco = slow->disco };
	client_connect(s, &again);
	client_stream(&again);
	m = client_map(&again, WAIT_MSEC);
	assert_non_null(json_get(m, "Node"));
	json_decref(m);
	node_client_close(&again);
	buf_done(&again.plain);
	buf_done(&again.body);
	client_free(slow);
	for (int i = 0; i < BUSY; i++)
		client_free(busy[i]);
}

static void test_garbage(void **state)
{
	struct server *s = *state;
	struct node_client *a = client_new(s);
	static const char *const lines[] = { "GET /key HTTP/1.1\r\nHost: x\r\n\r\n", "POST /ts2021 HTTP/1.1\r\nHost: x\r\n\r\n",
					     "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01",
					     "POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{]}" };
	uint8_t junk[512];

	memset(junk, 0x5a, sizeof(junk));
	assert_true(write(a->fd, junk, sizeof(junk)) > 0); /* no Noise record: the connection ends */
	while (client_read(a, WAIT_MSEC))
		;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(s->port),
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
		assert_true(write(fd, lines[i], strlen(lines[i])) > 0);
		shutdown(fd, SHUT_WR);
		while (read(fd, junk, sizeof(junk)) > 0)
			;
		close(fd);
	}
	client_free(a);
	a = joined(s, "a"); /* it goes on */
	client_free(a);
}

#define REPLAYS 24

/* Who recorded a node's handshake can say it again, and nothing after it: that must not close the node's own
 * connections, however long ago they were used. */
static void test_replayed_handshake(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	CLEANUP(buf_done) struct buf rq = { 0 };
	struct server *s = *state;
	struct node_client *a = joined(s, "a");
	uint8_t init[NOISE_INITIATION_LEN], answer[64];
	struct noise_handshake hs;
	int fd[REPLAYS];

	assert_int_equal(noise_initiator_start(&hs, &a->machine, &s->noise, 131, NULL, init), 0);
	ts2021_put_request(&rq, "127.0.0.1:80", init);
	in.sin_port = htons(s->port);
	for (int i = 0; i < REPLAYS; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&in, sizeof(in)), 0);
		assert_int_equal(write(fd[i], buf_data(&rq), rq.len), rq.len);
		assert_true(read(fd[i], answer, sizeof(answer)) > 0); /* a 101: it looks genuine */
	}
	assert_int_equal(client_update(a, ""), 200);
	for (int i = 0; i < REPLAYS; i++)
		close(fd[i]);
	client_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_first_map),
		T(test_deltas),
		T(test_newest_stream_wins),
		T(test_refusals),
		T(test_one_off_key),
		T(test_killed),
		T(test_interactive),
		T(test_followup_of_others),
		T(test_stream_of_others),
		T(test_public_routes),
		T(test_weak_keys),
		T(test_slow_reader),
		T(test_garbage),
		T(test_replayed_handshake),
		T(test_words_after_kill),
	};

	signal(SIGPIPE, SIG_IGN);
	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
