#include "daemon/kernel/wg_msg.h"

#include <assert.h>
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/time_types.h>
#include <linux/wireguard.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/netlink.h"

/* Newer than the headers of bookworm (kernel.md 1.2). */
#define ALLOWEDIP_A_FLAGS     4
#define ALLOWEDIP_F_REMOVE_ME (1U << 0)

#define ATTR_MAX 16

struct policy {
	enum mnl_attr_data_type type;
	uint16_t len; /* exact; 0: by type */
};

static const struct policy device_policy[ATTR_MAX] = {
	[WGDEVICE_A_IFINDEX] = { MNL_TYPE_U32, 0 },
	[WGDEVICE_A_IFNAME] = { MNL_TYPE_NUL_STRING, 0 },
	[WGDEVICE_A_PRIVATE_KEY] = { MNL_TYPE_BINARY, KEY_LEN },
	[WGDEVICE_A_PUBLIC_KEY] = { MNL_TYPE_BINARY, KEY_LEN },
	[WGDEVICE_A_LISTEN_PORT] = { MNL_TYPE_U16, 0 },
	[WGDEVICE_A_FWMARK] = { MNL_TYPE_U32, 0 },
	[WGDEVICE_A_PEERS] = { MNL_TYPE_NESTED, 0 },
};

static const struct policy peer_policy[ATTR_MAX] = {
	[WGPEER_A_PUBLIC_KEY] = { MNL_TYPE_BINARY, KEY_LEN },
	[WGPEER_A_ENDPOINT] = { MNL_TYPE_BINARY, 0 },
	[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL] = { MNL_TYPE_U16, 0 },
	[WGPEER_A_LAST_HANDSHAKE_TIME] = { MNL_TYPE_BINARY, sizeof(struct __kernel_timespec) },
	[WGPEER_A_RX_BYTES] = { MNL_TYPE_U64, 0 },
	[WGPEER_A_TX_BYTES] = { MNL_TYPE_U64, 0 },
	[WGPEER_A_ALLOWEDIPS] = { MNL_TYPE_NESTED, 0 },
};

static const struct policy allowed_policy[ATTR_MAX] = {
	[WGALLOWEDIP_A_FAMILY] = { MNL_TYPE_U16, 0 },
	[WGALLOWEDIP_A_IPADDR] = { MNL_TYPE_BINARY, 0 },
	[WGALLOWEDIP_A_CIDR_MASK] = { MNL_TYPE_U8, 0 },
};

/* Keeps the attribute in its place in the table, or refuses it. Unknown ones are skipped. */
static int keep_attr(const struct nlattr *attr, const struct policy *policy,
		     const struct nlattr **table)
{
	uint16_t type = mnl_attr_get_type(attr);

	if (type >= ATTR_MAX || policy[type].type == MNL_TYPE_UNSPEC)
		return 0;
	/* libmnl has no rule for the length of plain bytes: the exact ones are checked here. */
	if (policy[type].len && mnl_attr_get_payload_len(attr) != policy[type].len)
		return -EBADMSG;
	if (policy[type].type != MNL_TYPE_BINARY && mnl_attr_validate(attr, policy[type].type) < 0)
		return -EBADMSG;
	table[type] = attr;
	return 0;
}

static int parse_message(const struct nlmsghdr *nlh, const struct policy *policy,
			 const struct nlattr **table)
{
	const struct nlattr *attr;

	netlink_attr_for_each(attr, nlh, sizeof(struct genlmsghdr))
		if (keep_attr(attr, policy, table) < 0)
			return -EBADMSG;
	return 0;
}

static int parse_nested(const struct nlattr *nest, const struct policy *policy,
			const struct nlattr **table)
{
	const struct nlattr *attr;

	netlink_attr_for_each_nested(attr, nest)
		if (keep_attr(attr, policy, table) < 0)
			return -EBADMSG;
	return 0;
}

static void copy_key(const struct nlattr *attr, struct key *ret)
{
	if (attr)
		memcpy(ret->b, mnl_attr_get_payload(attr), KEY_LEN);
}

