/*
 * coordinator: nodes that log in, stream maps and hear of each other, over real sockets on loopback: HTTP upgrade,
 * Noise, HTTP/2. The server is a process of its own, so that it can be killed; the nodes are blocking clients.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "coordinator/coord.h"
#include "coordinator/front.h"
#include "coordinator/relays.h"
#include "lib/file.h"
#include "lib/log.h"
#include "tests/nodeclient.h"

#define WAIT_MSEC 5000

struct server {
	char dir[64], sock[96], derp[128];
	uint16_t port;
	pid_t pid;
	struct key noise;
	char reusable[128];
};

/* ---- the server */

static void on_hup(void *data, int signo)
{
	(void)signo;
	relays_reload(data);
}

static void serve(const struct server *s, int report)
{
	struct coord c = { 0 };
	struct settings_report rep = { 0 };
	struct front *front = NULL;
	struct relays *relays = NULL;
	struct loop_signal *hup = NULL;
	char text[2048], why[STORE_WHY_MAX] = "";
	struct endpoint at;

	snprintf(text, sizeof(text),
		 "server_url: http://127.0.0.1:8080\nlisten_addr: 127.0.0.1:0\nunix_socket: %s\n"
		 "dns: {base_domain: mesh.test}\nderp: {%s, auto_update_enabled: false}\n"
		 "database: {sqlite: {path: %s/db}}\n",
		 s->sock, s->derp, s->dir);
	log_set_level(LOG_LEVEL_ERR);
	if (settings_parse(text, strlen(text), &c.cfg, &rep) < 0)
		_exit(11);
	c.noise_key.priv = (struct key){ { 1, [31] = 64 } };
	key_public(&c.noise_key.priv, &c.noise_key.pub);
	if (loop_new(&c.loop) < 0 || front_new(&c, NULL, why, &front) < 0 || coord_start(&c, why) < 0 ||
	    relays_new(&c, NULL, why, &relays) < 0 || front_open(front, why) < 0 ||
	    loop_signal_new(c.loop, SIGHUP, on_hup, relays, &hup) < 0) {
		fprintf(stderr, "server: %s\n", why);
		_exit(12);
	}
	at = front_listening(front);
	if (write(report, &at.port, sizeof(at.port)) < 0)
		_exit(13);
	loop_run(c.loop);
	_exit(14);
}

static void server_start(struct server *s)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0) {
		close(fds[0]);
		serve(s, fds[1]);
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &s->port, sizeof(s->port)), sizeof(s->port));
	close(fds[0]);
}

static void server_kill(struct server *s)
{
	int status;

	kill(s->pid, SIGKILL);
	waitpid(s->pid, &status, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* it was alive until now */
}

/* One request to the admin socket; the body, to be freed. */
static json_t *admin(const struct server *s, const char *method, const char *path, const char *body)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CLEANUP(buf_done) struct buf in = { 0 };
	char head[512];
	const char *text, *end;
	json_t *j = NULL;
	ssize_t n;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", s->sock);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	n = snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		     method, path, strlen(body), body);
	assert_int_equal(write(fd, head, (size_t)n), n);
	do {
		uint8_t *p = buf_tail(&in, 4096);

		n = read(fd, p, 4096);
		if (n > 0)
			buf_commit(&in, (size_t)n);
	} while (n > 0);
	close(fd);
	text = buf_str(&in);
	end = strstr(text, "\r\n\r\n");
	assert_non_null(end);
	assert_int_equal(json_read(end + 4, strlen(end + 4), 1 << 20, &j), 0);
	return j;
}

static void make_key(const struct server *s, const char *body, char out[static 128])
{
	json_t *j = admin(s, "POST", "/api/v1/preauthkey", body);

	snprintf(out, 128, "%s", json_get_str(json_get(j, "preAuthKey"), "key"));
	json_decref(j);
}

