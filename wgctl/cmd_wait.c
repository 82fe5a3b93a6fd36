#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "lib/addr.h"
#include "lib/json.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"
#include "wgctl/view.h"

#define RETRY_NSEC 100000000

/* For service files: also waits for a daemon that is still starting. */
static void wait_for_daemon(const struct client *node, int64_t timeout_msec, int64_t until_msec)
{
	static const struct timespec pause = { .tv_nsec = RETRY_NSEC };

	while (!client_reachable(node) && (!timeout_msec || out_now() / 1000000 < until_msec))
		nanosleep(&pause, NULL);
}

int cmd_wait(struct cli *c)
{
	CLEANUP(json_decref) json_t *state = NULL;
	struct client node = client_node(c);
	int64_t timeout = cli_msec(c, "timeout", 0), until = out_now() / 1000000 + timeout, left;
	struct buf path = { 0 };
	int r;

	wait_for_daemon(&node, timeout, until);
	if (timeout) {
		left = MAX(until - out_now() / 1000000, 1);
		buf_printf(&path, "/v1/wait?timeout_msec=%" PRId64, left);
	} else {
		left = 0;
		buf_put_str(&path, "/v1/wait");
	}
	r = client_call(c, &node, "GET", buf_str(&path), NULL, left ? left + 2000 : 0, &state);
	buf_done(&path);
	return r;
}

int cmd_whois(struct cli *c)
{
	CLEANUP(json_decref) json_t *who = NULL;
	struct client node = client_node(c);
	struct buf path = { 0 }, text = { 0 };
	const char *what = c->args[0];
	struct endpoint at;
	struct addr a;
	int r;

	if (strncmp(what, "nodekey:", 8) != 0 && addr_parse(what, strlen(what), &a) < 0 &&
	    endpoint_parse(what, strlen(what), &at) < 0)
		return cli_fail(c, CLI_EXIT_USAGE,
				"whois wants an address of the mesh (IP, IP:PORT or nodekey:…), not "
				"\"%s\"; wgctl ip PEER gives it",
				what);
	buf_put_str(&path, "/v1/whois?addr=");
	client_escape(&path, c->args[0]);
	r = path.bad ? cli_fail(c, CLI_EXIT_FAILED, "out of memory")
		     : client_call(c, &node, "GET", buf_str(&path), NULL, 10000, &who);
	buf_done(&path);
	if (r != CLI_EXIT_GOOD)
		return r;
	if (cli_bool(c, "json", false)) {
		r = out_json(c->out, who, OUT_JSON_BLANKS);
	} else {
		view_whois(who, &text);
		r = out_flush(c->out, &text);
		buf_done(&text);
	}
	return r < 0 ? cli_fail(c, CLI_EXIT_FAILED, "cannot write the answer") : CLI_EXIT_GOOD;
}
