#include "nft/reconcile.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/netlink.h"
#include "nft/batch.h"
#include "nft/copy.h"

#define REST_USEC (250 * USEC_PER_MSEC) /* between two calls of the watcher */
#define TRIALS	  8

struct nft {
	struct netlink *nl, *events;
	char table[NFT_NAME_MAX];
	char error[224];
	int persist; /* -1: not tried */
	bool kept;   /* the socket lives on when we die */
	struct loop_io *io;
	struct loop_timer *timer;
	uint64_t told; /* loop time; 0 = never */
	loop_fn *fn;
	void *data;
};

int nft_open(int fd, struct nft **ret)
{
	CLEANUP(nft_close) struct nft *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	n->persist = -1;
	r = fd < 0 ? netlink_open(NETLINK_NETFILTER, &n->nl) :
		     netlink_adopt(NETLINK_NETFILTER, fd, &n->nl);
	if (r < 0)
		return r;
	*ret = TAKE(n);
	return 0;
}

void nft_close(struct nft *n)
{
	if (!n)
		return;
	loop_io_free(n->io);
	loop_timer_free(n->timer);
	netlink_close(n->nl);
	netlink_close(n->events);
	free(n);
}

const char *nft_error(const struct nft *n)
{
	return n->error;
}

uint64_t nft_changes_sent(const struct nft *n)
{
	return netlink_changes_sent(n->nl);
}

int nft_fd(const struct nft *n)
{
	return netlink_fd(n->nl);
}

void nft_set_kept(struct nft *n, bool kept)
{
	n->kept = kept;
}

/* Reading */

struct reading {
	const char *table;
	struct nft_table_seen seen;
	uint8_t family;
	struct nft_elements elements;
};

static int on_table(void *data, const struct nlmsghdr *nlh)
{
	struct reading *r = data;

	return nft_read_table(nlh, r->table, &r->seen);
}

static int on_chain(void *data, const struct nlmsghdr *nlh)
{
	struct reading *r = data;

	return nft_read_chain(nlh, r->table, &r->seen);
}

static int on_rule(void *data, const struct nlmsghdr *nlh)
{
	struct reading *r = data;

	return nft_read_rule(nlh, r->table, &r->seen);
}

static int on_element(void *data, const struct nlmsghdr *nlh)
{
	struct reading *r = data;

	return nft_read_elements(nlh, r->family, &r->elements);
}

static void forget_tables(void *data)
{
	struct reading *r = data;

	r->seen.there = r->seen.copied = false;
}

static void forget_chains(void *data)
{
	struct reading *r = data;

	buf_clear(&r->seen.chains);
}

static void forget_rules(void *data)
{
	struct reading *r = data;

	buf_clear(&r->seen.rules);
}

static void forget_elements(void *data)
{
	struct reading *r = data;

	r->elements.n = 0;
}

static struct nlmsghdr *get(void *buf, uint16_t msg)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));

	nlh->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | msg);
	nfg->nfgen_family = NFPROTO_INET;
	return nlh;
}

static int dump_rules(struct nft *n, struct reading *r)
{
	uint8_t buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = get(buf, NFT_MSG_GETRULE);

	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, r->table);
	return netlink_dump(n->nl, nlh, forget_rules, on_rule, r);
}

/* The table, and if it is there and ours its chains and rules. */
static int read_table(struct nft *n, const char *table, struct nft_table_seen *ret)
{
	struct reading r = { .table = table };
	uint8_t buf[256] __attribute__((aligned(8)));
	int e;

	e = netlink_dump(n->nl, get(buf, NFT_MSG_GETTABLE), forget_tables, on_table, &r);
	if (e == 0 && r.seen.there && r.seen.ours)
		e = netlink_dump(n->nl, get(buf, NFT_MSG_GETCHAIN), forget_chains, on_chain, &r);
	if (e == 0 && r.seen.there && r.seen.ours)
		e = dump_rules(n, &r);
	if (e < 0) {
		nft_table_seen_done(&r.seen);
		return e;
	}
	*ret = r.seen;
	return 0;
}

static int compare_addr(const void *a, const void *b)
{
	return addr_cmp(a, b);
}

