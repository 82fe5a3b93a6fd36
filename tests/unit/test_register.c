/* register: every row of the decision order (control.md 6.3, 6.4), and what is done about it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator/state/register.h"
#include "tests/unit/weak_keys.h"

#define NOW  (INT64_C(1800000000) * NSEC_PER_SEC)
#define HOUR (INT64_C(3600) * NSEC_PER_SEC)

struct world {
	struct registry s;
	struct registry_user *alice, *bob;
	char reusable[AUTHKEY_TEXT_MAX], once[AUTHKEY_TEXT_MAX], expired[AUTHKEY_TEXT_MAX];
	char ephemeral[AUTHKEY_TEXT_MAX], tagged[AUTHKEY_TEXT_MAX], bobs[AUTHKEY_TEXT_MAX];
};

static struct key key_of(uint8_t b)
{
	struct key k;

	memset(k.b, b, KEY_LEN);
	return k;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct strs tags = { 0 };
	struct authkey *k;

	registry_init(&w->s);
	prefix_parse("100.64.0.0/10", 13, &w->s.v4.prefix);
	prefix_parse("fd7a:115c:a1e0::/48", 19, &w->s.v6.prefix);
	registry_user_create(&w->s, "alice", NULL, NULL, NULL, NOW, &w->alice);
	registry_user_create(&w->s, "bob", NULL, NULL, NULL, NOW, &w->bob);
	strs_add(&tags, "tag:web");
	registry_authkey_create(&w->s, w->alice, true, false, NULL, NOW + HOUR, NOW, w->reusable, &k);
	registry_authkey_create(&w->s, w->alice, false, false, NULL, NOW + HOUR, NOW, w->once, &k);
	registry_authkey_create(&w->s, w->alice, true, false, NULL, NOW - 1, NOW, w->expired, &k);
	registry_authkey_create(&w->s, w->alice, true, true, NULL, 0, NOW, w->ephemeral, &k);
	registry_authkey_create(&w->s, w->alice, true, false, &tags, 0, NOW, w->tagged, &k);
	registry_authkey_create(&w->s, w->bob, true, false, NULL, 0, NOW, w->bobs, &k);
	strs_done(&tags);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	registry_done(&w->s);
	free(w);
	return 0;
}

static struct register_request ask(uint8_t node_key, const char *authkey)
{
	return (struct register_request){ .version = 131,
					  .node_key = key_of(node_key),
					  .auth_key = (char *)(uintptr_t)authkey,
					  .hostinfo = { .hostname = (char *)(uintptr_t) "box" } };
}

static enum register_outcome decide(struct world *w, uint8_t machine, const struct register_request *q,
				    int64_t now, struct register_decision *d)
{
	struct key m = key_of(machine);

	register_decide(&w->s, &m, q, now, d);
	return d->outcome;
}

static struct node *login(struct world *w, uint8_t machine, uint8_t node_key, const char *authkey)
{
	struct register_request q = ask(node_key, authkey);
	struct register_decision d;
	struct key m = key_of(machine);
	struct node *n = NULL;

	decide(w, machine, &q, NOW, &d);
	assert_true(d.outcome == REGISTER_CREATE || d.outcome == REGISTER_RELOGIN);
	assert_int_equal(register_apply(&w->s, &m, &q, &d, NOW, &n), 0);
	return n;
}

static void test_refusals(void **state)
{
	struct world *w = *state;
	struct register_request q = ask(101, w->reusable);
	struct register_decision d;

	q.version = 112;
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_REFUSE);
	assert_non_null(strstr(d.error, "unsupported client version: 112"));
	q.version = 113;
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_CREATE);
	q = ask(0, w->reusable);
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_REFUSE);
	for (size_t i = 0; i < WEAK_KEYS; i++) { /* also for a login that would wait for a person */
		q = ask(101, i & 2 ? w->reusable : NULL);
		q.node_key = weak_key(i);
		if (decide(w, 1, &q, NOW, &d) != REGISTER_REFUSE || !strstr(d.error, i ? "small order" : "no node key"))
			fail_msg("weak key %zu: %s", i, d.error);
	}
	q = ask(101, "hskey-auth-000000000000-"
		     "0000000000000000000000000000000000000000000000000000000000000000");
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_REFUSE);
	assert_string_equal(d.error, "invalid pre auth key");
	q = ask(101, w->expired);
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_REFUSE);
	assert_string_equal(d.error, "authkey expired");
	q = ask(101, w->reusable);
	strs_add(&q.hostinfo.tags, "tag:web");
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_REFUSE);
	assert_non_null(strstr(d.error, "requested tags [tag:web]"));
	q.auth_key = w->tagged; /* it has that tag */
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_CREATE);
	strs_done(&q.hostinfo.tags);
	assert_int_equal(w->s.n_node, 0); /* nothing of all that left a trace */
}

