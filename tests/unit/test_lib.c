/* lib: cursor, buf, key, json and loop: limits, refusals, and what they promise on failure. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/buf.h"
#include "lib/cursor.h"
#include "lib/json.h"
#include "lib/key.h"
#include "lib/loop.h"
#include "tests/unit/weak_keys.h"

static void test_cursor_short(void **state)
{
	static const uint8_t in[] = { 1, 2, 3, 4, 5 };
	struct cursor c = cursor_of(in, sizeof(in));
	uint8_t out[4] = { 9, 9, 9, 9 };

	(void)state;
	assert_int_equal(cursor_be16(&c), 0x0102);
	cursor_copy(&c, out, 4);
	assert_int_equal(out[0], 0);
	assert_false(cursor_ok(&c));
	assert_int_equal(cursor_u8(&c), 0); /* bad for good, though three bytes are left */
	assert_null(cursor_take(&c, 1));
	c = cursor_of(in, sizeof(in));
	assert_int_equal(cursor_le32(&c), 0x04030201);
	assert_false(cursor_done(&c));
	assert_int_equal(cursor_u8(&c), 5);
	assert_true(cursor_done(&c));
	assert_non_null(cursor_take(&c, 0));
	c = cursor_of(in, sizeof(in));
	assert_null(cursor_take(&c, SIZE_MAX));
}

static void test_buf_limit(void **state)
{
	CLEANUP(buf_done) struct buf b = { .max = 1000 };

	(void)state;
	for (int i = 0; i < 250; i++)
		assert_int_equal(buf_put_be32(&b, (uint32_t)i), 0);
	assert_int_equal(buf_put_u8(&b, 0), -ENOBUFS);
	assert_true(b.bad);
	assert_int_equal(b.len, 1000);
	buf_clear(&b);
	assert_int_equal(buf_put_str(&b, "0123456789"), 0);
	buf_consume(&b, 4);
	assert_int_equal(b.len, 6);
	assert_memory_equal(buf_data(&b), "456789", 6);
	for (int i = 0; i < 99; i++) { /* the front is reclaimed, not grown into */
		assert_int_equal(buf_printf(&b, "%09d", i), 0);
		buf_consume(&b, 9);
	}
	assert_true(b.cap <= 1024);
	assert_int_equal(strlen(buf_str(&b)), 6);
}

static void test_key_text(void **state)
{
	static const char *const bad[] = { "nodekey:", "mkey:00", "nodekey",
		"nodekey:000000000000000000000000000000000000000000000000000000000000000g",
		"mkey:0000000000000000000000000000000000000000000000000000000000000000",
		"nodekey:00000000000000000000000000000000000000000000000000000000000000000" };
	char text[KEY_TEXT_MAX], log[8];
	struct key_pair p;
	struct key k;

	(void)state;
	key_pair_generate(&p);
	assert_int_equal(p.priv.b[0] & 7, 0);
	assert_int_equal(p.priv.b[31] & 0xc0, 0x40);
	key_text(KEY_KIND_NODE, &p.pub, text);
	assert_int_equal(key_parse(KEY_KIND_NODE, text, strlen(text), &k), 0);
	assert_true(key_equal(&k, &p.pub));
	assert_int_equal(key_parse(KEY_KIND_DISCO, text, strlen(text), &k), -EBADMSG);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(key_parse(KEY_KIND_NODE, bad[i], strlen(bad[i]), &k), -EBADMSG);
	assert_int_equal(strlen(key_short(&p.pub, log)), 7);
	key_pair_wipe(&p);
	assert_true(key_is_zero(&p.priv));
}

static void test_key_weak(void **state)
{
	struct key_pair p;
	struct key k;

	(void)state;
	for (size_t i = 0; i < WEAK_KEYS; i++) {
		k = weak_key(i);
		if (!key_is_weak(&k))
			fail_msg("key %zu", i);
		k.b[16] ^= 4; /* next to it there is none */
		if (key_is_weak(&k))
			fail_msg("key %zu, changed", i);
	}
	for (int i = 0; i < 100; i++) {
		key_pair_generate(&p);
		assert_false(key_is_weak(&p.pub));
	}
}

