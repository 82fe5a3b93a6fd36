#pragma once
/*
 * fanout: the map streams of all nodes: first maps, and changes to whoever may see them.
 *
 * Owns the sessions (one a node: the newest stream wins) and the list of changed nodes. Changes are
 * gathered for some milliseconds and go out as one message, built and compressed once for all who see
 * the same (mapmsg.h). Decides nothing about who may register. A reader that is too slow loses its
 * stream, and comes back for a full map. Without a stream for long: presence.h.
 */
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/settings.h"
#include "coordinator/state/registry.h"
#include "lib/cleanup.h"
#include "lib/h2.h"
#include "lib/loop.h"

struct fanout;

int fanout_new(struct loop *l, struct registry *reg, const struct settings *cfg, struct fanout **ret);
void fanout_free(struct fanout *f);
DEFINE_CLEANUP(struct fanout *, fanout_free)

/* JSON object; told to everybody when it differs. Streams wait for their first map until there is one. -ENOMEM. */
int fanout_set_derpmap(struct fanout *f, const char *json, size_t len);

/* From the registry's sink. */
void fanout_node_changed(struct fanout *f, struct node *n);
void fanout_node_removed(struct fanout *f, struct node *n); /* ends its stream */
void fanout_user_changed(struct fanout *f);

/* Answers a long poll: the first map now, changes as they come. Negative: answered with an error status. */
int fanout_open(struct fanout *f, struct node *n, struct h2_stream *st, bool zstd);

/* Keep-alives, and who is offline, expired, or ephemeral and gone. Returns when something of that is due again by what
 * is known now, UINT64_MAX: never. */
uint64_t fanout_tick(struct fanout *f, uint64_t now_usec, int64_t now_nsec);
/* fn: a stream has come or gone, fanout_tick() has to look again. What the registry tells its sink is not told here. */
void fanout_on_stream(struct fanout *f, loop_fn *fn, void *data);

struct fanout_stats {
	uint64_t sessions, messages, bytes, slow, flushes, pieces_made, pieces_used;
};
void fanout_stats(const struct fanout *f, struct fanout_stats *ret);
