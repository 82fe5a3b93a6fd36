#pragma once
/*
 * netmap_routes: which of a map's routes lead into the tunnel, and whether its filter lets in all that
 * comes by them.
 *
 * For who programs WireGuard and the packet filter. Questions about a map that stands: nothing is kept,
 * allocated or changed. What a server says is not all believed: our own addresses, and those that name
 * this host or its links, are no peer's.
 */
#include <stdbool.h>
#include <stddef.h>

#include "daemon/netmap/netmap.h"

/* WireGuard allowed-ips of a peer: none for one that is not usable, or that no relay and no disco
 * key leads to. Writes at most max, returns how many there are. */
size_t netmap_peer_routes(const struct netmap *nm, const struct tailcfg_node *n, bool accept_routes,
			  struct prefix *out, size_t max);

/* Whatever a peer may send (netmap_peer_routes() of each), the filter lets in, to any address and
 * port: rules from "*", or as servers write out that word: from the mesh's ranges. Never with a peer that is jailed.
 * Changes with filter and peers. */
bool netmap_filter_is_allow_all(const struct netmap *nm, bool accept_routes);
