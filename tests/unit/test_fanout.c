/* fanout: what time does to nodes without anybody's doing; mapjson: the texts of a node and its changes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator/coord.h"
#include "coordinator/map/mapjson.h"
#include "lib/h2.h"
#include "lib/json.h"
#include "proto/ts2021.h"

#define NOW  (INT64_C(1800000000) * NSEC_PER_SEC)
#define SEC  USEC_PER_SEC

/* In place of the C library's for all that is linked in here. */
static bool no_memory;

void *reallocarray(void *p, size_t n, size_t size)
{
	size_t all;

	return no_memory || __builtin_mul_overflow(n, size, &all) ? NULL : realloc(p, all);
}

struct world {
	struct coord c;
	struct registry_user *alice;
};

static int setup(void **state)
{
	static const char text[] = "server_url: https://hs.example.com\ndns: {base_domain: mesh.test}\n"
				   "derp: {paths: [x]}\nnode: {ephemeral: {inactivity_timeout: 100s}}\n";
	struct world *w = calloc(1, sizeof(*w));
	struct settings_report rep = { 0 };

	if (settings_parse(text, sizeof(text) - 1, &w->c.cfg, &rep) < 0 || loop_new(&w->c.loop) < 0)
		return -1;
	registry_init(&w->c.reg);
	w->c.reg.v4.prefix = w->c.cfg.v4;
	w->c.reg.v6.prefix = w->c.cfg.v6;
	coord_attach(&w->c);
	if (fanout_new(w->c.loop, &w->c.reg, &w->c.cfg, &w->c.fanout) < 0)
		return -1;
	registry_user_create(&w->c.reg, "alice", "Al \"A\"", "a@x.org", NULL, NOW, &w->alice);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	coord_done(&w->c);
	loop_free(w->c.loop);
	settings_done(&w->c.cfg);
	free(w);
	return 0;
}

static struct node *add(struct world *w, uint8_t seed, bool ephemeral, int64_t now)
{
	struct node_new want = { .user = w->alice->id, .ephemeral = ephemeral, .hostname = "box",
				 .hostinfo = "{\"OS\":\"linux\"}", .netinfo = "{\"PreferredDERP\":9}", .home = 9, .cap = 131 };
	struct node *n;
	struct key disco;

	memset(want.machine_key.b, seed, KEY_LEN);
	memset(want.node_key.b, seed + 100, KEY_LEN);
	memset(disco.b, seed, KEY_LEN);
	assert_int_equal(registry_node_create(&w->c.reg, &want, now, &n), 0);
	registry_node_set_disco(&w->c.reg, n, &disco);
	n->changes = 0;
	return n;
}

static void test_offline(void **state)
{
	struct world *w = *state;
	struct node *n = add(w, 1, false, NOW);

	registry_node_set_online(&w->c.reg, n, true, NOW);
	n->changes = 0;
	n->gone_usec = 1000 * SEC; /* its stream ended then */
	assert_int_equal(fanout_tick(w->c.fanout, 1009 * SEC, NOW + 9 * NSEC_PER_SEC), 1010 * SEC);
	assert_true(n->online);
	assert_int_equal(fanout_tick(w->c.fanout, 1010 * SEC, NOW + 10 * NSEC_PER_SEC), UINT64_MAX);
	assert_false(n->online);
	assert_int_equal(n->changes, NODE_CHANGE_ONLINE);
	assert_int_equal(n->last_seen_nsec, NOW + 10 * NSEC_PER_SEC);
}

/* Our own restart makes nobody offline who comes back within a minute. */
static void test_return(void **state)
{
	struct world *w = *state;
	struct node *back = add(w, 1, false, NOW), *away = add(w, 2, false, NOW), *off = add(w, 3, false, NOW);
	uint64_t now = loop_clock();

	back->online = away->online = true; /* as they are loaded */
	fanout_free(w->c.fanout);
	assert_int_equal(fanout_new(w->c.loop, &w->c.reg, &w->c.cfg, &w->c.fanout), 0);
	fanout_tick(w->c.fanout, now + 59 * SEC, NOW + 59 * NSEC_PER_SEC);
	assert_true(back->online && away->online && !off->online);
	back->gone_usec = 0; /* as fanout_open() does */
	assert_false(registry_node_set_online(&w->c.reg, back, true, NOW));
	fanout_tick(w->c.fanout, now + 62 * SEC, NOW + 62 * NSEC_PER_SEC);
	assert_true(back->online && !away->online && !off->online);
	assert_int_equal(back->changes | off->changes, 0);
	assert_int_equal(away->changes, NODE_CHANGE_ONLINE);
}

