/*
 * squatter: a user who has the names of others' abstract sockets, and listens there.
 *
 *   squatter NAME…
 *
 * Every type of socket has names of its own: it takes each NAME for all of them, or ends with 1; until it is killed.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int squat(const char *name, int type)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t len = strlen(name);
	int fd = socket(AF_UNIX, type, 0);

	if (fd < 0 || len >= sizeof(un.sun_path))
		return -1;
	memcpy(un.sun_path + 1, name, len);
	if (bind(fd, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)) < 0)
		return -1;
	return type == SOCK_DGRAM ? 0 : listen(fd, 1);
}

int main(int argc, char **argv)
{
	static const int types[] = { SOCK_DGRAM, SOCK_STREAM, SOCK_SEQPACKET };

	for (int i = 1; i < argc; i++)
		for (size_t t = 0; t < sizeof(types) / sizeof(*types); t++)
			if (squat(argv[i], types[t]) < 0) {
				perror(argv[i]);
				return 1;
			}
	printf("it has them\n");
	fflush(stdout);
	for (;;)
		pause();
}
