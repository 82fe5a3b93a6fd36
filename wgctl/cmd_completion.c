#include <string.h>

#include "lib/json.h"
#include "wgctl/client.h"
#include "wgctl/cmd.h"
#include "wgctl/completion.h"
#include "wgctl/out.h"
#include "wgctl/view.h"

int cmd_completion(struct cli *c)
{
	struct buf b = { 0 };
	int r = CLI_EXIT_GOOD;

	if (!strcmp(c->args[0], "bash"))
		completion_bash(&cli_root, &b);
	else if (!strcmp(c->args[0], "zsh"))
		completion_zsh(&cli_root, &b);
	else if (!strcmp(c->args[0], "fish"))
		completion_fish(&cli_root, &b);
	else
		r = cli_fail(c, CLI_EXIT_USAGE,
			     "completion is there for bash, zsh and fish, not for \"%s\"",
			     c->args[0]);
	if (r == CLI_EXIT_GOOD && out_flush(c->out, &b) < 0)
		r = CLI_EXIT_FAILED;
	buf_done(&b);
	return r;
}

/* Names that a shell takes as one plain word; whoever named a peer otherwise does not get it
 * completed. */
static bool plain_word(const char *s)
{
	return *s && *s != '-' &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
		   strlen(s);
}

/* Called by the scripts for the names of peers: says nothing when anything is wrong. */
int cmd_complete(struct cli *c)
{
	CLEANUP(json_decref) json_t *status = NULL;
	struct cli quiet = *c;
	json_t *peers, *peer;
	const char *key;

	quiet.err = fopen("/dev/null", "we");
	if (!quiet.err)
		return CLI_EXIT_FAILED;
	if (cmd_get_status(&quiet, true, &status) != CLI_EXIT_GOOD)
		status = NULL;
	fclose(quiet.err);
	peers = json_get(status, "Peer");
	json_object_foreach (peers, key, peer) {
		struct buf name = { 0 };

		view_peer_name(status, peer, &name);
		if (!name.bad && plain_word(buf_str(&name)))
			fprintf(c->out, "%s\n", buf_str(&name));
		buf_done(&name);
	}
	return CLI_EXIT_GOOD;
}