static void test_expiry(void **state)
{
	struct world *w = *state;
	struct node *n = add(w, 1, false, NOW);

	registry_node_set_expiry(&w->c.reg, n, NOW + 5 * NSEC_PER_SEC);
	n->changes = 0;
	assert_int_equal(fanout_tick(w->c.fanout, 900 * SEC, NOW - 100 * NSEC_PER_SEC), 960 * SEC); /* hosts sleep */
	assert_int_equal(fanout_tick(w->c.fanout, 1000 * SEC, NOW), 1005 * SEC + 1);
	fanout_tick(w->c.fanout, 1004 * SEC, NOW + 4 * NSEC_PER_SEC);
	assert_int_equal(n->changes, 0);
	assert_int_equal(fanout_tick(w->c.fanout, 1005 * SEC, NOW + 5 * NSEC_PER_SEC), UINT64_MAX);
	assert_int_equal(n->changes, NODE_CHANGE_FULL | NODE_CHANGE_SELF);
	n->changes = 0;
	fanout_tick(w->c.fanout, 1006 * SEC, NOW + 6 * NSEC_PER_SEC);
	assert_int_equal(n->changes, 0); /* once */
	fanout_tick(w->c.fanout, 1007 * SEC, NOW - 3600 * NSEC_PER_SEC); /* the clock is set back */
	assert_int_equal(n->changes, NODE_CHANGE_FULL | NODE_CHANGE_SELF);
	n->changes = 0;
	fanout_tick(w->c.fanout, 1008 * SEC, 10 * NSEC_PER_SEC); /* to 1970 */
	assert_int_equal(n->changes, 0);
}

static void test_ephemeral(void **state)
{
	struct world *w = *state;
	struct node *stays = add(w, 1, false, NOW), *never = add(w, 2, true, NOW), *left = add(w, 3, true, NOW);
	struct node *fresh;
	uint64_t never_id = never->id, left_id = left->id;

	/* the server starts */
	assert_int_equal(fanout_tick(w->c.fanout, 1000 * SEC, NOW), 1100 * SEC);
	left->gone_usec = 1050 * SEC;
	fanout_tick(w->c.fanout, 1099 * SEC, NOW + 99 * NSEC_PER_SEC);
	assert_non_null(registry_node(&w->c.reg, never_id));
	fresh = add(w, 4, true, NOW + 99 * NSEC_PER_SEC); /* registered, not polled yet */
	fanout_tick(w->c.fanout, 1101 * SEC, NOW + 101 * NSEC_PER_SEC);
	assert_null(registry_node(&w->c.reg, never_id));
	assert_non_null(registry_node(&w->c.reg, left_id));
	fanout_tick(w->c.fanout, 1151 * SEC, NOW + 151 * NSEC_PER_SEC);
	assert_null(registry_node(&w->c.reg, left_id));
	assert_ptr_equal(registry_node(&w->c.reg, fresh->id), fresh);
	fresh->gone_usec = 0; /* as fanout_open() does */
	registry_node_set_online(&w->c.reg, fresh, true, NOW + 152 * NSEC_PER_SEC);
	fanout_tick(w->c.fanout, 9999 * SEC, NOW + 9999 * NSEC_PER_SEC);
	assert_ptr_equal(registry_node(&w->c.reg, fresh->id), fresh); /* it is connected */
	assert_ptr_equal(registry_node(&w->c.reg, stays->id), stays);
}

