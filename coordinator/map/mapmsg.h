#pragma once
/*
 * mapmsg: the messages of the map streams as bytes: texts (mapjson.h) put together, coded and with their length.
 *
 * Owns what many messages share, each piece coded once: the nodes as their peers see them, and of first maps the peers
 * in groups of 64 ids (a zstd stream may consist of several frames) and what comes behind them. Knows no stream.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/settings.h"
#include "coordinator/state/registry.h"
#include "lib/blob.h"
#include "lib/buf.h"

enum coding {
	CODING_PLAIN,
	CODING_ZSTD,
	CODING_COUNT,
};

/* Text that many messages have in common, in both codings, made when first asked for. */
struct mapmsg_piece {
	struct blob *coded[CODING_COUNT];
	bool empty; /* nothing to say, and known to be so */
};

struct mapmsg {
	const struct registry *reg;
	const struct settings *cfg;
	struct mapmsg_piece *group;
	size_t n_group;
	struct mapmsg_piece tail, comma, keepalive;
	struct buf dns, derpmap;
	struct ZSTD_CCtx_s *zstd;
	uint64_t pieces_made, pieces_used;
};

int mapmsg_init(struct mapmsg *m, const struct registry *reg, const struct settings *cfg);
void mapmsg_done(struct mapmsg *m);

/* What is kept of the node's text is out of date. */
void mapmsg_node_changed(struct mapmsg *m, struct node *n);
/* Somebody owns a first node, or is called otherwise. */
void mapmsg_owners_changed(struct mapmsg *m);
/* 1: it differs from the last one; 0: it does not; -ENOMEM. */
int mapmsg_set_derpmap(struct mapmsg *m, const char *json, size_t len);

/* A whole message: length, then the coded text. The caller's; NULL: no memory. */
struct blob *mapmsg_new(struct mapmsg *m, enum coding coding, const struct buf *text);
struct blob *mapmsg_keepalive(struct mapmsg *m, enum coding coding); /* borrowed */
/* The beginning of every text; a node as its peers see it; as it sees itself. */
void mapmsg_put_time(struct buf *b);
void mapmsg_put_node(struct mapmsg *m, struct node *n, struct buf *b);
void mapmsg_put_self(struct mapmsg *m, struct node *n, struct buf *b);

/* The first message of a stream, in parts: len is the length of them all, which has to be sent first. */
struct mapmsg_first {
	struct blob **part;
	size_t n, cap, len;
	bool bad;
};
void mapmsg_first(struct mapmsg *m, struct node *n, enum coding coding, struct mapmsg_first *out);
void mapmsg_first_done(struct mapmsg_first *out);
