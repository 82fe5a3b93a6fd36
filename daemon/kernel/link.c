#include "daemon/kernel/link.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/kernel/link_msg.h"
#include "lib/log.h"
#include "lib/netlink.h"

#define DEBOUNCE_USEC	 (250 * USEC_PER_MSEC)
#define MANY_BYTES	 32768 /* requests sent in one datagram */
#define MANY_MESSAGE_MAX 256
#define LIST_MAX	 (1U << 20)

struct link {
	struct netlink *nl, *events;
	char ifname[IF_NAMESIZE];
	unsigned int ifindex;
	struct loop_io *io;
	struct loop_timer *timer;
	link_event_fn *fn;
	void *data;
	unsigned int pending;
	uint8_t buf[MANY_BYTES] __attribute__((aligned(8)));
};

/* A growing array of equal members. */
struct list {
	void *p;
	size_t n, cap, size;
};

static int list_add(struct list *l, const void *member)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 16;
		void *more = cap > LIST_MAX ? NULL : reallocarray(l->p, cap, l->size);

		if (!more)
			return cap > LIST_MAX ? -ENOBUFS : -ENOMEM;
		l->p = more;
		l->cap = cap;
	}
	memcpy((char *)l->p + l->n++ * l->size, member, l->size);
	return 0;
}

static void list_clear(void *data)
{
	struct list *l = data;

	l->n = 0;
}

static void list_done_cleanup(struct list *l)
{
	free(l->p);
}

int link_open(const char *ifname, unsigned int ifindex, struct link **ret)
{
	CLEANUP(link_close) struct link *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	snprintf(l->ifname, sizeof(l->ifname), "%s", ifname);
	l->ifindex = ifindex;
	r = netlink_open(NETLINK_ROUTE, &l->nl);
	if (r < 0)
		return r;
	*ret = TAKE(l);
	return 0;
}

void link_close(struct link *l)
{
	if (!l)
		return;
	loop_io_free(l->io);
	loop_timer_free(l->timer);
	netlink_close(l->nl);
	netlink_close(l->events);
	free(l);
}

uint64_t link_changes_sent(const struct link *l)
{
	return netlink_changes_sent(l->nl);
}

const char *link_error(const struct link *l)
{
	return netlink_error(l->nl);
}

/* Reading */

static int collect_address(void *data, const struct nlmsghdr *nlh)
{
	struct link_addr_record a;

	if (nlh->nlmsg_type != RTM_NEWADDR || !link_msg_read_address(nlh, &a))
		return 0;
	return list_add(data, &a);
}

static int dump_addresses(struct link *l, struct list *ret)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(l->buf);

	nlh->nlmsg_type = RTM_GETADDR;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifaddrmsg));
	return netlink_dump(l->nl, nlh, list_clear, collect_address, ret);
}

static int collect_link(void *data, const struct nlmsghdr *nlh)
{
	struct link_record r;

	if (nlh->nlmsg_type != RTM_NEWLINK || !link_msg_read_link(nlh, &r))
		return 0;
	return list_add(data, &r);
}

static int dump_links(struct link *l, struct list *ret)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(l->buf);

	nlh->nlmsg_type = RTM_GETLINK;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifinfomsg));
	return netlink_dump(l->nl, nlh, list_clear, collect_link, ret);
}

/* MTU and state */

static struct nlmsghdr *put_link(struct link *l, unsigned int ifindex)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(l->buf);
	struct ifinfomsg *ifi = mnl_nlmsg_put_extra_header(nlh, sizeof(*ifi));

	nlh->nlmsg_type = RTM_SETLINK;
	ifi->ifi_index = (int)ifindex;
	return nlh;
}

static int keep_link(void *data, const struct nlmsghdr *nlh)
{
	return link_msg_read_link(nlh, data) ? 0 : -EBADMSG;
}

