#pragma once
/*
 * wg: the kernel's WireGuard device, over rtnetlink (to make it) and generic netlink (to fill it).
 *
 * The edge: reads what the device has and sends changes; what to change is decided by wg_plan.h.
 * Never sends REPLACE_PEERS, never takes the link down, never removes a peer to change it. What is
 * ours: kind wireguard with our private key, with the alias WG_ALIAS, or without any key yet.
 * wg_error() gives the kernel's words for the last failure, or those for its number.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/kernel/wg_msg.h"
#include "daemon/kernel/wg_plan.h"
#include "lib/cleanup.h"

#define WG_ALIAS	"kernscale"

struct wg;

/* -EPERM: no CAP_NET_ADMIN. */
int wg_open(struct wg **ret);
void wg_close(struct wg *w);
DEFINE_CLEANUP(struct wg *, wg_close)
const char *wg_error(const struct wg *w);
/* SET messages sent since wg_open(): for tests of "running twice sends nothing". */
uint64_t wg_changes_sent(const struct wg *w);

/* Makes the device, or adopts the one that is there. key: our private key, to recognise it (NULL:
 * by alias alone). -EEXIST: the name is taken by something that is not ours (wg_error() says what).
 * -EOPNOTSUPP: this kernel has no WireGuard. The link is left as it is (a new one: down). */
int wg_device_create(struct wg *w, const char *ifname, const struct key *private_key,
		     bool *ret_adopted);
/* The device of that name, for wg_device_delete(). -ENODEV: there is no WireGuard device of that name; -EEXIST: it is
 * not ours. */
int wg_device_find(struct wg *w, const char *ifname);
/* Whether nothing has that name any more, or another device. What cannot be found out is not so. */
bool wg_device_is_gone(struct wg *w, const char *ifname);
/* Deletes the device that wg_device_create() made or adopted. */
int wg_device_delete(struct wg *w);
unsigned int wg_ifindex(const struct wg *w);

struct wg_settings {
	const struct key *private_key;
	uint16_t port;
	uint32_t fwmark;
};
/* Sends what differs from actual, nothing if nothing does. -EADDRINUSE: the port is taken. */
int wg_set_device(struct wg *w, const struct wg_device *actual, const struct wg_settings *want);

/* All of it, peers sorted by key. Free with wg_device_done(). */
int wg_get_device(struct wg *w, struct wg_device *ret);
/* The same without keeping it: fn gets each peer once. A dump that a change spoils starts again:
 * begin (may be NULL) is called before each try. device may be NULL. */
int wg_dump(struct wg *w, struct wg_device *device, void (*begin)(void *data), wg_peer_fn *fn,
	    void *data);

/* Removals are the slow part (some 10 ms each, the whole host's rtnl lock held): at most
 * max_removals of them are sent, 0 = all. *ret_pos (may be NULL; start with zeros) tells where it
 * stopped, so that the rest can follow later. Returns 1 while something is left, 0 when done. */
int wg_apply(struct wg *w, const struct wg_plan *plan, size_t max_removals,
	     struct wg_encode_pos *ret_pos);

/* Fast path for one existing peer. Only on a change of mode: it clears the cached source. */
int wg_set_endpoint(struct wg *w, const struct key *peer, const struct endpoint *e);
/* Makes the kernel send to this peer now, which starts a handshake if there is no session. */
int wg_force_handshake(struct wg *w, const struct key *peer);
/* Removes one peer and adds it again, so that its sessions are gone: for a peer whose disco key
 * changed without warning (disco.md 18.10). */
int wg_reset_peer(struct wg *w, const struct wg_want *peer);
