#pragma once
/*
 * link_msg: rtnetlink's messages about addresses, links, routes and rules, read and built in memory.
 *
 * Pure: no socket. For link.c, whose the requests are.
 */
#include <libmnl/libmnl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/kernel/link.h"
#include "daemon/kernel/link_plan.h"
#include "lib/addr.h"

struct link_addr_record {
	struct addr addr;
	uint8_t bits;
	unsigned int ifindex;
	uint32_t flags;
};

struct link_record {
	unsigned int ifindex, flags;
	uint32_t mtu;
	uint32_t rp_filter, src_valid_mark;
	char name[IF_NAMESIZE];
};

struct link_route_record {
	struct link_route route; /* first: link_route_cmp() orders these too */
	uint32_t table;
};

/* False: malformed, or nothing that we know. */
bool link_msg_read_address(const struct nlmsghdr *nlh, struct link_addr_record *ret);
bool link_msg_read_link(const struct nlmsghdr *nlh, struct link_record *ret);
bool link_msg_read_route(const struct nlmsghdr *nlh, struct link_route_record *ret, unsigned int *ret_oif,
			 uint8_t *ret_protocol);
bool link_msg_read_rule(const struct nlmsghdr *nlh, struct link_rule *ret, uint8_t *ret_protocol);
/* For netlink_request(): data is uint32_t[NETCONFA_MAX + 1], and the struct link_path that a route leads to. */
int link_msg_read_netconf(void *data, const struct nlmsghdr *nlh);
int link_msg_read_path(void *data, const struct nlmsghdr *nlh);

/* Each fills an empty message: type RTM_NEW* or RTM_DEL*, flags but for those of every request. */
void link_msg_put_address(struct nlmsghdr *nlh, unsigned int ifindex, const struct prefix *p, uint16_t type,
			  uint16_t flags);
void link_msg_put_route(struct nlmsghdr *nlh, unsigned int ifindex, const struct link_route_record *p,
			uint16_t type, uint16_t flags);
void link_msg_put_rule(struct nlmsghdr *nlh, const struct link_rule *r, uint16_t type, uint16_t flags);