/* A step of the wall clock deletes nobody, and keeps nobody for ever. */
static void test_ephemeral_clock(void **state)
{
	struct world *w = *state;
	struct node *n;
	uint64_t id;

	fanout_tick(w->c.fanout, 1000 * SEC, NOW);
	fanout_tick(w->c.fanout, 1999 * SEC, NOW + 999 * NSEC_PER_SEC);
	n = add(w, 1, true, NOW + 1000 * NSEC_PER_SEC); /* registered, not polled yet */
	id = n->id;
	fanout_tick(w->c.fanout, 2001 * SEC, NOW + 4601 * NSEC_PER_SEC); /* an hour ahead */
	assert_ptr_equal(registry_node(&w->c.reg, id), n);
	fanout_tick(w->c.fanout, 2100 * SEC, NOW - 2500 * NSEC_PER_SEC); /* and an hour back */
	assert_ptr_equal(registry_node(&w->c.reg, id), n);
	fanout_tick(w->c.fanout, 2101 * SEC, NOW - 2499 * NSEC_PER_SEC);
	assert_null(registry_node(&w->c.reg, id));
}

/* A node that reads its map stream, by two queues in memory. */
struct reader {
	struct world *w;
	struct node *node;
	bool zstd;
	struct h2 *server, *client;
	struct buf to_server, to_client;
	struct ts2021_frames frames;
	bool over;
};

static int queue_write(void *data, const uint8_t *p, size_t n)
{
	return buf_put(data, p, n);
}

static const struct h2_io queue_io = { .write = queue_write };

static void reader_asks(void *data, struct h2_stream *st, const char *method, const char *path, const uint8_t *body,
			size_t len)
{
	struct reader *r = data;

	(void)method;
	(void)path;
	(void)body;
	(void)len;
	assert_int_equal(fanout_open(r->w->c.fanout, r->node, st, r->zstd), 0);
}

static void reader_data(void *data, struct h2_stream *st, const uint8_t *p, size_t n)
{
	struct reader *r = data;

	(void)st;
	assert_int_equal(ts2021_frames_feed(&r->frames, p, n), 0);
}

static void reader_end(void *data, struct h2_stream *st, int error)
{
	(void)st;
	(void)error;
	((struct reader *)data)->over = true;
}

static void reader_pump(struct reader *r)
{
	while (r->to_server.len || r->to_client.len) {
		struct buf up = r->to_server, down = r->to_client;

		r->to_server = r->to_client = (struct buf){ 0 };
		assert_int_equal(h2_feed(r->server, buf_data(&up), up.len), 0);
		assert_int_equal(h2_feed(r->client, buf_data(&down), down.len), 0);
		buf_done(&up);
		buf_done(&down);
	}
}

static void reader_open(struct reader *r)
{
	static const struct h2_server_ops server_ops = { .on_request = reader_asks };
	static const struct h2_client_ops client_ops = { .on_data = reader_data, .on_end = reader_end };
	static const struct h2_request rq = { .method = "POST", .path = "/machine/map" };

	ts2021_frames_init(&r->frames, r->zstd ? TS2021_CODING_ZSTD : TS2021_CODING_PLAIN);
	assert_int_equal(h2_server_new(&queue_io, &r->to_client, &server_ops, r, &r->server), 0);
	assert_int_equal(h2_client_new(&queue_io, &r->to_server, &r->client), 0);
	assert_int_equal(h2_request(r->client, &rq, &client_ops, r, &(struct h2_stream *){ NULL }), 0);
	reader_pump(r);
}

static void reader_done(struct reader *r)
{
	h2_free(r->server);
	h2_free(r->client);
	buf_done(&r->to_server);
	buf_done(&r->to_client);
	ts2021_frames_done(&r->frames);
}

/* The next message, NULL: there is none. */
static const char *reader_hears(struct reader *r)
{
	const char *msg = NULL;
	size_t len;
	int e;

	reader_pump(r);
	e = ts2021_frames_next(&r->frames, &msg, &len);
	assert_true(e >= 0);
	return e ? msg : NULL;
}

