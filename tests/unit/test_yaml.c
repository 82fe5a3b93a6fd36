/* yaml: types of plain and quoted scalars, nesting, refusals with a line number. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/json.h"
#include "lib/yaml.h"

static void test_types(void **state)
{
	static const char text[] = "# comment\nurl: http://a:8080\nport: 41641\nquoted: '12'\non: true\n"
				   "none:\nlist: [1, b, \"true\"]\ndeep:\n  er:\n    - {x: 1.5}\n";
	CLEANUP(json_decref) json_t *j = NULL, *want = NULL;
	char error[YAML_ERROR_MAX];

	(void)state;
	assert_int_equal(yaml_read(text, strlen(text), &j, error), 0);
	want = json_loads("{\"url\":\"http://a:8080\",\"port\":41641,\"quoted\":\"12\",\"on\":true,"
			  "\"none\":null,\"list\":[1,\"b\",\"true\"],\"deep\":{\"er\":[{\"x\":1.5}]}}",
			  0, NULL);
	assert_non_null(want);
	assert_true(json_equal(j, want));
}

static void test_empty(void **state)
{
	CLEANUP(json_decref) json_t *j = NULL;
	char error[YAML_ERROR_MAX];

	(void)state;
	assert_int_equal(yaml_read("", 0, &j, error), 0);
	assert_true(json_is_object(j));
}

static void test_refused(void **state)
{
	static const struct {
		const char *text, *error;
		int r;
	} cases[] = {
		{ "a: 1\nb: 2\na: 3\n", "line 3: 'a' is given twice", -EBADMSG },
		{ "a: &x 1\nb: *x\n", "line 2: aliases are not supported", -EBADMSG },
		{ "a: [1\nb: 2\n", "line 2: ", -EBADMSG },
		{ "a\n---\nb\n", "line 3: a second document", -EBADMSG },
		{ "[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]", "line 1: nested deeper", -ENOBUFS },
		{ "{[1]: 2}", "line 1: a key must be", -EBADMSG },
	};
	char error[YAML_ERROR_MAX];
	json_t *j = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(yaml_read(cases[i].text, strlen(cases[i].text), &j, error), cases[i].r);
		assert_memory_equal(error, cases[i].error, strlen(cases[i].error));
	}
	assert_int_equal(yaml_read_file("/nonexistent/x.yaml", &j, error), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
