/* wg: messages there and back, splitting, malformed ones, and the plan for every kind of change. */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/wireguard.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/kernel/wg_plan.h"
#include "lib/cleanup.h"
#include "lib/netlink.h"

#define FAMILY 25

static struct key key_n(uint32_t n)
{
	struct key k = { { 1, [31] = 1 } };

	memcpy(k.b + 4, &n, sizeof(n));
	return k;
}

static struct prefix prefix_n(uint8_t b, uint8_t c, uint8_t bits)
{
	return (struct prefix){ addr_v4(100, 64, b, c), bits };
}

/* What a device would have after the changes: a model of the kernel, fed from encoded messages. */
struct model_peer {
	struct key key;
	struct endpoint endpoint;
	uint16_t keepalive;
	bool there;
};

struct model {
	struct model_peer peer[64];
	size_t n;
	struct {
		struct prefix p;
		size_t owner;
	} ip[6000];
	size_t n_ip;
	size_t closed; /* peers that lost all prefixes at once */
};

static size_t model_find(struct model *m, const struct key *k)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->peer[i].there && key_cmp(&m->peer[i].key, k) == 0)
			return i;
	return SIZE_MAX;
}

static void model_give(struct model *m, const struct prefix *p, size_t owner)
{
	for (size_t i = 0; i < m->n_ip; i++)
		if (prefix_equal(&m->ip[i].p, p)) {
			m->ip[i].owner = owner;
			return;
		}
	assert_true(m->n_ip < ARRAY_SIZE(m->ip));
	m->ip[m->n_ip].p = *p;
	m->ip[m->n_ip++].owner = owner;
}

static void model_drop(struct model *m, size_t owner, const struct prefix *p)
{
	for (size_t i = 0; i < m->n_ip; i++)
		if (m->ip[i].owner == owner && (!p || prefix_equal(&m->ip[i].p, p)))
			m->ip[i--] = m->ip[--m->n_ip];
}

static void model_allowed(struct model *m, size_t owner, const struct nlattr *nest)
{
	const struct nlattr *attr, *a;

	netlink_attr_for_each_nested(attr, nest) {
		struct prefix p = { 0 };
		uint32_t flags = 0;

		netlink_attr_for_each_nested(a, attr) {
			if (mnl_attr_get_type(a) == WGALLOWEDIP_A_IPADDR) {
				p.addr.family = mnl_attr_get_payload_len(a) == 4 ? 4 : 6;
				memcpy(p.addr.b, mnl_attr_get_payload(a), mnl_attr_get_payload_len(a));
			} else if (mnl_attr_get_type(a) == WGALLOWEDIP_A_CIDR_MASK) {
				p.bits = mnl_attr_get_u8(a);
			} else if (mnl_attr_get_type(a) == 4) {
				flags = mnl_attr_get_u32(a);
			}
		}
		if (flags & 1)
			model_drop(m, owner, &p);
		else
			model_give(m, &p, owner);
	}
}