int link_up(struct link *l, unsigned int mtu_bytes)
{
	struct link_record now = { 0 };
	struct nlmsghdr *nlh = put_link(l, l->ifindex);
	struct ifinfomsg *ifi;
	int r;

	nlh->nlmsg_type = RTM_GETLINK;
	r = netlink_request(l->nl, nlh, keep_link, &now);
	if (r < 0 || (now.mtu == mtu_bytes && (now.flags & IFF_UP)))
		return r;
	nlh = put_link(l, l->ifindex);
	ifi = mnl_nlmsg_get_payload(nlh);
	ifi->ifi_change = IFF_UP;
	ifi->ifi_flags = IFF_UP;
	if (now.mtu != mtu_bytes)
		mnl_attr_put_u32(nlh, IFLA_MTU, mtu_bytes);
	return netlink_request(l->nl, nlh, NULL, NULL);
}

int link_down(struct link *l)
{
	struct nlmsghdr *nlh = put_link(l, l->ifindex);
	struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);

	ifi->ifi_change = IFF_UP;
	return netlink_request(l->nl, nlh, NULL, NULL);
}

/* Many requests in few datagrams */

typedef void put_fn(struct link *l, struct nlmsghdr *nlh, const void *member);

struct many {
	struct link *l;
	int first_error;
	bool deleting;
};

static void many_failed(void *data, size_t index, int error, const char *text)
{
	struct many *m = data;

	(void)index;
	/* Somebody else was faster: what shall not be is not. */
	if (m->deleting && (error == -ESRCH || error == -ENOENT || error == -EADDRNOTAVAIL))
		return;
	log_debug_errno(error, "netlink: %s refused: %s", m->deleting ? "removal" : "addition", text);
	if (m->first_error == 0)
		m->first_error = error;
}

static int send_marked(struct link *l, const struct list *all, const bool *marked, put_fn *put,
		       bool deleting)
{
	struct many m = { .l = l, .deleting = deleting };
	size_t used = 0;

	for (size_t i = 0; i < all->n; i++) {
		if (marked[i]) {
			struct nlmsghdr *nlh = mnl_nlmsg_put_header(l->buf + used);

			put(l, nlh, (const char *)all->p + i * all->size);
			used += NLMSG_ALIGN(nlh->nlmsg_len);
		}
		if (used > 0 && (i + 1 == all->n || used > sizeof(l->buf) - MANY_MESSAGE_MAX)) {
			int r = netlink_request_many(l->nl, l->buf, used, many_failed, &m);

			if (r < 0)
				return r;
			used = 0;
		}
	}
	return m.first_error;
}

/* Adds what is missing, then removes what is not wanted. Both lists get sorted. */
static int reconcile(struct link *l, struct list *wanted, struct list *actual, link_cmp_fn *cmp,
		     put_fn *put_new, put_fn *put_del)
{
	CLEANUP(link_diff_done) struct link_diff d = { 0 };
	int r, e;

	if (wanted->n)
		qsort(wanted->p, wanted->n, wanted->size, cmp);
	if (actual->n)
		qsort(actual->p, actual->n, actual->size, cmp);
	r = link_diff(wanted->p, wanted->n, actual->p, actual->n, wanted->size, cmp, &d);
	if (r < 0)
		return r;
	r = send_marked(l, wanted, d.add, put_new, false);
	e = send_marked(l, actual, d.del, put_del, true);
	return r < 0 ? r : e;
}

/* Addresses */

