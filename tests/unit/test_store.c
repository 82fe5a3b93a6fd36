/* store: what was committed is there again, group commits, failures, a second coordinator. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "coordinator/store/store.h"

#define NOW (INT64_C(1800000000) * NSEC_PER_SEC)

struct fixture {
	char dir[64], path[80];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->dir, sizeof(f->dir), "/tmp/test_store_XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/db", f->dir);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", f->dir);
	if (system(cmd) != 0)
		return -1;
	free(f);
	return 0;
}

struct run {
	struct loop *l;
	struct store *st;
	uint64_t want;
	struct registry *reg; /* test_killed: goes on writing */
	uint32_t users;
	int report;
};

static void write_three(struct run *r)
{
	struct registry_user *u;

	for (int i = 0; i < 3; i++) {
		char name[32];

		snprintf(name, sizeof(name), "user%u", ++r->users);
		registry_user_create(r->reg, name, NULL, NULL, NULL, 1, &u);
	}
	r->want = store_mark(r->st);
}

static void on_commit(void *data)
{
	struct run *r = data;

	if (store_committed(r->st) < r->want)
		return;
	if (!r->reg)
		loop_exit(r->l, 0);
	else if (write(r->report, &r->users, sizeof(r->users)) > 0)
		write_three(r);
}

static void sink_user(void *data, const struct registry_user *u, bool gone)
{
	store_put_user(((struct run *)data)->st, u, gone);
}

static void sink_authkey(void *data, const struct authkey *k, bool gone)
{
	store_put_authkey(((struct run *)data)->st, k, gone);
}

static void sink_node(void *data, struct node *n, bool gone, bool soon)
{
	(void)soon;
	store_put_node(((struct run *)data)->st, n, gone);
}

static void sink_netinfo(void *data, const struct key *machine, const char *json, uint32_t home)
{
	store_put_netinfo(((struct run *)data)->st, machine, json, home);
}

static const struct registry_sink sink = { .user = sink_user,
					.authkey = sink_authkey,
					.node = sink_node,
					.netinfo = sink_netinfo };

static void run_open_with(struct run *r, const char *path, struct registry *s, loop_fn *fn)
{
	char why[STORE_WHY_MAX];

	assert_int_equal(loop_new(&r->l), 0);
	assert_int_equal(store_open(path, true, why, &r->st), 0);
	registry_init(s);
	prefix_parse("100.64.0.0/10", 13, &s->v4.prefix);
	prefix_parse("fd7a:115c:a1e0::/48", 19, &s->v6.prefix);
	assert_int_equal(store_load(r->st, s, why), 0);
	s->sink = &sink;
	s->sink_data = r;
	assert_int_equal(store_start(r->st, r->l, fn, r), 0);
}

static void run_open(struct run *r, const char *path, struct registry *s)
{
	run_open_with(r, path, s, on_commit);
}

static void run_wait(struct run *r)
{
	r->want = store_mark(r->st);
	if (store_committed(r->st) < r->want)
		assert_int_equal(loop_run(r->l), 0);
}

static void run_close(struct run *r, struct registry *s)
{
	s->sink = NULL;
	registry_done(s);
	store_free(r->st);
	loop_free(r->l);
}

static struct node *add(struct registry *s, const struct registry_user *u, const struct authkey *k, uint8_t seed)
{
	struct node_new w = { .user = u->id, .authkey = k->id, .hostname = "box", .hostinfo = "{\"a\":1}",
			      .netinfo = "{\"PreferredDERP\":9}", .home = 9, .cap = 131, .tags = &k->tags,
			      .method = NODE_METHOD_AUTHKEY, .expiry_nsec = NOW + 5 };
	struct node *n;

	memset(w.machine_key.b, seed, KEY_LEN);
	memset(w.node_key.b, seed + 100, KEY_LEN);
	assert_int_equal(registry_node_create(s, &w, NOW, &n), 0);
	return n;
}

static void test_again(void **state)
{
	struct fixture *f = *state;
	struct run r = { 0 };
	struct registry s;
	struct registry_user *u;
	struct authkey *k;
	struct node *n;
	struct endpoint e;
	struct key d;
	char text[AUTHKEY_TEXT_MAX];
	uint64_t gone;
	struct stat sb;

	run_open(&r, f->path, &s);
	assert_int_equal(stat(f->path, &sb), 0);
	assert_int_equal(sb.st_mode & 0777, 0600);
	registry_user_create(&s, "alice", "Alice", "a@x.org", "", NOW, &u);
	registry_authkey_create(&s, u, false, true, NULL, NOW + 9, NOW, text, &k);
	n = add(&s, u, k, 1);
	registry_authkey_use(&s, k);
	memset(&d, 3, sizeof(d));
	endpoint_parse("192.0.2.1:7", 11, &e);
	registry_node_set_disco(&s, n, &d);
	registry_node_set_endpoints(&s, n, &e, 1);
	registry_node_rename(&s, n, "alpha");
	registry_node_set_online(&s, n, true, NOW);
	n = add(&s, u, k, 2);
	gone = n->id;
	registry_node_delete(&s, n); /* the youngest: its id must not come back */
	run_wait(&r);
	run_close(&r, &s);

	run_open(&r, f->path, &s);
	u = registry_user_named(&s, "alice");
	assert_non_null(u);
	assert_string_equal(u->email, "a@x.org");
	assert_int_equal(u->nodes, 1);
	k = registry_authkey_find(&s, text);
	assert_non_null(k);
	assert_true(k->used && k->ephemeral && !k->reusable);
	assert_int_equal(k->expiry_nsec, NOW + 9);
	n = registry_node_named(&s, "alpha");
	assert_non_null(n);
	assert_true(n->given_fixed && n->announced && n->online);
	assert_int_equal(n->expiry_nsec, NOW + 5);
	assert_int_equal(n->home, 9);
	assert_int_equal(n->authkey, k->id);
	assert_string_equal(n->hostinfo, "{\"a\":1}");
	assert_int_equal(n->n_endpoint, 1);
	assert_true(endpoint_equal(&n->endpoint[0], &e));
	assert_true(key_equal(&n->disco_key, &d));
	n = add(&s, u, k, 4);
	assert_int_equal(n->id, gone + 1);
	memset(&d, 2, sizeof(d)); /* the deleted node's machine kept its NetInfo */
	run_close(&r, &s);
}

