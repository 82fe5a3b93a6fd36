/*
 * The admin API: first line "METHOD PATH[?QUERY]", the rest the body. Every answer is JSON with a status.
 *
 * words: coordinator/admin/admin.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/admin/admin.h"
#include "coordinator/coord.h"
#include "lib/json.h"
#define JSON_MUTATOR_AFTER_LINE
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void answer_one(struct coord *c, char *line, const uint8_t *body, size_t len)
{
	char *path = strchr(line, ' '), *query;
	struct admin_request rq = { .method = line, .body = body, .body_len = len };
	struct admin_reply reply;
	json_t *j = NULL;

	if (!path)
		return;
	*path++ = '\0';
	query = strchr(path, '?');
	if (query)
		*query++ = '\0';
	rq.path = path;
	rq.query = query;
	admin_handle(c, &rq, &reply);
	if (reply.status < 200 || reply.status > 599 || reply.body.bad ||
	    json_read(buf_data(&reply.body), reply.body.len, 1 << 24, &j) < 0)
		abort();
	json_decref(j);
	buf_done(&reply.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *nl = memchr(data, '\n', size);
	size_t n = nl ? (size_t)(nl - data) : size;
	struct coord c = { 0 };
	char line[512];

	if (n >= sizeof(line) || memchr(data, 0, n))
		return 0;
	memcpy(line, data, n);
	line[n] = '\0';
	c.cfg.dns.base_domain = (char *)(uintptr_t) "mesh.test";
	registry_init(&c.reg);
	prefix_parse("100.64.0.0/10", 13, &c.reg.v4.prefix);
	coord_attach(&c);
	{
		struct node_new w = { .hostname = "box", .hostinfo = "{}", .cap = 131 };
		struct registry_user *u;
		struct node *out;

		if (registry_user_create(&c.reg, "alice", NULL, NULL, NULL, 1, &u) < 0)
			abort();
		w.user = u->id;
		registry_node_create(&c.reg, &w, 1, &out);
	}
	answer_one(&c, line, nl ? nl + 1 : data, nl ? size - n - 1 : 0);
	coord_done(&c);
	return 0;
}
