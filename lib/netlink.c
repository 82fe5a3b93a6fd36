#include "lib/netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define RECV_SIZE     32768 /* the kernel fills dump messages up to this */
#define DUMP_TRIES    8
#define LOOK_TRIES    4
#define DRAIN_MAX     65536 /* datagrams; a dump of all that one host has is far smaller */
#define ANSWER_SEC    10
#define SOCKBUF_BYTES (8 << 20)
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

struct netlink {
	int fd;
	int bus;
	uint32_t portid, seq;
	bool secret;
	uint64_t changes;
	char error[160];
	uint8_t recv[RECV_SIZE] __attribute__((aligned(8)));
};

/* Beyond the system's limit where we may, up to it where we may not. */
static void grow_buffers(int fd)
{
	static const struct {
		int force, plain;
	} which[] = { { SO_RCVBUFFORCE, SO_RCVBUF }, { SO_SNDBUFFORCE, SO_SNDBUF } };
	int size = SOCKBUF_BYTES;

	for (size_t i = 0; i < ARRAY_SIZE(which); i++)
		if (setsockopt(fd, SOL_SOCKET, which[i].force, &size, sizeof(size)) < 0)
			setsockopt(fd, SOL_SOCKET, which[i].plain, &size, sizeof(size));
}

static int set_up_socket(struct netlink *nl)
{
	static const struct timeval answer = { .tv_sec = ANSWER_SEC };
	struct sockaddr_nl sa = { 0 };
	socklen_t len = sizeof(sa);
	int on = 1;

	if (getsockname(nl->fd, (struct sockaddr *)&sa, &len) < 0)
		return -errno;
	nl->portid = sa.nl_pid;
	/* Niceties: each may be missing on an old kernel, none is needed to work. */
	setsockopt(nl->fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	setsockopt(nl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	if (nl->bus == NETLINK_ROUTE)
		setsockopt(nl->fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
	grow_buffers(nl->fd);
	if (setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &answer, sizeof(answer)) < 0)
		return -errno;
	return 0;
}

static struct netlink *new_netlink(int bus)
{
	struct netlink *nl = calloc(1, sizeof(*nl));

	if (!nl)
		return NULL;
	nl->fd = -1;
	nl->bus = bus;
	nl->seq = randombytes_random();
	return nl;
}

int netlink_open(int bus, struct netlink **ret)
{
	CLEANUP(netlink_close) struct netlink *nl = new_netlink(bus);
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK };
	int r;

	if (!nl)
		return -ENOMEM;
	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, bus);
	if (nl->fd < 0 || bind(nl->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -errno;
	r = set_up_socket(nl);
	if (r < 0)
		return r;
	*ret = TAKE(nl);
	return 0;
}

static bool has_option(int fd, int option, int want)
{
	socklen_t len = sizeof(int);
	int v = 0;

	return getsockopt(fd, SOL_SOCKET, option, &v, &len) == 0 && v == want;
}

/* Kernels before 5.14 do not say; 0 then. */
static uint64_t netns_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) == 0 ? cookie : 0;
}

/* 1: it is; 0: it is not. */
static int is_of_our_netns(int fd)
{
	CLEANUP(fd_close) int own = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	return own < 0 ? -errno : netns_of(own) == netns_of(fd);
}

/* Answers that nobody read to their end: of the one before us, or of a dump that was given up. Each read
 * makes the kernel go on with that dump, and as long as it is not over the next one is refused (EBUSY). */
static void drain(struct netlink *nl)
{
	char byte; /* no more: there may be keys in it */

	for (int i = 0; i < DRAIN_MAX; i++)
		if (recv(nl->fd, &byte, sizeof(byte), MSG_DONTWAIT) < 0 && errno != EINTR && errno != ENOBUFS)
			return;
}

