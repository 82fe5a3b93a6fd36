/* A dump that was begun and not read: the real kernel says EBUSY to the next one in its answer, and
 * the transport comes through all the same. (tests/unit/test_netlink.c has a kernel that says so.) */
#include "tests/kernel/check.h"

#include <linux/rtnetlink.h>

#include "lib/netlink.h"

#define ROUTES 4000

static struct nlmsghdr *question(void *buf)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct rtmsg *rtm = mnl_nlmsg_put_extra_header(nlh, sizeof(*rtm));

	nlh->nlmsg_type = RTM_GETROUTE;
	rtm->rtm_family = AF_INET;
	return nlh;
}

static void send_dump(struct netlink *nl, uint32_t seq)
{
	uint8_t buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = question(buf);

	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = seq;
	CHECK(send(netlink_fd(nl), buf, nlh->nlmsg_len, 0) == (ssize_t)nlh->nlmsg_len);
}

static void forget(void *data)
{
	*(int *)data = 0;
}

static int count(void *data, const struct nlmsghdr *nlh)
{
	*(int *)data += nlh->nlmsg_type == RTM_NEWROUTE;
	return 0;
}

static int dump(struct netlink *nl, int *ret)
{
	uint8_t buf[256] __attribute__((aligned(8)));

	return netlink_dump(nl, question(buf), forget, count, ret);
}

/* The first part of the first dump is there; then comes the answer to the second. */
static void test_kernel_says_busy(struct netlink *nl)
{
	uint8_t buf[65536] __attribute__((aligned(8)));
	const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)buf;
	struct nlmsgerr e;

	send_dump(nl, 1);
	send_dump(nl, 2);
	CHECK(recv(netlink_fd(nl), buf, sizeof(buf), MSG_DONTWAIT) > 0);
	CHECK_EQ(nlh->nlmsg_seq, 1);
	CHECK(recv(netlink_fd(nl), buf, sizeof(buf), MSG_DONTWAIT) > 0);
	CHECK_EQ(nlh->nlmsg_seq, 2);
	CHECK_EQ(nlh->nlmsg_type, NLMSG_ERROR);
	memcpy(&e, mnl_nlmsg_get_payload(nlh), sizeof(e));
	CHECK_EQ(e.error, -EBUSY);
	step("EBUSY comes in the answer");
}

int main(void)
{
	struct netlink *nl;
	int all, n;

	enter_new_netns();
	CHECK(sh("for i in $(seq %d); do echo route add 10.1.$((i / 250)).$((i %% 250))/32 dev lo; done | ip -batch -",
		 ROUTES) == 0);
	CHECK_OK(netlink_open(NETLINK_ROUTE, &nl));
	CHECK_OK(dump(nl, &all));
	CHECK(all >= ROUTES);
	test_kernel_says_busy(nl);
	CHECK_OK(dump(nl, &n)); /* the first one is still running */
	CHECK_EQ(n, all);
	send_dump(nl, 3);
	CHECK_OK(dump(nl, &n));
	CHECK_EQ(n, all);
	step("%d routes, in spite of it", n);
	netlink_close(nl);
	return 0;
}
