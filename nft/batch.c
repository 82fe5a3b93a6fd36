#include "nft/batch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/netlink.h"
#include "nft/copy.h"
#include "nft/writer.h"

#define DESCRIBE_MAX 4096
#define FAMILY	    NFPROTO_INET

static inline void nftnl_table_free_cleanup(struct nftnl_table **t)
{
	if (*t)
		nftnl_table_free(*t);
}
static inline void nftnl_chain_free_cleanup(struct nftnl_chain **c)
{
	if (*c)
		nftnl_chain_free(*c);
}
static inline void nftnl_rule_free_cleanup(struct nftnl_rule **r)
{
	if (*r)
		nftnl_rule_free(*r);
}
static inline void nftnl_set_free_cleanup(struct nftnl_set **s)
{
	if (*s)
		nftnl_set_free(*s);
}

/* Expressions */

static struct nftnl_expr *expr_add(struct nftnl_rule *rule, const char *name)
{
	struct nftnl_expr *e = nftnl_expr_alloc(name);

	if (e)
		nftnl_rule_add_expr(rule, e);
	return e;
}

static int put_meta(struct nftnl_rule *rule, uint32_t key)
{
	struct nftnl_expr *e = expr_add(rule, "meta");

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, NFT_REG_1);
	return 0;
}

static int put_cmp(struct nftnl_rule *rule, bool negate, const void *data, uint32_t len)
{
	struct nftnl_expr *e = expr_add(rule, "cmp");

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, negate ? NFT_CMP_NEQ : NFT_CMP_EQ);
	return nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, data, len) < 0 ? -ENOMEM : 0;
}

static int put_payload(struct nftnl_rule *rule, uint32_t base, uint32_t offset, uint32_t len)
{
	struct nftnl_expr *e = expr_add(rule, "payload");

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, len);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
	return 0;
}

static int put_bitwise(struct nftnl_rule *rule, const void *mask, const void *xor, uint32_t len)
{
	struct nftnl_expr *e = expr_add(rule, "bitwise");

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, len);
	if (nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, mask, len) < 0 ||
	    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, xor, len) < 0)
		return -ENOMEM;
	return 0;
}

static int put_immediate(struct nftnl_rule *rule, const void *data, uint32_t len)
{
	struct nftnl_expr *e = expr_add(rule, "immediate");

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
	return nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, data, len) < 0 ? -ENOMEM : 0;
}

static int put_verdict(struct nftnl_rule *rule, int verdict, const char *chain)
{
	struct nftnl_expr *e = expr_add(rule, "immediate");

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
	if (chain && nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, chain) < 0)
		return -ENOMEM;
	return 0;
}

static int put_ifindex(struct nftnl_rule *rule, uint32_t key, const struct nft_expr *x)
{
	int r = put_meta(rule, key);

	return r < 0 ? r : put_cmp(rule, x->negate, &x->a, sizeof(x->a));
}

static int put_lo(struct nftnl_rule *rule, uint32_t key)
{
	static const char name[16] = "lo";
	int r = put_meta(rule, key);

	return r < 0 ? r : put_cmp(rule, false, name, sizeof(name));
}

static int put_meta_byte(struct nftnl_rule *rule, uint32_t key, uint8_t value)
{
	int r = put_meta(rule, key);

	return r < 0 ? r : put_cmp(rule, false, &value, 1);
}

static int put_port(struct nftnl_rule *rule, uint32_t offset, uint32_t port)
{
	uint16_t v = htons((uint16_t)port);
	int r = put_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2);

	return r < 0 ? r : put_cmp(rule, false, &v, sizeof(v));
}

static int put_bytes(struct nftnl_rule *rule, const struct nft_expr *x)
{
	int r = put_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, x->a, x->len);

	return r < 0 ? r : put_cmp(rule, x->negate, x->data, x->len);
}

static int put_local(struct nftnl_rule *rule)
{
	static const uint32_t local = RTN_LOCAL;
	struct nftnl_expr *e = expr_add(rule, "fib");

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
	return put_cmp(rule, false, &local, sizeof(local));
}

