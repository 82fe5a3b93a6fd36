/* wgctl: every verb for the daemon, exit statuses, rights, keys in argv, a daemon that is not there yet. */
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/wgctl_world.h"

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
	assert_run("up --hostname=ok --auth-key=", 2);
	assert_said("wgctl: --auth-key is empty: without a key leave the flag away\n");
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
	assert_string_equal(last.said, "");
	assert_run("status", 4);
	assert_string_equal(last.text, "Logged out.\nLog in at: http://mesh/a/2\n");
	assert_run("ping db1", 4);
	assert_string_equal(last.said, "wgctl: not logged in; log in at http://mesh/a/2\n");
	assert_string_equal(last.text, "");
	assert_run("up --hostname=unheard --auth-key=" GOOD_KEY, 0);
	assert_run("logout", 0);
	assert_string_equal(last.said,
			    "wgctl: warning: logged out here, but the server could not be told and still has this node; "
			    "delete it there (wgctl admin nodes delete), or log in and out again\n");
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
	start("wait --timeout 4s", NULL, false);
	waiting = last;
	nap(100);
	kill(daemon_pid, SIGKILL);
	waitpid(daemon_pid, NULL, 0);
	last = waiting;
	assert_int_equal(finish(), 3);
	assert_said("cannot reach kernscaled");
	daemon_pid = fake_start();
}

/* A socket whose queue is full, by others, who ask again and again. */
static int crowd(const struct sockaddr_un *sa, int fds[static 4])
{
	int n = 0, r;

	do {
		fds[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		r = connect(fds[n], (const struct sockaddr *)sa, sizeof(*sa));
		n++;
	} while (r == 0 && n < 4);
	assert_true(r < 0 && errno == EAGAIN);
	return n;
}

/* Who waits has his turn, and says so when it does not come. */
static void test_crowded(void **state)
{
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[4], n, c;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char line[160], byte;

	(void)state;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/full", dir);
	snprintf(line, sizeof(line), "status --socket %s", sa.sun_path);
	assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(listener, 0), 0);
	n = crowd(&sa, fds);
	start(line, NULL, false);
	nap(300);
	for (int i = 0; i < n - 1; i++)
		close(accept(listener, NULL, NULL));
	c = accept(listener, NULL, NULL);
	assert_int_equal(read(c, &byte, 1), 1);
	assert_int_equal(byte, 'G');
	close(c);
	assert_int_equal(finish(), 3);
	assert_said("kernscaled closed the connection");
	for (int i = 0; i < n; i++)
		close(fds[i]);

	n = crowd(&sa, fds);
	assert_run(line, 5);
	assert_one_line(last.said);
	assert_said("kernscaled takes no connection at ");
	for (int i = 0; i < n; i++)
		close(fds[i]);
	close(listener);
	unlink(sa.sun_path);
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
		cmocka_unit_test(test_wait_for_daemon),
		cmocka_unit_test(test_wait_over_restart),
		cmocka_unit_test(test_crowded),
	};

	if (!strcmp(argv[0], "wgctl"))
		return cli_main(argc, argv);
	setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