/* Members of a set, sorted. */
static int read_set(struct nft *n, const char *table, const struct nft_set *set,
		    struct nft_elements *ret)
{
	struct reading r = { .table = table, .family = set->family };
	uint8_t buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = get(buf, NFT_MSG_GETSETELEM);
	int e;

	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set->name);
	e = netlink_dump(n->nl, nlh, forget_elements, on_element, &r);
	if (e < 0) {
		free(r.elements.v);
		return e;
	}
	if (r.elements.n > 1)
		qsort(r.elements.v, r.elements.n, sizeof(*r.elements.v), compare_addr);
	*ret = r.elements;
	return 0;
}

/* Sending */

static int fail(struct nft *n, int r)
{
	snprintf(n->error, sizeof(n->error), "%s", netlink_error(n->nl));
	return r;
}

static int send_batch(struct nft *n, const struct buf *b)
{
	int r = netlink_batch(n->nl, buf_data(b), b->len, NULL);

	return r < 0 ? fail(n, r) : 0;
}

static uint32_t reserve_seqs(struct nft *n)
{
	return netlink_seq(n->nl); /* answers are drained before the next request: reuse does no harm */
}

/* A dry run says what the kernel can do, for good: not when its answer was lost. */
static bool is_moment(int r)
{
	return r == -ENOBUFS || r == -EBUSY || r == -EINTR;
}

static int send_trial(struct nft *n, const struct buf *b)
{
	int r = -ENOBUFS;

	for (int i = 0; i < TRIALS && is_moment(r); i++)
		r = send_batch(n, b);
	return r;
}

/* A dry run of one ruleset: 0 when the kernel would take it. */
static int try_ruleset(struct nft *n, const struct nft_config *c)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct nft_ruleset rs;
	int r = nft_ruleset_make(c, &rs);

	if (r == 0)
		r = nft_batch_try(&rs, 0, reserve_seqs(n), &b);
	return r < 0 ? r : send_trial(n, &b);
}

/* Whether tables outlive their owner here: asked once. Negative: it cannot be found out now. */
static int find_persist(struct nft *n)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct nft_ruleset rs = { 0 };
	int r;

	if (n->persist >= 0)
		return n->persist;
	/* A table of a name that nobody has, never committed: nothing of it can be left behind. */
	snprintf(rs.table, sizeof(rs.table), "kernscale-%u", netlink_portid(n->nl));
	r = nft_batch_try(&rs, NFT_OWNER | NFT_PERSIST, reserve_seqs(n), &b);
	if (r == 0)
		r = send_trial(n, &b);
	if (is_moment(r) || r == -ENOMEM)
		return r;
	n->persist = r == 0;
	return n->persist;
}

static uint32_t wanted_flags(struct nft *n)
{
	return n->persist > 0 ? NFT_OWNER | NFT_PERSIST : n->kept ? NFT_OWNER : 0;
}

bool nft_goes_with_owner(const struct nft *n)
{
	return n->persist == 0 && n->kept;
}

int nft_probe(struct nft *n)
{
	struct nft_config c = { .ifname = "lo",
				.ifindex = 1,
				.port = 1,
				.private_port = 2,
				.mark = 0x80000,
				.mark_mask = 0xff0000,
				.forwarding = true };
	int has = 0, r;

	snprintf(c.table, sizeof(c.table), "kernscale-%u", netlink_portid(n->nl));
	r = try_ruleset(n, &c);
	if (r < 0)
		return is_moment(r) || r == -ENOMEM ? r : 0;
	has |= NFT_HAS_TABLES;
	c.share_port = true;
	if (try_ruleset(n, &c) == 0)
		has |= NFT_HAS_TPROXY;
	r = find_persist(n);
	if (r < 0)
		return r;
	return r ? has | NFT_HAS_PERSIST : has;
}

static bool equal_buf(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && memcmp(buf_data(a), buf_data(b), a->len) == 0;
}

static bool is_same(const struct nft_ruleset *want, const struct nft_table_seen *seen)
{
	CLEANUP(nft_table_seen_done) struct nft_table_seen w = { 0 };

	if (!seen->there || nft_describe(want, &w) < 0)
		return false;
	return equal_buf(&w.chains, &seen->chains) && equal_buf(&w.rules, &seen->rules);
}

