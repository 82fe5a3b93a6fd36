#pragma once
/*
 * coord: the coordinator as one object: settings, state, store, map streams, and the answers that
 * wait for the disk.
 *
 * Owns them; the fronts (nodes, HTTP, admin socket) borrow it. Connects the registry's changes to
 * the store and to the fan-out. One thread: the loop's.
 */
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/map/fanout.h"
#include "coordinator/settings.h"
#include "coordinator/signin.h"
#include "coordinator/state/registry.h"
#include "coordinator/store/store.h"
#include "lib/key.h"
#include "lib/loop.h"

struct clockstep;
struct relay;
struct coord_held;

struct coord {
	struct loop *loop;
	struct settings cfg;
	struct registry reg;
	struct store *store;	/* NULL in tests: nothing is held back */
	struct fanout *fanout;	/* NULL in tests */
	struct relay *relay;	/* the embedded one, NULL: none */
	struct signins signins;
	struct key_pair noise_key;
	struct coord_held *held, **held_end;
	struct loop_timer *tick; /* when something is due: nothing happens here for nothing */
	uint64_t tick_usec;	 /* that time, while armed */
	struct clockstep *clockstep;
	uint64_t registers, register_failures;
};

/* c->loop and c->cfg are set. why: a sentence on failure. */
int coord_start(struct coord *c, char why[static STORE_WHY_MAX]);
void coord_done(struct coord *c);

/* The mark of everything that has been changed by now. */
uint64_t coord_mark(struct coord *c);
/* Calls fn when what has this mark is on disk: at once when it is already. */
void coord_when_stored(struct coord *c, uint64_t mark, loop_fn *fn, void *data);
/* False while the database takes no writes: then nothing must be changed. */
bool coord_writable(struct coord *c);

/* Something has come about that has its time: it is looked at within a second. */
void coord_look(struct coord *c);

/* Registry without store and fan-out, for tests and what has no disk. */
void coord_attach(struct coord *c);
