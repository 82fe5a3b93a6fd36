/* The command table: what wgctl understands. Help, parsing and completion all come from here. */
#include "wgctl/cli.h"

#define FLAG(n, h)                                                                                 \
	{                                                                                          \
		.name = (n), .kind = CLI_OPT_BOOL, .help = (h)                                     \
	}
#define TEXT(n, v, h)                                                                              \
	{                                                                                          \
		.name = (n), .kind = CLI_OPT_TEXT, .value = (v), .help = (h)                       \
	}
#define DURATION(n, h)                                                                             \
	{                                                                                          \
		.name = (n), .kind = CLI_OPT_DURATION, .value = "DURATION", .help = (h)            \
	}
#define ONLY_FLAG(n, o)                                                                            \
	{                                                                                          \
		.name = (n), .kind = CLI_OPT_BOOL, .only = (o)                                     \
	}
#define ONLY_TEXT(n, o)                                                                            \
	{                                                                                          \
		.name = (n), .kind = CLI_OPT_TEXT, .only = (o)                                     \
	}
#define OPTS(a) .opts = (a), .n_opts = ARRAY_SIZE(a)
#define SUBS(a) .sub = (a), .n_sub = ARRAY_SIZE(a)

static const struct cli_opt root_opts[] = {
	TEXT("socket", "PATH", "kernscaled's socket (" CLI_SOCKET ")"),
	TEXT("color", "WHEN", "auto, always or never"),
	{ .name = "version", .letter = 'V', .kind = CLI_OPT_BOOL, .help = "print the version" },
};

/* Stock's flags that are not acted on yet are taken with the one value that is true today; the daemon's own table
 * (daemon/api/prefs.c) says the same to other clients, and a test holds the two together. */
static const struct cli_opt up_opts[] = {
	TEXT("login-server", "URL", "coordination server"),
	{ .name = "auth-key",
	  .alias = "authkey",
	  .kind = CLI_OPT_TEXT,
	  .secret = true,
	  .value = "file:PATH|-|KEY",
	  .help = "pre-auth key: in a file, on standard input, or here" },
	TEXT("hostname", "NAME", "name in the mesh, instead of the machine's own"),
	FLAG("reset", "what is not given goes back to its default, but the server"),
	FLAG("force-reauth", "log in anew"),
	DURATION("timeout", "give up after (0: never)"),
	FLAG("json", "print JSON"),
	ONLY_FLAG("accept-dns", "false"),
	ONLY_FLAG("accept-routes", "false"),
	ONLY_TEXT("advertise-routes", ""),
	ONLY_FLAG("advertise-exit-node", "false"),
	ONLY_TEXT("advertise-tags", ""),
	ONLY_TEXT("exit-node", ""),
	ONLY_FLAG("exit-node-allow-lan-access", "false"),
	ONLY_FLAG("shields-up", "false"),
	ONLY_FLAG("ssh", "false"),
	ONLY_FLAG("snat-subnet-routes", "true"),
	ONLY_FLAG("stateful-filtering", "false"),
	ONLY_TEXT("netfilter-mode", "on"),
	ONLY_TEXT("operator", ""),
	ONLY_TEXT("nickname", ""),
	ONLY_FLAG("report-posture", "false"),
	ONLY_FLAG("qr", "false"),
	ONLY_FLAG("advertise-connector", "false"),
	ONLY_FLAG("host-routes", "true"),
	ONLY_FLAG("unattended", "false"),
	ONLY_TEXT("client-id", ""),
	{ .name = "client-secret", .kind = CLI_OPT_TEXT, .only = "", .secret = true },
	{ .name = "id-token", .kind = CLI_OPT_TEXT, .only = "", .secret = true },
	ONLY_TEXT("audience", ""),
	{ .name = "qr-format", .kind = CLI_OPT_TEXT, .hidden = true },
	{ .name = "accept-risk",
	  .kind = CLI_OPT_TEXT,
	  .hidden = true }, /* there is no prompt to skip yet */
};

static const struct cli_opt down_opts[] = {
	{ .name = "reason", .kind = CLI_OPT_TEXT, .hidden = true },
	{ .name = "accept-risk", .kind = CLI_OPT_TEXT, .hidden = true },
};

static const struct cli_opt status_opts[] = {
	FLAG("json", "print JSON"),
	FLAG("active", "only peers in use"),
	FLAG("self", "this node too (true)"),
	FLAG("peers", "the peers (true)"),
	FLAG("header", "names of the columns"),
	{ .name = "detail",
	  .letter = 'd',
	  .kind = CLI_OPT_BOOL,
	  .help = "a block for each peer, with reasons" },
	ONLY_FLAG("web", "false"),
};

static const struct cli_opt ping_opts[] = {
	{ .letter = 'c',
	  .kind = CLI_OPT_INT,
	  .value = "N",
	  .help = "at most N pings (10; 0: for ever)" },
	DURATION("timeout", "give a ping up after (5s)"),
	DURATION("interval", "between two pings (1s)"),
	FLAG("until-direct", "stop at the first direct answer (true)"),
	FLAG("verbose", "say what a name means"),
	ONLY_FLAG("tsmp", "false"),
	ONLY_FLAG("icmp", "false"),
	ONLY_FLAG("peerapi", "false"),
	ONLY_TEXT("size", "0"),
};

