/*
 * killer: for LD_PRELOAD: stands between a program and the kernel's netlink.
 *
 * Ends its process, as kill -9 does, in the middle of what it sends to the kernel. KILL_AT=N: at the
 * N-th netlink message that it sends, once the kernel has acted on it and before the answer is read.
 * Every message is noted as one byte in the file KILL_COUNT.
 *
 * NO_PERSIST=1: the kernel refuses NFT_TABLE_F_PERSIST, as kernels before 6.9 do: a flag that it does
 * not know goes with it.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef ssize_t sendto_fn(int fd, const void *p, size_t n, int flags, const struct sockaddr *to,
			  socklen_t len);

static void note(void)
{
	const char *path = getenv("KILL_COUNT");
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;

	if (fd < 0)
		return;
	if (write(fd, ".", 1) != 1)
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

ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len)
{
	static sendto_fn *real;
	static long sent;
	const char *at = getenv("KILL_AT");
	ssize_t r;

	if (!real)
		real = (sendto_fn *)dlsym(RTLD_NEXT, "sendto");
	if (to && to->sa_family == AF_NETLINK && getenv("NO_PERSIST"))
		p = spoil(p, n);
	r = real(fd, p, n, flags, to, len);
	if (!to || to->sa_family != AF_NETLINK)
		return r;
	note();
	if (at && ++sent == atol(at))
		kill(getpid(), SIGKILL);
	return r;
}
