#include "wgctl/cli.h"

#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "wgctl/out.h"

/* Damerau-Levenshtein without the transposition matrix: rows of short words. */
static unsigned int distance(const char *a, const char *b)
{
	enum { MAX_WORD = 40 };
	unsigned int row[MAX_WORD + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > MAX_WORD || lb > MAX_WORD)
		return MAX_WORD;
	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned int)j;
	for (size_t i = 1; i <= la; i++) {
		unsigned int diagonal = row[0];

		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= lb; j++) {
			unsigned int change = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			row[j] = MIN(change, MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[lb];
}

const char *cli_nearest(const char *word, const char *const *names, size_t n)
{
	unsigned int best = (unsigned int)MAX(2, strlen(word) / 3) + 1;
	const char *ret = NULL;

	for (size_t i = 0; i < n; i++) {
		unsigned int d = names[i] ? distance(word, names[i]) : best;

		if (d < best) {
			best = d;
			ret = names[i];
		}
	}
	return ret;
}

static bool has_word(const char *words, const char *w)
{
	size_t n = strlen(w);

	for (const char *p = words; p && *p; p += strcspn(p, " "), p += *p == ' ')
		if (strcspn(p, " ") == n && !strncmp(p, w, n))
			return true;
	return false;
}

static const struct cli_command *find_command(const struct cli_command *in, const char *name)
{
	for (size_t i = 0; i < in->n_sub; i++)
		if (!strcmp(in->sub[i].name, name) || has_word(in->sub[i].aliases, name))
			return &in->sub[i];
	return NULL;
}

static bool opt_is(const struct cli_opt *o, const char *name, size_t len)
{
	if (o->name && strlen(o->name) == len && !strncmp(o->name, name, len))
		return true;
	if (o->alias && strlen(o->alias) == len && !strncmp(o->alias, name, len))
		return true;
	return len == 1 && o->letter == *name;
}

/* An option of the command or of one above it. */
static const struct cli_opt *find_opt(const struct cli *c, const char *name, size_t len)
{
	for (size_t l = c->depth; l-- > 0;)
		for (size_t i = 0; i < c->path[l]->n_opts; i++)
			if (opt_is(&c->path[l]->opts[i], name, len))
				return &c->path[l]->opts[i];
	return NULL;
}

static void why_printf(char why[static CLI_WHY_MAX], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void why_printf(char why[static CLI_WHY_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, CLI_WHY_MAX, fmt, ap);
	va_end(ap);
}

/* "wgctl admin users": how the command is called that the line got to. */
static const char *command_path(const struct cli *c, char out[static 64])
{
	size_t n = 0;

	for (size_t i = 0; i < c->depth && n < 64; i++)
		n += (size_t)snprintf(out + n, 64 - n, "%s%s", i ? " " : "", c->path[i]->name);
	return out;
}

static int unknown_opt(const struct cli *c, const char *name, size_t len,
		       char why[static CLI_WHY_MAX])
{
	const char *names[128];
	const char *near;
	char word[64], path[64];
	size_t n = 0;

	snprintf(word, sizeof(word), "%.*s", (int)len, name);
	for (size_t l = 0; l < c->depth; l++)
		for (size_t i = 0; i < c->path[l]->n_opts && n < ARRAY_SIZE(names); i++)
			if (c->path[l]->opts[i].name)
				names[n++] = c->path[l]->opts[i].name;
	near = len > 1 ? cli_nearest(word, names, n) : NULL;
	why_printf(why, "unknown flag %s%s; %s%s%s", len == 1 ? "-" : "--", word,
		   near ? "did you mean --" : "see ", near ? near : command_path(c, path),
		   near ? "?" : " --help");
	return CLI_EXIT_USAGE;
}

static int unknown_command(const struct cli *c, const char *word, char why[static CLI_WHY_MAX])
{
	const struct cli_command *in = c->path[c->depth - 1];
	const char *names[64];
	const char *near;
	char path[64];
	size_t n = 0;

	for (size_t i = 0; i < in->n_sub && n < ARRAY_SIZE(names); i++)
		if (!in->sub[i].hidden)
			names[n++] = in->sub[i].name;
	near = cli_nearest(word, names, n);
	why_printf(why, "unknown command \"%s\"%s%s; %s%s%s", word, c->depth > 1 ? " of " : "",
		   c->depth > 1 ? in->name : "", near ? "did you mean " : "see ",
		   near ? near : command_path(c, path), near ? "?" : " --help");
	return CLI_EXIT_USAGE;
}

static const char *opt_label(const struct cli_opt *o, char out[static 48])
{
	if (o->name)
		snprintf(out, 48, "--%s", o->name);
	else
		snprintf(out, 48, "-%c", o->letter);
	return out;
}

static bool bool_parse(const char *s, bool *ret)
{
	static const char *const yes[] = { "true", "1", "t", "T", "TRUE", "True", "yes", "on" };
	static const char *const no[] = { "false", "0", "f", "F", "FALSE", "False", "no", "off" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcmp(s, yes[i]))
			return *ret = true, true;
		if (!strcmp(s, no[i]))
			return *ret = false, true;
	}
	return false;
}

static bool int_parse(const char *s, long *ret)
{
	char *end;
	long v;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	v = strtol(s, &end, 10);
	if (*end || errno || v > INT32_MAX)
		return false;
	*ret = v;
	return true;
}

static int check_value(const struct cli_opt *o, const char *v, char why[static CLI_WHY_MAX])
{
	char label[48];
	int64_t msec;
	bool b = false;
	long n;

	opt_label(o, label);
	if (o->kind == CLI_OPT_BOOL && !bool_parse(v, &b))
		return why_printf(why, "%s wants true or false, not \"%s\"", label, v),
		       CLI_EXIT_USAGE;
	if (o->kind == CLI_OPT_INT && !int_parse(v, &n))
		return why_printf(why, "%s wants a number, not \"%s\"", label, v), CLI_EXIT_USAGE;
	if (o->kind == CLI_OPT_DURATION && out_duration_parse(v, &msec) < 0)
		return why_printf(why, "%s wants a duration like 30s, 5m, 24h or 90d, not \"%s\"",
				  label, v),
		       CLI_EXIT_USAGE;
	if (!o->only)
		return CLI_EXIT_GOOD;
	if (o->kind == CLI_OPT_BOOL ? b != !strcmp(o->only, "true") : strcmp(v, o->only) != 0) {
		why_printf(why, "%s=%s is not supported yet, only %s=%s is; leave the flag out",
			   label, o->secret ? "…" : v, label, o->only);
		return CLI_EXIT_FAILED;
	}
	return CLI_EXIT_GOOD;
}

static int give(struct cli *c, const struct cli_opt *o, const char *v, char why[static CLI_WHY_MAX])
{
	char label[48];

	for (size_t i = 0; i < c->n_given && !o->many; i++)
		if (c->given[i].opt == o)
			return why_printf(why, "%s was given twice", opt_label(o, label)),
			       CLI_EXIT_USAGE;
	if (c->n_given == ARRAY_SIZE(c->given))
		return why_printf(why, "too many flags"), CLI_EXIT_USAGE;
	c->given[c->n_given++] = (struct cli_given){ o, v };
	return check_value(o, v, why);
}

/* One flag at argv[i]; *i moves on when the value is the next word. */
static int parse_flag(struct cli *c, int argc, char **argv, int *i, char why[static CLI_WHY_MAX])
{
	const char *word = argv[*i], *name = word + (word[1] == '-' ? 2 : 1);
	const char *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct cli_opt *o = find_opt(c, name, len);
	char label[48];

	if ((len == 4 && !strncmp(name, "help", 4)) || (len == 1 && *name == 'h')) {
		c->help = true;
		return CLI_EXIT_GOOD;
	}
	if (!o && word[1] != '-' && len > 1) {
		o = find_opt(c, name, 1); /* -uNAME */
		if (o && o->kind != CLI_OPT_BOOL)
			return give(c, o, name + 1, why);
		o = NULL;
	}
	if (!o)
		return unknown_opt(c, name, len, why);
	if (eq)
		return give(c, o, eq + 1, why);
	if (o->kind == CLI_OPT_BOOL)
		return give(c, o, "true", why);
	if (*i + 1 >= argc)
		return why_printf(why, "%s needs a value", opt_label(o, label)), CLI_EXIT_USAGE;
	return give(c, o, argv[++*i], why);
}

static int check_args(const struct cli *c, char why[static CLI_WHY_MAX])
{
	const struct cli_command *cmd = c->path[c->depth - 1];
	char path[64];

	if (cmd->n_sub) {
		why_printf(why, "%s%s; see %s --help", c->depth == 1 ? "" : cmd->name,
			   c->depth == 1 ? "a command is missing" : " needs a command",
			   command_path(c, path));
		return CLI_EXIT_USAGE;
	}
	if (c->n_args < cmd->min_args)
		return why_printf(why, "%s: missing argument; usage: %s %s", cmd->name,
				  command_path(c, path), cmd->args),
		       CLI_EXIT_USAGE;
	if (c->n_args > cmd->max_args)
		return why_printf(why, "%s: unexpected argument \"%s\"; see %s --help", cmd->name,
				  c->args[cmd->max_args], command_path(c, path)),
		       CLI_EXIT_USAGE;
	return CLI_EXIT_GOOD;
}

int cli_parse(const struct cli_command *root, int argc, char **argv, struct cli *ret,
	      char why[static CLI_WHY_MAX])
{
	bool flags = true;
	int r, later = CLI_EXIT_GOOD;
	char later_why[CLI_WHY_MAX] = "";

	why[0] = '\0';
	ret->path[0] = root;
	ret->depth = 1;
	ret->args = calloc((size_t)argc + 1, sizeof(*ret->args));
	if (!ret->args)
		return why_printf(why, "out of memory"), CLI_EXIT_FAILED;
	for (int i = 1; i < argc; i++) {
		const struct cli_command *cmd = ret->path[ret->depth - 1];

		if (flags && !strcmp(argv[i], "--")) {
			flags = false;
		} else if (flags && argv[i][0] == '-' && argv[i][1]) {
			r = parse_flag(ret, argc, argv, &i, why);
			/* A wish that cannot be met is told after mistakes of the line were
			 * looked for. */
			if (r == CLI_EXIT_USAGE)
				return r;
			if (r == CLI_EXIT_FAILED && later == CLI_EXIT_GOOD) {
				later = r;
				memcpy(later_why, why, sizeof(later_why));
			}
			why[0] = '\0';
		} else if (cmd->n_sub) {
			/* "wgctl help ping" is "wgctl ping --help". */
			if (ret->depth == 1 && !ret->help && !strcmp(argv[i], "help")) {
				ret->help = true;
				continue;
			}
			cmd = find_command(cmd, argv[i]);
			if (!cmd)
				return unknown_command(ret, argv[i], why);
			ret->path[ret->depth++] = cmd;
			if (cmd->hidden && cmd->max_args > 64)
				flags = false; /* __complete takes any words */
		} else {
			ret->args[ret->n_args++] = argv[i];
		}
	}
	if (ret->help || cli_has(ret, "version"))
		return CLI_EXIT_GOOD;
	r = check_args(ret, why);
	if (r == CLI_EXIT_GOOD && later != CLI_EXIT_GOOD) {
		memcpy(why, later_why, sizeof(later_why));
		r = later;
	}
	return r;
}

void cli_done(struct cli *c)
{
	free(c->args);
	c->args = NULL;
}

static int copy_secret(char **word, size_t from)
{
	size_t len = strlen(*word);
	char *copy = strdup(*word);

	if (!copy)
		return -ENOMEM;
	sodium_memzero(*word + from, len - from);
	*word = copy; /* kept until the process ends: argv has no owner who could free it */
	return 1;
}

static bool secret_name(const struct cli_command *in, const char *name, size_t len)
{
	for (size_t i = 0; i < in->n_opts; i++)
		if (in->opts[i].secret && opt_is(&in->opts[i], name, len))
			return true;
	for (size_t i = 0; i < in->n_sub; i++)
		if (secret_name(&in->sub[i], name, len))
			return true;
	return false;
}

static bool value_is_public(const char *v)
{
	return !strcmp(v, "-") || !strncmp(v, "file:", 5) || !*v;
}

/* Whole auth keys, where a command takes the number of one. */
static int wipe_key(char **word)
{
	static const char *const kinds[] = { "hskey-auth-", "tskey-auth-" };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const char *key = strstr(*word, kinds[i]);

		if (key && !strchr(key, '*'))
			return copy_secret(word, (size_t)(key - *word));
	}
	return 0;
}