static void put_new_address(struct link *l, struct nlmsghdr *nlh, const void *member)
{
	link_msg_put_address(nlh, l->ifindex, member, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
}

static void put_del_address(struct link *l, struct nlmsghdr *nlh, const void *member)
{
	link_msg_put_address(nlh, l->ifindex, member, RTM_DELADDR, 0);
}

/* Into a list of struct prefix. */
static int dump_own_addresses(struct link *l, struct list *have)
{
	CLEANUP(list_done) struct list all = { .size = sizeof(struct link_addr_record) };
	int r = dump_addresses(l, &all);

	for (size_t i = 0; i < all.n && r == 0; i++) {
		const struct link_addr_record *a = (const struct link_addr_record *)all.p + i;
		struct prefix p = { a->addr, a->bits };

		if (a->ifindex == l->ifindex && !addr_is_link_local(&a->addr))
			r = list_add(have, &p);
	}
	return r;
}

int link_addresses(struct link *l, struct addr **ret, size_t *ret_n)
{
	CLEANUP(list_done) struct list have = { .size = sizeof(struct prefix) };
	int r = dump_own_addresses(l, &have);
	struct addr *v;

	if (r < 0)
		return r;
	v = calloc(have.n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < have.n; i++)
		v[i] = ((const struct prefix *)have.p + i)->addr;
	*ret = v;
	*ret_n = have.n;
	return 0;
}

int link_set_addresses(struct link *l, const struct addr *wanted, size_t n)
{
	CLEANUP(list_done) struct list want = { .size = sizeof(struct prefix) };
	CLEANUP(list_done) struct list have = { .size = sizeof(struct prefix) };
	int r = dump_own_addresses(l, &have);

	for (size_t i = 0; i < n && r == 0; i++) {
		struct prefix p = prefix_of(&wanted[i]);

		r = list_add(&want, &p);
	}
	return r < 0 ? r : reconcile(l, &want, &have, link_prefix_cmp, put_new_address, put_del_address);
}

/* Routes */

struct route_dump {
	struct list list;
	uint32_t table;
};

static void route_dump_begin(void *data)
{
	struct route_dump *d = data;

	d->list.n = 0;
}

static int collect_route(void *data, const struct nlmsghdr *nlh)
{
	struct route_dump *d = data;
	struct link_route_record rec;
	unsigned int oif;
	uint8_t protocol;

	if (nlh->nlmsg_type != RTM_NEWROUTE || !link_msg_read_route(nlh, &rec, &oif, &protocol) ||
	    rec.table != d->table || protocol != LINK_PROTOCOL)
		return 0;
	return list_add(&d->list, &rec.route);
}

/* The kernel filters by table and protocol under strict checking; older ones give everything. */
static int dump_routes(struct link *l, uint8_t family, struct route_dump *d)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(l->buf);
	struct rtmsg *rtm = mnl_nlmsg_put_extra_header(nlh, sizeof(*rtm));

	nlh->nlmsg_type = RTM_GETROUTE;
	rtm->rtm_family = family == 4 ? AF_INET : AF_INET6;
	rtm->rtm_protocol = LINK_PROTOCOL;
	mnl_attr_put_u32(nlh, RTA_TABLE, d->table);
	return netlink_dump(l->nl, nlh, route_dump_begin, collect_route, d);
}

static void put_new_route(struct link *l, struct nlmsghdr *nlh, const void *member)
{
	/* Not NLM_F_REPLACE: a route of somebody else in this table is not ours to take. */
	link_msg_put_route(nlh, l->ifindex, member, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
}

static void put_del_route(struct link *l, struct nlmsghdr *nlh, const void *member)
{
	link_msg_put_route(nlh, l->ifindex, member, RTM_DELROUTE, 0);
}

static int put_all(struct list *out, const struct link_route *routes, size_t n, uint8_t family,
		   uint32_t table)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		struct link_route_record p = { routes[i], table };

		p.route.dst = prefix_masked(&routes[i].dst);
		if (p.route.dst.addr.family == family)
			r = list_add(out, &p);
	}
	return r;
}

static int set_family_routes(struct link *l, uint8_t family, uint32_t table,
			     const struct link_route *wanted, size_t n)
{
	CLEANUP(list_done) struct list want = { .size = sizeof(struct link_route_record) };
	CLEANUP(list_done) struct list have = { .size = sizeof(struct link_route_record) };
	struct route_dump d = { { .size = sizeof(struct link_route) }, table };
	int r = dump_routes(l, family, &d);

	/* ENOENT: the table does not exist, as it has no route yet. */
	if (r == 0 || r == -ENOENT)
		r = put_all(&have, d.list.p, d.list.n, family, table);
	if (r == 0)
		r = put_all(&want, wanted, n, family, table);
	free(d.list.p);
	return r < 0 ? r : reconcile(l, &want, &have, link_route_cmp, put_new_route, put_del_route);
}

int link_set_routes(struct link *l, uint32_t table, const struct link_route *wanted, size_t n)
{
	int r = set_family_routes(l, 4, table, wanted, n);
	int e = set_family_routes(l, 6, table, wanted, n);

	return r < 0 ? r : e;
}

/* Rules */

struct rule_dump {
	struct list list;
	uint32_t base;
};

static void rule_dump_begin(void *data)
{
	struct rule_dump *d = data;

	d->list.n = 0;
}

