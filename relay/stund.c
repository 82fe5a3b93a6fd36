#include "relay/stund.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/stun.h"

#define STUND_BATCH   32
#define STUND_TURNS   4 /* batches in one turn of the loop */
#define STUND_DGRAM   1500
#define STUND_CONTROL 128

/* What one system call reads and one answers. */
struct stund_batch {
	struct mmsghdr in[STUND_BATCH], out[STUND_BATCH];
	struct iovec in_iov[STUND_BATCH], out_iov[STUND_BATCH];
	union sockaddr_any from[STUND_BATCH];
	uint8_t control[STUND_BATCH][STUND_CONTROL]
	    __attribute__((aligned(__alignof__(struct cmsghdr))));
	uint8_t request[STUND_BATCH][STUND_DGRAM];
	uint8_t response[STUND_BATCH][STUN_RESPONSE_MAX];
};

struct stund {
	struct loop *loop;
	int fd[2]; /* IPv6 (or the only one), IPv4 */
	struct loop_io *io[2];
	struct stund_stats stats;
	struct stund_batch batch;
};

static void batch_prepare(struct stund_batch *b)
{
	for (size_t i = 0; i < STUND_BATCH; i++) {
		struct msghdr *m = &b->in[i].msg_hdr;

		b->in_iov[i] = (struct iovec){ b->request[i], STUND_DGRAM };
		*m = (struct msghdr){ .msg_name = &b->from[i],
				      .msg_namelen = sizeof(b->from[i]),
				      .msg_iov = &b->in_iov[i],
				      .msg_iovlen = 1,
				      .msg_control = b->control[i],
				      .msg_controllen = STUND_CONTROL };
	}
}

/* The received PKTINFO goes back with the answer, as the address to send from; the interface is the
 * routing table's to choose, but for link-local addresses. */
static void control_answer(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo pi;

			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
			pi.ipi_ifindex = 0;
			pi.ipi_spec_dst = pi.ipi_addr;
			memcpy(CMSG_DATA(c), &pi, sizeof(pi));
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo pi;

			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
			if (!IN6_IS_ADDR_LINKLOCAL(&pi.ipi6_addr))
				pi.ipi6_ifindex = 0;
			memcpy(CMSG_DATA(c), &pi, sizeof(pi));
		}
	}
}

/* Makes the answer to datagram i as number n; false when it gets none. */
static bool stund_answer(struct stund *s, size_t i, size_t n)
{
	struct msghdr *m = &s->batch.in[i].msg_hdr;
	uint8_t txid[STUN_TXID_LEN];
	struct endpoint from;
	size_t len;

	if ((m->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
	    stun_request_decode(s->batch.request[i], s->batch.in[i].msg_len, txid) < 0 ||
	    endpoint_from_sockaddr(&s->batch.from[i].sa, &from) < 0) {
		s->stats.not_stun++;
		return false;
	}
	if (from.addr.family == 4)
		s->stats.ipv4++;
	else
		s->stats.ipv6++;
	len = stun_response_encode(txid, &from, s->batch.response[n]);
	control_answer(m);
	s->batch.out_iov[n] = (struct iovec){ s->batch.response[n], len };
	s->batch.out[n].msg_hdr = *m;
	s->batch.out[n].msg_hdr.msg_iov = &s->batch.out_iov[n];
	s->batch.out[n].msg_hdr.msg_flags = 0;
	return true;
}

static void stund_send(struct stund *s, int fd, size_t n)
{
	size_t done = 0;

	while (done < n) {
		int k = sendmmsg(fd, s->batch.out + done, (unsigned int)(n - done), MSG_DONTWAIT);

		if (k > 0) {
			s->stats.success += (uint64_t)k;
			done += (size_t)k;
		} else {
			s->stats.write_error++; /* this one is lost, the next may go */
			done++;
		}
	}
}

static void stund_read(void *data, int fd, uint32_t events)
{
	struct stund *s = data;

	(void)events;
	for (int turn = 0; turn < STUND_TURNS; turn++) {
		size_t answers = 0;
		int n;

		batch_prepare(&s->batch);
		n = recvmmsg(fd, s->batch.in, STUND_BATCH, MSG_DONTWAIT, NULL);
		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				s->stats.read_error++;
			return;
		}
		for (size_t i = 0; i < (size_t)n; i++)
			answers += stund_answer(s, i, answers);
		stund_send(s, fd, answers);
		if (n < STUND_BATCH)
			return;
	}
}

static int stund_open(struct stund *s, int which, const struct endpoint *at, struct endpoint *bound)
{
	static const int yes = 1;
	union sockaddr_any sa;
	socklen_t len = endpoint_to_sockaddr(at, &sa);
	int fd;

	fd = socket(addr_af(&at->addr), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	s->fd[which] = fd;
	if (at->addr.family == 6) {
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &yes, sizeof(yes));
	} else {
		setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &yes, sizeof(yes));
	}
	if (bind(fd, &sa.sa, len) < 0)
		return -errno;
	len = sizeof(sa);
	if (getsockname(fd, &sa.sa, &len) < 0)
		return -errno;
	*bound = *at;
	bound->port = ntohs(at->addr.family == 6 ? sa.in6.sin6_port : sa.in.sin_port);
	return loop_io_new(s->loop, fd, EPOLLIN, stund_read, s, &s->io[which]);
}

int stund_new(struct loop *l, const struct endpoint *at, struct endpoint *ret_bound,
	      struct stund **ret)
{
	CLEANUP(stund_free) struct stund *s = calloc(1, sizeof(*s));
	bool both = at->addr.family == 6 && addr_is_unspecified(&at->addr);
	struct endpoint bound = { 0 }, v4 = { .addr = addr_v4(0, 0, 0, 0) };
	int r;

	if (!s)
		return -ENOMEM;
	s->loop = l;
	s->fd[0] = s->fd[1] = -1;
	r = stund_open(s, 0, at, &bound);
	if (r == -EAFNOSUPPORT && both) { /* a kernel without IPv6 */
		bound.port = at->port;
		r = 0;
	}
	if (r < 0)
		return r;
	if (both) {
		v4.port = bound.port;
		r = stund_open(s, 1, &v4, &v4);
		if (r < 0)
			return r;
		bound.port = v4.port;
	}
	bound.addr = at->addr;
	if (ret_bound)
		*ret_bound = bound;
	*ret = TAKE(s);
	return 0;
}

void stund_free(struct stund *s)
{
	if (!s)
		return;
	for (int i = 0; i < 2; i++) {
		loop_io_free(s->io[i]);
		fd_close(s->fd[i]);
	}
	free(s);
}

const struct stund_stats *stund_stats(const struct stund *s)
{
	return &s->stats;
}
