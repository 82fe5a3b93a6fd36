#pragma once
/*
 * stund: the STUN server: tells nodes the address their packets come from.
 *
 * Answers only what a node of the mesh asks (proto/stun.h), from the address that was asked, and is
 * silent to all else. A bounded number of datagrams each turn of the loop.
 */
#include <stdint.h>

#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

struct stund;

struct stund_stats {
	uint64_t success, not_stun, read_error, write_error;
	uint64_t ipv4, ipv6;
};

/* at "::": both families. ret_bound (may be NULL) tells what port 0 became. */
int stund_new(struct loop *l, const struct endpoint *at, struct endpoint *ret_bound,
	      struct stund **ret);
void stund_free(struct stund *s);
DEFINE_CLEANUP(struct stund *, stund_free)
const struct stund_stats *stund_stats(const struct stund *s);
