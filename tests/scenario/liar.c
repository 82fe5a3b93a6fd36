/*
 * liar: for LD_PRELOAD: what a program asks of the kernel goes wrong every so often, as the file LIES
 * says, which is read again each time. Words in it, apart by blanks:
 *
 *   nobufs=N   every N-th answer or event of netlink is lost, and the socket says ENOBUFS
 *   intr=N     every N-th part of a dump has the mark of a change in between, NLM_F_DUMP_INTR
 *   busy=N     every N-th message is not acted on but refused with EBUSY, questions and dumps as well; an
 *              nftables batch counts as one
 *   write, fsync, rename   these calls fail with EIO for files below the folder LIES_BELOW: a file ends
 *              half written
 *
 * Every lie is noted in the file LIES_TOLD as the first letter of its word.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/scenario/below.h"

struct lies {
	unsigned long nobufs, intr, busy; /* 0: never */
	bool write, fsync, rename;
};

static ssize_t real_write(int fd, const void *p, size_t n)
{
	static ssize_t (*real)(int, const void *, size_t);

	if (!real)
		real = (ssize_t(*)(int, const void *, size_t))next("write");
	return real(fd, p, n);
}

static void note(char c)
{
	const char *path = getenv("LIES_TOLD");
	int keep = errno, fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;

	if (fd >= 0) {
		if (real_write(fd, &c, 1) != 1)
			abort();
		close(fd);
	}
	errno = keep;
}

static void read_word(const char *word, struct lies *l)
{
	sscanf(word, "nobufs=%lu", &l->nobufs);
	sscanf(word, "intr=%lu", &l->intr);
	sscanf(word, "busy=%lu", &l->busy);
	l->write |= strcmp(word, "write") == 0;
	l->fsync |= strcmp(word, "fsync") == 0;
	l->rename |= strcmp(word, "rename") == 0;
}

static struct lies lies_now(void)
{
	const char *path = getenv("LIES");
	struct lies l = { 0 };
	char text[128], *at = NULL;
	int keep = errno, fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = '\0';
	for (char *w = strtok_r(text, " \n", &at); w; w = strtok_r(NULL, " \n", &at))
		read_word(w, &l);
	errno = keep;
	return l;
}

static bool due(unsigned long every, unsigned long *count)
{
	return every && ++*count % every == 0;
}

/* ---- netlink ---- */

#define REFUSED_MAX 64

/* Sequence numbers of what was refused, until the answer is read. */
static struct {
	int fd;
	uint32_t seq;
} refused[REFUSED_MAX];
static size_t n_refused;

/* A message that no kernel acts on, and that is acknowledged. */
static void refuse(int fd, uint8_t *at, struct nlmsghdr *h)
{
	refused[n_refused % REFUSED_MAX].fd = fd;
	refused[n_refused++ % REFUSED_MAX].seq = h->nlmsg_seq;
	h->nlmsg_type = NLMSG_NOOP;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	memcpy(at, h, sizeof(*h));
	note('b');
}

static bool was_refused(int fd, uint32_t seq)
{
	for (size_t i = 0; i < REFUSED_MAX; i++)
		if (refused[i].fd == fd && refused[i].seq == seq) {
			refused[i].fd = -1; /* it may be asked once more under this number */
			return true;
		}
	return false;
}

/* A copy in which some are refused. Of a batch, which is taken as a whole, it is the first one. */
static const void *refuse_some(int fd, const void *p, size_t n, unsigned long every)
{
	static unsigned long count;
	static uint8_t *copy;
	socklen_t len = sizeof(int);
	bool batch = false;
	struct nlmsghdr h;
	int bus = 0;

	free(copy);
	copy = malloc(n);
	if (!copy || getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &bus, &len) < 0)
		abort();
	memcpy(copy, p, n);
	for (size_t at = 0; at + sizeof(h) <= n; at += NLMSG_ALIGN(h.nlmsg_len)) {
		memcpy(&h, copy + at, sizeof(h));
		if (h.nlmsg_len < sizeof(h) || h.nlmsg_len > n - at)
			break;
		if (bus == NETLINK_NETFILTER && h.nlmsg_type == NFNL_MSG_BATCH_BEGIN) {
			batch = true;
			continue;
		}
		if (due(every, &count))
			refuse(fd, copy + at, &h);
		if (batch)
			break;
	}
	return copy;
}

ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len)
{
	static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
	struct lies l = { 0 };

	if (!real)
		real = (ssize_t(*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))next("sendto");
	if (to && to->sa_family == AF_NETLINK)
		l = lies_now();
	return real(fd, l.busy ? refuse_some(fd, p, n, l.busy) : p, n, flags, to, len);
}

