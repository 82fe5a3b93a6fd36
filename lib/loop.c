#include "lib/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "lib/notify.h"

struct loop_grave {
	struct loop_grave *next;
	void *p;
	loop_fn *fn;
};

#define LOOP_BATCH	  64	       /* descriptors served in one turn */
#define LOOP_RESERVE	  (512u << 10) /* what sd-event asks for at once with 20,000 sources; never touched */
#define LOOP_RESERVE_USEC (100 * USEC_PER_MSEC) /* not sooner is it made again */
#define LOOP_PAUSE_USEC	  (10 * USEC_PER_MSEC)
#define LOOP_STARVED_MAX  500 /* such pauses in a row: it does not get better by itself */

struct loop {
	sd_event *e; /* timers and signals */
	/* Where descriptors wait, with sd-event's own among them. sd-event asks the kernel about all that are ready before each
	 * source it runs, which with thousands of them is all that it does; and while nothing of its own is due or has changed,
	 * it need not be asked at all. */
	int epoll_fd;
	bool prepared; /* sd-event knows its earliest timer and waits */
	bool changed;  /* but that may be another by now */
	uint64_t now;  /* of this iteration; 0: there was none */
	struct epoll_event batch[LOOP_BATCH]; /* data.ptr NULL: not to be served any more; the loop: sd-event */
	int batch_at, batch_n;
	size_t n_sources; /* descriptors and deferred work */
	/* Deferred work. sd-event would take it for older than whatever has become ready since, so one piece of it that defers
	 * itself again each time would keep descriptors and others' work waiting for good. */
	struct loop_defer *due;
	size_t n_due;
	struct loop_grave *graves;
	struct loop_orphan *orphans;
	void *reserve; /* memory for when there is none: let go, so that the loop goes on and gives back what it holds */
	uint64_t reserve_tried_usec;
	unsigned int starved;
	int notify_fd; /* to the service manager's watchdog */
	struct loop_timer *watchdog;
	uint64_t watchdog_usec; /* between two signs of life */
	int exit_code;
	bool exiting, gone; /* gone: freed with the last of its sources */
};

struct loop_io {
	struct loop *l;
	int fd;
	uint32_t events;
	loop_io_fn *fn;
	void *data;
};

struct loop_timer {
	struct loop *l;
	sd_event_source *s;
	loop_fn *fn;
	void *data;
};

struct loop_orphan {
	struct loop_orphan *prev, *next;
	struct loop *l;
	loop_fn *fn;
	void *p;
};

struct loop_signal {
	sd_event_source *s;
	loop_signal_fn *fn;
	void *data;
};

struct loop_defer {
	struct loop_defer *prev, *next; /* of what is due */
	struct loop *l;
	bool armed;
	loop_fn *fn;
	void *data;
};

static void loop_bury(struct loop *l)
{
	while (l->graves) {
		struct loop_grave *g = l->graves;

		l->graves = g->next;
		g->fn(g->p);
		free(g);
	}
}

static void loop_refill(struct loop *l)
{
	uint64_t now;

	if (l->reserve)
		return;
	now = loop_clock();
	if (l->reserve_tried_usec && now - l->reserve_tried_usec < LOOP_RESERVE_USEC)
		return;
	l->reserve_tried_usec = now;
	l->reserve = malloc(LOOP_RESERVE); /* the heap may have room that the system has not */
}

static void loop_let_go(struct loop *l)
{
	free(l->reserve);
	l->reserve = NULL;
	l->reserve_tried_usec = loop_clock();
}

bool loop_short_of_memory(const struct loop *l)
{
	return !l->reserve;
}

static void source_ends(struct loop *l)
{
	if (!--l->n_sources && l->gone)
		free(l);
}

static void defer_take(struct loop_defer *d)
{
	if (!d->armed)
		return;
	d->armed = false;
	DL_DELETE(d->l->due, d);
	d->l->n_due--;
}

