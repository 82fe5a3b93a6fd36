#include "daemon/kernel/udp.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/kernel/rawudp.h"
#include "lib/log.h"

#define BATCH	      16
#define LAST_LOOKS    4 /* times BATCH */
#define PACKET_MAX    2048
#define SOCKET_BUFFER (4 << 20)
#define TEST_USEC     (300 * USEC_PER_MSEC)
#define BIND_TRIES    16
#define TEST_LEN      30

enum { V4, V6, FAMILIES };

struct udp {
	struct loop *loop;
	uint16_t port, private_port;
	uint32_t mark;
	enum udp_mode mode;
	bool no_raw;
	int own[FAMILIES];   /* on Q, transparent */
	int copies[FAMILIES]; /* raw, UDP_MODE_RAW only */
	int route[FAMILIES]; /* connected for a moment, to learn the source address */
	struct rawudp raw;
	struct loop_io *own_io[FAMILIES], *copies_io[FAMILIES];
	udp_packet_fn *fn;
	void *data;
	struct loop_timer *test_timer;
	uint8_t test[TEST_LEN];
	bool testing;
	loop_fn *test_fn;
	void *test_data;
	struct udp_stats stats;
};

/* One thread, one at work: what is received lives for one callback. */
static uint8_t in_buf[BATCH][PACKET_MAX];

/* Filters */

/* A datagram socket's filter sees the packet from the UDP header on. Given by tproxy it still has
 * destination port P; sent straight to Q it has not. */
static int attach_own_filter(int fd, uint16_t port)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 2),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog prog = { ARRAY_SIZE(code), code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0 ? -errno : 0;
}

/* A raw socket's filter sees IPv4 from the IP header on, IPv6 from the UDP header on: x is where UDP
 * begins. Takes port P with disco's magic, or a STUN answer (type and cookie). */
static int attach_copy_filter(int fd, int family, uint16_t port)
{
	struct sock_filter code[] = {
		family == V4 ? (struct sock_filter)BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0) :
			       (struct sock_filter)BPF_STMT(BPF_LDX | BPF_W | BPF_IMM, 0),
		BPF_STMT(BPF_LD | BPF_H | BPF_IND, 2),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 9),
		BPF_STMT(BPF_LD | BPF_W | BPF_IND, 8),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x5453f09f, 0, 2),
		BPF_STMT(BPF_LD | BPF_H | BPF_IND, 12),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x92ac, 4, 5),
		BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x0101, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_IND, 12),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x2112a442, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog prog = { ARRAY_SIZE(code), code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0 ? -errno : 0;
}

/* Sockets */

static const int domain[FAMILIES] = { AF_INET, AF_INET6 };

static int set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_common(int fd, int family, uint32_t mark)
{
	int r = family == V4 ? set(fd, IPPROTO_IP, IP_PKTINFO, 1) :
			       set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);

	if (r == 0 && mark)
		r = set(fd, SOL_SOCKET, SO_MARK, (int)mark);
	if (set(fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER) < 0)
		set(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER);
	return r;
}

static int bind_port(int fd, int family, uint16_t *port)
{
	union sockaddr_any sa = { 0 };
	socklen_t len = sizeof(sa);

	if (family == V4)
		sa.in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(*port) };
	else
		sa.in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(*port) };
	if (bind(fd, &sa.sa, family == V4 ? sizeof(sa.in) : sizeof(sa.in6)) < 0 ||
	    getsockname(fd, &sa.sa, &len) < 0)
		return -errno;
	*port = ntohs(family == V4 ? sa.in.sin_port : sa.in6.sin6_port);
	return 0;
}

static int open_own(const struct udp *u, int family, uint16_t *port, int *ret)
{
	CLEANUP(fd_close) int fd = socket(domain[family], SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = family == V4 ? set(fd, IPPROTO_IP, IP_TRANSPARENT, 1) :
			   set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);
	if (r == 0 && family == V6)
		r = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (r == 0)
		r = set_common(fd, family, u->mark);
	/* Before it is bound, so that nothing slips in. */
	if (r == 0)
		r = attach_own_filter(fd, u->port);
	if (r == 0)
		r = bind_port(fd, family, port);
	if (r == 0)
		*ret = TAKE_FD(fd);
	return r;
}

