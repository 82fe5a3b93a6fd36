#pragma once
/*
 * loop: one thread's event loop: descriptors, timers, signals, deferred work.
 *
 * Descriptors wait in an epoll of its own; timers and signals are sd-event's, which stays behind this header. Sources are
 * owned by whoever made them and freed before the loop; only a loop_io and a loop_defer may be freed after it, and do
 * nothing more then. A callback does bounded work and never waits. An object freed inside a callback goes through
 * loop_defer_free(), because an event for it may already be in hand.
 * Times are microseconds of the monotonic clock.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "lib/cleanup.h"

struct loop;
struct loop_io;
struct loop_timer;
struct loop_signal;
struct loop_defer;
struct loop_orphan;

#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC  UINT64_C(1000000)

typedef void loop_io_fn(void *data, int fd, uint32_t events); /* EPOLL* */
typedef void loop_fn(void *data);
typedef void loop_signal_fn(void *data, int signo);

int loop_new(struct loop **ret);
void loop_free(struct loop *l);
DEFINE_CLEANUP(struct loop *, loop_free)
/* Runs until loop_exit(); returns its code, or a negative errno. */
int loop_run(struct loop *l);
/* There is so little that nothing new should be begun: listeners wait. */
bool loop_short_of_memory(const struct loop *l);
void loop_exit(struct loop *l, int code);
/* One iteration, waiting at most so long for something to do (for tests). 1 when something ran, 0 when time was up, or a
 * negative errno. */
int loop_iterate(struct loop *l, uint64_t timeout_usec);
/* Time of this iteration. */
uint64_t loop_now(struct loop *l);
/* The same clock, read now: to measure work. */
uint64_t loop_clock(void);
/* Unix time in nanoseconds: what others' times are compared with, never a delay. */
int64_t loop_wall_nsec(void);
/* Sends READY=1 and so on; nothing without NOTIFY_SOCKET. */
void loop_notify(struct loop *l, const char *state);
/* Signs of life for the service manager's watchdog, if there is one, from now on; also without a free descriptor. */
int loop_watchdog(struct loop *l);

/* The descriptor stays the caller's. events: EPOLLIN, EPOLLOUT, EPOLLET. Up to 64 that are ready are served in one
 * iteration; timers and deferred work come between. */
int loop_io_new(struct loop *l, int fd, uint32_t events, loop_io_fn *fn, void *data,
		struct loop_io **ret);
int loop_io_set(struct loop_io *io, uint32_t events);
void loop_io_free(struct loop_io *io);
DEFINE_CLEANUP(struct loop_io *, loop_io_free)

/* A timer is made stopped. Fires once for each arming. Accuracy 1 ms. */
int loop_timer_new(struct loop *l, loop_fn *fn, void *data, struct loop_timer **ret);
void loop_timer_at(struct loop_timer *t, uint64_t when_usec);
void loop_timer_in(struct loop_timer *t, uint64_t delay_usec);
void loop_timer_stop(struct loop_timer *t);
bool loop_timer_armed(const struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);
DEFINE_CLEANUP(struct loop_timer *, loop_timer_free)

/* Blocks the signal for the process and delivers it as an event. */
int loop_signal_new(struct loop *l, int signo, loop_signal_fn *fn, void *data,
		    struct loop_signal **ret);
void loop_signal_free(struct loop_signal *s);
DEFINE_CLEANUP(struct loop_signal *, loop_signal_free)

/* Work for the end of this iteration: made stopped, runs once for each loop_defer_arm(). What is armed meanwhile comes
 * after the descriptors that are ready then: work that arms itself again keeps nobody waiting. */
int loop_defer_new(struct loop *l, loop_fn *fn, void *data, struct loop_defer **ret);
void loop_defer_arm(struct loop_defer *d);
void loop_defer_drop(struct loop_defer *d); /* frees the source */
DEFINE_CLEANUP(struct loop_defer *, loop_defer_drop)

/* Calls fn(p) when no event that was in hand can reach p any more; immediately when the loop ends. */
void loop_defer_free(struct loop *l, void *p, loop_fn *fn);

/* For an object that nobody owns any more and that frees itself later: fn(p) is called if the loop is freed before
 * that. The object takes itself off (loop_orphan_free) when it goes earlier, and also inside fn. */
int loop_orphan_new(struct loop *l, loop_fn *fn, void *p, struct loop_orphan **ret);
void loop_orphan_free(struct loop_orphan *o);
DEFINE_CLEANUP(struct loop_orphan *, loop_orphan_free)
