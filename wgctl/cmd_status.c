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
	const char *state = json_get_str(status, "BackendState"), *url = json_get_str(status, "AuthURL");
	struct buf text = { 0 };
	const char *sentence;
	size_t n;
	int r;

	sentence = view_not_running(status, &text, &r);
	if (!sentence) {
		buf_done(&text);
		return r;
	}
	n = strcspn(sentence, "\n");
	n -= n && sentence[n - 1] == '.';
	if (state && !strcmp(state, "Stopped"))
		cli_fail(c, r, "%.*s; start it with wgctl up", (int)n, sentence);
	else if (url && *url)
		cli_fail(c, r, "not logged in; log in at %s", url);
	else if (state && !strcmp(state, "NeedsLogin"))
		cli_fail(c, r, "not logged in; wgctl up --auth-key=file:PATH");
	else
		cli_fail(c, r, "%.*s; see wgctl status", (int)n, sentence);
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
	struct buf b = { 0 };
	int r, state;

	if (view_not_running(status, &b, &state)) {
		buf_put_u8(&b, '\n');
		if (json_array_size(json_get(status, "Health")))
			buf_put_u8(&b, '\n');
		view_health(status, &b); /* may say why */
	} else {
		view_status(status, &o, &b);
	}
	r = out_flush(c->out, &b);
	buf_done(&b);
	return r < 0 ? cli_fail(c, CLI_EXIT_FAILED, "cannot write: %s", strerror(-r)) : state;
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
