#pragma once
/*
 * wgctl_world: the real wgctl as a child process, against the daemon's real local API with canned callbacks, and against
 * a coordinator that writes down what it was asked.
 *
 * A program with this is also wgctl: called by that name its main() runs cli_main().
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/api/api.h"
#include "lib/httpd.h"
#include "lib/json.h"
#include "wgctl/cli.h"

#define SEC	 INT64_C(1000000000)
#define GOOD_KEY "hskey-auth-0123456789ab-good"

static char dir[64], node_socket[96], admin_socket[96], admin_log[96];

/* The daemon's place: canned callbacks. */

struct fake {
	struct loop *loop;
	struct api *api;
	struct httpd *admin;
	struct loop_timer *timer;
	struct prefs prefs;
	struct api_state state;
	struct addr addrs[2], peer_addr[4];
	struct api_request *held; /* a ping that is answered after its time */
	unsigned int pings;
};

static inline struct addr addr_of(const char *s)
{
	struct addr a = { 0 };

	(void)addr_parse(s, strlen(s), &a);
	return a;
}

static inline void fake_state(void *data, struct api_state *ret)
{
	struct fake *f = data;

	*ret = f->state;
	ret->addrs = f->addrs;
	ret->n_addrs = f->state.state == API_STATE_RUNNING ? 2 : 0;
}

static inline bool fake_peer(void *data, size_t i, struct api_status_peer *ret)
{
	static const char *const names[] = { "db1", "lap", "old", "gone" };
	struct fake *f = data;

	*ret = (struct api_status_peer){ .hostname = names[i],
					 .dns_name = names[i],
					 .os = "linux",
					 .user_id = 1,
					 .stable_id = names[i],
					 .addrs = &f->peer_addr[i],
					 .n_addrs = 1,
					 .online = i < 2,
					 .active = i == 0,
					 .relay = "fra" };
	ret->pub.b[0] = (uint8_t)(i + 2);
	return true;
}

static inline int fake_status(void *data, struct api_status_input *ret)
{
	static const struct api_status_user user = { .id = 1, .login_name = "ops@example.org" };
	struct fake *f = data;

	*ret = (struct api_status_input){ .state = f->state.state,
					  .auth_url = f->state.auth_url,
					  .have_self = true,
					  .users = &user,
					  .n_users = 1,
					  .n_peers = 4,
					  .peer = fake_peer,
					  .data = f,
					  .filter = API_FILTER_ALLOW_ALL,
					  .interface = "kernscale0" };
	ret->self =
	    (struct api_status_peer){ .node_id = 7,
				      .hostname = "gw1",
				      .dns_name = "gw1",
				      .os = "linux",
				      .user_id = 1,
				      .addrs = f->addrs,
				      .n_addrs = f->state.state == API_STATE_RUNNING ? 2 : 0,
				      .online = true };
	ret->self.pub.b[0] = 1;
	return 0;
}

static inline void fake_timer(void *data)
{
	static const struct api_pong late = { .node_name = "late" };
	struct fake *f = data;

	if (f->held) {
		if (!api_request_gone(f->held))
			abort(); /* its time was over */
		api_reply(f->held, api_pong_json(&late));
		f->held = NULL;
		return;
	}
	f->state = (struct api_state){ .state = API_STATE_RUNNING };
	api_changed(f->api);
}

/* What happens is told by the host name that is asked for. */
static inline int fake_up(void *data, const struct api_up *up, bool *ret_changed, struct api_error *err)
{
	struct fake *f = data;
	const char *name = up->prefs.hostname;

	loop_timer_stop(f->timer);
	*ret_changed = prefs_merge(&f->prefs, &up->prefs) != 0;
	f->state = (struct api_state){ .state = API_STATE_STARTING };
	if (!strcmp(name, "broken")) {
		api_error_set(err, API_CODE_FAILED, "do that", "it is %s", "broken");
		return -EIO;
	}
	if (!strncmp(name, "url", 3)) {
		f->state.state = API_STATE_NEEDS_LOGIN;
		f->state.auth_url = "http://mesh/a/1";
	} else if (!strcmp(name, "approve")) {
		f->state.state = API_STATE_NEEDS_MACHINE_AUTH;
	} else if (strcmp(up->auth_key, GOOD_KEY) != 0) {
		f->state.state = API_STATE_NEEDS_LOGIN;
		f->state.failed = true;
		api_error_set(&f->state.error, API_CODE_REFUSED, "make a new one",
			      "invalid pre auth key");
	}
	if (!strcmp(name, "in-vain-slow")) {
		f->state.failing = true;
		api_error_set(&f->state.error, API_CODE_FAILED, "goes on trying", "nobody is there");
	}
	if (!strstr(name, "slow") && !f->state.failed)
		loop_timer_in(f->timer,
			      (f->state.state == API_STATE_STARTING ? 10 : 100) * USEC_PER_MSEC);
	return 0;
}

