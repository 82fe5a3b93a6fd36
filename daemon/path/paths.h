#pragma once
/*
 * paths: the paths to all peers: who they are, their disco messages, their timers.
 *
 * Owns the table of peers, the shared keys and the active paths (path.h). Borrows sockets, relays,
 * kernel and clock through struct paths_ops: it makes no system call and asks for no time, so two
 * engines can be wired back to back in a test. Not thread-safe. Callbacks must not call back into
 * paths_*(), except from paths_ping_fn into paths_ping_cancel().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/path/path.h"
#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/key.h"

#define PATHS_PEERS_MAX	    (1U << 20)
#define PATHS_ENDPOINTS_MAX 32 /* of one peer's list */
#define PATHS_REASON_MAX    128
#define PATHS_DUMP_USEC	    UINT64_C(3000000) /* between dumps while some path is direct */
#define PATHS_FRESH_USEC                                                                           \
	UINT64_C(27000000) /* our endpoints may be sent without a new STUN round  \
					     */

struct paths_ops {
	/* From our WireGuard port; from NULL = the kernel chooses. Negative errno when not sent. */
	int (*send_udp)(void *data, const struct endpoint *to, const struct addr *from,
			const void *p, size_t len);
	/* Negative errno when that region cannot be reached now; queueing while it connects is
	 * success. */
	int (*send_derp)(void *data, uint16_t region, const struct key *dst, const void *p,
			 size_t len);
	/* Program the kernel; e NULL = the peer's relay address. UPDATE_ONLY, nothing but the
	 * endpoint. */
	void (*set_endpoint)(void *data, uint32_t id, const struct endpoint *e);
	/* Our own endpoints are stale: take a new round, then paths_set_own_endpoints(). */
	void (*restun)(void *data);
	/* Read the kernel's counters soon (not from within), then paths_counters() for every peer.
	 */
	void (*dump)(void *data);
	/* For the log and status; why is path_event_name(). May be NULL. */
	void (*changed)(void *data, uint32_t id, enum path_state old, enum path_state now,
			const char *why);
	/* A region's short name, for words only. NULL, or NULL from it: the number is taken. */
	const char *(*region_code)(void *data, uint16_t region);
	/* Call paths_tick() then; only the last call counts. UINT64_MAX = no need. */
	void (*wake)(void *data, uint64_t when_usec);
};

struct paths;

int paths_new(const struct paths_ops *ops, void *data, struct paths **ret);
void paths_free(struct paths *p);
DEFINE_CLEANUP(struct paths *, paths_free)

/* A changed disco pair forgets all shared keys and outstanding pings; paths stay. */
void paths_set_self(struct paths *p, const struct key_pair *disco, const struct key *node_pub,
		    uint64_t now);
/* What a CallMeMaybe says. Also after a round without a change: it makes the list fresh. */
void paths_set_own_endpoints(struct paths *p, const struct endpoint *v, size_t n, uint64_t now);
/* netcheck's finding, for the words of status only. */
void paths_set_udp_works(struct paths *p, bool works);

struct paths_peer_config {
	uint32_t id; /* the caller's number, also of its relay address */
	struct key node;
	struct key disco; /* zero = none known: relay only */
	uint16_t home;	  /* region; 0 = none */
	const struct endpoint *endpoints;
	size_t n_endpoints; /* what is beyond PATHS_ENDPOINTS_MAX is left out */
};

enum {
	PATHS_PEER_SAME, /* updated, the kernel's session is good */
	PATHS_PEER_NEW,
	PATHS_PEER_RESET, /* its disco key changed: it restarted; remove and re-add the kernel's
			     peer */
};
/* One of the above, or -ENOMEM, -ENOBUFS, -EEXIST (the node key belongs to another id). */
int paths_peer_set(struct paths *p, const struct paths_peer_config *c, uint64_t now);
void paths_peer_remove(struct paths *p, uint32_t id);
/* The peer told its disco key itself, inside the tunnel: no reset, now or when the map says so too.
 */
int paths_peer_disco_key(struct paths *p, uint32_t id, const struct key *disco, uint64_t now);
/* False for a message inside the tunnel beyond what one peer needs: it can send any number of them. */
bool paths_tsmp_allowed(struct paths *p, uint32_t id, uint64_t now);

/* ---- input ---- */

