#include "lib/clockstep.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NSEC_PER_SEC INT64_C(1000000000)

struct clockstep {
	int fd;
	struct loop_io *io;
	int64_t offset; /* wall clock minus time since boot */
	clockstep_fn *fn;
	void *data;
};

static int64_t offset_now(void)
{
	struct timespec boot;

	clock_gettime(CLOCK_BOOTTIME, &boot);
	return loop_wall_nsec() - ((int64_t)boot.tv_sec * NSEC_PER_SEC + boot.tv_nsec);
}

/* The timer itself never fires, it is there to be cancelled: the clock cannot be set as late as the
 * last second that the kernel can tell (TIME_SETTOD_SEC_MAX of include/linux/time64.h). */
static int arm(const struct clockstep *c)
{
	const struct itimerspec never = { .it_value = { .tv_sec = INT64_MAX / NSEC_PER_SEC } };

	return timerfd_settime(c->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0 ?
		       -errno :
		       0;
}

static void clock_set(void *data, int fd, uint32_t events)
{
	struct clockstep *c = data;
	int64_t was = c->offset, by;
	uint64_t fired;

	(void)events;
	if (read(fd, &fired, sizeof(fired)) < 0 && errno == EAGAIN)
		return;
	/* Armed before the clock is read: a step in between is told once more, as nothing. */
	if (arm(c) < 0) {
		loop_io_free(c->io);
		c->io = NULL;
	}
	c->offset = offset_now();
	by = c->offset - was;
	if (by >= CLOCKSTEP_LEAST_NSEC || by <= -CLOCKSTEP_LEAST_NSEC)
		c->fn(c->data, by);
}

int clockstep_new(struct loop *l, clockstep_fn *fn, void *data, struct clockstep **ret)
{
	CLEANUP(clockstep_free) struct clockstep *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->fn = fn;
	c->data = data;
	c->fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->fd < 0)
		return -errno;
	r = arm(c);
	if (r == 0)
		r = loop_io_new(l, c->fd, EPOLLIN, clock_set, c, &c->io);
	if (r < 0)
		return r;
	c->offset = offset_now();
	*ret = TAKE(c);
	return 0;
}

void clockstep_free(struct clockstep *c)
{
	if (!c)
		return;
	loop_io_free(c->io);
	fd_close(c->fd);
	free(c);
}