static void test_json_limits(void **state)
{
	static const char big[] = "{\"a\":9007199254740993,\"s\":\"x\\u0000y\",\"n\":null}";
	char deep[200];
	json_t *j;

	(void)state;
	memset(deep, '[', 100);
	memset(deep + 100, ']', 100);
	assert_int_equal(json_read(deep, sizeof(deep), 1000, &j), -ENOBUFS);
	assert_int_equal(json_read(deep + 80, 40, 1000, &j), 0);
	json_decref(j);
	assert_int_equal(json_read("{}", 2, 1, &j), -ENOBUFS);
	assert_int_equal(json_read("{\"a\":1,\"a\":2}", 13, 100, &j), -EBADMSG);
	assert_int_equal(json_read("{\"a\":1}x", 8, 100, &j), -EBADMSG);
	assert_int_equal(json_read(big, strlen(big), 100, &j), 0);
	assert_int_equal(json_get_int(j, "a", 0), INT64_C(9007199254740993));
	assert_null(json_get_str(j, "s"));
	assert_null(json_get(j, "n"));
	json_decref(j);
}

static void test_json_time(void **state)
{
	static const struct {
		const char *in;
		int r;
		int64_t nsec;
		const char *out;
	} cases[] = {
		{ "0001-01-01T00:00:00Z", 0, 0, "0001-01-01T00:00:00Z" },
		{ "1970-01-01T00:02:03Z", 0, INT64_C(123000000000), "1970-01-01T00:02:03Z" },
		{ "2026-11-22T12:00:00.5+02:00", 0, INT64_C(1795341600500000000),
		  "2026-11-22T10:00:00.500000000Z" },
		{ "", -EBADMSG, 0, NULL },
		{ "2026-13-01T00:00:00Z", -EBADMSG, 0, NULL },
		{ "2026-11-22T12:00:00", -EBADMSG, 0, NULL },
		{ "2026-11-22T12:00:00Zx", -EBADMSG, 0, NULL },
	};
	char out[40];
	int64_t t;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(json_time_parse(cases[i].in, &t), cases[i].r);
		if (cases[i].r == 0) {
			assert_int_equal(t, cases[i].nsec);
			assert_string_equal(json_time_text(t, out), cases[i].out);
		}
	}
}

struct story {
	struct loop *loop;
	struct loop_timer *timer;
	struct loop_defer *defer;
	int timers, defers, freed;
};

static void story_free(void *data)
{
	((struct story *)data)->freed++;
}

static void story_defer(void *data)
{
	((struct story *)data)->defers++;
}

static void story_timer(void *data)
{
	struct story *s = data;

	if (++s->timers == 1) {
		loop_defer_arm(s->defer);
		loop_defer_free(s->loop, s, story_free);
		assert_int_equal(s->freed, 0);
		loop_timer_in(s->timer, 2000);
	} else {
		loop_exit(s->loop, 7);
	}
}

static void test_loop(void **state)
{
	struct story s = { 0 };

	(void)state;
	assert_int_equal(loop_new(&s.loop), 0);
	assert_int_equal(loop_timer_new(s.loop, story_timer, &s, &s.timer), 0);
	assert_int_equal(loop_defer_new(s.loop, story_defer, &s, &s.defer), 0);
	assert_false(loop_timer_armed(s.timer));
	loop_timer_in(s.timer, 1000);
	assert_true(loop_timer_armed(s.timer));
	assert_int_equal(loop_run(s.loop), 7);
	assert_int_equal(s.timers, 2);
	assert_int_equal(s.defers, 1);
	assert_int_equal(s.freed, 1);
	loop_timer_free(s.timer);
	loop_defer_drop(s.defer);
	loop_free(s.loop);
}

struct busy {
	struct loop_defer *defer;
	unsigned int runs;
};

static void busy_again(void *data)
{
	struct busy *b = data;

	b->runs++;
	loop_defer_arm(b->defer);
}

static void count_event(void *data, int fd, uint32_t events)
{
	(void)fd;
	(void)events;
	++*(unsigned int *)data;
}

static void count_timer(void *data)
{
	++*(unsigned int *)data;
}