/* True when it was disco (valid or not), else not ours. to_local: the address it was sent to. */
bool paths_udp_received(struct paths *p, const struct endpoint *from, const struct addr *to_local,
			const void *buf, size_t len, uint64_t now);
/* True when it was disco. Else it is WireGuard's: deliver it as paths_deliver_how() says. */
bool paths_derp_received(struct paths *p, uint16_t region, const struct key *src, const void *buf,
			 size_t len, uint64_t now);
/* A relay says that src is not there (any more). */
void paths_peer_gone(struct paths *p, uint16_t region, const struct key *src);
/* Addresses, routes or links of the host changed: what is in use may be dead. */
void paths_link_changed(struct paths *p, uint64_t now);
/* There are more of them: what is in use stays, and other ways are tried at once. */
void paths_link_added(struct paths *p, uint64_t now);
/* From a dump of the kernel, also in the middle of it: set_endpoint() comes with the next tick. Unknown
 * ids are ignored. */
void paths_counters(struct paths *p, uint32_t id, const struct path_counters *c, uint64_t now);
void paths_tick(struct paths *p, uint64_t now);

/* ---- the relay shuttle ---- */

struct paths_send {
	uint16_t region; /* 0 = no relay is known for it */
	struct key dst;
	bool copy; /* send it to `to` by UDP as well, from our WireGuard port */
	struct endpoint to;
	struct addr from; /* family 0 = any */
};
/* For each packet that the kernel sent to the relay address; also the trigger of everything.
 * -ENOENT for an unknown id. */
int paths_send_how(struct paths *p, uint32_t id, uint64_t now, struct paths_send *ret);

struct paths_deliver {
	uint32_t id;
	bool inject; /* with src as source and dst as destination; else from the relay address */
	struct endpoint src; /* what the kernel has as endpoint */
	struct addr dst;     /* our address on that path */
};
/* That packet was sent by relay. */
void paths_relayed_sent(struct paths *p, uint32_t id, const uint8_t *buf, size_t len, uint64_t now);
/* False for a packet that the kernel must not see: not a peer's, a handshake beyond what one peer
 * makes (a relay can put any number of them in anybody's name), or one that crosses ours. */
bool paths_relayed_allowed(struct paths *p, const struct key *src, const uint8_t *buf, size_t len,
			   uint64_t now);
/* For each WireGuard packet that came by relay. -ENOENT: not from a peer, drop it. */
int paths_deliver_how(struct paths *p, uint16_t region, const struct key *src, uint64_t now,
		      struct paths_deliver *ret);
/* A packet could not be sent by that region (or could again). */
void paths_relay_state(struct paths *p, uint16_t region, bool reachable);

/* ---- asking ---- */

/* pong NULL: the time is over. */
struct paths_pong {
	bool relayed;
	uint16_t region;
	struct endpoint from; /* the address that was pinged */
	uint64_t latency_usec;
};
typedef void paths_ping_fn(void *data, const struct paths_pong *pong);
/* One round of pings: by the trusted path alone, else by all addresses and the relay. fn is called
 * for each pong, and once with NULL after PATH_PING_USEC or from paths_free(). Returns a handle (> 0); -ENOENT,
 * -ENOBUFS, -ENOKEY (the peer has no disco key). */
int paths_ping(struct paths *p, uint32_t id, paths_ping_fn *fn, void *data, uint64_t now);
void paths_ping_cancel(struct paths *p, int handle);

struct paths_status {
	enum path_state state;
	bool active;		       /* traffic in the last 45 s */
	struct endpoint current;       /* family 0 = by relay */
	uint16_t region;	       /* by which it is reached */
	uint64_t latency_usec;	       /* of the direct path; 0 = not measured */
	uint64_t last_pong;	       /* 0 = never */
	char reason[PATHS_REASON_MAX]; /* why it is not direct, or what is wrong; "" = nothing to
					  say */
};
int paths_peer_status(const struct paths *p, uint32_t id, uint64_t now, struct paths_status *ret);
bool paths_peer_by_key(const struct paths *p, const struct key *node, uint32_t *ret_id);
size_t paths_count(const struct paths *p);
/* Some peer had traffic in the last 45 s: then STUN is repeated (netcheck.h). */
bool paths_any_active(const struct paths *p, uint64_t now);
