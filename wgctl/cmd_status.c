#include <string.h>

#include "lib/json.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"
#include "wgctl/view.h"

int cmd_get_status(const struct cli *c, bool peers, json_t **ret)
{
	struct client node = client_node(c);

	return client_call(c, &node, "GET", peers ? "/v1/status" : "/v1/status?peers=false", NULL,
			   30000, ret);
}

int cmd_need_running(const struct cli *c, const json_t *status)
{
	struct buf text = { 0 };
	const char *sentence;
	int r;

	sentence = view_not_running(status, &text, &r);
	if (sentence)
		fprintf(c->out, "%s\n", sentence);
	buf_done(&text);
	return r;
}

static void drop_idle_peers(json_t *status)
{
	json_t *peers = json_get(status, "Peer"), *peer;
	const char *key;
	void *next;

	json_object_foreach_safe (peers, next, key, peer) {
		if (!json_get_bool(peer, "Active", false))
			json_object_del(peers, key);
	}
}

static int print_text(const struct cli *c, const json_t *status)
{
	struct view_status o = {
		.self = cli_bool(c, "self", true),
		.peers = cli_bool(c, "peers", true),
		.active = cli_bool(c, "active", false),
		.header = cli_bool(c, "header", false),
		.detail = cli_bool(c, "detail", false),
		.color = c->color,
		.now_unix_nsec = out_now(),
	};
	const char *state = json_get_str(status, "BackendState");
	struct buf b = { 0 };
	int r;

	/* In a strange state the health lines may say why. */
	if (state && !strcmp(state, "NoState"))
		view_health(status, &b);
	r = out_flush(c->out, &b);
	buf_clear(&b);
	if (r >= 0) {
		r = cmd_need_running(c, status);
		if (r != CLI_EXIT_GOOD) {
			buf_done(&b);
			return r;
		}
		view_status(status, &o, &b);
		r = out_flush(c->out, &b);
	}
	buf_done(&b);
	return r < 0 ? cli_fail(c, CLI_EXIT_FAILED, "cannot write: %s", strerror(-r))
		     : CLI_EXIT_GOOD;
}

int cmd_status(struct cli *c)
{
	CLEANUP(json_decref) json_t *status = NULL;
	int r = cmd_get_status(c, cli_bool(c, "peers", true), &status);

	if (r != CLI_EXIT_GOOD)
		return r;
	if (!cli_bool(c, "json", false))
		return print_text(c, status);
	if (cli_bool(c, "active", false))
		drop_idle_peers(status);
	r = out_json(c->out, status, OUT_JSON_BLANKS);
	return r < 0 ? cli_fail(c, CLI_EXIT_FAILED, "cannot write: %s", strerror(-r))
		     : CLI_EXIT_GOOD;
}
