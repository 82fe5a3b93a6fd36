#include "wgctl/completion.h"

#include <stdio.h>
#include <string.h>

#define PATH_TEXT 96

/* Walks the table: fn gets each visible command and the words that lead to it ("admin users
 * list"). */
typedef void walk_fn(const struct cli_command *cmd, const char *path, struct buf *out);

static void walk(const struct cli_command *cmd, const char *path, walk_fn *fn, struct buf *out)
{
	fn(cmd, path, out);
	for (size_t i = 0; i < cmd->n_sub; i++) {
		char below[PATH_TEXT];

		if (cmd->sub[i].hidden)
			continue;
		snprintf(below, sizeof(below), "%s%s%s", path, *path ? " " : "", cmd->sub[i].name);
		walk(&cmd->sub[i], below, fn, out);
	}
}

static bool shown(const struct cli_opt *o)
{
	return !o->hidden && !o->only;
}

static void put_flags(const struct cli_command *cmd, struct buf *out)
{
	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct cli_opt *o = &cmd->opts[i];

		if (!shown(o))
			continue;
		if (o->name)
			buf_printf(out, " --%s%s", o->name, o->kind == CLI_OPT_BOOL ? "" : "=");
		else
			buf_printf(out, " -%c", o->letter);
	}
}

static void bash_case(const struct cli_command *cmd, const char *path, struct buf *out)
{
	buf_printf(out, "\t'%s')\n\t\twords='", path);
	for (size_t i = 0; i < cmd->n_sub; i++)
		if (!cmd->sub[i].hidden)
			buf_printf(out, "%s%s", i ? " " : "", cmd->sub[i].name);
	buf_put_str(out, "' flags='");
	put_flags(cmd, out);
	buf_printf(out, "' peers=%s ;;\n", cmd->complete ? "yes" : "");
}

/* Patterns for "path:flag" of the flags whose value is the next word; those of a group hold
 * below it too. */
static void value_patterns(const struct cli_command *cmd, const char *path, const char *between,
			   struct buf *out)
{
	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct cli_opt *o = &cmd->opts[i];

		if (o->kind == CLI_OPT_BOOL || !shown(o))
			continue;
		for (int letter = 0; letter < 2; letter++) {
			char flag[48];

			if (letter ? !o->letter : !o->name)
				continue;
			if (letter)
				snprintf(flag, sizeof(flag), "-%c", o->letter);
			else
				snprintf(flag, sizeof(flag), "--%s", o->name);
			if (!*path)
				buf_printf(out, "%s*:%s", out->len ? between : "", flag);
			else
				buf_printf(out, "%s'%s:%s'", out->len ? between : "", path, flag);
			if (*path && cmd->n_sub)
				buf_printf(out, "%s'%s '*:%s", between, path, flag);
		}
	}
}

static void patterns_bars(const struct cli_command *cmd, const char *path, struct buf *out)
{
	value_patterns(cmd, path, "|", out);
}

static void put_patterns(const struct cli_command *root, walk_fn *fn, struct buf *out)
{
	struct buf b = { 0 };

	walk(root, "", fn, &b);
	buf_put(out, buf_data(&b), b.len);
	out->bad |= b.bad;
	buf_done(&b);
}