/* One peer of a SET message, by the rules of the module (kernel.md 1.2, 1.6). */
static void model_peer(struct model *m, const struct nlattr *nest)
{
	const struct nlattr *t[16] = { 0 }, *attr;
	uint32_t flags = 0;
	struct key k;
	size_t i;

	assert_true(nest->nla_type & NLA_F_NESTED);
	netlink_attr_for_each_nested(attr, nest)
		t[mnl_attr_get_type(attr)] = attr;
	assert_non_null(t[WGPEER_A_PUBLIC_KEY]);
	memcpy(k.b, mnl_attr_get_payload(t[WGPEER_A_PUBLIC_KEY]), KEY_LEN);
	if (t[WGPEER_A_FLAGS])
		flags = mnl_attr_get_u32(t[WGPEER_A_FLAGS]);
	i = model_find(m, &k);
	if (flags & WGPEER_F_REPLACE_ALLOWEDIPS) { /* only of those that go */
		assert_true(flags & WGPEER_F_UPDATE_ONLY);
		assert_true(!t[WGPEER_A_ALLOWEDIPS] && !t[WGPEER_A_ENDPOINT]);
		assert_true(i != SIZE_MAX);
		model_drop(m, i, NULL);
		m->closed++;
		return;
	}
	if (i == SIZE_MAX) {
		if (flags & (WGPEER_F_UPDATE_ONLY | WGPEER_F_REMOVE_ME))
			return;
		assert_true(m->n < ARRAY_SIZE(m->peer));
		i = m->n++;
		m->peer[i] = (struct model_peer){ .key = k, .there = true };
	}
	if (flags & WGPEER_F_REMOVE_ME) {
		m->peer[i].there = false;
		model_drop(m, i, NULL);
		return;
	}
	if (t[WGPEER_A_ENDPOINT]) {
		union sockaddr_any sa;

		memset(&sa, 0, sizeof(sa));
		memcpy(&sa, mnl_attr_get_payload(t[WGPEER_A_ENDPOINT]),
		       mnl_attr_get_payload_len(t[WGPEER_A_ENDPOINT]));
		assert_int_equal(endpoint_from_sockaddr(&sa.sa, &m->peer[i].endpoint), 0);
	}
	if (t[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL])
		m->peer[i].keepalive = mnl_attr_get_u16(t[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL]);
	if (t[WGPEER_A_ALLOWEDIPS])
		model_allowed(m, i, t[WGPEER_A_ALLOWEDIPS]);
}

static void model_message(struct model *m, const struct nlmsghdr *nlh)
{
	const struct nlattr *attr, *peer;

	netlink_attr_for_each(attr, nlh, sizeof(struct genlmsghdr)) {
		assert_true(mnl_attr_get_type(attr) != WGDEVICE_A_FLAGS); /* REPLACE_PEERS */
		if (mnl_attr_get_type(attr) != WGDEVICE_A_PEERS)
			continue;
		netlink_attr_for_each_nested(peer, attr)
			model_peer(m, peer);
	}
}

/* Sends the plan to the model; returns how many messages it took. */
static size_t model_apply(struct model *m, const struct wg_plan *plan, size_t cap, bool allowed_flags)
{
	struct wg_encode_how how = { FAMILY, 7, allowed_flags, key_n(999999) };
	struct wg_encode_pos pos = { 0 };
	size_t messages = 0;

	while (pos.change < plan->n) {
		uint8_t *buf = malloc(cap);
		struct nlmsghdr *nlh;

		assert_true(wg_encode_changes(buf, cap, &how, plan->changes, plan->n, 8, &pos, &nlh) > 0);
		assert_true(nlh->nlmsg_len <= cap);
		model_message(m, nlh);
		messages++;
		free(buf);
	}
	return messages;
}

/* The model as a device, for the next plan. */
static void model_device(const struct model *m, struct wg_device *d)
{
	*d = (struct wg_device){ .ifindex = 7 };
	d->peers = calloc(m->n + 1, sizeof(*d->peers));
	for (size_t i = 0; i < m->n; i++) {
		struct wg_peer *p = &d->peers[d->n_peers];

		if (!m->peer[i].there)
			continue;
		*p = (struct wg_peer){ .key = m->peer[i].key,
				       .endpoint = m->peer[i].endpoint,
				       .keepalive_sec = m->peer[i].keepalive };
		p->allowed = calloc(m->n_ip + 1, sizeof(*p->allowed));
		for (size_t k = 0; k < m->n_ip; k++)
			if (m->ip[k].owner == i)
				p->allowed[p->n_allowed++] = m->ip[k].p;
		qsort(p->allowed, p->n_allowed, sizeof(*p->allowed),
		      (int (*)(const void *, const void *))prefix_cmp);
		d->n_peers++;
	}
	qsort(d->peers, d->n_peers, sizeof(*d->peers), (int (*)(const void *, const void *))key_cmp);
}

