/* kernscaled: order of start and stop; nothing else. */
#include <errno.h>
#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/hold.h"
#include "daemon/kernel/privs.h"
#include "daemon/node.h"
#include "lib/heap.h"
#include "lib/key.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/user.h"

static void on_signal(void *data, int signo)
{
	log_info("%s: ending; the mesh stays up", strsignal(signo));
	loop_notify(data, "STOPPING=1");
	loop_exit(data, 0);
}

/* As root: folders for the user we become, then become it. */
static int give_up_root(const struct config *c)
{
	char error[PRIVS_ERROR_MAX];
	struct user u;
	int r = 0;

	if (geteuid() == 0) {
		r = privs_user_find(c->user, &u, error);
		if (r == 0 && !c->hold_filter)
			r = privs_own_folder(c->statedir, 0700, &u, error);
		if (r == 0 && !c->hold_filter)
			r = privs_own_folder(c->runtimedir, 0755, &u, error);
		if (r == 0)
			r = privs_drop(&u, error);
	}
	if (r == 0)
		r = privs_check(error);
	if (r < 0)
		log_err("%s", error);
	return r;
}

static int run(const struct config *c)
{
	CLEANUP(loop_free) struct loop *l = NULL;
	CLEANUP(loop_signal_free) struct loop_signal *term = NULL, *intr = NULL;
	CLEANUP(node_free) struct node *n = NULL;
	char error[NODE_ERROR_MAX];
	int r;

	r = loop_new(&l);
	if (r == 0)
		r = loop_signal_new(l, SIGTERM, on_signal, l, &term);
	if (r == 0)
		r = loop_signal_new(l, SIGINT, on_signal, l, &intr);
	if (r < 0)
		return log_err_errno(r, "cannot start");
	r = node_new(l, c, &n, error);
	if (r < 0) {
		log_err("%s", error);
		return r;
	}
	loop_watchdog(l);
	loop_notify(l, "READY=1");
	r = loop_run(l);
	if (r >= 0)
		node_hand_over(n);
	return r;
}

int main(int argc, char **argv)
{
	char error[CONFIG_ERROR_MAX];
	struct config c;
	int r;

	setlocale(LC_CTYPE, "C.UTF-8");
	r = config_load(argc, argv, &c, error);
	if (r < 0) {
		fprintf(stderr, "kernscaled: %s\n", error);
		return 2;
	}
	if (r > 0)
		return 0;
	if (c.check_only) {
		printf("kernscaled: settings are good\n");
		return 0;
	}
	log_set_level(c.log_level);
	umask(0077);
	signal(SIGPIPE, SIG_IGN);
	heap_keep_small();
	/* Big maps come and go: what is freed goes back at once, not into a heap that stays. */
	mallopt(M_MMAP_THRESHOLD, 64 * 1024);
	mallopt(M_TRIM_THRESHOLD, 64 * 1024);
	if (key_init() < 0) {
		log_err("no randomness on this machine");
		return 1;
	}
	user_hide_memory();
	if (give_up_root(&c) < 0)
		return 1;
	user_hide_memory(); /* a change of user makes a process dumpable again */
	if (c.hold_filter)
		return hold_filter(&c) < 0 ? 1 : 0;
	return run(&c) < 0 ? 1 : 0;
}
