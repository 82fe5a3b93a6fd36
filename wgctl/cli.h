#pragma once
/*
 * cli: what the commands of wgctl share: the command table, parsed arguments, exit statuses.
 *
 * A command gets its arguments already checked against its row of the table, prints its result to
 * cli->out, and says one line on cli->err when it fails. No command exits by itself.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/buf.h"
#include "lib/cleanup.h"

#define CLI_SOCKET	 "/run/kernscale/kernscaled.sock"
#define CLI_ADMIN_SOCKET "/run/kernscale-coordinator/admin.sock"
#define CLI_OPTS_MAX	 64 /* given in one command line */
#define CLI_LEVELS_MAX	 4

/* Documented in wgctl(8): scripts depend on them. */
enum cli_exit {
	CLI_EXIT_GOOD = 0,
	CLI_EXIT_FAILED = 1,
	CLI_EXIT_USAGE = 2,
	CLI_EXIT_UNREACHABLE = 3, /* no daemon, or the mesh is stopped */
	CLI_EXIT_LOGIN = 4,	  /* not logged in, or not approved */
	CLI_EXIT_TIMEOUT = 5,
	CLI_EXIT_REFUSED = 6,
};

enum cli_opt_kind {
	CLI_OPT_BOOL,	  /* --x, --x=true, --x=false */
	CLI_OPT_TEXT,
	CLI_OPT_INT,	  /* 0 … 2^31-1 */
	CLI_OPT_DURATION, /* 30s, 1m30s, 24h, 90d, 0 */
};

struct cli_opt {
	const char *name;  /* NULL: only a letter */
	const char *alias; /* other spelling, or NULL */
	char letter;	   /* or 0 */
	enum cli_opt_kind kind;
	bool secret; /* its value leaves the argument vector at once */
	bool many;   /* may be given more than once */
	bool hidden;
	const char *value; /* what stands for the value in the help */
	const char *help;
	/* Known for the sake of stock's users, acted on only as this: any other value is
	 * refused. */
	const char *only;
};

struct cli;

struct cli_command {
	const char *name;
	const char *aliases; /* "new c", or NULL */
	const char *args;    /* of the usage line */
	const char *summary;
	const char *more; /* further help, or NULL */
	const struct cli_opt *opts;
	size_t n_opts;
	const struct cli_command *sub;
	size_t n_sub;
	unsigned int min_args, max_args;
	const char *complete; /* "peers" = arguments are names of peers */
	bool hidden;
	int (*run)(struct cli *c);
};

struct cli_given {
	const struct cli_opt *opt;
	const char *value; /* borrowed from argv; "true"/"false" for flags */
};

struct cli {
	FILE *out, *err;
	bool color, terminal; /* of out */
	const struct cli_command *path[CLI_LEVELS_MAX]; /* root first */
	size_t depth;
	struct cli_given given[CLI_OPTS_MAX];
	size_t n_given;
	const char **args; /* positional */
	size_t n_args;
	bool help;
};

extern const struct cli_command cli_root; /* table.c */

/* The whole program: the command line apart, one command run, its exit status. Apart from main() so that
 * tests can be the program. */
int cli_main(int argc, char **argv);

/*
 * Takes argc/argv apart. CLI_EXIT_GOOD, or CLI_EXIT_USAGE with the sentence in why. Borrows argv.
 * cli->help is set when help was asked for (the rest is then not checked).
 */
#define CLI_WHY_MAX 320
int cli_parse(const struct cli_command *root, int argc, char **argv, struct cli *ret,
	      char why[static CLI_WHY_MAX]);
void cli_done(struct cli *c);
/* The name most like word, or NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *names, size_t n);
void cli_help(const struct cli *c, struct buf *out);

/*
 * Secret values in argv are copied away and overwritten where they stood, so that ps and /proc do not
 * show them, and whole auth keys in other places; argv then points at the copies. Gives how many of the values there
 * were; negative errno.
 */
int cli_wipe_secrets(const struct cli_command *root, int argc, char **argv);

bool cli_has(const struct cli *c, const char *name);
const char *cli_text(const struct cli *c, const char *name, const char *dflt);
bool cli_bool(const struct cli *c, const char *name, bool dflt);
long cli_int(const struct cli *c, const char *name, long dflt);
int64_t cli_msec(const struct cli *c, const char *name, int64_t dflt_msec);

/* One line on err, "wgctl: …", control characters escaped; gives status back. */
int cli_fail(const struct cli *c, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void cli_warn(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The commands, one file each. */
int cmd_up(struct cli *c);
int cmd_down(struct cli *c);
int cmd_logout(struct cli *c);
int cmd_status(struct cli *c);
int cmd_ping(struct cli *c);
int cmd_ip(struct cli *c);
int cmd_netcheck(struct cli *c);
int cmd_version(struct cli *c);
int cmd_wait(struct cli *c);
int cmd_whois(struct cli *c);
int cmd_completion(struct cli *c);
int cmd_complete(struct cli *c);
int cmd_admin_users(struct cli *c);
int cmd_admin_keys(struct cli *c);
int cmd_admin_nodes(struct cli *c);
int cmd_admin_health(struct cli *c);