/* What has to be added to have and deleted from it; both sorted. */
static int diff_set(const struct nft_set *want, const struct nft_elements *have,
		    struct nft_set_change *c, struct addr **ret_mem)
{
	struct addr *add = calloc(want->n + have->n + 1, sizeof(*add)), *del;
	size_t i = 0, k = 0;

	if (!add)
		return -ENOMEM;
	del = add + want->n;
	*c = (struct nft_set_change){ .set = want->name, .family = want->family, .add = add, .del = del };
	while (i < want->n || k < have->n) {
		int o = i == want->n ? 1 : k == have->n ? -1 : addr_cmp(&want->addrs[i], &have->v[k]);

		if (o < 0)
			add[c->n_add++] = want->addrs[i++];
		else if (o > 0)
			del[c->n_del++] = have->v[k++];
		else
			i++, k++;
	}
	*ret_mem = add;
	return 0;
}

/* Rules are the same: only the members of sets may differ. 1 when something was sent. */
static int apply_elements(struct nft *n, const struct nft_ruleset *rs)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct nft_set_change c[NFT_SETS_MAX] = { 0 };
	struct addr *mem[NFT_SETS_MAX] = { 0 };
	size_t changes = 0;
	int r = 0;

	for (size_t i = 0; i < rs->n_sets && r == 0; i++) {
		struct nft_elements have = { 0 };

		r = read_set(n, rs->table, &rs->sets[i], &have);
		if (r == 0)
			r = diff_set(&rs->sets[i], &have, &c[i], &mem[i]);
		free(have.v);
		changes += c[i].n_add + c[i].n_del;
	}
	if (r == 0 && changes > 0) {
		r = nft_batch_elements(rs->table, c, rs->n_sets, reserve_seqs(n), &b);
		if (r == 0)
			r = send_batch(n, &b);
	}
	for (size_t i = 0; i < rs->n_sets; i++)
		free(mem[i]);
	return r < 0 ? r : changes > 0;
}

/* A copy that held the place of the table ends with the transaction that makes the table. */
static int replace(struct nft *n, const struct nft_ruleset *rs, const struct nft_table_seen *seen)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	char copy[NFT_NAME_MAX];
	struct nft_batch_opts o = { .first_seq = reserve_seqs(n),
				    .delete_first = seen->there,
				    .table_flags = wanted_flags(n),
				    .delete_also = seen->copied ? copy : NULL };
	int r = nft_copy_name(rs->table, copy);

	if (r == 0)
		r = nft_batch_replace(rs, &o, &b);
	return r < 0 ? r : send_batch(n, &b);
}

/* Ours of that name, as far as they are there. */
static int delete(struct nft *n, const char *table, bool there, bool copied)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	char copy[NFT_NAME_MAX];
	const char *which[2];
	size_t k = 0;
	int r = nft_copy_name(table, copy);

	if (there)
		which[k++] = table;
	if (copied)
		which[k++] = copy;
	if (r == 0)
		r = nft_batch_delete(which, k, reserve_seqs(n), &b);
	return r < 0 ? r : send_batch(n, &b);
}

/* Our rules, by a daemon that is gone: they get an owner again and stay, with their counters. */
static int own(struct nft *n, const char *table)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	int r = nft_batch_own(table, reserve_seqs(n), &b);

	return r < 0 ? r : send_batch(n, &b);
}

/* The same rules stand: what is left to do. 1: something; -EAGAIN: only a new table will do. */
static int keep(struct nft *n, const struct nft_ruleset *rs, const struct nft_table_seen *seen)
{
	uint32_t flags = wanted_flags(n);
	bool owned = seen->flags == flags;
	int r;

	if (!owned && (flags != (NFT_OWNER | NFT_PERSIST) || seen->flags != NFT_PERSIST ||
		       own(n, rs->table) < 0))
		return -EAGAIN;
	r = apply_elements(n, rs);
	if (r >= 0 && seen->copied) {
		int e = delete(n, rs->table, false, true);

		r = e < 0 ? e : 1;
	}
	return r < 0 ? r : r || !owned;
}

static bool is_of_other(const struct nft *n, const struct nft_table_seen *seen)
{
	return (seen->flags & NFT_OWNER) && seen->owner && seen->owner != netlink_portid(n->nl);
}

