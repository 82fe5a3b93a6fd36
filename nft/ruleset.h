#pragma once
/*
 * ruleset: what our nftables table has to contain, from what the node needs.
 *
 * Pure: configuration in, chains of rules out, and their text in nft's own syntax (for golden files
 * and for people). A chain exists only while something needs it, and in each the cheap test that
 * lets most packets go comes first: every rule is paid for by every packet (docs/design.md).
 * Turning rules into netlink is batch.h, talking to the kernel reconcile.h.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/buf.h"

#define NFT_TABLE	 "kernscale"
#define NFT_NAME_MAX	 40
#define NFT_EXPRS_MAX	 12
#define NFT_RULES_MAX	 48
#define NFT_CHAINS_MAX	 8
#define NFT_SETS_MAX	 2
#define NFT_PEERS_MAX	 200000
#define NFT_OWN_MAX	 8
#define NFT_FORWARD_MARK 0x40000U /* arrived by the tunnel, may be masqueraded */

enum nft_filter {
	NFT_FILTER_REPLIES_ONLY, /* what is not known to be allowed: answers to ours alone come in */
	NFT_FILTER_ALLOW_ALL,	 /* the policy lets every peer reach every port of this host */
};

struct nft_config {
	char table[NFT_NAME_MAX];
	char ifname[16];
	unsigned int ifindex;

	uint16_t port;	       /* P: WireGuard, disco and STUN */
	uint16_t private_port; /* Q: the daemon's transparent socket */
	bool share_port;       /* give disco and STUN on P to Q */
	bool rewrite_source;   /* what Q sends leaves from P (not needed where it is sent raw) */
	uint32_t mark, mark_mask;

	enum nft_filter filter;
	bool forwarding; /* the host forwards: answers to what it forwards into the tunnel pass */
	bool gateway;	 /* peers may reach what is behind this host */
	bool masquerade; /* … with this host's address */
	bool clamp_mss;	 /* of what is forwarded through the tunnel */
	bool mark_inbound; /* P's packets get the mark, for strict reverse path filters (kernel.md 5) */
	uint16_t relay_port; /* not 0: the relay loopback is kept out of connection tracking */

	bool own_only;		/* from the tunnel nothing comes in but what is for our own addresses; not on a gateway */
	const struct addr *own; /* … which are these; none: nothing at all */
	size_t n_own;
	const struct addr *peers; /* addresses that only the tunnel may bring; sorted by addr_cmp */
	size_t n_peers;
};

enum nft_expr_kind {
	/* tests */
	NFT_EXPR_IIF,	  /* a: ifindex; not */
	NFT_EXPR_OIF,	  /* a: ifindex */
	NFT_EXPR_IIF_LO,  /* by name: its index is the same everywhere, but that is no promise */
	NFT_EXPR_OIF_LO,
	NFT_EXPR_NFPROTO, /* a: 4, 6 */
	NFT_EXPR_L4PROTO, /* a */
	NFT_EXPR_DPORT,	  /* a, UDP */
	NFT_EXPR_SPORT,
	NFT_EXPR_PAYLOAD, /* a: bytes behind the transport header's start, data[len]; not */
	NFT_EXPR_LOCAL,	  /* the destination is an address of this host */
	NFT_EXPR_MARK,	  /* (mark & b) == a */
	NFT_EXPR_CT_REPLY, /* established or related */
	NFT_EXPR_SADDR_IN, /* a: 4, 6; name: set */
	NFT_EXPR_DADDR,	   /* addr */
	NFT_EXPR_TCP_SYN,
	/* actions */
	NFT_EXPR_SET_MARK,  /* mark = (mark & ~b) | a */
	NFT_EXPR_SET_SPORT, /* a */
	NFT_EXPR_TPROXY,    /* a: 4, 6; b: port */
	NFT_EXPR_CLAMP_MSS,
	NFT_EXPR_MASQUERADE,
	NFT_EXPR_NOTRACK,
	NFT_EXPR_JUMP, /* name: chain */
	NFT_EXPR_ACCEPT,
	NFT_EXPR_DROP,
};

struct nft_expr {
	enum nft_expr_kind kind;
	bool negate;
	uint32_t a, b;
	uint8_t len, data[8];
	const char *name;	 /* a constant */
	const struct addr *addr; /* borrowed from the configuration */
};

struct nft_rule {
	size_t n;
	struct nft_expr e[NFT_EXPRS_MAX];
};

enum nft_hook {
	NFT_HOOK_NONE, /* no base chain: jumped to */
	NFT_HOOK_PREROUTING,
	NFT_HOOK_INPUT,
	NFT_HOOK_FORWARD,
	NFT_HOOK_OUTPUT,
	NFT_HOOK_POSTROUTING,
};

struct nft_chain {
	const char *name;
	enum nft_hook hook;
	bool nat; /* type nat, else filter */
	int32_t priority;
	size_t first, n; /* of the rules */
};

struct nft_set {
	const char *name;
	uint8_t family;
	const struct addr *addrs; /* borrowed from the configuration */
	size_t n;
};

struct nft_ruleset {
	char table[NFT_NAME_MAX];
	char ifname[16];
	size_t n_sets, n_chains, n_rules;
	struct nft_set sets[NFT_SETS_MAX];
	struct nft_chain chains[NFT_CHAINS_MAX]; /* those jumped to before those that jump */
	struct nft_rule rules[NFT_RULES_MAX];
};

/* -EINVAL: names that are no names, peers not sorted; -ENOBUFS: more than NFT_PEERS_MAX or NFT_OWN_MAX. */
int nft_ruleset_make(const struct nft_config *c, struct nft_ruleset *ret);
/* Appends what `nft -f` would take. elements: with the members of the sets. */
void nft_ruleset_text(const struct nft_ruleset *r, bool elements, struct buf *out);
