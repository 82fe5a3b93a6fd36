/* api: raw requests to the local socket, how many may wait there, and a second daemon that wants it. */
#include "tests/unit/wgctl_world.h"

#include <sys/socket.h>
#include <sys/un.h>

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

enum { MANY = 180 };

/* So many that wait, sixty as each of these users (0: as we are), of whom only so many have a place. */
static void crowd(struct pollfd p[static MANY], uid_t first, int places)
{
	int left = MANY;
	char text[4096];

	for (int i = 0; i < MANY; i++) {
		if (first)
			assert_int_equal(seteuid(first + (uid_t)i / 60), 0);
		p[i] = (struct pollfd){ .fd = dial_node(), .events = POLLIN };
		if (first)
			assert_int_equal(seteuid(0), 0);
		ask(p[i].fd, "GET", "/v1/wait", "");
	}
	while (left > places) { /* the others hear that there are too many */
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
	assert_int_equal(left, places);
	assert_int_equal(poll(p, MANY, 50), 0); /* these wait on */
}

static void disperse(struct pollfd p[static MANY])
{
	for (int i = 0; i < MANY; i++)
		if (p[i].fd >= 0)
			close(p[i].fd);
}

/* Who waits is bounded in number, and places come back when clients go. */
static void test_many_wait(void **state)
{
	struct pollfd p[MANY];

	(void)state;
	assert_run("down", 0);
	crowd(p, 0, 160);
	disperse(p);
	bring_up();
	assert_run("wait --timeout 5s", 0);
}

/* Other users who wait keep nobody out who may change something. */
static void test_strangers_wait(void **state)
{
	struct pollfd p[MANY];

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_run("down", 0);
	crowd(p, 4711, 128);
	bring_up();
	assert_run("wait --timeout 5s", 0);
	assert_run("down", 0);
	disperse(p);
	bring_up();
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_many_wait),
		cmocka_unit_test(test_strangers_wait),
		cmocka_unit_test(test_second_daemon),
	};

	if (!strcmp(argv[0], "wgctl"))
		return cli_main(argc, argv);
	setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
