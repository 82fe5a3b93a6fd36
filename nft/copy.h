#pragma once
/*
 * copy: a table that the kernel tells of, as one transaction that makes another one of the same
 * contents, without an owner.
 *
 * Pure: messages of dumps in, messages of a batch out. For the filter that has to outlive the socket
 * that owns it (reconcile.h). What tables of ours cannot contain is not copied: then there is no copy
 * at all, for a filter with a rule left out might let in more.
 */
#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "nft/ruleset.h"
#include "nft/writer.h"

#define NFT_TAG_COPY "kernscale copy 1" /* in the copy's user data */

/* -ENAMETOOLONG. */
int nft_copy_name(const char *table, char ret[static NFT_NAME_MAX]);

struct nft_copy {
	char from[NFT_NAME_MAX], to[NFT_NAME_MAX];
	struct nft_writer w;
	struct nft_copy_mark {
		size_t len, n_sets, n_chains, n_rules;
		uint32_t seq;
	} mark;
	size_t n_sets, n_chains, n_rules;
	struct nft_copy_set {
		char name[NFT_NAME_MAX];
		uint8_t family;
	} sets[NFT_SETS_MAX];
};

/* delete_first: a copy exists. out is borrowed until the end. */
int nft_copy_begin(struct nft_copy *c, const char *table, bool delete_first, uint32_t first_seq,
		   struct buf *out);
/* In this order: all sets, all chains, all rules, the members of each set. Messages of other kinds and
 * about other tables are skipped. -EBADMSG: we never make such a thing; -ENOMEM. */
int nft_copy_set(struct nft_copy *c, const struct nlmsghdr *nlh);
int nft_copy_chain(struct nft_copy *c, const struct nlmsghdr *nlh);
int nft_copy_rule(struct nft_copy *c, const struct nlmsghdr *nlh);
int nft_copy_elements(struct nft_copy *c, size_t set, const struct addr *v, size_t n);
/* A dump may have to be taken again: what came since the mark is forgotten. */
void nft_copy_set_mark(struct nft_copy *c);
void nft_copy_rewind(struct nft_copy *c);
int nft_copy_end(struct nft_copy *c);
