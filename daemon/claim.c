#include "daemon/claim.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/log.h"

#define HANG_UPS_MAX 64 /* at a time */

struct name {
	struct sockaddr_un un;
	socklen_t len;
};

static struct name name_of(const char *interface, unsigned int i)
{
	struct name n = { .un.sun_family = AF_UNIX };
	int len = snprintf(n.un.sun_path + 1, sizeof(n.un.sun_path) - 1, "kernscaled/%s/%u", interface, i);

	n.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
	return n;
}

/* 1: a process listens there; 0: none does, or it cannot be told. */
static int look(const struct name *n, struct ucred *ret)
{
	CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*ret);

	if (fd < 0)
		return -errno;
	return connect(fd, (const struct sockaddr *)&n->un, n->len) == 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len) == 0;
}

/* 0: it is ours; -EADDRINUSE: somebody's. */
static int take(const struct name *n, int *ret_fd)
{
	CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&n->un, n->len) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int fail(int r, char error[static CLAIM_ERROR_MAX])
{
	snprintf(error, CLAIM_ERROR_MAX, "cannot make a socket: %s", strerror(-r));
	return r;
}

/* All names are looked at, also behind the one that is had: when another daemon began, a name before its own was taken. */
int claim_take(const char *interface, int *ret_fd, char error[static CLAIM_ERROR_MAX])
{
	CLEANUP(fd_close) int fd = -1;
	bool told = false;

	for (unsigned int i = 0; i < CLAIM_NAMES; i++) {
		struct name n = name_of(interface, i);
		struct ucred who = { 0 };
		int r = fd < 0 ? take(&n, &fd) : -EADDRINUSE;

		if (r == 0)
			continue;
		if (r == -EADDRINUSE)
			r = look(&n, &who);
		if (r < 0)
			return fail(r, error);
		if (r > 0 && (who.uid == 0 || who.uid == geteuid())) {
			snprintf(error, CLAIM_ERROR_MAX,
				 "another kernscaled has interface %s: stop it or give --interface, --port, --table, "
				 "--route-table, --rule-base, --statedir and --runtimedir of its own", interface);
			return -EBUSY;
		}
		if (r > 0 && !told)
			log_warning("user %u (process %d) calls itself the kernscaled of interface %s: not heeded",
				    (unsigned int)who.uid, (int)who.pid, interface);
		told = told || r > 0;
	}
	if (fd < 0)
		log_warning("other users have all names that kernscaled of interface %s could take: a second one "
			    "will not be noticed", interface);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Told of each that comes, and not of those that wait: without a descriptor for them there is nothing to do. */
static void hang_up(void *data, int fd, uint32_t events)
{
	(void)data;
	(void)events;
	for (int i = 0, c = 0; i < HANG_UPS_MAX && c >= 0; i++) {
		c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		fd_close(c);
	}
}

int claim_watch(struct loop *l, int fd, struct loop_io **ret)
{
	return loop_io_new(l, fd, EPOLLIN | EPOLLET, hang_up, NULL, ret);
}