/* As the kernel's WireGuard binds them. */
bool udp_port_is_taken(uint16_t port)
{
	for (int family = 0; family < FAMILIES; family++) {
		CLEANUP(fd_close) int fd = socket(domain[family], SOCK_DGRAM | SOCK_CLOEXEC, 0);

		if (fd < 0 || (family == V6 && set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) < 0))
			continue;
		if (bind_port(fd, family, &port) == -EADDRINUSE)
			return true;
	}
	return false;
}

static void close_all(int fd[FAMILIES], struct loop_io *io[FAMILIES])
{
	for (int f = 0; f < FAMILIES; f++) {
		loop_io_free(io[f]);
		io[f] = NULL;
		fd[f] = fd_close(fd[f]);
	}
}

/* The port of before, or any that is free in both families. */
static int open_both_own(struct udp *u, uint16_t before)
{
	int r = -EADDRINUSE;

	for (int i = 0; i < BIND_TRIES && r == -EADDRINUSE; i++) {
		uint16_t port = i == 0 ? before : 0;

		close_all(u->own, u->own_io);
		r = open_own(u, V4, &port, &u->own[V4]);
		if (r == 0)
			r = open_own(u, V6, &port, &u->own[V6]);
		if (r == -EAFNOSUPPORT)
			r = 0; /* a host without IPv6 */
		u->private_port = port;
	}
	if (r < 0)
		close_all(u->own, u->own_io);
	return r;
}

static int open_copies(struct udp *u, int family)
{
	CLEANUP(fd_close)
	int fd = socket(domain[family], SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP);
	int r;

	if (fd < 0)
		return -errno;
	r = attach_copy_filter(fd, family, u->port);
	if (r == 0)
		r = set_common(fd, family, u->mark);
	if (r == 0)
		u->copies[family] = TAKE_FD(fd);
	return r;
}

/* Receiving */

static void read_control(struct msghdr *m, struct udp_packet *p)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo pi;

			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
			p->to = addr_from4(&pi.ipi_addr);
			p->ifindex = (unsigned int)pi.ipi_ifindex;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo pi;

			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
			p->to = addr_from16(&pi.ipi6_addr);
			p->ifindex = pi.ipi6_ifindex;
		}
	}
}

static bool is_own_test(const struct udp *u, const struct udp_packet *p)
{
	return u->testing && p->len == TEST_LEN && sodium_memcmp(p->p, u->test, TEST_LEN) == 0;
}

static void test_over(struct udp *u)
{
	loop_timer_stop(u->test_timer);
	u->testing = false;
	if (u->test_fn)
		u->test_fn(u->test_data);
}

static void take(struct udp *u, struct udp_packet *p, bool copy)
{
	if (copy != (u->mode == UDP_MODE_RAW))
		return; /* it comes the other way too */
	/* Without a scope nothing can be sent back to a link-local address. */
	if (!p->to.family || !p->from.port || (p->from.addr.family == 6 && addr_is_link_local(&p->from.addr)))
		return;
	if (is_own_test(u, p)) {
		test_over(u);
		return;
	}
	u->stats.received++;
	u->fn(u->data, p);
}

/* headers: a copy, which begins with the IP header (IPv4) or the UDP header (IPv6). */
static bool strip_headers(int family, struct udp_packet *p)
{
	size_t udp = family == V4 && p->len > 0 ? (size_t)(p->p[0] & 0xf) * 4 : 0;

	if (p->len < udp + 8)
		return false;
	p->from.port = (uint16_t)(p->p[udp] << 8 | p->p[udp + 1]);
	p->p += udp + 8;
	p->len -= udp + 8;
	return true;
}

static void receive(struct udp *u, int fd, int family, bool headers)
{
	struct mmsghdr m[BATCH] = { 0 };
	struct iovec iov[BATCH];
	union sockaddr_any from[BATCH];
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control[BATCH];
	int n;

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
	for (int i = 0; i < n; i++) {
		struct udp_packet p = { .p = in_buf[i], .len = m[i].msg_len };

		if ((m[i].msg_hdr.msg_flags & MSG_TRUNC) || endpoint_from_sockaddr(&from[i].sa, &p.from) < 0)
			continue;
		read_control(&m[i].msg_hdr, &p);
		if (!headers || strip_headers(family, &p))
			take(u, &p, headers);
	}
}

static void own_readable(void *data, int fd, uint32_t events)
{
	struct udp *u = data;

	(void)events;
	receive(u, fd, fd == u->own[V4] ? V4 : V6, false);
}

static void copies_readable(void *data, int fd, uint32_t events)
{
	struct udp *u = data;

	(void)events;
	receive(u, fd, fd == u->copies[V4] ? V4 : V6, true);
}