static void test_restart(void **state)
{
	struct world *w = *state;
	struct node *n = login(w, 1, 101, w->once);
	struct register_request q = ask(101, NULL);
	struct register_decision d;

	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_OK);
	assert_ptr_equal(d.node, n);
	q.auth_key = w->once; /* spent, but it is the same machine with the same key */
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_OK);
	assert_int_equal(decide(w, 2, &q, NOW, &d), REGISTER_REFUSE);
	assert_string_equal(d.error, "node exists with a different machine key");
	q = ask(102, w->once);
	assert_int_equal(decide(w, 2, &q, NOW, &d), REGISTER_REFUSE);
	assert_string_equal(d.error, "authkey already used");
	q = ask(103, w->once); /* same machine, other key: it needs a key that is good */
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_REFUSE);
	q = ask(101, NULL);
	q.expiry_nsec = NOW + HOUR;
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_REFUSE);
	assert_string_equal(d.error, "extending key is not allowed");
	q = ask(101, NULL); /* a followup that was approved meanwhile */
	q.followup = (char *)(uintptr_t) "http://x/register/y";
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_OK);
}

static void test_rotation(void **state)
{
	struct world *w = *state;
	struct node *n = login(w, 1, 101, w->reusable);
	struct addr v4 = n->v4;
	uint64_t id = n->id;
	struct key old = key_of(101);

	n = login(w, 1, 102, w->reusable);
	assert_int_equal(n->id, id);
	assert_true(addr_equal(&n->v4, &v4));
	assert_null(registry_node_by_key(&w->s, &old));
	assert_int_equal(w->s.n_node, 1);
	assert_true(n->changes & NODE_CHANGE_FULL);
}

static void test_expired(void **state)
{
	struct world *w = *state;
	struct node *n = login(w, 1, 101, w->reusable);
	struct register_request q = ask(101, NULL);
	struct register_decision d;

	registry_node_set_expiry(&w->s, n, NOW);
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_KEY_EXPIRED);
	q.auth_key = w->reusable; /* the same key with an auth key: a new one first */
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_KEY_EXPIRED);
	q.auth_key = w->expired; /* why wait: that key will not do either */
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_REFUSE);
	q = ask(102, w->reusable);
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_RELOGIN);
	n = login(w, 1, 102, w->reusable);
	assert_int_equal(n->expiry_nsec, 0);
}

/* A key that is good for one login is not good for a second one when the first has expired, neither with the node's key
 * nor with a new one; while the node is in, it may say it again (Headscale e759d9fc). */
static void test_expired_once(void **state)
{
	struct world *w = *state;
	struct node *n = login(w, 1, 101, w->once);
	struct register_request q = ask(101, w->once);
	struct register_decision d;

	registry_node_set_expiry(&w->s, n, NOW + 1);
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_OK);
	for (uint8_t key = 101; key <= 102; key++) {
		q.node_key = key_of(key);
		assert_int_equal(decide(w, 1, &q, NOW + 1, &d), REGISTER_REFUSE);
		assert_string_equal(d.error, "authkey already used");
	}
	q.auth_key = NULL;
	q.node_key = key_of(101);
	assert_int_equal(decide(w, 1, &q, NOW + 1, &d), REGISTER_KEY_EXPIRED);
	assert_int_equal(w->s.n_node, 1);
	assert_int_equal(n->expiry_nsec, NOW + 1);
}

static void test_expiry_rules(void **state)
{
	struct world *w = *state;
	struct node *n;

	w->s.node_expiry_sec = 3600;
	n = login(w, 1, 101, w->reusable);
	assert_int_equal(n->expiry_nsec, NOW + HOUR);
	n = login(w, 2, 102, w->tagged);
	assert_int_equal(n->expiry_nsec, 0); /* tagged nodes never expire */
	assert_int_equal(node_wire_user(n), USER_TAGGED_DEVICES);
}

static void test_logout(void **state)
{
	struct world *w = *state;
	struct node *n = login(w, 1, 101, w->reusable), *e = login(w, 2, 102, w->ephemeral), *out;
	struct register_request q = ask(101, w->reusable); /* the past expiry wins over the key */
	struct register_decision d;
	struct key m = key_of(1), m2 = key_of(2);

	(void)e;
	q.expiry_nsec = INT64_C(123) * NSEC_PER_SEC;
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_LOGOUT);
	assert_int_equal(register_apply(&w->s, &m, &q, &d, NOW, &out), 0);
	assert_ptr_equal(out, n);
	assert_true(node_expired(n, NOW));
	q.node_key = key_of(102);
	assert_int_equal(decide(w, 2, &q, NOW, &d), REGISTER_LOGOUT);
	assert_int_equal(register_apply(&w->s, &m2, &q, &d, NOW, &out), 0);
	assert_null(out);
	assert_int_equal(w->s.n_node, 1);
	assert_int_equal(decide(w, 2, &q, NOW, &d), REGISTER_GONE);
	assert_int_equal(decide(w, 3, &q, NOW, &d), REGISTER_GONE);
	q.node_key = key_of(101); /* somebody else's node cannot be logged out */
	assert_int_equal(decide(w, 3, &q, NOW, &d), REGISTER_REFUSE);
}

