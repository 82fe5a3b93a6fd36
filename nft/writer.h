#pragma once
/*
 * writer: nf_tables messages, one after the other, as one transaction in a buffer.
 *
 * Pure. Numbers the messages and puts the markers around them. What a rule or chain consists of is
 * the caller's (batch.h, copy.h). Every function gives -ENOMEM, and nothing else.
 */
#include <libmnl/libmnl.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/buf.h"

#define NFT_WRITER_MESSAGE_MAX 65536
#define NFT_ELEMENT_CHUNK      1024 /* members of a set in one message */

struct nft_writer {
	struct buf *out;
	uint32_t seq; /* of the next message */
	size_t last;  /* where the last message begins */
};

/* Room for one message (NFT_MSG_*) of NFT_WRITER_MESSAGE_MAX bytes; its header is at the end of the
 * buffer. NULL: no memory. */
struct nlmsghdr *nft_writer_begin(struct nft_writer *w, uint16_t msg, uint16_t flags);
void nft_writer_end(struct nft_writer *w, const struct nlmsghdr *nlh);
/* type: NFNL_MSG_BATCH_BEGIN, or _END, which asks for an acknowledgement. */
int nft_writer_marker(struct nft_writer *w, uint16_t type);
void nft_writer_ask_ack(struct nft_writer *w);
/* tag: its user data, a text. */
int nft_writer_table(struct nft_writer *w, uint16_t flags, const char *name, uint32_t table_flags,
		     const char *tag);
int nft_writer_delete_table(struct nft_writer *w, const char *name);
/* msg: NFT_MSG_NEWSETELEM or _DELSETELEM; as many messages as it takes. */
int nft_writer_elements(struct nft_writer *w, uint16_t msg, const char *table, const char *set,
			const struct addr *v, size_t n);
