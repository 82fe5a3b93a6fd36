/* nft/copy: what stands is copied whole, what is not ours not at all. */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/netlink.h"
#include "nft/batch.h"
#include "nft/copy.h"

static struct addr peers[1500], own[2];

static struct nft_config layout(unsigned int bits)
{
	struct nft_config c = { .table = "kernscale",
				.ifname = "kernscale0",
				.ifindex = 7,
				.port = 41641,
				.private_port = 39999,
				.mark = 0x80000,
				.mark_mask = 0xff0000,
				.peers = peers,
				.n_peers = ARRAY_SIZE(peers),
				.own = own,
				.n_own = ARRAY_SIZE(own) };

	own[0] = addr_v4(100, 64, 200, 1);
	own[1] = (struct addr){ 6, { 0xfd, 1 } };
	for (size_t i = 0; i < ARRAY_SIZE(peers); i++)
		peers[i] = i < 1400 ? addr_v4(100, 64, (uint8_t)(i >> 8), (uint8_t)i) :
				      (struct addr){ 6, { 0xfd, [14] = (uint8_t)(i >> 8), [15] = (uint8_t)i } };
	c.share_port = bits & 1;
	c.rewrite_source = bits & 2;
	c.filter = bits & 4 ? NFT_FILTER_ALLOW_ALL : NFT_FILTER_REPLIES_ONLY;
	c.forwarding = bits & 8;
	c.gateway = bits & 16;
	c.masquerade = bits & 32;
	c.clamp_mss = bits & 64;
	c.mark_inbound = bits & 128;
	c.relay_port = bits & 256 ? 41642 : 0;
	c.own_only = bits & 512;
	c.n_peers = bits % 3 == 2 ? 0 : c.n_peers;
	return c;
}

typedef int feed_fn(struct nft_copy *c, const struct nlmsghdr *nlh);

