#include <string.h>

#include "lib/addr.h"
#include "lib/json.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"
#include "wgctl/view.h"

static bool has_addr(const json_t *list, const char *text)
{
	struct addr want, have;
	const json_t *v;
	size_t i;

	if (addr_parse(text, strlen(text), &want) < 0)
		return false;
	json_array_foreach (list, i, v) {
		const char *s = json_string_value(v);

		if (s && addr_parse(s, strlen(s), &have) >= 0 && addr_equal(&want, &have))
			return true;
	}
	return false;
}

static int print_addrs(const struct cli *c, const json_t *list)
{
	bool one = cli_bool(c, "1", false), only4 = cli_bool(c, "4", false),
	     only6 = cli_bool(c, "6", false);
	unsigned int shown = 0;
	const json_t *v;
	size_t i;

	json_array_foreach (list, i, v) {
		const char *s = json_string_value(v);
		struct addr a;

		if (!s || addr_parse(s, strlen(s), &a) < 0 || (only4 && a.family != 4) ||
		    (only6 && a.family != 6))
			continue;
		fprintf(c->out, "%s\n", s);
		shown++;
		if (one)
			break;
	}
	if (!shown && (only4 || only6))
		return cli_fail(c, CLI_EXIT_FAILED,
				"there is no IPv%d address in the mesh; without -%d those of the other kind are shown",
				only4 ? 4 : 6, only4 ? 4 : 6);
	if (!shown)
		return cli_fail(c, CLI_EXIT_FAILED, "there is no address in the mesh; see wgctl status");
	return CLI_EXIT_GOOD;
}

int cmd_ip(struct cli *c)
{
	CLEANUP(json_decref) json_t *status = NULL;
	const char *want = cli_text(c, "assert", NULL), *of = c->n_args ? c->args[0] : NULL;
	const json_t *list, *peer;
	bool self;
	int r;

	if (cli_bool(c, "1", false) + cli_bool(c, "4", false) + cli_bool(c, "6", false) > 1)
		return cli_fail(c, CLI_EXIT_USAGE, "-1, -4 and -6 exclude each other");
	r = cmd_get_status(c, of != NULL, &status);
	if (r != CLI_EXIT_GOOD)
		return r;
	list = json_get(status, "TailscaleIPs");
	if (want)
		return has_addr(list, want)
			   ? CLI_EXIT_GOOD
			   : cli_fail(c, CLI_EXIT_FAILED,
				      "this node does not have the address %s; wgctl ip shows those it has",
				      want);
	if (of) {
		peer = view_find(status, of, &self);
		if (!peer)
			return cli_fail(c, CLI_EXIT_FAILED,
					"there is no peer \"%s\"; see wgctl status", of);
		list = json_get(peer, "TailscaleIPs");
	} else if (!json_array_size(list)) {
		r = cmd_need_running(c, status);
		return r != CLI_EXIT_GOOD
			   ? r
			   : cli_fail(c, CLI_EXIT_FAILED, "no address in the mesh yet; wgctl wait");
	}
	return print_addrs(c, list);
}