static int collect_rule(void *data, const struct nlmsghdr *nlh)
{
	struct rule_dump *d = data;
	struct link_rule r;
	uint8_t protocol;

	if (nlh->nlmsg_type != RTM_NEWRULE || !link_msg_read_rule(nlh, &r, &protocol) ||
	    protocol != LINK_PROTOCOL || r.priority < d->base || r.priority >= d->base + LINK_RULES_ROOM)
		return 0;
	return list_add(&d->list, &r);
}

static int dump_rules(struct link *l, struct rule_dump *d)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(l->buf);

	nlh->nlmsg_type = RTM_GETRULE;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct fib_rule_hdr));
	return netlink_dump(l->nl, nlh, rule_dump_begin, collect_rule, d);
}

/* Without NLM_F_EXCL: another program's equal rule (a stock node's, with the same numbers) is not
 * ours and may go when that program goes. */
static void put_new_rule(struct link *l, struct nlmsghdr *nlh, const void *member)
{
	(void)l;
	link_msg_put_rule(nlh, member, RTM_NEWRULE, NLM_F_CREATE);
}

static void put_del_rule(struct link *l, struct nlmsghdr *nlh, const void *member)
{
	(void)l;
	link_msg_put_rule(nlh, member, RTM_DELRULE, 0);
}

int link_set_rules(struct link *l, uint32_t base, const struct link_rule *wanted, size_t n)
{
	CLEANUP(list_done) struct list want = { .size = sizeof(struct link_rule) };
	struct rule_dump d = { { .size = sizeof(struct link_rule) }, base };
	int r = dump_rules(l, &d);

	for (size_t i = 0; i < n && r == 0; i++)
		r = list_add(&want, &wanted[i]);
	if (r == 0)
		r = reconcile(l, &want, &d.list, link_rule_cmp, put_new_rule, put_del_rule);
	free(d.list.p);
	return r;
}

int link_remove_rules(struct link *l, uint32_t base, const struct link_rule *keep, size_t n)
{
	CLEANUP(list_done) struct list left = { .size = sizeof(struct link_rule) };
	struct rule_dump d = { { .size = sizeof(struct link_rule) }, base };
	int r = dump_rules(l, &d);
	const struct link_rule *has = d.list.p;

	for (size_t i = 0; i < d.list.n; i++)
		for (size_t k = 0; k < n && r == 0; k++)
			if (link_rule_cmp(&has[i], &keep[k]) == 0)
				r = list_add(&left, &has[i]);
	if (r == 0)
		r = reconcile(l, &left, &d.list, link_rule_cmp, put_new_rule, put_del_rule);
	free(d.list.p);
	return r;
}

/* Sysctls by netlink */

static int get_netconf_all(struct link *l, uint8_t af, uint32_t values[NETCONFA_MAX + 1])
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(l->buf);
	struct netconfmsg *ncm = mnl_nlmsg_put_extra_header(nlh, sizeof(*ncm));

	memset(values, 0, (NETCONFA_MAX + 1) * sizeof(*values));
	nlh->nlmsg_type = RTM_GETNETCONF;
	ncm->ncm_family = af;
	mnl_attr_put_u32(nlh, NETCONFA_IFINDEX, (uint32_t)NETCONFA_IFINDEX_ALL);
	return netlink_request(l->nl, nlh, link_msg_read_netconf, values);
}

int link_forwarding(struct link *l, bool *ret_v4, bool *ret_v6)
{
	uint32_t values[NETCONFA_MAX + 1];
	int r = get_netconf_all(l, AF_INET, values);

	if (r < 0)
		return r;
	*ret_v4 = values[NETCONFA_FORWARDING];
	r = get_netconf_all(l, AF_INET6, values);
	if (r == -ENOBUFS || r == -EBUSY || r == -ETIMEDOUT)
		return r;
	*ret_v6 = r == 0 && values[NETCONFA_FORWARDING]; /* no IPv6 in this kernel: no forwarding */
	return 0;
}

