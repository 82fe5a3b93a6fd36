/*
 * udpecho: UDP packets answered one for one, with a fixed number on the way, for comparing paths.
 *
 *   udpecho serve PORT
 *   udpecho send ADDRESS PORT COUNT IN-FLIGHT SIZE
 *
 * The sender keeps IN-FLIGHT packets on the way until COUNT were answered, and prints
 * `answered N lost N nsec N`: the time between the first answer after a tenth of COUNT as warm-up and
 * the last. Where the clock counts instructions (scripts/kernel, ICOUNT=1) so does nsec. IPv4 only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
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
	fprintf(stderr, "udpecho: %s: %s\n", what, strerror(errno));
	return 1;
}

static int serve(uint16_t port)
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

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd;

	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		return serve((uint16_t)strtoul(argv[2], NULL, 10));
	if (argc != 7 || strcmp(argv[1], "send") != 0 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1) {
		fprintf(stderr, "usage: udpecho serve PORT | send ADDRESS PORT COUNT IN-FLIGHT SIZE\n");
		return 2;
	}
	to.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return fail("connect");
	return send_counted(fd, strtoul(argv[4], NULL, 10), strtoul(argv[5], NULL, 10),
			    strtoul(argv[6], NULL, 10) % SIZE_MAX_BYTES);
}