static int feed(struct nft_copy *c, const struct buf *b, feed_fn *fn)
{
	const struct nlmsghdr *nlh = (const void *)buf_data(b);
	int left = (int)b->len, r = 0;

	for (; r == 0 && netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
		r = fn(c, nlh);
	return r;
}

/* The members of each set, as one dump would give them. */
static int feed_elements(struct nft_copy *c, const struct nft_ruleset *rs)
{
	int r = 0;

	assert_int_equal(c->n_sets, rs->n_sets);
	for (size_t i = 0; i < rs->n_sets && r == 0; i++) {
		assert_string_equal(c->sets[i].name, rs->sets[i].name);
		assert_int_equal(c->sets[i].family, rs->sets[i].family);
		r = nft_copy_elements(c, i, rs->sets[i].addrs, rs->sets[i].n);
	}
	return r;
}

static int copy_all(const struct buf *from, const struct nft_ruleset *rs, struct buf *out)
{
	struct nft_copy c;
	int r = nft_copy_begin(&c, "kernscale", false, 100, out);

	if (r == 0)
		r = feed(&c, from, nft_copy_set);
	if (r == 0)
		r = feed(&c, from, nft_copy_chain);
	if (r == 0)
		r = feed(&c, from, nft_copy_rule);
	if (r == 0 && rs)
		r = feed_elements(&c, rs);
	return r < 0 ? r : nft_copy_end(&c);
}

/* What a batch would make, as reading it back would describe it. */
struct made {
	struct nft_table_seen seen;
	struct nft_elements v4, v6;
	size_t acks, messages;
};

static void made_done(struct made *m)
{
	nft_table_seen_done(&m->seen);
	free(m->v4.v);
	free(m->v6.v);
}

static struct made made_by(const struct buf *b, const char *table, uint32_t seq)
{
	struct made m = { 0 };
	const struct nlmsghdr *nlh = (const void *)buf_data(b);
	int left = (int)b->len;

	for (; netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		assert_int_equal(nlh->nlmsg_seq, seq++);
		m.acks += !!(nlh->nlmsg_flags & NLM_F_ACK);
		m.messages++;
		assert_int_equal(nft_read_table(nlh, table, &m.seen), 0);
		assert_int_equal(nft_read_chain(nlh, table, &m.seen), 0);
		assert_int_equal(nft_read_rule(nlh, table, &m.seen), 0);
		if (nft_read_elements(nlh, 4, &m.v4) < 0)
			assert_int_equal(nft_read_elements(nlh, 6, &m.v6), 0);
	}
	assert_int_equal(left, 0);
	return m;
}

static void equal_bufs(const struct buf *a, const struct buf *b)
{
	assert_int_equal(a->len, b->len);
	assert_memory_equal(buf_data(a), buf_data(b), a->len);
}

static void make(const struct nft_config *c, struct nft_ruleset *rs, struct buf *out)
{
	struct nft_batch_opts o = { .first_seq = 1, .table_flags = NFT_OWNER };

	assert_int_equal(nft_ruleset_make(c, rs), 0);
	assert_int_equal(nft_batch_replace(rs, &o, out), 0);
}

static void test_whole(void **state)
{
	(void)state;
	for (unsigned int bits = 0; bits < 1024; bits++) {
		CLEANUP(buf_done) struct buf b = { 0 }, copy = { 0 };
		CLEANUP(nft_table_seen_done) struct nft_table_seen want = { 0 };
		struct nft_config c = layout(bits);
		struct nft_ruleset rs, held;
		struct made got;

		make(&c, &rs, &b);
		assert_int_equal(copy_all(&b, &rs, &copy), 0);
		got = made_by(&copy, "kernscale-held", 100);
		assert_true(got.seen.there);
		assert_false(got.seen.ours); /* it is a copy, which is another thing */
		assert_int_equal(got.seen.flags, 0);
		assert_int_equal(got.acks, 1);
		snprintf(c.table, sizeof(c.table), "kernscale-held");
		assert_int_equal(nft_ruleset_make(&c, &held), 0);
		assert_int_equal(nft_describe(&held, &want), 0);
		equal_bufs(&got.seen.chains, &want.chains);
		equal_bufs(&got.seen.rules, &want.rules);
		assert_int_equal(got.v4.n + got.v6.n, c.n_peers);
		for (size_t i = 0; i < c.n_peers; i++)
			assert_int_equal(addr_cmp(&peers[i], i < 1400 ? &got.v4.v[i] : &got.v6.v[i - 1400]), 0);
		made_done(&got);
		/* Looked at from the table's name, it is seen as its copy. */
		got = made_by(&copy, "kernscale", 100);
		assert_false(got.seen.there);
		assert_true(got.seen.copied);
		made_done(&got);
	}
}

/* Tables of other names, families and kinds, before, behind and between. */
static void test_foreign(void **state)
{
	CLEANUP(buf_done) struct buf ours = { 0 }, both = { 0 }, want = { 0 }, got = { 0 };
	struct nft_config c = layout(1 | 8 | 64 | 512), d = layout(511);
	struct nft_ruleset rs, other;
	struct nlmsghdr *nlh;
	int left;

	(void)state;
	snprintf(d.table, sizeof(d.table), "kernscale-held");
	make(&c, &rs, &ours);
	make(&d, &other, &both);
	buf_put(&both, buf_data(&ours), ours.len);
	snprintf(d.table, sizeof(d.table), "kernscal");
	make(&d, &other, &both);
	snprintf(d.table, sizeof(d.table), "kernscale");
	left = (int)both.len;
	make(&d, &other, &both); /* ours by name, of another family */
	nlh = (void *)(both.data + left);
	for (left = (int)both.len - left; netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
		((struct nfgenmsg *)mnl_nlmsg_get_payload(nlh))->nfgen_family = NFPROTO_IPV4;
	assert_int_equal(copy_all(&ours, &rs, &want), 0);
	assert_int_equal(copy_all(&both, &rs, &got), 0);
	equal_bufs(&got, &want);
}

static void test_again(void **state)
{
	CLEANUP(buf_done) struct buf b = { 0 }, want = { 0 }, got = { 0 };
	static feed_fn *const kinds[] = { nft_copy_set, nft_copy_chain, nft_copy_rule };
	struct nft_config config = layout(1 | 8 | 64 | 512);
	struct nft_ruleset rs;
	struct nft_copy c;

	(void)state;
	make(&config, &rs, &b);
	assert_int_equal(copy_all(&b, &rs, &want), 0);
	assert_int_equal(nft_copy_begin(&c, "kernscale", false, 100, &got), 0);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		nft_copy_set_mark(&c);
		assert_int_equal(feed(&c, &b, kinds[i]), 0);
		nft_copy_rewind(&c); /* spoilt by a change: the dump is taken again */
		assert_int_equal(feed(&c, &b, kinds[i]), 0);
	}
	assert_int_equal(feed_elements(&c, &rs), 0);
	assert_int_equal(nft_copy_end(&c), 0);
	equal_bufs(&got, &want);
}

/* One message at a time */

static uint8_t memory[65536] __attribute__((aligned(8)));

static struct nlmsghdr *message(uint16_t msg, const char *name)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(memory);
	struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));

	nlh->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | msg);
	nfg->nfgen_family = NFPROTO_INET;
	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, "kernscale");
	mnl_attr_put_strz(nlh, 2 /* the second attribute of each is a name */, name);
	return nlh;
}

