/* state: there and back, made once, locked, never half; files whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/state.h"
#include "lib/file.h"
#include "lib/json.h"

struct folder {
	char dir[64], other[96], run[96], state[96], disco[128], lock[128];
};

static int set_up(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/ks-state-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->other, sizeof(f->other), "%s/other", f->dir);
	snprintf(f->run, sizeof(f->run), "%s/run", f->dir);
	snprintf(f->state, sizeof(f->state), "%s/state.json", f->dir);
	snprintf(f->disco, sizeof(f->disco), "%s/disco.key", f->run);
	snprintf(f->lock, sizeof(f->lock), "%s/lock", f->dir);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const files[] = { "lock", "runtime-lock", "state.json", "disco.key" };
	struct folder *f = *state;

	unlink(f->disco);
	unlink(f->state);
	unlink(f->lock);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(f->lock, sizeof(f->lock), "%s/%s", f->other, files[i]);
		unlink(f->lock);
	}
	snprintf(f->lock, sizeof(f->lock), "%s/runtime-lock", f->run);
	unlink(f->lock);
	rmdir(f->other);
	rmdir(f->run);
	rmdir(f->dir);
	free(f);
	return 0;
}

static void test_made_once(void **state)
{
	struct folder *f = *state;
	CLEANUP(state_free) struct state *s = NULL;
	struct state *second = NULL;
	struct key machine, disco, pin = { { 7 } };
	struct stat st;

	umask(0);
	assert_int_equal(state_open(f->dir, f->run, &s), 0);
	assert_int_equal(state_open(f->dir, f->run, &second), -EBUSY);
	assert_int_equal(mkdir(f->other, 0700), 0);
	assert_int_equal(state_open(f->other, f->run, &second), -EADDRINUSE);
	assert_int_equal(state_open(f->other, f->other, &second), 0);
	state_free(second);
	second = NULL;
	assert_int_equal(stat(f->state, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(f->disco, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(f->run, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	machine = s->machine.pub;
	disco = s->disco.pub;
	assert_false(key_is_zero(&machine));
	assert_true(key_is_zero(&s->node.priv));
	assert_int_equal(s->prefs.set, PREFS_ALL);
	assert_true(s->fresh);
	/* Nor does a second start say that nothing was wanted. */
	state_free(TAKE(s));
	assert_int_equal(state_open(f->dir, f->run, &s), 0);
	assert_true(s->fresh && !s->want_running);
	key_pair_generate(&s->node);
	s->relay_port = 41643;
	s->disco_port = 41644;
	s->wireguard_port = 41645;
	s->last_home = 900;
	s->registered = true;
	s->login = strdup("al\"ice");
	strcpy(s->prefs.login_server, "https://hs.example.com");
	state_want(s, true);
	s->prefs.n_routes = 1;
	assert_int_equal(prefix_parse("10.0.0.0/8", 10, &s->prefs.routes[0]), 0);
	assert_int_equal(state_pin_set(s, "https://hs.example.com", &pin), 0);
	assert_int_equal(state_save(s), 0);
	state_free(TAKE(s));
	assert_int_equal(state_open(f->dir, f->run, &s), 0);
	assert_memory_equal(s->machine.pub.b, machine.b, 32);
	assert_memory_equal(s->disco.pub.b, disco.b, 32);
	assert_false(key_is_zero(&s->node.pub));
	assert_int_equal(s->relay_port, 41643);
	assert_int_equal(s->disco_port, 41644);
	assert_int_equal(s->wireguard_port, 41645);
	assert_int_equal(s->last_home, 900);
	assert_true(s->registered && s->want_running && !s->fresh);
	assert_string_equal(s->login, "al\"ice");
	assert_int_equal(s->prefs.n_routes, 1);
	assert_string_equal(s->prefs.login_server, "https://hs.example.com");
	assert_non_null(state_pin_find(s, "https://hs.example.com"));
	assert_null(state_pin_find(s, "https://other"));
	state_forget_node(s);
	assert_true(key_is_zero(&s->node.priv));
	assert_false(s->registered);
	assert_int_equal(state_new_disco(s), 0);
	assert_memory_not_equal(s->disco.pub.b, disco.b, 32);
}

