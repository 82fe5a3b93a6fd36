#pragma once
/*
 * coordinator_world: a coordinator that is a process of its own, so that it can be killed, and nodes that are blocking
 * clients, over real sockets on loopback: HTTP upgrade, Noise, HTTP/2.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "coordinator/coord.h"
#include "coordinator/front.h"
#include "coordinator/relays.h"
#include "lib/log.h"
#include "tests/nodeclient.h"

#define WAIT_MSEC 5000

struct server {
	char dir[64], sock[96], derp[256];
	uint16_t port;
	pid_t pid;
	struct key noise;
	char reusable[128];
};

/* ---- the server */

static inline void on_hup(void *data, int signo)
{
	(void)signo;
	relays_reload(data);
}

static inline void serve(const struct server *s, int report)
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

static inline void server_start(struct server *s)
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

static inline void server_kill(struct server *s)
{
	int status;

	kill(s->pid, SIGKILL);
	waitpid(s->pid, &status, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* it was alive until now */
}

/* One request to the admin socket; the body, to be freed. */
static inline json_t *admin(const struct server *s, const char *method, const char *path, const char *body)
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

static inline void make_key(const struct server *s, const char *body, char out[static 128])
{
	json_t *j = admin(s, "POST", "/api/v1/preauthkey", body);

	snprintf(out, 128, "%s", json_get_str(json_get(j, "preAuthKey"), "key"));
	json_decref(j);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline void client_connect(const struct server *s, struct node_client *c)
{
	assert_int_equal(node_client_connect(c, s->port, &s->noise), 0);
}

static inline struct node_client *client_new(const struct server *s)
{
	struct node_client *c = calloc(1, sizeof(*c));

	node_client_init(c);
	client_connect(s, c);
	return c;
}

static inline void client_free(struct node_client *c)
{
	node_client_done(c);
	free(c);
}

static inline bool client_read(struct node_client *c, int msec)
{
	return node_client_read(c, msec) == 0;
}

static inline void client_send(struct node_client *c, const char *path, const char *body)
{
	assert_int_equal(node_client_send(c, path, body), 0);
}

static inline int client_answer(struct node_client *c)
{
	return node_client_answer(c, WAIT_MSEC);
}

/* Registers with a key (NULL: none). The answer's Error, "" for success; static. */
static inline const char *client_register(struct node_client *c, const char *authkey, const char *host, int version)
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

static inline int client_update(struct node_client *c, const char *more)
{
	char text[4096];

	node_client_map_text(c, false, more, text);
	client_send(c, "/machine/map", text);
	return client_answer(c);
}

static inline void client_stream(struct node_client *c)
{
	assert_int_equal(node_client_stream(c, ""), 0);
}

/* The next map message; NULL when none comes in time. */
static inline json_t *client_map(struct node_client *c, int msec)
{
	json_t *j = NULL;
	int r = node_client_map(c, msec, &j);

	assert_true(r == 0 || r == -ETIMEDOUT || r == -EPIPE);
	return j;
}

/* The next message that has this member. */
static inline json_t *client_map_with(struct node_client *c, const char *member)
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

static inline struct node_client *joined(const struct server *s, const char *host)
{
	struct node_client *c = client_new(s);

	assert_string_equal(client_register(c, s->reusable, host, 131), "");
	assert_int_equal(client_update(c, ""), 200);
	return c;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
