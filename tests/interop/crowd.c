/*
 * crowd: many connections to a Unix socket that are of no use to anybody.
 *
 *   crowd SOCKET COUNT SECONDS [TEXT [ROUND_MSEC]]
 *
 * Keeps COUNT connections open for that long, writes TEXT (with \r and \n as escapes) to each again and
 * again, every ROUND_MSEC (20), and reads nothing. What the other side closes is opened anew. Prints how
 * many it opened, and how many were open at the end.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define COUNT_MAX 4096
#define ROUND_MSEC_MAX 999
#define OPENS_PER_ROUND 4 /* so that it is the daemon that is busy, not this */

static int fds[COUNT_MAX];
static unsigned long opened;

static size_t unescape(char *text)
{
	char *out = text;

	for (const char *s = text; *s; s++) {
		if (s[0] == '\\' && (s[1] == 'r' || s[1] == 'n'))
			*out++ = *++s == 'r' ? '\r' : '\n';
		else
			*out++ = *s;
	}
	*out = '\0';
	return (size_t)(out - text);
}

static int open_one(const struct sockaddr_un *at)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && connect(fd, (const struct sockaddr *)at, sizeof(*at)) < 0) {
		close(fd);
		return -1;
	}
	opened += fd >= 0;
	return fd;
}

static bool is_closed(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_PEEK) == 0;
}

static void one_round(const struct sockaddr_un *at, size_t count, const char *text, size_t len)
{
	unsigned int opens = 0;

	for (size_t i = 0; i < count; i++) {
		if (fds[i] >= 0 && is_closed(fds[i])) {
			close(fds[i]);
			fds[i] = -1;
		}
		if (fds[i] < 0 && opens++ < OPENS_PER_ROUND)
			fds[i] = open_one(at);
		if (fds[i] >= 0 && len && send(fds[i], text, len, MSG_NOSIGNAL) < 0 && errno != EAGAIN) {
			close(fds[i]);
			fds[i] = -1;
		}
	}
}

int main(int argc, char **argv)
{
	struct timespec pause = { .tv_nsec = 20 * 1000000L };
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	size_t count, len, open_now = 0;
	struct timespec t;
	time_t end;

	if (argc < 4 || argc > 6 || strlen(argv[1]) >= sizeof(at.sun_path)) {
		fprintf(stderr, "usage: crowd SOCKET COUNT SECONDS [TEXT [ROUND_MSEC]]\n");
		return 2;
	}
	memcpy(at.sun_path, argv[1], strlen(argv[1]) + 1);
	count = strtoul(argv[2], NULL, 10);
	if (count > COUNT_MAX)
		count = COUNT_MAX;
	len = argc > 4 ? unescape(argv[4]) : 0;
	if (argc > 5)
		pause.tv_nsec = strtol(argv[5], NULL, 10) % (ROUND_MSEC_MAX + 1) * 1000000L;
	memset(fds, -1, sizeof(fds));
	clock_gettime(CLOCK_MONOTONIC, &t);
	end = t.tv_sec + (time_t)strtoul(argv[3], NULL, 10);
	while (t.tv_sec < end) {
		one_round(&at, count, argc > 4 ? argv[4] : "", len);
		nanosleep(&pause, NULL);
		clock_gettime(CLOCK_MONOTONIC, &t);
	}
	for (size_t i = 0; i < count; i++)
		open_now += fds[i] >= 0 && !is_closed(fds[i]);
	printf("opened %lu open %zu\n", opened, open_now);
	return 0;
}