static int read_device(struct wg_device *d, const struct nlattr **t)
{
	if (t[WGDEVICE_A_IFNAME]) {
		size_t len = mnl_attr_get_payload_len(t[WGDEVICE_A_IFNAME]);

		if (len > sizeof(d->ifname))
			return -EBADMSG;
		memcpy(d->ifname, mnl_attr_get_str(t[WGDEVICE_A_IFNAME]), len);
	}
	if (t[WGDEVICE_A_IFINDEX])
		d->ifindex = mnl_attr_get_u32(t[WGDEVICE_A_IFINDEX]);
	if (t[WGDEVICE_A_LISTEN_PORT])
		d->port = mnl_attr_get_u16(t[WGDEVICE_A_LISTEN_PORT]);
	if (t[WGDEVICE_A_FWMARK])
		d->fwmark = mnl_attr_get_u32(t[WGDEVICE_A_FWMARK]);
	copy_key(t[WGDEVICE_A_PRIVATE_KEY], &d->private_key);
	copy_key(t[WGDEVICE_A_PUBLIC_KEY], &d->public_key);
	return 0;
}

static int read_endpoint(const struct nlattr *attr, struct endpoint *ret)
{
	union sockaddr_any sa;
	size_t len = mnl_attr_get_payload_len(attr);

	memset(&sa, 0, sizeof(sa));
	if (len != sizeof(sa.in) && len != sizeof(sa.in6))
		return -EBADMSG;
	memcpy(&sa, mnl_attr_get_payload(attr), len);
	if (len != (sa.sa.sa_family == AF_INET ? sizeof(sa.in) : sizeof(sa.in6)))
		return -EBADMSG;
	return endpoint_from_sockaddr(&sa.sa, ret) < 0 ? -EBADMSG : 0;
}

static int read_handshake(const struct nlattr *attr, int64_t *ret)
{
	struct __kernel_timespec ts;

	memcpy(&ts, mnl_attr_get_payload(attr), sizeof(ts));
	if (ts.tv_sec < 0 || ts.tv_sec > INT64_MAX / 1000000000 - 1 || ts.tv_nsec < 0 ||
	    ts.tv_nsec >= 1000000000)
		return -EBADMSG;
	*ret = ts.tv_sec * 1000000000 + ts.tv_nsec;
	return 0;
}

static int read_allowed(const struct nlattr *nest, struct prefix *ret)
{
	const struct nlattr *t[ATTR_MAX] = { 0 };
	struct prefix p = { 0 };
	const void *ip;
	uint16_t af;
	size_t len;

	if (mnl_attr_validate(nest, MNL_TYPE_NESTED) < 0 ||
	    parse_nested(nest, allowed_policy, t) < 0)
		return -EBADMSG;
	if (!t[WGALLOWEDIP_A_FAMILY] || !t[WGALLOWEDIP_A_IPADDR] || !t[WGALLOWEDIP_A_CIDR_MASK])
		return -EBADMSG;
	af = mnl_attr_get_u16(t[WGALLOWEDIP_A_FAMILY]);
	ip = mnl_attr_get_payload(t[WGALLOWEDIP_A_IPADDR]);
	len = mnl_attr_get_payload_len(t[WGALLOWEDIP_A_IPADDR]);
	if (af == AF_INET && len == 4) {
		p.addr = addr_from4(ip);
	} else if (af == AF_INET6 && len == 16) {
		p.addr.family = 6; /* kept as it is: a trie of its own, nothing to unmap */
		memcpy(p.addr.b, ip, 16);
	} else {
		return -EBADMSG;
	}
	p.bits = mnl_attr_get_u8(t[WGALLOWEDIP_A_CIDR_MASK]);
	if (p.bits > addr_bits(&p.addr))
		return -EBADMSG;
	*ret = prefix_masked(&p);
	return 0;
}