static const struct cli_opt ip_opts[] = {
	{ .letter = '1', .kind = CLI_OPT_BOOL, .help = "only the first address" },
	{ .letter = '4', .kind = CLI_OPT_BOOL, .help = "only IPv4" },
	{ .letter = '6', .kind = CLI_OPT_BOOL, .help = "only IPv6" },
	TEXT("assert", "IP", "print nothing; good when the node has this address"),
};

static const struct cli_opt netcheck_opts[] = {
	TEXT("format", "FORM", "\"\", json or json-line"),
	FLAG("verbose", "numbers of the regions too"),
};

static const struct cli_opt version_opts[] = {
	FLAG("json", "print JSON"),
	FLAG("daemon", "the daemon's version too"),
};

static const struct cli_opt wait_opts[] = {
	DURATION("timeout", "give up after (0: never)"),
};

static const struct cli_opt whois_opts[] = {
	FLAG("json", "print JSON"),
	{ .name = "proto", .kind = CLI_OPT_TEXT, .hidden = true },
};

/* Headscale's global flags, so that its lines work behind "wgctl admin". */
static const struct cli_opt admin_opts[] = {
	TEXT("admin-socket", "PATH", "the coordinator's socket (" CLI_ADMIN_SOCKET ")"),
	{ .name = "output",
	  .letter = 'o',
	  .kind = CLI_OPT_TEXT,
	  .value = "FORM",
	  .help = "json or json-line" },
	{ .name = "user",
	  .letter = 'u',
	  .kind = CLI_OPT_TEXT,
	  .value = "NAME|ID",
	  .help = "a user" },
	FLAG("force", "do not ask"),
	{ .name = "config", .letter = 'c', .kind = CLI_OPT_TEXT, .hidden = true },
};

#define ID_OPT(what)                                                                               \
	{                                                                                          \
		.name = "identifier", .alias = "id", .letter = 'i', .kind = CLI_OPT_TEXT,          \
		.value = "ID", .help = (what)                                                      \
	}
#define NAME_OPT                                                                                   \
	{                                                                                          \
		.name = "name", .letter = 'n', .kind = CLI_OPT_TEXT, .value = "NAME",              \
		.help = "name of the user"                                                         \
	}

static const struct cli_opt user_create_opts[] = {
	{ .name = "display-name",
	  .letter = 'd',
	  .kind = CLI_OPT_TEXT,
	  .value = "TEXT",
	  .help = "name for people" },
	{ .name = "email",
	  .letter = 'e',
	  .kind = CLI_OPT_TEXT,
	  .value = "ADDRESS",
	  .help = "mail address" },
	{ .name = "picture-url",
	  .letter = 'p',
	  .kind = CLI_OPT_TEXT,
	  .value = "URL",
	  .help = "picture" },
};
static const struct cli_opt user_list_opts[] = {
	ID_OPT("id of the user"),
	NAME_OPT,
	{ .name = "email",
	  .letter = 'e',
	  .kind = CLI_OPT_TEXT,
	  .value = "ADDRESS",
	  .help = "mail address" },
};
static const struct cli_opt user_opts[] = { ID_OPT("id of the user"), NAME_OPT };
static const struct cli_opt user_rename_opts[] = {
	ID_OPT("id of the user"),
	NAME_OPT,
	{ .name = "new-name",
	  .letter = 'r',
	  .kind = CLI_OPT_TEXT,
	  .value = "NAME",
	  .help = "the new name" },
};

static const struct cli_command users_commands[] = {
	{ "create", "c new", "NAME", "Make a user", .min_args = 1, .max_args = 1,
	  OPTS(user_create_opts), .run = cmd_admin_users },
	{ "list", "ls show", NULL, "List users", OPTS(user_list_opts), .run = cmd_admin_users },
	{ "destroy", "delete", "[NAME]", "Remove a user who has no nodes", .max_args = 1,
	  OPTS(user_opts), .run = cmd_admin_users },
	{ "rename", "mv", "[NAME NEW-NAME]", "Rename a user", .max_args = 2, OPTS(user_rename_opts),
	  .run = cmd_admin_users },
};

static const struct cli_opt key_create_opts[] = {
	FLAG("reusable", "admits more than one node"),
	FLAG("ephemeral", "its nodes go when they are away"),
	{ .name = "expiration",
	  .letter = 'e',
	  .kind = CLI_OPT_DURATION,
	  .value = "DURATION",
	  .help = "how long it admits (1h)" },
	TEXT("tags", "TAG,...", "tags its nodes get"),
};
static const struct cli_opt key_opts[] = { ID_OPT("id of the key") };

static const struct cli_command keys_commands[] = {
	{ "create", "c new", NULL, "Make a pre-auth key; it is shown once", OPTS(key_create_opts),
	  .run = cmd_admin_keys },
	{ "list", "ls show", NULL, "List pre-auth keys", .run = cmd_admin_keys },
	{ "expire", "revoke exp e", "[ID]", "Make a key admit no more nodes", .max_args = 1,
	  OPTS(key_opts), .run = cmd_admin_keys },
	{ "delete", "del rm d", "[ID]", "Remove a key", .max_args = 1, OPTS(key_opts),
	  .run = cmd_admin_keys },
};

