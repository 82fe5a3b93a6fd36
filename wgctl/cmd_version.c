#include <string.h>

#include "lib/json.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"

int cmd_version(struct cli *c)
{
	CLEANUP(json_decref) json_t *daemon = NULL;
	CLEANUP(json_decref) json_t *out = NULL;
	struct client node = client_node(c);
	const char *version = NULL;
	struct buf safe = { 0 };
	int r;

	if (cli_bool(c, "daemon", false)) {
		r = client_call(c, &node, "GET", "/v1/version", NULL, 10000, &daemon);
		if (r != CLI_EXIT_GOOD)
			return r;
		version = json_get_str(daemon, "version");
	}
	if (cli_bool(c, "json", false)) {
		out = json_pack("{s:i,s:s,s:s}", "schema", 1, "short", KERNSCALE_VERSION, "long",
				KERNSCALE_VERSION);
		if (version)
			json_object_set_new(out, "daemonLong", json_string(version));
		r = out_json(c->out, out, OUT_JSON_TABS);
		return r < 0 ? cli_fail(c, CLI_EXIT_FAILED, "cannot write: %s", strerror(-r))
			     : CLI_EXIT_GOOD;
	}
	if (!daemon) {
		fprintf(c->out, "%s\n", KERNSCALE_VERSION);
		return CLI_EXIT_GOOD;
	}
	out_safe(&safe, version ? version : "?");
	fprintf(c->out, "Client: %s\nDaemon: %s\n", KERNSCALE_VERSION,
		safe.bad ? "?" : buf_str(&safe));
	buf_done(&safe);
	return CLI_EXIT_GOOD;
}
