#include "nft/writer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "lib/cleanup.h"

static struct nlmsghdr *begin(struct nft_writer *w, uint16_t type, uint8_t family, uint16_t flags)
{
	struct nfgenmsg *nfg;
	struct nlmsghdr *nlh = (struct nlmsghdr *)(void *)buf_tail(w->out, NFT_WRITER_MESSAGE_MAX);

	if (!nlh)
		return NULL;
	nlh = mnl_nlmsg_put_header(nlh);
	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	nlh->nlmsg_seq = w->seq++;
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = family;
	nfg->version = NFNETLINK_V0;
	w->last = w->out->len;
	return nlh;
}

struct nlmsghdr *nft_writer_begin(struct nft_writer *w, uint16_t msg, uint16_t flags)
{
	return begin(w, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | msg), NFPROTO_INET, flags);
}

void nft_writer_end(struct nft_writer *w, const struct nlmsghdr *nlh)
{
	buf_commit(w->out, NLMSG_ALIGN(nlh->nlmsg_len));
}

void nft_writer_ask_ack(struct nft_writer *w)
{
	if (!w->out->bad)
		((struct nlmsghdr *)(void *)(w->out->data + w->out->head + w->last))->nlmsg_flags |= NLM_F_ACK;
}

int nft_writer_marker(struct nft_writer *w, uint16_t type)
{
	struct nlmsghdr *nlh;

	/* The last message before the end is the one to be acknowledged: kernels before 6.10
	 * acknowledge neither the begin nor the end. */
	if (type == NFNL_MSG_BATCH_END)
		nft_writer_ask_ack(w);
	nlh = begin(w, type, AF_UNSPEC, 0);
	if (!nlh)
		return -ENOMEM;
	((struct nfgenmsg *)mnl_nlmsg_get_payload(nlh))->res_id = htons(NFNL_SUBSYS_NFTABLES);
	nft_writer_end(w, nlh);
	return 0;
}

int nft_writer_table(struct nft_writer *w, uint16_t flags, const char *name, uint32_t table_flags,
		     const char *tag)
{
	struct nlmsghdr *nlh = nft_writer_begin(w, NFT_MSG_NEWTABLE, flags);

	if (!nlh)
		return -ENOMEM;
	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, name);
	mnl_attr_put_u32(nlh, NFTA_TABLE_FLAGS, htonl(table_flags));
	mnl_attr_put_strz(nlh, NFTA_TABLE_USERDATA, tag);
	nft_writer_end(w, nlh);
	return 0;
}

int nft_writer_delete_table(struct nft_writer *w, const char *name)
{
	struct nlmsghdr *nlh = nft_writer_begin(w, NFT_MSG_DELTABLE, 0);

	if (!nlh)
		return -ENOMEM;
	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, name);
	nft_writer_end(w, nlh);
	return 0;
}

static int put_chunk(struct nft_writer *w, uint16_t msg, const char *table, const char *set,
		     const struct addr *v, size_t n)
{
	struct nlmsghdr *nlh = nft_writer_begin(w, msg, msg == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0);
	struct nlattr *list;

	if (!nlh)
		return -ENOMEM;
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set);
	list = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_LIST_ELEMENTS);
	for (size_t i = 0; i < n; i++) {
		struct nlattr *elem = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM);
		struct nlattr *key = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_KEY);

		mnl_attr_put(nlh, NFTA_DATA_VALUE, addr_len(&v[i]), v[i].b);
		mnl_attr_nest_end(nlh, key);
		mnl_attr_nest_end(nlh, elem);
	}
	mnl_attr_nest_end(nlh, list);
	nft_writer_end(w, nlh);
	return 0;
}

/* Chunks stay below the 64 KiB that one attribute can hold: 1,024 members of 28 bytes. */
int nft_writer_elements(struct nft_writer *w, uint16_t msg, const char *table, const char *set,
			const struct addr *v, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i += NFT_ELEMENT_CHUNK)
		r = put_chunk(w, msg, table, set, v + i, MIN(n - i, (size_t)NFT_ELEMENT_CHUNK));
	return r;
}
