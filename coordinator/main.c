/* kernscale-coordinator: order of start and stop, and what it is told on its command line. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coordinator/coord.h"
#include "coordinator/front.h"
#include "coordinator/relays.h"
#include "lib/heap.h"
#include "lib/keyfile.h"
#include "lib/log.h"
#include "lib/tls.h"
#include "lib/user.h"

enum {
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
};

struct program {
	const char *config, *user, *verbose;
	bool check;
	struct coord coord;
	struct tls_ctx *tls;
	struct front *front;
	struct relays *relays;
};

static const char usage[] =
	"Usage: kernscale-coordinator [OPTION]...\n"
	"Coordination server of a Kernscale mesh: lets nodes in and tells them of each other.\n"
	"\n"
	"  -c, --config FILE   configuration (default " SETTINGS_PATH_DEFAULT ")\n"
	"      --check-config  read configuration and certificate, say what is wrong, and end\n"
	"      --user NAME     become this user (or UID:GID) once the port is open\n"
	"      --verbose LEVEL err, warning, notice, info or debug (default: log.level)\n"
	"      --version       print the version\n"
	"  -h, --help          print this\n";

static int parse_args(struct program *p, int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },  { "check-config", no_argument, NULL, 'C' },
		{ "user", required_argument, NULL, 'u' },    { "verbose", required_argument, NULL, 'v' },
		{ "version", no_argument, NULL, 'V' },	     { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	enum log_level level;
	int o;

	opterr = 0;
	while ((o = getopt_long(argc, argv, ":c:h", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			p->config = optarg;
			break;
		case 'C':
			p->check = true;
			break;
		case 'u':
			p->user = optarg;
			break;
		case 'v':
			p->verbose = optarg;
			break;
		case 'V':
			puts("kernscale-coordinator " KERNSCALE_VERSION);
			exit(0);
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fprintf(stderr, "kernscale-coordinator: %s '%s'; see kernscale-coordinator --help\n",
				o == ':' ? "no value for" : "unknown option", argv[optind - 1]);
			return -EINVAL;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "kernscale-coordinator: unknown word '%s'; see kernscale-coordinator --help\n",
			argv[optind]);
		return -EINVAL;
	}
	if (p->verbose && log_level_parse(p->verbose, &level) < 0) {
		fprintf(stderr,
			"kernscale-coordinator: --verbose: '%s' is none of err, warning, notice, info, debug\n",
			p->verbose);
		return -EINVAL;
	}
	return 0;
}

static void say_lines(enum log_level level, const char *path, struct buf *b)
{
	char *text = (char *)(uintptr_t)buf_str(b), *save = NULL;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save))
		log_at(level, "%s: %s", path, line);
}

static int load_settings(struct program *p)
{
	const char *path = p->config ? p->config : SETTINGS_PATH_DEFAULT;
	struct settings_report report = { 0 };
	enum log_level level;
	int r = settings_load(path, &p->coord.cfg, &report);

	say_lines(LOG_LEVEL_ERR, path, &report.problems);
	say_lines(LOG_LEVEL_WARNING, path, &report.warnings);
	settings_report_done(&report);
	if (r < 0 && !p->config && access(path, F_OK) < 0)
		log_err("an example to begin with is kernscale-coordinator.yaml in the documentation; --config "
			"names another file");
	if (r < 0)
		return r;
	level = p->coord.cfg.log_level;
	if (p->verbose)
		(void)log_level_parse(p->verbose, &level);
	log_set_level(level);
	return 0;
}

static int load_tls(struct program *p)
{
	const struct settings *cfg = &p->coord.cfg;
	int r;

	if (!cfg->tls_cert_path || !*cfg->tls_cert_path) {
		if (cfg->server_https)
			log_notice("no tls_cert_path: HTTP is served, something in front has to speak TLS");
		return 0;
	}
	r = tls_server_new(cfg->tls_cert_path, cfg->tls_key_path, &p->tls);
	if (r < 0)
		log_err("tls_cert_path, tls_key_path: %s", tls_error());
	return r;
}

/* Before anything is made that this user is to own. */
static int find_user(const char *spec, struct user *ret)
{
	int r;

	if (!spec) {
		if (geteuid() == 0)
			log_warning("running as root: give --user NAME, or start it by its unit");
		return 0;
	}
	r = user_parse(spec, ret);
	if (r == -ENOENT)
		log_err("--user: there is no user %s; useradd --system %s makes one", spec, spec);
	else if (r < 0)
		log_err("--user: '%s' is neither a name nor UID:GID", spec);
	if (r == 0 && geteuid() != 0 && geteuid() != ret->uid) {
		log_err("--user: only root can become %s", spec);
		r = -EPERM;
	}
	return r;
}

static int become_user(const char *spec, const struct user *u)
{
	int r = spec && u->uid ? user_become(u) : 0;

	return r < 0 ? log_err_errno(r, "cannot become user %s", spec) : 0;
}

