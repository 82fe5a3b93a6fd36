#pragma once
/*
 * link: our interface's MTU, state, addresses and routes; the policy rules; a look at the host's
 * other interfaces; events of all of them. Over rtnetlink.
 *
 * The edge: each link_set_* reads what is (link_msg.h) and sends the difference (link_plan.h), so running
 * it twice sends nothing. A part that the kernel refuses (IPv6 switched off, say) does not stop the rest.
 * Never takes the link down on its own, never touches what does not carry our protocol number.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/kernel/link_plan.h"
#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define LINK_MTU 1280

struct link;

/* The interface exists already (wg.h). */
int link_open(const char *ifname, unsigned int ifindex, struct link **ret);
void link_close(struct link *l);
DEFINE_CLEANUP(struct link *, link_close)
/* Requests for a change sent since link_open(). */
uint64_t link_changes_sent(const struct link *l);
/* The kernel's words for the last failure. */
const char *link_error(const struct link *l);

/* Below: 0, or the first error met while everything else was done. */

/* MTU and administrative state up. */
int link_up(struct link *l, unsigned int mtu_bytes);
/* For a tunnel that nothing filters. Its routes go. */
int link_down(struct link *l);
/* Exactly these (as /32 and /128) shall be on our interface; new ones are added before old ones go. */
int link_set_addresses(struct link *l, const struct addr *wanted, size_t n);
/* Those that are there now. Free with free(). */
int link_addresses(struct link *l, struct addr **ret, size_t *ret_n);
/* Exactly these routes of ours shall be in the table, out of our interface. Any order. */
int link_set_routes(struct link *l, uint32_t table, const struct link_route *wanted, size_t n);
/* Exactly these rules of ours shall exist at priorities [base, base + LINK_RULES_ROOM). n = 0 removes ours. */
int link_set_rules(struct link *l, uint32_t base, const struct link_rule *wanted, size_t n);

/* None of ours shall be there, but what is of keep. */
int link_remove_rules(struct link *l, uint32_t base, const struct link_rule *keep, size_t n);

/* src_valid_mark = 1 on IPv4 interfaces with strict reverse path filtering (kernel.md 5), so that a
 * route in our table does not make the kernel drop the peers' outer packets. Not on ours, never on
 * "all". Needed while table 52 holds more than peers' own addresses. */
int link_fix_rp_filter(struct link *l);
/* Whether the host forwards packets of these families now (sysctl "all"). */
int link_forwarding(struct link *l, bool *ret_v4, bool *ret_v6);

struct link_local_addr {
	struct addr addr;
	uint8_t prefix_bits;
	unsigned int ifindex;
	bool running; /* it has a carrier */
	char ifname[16];
};
/* Addresses by which others may reach this host: interfaces that are up, without ours, loopback,
 * other overlays (zt*, wt0, tailscale*), link-local IPv6, tentative and overlay addresses. Free with free(). */
int link_local_addresses(struct link *l, struct link_local_addr **ret, size_t *ret_n);

struct link_path {
	unsigned int ifindex;
	struct addr source;  /* family 0: the kernel named none */
	struct addr gateway; /* family 0: on link */
};
/* The way a packet with this mark (0: none) takes. -ENETUNREACH, -EHOSTUNREACH: there is none. */
int link_lookup(struct link *l, const struct addr *to, uint32_t mark, struct link_path *ret);

/* Changes made by others. */
enum link_event {
	LINK_EVENT_ADDRESS = 1 << 0, /* some address came or went: gather endpoints again */
	LINK_EVENT_LINK = 1 << 1,    /* some interface came, went, got or lost carrier */
	LINK_EVENT_ROUTE = 1 << 2,   /* a route of ours was deleted */
	LINK_EVENT_RULE = 1 << 3,    /* a rule of ours was deleted: set them again */
	LINK_EVENT_FORWARDING = 1 << 4,
	LINK_EVENT_OURS = 1 << 5, /* our interface itself was deleted, set down or lost an address */
	LINK_EVENT_DEFAULT = 1 << 6, /* a default route came or went, or was only told again */
};
typedef void link_event_fn(void *data, unsigned int events);
/* Gathers events for 250 ms from the first one on, then calls fn once. What this link sent itself
 * is not reported. One watch for each link; ends with link_close(). */
int link_watch(struct link *l, struct loop *loop, link_event_fn *fn, void *data);
