#pragma once
/*
 * tsmp_socket: IP protocol 99 inside the tunnel, which stock nodes handle before their host's stack.
 *
 * Answers pings, hands disco keys on, takes the rest silently; as long as it is open the kernel
 * sends no "protocol unreachable" for them (disco.md 18.11). Bound to the tunnel's interface.
 */
#include <stdbool.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/loop.h"
#include "proto/tsmp.h"

struct tsmp_socket;

/* from is authentic: the tunnel lets a peer use only its own addresses. */
struct tsmp_socket_ops {
	/* Asked first, of each ping and key: a peer can send as many as the line holds. False: not heard. */
	bool (*allowed)(void *data, const struct addr *from);
	/* A peer tells its disco key. */
	void (*disco_key)(void *data, const struct addr *from, const struct key *disco);
};

/* ops stays the caller's. -EPERM without CAP_NET_RAW. */
int tsmp_socket_open(struct loop *l, const char *ifname, const struct tsmp_socket_ops *ops, void *data,
		     struct tsmp_socket **ret);
void tsmp_socket_close(struct tsmp_socket *t);
DEFINE_CLEANUP(struct tsmp_socket *, tsmp_socket_close)
/* from: our own address of the same family. */
int tsmp_socket_send(struct tsmp_socket *t, const struct addr *from, const struct addr *to,
		     const struct tsmp_msg *m);