/* What is due now, each once: what defers itself again comes after the others, and after descriptors. */
static void run_due(struct loop *l)
{
	for (size_t n = l->n_due; n && l->due && !l->exiting; n--) {
		struct loop_defer *d = l->due;

		defer_take(d);
		d->fn(d->data);
	}
}

/* What is in hand for it is not served: it goes, or waits for something else now. */
static void batch_forget(struct loop *l, const struct loop_io *io)
{
	for (int i = l->batch_at + 1; i < l->batch_n; i++)
		if (l->batch[i].data.ptr == io)
			l->batch[i].data.ptr = NULL;
}

int loop_new(struct loop **ret)
{
	CLEANUP(loop_free) struct loop *l = calloc(1, sizeof(*l));
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = l };
	sd_event_source *first;
	int r;

	if (!l)
		return -ENOMEM;
	l->notify_fd = -1;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0)
		return -errno;
	r = sd_event_new(&l->e);
	if (r < 0)
		return r;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, sd_event_get_fd(l->e), &e) < 0)
		return -errno;
	/* Room in its queue of what is due: without memory for that it would read a signal and lose it. */
	r = sd_event_add_defer(l->e, &first, NULL, NULL);
	if (r < 0)
		return r;
	sd_event_source_disable_unref(first);
	loop_refill(l);
	*ret = TAKE(l);
	return 0;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	while (l->orphans)
		l->orphans->fn(l->orphans->p);
	loop_bury(l);
	loop_timer_free(l->watchdog);
	fd_close(l->notify_fd);
	sd_event_unref(l->e);
	fd_close(l->epoll_fd);
	l->epoll_fd = -1;
	loop_let_go(l);
	l->gone = true;
	if (!l->n_sources)
		free(l);
}

/* sd-event gives up when it has no memory for its queue, and the program would end for want of some bytes. The
 * reserve is let go for it: then connections can end, which gives back more. */
static int loop_out_of_memory(struct loop *l)
{
	if (l->reserve) {
		loop_let_go(l);
		return 0;
	}
	usleep(LOOP_PAUSE_USEC);
	return ++l->starved > LOOP_STARVED_MAX ? -ENOMEM : 0;
}

/* Has sd-event look at what is due of its own. 1: something is; 0: nothing, and it waits from now on. */
static int sources_prepare(struct loop *l)
{
	int r;

	if (l->prepared) {
		if (!l->changed)
			return 0;
		l->prepared = false; /* it has to be woken to hear of it */
		r = sd_event_wait(l->e, 0);
		if (r)
			return r;
	}
	l->changed = false;
	r = sd_event_prepare(l->e);
	l->prepared = r == 0;
	return r;
}

/* Descriptors that are ready; *ret_sources is set where sd-event is one of them. */
static void run_ready(struct loop *l, bool *ret_sources)
{
	for (l->batch_at = 0; l->batch_at < l->batch_n && !l->exiting; l->batch_at++) {
		struct loop_io *io = l->batch[l->batch_at].data.ptr;

		if ((void *)io == l)
			*ret_sources = true;
		else if (io)
			io->fn(io->data, io->fd, l->batch[l->batch_at].events);
	}
	l->batch_n = 0;
}

/* One of sd-event's sources is due: it runs, and those that are due by then. */
static int run_sources(struct loop *l)
{
	int r = 0;

	for (int n = 0; n < LOOP_BATCH && !l->exiting; n++) {
		if (n) {
			r = sources_prepare(l);
			if (r <= 0)
				break;
		}
		l->now = loop_clock(); /* never before what a timer was armed for */
		r = sd_event_dispatch(l->e);
		if (r < 0)
			break;
	}
	return r;
}

/* Longer than no time is at least a millisecond. */
static int wait_msec(uint64_t usec)
{
	return usec > (uint64_t)INT_MAX * USEC_PER_MSEC ? -1 : (int)((usec + USEC_PER_MSEC - 1) / USEC_PER_MSEC);
}

