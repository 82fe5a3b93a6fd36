#pragma once
/*
 * relaykeep: the last good map of each source of relays, on disk for a start at which the source is away.
 *
 * Owns one file a source, beside the database, named by a hash of the source: what the configuration does not name any
 * more is never read. Files are read at the start only, by the decoder that reads the source; one that is torn or not
 * ours is a warning and no map. They are written from the loop, in filewriter.h's thread, when they differ from what
 * is there.
 */
#include <stddef.h>

#include "lib/cleanup.h"
#include "lib/loop.h"
#include "proto/derpmap.h"

struct relaykeep;

/* beside: the path of a file in the folder. For n sources. */
int relaykeep_new(struct loop *l, const char *beside, size_t n, struct relaykeep **ret);
/* What is not written yet is written first. */
void relaykeep_free(struct relaykeep *k);
DEFINE_CLEANUP(struct relaykeep *, relaykeep_free)

/* Names the i-th source (borrowed) and reads what is kept of it. -ENOENT: nothing is; others have been logged. */
int relaykeep_load(struct relaykeep *k, size_t i, const char *source, struct derp_map *ret);
/* Keeps this one of the i-th source from now on; a failure is logged. */
void relaykeep_save(struct relaykeep *k, size_t i, const struct derp_map *m);
