#pragma once
/*
 * batch: a ruleset as nf_tables messages: one transaction that replaces the table, and reading back.
 *
 * Builds and reads in memory; sending is reconcile.h's. A rule is compared with what the kernel has
 * by libnftnl's description of its expressions, which both sides pass through.
 */
#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "nft/ruleset.h"

#define NFT_TAG	    "kernscale 1" /* in the table's user data: ours, and of which layout */
#define NFT_OWNER   0x2U
#define NFT_PERSIST 0x4U /* newer than bookworm's headers */

struct nft_batch_opts {
	uint32_t first_seq; /* of BATCH_BEGIN; each message has one more */
	bool delete_first;  /* the table exists */
	uint32_t table_flags;
	const char *tag;	 /* NULL: NFT_TAG */
	const char *delete_also; /* another table, which exists; NULL: none */
};

/* The whole transaction, acknowledged at its last message. -ENOMEM. */
int nft_batch_replace(const struct nft_ruleset *r, const struct nft_batch_opts *o, struct buf *out);
int nft_batch_delete(const char *const *tables, size_t n, uint32_t first_seq, struct buf *out);
/* Takes an orphan (NFT_PERSIST whose owner is gone) as it is; nothing else may be in that batch. */
int nft_batch_own(const char *table, uint32_t first_seq, struct buf *out);
/* add, del: sorted addresses of the set's family. */
struct nft_set_change {
	const char *set;
	uint8_t family;
	const struct addr *add, *del;
	size_t n_add, n_del;
};
int nft_batch_elements(const char *table, const struct nft_set_change *c, size_t n, uint32_t first_seq,
		       struct buf *out);
/* The same as a replacement, but never committed: asks whether the kernel could. */
int nft_batch_try(const struct nft_ruleset *r, uint32_t table_flags, uint32_t first_seq,
		  struct buf *out);

/* What the kernel says of our table, or what it would say of a ruleset. */
struct nft_table_seen {
	bool there, ours;
	bool copied; /* the copy stands (copy.h), whether the table does or not */
	uint32_t flags;
	uint32_t owner; /* port id; 0 = none */
	struct buf chains; /* one line for each, sorted by nothing: as they were made */
	struct buf rules;
};
void nft_table_seen_done(struct nft_table_seen *t);
static inline void nft_table_seen_done_cleanup(struct nft_table_seen *t)
{
	nft_table_seen_done(t);
}
int nft_describe(const struct nft_ruleset *r, struct nft_table_seen *ret);
/* Messages of dumps, one at a time; those of other tables are skipped. */
int nft_read_table(const struct nlmsghdr *nlh, const char *table, struct nft_table_seen *t);
int nft_read_chain(const struct nlmsghdr *nlh, const char *table, struct nft_table_seen *t);
int nft_read_rule(const struct nlmsghdr *nlh, const char *table, struct nft_table_seen *t);
/* Whether it is a message of that type (NFT_MSG_*) and of our family, with a whole header. */
bool nft_is_message(const struct nlmsghdr *nlh, uint16_t msg);
/* Members of one set. */
struct nft_elements {
	struct addr *v;
	size_t n, cap;
};
int nft_read_elements(const struct nlmsghdr *nlh, uint8_t family, struct nft_elements *out);
/* The table an event is about, "" for none. */
const char *nft_event_table(const struct nlmsghdr *nlh, char out[static NFT_NAME_MAX]);