/* The dump a device would answer with, split as the kernel splits: a peer repeated for more prefixes. */
static int read_back(const struct wg_device *d, size_t per_record, wg_peer_fn *fn, void *data)
{
	uint8_t *buf = malloc(1 << 20);
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *genl = mnl_nlmsg_put_extra_header(nlh, sizeof(*genl));
	struct nlattr *peers;
	struct wg_reader r;
	int e;

	mnl_attr_put_u32(nlh, WGDEVICE_A_IFINDEX, d->ifindex);
	mnl_attr_put_u16(nlh, WGDEVICE_A_LISTEN_PORT, 41641);
	mnl_attr_put(nlh, WGDEVICE_A_PRIVATE_KEY, KEY_LEN, key_n(5).b);
	peers = mnl_attr_nest_start(nlh, WGDEVICE_A_PEERS);
	for (size_t i = 0; i < d->n_peers; i++) {
		size_t k = 0;

		do {
			struct nlattr *one = mnl_attr_nest_start(nlh, 0), *ips, *ip;
			union sockaddr_any sa;

			mnl_attr_put(nlh, WGPEER_A_PUBLIC_KEY, KEY_LEN, d->peers[i].key.b);
			if (k == 0) {
				mnl_attr_put(nlh, WGPEER_A_ENDPOINT,
					     endpoint_to_sockaddr(&d->peers[i].endpoint, &sa), &sa);
				mnl_attr_put_u64(nlh, WGPEER_A_RX_BYTES, 17);
			}
			ips = mnl_attr_nest_start(nlh, WGPEER_A_ALLOWEDIPS);
			for (size_t c = 0; c < per_record && k < d->peers[i].n_allowed; c++, k++) {
				const struct prefix *p = &d->peers[i].allowed[k];

				ip = mnl_attr_nest_start(nlh, 0);
				mnl_attr_put_u16(nlh, WGALLOWEDIP_A_FAMILY, (uint16_t)addr_af(&p->addr));
				mnl_attr_put(nlh, WGALLOWEDIP_A_IPADDR, addr_len(&p->addr), p->addr.b);
				mnl_attr_put_u8(nlh, WGALLOWEDIP_A_CIDR_MASK, p->bits);
				mnl_attr_nest_end(nlh, ip);
			}
			mnl_attr_nest_end(nlh, ips);
			mnl_attr_nest_end(nlh, one);
		} while (k < d->peers[i].n_allowed);
	}
	mnl_attr_nest_end(nlh, peers);
	wg_reader_init(&r, NULL, fn, data);
	e = wg_reader_message(&r, nlh);
	if (e == 0)
		e = wg_reader_end(&r);
	wg_reader_done(&r);
	free(buf);
	return e;
}

static int count_peer(void *data, const struct wg_peer *p)
{
	size_t *n = data;

	n[0]++;
	n[1] += p->n_allowed;
	assert_int_equal(p->rx_bytes, 17);
	for (size_t i = 1; i < p->n_allowed; i++)
		assert_true(prefix_cmp(&p->allowed[i - 1], &p->allowed[i]) < 0);
	return 0;
}

static struct wg_want want_of(uint32_t n, const struct prefix *allowed, size_t n_allowed)
{
	return (struct wg_want){ .key = key_n(n),
				 .endpoint = { addr_v4(127, 64, 0, (uint8_t)n), 41642 },
				 .allowed = allowed,
				 .n_allowed = n_allowed };
}

/* Plans from the model to wanted, applies, and checks that the next plan is empty. */
static size_t settle(struct model *m, const struct wg_want *wanted, size_t n, size_t cap, bool flags)
{
	struct wg_device d;
	struct wg_plan plan;
	size_t messages;

	model_device(m, &d);
	assert_int_equal(wg_plan(&d, wanted, n, &plan), 0);
	messages = model_apply(m, &plan, cap, flags);
	wg_plan_done(&plan);
	wg_device_done(&d);
	model_device(m, &d);
	assert_int_equal(d.n_peers, n);
	assert_int_equal(wg_plan(&d, wanted, n, &plan), 0);
	assert_int_equal(plan.n, 0);
	wg_plan_done(&plan);
	wg_device_done(&d);
	return messages;
}

