/*
 * netload: small loads for comparing paths: UDP packets answered one for one, and a TCP stream.
 *
 *   netload echo PORT                                  answer every UDP packet
 *   netload udp ADDRESS PORT COUNT IN-FLIGHT SIZE      keep IN-FLIGHT packets on the way until COUNT
 *                                                      were answered
 *   netload sink PORT                                  take TCP streams, one after the other
 *   netload tcp ADDRESS PORT SECONDS                   send for so long
 *
 * udp prints `answered N lost N nsec N`: the time between the first answer after a tenth of COUNT as
 * warm-up and the last. Where the clock counts instructions (scripts/kernel, ICOUNT=1) so does nsec.
 * tcp prints `bytes N nsec N mbits N`, counted by the receiving side. IPv4 only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	SIZE_MAX_BYTES = 9000,
	WAIT_MSEC = 1000, /* no answer for so long: what is on the way counts as lost */
	LOST_MAX = 1000,
};

static uint64_t now_nsec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static int fail(const char *what)
{
	fprintf(stderr, "netload: %s: %s\n", what, strerror(errno));
	return 1;
}

static int serve_echo(uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	static uint8_t buf[SIZE_MAX_BYTES];
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return fail("bind");
	for (;;) {
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);

		if (n < 0)
			return fail("recvfrom");
		/* A full queue is a lost packet, which the other side counts. */
		sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len);
	}
}

static int send_counted(int fd, unsigned long count, unsigned long in_flight, size_t size)
{
	static uint8_t buf[SIZE_MAX_BYTES];
	unsigned long answered = 0, lost = 0, on_way = 0, warm = count / 10;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t start = 0;

	while (answered < count + warm) {
		for (; on_way < in_flight; on_way++)
			if (send(fd, buf, size, 0) < 0 && errno != ENOBUFS && errno != EPERM)
				return fail("send");
		if (poll(&p, 1, WAIT_MSEC) == 0) {
			lost += on_way;
			on_way = 0;
			if (lost > LOST_MAX) {
				errno = ETIMEDOUT;
				return fail("too many packets lost");
			}
			continue;
		}
		while (on_way && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) == (ssize_t)size) {
			on_way--;
			if (answered++ == warm)
				start = now_nsec();
		}
	}
	printf("answered %lu lost %lu nsec %llu\n", answered - warm - 1, lost,
	       (unsigned long long)(now_nsec() - start));
	return 0;
}

/* Takes all of a stream, then tells the sender how many bytes came. */
static int serve_sink(uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	static uint8_t buf[256 << 10];
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 8) < 0)
		return fail("listen");
	for (;;) {
		uint64_t total = 0;
		ssize_t n;
		int c = accept(fd, NULL, NULL);

		if (c < 0)
			return fail("accept");
		while ((n = recv(c, buf, sizeof(buf), 0)) > 0)
			total += (uint64_t)n;
		if (send(c, &total, sizeof(total), MSG_NOSIGNAL) < 0)
			fail("send");
		close(c);
	}
}

static int send_stream(int fd, unsigned long seconds)
{
	static const uint8_t buf[64 << 10];
	uint64_t start = now_nsec(), end = start + seconds * 1000000000U, total, took;

	while (now_nsec() < end)
		if (send(fd, buf, sizeof(buf), MSG_NOSIGNAL) < 0)
			return fail("send");
	shutdown(fd, SHUT_WR);
	if (recv(fd, &total, sizeof(total), MSG_WAITALL) != (ssize_t)sizeof(total))
		return fail("recv");
	took = now_nsec() - start;
	printf("bytes %llu nsec %llu mbits %.1f\n", (unsigned long long)total,
	       (unsigned long long)took, (double)total * 8000.0 / (double)took);
	return 0;
}

static unsigned long number(const char *text)
{
	return strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	bool udp = argc == 7 && strcmp(argv[1], "udp") == 0;
	bool tcp = argc == 5 && strcmp(argv[1], "tcp") == 0;
	int fd;

	if (argc == 3 && strcmp(argv[1], "echo") == 0)
		return serve_echo((uint16_t)number(argv[2]));
	if (argc == 3 && strcmp(argv[1], "sink") == 0)
		return serve_sink((uint16_t)number(argv[2]));
	if ((!udp && !tcp) || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1) {
		fputs("usage: netload echo PORT | udp ADDRESS PORT COUNT IN-FLIGHT SIZE |\n"
		      "       sink PORT | tcp ADDRESS PORT SECONDS\n", stderr);
		return 2;
	}
	to.sin_port = htons((uint16_t)number(argv[3]));
	fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return fail("connect");
	if (tcp)
		return send_stream(fd, number(argv[4]));
	return send_counted(fd, number(argv[4]), number(argv[5]), number(argv[6]) % SIZE_MAX_BYTES);
}