/* A database from before it was noted who is online. */
static void test_migrated(void **state)
{
	struct fixture *f = *state;
	struct run r = { 0 };
	struct registry s;
	struct registry_user *u;
	struct authkey *k;
	sqlite3 *db;
	char text[AUTHKEY_TEXT_MAX];

	run_open(&r, f->path, &s);
	registry_user_create(&s, "alice", NULL, NULL, NULL, NOW, &u);
	registry_authkey_create(&s, u, false, true, NULL, NOW + 9, NOW, text, &k);
	registry_node_set_online(&s, add(&s, u, k, 1), true, NOW);
	run_wait(&r);
	run_close(&r, &s);
	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "ALTER TABLE nodes DROP COLUMN online; PRAGMA user_version=1", NULL, NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(db);
	for (int i = 0; i < 2; i++) {
		run_open(&r, f->path, &s);
		assert_int_equal(s.n_node, 1);
		assert_int_equal(s.node[0]->online, i);
		registry_node_set_online(&s, s.node[0], true, NOW);
		run_wait(&r);
		run_close(&r, &s);
	}
}

/* A process is killed with writes in flight: what it had been told is committed is there. */
static void test_killed(void **state)
{
	struct fixture *f = *state;
	int fds[2], status;
	pid_t pid;
	uint32_t told = 0, v;
	struct run r = { 0 };
	struct registry s;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		run_open(&r, f->path, &s);
		r.reg = &s;
		r.report = fds[1];
		write_three(&r);
		loop_run(r.l);
		_exit(0);
	}
	close(fds[1]);
	while (told < 30 && read(fds[0], &v, sizeof(v)) == sizeof(v))
		told = v;
	kill(pid, SIGKILL);
	while (read(fds[0], &v, sizeof(v)) == sizeof(v))
		told = v;
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	close(fds[0]);
	run_open(&r, f->path, &s);
	assert_true(told >= 30);
	assert_true(s.n_user >= told);
	assert_true(s.n_user <= told + 3);
	run_close(&r, &s);
}

static void grow(struct run *r, int from, int to)
{
	for (int i = from; i < to; i++) {
		struct registry_user *u;
		char name[32], mail[600];

		snprintf(name, sizeof(name), "user%d", i);
		memset(mail, 'm', sizeof(mail) - 1);
		mail[sizeof(mail) - 1] = '\0';
		registry_user_create(r->reg, name, NULL, mail, NULL, NOW, &u);
	}
}

/* First told that it fails: makes room. Then told that it goes on. */
static void on_full(void *data)
{
	struct run *r = data;
	struct rlimit l;

	if (store_failing(r->st) && !r->users++) {
		assert_true(store_committed(r->st) < store_mark(r->st)); /* nobody was told that it is written */
		getrlimit(RLIMIT_FSIZE, &l);
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_FSIZE, &l);
	}
	if (!store_failing(r->st) && store_committed(r->st) >= store_mark(r->st))
		loop_exit(r->l, 0);
}

/* The disk is full for a while: nothing is reported as written, and nothing is lost once there is room. */
static void test_full(void **state)
{
	struct fixture *f = *state;
	struct run r = { 0 };
	struct registry s;
	struct rlimit l;

	signal(SIGXFSZ, SIG_IGN);
	run_open_with(&r, f->path, &s, on_full);
	r.reg = &s;
	getrlimit(RLIMIT_FSIZE, &l);
	l.rlim_cur = 64 << 10;
	setrlimit(RLIMIT_FSIZE, &l);
	grow(&r, 0, 300);
	assert_int_equal(loop_run(r.l), 0);
	assert_int_equal(r.users, 1); /* it did fail in between */
	run_close(&r, &s);
	r = (struct run){ 0 };
	run_open(&r, f->path, &s);
	assert_int_equal(s.n_user, 300);
	run_close(&r, &s);
}

static void test_second(void **state)
{
	struct fixture *f = *state;
	struct run r = { 0 };
	struct registry s;
	struct store *other = NULL;
	char why[STORE_WHY_MAX];

	run_open(&r, f->path, &s);
	assert_int_equal(store_open(f->path, true, why, &other), -EBUSY);
	assert_non_null(strstr(why, "another coordinator"));
	run_close(&r, &s);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	struct store *st = NULL;
	char why[STORE_WHY_MAX], cmd[256];
	FILE *file = fopen(f->path, "w");

	assert_non_null(file);
	for (int i = 0; i < 4096; i++)
		fputs("this is no database\n", file);
	fclose(file);
	assert_true(store_open(f->path, true, why, &st) < 0);
	assert_int_not_equal(why[0], '\0');
	snprintf(cmd, sizeof(cmd), "%s/none/db", f->dir);
	assert_int_equal(store_open(cmd, true, why, &st), -ENOENT);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = { T(test_again), T(test_migrated), T(test_killed), T(test_full), T(test_second), T(test_refused) };

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
