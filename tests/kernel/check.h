#pragma once
/*
 * check: for test programs that need root and a kernel with WireGuard; each works in a network
 * namespace of its own. The first failed CHECK ends the program with the line and the values.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/key.h"

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("FAIL: %s:%d: %s (errno %s)\n", __FILE__, __LINE__, #cond,          \
			       strerror(errno));                                                   \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#define CHECK_OK(expr)                                                                             \
	do {                                                                                       \
		int check_r_ = (expr);                                                             \
		if (check_r_ < 0) {                                                                \
			printf("FAIL: %s:%d: %s = %d (%s)\n", __FILE__, __LINE__, #expr, check_r_, \
			       strerror(-check_r_));                                               \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#define CHECK_EQ(expr, want)                                                                       \
	do {                                                                                       \
		long long check_a_ = (long long)(expr), check_b_ = (long long)(want);              \
		if (check_a_ != check_b_) {                                                        \
			printf("FAIL: %s:%d: %s = %lld, not %lld\n", __FILE__, __LINE__, #expr,    \
			       check_a_, check_b_);                                                \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static inline double now_msec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static inline __attribute__((format(printf, 1, 2), unused)) void step(const char *fmt, ...)
{
	static double start;
	va_list ap;

	if (start == 0)
		start = now_msec();
	printf("[%6.0f ms] ", now_msec() - start);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

/* A shell line; its exit status. */
static inline __attribute__((format(printf, 1, 2), unused)) int sh(const char *fmt, ...)
{
	char line[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return system(line); /* NOLINT(cert-env33-c): a test */
}

/* A new network namespace for this process, with lo up and a /sys of its own. */
static inline __attribute__((unused)) void enter_new_netns(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	CHECK(unshare(CLONE_NEWNET) == 0);
	CHECK(sh("ip link set lo up") == 0);
	CHECK(key_init() == 0);
}