int cli_wipe_secrets(const struct cli_command *root, int argc, char **argv)
{
	int n = 0, r;

	for (int i = 1; i < argc; i++) {
		const char *name = argv[i] + (argv[i][0] == '-' ? 1 + (argv[i][1] == '-') : 0);
		size_t len = strcspn(name, "=");

		if (name == argv[i] || !secret_name(root, name, len)) {
			r = wipe_key(&argv[i]);
			if (r < 0)
				return r;
			continue;
		}
		if (name[len] == '=') {
			if (value_is_public(name + len + 1))
				continue;
			r = copy_secret(&argv[i], (size_t)(name - argv[i]) + len + 1);
		} else {
			if (i + 1 >= argc || value_is_public(argv[i + 1]))
				continue;
			r = copy_secret(&argv[++i], 0);
		}
		if (r < 0)
			return r;
		n += r;
	}
	return n;
}

static const struct cli_given *given(const struct cli *c, const char *name)
{
	for (size_t i = 0; i < c->n_given; i++)
		if (opt_is(c->given[i].opt, name, strlen(name)))
			return &c->given[i];
	return NULL;
}

bool cli_has(const struct cli *c, const char *name)
{
	return given(c, name);
}

const char *cli_text(const struct cli *c, const char *name, const char *dflt)
{
	const struct cli_given *g = given(c, name);

	return g ? g->value : dflt;
}

