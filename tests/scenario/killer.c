/*
 * killer: for LD_PRELOAD: ends its process, as kill -9 does, in the middle of what it changes.
 *
 * KILL_AT=N: at the N-th netlink message that it sends, once the kernel has acted on it and before the
 * answer is read; KILL_FROM=PATH: they count from when that file is there. Every message is noted as one byte in the
 * file KILL_COUNT.
 *
 * KILL_FILE_AT=N: at the N-th call that changes a file below the folder KILL_BELOW (write, fsync, rename,
 * unlink, truncate), once it is done; of a write the first half.
 *
 * KEEP_LINK=PATH: while that file is there no request to delete an interface gets out.
 *
 * NO_PERSIST=1: the kernel refuses NFT_TABLE_F_PERSIST, as kernels before 6.9 do: a flag that it does
 * not know goes with it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/scenario/below.h"

typedef ssize_t sendto_fn(int fd, const void *p, size_t n, int flags, const struct sockaddr *to,
			  socklen_t len);

static void note(void)
{
	const char *path = getenv("KILL_COUNT");
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;

	if (fd < 0)
		return;
	if (syscall(SYS_write, fd, ".", 1) != 1)
		abort();
	close(fd);
}

enum { PERSIST = 0x4, UNKNOWN = 0x800 };

static void spoil_table(uint8_t *msg, size_t len)
{
	size_t at = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(struct nfgenmsg));
	struct nlattr attr;

	for (; at + sizeof(attr) <= len; at += NLA_ALIGN(attr.nla_len)) {
		uint32_t flags;

		memcpy(&attr, msg + at, sizeof(attr));
		if (attr.nla_len < NLA_HDRLEN)
			return;
		if (attr.nla_type != NFTA_TABLE_FLAGS)
			continue;
		memcpy(&flags, msg + at + NLA_HDRLEN, sizeof(flags));
		if (ntohl(flags) & PERSIST)
			flags |= htonl(UNKNOWN);
		memcpy(msg + at + NLA_HDRLEN, &flags, sizeof(flags));
	}
}

/* A copy, in which no table with the flag will be made; p itself where there is nothing of the kind. */
static const void *spoil(const void *p, size_t n)
{
	static uint8_t *copy;
	struct nlmsghdr h;

	free(copy);
	copy = malloc(n);
	if (!copy)
		abort();
	memcpy(copy, p, n);
	for (size_t at = 0; at + sizeof(h) <= n; at += NLMSG_ALIGN(h.nlmsg_len)) {
		memcpy(&h, copy + at, sizeof(h));
		if (h.nlmsg_len < sizeof(h) || h.nlmsg_len > n - at)
			break;
		if (h.nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE))
			spoil_table(copy + at, h.nlmsg_len);
	}
	return copy;
}

static bool keeps_link(const void *p, size_t n)
{
	const char *path = getenv("KEEP_LINK");
	struct nlmsghdr h;

	if (!path || n < sizeof(h))
		return false;
	memcpy(&h, p, sizeof(h));
	return h.nlmsg_type == RTM_DELLINK && access(path, F_OK) == 0;
}

static bool counts(void)
{
	const char *from = getenv("KILL_FROM");

	return !from || access(from, F_OK) == 0;
}

ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len)
{
	static sendto_fn *real;
	static long sent;
	const char *at = getenv("KILL_AT");
	ssize_t r;

	if (!real)
		real = (sendto_fn *)next("sendto");
	if (to && to->sa_family == AF_NETLINK && keeps_link(p, n)) {
		errno = ENOBUFS;
		return -1;
	}
	if (to && to->sa_family == AF_NETLINK && getenv("NO_PERSIST"))
		p = spoil(p, n);
	r = real(fd, p, n, flags, to, len);
	if (!to || to->sa_family != AF_NETLINK)
		return r;
	note();
	if (at && counts() && ++sent == atol(at))
		kill(getpid(), SIGKILL);
	return r;
}

/* ---- files ---- */

/* Whether this is the call at which the process ends. */
static bool is_last(bool below)
{
	const char *at = below ? getenv("KILL_FILE_AT") : NULL;
	static long changes;

	return at && ++changes == atol(at);
}

static void end_if(bool last)
{
	if (last)
		kill(getpid(), SIGKILL);
}

static bool last_fd(int fd)
{
	return is_last(fd_is_below("KILL_BELOW", fd));
}

ssize_t write(int fd, const void *p, size_t n)
{
	bool last = last_fd(fd);
	ssize_t r = ((ssize_t(*)(int, const void *, size_t))next("write"))(fd, p, last ? n / 2 : n);

	end_if(last);
	return r;
}

static ssize_t pwrite_as(const char *name, int fd, const void *p, size_t n, off_t at)
{
	bool last = last_fd(fd);
	ssize_t r = ((ssize_t(*)(int, const void *, size_t, off_t))next(name))(fd, p, last ? n / 2 : n, at);

	end_if(last);
	return r;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	return pwrite_as("pwrite", fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
	return pwrite_as("pwrite64", fd, p, n, at);
}

static int fsync_as(const char *name, int fd)
{
	bool last = last_fd(fd);
	int r = ((int (*)(int))next(name))(fd);

	end_if(last);
	return r;
}

int fsync(int fd)
{
	return fsync_as("fsync", fd);
}

int fdatasync(int fd)
{
	return fsync_as("fdatasync", fd);
}

static int truncate_as(const char *name, int fd, off_t n)
{
	bool last = last_fd(fd);
	int r = ((int (*)(int, off_t))next(name))(fd, n);

	end_if(last);
	return r;
}

int ftruncate(int fd, off_t n)
{
	return truncate_as("ftruncate", fd, n);
}

int ftruncate64(int fd, off_t n)
{
	return truncate_as("ftruncate64", fd, n);
}

int rename(const char *from, const char *to)
{
	bool last = is_last(path_is_below("KILL_BELOW", to));
	int r = ((int (*)(const char *, const char *))next("rename"))(from, to);

	end_if(last);
	return r;
}

int unlink(const char *path)
{
	bool last = is_last(path_is_below("KILL_BELOW", path));
	int r = ((int (*)(const char *))next("unlink"))(path);

	end_if(last);
	return r;
}
