/* Files replaced while the loop goes on; what is written is on the disk before its name is. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/file.h"
#include "lib/filewriter.h"

/* ---- a disk that notes what is done to it, and takes its time ---- */

static char acts[256]; /* one thread at a time writes here */
static unsigned int slow_usec;

static void note(const char *act)
{
	strncat(acts, act, sizeof(acts) - strlen(acts) - 1);
}

int fsync(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	usleep(slow_usec);
	note(S_ISDIR(st.st_mode) ? "folder " : st.st_size ? "file " : "nothing ");
	return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
	note("rename ");
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* ---- */

struct story {
	char dir[64], path[96];
	struct loop *loop;
	struct filewriter *w;
	struct loop_timer *tick;
	int told, result, ticks;
	uint64_t took;
};

static void told(void *data, int result, uint64_t took_usec)
{
	struct story *s = data;

	s->told++;
	s->result = result;
	s->took = took_usec;
}

static void ticked(void *data)
{
	struct story *s = data;

	s->ticks++;
	loop_timer_in(s->tick, 5 * USEC_PER_MSEC);
}

static int setup(void **state)
{
	struct story *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	acts[0] = '\0';
	slow_usec = 0;
	strcpy(s->dir, "/tmp/ks-filewriter-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->path, sizeof(s->path), "%s/map", s->dir);
	assert_int_equal(loop_new(&s->loop), 0);
	assert_int_equal(filewriter_new(s->loop, told, s, &s->w), 0);
	assert_int_equal(loop_timer_new(s->loop, ticked, s, &s->tick), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct story *s = *state;

	filewriter_free(s->w);
	loop_timer_free(s->tick);
	loop_free(s->loop);
	unlink(s->path);
	assert_int_equal(rmdir(s->dir), 0); /* nothing else is left */
	free(s);
	return 0;
}

static int put(struct story *s, const char *text)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	buf_put_str(&b, text);
	return filewriter_replace(s->w, s->path, &b, 0600);
}

static void until_told(struct story *s, int times)
{
	for (int i = 0; i < 1000 && s->told < times; i++)
		loop_iterate(s->loop, 100 * USEC_PER_MSEC);
	assert_int_equal(s->told, times);
}

static void holds(struct story *s, const char *text)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	assert_int_equal(file_read(s->path, 1000, &b), 0);
	assert_string_equal(buf_str(&b), text);
}

static void test_written(void **state)
{
	struct story *s = *state;
	struct stat st;

	assert_int_equal(put(s, "one"), 0);
	until_told(s, 1);
	assert_int_equal(s->result, 0);
	holds(s, "one");
	assert_string_equal(acts, "file rename folder ");
	assert_int_equal(stat(s->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(put(s, "two"), 0);
	until_told(s, 2);
	holds(s, "two");
}

static void test_loop_goes_on(void **state)
{
	struct story *s = *state;

	slow_usec = 200000;
	loop_timer_in(s->tick, 0);
	assert_int_equal(put(s, "slow"), 0);
	assert_true(filewriter_busy(s->w));
	assert_int_equal(put(s, "too soon"), -EBUSY);
	until_told(s, 1);
	assert_false(filewriter_busy(s->w));
	assert_true(s->took >= 400 * USEC_PER_MSEC); /* the file and its folder */
	assert_true(s->ticks >= 10);
	holds(s, "slow");
}

static void test_waited_for(void **state)
{
	struct story *s = *state;

	filewriter_wait(s->w); /* for nothing */
	assert_int_equal(s->told, 0);
	slow_usec = 50000;
	assert_int_equal(put(s, "waited for"), 0);
	filewriter_wait(s->w);
	assert_int_equal(s->told, 1);
	holds(s, "waited for");
	/* its event, if it was in hand, tells nothing once more */
	for (int i = 0; i < 3; i++)
		loop_iterate(s->loop, USEC_PER_MSEC);
	assert_int_equal(s->told, 1);
	/* freed meanwhile: whole as well */
	assert_int_equal(put(s, "freed"), 0);
	filewriter_free(TAKE(s->w));
	assert_int_equal(s->told, 1);
	holds(s, "freed");
}

static void test_cannot(void **state)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct story *s = *state;

	buf_put_str(&b, "nowhere");
	assert_int_equal(filewriter_replace(s->w, "/tmp/ks-filewriter-no/such", &b, 0600), 0);
	until_told(s, 1);
	assert_int_equal(s->result, -ENOENT);
	assert_int_equal(put(s, "again"), 0);
	until_told(s, 2);
	assert_int_equal(s->result, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_written, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loop_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cannot, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
