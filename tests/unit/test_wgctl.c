/*
 * The real wgctl as a child process, against the daemon's real local API with canned callbacks, and against a
 * coordinator that writes down what it was asked: every verb, exit statuses, rights, keys in argv, two daemons.
 *
 * This program is also wgctl: called by that name it runs cli_main().
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
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

static struct addr addr_of(const char *s)
{
	struct addr a = { 0 };

	(void)addr_parse(s, strlen(s), &a);
	return a;
}

static void fake_state(void *data, struct api_state *ret)
{
	struct fake *f = data;

	*ret = f->state;
	ret->addrs = f->addrs;
	ret->n_addrs = f->state.state == API_STATE_RUNNING ? 2 : 0;
}

static bool fake_peer(void *data, size_t i, struct api_status_peer *ret)
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

static int fake_status(void *data, struct api_status_input *ret)
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
	    (struct api_status_peer){ .hostname = "gw1",
				      .dns_name = "gw1",
				      .os = "linux",
				      .user_id = 1,
				      .addrs = f->addrs,
				      .n_addrs = f->state.state == API_STATE_RUNNING ? 2 : 0,
				      .online = true };
	ret->self.pub.b[0] = 1;
	return 0;
}

static void fake_timer(void *data)
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
static int fake_up(void *data, const struct api_up *up, bool *ret_changed, struct api_error *err)
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

static void fake_down(void *data, struct api_request *later)
{
	struct fake *f = data;
	bool changed = f->state.state != API_STATE_STOPPED;

	f->state = (struct api_state){ .state = API_STATE_STOPPED };
	api_reply(later, json_pack("{s:b}", "changed", changed));
}

static void fake_logout(void *data, struct api_request *later)
{
	struct fake *f = data;

	f->state =
	    (struct api_state){ .state = API_STATE_NEEDS_LOGIN, .auth_url = "http://mesh/a/2" };
	api_reply(later, json_pack("{s:b}", "changed", true));
}

static void fake_prefs_get(void *data, struct prefs *ret)
{
	const struct fake *f = data;

	*ret = f->prefs;
}

static int fake_prefs_set(void *data, const struct prefs *change, bool *ret_changed,
			  struct api_error *err)
{
	struct fake *f = data;

	(void)err;
	*ret_changed = prefs_merge(&f->prefs, change) != 0;
	return 0;
}

/* .9 comes by relay, then direct; .12 always by relay; .14 never in time; others are unknown. */
static void fake_ping(void *data, const struct api_ping *ping, struct api_request *later)
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

static void fake_netcheck(void *data, struct api_request *later)
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
static void fake_admin(void *data, struct httpd_req *q)
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

static int fake_run(int ready)
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

static pid_t fake_start(void)
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

