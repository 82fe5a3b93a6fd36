#pragma once
/*
 * tailcfg: the JSON of the coordination protocol as a node speaks it (register, map), and back.
 *
 * Pure: text in, structs out. Every struct owns its memory unless it says "borrows", and every list
 * has a limit: what is beyond is dropped or refused before it costs memory. A map answer is decoded
 * at its top level only: nodes, relays and DNS stay slices of the caller's text, to be decoded one
 * by one, so that ten thousand peers never stand in memory twice.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/json.h"
#include "lib/jsonscan.h"
#include "lib/key.h"

#define TAILCFG_CAP_VERSION 131

#define TAILCFG_PEERS_MAX	 100000
#define TAILCFG_USERS_MAX	 100000
#define TAILCFG_PREFIXES_MAX	 4096	/* of one node, for each list */
#define TAILCFG_ENDPOINTS_MAX	 64	/* of one node, kept; the rest is dropped */
#define TAILCFG_TAGS_MAX	 256
#define TAILCFG_NAME_MAX	 255
#define TAILCFG_TEXT_MAX	 1024	/* names of people, error texts: cut there */
#define TAILCFG_URL_MAX		 2048
#define TAILCFG_CAPMAP_MAX	 65536	/* bytes of raw JSON kept */
#define TAILCFG_FILTERS_MAX	 256	/* named entries of PacketFilters in one message */
#define TAILCFG_RULES_MAX	 20000
#define TAILCFG_RULE_ENTRIES_MAX 200000 /* sources and destinations of one named filter together */
#define TAILCFG_HEALTH_MAX	 64
#define TAILCFG_NODE_TEXT_MAX	 (UINT64_C(1) << 20)
#define TAILCFG_MAP_TEXT_MAX	 (UINT64_C(256) << 20)
#define TAILCFG_REGISTER_TEXT_MAX (UINT64_C(1) << 20)

enum tailcfg_tristate {
	TAILCFG_UNKNOWN,
	TAILCFG_NO,
	TAILCFG_YES,
};

/* ---- nodes ---- */

struct tailcfg_node {
	int64_t id;
	int64_t user;
	char *stable_id; /* "" when absent; strings are never NULL */
	char *name;	 /* lower-case name with its trailing dot, as sent; odd characters as '-' */
	struct key key, machine, disco;
	int64_t key_expiry; /* Unix nanoseconds; 0 = never */
	int64_t created;
	int64_t last_seen; /* 0 = unknown */
	struct prefix *addresses, *allowed_ips, *primary_routes;
	size_t n_addresses, n_allowed_ips, n_primary_routes;
	bool allowed_same; /* AllowedIPs equals Addresses and is not stored: tailcfg_node_allowed() */
	struct endpoint *endpoints;
	size_t n_endpoints;
	int home_derp; /* 0 = unknown */
	int cap;
	char **tags;
	size_t n_tags;
	char *capmap; /* raw JSON object, or NULL */
	char *hostname, *os, *client; /* of Hostinfo: Hostname, OS, IPNVersion */
	bool exit_dns;		      /* Hostinfo.Services has peerapi-dns-proxy */
	enum tailcfg_tristate online;
	bool machine_authorized, expired, wireguard_only, jailed, unsigned_peerapi_only;
};

int tailcfg_node_decode(struct json_slice text, struct tailcfg_node **ret);
/* Appends the node as JSON that decodes to the same struct. 0 or -ENOMEM. */
int tailcfg_node_encode(const struct tailcfg_node *n, struct buf *out);
void tailcfg_node_free(struct tailcfg_node *n);
DEFINE_CLEANUP(struct tailcfg_node *, tailcfg_node_free)

/* What is routed to the node: AllowedIPs, which are the Addresses where they are absent. */
const struct prefix *tailcfg_node_allowed(const struct tailcfg_node *n, size_t *ret_n);
/* Presence of a capability in CapMap (parses the raw text). */
bool tailcfg_node_has_cap(const struct tailcfg_node *n, const char *cap);

enum tailcfg_patch_has {
	TAILCFG_PATCH_DERP = 1 << 0,
	TAILCFG_PATCH_CAP = 1 << 1,
	TAILCFG_PATCH_CAPMAP = 1 << 2,
	TAILCFG_PATCH_ENDPOINTS = 1 << 3,
	TAILCFG_PATCH_KEY = 1 << 4,
	TAILCFG_PATCH_DISCO = 1 << 5,
	TAILCFG_PATCH_ONLINE = 1 << 6,
	TAILCFG_PATCH_LAST_SEEN = 1 << 7,
	TAILCFG_PATCH_KEY_EXPIRY = 1 << 8,
};