/* An unreadable file holds the machine's identity: refused, and left alone. */
static void test_damaged(void **state)
{
	struct folder *f = *state;
	CLEANUP(buf_done) struct buf whole = { 0 }, after = { 0 };
	struct state *s = NULL;

	assert_int_equal(state_open(f->dir, f->run, &s), 0);
	state_free(TAKE(s));
	assert_int_equal(file_read(f->state, STATE_BYTES_MAX, &whole), 0);
	for (size_t n = 0; n + 2 < whole.len; n++) {
		struct state t;

		assert_true(state_decode((struct json_slice){ (const char *)buf_data(&whole), n }, &t) < 0);
	}
	assert_int_equal(file_replace(f->state, buf_data(&whole), whole.len / 2, 0600), 0);
	assert_int_equal(state_open(f->dir, f->run, &s), -EBADMSG);
	assert_int_equal(file_read(f->state, STATE_BYTES_MAX, &after), 0);
	assert_int_equal(after.len, whole.len / 2);
	assert_int_equal(file_replace(f->state, "{\"version\": 2}", 14, 0600), 0);
	assert_int_equal(state_open(f->dir, f->run, &s), -EPROTONOSUPPORT);
	/* a damaged disco key is only made anew */
	assert_int_equal(file_replace(f->state, buf_data(&whole), whole.len, 0600), 0);
	assert_int_equal(file_replace(f->disco, "x", 1, 0600), 0);
	assert_int_equal(state_open(f->dir, f->run, &s), 0);
	assert_false(key_is_zero(&s->disco.pub));
	state_free(s);
}

static void test_files(void **state)
{
	struct folder *f = *state;
	CLEANUP(buf_done) struct buf b = { 0 };
	char tmp[128];

	snprintf(tmp, sizeof(tmp), "%s.new", f->state);
	assert_int_equal(file_read(f->state, 100, &b), -ENOENT);
	assert_int_equal(file_read(f->dir, 100, &b), -EINVAL);
	assert_int_equal(file_replace(f->state, "old", 3, 0600), 0);
	assert_int_equal(file_read(f->state, 2, &b), -ENOBUFS);
	/* what a killed run left is no obstacle, and a link there is not followed */
	assert_int_equal(symlink(f->state, tmp), 0);
	assert_int_equal(file_replace(f->state, "newer", 5, 0600), 0);
	assert_int_equal(file_read(f->state, 100, &b), 0);
	assert_string_equal(buf_str(&b), "newer");
	assert_int_equal(access(tmp, F_OK), -1);
	assert_int_equal(unlink(f->state), 0);
	assert_int_equal(symlink("/etc/hostname", f->state), 0);
	assert_true(file_read(f->state, 4096, &b) < 0);
}

static void test_pins(void **state)
{
	struct state s = { .lock_fd = -1 };
	struct key k = { { 0 } };
	char url[32];

	(void)state;
	for (int i = 0; i < STATE_PINS_MAX + 3; i++) {
		snprintf(url, sizeof(url), "http://%d", i);
		k.b[0] = (uint8_t)i;
		assert_int_equal(state_pin_set(&s, url, &k), 0);
	}
	assert_int_equal(s.n_pins, STATE_PINS_MAX);
	assert_null(state_pin_find(&s, "http://2"));
	assert_int_equal(state_pin_find(&s, "http://3")->b[0], 3);
	assert_int_equal(state_pin_find(&s, url)->b[0], STATE_PINS_MAX + 2);
	k.b[0] = 99;
	assert_int_equal(state_pin_set(&s, "http://3", &k), 0);
	assert_int_equal(state_pin_find(&s, "http://3")->b[0], 99);
	assert_int_equal(s.n_pins, STATE_PINS_MAX);
	state_pin_drop(&s, "http://4");
	state_pin_drop(&s, "http://unknown");
	assert_int_equal(s.n_pins, STATE_PINS_MAX - 1);
	assert_null(state_pin_find(&s, "http://4"));
	assert_int_equal(state_pin_find(&s, url)->b[0], STATE_PINS_MAX + 2);
	state_done(&s);
}

static unsigned int json_left;

static void *json_fails(size_t n)
{
	return json_left && --json_left ? malloc(n) : NULL;
}

static void json_frees(void *p)
{
	free(p);
}

/* Whatever there is no memory for: all of it is read, or an error told. */
static void test_no_memory(void **state)
{
	struct folder *f = *state;
	CLEANUP(buf_done) struct buf text = { 0 }, again = { 0 };
	struct state *s = NULL, t;
	json_malloc_t had;
	json_free_t had_free;
	unsigned int n = 0;
	int r;

	assert_int_equal(state_open(f->dir, f->run, &s), 0);
	strcpy(s->prefs.login_server, "https://mesh.example");
	strcpy(s->prefs.hostname, "box");
	state_want(s, true);
	assert_int_equal(state_pin_set(s, "https://mesh.example", &s->machine.pub), 0);
	assert_int_equal(state_encode(s, &text), 0);
	state_free(s);
	json_get_alloc_funcs(&had, &had_free);
	do {
		json_left = ++n;
		json_set_alloc_funcs(json_fails, json_frees);
		r = state_decode((struct json_slice){ (const char *)buf_data(&text), text.len }, &t);
		json_set_alloc_funcs(had, had_free);
		if (r < 0)
			continue;
		assert_int_equal(state_encode(&t, &again), 0);
		assert_int_equal(again.len, text.len);
		assert_memory_equal(buf_data(&again), buf_data(&text), text.len);
		state_done(&t);
		buf_done(&again);
	} while (!json_left); /* the last one was not needed */
	assert_true(n > 50);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_made_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_files, set_up, tear_down),
		cmocka_unit_test(test_pins),
		cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