static inline void fake_down(void *data, struct api_request *later)
{
	struct fake *f = data;
	bool changed = f->state.state != API_STATE_STOPPED;

	f->state = (struct api_state){ .state = API_STATE_STOPPED };
	api_reply(later, json_pack("{s:b}", "changed", changed));
}

static inline void fake_logout(void *data, struct api_request *later)
{
	struct fake *f = data;

	f->state =
	    (struct api_state){ .state = API_STATE_NEEDS_LOGIN, .auth_url = "http://mesh/a/2" };
	api_reply(later, json_pack("{s:b,s:b}", "changed", true, "server_told", strcmp(f->prefs.hostname, "unheard") != 0));
}

static inline void fake_prefs_get(void *data, struct prefs *ret)
{
	const struct fake *f = data;

	*ret = f->prefs;
}

static inline int fake_prefs_set(void *data, const struct prefs *change, bool *ret_changed,
			  struct api_error *err)
{
	struct fake *f = data;

	(void)err;
	*ret_changed = prefs_merge(&f->prefs, change) != 0;
	return 0;
}

/* .9 comes by relay, then direct; .12 always by relay; .14 never in time; others are unknown. */
static inline void fake_ping(void *data, const struct api_ping *ping, struct api_request *later)
{
	struct fake *f = data;
	struct api_pong p = { .node_name = "db1",
			      .node_ip = ping->target,
			      .latency_usec = 34000,
			      .derp_region = 1,
			      .derp_code = "fra" };
	struct api_error e;

	switch (ping->target.b[3]) {
	case 9:
		if (f->pings++ % 2) {
			p.latency_usec = 12000;
			p.endpoint.addr = addr_of("203.0.113.9");
			p.endpoint.port = 41641;
		}
		break;
	case 12:
		break;
	case 14:
		f->held = later;
		loop_timer_in(f->timer, (ping->timeout_msec + 20) * USEC_PER_MSEC);
		return;
	default:
		api_error_set(&e, API_CODE_NOT_FOUND, NULL, "no peer has this address");
		api_fail(later, &e);
		return;
	}
	api_reply(later, api_pong_json(&p));
}

static inline void fake_netcheck(void *data, struct api_request *later)
{
	static const struct api_netcheck_region region = { 1, "fra", "Frankfurt", 21000, 21000, 0 };
	const struct api_netcheck n = { .udp = true,
					.ipv4 = true,
					.upnp = -1,
					.pmp = -1,
					.pcp = -1,
					.captive_portal = -1,
					.preferred_derp = 1,
					.regions = &region,
					.n_regions = 1 };

	(void)data;
	api_reply(later, api_netcheck_json(&n));
}

static const struct api_ops fake_ops = {
	.state = fake_state,
	.status = fake_status,
	.up = fake_up,
	.down = fake_down,
	.logout = fake_logout,
	.prefs_get = fake_prefs_get,
	.prefs_set = fake_prefs_set,
	.ping = fake_ping,
	.netcheck = fake_netcheck,
};