static int put_mark_test(struct nftnl_rule *rule, const struct nft_expr *x)
{
	static const uint32_t zero;
	int r = put_meta(rule, NFT_META_MARK);

	if (r == 0)
		r = put_bitwise(rule, &x->b, &zero, sizeof(zero));
	return r < 0 ? r : put_cmp(rule, false, &x->a, sizeof(x->a));
}

static int put_ct_reply(struct nftnl_rule *rule)
{
	/* IP_CT_ESTABLISHED and IP_CT_RELATED as nf_tables numbers them: bits 1 and 2. */
	static const uint32_t mask = 0x2 | 0x4, zero;
	struct nftnl_expr *e = expr_add(rule, "ct");
	int r;

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_STATE);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
	r = put_bitwise(rule, &mask, &zero, sizeof(mask));
	return r < 0 ? r : put_cmp(rule, true, &zero, sizeof(zero));
}

static int put_saddr_in(struct nftnl_rule *rule, const struct nft_expr *x)
{
	int r = put_meta_byte(rule, NFT_META_NFPROTO, x->a == 4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
	struct nftnl_expr *e;

	if (r == 0)
		r = put_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, x->a == 4 ? 12 : 8, x->a == 4 ? 4 : 16);
	if (r < 0)
		return r;
	e = expr_add(rule, "lookup");
	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, 0); /* as the kernel gives it back */
	return nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, x->name) < 0 ? -ENOMEM : 0;
}

static int put_daddr(struct nftnl_rule *rule, const struct addr *a)
{
	uint32_t len = (uint32_t)addr_len(a);
	int r = put_meta_byte(rule, NFT_META_NFPROTO, a->family == 4 ? NFPROTO_IPV4 : NFPROTO_IPV6);

	if (r == 0)
		r = put_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, a->family == 4 ? 16 : 24, len);
	return r < 0 ? r : put_cmp(rule, false, a->b, len);
}

static int put_tcp_syn(struct nftnl_rule *rule)
{
	static const uint8_t syn = 0x02, mask = 0x02 | 0x04, zero;
	int r = put_meta_byte(rule, NFT_META_L4PROTO, IPPROTO_TCP);

	if (r == 0)
		r = put_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1);
	if (r == 0)
		r = put_bitwise(rule, &mask, &zero, 1);
	return r < 0 ? r : put_cmp(rule, false, &syn, 1);
}

static int put_set_mark(struct nftnl_rule *rule, const struct nft_expr *x)
{
	uint32_t keep = ~x->b;
	int r = put_meta(rule, NFT_META_MARK);
	struct nftnl_expr *e;

	if (r == 0)
		r = put_bitwise(rule, &keep, &x->a, sizeof(keep));
	if (r < 0)
		return r;
	e = expr_add(rule, "meta");
	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, NFT_META_MARK);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_SREG, NFT_REG_1);
	return 0;
}

static int put_set_sport(struct nftnl_rule *rule, const struct nft_expr *x)
{
	uint16_t v = htons((uint16_t)x->a);
	int r = put_immediate(rule, &v, sizeof(v));
	struct nftnl_expr *e;

	if (r < 0)
		return r;
	e = expr_add(rule, "payload");
	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, 0);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, 2);
	/* Without these the UDP checksum stays the old one (kernel.md 3.4). */
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_CSUM_OFFSET, 6);
	return 0;
}

static int put_tproxy(struct nftnl_rule *rule, const struct nft_expr *x)
{
	uint16_t v = htons((uint16_t)x->b);
	int r = put_immediate(rule, &v, sizeof(v));
	struct nftnl_expr *e;

	if (r < 0)
		return r;
	e = expr_add(rule, "tproxy");
	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_TPROXY_FAMILY, x->a == 4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
	nftnl_expr_set_u32(e, NFTNL_EXPR_TPROXY_REG_PORT, NFT_REG_1);
	return 0;
}

