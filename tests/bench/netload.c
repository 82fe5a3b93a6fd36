/*
 * netload: small loads for comparing paths: UDP packets answered one for one, and a TCP stream.
 *
 *   netload echo PORT                                  answer every UDP packet
 *   netload udp ADDRESS PORT COUNT IN-FLIGHT SIZE      keep IN-FLIGHT packets on the way until COUNT
 *                                                      were answered
 *   netload sink PORT                                  take TCP streams, one after the other
 *   netload tcp ADDRESS PORT SECONDS                   send for so long
 *   netload drip ADDRESS PORT RATE SIZE                a TCP stream of RATE writes of SIZE bytes a second,
 *                                                      until SIGTERM
 *   netload stream PORT ADDRESS PORT RATE SIZE         numbered UDP packets, RATE a second (0: none), and
 *                                                      count those that the other side sends, until SIGTERM
 *
 * udp prints `answered N lost N nsec N`: the time between the first answer after a tenth of COUNT as
 * warm-up and the last. Where the clock counts instructions (scripts/kernel, ICOUNT=1) so does nsec.
 * tcp prints `bytes N nsec N mbits N`, counted by the receiving side, drip the same and with
 * `stall-msec N` the longest time that a write waited. IPv4 only.
 *
 * stream: SIGUSR1 begins the next phase of what is sent. Each packet says which phase it belongs to,
 * so sent and received of a phase can be compared to the packet. At the end (a second and a half after
 * SIGTERM, for what is on the way) it prints, for each phase that has any,
 *   `sent PHASE N refused N`                           refused: the kernel took none of it
 *   `got PHASE N twice N late N gap-msec N`            different packets; copies; those that came after
 *                                                      a later one; the longest time without any
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
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
	PHASES_MAX = 64,
	NUMBERS_MAX = 1 << 24, /* packets of a stream */
	BEHIND_MAX = 64,       /* packets that may follow at once when this process came late */
	LINGER_NSEC = 1500000000,
	QUEUE_BYTES = 8 << 20,
};

/* A packet of a stream: number and phase, in host order, since both ends are this program. */
struct numbered {
	uint32_t magic, phase, number;
};

#define NUMBERED_MAGIC 0x6b737331U

static volatile sig_atomic_t phase_now, ending;

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

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		phase_now = phase_now + 1;
	else
		ending = 1;
}

static int catch_signals(void)
{
	struct sigaction a = { .sa_handler = on_signal };
	sigset_t all;

	/* They come while ppoll() waits, and at no other time: none is overlooked. */
	sigfillset(&all);
	if (sigprocmask(SIG_BLOCK, &all, NULL) < 0 || sigaction(SIGUSR1, &a, NULL) < 0 ||
	    sigaction(SIGTERM, &a, NULL) < 0 || sigaction(SIGINT, &a, NULL) < 0)
		return fail("sigaction");
	return 0;
}

static struct {
	uint64_t sent, refused, got, twice, late, gap_nsec;
} phases[PHASES_MAX];
static uint8_t seen[NUMBERS_MAX / 8];

static void stream_take(int fd)
{
	static uint8_t buf[SIZE_MAX_BYTES];
	static uint64_t last_nsec;
	static uint32_t highest;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) >= 0) {
		uint64_t now = now_nsec(), gap = last_nsec ? now - last_nsec : 0;
		struct numbered head;

		if ((size_t)n < sizeof(head))
			continue;
		memcpy(&head, buf, sizeof(head));
		if (head.magic != NUMBERED_MAGIC || head.phase >= PHASES_MAX ||
		    head.number >= NUMBERS_MAX)
			continue;
		last_nsec = now;
		if (gap > phases[head.phase].gap_nsec)
			phases[head.phase].gap_nsec = gap;
		if (seen[head.number / 8] & 1U << head.number % 8) {
			phases[head.phase].twice++;
			continue;
		}
		seen[head.number / 8] |= (uint8_t)(1U << head.number % 8);
		phases[head.phase].got++;
		if (head.number < highest)
			phases[head.phase].late++;
		else
			highest = head.number;
	}
}

/* Sends what is due; returns when the next is. */
static uint64_t stream_give(int fd, uint64_t gap, size_t size, uint64_t due)
{
	static uint8_t buf[SIZE_MAX_BYTES];
	static uint32_t count;
	uint64_t now = now_nsec();

	if (now > due && now - due > BEHIND_MAX * gap)
		due = now - BEHIND_MAX * gap;
	for (; due <= now && count < NUMBERS_MAX; due += gap) {
		struct numbered head = { NUMBERED_MAGIC, (uint32_t)phase_now % PHASES_MAX,
					 count++ };

		memcpy(buf, &head, sizeof(head));
		phases[head.phase].sent++;
		/* ECONNREFUSED is the answer to an earlier one, and this one was not sent for it. */
		if (send(fd, buf, size, 0) < 0 &&
		    (errno != ECONNREFUSED || send(fd, buf, size, 0) < 0))
			phases[head.phase].refused++;
	}
	return due;
}