static int try_one(const struct nlmsghdr *nlh, feed_fn *fn)
{
	CLEANUP(buf_done) struct buf out = { 0 };
	struct nft_copy c;
	size_t before;
	int r;

	assert_int_equal(nft_copy_begin(&c, "kernscale", true, 1, &out), 0);
	before = out.len;
	r = fn(&c, nlh);
	if (r < 0)
		assert_int_equal(out.len, before);
	return r;
}

static int try_set(uint32_t key_len, uint32_t flags, const char *name)
{
	struct nlmsghdr *nlh = message(NFT_MSG_NEWSET, name);

	if (flags)
		mnl_attr_put_u32(nlh, NFTA_SET_FLAGS, htonl(flags));
	mnl_attr_put_u32(nlh, NFTA_SET_KEY_LEN, htonl(key_len));
	return try_one(nlh, nft_copy_set);
}

static int try_chain(uint32_t hook, uint32_t policy, const char *type)
{
	struct nlmsghdr *nlh = message(NFT_MSG_NEWCHAIN, "");
	struct nlattr *nest;

	mnl_attr_put_strz(nlh, NFTA_CHAIN_NAME, "input");
	nest = mnl_attr_nest_start(nlh, NFTA_CHAIN_HOOK);
	mnl_attr_put_u32(nlh, NFTA_HOOK_HOOKNUM, htonl(hook));
	mnl_attr_put_u32(nlh, NFTA_HOOK_PRIORITY, htonl((uint32_t)-150));
	mnl_attr_nest_end(nlh, nest);
	mnl_attr_put_u32(nlh, NFTA_CHAIN_POLICY, htonl(policy));
	if (type)
		mnl_attr_put_strz(nlh, NFTA_CHAIN_TYPE, type);
	return try_one(nlh, nft_copy_chain);
}

/* A rule of one expression; n bytes of data, or with flags those of an option that is written. */
static int try_rule(const char *expr, size_t n, int flags)
{
	static const uint8_t zeros[20000];
	struct nlmsghdr *nlh = message(NFT_MSG_NEWRULE, "input");
	struct nlattr *list, *elem, *data;

	list = mnl_attr_nest_start(nlh, NFTA_RULE_EXPRESSIONS);
	elem = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM);
	mnl_attr_put_strz(nlh, NFTA_EXPR_NAME, expr);
	data = mnl_attr_nest_start(nlh, NFTA_EXPR_DATA);
	if (n)
		mnl_attr_put(nlh, 30, n, zeros);
	if (flags >= 0) {
		mnl_attr_put_u32(nlh, NFTA_EXTHDR_SREG, htonl(NFT_REG_1));
		mnl_attr_put_u32(nlh, NFTA_EXTHDR_FLAGS, htonl((uint32_t)flags));
	}
	mnl_attr_nest_end(nlh, data);
	mnl_attr_nest_end(nlh, elem);
	mnl_attr_nest_end(nlh, list);
	return try_one(nlh, nft_copy_rule);
}

