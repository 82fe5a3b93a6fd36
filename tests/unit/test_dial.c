/* dial: several addresses for one name, look-ups, the cache. */
#include "tests/unit/httpd_world.h"

#include "lib/dial.h"
#include "lib/key.h"

static void dial_answer(void *data, int fd, const struct endpoint *to, const char *why)
{
	struct world *w = data;

	w->r = fd;
	if (fd >= 0) {
		w->at = *to;
		close(fd);
	}
	snprintf(w->why, sizeof(w->why), "%s", why);
	loop_exit(w->loop, 0);
}

static void lookup_answer(void *data, int r, const struct addr *a, size_t n, const char *why)
{
	struct world *w = data;

	(void)why;
	w->r = r;
	assert_int_equal(n, r < 0 ? 0 : 1);
	assert_true(r < 0 || addr_is_loopback(a));
	loop_exit(w->loop, 0);
}

static void test_dial(void **state)
{
	struct addr bad_first[] = { addr_v4(127, 0, 0, 3), addr_v4(127, 0, 0, 1) };
	struct dial_opts o = { .mark = DIAL_MARK };
	struct endpoint at;
	struct dial *d;
	struct world w;

	(void)state;
	/* one address refuses, the next one takes it */
	open_world(&w, NULL);
	listen_tcp(&w);
	at = w.at;
	o.addrs = bad_first;
	o.n_addrs = 2;
	assert_int_equal(dial_start(w.loop, "relay.invalid", at.port, &o, dial_answer, &w, &d), 0);
	loop_run(w.loop);
	assert_true(w.r >= 0);
	assert_true(endpoint_equal(&w.at, &at));
	close_world(&w);
	/* nobody there */
	open_world(&w, NULL);
	assert_int_equal(dial_start(w.loop, "[127.0.0.3]", at.port, NULL, dial_answer, &w, &d), 0);
	loop_run(w.loop);
	assert_int_equal(w.r, -ECONNREFUSED);
	assert_non_null(strstr(w.why, "127.0.0.3"));
	close_world(&w);
	/* names by the hosts file, without a resolver */
	open_world(&w, NULL);
	listen_tcp(&w);
	o = (struct dial_opts){ .family = 4 };
	at = w.at;
	assert_int_equal(dial_start(w.loop, "localhost", at.port, &o, dial_answer, &w, &d), 0);
	loop_run(w.loop);
	if (w.r < 0)
		fail_msg("%s", w.why);
	close_world(&w);
	/* only the look-up, with a cache and without one */
	for (int i = 0; i < 2; i++) {
		open_world(&w, NULL);
		if (i == 0)
			assert_int_equal(dial_cache_new(&o.cache), 0);
		assert_int_equal(dial_lookup(w.loop, "localhost", &o, lookup_answer, &w, &d), 0);
		loop_run(w.loop);
		assert_int_equal(w.r, 0);
		assert_int_equal(dial_cache_get(o.cache, "localhost", bad_first, 2), i == 0);
		dial_cache_free(TAKE(o.cache));
		close_world(&w);
	}
	/* given up */
	open_world(&w, NULL);
	assert_int_equal(dial_start(w.loop, "127.0.0.1", at.port, NULL, dial_answer, &w, &d), 0);
	dial_cancel(d);
	close_world(&w);
	open_world(&w, NULL);
	assert_int_equal(dial_start(w.loop, "a b", 1, NULL, dial_answer, &w, &d), -EINVAL);
	close_world(&w);
}

static void test_dial_cache(void **state)
{
	struct addr a = addr_v4(192, 0, 2, 1), out[4];
	struct dial_cache *c;
	char name[32];

	(void)state;
	assert_int_equal(dial_cache_new(&c), 0);
	assert_int_equal(dial_cache_get(c, "x", out, 4), 0);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "host%d", i);
		a.b[3] = (uint8_t)i;
		assert_int_equal(dial_cache_put(c, name, &a, 1), 0);
		assert_int_equal(dial_cache_put(c, "KEPT", &a, 1), 0);
	}
	assert_int_equal(dial_cache_get(c, "host0", out, 4), 0); /* the oldest went */
	assert_int_equal(dial_cache_get(c, "HOST99", out, 4), 1);
	assert_int_equal(out[0].b[3], 99);
	assert_int_equal(dial_cache_get(c, "kept", out, 4), 1);
	dial_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dial),
		cmocka_unit_test(test_dial_cache),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