void completion_bash(const struct cli_command *root, struct buf *out)
{
	buf_put_str(out,
		    "# bash completion for wgctl, made by `wgctl completion bash`\n"
		    "# shellcheck shell=bash\n"
		    "_wgctl()\n{\n"
		    "\tlocal cur=${COMP_WORDS[COMP_CWORD]} path='' word skip='' words flags peers\n"
		    "\tlocal -a before=(\"${COMP_WORDS[@]:1:COMP_CWORD-1}\")\n"
		    "\tCOMPREPLY=()\n"
		    "\tfor word in \"${before[@]}\"; do\n"
		    "\t\t# bash cuts --flag=value into three words\n"
		    "\t\tif [[ $word == '=' ]]; then\n\t\t\tskip=yes\n\t\t\tcontinue\n\t\tfi\n"
		    "\t\tif [[ -n $skip ]]; then\n\t\t\tskip=''\n\t\t\tcontinue\n\t\tfi\n"
		    "\t\tcase $path:$word in\n\t\t");
	put_patterns(root, patterns_bars, out);
	buf_put_str(out, ") skip=yes ;;\n"
			 "\t\t*:-*) ;;\n"
			 "\t\t*) path=${path:+$path }$word ;;\n"
			 "\t\tesac\n"
			 "\tdone\n"
			 "\t[[ $cur == '=' ]] && skip=yes\n"
			 "\t[[ -n $skip ]] && { mapfile -t COMPREPLY < <(compgen -f -- "
			 "\"${cur#=}\"); return; }\n"
			 "\tcase $path in\n");
	walk(root, "", bash_case, out);
	buf_put_str(
	    out, "\t*) return ;;\n"
		 "\tesac\n"
		 "\t[[ $cur == -* ]] && words=$flags\n"
		 "\t[[ -n $peers && $cur != -* ]] && words=$(wgctl __complete peers 2>/dev/null)\n"
		 "\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
		 "\t[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
		 "}\n"
		 "complete -F _wgctl wgctl\n");
}

/* Inside single quotes, and without what _describe and _arguments read as marks. */
static void put_quoted(struct buf *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '\'')
			buf_put_str(out, "'\\''");
		else if (*s == ':' || *s == '[' || *s == ']')
			buf_printf(out, "\\%c", *s);
		else
			buf_put_u8(out, (uint8_t)*s);
	}
}

static void zsh_case(const struct cli_command *cmd, const char *path, struct buf *out)
{
	buf_printf(out, "\t'%s')\n", path);
	buf_put_str(out, "\t\twords_=(");
	for (size_t i = 0; i < cmd->n_sub; i++) {
		if (cmd->sub[i].hidden)
			continue;
		buf_printf(out, "\n\t\t\t'%s:", cmd->sub[i].name);
		put_quoted(out, cmd->sub[i].summary);
		buf_put_u8(out, '\'');
	}
	buf_put_str(out, ")\n\t\tflags_=(");
	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct cli_opt *o = &cmd->opts[i];

		if (!shown(o))
			continue;
		if (o->name)
			buf_printf(out, "\n\t\t\t'--%s:", o->name);
		else
			buf_printf(out, "\n\t\t\t'-%c:", o->letter);
		put_quoted(out, o->help ? o->help : "");
		buf_put_u8(out, '\'');
	}
	buf_printf(out, ")\n\t\tpeers_=%s ;;\n", cmd->complete ? "yes" : "");
}

void completion_zsh(const struct cli_command *root, struct buf *out)
{
	buf_put_str(out, "#compdef wgctl\n"
			 "# zsh completion for wgctl, made by `wgctl completion zsh`\n"
			 "_wgctl() {\n"
			 "\tlocal path_='' word skip='' peers_=''\n"
			 "\tlocal -a words_ flags_ names_\n"
			 "\tfor word in ${words[2,CURRENT-1]}; do\n"
			 "\t\tif [[ -n $skip ]]; then skip=''; continue; fi\n"
			 "\t\tcase $path_:$word in\n\t\t(");
	put_patterns(root, patterns_bars, out);
	buf_put_str(out, ") skip=yes ;;\n"
			 "\t\t(*:-*) ;;\n"
			 "\t\t(*) path_=${path_:+$path_ }$word ;;\n"
			 "\t\tesac\n"
			 "\tdone\n"
			 "\t[[ -n $skip ]] && { _files; return }\n"
			 "\tcase $path_ in\n");
	walk(root, "", zsh_case, out);
	buf_put_str(out, "\t*) return 1 ;;\n"
			 "\tesac\n"
			 "\tif [[ $PREFIX == -* ]]; then\n"
			 "\t\t_describe -o flag flags_\n"
			 "\telif [[ -n $peers_ ]]; then\n"
			 "\t\tnames_=(${(f)\"$(wgctl __complete peers 2>/dev/null)\"})\n"
			 "\t\tcompadd -a names_\n"
			 "\telse\n"
			 "\t\t_describe command words_\n"
			 "\tfi\n"
			 "}\n"
			 "_wgctl \"$@\"\n");
}