bool cli_bool(const struct cli *c, const char *name, bool dflt)
{
	const struct cli_given *g = given(c, name);
	bool v = dflt;

	if (g)
		bool_parse(g->value, &v);
	return v;
}

long cli_int(const struct cli *c, const char *name, long dflt)
{
	const struct cli_given *g = given(c, name);
	long v = dflt;

	if (g)
		int_parse(g->value, &v);
	return v;
}

int64_t cli_msec(const struct cli *c, const char *name, int64_t dflt_msec)
{
	const struct cli_given *g = given(c, name);
	int64_t v = dflt_msec;

	if (g)
		(void)out_duration_parse(g->value, &v);
	return v;
}

static void __attribute__((format(printf, 2, 0)))
say(const struct cli *c, const char *fmt, va_list ap)
{
	struct buf safe = { 0 };
	char line[1024];

	vsnprintf(line, sizeof(line), fmt, ap);
	out_safe(&safe, line);
	if (!safe.bad)
		fprintf(c->err, "wgctl: %s\n", buf_str(&safe));
	buf_done(&safe);
}

int cli_fail(const struct cli *c, int status, const char *fmt, ...)
{
	va_list ap;

	fflush(c->out); /* what was found comes before why it ended */
	va_start(ap, fmt);
	say(c, fmt, ap);
	va_end(ap);
	return status;
}