static int set_src_valid_mark(struct link *l, unsigned int ifindex)
{
	struct nlmsghdr *nlh = put_link(l, ifindex);
	struct nlattr *spec = mnl_attr_nest_start(nlh, IFLA_AF_SPEC);
	struct nlattr *inet = mnl_attr_nest_start(nlh, AF_INET);
	struct nlattr *conf = mnl_attr_nest_start(nlh, IFLA_INET_CONF);

	mnl_attr_put_u32(nlh, IPV4_DEVCONF_SRC_VMARK, 1);
	mnl_attr_nest_end(nlh, conf);
	mnl_attr_nest_end(nlh, inet);
	mnl_attr_nest_end(nlh, spec);
	return netlink_request(l->nl, nlh, NULL, NULL);
}

int link_fix_rp_filter(struct link *l)
{
	CLEANUP(list_done) struct list links = { .size = sizeof(struct link_record) };
	uint32_t all[NETCONFA_MAX + 1];
	int r = get_netconf_all(l, AF_INET, all), e = 0;

	if (r == 0)
		r = dump_links(l, &links);
	for (size_t i = 0; i < links.n && r == 0; i++) {
		const struct link_record *k = (const struct link_record *)links.p + i;
		/* The kernel takes the stricter of "all" and the interface: 1 is strict, 2 loose. */
		uint32_t filter = MAX(k->rp_filter, all[NETCONFA_RP_FILTER]);

		if (k->ifindex == l->ifindex || (k->flags & IFF_LOOPBACK) || filter != 1 ||
		    k->src_valid_mark)
			continue;
		e = set_src_valid_mark(l, k->ifindex);
		if (e < 0)
			log_warning_errno(e, "%s: cannot set src_valid_mark", k->name);
	}
	return r < 0 ? r : e;
}

/* The host's own addresses, and the ways out */

static bool is_other_overlay(const char *name)
{
	return strncmp(name, "zt", 2) == 0 || strcmp(name, "wt0") == 0 ||
	       strncmp(name, "tailscale", 9) == 0 || strncmp(name, "kernscale", 9) == 0;
}

static const struct link_record *find_link(const struct list *links, unsigned int ifindex)
{
	const struct link_record *k = links->p;

	for (size_t i = 0; i < links->n; i++)
		if (k[i].ifindex == ifindex)
			return &k[i];
	return NULL;
}

static bool is_candidate(const struct link *l, const struct link_addr_record *a,
			 const struct link_record *k)
{
	if (!k || k->ifindex == l->ifindex || (k->flags & IFF_LOOPBACK) || !(k->flags & IFF_UP) ||
	    is_other_overlay(k->name))
		return false;
	if (a->flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED))
		return false;
	return !addr_is_loopback(&a->addr) && !addr_is_link_local(&a->addr) &&
	       !addr_is_tailnet(&a->addr);
}

int link_local_addresses(struct link *l, struct link_local_addr **ret, size_t *ret_n)
{
	CLEANUP(list_done) struct list addrs = { .size = sizeof(struct link_addr_record) };
	CLEANUP(list_done) struct list links = { .size = sizeof(struct link_record) };
	struct link_local_addr *out;
	size_t n = 0;
	int r = dump_links(l, &links);

	if (r == 0)
		r = dump_addresses(l, &addrs);
	if (r < 0)
		return r;
	out = calloc(addrs.n + 1, sizeof(*out));
	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < addrs.n; i++) {
		const struct link_addr_record *a = (const struct link_addr_record *)addrs.p + i;
		const struct link_record *k = find_link(&links, a->ifindex);

		if (!is_candidate(l, a, k))
			continue;
		out[n] = (struct link_local_addr){ a->addr, a->bits, a->ifindex, k->flags & IFF_RUNNING, "" };
		memcpy(out[n++].ifname, k->name, sizeof(k->name));
	}
	*ret = out;
	*ret_n = n;
	return 0;
}

int link_lookup(struct link *l, const struct addr *to, uint32_t mark, struct link_path *ret)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(l->buf);
	struct rtmsg *rtm = mnl_nlmsg_put_extra_header(nlh, sizeof(*rtm));
	struct link_path p = { 0 };
	int r;

	if (to->family == 0)
		return -EINVAL;
	nlh->nlmsg_type = RTM_GETROUTE;
	rtm->rtm_family = (uint8_t)addr_af(to);
	rtm->rtm_dst_len = (uint8_t)addr_bits(to);
	mnl_attr_put(nlh, RTA_DST, addr_len(to), to->b);
	if (mark)
		mnl_attr_put_u32(nlh, RTA_MARK, mark);
	r = netlink_request(l->nl, nlh, link_msg_read_path, &p);
	if (r < 0)
		return r;
	*ret = p;
	return 0;
}