int netlink_adopt(int bus, int fd, struct netlink **ret)
{
	CLEANUP(netlink_close) struct netlink *nl = new_netlink(bus);
	int r;

	if (!nl)
		return -ENOMEM;
	if (!has_option(fd, SO_DOMAIN, AF_NETLINK) || !has_option(fd, SO_TYPE, SOCK_RAW) ||
	    !has_option(fd, SO_PROTOCOL, bus))
		return -EBADMSG;
	r = is_of_our_netns(fd);
	if (r <= 0)
		return r < 0 ? r : -EBADMSG;
	nl->fd = fd;
	r = fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, 0) < 0 ? -errno : set_up_socket(nl);
	if (r == 0 && nl->portid == 0)
		r = -EBADMSG; /* never bound: it can own nothing */
	if (r < 0) {
		nl->fd = -1;
		return r;
	}
	drain(nl);
	*ret = TAKE(nl);
	return 0;
}

void netlink_close(struct netlink *nl)
{
	if (!nl)
		return;
	fd_close(nl->fd);
	if (nl->secret)
		sodium_memzero(nl->recv, sizeof(nl->recv));
	free(nl);
}

int netlink_fd(const struct netlink *nl)
{
	return nl->fd;
}

uint32_t netlink_portid(const struct netlink *nl)
{
	return nl->portid;
}

void netlink_set_secret(struct netlink *nl, bool secret)
{
	nl->secret = secret;
}

uint32_t netlink_seq(struct netlink *nl)
{
	if (++nl->seq == 0) /* 0 marks events */
		nl->seq = 1;
	return nl->seq;
}

const char *netlink_error(const struct netlink *nl)
{
	return nl->error;
}

uint64_t netlink_changes_sent(const struct netlink *nl)
{
	return nl->changes;
}

static int send_bytes(struct netlink *nl, const void *p, size_t len)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	ssize_t n;

	nl->error[0] = '\0';
	do {
		n = sendto(nl->fd, p, len, 0, (struct sockaddr *)&kernel, sizeof(kernel));
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EMSGSIZE;
}

/* One datagram from the kernel: its length, 0 for one that is not from the kernel. */
static ssize_t recv_bytes(struct netlink *nl, int flags)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { nl->recv, sizeof(nl->recv) };
	struct msghdr msg = {
		.msg_name = &from,
		.msg_namelen = sizeof(from),
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	ssize_t n;

	do {
		n = recvmsg(nl->fd, &msg, flags);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (msg.msg_flags & MSG_TRUNC)
		return -EMSGSIZE;
	return from.nl_pid == 0 ? n : 0;
}

static void wipe(struct netlink *nl)
{
	if (nl->secret)
		sodium_memzero(nl->recv, sizeof(nl->recv));
}

/* The text of an extended acknowledgement that begins at offset bytes into the payload. */
static void keep_error_text(struct netlink *nl, const struct nlmsghdr *nlh, size_t offset)
{
	const struct nlattr *attr;

	nl->error[0] = '\0';
	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS) || mnl_nlmsg_get_payload_len(nlh) < offset)
		return;
	netlink_attr_for_each(attr, nlh, offset) {
		size_t len = mnl_attr_get_payload_len(attr);

		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG)
			snprintf(nl->error, sizeof(nl->error), "%.*s", (int)len,
				 mnl_attr_get_str(attr));
	}
}

/* An NLMSG_ERROR: 0 for an acknowledgement, else the negative errno; its text is kept. */
static int read_ack(struct netlink *nl, const struct nlmsghdr *nlh)
{
	struct nlmsgerr e;
	size_t offset = sizeof(e);

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(e))
		return -EBADMSG;
	memcpy(&e, mnl_nlmsg_get_payload(nlh), sizeof(e));
	if (e.error == 0)
		return 0;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED) && e.msg.nlmsg_len > NLMSG_HDRLEN)
		offset += e.msg.nlmsg_len - NLMSG_HDRLEN;
	keep_error_text(nl, nlh, MNL_ALIGN(offset));
	return e.error < 0 ? e.error : -EBADMSG;
}

/* NLMSG_DONE carries the errno a dump ended with. */
static int read_done(struct netlink *nl, const struct nlmsghdr *nlh)
{
	int error = 0;

	if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(error))
		memcpy(&error, mnl_nlmsg_get_payload(nlh), sizeof(error));
	if (error < 0)
		keep_error_text(nl, nlh, sizeof(error));
	return error < 0 ? error : 0;
}