static int put_clamp_mss(struct nftnl_rule *rule)
{
	struct nftnl_expr *e = expr_add(rule, "rt");

	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_RT_KEY, NFT_RT_TCPMSS);
	nftnl_expr_set_u32(e, NFTNL_EXPR_RT_DREG, NFT_REG_1);
	e = expr_add(rule, "byteorder");
	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_BYTEORDER_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BYTEORDER_DREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BYTEORDER_OP, NFT_BYTEORDER_HTON);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BYTEORDER_LEN, 2);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BYTEORDER_SIZE, 2);
	e = expr_add(rule, "exthdr");
	if (!e)
		return -ENOMEM;
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_SREG, NFT_REG_1);
	nftnl_expr_set_u8(e, NFTNL_EXPR_EXTHDR_TYPE, 2); /* maximum segment size */
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_OFFSET, 2);
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_LEN, 2);
	nftnl_expr_set_u32(e, NFTNL_EXPR_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT);
	return 0;
}

static int put_expr(struct nftnl_rule *rule, const struct nft_expr *x)
{
	switch (x->kind) {
	case NFT_EXPR_IIF:
		return put_ifindex(rule, NFT_META_IIF, x);
	case NFT_EXPR_OIF:
		return put_ifindex(rule, NFT_META_OIF, x);
	case NFT_EXPR_IIF_LO:
		return put_lo(rule, NFT_META_IIFNAME);
	case NFT_EXPR_OIF_LO:
		return put_lo(rule, NFT_META_OIFNAME);
	case NFT_EXPR_NFPROTO:
		return put_meta_byte(rule, NFT_META_NFPROTO, x->a == 4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
	case NFT_EXPR_L4PROTO:
		return put_meta_byte(rule, NFT_META_L4PROTO, (uint8_t)x->a);
	case NFT_EXPR_DPORT:
		return put_port(rule, 2, x->a);
	case NFT_EXPR_SPORT:
		return put_port(rule, 0, x->a);
	case NFT_EXPR_PAYLOAD:
		return put_bytes(rule, x);
	case NFT_EXPR_LOCAL:
		return put_local(rule);
	case NFT_EXPR_MARK:
		return put_mark_test(rule, x);
	case NFT_EXPR_CT_REPLY:
		return put_ct_reply(rule);
	case NFT_EXPR_SADDR_IN:
		return put_saddr_in(rule, x);
	case NFT_EXPR_DADDR:
		return put_daddr(rule, x->addr);
	case NFT_EXPR_TCP_SYN:
		return put_tcp_syn(rule);
	case NFT_EXPR_SET_MARK:
		return put_set_mark(rule, x);
	case NFT_EXPR_SET_SPORT:
		return put_set_sport(rule, x);
	case NFT_EXPR_TPROXY:
		return put_tproxy(rule, x);
	case NFT_EXPR_CLAMP_MSS:
		return put_clamp_mss(rule);
	case NFT_EXPR_MASQUERADE:
		return expr_add(rule, "masq") ? 0 : -ENOMEM;
	case NFT_EXPR_NOTRACK:
		return expr_add(rule, "notrack") ? 0 : -ENOMEM;
	case NFT_EXPR_JUMP:
		return put_verdict(rule, NFT_JUMP, x->name);
	case NFT_EXPR_ACCEPT:
		return put_verdict(rule, NF_ACCEPT, NULL);
	case NFT_EXPR_DROP:
		return put_verdict(rule, NF_DROP, NULL);
	}
	unreachable();
}

/* Objects */

static struct nftnl_rule *make_rule(const struct nft_ruleset *r, const struct nft_chain *c,
				    const struct nft_rule *x)
{
	CLEANUP(nftnl_rule_free) struct nftnl_rule *rule = nftnl_rule_alloc();

	if (!rule || nftnl_rule_set_str(rule, NFTNL_RULE_TABLE, r->table) < 0 ||
	    nftnl_rule_set_str(rule, NFTNL_RULE_CHAIN, c->name) < 0)
		return NULL;
	nftnl_rule_set_u32(rule, NFTNL_RULE_FAMILY, FAMILY);
	for (size_t i = 0; i < x->n; i++)
		if (put_expr(rule, &x->e[i]) < 0)
			return NULL;
	return TAKE(rule);
}

static uint32_t hook_number(enum nft_hook h)
{
	switch (h) {
	case NFT_HOOK_NONE:
	case NFT_HOOK_PREROUTING:
		return NF_INET_PRE_ROUTING;
	case NFT_HOOK_INPUT:
		return NF_INET_LOCAL_IN;
	case NFT_HOOK_FORWARD:
		return NF_INET_FORWARD;
	case NFT_HOOK_OUTPUT:
		return NF_INET_LOCAL_OUT;
	case NFT_HOOK_POSTROUTING:
		return NF_INET_POST_ROUTING;
	}
	unreachable();
}

static struct nftnl_chain *make_chain(const struct nft_ruleset *r, const struct nft_chain *c)
{
	CLEANUP(nftnl_chain_free) struct nftnl_chain *chain = nftnl_chain_alloc();

	if (!chain || nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, r->table) < 0 ||
	    nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, c->name) < 0)
		return NULL;
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_FAMILY, FAMILY);
	if (c->hook == NFT_HOOK_NONE)
		return TAKE(chain);
	if (nftnl_chain_set_str(chain, NFTNL_CHAIN_TYPE, c->nat ? "nat" : "filter") < 0)
		return NULL;
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_HOOKNUM, hook_number(c->hook));
	nftnl_chain_set_s32(chain, NFTNL_CHAIN_PRIO, c->priority);
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	return TAKE(chain);
}