static void child(const char *line, bool nobody, const int in[2], const int out[2],
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

static void start(const char *line, const char *input, bool nobody)
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

static void read_both(void)
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

static int finish(void)
{
	int status;

	read_both();
	close(last.out);
	close(last.err);
	assert_int_equal(waitpid(last.pid, &status, 0), last.pid);
	last.exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return last.exit;
}

static int wgctl(const char *line)
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
static void assert_one_line(const char *s)
{
	assert_non_null(strchr(s, '\n'));
	assert_int_equal(strchr(s, '\n')[1], '\0');
}

static void bring_up(void)
{
	assert_run("up --hostname=ok --auth-key=" GOOD_KEY, 0);
}

static void test_unreachable(void **state)
{
	char line[160];

	(void)state;
	snprintf(line, sizeof(line), "status --socket %s/nothing", dir);
	assert_run(line, 3);
	assert_one_line(last.said);
	assert_said("cannot reach kernscaled at ");
	assert_said("No such file or directory; is it running? systemctl start kernscaled");
	assert_string_equal(last.text, "");
	snprintf(line, sizeof(line), "admin --admin-socket=%s/nothing users list --socket=x", dir);
	assert_run(line, 3);
	assert_one_line(last.said);
	assert_said("cannot reach kernscale-coordinator at ");
	assert_said("/nothing: No such file or directory; is it running? systemctl start kernscale-coordinator");
	assert_string_equal(last.text, "");
	assert_run("bogus", 2);
	assert_one_line(last.said);
	assert_run("up --timeout", 2);
}

static void test_up(void **state)
{
	(void)state;
	assert_run("up --hostname=x --auth-key=wrong", 6);
	assert_said("wgctl: invalid pre auth key; make a new one\n");
	assert_run("up --hostname=broken", 1);
	assert_string_equal(last.said, "wgctl: it is broken; do that\n");
	bring_up();
	assert_said("warning: a key in the argument list");
	assert_null(strstr(last.said, GOOD_KEY));
	assert_string_equal(last.text, "");
	assert_run("up --hostname=ok --json --authkey " GOOD_KEY, 0);
	assert_out("\"BackendState\": \"Running\"");
	assert_out("\"schema\": 1");
	assert_out("100.64.0.7");
	assert_run("up --hostname=slow --timeout=50ms --auth-key=" GOOD_KEY, 5);
	assert_said("up: no answer in time");
	/* Who sets no limit is told as well; the daemon's limit is then 5 s. */
	assert_run("up --hostname=in-vain-slow --auth-key=" GOOD_KEY, 5);
	assert_said("up: not done in time: nobody is there; goes on trying");
	assert_run("up --accept-dns=false --ssh=false --snat-subnet-routes --hostname=ok "
		   "--auth-key=" GOOD_KEY,
		   0);
	assert_run("up --accept-dns", 1);
	assert_string_equal(last.said, "wgctl: --accept-dns=true is not supported yet, only "
				       "--accept-dns=false is; leave the flag out\n");
	assert_run("up --login-server=mesh", 2);
	assert_said("login-server must begin with http://");
}

static void test_key_sources(void **state)
{
	char path[128], line[256];
	FILE *f;

	(void)state;
	start("up --hostname=ok --auth-key=-", GOOD_KEY "\n", false);
	assert_int_equal(finish(), 0);
	assert_string_equal(last.said, ""); /* nothing to warn of */
	start("up --hostname=ok --auth-key -", "\n", false);
	assert_int_equal(finish(), 1);
	assert_said("there is no auth key in standard input");
	snprintf(path, sizeof(path), "%s/key", dir);
	snprintf(line, sizeof(line), "up --hostname=ok --auth-key=file:%s", path);
	assert_run(line, 1);
	assert_said("cannot read the auth key from ");
	assert_said(": No such file or directory; make one by wgctl admin preauthkeys create");
	assert_one_line(last.said);
	f = fopen(path, "we");
	fprintf(f, "%s \r\n", GOOD_KEY);
	fclose(f);
	assert_run(line, 0);
	assert_string_equal(last.said, "");
	unlink(path);
}

/* A URL to visit is shown, then wgctl waits until it was. */
static void test_up_by_person(void **state)
{
	(void)state;
	assert_run("up --hostname=url", 0);
	assert_string_equal(last.said,
			    "\nTo authenticate, visit:\n\n\thttp://mesh/a/1\n\nSuccess.\n");
	assert_run("up --hostname=approve", 0);
	assert_said("waits for approval");
	assert_run("up --hostname=url-slow --timeout 40ms", 5);
	assert_said("http://mesh/a/1");
}

static void test_states(void **state)
{
	(void)state;
	bring_up();
	assert_run("status", 0);
	assert_out("100.64.0.7   gw1   ops@  linux  -\n100.64.0.9   db1   ops@  linux  active; "
		   "relay \"fra\"\n");
	assert_run("wait --timeout 5s", 0);
	assert_run("down", 0);
	assert_run("status", 3);
	assert_string_equal(last.text, "Kernscale is stopped.\n");
	assert_run("status --json", 0); /* the document says the state itself */
	assert_out("\"BackendState\": \"Stopped\"");
	assert_run("wait --timeout 30ms", 5);
	assert_run("ip", 3);
	assert_string_equal(last.said, "wgctl: Kernscale is stopped; start it with wgctl up\n");
	assert_run("logout", 0);
	assert_run("status", 4);
	assert_string_equal(last.text, "Logged out.\nLog in at: http://mesh/a/2\n");
	assert_run("ping db1", 4);
	assert_string_equal(last.said, "wgctl: not logged in; log in at http://mesh/a/2\n");
	assert_string_equal(last.text, "");
}

static void test_status_forms(void **state)
{
	json_t *j;

	(void)state;
	bring_up();
	assert_run("status --json", 0);
	j = json_loads(last.text, 0, NULL);
	assert_non_null(j);
	assert_int_equal(json_object_size(json_get(j, "Peer")), 4);
	assert_string_equal(json_get_str(j, "Version"), "9.9.9-test");
	json_decref(j);
	assert_run("status --json --active", 0);
	j = json_loads(last.text, 0, NULL);
	assert_int_equal(json_object_size(json_get(j, "Peer")), 1);
	json_decref(j);
	assert_run("status --json --peers=false", 0);
	j = json_loads(last.text, 0, NULL);
	assert_int_equal(json_object_size(json_get(j, "Peer")), 0);
	json_decref(j);
	assert_run("status --self=false --active --header", 0);
	assert_out("IP          Hostname  Owner  OS     Status\n");
	assert_null(strstr(last.text, "gw1"));
	assert_null(strstr(last.text, "lap"));
	assert_run("status --color=always", 0);
	assert_out("\033[");
	assert_run("status --color=auto", 0); /* a pipe is no terminal */
	assert_null(strstr(last.text, "\033["));
	assert_run("status -d", 0);
	assert_out("db1:\n  Addresses:       100.64.0.9\n");
	assert_run("status --color=sometimes", 2);
}

static void test_ping(void **state)
{
	(void)state;
	bring_up();
	assert_run("ping --interval 1ms db1", 0);
	assert_string_equal(last.text,
			    "pong from db1 (100.64.0.9) via DERP(fra) in 34ms\n"
			    "pong from db1 (100.64.0.9) via 203.0.113.9:41641 in 12ms\n");
	assert_run("ping --interval 1ms -c 3 --until-direct=false 100.64.0.9", 0);
	assert_run("ping --interval 1ms -c 1 100.64.0.9", 0); /* even out the count of three */
	assert_run("ping --interval 1ms -c 2 lap", 1);
	assert_string_equal(last.said, "wgctl: direct connection not established\n");
	assert_string_equal(last.text, "pong from db1 (100.64.0.12) via DERP(fra) in 34ms\n"
				       "pong from db1 (100.64.0.12) via DERP(fra) in 34ms\n");
	assert_run("ping --interval 1ms -c 2 lap --until-direct=false", 0);
	assert_run("ping -c 1 --timeout 30ms old", 5);
	assert_string_equal(last.text, "ping \"100.64.0.14\" timed out\n");
	assert_string_equal(last.said, "wgctl: no reply\n");
	assert_run("ping gone", 1);
	assert_said("no peer has this address");
	assert_run("ping gw1", 0);
	assert_string_equal(last.text, "100.64.0.7 is local Kernscale IP\n");
	assert_run("ping no-such-host.invalid", 1);
	assert_said("there is no peer \"no-such-host.invalid\"");
	assert_run("ping --tsmp db1", 1);
	assert_run("status", 0); /* the answer that came too late has hurt nobody */
}

static void test_small_verbs(void **state)
{
	(void)state;
	bring_up();
	assert_run("ip", 0);
	assert_string_equal(last.text, "100.64.0.7\nfd7a:115c:a1e0::7\n");
	assert_run("ip -4", 0);
	assert_string_equal(last.text, "100.64.0.7\n");
	assert_run("ip -6", 0);
	assert_string_equal(last.text, "fd7a:115c:a1e0::7\n");
	assert_run("ip -1", 0);
	assert_string_equal(last.text, "100.64.0.7\n");
	assert_run("ip db1", 0);
	assert_string_equal(last.text, "100.64.0.9\n");
	assert_run("ip -6 db1", 1);
	assert_said("there is no IPv6 address in the mesh; without -6 those of the other kind are shown");
	assert_one_line(last.said);
	assert_run("ip -4 -6", 2);
	assert_run("ip nobody", 1);
	assert_run("ip --assert 100.64.0.7", 0);
	assert_run("ip --assert 100.64.0.8", 1);
	assert_string_equal(last.said,
			    "wgctl: this node does not have the address 100.64.0.8; wgctl ip shows those it has\n");
	assert_run("whois 100.64.0.9:80", 0);
	assert_out("  Name:            db1");
	assert_run("whois 100.64.0.99", 1);
	assert_run("whois what", 2);
	assert_run("whois --json 100.64.0.7", 0);
	assert_out("\"UserProfile\"");
	assert_run("version --daemon", 0);
	assert_out("Daemon: 9.9.9-test\n");
	assert_run("version --json", 0);
	assert_run("--version", 0);
	assert_run("netcheck", 0);
	assert_out("\t\t- fra: 21ms    (Frankfurt)\n");
	assert_run("netcheck --format json-line", 0);
	assert_out("\"PreferredDERP\":1");
	assert_run("netcheck --format xml", 2);
	assert_run("__complete peers", 0);
	assert_string_equal(last.text, "db1\nlap\nold\ngone\n");
	assert_run("completion bash", 0);
	assert_out("complete -F _wgctl wgctl");
	assert_run("ping --help", 0);
	assert_out("usage: wgctl ping");
}

/* Rights: others may look, not touch, and do not get the URL that logs the node in. */
static void test_rights(void **state)
{
	static const char *const changes[] = { "up --hostname=ok --auth-key=-", "down", "logout" };

	(void)state;
	if (geteuid() != 0) {
		print_message("not root: cannot become another user\n");
		skip();
	}
	assert_run("logout", 0);
	start("status", NULL, true);
	assert_int_equal(finish(), 4);
	assert_string_equal(last.text, "Logged out.\n");
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		start(changes[i], GOOD_KEY, true);
		assert_int_equal(finish(), 6);
		assert_string_equal(
		    last.said, "wgctl: changing the mesh is for root and the group of the daemon; "
			       "run it as root or as a member of group kernscale\n");
	}
	bring_up();
	start("ping --interval 1ms -c 1 lap --until-direct=false", NULL, true);
	assert_int_equal(finish(), 0);
}

