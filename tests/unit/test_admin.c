/* admin: every path, its refusals and what it leaves behind. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator/admin/admin.h"
#include "coordinator/coord.h"
#include "lib/json.h"

static int setup(void **state)
{
	struct coord *c = calloc(1, sizeof(*c));
	struct node_new w = { .hostname = "box", .hostinfo = "{\"IPNVersion\":\"1.2\",\"RoutableIPs\":[\"10.0.0.0/8\"]}",
			      .cap = 131, .method = NODE_METHOD_AUTHKEY };
	struct registry_user *u;
	struct node *n;

	c->cfg.dns.base_domain = (char *)(uintptr_t) "mesh.test";
	registry_init(&c->reg);
	prefix_parse("100.64.0.0/10", 13, &c->reg.v4.prefix);
	prefix_parse("fd7a:115c:a1e0::/48", 19, &c->reg.v6.prefix);
	coord_attach(c);
	registry_user_create(&c->reg, "alice", NULL, "a@x.org", NULL, 1, &u);
	registry_user_create(&c->reg, "bob", NULL, NULL, NULL, 1, &u);
	w.user = 1;
	w.node_key.b[0] = 1;
	registry_node_create(&c->reg, &w, 1, &n);
	*state = c;
	return 0;
}

static int teardown(void **state)
{
	struct coord *c = *state;

	coord_done(c);
	free(c);
	return 0;
}

/* "METHOD PATH[?QUERY]"; the answer, to be freed. */
static json_t *call(struct coord *c, const char *line, const char *body, unsigned int *status)
{
	char copy[512], *path, *query;
	struct admin_request rq = { .method = copy, .body = body, .body_len = body ? strlen(body) : 0 };
	struct admin_reply reply;
	json_t *j = NULL;

	snprintf(copy, sizeof(copy), "%s", line);
	path = strchr(copy, ' ');
	*path++ = '\0';
	query = strchr(path, '?');
	if (query)
		*query++ = '\0';
	rq.path = path;
	rq.query = query;
	admin_handle(c, &rq, &reply);
	assert_int_equal(json_read(buf_data(&reply.body), reply.body.len, 1 << 20, &j), 0);
	if (reply.status != 200) {
		assert_int_equal(json_get_int(j, "status", 0), reply.status);
		assert_non_null(json_get_str(j, "detail"));
	}
	buf_done(&reply.body);
	*status = reply.status;
	return j;
}

