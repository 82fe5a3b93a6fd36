/* wgctl admin: what is asked of the coordinator, and what is printed of its answers. */
#include "tests/unit/wgctl_world.h"

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
	assert_run("admin preauthkeys create -u ana --expiration 0", 2);
	assert_said("with --expiration 0 the key has expired before anybody uses it; give a time such as 1h");
	assert_run("admin preauthkeys create -u ana -e 0s", 2);
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_admin_users),
		cmocka_unit_test(test_admin_keys),
		cmocka_unit_test(test_admin_nodes),
	};

	if (!strcmp(argv[0], "wgctl"))
		return cli_main(argc, argv);
	setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
