#pragma once
/*
 * below: for what is preloaded: the call that it stands in front of, and whether a file lies below a folder that an
 * environment variable names.
 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The function of that name that would be called without us. */
static inline void *next(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	if (!p)
		abort();
	return p;
}

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
