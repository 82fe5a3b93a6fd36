#include "lib/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/loop.h"

#define BARRIER_USEC (2 * USEC_PER_SEC)
#define STATE_MAX    128
#define PROBE	     "probe"

int notify_take(const char *name)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(true, &names), found = -ENOENT;

	for (int i = 0; i < n; i++) {
		if (found < 0 && names && strcmp(names[i], name) == 0)
			found = SD_LISTEN_FDS_START + i;
		else
			close(SD_LISTEN_FDS_START + i);
	}
	for (int i = 0; names && i < n; i++)
		free(names[i]);
	free(names);
	return found;
}

/* FDPOLL=0: a netlink socket that lost a message shows an error, and would be thrown out for it. */
static int send_store(const char *name, int fd, bool poll)
{
	char state[STATE_MAX];
	int r;

	snprintf(state, sizeof(state), "FDSTORE=1\nFDNAME=%s%s", name, poll ? "" : "\nFDPOLL=0");
	r = sd_pid_notify_with_fds(0, false, state, &fd, 1);
	return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

/* One end of a pipe is given as well. If nobody has it once all messages so far are read, the other
 * end tells. */
static int prove_store(void)
{
	CLEANUP(fd_close) int ours = -1;
	struct pollfd p = { .events = 0 };
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	ours = ends[0];
	r = send_store(PROBE, ends[1], true);
	close(ends[1]);
	if (r == 0)
		r = sd_notify_barrier(false, BARRIER_USEC);
	if (r < 0)
		return r;
	p.fd = ours;
	r = poll(&p, 1, 0) > 0 ? -EOPNOTSUPP : 0;
	notify_forget(PROBE);
	return r;
}

int notify_store(const char *name, int fd)
{
	int r = send_store(name, fd, false);

	return r < 0 ? r : prove_store();
}

void notify_forget(const char *name)
{
	char state[STATE_MAX];

	snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	sd_notify(false, state);
}

/* A path, or with @ in front an abstract name (sd_notify(3)). Its length, or an error. */
static int manager_address(struct sockaddr_un *ret)
{
	const char *at = getenv("NOTIFY_SOCKET");
	size_t n = at ? strlen(at) : 0;

	if (n == 0)
		return -ENOENT;
	if ((at[0] != '/' && at[0] != '@') || n >= sizeof(ret->sun_path))
		return -EAFNOSUPPORT;
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, at, n);
	if (at[0] == '@')
		ret->sun_path[0] = '\0';
	return (int)(offsetof(struct sockaddr_un, sun_path) + n);
}

int notify_socket(void)
{
	struct sockaddr_un to;
	int fd, r = manager_address(&to);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? -errno : fd;
}

int notify_send(int fd, const char *state)
{
	struct sockaddr_un to;
	int len = manager_address(&to);

	if (len < 0)
		return len;
	/* Not connected: a manager that starts anew may bind its socket anew. */
	return sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, (socklen_t)len) < 0 ? -errno : 0;
}
