/*
 * Map messages on a standing map: any message leaves it whole, and it survives its own cache.
 *
 * words: proto/tailcfg*.c proto/derpmap.c
 * max_len: 3100
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/netmap/netmap.h"
#include "daemon/netmap/netmap_routes.h"
#include "tests/fuzz/json_mutator.h"

#define NOW INT64_C(1800000000000000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const char first[] =
	"{\"Node\":{\"ID\":1,\"Name\":\"me.x.\",\"Key\":\"nodekey:01010101010101010101010101010101"
	"01010101010101010101010101010101\"},\"Peers\":[{\"ID\":2,\"Key\":\"nodekey:02020202020202"
	"02020202020202020202020202020202020202020202020202\"},{\"ID\":3,\"Key\":\"nodekey:0303030"
	"303030303030303030303030303030303030303030303030303030303\",\"KeyExpiry\":\"2027-02-01T00:"
	"00:00Z\"}]}";

static void check(const struct netmap *nm)
{
	char suffix[64];

	for (size_t i = 0; i < netmap_n_peers(nm); i++) {
		const struct tailcfg_node *n = netmap_peer_at(nm, i);
		struct prefix out[4];

		if (netmap_peer_by_key(nm, &n->key) != n || netmap_peer_by_id(nm, n->id) != n ||
		    n->id == nm->self->id)
			abort();
		netmap_peer_routes(nm, n, true, out, ARRAY_SIZE(out));
		netmap_user(nm, n->user);
		tailcfg_node_has_cap(n, "x");
	}
	netmap_filter_is_allow_all(nm, true);
	netmap_suffix(nm, suffix, sizeof(suffix));
}

static void one(struct netmap *nm, const char *p, size_t len)
{
	CLEANUP(tailcfg_map_done) struct tailcfg_map_response m = { 0 };
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };

	if (tailcfg_map_decode((struct json_slice){ p, len }, &m) == 0)
		netmap_apply(nm, &m, NOW, &c);
	check(nm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	CLEANUP(buf_done) struct buf a = { 0 }, b = { 0 };
	CLEANUP(netmap_free) struct netmap *nm = NULL;
	CLEANUP(netmap_free) struct netmap *again = NULL;

	if (netmap_new(&nm) < 0)
		abort();
	one(nm, first, sizeof(first) - 1);
	one(nm, (const char *)data, len);
	one(nm, (const char *)data, len);
	netmap_tick(nm, NOW + INT64_C(100000000000000000), &c);
	netmap_changes_done(&c);
	netmap_clock_stepped(nm, INT64_C(50000000000000000));
	netmap_tick(nm, NOW + INT64_C(50000000000000000), &c);
	if (netmap_encode(nm, "x", &a) < 0)
		abort();
	if (netmap_decode((struct json_slice){ buf_str(&a), a.len }, "x", NULL, NOW, &again) < 0)
		abort();
	check(again);
	if (netmap_n_peers(nm) != netmap_n_peers(again))
		abort();
	for (size_t i = 0; i < nm->peers.n; i++)
		again->peers.by_id[i]->node->online = nm->peers.by_id[i]->node->online;
	if (netmap_encode(again, "x", &b) < 0 || a.len != b.len ||
	    memcmp(buf_data(&a), buf_data(&b), a.len) != 0)
		abort();
	return 0;
}