static int reader_add_allowed(struct wg_reader *r, const struct prefix *p)
{
	if (r->peer.n_allowed == WG_ALLOWED_MAX)
		return -ENOBUFS;
	if (r->peer.n_allowed == r->allowed_cap) {
		size_t cap = r->allowed_cap ? r->allowed_cap * 2 : 8;
		struct prefix *more = reallocarray(r->peer.allowed, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		r->peer.allowed = more;
		r->allowed_cap = cap;
	}
	r->peer.allowed[r->peer.n_allowed++] = *p;
	return 0;
}

static int compare_prefix(const void *a, const void *b)
{
	return prefix_cmp(a, b);
}

static int reader_give(struct wg_reader *r)
{
	if (!r->have_peer)
		return 0;
	r->have_peer = false;
	if (r->peer.n_allowed > 1)
		qsort(r->peer.allowed, r->peer.n_allowed, sizeof(*r->peer.allowed), compare_prefix);
	return r->fn ? r->fn(r->data, &r->peer) : 0;
}

static void reader_clear(struct wg_reader *r)
{
	struct prefix *keep = r->peer.allowed;

	r->peer = (struct wg_peer){ .allowed = keep };
	r->have_peer = false;
}

static int read_peer_fields(struct wg_peer *p, const struct nlattr **t)
{
	if (t[WGPEER_A_ENDPOINT] && read_endpoint(t[WGPEER_A_ENDPOINT], &p->endpoint) < 0)
		return -EBADMSG;
	if (t[WGPEER_A_LAST_HANDSHAKE_TIME] &&
	    read_handshake(t[WGPEER_A_LAST_HANDSHAKE_TIME], &p->handshake_wall_nsec) < 0)
		return -EBADMSG;
	if (t[WGPEER_A_RX_BYTES])
		p->rx_bytes = mnl_attr_get_u64(t[WGPEER_A_RX_BYTES]);
	if (t[WGPEER_A_TX_BYTES])
		p->tx_bytes = mnl_attr_get_u64(t[WGPEER_A_TX_BYTES]);
	if (t[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL])
		p->keepalive_sec = mnl_attr_get_u16(t[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL]);
	return 0;
}

static int read_peer(struct wg_reader *r, const struct nlattr *nest)
{
	const struct nlattr *t[ATTR_MAX] = { 0 }, *attr;
	struct key key;
	int e;

	if (mnl_attr_validate(nest, MNL_TYPE_NESTED) < 0 || parse_nested(nest, peer_policy, t) < 0 ||
	    !t[WGPEER_A_PUBLIC_KEY])
		return -EBADMSG;
	copy_key(t[WGPEER_A_PUBLIC_KEY], &key);
	if (!r->have_peer || key_cmp(&key, &r->peer.key) != 0) {
		e = reader_give(r);
		if (e < 0)
			return e;
		reader_clear(r);
		r->peer.key = key;
		r->have_peer = true;
	}
	e = read_peer_fields(&r->peer, t);
	if (e < 0 || !t[WGPEER_A_ALLOWEDIPS])
		return e;
	netlink_attr_for_each_nested(attr, t[WGPEER_A_ALLOWEDIPS]) {
		struct prefix p;

		e = read_allowed(attr, &p);
		if (e == 0)
			e = reader_add_allowed(r, &p);
		if (e < 0)
			return e;
	}
	return 0;
}

void wg_reader_init(struct wg_reader *r, struct wg_device *device, wg_peer_fn *fn, void *data)
{
	*r = (struct wg_reader){ .device = device, .fn = fn, .data = data };
}

void wg_reader_restart(struct wg_reader *r)
{
	reader_clear(r);
}

int wg_reader_message(struct wg_reader *r, const struct nlmsghdr *nlh)
{
	const struct nlattr *t[ATTR_MAX] = { 0 }, *attr;
	int e;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(struct genlmsghdr) ||
	    parse_message(nlh, device_policy, t) < 0)
		return -EBADMSG;
	if (r->device) {
		e = read_device(r->device, t);
		if (e < 0)
			return e;
	}
	if (!t[WGDEVICE_A_PEERS])
		return 0;
	netlink_attr_for_each_nested(attr, t[WGDEVICE_A_PEERS]) {
		e = read_peer(r, attr);
		if (e < 0)
			return e;
	}
	return 0;
}

int wg_reader_end(struct wg_reader *r)
{
	return reader_give(r);
}

void wg_reader_done(struct wg_reader *r)
{
	free(r->peer.allowed);
	*r = (struct wg_reader){ 0 };
}

void wg_device_done(struct wg_device *d)
{
	key_wipe(&d->private_key);
	for (size_t i = 0; i < d->n_peers; i++)
		free(d->peers[i].allowed);
	free(d->peers);
	*d = (struct wg_device){ 0 };
}

static struct nlmsghdr *put_header(void *buf, size_t cap, uint16_t family_id, uint8_t cmd,
				   unsigned int ifindex)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *genl = mnl_nlmsg_put_extra_header(nlh, sizeof(*genl));

	nlh->nlmsg_type = family_id;
	genl->cmd = cmd;
	genl->version = WG_GENL_VERSION;
	mnl_attr_put_u32_check(nlh, cap, WGDEVICE_A_IFINDEX, ifindex);
	return nlh;
}

