/* privs: users as given, and what a process that was root has left. */
#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/kernel/privs.h"
#include "lib/user.h"

static void test_users(void **state)
{
	char error[PRIVS_ERROR_MAX];
	struct user u;

	(void)state;
	assert_int_equal(privs_user_find("1234:5678", &u, error), 0);
	assert_int_equal(u.uid, 1234);
	assert_int_equal(u.gid, 5678);
	assert_int_equal(privs_user_find("nobody", &u, error), 0);
	assert_int_equal(privs_user_find("root", &u, error), -EINVAL);
	assert_int_equal(privs_user_find("0:0", &u, error), -EINVAL);
	assert_int_equal(privs_user_find("no-such-user-here", &u, error), -ENOENT);
	assert_non_null(strstr(error, "useradd"));
	assert_int_equal(privs_user_find("12:", &u, error), -ENOENT);
}

/* In place of libc's: "crowded" has 900 KiB of members, "endless" does not end, and one lookup fails. */
int getgrnam_r(const char *name, struct group *g, char *text, size_t len, struct group **ret)
{
	*ret = NULL;
	if (!strcmp(name, "broken"))
		return EIO;
	if (!strcmp(name, "endless") || (!strcmp(name, "crowded") && len < 900 * 1024))
		return ERANGE;
	if (strcmp(name, "crowded") != 0)
		return 0;
	memset(text, 'x', len);
	*g = (struct group){ .gr_gid = 4712 };
	*ret = g;
	return 0;
}

static void test_group(void **state)
{
	gid_t gid = 1;

	(void)state;
	assert_int_equal(user_group("nobodys", &gid), -ENOENT);
	assert_int_equal(user_group("endless", &gid), -ENOBUFS);
	assert_int_equal(user_group("broken", &gid), -EIO);
	assert_int_equal(gid, 1);
	assert_int_equal(user_group("crowded", &gid), 0);
	assert_int_equal(gid, 4712);
}

/* The socket in the runtime folder is for all users, whatever umask the daemon has set for its files. */
static void test_folder(void **state)
{
	char dir[] = "/tmp/kernscale-test.XXXXXX", path[64], error[PRIVS_ERROR_MAX];
	struct user me = { getuid(), getgid() };
	mode_t before = umask(0077);
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/run", dir);
	assert_int_equal(privs_own_folder(path, 0755, &me, error), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	/* One that is there keeps the mode that somebody gave it. */
	assert_int_equal(chmod(path, 0750), 0);
	assert_int_equal(privs_own_folder(path, 0755, &me, error), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	rmdir(path);
	rmdir(dir);
	umask(before);
}

static unsigned long long status_hex(const char *name)
{
	char line[256];
	unsigned long long v = ~0ULL;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			v = strtoull(line + strlen(name), NULL, 16);
	if (f)
		fclose(f);
	return v;
}

/* In a child: 0 when everything is as promised, else the number of the check that failed. */
static int dropped(void)
{
	const unsigned long long kept = 1u << 12 | 1u << 13 | 1u << 10;
	struct user u = { 1234, 5678 };
	char error[PRIVS_ERROR_MAX];

	if (privs_drop(&u, error) < 0)
		return 1;
	if (getuid() != 1234 || geteuid() != 1234 || getgid() != 5678 || getgroups(0, NULL) != 1)
		return 2;
	if (status_hex("CapEff:") != kept || status_hex("CapPrm:") != kept)
		return 3;
	if (status_hex("CapBnd:") != kept || status_hex("CapInh:") != 0 || status_hex("CapAmb:") != 0)
		return 4;
	if (status_hex("NoNewPrivs:") != 1)
		return 5;
	if (setuid(0) == 0)
		return 6;
	if (privs_check(error) < 0 || !privs_has_net_raw())
		return 7;
	return 0;
}

static void test_drop(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0) {
		print_message("not root: giving up rights is not tested\n");
		skip();
	}
	pid = fork();
	if (pid == 0)
		_exit(dropped());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_group),
		cmocka_unit_test(test_folder),
		cmocka_unit_test(test_drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