static bool proc_has(pid_t pid, const char *file, const char *what)
{
	char path[64], text[8192];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	n = read(fd, text, sizeof(text));
	close(fd);
	assert_true(n >= 0);
	return memmem(text, (size_t)n, what, strlen(what));
}

static void test_argv_wiped(void **state)
{
	char c = 0;

	(void)state;
	start("up --hostname=slow --timeout=10s --auth-key=" GOOD_KEY " --authkey " GOOD_KEY, NULL,
	      false);
	finish();
	assert_int_equal(last.exit, 2); /* given twice: even then nothing of it is printed */
	assert_null(strstr(last.said, GOOD_KEY));
	start("up --hostname=slow --timeout=10s --auth-key " GOOD_KEY, NULL, false);
	assert_int_equal(read(last.err, &c, 1),
			 1); /* the warning: it is written after the wiping */
	assert_true(proc_has(last.pid, "cmdline", "--hostname=slow"));
	assert_false(proc_has(last.pid, "cmdline", GOOD_KEY));
	assert_false(proc_has(last.pid, "cmdline", "hskey"));
	assert_false(proc_has(last.pid, "environ", GOOD_KEY));
	kill(last.pid, SIGKILL);
	finish();
	assert_run("version --daemon",
		   0); /* the client that vanished was noticed or not: no harm */
}