int loop_iterate(struct loop *l, uint64_t timeout_usec)
{
	bool woken, ran;
	int r = sources_prepare(l);

	if (r < 0)
		return r;
	l->batch_n = epoll_wait(l->epoll_fd, l->batch, LOOP_BATCH, r || l->due ? 0 : wait_msec(timeout_usec));
	if (l->batch_n < 0 && errno != EINTR)
		return -errno;
	l->now = loop_clock();
	ran = r || l->due || l->batch_n > 0;
	woken = l->batch_n == LOOP_BATCH; /* there may be more, and it among them */
	run_ready(l, &woken);
	if (l->prepared && woken) {
		l->prepared = false;
		r = sd_event_wait(l->e, 0);
	}
	if (r > 0)
		r = run_sources(l);
	run_due(l);
	/* The callback that gave up an object has returned by now, and what the batch held of it was forgotten when it was
	 * freed. */
	loop_bury(l);
	return r < 0 ? r : ran;
}

int loop_run(struct loop *l)
{
	while (!l->exiting) {
		int r = loop_iterate(l, UINT64_MAX);

		if (r >= 0) {
			l->starved = 0;
			loop_refill(l);
			continue;
		}
		if (r == -ENOMEM)
			r = loop_out_of_memory(l);
		if (r < 0)
			return r;
	}
	return l->exit_code;
}

void loop_exit(struct loop *l, int code)
{
	l->exiting = true;
	l->exit_code = code;
}

uint64_t loop_now(struct loop *l)
{
	return l->now ? l->now : loop_clock();
}

int64_t loop_wall_nsec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

uint64_t loop_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

void loop_notify(struct loop *l, const char *state)
{
	(void)l;
	sd_notify(0, state);
}

static void watchdog_ping(void *data)
{
	struct loop *l = data;

	(void)notify_send(l->notify_fd, "WATCHDOG=1"); /* one of three may be lost */
	loop_timer_in(l->watchdog, l->watchdog_usec);
}

int loop_watchdog(struct loop *l)
{
	int r = sd_watchdog_enabled(0, &l->watchdog_usec);

	if (r <= 0)
		return r;
	l->watchdog_usec /= 3;
	l->notify_fd = notify_socket();
	if (l->notify_fd < 0) /* or an address that only systemd's own library knows how to reach */
		return sd_event_set_watchdog(l->e, 1);
	r = loop_timer_new(l, watchdog_ping, l, &l->watchdog);
	if (r == 0)
		watchdog_ping(l);
	return r;
}

int loop_io_new(struct loop *l, int fd, uint32_t events, loop_io_fn *fn, void *data,
		struct loop_io **ret)
{
	struct loop_io *io = calloc(1, sizeof(*io));
	struct epoll_event e = { .events = events, .data.ptr = io };
	int r;

	if (!io)
		return -ENOMEM;
	*io = (struct loop_io){ .l = l, .fd = fd, .events = events, .fn = fn, .data = data };
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0) {
		r = -errno;
		free(io);
		return r;
	}
	l->n_sources++;
	*ret = io;
	return 0;
}

int loop_io_set(struct loop_io *io, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = io };

	if (io->events == events && !(events & EPOLLET))
		return 0;
	if (epoll_ctl(io->l->epoll_fd, EPOLL_CTL_MOD, io->fd, &e) < 0)
		return -errno;
	io->events = events;
	batch_forget(io->l, io); /* what is still so is told again */
	return 0;
}

