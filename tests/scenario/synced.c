/*
 * synced: for LD_PRELOAD: what a power cut would leave of the files that a program replaces.
 *
 * Notes in the file SYNC_LOG, which has to be there, one line for each:
 *   file PATH           its contents were synced
 *   folder PATH         and the names in it
 *   rename synced PATH  a file took that name, and it is as it was when it was synced last
 *   rename unsynced PATH  it is not: after a power cut it may be empty
 */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/scenario/below.h"

enum { KEPT = 256 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct stat synced[KEPT]; /* a ring: those synced last */
static size_t n_synced;

static void note(const char *what, const char *path)
{
	const char *log = getenv("SYNC_LOG");
	int fd = log ? open(log, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	dprintf(fd, "%s %s\n", what, path);
	close(fd);
}

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void keep(int fd)
{
	char link[64], path[PATH_MAX];
	struct stat st;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0 || fstat(fd, &st) < 0)
		return;
	path[n] = '\0';
	pthread_mutex_lock(&mutex);
	synced[n_synced++ % KEPT] = st;
	pthread_mutex_unlock(&mutex);
	note(S_ISDIR(st.st_mode) ? "folder" : "file", path);
}

static bool is_kept(const char *path)
{
	bool found = false;
	struct stat st;

	if (lstat(path, &st) < 0)
		return false;
	pthread_mutex_lock(&mutex);
	for (size_t i = 0; i < KEPT && !found; i++)
		found = same(&st, &synced[i]);
	pthread_mutex_unlock(&mutex);
	return found;
}

typedef int sync_fn(int fd);
typedef int rename_fn(const char *from, const char *to);

static int sync_by(const char *name, int fd)
{
	sync_fn *real = (sync_fn *)next(name);
	int r = real(fd);

	if (r == 0)
		keep(fd);
	return r;
}

int fsync(int fd)
{
	return sync_by("fsync", fd);
}

int fdatasync(int fd)
{
	return sync_by("fdatasync", fd);
}

int rename(const char *from, const char *to)
{
	rename_fn *real = (rename_fn *)next("rename");
	bool was = is_kept(from);
	int r = real(from, to);

	if (r == 0)
		note(was ? "rename synced" : "rename unsynced", to);
	return r;
}
