/*
 * standin: as much of a service manager as kernscaled needs, for kernels under test that run none:
 * start notification, descriptor store, watchdog, restart. As systemd 252 does it.
 *
 *   standin [OPTION...] FOLDER COMMAND...
 *     --no-store        descriptors that come are closed (a unit without FileDescriptorStoreMax=)
 *     --watchdog MSEC   SIGABRT for who is silent for so long, and SIGKILL the next time
 *     --stop-post ARG   after each end, and before anything else, the command runs once more with ARG
 *                       behind it (ExecStopPost=); it gets none of what is kept
 *     --limit N         it is started N times at most (StartLimitBurst=): then the store is emptied,
 *                       and there is a file `failed`
 *
 * In FOLDER: `notify`, the socket; `pid` of the running command; `ready`, made at READY=1 and gone
 * with the process; `store`, the names of what is kept, one a line. While there is a file `hold` a
 * command that has ended is not started again. SIGTERM is `systemctl stop`: the command gets it, and
 * when it has ended the store is emptied. SIGHUP is `systemctl restart`: the same, but the store stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	STORE_MAX = 16,
	ARGS_MAX = 64,
	NAME_SIZE = 64,
	RESTART_MSEC = 100,
	KILL_MSEC = 10000, /* after SIGTERM */
	STALL_MSEC = 500,
	MESSAGE_SIZE = 4096,
};

struct standin {
	const char *folder;
	char **command;
	bool keeps;
	int watchdog_msec;
	char *stop_post;
	int limit, starts;

	int notify, signals;
	struct {
		int fd;
		char name[NAME_SIZE];
	} store[STORE_MAX];
	int n_store;
	pid_t child; /* 0: none */
	bool stopping, ready, aborted, failed;
	uint64_t heard, told_to_end, ended, looked;
};

static uint64_t now_msec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000U + (uint64_t)t.tv_nsec / 1000000U;
}

static void say(const char *what)
{
	printf("standin: %s\n", what);
	fflush(stdout);
}

static void die(const char *what)
{
	fprintf(stderr, "standin: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void path_of(const struct standin *s, const char *name, char out[static 108])
{
	if (snprintf(out, 108, "%s/%s", s->folder, name) >= 108) {
		errno = ENAMETOOLONG;
		die(s->folder);
	}
}

/* A whole file, or none for NULL. */
static void set_file(const struct standin *s, const char *name, const char *text)
{
	char path[108], beside[108];
	FILE *f;

	path_of(s, name, path);
	if (!text) {
		unlink(path);
		return;
	}
	path_of(s, ".new", beside);
	f = fopen(beside, "we");
	if (!f || fputs(text, f) < 0 || fclose(f) != 0 || rename(beside, path) < 0)
		die(path);
}

static bool has_file(const struct standin *s, const char *name)
{
	char path[108];

	path_of(s, name, path);
	return access(path, F_OK) == 0;
}

/* The store */

static void tell_store(const struct standin *s)
{
	char text[STORE_MAX * NAME_SIZE] = "";

	for (int i = 0; i < s->n_store; i++) {
		strcat(text, s->store[i].name);
		strcat(text, "\n");
	}
	set_file(s, "store", text);
}

static void store_remove(struct standin *s, const char *name)
{
	int kept = 0;

	for (int i = 0; i < s->n_store; i++)
		if (!name || strcmp(s->store[i].name, name) == 0)
			close(s->store[i].fd);
		else
			s->store[kept++] = s->store[i];
	s->n_store = kept;
	tell_store(s);
}

static void store_add(struct standin *s, const char *name, const int *fds, int n)
{
	for (int i = 0; i < n; i++) {
		if (!s->keeps || s->n_store == STORE_MAX) {
			close(fds[i]);
			continue;
		}
		s->store[s->n_store].fd = fds[i];
		snprintf(s->store[s->n_store++].name, NAME_SIZE, "%s", name);
	}
	tell_store(s);
}

/* Notification */

static int take_fds(struct msghdr *m, int *fds)
{
	int n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)n * sizeof(int));
	}
	return n;
}