void loop_io_free(struct loop_io *io)
{
	struct loop *l = io ? io->l : NULL;

	if (!io)
		return;
	batch_forget(l, io);
	/* Also one that is closed already is no more in the set, or nobody else holds it. */
	if (!l->gone)
		(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
	free(io);
	source_ends(l);
}

static int timer_event(sd_event_source *s, uint64_t usec, void *data)
{
	struct loop_timer *t = data;

	(void)s;
	(void)usec;
	t->fn(t->data);
	return 0;
}

int loop_timer_new(struct loop *l, loop_fn *fn, void *data, struct loop_timer **ret)
{
	struct loop_timer *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	t->l = l;
	t->fn = fn;
	t->data = data;
	r = sd_event_add_time(l->e, &t->s, CLOCK_MONOTONIC, 0, USEC_PER_MSEC, timer_event, t);
	if (r < 0) {
		free(t);
		return r;
	}
	sd_event_source_set_enabled(t->s, SD_EVENT_OFF);
	*ret = t;
	return 0;
}

void loop_timer_at(struct loop_timer *t, uint64_t when_usec)
{
	sd_event_source_set_time(t->s, when_usec);
	sd_event_source_set_enabled(t->s, SD_EVENT_ONESHOT);
	t->l->changed = true;
}

void loop_timer_in(struct loop_timer *t, uint64_t delay_usec)
{
	/* From the real now, not from the start of a long iteration. */
	uint64_t now = loop_clock();

	loop_timer_at(t, delay_usec > UINT64_MAX - now ? UINT64_MAX : now + delay_usec);
}

void loop_timer_stop(struct loop_timer *t)
{
	if (t)
		sd_event_source_set_enabled(t->s, SD_EVENT_OFF);
}

bool loop_timer_armed(const struct loop_timer *t)
{
	int on = SD_EVENT_OFF;

	return sd_event_source_get_enabled(t->s, &on) > 0 && on != SD_EVENT_OFF;
}

void loop_timer_free(struct loop_timer *t)
{
	if (!t)
		return;
	sd_event_source_disable_unref(t->s);
	free(t);
}

static int signal_event(sd_event_source *s, const struct signalfd_siginfo *si, void *data)
{
	struct loop_signal *sig = data;

	(void)si;
	sig->fn(sig->data, sd_event_source_get_signal(s));
	return 0;
}

int loop_signal_new(struct loop *l, int signo, loop_signal_fn *fn, void *data,
		    struct loop_signal **ret)
{
	struct loop_signal *sig;
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, signo);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	sig = calloc(1, sizeof(*sig));
	if (!sig)
		return -ENOMEM;
	sig->fn = fn;
	sig->data = data;
	r = sd_event_add_signal(l->e, &sig->s, signo, signal_event, sig);
	if (r < 0) {
		free(sig);
		return r;
	}
	*ret = sig;
	return 0;
}

void loop_signal_free(struct loop_signal *s)
{
	if (!s)
		return;
	sd_event_source_disable_unref(s->s);
	free(s);
}

int loop_defer_new(struct loop *l, loop_fn *fn, void *data, struct loop_defer **ret)
{
	struct loop_defer *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	*d = (struct loop_defer){ .l = l, .fn = fn, .data = data };
	l->n_sources++;
	*ret = d;
	return 0;
}

void loop_defer_arm(struct loop_defer *d)
{
	struct loop *l = d->l;

	if (d->armed || l->gone)
		return;
	d->armed = true;
	DL_APPEND(l->due, d);
	l->n_due++;
}

void loop_defer_drop(struct loop_defer *d)
{
	struct loop *l = d ? d->l : NULL;

	if (!d)
		return;
	defer_take(d);
	free(d);
	source_ends(l);
}

void loop_defer_free(struct loop *l, void *p, loop_fn *fn)
{
	struct loop_grave *g = malloc(sizeof(*g));

	if (!g) {
		/* Better a use of one more iteration's memory than a use after free: keep it. */
		return;
	}
	*g = (struct loop_grave){ .next = l->graves, .p = p, .fn = fn };
	l->graves = g;
}

int loop_orphan_new(struct loop *l, loop_fn *fn, void *p, struct loop_orphan **ret)
{
	struct loop_orphan *o = malloc(sizeof(*o));

	if (!o)
		return -ENOMEM;
	*o = (struct loop_orphan){ .next = l->orphans, .l = l, .fn = fn, .p = p };
	if (o->next)
		o->next->prev = o;
	l->orphans = o;
	*ret = o;
	return 0;
}

void loop_orphan_free(struct loop_orphan *o)
{
	if (!o)
		return;
	if (o->prev)
		o->prev->next = o->next;
	else
		o->l->orphans = o->next;
	if (o->next)
		o->next->prev = o->prev;
	free(o);
}
