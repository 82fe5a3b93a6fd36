#pragma once
/*
 * clockstep: tells when somebody sets the wall clock, and by how much.
 *
 * Asks the kernel to be told (timerfd, TFD_TIMER_CANCEL_ON_SET), so it costs nothing. A host that
 * slept has not had its clock set: that time is in CLOCK_BOOTTIME as well. Owns its descriptor.
 */
#include <stdint.h>

#include "lib/cleanup.h"
#include "lib/loop.h"

struct clockstep;

/* by_nsec: forward is positive; never less than CLOCKSTEP_LEAST_NSEC either way. */
typedef void clockstep_fn(void *data, int64_t by_nsec);

#define CLOCKSTEP_LEAST_NSEC INT64_C(1000000000)

int clockstep_new(struct loop *l, clockstep_fn *fn, void *data, struct clockstep **ret);
void clockstep_free(struct clockstep *c);
DEFINE_CLEANUP(struct clockstep *, clockstep_free)
