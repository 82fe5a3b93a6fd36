/*
 * flood: UDP datagrams that look like disco, from many ports; or pings of daemons inside the tunnel.
 *
 *   flood ADDRESS PORT PACKETS-A-SECOND SECONDS [DISCO-KEY]
 *   flood ADDRESS tsmp PACKETS-A-SECOND SECONDS
 *
 * Each has the magic, DISCO-KEY (64 hex digits) or a random key, and noise; or is a ping of TSMP's. Prints how many it
 * sent, and how many datagrams came back.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SOCKETS	   32
#define TSMP	   99 /* the protocol's number */
#define ROUND_MSEC 5

int main(int argc, char **argv)
{
	static const struct timespec pause = { .tv_nsec = ROUND_MSEC * 1000000L };
	struct sockaddr_in to = { .sin_family = AF_INET };
	unsigned long rate, seconds, sent = 0, back = 0;
	unsigned char p[150], key[32], in[2048];
	bool known = argc == 6, tsmp = argc == 5 && strcmp(argv[2], "tsmp") == 0;
	int n = tsmp ? 1 : SOCKETS; /* each of the raw ones would get every answer */
	struct timespec t, from;
	int fd[SOCKETS];
	ssize_t got;

	if (argc < 5 || sodium_init() < 0 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 ||
	    (known && sodium_hex2bin(key, sizeof(key), argv[5], strlen(argv[5]), NULL, NULL, NULL) < 0)) {
		fprintf(stderr, "usage: flood ADDRESS PORT|tsmp PACKETS-A-SECOND SECONDS [DISCO-KEY]\n");
		return 2;
	}
	to.sin_port = htons(tsmp ? 0 : (uint16_t)strtoul(argv[2], NULL, 10));
	rate = strtoul(argv[3], NULL, 10);
	seconds = strtoul(argv[4], NULL, 10);
	for (int i = 0; i < n; i++) {
		fd[i] = socket(AF_INET, (tsmp ? SOCK_RAW : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, tsmp ? TSMP : 0);
		if (fd[i] < 0 || connect(fd[i], (struct sockaddr *)&to, sizeof(to)) < 0) {
			perror("flood");
			return 1;
		}
	}
	randombytes_buf(p, sizeof(p));
	memcpy(p, tsmp ? "p" : "TS\xf0\x9f\x92\xac", tsmp ? 1 : 6);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (;;) {
		unsigned long due, msec;

		clock_gettime(CLOCK_MONOTONIC, &t);
		msec = (unsigned long)(t.tv_sec - from.tv_sec) * 1000 + (unsigned long)(t.tv_nsec / 1000000) -
		       (unsigned long)(from.tv_nsec / 1000000);
		if (msec >= seconds * 1000)
			break;
		for (due = rate * msec / 1000; sent < due; sent++) {
			memcpy(p + 38, &sent, sizeof(sent)); /* another nonce */
			if (known)
				memcpy(p + 6, key, sizeof(key));
			else
				randombytes_buf(p + 6, sizeof(key));
			send(fd[sent % (unsigned int)n], p, tsmp ? 9 : sizeof(p), 0);
		}
		nanosleep(&pause, NULL);
	}
	sleep(1); /* for what is on its way */
	for (int i = 0; i < n; i++)
		while ((got = recv(fd[i], in, sizeof(in), 0)) > 0 || errno != EAGAIN) /* or an error that ICMP told */
			back += got > 0;
	printf("sent %lu back %lu\n", sent, back);
	return 0;
}
