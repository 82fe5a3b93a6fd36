#include "lib/filewriter.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>

#include "lib/file.h"

#define STACK_BYTES (256u << 10)
#define TRIM_BYTES  (256u << 10) /* what a big file took for a moment, with what it was made of, goes back */

struct filewriter {
	filewriter_fn *fn;
	void *data;
	int event_fd; /* written by the thread as its last act */
	struct loop_io *io;
	pthread_t thread;
	bool busy; /* there is a thread; the members below are its own until it has been joined */
	char *path;
	mode_t mode;
	struct buf content;
	int result;
	uint64_t took_usec;
};

static void *write_it(void *data)
{
	struct filewriter *w = data;
	uint64_t before = loop_clock();

	w->result = file_replace(w->path, buf_data(&w->content), w->content.len, w->mode);
	w->took_usec = loop_clock() - before;
	eventfd_write(w->event_fd, 1);
	return NULL;
}

static void let_go(struct filewriter *w)
{
	bool big = w->content.cap > TRIM_BYTES;

	buf_done(&w->content);
	free(TAKE(w->path));
	if (big)
		malloc_trim(0);
}

static void join(struct filewriter *w)
{
	eventfd_t n;

	if (!w->busy)
		return;
	pthread_join(w->thread, NULL);
	w->busy = false;
	eventfd_read(w->event_fd, &n);
	let_go(w);
}

void filewriter_wait(struct filewriter *w)
{
	if (!w->busy)
		return;
	join(w);
	w->fn(w->data, w->result, w->took_usec);
}

/* Also for an event that was in hand when somebody has waited already. */
static void on_written(void *data, int fd, uint32_t events)
{
	(void)fd;
	(void)events;
	filewriter_wait(data);
}

int filewriter_new(struct loop *l, filewriter_fn *fn, void *data, struct filewriter **ret)
{
	CLEANUP(filewriter_free) struct filewriter *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->fn = fn;
	w->data = data;
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->event_fd < 0)
		return -errno;
	r = loop_io_new(l, w->event_fd, EPOLLIN, on_written, w, &w->io);
	if (r < 0)
		return r;
	*ret = TAKE(w);
	return 0;
}

void filewriter_free(struct filewriter *w)
{
	if (!w)
		return;
	join(w);
	loop_io_free(w->io);
	fd_close(w->event_fd);
	free(w);
}

bool filewriter_busy(const struct filewriter *w)
{
	return w->busy;
}

/* Signals that the loop takes are blocked before there is any thread, so this one has them blocked too. */
static int start_thread(struct filewriter *w)
{
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);

	if (r == 0) {
		r = pthread_attr_setstacksize(&attr, STACK_BYTES);
		if (r == 0)
			r = pthread_create(&w->thread, &attr, write_it, w);
		pthread_attr_destroy(&attr);
	}
	return -r;
}

int filewriter_replace(struct filewriter *w, const char *path, struct buf *content, mode_t mode)
{
	int r;

	if (w->busy)
		return -EBUSY;
	w->path = strdup(path);
	if (!w->path)
		return -ENOMEM;
	w->mode = mode;
	w->content = *content;
	r = start_thread(w);
	if (r < 0) {
		w->content = (struct buf){ 0 };
		free(TAKE(w->path));
		return r;
	}
	*content = (struct buf){ .max = w->content.max };
	w->busy = true;
	return 0;
}