struct tailcfg_peer_change {
	int64_t node_id;
	unsigned int has; /* enum tailcfg_patch_has */
	int derp_region, cap;
	char *capmap;
	struct endpoint *endpoints;
	size_t n_endpoints;
	struct key key, disco;
	bool online;
	int64_t last_seen, key_expiry;
};

/* Changes n as the patch says; takes the patch's lists. A Key without KeyExpiry means "not expired". */
void tailcfg_node_patch(struct tailcfg_node *n, struct tailcfg_peer_change *p);

/* ---- packet filter ---- */

enum tailcfg_net_kind {
	TAILCFG_NET_ANY,   /* both families */
	TAILCFG_NET_RANGE, /* lo..hi, inclusive, one family */
	TAILCFG_NET_CAP,   /* sources only: peers whose CapMap has it */
};

struct tailcfg_net {
	enum tailcfg_net_kind kind;
	struct addr lo, hi;
	char *cap;
};

struct tailcfg_dst {
	struct tailcfg_net net;
	uint16_t first, last; /* ports, inclusive */
};

struct tailcfg_rule {
	struct tailcfg_net *src;
	size_t n_src;
	struct tailcfg_dst *dst;
	size_t n_dst;
	bool proto_default; /* TCP, UDP, ICMP, ICMPv6 */
	uint8_t *proto;	    /* else these; none of them = matches nothing */
	size_t n_proto;
	bool cap_grant; /* application capabilities: opens no packets */
};

struct tailcfg_rules {
	struct tailcfg_rule *rule;
	size_t n;
	size_t n_skipped; /* entries that could not be read: they allow nothing */
};

/* A list of FilterRule; null and [] give none. Unreadable entries are skipped and counted. */
int tailcfg_rules_decode(struct json_slice text, struct tailcfg_rules *ret);
int tailcfg_rules_encode(const struct tailcfg_rules *r, struct buf *out);
void tailcfg_rules_done(struct tailcfg_rules *r);
static inline void tailcfg_rules_done_cleanup(struct tailcfg_rules *r)
{
	tailcfg_rules_done(r);
}
/* The rule lets its sources go everywhere: all addresses and ports, the default protocols or more. */
bool tailcfg_rule_opens_all(const struct tailcfg_rule *r);
/* All of p (masked) lies in one of the rule's sources. Sources named by a capability have no address here. */
bool tailcfg_rule_has_source(const struct tailcfg_rule *r, const struct prefix *p);

/* ---- DNS, users ---- */

struct tailcfg_dns_route {
	char *suffix;	  /* without leading or trailing dot */
	char **resolvers; /* none: answer this suffix locally */
	size_t n_resolvers;
};

struct tailcfg_dns {
	bool proxied; /* MagicDNS */
	char **resolvers, **domains;
	size_t n_resolvers, n_domains;
	struct tailcfg_dns_route *routes;
	size_t n_routes;
};

int tailcfg_dns_decode(struct json_slice text, struct tailcfg_dns *ret);
void tailcfg_dns_done(struct tailcfg_dns *d);

struct tailcfg_user {
	int64_t id;
	char *login, *display, *picture;
};

void tailcfg_user_done(struct tailcfg_user *u);
int tailcfg_user_encode(const struct tailcfg_user *u, struct buf *out);

/* ---- map answer ---- */

struct tailcfg_ping {
	char *url;
	bool over_noise;
	char *types; /* "" = HEAD ping, "c2n", ... */
	char *payload; /* base64 text, c2n only; NULL when absent */
};

struct tailcfg_flag {
	int64_t node_id;
	bool on;
};

struct tailcfg_named_filter {
	char *name;
	struct json_slice text; /* borrowed; null deletes */
};

struct tailcfg_map_response {
	bool keep_alive;
	struct tailcfg_ping *ping;
	char *browse_url;     /* PopBrowserURL, checked, or NULL */
	int64_t control_time; /* 0 = absent */

	/* Slices of the text given to the decoder; p is NULL for absent and for null. */
	struct json_slice node, derp_map, dns, packet_filter, display_messages;
	struct json_slice *peers, *peers_changed;
	size_t n_peers, n_peers_changed;

	int64_t *peers_removed;
	size_t n_peers_removed;
	struct tailcfg_flag *seen, *online;
	size_t n_seen, n_online;
	struct tailcfg_peer_change *patches;
	size_t n_patches;

	bool filters_clear; /* PacketFilters had "*": null */
	struct tailcfg_named_filter *filters;
	size_t n_filters;