static void test_settles(void **state)
{
	static struct model m;
	static struct prefix many[5000];
	struct prefix a[] = { prefix_n(0, 1, 32), prefix_n(1, 7, 24) }, b[] = { prefix_n(0, 2, 32) };
	struct prefix moved[] = { prefix_n(0, 2, 32), prefix_n(1, 0, 24) };
	struct wg_want w[40];

	(void)state;
	for (int flags = 0; flags < 2; flags++) {
		memset(&m, 0, sizeof(m));
		w[0] = want_of(2, a, 2); /* host bits set: the kernel masks */
		w[1] = want_of(1, b, 1);
		assert_int_equal(settle(&m, w, 2, 16384, flags), 1);
		/* The subnet moves to the other peer, and nothing else is touched. */
		w[0].n_allowed = 1;
		w[1].allowed = moved;
		w[1].n_allowed = 2;
		assert_int_equal(settle(&m, w, 2, 16384, flags), 1);
		/* A prefix that nobody wants goes, by either way. */
		w[1].n_allowed = 1;
		assert_int_equal(settle(&m, w, 2, 16384, flags), 1);
		assert_int_equal(m.n_ip, 2);
		/* A peer whose prefix moved away goes. */
		w[0].allowed = moved;
		assert_int_equal(settle(&m, w, 1, 16384, flags), 2);
		/* Many prefixes: one peer over many messages. */
		for (size_t i = 0; i < 5000; i++)
			many[i] = prefix_n((uint8_t)(i / 250), (uint8_t)(i % 250), 32);
		w[0] = want_of(2, many, 5000);
		assert_true(settle(&m, w, 1, 4096, flags) > 30);
		/* Removals come eight to a message, and never with additions. */
		for (uint32_t i = 0; i < 40; i++)
			w[i] = want_of(100 + i, NULL, 0);
		assert_int_equal(settle(&m, w, 40, 16384, flags), 2);
		w[0] = want_of(300, NULL, 0);
		assert_int_equal(settle(&m, w, 1, 16384, flags), 1 + 5);
		assert_int_equal(m.closed, 0); /* none of them had a prefix to lose */
	}
}

/* Many that go: before the first of them is removed, which is slow, nothing is theirs any more. What
 * one of those that stay is to lose comes later, where that is slow as well. */
static void test_closed_first(void **state)
{
	static struct model m;
	struct prefix p[41];
	struct wg_want w[41];
	struct wg_device d;
	struct wg_plan plan;
	struct nlmsghdr *nlh;
	uint8_t buf[16384];

	(void)state;
	for (int flags = 0; flags < 2; flags++)
		for (size_t gone = 1; gone <= 41; gone++) {
			struct wg_encode_how how = { FAMILY, 7, flags, key_n(999999) };
			struct wg_encode_pos pos = { 0 };
			size_t stay = 41 - gone;

			memset(&m, 0, sizeof(m));
			for (uint32_t i = 0; i < 41; i++) {
				p[i] = prefix_n(0, (uint8_t)i, 32);
				w[i] = want_of(i + 1, &p[i], 1);
			}
			settle(&m, w, 41, sizeof(buf), flags);
			if (stay > 0)
				w[0].n_allowed = 0;
			model_device(&m, &d);
			assert_int_equal(wg_plan(&d, w, stay, &plan), 0);
			assert_true(wg_encode_changes(buf, sizeof(buf), &how, plan.changes, plan.n, 8, &pos, &nlh) > 0);
			model_message(&m, nlh);
			assert_int_equal(m.closed, gone > WG_REMOVE_BATCH ? gone : 0);
			for (size_t i = 0; i < m.n_ip && gone > WG_REMOVE_BATCH; i++)
				assert_true(m.ip[i].owner < stay);
			wg_plan_forget(&plan, pos.change);
			model_apply(&m, &plan, sizeof(buf), flags);
			wg_plan_done(&plan);
			wg_device_done(&d);
			assert_int_equal(settle(&m, w, stay, sizeof(buf), flags), 0);
		}
}