/* Raw requests */

static int dial_node(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path, node_socket, strlen(node_socket) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void ask(int fd, const char *method, const char *target, const char *body)
{
	char text[1024];
	int n = snprintf(
	    text, sizeof(text),
	    "%s %s HTTP/1.1\r\nHost: local-tailscaled.sock\r\nContent-Length: %zu\r\n\r\n%s",
	    method, target, strlen(body), body);

	assert_int_equal(write(fd, text, (size_t)n), n);
}

/* What comes within five seconds, up to what is there at once. */
static int answer(int fd, char *text, size_t max)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;
	int status = 0;

	assert_int_equal(poll(&p, 1, 5000), 1);
	n = read(fd, text, max - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_int_equal(sscanf(text, "HTTP/1.1 %d", &status), 1);
	return status;
}

static void test_raw(void **state)
{
	static const struct {
		const char *method, *target, *body;
		int status;
		const char *part;
	} cases[] = {
		{ "GET",
		  "/localapi/v0/"
		  "whois?addr=nodekey%"
		  "3A0100000000000000000000000000000000000000000000000000000000000000",
		  "", 200, "\"Node\":{" },
		{ "GET",
		  "/localapi/v0/"
		  "whois?addr=nodekey%"
		  "3A0200000000000000000000000000000000000000000000000000000000000000",
		  "", 200, "\"UserProfile\":{" },
		{ "GET",
		  "/localapi/v0/"
		  "whois?addr=nodekey%"
		  "3A0900000000000000000000000000000000000000000000000000000000000000",
		  "", 404, "not-found" },
		{ "GET", "/localapi/v0/whois?addr=nodekey%3A09", "", 400,
		  "invalid 'addr' parameter" },
		{ "GET", "/localapi/v0/whois", "", 400, "invalid 'addr' parameter" },
		{ "GET", "/localapi/v0/status?peers=false", "", 200, "nodekey:01" },
		{ "GET", "/v1/nothing", "", 404, "\"error\":" },
		{ "POST", "/v1/ping", "{\"ip\":\"100.64.0.12\",\"timeout_msec\":0}", 400, "usage" },
		{ "POST", "/v1/ping", "{\"ip\":\"all\"}", 400, "usage" },
		{ "POST", "/v1/ping", "[]", 400, "not a JSON object" },
		{ "POST", "/v1/ping", "{", 400, "not a JSON object" },
		{ "POST", "/v1/up", "{\"prefs\":{\"ssh\":true}}", 501,
		  "--ssh=true is not supported yet" },
		{ "POST", "/v1/up", "{\"prefs\":{\"zzz\":true}}", 400, "unknown preference" },
		{ "POST", "/v1/up", "{\"auth_key\":7}", 400, "no auth key" },
		{ "POST", "/v1/up", "{\"auth_key\":\"a b\"}", 400, "no auth key" },
		{ "POST", "/v1/up", "{\"timeout_msec\":-1}", 400, "negative" },
		{ "POST", "/v1/prefs", "{\"prefs\":{\"hostname\":\"new\"}}", 200,
		  "\"changed\":true" },
		{ "POST", "/v1/prefs", "{\"prefs\":{\"hostname\":\"new\"}}", 200,
		  "\"changed\":false" },
		{ "GET", "/v1/prefs", "", 200, "\"hostname\":\"new\"" },
		{ "GET", "/v1/wait?timeout_msec=x", "", 400, "timeout_msec" },
		{ "GET", "/v1/version", "", 200, "\"schema\":1" },
	};
	char text[32768];

	(void)state;
	bring_up();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int fd = dial_node(), status;

		ask(fd, cases[i].method, cases[i].target, cases[i].body);
		status = answer(fd, text, sizeof(text));
		if (status != cases[i].status || !strstr(text, cases[i].part))
			print_error("%s %s %s: %s\n", cases[i].method, cases[i].target,
				    cases[i].body, text);
		assert_int_equal(status, cases[i].status);
		assert_non_null(strstr(text, cases[i].part));
		close(fd);
	}
}

