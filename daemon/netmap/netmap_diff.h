#pragma once
/*
 * netmap_diff: in which aspects (enum netmap_aspect, as bits) two states of one node differ.
 *
 * For netmap.c only. Pure; lists that say the same in another order are the same where order means
 * nothing.
 */
#include "proto/tailcfg.h"

unsigned int netmap_diff_nodes(const struct tailcfg_node *a, const struct tailcfg_node *b);
/* What a patch will change in n. */
unsigned int netmap_diff_patch(const struct tailcfg_node *n, const struct tailcfg_peer_change *p);
