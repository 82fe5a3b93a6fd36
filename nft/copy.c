#include "nft/copy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/netlink.h"
#include "nft/batch.h"

#define RULE_BYTES_MAX 8192 /* ours have a few hundred */

int nft_copy_name(const char *table, char ret[static NFT_NAME_MAX])
{
	int n = snprintf(ret, NFT_NAME_MAX, "%s-held", table);

	return n < 0 || n >= NFT_NAME_MAX ? -ENAMETOOLONG : 0;
}

int nft_copy_begin(struct nft_copy *c, const char *table, bool delete_first, uint32_t first_seq,
		   struct buf *out)
{
	int r;

	*c = (struct nft_copy){ .w = { .out = out, .seq = first_seq } };
	r = nft_copy_name(table, c->to);
	if (r < 0)
		return r;
	snprintf(c->from, sizeof(c->from), "%s", table);
	r = nft_writer_marker(&c->w, NFNL_MSG_BATCH_BEGIN);
	if (r == 0 && delete_first)
		r = nft_writer_delete_table(&c->w, c->to);
	if (r == 0)
		r = nft_writer_table(&c->w, NLM_F_CREATE | NLM_F_EXCL, c->to, 0, NFT_TAG_COPY);
	nft_copy_set_mark(c);
	return r;
}

void nft_copy_set_mark(struct nft_copy *c)
{
	c->mark = (struct nft_copy_mark){ c->w.out->len, c->n_sets, c->n_chains, c->n_rules, c->w.seq };
}

void nft_copy_rewind(struct nft_copy *c)
{
	c->w.out->len = c->mark.len;
	c->w.seq = c->mark.seq;
	c->n_sets = c->mark.n_sets;
	c->n_chains = c->mark.n_chains;
	c->n_rules = c->mark.n_rules;
}

int nft_copy_end(struct nft_copy *c)
{
	return nft_writer_marker(&c->w, NFNL_MSG_BATCH_END);
}

/* Reading: the attributes of one message or nest by their numbers; a missing one is NULL. */

#define ATTRS_MAX 32

struct attrs {
	const struct nlattr *a[ATTRS_MAX];
};

static void keep_attr(struct attrs *t, const struct nlattr *attr)
{
	if (mnl_attr_get_type(attr) < ATTRS_MAX)
		t->a[mnl_attr_get_type(attr)] = attr;
}

static struct attrs attrs_of(const struct nlmsghdr *nlh)
{
	struct attrs t = { 0 };
	const struct nlattr *attr;

	netlink_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
		keep_attr(&t, attr);
	return t;
}

static struct attrs attrs_in(const struct nlattr *nest)
{
	struct attrs t = { 0 };
	const struct nlattr *attr;

	netlink_attr_for_each_nested(attr, nest)
		keep_attr(&t, attr);
	return t;
}

/* NULL: none, or no name that we give. */
static const char *name_of(const struct nlattr *attr)
{
	if (!attr || mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) < 0 ||
	    mnl_attr_get_payload_len(attr) > NFT_NAME_MAX)
		return NULL;
	return mnl_attr_get_str(attr);
}

static uint32_t u32_of(const struct nlattr *attr, uint32_t missing)
{
	return attr && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0 ? ntohl(mnl_attr_get_u32(attr)) : missing;
}

static bool is_named(const struct nlattr *attr, const char *want)
{
	const char *name = name_of(attr);

	return name && strcmp(name, want) == 0;
}

/* Sets: exact addresses of one family. */

static int put_set(struct nft_copy *c, const char *name, uint32_t key_len)
{
	struct nlmsghdr *nlh = nft_writer_begin(&c->w, NFT_MSG_NEWSET, NLM_F_CREATE);

	if (!nlh)
		return -ENOMEM;
	mnl_attr_put_strz(nlh, NFTA_SET_TABLE, c->to);
	mnl_attr_put_strz(nlh, NFTA_SET_NAME, name);
	mnl_attr_put_u32(nlh, NFTA_SET_KEY_TYPE, htonl(key_len == 4 ? 7 : 8)); /* as batch.c */
	mnl_attr_put_u32(nlh, NFTA_SET_KEY_LEN, htonl(key_len));
	mnl_attr_put_u32(nlh, NFTA_SET_ID, htonl((uint32_t)c->n_sets + 1));
	nft_writer_end(&c->w, nlh);
	return 0;
}

