/* registry: names, addresses, keys, nodes and their indexes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator/state/registry.h"

#define NOW (INT64_C(1800000000) * NSEC_PER_SEC)

static void test_names(void **state)
{
	static const struct {
		const char *host, *label;
	} cases[] = {
		{ "box1", "box1" },	     { "Alice's MacBook.local", "alices-macbook" },
		{ "srv.example.com", "srv-example-com" }, { "a_b c@d", "a-b-c-d" },
		{ "", "node" },		     { "---", "node" },
		{ "\xe4\xb8\xad", "node" },  { "-x-", "x" },
		{ "db.LAN", "db" },	     { "h.localdomain", "h" },
	};
	char out[NAME_LABEL_MAX + 1], longname[200];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		name_sanitize(cases[i].host, out);
		assert_string_equal(out, cases[i].label);
		assert_true(name_label_ok(out));
	}
	memset(longname, 'x', sizeof(longname));
	longname[sizeof(longname) - 1] = '\0';
	name_sanitize(longname, out);
	assert_int_equal(strlen(out), 63);
	name_numbered(longname, 12, out);
	assert_int_equal(strlen(out), 63);
	assert_string_equal(out + 60, "-12");
	assert_true(name_user_ok("alice") && name_user_ok("u") && name_user_ok("a.b-c_d@x.org") && name_user_ok("\xe5\xbc\xa0\xe4\xb8\x89"));
	assert_false(name_user_ok("") || name_user_ok("1ab") || name_user_ok("a b") || name_user_ok("a@b@c") ||
		     name_user_ok("a/b"));
	assert_false(name_user_ok("ab\xff") || name_user_ok("ab\xc0\xaf") || name_user_ok("ab\xed\xa0\x80") ||
		     name_user_ok("ab\xe4\xb8"));
	assert_true(name_tag_ok("tag:web-1"));
	assert_false(name_tag_ok("tag:") || name_tag_ok("tag:1a") || name_tag_ok("web") || name_tag_ok("tag:a b"));
}

static bool none_taken(void *data, const struct addr *a)
{
	(void)data;
	(void)a;
	return false;
}

static unsigned int n_asked;

static bool set_taken(void *data, const struct addr *a)
{
	const bool *set = data; /* by last byte */

	n_asked++;
	return set[a->b[3]];
}

static void test_alloc(void **state)
{
	struct alloc al = { 0 };
	bool set[256] = { 0 };
	char text[ADDR_TEXT_MAX];
	struct addr a;

	(void)state;
	prefix_parse("100.64.0.0/10", 13, &al.prefix);
	assert_int_equal(alloc_next(&al, none_taken, NULL, &a), 0);
	assert_string_equal(addr_text(&a, text), "100.64.0.1");
	addr_parse("100.100.100.99", 14, &al.last);
	assert_int_equal(alloc_next(&al, none_taken, NULL, &a), 0);
	assert_string_equal(addr_text(&a, text), "100.100.100.101");
	addr_parse("100.115.91.255", 14, &al.last);
	assert_int_equal(alloc_next(&al, none_taken, NULL, &a), 0);
	assert_string_equal(addr_text(&a, text), "100.115.94.0");
	addr_parse("100.127.255.254", 15, &al.last);
	assert_int_equal(alloc_next(&al, none_taken, NULL, &a), 0);
	assert_string_equal(addr_text(&a, text), "100.64.0.1");

	/* A /29 has six: all are given, then none. */
	al = (struct alloc){ 0 };
	prefix_parse("100.64.0.8/29", 13, &al.prefix);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(alloc_next(&al, set_taken, set, &a), 0);
		assert_false(set[a.b[3]]);
		set[a.b[3]] = true;
	}
	n_asked = 0;
	assert_int_equal(alloc_next(&al, set_taken, set, &a), -ENOSPC);
	assert_int_equal(n_asked, 6); /* once round, however small */
	assert_false(set[8] || set[15]);
	set[11] = false; /* one comes back */
	al.random = true;
	assert_int_equal(alloc_next(&al, set_taken, set, &a), 0);
	assert_int_equal(a.b[3], 11);

	al = (struct alloc){ .random = true };
	prefix_parse("fd7a:115c:a1e0::/48", 19, &al.prefix);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(alloc_next(&al, none_taken, NULL, &a), 0);
		assert_true(prefix_contains(&al.prefix, &a));
	}
	al.random = false;
	addr_parse("fd7a:115c:a1e0::52", 18, &al.last);
	assert_int_equal(alloc_next(&al, none_taken, NULL, &a), 0);
	assert_string_equal(addr_text(&a, text), "fd7a:115c:a1e0::54");
}

