#include "lib/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"

int file_read(const char *path, size_t max_bytes, struct buf *out)
{
	CLEANUP(fd_close) int fd = -1;
	struct stat st;
	size_t total = 0;
	uint8_t *to;
	ssize_t n;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (st.st_size > (off_t)max_bytes)
		return -ENOBUFS;
	for (;;) {
		/* one byte more than the size, so that a file that ends there needs one read only */
		size_t room = total < (size_t)st.st_size ? (size_t)st.st_size - total + 1
						       : MIN((size_t)4096, max_bytes - total + 1);

		to = buf_tail(out, room);
		if (!to)
			return -ENOMEM;
		n = read(fd, to, room);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		total += (size_t)n;
		if (total > max_bytes)
			return -ENOBUFS;
		buf_commit(out, (size_t)n);
	}
}

static int write_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

static int sync_folder(const char *path)
{
	CLEANUP(fd_close) int fd = -1;
	char dir[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;

	if (n >= sizeof(dir))
		return -ENAMETOOLONG;
	memcpy(dir, path, n);
	dir[n] = '\0';
	fd = open(!slash ? "." : n ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

static int write_new(const char *tmp, const void *p, size_t n, mode_t mode, bool sync)
{
	CLEANUP(fd_close) int fd = -1;
	int r;

	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, mode) < 0) /* whatever the umask */
		return -errno;
	r = write_all(fd, p, n);
	if (r == 0 && sync && fsync(fd) < 0)
		r = -errno;
	/* close reports what a network file system found out late */
	if (close(TAKE_FD(fd)) < 0 && r == 0)
		r = -errno;
	return r;
}

static int replace(const char *path, const void *p, size_t n, mode_t mode, bool sync)
{
	char tmp[PATH_MAX];
	int r;

	if (snprintf(tmp, sizeof(tmp), "%s.new", path) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	if (unlink(tmp) < 0 && errno != ENOENT) /* of a run that was killed here */
		return -errno;
	r = write_new(tmp, p, n, mode, sync);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return r;
	}
	return sync ? sync_folder(path) : 0;
}

int file_replace(const char *path, const void *p, size_t n, mode_t mode)
{
	return replace(path, p, n, mode, true);
}

int file_replace_unsynced(const char *path, const void *p, size_t n, mode_t mode)
{
	return replace(path, p, n, mode, false);
}