static int check_ours(struct nft *n, const char *table, const struct nft_table_seen *seen)
{
	if (seen->there && !seen->ours) {
		snprintf(n->error, sizeof(n->error), "table inet %s exists and is not ours", table);
		return -EEXIST;
	}
	if (is_of_other(n, seen)) {
		snprintf(n->error, sizeof(n->error),
			 "table inet %s is held by another process's netlink socket (port %u): is another "
			 "kernscaled or its unit active?",
			 table, seen->owner);
		return -EPERM;
	}
	return 0;
}

int nft_may_have(struct nft *n, const char *table)
{
	CLEANUP(nft_table_seen_done) struct nft_table_seen seen = { 0 };
	int r = read_table(n, table, &seen);

	n->error[0] = '\0';
	return r < 0 ? fail(n, r) : check_ours(n, table, &seen);
}

int nft_apply(struct nft *n, const struct nft_config *c)
{
	CLEANUP(nft_table_seen_done) struct nft_table_seen seen = { 0 };
	struct nft_ruleset rs;
	int r = nft_ruleset_make(c, &rs);

	n->error[0] = '\0';
	if (r < 0)
		return r;
	r = find_persist(n);
	if (r >= 0)
		r = read_table(n, c->table, &seen);
	if (r < 0)
		return fail(n, r);
	r = check_ours(n, c->table, &seen);
	if (r < 0)
		return r;
	memcpy(n->table, rs.table, sizeof(n->table));
	r = is_same(&rs, &seen) ? keep(n, &rs, &seen) : -EAGAIN;
	if (r != -EAGAIN)
		return r;
	r = replace(n, &rs, &seen);
	return r < 0 ? r : 1;
}

/* Whether the copy has a rule: 1 or 0. */
static int copy_has_rules(struct nft *n, const char *table)
{
	char copy[NFT_NAME_MAX];
	struct reading r = { .table = copy };
	int e = nft_copy_name(table, copy);

	if (e == 0)
		e = dump_rules(n, &r);
	if (e == 0)
		e = r.seen.rules.len > 0;
	nft_table_seen_done(&r.seen);
	return e;
}

int nft_stands(struct nft *n, const char *table)
{
	CLEANUP(nft_table_seen_done) struct nft_table_seen seen = { 0 };
	int r = read_table(n, table, &seen);

	if (r == 0)
		r = seen.there && seen.ours && seen.rules.len > 0;
	if (r == 0 && seen.copied)
		r = copy_has_rules(n, table);
	return r < 0 ? fail(n, r) : r;
}

int nft_remove(struct nft *n, const char *table)
{
	CLEANUP(nft_table_seen_done) struct nft_table_seen seen = { 0 };
	int r = read_table(n, table, &seen);

	if (strcmp(n->table, table) == 0)
		n->table[0] = '\0'; /* what becomes of it now is no news */
	if (r < 0)
		return fail(n, r);
	if ((seen.there && seen.ours) || seen.copied)
		r = delete(n, table, seen.there && seen.ours, seen.copied);
	return r == 0 && seen.there && !seen.ours ? -EEXIST : r;
}

/* Holding */

static void rewind_copy(void *data)
{
	nft_copy_rewind(data);
}

static int copy_set(void *data, const struct nlmsghdr *nlh)
{
	return nft_copy_set(data, nlh);
}

static int copy_chain(void *data, const struct nlmsghdr *nlh)
{
	return nft_copy_chain(data, nlh);
}

static int copy_rule(void *data, const struct nlmsghdr *nlh)
{
	return nft_copy_rule(data, nlh);
}

/* One kind of what the table has. The attribute that names the table is the first in each. */
static int copy_kind(struct nft *n, struct nft_copy *c, uint16_t msg, netlink_msg_fn *fn)
{
	uint8_t buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = get(buf, msg);

	nft_copy_set_mark(c);
	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, c->from); /* some kernels give those of other tables as well */
	return netlink_dump(n->nl, nlh, rewind_copy, fn, c);
}