static pid_t sender(struct msghdr *m)
{
	struct ucred u = { 0 };

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS)
			memcpy(&u, CMSG_DATA(c), sizeof(u));
	return u.pid;
}

static void obey(struct standin *s, char *text, const int *fds, int n)
{
	bool add = false, del = false;
	char name[NAME_SIZE] = "stored";

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		if (strcmp(line, "READY=1") == 0) {
			set_file(s, "ready", "");
			s->ready = true; /* from here on the watchdog counts */
			s->heard = now_msec();
		} else if (strcmp(line, "WATCHDOG=1") == 0)
			s->heard = now_msec();
		else if (strcmp(line, "FDSTORE=1") == 0)
			add = true;
		else if (strcmp(line, "FDSTOREREMOVE=1") == 0)
			del = true;
		else if (strncmp(line, "FDNAME=", 7) == 0)
			snprintf(name, sizeof(name), "%s", line + 7);
	}
	if (del)
		store_remove(s, name);
	if (add)
		store_add(s, name, fds, n);
	/* BARRIER=1: its descriptor is closed, and that is the answer. */
	for (int i = 0; i < n && !add; i++)
		close(fds[i]);
}

static void read_notify(struct standin *s)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(STORE_MAX * sizeof(int))];
	} control;
	char text[MESSAGE_SIZE];
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[STORE_MAX], n;
	ssize_t len;

	for (;;) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		len = recvmsg(s->notify, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (len < 0)
			return;
		n = take_fds(&m, fds);
		text[len] = '\0';
		if (sender(&m) == s->child) {
			obey(s, text, fds, n);
			continue;
		}
		for (int i = 0; i < n; i++)
			close(fds[i]);
	}
}

static void open_notify(struct standin *s)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int on = 1;

	path_of(s, "notify", un.sun_path);
	unlink(un.sun_path);
	s->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s->notify < 0 || bind(s->notify, (struct sockaddr *)&un, sizeof(un)) < 0 ||
	    chmod(un.sun_path, 0777) < 0 ||
	    setsockopt(s->notify, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		die(un.sun_path);
}

/* The command */

static void set_env(const char *name, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	setenv(name, text, 1);
}

static void execute(char **command)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execvp(command[0], command);
	die(command[0]);
}

static void become_command(const struct standin *s)
{
	char names[STORE_MAX * NAME_SIZE] = "", path[108];

	/* First out of the way, then to where they are looked for. */
	for (int i = 0; i < s->n_store; i++) {
		int high = fcntl(s->store[i].fd, F_DUPFD_CLOEXEC, 64 + i);

		if (high < 0)
			die("dup");
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ":" : "",
			 s->store[i].name);
	}
	for (int i = 0; i < s->n_store; i++)
		if (dup2(64 + i, 3 + i) < 0)
			die("dup2");
	if (s->n_store) {
		set_env("LISTEN_PID", getpid());
		set_env("LISTEN_FDS", s->n_store);
		setenv("LISTEN_FDNAMES", names, 1);
	}
	path_of(s, "notify", path);
	setenv("NOTIFY_SOCKET", path, 1);
	if (s->watchdog_msec) {
		set_env("WATCHDOG_USEC", s->watchdog_msec * 1000L);
		set_env("WATCHDOG_PID", getpid());
	}
	execute(s->command);
}

static void become_stop_post(const struct standin *s)
{
	char *args[ARGS_MAX];
	int n = 0;

	for (; s->command[n] && n < ARGS_MAX - 2; n++)
		args[n] = s->command[n];
	args[n++] = s->stop_post;
	args[n] = NULL;
	execute(args);
}

static void stop_post(const struct standin *s)
{
	uint64_t began = now_msec();
	int status = 0;
	char text[64];
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0)
		become_stop_post(s);
	waitpid(pid, &status, 0);
	snprintf(text, sizeof(text), "%s: status %d after %d ms", s->stop_post, status,
		 (int)(now_msec() - began));
	say(text);
}

static void give_up(struct standin *s)
{
	store_remove(s, NULL);
	set_file(s, "failed", "");
	s->failed = true;
	say("started too often: the store is empty");
}

