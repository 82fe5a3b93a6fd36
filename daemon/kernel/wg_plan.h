#pragma once
/*
 * wg_plan: from what the device has to what it shall have, as a list of changes.
 *
 * Pure. Equal states give an empty list. The order keeps traffic flowing: peers and prefixes are
 * added first (adding a prefix that another peer owns moves it, without a gap), then prefixes that
 * nobody wants are dropped, then peers removed. Where more peers go than one message removes, they are
 * all closed before the slow part, which is quick: from then on nothing passes from them or to them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/kernel/wg_msg.h"

struct wg_want {
	struct key key;
	struct endpoint endpoint; /* where its packets go while the kernel knows nothing better */
	bool force_endpoint;	  /* … and even if it does */
	uint16_t keepalive_sec;
	size_t n_allowed;
	const struct prefix *allowed; /* any order, host bits allowed, no duplicates */
};

struct wg_plan {
	size_t n;
	struct wg_change *changes;
	struct prefix *prefixes; /* what the changes point at */
	size_t n_prefixes;
};

/* wanted: any order; a key twice is -EINVAL, as is a prefix that two peers want. -ENOMEM.
 * actual->peers is sorted by key, as wg_get_device() gives it. */
int wg_plan(const struct wg_device *actual, const struct wg_want *wanted, size_t n,
	    struct wg_plan *ret);
/* The first n changes are done: their room is given back, and the next one is number 0. */
void wg_plan_forget(struct wg_plan *p, size_t n);
void wg_plan_done(struct wg_plan *p);
static inline void wg_plan_done_cleanup(struct wg_plan *p)
{
	wg_plan_done(p);
}
