/*
 * What nodes send: register and map requests, decided on and taken into a small registry; and what the map
 * then says of the node is JSON.
 *
 * words: coordinator/state/re*.c
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/map/mapjson.h"
#include "coordinator/state/register.h"
#include "lib/json.h"
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW (INT64_C(1800000000) * NSEC_PER_SEC)

static void world_init(struct registry *reg)
{
	struct registry_user *u;
	struct node_new w = { .hostname = "box", .hostinfo = "{}", .cap = 131 };
	struct node *n;

	registry_init(reg);
	prefix_parse("100.64.0.0/10", 13, &reg->v4.prefix);
	if (registry_user_create(reg, "alice", NULL, NULL, NULL, NOW, &u) < 0)
		abort();
	w.user = u->id;
	memset(w.machine_key.b, 1, KEY_LEN);
	memset(w.node_key.b, 1, KEY_LEN);
	if (registry_node_create(reg, &w, NOW, &n) < 0)
		abort();
}

static void check_json(const struct node *n)
{
	struct buf b = { 0 };
	json_t *j = NULL;

	mapjson_node(&b, n, "mesh.test", NOW);
	if (b.bad || json_read(buf_data(&b), b.len, 1 << 24, &j) < 0)
		abort();
	json_decref(j);
	buf_done(&b);
}

static void do_register(struct registry *reg, const uint8_t *p, size_t n)
{
	struct register_request q;
	struct register_decision d;
	struct node *out;
	struct key machine;

	memset(machine.b, 1, KEY_LEN);
	if (register_request_parse(p, n, &q) < 0)
		return;
	register_decide(reg, &machine, &q, NOW, &d);
	if (d.outcome == REGISTER_LOGOUT)
		register_apply(reg, &machine, &q, &d, NOW, &out);
	else if (d.outcome == REGISTER_ASK && register_approve(reg, &machine, &q, reg->user[0], NOW, &out) == 0)
		check_json(out);
	register_request_done(&q);
}

static void do_map(struct registry *reg, const uint8_t *p, size_t n)
{
	struct node *node = reg->node[0];
	struct map_request q;

	if (map_request_parse(p, n, &q) < 0)
		return;
	registry_node_set_disco(reg, node, &q.disco_key);
	registry_node_set_endpoints(reg, node, q.endpoint, q.n_endpoint);
	if (q.hostinfo.text)
		registry_node_set_hostinfo(reg, node, q.hostinfo.hostname, q.hostinfo.text);
	if (q.hostinfo.netinfo)
		registry_node_set_netinfo(reg, node, q.hostinfo.netinfo, q.hostinfo.home);
	check_json(node);
	map_request_done(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct registry reg;

	world_init(&reg);
	do_map(&reg, data, size);
	do_register(&reg, data, size);
	registry_done(&reg);
	return 0;
}
