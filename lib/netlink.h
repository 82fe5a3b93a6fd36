#pragma once
/*
 * netlink: one transport for rtnetlink, generic netlink and nfnetlink.
 *
 * Owns sequence numbers, acknowledgements, dumps, buffers and the kernel's own error text. Knows
 * nothing of what the messages mean: those who build and read them are pure. Requests are
 * synchronous, because the kernel answers within the send call; the wait is bounded all the same.
 * Not for use by two threads.
 */
#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/cleanup.h"

struct netlink;

/* Largest request that is sent as one message by our own encoders. */
#define NETLINK_REQUEST_MAX 16384

/* Whether a whole message lies in the left bytes at nlh. mnl_nlmsg_ok() takes lengths of 2 GiB and
 * more for negative numbers and says yes. */
static inline bool netlink_msg_ok(const struct nlmsghdr *nlh, int left)
{
	return left >= (int)sizeof(*nlh) && nlh->nlmsg_len >= sizeof(*nlh) &&
	       nlh->nlmsg_len <= (uint32_t)left;
}

/* libmnl's loops over attributes, without its casts that drop const and without arithmetic that can
 * leave the message. */
static inline const struct nlattr *netlink_attr_at(const void *p, const void *end)
{
	const struct nlattr *attr = p;
	ptrdiff_t left = (const char *)end - (const char *)p;

	return left >= (ptrdiff_t)sizeof(*attr) && attr->nla_len >= sizeof(*attr) && attr->nla_len <= left ?
		       attr :
		       NULL;
}

static inline const struct nlattr *netlink_attr_after(const struct nlattr *attr, const void *end)
{
	const char *p = (const char *)attr;
	ptrdiff_t step = MNL_ALIGN(attr->nla_len);

	return step < (const char *)end - p ? netlink_attr_at(p + step, end) : NULL;
}

#define netlink_end(nlh)      ((const char *)(nlh) + (nlh)->nlmsg_len)
#define netlink_nest_end(nest) ((const char *)(nest) + (nest)->nla_len)
/* offset: of the protocol's own header, which has been checked to be there */
#define netlink_attr_for_each(attr, nlh, offset)                                                   \
	for ((attr) = netlink_attr_at((const char *)(nlh) + MNL_NLMSG_HDRLEN + MNL_ALIGN(offset),   \
				      netlink_end(nlh));                                           \
	     (attr); (attr) = netlink_attr_after((attr), netlink_end(nlh)))
#define netlink_attr_for_each_nested(attr, nest)                                                   \
	for ((attr) = netlink_attr_at((const char *)(nest) + MNL_ATTR_HDRLEN, netlink_nest_end(nest)); \
	     (attr); (attr) = netlink_attr_after((attr), netlink_nest_end(nest)))

/* Gets every message of an answer. A negative result stops the answer and is returned. */
typedef int netlink_msg_fn(void *data, const struct nlmsghdr *nlh);
/* A dump begins, perhaps not for the first time: forget what came before. */
typedef void netlink_begin_fn(void *data);

/* bus: NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_NETFILTER. */
int netlink_open(int bus, struct netlink **ret);
/* A socket from before our time (notify.h), with its port id. It is ours after 0. -EBADMSG: it is no
 * socket of that bus, or of another network namespace. */
int netlink_adopt(int bus, int fd, struct netlink **ret);
void netlink_close(struct netlink *nl);
DEFINE_CLEANUP(struct netlink *, netlink_close)

int netlink_fd(const struct netlink *nl);
uint32_t netlink_portid(const struct netlink *nl);
/* What passes holds secrets: wipe the receive buffer after each answer. */
void netlink_set_secret(struct netlink *nl, bool secret);
/* The next sequence number, for messages that the caller completes himself. */
uint32_t netlink_seq(struct netlink *nl);
/* The kernel's words for the last failure ("" when it gave none). */
const char *netlink_error(const struct netlink *nl);
/* Messages that asked for a change (not for a dump or a look), since open. */
uint64_t netlink_changes_sent(const struct netlink *nl);

/* One request with NLM_F_REQUEST|NLM_F_ACK, and what it returns before the acknowledgement.
 * fn may be NULL. The message counts as a change unless fn is given; with fn it is asked again (a few
 * times) when its answer is lost. -ENOBUFS for a change: whether it was made is not known. */
int netlink_request(struct netlink *nl, struct nlmsghdr *nlh, netlink_msg_fn *fn, void *data);
/* A dump; taken again (a bounded number of times, begin() before each) when a change, a lost message
 * or an older dump on this socket spoils it: -EINTR, -ENOBUFS or -EBUSY after that. */
int netlink_dump(struct netlink *nl, struct nlmsghdr *nlh, netlink_begin_fn *begin,
		 netlink_msg_fn *fn, void *data);

/* Many independent requests in one datagram, each acknowledged by itself. Failures do not stop
 * those behind: on_error gets the index of each message that failed (errors only). Returns the
 * number of failures, or a negative errno when the outcome is unknown. */
typedef void netlink_error_fn(void *data, size_t index, int error, const char *text);
int netlink_request_many(struct netlink *nl, void *buf, size_t len, netlink_error_fn *on_error,
			 void *data);

/* One nfnetlink batch (BATCH_BEGIN … BATCH_END) in one datagram; the last message before
 * BATCH_END carries NLM_F_ACK. 0 when committed; the first error otherwise, with *ret_seq the
 * message it is about (may be NULL). */
int netlink_batch(struct netlink *nl, const void *buf, size_t len, uint32_t *ret_seq);

/* Resolves a generic netlink family (loads its module). -ENOENT when there is none. */
int netlink_genl_family(struct netlink *nl, const char *name, uint16_t *ret_id);
/* 0 or negative errno */
int netlink_join(struct netlink *nl, unsigned int group);
/* Reads what events are there without waiting. -ENOBUFS: events were lost, look at everything. */
int netlink_events(struct netlink *nl, netlink_msg_fn *fn, void *data);
