#pragma once
/*
 * cleanup: locals that clean up after themselves, and handing ownership over visibly.
 *
 * DEFINE_CLEANUP(struct foo *, foo_free) makes CLEANUP(foo_free) usable on a local of that type.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define unreachable() __builtin_unreachable()
#define container_of(p, type, member) ((type *)(void *)((char *)(p) - offsetof(type, member)))

#define CLEANUP(fn) __attribute__((__cleanup__(fn##_cleanup)))
/* NOLINTBEGIN(bugprone-macro-parentheses): a type cannot stand in any */
#define DEFINE_CLEANUP(type, fn)                                                                   \
	static inline __attribute__((__unused__)) void fn##_cleanup(type *p)                       \
	{                                                                                          \
		if (*p)                                                                            \
			fn(*p);                                                                    \
	}
/* NOLINTEND(bugprone-macro-parentheses) */

/* Hand over: the local forgets the object, the expression is the object. */
#define TAKE(p)                                                                                    \
	({                                                                                         \
		__auto_type take_tmp_ = (p);                                                       \
		(p) = NULL;                                                                        \
		take_tmp_;                                                                         \
	})
#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int take_fd_ = (fd);                                                               \
		(fd) = -1;                                                                         \
		take_fd_;                                                                          \
	})

/* Closes fd if it is one; returns -1 so that `x->fd = fd_close(x->fd)` reads well. */
static inline int fd_close(int fd)
{
	if (fd >= 0)
		close(fd);
	return -1;
}

/* An error for want of descriptors or memory: it says nothing about what was asked for, and passes. */
static inline bool is_shortage(int r)
{
	return r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -ENOBUFS;
}

static inline __attribute__((__unused__)) void fd_close_cleanup(int *fd)
{
	fd_close(*fd);
}

static inline __attribute__((__unused__)) void free_cleanup(void *p)
{
	free(*(void **)p);
}
