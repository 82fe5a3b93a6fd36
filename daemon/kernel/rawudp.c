#include "daemon/kernel/rawudp.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/cleanup.h"

#define UDP_LEN	 8
#define IP4_LEN	 20
#define IP6_LEN	 40
#define HOPS	 64

/* RFC 1071 over pieces, each but the last of even length. */
static uint32_t sum_add(uint32_t sum, const void *p, size_t len)
{
	const uint8_t *b = p;

	for (; len > 1; len -= 2, b += 2)
		sum += (uint32_t)b[0] << 8 | b[1];
	return len ? sum + ((uint32_t)b[0] << 8) : sum;
}

static uint16_t sum_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void put16(uint8_t *at, uint16_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

/* Identification, total length and header checksum of IPv4 are the kernel's to fill in. */
static size_t put_ip(const struct endpoint *src, const struct endpoint *dst, size_t udp_len, uint8_t *out)
{
	if (src->addr.family == 4) {
		memset(out, 0, IP4_LEN);
		out[0] = 0x45;
		put16(out + 2, (uint16_t)(IP4_LEN + udp_len));
		out[8] = HOPS;
		out[9] = IPPROTO_UDP;
		memcpy(out + 12, src->addr.b, 4);
		memcpy(out + 16, dst->addr.b, 4);
		return IP4_LEN;
	}
	memset(out, 0, IP6_LEN);
	out[0] = 0x60;
	put16(out + 4, (uint16_t)udp_len);
	out[6] = IPPROTO_UDP;
	out[7] = HOPS;
	memcpy(out + 8, src->addr.b, 16);
	memcpy(out + 24, dst->addr.b, 16);
	return IP6_LEN;
}

size_t rawudp_headers(const struct endpoint *src, const struct endpoint *dst, const void *p, size_t len,
		      uint8_t out[static RAWUDP_HEADERS_MAX])
{
	size_t udp_len = UDP_LEN + len, ip_len;
	uint32_t sum;
	uint16_t check;
	uint8_t *udp;

	if (!src->addr.family || src->addr.family != dst->addr.family || len > RAWUDP_PAYLOAD_MAX)
		return 0;
	ip_len = put_ip(src, dst, udp_len, out);
	udp = out + ip_len;
	put16(udp, src->port);
	put16(udp + 2, dst->port);
	put16(udp + 4, (uint16_t)udp_len);
	put16(udp + 6, 0);
	/* Pseudo-header: addresses, protocol, length. */
	sum = sum_add(IPPROTO_UDP + (uint32_t)udp_len, src->addr.b, addr_len(&src->addr));
	sum = sum_add(sum, dst->addr.b, addr_len(&dst->addr));
	check = sum_fold(sum_add(sum_add(sum, udp, UDP_LEN), p, len));
	put16(udp + 6, check ? check : 0xffff); /* 0 means "none" on the wire */
	return ip_len + UDP_LEN;
}

static int open_one(int af, uint32_t mark)
{
	static const int on = 1, size = 1 << 20;
	int fd = socket(af, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW), r = 0;

	if (fd < 0)
		return -errno;
	if (af == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof(on)) < 0)
		r = -errno;
	if (r == 0 && mark && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0)
		r = -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (r < 0) {
		fd_close(fd);
		return r;
	}
	return fd;
}

int rawudp_open(struct rawudp *r, uint32_t mark)
{
	/* Never bound to a device: IPv6's local routes hang on the owning one (kernel.md 4.4). */
	int v4 = open_one(AF_INET, mark), v6;

	*r = (struct rawudp){ { -1, -1 } };
	if (v4 < 0)
		return v4;
	v6 = open_one(AF_INET6, mark);
	if (is_shortage(v6)) { /* or it would be taken for a host without IPv6, for good */
		fd_close(v4);
		return v6;
	}
	r->fd[0] = v4;
	r->fd[1] = v6 < 0 ? -1 : v6;
	return 0;
}

void rawudp_close(struct rawudp *r)
{
	r->fd[0] = fd_close(r->fd[0]);
	r->fd[1] = fd_close(r->fd[1]);
}

int rawudp_send(const struct rawudp *r, const struct endpoint *src, const struct endpoint *dst,
		const void *p, size_t len)
{
	uint8_t headers[RAWUDP_HEADERS_MAX];
	size_t n = rawudp_headers(src, dst, p, len, headers);
	/* Raw IPv6 wants port 0 in the socket address. */
	struct endpoint to = { dst->addr, 0 };
	struct iovec iov[2] = { { headers, n }, { (void *)(uintptr_t)p, len } };
	union sockaddr_any sa;
	struct msghdr m = { .msg_name = &sa, .msg_iov = iov, .msg_iovlen = 2 };
	int fd = r->fd[dst->addr.family == 6];

	if (n == 0 || fd < 0)
		return -EAFNOSUPPORT;
	m.msg_namelen = endpoint_to_sockaddr(&to, &sa);
	return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}