static int copy_members(struct nft *n, struct nft_copy *c)
{
	int r = 0;

	for (size_t i = 0; i < c->n_sets && r == 0; i++) {
		struct nft_set set = { .name = c->sets[i].name, .family = c->sets[i].family };
		struct nft_elements have = { 0 };

		r = read_set(n, c->from, &set, &have);
		if (r == 0)
			r = nft_copy_elements(c, i, have.v, have.n);
		free(have.v);
	}
	return r;
}

static int hold_copy(struct nft *n, const char *table, bool copied)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct nft_copy c;
	int r = nft_copy_begin(&c, table, copied, reserve_seqs(n), &b);

	if (r == 0)
		r = copy_kind(n, &c, NFT_MSG_GETSET, copy_set);
	if (r == 0)
		r = copy_kind(n, &c, NFT_MSG_GETCHAIN, copy_chain);
	if (r == 0)
		r = copy_kind(n, &c, NFT_MSG_GETRULE, copy_rule);
	if (r == 0)
		r = copy_members(n, &c);
	if (r == 0)
		r = nft_copy_end(&c);
	return r < 0 ? r : send_batch(n, &b);
}

/* Not what stands, but closed. */
static int hold_closed(struct nft *n, const struct nft_config *closed, bool copied)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct nft_config c = *closed;
	struct nft_ruleset rs;
	struct nft_batch_opts o = { .first_seq = reserve_seqs(n), .delete_first = copied, .tag = NFT_TAG_COPY };
	int r = nft_copy_name(closed->table, c.table);

	c.filter = NFT_FILTER_REPLIES_ONLY;
	if (r == 0)
		r = nft_ruleset_make(&c, &rs);
	if (r == 0)
		r = nft_batch_replace(&rs, &o, &b);
	return r < 0 ? r : send_batch(n, &b);
}

int nft_hold(struct nft *n, const struct nft_config *closed)
{
	CLEANUP(nft_table_seen_done) struct nft_table_seen seen = { 0 };
	int r = read_table(n, closed->table, &seen);

	n->error[0] = '\0';
	if (r < 0)
		return fail(n, r);
	if (!seen.there || !seen.ours || !(seen.flags & NFT_OWNER) || (seen.flags & NFT_PERSIST))
		return NFT_HELD_NOTHING;
	if (hold_copy(n, closed->table, seen.copied) == 0)
		return NFT_HELD_COPY;
	r = hold_closed(n, closed, seen.copied);
	if (r == -EEXIST)
		snprintf(n->error, sizeof(n->error), "table inet %s-held exists and is not ours", closed->table);
	return r < 0 ? r : NFT_HELD_CLOSED;
}

/* Watching */

/* At once: while our table is away, the tunnel is open. But not in a circle with who takes it away. */
static void tell_soon(struct nft *n)
{
	if (!loop_timer_armed(n->timer))
		loop_timer_at(n->timer, n->told ? n->told + REST_USEC : 0);
}

static int on_event(void *data, const struct nlmsghdr *nlh)
{
	struct nft *n = data;
	char table[NFT_NAME_MAX];

	/* The author's port: ours is nobody else's (its process number is another in containers). */
	if (nlh->nlmsg_pid == netlink_portid(n->nl) || n->table[0] == '\0')
		return 0;
	if (strcmp(nft_event_table(nlh, table), n->table) == 0)
		tell_soon(n);
	return 0;
}

static void events_ready(void *data, int fd, uint32_t events)
{
	struct nft *n = data;
	int r = netlink_events(n->events, on_event, n);

	(void)fd;
	(void)events;
	if (r < 0) /* lost some: look */
		tell_soon(n);
}

static void debounced(void *data)
{
	struct nft *n = data;

	n->told = loop_clock();
	n->fn(n->data);
}

int nft_watch(struct nft *n, struct loop *loop, loop_fn *fn, void *data)
{
	int r;

	n->fn = fn;
	n->data = data;
	if (n->io)
		return 0;
	netlink_close(TAKE(n->events));
	r = netlink_open(NETLINK_NETFILTER, &n->events);
	if (r == 0)
		r = netlink_join(n->events, NFNLGRP_NFTABLES);
	if (r == 0 && !n->timer)
		r = loop_timer_new(loop, debounced, n, &n->timer);
	if (r < 0)
		return r;
	return loop_io_new(loop, netlink_fd(n->events), EPOLLIN, events_ready, n, &n->io);
}
