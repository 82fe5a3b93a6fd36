/* journal: there and back, whatever the text; who has too many names forgets the oldest. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/journal.h"
#include "lib/cleanup.h"

static struct journal_names names(const char *interface, const char *table, uint32_t base)
{
	struct journal_names n = { .rule_base = base };

	snprintf(n.interface, sizeof(n.interface), "%s", interface);
	snprintf(n.table, sizeof(n.table), "%s", table);
	return n;
}

static void test_there_and_back(void **state)
{
	char dir[] = "/tmp/ks-journal-XXXXXX", path[64];
	struct journal_names a = names("kernscale0", "kernscale", 5200);
	struct journal_names b = names("fifteen-letters", "thirty-one-letters-and-no-more_", 32000);
	struct journal j = { 0 }, back;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/" JOURNAL_FILE, dir);
	assert_int_equal(journal_load(dir, &back), -ENOENT);
	assert_int_equal(back.n, 0);
	assert_true(journal_add(&j, &a));
	assert_false(journal_add(&j, &a));
	assert_true(journal_add(&j, &b));
	assert_int_equal(journal_save(dir, &j), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(journal_load(dir, &back), 0);
	assert_int_equal(back.n, 2);
	assert_true(journal_names_equal(&back.names[0], &a));
	assert_true(journal_names_equal(&back.names[1], &b));
	journal_drop(&j, 0);
	assert_int_equal(journal_save(dir, &j), 0);
	assert_int_equal(journal_load(dir, &back), 0);
	assert_int_equal(back.n, 1);
	assert_true(journal_names_equal(&back.names[0], &b));
	journal_drop(&j, 0);
	assert_int_equal(journal_save(dir, &j), 0);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(journal_save(dir, &j), 0);
	rmdir(dir);
	assert_int_equal(journal_add(&j, &a), true);
	assert_int_equal(journal_save(dir, &j), -ENOENT);
}

static void test_too_many(void **state)
{
	struct journal j = { 0 };

	(void)state;
	for (uint32_t i = 1; i <= JOURNAL_MAX + 1; i++) {
		struct journal_names n = names("a", "b", i);

		assert_true(journal_add(&j, &n));
	}
	assert_int_equal(j.n, JOURNAL_MAX);
	assert_int_equal(j.names[0].rule_base, 2);
	assert_int_equal(j.names[JOURNAL_MAX - 1].rule_base, JOURNAL_MAX + 1);
}

static void test_odd_text(void **state)
{
	static const struct {
		const char *text;
		size_t len, n;
	} list[] = {
#define ROW(t, n) { t, sizeof(t) - 1, n }
		ROW("", 0),
		ROW("\n\n", 0),
		ROW("a b 1", 1),
		ROW("a b 1\r\n", 0),
		ROW("a b 1\na b 1\n", 1),
		ROW("a b 32000\na b 32001\na b 0\na b -1\na b 4294967297\n", 1),
		ROW("a b 1 2\na b\na\na b c\nc d 1\n", 1),
		ROW("sixteen-letters- b 1\nsixteen-letters- 5\na  b 1\na b 01\n", 0),
		ROW("a thirty-two-letters-and-one-more_ 1\n", 0),
		ROW("a/b c 1\na.b c 1\n", 0),
		ROW("a b\0 1\nc d 1\n", 1),
		ROW("a                                                                                   b 1\nc d 1", 1),
#undef ROW
	};
	struct journal j;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		journal_decode(list[i].text, list[i].len, &j);
		if (j.n != list[i].n)
			fail_msg("text %zu: %zu names, not %zu", i, j.n, list[i].n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_odd_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
