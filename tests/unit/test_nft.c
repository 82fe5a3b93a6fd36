/* nft: rulesets against golden files, batches well-formed, what is refused. */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "nft/batch.h"
#include "tests/unit/golden.h"

static struct addr peers[5], own[2];

static struct nft_config base(void)
{
	peers[0] = addr_v4(100, 64, 0, 2);
	peers[1] = addr_v4(100, 64, 0, 3);
	peers[2] = addr_v4(100, 100, 7, 9);
	peers[3] = (struct addr){ 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 2 } };
	peers[4] = (struct addr){ 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 3 } };
	own[0] = addr_v4(100, 64, 0, 1);
	own[1] = (struct addr){ 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 1 } };
	return (struct nft_config){ .table = "kernscale",
				    .ifname = "kernscale0",
				    .ifindex = 7,
				    .port = 41641,
				    .private_port = 39999,
				    .share_port = true,
				    .mark = 0x80000,
				    .mark_mask = 0xff0000,
				    .own_only = true,
				    .own = own,
				    .n_own = 2,
				    .peers = peers,
				    .n_peers = 5 };
}

static void check_golden(const char *name, const struct nft_config *c)
{
	CLEANUP(buf_done) struct buf text = { 0 };
	struct nft_ruleset r;
	char path[128];

	snprintf(path, sizeof(path), "tests/data/nft/%s.nft", name);
	assert_int_equal(nft_ruleset_make(c, &r), 0);
	nft_ruleset_text(&r, true, &text);
	assert_true(golden_is(path, buf_data(&text), text.len));
}

static void test_golden(void **state)
{
	struct nft_config c = base();

	(void)state;
	check_golden("replies-only", &c);
	c.filter = NFT_FILTER_ALLOW_ALL;
	check_golden("allow-all", &c);
	c.n_peers = 0;
	c.share_port = false;
	check_golden("bare", &c);
	c.n_own = 0;
	check_golden("no-address", &c);
	c = base();
	c.filter = NFT_FILTER_ALLOW_ALL;
	c.forwarding = c.gateway = c.masquerade = c.clamp_mss = true;
	check_golden("gateway", &c);
	c = base();
	c.mark_inbound = c.rewrite_source = c.forwarding = true;
	c.relay_port = 41642;
	check_golden("strict-host", &c);
}

/* Fail closed: unless allow-all was asked for, every layout ends its input in a drop. */
static void test_closed(void **state)
{
	(void)state;
	for (unsigned int bits = 0; bits < 128; bits++) {
		struct nft_config c = base();
		struct nft_ruleset r;
		bool closed = false, forward = false;

		c.share_port = bits & 1;
		c.forwarding = bits & 2;
		c.gateway = bits & 4;
		c.masquerade = bits & 8;
		c.clamp_mss = bits & 16;
		c.mark_inbound = bits & 32;
		c.rewrite_source = bits & 64;
		assert_int_equal(nft_ruleset_make(&c, &r), 0);
		for (size_t i = 0; i < r.n_chains; i++) {
			const struct nft_chain *ch = &r.chains[i];
			const struct nft_rule *last = &r.rules[ch->first + ch->n - 1];

			if (last->n == 1 && last->e[0].kind == NFT_EXPR_DROP) {
				closed |= ch->hook == NFT_HOOK_INPUT;
				forward |= ch->hook == NFT_HOOK_FORWARD;
			}
		}
		assert_true(closed);
		assert_true(forward);
	}
}

static const struct nft_chain *chain_of(const struct nft_ruleset *r, const char *name)
{
	for (size_t i = 0; i < r->n_chains; i++)
		if (strcmp(r->chains[i].name, name) == 0)
			return &r->chains[i];
	return NULL;
}

