#include "daemon/kernel/wg.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/wireguard.h>
#include <net/if.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/netlink.h"

#define KEEPALIVE_TO_FORCE 25

struct wg {
	struct netlink *route, *genl;
	uint16_t family;
	unsigned int ifindex;
	char error[224];
	int allowed_flags; /* -1: not tried yet */
	uint8_t buf[NETLINK_REQUEST_MAX] __attribute__((aligned(8)));
};

int wg_open(struct wg **ret)
{
	CLEANUP(wg_close) struct wg *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->allowed_flags = -1;
	r = netlink_open(NETLINK_ROUTE, &w->route);
	if (r == 0)
		r = netlink_open(NETLINK_GENERIC, &w->genl);
	if (r < 0)
		return r;
	netlink_set_secret(w->genl, true);
	*ret = TAKE(w);
	return 0;
}

void wg_close(struct wg *w)
{
	if (!w)
		return;
	netlink_close(w->route);
	netlink_close(w->genl);
	sodium_memzero(w->buf, sizeof(w->buf));
	free(w);
}

const char *wg_error(const struct wg *w)
{
	return w->error;
}

uint64_t wg_changes_sent(const struct wg *w)
{
	return netlink_changes_sent(w->genl) + netlink_changes_sent(w->route);
}

unsigned int wg_ifindex(const struct wg *w)
{
	return w->ifindex;
}

static int keep_error(struct wg *w, const struct netlink *nl, int r)
{
	const char *text = netlink_error(nl);

	snprintf(w->error, sizeof(w->error), "%s", r == 0 ? "" : *text ? text : strerror(-r));
	return r;
}

/* What RTM_GETLINK says of a name. */
struct link_seen {
	unsigned int ifindex;
	bool up;
	char kind[16], alias[64];
};

static int read_link(void *data, const struct nlmsghdr *nlh)
{
	struct link_seen *s = data;
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr, *sub;

	if (nlh->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(nlh) < sizeof(*ifi))
		return 0;
	s->ifindex = (unsigned int)ifi->ifi_index;
	s->up = ifi->ifi_flags & IFF_UP;
	netlink_attr_for_each(attr, nlh, sizeof(*ifi)) {
		if (mnl_attr_get_type(attr) == IFLA_IFALIAS)
			snprintf(s->alias, sizeof(s->alias), "%.*s",
				 (int)mnl_attr_get_payload_len(attr), mnl_attr_get_str(attr));
		if (mnl_attr_get_type(attr) != IFLA_LINKINFO)
			continue;
		netlink_attr_for_each_nested(sub, attr)
			if (mnl_attr_get_type(sub) == IFLA_INFO_KIND)
				snprintf(s->kind, sizeof(s->kind), "%.*s",
					 (int)mnl_attr_get_payload_len(sub), mnl_attr_get_str(sub));
	}
	return 0;
}

static struct nlmsghdr *link_message(struct wg *w, uint16_t type, uint16_t flags,
				     unsigned int ifindex, const char *ifname)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(w->buf);
	struct ifinfomsg *ifi = mnl_nlmsg_put_extra_header(nlh, sizeof(*ifi));

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = flags;
	ifi->ifi_index = (int)ifindex;
	if (ifname)
		mnl_attr_put_strz(nlh, IFLA_IFNAME, ifname);
	return nlh;
}

static int look_up_link(struct wg *w, const char *ifname, struct link_seen *ret)
{
	struct link_seen s = { 0 };
	int r = netlink_request(w->route, link_message(w, RTM_GETLINK, 0, 0, ifname), read_link, &s);

	if (r == 0)
		*ret = s;
	return r;
}

static int make_link(struct wg *w, const char *ifname)
{
	struct nlmsghdr *nlh = link_message(w, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, ifname);
	struct nlattr *info = mnl_attr_nest_start(nlh, IFLA_LINKINFO);

	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, "wireguard");
	mnl_attr_nest_end(nlh, info);
	return netlink_request(w->route, nlh, NULL, NULL);
}