static void test_authkey(void **state)
{
	struct registry s;
	struct registry_user *u;
	struct authkey *k;
	char text[AUTHKEY_TEXT_MAX], wrong[AUTHKEY_TEXT_MAX];

	(void)state;
	registry_init(&s);
	assert_int_equal(registry_user_create(&s, "alice", NULL, NULL, NULL, NOW, &u), 0);
	assert_int_equal(registry_user_create(&s, "alice", NULL, NULL, NULL, NOW, &u), -EEXIST);
	assert_int_equal(registry_user_create(&s, "x y", NULL, NULL, NULL, NOW, &u), -EINVAL);
	u = registry_user_named(&s, "alice");
	assert_int_equal(registry_authkey_create(&s, u, false, false, NULL, 0, NOW, text, &k), 0);
	assert_int_equal(strlen(text), 11 + 12 + 1 + 64);
	assert_ptr_equal(registry_authkey_find(&s, text), k);
	memcpy(wrong, text, sizeof(wrong));
	wrong[87] = wrong[87] == '0' ? '1' : '0';
	assert_null(registry_authkey_find(&s, wrong));
	wrong[87] = '\0';
	assert_null(registry_authkey_find(&s, wrong));
	assert_null(registry_authkey_find(&s, ""));
	assert_null(registry_authkey_find(&s, "hskey-auth-"));
	/* The secret itself is nowhere in what is kept. */
	assert_null(memmem(k, sizeof(*k), text + 24, 16));
	registry_user_delete(&s, u);
	assert_null(registry_authkey_find(&s, text));
	registry_done(&s);
}

static struct node *add(struct registry *s, uint64_t user, uint8_t seed, const char *host)
{
	struct node_new w = { .user = user, .hostname = host, .hostinfo = "{}", .cap = 131 };
	struct node *n;

	memset(w.machine_key.b, seed, KEY_LEN);
	memset(w.node_key.b, seed + 100, KEY_LEN);
	assert_int_equal(registry_node_create(s, &w, NOW, &n), 0);
	return n;
}

static void test_nodes(void **state)
{
	struct registry s;
	struct registry_user *u;
	struct node *a, *b, *c;
	struct key k;
	char text[ADDR_TEXT_MAX];
	uint64_t id;

	(void)state;
	registry_init(&s);
	prefix_parse("100.64.0.0/10", 13, &s.v4.prefix);
	prefix_parse("fd7a:115c:a1e0::/48", 19, &s.v6.prefix);
	registry_user_create(&s, "alice", NULL, NULL, NULL, NOW, &u);
	a = add(&s, u->id, 1, "box");
	b = add(&s, u->id, 2, "box");
	c = add(&s, u->id, 3, "Box.local");
	assert_string_equal(a->given, "box");
	assert_string_equal(b->given, "box-1");
	assert_string_equal(c->given, "box-2");
	assert_string_equal(addr_text(&b->v4, text), "100.64.0.2");
	assert_string_equal(addr_text(&b->v6, text), "fd7a:115c:a1e0::2");
	assert_int_equal(u->nodes, 3);
	assert_int_equal(registry_user_delete(&s, u), -ENOTEMPTY);

	memset(k.b, 102, KEY_LEN);
	assert_ptr_equal(registry_node_by_key(&s, &k), b);
	memset(k.b, 2, KEY_LEN);
	assert_ptr_equal(registry_node_of_machine(&s, &k, false, u->id), b);
	assert_null(registry_node_of_machine(&s, &k, false, u->id + 1));
	assert_null(registry_node_of_machine(&s, &k, true, 0));

	/* box-1 keeps its number when box is renamed away; a rename sticks, a taken one is refused. */
	assert_int_equal(registry_node_rename(&s, a, "box-1"), -EEXIST);
	assert_int_equal(registry_node_rename(&s, a, "Bad_Name"), -EINVAL);
	assert_int_equal(registry_node_rename(&s, a, "alpha"), 0);
	assert_ptr_equal(registry_node_named(&s, "alpha"), a);
	registry_node_set_hostinfo(&s, a, "other", "{\"x\":1}");
	assert_string_equal(a->given, "alpha");
	registry_node_set_hostinfo(&s, c, "gamma", "{}");
	assert_string_equal(c->given, "gamma");

	/* Ids and, for a while, addresses are not given again. */
	id = c->id;
	registry_node_delete(&s, c);
	assert_null(registry_node(&s, id));
	assert_null(registry_node_named(&s, "gamma"));
	c = add(&s, u->id, 4, "gamma");
	assert_int_equal(c->id, id + 1);
	assert_string_equal(addr_text(&c->v4, text), "100.64.0.4");
	registry_done(&s);
}

