#pragma once
/*
 * node: one mesh node: brings control, map, paths, relays, kernel and local API together.
 *
 * Owns them all and their order of start and stop. What each decides is its own; here is only who
 * tells whom what.
 */
#include "daemon/config.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define NODE_ERROR_MAX 384

struct node;

/* Opens state and socket, adopts what the kernel has, starts what shall run. On failure error has
 * one line with cause and remedy. */
int node_new(struct loop *l, const struct config *cfg, struct node **ret,
	     char error[static NODE_ERROR_MAX]);
/* Before the end of the process that is not to be followed by a restart: nothing in the kernel shall
 * depend on what the service manager keeps for us. */
void node_hand_over(struct node *n);
/* The mesh stays as it is. */
void node_free(struct node *n);
DEFINE_CLEANUP(struct node *, node_free)
