#include "daemon/kernel/link_msg.h"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/netlink.h"

#define THROW_METRIC 2000

static bool read_addr(const struct nlattr *attr, uint8_t af, struct addr *ret)
{
	size_t len = mnl_attr_get_payload_len(attr);

	if (af == AF_INET && len == 4) {
		*ret = addr_from4(mnl_attr_get_payload(attr));
		return true;
	}
	if (af == AF_INET6 && len == 16) {
		*ret = (struct addr){ .family = 6 };
		memcpy(ret->b, mnl_attr_get_payload(attr), 16);
		return true;
	}
	return false;
}

static bool read_u32(const struct nlattr *attr, uint32_t *ret)
{
	if (mnl_attr_validate(attr, MNL_TYPE_U32) < 0)
		return false;
	*ret = mnl_attr_get_u32(attr);
	return true;
}

/* Addresses */

bool link_msg_read_address(const struct nlmsghdr *nlh, struct link_addr_record *ret)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	struct link_addr_record a = { 0 };
	const struct nlattr *attr;
	bool local = false;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*ifa))
		return false;
	a.ifindex = ifa->ifa_index;
	a.bits = ifa->ifa_prefixlen;
	a.flags = ifa->ifa_flags;
	netlink_attr_for_each(attr, nlh, sizeof(*ifa)) {
		uint16_t type = mnl_attr_get_type(attr);

		/* IFA_LOCAL is the own address; IFA_ADDRESS on a point-to-point link the other's. */
		if (type == IFA_LOCAL)
			local = read_addr(attr, ifa->ifa_family, &a.addr);
		else if (type == IFA_ADDRESS && !local)
			read_addr(attr, ifa->ifa_family, &a.addr);
		else if (type == IFA_FLAGS)
			read_u32(attr, &a.flags);
	}
	*ret = a;
	return a.addr.family != 0;
}

void link_msg_put_address(struct nlmsghdr *nlh, unsigned int ifindex, const struct prefix *p, uint16_t type,
			  uint16_t flags)
{
	struct ifaddrmsg *ifa = mnl_nlmsg_put_extra_header(nlh, sizeof(*ifa));

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = flags;
	ifa->ifa_family = (uint8_t)addr_af(&p->addr);
	ifa->ifa_prefixlen = p->bits;
	ifa->ifa_index = ifindex;
	if (type == RTM_NEWADDR && p->addr.family == 6)
		ifa->ifa_flags = IFA_F_NODAD; /* nobody else answers on this link */
	mnl_attr_put(nlh, IFA_LOCAL, addr_len(&p->addr), p->addr.b);
	mnl_attr_put(nlh, IFA_ADDRESS, addr_len(&p->addr), p->addr.b);
}

/* Links */

/* IFLA_AF_SPEC { AF_INET { IFLA_INET_CONF: u32[], numbered from IPV4_DEVCONF_FORWARDING = 1 } } */
static void read_inet_conf(const struct nlattr *spec, struct link_record *ret)
{
	const struct nlattr *family, *conf;

	netlink_attr_for_each_nested(family, spec) {
		if (mnl_attr_get_type(family) != AF_INET)
			continue;
		netlink_attr_for_each_nested(conf, family) {
			const uint8_t *v = mnl_attr_get_payload(conf);
			size_t n = mnl_attr_get_payload_len(conf) / sizeof(uint32_t);

			if (mnl_attr_get_type(conf) != IFLA_INET_CONF)
				continue;
			if (n >= IPV4_DEVCONF_RP_FILTER)
				memcpy(&ret->rp_filter, v + (IPV4_DEVCONF_RP_FILTER - 1) * 4, 4);
			if (n >= IPV4_DEVCONF_SRC_VMARK)
				memcpy(&ret->src_valid_mark, v + (IPV4_DEVCONF_SRC_VMARK - 1) * 4, 4);
		}
	}
}

bool link_msg_read_link(const struct nlmsghdr *nlh, struct link_record *ret)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	struct link_record r = { 0 };
	const struct nlattr *attr;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*ifi))
		return false;
	r.ifindex = (unsigned int)ifi->ifi_index;
	r.flags = ifi->ifi_flags;
	netlink_attr_for_each(attr, nlh, sizeof(*ifi)) {
		switch (mnl_attr_get_type(attr)) {
		case IFLA_IFNAME:
			if (mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
				snprintf(r.name, sizeof(r.name), "%s", mnl_attr_get_str(attr));
			break;
		case IFLA_MTU:
			read_u32(attr, &r.mtu);
			break;
		case IFLA_AF_SPEC:
			read_inet_conf(attr, &r);
			break;
		}
	}
	*ret = r;
	return true;
}

int link_msg_read_netconf(void *data, const struct nlmsghdr *nlh)
{
	const struct nlattr *attr;
	uint32_t *values = data; /* by NETCONFA_* */

	netlink_attr_for_each(attr, nlh, sizeof(struct netconfmsg)) {
		uint16_t type = mnl_attr_get_type(attr);

		if (type <= NETCONFA_MAX)
			read_u32(attr, &values[type]);
	}
	return 0;
}

/* Routes */

bool link_msg_read_route(const struct nlmsghdr *nlh, struct link_route_record *ret, unsigned int *ret_oif,
			 uint8_t *ret_protocol)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	struct link_route_record r = { 0 };
	const struct nlattr *attr;
	uint32_t oif = 0;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*rtm))
		return false;
	r.table = rtm->rtm_table;
	r.route.throw = rtm->rtm_type == RTN_THROW;
	r.route.dst.bits = rtm->rtm_dst_len;
	r.route.dst.addr.family = rtm->rtm_family == AF_INET ? 4 : 6;
	netlink_attr_for_each(attr, nlh, sizeof(*rtm)) {
		uint16_t type = mnl_attr_get_type(attr);

		if (type == RTA_DST)
			read_addr(attr, rtm->rtm_family, &r.route.dst.addr);
		else if (type == RTA_TABLE)
			read_u32(attr, &r.table);
		else if (type == RTA_OIF)
			read_u32(attr, &oif);
	}
	*ret = r;
	*ret_oif = oif;
	*ret_protocol = rtm->rtm_protocol;
	return rtm->rtm_type == RTN_UNICAST || rtm->rtm_type == RTN_THROW;
}