/* On a stream on which nothing else is said: one after 50 to 59 s, in the stream's own coding. */
static void test_keepalive(void **state)
{
	struct world *w = *state;
	struct reader r[2] = { { .w = w }, { .w = w, .zstd = true } };
	uint64_t before = loop_clock(), after, due;
	const char *said;

	assert_int_equal(fanout_set_derpmap(w->c.fanout, "{}", 2), 0);
	for (size_t i = 0; i < 2; i++) {
		r[i].node = add(w, (uint8_t)(i + 1), false, NOW);
		reader_open(&r[i]);
		said = reader_hears(&r[i]);
		assert_true(said && strstr(said, "\"DERPMap\":{}"));
		assert_null(reader_hears(&r[i]));
	}
	after = loop_clock();
	due = fanout_tick(w->c.fanout, before + 49 * SEC, NOW);
	assert_true(due >= before + 50 * SEC && due <= after + 59 * SEC);
	for (size_t i = 0; i < 2; i++)
		assert_null(reader_hears(&r[i]));
	due = fanout_tick(w->c.fanout, after + 59 * SEC, NOW);
	assert_true(due >= after + 109 * SEC && due <= after + 118 * SEC);
	for (size_t i = 0; i < 2; i++) {
		said = reader_hears(&r[i]);
		assert_true(said && !strcmp(said, "{\"KeepAlive\":true}"));
		assert_null(reader_hears(&r[i]));
		reader_done(&r[i]);
	}
}

/* As long as no relay is known a stream says that it is alive, and nothing else; then comes its first map, and what
 * is new behind it. More streams than begin in one turn. */
static void test_relays_unknown(void **state)
{
	static const char map[] = "{\"Regions\":{\"7\":{}}}";
	enum { N = 70 };
	struct world *w = *state;
	struct reader r[N];
	const char *said;
	uint64_t after;

	for (size_t i = 0; i < N; i++) {
		r[i] = (struct reader){ .w = w, .node = add(w, (uint8_t)(i + 1), false, NOW), .zstd = i % 2 };
		reader_open(&r[i]);
		assert_null(reader_hears(&r[i]));
	}
	after = loop_clock();
	registry_node_set_netinfo(&w->c.reg, r[0].node, "{}", 8);
	while (r[0].node->queued)
		assert_true(loop_iterate(w->c.loop, 5 * SEC) >= 0);
	fanout_tick(w->c.fanout, after + 59 * SEC, NOW);
	for (size_t i = 0; i < N; i++) {
		said = reader_hears(&r[i]);
		assert_true(said && !strcmp(said, "{\"KeepAlive\":true}"));
		assert_null(reader_hears(&r[i]));
	}
	assert_int_equal(fanout_set_derpmap(w->c.fanout, map, sizeof(map) - 1), 0);
	registry_node_set_netinfo(&w->c.reg, r[0].node, "{}", 9); /* is in all first maps, and not said again */
	for (size_t i = 0; i < N; i++) {
		while (!(said = reader_hears(&r[i])))
			assert_int_equal(loop_iterate(w->c.loop, 5 * SEC), 1);
		assert_non_null(strstr(said, ",\"Node\":"));
		assert_non_null(strstr(said, map));
		assert_null(strstr(said, "\"HomeDERP\":8"));
		assert_null(reader_hears(&r[i]));
	}
	registry_node_set_netinfo(&w->c.reg, r[0].node, "{}", 8);
	for (size_t i = 1; i < N; i++) {
		while (!(said = reader_hears(&r[i])))
			assert_int_equal(loop_iterate(w->c.loop, 5 * SEC), 1);
		assert_non_null(strstr(said, ",\"PeersChangedPatch\":["));
	}
	for (size_t i = 0; i < N; i++)
		reader_done(&r[i]);
}

/* A node is removed, and there is no memory to note it: nobody may keep the peer, so all come back for a whole map. */
static void test_removed_without_memory(void **state)
{
	struct world *w = *state;
	struct reader r[2] = { { .w = w }, { .w = w } }, again = { .w = w };
	struct node *gone;
	const char *said;
	char text[32];

	for (size_t i = 0; i < 2; i++)
		r[i].node = add(w, (uint8_t)(i + 1), false, NOW);
	gone = add(w, 9, false, NOW);
	snprintf(text, sizeof(text), "\"ID\":%llu,", (unsigned long long)gone->id);
	assert_int_equal(fanout_set_derpmap(w->c.fanout, "{}", 2), 0);
	for (size_t i = 0; i < 2; i++) {
		reader_open(&r[i]);
		said = reader_hears(&r[i]);
		assert_true(said && strstr(said, text));
	}
	no_memory = true;
	registry_node_delete(&w->c.reg, gone);
	no_memory = false;
	for (size_t i = 0; i < 2; i++) {
		assert_null(reader_hears(&r[i]));
		assert_true(r[i].over);
		assert_null(r[i].node->session);
		assert_true(r[i].node->gone_usec > 0); /* offline soon, if it does not come back */
	}
	again.node = r[0].node;
	reader_open(&again);
	said = reader_hears(&again);
	assert_true(said && !strstr(said, text));
	for (size_t i = 0; i < 2; i++)
		reader_done(&r[i]);
	reader_done(&again);
}