struct answer {
	uint32_t seq;
	netlink_msg_fn *fn;
	void *data;
	bool spoiled; /* a change in between */
	bool over;
	int result;
};

/* Messages of one datagram, those of our question only. */
static void read_datagram(struct netlink *nl, size_t len, struct answer *a)
{
	const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)nl->recv;
	int left = (int)len;

	for (; netlink_msg_ok(nlh, left) && !a->over; nlh = mnl_nlmsg_next(nlh, &left)) {
		if (nlh->nlmsg_seq != a->seq || nlh->nlmsg_pid != nl->portid)
			continue; /* the tail of an answer that was given up */
		if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
			a->spoiled = true;
		if (nlh->nlmsg_type == NLMSG_ERROR) {
			a->result = a->result < 0 ? a->result : read_ack(nl, nlh);
			a->over = true;
		} else if (nlh->nlmsg_type == NLMSG_DONE) {
			a->result = a->result < 0 ? a->result : read_done(nl, nlh);
			a->over = true;
		} else if (nlh->nlmsg_type >= NLMSG_MIN_TYPE && a->fn && a->result >= 0) {
			/* A refusal is kept, and the rest of the answer read and dropped. */
			a->result = a->fn(a->data, nlh);
		}
	}
}

static int read_answer(struct netlink *nl, struct answer *a)
{
	while (!a->over) {
		ssize_t n = recv_bytes(nl, 0);

		if (n < 0) {
			wipe(nl);
			return n == -EAGAIN ? -ETIMEDOUT : (int)n;
		}
		read_datagram(nl, (size_t)n, a);
	}
	wipe(nl);
	return a->result < 0 ? a->result : 0;
}

/* Not the question's fault: a message was lost for want of memory, a change came in between, or a dump
 * that was given up is not over. The kernel says all that in its answers, not when it is asked. */
static bool is_spoiled(int r)
{
	return r == -ENOBUFS || r == -EINTR || r == -EBUSY;
}

static int ask(struct netlink *nl, struct nlmsghdr *nlh, struct answer *a)
{
	int r;

	a->seq = netlink_seq(nl);
	nlh->nlmsg_seq = a->seq;
	nlh->nlmsg_pid = nl->portid;
	r = send_bytes(nl, nlh, nlh->nlmsg_len);
	return r < 0 ? r : read_answer(nl, a);
}

int netlink_request(struct netlink *nl, struct nlmsghdr *nlh, netlink_msg_fn *fn, void *data)
{
	int r = 0;

	nlh->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (!fn)
		nl->changes++;
	/* A look does no harm twice; of a change whose answer is lost nobody knows. */
	for (int i = 0; i < (fn ? LOOK_TRIES : 1); i++) {
		struct answer a = { .fn = fn, .data = data };

		r = ask(nl, nlh, &a);
		if (!is_spoiled(r))
			break;
	}
	return r;
}

int netlink_dump(struct netlink *nl, struct nlmsghdr *nlh, netlink_begin_fn *begin,
		 netlink_msg_fn *fn, void *data)
{
	int r = -EINTR;

	nlh->nlmsg_flags |= NLM_F_REQUEST | NLM_F_DUMP;
	for (int i = 0; i < DUMP_TRIES; i++) {
		struct answer a = { .fn = fn, .data = data };

		if (begin)
			begin(data);
		r = ask(nl, nlh, &a);
		if (r == 0 && a.spoiled)
			r = -EINTR;
		if (!is_spoiled(r) && !a.spoiled)
			return r;
		drain(nl);
	}
	return r;
}

/* Drains the answers of what was sent in one datagram: they are all there when send returns. */
struct replies {
	uint32_t first, last;
	size_t acks, failures;
	int first_error;
	uint32_t first_error_seq;
	netlink_error_fn *on_error;
	void *data;
};

static void read_replies(struct netlink *nl, size_t len, struct replies *rep)
{
	const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)nl->recv;
	int left = (int)len, r;

	for (; netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		uint32_t index = nlh->nlmsg_seq - rep->first;

		if (nlh->nlmsg_type != NLMSG_ERROR || nlh->nlmsg_pid != nl->portid ||
		    index > rep->last - rep->first)
			continue;
		r = read_ack(nl, nlh);
		if (r == 0) {
			rep->acks++;
			continue;
		}
		if (rep->failures++ == 0) {
			rep->first_error = r;
			rep->first_error_seq = nlh->nlmsg_seq;
		}
		if (rep->on_error)
			rep->on_error(rep->data, index, r, nl->error);
	}
}