int nft_copy_set(struct nft_copy *c, const struct nlmsghdr *nlh)
{
	struct attrs t;
	const char *name;
	uint32_t key_len;
	int r;

	if (!nft_is_message(nlh, NFT_MSG_NEWSET))
		return 0;
	t = attrs_of(nlh);
	if (!is_named(t.a[NFTA_SET_TABLE], c->from))
		return 0;
	name = name_of(t.a[NFTA_SET_NAME]);
	key_len = u32_of(t.a[NFTA_SET_KEY_LEN], 0);
	/* No ranges, maps, timeouts, nor sets that belong to a rule. */
	if (!name || (key_len != 4 && key_len != 16) || u32_of(t.a[NFTA_SET_FLAGS], 0) ||
	    c->n_sets == ARRAY_SIZE(c->sets))
		return -EBADMSG;
	r = put_set(c, name, key_len);
	if (r < 0)
		return r;
	snprintf(c->sets[c->n_sets].name, NFT_NAME_MAX, "%s", name);
	c->sets[c->n_sets++].family = key_len == 4 ? 4 : 6;
	return 0;
}

int nft_copy_elements(struct nft_copy *c, size_t set, const struct addr *v, size_t n)
{
	return nft_writer_elements(&c->w, NFT_MSG_NEWSETELEM, c->to, c->sets[set].name, v, n);
}

/* Chains */