static int listen_all(struct udp *u, int fd[FAMILIES], struct loop_io *io[FAMILIES], loop_io_fn *fn)
{
	int r = 0;

	for (int f = 0; f < FAMILIES && r == 0; f++)
		if (fd[f] >= 0)
			r = loop_io_new(u->loop, fd[f], EPOLLIN, fn, u, &io[f]);
	return r;
}

/* Life */

static int open_routes(struct udp *u)
{
	for (int f = 0; f < FAMILIES; f++) {
		u->route[f] = socket(domain[f], SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (u->route[f] < 0 && is_shortage(-errno))
			return -errno;
		if (u->route[f] >= 0 && u->mark)
			set(u->route[f], SOL_SOCKET, SO_MARK, (int)u->mark);
	}
	return 0;
}

static void test_failed(void *data)
{
	struct udp *u = data;
	int r;

	/* The loop may have been busy for all of the time (a start on a slow machine), and the datagram,
	 * which loopback delivers at once, behind others. */
	for (int i = 0; u->mode == UDP_MODE_TPROXY && u->testing && i < LAST_LOOKS; i++)
		receive(u, u->own[V4], V4, false);
	if (!u->testing)
		return;
	r = u->mode == UDP_MODE_RAW ? -ETIMEDOUT : udp_set_mode(u, UDP_MODE_RAW);
	if (r < 0)
		log_warning_errno(r, "port %u: neither nftables nor a raw socket gives us disco", u->port);
	else
		log_notice("port %u: nftables does not give us disco, using a raw socket", u->port);
	test_over(u);
}

int udp_open(struct loop *l, const struct udp_opts *o, struct udp **ret)
{
	CLEANUP(udp_close) struct udp *u = calloc(1, sizeof(*u));
	int r, tproxy;

	if (!u)
		return -ENOMEM;
	*u = (struct udp){ .loop = l,
			   .port = o->port,
			   .mark = o->mark,
			   .no_raw = o->no_raw,
			   .fn = o->fn,
			   .data = o->data,
			   .own = { -1, -1 },
			   .copies = { -1, -1 },
			   .route = { -1, -1 },
			   .raw = { { -1, -1 } } };
	r = o->no_raw ? -EPERM : rawudp_open(&u->raw, o->mark);
	tproxy = open_both_own(u, o->private_port);
	if (tproxy < 0 && r < 0)
		return tproxy;
	if (is_shortage(r) || is_shortage(tproxy)) /* it passes; doing without would not */
		return is_shortage(r) ? r : tproxy;
	r = open_routes(u);
	if (r == 0)
		r = loop_timer_new(l, test_failed, u, &u->test_timer);
	if (r == 0)
		r = listen_all(u, u->own, u->own_io, own_readable);
	if (r == 0 && tproxy < 0)
		r = udp_set_mode(u, UDP_MODE_RAW);
	if (r < 0)
		return r;
	*ret = TAKE(u);
	return 0;
}

void udp_close(struct udp *u)
{
	if (!u)
		return;
	close_all(u->own, u->own_io);
	close_all(u->copies, u->copies_io);
	fd_close(u->route[V4]);
	fd_close(u->route[V6]);
	rawudp_close(&u->raw);
	loop_timer_free(u->test_timer);
	free(u);
}

uint16_t udp_private_port(const struct udp *u)
{
	return u->private_port;
}

bool udp_needs_rewrite(const struct udp *u)
{
	return u->raw.fd[V4] < 0;
}

enum udp_mode udp_mode(const struct udp *u)
{
	return u->mode;
}

const char *udp_mode_name(enum udp_mode m)
{
	switch (m) {
	case UDP_MODE_TPROXY:
		return "nftables";
	case UDP_MODE_RAW:
		return "raw socket";
	}
	unreachable();
}

const struct udp_stats *udp_stats(const struct udp *u)
{
	return &u->stats;
}

int udp_set_port(struct udp *u, uint16_t port)
{
	int r = 0;

	u->port = port;
	for (int f = 0; f < FAMILIES && r == 0; f++) {
		if (u->own[f] >= 0)
			r = attach_own_filter(u->own[f], port);
		if (u->copies[f] >= 0 && r == 0)
			r = attach_copy_filter(u->copies[f], f, port);
	}
	return r;
}

int udp_set_mode(struct udp *u, enum udp_mode m)
{
	int r = 0;

	if (m == u->mode)
		return 0;
	if (m == UDP_MODE_RAW) {
		r = u->no_raw ? -EPERM : open_copies(u, V4);
		if (r == 0 && open_copies(u, V6) < 0)
			log_debug("port %u: no raw socket for IPv6", u->port);
		if (r == 0)
			r = listen_all(u, u->copies, u->copies_io, copies_readable);
	} else if (u->own[V4] < 0) {
		return -EPERM;
	}
	if (r < 0 || m == UDP_MODE_TPROXY)
		close_all(u->copies, u->copies_io);
	if (r == 0)
		u->mode = m;
	return r;
}

/* Sending */

/* The address the kernel would send from: that of a socket connected there. No packet is sent. A
 * socket keeps the source of its first connection, also when it is connected elsewhere or the address
 * is gone, until it is dissolved. */
static int source_for(struct udp *u, const struct endpoint *to, struct addr *ret)
{
	static const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	int fd = u->route[to->addr.family == 6 ? V6 : V4];
	union sockaddr_any sa;
	socklen_t len = endpoint_to_sockaddr(to, &sa);
	struct endpoint own;

	if (fd < 0)
		return -EAFNOSUPPORT;
	if (connect(fd, &nowhere, sizeof(nowhere)) < 0 || connect(fd, &sa.sa, len) < 0)
		return -errno;
	len = sizeof(sa);
	if (getsockname(fd, &sa.sa, &len) < 0)
		return -errno;
	if (endpoint_from_sockaddr(&sa.sa, &own) < 0)
		return -EAFNOSUPPORT;
	*ret = own.addr;
	return 0;
}

static int send_raw(struct udp *u, const struct endpoint *to, const struct addr *from, const void *p,
		    size_t len)
{
	struct endpoint src = { .port = u->port };
	int r = 0;

	if (from)
		src.addr = *from;
	else
		r = source_for(u, to, &src.addr);
	return r < 0 ? r : rawudp_send(&u->raw, &src, to, p, len);
}

static void put_source(struct msghdr *m, const struct addr *from)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(m);

	if (from->family == 4) {
		struct in_pktinfo pi = { 0 };

		memcpy(&pi.ipi_spec_dst, from->b, 4);
		c->cmsg_level = IPPROTO_IP;
		c->cmsg_type = IP_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(pi));
		memcpy(CMSG_DATA(c), &pi, sizeof(pi));
		m->msg_controllen = CMSG_SPACE(sizeof(pi));
	} else {
		struct in6_pktinfo pi = { 0 };

		memcpy(&pi.ipi6_addr, from->b, 16);
		c->cmsg_level = IPPROTO_IPV6;
		c->cmsg_type = IPV6_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(pi));
		memcpy(CMSG_DATA(c), &pi, sizeof(pi));
		m->msg_controllen = CMSG_SPACE(sizeof(pi));
	}
}