/* Who defers itself again each time keeps neither descriptors waiting, nor timers, nor others that do the same. */
static void test_loop_fair(void **state)
{
	int fd = eventfd(1, EFD_CLOEXEC);
	unsigned int served = 0, fired = 0;
	struct busy a = { 0 }, b = { 0 };
	struct loop_timer *t;
	struct loop_io *io;
	struct loop *l;

	(void)state;
	assert_int_equal(loop_new(&l), 0);
	assert_int_equal(loop_defer_new(l, busy_again, &a, &a.defer), 0);
	assert_int_equal(loop_defer_new(l, busy_again, &b, &b.defer), 0);
	assert_int_equal(loop_timer_new(l, count_timer, &fired, &t), 0);
	loop_timer_in(t, 1000);
	loop_defer_arm(a.defer);
	loop_defer_arm(b.defer);
	for (int i = 0; i < 10; i++)
		assert_int_equal(loop_iterate(l, 0), 1);
	assert_int_equal(a.runs, 10);
	assert_int_equal(b.runs, 10);
	usleep(2000);
	assert_int_equal(loop_io_new(l, fd, EPOLLIN, count_event, &served, &io), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(loop_iterate(l, 0), 1);
	assert_int_equal(fired, 1);
	assert_in_range(served, 9, 10);
	assert_in_range(a.runs, 19, 20);
	assert_int_equal(a.runs, b.runs);
	loop_timer_free(t);
	loop_free(l);
	loop_io_free(io);
	loop_defer_arm(a.defer);
	loop_defer_drop(a.defer);
	loop_defer_drop(b.defer);
	close(fd);
}

static void arm_early(void *data, int fd, uint32_t events)
{
	uint64_t n;

	(void)events;
	assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	loop_timer_in(data, 1000);
}

/* A timer that is armed while the loop waits for a later one; and what is later still comes in time. */
static void test_loop_earlier_timer(void **state)
{
	int fd = eventfd(1, EFD_CLOEXEC);
	unsigned int early_fired = 0, late_fired = 0;
	struct loop_timer *early, *late;
	struct loop_io *io;
	struct loop *l;
	uint64_t start;

	(void)state;
	assert_int_equal(loop_new(&l), 0);
	assert_int_equal(loop_timer_new(l, count_timer, &early_fired, &early), 0);
	assert_int_equal(loop_timer_new(l, count_timer, &late_fired, &late), 0);
	assert_int_equal(loop_io_new(l, fd, EPOLLIN, arm_early, early, &io), 0);
	start = loop_clock();
	loop_timer_in(late, 30 * USEC_PER_SEC);
	while (!early_fired)
		assert_int_equal(loop_iterate(l, 20 * USEC_PER_SEC), 1);
	assert_in_range(loop_clock() - start, 1000, 15 * USEC_PER_SEC);
	assert_int_equal(loop_iterate(l, 5000), 0);
	loop_timer_in(late, 2000);
	while (!late_fired)
		assert_int_equal(loop_iterate(l, 20 * USEC_PER_SEC), 1);
	loop_io_free(io);
	loop_timer_free(early);
	loop_timer_free(late);
	loop_free(l);
	close(fd);
}

#define CROWD 300

/* Descriptors that are always ready, more than are served in a turn, do not keep timers waiting, nor timers each other. */
static void test_loop_crowd(void **state)
{
	unsigned int served = 0, fired = 0;
	struct loop_timer *t[CROWD];
	struct loop_io *io[CROWD];
	int fd[CROWD];
	struct loop *l;

	(void)state;
	assert_int_equal(loop_new(&l), 0);
	for (int i = 0; i < CROWD; i++) {
		fd[i] = eventfd(1, EFD_CLOEXEC);
		assert_int_equal(loop_io_new(l, fd[i], EPOLLIN, count_event, &served, &io[i]), 0);
		assert_int_equal(loop_timer_new(l, count_timer, &fired, &t[i]), 0);
	}
	for (int i = 0; i < 2 * CROWD; i++)
		assert_int_equal(loop_iterate(l, 0), 1);
	for (int round = 0; round < 3; round++) {
		fired = 0;
		for (int i = 0; i < CROWD; i++)
			loop_timer_in(t[i], 1000);
		assert_int_equal(loop_iterate(l, 0), 1);
		usleep(3000);
		for (int i = 0; i < CROWD / 64 + 2; i++)
			assert_int_equal(loop_iterate(l, 0), 1);
		assert_int_equal(fired, CROWD);
	}
	assert_true(served > 64 * 2 * CROWD);
	for (int i = 0; i < CROWD; i++) {
		loop_io_free(io[i]);
		loop_timer_free(t[i]);
		close(fd[i]);
	}
	loop_free(l);
}

#define MANY 200

/* Many descriptors, all ready at once. */
struct many {
	struct loop *loop;
	int fd[MANY][2];
	struct loop_io *io[MANY];
	unsigned int served[MANY], n;
	void (*then)(struct many *m, int i);
};

static void many_ready(void *data, int fd, uint32_t events)
{
	struct many *m = data;
	int i = 0;

	assert_true(events & EPOLLIN);
	while (m->fd[i][0] != fd)
		i++;
	m->served[i]++;
	m->n++;
	m->then(m, i);
}

static void many_take(struct many *m, int i)
{
	char c;

	assert_int_equal(read(m->fd[i][0], &c, 1), 1);
	if (m->n == MANY)
		loop_exit(m->loop, 3);
}

/* The first one served ends, or makes others wait: nothing in hand reaches them. */
static void many_end_others(struct many *m, int i)
{
	for (int k = 0; k < MANY; k++) {
		if (k == i)
			continue;
		if (k % 2) {
			loop_io_free(m->io[k]);
			m->io[k] = NULL;
		} else {
			assert_int_equal(loop_io_set(m->io[k], 0), 0);
		}
	}
	loop_io_free(m->io[i]);
	m->io[i] = NULL;
}

static void many_exit(struct many *m, int i)
{
	(void)i;
	loop_exit(m->loop, 4);
}

static void many_start(struct many *m, void (*then)(struct many *m, int i))
{
	*m = (struct many){ .then = then };
	assert_int_equal(loop_new(&m->loop), 0);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(pipe(m->fd[i]), 0);
		assert_int_equal(loop_io_new(m->loop, m->fd[i][0], EPOLLIN, many_ready, m, &m->io[i]), 0);
		assert_int_equal(write(m->fd[i][1], "x", 1), 1);
	}
}