static void start(struct standin *s)
{
	char text[32];

	if (s->limit && s->starts++ == s->limit) {
		give_up(s);
		return;
	}
	s->child = fork();
	if (s->child < 0)
		die("fork");
	if (s->child == 0)
		become_command(s);
	s->heard = now_msec();
	s->told_to_end = 0;
	s->ready = s->aborted = false;
	snprintf(text, sizeof(text), "%d\n", (int)s->child);
	set_file(s, "pid", text);
}

static void reap(struct standin *s)
{
	char text[64];
	int status;

	if (!s->child || waitpid(s->child, &status, WNOHANG) != s->child)
		return;
	read_notify(s); /* what it said last counts */
	snprintf(text, sizeof(text), WIFSIGNALED(status) ? "ended by signal %d" : "ended with %d",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	say(text);
	s->child = 0;
	s->ended = now_msec();
	set_file(s, "ready", NULL);
	set_file(s, "pid", NULL);
	if (s->stop_post)
		stop_post(s);
}

static void read_signals(struct standin *s)
{
	struct signalfd_siginfo i;

	while (read(s->signals, &i, sizeof(i)) == sizeof(i)) {
		if (i.ssi_signo == SIGCHLD)
			continue;
		s->stopping |= i.ssi_signo == SIGTERM;
		say(s->stopping ? "stop" : "restart");
		s->told_to_end = now_msec();
		if (s->child)
			kill(s->child, SIGTERM);
	}
}

static void watch(struct standin *s)
{
	uint64_t now = now_msec();

	/* While this did not run, what it watches had no turn either. */
	if (s->looked && now - s->looked > STALL_MSEC)
		s->heard = s->heard + (now - s->looked) < now ? s->heard + (now - s->looked) : now;
	s->looked = now;
	if (s->child && s->told_to_end && now - s->told_to_end > KILL_MSEC) {
		say("killed, since it did not end");
		s->told_to_end = now;
		kill(s->child, SIGKILL);
	}
	if (s->child && s->ready && s->watchdog_msec && now - s->heard > (uint64_t)s->watchdog_msec) {
		say("killed, since it was silent");
		kill(s->child, s->aborted ? SIGKILL : SIGABRT); /* who is stopped ends by SIGKILL alone */
		s->heard = now;
		s->aborted = true;
	}
	if (!s->child && !s->stopping && !s->failed && now - s->ended >= RESTART_MSEC && !has_file(s, "hold"))
		start(s);
}

static char **read_options(struct standin *s, char **argv)
{
	for (argv++; *argv && strncmp(*argv, "--", 2) == 0; argv++) {
		if (strcmp(*argv, "--no-store") == 0)
			s->keeps = false;
		else if (strcmp(*argv, "--watchdog") == 0 && argv[1])
			s->watchdog_msec = atoi(*++argv);
		else if (strcmp(*argv, "--stop-post") == 0 && argv[1])
			s->stop_post = *++argv;
		else if (strcmp(*argv, "--limit") == 0 && argv[1])
			s->limit = atoi(*++argv);
		else
			break;
	}
	return argv;
}

int main(int argc, char **argv)
{
	struct standin s = { .keeps = true };
	sigset_t set;

	(void)argc;
	argv = read_options(&s, argv);
	if (!argv[0] || !argv[1] || argv[0][0] == '-') {
		fprintf(stderr, "usage: standin [--no-store] [--watchdog MSEC] [--stop-post ARG] [--limit N] "
				"FOLDER COMMAND...\n");
		return 2;
	}
	s.folder = argv[0];
	s.command = argv + 1;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s.signals < 0)
		die("signalfd");
	set_file(&s, "failed", NULL);
	open_notify(&s);
	tell_store(&s);
	while (!s.stopping || s.child) {
		struct pollfd p[] = { { s.notify, POLLIN, 0 }, { s.signals, POLLIN, 0 } };

		watch(&s);
		poll(p, 2, 20);
		read_notify(&s);
		read_signals(&s);
		reap(&s);
	}
	store_remove(&s, NULL);
	say("the store is empty");
	return 0;
}