static int tag_link(struct wg *w)
{
	struct nlmsghdr *nlh = link_message(w, RTM_SETLINK, 0, w->ifindex, NULL);

	mnl_attr_put_strz(nlh, IFLA_IFALIAS, WG_ALIAS);
	return netlink_request(w->route, nlh, NULL, NULL);
}

static int resolve_family(struct wg *w)
{
	return netlink_genl_family(w->genl, WG_GENL_NAME, &w->family);
}

/* Whether the device that has our name is ours: by key, by alias, or never used. */
static int check_ours(struct wg *w, const char *ifname, const struct link_seen *s,
		      const struct key *private_key)
{
	struct wg_device d = { 0 };
	bool ours;
	int r;

	if (strcmp(s->kind, "wireguard") != 0) {
		snprintf(w->error, sizeof(w->error),
			 "interface %s exists and is no WireGuard device: remove it or give --interface",
			 ifname);
		return -EEXIST;
	}
	r = wg_dump(w, &d, NULL, NULL, NULL);
	if (r < 0)
		return r;
	ours = strcmp(s->alias, WG_ALIAS) == 0 || (private_key && key_equal(&d.private_key, private_key)) ||
	       (key_is_zero(&d.private_key) && !s->up);
	wg_device_done(&d);
	if (ours)
		return 0;
	snprintf(w->error, sizeof(w->error),
		 "interface %s exists, with a key and without the alias of kernscale, so it is not ours: "
		 "remove it or give --interface",
		 ifname);
	return -EEXIST;
}

int wg_device_create(struct wg *w, const char *ifname, const struct key *private_key,
		     bool *ret_adopted)
{
	struct link_seen s = { 0 };
	bool adopted = true;
	int r;

	if (strlen(ifname) == 0 || strlen(ifname) >= IF_NAMESIZE)
		return -EINVAL;
	r = look_up_link(w, ifname, &s);
	if (r == -ENODEV) {
		adopted = false;
		r = make_link(w, ifname);
		if (r < 0)
			return keep_error(w, w->route, r);
		r = look_up_link(w, ifname, &s);
	}
	if (r < 0)
		return keep_error(w, w->route, r);
	w->ifindex = s.ifindex;
	r = resolve_family(w);
	if (r < 0)
		r = keep_error(w, w->genl, r == -ENOENT ? -EOPNOTSUPP : r);
	if (r == 0 && adopted)
		r = check_ours(w, ifname, &s, private_key);
	if (r == 0 && strcmp(s.alias, WG_ALIAS) != 0)
		r = keep_error(w, w->route, tag_link(w));
	if (r < 0) {
		if (!adopted)
			netlink_request(w->route, link_message(w, RTM_DELLINK, 0, w->ifindex, NULL), NULL,
					NULL);
		w->ifindex = 0; /* nothing of another's device may be touched */
		return r;
	}
	*ret_adopted = adopted;
	return 0;
}

int wg_device_find(struct wg *w, const char *ifname)
{
	struct link_seen s = { 0 };
	int r = look_up_link(w, ifname, &s);

	if (r == 0 && strcmp(s.kind, "wireguard") != 0)
		r = -ENODEV;
	if (r < 0)
		return keep_error(w, w->route, r);
	w->ifindex = s.ifindex;
	r = resolve_family(w);
	if (r < 0)
		keep_error(w, w->genl, r);
	else
		r = check_ours(w, ifname, &s, NULL);
	if (r < 0)
		w->ifindex = 0;
	return r;
}

bool wg_device_is_gone(struct wg *w, const char *ifname)
{
	struct link_seen s = { 0 };
	int r = look_up_link(w, ifname, &s);

	return r == -ENODEV || (r == 0 && s.ifindex != w->ifindex);
}

int wg_device_delete(struct wg *w)
{
	int r;

	if (!w->ifindex)
		return -ENODEV;
	r = netlink_request(w->route, link_message(w, RTM_DELLINK, 0, w->ifindex, NULL), NULL, NULL);
	if (r < 0)
		return keep_error(w, w->route, r);
	w->ifindex = 0;
	return 0;
}