/* The folder of the last part, for what is made at the first start; its owner's who is to write there. */
static void make_folder(const char *path, mode_t mode, const struct user *u)
{
	char dir[4096];
	char *slash;

	if (snprintf(dir, sizeof(dir), "%s", path) >= (int)sizeof(dir) || !(slash = strrchr(dir, '/')) || slash == dir)
		return;
	*slash = '\0';
	if (mkdir(dir, mode) < 0) {
		if (errno != EEXIST)
			log_debug("%s: %s", dir, strerror(errno)); /* whoever needs it says so */
		return;
	}
	if (chmod(dir, mode) < 0 ||
	    (u->uid && geteuid() == 0 && chown(dir, u->uid, u->gid) < 0))
		log_warning_errno(-errno, "%s", dir);
}

static int load_noise_key(struct program *p)
{
	const char *path = p->coord.cfg.noise_key_path;
	int r = keyfile_load(path, KEYFILE_LINE, &p->coord.noise_key);

	if (r == -EPERM)
		log_err("%s: others may read the private key: chmod 600 it", path);
	else if (r == -EBADMSG)
		log_err("%s: not a private key; nodes trust the old one, so it is not replaced", path);
	else if (r == -EACCES)
		log_err("%s: Permission denied for this user: it and its folder have to be the user's (chown)", path);
	else if (r < 0)
		log_err_errno(r, "%s", path);
	return r;
}

static void on_signal(void *data, int signo)
{
	struct program *p = data;

	if (signo != SIGHUP) {
		log_notice("stopping");
		loop_notify(p->coord.loop, "STOPPING=1");
		loop_exit(p->coord.loop, 0);
		return;
	}
	log_notice("reading certificate and relays again");
	if (p->tls && tls_server_reload(p->tls) < 0)
		log_warning("the certificate stays as it is: %s", tls_error());
	relays_reload(p->relays);
}

static void raise_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &l); /* fewer connections, no more */
	}
}

static int start(struct program *p)
{
	struct coord *c = &p->coord;
	char why[STORE_WHY_MAX] = "";
	struct user u = { 0 };
	int r;

	raise_files();
	umask(077);
	r = find_user(p->user, &u);
	if (r < 0)
		return r;
	r = loop_new(&c->loop);
	if (r < 0)
		return log_err_errno(r, "cannot make an event loop");
	r = load_tls(p);
	if (r < 0)
		return r;
	r = front_new(c, p->tls, why, &p->front);
	if (r < 0) {
		log_err("%s", why);
		return r;
	}
	make_folder(c->cfg.db_path, 0700, &u);
	make_folder(c->cfg.noise_key_path, 0700, &u);
	make_folder(c->cfg.unix_socket, 0755, &u);
	r = become_user(p->user, &u);
	if (r == 0)
		r = load_noise_key(p);
	if (r < 0)
		return r;
	r = coord_start(c, why);
	if (r < 0) {
		log_err("database %s: %s", c->cfg.db_path, *why ? why : strerror(-r));
		return r;
	}
	r = relays_new(c, p->tls, why, &p->relays);
	if (r == 0)
		r = front_open(p->front, why);
	if (r < 0)
		log_err("%s", why);
	return r;
}

static int run(struct program *p)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	struct loop_signal *s[ARRAY_SIZE(signals)] = { 0 };
	struct coord *c = &p->coord;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(signals) && r == 0; i++)
		r = loop_signal_new(c->loop, signals[i], on_signal, p, &s[i]);
	if (r == 0)
		r = loop_watchdog(c->loop);
	if (r >= 0) {
		log_notice("serving %s on %s: %zu nodes, %zu users", c->cfg.server_url, c->cfg.listen_addr,
			   c->reg.n_node, c->reg.n_user);
		loop_notify(c->loop, "READY=1");
		r = loop_run(c->loop);
		if (r < 0)
			log_err_errno(r, "cannot go on");
	}
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		loop_signal_free(s[i]);
	return r;
}

int main(int argc, char **argv)
{
	struct program p = { 0 };
	int r;

	if (parse_args(&p, argc, argv) < 0)
		return EXIT_USAGE;
	signal(SIGPIPE, SIG_IGN);
	heap_keep_small();
	if (key_init() < 0) {
		log_err("the system gives no randomness");
		return EXIT_FAILED;
	}
	user_hide_memory();
	if (load_settings(&p) < 0)
		return EXIT_FAILED;
	if (p.check) {
		r = load_tls(&p);
		if (r == 0)
			puts("kernscale-coordinator: the configuration is good");
		tls_ctx_unref(p.tls);
		settings_done(&p.coord.cfg);
		return r ? EXIT_FAILED : 0;
	}
	r = start(&p);
	if (r == 0)
		r = run(&p);
	front_free(p.front);
	relays_free(p.relays);
	coord_done(&p.coord);
	tls_ctx_unref(p.tls);
	loop_free(p.coord.loop);
	settings_done(&p.coord.cfg);
	return r ? EXIT_FAILED : 0;
}
