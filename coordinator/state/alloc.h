#pragma once
/*
 * alloc: which address a new node gets. Pure but for the randomness of the random strategy.
 */
#include <stdbool.h>

#include "lib/addr.h"

struct alloc {
	struct prefix prefix; /* family 0: this family is not handed out */
	bool random;
	struct addr last; /* sequential goes on behind it, so that a freed address is not used again at once */
};

/* Never handed out: the resolver (100.100.100.100, fd7a:115c:a1e0::53), 100.115.92.0/23 (Chrome OS), a prefix's
 * network address and an IPv4 prefix's broadcast address. */
bool alloc_reserved(const struct prefix *p, const struct addr *a);
/* A free address, remembered as last. -ENOSPC when there is none. taken: whether some node has it. */
int alloc_next(struct alloc *al, bool (*taken)(void *data, const struct addr *a), void *data,
	       struct addr *ret);
