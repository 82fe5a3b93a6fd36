#include "daemon/kernel/tsmp_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define PACKETS_PER_EVENT 16

enum { V4, V6, FAMILIES };

struct tsmp_socket {
	int fd[FAMILIES];
	struct loop_io *io[FAMILIES];
	const struct tsmp_socket_ops *ops;
	void *data;
};

static int open_one(int family, const char *ifname)
{
	static const int on = 1;
	CLEANUP(fd_close)
	int fd = socket(family == V4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
			TSMP_IPPROTO);
	int r;

	if (fd < 0)
		return -errno;
	r = setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, ifname, (socklen_t)strlen(ifname));
	if (r == 0)
		r = family == V4 ? setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) :
				   setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
	return r < 0 ? -errno : TAKE_FD(fd);
}

static void put_source(struct msghdr *m, const struct addr *from)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(m);
	struct in_pktinfo p4 = { 0 };
	struct in6_pktinfo p6 = { 0 };
	size_t len = from->family == 4 ? sizeof(p4) : sizeof(p6);

	memcpy(&p4.ipi_spec_dst, from->b, 4);
	memcpy(&p6.ipi6_addr, from->b, 16);
	c->cmsg_level = from->family == 4 ? IPPROTO_IP : IPPROTO_IPV6;
	c->cmsg_type = from->family == 4 ? IP_PKTINFO : IPV6_PKTINFO;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), from->family == 4 ? (void *)&p4 : (void *)&p6, len);
	m->msg_controllen = CMSG_SPACE(len);
}

int tsmp_socket_send(struct tsmp_socket *t, const struct addr *from, const struct addr *to,
		     const struct tsmp_msg *m)
{
	struct endpoint dst = { *to, 0 };
	uint8_t bytes[TSMP_MAX];
	int len = tsmp_encode(m, bytes);
	struct iovec iov = { bytes, (size_t)len };
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control = { 0 };
	union sockaddr_any sa;
	struct msghdr h = { .msg_name = &sa,
			    .msg_namelen = endpoint_to_sockaddr(&dst, &sa),
			    .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	int fd = t->fd[to->family == 6];

	if (len < 0)
		return len;
	if (from->family != to->family || !to->family || fd < 0)
		return -EAFNOSUPPORT;
	put_source(&h, from);
	return sendmsg(fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void handle(struct tsmp_socket *t, const struct addr *from, const struct addr *to,
		   const uint8_t *p, size_t len)
{
	struct tsmp_msg m;

	if (tsmp_decode(p, len, &m) < 0 || (m.type != TSMP_TYPE_PING && m.type != TSMP_TYPE_DISCO_KEY) ||
	    !t->ops->allowed(t->data, from))
		return;
	if (m.type == TSMP_TYPE_PING) {
		m.type = TSMP_TYPE_PONG;
		m.ping.peerapi_port = 0;
		tsmp_socket_send(t, to, from, &m);
	} else if (!key_is_zero(&m.disco)) {
		t->ops->disco_key(t->data, from, &m.disco);
	}
}

static bool read_to(struct msghdr *m, struct addr *ret)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		struct in_pktinfo p4;
		struct in6_pktinfo p6;

		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			memcpy(&p4, CMSG_DATA(c), sizeof(p4));
			*ret = addr_from4(&p4.ipi_addr);
			return true;
		}
		if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			memcpy(&p6, CMSG_DATA(c), sizeof(p6));
			*ret = addr_from16(&p6.ipi6_addr);
			return true;
		}
	}
	return false;
}

static bool receive_one(struct tsmp_socket *t, int fd)
{
	uint8_t buf[256];
	struct iovec iov = { buf, sizeof(buf) };
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control;
	union sockaddr_any sa;
	struct msghdr m = { .msg_name = &sa,
			    .msg_namelen = sizeof(sa),
			    .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);
	struct endpoint from;
	struct addr to;
	size_t skip = 0;

	if (n < 0)
		return false;
	/* A raw IPv4 socket gives the IP header too. */
	if (fd == t->fd[V4] && n > 0)
		skip = (size_t)(buf[0] & 0xf) * 4;
	if ((size_t)n >= skip && !(m.msg_flags & MSG_TRUNC) && endpoint_from_sockaddr(&sa.sa, &from) == 0 &&
	    read_to(&m, &to))
		handle(t, &from.addr, &to, buf + skip, (size_t)n - skip);
	return true;
}

static void readable(void *data, int fd, uint32_t events)
{
	(void)events;
	for (int i = 0; i < PACKETS_PER_EVENT; i++)
		if (!receive_one(data, fd))
			return;
}

int tsmp_socket_open(struct loop *l, const char *ifname, const struct tsmp_socket_ops *ops, void *data,
		     struct tsmp_socket **ret)
{
	CLEANUP(tsmp_socket_close) struct tsmp_socket *t = calloc(1, sizeof(*t));
	int r = 0;

	if (!t)
		return -ENOMEM;
	*t = (struct tsmp_socket){ .fd = { -1, -1 }, .ops = ops, .data = data };
	for (int f = 0; f < FAMILIES && r == 0; f++) {
		int fd = open_one(f, ifname);

		if (fd < 0 && (f == V4 || fd != -EAFNOSUPPORT))
			return fd;
		if (fd < 0)
			break; /* a host without IPv6 */
		t->fd[f] = fd;
		r = loop_io_new(l, fd, EPOLLIN, readable, t, &t->io[f]);
	}
	if (r < 0)
		return r;
	*ret = TAKE(t);
	return 0;
}

void tsmp_socket_close(struct tsmp_socket *t)
{
	if (!t)
		return;
	for (int f = 0; f < FAMILIES; f++) {
		loop_io_free(t->io[f]);
		fd_close(t->fd[f]);
	}
	free(t);
}
