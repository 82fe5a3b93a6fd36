#pragma once
/*
 * shuttle: the loopback bridge between the kernel's WireGuard and whoever carries packets by relay.
 *
 * Each peer has a relay address 127.64.0.0/10 + index and all share one port. What the kernel sends
 * there arrives here with its peer's index; what came by relay is handed to the kernel's listen port,
 * from the relay address (the peer's endpoint becomes or stays it) or, for a peer in direct mode,
 * with a chosen source (its endpoint does not move). Facts: kernel.md 4.1 and 4.4.
 *
 * Owns its sockets; never looks into a packet.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define SHUTTLE_INDEX_MAX  ((1u << 22) - 2) /* 1 .. this */
#define SHUTTLE_PACKET_MAX 2048		    /* a WireGuard packet of a device with MTU 1280 is smaller */

struct shuttle;

/* A packet from the kernel to that peer's relay address. p lives during the call. */
typedef void shuttle_fn(void *data, uint32_t index, const uint8_t *p, size_t len);

/* relay_port 0: any free one. -EADDRINUSE. */
int shuttle_new(struct loop *l, uint16_t wg_port, uint16_t relay_port, shuttle_fn *fn, void *data,
		struct shuttle **ret);
void shuttle_free(struct shuttle *s);
DEFINE_CLEANUP(struct shuttle *, shuttle_free)
uint16_t shuttle_port(const struct shuttle *s);

/* The endpoint that the kernel is given for a relayed peer. */
struct endpoint shuttle_endpoint(const struct shuttle *s, uint32_t index);
/* Whose relay address this is; -ENOENT for an endpoint that is none (whatever its port). */
int shuttle_index_of(const struct endpoint *e, uint32_t *ret);

/* To the kernel, from the peer's relay address. */
int shuttle_deliver(struct shuttle *s, uint32_t index, const void *p, size_t len);
/* To the kernel, from src, addressed to our real address dst. Families match. -EPERM without
 * CAP_NET_RAW, -EAFNOSUPPORT. */
int shuttle_inject(struct shuttle *s, const struct endpoint *src, const struct addr *dst,
		   const void *p, size_t len);

struct shuttle_stats {
	uint64_t from_kernel, delivered, injected, refused; /* refused: not from the kernel's port */
};
const struct shuttle_stats *shuttle_stats(const struct shuttle *s);