/* The coordinator's place: answers from a table, and a log of what was asked. */
static inline void fake_admin(void *data, struct httpd_req *q)
{
#define ANA                                                                                        \
	"{\"id\":\"1\",\"name\":\"ana\",\"displayName\":\"Ana\",\"email\":\"\",\"createdAt\":"     \
	"\"2026-11-01T00:00:00Z\"}"
#define KEY1                                                                                       \
	"\"id\":\"7\",\"reusable\":true,\"ephemeral\":false,\"used\":false,\"expiration\":null,"   \
	"\"aclTags\":[],\"user\":" ANA
#define NODE                                                                                       \
	"{\"id\":\"3\",\"name\":\"Box\",\"givenName\":\"box\",\"user\":" ANA                       \
	",\"tags\":[],\"ipAddresses\":[\"100.64.0.3\"],"                                           \
	"\"online\":true,\"expiry\":null,\"lastSeen\":\"2026-11-01T00:00:00Z\",\"nodeKey\":"       \
	"\"nodekey:x\"}"
	static const struct {
		const char *method, *path, *answer;
	} table[] = {
		{ "GET", "/api/v1/health", "{\"databaseConnectivity\":true}" },
		{ "GET", "/api/v1/user?name=nobody", "{\"users\":[]}" },
		{ "GET", "/api/v1/user", "{\"users\":[" ANA "]}" },
		{ "POST", "/api/v1/user/1/rename/anna", "{\"user\":" ANA "}" },
		{ "POST", "/api/v1/user", "{\"user\":" ANA "}" },
		{ "DELETE", "/api/v1/user/1", "{}" },
		{ "GET", "/api/v1/preauthkey",
		  "{\"preAuthKeys\":[{" KEY1 ",\"key\":\"hskey-auth-0123456789ab-***\"}]}" },
		{ "POST", "/api/v1/preauthkey/expire", "{}" },
		{ "POST", "/api/v1/preauthkey",
		  "{\"preAuthKey\":{" KEY1 ",\"key\":\"" GOOD_KEY "\"}}" },
		{ "DELETE", "/api/v1/preauthkey?id=7", "{}" },
		{ "GET", "/api/v1/node", "{\"nodes\":[" NODE "]}" },
		{ "POST", "/api/v1/node/3/", "{\"node\":" NODE "}" },
		{ "DELETE", "/api/v1/node/3", "{}" },
		{ "POST", "/api/v1/auth/register", "{\"node\":" NODE "}" },
	};
	static const char problem[] = "{\"title\":\"Not Found\",\"status\":404,\"detail\":\"node "
				      "12 does not exist\",\"errors\":[]}";
	const struct http_head *h = httpd_head(q);
	size_t len;
	const uint8_t *body = httpd_body(q, &len);
	FILE *log = fopen(admin_log, "ae");

	(void)data;
	fprintf(log, "%.*s %.*s %.*s\n", HTTP_STR_FMT(h->method), HTTP_STR_FMT(h->target), (int)len,
		(const char *)body);
	fclose(log);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		size_t n = strlen(table[i].path);

		if (http_str_eq(h->method, table[i].method) && h->target.len >= n &&
		    !memcmp(h->target.p, table[i].path, n)) {
			httpd_respond(q, 200, "application/json", table[i].answer,
				      strlen(table[i].answer));
			return;
		}
	}
	httpd_respond(q, 404, "application/problem+json", problem, strlen(problem));
}

static inline int fake_run(int ready)
{
	static struct fake f;
	struct api_options o = { .socket = node_socket, .group = NULL, .version = "9.9.9-test" };

	f.state.state = API_STATE_NEEDS_LOGIN;
	f.addrs[0] = addr_of("100.64.0.7");
	f.addrs[1] = addr_of("fd7a:115c:a1e0::7");
	f.peer_addr[0] = addr_of("100.64.0.9");
	f.peer_addr[1] = addr_of("100.64.0.12");
	f.peer_addr[2] = addr_of("100.64.0.14");
	f.peer_addr[3] = addr_of("100.64.0.15");
	prefs_default(&f.prefs);
	if (loop_new(&f.loop) < 0 || loop_timer_new(f.loop, fake_timer, &f, &f.timer) < 0 ||
	    api_new(f.loop, &o, &fake_ops, &f, &f.api) < 0 ||
	    httpd_new(f.loop, NULL, &f.admin) < 0 ||
	    httpd_route(f.admin, NULL, "/*", 65536, fake_admin, NULL) < 0 ||
	    httpd_listen_unix(f.admin, admin_socket, 0666) < 0 || write(ready, "r", 1) != 1)
		return 1;
	return loop_run(f.loop) < 0;
}