static int setup(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	struct key priv = { { 1, [31] = 64 } };
	char path[96];
	FILE *f;

	snprintf(s->dir, sizeof(s->dir), "/tmp/test_coord_XXXXXX");
	if (!mkdtemp(s->dir))
		return -1;
	snprintf(s->sock, sizeof(s->sock), "%s/admin", s->dir);
	snprintf(s->derp, sizeof(s->derp), "paths: [%s/derp.yaml]", s->dir);
	snprintf(path, sizeof(path), "%s/derp.yaml", s->dir);
	f = fopen(path, "w");
	fputs("regions:\n  900:\n    regionid: 900\n    regioncode: tst\n    regionname: Test\n    nodes:\n"
	      "      - {name: 900a, regionid: 900, hostname: 127.0.0.1, ipv4: '127.0.0.1', derpport: 443}\n", f);
	fclose(f);
	key_public(&priv, &s->noise);
	server_start(s);
	json_decref(admin(s, "POST", "/api/v1/user", "{\"name\":\"alice\"}"));
	make_key(s, "{\"user\":\"1\",\"reusable\":true}", s->reusable);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct server *s = *state;
	char cmd[128];

	server_kill(s);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", s->dir);
	if (system(cmd) != 0)
		return -1;
	free(s);
	return 0;
}

/* ---- a node */

static void client_connect(const struct server *s, struct node_client *c)
{
	assert_int_equal(node_client_connect(c, s->port, &s->noise), 0);
}

static struct node_client *client_new(const struct server *s)
{
	struct node_client *c = calloc(1, sizeof(*c));

	node_client_init(c);
	client_connect(s, c);
	return c;
}

static void client_free(struct node_client *c)
{
	node_client_done(c);
	free(c);
}

static bool client_read(struct node_client *c, int msec)
{
	return node_client_read(c, msec) == 0;
}

static void client_send(struct node_client *c, const char *path, const char *body)
{
	assert_int_equal(node_client_send(c, path, body), 0);
}

static int client_answer(struct node_client *c)
{
	return node_client_answer(c, WAIT_MSEC);
}

/* Registers with a key (NULL: none). The answer's Error, "" for success; static. */
static const char *client_register(struct node_client *c, const char *authkey, const char *host, int version)
{
	static char error[256];
	char text[2048], nk[KEY_TEXT_MAX], auth[256] = "";
	json_t *j = NULL;

	if (authkey)
		snprintf(auth, sizeof(auth), "\"Auth\":{\"AuthKey\":\"%s\"},", authkey);
	snprintf(text, sizeof(text), "{\"Version\":%d,\"NodeKey\":\"%s\",%s\"Hostinfo\":{\"Hostname\":\"%s\",\"OS\":\"linux\"}}",
		 version, key_text(KEY_KIND_NODE, &c->node.pub, nk), auth, host);
	client_send(c, "/machine/register", text);
	assert_int_equal(client_answer(c), 200);
	assert_int_equal(json_read(buf_data(&c->body), c->body.len, 1 << 20, &j), 0);
	snprintf(error, sizeof(error), "%s%s", json_get_str(j, "Error"), json_get_str(j, "AuthURL"));
	if (json_get_bool(j, "NodeKeyExpired", false))
		snprintf(error, sizeof(error), "expired");
	if (!*error)
		assert_string_equal(json_get_str(json_get(j, "Login"), "LoginName"), "alice");
	json_decref(j);
	return error;
}

static int client_update(struct node_client *c, const char *more)
{
	char text[4096];

	node_client_map_text(c, false, more, text);
	client_send(c, "/machine/map", text);
	return client_answer(c);
}

static void client_stream(struct node_client *c)
{
	assert_int_equal(node_client_stream(c, ""), 0);
}

/* The next map message; NULL when none comes in time. */
static json_t *client_map(struct node_client *c, int msec)
{
	json_t *j = NULL;
	int r = node_client_map(c, msec, &j);

	assert_true(r == 0 || r == -ETIMEDOUT || r == -EPIPE);
	return j;
}

