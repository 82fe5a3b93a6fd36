/*
 * netlink: answers that are spoiled, by a kernel that stands in for the real one between the socket and
 * us. What it does was read from the real one (af_netlink.c), and tests/kernel/test_netlink asks that.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/netlink.h"

#define QUEUE 128
#define PARTS 40

/* One socket's side of the kernel. A dump goes on when something was read, and only then. */
static struct {
	struct {
		uint8_t p[64];
		size_t len;
	} queue[QUEUE];
	size_t first, n;
	struct nlmsghdr dump; /* that is running */
	int left;	      /* of its parts */
	bool running;
	int error; /* of the socket, told once */
	unsigned int sends;
	/* what goes wrong */
	int no_room_at;	  /* the part, counted down, for which there is no memory, once */
	int interrupted;  /* so many dumps */
	int lose;	  /* the n-th datagram, counted down */
	bool always_busy; /* somebody else's dump that does not end */
	int refuse;	  /* each change, so */
} K;

static void queue_message(const struct nlmsghdr *to, uint16_t type, uint16_t flags, const void *p, size_t len)
{
	struct nlmsghdr h = { (uint32_t)(sizeof(h) + len), type, flags, to->nlmsg_seq, to->nlmsg_pid };
	size_t at = (K.first + K.n++) % QUEUE;

	assert_true(K.n <= QUEUE && sizeof(h) + len <= sizeof(K.queue[at].p));
	memcpy(K.queue[at].p, &h, sizeof(h));
	memcpy(K.queue[at].p + sizeof(h), p, len);
	K.queue[at].len = sizeof(h) + len;
}

static void queue_error(const struct nlmsghdr *to, int error)
{
	struct nlmsgerr e = { error, *to };

	queue_message(to, NLMSG_ERROR, NLM_F_CAPPED, &e, sizeof(e));
}

static void go_on(void)
{
	uint16_t flags = NLM_F_MULTI;
	int zero = 0;

	if (K.no_room_at && --K.no_room_at == 0) {
		K.error = ENOBUFS; /* and the dump stays begun */
		return;
	}
	if (K.interrupted)
		flags |= NLM_F_DUMP_INTR;
	if (K.left-- > 0) {
		queue_message(&K.dump, RTM_NEWLINK, flags, &K.left, sizeof(K.left));
		return;
	}
	queue_message(&K.dump, NLMSG_DONE, flags, &zero, sizeof(zero));
	K.running = false;
	K.interrupted -= K.interrupted > 0;
}

static void take_message(const struct nlmsghdr *h)
{
	if ((h->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP) {
		if (h->nlmsg_type == RTM_GETLINK)
			queue_message(h, RTM_NEWLINK, 0, "look", 4);
		queue_error(h, h->nlmsg_type == RTM_GETLINK ? 0 : K.refuse);
	} else if (K.running || K.always_busy) {
		queue_error(h, -EBUSY);
	} else {
		K.dump = *h;
		K.left = PARTS;
		K.running = true;
		go_on();
	}
}

ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len)
{
	struct nlmsghdr h;

	(void)fd;
	(void)flags;
	(void)to;
	(void)len;
	K.sends++;
	for (size_t at = 0; at + sizeof(h) <= n; at += NLMSG_ALIGN(h.nlmsg_len)) {
		memcpy(&h, (const char *)p + at, sizeof(h));
		take_message(&h);
	}
	return (ssize_t)n;
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
	size_t len;

	(void)fd;
	(void)flags;
	if (K.error || K.n == 0) {
		errno = K.error ? K.error : EAGAIN;
		K.error = 0;
		return -1;
	}
	len = MIN(n, K.queue[K.first].len);
	memcpy(p, K.queue[K.first].p, len);
	K.first = (K.first + 1) % QUEUE;
	K.n--;
	if (K.running)
		go_on();
	if (K.lose && --K.lose == 0) {
		errno = ENOBUFS;
		return -1;
	}
	return (ssize_t)len;
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	m->msg_flags = 0;
	return recv(fd, m->msg_iov[0].iov_base, m->msg_iov[0].iov_len, flags);
}

struct got {
	int begun, parts;
};

static void begin(void *data)
{
	struct got *g = data;

	g->begun++;
	g->parts = 0;
}

