/*
 * Addresses, links, routes and rules as the kernel tells them: any bytes as netlink messages. What was read of a
 * route or a rule is written as we would, and read again.
 *
 * max_len: 4096
 */
#include <libmnl/libmnl.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/kernel/link_msg.h"
#include "lib/netlink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void route(const struct nlmsghdr *nlh)
{
	uint8_t buf[512] __attribute__((aligned(8)));
	struct nlmsghdr *own = mnl_nlmsg_put_header(buf);
	struct link_route_record a, b;
	unsigned int oif;
	uint8_t protocol;

	if (!link_msg_read_route(nlh, &a, &oif, &protocol))
		return;
	if (!a.route.dst.bits)
		a.route.dst.addr = (struct addr){ .family = a.route.dst.addr.family };
	link_msg_put_route(own, oif, &a, RTM_NEWROUTE, 0);
	if (!link_msg_read_route(own, &b, &oif, &protocol) || protocol != LINK_PROTOCOL || a.table != b.table ||
	    link_route_cmp(&a.route, &b.route) != 0)
		abort();
}

static void rule(const struct nlmsghdr *nlh)
{
	uint8_t buf[512] __attribute__((aligned(8)));
	struct nlmsghdr *own = mnl_nlmsg_put_header(buf);
	struct link_rule a, b;
	uint8_t protocol;

	if (!link_msg_read_rule(nlh, &a, &protocol))
		return;
	if (!a.mask)
		a.mark = 0;
	link_msg_put_rule(own, &a, RTM_NEWRULE, 0);
	if (!link_msg_read_rule(own, &b, &protocol) || protocol != LINK_PROTOCOL || link_rule_cmp(&a, &b) != 0)
		abort();
}

static void message(const struct nlmsghdr *nlh)
{
	uint32_t netconf[NETCONFA_MAX + 1] = { 0 };
	struct link_addr_record address;
	struct link_path path = { 0 };
	struct link_record link;

	link_msg_read_address(nlh, &address);
	if (link_msg_read_link(nlh, &link) && !memchr(link.name, '\0', sizeof(link.name)))
		abort();
	link_msg_read_netconf(netconf, nlh);
	link_msg_read_path(&path, nlh);
	route(nlh);
	rule(nlh);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int left = (int)size;
	uint8_t *copy = malloc(size + 1); /* aligned, and without slack that would hide an overread */
	const struct nlmsghdr *nlh = (const void *)copy;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	for (; netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
		message(nlh);
	free(copy);
	return 0;
}