/* The next message that has this member. */
static json_t *client_map_with(struct node_client *c, const char *member)
{
	for (;;) {
		json_t *j = client_map(c, WAIT_MSEC);

		if (!j)
			fail_msg("no message with %s", member);
		if (json_get(j, member))
			return j;
		json_decref(j);
	}
}

static struct node_client *joined(const struct server *s, const char *host)
{
	struct node_client *c = client_new(s);

	assert_string_equal(client_register(c, s->reusable, host, 131), "");
	assert_int_equal(client_update(c, ""), 200);
	return c;
}

/* ---- stories */

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
	while ((m = client_map(a, 500))) /* long enough for a busy machine */
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

/* ---- a map of relays from a URL */

#define REGION(id)                                                                                                    \
	"\"" #id "\":{\"RegionID\":" #id ",\"RegionCode\":\"u\",\"RegionName\":\"U\",\"Nodes\":[{\"Name\":\"" #id       \
	"a\",\"RegionID\":" #id ",\"HostName\":\"127.0.0.1\"}]}"
#define SAYS(body) "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n" body

enum { MAP_AWAY, MAP_SEVEN, MAP_GARBAGE, MAP_OTHER, MAP_EMPTY, MAP_GONE, MAP_EIGHT };

static const char *const map_answers[] = {
	[MAP_AWAY] = "HTTP/1.1 503 Away\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
	[MAP_SEVEN] = SAYS("{\"Regions\":{" REGION(7) "}}"),
	[MAP_GARBAGE] = SAYS("{\"Regions\":{" REGION(9) "}"),
	[MAP_OTHER] = SAYS("{\"Regions\":[7]}"),
	[MAP_EMPTY] = SAYS("{}"),
	[MAP_GONE] = "HTTP/1.1 404 Gone\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
	[MAP_EIGHT] = SAYS("{\"Regions\":{" REGION(8) "}}"),
};

/* A web server that says to everybody what it is told to. */
struct mapserver {
	pid_t pid;
	uint16_t port;
	struct {
		atomic_int answer, asked;
	} *shared;
};

static void mapserver_main(struct mapserver *m, int listening)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		int fd = accept(listening, NULL, NULL);
		const char *text;
		char in[4096];
		size_t n = 0;
		ssize_t k;

		while (n < sizeof(in) - 1 && (k = read(fd, in + n, sizeof(in) - 1 - n)) > 0) {
			n += (size_t)k;
			in[n] = '\0';
			if (strstr(in, "\r\n\r\n"))
				break;
		}
		text = map_answers[strncmp(in, "GET /map ", 9) ? MAP_GONE : atomic_load(&m->shared->answer)];
		if (write(fd, text, strlen(text)) < 0)
			_exit(1);
		close(fd);
		atomic_fetch_add(&m->shared->asked, 1);
	}
}

