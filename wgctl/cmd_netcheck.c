#include <string.h>
#include <time.h>

#include "lib/json.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"
#include "wgctl/view.h"

int cmd_netcheck(struct cli *c)
{
	CLEANUP(json_decref) json_t *report = NULL;
	const char *format = cli_text(c, "format", "");
	struct client node = client_node(c);
	struct buf b = { 0 };
	int r;

	if (*format && strcmp(format, "json") != 0 && strcmp(format, "json-line") != 0)
		return cli_fail(c, CLI_EXIT_USAGE, "--format wants json or json-line, not \"%s\"",
				format);
	r = client_call(c, &node, "GET", "/v1/netcheck", NULL, 45000, &report);
	if (r != CLI_EXIT_GOOD)
		return r;
	if (*format) {
		r = out_json(c->out, report,
			     !strcmp(format, "json") ? OUT_JSON_TABS : OUT_JSON_LINE);
	} else {
		tzset();
		view_netcheck(report, cli_bool(c, "verbose", false), &b);
		r = out_flush(c->out, &b);
		buf_done(&b);
	}
	return r < 0 ? cli_fail(c, CLI_EXIT_FAILED, "cannot write: %s", strerror(-r))
		     : CLI_EXIT_GOOD;
}