	struct tailcfg_user *users;
	size_t n_users;
	char *domain; /* NULL = unchanged */
	bool has_health;
	char **health;
	size_t n_health;
	bool tailnet_lock; /* TKAInfo present and not disabled */
	bool tka_off;	   /* present and disabled */
	size_t n_skipped;  /* list entries that could not be read */
};

/* The text has to live as long as the result. -EBADMSG, -ENOBUFS (a list over its limit), -ENOMEM. */
int tailcfg_map_decode(struct json_slice text, struct tailcfg_map_response *ret);
void tailcfg_map_done(struct tailcfg_map_response *m);
static inline void tailcfg_map_done_cleanup(struct tailcfg_map_response *m)
{
	tailcfg_map_done(m);
}

/* ---- requests ---- */

struct tailcfg_latency {
	int region;
	int family; /* 4, 6 */
	uint32_t usec;
};

struct tailcfg_netinfo {
	int preferred_derp; /* 0: NetInfo is not sent at all (control.md 8.3) */
	enum tailcfg_tristate mapping_varies, working_ipv6, os_has_ipv6, working_udp, working_icmpv4;
	enum tailcfg_tristate upnp, pmp, pcp;
	struct tailcfg_latency latency[64];
	size_t n_latency;
};

struct tailcfg_hostinfo {
	char *hostname, *client_version, *os, *os_version, *distro, *distro_version, *distro_codename;
	char *machine, *package;
	struct prefix *routable_ips;
	size_t n_routable_ips;
	char **request_tags;
	size_t n_request_tags;
	bool shields_up;
	struct tailcfg_netinfo net;
};

int tailcfg_hostinfo_copy(const struct tailcfg_hostinfo *h, struct tailcfg_hostinfo *ret);
void tailcfg_hostinfo_done(struct tailcfg_hostinfo *h);
/* The same text for the same content, so that texts can be compared. */
int tailcfg_hostinfo_encode(const struct tailcfg_hostinfo *h, struct buf *out);

struct tailcfg_register_request {
	int version;
	struct key node_key, old_node_key;
	const char *auth_key; /* a secret; the caller wipes out */
	const char *followup;
	bool logout; /* Expiry far in the past */
	bool ephemeral;
	const struct tailcfg_hostinfo *hostinfo;
};

/* -EINVAL for an auth key or URL with characters that no key or URL has. */
int tailcfg_register_encode(const struct tailcfg_register_request *q, struct buf *out);

struct tailcfg_register_response {
	char *error; /* "" = none */
	char *auth_url;
	bool node_key_expired, machine_authorized, wants_signature;
	struct tailcfg_user user; /* login from Login, else empty */
};

int tailcfg_register_decode(struct json_slice text, struct tailcfg_register_response *ret);
void tailcfg_register_done(struct tailcfg_register_response *r);
static inline void tailcfg_register_done_cleanup(struct tailcfg_register_response *r)
{
	tailcfg_register_done(r);
}

enum tailcfg_endpoint_type {
	TAILCFG_ENDPOINT_UNKNOWN = 0,
	TAILCFG_ENDPOINT_LOCAL = 1,
	TAILCFG_ENDPOINT_STUN = 2,
	TAILCFG_ENDPOINT_PORTMAPPED = 3,
	TAILCFG_ENDPOINT_STUN4_LOCAL_PORT = 4,
	TAILCFG_ENDPOINT_CONFIGURED = 5,
};

struct tailcfg_endpoint {
	struct endpoint ep;
	enum tailcfg_endpoint_type type;
};

struct tailcfg_map_request {
	int version;
	bool stream; /* else a lite update: OmitPeers */
	struct key node_key, disco_key;
	bool has_endpoints; /* false: absent (keep), true with none: clear */
	const struct tailcfg_endpoint *endpoints;
	size_t n_endpoints;
	const struct tailcfg_hostinfo *hostinfo;
};

int tailcfg_map_encode(const struct tailcfg_map_request *q, struct buf *out);

/* GET /key: the server's Noise key. -EBADMSG, -EPROTONOSUPPORT for a zero key. */
int tailcfg_server_key_decode(struct json_slice text, struct key *ret);

/* Makes room for one more element of a malloc'ed array of n. -ENOBUFS at max, -ENOMEM. An array that
 * has become empty by other means than freeing is freed first. */
int tailcfg_grow(void *array_p, size_t n, size_t max, size_t element_bytes);

/* Text from outside for one line of log or terminal: a copy, cut at max, control characters as '?'.
 * NULL gives "". NULL on -ENOMEM only. */
char *tailcfg_text(const char *s, size_t max);
/* http(s), printable, without spaces or quotes, within TAILCFG_URL_MAX. */
bool tailcfg_url_ok(const char *url);