/* A SET. The family number changes when the module is loaded anew. */
static int send_set(struct wg *w, struct nlmsghdr *nlh)
{
	int r = netlink_request(w->genl, nlh, NULL, NULL);

	if (r == -ENOENT && resolve_family(w) == 0) {
		nlh->nlmsg_type = w->family;
		r = netlink_request(w->genl, nlh, NULL, NULL);
	}
	sodium_memzero(w->buf, nlh->nlmsg_len);
	return keep_error(w, w->genl, r);
}

int wg_set_device(struct wg *w, const struct wg_device *actual, const struct wg_settings *want)
{
	bool key = !key_equal(&actual->private_key, want->private_key);
	bool port = want->port == 0 ? actual->port == 0 : actual->port != want->port;
	bool mark = actual->fwmark != want->fwmark;
	int r = 0;

	/* One at a time: the port may be refused, and that must not take the rest with it. */
	if (key || mark)
		r = send_set(w, wg_encode_device(w->buf, sizeof(w->buf), w->family, w->ifindex,
						 key ? want->private_key : NULL, NULL,
						 mark ? &want->fwmark : NULL));
	if (r == 0 && port)
		r = send_set(w, wg_encode_device(w->buf, sizeof(w->buf), w->family, w->ifindex, NULL,
						 &want->port, NULL));
	return r;
}

struct dump {
	struct wg_reader reader;
	void (*begin)(void *data);
	struct wg_device *device;
	void *data;
};

static void dump_begin(void *data)
{
	struct dump *d = data;

	wg_reader_restart(&d->reader);
	if (d->begin)
		d->begin(d->data);
}

static int dump_message(void *data, const struct nlmsghdr *nlh)
{
	struct dump *d = data;

	return wg_reader_message(&d->reader, nlh);
}

int wg_dump(struct wg *w, struct wg_device *device, void (*begin)(void *data), wg_peer_fn *fn,
	    void *data)
{
	struct dump d = { .begin = begin, .device = device, .data = data };
	struct nlmsghdr *nlh;
	int r;

	if (!w->ifindex)
		return -ENODEV;
	wg_reader_init(&d.reader, device, fn, data);
	nlh = wg_encode_get(w->buf, sizeof(w->buf), w->family, w->ifindex);
	r = netlink_dump(w->genl, nlh, dump_begin, dump_message, &d);
	if (r == 0)
		r = wg_reader_end(&d.reader);
	wg_reader_done(&d.reader);
	return keep_error(w, w->genl, r);
}

struct collect {
	struct wg_device device;
	size_t cap;
};

static void collect_begin(void *data)
{
	struct collect *c = data;

	for (size_t i = 0; i < c->device.n_peers; i++)
		free(c->device.peers[i].allowed);
	c->device.n_peers = 0;
}

