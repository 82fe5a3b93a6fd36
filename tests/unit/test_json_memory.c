/* json: text and trees for which there is no memory are not taken for others. Linked with --wrap=malloc and
 * --wrap=free. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/json.h"
#include "lib/jsonscan.h"

enum { MARGIN = 64, BLOCKS = 4096 };

static unsigned int left; /* the last of so many fails; 0: none */
static struct block {
	uint8_t *p;
	size_t n;
} blocks[BLOCKS]; /* in use */

void *__real_malloc(size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void __wrap_free(void *p);

void *__wrap_malloc(size_t n)
{
	struct block *b = blocks;

	if (left && !--left)
		return NULL;
	while (b->p)
		b++;
	*b = (struct block){ __real_malloc(n + MARGIN), n };
	memset(b->p, 0xa5, n + MARGIN);
	return b->p;
}

/* Nothing was written behind it. */
void __wrap_free(void *p)
{
	struct block *b = blocks;

	if (!p)
		return;
	while (b->p != p)
		b++;
	for (size_t i = 0; i < MARGIN; i++)
		assert_int_equal(b->p[b->n + i], 0xa5);
	b->p = NULL;
	__real_free(p);
}

static char text[16384];

/* Strings of all lengths, so that what they are kept in has to grow at any of their bytes. */
static void make_text(void)
{
	size_t n = (size_t)sprintf(text, "{\"number\":1000000000000000000.0000000000000000,\"list\":[1,true");

	for (int i = 0; i < 80; i++)
		n += (size_t)sprintf(text + n, ",\"%.*s\"", i,
				     "0123456789012345678901234567890123456789012345678901234567890123456789012345678901");
	sprintf(text + n, "],\"objects\":{\"a\":null,\"b\":{\"c\":[[],{}]}}}");
}

static void test_read(void **state)
{
	json_t *all = NULL, *j;
	unsigned int n = 0;
	int r;

	(void)state;
	make_text();
	assert_int_equal(json_read(text, strlen(text), sizeof(text), &all), 0);
	do {
		j = NULL;
		left = ++n;
		r = n % 2 ? json_read(text, strlen(text), sizeof(text), &j) :
			    json_slice_read((struct json_slice){ text, strlen(text) }, &j);
		if (r == 0)
			assert_true(json_equal(j, all));
		else
			assert_int_equal(r, -ENOMEM);
		assert_true((r == 0) == (j != NULL));
		json_decref(j);
	} while (!left);
	left = 0;
	assert_true(n > 100);
	/* and what is no JSON is that as before */
	assert_int_equal(json_read("{\"a\": nul}", 10, 4096, &j), -EBADMSG);
	json_decref(all);
}

static json_t *tree(void)
{
	json_t *j = json_object(), *list = json_array();

	json_object_set_new(j, "name", json_string("box"));
	for (int i = 0; i < 12; i++)
		json_array_append_new(list, json_integer(i));
	json_object_set_new(j, "list", list);
	return j;
}

static void test_write(void **state)
{
	CLEANUP(buf_done) struct buf all = { 0 };
	json_t *j = tree();
	unsigned int n = 0;

	(void)state;
	assert_int_equal(json_write(j, &all), 0);
	json_decref(j);
	do {
		CLEANUP(buf_done) struct buf b = { 0 };
		int r;

		left = ++n;
		j = tree();
		r = json_write(j, &b);
		json_decref(j);
		if (r == 0) {
			assert_int_equal(b.len, all.len);
			assert_memory_equal(buf_data(&b), buf_data(&all), all.len);
		} else {
			assert_int_equal(r, -ENOMEM);
		}
	} while (!left);
	left = 0;
	assert_true(n > 10);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