static void mapserver_start(struct mapserver *m)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	m->port = ntohs(in.sin_port);
	m->shared = mmap(NULL, sizeof(*m->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(m->shared != MAP_FAILED);
	m->pid = fork();
	assert_true(m->pid >= 0);
	if (m->pid == 0)
		mapserver_main(m, fd);
	close(fd);
}

static void mapserver_stop(struct mapserver *m)
{
	kill(m->pid, SIGKILL);
	waitpid(m->pid, NULL, 0);
	munmap(m->shared, sizeof(*m->shared));
}

/* From now on it answers so, and is asked so many times: the coordinator has taken note of an answer before it asks again. */
static void mapserver_says(const struct server *s, struct mapserver *m, int answer, int times)
{
	atomic_store(&m->shared->answer, answer);
	while (times--) {
		int before = atomic_load(&m->shared->asked);

		for (int tries = 0; atomic_load(&m->shared->asked) == before; tries++) {
			if (tries == 500)
				fail_msg("the URL is not asked again");
			kill(s->pid, SIGHUP);
			usleep(10000);
		}
	}
}

static json_t *region(json_t *map, const char *id)
{
	return json_get(json_get(json_get(map, "DERPMap"), "Regions"), id);
}

static void test_relays_from_url(void **state)
{
	struct server *s = *state;
	struct node_client *a, *b;
	struct mapserver web;
	json_t *m;

	mapserver_start(&web);
	server_kill(s);
	snprintf(s->derp, sizeof(s->derp), "urls: [\"http://127.0.0.1:%u/map\"]", web.port);
	server_start(s);
	a = joined(s, "a");
	client_stream(a);
	m = client_map(a, WAIT_MSEC);
	assert_non_null(json_get(m, "DERPMap"));
	assert_int_equal(json_object_size(json_get(json_get(m, "DERPMap"), "Regions")), 0);
	json_decref(m);
	mapserver_says(s, &web, MAP_SEVEN, 1);
	m = client_map_with(a, "DERPMap");
	assert_string_equal(json_get_str(region(m, "7"), "RegionName"), "U");
	json_decref(m);
	for (int bad = MAP_GARBAGE; bad <= MAP_GONE; bad++) {
		mapserver_says(s, &web, bad, 2);
		b = joined(s, "b");
		client_stream(b);
		m = client_map(b, WAIT_MSEC);
		if (!region(m, "7") || json_object_size(json_get(json_get(m, "DERPMap"), "Regions")) != 1)
			fail_msg("answer %d does not leave the last good map", bad);
		json_decref(m);
		client_free(b);
	}
	mapserver_says(s, &web, MAP_EIGHT, 1);
	m = client_map_with(a, "DERPMap"); /* and a has heard of none in between */
	assert_non_null(region(m, "8"));
	assert_null(region(m, "7"));
	json_decref(m);
	client_free(a);
	mapserver_stop(&web);
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

/* ---- recorded requests of stock nodes (tests/data/interop), with the headers they have */

#define ACTORS_MAX  64
#define HEADERS_MAX 8

struct actor {
	struct node_client *c;
	char url[256]; /* where its person was sent last */
	bool in;
};

struct play {
	const struct server *s;
	struct actor actor[ACTORS_MAX];
	size_t n;
	struct buf out;
	const json_t *line;
	json_t *body; /* NULL: none */
	char *text;   /* with our auth key and our URL */
};

/* A node is a machine, whatever connections it had: its key tells, or the one it had before. */
static struct actor *play_actor(struct play *p)
{
	struct key node = { { 0 } }, old = { { 0 } };
	struct actor *a;

	json_get_key(p->body, "NodeKey", KEY_KIND_NODE, &node);
	json_get_key(p->body, "OldNodeKey", KEY_KIND_NODE, &old);
	for (size_t i = 0; i < p->n; i++) {
		a = &p->actor[i];
		if (key_is_zero(&node) || key_equal(&a->c->node.pub, &node) ||
		    (!key_is_zero(&old) && key_equal(&a->c->node.pub, &old))) {
			if (!key_is_zero(&node))
				a->c->node.pub = node;
			return a;
		}
	}
	assert_true(p->n < ACTORS_MAX);
	a = &p->actor[p->n++];
	a->c = client_new(p->s);
	if (!key_is_zero(&node))
		a->c->node.pub = node;
	return a;
}

/* What stands in quotes behind name, replaced. */
static void play_put(struct play *p, const char *name, const char *value)
{
	char *at = strstr(p->text, name), *end, *text = NULL;

	if (!at)
		return;
	at += strlen(name);
	end = strchr(at, '"');
	if (end > at)
		assert_true(asprintf(&text, "%.*s%s%s", (int)(at - p->text), p->text, value, end) > 0);
	if (text) {
		free(p->text);
		p->text = text;
	}
}

static size_t play_headers(const struct play *p, struct h2_header *out, const char **method)
{
	json_t *headers = json_get(p->line, "headers"), *h;
	size_t i, n = 0;

	json_array_foreach(headers, i, h) {
		const char *name = json_string_value(json_array_get(h, 0));
		const char *value = json_string_value(json_array_get(h, 1));

		if (!strcmp(name, ":method"))
			*method = value;
		else if (*name != ':' && strcmp(name, "content-length") != 0 && n < HEADERS_MAX)
			out[n++] = (struct h2_header){ name, value };
	}
	return n;
}

static void play_send(struct play *p, struct node_client *c, bool stream)
{
	static const struct h2_client_ops answer_ops = { node_client_on_headers, node_client_on_data,
							 node_client_on_end };
	static const struct h2_client_ops stream_ops = { node_client_on_headers, node_client_on_map,
							 node_client_on_map_end };
	struct h2_header headers[HEADERS_MAX];
	struct h2_request rq = { .path = json_get_str(p->line, "path"), .headers = headers,
				 .body = p->text, .body_len = strlen(p->text) };
	struct h2_stream *st;

	rq.n_headers = play_headers(p, headers, &rq.method);
	c->answered = false;
	c->status = 0;
	buf_clear(&c->body);
	if (stream) {
		if (c->stream && !c->stream_over)
			h2_reset(c->stream); /* as stock nodes do before the next */
		if (c->stream)
			ts2021_frames_done(&c->frames);
		ts2021_frames_init(&c->frames, TS2021_CODING_ZSTD);
		c->stream_over = false;
	}
	assert_int_equal(h2_request(c->h2, &rq, stream ? &stream_ops : &answer_ops, c, stream ? &c->stream : &st), 0);
}

static void play_register(struct play *p, struct actor *a)
{
	char text[512];
	json_t *j = NULL;

	play_put(p, "\"AuthKey\":\"", p->s->reusable);
	play_put(p, "\"Followup\":\"", a->url);
	play_send(p, a->c, false);
	if (json_get_str(p->body, "Followup") && *json_get_str(p->body, "Followup")) {
		assert_false(client_read(a->c, 50) && a->c->answered); /* until somebody lets it in */
		assert_true(*a->url);
		snprintf(text, sizeof(text), "{\"user\":\"alice\",\"authId\":\"%s\"}", strrchr(a->url, '/') + 1);
		json_decref(admin(p->s, "POST", "/api/v1/auth/register", text));
	}
	assert_int_equal(client_answer(a->c), 200);
	assert_int_equal(json_read(buf_data(&a->c->body), a->c->body.len, 1 << 20, &j), 0);
	a->in = json_get_bool(j, "MachineAuthorized", false);
	snprintf(a->url, sizeof(a->url), "%s", json_get_str(j, "AuthURL"));
	buf_printf(&p->out, " error=\"%s\"%s%s%s login=%s", json_get_str(j, "Error"), *a->url ? " url" : "",
		   json_get_bool(j, "NodeKeyExpired", false) ? " expired" : "", a->in ? " authorized" : "",
		   json_get_str(json_get(j, "Login"), "LoginName"));
	json_decref(j);
}

static void play_put_list(struct play *p, const char *name, const json_t *list)
{
	const json_t *v;
	size_t i;

	buf_printf(&p->out, " %s=", name);
	json_array_foreach(list, i, v)
		buf_printf(&p->out, "%s%s", i ? "," : "", json_string_value(v));
}

static void play_put_node(struct play *p, const json_t *n)
{
	char *text = json_dumps(json_get(n, "Hostinfo"), JSON_COMPACT | JSON_SORT_KEYS);

	buf_printf(&p->out, "%s key=%s disco=%s home=%d cap=%d", json_get_str(n, "Name"), json_get_str(n, "Key") + 64,
		   json_get_str(n, "DiscoKey") + 65, (int)json_get_int(n, "HomeDERP", 0), (int)json_get_int(n, "Cap", 0));
	play_put_list(p, "addresses", json_get(n, "Addresses"));
	play_put_list(p, "allowed", json_get(n, "AllowedIPs"));
	play_put_list(p, "endpoints", json_get(n, "Endpoints"));
	buf_printf(&p->out, "\n      %s", text);
	free(text);
}

static void play_map(struct play *p, struct actor *a)
{
	bool stream = json_get_bool(p->body, "Stream", false);
	json_t *m;

	if (!a->in) { /* what it was before is not in this recording */
		assert_string_equal(client_register(a->c, p->s->reusable, "x", 131), "");
		a->in = true;
	}
	play_send(p, a->c, stream);
	if (!stream) {
		buf_printf(&p->out, " %d", client_answer(a->c));
		assert_int_equal(a->c->body.len, 0);
		return;
	}
	m = client_map(a->c, WAIT_MSEC);
	assert_non_null(m);
	assert_int_equal(a->c->status, 200);
	assert_string_equal(json_get_str(json_get(m, "Node"), "Key"), json_get_str(p->body, "NodeKey"));
	buf_put_str(&p->out, " node ");
	play_put_node(p, json_get(m, "Node"));
	json_decref(m);
}

static void play_line(struct play *p, unsigned int number)
{
	const char *path = json_get_str(p->line, "path"), *text = json_get_str(p->line, "text");
	struct actor *a;

	if (strcmp(json_get_str(p->line, "what"), "request") != 0)
		return;
	p->text = strdup(text ? text : "");
	p->body = NULL;
	json_read(p->text, strlen(p->text), 1 << 20, &p->body);
	buf_printf(&p->out, "%u %s", number, path);
	a = play_actor(p);
	if (!strcmp(path, "/machine/register")) {
		play_register(p, a);
	} else if (!strcmp(path, "/machine/map")) {
		play_map(p, a);
	} else {
		play_send(p, a->c, false);
		buf_printf(&p->out, " %d", client_answer(a->c));
		buf_printf(&p->out, " %.*s", (int)strcspn(buf_str(&a->c->body), "\n"), buf_str(&a->c->body));
	}
	buf_put_u8(&p->out, '\n');
	json_decref(p->body);
	free(p->text);
}

/* What somebody sees in the end who comes last. */
static void play_end(struct play *p)
{
	struct node_client *c = joined(p->s, "last");
	json_t *m, *n;
	size_t i;

	client_stream(c);
	m = client_map(c, WAIT_MSEC);
	json_array_foreach(json_get(m, "Peers"), i, n) {
		play_put_node(p, n);
		buf_put_u8(&p->out, '\n');
	}
	json_decref(m);
	client_free(c);
	for (i = 0; i < p->n; i++)
		client_free(p->actor[i].c);
}

static void play(const struct server *s, const char *name)
{
	CLEANUP(buf_done) struct buf in = { 0 }, want = { 0 };
	struct play p = { .s = s };
	char path[256], *line, *save = NULL;
	unsigned int number = 0;

	snprintf(path, sizeof(path), "tests/data/interop/%s.jsonl", name);
	assert_int_equal(file_read(path, 8 << 20, &in), 0);
	buf_str(&in);
	for (line = strtok_r((char *)in.data + in.head, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *j = NULL;

		assert_int_equal(json_read(line, strlen(line), 8 << 20, &j), 0);
		p.line = j;
		play_line(&p, ++number);
		json_decref(j);
	}
	play_end(&p);
	snprintf(path, sizeof(path), "tests/data/interop/%s.answers", name);
	if (getenv("KERNSCALE_UPDATE_EXPECT"))
		assert_int_equal(file_replace(path, buf_data(&p.out), p.out.len, 0644), 0);
	assert_int_equal(file_read(path, 8 << 20, &want), 0);
	assert_string_equal(buf_str(&p.out), buf_str(&want));
	buf_done(&p.out);
}

static void test_stock_joins(void **state)
{
	play(*state, "e-coordinator");
}

static void test_stock_asks(void **state)
{
	play(*state, "h-requests");
}

static void test_stock_lives(void **state)
{
	play(*state, "trial-requests");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_first_map),   T(test_deltas),	  T(test_newest_stream_wins),
		T(test_refusals),    T(test_one_off_key), T(test_killed),
		T(test_interactive), T(test_slow_reader), T(test_garbage),
		T(test_replayed_handshake), T(test_words_after_kill), T(test_relays_from_url),
		T(test_stock_joins), T(test_stock_asks), T(test_stock_lives),
	};

	signal(SIGPIPE, SIG_IGN);
	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