/* fish expands a * outside quotes as file names, and reads it as a wildcard of `case` inside
 * them. */
static void patterns_fish(const struct cli_command *cmd, const char *path, struct buf *out)
{
	struct buf b = { 0 };
	const char *p;

	value_patterns(cmd, path, "|", &b);
	p = buf_str(&b);
	while (p && *p) {
		size_t n = strcspn(p, "|");

		buf_put_str(out, out->len ? " '" : "'");
		for (size_t i = 0; i < n; i++)
			if (p[i] != '\'')
				buf_put_u8(out, (uint8_t)p[i]);
		buf_put_u8(out, '\'');
		p += n + (p[n] == '|');
	}
	out->bad |= b.bad;
	buf_done(&b);
}

/* fish takes '' quotes with \' inside. */
static void fish_quoted(struct buf *out, const char *s)
{
	buf_put_u8(out, '\'');
	for (; *s; s++) {
		if (*s == '\'' || *s == '\\')
			buf_put_u8(out, '\\');
		buf_put_u8(out, (uint8_t)*s);
	}
	buf_put_u8(out, '\'');
}

static void fish_lines(const struct cli_command *cmd, const char *path, struct buf *out)
{
	for (size_t i = 0; i < cmd->n_sub; i++) {
		if (cmd->sub[i].hidden)
			continue;
		buf_printf(out, "complete -c wgctl -f -n '__wgctl_at \"%s\"' -a %s -d ", path,
			   cmd->sub[i].name);
		fish_quoted(out, cmd->sub[i].summary);
		buf_put_u8(out, '\n');
	}
	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct cli_opt *o = &cmd->opts[i];

		if (!shown(o))
			continue;
		buf_printf(out, "complete -c wgctl -n '__wgctl_at \"%s\"'", path);
		if (o->name)
			buf_printf(out, " -l %s", o->name);
		if (o->letter)
			buf_printf(out, " -s %c", o->letter);
		buf_printf(out, "%s -d ", o->kind == CLI_OPT_BOOL ? "" : " -r");
		fish_quoted(out, o->help ? o->help : "");
		buf_put_u8(out, '\n');
	}
	if (cmd->complete)
		buf_printf(out,
			   "complete -c wgctl -f -n '__wgctl_at \"%s\"' -a '(wgctl __complete "
			   "peers 2>/dev/null)'\n",
			   path);
}

void completion_fish(const struct cli_command *root, struct buf *out)
{
	buf_put_str(
	    out,
	    "# fish completion for wgctl, made by `wgctl completion fish`\n"
	    "# True when the words so far, without flags and their values, lead to this command.\n"
	    "function __wgctl_at\n"
	    "\tset -l path\n\tset -l skip no\n"
	    "\tfor word in (commandline -opc)[2..-1]\n"
	    "\t\tif test $skip = yes\n\t\t\tset skip no\n\t\t\tcontinue\n\t\tend\n"
	    "\t\tswitch \"$path:$word\"\n"
	    "\t\t\tcase ");
	put_patterns(root, patterns_fish, out);
	buf_put_str(out, "\n\t\t\t\tset skip yes\n"
			 "\t\t\tcase '*:-*'\n"
			 "\t\t\tcase '*'\n\t\t\t\tset -a path $word\n"
			 "\t\tend\n\tend\n"
			 "\ttest \"$path\" = \"$argv[1]\"\n"
			 "end\n"
			 "complete -c wgctl -f\n");
	walk(root, "", fish_lines, out);
}