/* Who waits is bounded in number, and places come back when clients go. */
static void test_many_wait(void **state)
{
	enum { MANY = 140, PLACES = 128 };
	struct pollfd p[MANY];
	char text[4096];
	int left = MANY;

	(void)state;
	assert_run("down", 0);
	for (int i = 0; i < MANY; i++) {
		p[i] = (struct pollfd){ .fd = dial_node(), .events = POLLIN };
		ask(p[i].fd, "GET", "/v1/wait", "");
	}
	while (left > PLACES) { /* the others hear that there are too many */
		assert_true(poll(p, MANY, 5000) > 0);
		for (int i = 0; i < MANY; i++) {
			if (p[i].fd < 0 || !p[i].revents)
				continue;
			assert_int_equal(answer(p[i].fd, text, sizeof(text)), 503);
			close(p[i].fd);
			p[i].fd = -1;
			left--;
		}
	}
	assert_int_equal(left, PLACES);
	assert_int_equal(poll(p, MANY, 50), 0); /* these wait on */
	for (int i = 0; i < MANY; i++)
		if (p[i].fd >= 0)
			close(p[i].fd);
	bring_up();
	assert_run("wait --timeout 5s", 0);
}

/* The coordinator's words */

static void assert_asked(const char *what)
{
	char text[8192] = "";
	FILE *f = fopen(admin_log, "re");
	size_t n;

	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	if (!strstr(text, what))
		print_error("no \"%s\" in:\n%s", what, text);
	assert_non_null(strstr(text, what));
	unlink(admin_log);
}

