#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/addr.h"
#include "lib/json.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"
#include "wgctl/view.h"

#define RETRY_NSEC 100000000

/* On the clock that nobody sets: a service waits at boot, when the time is corrected. */
static int64_t now_msec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* until_msec 0: for ever. */
static bool time_is_up(int64_t until_msec)
{
	return until_msec && now_msec() >= until_msec;
}

static void wait_for_daemon(const struct client *node, int64_t until_msec)
{
	static const struct timespec pause = { .tv_nsec = RETRY_NSEC };

	do
		nanosleep(&pause, NULL);
	while (!client_reachable(node) && !time_is_up(until_msec));
}

static int ask(const struct cli *c, const struct client *node, int64_t until_msec)
{
	CLEANUP(json_decref) json_t *state = NULL;
	int64_t left = until_msec ? MAX(until_msec - now_msec(), 1) : 0;
	char path[64];

	if (left)
		snprintf(path, sizeof(path), "/v1/wait?timeout_msec=%" PRId64, left);
	else
		snprintf(path, sizeof(path), "/v1/wait");
	return client_call(c, node, "GET", path, NULL, left ? left + 2000 : 0, &state);
}

/* For service files: waits for a daemon that is still starting, and over one that is restarted. */
int cmd_wait(struct cli *c)
{
	struct client node = client_node(c);
	int64_t timeout = cli_msec(c, "timeout", 0), until = timeout ? now_msec() + timeout : 0;
	int r;

	node.quiet = true;
	r = ask(c, &node, until);
	while (r == CLI_EXIT_UNREACHABLE && !time_is_up(until)) {
		wait_for_daemon(&node, until);
		r = ask(c, &node, until);
	}
	if (r != CLI_EXIT_UNREACHABLE)
		return r;
	node.quiet = false;
	return ask(c, &node, until); /* says why */
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
	r = client_call(c, &node, "GET", buf_str(&path), NULL, 10000, &who);
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
