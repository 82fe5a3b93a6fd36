#pragma once
/*
 * presence: what time does to nodes: who is offline since its stream ended, whose key expired, and which ephemeral node
 * is gone for good.
 *
 * Borrows the registry, where it says what it finds. Knows no stream: who has one has no gone_usec.
 */
#include <stdint.h>

#include "coordinator/settings.h"
#include "coordinator/state/registry.h"
#include "lib/loop.h"

#define PRESENCE_OFFLINE_USEC (10 * USEC_PER_SEC) /* without a stream for so long: offline */
#define PRESENCE_RETURN_USEC  (60 * USEC_PER_SEC) /* after our own restart; nodes try again every 30 s at the least */

struct presence {
	struct registry *reg;
	const struct settings *cfg;
	int64_t ticked_nsec;
};

/* Who was online when we ended has some time to come back. */
void presence_init(struct presence *p, struct registry *reg, const struct settings *cfg);
/* Returns when something is due again by what is known now, UINT64_MAX: never. */
uint64_t presence_tick(struct presence *p, uint64_t now_usec, int64_t now_nsec);
