#include "daemon/relay/shuttle.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH	      16
#define SOCKET_BUFFER (4 << 20)

struct shuttle {
	int fd;	    /* relay addresses */
	int raw[2]; /* IPv4, IPv6: packets with a source of our choice */
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

	/* Only the kernel can send from its listen port, so nobody else on this host can forge that. */
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

static int open_relay_socket(struct shuttle *s, uint16_t port)
{
	static const int on = 1, size = SOCKET_BUFFER;
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t len = sizeof(sin);

	s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return -errno;
	/* From nowhere but this host, whatever a route says. */
	if (setsockopt(s->fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0 ||
	    setsockopt(s->fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) < 0)
		return -errno;
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

/* Unbound: IPv6's local routes hang on the owning interface (kernel.md 4.4). */
static void open_raw_sockets(struct shuttle *s)
{
	static const int on = 1;

	s->raw[0] = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
	s->raw[1] = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
	if (s->raw[1] >= 0 &&
	    setsockopt(s->raw[1], IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof(on)) < 0)
		s->raw[1] = fd_close(s->raw[1]);
}

int shuttle_new(struct loop *l, uint16_t wg_port, uint16_t relay_port, shuttle_fn *fn, void *data,
		struct shuttle **ret)
{
	CLEANUP(shuttle_free) struct shuttle *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->fd = s->raw[0] = s->raw[1] = -1;
	s->wg_port = wg_port;
	s->fn = fn;
	s->data = data;
	r = open_relay_socket(s, relay_port);
	if (r < 0)
		return r;
	open_raw_sockets(s);
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
	fd_close(s->raw[0]);
	fd_close(s->raw[1]);
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

/* RFC 1071 over any number of pieces, each of even length but the last. */
static uint32_t sum_add(uint32_t sum, const void *p, size_t len)
{
	const uint8_t *b = p;

	for (; len > 1; len -= 2, b += 2)
		sum += (uint32_t)b[0] << 8 | b[1];
	if (len)
		sum += (uint32_t)b[0] << 8;
	return sum;
}

static uint16_t sum_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static uint16_t udp_checksum(const struct addr *src, const struct addr *dst,
			     const struct udphdr *udp, const void *p, size_t len)
{
	uint32_t sum = IPPROTO_UDP + (uint32_t)(sizeof(*udp) + len);
	uint16_t c;

	sum = sum_add(sum, src->b, addr_len(src));
	sum = sum_add(sum, dst->b, addr_len(dst));
	sum = sum_add(sum, udp, sizeof(*udp));
	c = sum_fold(sum_add(sum, p, len));
	return htons(c ? c : 0xffff);
}

int shuttle_inject(struct shuttle *s, const struct endpoint *src, const struct addr *dst,
		   const void *p, size_t len)
{
	struct udphdr udp = { .source = htons(src->port),
			      .dest = htons(s->wg_port),
			      .len = htons((uint16_t)(sizeof(udp) + len)) };
	struct iphdr ip4 = { .version = 4,
			     .ihl = 5,
			     .ttl = 64,
			     .protocol = IPPROTO_UDP,
			     .tot_len = htons((uint16_t)(sizeof(ip4) + sizeof(udp) + len)) };
	struct ip6_hdr ip6 = { .ip6_vfc = 6 << 4,
			       .ip6_plen = udp.len,
			       .ip6_nxt = IPPROTO_UDP,
			       .ip6_hlim = 64 };
	/* Raw IPv6 wants port 0 in the socket address. */
	struct endpoint to = { *dst, 0 };
	struct iovec iov[3] = { { &ip4, sizeof(ip4) }, { &udp, sizeof(udp) },
				{ (void *)(uintptr_t)p, len } };
	union sockaddr_any sa;
	struct msghdr m = { .msg_name = &sa, .msg_iov = iov, .msg_iovlen = 3 };
	bool v6 = dst->family == 6;

	if (src->addr.family != dst->family || !dst->family || len > SHUTTLE_PACKET_MAX)
		return -EAFNOSUPPORT;
	if (s->raw[v6] < 0)
		return -EPERM;
	m.msg_namelen = endpoint_to_sockaddr(&to, &sa);
	udp.check = udp_checksum(&src->addr, dst, &udp, p, len);
	memcpy(&ip4.saddr, src->addr.b, 4);
	memcpy(&ip4.daddr, dst->b, 4);
	if (v6) {
		memcpy(&ip6.ip6_src, src->addr.b, 16);
		memcpy(&ip6.ip6_dst, dst->b, 16);
		iov[0] = (struct iovec){ &ip6, sizeof(ip6) };
	}
	if (sendmsg(s->raw[v6], &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	s->stats.injected++;
	return 0;
}
