/* shuttle: relay addresses there and back; packets between a stand-in for the kernel's port and the
 * shuttle over the real loopback; who else writes to it is not heard. */
#include <errno.h>
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "daemon/relay/shuttle.h"

static void test_addresses(void **state)
{
	static const uint32_t indexes[] = { 1, 255, 256, 65536, SHUTTLE_INDEX_MAX };
	struct loop *l = NULL;
	struct shuttle *s = NULL;
	struct endpoint e;
	uint32_t back;

	(void)state;
	assert_int_equal(loop_new(&l), 0);
	assert_int_equal(shuttle_new(l, 1, 0, NULL, NULL, &s), 0);
	assert_int_not_equal(shuttle_port(s), 0);
	for (size_t i = 0; i < ARRAY_SIZE(indexes); i++) {
		e = shuttle_endpoint(s, indexes[i]);
		assert_true(addr_is_loopback(&e.addr));
		assert_int_equal(shuttle_index_of(&e, &back), 0);
		assert_int_equal(back, indexes[i]);
	}
	e.addr = addr_v4(127, 0, 0, 1);
	assert_int_equal(shuttle_index_of(&e, &back), -ENOENT);
	e.addr = addr_v4(127, 128, 0, 1);
	assert_int_equal(shuttle_index_of(&e, &back), -ENOENT);
	shuttle_free(s);
	loop_free(l);
}

struct story {
	struct loop *loop;
	unsigned int n;
	uint32_t index;
	uint8_t packet[64];
	size_t len;
};

static void story_packet(void *data, uint32_t index, const uint8_t *p, size_t len)
{
	struct story *t = data;

	t->n++;
	t->index = index;
	t->len = len;
	assert_true(len <= sizeof(t->packet));
	memcpy(t->packet, p, len);
	loop_exit(t->loop, 0);
}

static int udp_socket(uint16_t *ret_port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

static void send_to(int fd, const struct endpoint *to, const char *text)
{
	union sockaddr_any sa;
	socklen_t len = endpoint_to_sockaddr(to, &sa);

	assert_int_equal(sendto(fd, text, strlen(text), 0, &sa.sa, len), strlen(text));
}

static void test_loopback(void **state)
{
	struct story t = { 0 };
	struct shuttle *s = NULL;
	uint16_t kernel_port, other_port;
	int kernel = udp_socket(&kernel_port), other = udp_socket(&other_port);
	union sockaddr_any sa;
	socklen_t len = sizeof(sa);
	struct endpoint relay, from;
	char in[64], noise[1200] = "";

	(void)state;
	assert_int_equal(loop_new(&t.loop), 0);
	assert_int_equal(shuttle_new(t.loop, kernel_port, 0, story_packet, &t, &s), 0);
	relay = shuttle_endpoint(s, 70000);

	/* Not from the kernel's port: takes no room in the socket's buffer either. */
	memset(noise, 'x', sizeof(noise) - 1);
	for (int i = 0; i < 10000; i++)
		send_to(other, &relay, noise);
	send_to(kernel, &relay, "handshake");
	assert_int_equal(loop_run(t.loop), 0);
	assert_int_equal(t.n, 1);
	assert_int_equal(t.index, 70000);
	assert_int_equal(t.len, 9);
	assert_memory_equal(t.packet, "handshake", 9);
	assert_int_equal(shuttle_stats(s)->refused, 0);

	assert_int_equal(shuttle_deliver(s, 70000, "answer", 6), 0);
	assert_int_equal(recvfrom(kernel, in, sizeof(in), 0, &sa.sa, &len), 6);
	assert_int_equal(endpoint_from_sockaddr(&sa.sa, &from), 0);
	assert_true(endpoint_equal(&from, &relay));

	shuttle_free(s);
	loop_free(t.loop);
	close(kernel);
	close(other);
}

/* With a source of our choice: needs CAP_NET_RAW, which the build machine's root has. */
static void test_inject(void **state)
{
	struct loop *l = NULL;
	struct shuttle *s = NULL;
	struct endpoint src = { addr_v4(203, 0, 113, 9), 41641 }, from;
	struct addr dst = addr_v4(127, 0, 0, 1), dst6 = { .family = 6, .b = { [15] = 1 } };
	uint16_t port;
	int kernel = udp_socket(&port), r;
	union sockaddr_any sa;
	socklen_t len = sizeof(sa);
	char in[64];

	(void)state;
	assert_int_equal(loop_new(&l), 0);
	assert_int_equal(shuttle_new(l, port, 0, NULL, NULL, &s), 0);
	r = shuttle_inject(s, &src, &dst, "relayed", 7);
	if (r == -EPERM) {
		print_message("not root: injection is not tested\n");
	} else {
		struct timeval tv = { .tv_sec = 2 };

		assert_int_equal(r, 0);
		setsockopt(kernel, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
		assert_int_equal(recvfrom(kernel, in, sizeof(in), 0, &sa.sa, &len), 7);
		assert_memory_equal(in, "relayed", 7);
		assert_int_equal(endpoint_from_sockaddr(&sa.sa, &from), 0);
		assert_true(endpoint_equal(&from, &src));
	}
	assert_int_equal(shuttle_inject(s, &src, &dst6, "x", 1), -EAFNOSUPPORT);
	shuttle_free(s);
	loop_free(l);
	close(kernel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_inject),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