static void test_endpoints(void **state)
{
	static struct model m;
	struct wg_want w = want_of(1, NULL, 0);
	struct endpoint direct = { addr_v4(192, 0, 2, 1), 7 };

	(void)state;
	memset(&m, 0, sizeof(m));
	settle(&m, &w, 1, 2048, false);
	assert_true(endpoint_equal(&m.peer[0].endpoint, &w.endpoint));
	/* What the kernel learned stays, unless told otherwise. */
	m.peer[0].endpoint = direct;
	assert_int_equal(settle(&m, &w, 1, 2048, false), 0);
	w.force_endpoint = true;
	assert_int_equal(settle(&m, &w, 1, 2048, false), 1);
	assert_true(endpoint_equal(&m.peer[0].endpoint, &w.endpoint));
	w.keepalive_sec = 25;
	assert_int_equal(settle(&m, &w, 1, 2048, false), 1);
	assert_int_equal(m.peer[0].keepalive, 25);
}

static void test_refused(void **state)
{
	struct prefix p[] = { prefix_n(0, 1, 24), prefix_n(0, 2, 24) };
	struct wg_want w[2] = { want_of(1, p, 1), want_of(1, p + 1, 1) };
	struct wg_device none = { 0 };
	struct wg_plan plan;

	(void)state;
	assert_int_equal(wg_plan(&none, w, 2, &plan), -EINVAL); /* a key twice */
	w[1].key = key_n(2);
	assert_int_equal(wg_plan(&none, w, 2, &plan), -EINVAL); /* a prefix twice, once masked */
}

static void test_dump(void **state)
{
	static struct model m;
	static struct prefix many[500];
	struct wg_want w[3] = { want_of(1, many, 300), want_of(2, NULL, 0), want_of(3, many + 300, 200) };
	struct wg_device d;

	(void)state;
	memset(&m, 0, sizeof(m));
	for (size_t i = 0; i < 500; i++)
		many[i] = prefix_n((uint8_t)(i / 250), (uint8_t)(i % 250), 32);
	settle(&m, w, 3, 16384, false);
	model_device(&m, &d);
	for (size_t per = 1; per < 600; per += 113) {
		size_t n[2] = { 0 };

		assert_int_equal(read_back(&d, per, count_peer, n), 0);
		assert_int_equal(n[0], 3);
		assert_int_equal(n[1], 500);
	}
	wg_device_done(&d);
}

/* Attributes that lie about themselves. */
static void test_malformed(void **state)
{
	static const struct {
		uint16_t type, len;
	} bad[] = { { WGPEER_A_PUBLIC_KEY, 31 }, { WGPEER_A_PUBLIC_KEY, 0 },  { WGPEER_A_ENDPOINT, 15 },
		    { WGPEER_A_ENDPOINT, 16 },	 { WGPEER_A_RX_BYTES, 4 },    { WGPEER_A_LAST_HANDSHAKE_TIME, 8 },
		    { WGPEER_A_ALLOWEDIPS, 3 },	 { WGPEER_A_ALLOWEDIPS, 12 }, { WGPEER_A_TX_BYTES, 9 } };
	static const uint8_t bytes[64] = { 8, 0, 0, 0x80 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t buf[512] __attribute__((aligned(8)));
		struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
		struct nlattr *peers, *one;
		struct wg_reader r;

		mnl_nlmsg_put_extra_header(nlh, sizeof(struct genlmsghdr));
		peers = mnl_attr_nest_start(nlh, WGDEVICE_A_PEERS);
		one = mnl_attr_nest_start(nlh, 0);
		if (bad[i].type != WGPEER_A_PUBLIC_KEY)
			mnl_attr_put(nlh, WGPEER_A_PUBLIC_KEY, KEY_LEN, bytes);
		mnl_attr_put(nlh, bad[i].type | (bad[i].type == WGPEER_A_ALLOWEDIPS ? NLA_F_NESTED : 0),
			     bad[i].len, bytes);
		mnl_attr_nest_end(nlh, one);
		mnl_attr_nest_end(nlh, peers);
		wg_reader_init(&r, NULL, NULL, NULL);
		if (wg_reader_message(&r, nlh) != -EBADMSG)
			fail_msg("case %zu was taken", i);
		wg_reader_done(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settles),
		cmocka_unit_test(test_closed_first),	  cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_refused),	  cmocka_unit_test(test_dump),
		cmocka_unit_test(test_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
