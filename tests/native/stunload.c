/*
 * stunload: questions for a STUN server on loopback, most of them none.
 *
 *   stunload --port P [--six] [--rate N] [--seconds N]
 *
 * Of ten datagrams four are questions as nodes ask them, the others are cut, changed, too long by noise behind them,
 * noise, answers, or empty. Prints how many of both there were, how many questions were answered, how many bytes went
 * and came, how long the longest answer was, and how many answers nobody had asked for: to what is no question, or once
 * more. Ends with a question by itself, which has to be answered (1 where it is not).
 */
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/stun.h"

#define SOCKETS	   16
#define ROUND_MSEC 2
#define ASKED_MAX  (4u << 20)

struct stunload {
	int fd[SOCKETS];
	uint8_t asked[ASKED_MAX]; /* by number: 1 asked, 2 answered */
	uint32_t n;
	unsigned long questions, others, answers, unasked, sent, back, longest;
};

static struct stunload load;

static uint64_t now_msec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void question(uint8_t *p, uint32_t number)
{
	uint8_t txid[STUN_TXID_LEN] = "stunload";

	memcpy(txid + 8, &number, sizeof(number));
	stun_request_encode(txid, p);
}

/* What is sent as number n; *valid says whether it wants an answer. */
static size_t datagram(uint8_t p[static 1400], uint32_t n, bool *valid)
{
	question(p, n);
	*valid = n % 10 < 4;
	switch (n % 10) {
	case 4:
		return randombytes_uniform(STUN_REQUEST_LEN);
	case 5:
		p[randombytes_uniform(STUN_REQUEST_LEN)] ^= (uint8_t)(1 + randombytes_uniform(255));
		return STUN_REQUEST_LEN;
	case 6:
		randombytes_buf(p + STUN_REQUEST_LEN, 1200);
		return STUN_REQUEST_LEN + 4 + randombytes_uniform(1100);
	case 7:
		randombytes_buf(p, 1400);
		return 1 + randombytes_uniform(1400);
	case 8:
		p[0] = 1; /* an answer */
		return STUN_REQUEST_LEN;
	case 9:
		return 0;
	default:
		return STUN_REQUEST_LEN;
	}
}

static void send_one(struct stunload *l)
{
	uint8_t p[1400];
	bool valid;
	size_t n = datagram(p, l->n, &valid);

	if (send(l->fd[randombytes_uniform(SOCKETS)], p, n, MSG_DONTWAIT) >= 0) {
		l->asked[l->n] = valid;
		l->sent += n;
		if (valid)
			l->questions++;
		else
			l->others++;
	}
	l->n++;
}

static void heard(struct stunload *l, const uint8_t *p, size_t n)
{
	uint8_t txid[STUN_TXID_LEN];
	struct endpoint me;
	uint32_t number;

	l->back += n;
	l->longest = n > l->longest ? n : l->longest;
	if (stun_response_decode(p, n, txid, &me) < 0 || memcmp(txid, "stunload", 8)) {
		l->unasked++;
		return;
	}
	memcpy(&number, txid + 8, sizeof(number));
	if (number >= l->n || l->asked[number] != 1) {
		l->unasked++;
		return;
	}
	l->asked[number] = 2;
	l->answers++;
}

static void hear(struct stunload *l)
{
	uint8_t p[2048];
	ssize_t n;

	for (int i = 0; i < SOCKETS; i++)
		while ((n = recv(l->fd[i], p, sizeof(p), MSG_DONTWAIT)) >= 0)
			heard(l, p, (size_t)n);
}

static bool open_all(struct stunload *l, bool six, uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT };

	for (int i = 0; i < SOCKETS; i++) {
		l->fd[i] = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (l->fd[i] < 0 || connect(l->fd[i], six ? (struct sockaddr *)&in6 : (struct sockaddr *)&in,
					    six ? sizeof(in6) : sizeof(in)) < 0)
			return false;
	}
	return true;
}

static bool is_answered(struct stunload *l)
{
	struct pollfd f = { .fd = l->fd[0], .events = POLLIN };
	uint32_t number = l->n++;
	uint8_t p[STUN_REQUEST_LEN];

	question(p, number);
	l->asked[number] = 1;
	if (send(l->fd[0], p, sizeof(p), 0) < 0)
		return false;
	while (l->asked[number] != 2 && poll(&f, 1, 5000) == 1)
		hear(l); /* answers of before may still come */
	return l->asked[number] == 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", 1, NULL, 'p' }, { "six", 0, NULL, '6' }, { "rate", 1, NULL, 'r' }, { "seconds", 1, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	static const struct timespec pause = { .tv_nsec = ROUND_MSEC * 1000000L };
	unsigned long rate = 10000, seconds = 3;
	uint64_t from, msec;
	uint16_t port = 0;
	bool six = false;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'p')
			port = (uint16_t)strtoul(optarg, NULL, 10);
		else if (o == '6')
			six = true;
		else if (o == 'r')
			rate = strtoul(optarg, NULL, 10);
		else if (o == 's')
			seconds = strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (!port || !rate || !seconds || rate * (seconds + 1) >= ASKED_MAX || sodium_init() < 0)
		return 2;
	if (!open_all(&load, six, port)) {
		perror("stunload");
		return 2;
	}
	from = now_msec();
	while ((msec = now_msec() - from) < seconds * 1000) {
		while (load.n < rate * msec / 1000)
			send_one(&load);
		hear(&load);
		nanosleep(&pause, NULL);
	}
	sleep(4); /* one that was held up answers what it has, and has room again */
	hear(&load);
	o = is_answered(&load) ? 0 : 1;
	printf("questions %lu others %lu answers %lu unasked %lu longest %lu sent %lu back %lu\n", load.questions, load.others,
	       load.answers, load.unasked, load.longest, load.sent, load.back);
	return o;
}
