#pragma once
/*
 * netmap: the network as the coordination server described it last, and what each message changed.
 *
 * Owns every node, the relay map, filter, DNS and users. Decides in pure functions over a given wall
 * clock; never touches kernel or network. Consumers keep node ids, not pointers: a node may be
 * replaced by any message. Identical content is no change (a server repeats itself n² times over n
 * joins), and a node whose text is the same byte for byte is not even parsed.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/cleanup.h"
#include "daemon/netmap/netmap_peers.h"
#include "proto/derpmap.h"
#include "proto/tailcfg.h"

/* What differs between two states of one node. */
enum netmap_aspect {
	NETMAP_KEY = 1 << 0,	   /* the WireGuard key: old_key has the former one */
	NETMAP_DISCO = 1 << 1,	   /* one disco key became another one: sessions are void */
	NETMAP_DISCO_SET = 1 << 2, /* none became one, or one none */
	NETMAP_ENDPOINTS = 1 << 3,
	NETMAP_HOME = 1 << 4,	   /* home relay */
	NETMAP_ADDRESSES = 1 << 5, /* own addresses */
	NETMAP_ALLOWED = 1 << 6,   /* what is routed to it */
	NETMAP_ONLINE = 1 << 7,	   /* the flag, or last seen */
	NETMAP_EXPIRED = 1 << 8,   /* expired or no longer, as far as now is known */
	NETMAP_KEY_EXPIRY = 1 << 9,
	NETMAP_NAME = 1 << 10,
	NETMAP_CAPS = 1 << 11, /* CapMap, jailed, authorized, wireguard-only */
	NETMAP_INFO = 1 << 12, /* what only people read: host information, tags, owner, version */
};

enum netmap_change_kind {
	NETMAP_ADDED,
	NETMAP_CHANGED,
	NETMAP_REMOVED,
};

struct netmap_peer_change {
	int64_t id;
	enum netmap_change_kind kind;
	unsigned int aspects; /* enum netmap_aspect; everything for an added one */
	struct key old_key;   /* before the change; zero for an added one */
};

struct netmap_changes {
	struct netmap_peer_change *peer;
	size_t n_peers;
	bool full;	   /* first map of a stream */
	unsigned int self; /* enum netmap_aspect */
	bool derp, dns, filter, users, domain, health;
	size_t n_skipped; /* entries that could not be read and were left out */
};

void netmap_changes_done(struct netmap_changes *c);
static inline void netmap_changes_done_cleanup(struct netmap_changes *c)
{
	netmap_changes_done(c);
}
/* Nothing for any consumer to do. */
bool netmap_changes_empty(const struct netmap_changes *c);

struct netmap_filter {
	char *name;
	uint8_t digest[16]; /* of its text */
	struct tailcfg_rules rules;
	bool leaving; /* during netmap_apply */
};

struct netmap {
	struct tailcfg_node *self; /* NULL before the first map */
	uint8_t self_digest[16];
	bool self_expired; /* as of the last netmap_apply or netmap_tick */
	struct netmap_peers peers;
	struct derp_map derp;
	struct netmap_filter *filters;
	size_t n_filters;
	char *dns_text; /* DNSConfig as it came; NULL = none */
	struct tailcfg_dns dns;
	struct tailcfg_user *users; /* sorted by id */
	size_t n_users;
	char *domain;
	char **health;
	size_t n_health;
	bool tailnet_lock;
	int64_t skew; /* server's clock minus ours, nanoseconds; 0 while it is within a minute */
	bool skew_known; /* the server has told its time in this run */
	bool stream_started;
	uint8_t derp_digest[16], dns_digest[16];
};

int netmap_new(struct netmap **ret);
void netmap_free(struct netmap *nm);
DEFINE_CLEANUP(struct netmap *, netmap_free)

/* A new stream: its first message replaces everything, and what is absent there is empty. Until it
 * comes the old map stays. */
void netmap_stream_begin(struct netmap *nm);

/*
 * Applies one message in the order of control.md 7.5. -EPROTO: the first message of a stream has no
 * usable Node, nothing was changed. -ENOMEM: partly applied; begin a new stream. Unreadable entries
 * are left out and counted. KeepAlive changes nothing. Takes lists out of m.
 */
int netmap_apply(struct netmap *nm, struct tailcfg_map_response *m, int64_t wall_now,
		 struct netmap_changes *ret);
/* Our clock was set: the server's, as far as we know it, was not. */
void netmap_clock_stepped(struct netmap *nm, int64_t by_nsec);
/* Lets keys expire that have had their time. Returns when to call again (Unix nanoseconds, by our
 * clock), 0 = not before the next message. */
int64_t netmap_tick(struct netmap *nm, int64_t wall_now, struct netmap_changes *ret);

/* ---- reading ---- */

static inline size_t netmap_n_peers(const struct netmap *nm)
{
	return nm->peers.n;
}
const struct tailcfg_node *netmap_peer_at(const struct netmap *nm, size_t i); /* in order of ids */
const struct tailcfg_node *netmap_peer_by_id(const struct netmap *nm, int64_t id);
const struct tailcfg_node *netmap_peer_by_key(const struct netmap *nm, const struct key *key);
/* Whose own address it is. Keeps what it needs to answer quickly, so the map is not const. */
const struct tailcfg_node *netmap_peer_by_addr(struct netmap *nm, const struct addr *a);
const struct tailcfg_user *netmap_user(const struct netmap *nm, int64_t id);

/* Expired by word of the server or by the clock. */
bool netmap_peer_expired(const struct netmap *nm, const struct tailcfg_node *n);
/* Not expired, and reachable in principle: a disco key, or plain WireGuard (control.md 8.1). */
bool netmap_peer_usable(const struct netmap *nm, const struct tailcfg_node *n);

/* MagicDNS suffix: own name without its first label, without the trailing dot. "" = none. */
const char *netmap_suffix(const struct netmap *nm, char *out, size_t max);

/* ---- cache on disk ---- */

#define NETMAP_BYTES_MAX (UINT64_C(128) << 20) /* the file */

/* What the file holds. server_url and self's key tell whose map it is. */
int netmap_encode(const struct netmap *nm, const char *server_url, struct buf *out);
/* -ENOENT, -EBADMSG, -EPROTONOSUPPORT (another version), -ESTALE (another server or node key). The
 * map is as if just received; everybody's online flag is unknown. */
int netmap_load(const char *path, const char *server_url, const struct key *node_key,
		int64_t wall_now, struct netmap **ret);
/* Its pure half, for tests. */
int netmap_decode(struct json_slice text, const char *server_url, const struct key *node_key,
		  int64_t wall_now, struct netmap **ret);