static struct nftnl_set *make_set(const struct nft_ruleset *r, const struct nft_set *s, uint32_t id)
{
	CLEANUP(nftnl_set_free) struct nftnl_set *set = nftnl_set_alloc();

	if (!set || nftnl_set_set_str(set, NFTNL_SET_TABLE, r->table) < 0 ||
	    nftnl_set_set_str(set, NFTNL_SET_NAME, s->name) < 0)
		return NULL;
	nftnl_set_set_u32(set, NFTNL_SET_FAMILY, FAMILY);
	nftnl_set_set_u32(set, NFTNL_SET_ID, id);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, s->family == 4 ? 7 : 8); /* nft's ipv4_addr, ipv6_addr */
	nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, s->family == 4 ? 4 : 16);
	return TAKE(set);
}

/* Messages */

static int put_chain(struct nft_writer *w, const struct nft_ruleset *r, const struct nft_chain *c)
{
	CLEANUP(nftnl_chain_free) struct nftnl_chain *chain = make_chain(r, c);
	struct nlmsghdr *nlh = nft_writer_begin(w, NFT_MSG_NEWCHAIN, NLM_F_CREATE);

	if (!chain || !nlh)
		return -ENOMEM;
	nftnl_chain_nlmsg_build_payload(nlh, chain);
	nft_writer_end(w, nlh);
	return 0;
}

static int put_rule(struct nft_writer *w, const struct nft_ruleset *r, const struct nft_chain *c,
		    const struct nft_rule *x)
{
	CLEANUP(nftnl_rule_free) struct nftnl_rule *rule = make_rule(r, c, x);
	struct nlmsghdr *nlh = nft_writer_begin(w, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);

	if (!rule || !nlh)
		return -ENOMEM;
	nftnl_rule_nlmsg_build_payload(nlh, rule);
	nft_writer_end(w, nlh);
	return 0;
}

static int put_set(struct nft_writer *w, const struct nft_ruleset *r, const struct nft_set *s, uint32_t id)
{
	CLEANUP(nftnl_set_free) struct nftnl_set *set = make_set(r, s, id);
	struct nlmsghdr *nlh = nft_writer_begin(w, NFT_MSG_NEWSET, NLM_F_CREATE);

	if (!set || !nlh)
		return -ENOMEM;
	nftnl_set_nlmsg_build_payload(nlh, set);
	nft_writer_end(w, nlh);
	return 0;
}

