#pragma once
/*
 * wg_msg: the module's generic netlink messages, built and read in memory (kernel.md 1.2–1.4).
 *
 * Pure: no socket, no clock. Reading a dump is a small machine, because the kernel splits a peer
 * with many allowed IPs over several records and messages.
 */
#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/key.h"

#define WG_ALLOWED_MAX	4096 /* prefixes of one peer that are kept */
#define WG_REMOVE_BATCH 8    /* peers removed by one message: each holds the rtnl lock (kernel.md 1.5) */

struct wg_peer {
	struct key key;
	struct endpoint endpoint; /* family 0: none */
	uint64_t rx_bytes, tx_bytes;
	int64_t handshake_wall_nsec; /* 0: never */
	uint16_t keepalive_sec;
	size_t n_allowed;
	struct prefix *allowed; /* sorted by prefix_cmp */
};

struct wg_device {
	char ifname[16];
	unsigned int ifindex;
	struct key private_key, public_key; /* private: wiped by wg_device_done() */
	uint16_t port;
	uint32_t fwmark;
	size_t n_peers;
	struct wg_peer *peers; /* sorted by key */
};

/* Gets each peer once, complete; its allowed array is borrowed. A negative result stops the dump. */
typedef int wg_peer_fn(void *data, const struct wg_peer *p);

struct wg_reader {
	struct wg_device *device; /* gets the device attributes; may be NULL */
	wg_peer_fn *fn;
	void *data;
	struct wg_peer peer; /* being put together */
	size_t allowed_cap;
	bool have_peer;
};

void wg_reader_init(struct wg_reader *r, struct wg_device *device, wg_peer_fn *fn, void *data);
/* A dump begins again: the half-read peer is forgotten. */
void wg_reader_restart(struct wg_reader *r);
/* One message of the dump (with its generic netlink header). -EBADMSG, -ENOMEM, -ENOBUFS, or what fn said. */
int wg_reader_message(struct wg_reader *r, const struct nlmsghdr *nlh);
/* The dump is over: gives the last peer. */
int wg_reader_end(struct wg_reader *r);
void wg_reader_done(struct wg_reader *r);

/* What is to change, in the order in which it is sent. */
enum wg_change_kind {
	WG_CHANGE_PEER,	       /* add (create) or update: fields by the set_* flags, prefixes are added */
	WG_CHANGE_DROP_PREFIX, /* take allowed[0] from the peer, without a gap for the others */
	WG_CHANGE_CLOSE,       /* all prefixes of the peer are taken away: it is to go, and that takes its time */
	WG_CHANGE_REMOVE,      /* the peer goes */
};

struct wg_change {
	enum wg_change_kind kind;
	bool create; /* false: UPDATE_ONLY */
	bool set_endpoint, set_keepalive;
	struct key key;
	struct endpoint endpoint;
	uint16_t keepalive_sec;
	size_t n_allowed;
	const struct prefix *allowed; /* borrowed */
};

/* Where the encoder is: change number and prefix within it. */
struct wg_encode_pos {
	size_t change, prefix;
};

struct wg_encode_how {
	uint16_t family_id;
	unsigned int ifindex;
	bool allowed_flags; /* the kernel knows WGALLOWEDIP_A_FLAGS */
	struct key scratch; /* key of the throw-away peer where it does not */
};

/* Fills one SET message of at most cap bytes from changes[pos->…] on, and moves pos. Stops before a
 * REMOVE that follows other kinds, and after max_removals of them. Returns the number of peers in
 * the message (0: nothing left). */
size_t wg_encode_changes(void *buf, size_t cap, const struct wg_encode_how *how,
			 const struct wg_change *changes, size_t n, size_t max_removals,
			 struct wg_encode_pos *pos, struct nlmsghdr **ret);
/* Fields to set are those with non-NULL pointers. */
struct nlmsghdr *wg_encode_device(void *buf, size_t cap, uint16_t family_id, unsigned int ifindex,
				  const struct key *private_key, const uint16_t *port,
				  const uint32_t *fwmark);
struct nlmsghdr *wg_encode_get(void *buf, size_t cap, uint16_t family_id, unsigned int ifindex);

void wg_device_done(struct wg_device *d);
static inline void wg_device_done_cleanup(struct wg_device *d)
{
	wg_device_done(d);
}