/* What changes is noted, what does not is not. */
static void test_changes(void **state)
{
	struct registry s;
	struct registry_user *u;
	struct node *n;
	struct endpoint e[2];
	struct key d;

	(void)state;
	registry_init(&s);
	prefix_parse("100.64.0.0/10", 13, &s.v4.prefix);
	registry_user_create(&s, "alice", NULL, NULL, NULL, NOW, &u);
	n = add(&s, u->id, 1, "box");
	n->changes = 0;
	memset(&d, 7, sizeof(d));
	endpoint_parse("192.0.2.1:1", 11, &e[0]);
	endpoint_parse("192.0.2.2:2", 11, &e[1]);
	assert_true(registry_node_set_disco(&s, n, &d));
	assert_true(n->announced);
	assert_false(registry_node_set_disco(&s, n, &d));
	assert_true(registry_node_set_endpoints(&s, n, e, 2));
	assert_false(registry_node_set_endpoints(&s, n, e, 2));
	assert_true(registry_node_set_netinfo(&s, n, "{\"PreferredDERP\":9}", 9));
	assert_int_equal(n->changes, NODE_CHANGE_DISCO | NODE_CHANGE_ENDPOINTS | NODE_CHANGE_HOME | NODE_CHANGE_SELF);
	n->changes = 0;
	assert_false(registry_node_set_netinfo(&s, n, "{\"PreferredDERP\":9,\"x\":1}", 9));
	assert_false(registry_node_set_netinfo(&s, n, "{\"PreferredDERP\":0}", 0));
	assert_int_equal(n->home, 9);
	assert_false(registry_node_set_hostinfo(&s, n, "box", "{}"));
	assert_int_equal(n->changes, 0);
	assert_true(registry_node_set_endpoints(&s, n, NULL, 0));
	assert_true(registry_node_set_online(&s, n, true, NOW));
	assert_int_equal(n->changes, NODE_CHANGE_ENDPOINTS | NODE_CHANGE_ONLINE | NODE_CHANGE_SELF);
	/* NetInfo outlives the node. */
	registry_node_delete(&s, n);
	n = add(&s, u->id, 1, "box");
	assert_int_equal(n->home, 9);
	registry_done(&s);
}

/* A second node of a machine, for another user: its daemon has said where it is as the first one, and does not say it
 * again. Of several the one that has been there last knows best. */
static void test_netinfo_of_machine(void **state)
{
	struct node_new w = { .hostname = "box", .hostinfo = "{}" };
	struct registry_user *u[4];
	struct registry s;
	struct node *n;

	(void)state;
	registry_init(&s);
	prefix_parse("100.64.0.0/10", 13, &s.v4.prefix);
	for (size_t i = 0; i < 4; i++) {
		char name[] = "user0";

		name[4] += (char)i;
		registry_user_create(&s, name, NULL, NULL, NULL, NOW, &u[i]);
	}
	memset(w.machine_key.b, 1, KEY_LEN);
	for (size_t i = 0; i < 4; i++) {
		w.user = u[i]->id;
		memset(w.node_key.b, (int)i + 10, KEY_LEN);
		w.machine_key.b[0] = i == 3 ? 2 : 1; /* the last one is another machine's */
		assert_int_equal(registry_node_create(&s, &w, NOW + (int64_t)i, &n), 0);
		if (i == 0) {
			assert_null(n->netinfo);
			registry_node_set_netinfo(&s, n, "{\"PreferredDERP\":9}", 9);
		} else if (i == 1) {
			assert_int_equal(n->home, 9);
			assert_string_equal(n->netinfo, "{\"PreferredDERP\":9}");
			registry_node_set_netinfo(&s, n, "{\"PreferredDERP\":8}", 8);
		} else {
			assert_int_equal(n->home, i == 2 ? 8 : 0);
		}
	}
	registry_done(&s);
}

static size_t n_kept, n_forgotten;

static void count_netinfo(void *data, const struct key *machine, const char *json, uint32_t home)
{
	(void)data;
	(void)machine;
	(void)home;
	*(json ? &n_kept : &n_forgotten) += 1;
}

/* What is kept of nodes that are gone is bounded in memory and on disk: the oldest makes room. */
static void test_netinfo_bounded(void **state)
{
	static const struct registry_sink sink = { .netinfo = count_netinfo };
	struct registry s;
	struct registry_user *u;
	struct key k = { 0 };
	struct node *n;

	(void)state;
	registry_init(&s);
	prefix_parse("100.64.0.0/10", 13, &s.v4.prefix);
	registry_user_create(&s, "u", NULL, NULL, NULL, NOW, &u);
	n = add(&s, u->id, 1, "box");
	registry_node_set_netinfo(&s, n, "{}", 7);
	s.sink = &sink;
	for (uint32_t i = 0; i < REGISTRY_NETINFOS_MAX; i++) {
		memcpy(k.b, &i, sizeof(i));
		assert_int_equal(registry_netinfo_load(&s, &k, "{}", 5), 0);
	}
	assert_int_equal(n_forgotten, 0);
	registry_node_delete(&s, n);
	assert_int_equal(s.netinfos.n, REGISTRY_NETINFOS_MAX);
	assert_int_equal(n_kept, 1);
	assert_int_equal(n_forgotten, 1);
	n = add(&s, u->id, 1, "box");
	assert_int_equal(n->home, 7);
	registry_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	cmocka_unit_test(test_alloc),
		cmocka_unit_test(test_authkey), cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_changes), cmocka_unit_test(test_netinfo_of_machine),
		cmocka_unit_test(test_netinfo_bounded),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
