#pragma once
/*
 * udp: the daemon's half of the one UDP port that it shares with the kernel's WireGuard.
 *
 * The module owns port P. What is disco or STUN there is handed to our transparent sockets on a
 * private port Q by an nft tproxy rule (nft/ruleset.h, share_port), or, where no such rule can be
 * had, copied to raw sockets by a filter; udp_self_test() finds out. What we send leaves from P: with
 * headers of our own over a raw socket, or from Q with an nft rule that rewrites the source port
 * (udp_needs_rewrite()). Packets sent straight to Q are dropped by the sockets' own filter.
 *
 * Owns its sockets; never looks into a packet beyond what the filters do.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

struct udp;

enum udp_mode {
	UDP_MODE_TPROXY, /* given by nftables */
	UDP_MODE_RAW,	 /* copies: every UDP packet of the host pays for it (kernel.md 3.1) */
};

struct udp_packet {
	struct endpoint from;
	struct addr to; /* the real local address it was sent to */
	unsigned int ifindex;
	const uint8_t *p; /* lives during the call */
	size_t len;
};
typedef void udp_packet_fn(void *data, const struct udp_packet *p);

struct udp_opts {
	uint16_t port; /* P */
	uint32_t mark;
	bool no_raw; /* as if CAP_NET_RAW were missing (tests) */
	udp_packet_fn *fn;
	void *data;
	uint16_t private_port; /* Q, if it is free; 0: any. That of before leaves the rules as they are */
};

/* Starts in UDP_MODE_TPROXY where transparent sockets are allowed, else in UDP_MODE_RAW. -EPERM:
 * neither is. */
int udp_open(struct loop *l, const struct udp_opts *o, struct udp **ret);
void udp_close(struct udp *u);
DEFINE_CLEANUP(struct udp *, udp_close)

/* Whether somebody has that port, in either family. What cannot be tested counts as free. */
bool udp_port_is_taken(uint16_t port);

/* Q, for the nft rules; the same as long as it is open. */
uint16_t udp_private_port(const struct udp *u);
/* What is sent leaves from Q and needs nft_config.rewrite_source. */
bool udp_needs_rewrite(const struct udp *u);
enum udp_mode udp_mode(const struct udp *u);
const char *udp_mode_name(enum udp_mode m);
/* The module's port has changed. */
int udp_set_port(struct udp *u, uint16_t port);
/* -EPERM without CAP_NET_RAW; then the mode stays. Back: UDP_MODE_TPROXY. */
int udp_set_mode(struct udp *u, enum udp_mode m);

/* Sends a datagram to P of this host over loopback and waits 300 ms for it to come the way of the
 * mode: without it UDP_MODE_TPROXY becomes UDP_MODE_RAW. fn (may be NULL) gets told when it is
 * decided. Call it after the rules are set, and again when somebody changed them; to leave
 * UDP_MODE_RAW, set the mode and the rules (share_port) first. */
int udp_self_test(struct udp *u, loop_fn *fn, void *data);

/* from: our address to send from (a pong's), NULL or family 0: the one the kernel would choose. 0 or a
 * negative errno (-ENETUNREACH: no way there). */
int udp_send(struct udp *u, const struct endpoint *to, const struct addr *from, const void *p, size_t len);

struct udp_stats {
	uint64_t received, sent, send_failed;
};
const struct udp_stats *udp_stats(const struct udp *u);
