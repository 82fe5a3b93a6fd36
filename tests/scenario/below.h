#pragma once
/*
 * below: for what is preloaded: whether a file lies below a folder that an environment variable names.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline bool path_is_below(const char *variable, const char *path)
{
	const char *folder = getenv(variable);
	size_t n = folder ? strlen(folder) : 0;

	return n && strncmp(path, folder, n) == 0 && path[n] == '/';
}

/* The folder itself counts as well. */
static inline bool fd_is_below(const char *variable, int fd)
{
	char link[32], path[PATH_MAX + 2];
	int keep = errno;
	ssize_t n;

	if (!getenv(variable))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX);
	errno = keep;
	if (n <= 0)
		return false;
	path[n] = '/';
	path[n + 1] = '\0';
	return path_is_below(variable, path);
}