void cli_warn(const struct cli *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(c, fmt, ap);
	va_end(ap);
}

static void help_opts(const struct cli_command *cmd, struct buf *out)
{
	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct cli_opt *o = &cmd->opts[i];
		char left[64];
		int n = 0;

		if (o->hidden || o->only)
			continue;
		if (o->letter)
			n = snprintf(left, sizeof(left), "-%c%s", o->letter, o->name ? ", " : "");
		if (o->name)
			n += snprintf(left + n, sizeof(left) - (size_t)n, "--%s", o->name);
		if (o->kind != CLI_OPT_BOOL)
			snprintf(left + n, sizeof(left) - (size_t)n, " %s",
				 o->value ? o->value : "VALUE");
		buf_printf(out, "  %-28s %s\n", left, o->help ? o->help : "");
	}
}

/* Known flags with one value: a line of its own, so that nobody takes them for offers. */
static void help_only(const struct cli_command *cmd, struct buf *out)
{
	size_t column = 0;

	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct cli_opt *o = &cmd->opts[i];
		char label[96];
		size_t n;

		if (!o->only)
			continue;
		n = (size_t)snprintf(label, sizeof(label), "--%s=%s", o->name, o->only);
		if (!column)
			buf_put_str(out, "\nknown, and accepted only as they are:\n ");
		else if (column + n > 90)
			buf_put_str(out, "\n "), column = 0;
		buf_printf(out, " %s", label);
		column += n + 1;
	}
	if (column)
		buf_put_u8(out, '\n');
}

static bool shows_opts(const struct cli_command *cmd)
{
	for (size_t i = 0; i < cmd->n_opts; i++)
		if (!cmd->opts[i].hidden && !cmd->opts[i].only)
			return true;
	return false;
}

void cli_help(const struct cli *c, struct buf *out)
{
	const struct cli_command *cmd = c->path[c->depth - 1];

	buf_printf(out, "%s.\n\nusage: ", cmd->summary);
	for (size_t i = 0; i < c->depth; i++)
		buf_printf(out, "%s ", c->path[i]->name);
	buf_printf(out, "%s\n",
		   cmd->n_sub  ? "[FLAG …] COMMAND …"
		   : cmd->args ? cmd->args
			       : "[FLAG …]");
	if (cmd->more)
		buf_printf(out, "\n%s\n", cmd->more);
	if (cmd->n_sub)
		buf_put_str(out, "\ncommands:\n");
	for (size_t i = 0; i < cmd->n_sub; i++)
		if (!cmd->sub[i].hidden)
			buf_printf(out, "  %-12s %s\n", cmd->sub[i].name, cmd->sub[i].summary);
	if (shows_opts(cmd))
		buf_put_str(out, "\nflags:\n");
	help_opts(cmd, out);
	help_only(cmd, out);
	for (size_t l = c->depth - 1; l-- > 0;) {
		if (!shows_opts(c->path[l]))
			continue;
		buf_printf(out, "\nflags of %s:\n", c->path[l]->name);
		help_opts(c->path[l], out);
	}
}