static int collect_peer(void *data, const struct wg_peer *p)
{
	struct collect *c = data;
	struct prefix *allowed = NULL;

	if (c->device.n_peers == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 16;
		struct wg_peer *more = reallocarray(c->device.peers, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		c->device.peers = more;
		c->cap = cap;
	}
	if (p->n_allowed > 0) {
		allowed = calloc(p->n_allowed, sizeof(*allowed));
		if (!allowed)
			return -ENOMEM;
		memcpy(allowed, p->allowed, p->n_allowed * sizeof(*allowed));
	}
	c->device.peers[c->device.n_peers] = *p;
	c->device.peers[c->device.n_peers++].allowed = allowed;
	return 0;
}

static int compare_peer(const void *a, const void *b)
{
	const struct wg_peer *x = a, *y = b;

	return key_cmp(&x->key, &y->key);
}

int wg_get_device(struct wg *w, struct wg_device *ret)
{
	struct collect c = { 0 };
	int r = wg_dump(w, &c.device, collect_begin, collect_peer, &c);

	if (r < 0) {
		wg_device_done(&c.device);
		return r;
	}
	if (c.device.n_peers > 1)
		qsort(c.device.peers, c.device.n_peers, sizeof(*c.device.peers), compare_peer);
	*ret = c.device;
	return 0;
}

static bool has_drop(const struct wg_plan *plan, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if (plan->changes[i].kind == WG_CHANGE_DROP_PREFIX)
			return true;
	return false;
}

static void removed_by(const struct wg_plan *plan, size_t from, size_t to, bool flags, size_t *n)
{
	for (size_t i = from; i < to; i++)
		*n += plan->changes[i].kind == WG_CHANGE_REMOVE ||
		      (plan->changes[i].kind == WG_CHANGE_DROP_PREFIX && !flags);
}

int wg_apply(struct wg *w, const struct wg_plan *plan, size_t max_removals,
	     struct wg_encode_pos *ret_pos)
{
	struct wg_encode_pos pos = ret_pos ? *ret_pos : (struct wg_encode_pos){ 0 };
	struct wg_encode_how how = { .ifindex = w->ifindex };
	size_t removals = 0;
	struct key_pair scratch;
	int r = 0;

	if (!w->ifindex)
		return -ENODEV;
	key_pair_generate(&scratch);
	how.scratch = scratch.pub;
	key_pair_wipe(&scratch);
	while (r == 0 && pos.change < plan->n) {
		struct wg_encode_pos next = pos;
		size_t allow = WG_REMOVE_BATCH;
		struct nlmsghdr *nlh;

		/* Whether this kernel knows WGALLOWEDIP_A_FLAGS shows at the first use: an old one
		 * refuses the message at that prefix, and what came before it may be sent again. */
		how.allowed_flags = w->allowed_flags != 0;
		how.family_id = w->family;
		if (max_removals)
			allow = MIN(allow, max_removals - removals);
		if (wg_encode_changes(w->buf, sizeof(w->buf), &how, plan->changes, plan->n, allow,
				      &next, &nlh) == 0)
			break; /* what is left are removals, and enough of them were sent */
		r = send_set(w, nlh);
		if (w->allowed_flags < 0 && has_drop(plan, pos.change, next.change)) {
			if (r == 0 || r == -EINVAL) /* all else says nothing of it */
				w->allowed_flags = r == 0;
			if (r == -EINVAL) {
				r = 0;
				continue;
			}
		}
		if (r == 0) {
			removed_by(plan, pos.change, next.change, how.allowed_flags, &removals);
			pos = next;
		}
	}
	if (ret_pos)
		*ret_pos = pos;
	return r < 0 ? r : pos.change < plan->n;
}

static int apply_one(struct wg *w, const struct wg_change *c)
{
	struct wg_plan plan = { .n = 1 };
	struct wg_change copy = *c;

	plan.changes = &copy;
	return wg_apply(w, &plan, 0, NULL);
}

int wg_set_endpoint(struct wg *w, const struct key *peer, const struct endpoint *e)
{
	return apply_one(w, &(struct wg_change){ .kind = WG_CHANGE_PEER,
						 .key = *peer,
						 .set_endpoint = true,
						 .endpoint = *e });
}

int wg_force_handshake(struct wg *w, const struct key *peer)
{
	struct wg_change c = { .kind = WG_CHANGE_PEER,
			       .key = *peer,
			       .set_keepalive = true,
			       .keepalive_sec = KEEPALIVE_TO_FORCE };
	int r = apply_one(w, &c);

	/* From 0 to N sends one packet at once (kernel.md 2.5); nobody wants the next. */
	c.keepalive_sec = 0;
	return r < 0 ? r : apply_one(w, &c);
}

int wg_reset_peer(struct wg *w, const struct wg_want *peer)
{
	int r = apply_one(w, &(struct wg_change){ .kind = WG_CHANGE_REMOVE, .key = peer->key });

	if (r < 0)
		return r;
	return apply_one(w, &(struct wg_change){ .kind = WG_CHANGE_PEER,
						 .create = true,
						 .key = peer->key,
						 .set_endpoint = true,
						 .endpoint = peer->endpoint,
						 .set_keepalive = peer->keepalive_sec != 0,
						 .keepalive_sec = peer->keepalive_sec,
						 .allowed = peer->allowed,
						 .n_allowed = peer->n_allowed });
}