struct nlmsghdr *wg_encode_get(void *buf, size_t cap, uint16_t family_id, unsigned int ifindex)
{
	return put_header(buf, cap, family_id, WG_CMD_GET_DEVICE, ifindex);
}

struct nlmsghdr *wg_encode_device(void *buf, size_t cap, uint16_t family_id, unsigned int ifindex,
				  const struct key *private_key, const uint16_t *port,
				  const uint32_t *fwmark)
{
	struct nlmsghdr *nlh = put_header(buf, cap, family_id, WG_CMD_SET_DEVICE, ifindex);

	if (private_key)
		mnl_attr_put_check(nlh, cap, WGDEVICE_A_PRIVATE_KEY, KEY_LEN, private_key->b);
	if (port)
		mnl_attr_put_u16_check(nlh, cap, WGDEVICE_A_LISTEN_PORT, *port);
	if (fwmark)
		mnl_attr_put_u32_check(nlh, cap, WGDEVICE_A_FWMARK, *fwmark);
	return nlh;
}

/* One allowed IP; false when the message is full, which is left as it was. */
static bool put_allowed(struct nlmsghdr *nlh, size_t cap, const struct prefix *p, bool remove)
{
	struct nlattr *nest = mnl_attr_nest_start_check(nlh, cap, 0);

	if (!nest)
		return false;
	if (mnl_attr_put_u16_check(nlh, cap, WGALLOWEDIP_A_FAMILY, (uint16_t)addr_af(&p->addr)) &&
	    mnl_attr_put_check(nlh, cap, WGALLOWEDIP_A_IPADDR, addr_len(&p->addr), p->addr.b) &&
	    mnl_attr_put_u8_check(nlh, cap, WGALLOWEDIP_A_CIDR_MASK, p->bits) &&
	    (!remove || mnl_attr_put_u32_check(nlh, cap, ALLOWEDIP_A_FLAGS, ALLOWEDIP_F_REMOVE_ME))) {
		mnl_attr_nest_end(nlh, nest);
		return true;
	}
	mnl_attr_nest_cancel(nlh, nest);
	return false;
}

/* Key and flags of a peer; the nest is left open. NULL when the message is full. */
static struct nlattr *put_peer_head(struct nlmsghdr *nlh, size_t cap, const struct key *key,
				    uint32_t flags)
{
	struct nlattr *nest = mnl_attr_nest_start_check(nlh, cap, 0);

	if (!nest)
		return NULL;
	if (mnl_attr_put_check(nlh, cap, WGPEER_A_PUBLIC_KEY, KEY_LEN, key->b) &&
	    (!flags || mnl_attr_put_u32_check(nlh, cap, WGPEER_A_FLAGS, flags)))
		return nest;
	mnl_attr_nest_cancel(nlh, nest);
	return NULL;
}

static bool put_peer_fields(struct nlmsghdr *nlh, size_t cap, const struct wg_change *c)
{
	if (c->set_endpoint && c->endpoint.addr.family) {
		union sockaddr_any sa;
		socklen_t len = endpoint_to_sockaddr(&c->endpoint, &sa);

		if (!mnl_attr_put_check(nlh, cap, WGPEER_A_ENDPOINT, len, &sa))
			return false;
	}
	return !c->set_keepalive ||
	       mnl_attr_put_u16_check(nlh, cap, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL,
				      c->keepalive_sec);
}

/* As many of the prefixes from *pos on as fit. False when not even one did. */
static bool put_peer_allowed(struct nlmsghdr *nlh, size_t cap, const struct wg_change *c, size_t *pos)
{
	size_t first = *pos;
	struct nlattr *nest;

	if (*pos == c->n_allowed)
		return true;
	nest = mnl_attr_nest_start_check(nlh, cap, WGPEER_A_ALLOWEDIPS);
	if (!nest)
		return false;
	while (*pos < c->n_allowed && put_allowed(nlh, cap, &c->allowed[*pos], false))
		(*pos)++;
	if (*pos == first) {
		mnl_attr_nest_cancel(nlh, nest);
		return false;
	}
	mnl_attr_nest_end(nlh, nest);
	return true;
}