static void test_refused(void **state)
{
	static const char *const others[] = { "counter", "log",	   "objref", "dynset", "queue", "dup",
					      "fwd",	 "redir",  "nat",    "limit",  "quota", "match",
					      "target",	 "socket", "",	     "meta ",  "metaX", "flow_offload" };
	char table[NFT_NAME_MAX];

	(void)state;
	assert_int_equal(try_set(4, 0, "peers4"), 0);
	assert_int_equal(try_set(8, 0, "peers4"), -EBADMSG);
	assert_int_equal(try_set(4, NFT_SET_INTERVAL, "peers4"), -EBADMSG);
	assert_int_equal(try_set(4, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT, "__set0"), -EBADMSG);
	assert_int_equal(try_set(4, 0, "a-name-that-is-longer-than-any-name-we-have"), -EBADMSG);

	assert_int_equal(try_chain(NF_INET_LOCAL_IN, NF_DROP, "filter"), 0);
	assert_int_equal(try_chain(NF_INET_INGRESS, NF_ACCEPT, "filter"), -EBADMSG);
	assert_int_equal(try_chain(NF_INET_LOCAL_IN, NF_QUEUE, "filter"), -EBADMSG);
	assert_int_equal(try_chain(NF_INET_LOCAL_OUT, NF_ACCEPT, "route"), -EBADMSG);
	assert_int_equal(try_chain(NF_INET_LOCAL_OUT, NF_ACCEPT, NULL), -EBADMSG);

	assert_int_equal(try_rule("meta", 4, -1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_int_equal(try_rule(others[i], 4, -1), -EBADMSG);
	assert_int_equal(try_rule("meta", 8200, -1), -EBADMSG);
	assert_int_equal(try_rule("exthdr", 0, 0), 0);
	assert_int_equal(try_rule("exthdr", 0, NFT_EXTHDR_F_PRESENT), -EBADMSG);

	assert_int_equal(nft_copy_name("12345678901234567890123456789012345", table), -ENAMETOOLONG);
	assert_int_equal(nft_copy_name("1234567890123456789012345678901", table), 0);
}

/* Refused by the kernel where it writes an option, and told by it all the same. */
static void test_flags_dropped(void **state)
{
	CLEANUP(buf_done) struct buf out = { 0 };
	struct nft_copy c;
	uint32_t flags_header = NLA_HDRLEN + 4U, wanted[1];

	(void)state;
	assert_int_equal(try_rule("exthdr", 0, 0), 0); /* leaves its message in memory */
	assert_int_equal(nft_copy_begin(&c, "kernscale", false, 1, &out), 0);
	nft_copy_set_mark(&c);
	assert_int_equal(nft_copy_rule(&c, (const void *)memory), 0);
	flags_header |= (uint32_t)NFTA_EXTHDR_FLAGS << 16; /* as in memory: length, type */
	memcpy(wanted, &flags_header, sizeof(wanted));
	assert_non_null(memmem(memory, ((struct nlmsghdr *)(void *)memory)->nlmsg_len, wanted, sizeof(wanted)));
	assert_null(memmem(out.data + c.mark.len, out.len - c.mark.len, wanted, sizeof(wanted)));
}

static void test_too_many(void **state)
{
	CLEANUP(buf_done) struct buf out = { 0 };
	static feed_fn *const kinds[] = { nft_copy_set, nft_copy_chain, nft_copy_rule };
	static const size_t most[] = { NFT_SETS_MAX, NFT_CHAINS_MAX, NFT_RULES_MAX };
	struct nft_copy c;

	(void)state;
	assert_int_equal(nft_copy_begin(&c, "kernscale", false, 1, &out), 0);
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		if (k == 0)
			try_set(4, 0, "s");
		else if (k == 1)
			try_chain(NF_INET_LOCAL_IN, NF_ACCEPT, "filter");
		else
			try_rule("notrack", 0, -1);
		for (size_t i = 0; i < most[k]; i++)
			assert_int_equal(kinds[k](&c, (const void *)memory), 0);
		assert_int_equal(kinds[k](&c, (const void *)memory), -EBADMSG);
	}
}

/* Each message cut at each byte, in memory of just that size: nothing is read behind it. */
static void test_cut(void **state)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	static feed_fn *const kinds[] = { nft_copy_set, nft_copy_chain, nft_copy_rule };
	struct nft_config c = layout(511 & ~2U);
	const struct nlmsghdr *nlh;
	struct nft_ruleset rs;
	int left;

	(void)state;
	make(&c, &rs, &b);
	left = (int)b.len;
	for (nlh = (const void *)buf_data(&b); netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		if (nft_is_message(nlh, NFT_MSG_NEWSETELEM))
			continue;
		for (uint32_t n = NLMSG_HDRLEN; n < nlh->nlmsg_len; n++) {
			CLEANUP(free) struct nlmsghdr *cut = malloc(n);

			memcpy(cut, nlh, n);
			cut->nlmsg_len = n;
			for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
				CLEANUP(buf_done) struct buf out = { 0 };
				struct nft_copy copy;

				assert_int_equal(nft_copy_begin(&copy, "kernscale", false, 1, &out), 0);
				kinds[k](&copy, cut);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),	       cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_again),	       cmocka_unit_test(test_refused),
		cmocka_unit_test(test_flags_dropped), cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