static int put_body(struct nft_writer *w, const struct nft_ruleset *r)
{
	int e = 0;

	for (size_t i = 0; i < r->n_sets && e == 0; i++)
		e = put_set(w, r, &r->sets[i], (uint32_t)i + 1);
	for (size_t i = 0; i < r->n_chains && e == 0; i++)
		e = put_chain(w, r, &r->chains[i]);
	for (size_t i = 0; i < r->n_chains && e == 0; i++)
		for (size_t k = 0; k < r->chains[i].n && e == 0; k++)
			e = put_rule(w, r, &r->chains[i], &r->rules[r->chains[i].first + k]);
	for (size_t i = 0; i < r->n_sets && e == 0; i++)
		e = nft_writer_elements(w, NFT_MSG_NEWSETELEM, r->table, r->sets[i].name,
					r->sets[i].addrs, r->sets[i].n);
	return e;
}

int nft_batch_replace(const struct nft_ruleset *r, const struct nft_batch_opts *o, struct buf *out)
{
	struct nft_writer w = { out, o->first_seq, 0 };
	int e = nft_writer_marker(&w, NFNL_MSG_BATCH_BEGIN);

	if (e == 0 && o->delete_first)
		e = nft_writer_delete_table(&w, r->table);
	if (e == 0)
		e = nft_writer_table(&w, NLM_F_CREATE | NLM_F_EXCL, r->table, o->table_flags,
				     o->tag ? o->tag : NFT_TAG);
	if (e == 0)
		e = put_body(&w, r);
	if (e == 0 && o->delete_also)
		e = nft_writer_delete_table(&w, o->delete_also);
	return e < 0 ? e : nft_writer_marker(&w, NFNL_MSG_BATCH_END);
}

int nft_batch_try(const struct nft_ruleset *r, uint32_t table_flags, uint32_t first_seq,
		  struct buf *out)
{
	struct nft_writer w = { out, first_seq, 0 };
	int e = nft_writer_marker(&w, NFNL_MSG_BATCH_BEGIN);

	if (e == 0)
		e = nft_writer_table(&w, NLM_F_CREATE, r->table, table_flags, NFT_TAG);
	if (e == 0)
		e = put_body(&w, r);
	if (e == 0)
		nft_writer_ask_ack(&w);
	return e;
}

int nft_batch_delete(const char *const *tables, size_t n, uint32_t first_seq, struct buf *out)
{
	struct nft_writer w = { out, first_seq, 0 };
	int e = nft_writer_marker(&w, NFNL_MSG_BATCH_BEGIN);

	for (size_t i = 0; i < n && e == 0; i++)
		e = nft_writer_delete_table(&w, tables[i]);
	return e < 0 ? e : nft_writer_marker(&w, NFNL_MSG_BATCH_END);
}

int nft_batch_own(const char *table, uint32_t first_seq, struct buf *out)
{
	struct nft_writer w = { out, first_seq, 0 };
	int e = nft_writer_marker(&w, NFNL_MSG_BATCH_BEGIN);

	if (e == 0)
		e = nft_writer_table(&w, 0, table, NFT_OWNER | NFT_PERSIST, NFT_TAG);
	return e < 0 ? e : nft_writer_marker(&w, NFNL_MSG_BATCH_END);
}

int nft_batch_elements(const char *table, const struct nft_set_change *c, size_t n, uint32_t first_seq,
		       struct buf *out)
{
	struct nft_writer w = { out, first_seq, 0 };
	int e = nft_writer_marker(&w, NFNL_MSG_BATCH_BEGIN);

	for (size_t i = 0; i < n && e == 0; i++) {
		e = nft_writer_elements(&w, NFT_MSG_NEWSETELEM, table, c[i].set, c[i].add, c[i].n_add);
		if (e == 0)
			e = nft_writer_elements(&w, NFT_MSG_DELSETELEM, table, c[i].set, c[i].del, c[i].n_del);
	}
	return e < 0 ? e : nft_writer_marker(&w, NFNL_MSG_BATCH_END);
}

/* Reading back */

static bool equal_text(const char *a, const char *b)
{
	return a && strcmp(a, b) == 0;
}