static void test_admin_users(void **state)
{
	(void)state;
	assert_run("admin health", 0);
	assert_string_equal(last.text, "healthy\n");
	unlink(admin_log);
	assert_run("admin users create ana -d Ana", 0);
	assert_string_equal(last.text, "User created\n");
	assert_asked("POST /api/v1/user {\"name\":\"ana\",\"displayName\":\"Ana\"}");
	assert_run("admin users list", 0);
	assert_out("ID | Name | Username | Email | Created\n1  | Ana  | ana      |       | "
		   "2026-11-01 00:00:00\n");
	assert_run("admin users list -o json-line", 0);
	assert_out("[{\"id\":\"1\",\"name\":\"ana\"");
	unlink(admin_log);
	assert_run("admin users destroy --name ana", 2); /* no terminal, no --force */
	assert_said("give --force");
	assert_run("admin users destroy --name ana --force", 0);
	assert_asked("DELETE /api/v1/user/1");
	assert_run("admin users rename -i 1 -r anna", 0);
	assert_asked("POST /api/v1/user/1/rename/anna");
	assert_run("admin users rename ana anna", 0);
	assert_asked("POST /api/v1/user/1/rename/anna");
	assert_run("admin users list -o yaml", 1);
}

static void test_admin_keys(void **state)
{
	(void)state;
	assert_run("admin preauthkeys create -u ana --reusable -e 24h --tags tag:a,tag:b", 0);
	assert_string_equal(last.text, GOOD_KEY "\n");
	assert_asked("POST /api/v1/preauthkey "
		     "{\"user\":\"1\",\"reusable\":true,\"ephemeral\":false,\"expiration\":\"20");
	assert_run("admin preauthkey create --user 1 --ephemeral", 0); /* the older words */
	assert_asked("\"ephemeral\":true");
	assert_run("admin preauthkeys create", 2);
	assert_said("give --user or --tags");
	assert_run("admin preauthkeys create -u nobody", 1);
	assert_string_equal(
	    last.said, "wgctl: there is no user \"nobody\"; see wgctl admin users list\n");
	assert_run("admin --user ana preauthkeys list", 0);
	assert_out("| hskey-auth-0123456789ab-*** | true     | false     | false | -");
	assert_run("admin preauthkeys list -u other -o json-line", 0);
	assert_string_equal(last.text, "[]\n");
	assert_run("admin preauthkeys create -u ana -o json", 0);
	assert_out("\t\"key\": \"" GOOD_KEY "\"");
	unlink(admin_log);
	assert_run("admin preauthkeys expire -i 7", 0);
	assert_string_equal(last.text, "Key expired\n");
	assert_asked("POST /api/v1/preauthkey/expire {\"id\":\"7\"}");
	assert_run("admin preauthkeys delete hskey-auth-0123456789ab-0123",
		   0); /* by the key itself */
	assert_asked("DELETE /api/v1/preauthkey?id=7");
	assert_run("admin preauthkeys delete", 2);
}

static void test_admin_nodes(void **state)
{
	(void)state;
	assert_run("admin nodes list", 0);
	assert_out("3  | Box      | box  |");
	assert_out("| online    | no\n");
	unlink(admin_log);
	assert_run("admin nodes list -u ana -o json", 0);
	assert_asked("GET /api/v1/node?user=ana");
	assert_run("admin nodes expire -i 3", 0);
	assert_string_equal(last.text, "Node expired\n");
	assert_asked("POST /api/v1/node/3/expire \n");
	assert_run("admin nodes expire -i 3 -d", 0);
	assert_asked("POST /api/v1/node/3/expire {\"disableExpiry\":true}");
	assert_run("admin nodes expire -i 3 -e 2027-01-31T12:00:00Z", 0);
	assert_asked("{\"expiry\":\"2027-01-31T12:00:00Z\"}");
	assert_run("admin nodes expire -i 3 -e soon", 2);
	assert_run("admin nodes rename -i 3 b/x", 0);
	assert_asked("POST /api/v1/node/3/rename/b%2Fx");
	assert_run("admin nodes tag -i box -t tag:a", 0); /* by name */
	assert_asked("POST /api/v1/node/3/tags {\"tags\":[\"tag:a\"]}");
	assert_run("admin nodes tag -i 3", 2);
	assert_run("admin nodes delete --force 100.64.0.3", 0);
	assert_asked("DELETE /api/v1/node/3");
	assert_run("admin nodes delete --force -i 12", 1);
	assert_string_equal(last.said, "wgctl: node 12 does not exist; see wgctl admin nodes list\n");
	assert_run("admin nodes register -u ana -k hskey-authreq-1", 0);
	assert_string_equal(last.text, "Node box registered\n");
	assert_asked(
	    "POST /api/v1/auth/register {\"user\":\"ana\",\"authId\":\"hskey-authreq-1\"}");
	unlink(admin_log);
}

