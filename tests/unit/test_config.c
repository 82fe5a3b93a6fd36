/* config: defaults, file, command line over file, refusals in one line. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/config.h"
#include "lib/cleanup.h"

static char path[] = "/tmp/kernscale-test-config-XXXXXX";

static int load(struct config *c, char *error, const char *text, const char *a, const char *b)
{
	char *argv[] = { (char *)(uintptr_t) "kernscaled", (char *)(uintptr_t) "--config", path,
			 (char *)(uintptr_t)a, (char *)(uintptr_t)b, NULL };
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	return config_load(a ? b ? 5 : 4 : 3, argv, c, error);
}

static void test_defaults(void **state)
{
	char error[CONFIG_ERROR_MAX];
	struct config c;

	(void)state;
	assert_int_equal(load(&c, error, "", NULL, NULL), 0);
	assert_string_equal(c.interface, "kernscale0");
	assert_string_equal(c.socket, "/run/kernscale/kernscaled.sock");
	assert_int_equal(c.port, 41641);
	assert_int_equal(c.route_table, 52);
	assert_true(c.lan_first);
}

static void test_order(void **state)
{
	char error[CONFIG_ERROR_MAX];
	struct config c;

	(void)state;
	assert_int_equal(load(&c, error, "port: 1\ninterface: ks7\nverbose: debug\n", "--port", "2"), 0);
	assert_int_equal(c.port, 2);
	assert_string_equal(c.interface, "ks7");
	assert_int_equal(c.log_level, LOG_LEVEL_DEBUG);
	assert_int_equal(load(&c, error, "lan-first: false\n", NULL, NULL), 0);
	assert_false(c.lan_first);
	assert_int_equal(load(&c, error, "lan-first: false\n", "--lan-first", "true"), 0);
	assert_true(c.lan_first);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text, *a, *b, *error;
	} cases[] = {
		{ "prot: 1\n", NULL, NULL, "unknown setting 'prot'" },
		{ "port: 70000\n", NULL, NULL, "port: '70000'" },
		{ "port: [1]\n", NULL, NULL, "port: ''" },
		{ "a: 1\na: 2\n", NULL, NULL, "line 2: 'a' is given twice" },
		{ "", "--port", "x", "port: 'x'" },
		{ "", "--prot", "1", "unknown option '--prot'" },
		{ "", "--port", NULL, "no value for '--port'" },
		{ "", "extra", NULL, "unknown word 'extra'" },
		{ "", "--interface", "../x", "interface: '../x'" },
		{ "", "--interface", "sixteen-letters-", "interface: must have 1 to 15" },
		{ "", "--lan-first", "no", "lan-first: true or false, not 'no'" },
		{ "", "--lan-first", NULL, "no value for '--lan-first'" },
		{ "", "--route-table", "254", "route-table: 254 belongs to the system" },
	};
	char error[CONFIG_ERROR_MAX];
	struct config c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		error[0] = '\0';
		assert_int_equal(load(&c, error, cases[i].text, cases[i].a, cases[i].b), -EINVAL);
		if (!strstr(error, cases[i].error))
			fail_msg("'%s' lacks '%s'", error, cases[i].error);
	}
}

/* What comes after the daemon's death has to do its work with whatever the file is. */
static void test_hold(void **state)
{
	char error[CONFIG_ERROR_MAX];
	struct config c;

	(void)state;
	assert_int_equal(load(&c, error, "table: ks7\n", "--hold-filter", NULL), 0);
	assert_true(c.hold_filter);
	assert_string_equal(c.table, "ks7");
	assert_int_equal(load(&c, error, "table: ks7\nprot: 1\n", "--hold-filter", NULL), 0);
	assert_string_equal(c.table, "ks7");
	assert_int_equal(load(&c, error, "table: ks7\n\t- {", "--hold-filter", NULL), 0);
	assert_string_equal(c.table, "kernscale");
	assert_int_equal(load(&c, error, "table: ks7\n\t- {", NULL, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_hold),
	};
	int r, fd = mkstemp(path);

	if (fd < 0)
		return 1;
	close(fd);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return r;
}