/* Both what we build and what the kernel gives comes by here, so that equal rules give equal text. */
static int describe_rule(struct nftnl_rule *rule, struct buf *out)
{
	char text[DESCRIBE_MAX];
	int n;

	/* Of the kernel's own making; they are no part of the rule. */
	nftnl_rule_unset(rule, NFTNL_RULE_HANDLE);
	nftnl_rule_unset(rule, NFTNL_RULE_POSITION);
	nftnl_rule_unset(rule, NFTNL_RULE_USERDATA);
	n = nftnl_rule_snprintf(text, sizeof(text), rule, NFTNL_OUTPUT_DEFAULT, 0);
	if (n < 0 || (size_t)n >= sizeof(text))
		return -EBADMSG;
	buf_put(out, text, (size_t)n);
	return buf_put_str(out, "\n");
}

static int describe_chain(const char *name, const char *type, uint32_t hook, int32_t priority,
			  uint32_t policy, struct buf *out)
{
	if (!type)
		return buf_printf(out, "%s\n", name);
	return buf_printf(out, "%s %s hook %u priority %d policy %u\n", name, type, hook, priority, policy);
}

int nft_describe(const struct nft_ruleset *r, struct nft_table_seen *ret)
{
	struct nft_table_seen t = { .there = true, .ours = true };
	int e = 0;

	for (size_t i = 0; i < r->n_chains && e == 0; i++) {
		const struct nft_chain *c = &r->chains[i];

		e = describe_chain(c->name, c->hook == NFT_HOOK_NONE ? NULL : c->nat ? "nat" : "filter",
				   hook_number(c->hook), c->priority, NF_ACCEPT, &t.chains);
		for (size_t k = 0; k < c->n && e == 0; k++) {
			CLEANUP(nftnl_rule_free)
			struct nftnl_rule *rule = make_rule(r, c, &r->rules[c->first + k]);

			e = rule ? describe_rule(rule, &t.rules) : -ENOMEM;
		}
	}
	if (e < 0) {
		nft_table_seen_done(&t);
		return e;
	}
	*ret = t;
	return 0;
}

void nft_table_seen_done(struct nft_table_seen *t)
{
	buf_done(&t->chains);
	buf_done(&t->rules);
	*t = (struct nft_table_seen){ 0 };
}

bool nft_is_message(const struct nlmsghdr *nlh, uint16_t msg)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);

	return nlh->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | msg) &&
	       mnl_nlmsg_get_payload_len(nlh) >= sizeof(*nfg) && nfg->nfgen_family == FAMILY;
}

static bool has_tag(const struct nftnl_table *t, const char *want)
{
	uint32_t len = 0;
	const void *tag = nftnl_table_get_data(t, NFTNL_TABLE_USERDATA, &len);

	return tag && len == strlen(want) + 1 && memcmp(tag, want, len) == 0;
}

int nft_read_table(const struct nlmsghdr *nlh, const char *table, struct nft_table_seen *t)
{
	CLEANUP(nftnl_table_free) struct nftnl_table *seen = nftnl_table_alloc();
	char copy[NFT_NAME_MAX];
	const char *name;

	if (!seen)
		return -ENOMEM;
	if (!nft_is_message(nlh, NFT_MSG_NEWTABLE) || nftnl_table_nlmsg_parse(nlh, seen) < 0)
		return 0;
	name = nftnl_table_get_str(seen, NFTNL_TABLE_NAME);
	if (nft_copy_name(table, copy) == 0 && equal_text(name, copy))
		t->copied = has_tag(seen, NFT_TAG_COPY) && !nftnl_table_is_set(seen, NFTNL_TABLE_OWNER);
	if (!equal_text(name, table))
		return 0;
	t->there = true;
	t->flags = nftnl_table_get_u32(seen, NFTNL_TABLE_FLAGS);
	t->owner = nftnl_table_is_set(seen, NFTNL_TABLE_OWNER) ?
			   nftnl_table_get_u32(seen, NFTNL_TABLE_OWNER) :
			   0;
	t->ours = has_tag(seen, NFT_TAG);
	return 0;
}