static void test_owners(void **state)
{
	struct world *w = *state;
	struct node *a = login(w, 1, 101, w->reusable), *b;
	struct register_request q = ask(101, w->bobs);
	struct register_decision d;

	/* Another user with the same node key: two nodes must not share it. */
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_KEY_EXPIRED);
	b = login(w, 1, 102, w->bobs);
	assert_ptr_not_equal(a, b);
	assert_int_equal(b->user, w->bob->id);
	/* A tagged key converts the owner's node. */
	b = login(w, 1, 103, w->tagged);
	assert_ptr_equal(a, b);
	assert_true(node_tagged(a));
	assert_int_equal(w->alice->nodes, 0);
	/* And from then on it is the machine's tagged node. */
	q = ask(103, w->tagged);
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_OK);
}

static void test_interactive(void **state)
{
	struct world *w = *state;
	struct register_request q = ask(101, NULL);
	struct register_decision d;
	struct key m = key_of(1);
	struct node *n;

	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_ASK);
	q.followup = (char *)(uintptr_t) "http://x/register/hskey-authreq-1";
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_WAIT);
	assert_int_equal(register_approve(&w->s, &m, &q, w->alice, NOW, &n), 0);
	assert_int_equal(n->method, NODE_METHOD_CLI);
	assert_int_equal(decide(w, 1, &q, NOW, &d), REGISTER_OK);
}

/* 64 machines with one one-off key: one gets in. */
static void test_once(void **state)
{
	struct world *w = *state;
	int in = 0, out = 0;

	for (uint8_t i = 1; i <= 64; i++) {
		struct register_request q = ask((uint8_t)(100 + i), w->once);
		struct register_decision d;
		struct key m = key_of(i);
		struct node *n;

		if (decide(w, i, &q, NOW, &d) == REGISTER_CREATE) {
			assert_int_equal(register_apply(&w->s, &m, &q, &d, NOW, &n), 0);
			in++;
		} else {
			assert_string_equal(d.error, "authkey already used");
			out++;
		}
	}
	assert_int_equal(in, 1);
	assert_int_equal(out, 63);
}

static void test_parse(void **state)
{
	static const char good[] =
		"{\"Version\":131,\"NodeKey\":\"nodekey:"
		"0101010101010101010101010101010101010101010101010101010101010101\","
		"\"OldNodeKey\":null,\"Auth\":{\"AuthKey\":\"k\"},\"Expiry\":\"0001-01-01T00:00:00Z\","
		"\"Hostinfo\":{\"Hostname\":\"h\",\"OS\":\"linux\",\"RequestTags\":[\"tag:a\"],"
		"\"NetInfo\":{\"PreferredDERP\":900}}}";
	static const char map[] = "{\"Version\":131,\"Endpoints\":[\"1.2.3.4:5\",\"1.2.3.4:5\"],"
				  "\"Compress\":\"zstd\",\"Stream\":true}";
	static const char bad_map[] = "{\"Version\":131,\"Endpoints\":[\"x\"]}";
	static const char *const bad[] = {
		"", "[]", "{}", "{\"Version\":\"x\"}", "{\"Version\":131,\"NodeKey\":\"\"}",
		"{\"Version\":131,\"NodeKey\":7}", "{\"Version\":131,\"Auth\":[]}",
		"{\"Version\":131,\"Hostinfo\":[]}", "{\"Version\":131,\"Hostinfo\":{\"Hostname\":{}}}",
		"{\"Version\":131,\"Expiry\":\"tomorrow\"}", "{\"Version\":99999}",
	};
	struct register_request q;
	struct map_request m;

	(void)state;
	assert_int_equal(register_request_parse(good, sizeof(good) - 1, &q), 0);
	assert_int_equal(q.expiry_nsec, 0);
	assert_string_equal(q.auth_key, "k");
	assert_string_equal(q.hostinfo.text, "{\"Hostname\":\"h\",\"OS\":\"linux\",\"RequestTags\":[\"tag:a\"]}");
	assert_int_equal(q.hostinfo.home, 900);
	assert_int_equal(q.hostinfo.tags.n, 1);
	register_request_done(&q);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_true(register_request_parse(bad[i], strlen(bad[i]), &q) < 0);
	assert_int_equal(map_request_parse(map, sizeof(map) - 1, &m), 0);
	assert_true(m.zstd && m.stream && m.has_endpoints);
	assert_int_equal(m.n_endpoint, 1);
	map_request_done(&m);
	assert_true(map_request_parse(bad_map, sizeof(bad_map) - 1, &m) < 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_refusals), T(test_restart),     T(test_rotation),    T(test_expired), T(test_expired_once),
		T(test_expiry_rules), T(test_logout),  T(test_owners),	    T(test_interactive),
		T(test_once),	  cmocka_unit_test(test_parse),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