/* From Q; the nft rule makes it P. */
static int send_own(struct udp *u, const struct endpoint *to, const struct addr *from, const void *p,
		    size_t len)
{
	struct iovec iov = { (void *)(uintptr_t)p, len };
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control = { 0 };
	union sockaddr_any sa;
	struct msghdr m = { .msg_name = &sa,
			    .msg_namelen = endpoint_to_sockaddr(to, &sa),
			    .msg_iov = &iov,
			    .msg_iovlen = 1 };
	int fd = u->own[to->addr.family == 6 ? V6 : V4];

	if (fd < 0)
		return -EAFNOSUPPORT;
	if (from) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		put_source(&m, from);
	}
	return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int udp_send(struct udp *u, const struct endpoint *to, const struct addr *from, const void *p, size_t len)
{
	int r;

	if (!to->addr.family || !to->port)
		return -EINVAL;
	if (from && from->family != to->addr.family)
		from = NULL;
	r = udp_needs_rewrite(u) ? send_own(u, to, from, p, len) : send_raw(u, to, from, p, len);
	if (r < 0)
		u->stats.send_failed++;
	else
		u->stats.sent++;
	return r;
}

int udp_self_test(struct udp *u, loop_fn *fn, void *data)
{
	static const uint8_t magic[] = { 0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac };
	struct addr lo = addr_v4(127, 0, 0, 1);
	struct endpoint to = { lo, u->port };

	u->test_fn = fn;
	u->test_data = data;
	randombytes_buf(u->test, sizeof(u->test));
	memcpy(u->test, magic, sizeof(magic));
	u->testing = true;
	loop_timer_in(u->test_timer, TEST_USEC);
	return udp_send(u, &to, &lo, u->test, sizeof(u->test));
}
