#pragma once
/*
 * dataplane: the kernel's side of the node as one thing: device, addresses, routes, rules, nftables
 * table, the shared UDP port and the relay shuttle.
 *
 * Owns the edges (kernel/, nft/, relay/shuttle) and their order. Takes wanted state and sends the
 * difference. Closing it leaves everything in the kernel as it is: the mesh goes on without us;
 * dataplane_down() takes it all away. Decides nothing about paths.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/config.h"
#include "daemon/kernel/link.h"
#include "daemon/kernel/tsmp_socket.h"
#include "daemon/kernel/wg.h"
#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/key.h"
#include "lib/loop.h"
#include "nft/ruleset.h"

#define DATAPLANE_ERROR_MAX 256

struct dataplane;

struct dataplane_ops {
	/* Disco or STUN that came to our WireGuard port. */
	void (*udp_packet)(void *data, const struct endpoint *from, const struct addr *to,
			   const uint8_t *p, size_t len);
	/* The kernel sent this to a peer's relay address. */
	void (*relay_packet)(void *data, uint32_t index, const uint8_t *p, size_t len);
	struct tsmp_socket_ops tsmp;
	void (*link_event)(void *data, unsigned int events); /* enum link_event */
};

/* Claims the interface's name, and what the service manager has kept for us; nothing in the kernel
 * changes yet. -EBUSY: another daemon has it.
 * What it makes is noted in the runtime folder (journal.h). */
int dataplane_new(struct loop *l, const struct config *cfg, const struct dataplane_ops *ops,
		  void *data, struct dataplane **ret, char error[static DATAPLANE_ERROR_MAX]);
void dataplane_close(struct dataplane *d);
DEFINE_CLEANUP(struct dataplane *, dataplane_close)

/* Of before, if they are free; 0: any. Filled in. */
struct dataplane_ports {
	uint16_t wireguard; /* for a new device, where the configuration says any */
	uint16_t relay, disco;
};
/*
 * Makes or adopts the device and everything around it, but peers. On failure error has one line with
 * cause and remedy, and what was made new is gone again. An adopted device stays as it is, but is set
 * down if no table of ours stands: nothing comes out of the tunnel unfiltered.
 */
int dataplane_up(struct dataplane *d, const struct key *node_private, struct dataplane_ports *ports,
		 bool *ret_adopted, char error[static DATAPLANE_ERROR_MAX]);
bool dataplane_is_up(const struct dataplane *d);
/* Removes device, rules, routes and table, whoever made them: what the journal names, and only that. The table
 * goes last, and stays if the device does: nothing comes out of the tunnel unfiltered. On failure error has one
 * line, and dataplane_clear() goes on with it. */
int dataplane_down(struct dataplane *d, char error[static DATAPLANE_ERROR_MAX]);
/* Whether something may be in the kernel that this node made, now or before. */
bool dataplane_made(const struct dataplane *d);
/* Whether dataplane_clear() has something to do: dataplane_down() failed, or there are names that were given up. */
bool dataplane_is_left(const struct dataplane *d);
/* 0; -EIO: something is still left, and error has one line. */
int dataplane_clear(struct dataplane *d, char error[static DATAPLANE_ERROR_MAX]);
/* What dataplane_down() has left is wanted again. */
void dataplane_keep(struct dataplane *d);
/* Before an end that is meant: what keeps the table over our death will be let go as well. A table
 * that would go with it is exchanged for one without an owner, in one transaction. */
void dataplane_hand_over(struct dataplane *d);

/* Another node key on the live device. */
int dataplane_set_key(struct dataplane *d, const struct key *node_private);
int dataplane_set_addresses(struct dataplane *d, const struct addr *a, size_t n);

struct dataplane_peer {
	uint32_t index; /* of its relay address */
	struct key key;
	const struct prefix *allowed;
	size_t n_allowed;
	bool later; /* by dataplane_set_peers(): for the next call, there were too many new ones */
};
#define DATAPLANE_NEW_MAX 1000
/* Exactly these peers and the routes to them, but of those that the kernel has not DATAPLANE_NEW_MAX at most: each
 * costs it a multiplication on the curve, and relayed packets wait. A peer that it has keeps its endpoint. 1: some
 * removals are left for dataplane_remove_more(); 0: all done; negative: errno, logged. Routes: dataplane_undone(). */
int dataplane_set_peers(struct dataplane *d, struct dataplane_peer *p, size_t n);
/* The next few of the peers that the last dataplane_set_peers() left to be removed. As that one returns. */
int dataplane_remove_more(struct dataplane *d);
/* e NULL: the peer's relay address. */
int dataplane_set_endpoint(struct dataplane *d, const struct key *peer, uint32_t index,
			   const struct endpoint *e);
/* Takes the peer out and in again: its sessions are dead. */
int dataplane_reset_peer(struct dataplane *d, const struct dataplane_peer *p);
/* Inside the tunnel: our disco key. from: our address of the same family. */
int dataplane_tell_disco(struct dataplane *d, const struct addr *from, const struct addr *to,
			 const struct key *disco);
/* As wg_dump(). */
int dataplane_dump(struct dataplane *d, void (*begin)(void *data), wg_peer_fn *fn, void *data);

/* What the filter lets in. Replies only until told otherwise; told before dataplane_up(), an adopted
 * table changes once, to what is wanted. What the kernel refuses is tried again until it stands. */
int dataplane_set_filter(struct dataplane *d, enum nft_filter mode);
/* "" when the packet filter stands as wanted, else one sentence for status. */
const char *dataplane_filter_problem(const struct dataplane *d);
/* After LINK_EVENT_RULE, _OURS and the like: puts back what somebody took away. -ENODEV: the device
 * itself is gone; dataplane_down() and dataplane_up() make another. Other errors: dataplane_settle(). */
int dataplane_repair(struct dataplane *d, unsigned int events);
/* Does once more what the kernel refused: link, addresses, rules. */
void dataplane_settle(struct dataplane *d);
/* Why some of that, or of the routes of dataplane_set_peers(), is missing; 0: all is there. */
int dataplane_undone(const struct dataplane *d);

uint16_t dataplane_port(const struct dataplane *d);
/* From our WireGuard port. from NULL: the kernel chooses. Never into our own tunnel: -ENETUNREACH. */
int dataplane_send_udp(struct dataplane *d, const struct endpoint *to, const struct addr *from,
		       const void *p, size_t len);
int dataplane_relay_deliver(struct dataplane *d, uint32_t index, const void *p, size_t len);
int dataplane_relay_inject(struct dataplane *d, const struct endpoint *src, const struct addr *dst,
			   const void *p, size_t len);
/* Local addresses for candidate endpoints; free() the list. */
int dataplane_local_addresses(struct dataplane *d, struct link_local_addr **ret, size_t *ret_n);
/* The way our own packets, outside the tunnel, take to the internet; zeros: there is none. */
void dataplane_ways(struct dataplane *d, struct link_path *ret_v4, struct link_path *ret_v6);