/* loop_first: a source may outlive its loop. */
static void many_stop(struct many *m, bool loop_first)
{
	if (loop_first)
		loop_free(m->loop);
	for (int i = 0; i < MANY; i++) {
		loop_io_free(m->io[i]);
		close(m->fd[i][0]);
		close(m->fd[i][1]);
	}
	if (!loop_first)
		loop_free(m->loop);
}

static void test_loop_many(void **state)
{
	struct many m;

	(void)state;
	many_start(&m, many_take);
	assert_int_equal(loop_run(m.loop), 3);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(m.served[i], 1);
	many_stop(&m, true);

	many_start(&m, many_end_others);
	assert_int_equal(loop_iterate(m.loop, 0), 1);
	while (loop_iterate(m.loop, 10000) > 0)
		;
	assert_int_equal(m.n, 1);
	m.then = many_take;
	for (int i = 0; i < MANY; i++)
		if (m.io[i])
			assert_int_equal(loop_io_set(m.io[i], EPOLLIN), 0); /* what was ready is told */
	while (loop_iterate(m.loop, 10000) > 0)
		;
	assert_in_range(m.n, MANY / 2, MANY / 2 + 1);
	many_stop(&m, false);

	many_start(&m, many_exit);
	assert_int_equal(loop_run(m.loop), 4);
	assert_int_equal(m.n, 1);
	many_stop(&m, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cursor_short), cmocka_unit_test(test_buf_limit),
		cmocka_unit_test(test_key_text),     cmocka_unit_test(test_json_limits),
		cmocka_unit_test(test_json_time),    cmocka_unit_test(test_loop),
		cmocka_unit_test(test_loop_many),    cmocka_unit_test(test_loop_fair),
		cmocka_unit_test(test_loop_earlier_timer), cmocka_unit_test(test_loop_crowd),
		cmocka_unit_test(test_key_weak),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
