#pragma once
/*
 * store: the coordinator's state on disk, in SQLite.
 *
 * The loop's thread queues rows; one thread of its own writes them, all that have come up in one
 * transaction (a group commit, synchronous: what is committed survives kill -9 and power loss). A
 * number says how far it has come: answers that depend on a write wait for theirs. What is queued
 * between two turns of the loop is never split, so a one-off key and the node it admits are one
 * transaction. A write that fails (disk full) is tried again until it succeeds; meanwhile
 * store_failing() tells the front to refuse what would change something. The tables are in store_row.h.
 */
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/state/registry.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

struct store;

#define STORE_WHY_MAX 256

/* Opens or creates (0600), locks out a second coordinator, migrates. why: a sentence on failure. */
int store_open(const char *path, bool wal, char why[static STORE_WHY_MAX], struct store **ret);
/* Fills an empty state. Before store_start(). */
int store_load(struct store *st, struct registry *s, char why[static STORE_WHY_MAX]);
/* on_commit: after store_committed() or store_failing() has changed. */
int store_start(struct store *st, struct loop *l, loop_fn *on_commit, void *data);
/* Writes what is queued (waits for it, at most 10 s) and closes. */
void store_free(struct store *st);
DEFINE_CLEANUP(struct store *, store_free)

void store_put_user(struct store *st, const struct registry_user *u, bool gone);
void store_put_authkey(struct store *st, const struct authkey *k, bool gone);
void store_put_node(struct store *st, const struct node *n, bool gone);
void store_put_netinfo(struct store *st, const struct key *machine, const char *json, uint32_t home);

/* What is queued by now is on disk when store_committed() has reached this. */
uint64_t store_mark(struct store *st);
uint64_t store_committed(struct store *st);
/* The database takes no writes, or memory for the next one is short: then nothing must be changed. */
bool store_failing(struct store *st);
/* A change could not even be queued: nothing is reported as written any more, and only a new start from the disk helps. */
bool store_lost(const struct store *st);