/* Ids are never used again, so that they can lie as far apart as anybody likes: a mesh with more groups of them than a
 * stream may have pieces elsewhere. */
static void test_sparse_ids(void **state)
{
	enum { N = 2500 };
	struct node_new want = { .hostinfo = "{}", .netinfo = "{}", .home = 9, .cap = 131 };
	struct world *w = *state;
	struct node *n = NULL;
	char name[16], text[32];
	const char *said;

	want.user = w->alice->id;
	assert_int_equal(fanout_set_derpmap(w->c.fanout, "{}", 2), 0);
	for (uint32_t i = 0; i < N; i++) {
		struct key disco = { { 1 } };

		w->c.reg.last_node += 64;
		snprintf(name, sizeof(name), "n%u", i);
		want.hostname = name;
		memcpy(want.machine_key.b, &i, sizeof(i));
		memcpy(want.node_key.b, &i, sizeof(i));
		assert_int_equal(registry_node_create(&w->c.reg, &want, NOW, &n), 0);
		registry_node_set_disco(&w->c.reg, n, &disco);
	}
	snprintf(text, sizeof(text), "\"ID\":%llu,", (unsigned long long)n->id);
	for (int zstd = 0; zstd < 2; zstd++) {
		struct reader r = { .w = w, .node = w->c.reg.node[0], .zstd = zstd };

		reader_open(&r);
		said = reader_hears(&r);
		assert_true(said && strstr(said, text) && !r.over);
		reader_done(&r);
	}
}

/* Whoever owns a first node is in all first maps from then on. */
static void test_first_node_of_owner(void **state)
{
	struct world *w = *state;
	struct registry_user *bob;
	struct reader r[2] = { { .w = w, .node = add(w, 1, false, NOW) }, { .w = w } };
	const char *said;

	registry_user_create(&w->c.reg, "bob", NULL, "b@x.org", NULL, NOW, &bob);
	assert_int_equal(fanout_set_derpmap(w->c.fanout, "{}", 2), 0);
	reader_open(&r[0]);
	said = reader_hears(&r[0]);
	assert_true(said && !strstr(said, "b@x.org"));
	w->alice = bob;
	r[1].node = add(w, 2, false, NOW);
	reader_open(&r[1]);
	said = reader_hears(&r[1]);
	assert_true(said && strstr(said, "b@x.org"));
	for (size_t i = 0; i < 2; i++)
		reader_done(&r[i]);
}

/* One that was away for long, and has just logged in with an ephemeral key, is not deleted for having been away. */
static void test_ephemeral_again(void **state)
{
	struct world *w = *state;
	struct node *n = add(w, 1, false, NOW);
	struct node_new want = { .user = w->alice->id, .ephemeral = true, .machine_key = n->machine_key, .hostname = "box",
				 .hostinfo = "{}", .cap = 131 };
	uint64_t id = n->id;

	n->gone_usec = 1000 * SEC;
	memset(want.node_key.b, 77, KEY_LEN);
	assert_int_equal(registry_node_relogin(&w->c.reg, n, &want, NOW), 0);
	assert_int_equal(fanout_tick(w->c.fanout, 5000 * SEC, NOW), 5100 * SEC);
	assert_ptr_equal(registry_node(&w->c.reg, id), n);
	fanout_tick(w->c.fanout, 5100 * SEC, NOW);
	assert_null(registry_node(&w->c.reg, id));
}