/* A peer, or the next part of it: then only the key and further prefixes are repeated. */
static bool put_peer(struct nlmsghdr *nlh, size_t cap, const struct wg_change *c, size_t *pos)
{
	bool first = *pos == 0;
	struct nlattr *nest =
		put_peer_head(nlh, cap, &c->key, first && c->create ? 0 : WGPEER_F_UPDATE_ONLY);

	if (!nest)
		return false;
	if ((!first || put_peer_fields(nlh, cap, c)) && put_peer_allowed(nlh, cap, c, pos)) {
		mnl_attr_nest_end(nlh, nest);
		return true;
	}
	mnl_attr_nest_cancel(nlh, nest);
	return false;
}

/* A peer of which nothing but its key and flags is said. */
static bool put_peer_flags(struct nlmsghdr *nlh, size_t cap, const struct key *key, uint32_t flags)
{
	struct nlattr *nest = put_peer_head(nlh, cap, key, flags);

	if (nest)
		mnl_attr_nest_end(nlh, nest);
	return nest;
}

/* Takes a prefix away. Where the kernel has no flag for it, it is moved to a peer that exists for
 * the length of this message (kernel.md 1.6): the owner's other prefixes never go. */
static bool put_drop(struct nlmsghdr *nlh, size_t cap, const struct wg_encode_how *how,
		     const struct wg_change *c)
{
	uint32_t flags = how->allowed_flags ? WGPEER_F_UPDATE_ONLY : 0;
	struct nlattr *peer, *ips;

	peer = put_peer_head(nlh, cap, how->allowed_flags ? &c->key : &how->scratch, flags);
	if (!peer)
		return false;
	ips = mnl_attr_nest_start_check(nlh, cap, WGPEER_A_ALLOWEDIPS);
	if (!ips || !put_allowed(nlh, cap, &c->allowed[0], how->allowed_flags)) {
		mnl_attr_nest_cancel(nlh, peer);
		return false;
	}
	mnl_attr_nest_end(nlh, ips);
	mnl_attr_nest_end(nlh, peer);
	if (how->allowed_flags || put_peer_flags(nlh, cap, &how->scratch, WGPEER_F_REMOVE_ME))
		return true;
	mnl_attr_nest_cancel(nlh, peer);
	return false;
}

size_t wg_encode_changes(void *buf, size_t cap, const struct wg_encode_how *how,
			 const struct wg_change *changes, size_t n, size_t max_removals,
			 struct wg_encode_pos *pos, struct nlmsghdr **ret)
{
	struct nlmsghdr *nlh = put_header(buf, cap, how->family_id, WG_CMD_SET_DEVICE, how->ifindex);
	struct nlattr *peers = mnl_attr_nest_start_check(nlh, cap, WGDEVICE_A_PEERS);
	size_t done = 0, removals = 0;

	assert(peers && cap >= 1024 && cap <= UINT16_MAX);
	for (; pos->change < n; pos->change++, pos->prefix = 0) {
		const struct wg_change *c = &changes[pos->change];
		bool slow = c->kind == WG_CHANGE_REMOVE ||
			    (c->kind == WG_CHANGE_DROP_PREFIX && !how->allowed_flags);
		bool fits = false;

		/* Each removal holds the host's rtnl lock for an RCU grace period (1.5). */
		if (slow && ((done > 0 && removals == 0) || removals == max_removals))
			break;
		switch (c->kind) {
		case WG_CHANGE_PEER:
			fits = put_peer(nlh, cap, c, &pos->prefix);
			break;
		case WG_CHANGE_DROP_PREFIX:
			fits = put_drop(nlh, cap, how, c);
			break;
		case WG_CHANGE_CLOSE:
			fits = put_peer_flags(nlh, cap, &c->key,
					      WGPEER_F_UPDATE_ONLY | WGPEER_F_REPLACE_ALLOWEDIPS);
			break;
		case WG_CHANGE_REMOVE:
			fits = put_peer_flags(nlh, cap, &c->key, WGPEER_F_REMOVE_ME);
			break;
		}
		if (!fits)
			break;
		done++;
		removals += slow;
		if (c->kind == WG_CHANGE_PEER && pos->prefix < c->n_allowed)
			break; /* full: the rest of its prefixes goes into the next message */
	}
	mnl_attr_nest_end(nlh, peers);
	*ret = nlh;
	return done;
}