static int stream(int fd, unsigned long rate, size_t size)
{
	uint64_t gap = rate ? 1000000000U / rate : 0, due = now_nsec(), end = UINT64_MAX;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int bytes = QUEUE_BYTES;
	sigset_t none;

	if (size < sizeof(struct numbered))
		size = sizeof(struct numbered);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		return fail("SO_RCVBUFFORCE");
	if (catch_signals())
		return 1;
	sigemptyset(&none);
	while (now_nsec() < end) {
		uint64_t now = now_nsec(), next = end;
		struct timespec wait;

		if (ending && end == UINT64_MAX)
			next = end = now + LINGER_NSEC;
		if (gap && end == UINT64_MAX)
			next = due = stream_give(fd, gap, size, due);
		now = now_nsec();
		next = next > now ? next - now : 0;
		wait.tv_sec = (time_t)(next / 1000000000U);
		wait.tv_nsec = (long)(next % 1000000000U);
		if (ppoll(&p, 1, next > INT64_MAX ? NULL : &wait, &none) > 0)
			stream_take(fd);
	}
	stream_take(fd);
	for (unsigned int i = 0; i < PHASES_MAX; i++) {
		if (phases[i].sent)
			printf("sent %u %llu refused %llu\n", i, (unsigned long long)phases[i].sent,
			       (unsigned long long)phases[i].refused);
		if (phases[i].got)
			printf("got %u %llu twice %llu late %llu gap-msec %llu\n", i,
			       (unsigned long long)phases[i].got,
			       (unsigned long long)phases[i].twice,
			       (unsigned long long)phases[i].late,
			       (unsigned long long)phases[i].gap_nsec / 1000000);
	}
	return 0;
}

/* A steady TCP stream. What TCP repeats is not lost, but it makes writes wait. */
static int drip(int fd, unsigned long rate, size_t size)
{
	static const uint8_t buf[SIZE_MAX_BYTES];
	uint64_t start = now_nsec(), due = start, stall = 0, total, took;
	int small = 8192; /* a queue so short that a pause of the path is a pause of the writer */
	sigset_t none;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) < 0)
		return fail("SO_SNDBUF");
	if (catch_signals())
		return 1;
	sigemptyset(&none);
	while (!ending) {
		struct timespec rest = { 0 };
		uint64_t before = now_nsec(), after;

		if (send(fd, buf, size, MSG_NOSIGNAL) < 0 && errno != EINTR)
			return fail("send");
		after = now_nsec();
		if (after - before > stall)
			stall = after - before;
		due += 1000000000U / rate;
		if (due < after)
			due = after;
		rest.tv_nsec = (long)(due - after);
		ppoll(NULL, 0, &rest, &none);
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, &total, sizeof(total), MSG_WAITALL) != (ssize_t)sizeof(total))
		return fail("recv");
	took = now_nsec() - start;
	printf("bytes %llu nsec %llu mbits %.1f stall-msec %llu\n", (unsigned long long)total,
	       (unsigned long long)took, (double)total * 8000.0 / (double)took,
	       (unsigned long long)stall / 1000000);
	return 0;
}

static unsigned long number(const char *text)
{
	return strtoul(text, NULL, 10);
}

static int usage(void)
{
	fputs("usage: netload echo PORT | udp ADDRESS PORT COUNT IN-FLIGHT SIZE |\n"
	      "       sink PORT | tcp ADDRESS PORT SECONDS | drip ADDRESS PORT RATE SIZE |\n"
	      "       stream PORT ADDRESS PORT RATE SIZE\n",
	      stderr);
	return 2;
}

/* The socket of a load: connected, and bound to FROM unless that is 0. */
static int connected(int type, uint16_t from, const char *address, uint16_t port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(from) };
	int fd = -1;

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1) {
		errno = EINVAL;
		return -1;
	}
	fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	if (fd < 0 || (from && bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0) ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	bool of_udp = strcmp(verb, "udp") == 0 && argc == 7;
	bool of_tcp = strcmp(verb, "tcp") == 0 && argc == 5;
	bool of_drip = strcmp(verb, "drip") == 0 && argc == 6;
	bool of_stream = strcmp(verb, "stream") == 0 && argc == 7;
	char **to = argv + (of_stream ? 3 : 2);
	int fd;

	if (argc == 3 && strcmp(verb, "echo") == 0)
		return serve_echo((uint16_t)number(argv[2]));
	if (argc == 3 && strcmp(verb, "sink") == 0)
		return serve_sink((uint16_t)number(argv[2]));
	if (!of_udp && !of_tcp && !of_drip && !of_stream)
		return usage();
	fd = connected(of_udp || of_stream ? SOCK_DGRAM : SOCK_STREAM,
		       of_stream ? (uint16_t)number(argv[2]) : 0, to[0], (uint16_t)number(to[1]));
	if (fd < 0)
		return fail("connect");
	if (of_tcp)
		return send_stream(fd, number(to[2]));
	if (of_drip)
		return number(to[2]) ? drip(fd, number(to[2]), number(to[3]) % SIZE_MAX_BYTES)
				     : usage();
	if (of_stream)
		return stream(fd, number(to[2]), number(to[3]) % SIZE_MAX_BYTES);
	return send_counted(fd, number(to[2]), number(to[3]), number(to[4]) % SIZE_MAX_BYTES);
}