static int drain_replies(struct netlink *nl, struct replies *rep)
{
	for (;;) {
		char first_text[sizeof(nl->error)];
		bool keep = rep->failures > 0;
		ssize_t n;

		memcpy(first_text, nl->error, sizeof(first_text));
		n = recv_bytes(nl, MSG_DONTWAIT);
		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		read_replies(nl, (size_t)n, rep);
		if (keep) /* the first failure explains the others */
			memcpy(nl->error, first_text, sizeof(first_text));
	}
}

int netlink_request_many(struct netlink *nl, void *buf, size_t len, netlink_error_fn *on_error,
			 void *data)
{
	struct replies rep = { .on_error = on_error, .data = data };
	struct nlmsghdr *nlh = buf;
	int left = (int)len, r;
	size_t n = 0;

	for (; netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left), n++) {
		nlh->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
		nlh->nlmsg_pid = nl->portid;
		nlh->nlmsg_seq = netlink_seq(nl);
		if (n == 0)
			rep.first = nlh->nlmsg_seq;
		rep.last = nlh->nlmsg_seq;
	}
	if (n == 0)
		return 0;
	nl->changes += n;
	r = send_bytes(nl, buf, len);
	if (r == 0)
		r = drain_replies(nl, &rep);
	if (r < 0)
		return r;
	return rep.acks + rep.failures == n ? (int)rep.failures : -ENOBUFS;
}

int netlink_batch(struct netlink *nl, const void *buf, size_t len, uint32_t *ret_seq)
{
	struct replies rep = { .last = UINT32_MAX };
	int r;

	nl->changes++;
	r = send_bytes(nl, buf, len);
	if (r == 0)
		r = drain_replies(nl, &rep);
	if (r < 0)
		return r;
	if (rep.failures > 0) {
		if (ret_seq)
			*ret_seq = rep.first_error_seq;
		return rep.first_error;
	}
	return rep.acks > 0 ? 0 : -ENOBUFS;
}

static int read_family(void *data, const struct nlmsghdr *nlh)
{
	const struct nlattr *attr;
	uint16_t *id = data;

	netlink_attr_for_each(attr, nlh, sizeof(struct genlmsghdr))
		if (mnl_attr_get_type(attr) == CTRL_ATTR_FAMILY_ID &&
		    mnl_attr_validate(attr, MNL_TYPE_U16) >= 0)
			*id = mnl_attr_get_u16(attr);
	return 0;
}

int netlink_genl_family(struct netlink *nl, const char *name, uint16_t *ret_id)
{
	uint8_t buf[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *genl;
	uint16_t id = 0;
	int r;

	nlh->nlmsg_type = GENL_ID_CTRL;
	genl = mnl_nlmsg_put_extra_header(nlh, sizeof(*genl));
	genl->cmd = CTRL_CMD_GETFAMILY;
	genl->version = 1;
	if (!mnl_attr_put_strz_check(nlh, sizeof(buf), CTRL_ATTR_FAMILY_NAME, name))
		return -EINVAL;
	r = netlink_request(nl, nlh, read_family, &id);
	if (r < 0)
		return r;
	if (id == 0)
		return -EBADMSG;
	*ret_id = id;
	return 0;
}

int netlink_join(struct netlink *nl, unsigned int group)
{
	if (setsockopt(nl->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
		return -errno;
	return 0;
}

int netlink_events(struct netlink *nl, netlink_msg_fn *fn, void *data)
{
	for (int i = 0; i < 256; i++) { /* bounded work: the loop calls again */
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)nl->recv;
		ssize_t n = recv_bytes(nl, MSG_DONTWAIT);
		int left = (int)n, r;

		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		for (; netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
			if (nlh->nlmsg_type < NLMSG_MIN_TYPE)
				continue;
			r = fn(data, nlh);
			if (r < 0)
				return r;
		}
	}
	return 0;
}