/* A next hop of the other family. */
static void read_via(const struct nlattr *attr, struct addr *ret)
{
	const struct rtvia *via = mnl_attr_get_payload(attr);
	size_t len = mnl_attr_get_payload_len(attr);

	if (len == sizeof(*via) + 16 && via->rtvia_family == AF_INET6)
		*ret = addr_from16(via->rtvia_addr);
}

int link_msg_read_path(void *data, const struct nlmsghdr *nlh)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	struct link_path *p = data;
	const struct nlattr *attr;

	if (nlh->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(nlh) < sizeof(*rtm))
		return 0;
	netlink_attr_for_each(attr, nlh, sizeof(*rtm)) {
		uint16_t type = mnl_attr_get_type(attr);

		if (type == RTA_OIF)
			read_u32(attr, &p->ifindex);
		else if (type == RTA_PREFSRC)
			read_addr(attr, rtm->rtm_family, &p->source);
		else if (type == RTA_GATEWAY)
			read_addr(attr, rtm->rtm_family, &p->gateway);
		else if (type == RTA_VIA)
			read_via(attr, &p->gateway);
	}
	return 0;
}

void link_msg_put_route(struct nlmsghdr *nlh, unsigned int ifindex, const struct link_route_record *p,
			uint16_t type, uint16_t flags)
{
	struct rtmsg *rtm = mnl_nlmsg_put_extra_header(nlh, sizeof(*rtm));
	const struct prefix *dst = &p->route.dst;

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = flags;
	rtm->rtm_family = (uint8_t)addr_af(&dst->addr);
	rtm->rtm_dst_len = dst->bits;
	rtm->rtm_table = RT_TABLE_UNSPEC;
	rtm->rtm_protocol = LINK_PROTOCOL;
	rtm->rtm_scope = dst->addr.family == 4 && !p->route.throw ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	rtm->rtm_type = p->route.throw ? RTN_THROW : RTN_UNICAST;
	mnl_attr_put_u32(nlh, RTA_TABLE, p->table);
	if (dst->bits > 0)
		mnl_attr_put(nlh, RTA_DST, addr_len(&dst->addr), dst->addr.b);
	/* With a metric of its own a throw route can stand beside the route it takes over from. */
	if (p->route.throw)
		mnl_attr_put_u32(nlh, RTA_PRIORITY, THROW_METRIC);
	else
		mnl_attr_put_u32(nlh, RTA_OIF, ifindex);
}

/* Rules */

bool link_msg_read_rule(const struct nlmsghdr *nlh, struct link_rule *ret, uint8_t *ret_protocol)
{
	const struct fib_rule_hdr *h = mnl_nlmsg_get_payload(nlh);
	uint32_t suppress = UINT32_MAX;
	const struct nlattr *attr;
	struct link_rule r = { 0 };

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*h))
		return false;
	*ret_protocol = 0;
	r.family = h->family == AF_INET ? 4 : 6;
	r.table = h->table;
	r.action = h->action == FR_ACT_TO_TBL ? LINK_RULE_LOOKUP : LINK_RULE_UNREACHABLE;
	netlink_attr_for_each(attr, nlh, sizeof(*h)) {
		switch (mnl_attr_get_type(attr)) {
		case FRA_PRIORITY:
			read_u32(attr, &r.priority);
			break;
		case FRA_FWMARK:
			read_u32(attr, &r.mark);
			break;
		case FRA_FWMASK:
			read_u32(attr, &r.mask);
			break;
		case FRA_TABLE:
			read_u32(attr, &r.table);
			break;
		case FRA_SUPPRESS_PREFIXLEN:
			read_u32(attr, &suppress);
			break;
		case FRA_PROTOCOL:
			if (mnl_attr_validate(attr, MNL_TYPE_U8) >= 0)
				*ret_protocol = mnl_attr_get_u8(attr);
			break;
		}
	}
	if (r.mark == 0)
		r.mask = 0;
	if (r.action == LINK_RULE_UNREACHABLE)
		r.table = 0;
	r.suppress_default = suppress == 0;
	*ret = r;
	return true;
}

void link_msg_put_rule(struct nlmsghdr *nlh, const struct link_rule *r, uint16_t type, uint16_t flags)
{
	struct fib_rule_hdr *h = mnl_nlmsg_put_extra_header(nlh, sizeof(*h));

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = flags;
	h->family = r->family == 4 ? AF_INET : AF_INET6;
	h->action = r->action == LINK_RULE_LOOKUP ? FR_ACT_TO_TBL : FR_ACT_UNREACHABLE;
	mnl_attr_put_u32(nlh, FRA_PRIORITY, r->priority);
	mnl_attr_put_u8(nlh, FRA_PROTOCOL, LINK_PROTOCOL);
	if (r->mask) {
		mnl_attr_put_u32(nlh, FRA_FWMARK, r->mark);
		mnl_attr_put_u32(nlh, FRA_FWMASK, r->mask);
	}
	if (r->action == LINK_RULE_LOOKUP)
		mnl_attr_put_u32(nlh, FRA_TABLE, r->table);
	if (r->suppress_default)
		mnl_attr_put_u32(nlh, FRA_SUPPRESS_PREFIXLEN, 0);
}