/* Two daemons, one socket */

static int second(void)
{
	CLEANUP(loop_free) struct loop *l = NULL;
	CLEANUP(api_free) struct api *a = NULL;
	struct api_options o = { .socket = node_socket, .version = "2" };
	struct fake f = { 0 };

	assert_int_equal(loop_new(&l), 0);
	f.loop = l;
	return api_new(l, &o, &fake_ops, &f, &a);
}

static pid_t daemon_pid;

static void test_second_daemon(void **state)
{
	char lock[128];
	struct stat st;

	(void)state;
	snprintf(lock, sizeof(lock), "%s.lock", node_socket);
	assert_int_equal(second(), -EADDRINUSE);
	assert_run("version --daemon", 0); /* the first one's socket is untouched */
	unlink(lock);			   /* even without the lock: somebody answers there */
	assert_int_equal(second(), -EADDRINUSE);
	assert_run("version --daemon", 0);
	assert_int_equal(stat(node_socket, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	kill(daemon_pid, SIGKILL);
	waitpid(daemon_pid, NULL, 0);
	assert_int_equal(stat(node_socket, &st), 0); /* left behind, stale */
	assert_run("version --daemon", 3);
	assert_said("Connection refused");
	assert_int_equal(second(), 0); /* replaced, and taken away again */
	assert_int_equal(stat(node_socket, &st), -1);
	assert_int_equal(stat(lock, &st), -1);
	daemon_pid = fake_start();
	assert_run("version --daemon", 0);
}

/* A service may wait before the daemon is there. */
static void test_wait_for_daemon(void **state)
{
	static struct run waiting;

	(void)state;
	kill(daemon_pid, SIGKILL);
	waitpid(daemon_pid, NULL, 0);
	assert_run("wait --timeout 20ms", 3);
	start("wait --timeout 15s", NULL, false);
	waiting = last;
	daemon_pid = fake_start();
	bring_up();
	last = waiting;
	assert_int_equal(finish(), 0);
	assert_string_equal(last.said, "");
}

static void nap(unsigned int msec)
{
	(void)poll(NULL, 0, (int)msec);
}

/* ... and over a restart of it: wgctl is being answered by the one that is killed. */
static void test_wait_over_restart(void **state)
{
	static struct run waiting;

	(void)state;
	assert_run("down", 0);
	start("wait --timeout 15s", NULL, false);
	waiting = last;
	nap(200);
	kill(daemon_pid, SIGKILL);
	waitpid(daemon_pid, NULL, 0);
	nap(200);
	assert_int_equal(waitpid(waiting.pid, NULL, WNOHANG), 0);
	daemon_pid = fake_start();
	bring_up();
	last = waiting;
	assert_int_equal(finish(), 0);
	assert_string_equal(last.said, "");

	/* It does not come back: the exit status of one that is not there, and one line. */
	assert_run("down", 0);
	start("wait --timeout 500ms", NULL, false);
	waiting = last;
	nap(100);
	kill(daemon_pid, SIGKILL);
	waitpid(daemon_pid, NULL, 0);
	last = waiting;
	assert_int_equal(finish(), 3);
	assert_said("cannot reach kernscaled");
	daemon_pid = fake_start();
}

static int set_up(void **state)
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

static int tear_down(void **state)
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_up),
		cmocka_unit_test(test_key_sources),
		cmocka_unit_test(test_up_by_person),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_status_forms),
		cmocka_unit_test(test_ping),
		cmocka_unit_test(test_small_verbs),
		cmocka_unit_test(test_rights),
		cmocka_unit_test(test_argv_wiped),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_many_wait),
		cmocka_unit_test(test_admin_users),
		cmocka_unit_test(test_admin_keys),
		cmocka_unit_test(test_admin_nodes),
		cmocka_unit_test(test_second_daemon),
		cmocka_unit_test(test_wait_for_daemon),
		cmocka_unit_test(test_wait_over_restart),
	};

	if (!strcmp(argv[0], "wgctl"))
		return cli_main(argc, argv);
	setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