static int part(void *data, const struct nlmsghdr *nlh)
{
	struct got *g = data;

	(void)nlh;
	g->parts++;
	return 0;
}

static int dump(struct netlink *nl, struct got *ret)
{
	uint8_t buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = RTM_GETLINK;
	*ret = (struct got){ 0 };
	return netlink_dump(nl, nlh, begin, part, ret);
}

static int request(struct netlink *nl, uint16_t type, struct got *ret)
{
	uint8_t buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = type;
	if (ret)
		*ret = (struct got){ 0 };
	return netlink_request(nl, nlh, ret ? part : NULL, ret);
}

static int fresh(void **state)
{
	struct netlink *nl;

	memset(&K, 0, sizeof(K));
	if (netlink_open(NETLINK_ROUTE, &nl) < 0)
		return -1;
	*state = nl;
	return 0;
}

static int over(void **state)
{
	netlink_close(*state);
	return 0;
}

static void a_dump_that_the_kernel_had_no_memory_for_is_taken_again(void **state)
{
	struct got g;

	for (int at = 1; at <= PARTS + 1; at++) {
		memset(&K, 0, sizeof(K));
		K.no_room_at = at;
		assert_int_equal(dump(*state, &g), 0);
		assert_int_equal(g.parts, PARTS);
		assert_in_range(g.begun, 2, 3);
		assert_int_equal(K.n, 0);
	}
}

static void a_dump_that_lost_a_part_is_taken_again(void **state)
{
	struct got g;

	for (int at = 1; at <= PARTS + 1; at++) {
		memset(&K, 0, sizeof(K));
		K.lose = at;
		assert_int_equal(dump(*state, &g), 0);
		assert_int_equal(g.parts, PARTS);
		assert_int_equal(g.begun, 2);
	}
}

static void a_dump_with_a_change_in_between_is_taken_again(void **state)
{
	struct got g;

	K.interrupted = 3;
	assert_int_equal(dump(*state, &g), 0);
	assert_int_equal(g.parts, PARTS);
	assert_int_equal(g.begun, 4);
	K.interrupted = 1000;
	assert_int_equal(dump(*state, &g), -EINTR);
	assert_int_equal(g.begun, 8);
}

/* The one before us on this socket died in the midst of it, or gave up. */
static void a_dump_that_another_one_is_in_the_way_of(void **state)
{
	struct got g;

	K.dump = (struct nlmsghdr){ .nlmsg_seq = 1, .nlmsg_pid = netlink_portid(*state) };
	K.left = PARTS;
	K.running = true;
	assert_int_equal(dump(*state, &g), 0);
	assert_int_equal(g.parts, PARTS);
	assert_int_equal(g.begun, 2);
	K.always_busy = true;
	assert_int_equal(dump(*state, &g), -EBUSY);
	assert_int_equal(g.begun, 8);
}

static void a_look_is_asked_again_a_change_is_not(void **state)
{
	struct got g;

	K.lose = 1;
	assert_int_equal(request(*state, RTM_GETLINK, &g), 0);
	assert_int_equal(g.parts, 1);
	K.lose = 2; /* the answer came, its acknowledgement did not */
	assert_int_equal(request(*state, RTM_GETLINK, &g), 0);
	K.sends = 0;
	K.lose = 1;
	assert_int_equal(request(*state, RTM_SETLINK, NULL), -ENOBUFS);
	assert_int_equal(K.sends, 1);
	K.refuse = -EBUSY;
	assert_int_equal(request(*state, RTM_SETLINK, NULL), -EBUSY);
	assert_int_equal(K.sends, 2);
	K.refuse = 0;
	assert_int_equal(request(*state, RTM_SETLINK, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_dump_that_the_kernel_had_no_memory_for_is_taken_again, fresh, over),
		cmocka_unit_test_setup_teardown(a_dump_that_lost_a_part_is_taken_again, fresh, over),
		cmocka_unit_test_setup_teardown(a_dump_with_a_change_in_between_is_taken_again, fresh, over),
		cmocka_unit_test_setup_teardown(a_dump_that_another_one_is_in_the_way_of, fresh, over),
		cmocka_unit_test_setup_teardown(a_look_is_asked_again_a_change_is_not, fresh, over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