static json_t *parsed(struct buf *b)
{
	json_t *j = NULL;

	assert_false(b->bad);
	assert_int_equal(json_read(buf_data(b), b->len, 1 << 20, &j), 0);
	buf_done(b);
	return j;
}

static void test_node_json(void **state)
{
	struct world *w = *state;
	struct node *n = add(w, 1, false, NOW);
	struct buf b = { 0 }, self = { 0 };
	json_t *j;

	mapjson_node(&b, n, "mesh.test", NOW);
	mapjson_self(&self, (const char *)buf_data(&b), b.len, &w->c.cfg);
	j = parsed(&b);
	assert_string_equal(json_get_str(j, "Name"), "box.mesh.test.");
	assert_string_equal(json_get_str(j, "StableID"), "1");
	assert_null(json_get(j, "KeyExpiry"));
	assert_null(json_get(j, "CapMap"));
	assert_int_equal(json_array_size(json_get(j, "Endpoints")), 0);
	assert_int_equal(json_array_size(json_get(j, "AllowedIPs")), 2);
	assert_int_equal(json_get_int(json_get(json_get(j, "Hostinfo"), "NetInfo"), "PreferredDERP", 0), 9);
	assert_string_equal(json_get_str(json_get(j, "Hostinfo"), "OS"), "linux");
	json_decref(j);
	j = parsed(&self);
	assert_true(json_is_object(json_get(j, "CapMap")));
	json_decref(j);

	registry_node_set_expiry(&w->c.reg, n, NOW);
	mapjson_node(&b, n, "", NOW);
	j = parsed(&b);
	assert_string_equal(json_get_str(j, "Name"), "box.");
	assert_true(json_get_bool(j, "Expired", false));
	assert_false(json_get_bool(j, "MachineAuthorized", true));
	json_decref(j);

	mapjson_user(&b, w->alice);
	j = parsed(&b);
	assert_string_equal(json_get_str(j, "DisplayName"), "Al \"A\"");
	assert_string_equal(json_get_str(j, "LoginName"), "a@x.org");
	json_decref(j);
}

static void test_patch_json(void **state)
{
	struct world *w = *state;
	struct node *n = add(w, 1, false, NOW);
	struct buf b = { 0 };
	json_t *j;

	mapjson_patch(&b, n, NODE_CHANGE_HOME | NODE_CHANGE_DISCO | NODE_CHANGE_ONLINE);
	j = parsed(&b);
	assert_int_equal(json_get_int(j, "DERPRegion", 0), 9);
	assert_non_null(json_get(j, "DiscoKey"));
	assert_true(json_is_boolean(json_get(j, "Online")));
	assert_non_null(json_get(j, "LastSeen"));
	assert_null(json_get(j, "Endpoints"));
	json_decref(j);
	mapjson_patch(&b, n, NODE_CHANGE_ENDPOINTS);
	j = parsed(&b);
	assert_int_equal(json_object_size(j), 2);
	assert_true(json_is_array(json_get(j, "Endpoints"))); /* [] is "none", absent would be "as before" */
	json_decref(j);
}

/* Whole octets and nibbles of the reverse zones, the empty lists not null. */
static void test_dns_json(void **state)
{
	struct world *w = *state;
	struct buf b = { 0 };
	const json_t *routes;
	json_t *j;

	mapjson_dns(&b, &w->c.cfg);
	j = parsed(&b);
	routes = json_get(j, "Routes");
	assert_int_equal(json_object_size(routes), 65);
	assert_true(json_is_array(json_get(routes, "64.100.in-addr.arpa.")));
	assert_true(json_is_array(json_get(routes, "127.100.in-addr.arpa.")));
	assert_true(json_is_array(json_get(routes, "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa.")));
	assert_string_equal(json_string_value(json_array_get(json_get(j, "Domains"), 0)), "mesh.test");
	json_decref(j);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(test_offline), T(test_return),   T(test_expiry),	   T(test_ephemeral), T(test_ephemeral_clock),
					    T(test_keepalive), T(test_relays_unknown), T(test_removed_without_memory), T(test_sparse_ids), T(test_first_node_of_owner), T(test_ephemeral_again), T(test_node_json),  T(test_patch_json), T(test_dns_json) };

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
