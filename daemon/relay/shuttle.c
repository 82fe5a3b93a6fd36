#include "daemon/relay/shuttle.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/kernel/rawudp.h"

#define BATCH	      16
#define SOCKET_BUFFER (4 << 20)

struct shuttle {
	int fd;	    /* relay addresses */
	struct rawudp raw; /* packets with a source of our choice */
	uint16_t wg_port, port;
	struct loop_io *io;
	shuttle_fn *fn;
	void *data;
	struct shuttle_stats stats;
};

/* One thread, one shuttle at work: what is received lives for one callback. */
static uint8_t in_buf[BATCH][SHUTTLE_PACKET_MAX];

struct endpoint shuttle_endpoint(const struct shuttle *s, uint32_t index)
{
	return (struct endpoint){ addr_v4(127, (uint8_t)(64 | index >> 16), (uint8_t)(index >> 8),
					  (uint8_t)index),
				  s->port };
}

int shuttle_index_of(const struct endpoint *e, uint32_t *ret)
{
	if (e->addr.family != 4 || e->addr.b[0] != 127 || (e->addr.b[1] & 0xc0) != 64)
		return -ENOENT;
	*ret = (uint32_t)(e->addr.b[1] & 0x3f) << 16 | (uint32_t)e->addr.b[2] << 8 | e->addr.b[3];
	return 0;
}

static bool pktinfo_of(struct msghdr *m, struct in_addr *ret)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		struct in_pktinfo pi;

		if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_PKTINFO)
			continue;
		memcpy(&pi, CMSG_DATA(c), sizeof(pi));
		*ret = pi.ipi_addr;
		return true;
	}
	return false;
}

static void shuttle_take(struct shuttle *s, struct msghdr *m, const struct sockaddr_in *from,
			 const uint8_t *p, size_t len)
{
	struct in_addr to;
	struct endpoint e = { 0 };
	uint32_t index;

	/* Only the kernel can send from its listen port, so nobody else on this host can forge that. The
	 * filter has seen to it; what was queued before it was there is refused here. */
	if (from->sin_addr.s_addr != htonl(INADDR_LOOPBACK) || from->sin_port != htons(s->wg_port) ||
	    (m->msg_flags & MSG_TRUNC) || !pktinfo_of(m, &to)) {
		s->stats.refused++;
		return;
	}
	e.addr = addr_from4(&to);
	if (shuttle_index_of(&e, &index) < 0) {
		s->stats.refused++;
		return;
	}
	s->stats.from_kernel++;
	s->fn(s->data, index, p, len);
}

static void shuttle_readable(void *data, int fd, uint32_t events)
{
	struct shuttle *s = data;
	struct mmsghdr m[BATCH] = { 0 };
	struct iovec iov[BATCH];
	struct sockaddr_in from[BATCH];
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control[BATCH];
	int n;

	(void)events;
	for (int i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ in_buf[i], sizeof(in_buf[i]) };
		m[i].msg_hdr = (struct msghdr){ .msg_name = &from[i],
						.msg_namelen = sizeof(from[i]),
						.msg_iov = &iov[i],
						.msg_iovlen = 1,
						.msg_control = &control[i],
						.msg_controllen = sizeof(control[i]) };
	}
	n = recvmmsg(fd, m, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++)
		shuttle_take(s, &m[i].msg_hdr, &from[i], in_buf[i], m[i].msg_len);
}

/* Drops what others on this host send before it is queued, so that they cannot crowd out the kernel's
 * own: its listen port, from 127.0.0.1. The socket's filter sees packets from the UDP header on. */
static int attach_filter(int fd, uint16_t wg_port)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, wg_port, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_NET_OFF + 12),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, INADDR_LOOPBACK, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog prog = { ARRAY_SIZE(code), code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0 ? -errno : 0;
}

static int open_relay_socket(struct shuttle *s, uint16_t port)
{
	static const int on = 1, size = SOCKET_BUFFER;
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t len = sizeof(sin);
	int r;

	s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return -errno;
	/* From nowhere but this host, whatever a route says. */
	if (setsockopt(s->fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0 ||
	    setsockopt(s->fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) < 0)
		return -errno;
	r = attach_filter(s->fd, s->wg_port);
	if (r < 0)
		return r;
	if (setsockopt(s->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(s->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (bind(s->fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 ||
	    getsockname(s->fd, (struct sockaddr *)&sin, &len) < 0)
		return -errno;
	s->port = ntohs(sin.sin_port);
	return 0;
}

int shuttle_new(struct loop *l, uint16_t wg_port, uint16_t relay_port, shuttle_fn *fn, void *data,
		struct shuttle **ret)
{
	CLEANUP(shuttle_free) struct shuttle *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->fd = -1;
	s->raw = (struct rawudp){ { -1, -1 } };
	s->wg_port = wg_port;
	s->fn = fn;
	s->data = data;
	r = open_relay_socket(s, relay_port);
	if (r < 0)
		return r;
	r = rawudp_open(&s->raw, 0); /* without CAP_NET_RAW shuttle_inject() says so */
	if (is_shortage(r))
		return r;
	r = loop_io_new(l, s->fd, EPOLLIN, shuttle_readable, s, &s->io);
	if (r < 0)
		return r;
	*ret = TAKE(s);
	return 0;
}

void shuttle_free(struct shuttle *s)
{
	if (!s)
		return;
	loop_io_free(s->io);
	fd_close(s->fd);
	rawudp_close(&s->raw);
	free(s);
}

uint16_t shuttle_port(const struct shuttle *s)
{
	return s->port;
}

const struct shuttle_stats *shuttle_stats(const struct shuttle *s)
{
	return &s->stats;
}

int shuttle_deliver(struct shuttle *s, uint32_t index, const void *p, size_t len)
{
	struct endpoint from = shuttle_endpoint(s, index);
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(s->wg_port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct iovec iov = { (void *)(uintptr_t)p, len };
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control = { 0 };
	struct msghdr m = { .msg_name = &to,
			    .msg_namelen = sizeof(to),
			    .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	struct in_pktinfo pi = { 0 };

	memcpy(&pi.ipi_spec_dst, from.addr.b, 4);
	c->cmsg_level = IPPROTO_IP;
	c->cmsg_type = IP_PKTINFO;
	c->cmsg_len = CMSG_LEN(sizeof(pi));
	memcpy(CMSG_DATA(c), &pi, sizeof(pi));
	if (sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	s->stats.delivered++;
	return 0;
}

int shuttle_inject(struct shuttle *s, const struct endpoint *src, const struct addr *dst,
		   const void *p, size_t len)
{
	struct endpoint to = { *dst, s->wg_port };
	int r;

	if (s->raw.fd[0] < 0)
		return -EPERM;
	r = rawudp_send(&s->raw, src, &to, p, len);
	if (r == 0)
		s->stats.injected++;
	return r;
}
