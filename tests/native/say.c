/*
 * say: what a server on a Unix socket makes of bytes that no client would send.
 *
 *   say SOCKET [SECONDS]
 *
 * Sends all of its input, whatever it is, reads meanwhile, and prints what it got when the other side ends the
 * connection, or nothing more has come for a second behind an answer, or after SECONDS (20).
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX (16u << 20)

static size_t read_all(char *p, size_t max)
{
	size_t n = 0;
	ssize_t k;

	while (n < max && (k = read(0, p + n, max - n)) > 0)
		n += (size_t)k;
	return n;
}

/* False: the connection is over. */
static bool give(int fd, const char *p, size_t n, size_t *sent)
{
	ssize_t k = send(fd, p + *sent, n - *sent, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (k > 0)
		*sent += (size_t)k;
	return k > 0 || errno == EAGAIN || errno == EPIPE; /* its last words can still be read */
}

static bool take(int fd)
{
	char in[65536];
	ssize_t k = recv(fd, in, sizeof(in), MSG_DONTWAIT);

	if (k > 0)
		fwrite(in, 1, (size_t)k, stdout);
	return k > 0 || (k < 0 && errno == EAGAIN);
}

int main(int argc, char **argv)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct pollfd f = { .events = POLLIN };
	char *out = malloc(INPUT_MAX);
	size_t n, sent = 0;
	bool heard = false;
	time_t end;

	if (argc < 2 || argc > 3 || strlen(argv[1]) >= sizeof(at.sun_path) || !out) {
		fprintf(stderr, "usage: say SOCKET [SECONDS]\n");
		return 2;
	}
	memcpy(at.sun_path, argv[1], strlen(argv[1]) + 1);
	n = read_all(out, INPUT_MAX);
	f.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (f.fd < 0 || connect(f.fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		perror("say");
		return 1;
	}
	end = time(NULL) + (argc == 3 ? strtol(argv[2], NULL, 10) : 20);
	while (time(NULL) < end) {
		f.events = (short)(POLLIN | (sent < n ? POLLOUT : 0));
		if (poll(&f, 1, 1000) <= 0 && heard)
			break;
		if ((f.revents & POLLOUT) && !give(f.fd, out, n, &sent))
			break;
		if (f.revents & (POLLIN | POLLHUP | POLLERR)) {
			if (!take(f.fd))
				break;
			heard = true;
		}
	}
	free(out);
	return 0;
}