/* Allow-all is for our own addresses: where this is no gateway all else goes, in every layout, whether any are known. */
static void test_own_only(void **state)
{
	(void)state;
	for (unsigned int bits = 0; bits < 32; bits++) {
		struct nft_config c = base();
		const struct nft_chain *pre, *for_us;
		struct nft_ruleset r;
		bool jumps = false;

		c.filter = bits & 1 ? NFT_FILTER_ALLOW_ALL : NFT_FILTER_REPLIES_ONLY;
		c.n_own = bits & 2 ? 2 : 0;
		c.n_peers = bits & 4 ? 5 : 0;
		c.share_port = bits & 8;
		c.gateway = bits & 16;
		assert_int_equal(nft_ruleset_make(&c, &r), 0);
		pre = chain_of(&r, "mangle-pre");
		for_us = chain_of(&r, "for-us");
		for (size_t i = 0; pre && i < pre->n; i++) {
			const struct nft_rule *rule = &r.rules[pre->first + i];

			jumps |= rule->n == 2 && rule->e[0].kind == NFT_EXPR_IIF && !rule->e[0].negate &&
				 rule->e[1].kind == NFT_EXPR_JUMP && strcmp(rule->e[1].name, "for-us") == 0;
		}
		assert_int_equal(jumps, !c.gateway);
		assert_int_equal(for_us != NULL, !c.gateway);
		if (for_us) {
			assert_int_equal(for_us->n, c.n_own + 1);
			assert_int_equal(r.rules[for_us->first + c.n_own].e[0].kind, NFT_EXPR_DROP);
		}
	}
}

static void test_refused(void **state)
{
	struct nft_config c = base();
	struct nft_ruleset r;

	(void)state;
	memcpy(c.table, "a; b", 5);
	assert_int_equal(nft_ruleset_make(&c, &r), -EINVAL);
	c = base();
	memcpy(c.ifname, "a\"b", 4);
	assert_int_equal(nft_ruleset_make(&c, &r), -EINVAL);
	c = base();
	c.private_port = 0;
	assert_int_equal(nft_ruleset_make(&c, &r), -EINVAL);
	c = base();
	peers[1] = peers[0]; /* twice, and so not sorted */
	assert_int_equal(nft_ruleset_make(&c, &r), -EINVAL);
	c = base();
	c.n_peers = NFT_PEERS_MAX + 1;
	assert_int_equal(nft_ruleset_make(&c, &r), -ENOBUFS);
	c = base();
	c.n_own = NFT_OWN_MAX + 1;
	assert_int_equal(nft_ruleset_make(&c, &r), -ENOBUFS);
}

/* A batch is begun and ended, numbered without gaps, acknowledged once, and every message fits. */
static void test_batch(void **state)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct nft_config c = base();
	struct nft_batch_opts o = { .first_seq = 100, .delete_first = true, .table_flags = NFT_OWNER };
	struct addr *many = calloc(5000, sizeof(*many));
	struct nft_ruleset r;
	const struct nlmsghdr *nlh;
	size_t acks = 0, elements = 0;
	uint32_t seq = 100;
	uint16_t last = 0;
	int left;

	(void)state;
	for (size_t i = 0; i < 5000; i++)
		many[i] = addr_v4(100, 64, (uint8_t)(i >> 8), (uint8_t)i);
	c.peers = many;
	c.n_peers = 5000;
	assert_int_equal(nft_ruleset_make(&c, &r), 0);
	assert_int_equal(nft_batch_replace(&r, &o, &b), 0);
	left = (int)b.len;
	for (nlh = (const void *)buf_data(&b); mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		struct nft_elements got = { 0 };

		if (seq == 100)
			assert_int_equal(nlh->nlmsg_type, NFNL_MSG_BATCH_BEGIN);
		assert_int_equal(nlh->nlmsg_seq, seq++);
		acks += !!(nlh->nlmsg_flags & NLM_F_ACK);
		last = nlh->nlmsg_type;
		assert_int_equal(nft_read_elements(nlh, 4, &got), 0);
		elements += got.n;
		free(got.v);
	}
	assert_int_equal(left, 0);
	assert_int_equal(last, NFNL_MSG_BATCH_END);
	assert_int_equal(acks, 1);
	assert_int_equal(elements, 5000);
	free(many);
}

static void test_event(void **state)
{
	uint8_t buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	char table[NFT_NAME_MAX];

	(void)state;
	nlh->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELRULE;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct nfgenmsg));
	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, "kernscale");
	assert_string_equal(nft_event_table(nlh, table), "kernscale");
	nlh->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN;
	assert_string_equal(nft_event_table(nlh, table), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden), cmocka_unit_test(test_closed), cmocka_unit_test(test_own_only), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_batch),  cmocka_unit_test(test_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
