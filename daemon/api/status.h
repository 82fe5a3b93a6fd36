#pragma once
/*
 * status: the daemon's state as the JSON that `wgctl status --json` prints.
 *
 * Pure: borrowed narrow structs in, JSON out. The keys are those of stock's ipnstate (scripts read
 * them), "schema": 1, and ours beside them: Path, LatencySeconds, Reason for each peer;
 * PacketFilter, HomeRelay for the node. Peers come one by one from a callback and go out one by one,
 * so that a big map never stands in memory as a tree.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/buf.h"
#include "lib/key.h"

#define API_SCHEMA 1

enum api_backend_state {
	API_STATE_NO_STATE,	 /* "NoState" */
	API_STATE_NEEDS_LOGIN,	 /* "NeedsLogin" */
	API_STATE_NEEDS_MACHINE_AUTH,
	API_STATE_STOPPED,
	API_STATE_STARTING,
	API_STATE_RUNNING,
};
const char *api_backend_state_name(enum api_backend_state s);

enum api_path {
	API_PATH_NONE,	   /* nothing flows and nothing is tried: "none" */
	API_PATH_RELAY,	   /* "relay" */
	API_PATH_DIRECT,   /* "direct" */
	API_PATH_DOUBTFUL, /* direct, but pongs are missing: "doubtful" */
};
const char *api_path_name(enum api_path p);

/* All pointers are borrowed: until the next peer is asked for (peers), else until the builder returns.
 * NULL strings are written as "". Times are Unix nanoseconds, 0 = never. */
struct api_status_peer {
	struct key pub;
	int64_t node_id; /* 0: in no map yet */
	const char *stable_id, *hostname, *os;
	const char *dns_name; /* FQDN, with or without the dot at the end */
	int64_t user_id;
	const struct addr *addrs;
	size_t n_addrs;
	const struct prefix *allowed;
	size_t n_allowed;
	const struct prefix *primary_routes;
	size_t n_primary_routes;
	const struct endpoint *endpoints; /* candidates ("Addrs") */
	size_t n_endpoints;
	const char *const *tags;
	size_t n_tags;
	struct endpoint current; /* direct endpoint in use; family 0 = none */
	const char *relay;	 /* code of its home region */
	uint64_t rx_bytes, tx_bytes;
	int64_t created, last_write, last_seen, last_handshake, key_expiry;
	bool online, exit_node, exit_node_option, active, expired;
	bool in_engine; /* the kernel has it */
	enum api_path path;
	uint64_t latency_usec; /* of the path in use; 0 = not measured */
	const char *reason;    /* why it is not direct, or what is wrong; NULL = nothing to say */
};

struct api_status_user {
	int64_t id;
	const char *login_name, *display_name, *profile_pic_url;
};

/* What the packet filter lets in. */
enum api_filter {
	API_FILTER_NONE,	 /* no map yet: "none" */
	API_FILTER_ALLOW_ALL,	 /* "allow-all" */
	API_FILTER_ENFORCED,	 /* "enforced" */
	API_FILTER_REPLIES_ONLY, /* not understood, so replies only: "replies-only" */
};

struct api_status_input {
	const char *version; /* the daemon's */
	enum api_backend_state state;
	bool have_node_key;
	const char *auth_url;
	const char *tailnet_name, *magic_dns_suffix;
	bool magic_dns_enabled;
	const char *login_server, *interface;
	uint16_t port; /* UDP port of WireGuard */
	const char *const *health; /* one sentence each, worst first */
	size_t n_health;
	enum api_filter filter;
	const char *filter_reason; /* one sentence when it is REPLIES_ONLY */
	int home_relay_id;	   /* 0 = none chosen */
	const char *home_relay_code;
	bool home_relay_connected;
	bool control_connected;
	bool have_self; /* in the map; before that, self has a key, a host name and an OS at most */
	struct api_status_peer self;
	size_t n_users;
	const struct api_status_user *users;
	/* Peers by index, in any order; false = leave this one out. */
	size_t n_peers;
	bool (*peer)(void *data, size_t i, struct api_status_peer *ret);
	void *data;
};

/* That the node key expires soon (within a week), and what to do; false: there is nothing to say. Times in Unix
 * nanoseconds; expiry 0 = never. */
bool api_expiry_health(int64_t expiry, int64_t now, char *ret, size_t max);
/* One peer's object, without its key in Peer{}. NULL without memory. */
json_t *api_status_peer_json(const struct api_status_peer *p);
/* The whole document, compact. hide_auth_url: for who may not log the node in. -ENOMEM,
 * -ENOBUFS. */
int api_status_write(const struct api_status_input *in, bool with_peers, bool hide_auth_url,
		     struct buf *out);
/* What `whois` and derper's admission ask: { "schema":1, "Node":{…}, "UserProfile":{…},
 * "CapMap":{} }; user may be NULL. */
json_t *api_whois_json(const struct api_status_peer *p, const struct api_status_user *user);