/* Events */

static unsigned int route_events(const struct link *l, const struct nlmsghdr *nlh)
{
	struct link_route_record rec;
	unsigned int oif;
	uint8_t protocol;

	if (!link_msg_read_route(nlh, &rec, &oif, &protocol))
		return 0;
	if (oif == l->ifindex)
		return nlh->nlmsg_type == RTM_DELROUTE ? LINK_EVENT_ROUTE : 0;
	return prefix_is_default(&rec.route.dst) ? LINK_EVENT_DEFAULT : 0;
}

static unsigned int link_events(const struct link *l, const struct nlmsghdr *nlh)
{
	struct link_record rec;

	if (!link_msg_read_link(nlh, &rec))
		return 0;
	if (rec.ifindex != l->ifindex)
		return LINK_EVENT_LINK;
	return nlh->nlmsg_type == RTM_DELLINK || !(rec.flags & IFF_UP) ? LINK_EVENT_OURS : 0;
}

static unsigned int address_events(const struct link *l, const struct nlmsghdr *nlh)
{
	struct link_addr_record a;

	if (!link_msg_read_address(nlh, &a))
		return 0;
	if (a.ifindex != l->ifindex)
		return LINK_EVENT_ADDRESS;
	return nlh->nlmsg_type == RTM_DELADDR && !addr_is_link_local(&a.addr) ? LINK_EVENT_OURS : 0;
}

static int read_event(void *data, const struct nlmsghdr *nlh)
{
	struct link *l = data;
	struct link_rule rule;
	uint8_t protocol;

	if (nlh->nlmsg_pid == netlink_portid(l->nl))
		return 0; /* our own doing */
	switch (nlh->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		l->pending |= link_events(l, nlh);
		break;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		l->pending |= address_events(l, nlh);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		l->pending |= route_events(l, nlh);
		break;
	case RTM_DELRULE:
		if (link_msg_read_rule(nlh, &rule, &protocol) && protocol == LINK_PROTOCOL)
			l->pending |= LINK_EVENT_RULE;
		break;
	case RTM_NEWNETCONF:
		l->pending |= LINK_EVENT_FORWARDING;
		break;
	}
	return 0;
}

static void events_ready(void *data, int fd, uint32_t events)
{
	struct link *l = data;
	int r = netlink_events(l->events, read_event, l);

	(void)fd;
	(void)events;
	if (r < 0) /* some were lost: any of them may have happened */
		l->pending |= LINK_EVENT_ADDRESS | LINK_EVENT_LINK | LINK_EVENT_ROUTE | LINK_EVENT_RULE |
			      LINK_EVENT_FORWARDING | LINK_EVENT_OURS | LINK_EVENT_DEFAULT;
	if (l->pending && !loop_timer_armed(l->timer))
		loop_timer_in(l->timer, DEBOUNCE_USEC);
}

static void debounced(void *data)
{
	struct link *l = data;
	unsigned int events = l->pending;

	l->pending = 0;
	l->fn(l->data, events);
}

int link_watch(struct link *l, struct loop *loop, link_event_fn *fn, void *data)
{
	static const unsigned int groups[] = {
		RTNLGRP_LINK,	     RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,	RTNLGRP_IPV4_ROUTE,
		RTNLGRP_IPV6_ROUTE,  RTNLGRP_IPV4_RULE,	  RTNLGRP_IPV6_RULE,	RTNLGRP_IPV4_NETCONF,
		RTNLGRP_IPV6_NETCONF,
	};
	int r = netlink_open(NETLINK_ROUTE, &l->events);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (netlink_join(l->events, groups[i]) < 0)
			log_debug("netlink: no events of group %u", groups[i]);
	l->fn = fn;
	l->data = data;
	r = loop_timer_new(loop, debounced, l, &l->timer);
	if (r < 0)
		return r;
	return loop_io_new(loop, netlink_fd(l->events), EPOLLIN, events_ready, l, &l->io);
}
