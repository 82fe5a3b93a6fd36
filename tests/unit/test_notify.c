/* notify: signs of life for a service manager, made here of one socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/loop.h"
#include "lib/notify.h"

#define FILES 64

/* Binds at, which sd_notify(3) would write as text, and says so in the environment. */
static int manager(const char *at)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	memcpy(a.sun_path, at, strlen(at));
	if (at[0] == '@')
		a.sun_path[0] = '\0';
	assert_int_equal(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(at))),
			 0);
	assert_int_equal(setenv("NOTIFY_SOCKET", at, 1), 0);
	return fd;
}

static int heard(int fd, const char *what)
{
	char b[64];
	ssize_t n;
	int found = 0;

	while ((n = recv(fd, b, sizeof(b) - 1, 0)) >= 0) {
		b[n] = '\0';
		assert_string_equal(b, what);
		found++;
	}
	return found;
}

/* Who has no descriptor left lives all the same. */
static void test_watchdog(void **state)
{
	char dir[] = "/tmp/notify.XXXXXX", path[64], abstract[64];
	const char *at[] = { path, abstract };
	struct rlimit was, few;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	snprintf(abstract, sizeof(abstract), "@kernscale-test-notify-%d", (int)getpid());
	assert_int_equal(setenv("WATCHDOG_USEC", "90000", 1), 0);
	unsetenv("WATCHDOG_PID");
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		CLEANUP(loop_free) struct loop *l = NULL;
		int fd[FILES], n = 0, m = manager(at[i]), beats = 0;

		assert_int_equal(loop_new(&l), 0);
		assert_int_equal(loop_watchdog(l), 0);
		few = (struct rlimit){ FILES, was.rlim_max };
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		while (n < FILES && (fd[n] = dup(0)) >= 0)
			n++;
		assert_true(n < FILES && errno == EMFILE);
		heard(m, "WATCHDOG=1");
		for (int tries = 0; tries < 200 && beats < 2; tries++) {
			assert_true(loop_iterate(l, 50 * USEC_PER_MSEC) >= 0);
			beats += heard(m, "WATCHDOG=1");
		}
		assert_true(beats >= 2);
		while (n)
			close(fd[--n]);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
		close(m);
	}
	unlink(path);
	rmdir(dir);
}

static void test_nobody(void **state)
{
	CLEANUP(loop_free) struct loop *l = NULL;

	(void)state;
	assert_int_equal(loop_new(&l), 0);
	unsetenv("WATCHDOG_USEC");
	assert_int_equal(loop_watchdog(l), 0);
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(notify_socket(), -ENOENT);
	assert_int_equal(notify_send(-1, "READY=1"), -ENOENT);
	setenv("NOTIFY_SOCKET", "vsock:2:1", 1);
	assert_int_equal(notify_socket(), -EAFNOSUPPORT);
	setenv("NOTIFY_SOCKET", "", 1);
	assert_int_equal(notify_socket(), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_watchdog),
		cmocka_unit_test(test_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
