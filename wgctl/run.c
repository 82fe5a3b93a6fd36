#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "wgctl/cli.h"
#include "wgctl/out.h"

static int set_color(struct cli *c)
{
	const char *when = cli_text(c, "color", "auto"), *no = getenv("NO_COLOR"),
		   *term = getenv("TERM");

	c->terminal = isatty(STDOUT_FILENO);
	if (!strcmp(when, "always"))
		c->color = true;
	else if (!strcmp(when, "auto"))
		c->color = c->terminal && !(no && *no) && !(term && !strcmp(term, "dumb"));
	else if (strcmp(when, "never") != 0)
		return cli_fail(c, CLI_EXIT_USAGE,
				"--color wants auto, always or never, not \"%s\"", when);
	return CLI_EXIT_GOOD;
}

static int print_help(const struct cli *c)
{
	struct buf b = { 0 };
	int r;

	cli_help(c, &b);
	r = out_flush(c->out, &b);
	buf_done(&b);
	return r < 0 ? CLI_EXIT_FAILED : CLI_EXIT_GOOD;
}

static int run(struct cli *c)
{
	int r = set_color(c);

	if (r != CLI_EXIT_GOOD)
		return r;
	if (c->help)
		return print_help(c);
	if (cli_has(c, "version"))
		return cmd_version(c);
	r = c->path[c->depth - 1]->run(c);
	if (fflush(c->out) != 0 && r == CLI_EXIT_GOOD)
		r = cli_fail(c, CLI_EXIT_FAILED, "cannot write the answer: %s", strerror(errno));
	return r;
}

int cli_main(int argc, char **argv)
{
	struct cli c = { .out = stdout, .err = stderr };
	char why[CLI_WHY_MAX];
	int secrets, r;

	/* Before anything else: every instant counts that a key stands where ps can see it. */
	secrets = cli_wipe_secrets(&cli_root, argc, argv);
	if (secrets < 0)
		return cli_fail(&c, CLI_EXIT_FAILED, "out of memory");
	signal(SIGPIPE, SIG_DFL);
	setlocale(LC_TIME, "C");
	r = cli_parse(&cli_root, argc, argv, &c, why);
	if (secrets > 0)
		cli_warn(&c, "warning: a key in the argument list can be seen by other users and "
			     "stays in the shell's "
			     "history; use --auth-key=file:PATH");
	if (r != CLI_EXIT_GOOD) {
		r = cli_fail(&c, r, "%s", why);
	} else {
		curl_global_init(CURL_GLOBAL_NOTHING); /* no TLS in here: a Unix socket only */
		r = run(&c);
		curl_global_cleanup();
	}
	cli_done(&c);
	return r;
}