static void spoil_answer(int fd, uint8_t *p, size_t n, const struct lies *l)
{
	static unsigned long parts;
	struct nlmsghdr h;
	struct nlmsgerr e;

	for (size_t at = 0; at + sizeof(h) <= n; at += NLMSG_ALIGN(h.nlmsg_len)) {
		memcpy(&h, p + at, sizeof(h));
		if (h.nlmsg_len < sizeof(h) || h.nlmsg_len > n - at)
			return;
		if (at == 0 && (h.nlmsg_flags & NLM_F_MULTI) && h.nlmsg_type != NLMSG_ERROR && due(l->intr, &parts)) {
			h.nlmsg_flags |= NLM_F_DUMP_INTR;
			memcpy(p + at, &h, sizeof(h));
			note('i');
		}
		if (h.nlmsg_type != NLMSG_ERROR || h.nlmsg_len < sizeof(h) + sizeof(e) || !was_refused(fd, h.nlmsg_seq))
			continue;
		memcpy(&e, p + at + sizeof(h), sizeof(e));
		e.error = -EBUSY;
		memcpy(p + at + sizeof(h), &e, sizeof(e));
	}
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	static ssize_t (*real)(int, struct msghdr *, int);
	static unsigned long count;
	const struct sockaddr *from = m->msg_name;
	struct lies l;
	ssize_t n;

	if (!real)
		real = (ssize_t(*)(int, struct msghdr *, int))next("recvmsg");
	n = real(fd, m, flags);
	if (n <= 0 || !from || from->sa_family != AF_NETLINK || m->msg_iovlen != 1 ||
	    (size_t)n > m->msg_iov[0].iov_len)
		return n;
	l = lies_now();
	spoil_answer(fd, m->msg_iov[0].iov_base, (size_t)n, &l);
	if (!due(l.nobufs, &count))
		return n;
	note('n');
	errno = ENOBUFS;
	return -1;
}

/* ---- files ---- */

static int failed(char c)
{
	note(c);
	errno = EIO;
	return -1;
}

ssize_t write(int fd, const void *p, size_t n)
{
	if (!fd_is_below("LIES_BELOW", fd) || !lies_now().write)
		return real_write(fd, p, n);
	real_write(fd, p, n / 2);
	return failed('w');
}

static ssize_t pwrite_lies(const char *name, int fd, const void *p, size_t n, off_t at)
{
	ssize_t (*real)(int, const void *, size_t, off_t) =
		(ssize_t(*)(int, const void *, size_t, off_t))next(name);

	if (!fd_is_below("LIES_BELOW", fd) || !lies_now().write)
		return real(fd, p, n, at);
	real(fd, p, n / 2, at);
	return failed('w');
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	return pwrite_lies("pwrite", fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
	return pwrite_lies("pwrite64", fd, p, n, at);
}

static int fsync_lies(const char *name, int fd)
{
	int (*real)(int) = (int (*)(int))next(name);

	return fd_is_below("LIES_BELOW", fd) && lies_now().fsync ? failed('f') : real(fd);
}

int fsync(int fd)
{
	return fsync_lies("fsync", fd);
}

int fdatasync(int fd)
{
	return fsync_lies("fdatasync", fd);
}

int rename(const char *from, const char *to)
{
	int (*real)(const char *, const char *) = (int (*)(const char *, const char *))next("rename");

	return path_is_below("LIES_BELOW", to) && lies_now().rename ? failed('r') : real(from, to);
}