static int put_chain(struct nft_copy *c, const char *name, const struct attrs *t, const struct attrs *hook)
{
	struct nlmsghdr *nlh = nft_writer_begin(&c->w, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	struct nlattr *nest;

	if (!nlh)
		return -ENOMEM;
	mnl_attr_put_strz(nlh, NFTA_CHAIN_TABLE, c->to);
	mnl_attr_put_strz(nlh, NFTA_CHAIN_NAME, name);
	if (t->a[NFTA_CHAIN_HOOK]) {
		nest = mnl_attr_nest_start(nlh, NFTA_CHAIN_HOOK);
		mnl_attr_put_u32(nlh, NFTA_HOOK_HOOKNUM, mnl_attr_get_u32(hook->a[NFTA_HOOK_HOOKNUM]));
		mnl_attr_put_u32(nlh, NFTA_HOOK_PRIORITY, mnl_attr_get_u32(hook->a[NFTA_HOOK_PRIORITY]));
		mnl_attr_nest_end(nlh, nest);
		mnl_attr_put_u32(nlh, NFTA_CHAIN_POLICY, mnl_attr_get_u32(t->a[NFTA_CHAIN_POLICY]));
		mnl_attr_put_strz(nlh, NFTA_CHAIN_TYPE, mnl_attr_get_str(t->a[NFTA_CHAIN_TYPE]));
	}
	nft_writer_end(&c->w, nlh);
	return 0;
}

int nft_copy_chain(struct nft_copy *c, const struct nlmsghdr *nlh)
{
	struct attrs t, hook = { 0 };
	const char *name;

	if (!nft_is_message(nlh, NFT_MSG_NEWCHAIN))
		return 0;
	t = attrs_of(nlh);
	if (!is_named(t.a[NFTA_CHAIN_TABLE], c->from))
		return 0;
	name = name_of(t.a[NFTA_CHAIN_NAME]);
	if (!name || c->n_chains == NFT_CHAINS_MAX)
		return -EBADMSG;
	if (t.a[NFTA_CHAIN_HOOK]) {
		hook = attrs_in(t.a[NFTA_CHAIN_HOOK]);
		if (u32_of(hook.a[NFTA_HOOK_HOOKNUM], UINT32_MAX) > NF_INET_POST_ROUTING ||
		    !hook.a[NFTA_HOOK_PRIORITY] ||
		    mnl_attr_validate(hook.a[NFTA_HOOK_PRIORITY], MNL_TYPE_U32) < 0 ||
		    u32_of(t.a[NFTA_CHAIN_POLICY], UINT32_MAX) > NF_ACCEPT ||
		    (!is_named(t.a[NFTA_CHAIN_TYPE], "filter") && !is_named(t.a[NFTA_CHAIN_TYPE], "nat")))
			return -EBADMSG;
	}
	c->n_chains++;
	return put_chain(c, name, &t, &hook);
}

/* Rules: their expressions as the kernel gives them */

static bool is_ours(const struct nlattr *expr_name)
{
	static const char *const names[] = { "bitwise", "byteorder", "cmp",    "ct",   "exthdr",
					     "fib",	"immediate", "lookup", "masq", "meta",
					     "notrack", "payload",   "rt",     "tproxy" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (is_named(expr_name, names[i]))
			return true;
	return false;
}

/* The kernel tells flags of an option that is written and refuses them when it is told. */
static void put_data(struct nlmsghdr *nlh, const struct nlattr *data, bool drop_flags)
{
	struct nlattr *nest = mnl_attr_nest_start(nlh, NFTA_EXPR_DATA);
	const struct nlattr *attr;

	netlink_attr_for_each_nested(attr, data)
		if (!drop_flags || mnl_attr_get_type(attr) != NFTA_EXTHDR_FLAGS)
			mnl_attr_put(nlh, attr->nla_type, mnl_attr_get_payload_len(attr),
				     mnl_attr_get_payload(attr));
	mnl_attr_nest_end(nlh, nest);
}

static int put_expr(struct nlmsghdr *nlh, const struct nlattr *elem)
{
	struct attrs t = attrs_in(elem), data = { 0 };
	struct nlattr *nest;
	bool written;

	if (mnl_attr_get_type(elem) != NFTA_LIST_ELEM || !is_ours(t.a[NFTA_EXPR_NAME]))
		return -EBADMSG;
	if (t.a[NFTA_EXPR_DATA])
		data = attrs_in(t.a[NFTA_EXPR_DATA]);
	written = is_named(t.a[NFTA_EXPR_NAME], "exthdr") && data.a[NFTA_EXTHDR_SREG];
	if (written && u32_of(data.a[NFTA_EXTHDR_FLAGS], 0))
		return -EBADMSG;
	nest = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM);
	mnl_attr_put_strz(nlh, NFTA_EXPR_NAME, mnl_attr_get_str(t.a[NFTA_EXPR_NAME]));
	if (t.a[NFTA_EXPR_DATA])
		put_data(nlh, t.a[NFTA_EXPR_DATA], written);
	mnl_attr_nest_end(nlh, nest);
	return 0;
}

static int put_rule(struct nft_copy *c, const char *chain, const struct nlattr *exprs)
{
	struct nlmsghdr *nlh = nft_writer_begin(&c->w, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	const struct nlattr *elem;
	struct nlattr *nest;
	int r = 0;

	if (!nlh)
		return -ENOMEM;
	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, c->to);
	mnl_attr_put_strz(nlh, NFTA_RULE_CHAIN, chain);
	nest = mnl_attr_nest_start(nlh, NFTA_RULE_EXPRESSIONS);
	netlink_attr_for_each_nested(elem, exprs) {
		r = put_expr(nlh, elem);
		if (r < 0)
			return r;
	}
	mnl_attr_nest_end(nlh, nest);
	nft_writer_end(&c->w, nlh);
	return 0;
}

int nft_copy_rule(struct nft_copy *c, const struct nlmsghdr *nlh)
{
	struct attrs t;
	const char *chain;

	if (!nft_is_message(nlh, NFT_MSG_NEWRULE))
		return 0;
	t = attrs_of(nlh);
	if (!is_named(t.a[NFTA_RULE_TABLE], c->from))
		return 0;
	chain = name_of(t.a[NFTA_RULE_CHAIN]);
	/* The copy of the expressions is of their own length at most, beside two names. */
	if (!chain || !t.a[NFTA_RULE_EXPRESSIONS] || c->n_rules == NFT_RULES_MAX ||
	    mnl_attr_get_payload_len(t.a[NFTA_RULE_EXPRESSIONS]) > RULE_BYTES_MAX)
		return -EBADMSG;
	c->n_rules++;
	return put_rule(c, chain, t.a[NFTA_RULE_EXPRESSIONS]);
}