int nft_read_chain(const struct nlmsghdr *nlh, const char *table, struct nft_table_seen *t)
{
	CLEANUP(nftnl_chain_free) struct nftnl_chain *c = nftnl_chain_alloc();

	if (!c)
		return -ENOMEM;
	if (!nft_is_message(nlh, NFT_MSG_NEWCHAIN) || nftnl_chain_nlmsg_parse(nlh, c) < 0 ||
	    !equal_text(nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE), table) ||
	    !nftnl_chain_is_set(c, NFTNL_CHAIN_NAME))
		return 0;
	return describe_chain(nftnl_chain_get_str(c, NFTNL_CHAIN_NAME),
			      nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) ?
				      nftnl_chain_get_str(c, NFTNL_CHAIN_TYPE) :
				      NULL,
			      nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM),
			      nftnl_chain_get_s32(c, NFTNL_CHAIN_PRIO),
			      nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY), &t->chains);
}

int nft_read_rule(const struct nlmsghdr *nlh, const char *table, struct nft_table_seen *t)
{
	CLEANUP(nftnl_rule_free) struct nftnl_rule *rule = nftnl_rule_alloc();

	if (!rule)
		return -ENOMEM;
	if (!nft_is_message(nlh, NFT_MSG_NEWRULE))
		return 0;
	/* What libnftnl cannot read is no rule of ours: it makes the table differ. */
	if (nftnl_rule_nlmsg_parse(nlh, rule) < 0)
		return buf_put_str(&t->rules, "unknown\n");
	if (!equal_text(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), table))
		return 0;
	return describe_rule(rule, &t->rules);
}

static int keep_element(const struct nlattr *elem, uint8_t family, struct nft_elements *out)
{
	const struct nlattr *key, *value;

	netlink_attr_for_each_nested(key, elem) {
		if (mnl_attr_get_type(key) != NFTA_SET_ELEM_KEY)
			continue;
		netlink_attr_for_each_nested(value, key) {
			struct addr a = { .family = family };

			if (mnl_attr_get_type(value) != NFTA_DATA_VALUE)
				continue;
			if (mnl_attr_get_payload_len(value) != addr_len(&a))
				return -EBADMSG;
			if (out->n == out->cap) {
				size_t cap = out->cap ? out->cap * 2 : 64;
				struct addr *more = cap > 2 * NFT_PEERS_MAX ?
							    NULL :
							    reallocarray(out->v, cap, sizeof(*more));

				if (!more)
					return -ENOMEM;
				out->v = more;
				out->cap = cap;
			}
			memcpy(a.b, mnl_attr_get_payload(value), addr_len(&a));
			out->v[out->n++] = a;
		}
	}
	return 0;
}

int nft_read_elements(const struct nlmsghdr *nlh, uint8_t family, struct nft_elements *out)
{
	const struct nlattr *attr, *elem;
	int r = 0;

	if (!nft_is_message(nlh, NFT_MSG_NEWSETELEM))
		return 0;
	netlink_attr_for_each(attr, nlh, sizeof(struct nfgenmsg)) {
		if (mnl_attr_get_type(attr) != NFTA_SET_ELEM_LIST_ELEMENTS)
			continue;
		netlink_attr_for_each_nested(elem, attr) {
			r = keep_element(elem, family, out);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

const char *nft_event_table(const struct nlmsghdr *nlh, char out[static NFT_NAME_MAX])
{
	const struct nlattr *attr;

	out[0] = '\0';
	if (nlh->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES ||
	    mnl_nlmsg_get_payload_len(nlh) < sizeof(struct nfgenmsg) ||
	    (nlh->nlmsg_type & 0xff) == NFT_MSG_NEWGEN)
		return out;
	/* Attribute 1 names the table in every message about a table, chain, rule, set or element. */
	netlink_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
		if (mnl_attr_get_type(attr) == NFTA_TABLE_NAME &&
		    mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
			snprintf(out, NFT_NAME_MAX, "%s", mnl_attr_get_str(attr));
	return out;
}
