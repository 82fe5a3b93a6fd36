#pragma once
/*
 * reconcile: our nftables table in the kernel: read, compared, replaced in one transaction, watched.
 *
 * The edge. Owns the netlink socket that owns the table: as long as somebody has it open nobody else
 * can change or flush the table. Where the kernel can (6.9 on) the table outlives the socket, as an
 * orphan that the next one takes as it is. Elsewhere it goes with its owner, so it gets one only while
 * somebody keeps the socket over our death (nft_set_kept); else it has none and the watch tells of
 * changes. A table of our name without our tag is refused, never touched. Applying what is there
 * already sends nothing; new members of a set alone do not replace the table.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/cleanup.h"
#include "lib/loop.h"
#include "nft/ruleset.h"

struct nft;

enum nft_support {
	NFT_HAS_TABLES = 1 << 0,  /* nf_tables with inet and connection tracking */
	NFT_HAS_TPROXY = 1 << 1,  /* else the shared port needs raw sockets (udp.h) */
	NFT_HAS_PERSIST = 1 << 2, /* owned tables that outlive their owner */
};

/* fd: the socket of before, kept by somebody, which is ours after 0; -1: a new one. -EPERM: no
 * CAP_NET_ADMIN; -EPROTONOSUPPORT: a kernel without nfnetlink; -EBADMSG: fd is no such socket. */
int nft_open(int fd, struct nft **ret);
void nft_close(struct nft *n);
DEFINE_CLEANUP(struct nft *, nft_close)

/* Whether the socket lives on when we die. For the next nft_apply(). */
void nft_set_kept(struct nft *n, bool kept);
/* The table would go with the last who has the socket. */
bool nft_goes_with_owner(const struct nft *n);
/* What this kernel can, tried without changing anything; loads modules. Of enum nft_support. */
/* -ENOBUFS, -EBUSY, -ENOMEM: it cannot be found out now. */
int nft_probe(struct nft *n);
/* Makes the table what c asks for. 1: something was sent; 0: it was so already. -EEXIST: a table of
 * that name is somebody else's; -EOPNOTSUPP, -ENOENT: the kernel lacks something. Nothing has
 * changed after an error. */
int nft_apply(struct nft *n, const struct nft_config *c);
/* Whether nft_apply() may have that name: 0, or its -EEXIST or -EPERM. */
int nft_may_have(struct nft *n, const char *table);
/* 1: a table of that name stands and is ours, with rules whatever they are, or its copy; 0: neither. */
int nft_stands(struct nft *n, const char *table);
/* And its copy. 0 also when there is none. */
int nft_remove(struct nft *n, const char *table);

enum nft_held {
	NFT_HELD_NOTHING, /* no table of ours is in danger */
	NFT_HELD_COPY,
	NFT_HELD_CLOSED, /* it could not be copied: replies only */
};
/* For after the owner's death: a table of ours that would go with the last who has its socket gets a
 * copy without an owner beside it (copy.h), which filters on when that happens; the next nft_apply()
 * takes the copy away. closed: its table, interface and ports, for when there can be no copy. Gives
 * an enum nft_held or a negative errno. */
int nft_hold(struct nft *n, const struct nft_config *closed);
/* The kernel's words, or ours, for the last failure. */
const char *nft_error(const struct nft *n);
uint64_t nft_changes_sent(const struct nft *n);
/* The socket that owns the table. */
int nft_fd(const struct nft *n);

/* Calls fn (at once, then every 250 ms at most) when somebody else changed the table of the last
 * nft_apply(): apply again. A second call changes fn only. */
int nft_watch(struct nft *n, struct loop *loop, loop_fn *fn, void *data);