static const struct cli_opt node_opts[] = { ID_OPT("id or name of the node") };
static const struct cli_opt node_expire_opts[] = {
	ID_OPT("id or name of the node"),
	{ .name = "expiry",
	  .letter = 'e',
	  .kind = CLI_OPT_TEXT,
	  .value = "TIME",
	  .help = "when, RFC 3339 (now)" },
	{ .name = "disable", .letter = 'd', .kind = CLI_OPT_BOOL, .help = "never" },
};
static const struct cli_opt node_tag_opts[] = {
	ID_OPT("id or name of the node"),
	{ .name = "tags",
	  .letter = 't',
	  .kind = CLI_OPT_TEXT,
	  .value = "TAG,...",
	  .help = "the whole list" },
};
static const struct cli_opt node_register_opts[] = {
	{ .name = "key",
	  .letter = 'k',
	  .kind = CLI_OPT_TEXT,
	  .value = "ID",
	  .help = "what the node's URL ends in" },
};

static const struct cli_command nodes_commands[] = {
	{ "list", "ls show", NULL, "List nodes", .run = cmd_admin_nodes },
	{ "expire", "logout exp e", "[NODE]", "Make a node log in again", .max_args = 1,
	  OPTS(node_expire_opts), .run = cmd_admin_nodes },
	{ "rename", NULL, "NEW-NAME", "Rename a node", .min_args = 1, .max_args = 1,
	  OPTS(node_opts), .run = cmd_admin_nodes },
	{ "delete", "del", "[NODE]", "Remove a node", .max_args = 1, OPTS(node_opts),
	  .run = cmd_admin_nodes },
	{ "tag", "tags t", NULL, "Give a node tags, instead of those it has", OPTS(node_tag_opts),
	  .run = cmd_admin_nodes },
	{ "register", NULL, NULL, "Admit a node that waits for approval", OPTS(node_register_opts),
	  .run = cmd_admin_nodes },
};

static const struct cli_command admin_commands[] = {
	{ "users", "user", NULL, "Users", SUBS(users_commands) },
	{ "preauthkeys", "preauthkey authkey pre", NULL, "Keys that admit nodes",
	  SUBS(keys_commands) },
	{ "nodes", "node", NULL, "Nodes", SUBS(nodes_commands) },
	{ "health", NULL, NULL, "Ask the coordinator whether it is well", .run = cmd_admin_health },
};

static const struct cli_command commands[] = {
	{ "up", NULL, "[FLAG …]", "Join the mesh, or change how this node takes part",
	  OPTS(up_opts), .run = cmd_up,
	  .more = "A flag that is not given keeps its value; --reset gives all of them their "
		  "default, except --login-server.\n"
		  "A key in the argument list can be seen by others until wgctl has wiped it: prefer "
		  "file:PATH or -." },
	{ "down", NULL, NULL, "Leave the mesh until the next up; stay logged in", OPTS(down_opts),
	  .run = cmd_down },
	{ "logout", NULL, NULL, "Leave the mesh and forget this node's key", OPTS(down_opts),
	  .run = cmd_logout },
	{ "status", NULL, NULL, "Show this node, its peers and how they are reached",
	  OPTS(status_opts), .run = cmd_status },
	{ "ping", NULL, "[FLAG …] PEER",
	  "Ask a peer's node for an answer, and see which way it came", OPTS(ping_opts),
	  .min_args = 1, .max_args = 1, .complete = "peers", .run = cmd_ping },
	{ "ip", NULL, "[FLAG …] [PEER]", "Show addresses in the mesh", OPTS(ip_opts), .max_args = 1,
	  .complete = "peers", .run = cmd_ip },
	{ "netcheck", NULL, NULL, "Measure what the local network lets through",
	  OPTS(netcheck_opts), .run = cmd_netcheck },
	{ "wait", NULL, NULL, "Wait until the node runs and has its addresses", OPTS(wait_opts),
	  .run = cmd_wait },
	{ "whois", NULL, "[FLAG …] IP[:PORT]", "Show whose an address of the mesh is",
	  OPTS(whois_opts), .min_args = 1, .max_args = 1, .complete = "peers", .run = cmd_whois },
	{ "version", NULL, NULL, "Show versions", OPTS(version_opts), .run = cmd_version },
	{ "admin", NULL, NULL, "Speak to a coordinator on this machine, in Headscale's words",
	  OPTS(admin_opts), SUBS(admin_commands) },
	{ "completion", NULL, "bash|zsh|fish", "Print a completion script", .min_args = 1,
	  .max_args = 1, .run = cmd_completion },
	{ "__complete", NULL, "WORD …", "Peers for completion", .max_args = 1000, .hidden = true,
	  .run = cmd_complete },
};

const struct cli_command cli_root = {
	.name = "wgctl",
	.summary = "Control a Kernscale node and its coordinator",
	OPTS(root_opts),
	SUBS(commands),
};