static inline pid_t fake_start(void)
{
	int ready[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(fake_run(ready[1]));
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

/* wgctl as a child */

struct run {
	pid_t pid;
	int in, out, err;
	int exit;
	char text[65536], said[8192]; /* stdout, stderr */
};

static struct run last;

static inline void child(const char *line, bool nobody, const int in[2], const int out[2],
		  const int err[2])
{
	char *argv[64], *save = NULL, *copy = strdup(line);
	int n = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	argv[n++] = strdup("wgctl");
	if (!strstr(line, "--socket") && !strstr(line, "admin "))
		if (asprintf(&argv[n++], "--socket=%s", node_socket) < 0)
			_exit(99);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	if (strstr(line, "admin ") && !strstr(line, "--admin-socket"))
		if (asprintf(&argv[n++], "--admin-socket=%s", admin_socket) < 0)
			_exit(99);
	argv[n] = NULL;
	dup2(in[0], 0);
	dup2(out[1], 1);
	dup2(err[1], 2);
	alarm(20);
	if (nobody && (setgid(65534) < 0 || setuid(65534) < 0))
		_exit(98);
	execv("/proc/self/exe", argv);
	_exit(97);
}

static inline void start(const char *line, const char *input, bool nobody)
{
	int in[2], out[2], err[2];

	assert_true(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 &&
		    pipe2(err, O_CLOEXEC) == 0);
	last = (struct run){ .in = in[1], .out = out[0], .err = err[0] };
	last.pid = fork();
	assert_true(last.pid >= 0);
	if (!last.pid)
		child(line, nobody, in, out, err);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	if (input)
		assert_int_equal(write(last.in, input, strlen(input)), strlen(input));
	close(last.in);
}

static inline void read_both(void)
{
	struct pollfd p[2] = { { .fd = last.out, .events = POLLIN },
			       { .fd = last.err, .events = POLLIN } };
	size_t n[2] = { strlen(last.text), strlen(last.said) };
	char *to[2] = { last.text, last.said };
	const size_t max[2] = { sizeof(last.text) - 1, sizeof(last.said) - 1 };

	while (p[0].fd >= 0 || p[1].fd >= 0) {
		assert_true(poll(p, 2, 25000) > 0);
		for (int i = 0; i < 2; i++) {
			ssize_t r;

			if (!p[i].revents)
				continue;
			r = read(p[i].fd, to[i] + n[i], max[i] - n[i]);
			if (r <= 0)
				p[i].fd = -1;
			else
				n[i] += (size_t)r;
		}
	}
}

static inline int finish(void)
{
	int status;

	read_both();
	close(last.out);
	close(last.err);
	assert_int_equal(waitpid(last.pid, &status, 0), last.pid);
	last.exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return last.exit;
}

static inline int wgctl(const char *line)
{
	start(line, NULL, false);
	return finish();
}

#define assert_run(line, status)                                                                   \
	do {                                                                                       \
		int run_got_ = wgctl(line);                                                        \
		if (run_got_ != (status))                                                          \
			print_error("wgctl %s: exit %d\n%s%s", line, run_got_, last.text,          \
				    last.said);                                                    \
		assert_int_equal(run_got_, status);                                                \
	} while (0)
#define assert_out(part)                                                                           \
	do {                                                                                       \
		if (!strstr(last.text, part))                                                      \
			print_error("no \"%s\" in:\n%s", part, last.text);                         \
		assert_non_null(strstr(last.text, part));                                          \
	} while (0)
#define assert_said(part)                                                                          \
	do {                                                                                       \
		if (!strstr(last.said, part))                                                      \
			print_error("no \"%s\" in:\n%s", part, last.said);                         \
		assert_non_null(strstr(last.said, part));                                          \
	} while (0)

/* One line, and it ends. */
static inline void assert_one_line(const char *s)
{
	assert_non_null(strchr(s, '\n'));
	assert_int_equal(strchr(s, '\n')[1], '\0');
}

static inline void bring_up(void)
{
	assert_run("up --hostname=ok --auth-key=" GOOD_KEY, 0);
}

static pid_t daemon_pid;

static inline int set_up(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/kernscale-test-XXXXXX");
	if (!mkdtemp(dir) || chmod(dir, 0711) < 0)
		return -1;
	snprintf(node_socket, sizeof(node_socket), "%s/node.sock", dir);
	snprintf(admin_socket, sizeof(admin_socket), "%s/admin.sock", dir);
	snprintf(admin_log, sizeof(admin_log), "%s/asked", dir);
	daemon_pid = fake_start();
	return 0;
}

static inline int tear_down(void **state)
{
	char lock[128];

	(void)state;
	kill(daemon_pid, SIGKILL);
	waitpid(daemon_pid, NULL, 0);
	snprintf(lock, sizeof(lock), "%s.lock", node_socket);
	unlink(lock);
	unlink(node_socket);
	unlink(admin_socket);
	unlink(admin_log);
	return rmdir(dir); /* nothing else may be left */
}