static void test_statuses(void **state)
{
	static const struct {
		const char *line, *body;
		unsigned int status;
	} cases[] = {
		{ "GET /api/v1/health", NULL, 200 },
		{ "GET /api/v1/user", NULL, 200 },
		{ "GET /api/v1/user?id=x", NULL, 400 },
		{ "POST /api/v1/user", "{\"name\":\"carol\"}", 200 },
		{ "POST /api/v1/user", "{\"name\":\"carol\"}", 409 },
		{ "POST /api/v1/user", "{\"name\":\"1c\"}", 400 },
		{ "POST /api/v1/user", "{}", 400 },
		{ "POST /api/v1/user", "[]", 400 },
		{ "POST /api/v1/user", "{", 400 },
		{ "POST /api/v1/user", NULL, 400 },
		{ "POST /api/v1/user/3/rename/ca%72ol2", NULL, 200 },
		{ "POST /api/v1/user/3/rename/alice", NULL, 409 },
		{ "POST /api/v1/user/99/rename/xx", NULL, 404 },
		{ "POST /api/v1/user/x/rename/xx", NULL, 400 },
		{ "DELETE /api/v1/user/1", NULL, 400 }, /* has a node */
		{ "DELETE /api/v1/user/3", NULL, 200 },
		{ "DELETE /api/v1/user/3", NULL, 404 },
		{ "POST /api/v1/preauthkey", "{}", 400 },
		{ "POST /api/v1/preauthkey", "{\"user\":\"9\"}", 404 },
		{ "POST /api/v1/preauthkey", "{\"user\":\"x\"}", 400 },
		{ "POST /api/v1/preauthkey", "{\"user\":1,\"aclTags\":[\"web\"]}", 400 },
		{ "POST /api/v1/preauthkey", "{\"user\":1,\"expiration\":\"soon\"}", 400 },
		{ "POST /api/v1/preauthkey", "{\"aclTags\":[\"tag:web\"]}", 200 },
		{ "POST /api/v1/preauthkey/expire", "{\"id\":\"1\"}", 200 },
		{ "POST /api/v1/preauthkey/expire", "{\"id\":9}", 404 },
		{ "POST /api/v1/preauthkey/expire", "{}", 400 },
		{ "DELETE /api/v1/preauthkey?id=1", NULL, 200 },
		{ "DELETE /api/v1/preauthkey?id=1", NULL, 404 },
		{ "DELETE /api/v1/preauthkey", NULL, 400 },
		{ "GET /api/v1/node?user=nobody", NULL, 404 },
		{ "GET /api/v1/node/1", NULL, 200 },
		{ "GET /api/v1/node/2", NULL, 404 },
		{ "GET /api/v1/node/-1", NULL, 400 },
		{ "POST /api/v1/node/1/rename/Bad_Name", NULL, 400 },
		{ "POST /api/v1/node/1/rename/alpha", NULL, 200 },
		{ "POST /api/v1/node/1/tags", "{\"tags\":[]}", 400 },
		{ "POST /api/v1/node/1/tags", "{\"tags\":[\"x\"]}", 400 },
		{ "POST /api/v1/node/1/expire", "{\"expiry\":\"x\"}", 400 },
		{ "POST /api/v1/node/1/expire", NULL, 200 },
		{ "POST /api/v1/auth/register", "{\"user\":\"alice\",\"authId\":\"x\"}", 400 },
		{ "POST /api/v1/auth/register", "{\"user\":\"alice\",\"authId\":\"hskey-authreq-0123456789abcdef01234567\"}", 404 },
		{ "POST /api/v1/auth/register", "{\"user\":\"nobody\",\"authId\":\"x\"}", 404 },
		{ "POST /api/v1/auth/reject", "{}", 404 },
		{ "PUT /api/v1/node/1", NULL, 405 },
		{ "GET /api/v1/nodes", NULL, 404 },
		{ "GET /api/v2/node", NULL, 404 },
		{ "GET /api/v1/", NULL, 404 },
		{ "GET /api/v1/node/%zz", NULL, 404 },
		{ "GET /api/v1/node/1/2/3/4/5/6/7", NULL, 404 },
	};
	unsigned int status;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_decref(call(*state, cases[i].line, cases[i].body, &status));
		if (status != cases[i].status)
			fail_msg("%s: %u, not %u", cases[i].line, status, cases[i].status);
	}
}

static void test_objects(void **state)
{
	struct coord *c = *state;
	unsigned int status;
	json_t *j = call(c, "GET /api/v1/node/1", NULL, &status), *n = json_get(j, "node");
	const char *key;

	assert_string_equal(json_get_str(n, "id"), "1"); /* 64-bit ids are strings */
	assert_true(json_is_null(json_object_get(n, "expiry")));
	assert_string_equal(json_get_str(json_get(n, "user"), "name"), "alice");
	assert_string_equal(json_get_str(n, "registerMethod"), "REGISTER_METHOD_AUTH_KEY");
	assert_string_equal(json_string_value(json_array_get(json_get(n, "availableRoutes"), 0)), "10.0.0.0/8");
	assert_true(json_is_array(json_get(n, "approvedRoutes")));
	assert_string_equal(json_get_str(n, "fqdn"), "box.mesh.test");
	json_decref(j);

	j = call(c, "POST /api/v1/preauthkey", "{\"user\":\"1\",\"reusable\":true}", &status);
	key = json_get_str(json_get(j, "preAuthKey"), "key");
	assert_int_equal(strlen(key), 88);
	assert_non_null(registry_authkey_find(&c->reg, key));
	assert_string_equal(json_get_str(json_get(j, "preAuthKey"), "id"), "1");
	json_decref(j);
	j = call(c, "GET /api/v1/preauthkey", NULL, &status); /* never shown again */
	key = json_get_str(json_array_get(json_get(j, "preAuthKeys"), 0), "key");
	assert_string_equal(key + strlen(key) - 4, "-***");
	json_decref(j);

	json_decref(call(c, "POST /api/v1/node/1/tags", "{\"tags\":[\"tag:x\"]}", &status));
	j = call(c, "GET /api/v1/node/1", NULL, &status);
	assert_true(json_is_null(json_object_get(json_get(j, "node"), "user")));
	json_decref(j);
	j = call(c, "GET /api/v1/node?user=alice", NULL, &status); /* tagged: nobody's */
	assert_int_equal(json_array_size(json_get(j, "nodes")), 0);
	json_decref(j);
	j = call(c, "GET /api/v1/user?email=a@x.org", NULL, &status);
	assert_int_equal(json_array_size(json_get(j, "users")), 1);
	json_decref(j);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(test_statuses), T(test_objects) };

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
