#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/json.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"

#define ADMIN_TIMEOUT_MSEC 15000

/* One `wgctl admin …` in work: who it speaks to and which command it is. */
struct admin {
	struct cli *c;
	struct client to;
	const char *verb; /* "create", "list", … */
};

static struct admin admin_of(struct cli *c)
{
	return (struct admin){ .c = c, .to = client_admin(c), .verb = c->path[c->depth - 1]->name };
}

static int call(const struct admin *a, const char *method, const char *path, const json_t *body,
		json_t **ret)
{
	return client_call(a->c, &a->to, method, path, body, ADMIN_TIMEOUT_MSEC, ret);
}

/* Path built from a format and one escaped part: prefix + escape(part) + suffix. */
static int call_with(const struct admin *a, const char *method, const char *prefix,
		     const char *part, const char *suffix, const json_t *body, json_t **ret)
{
	struct buf path = { 0 };
	int r;

	buf_put_str(&path, prefix);
	client_escape(&path, part);
	buf_put_str(&path, suffix);
	r = call(a, method, buf_str(&path), body, ret);
	buf_done(&path);
	return r;
}

/* Output */

static int check_output(const struct admin *a)
{
	const char *o = cli_text(a->c, "output", "");

	if (!*o || !strcmp(o, "json") || !strcmp(o, "json-line"))
		return CLI_EXIT_GOOD;
	if (!strcmp(o, "yaml"))
		return cli_fail(a->c, CLI_EXIT_FAILED,
				"-o yaml is not supported yet, json and json-line are");
	return cli_fail(a->c, CLI_EXIT_USAGE, "-o wants json or json-line, not \"%s\"", o);
}

static bool wants_json(const struct admin *a)
{
	return *cli_text(a->c, "output", "");
}

static int print_json(const struct admin *a, const json_t *j)
{
	bool line = !strcmp(cli_text(a->c, "output", ""), "json-line");

	return out_json(a->c->out, j, line ? OUT_JSON_LINE : OUT_JSON_TABS) < 0
		   ? cli_fail(a->c, CLI_EXIT_FAILED, "cannot write the answer")
		   : CLI_EXIT_GOOD;
}

/* With -o the object, else one sentence. */
static int done(const struct admin *a, const json_t *j, const char *sentence)
{
	if (wants_json(a))
		return print_json(a, j);
	fprintf(a->c->out, "%s\n", sentence);
	return CLI_EXIT_GOOD;
}

static const char *text(const json_t *o, const char *name)
{
	const char *s = json_get_str(o, name);

	return s ? s : "";
}

static const char *yes_no(const json_t *o, const char *name)
{
	return json_get_bool(o, name, false) ? "true" : "false";
}

/* RFC 3339 as Headscale's tables show it; "-" for none. */
static void cell_time(struct out_table *t, const json_t *o, const char *name)
{
	int64_t nsec;
	char out[40];
	struct tm tm;
	time_t sec;

	if (json_time_parse(text(o, name), &nsec) < 0 || !nsec) {
		out_table_cell(t, "-");
		return;
	}
	sec = nsec / 1000000000;
	localtime_r(&sec, &tm);
	strftime(out, sizeof(out), "%Y-%m-%d %H:%M:%S", &tm);
	out_table_cell(t, out);
}

static void cell_list(struct out_table *t, const json_t *list)
{
	struct buf b = { 0 };
	const json_t *v;
	size_t i;

	json_array_foreach (list, i, v) {
		buf_printf(&b, "%s%s", i ? ", " : "",
			   json_is_string(v) ? json_string_value(v) : "?");
	}
	out_table_cell(t, buf_str(&b));
	t->bad = t->bad || b.bad;
	buf_done(&b);
}

static int print_table(const struct admin *a, struct out_table *t)
{
	struct buf b = { 0 };
	int r;

	out_table_print(t, " | ", &b);
	r = out_flush(a->c->out, &b);
	buf_done(&b);
	out_table_done(t);
	return r < 0 ? cli_fail(a->c, CLI_EXIT_FAILED, "cannot write the answer") : CLI_EXIT_GOOD;
}

static void header(struct out_table *t, const char *const *names, size_t n)
{
	out_table_init(t, n);
	for (size_t i = 0; i < n; i++)
		out_table_cell(t, names[i]);
}

/* What cannot be undone is asked for on a terminal, and wants --force elsewhere. */
static int confirm(const struct admin *a, const char *what, const char *name)
{
	char line[16] = "";

	if (cli_bool(a->c, "force", false))
		return CLI_EXIT_GOOD;
	if (!isatty(STDIN_FILENO))
		return cli_fail(a->c, CLI_EXIT_USAGE, "%s %s? It cannot be undone; give --force to do it", what,
				name);
	fprintf(a->c->err, "%s %s? It cannot be undone [y/N] ", what, name);
	fflush(a->c->err);
	if (fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y'))
		return CLI_EXIT_GOOD;
	return cli_fail(a->c, CLI_EXIT_FAILED, "nothing was changed");
}

static bool is_number(const char *s)
{
	return *s && strspn(s, "0123456789") == strlen(s);
}

/* Users */

/* The user that a name or an id means; -1 as exit when there is none, after saying so. */
static int find_user(const struct admin *a, const char *what, json_t **ret)
{
	CLEANUP(json_decref) json_t *list = NULL;
	const json_t *users;
	int r =
	    call_with(a, "GET", is_number(what) ? "/api/v1/user?id=" : "/api/v1/user?name=", what,
		      "", NULL, &list);

	if (r != CLI_EXIT_GOOD)
		return r;
	users = json_get(list, "users");
	if (!json_array_size(users))
		return cli_fail(a->c, CLI_EXIT_FAILED,
				"there is no user \"%s\"; see wgctl admin users list", what);
	if (json_array_size(users) > 1)
		return cli_fail(a->c, CLI_EXIT_FAILED,
				"several users are named \"%s\"; give the id", what);
	*ret = json_incref(json_array_get(users, 0));
	return CLI_EXIT_GOOD;
}

static int users_create(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	CLEANUP(json_decref) json_t *body = json_pack("{s:s}", "name", a->c->args[0]);
	static const char *const also[][2] = { { "display-name", "displayName" },
					       { "email", "email" },
					       { "picture-url", "pictureUrl" } };
	int r;

	if (!body)
		return cli_fail(a->c, CLI_EXIT_USAGE, "the name is no valid UTF-8 text");
	for (size_t i = 0; i < ARRAY_SIZE(also); i++)
		if (cli_has(a->c, also[i][0]))
			json_object_set_new(body, also[i][1],
					    json_string(cli_text(a->c, also[i][0], "")));
	r = call(a, "POST", "/api/v1/user", body, &answer);
	return r != CLI_EXIT_GOOD ? r : done(a, json_get(answer, "user"), "User created");
}

static int users_list(const struct admin *a)
{
	static const char *const names[] = { "ID", "Name", "Username", "Email", "Created" };
	CLEANUP(json_decref) json_t *answer = NULL;
	struct out_table t;
	const json_t *u;
	size_t i;
	int r;

	if (cli_has(a->c, "identifier"))
		r = call_with(a, "GET", "/api/v1/user?id=", cli_text(a->c, "identifier", ""), "",
			      NULL, &answer);
	else if (cli_has(a->c, "name"))
		r = call_with(a, "GET", "/api/v1/user?name=", cli_text(a->c, "name", ""), "", NULL,
			      &answer);
	else if (cli_has(a->c, "email"))
		r = call_with(a, "GET", "/api/v1/user?email=", cli_text(a->c, "email", ""), "",
			      NULL, &answer);
	else
		r = call(a, "GET", "/api/v1/user", NULL, &answer);
	if (r != CLI_EXIT_GOOD)
		return r;
	if (wants_json(a))
		return print_json(a, json_get(answer, "users"));
	header(&t, names, ARRAY_SIZE(names));
	json_array_foreach (json_get(answer, "users"), i, u) {
		out_table_cell(&t, text(u, "id"));
		out_table_cell(&t, text(u, "displayName"));
		out_table_cell(&t, text(u, "name"));
		out_table_cell(&t, text(u, "email"));
		cell_time(&t, u, "createdAt");
	}
	return print_table(a, &t);
}

/* By -i, -n, or the first argument (the older generation's way). */
static int named_user(const struct admin *a, json_t **ret)
{
	const char *what = cli_text(a->c, "identifier",
				    cli_text(a->c, "name", a->c->n_args ? a->c->args[0] : NULL));

	if (!what || !*what)
		return cli_fail(a->c, CLI_EXIT_USAGE,
				"users %s: which user? give --name or --identifier", a->verb);
	return find_user(a, what, ret);
}

static int users_destroy(const struct admin *a)
{
	CLEANUP(json_decref) json_t *user = NULL;
	CLEANUP(json_decref) json_t *answer = NULL;
	int r = named_user(a, &user);

	if (r == CLI_EXIT_GOOD)
		r = confirm(a, "remove user", text(user, "name"));
	if (r == CLI_EXIT_GOOD)
		r = call_with(a, "DELETE", "/api/v1/user/", text(user, "id"), "", NULL, &answer);
	return r != CLI_EXIT_GOOD ? r : done(a, answer, "User destroyed");
}

static int users_rename(const struct admin *a)
{
	CLEANUP(json_decref) json_t *user = NULL;
	CLEANUP(json_decref) json_t *answer = NULL;
	bool flags = cli_has(a->c, "identifier") || cli_has(a->c, "name");
	const char *to = cli_text(a->c, "new-name", NULL);
	struct buf path = { 0 };
	int r;

	if (!to && a->c->n_args > (flags ? 0 : 1))
		to = a->c->args[flags ? 0 : 1];
	if (!to || !*to)
		return cli_fail(a->c, CLI_EXIT_USAGE,
				"users rename: the new name is missing; give --new-name");
	r = named_user(a, &user);
	if (r != CLI_EXIT_GOOD)
		return r;
	buf_put_str(&path, "/rename/");
	client_escape(&path, to);
	r = path.bad ? cli_fail(a->c, CLI_EXIT_FAILED, "out of memory")
		     : call_with(a, "POST", "/api/v1/user/", text(user, "id"), buf_str(&path), NULL,
				 &answer);
	buf_done(&path);
	return r != CLI_EXIT_GOOD ? r : done(a, json_get(answer, "user"), "User renamed");
}

/* Commands of one group, by the name in the table. */
struct verb {
	const char *name;
	int (*run)(const struct admin *a);
};

static int dispatch(struct cli *c, const struct verb *verbs, size_t n)
{
	struct admin a = admin_of(c);
	int r = check_output(&a);

	for (size_t i = 0; i < n && r == CLI_EXIT_GOOD; i++)
		if (!strcmp(verbs[i].name, a.verb))
			return verbs[i].run(&a);
	return r != CLI_EXIT_GOOD ? r
				  : cli_fail(c, CLI_EXIT_FAILED, "%s has no work to do", a.verb);
}

int cmd_admin_users(struct cli *c)
{
	static const struct verb verbs[] = { { "create", users_create },
					     { "list", users_list },
					     { "destroy", users_destroy },
					     { "rename", users_rename } };

	return dispatch(c, verbs, ARRAY_SIZE(verbs));
}

/* Pre-auth keys */

static int keys_create(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	CLEANUP(json_decref) json_t *user = NULL;
	CLEANUP(json_decref) json_t *body = json_object();
	const char *who = cli_text(a->c, "user", ""), *tags = cli_text(a->c, "tags", "");
	int64_t life = cli_msec(a->c, "expiration", 3600 * 1000);
	char when[40];
	const json_t *key;
	int r;

	if (!*who && !*tags)
		return cli_fail(a->c, CLI_EXIT_USAGE,
				"preauthkeys create: whose nodes? give --user or --tags");
	if (life == 0)
		return cli_fail(a->c, CLI_EXIT_USAGE,
				"preauthkeys create: with --expiration %s the key has expired before anybody uses it; "
				"give a time such as 1h", cli_text(a->c, "expiration", ""));
	if (*who) {
		r = find_user(a, who, &user);
		if (r != CLI_EXIT_GOOD)
			return r;
		json_object_set_new(body, "user", json_string(text(user, "id")));
	}
	json_object_set_new(body, "reusable", json_boolean(cli_bool(a->c, "reusable", false)));
	json_object_set_new(body, "ephemeral", json_boolean(cli_bool(a->c, "ephemeral", false)));
	json_object_set_new(body, "expiration",
			    json_string(json_time_text(out_now() + life * 1000000, when)));
	json_object_set_new(body, "aclTags", cmd_list_json(tags));
	r = call(a, "POST", "/api/v1/preauthkey", body, &answer);
	if (r != CLI_EXIT_GOOD)
		return r;
	key = json_get(answer, "preAuthKey");
	return done(a, key, text(key, "key"));
}

static bool key_is_of(const json_t *key, const char *who)
{
	const json_t *user = json_get(key, "user");

	return !*who || !strcmp(text(user, "id"), who) || !strcmp(text(user, "name"), who);
}

static int keys_list(const struct admin *a)
{
	static const char *const names[] = { "ID",   "Key/Prefix", "Reusable", "Ephemeral",
					     "Used", "Expiration", "Created",  "Owner" };
	CLEANUP(json_decref) json_t *answer = NULL;
	CLEANUP(json_decref) json_t *mine = json_array();
	const char *who = cli_text(a->c, "user", "");
	struct out_table t;
	json_t *k;
	size_t i;
	int r = call(a, "GET", "/api/v1/preauthkey", NULL, &answer);

	if (r != CLI_EXIT_GOOD)
		return r;
	json_array_foreach (json_get(answer, "preAuthKeys"), i, k) {
		if (key_is_of(k, who))
			json_array_append(mine, k);
	}
	if (wants_json(a))
		return print_json(a, mine);
	header(&t, names, ARRAY_SIZE(names));
	json_array_foreach (mine, i, k) {
		const json_t *tags = json_get(k, "aclTags");

		out_table_cell(&t, text(k, "id"));
		out_table_cell(&t, text(k, "key"));
		out_table_cell(&t, yes_no(k, "reusable"));
		out_table_cell(&t, yes_no(k, "ephemeral"));
		out_table_cell(&t, yes_no(k, "used"));
		cell_time(&t, k, "expiration");
		cell_time(&t, k, "createdAt");
		if (json_array_size(tags))
			cell_list(&t, tags);
		else
			out_table_cell(&t, text(json_get(k, "user"), "name"));
	}
	return print_table(a, &t);
}

/* -i ID, the first argument, or (older generation) the key itself, which is looked up by its
 * prefix. */
static int named_key(const struct admin *a, char out[static 24])
{
	CLEANUP(json_decref) json_t *answer = NULL;
	const char *what = cli_text(a->c, "identifier", a->c->n_args ? a->c->args[0] : "");
	const json_t *k;
	size_t i;
	int r;

	if (is_number(what) && strlen(what) < 24) {
		strcpy(out, what);
		return CLI_EXIT_GOOD;
	}
	if (!*what)
		return cli_fail(a->c, CLI_EXIT_USAGE,
				"preauthkeys %s: which key? give --identifier ID", a->verb);
	r = call(a, "GET", "/api/v1/preauthkey", NULL, &answer);
	if (r != CLI_EXIT_GOOD)
		return r;
	json_array_foreach (json_get(answer, "preAuthKeys"), i, k) {
		const char *masked = text(k, "key"), *id = text(k, "id");
		size_t n = strcspn(masked, "*");

		if (n >= 8 && !strncmp(masked, what, n) && strlen(id) < 24) {
			strcpy(out, id);
			return CLI_EXIT_GOOD;
		}
	}
	return cli_fail(a->c, CLI_EXIT_FAILED,
			"there is no such key; see wgctl admin preauthkeys list");
}

static int keys_expire(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	CLEANUP(json_decref) json_t *body = NULL;
	char id[24];
	int r = named_key(a, id);

	if (r != CLI_EXIT_GOOD)
		return r;
	body = json_pack("{s:s}", "id", id);
	r = call(a, "POST", "/api/v1/preauthkey/expire", body, &answer);
	return r != CLI_EXIT_GOOD ? r : done(a, answer, "Key expired");
}

static int keys_delete(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	char id[24];
	int r = named_key(a, id);

	if (r == CLI_EXIT_GOOD)
		r = call_with(a, "DELETE", "/api/v1/preauthkey?id=", id, "", NULL, &answer);
	return r != CLI_EXIT_GOOD ? r : done(a, answer, "Key deleted");
}

int cmd_admin_keys(struct cli *c)
{
	static const struct verb verbs[] = { { "create", keys_create },
					     { "list", keys_list },
					     { "expire", keys_expire },
					     { "delete", keys_delete } };

	return dispatch(c, verbs, ARRAY_SIZE(verbs));
}

/* Nodes */

static bool node_expired(const json_t *n)
{
	int64_t t;

	if (json_is_boolean(json_get(n, "expired")))
		return json_get_bool(n, "expired", false);
	return json_time_parse(text(n, "expiry"), &t) >= 0 && t && t <= out_now();
}

static int nodes_list(const struct admin *a)
{
	static const char *const names[] = { "ID",	  "Hostname",	"Name",		"NodeKey",
					     "User",	  "Tags",	"IP addresses", "Ephemeral",
					     "Last seen", "Expiration", "Connected",	"Expired" };
	CLEANUP(json_decref) json_t *answer = NULL;
	CLEANUP(json_decref) json_t *user = NULL;
	const char *who = cli_text(a->c, "user", "");
	struct out_table t;
	const json_t *n;
	size_t i;
	int r;

	if (*who) {
		r = find_user(a, who, &user);
		if (r != CLI_EXIT_GOOD)
			return r;
		r = call_with(a, "GET", "/api/v1/node?user=", text(user, "name"), "", NULL,
			      &answer);
	} else {
		r = call(a, "GET", "/api/v1/node", NULL, &answer);
	}
	if (r != CLI_EXIT_GOOD)
		return r;
	if (wants_json(a))
		return print_json(a, json_get(answer, "nodes"));
	header(&t, names, ARRAY_SIZE(names));
	json_array_foreach (json_get(answer, "nodes"), i, n) {
		const char *key = text(n, "nodeKey");
		struct key node_key;
		char shorter[8];

		if (key_parse(KEY_KIND_NODE, key, strlen(key), &node_key) >= 0)
			key = key_short(&node_key, shorter);
		out_table_cell(&t, text(n, "id"));
		out_table_cell(&t, text(n, "name"));
		out_table_cell(&t, text(n, "givenName"));
		out_table_cell(&t, key);
		out_table_cell(&t, json_get(n, "user") ? text(json_get(n, "user"), "name")
						       : "tagged-devices");
		cell_list(&t, json_get(n, "tags"));
		cell_list(&t, json_get(n, "ipAddresses"));
		out_table_cell(
		    &t, json_get_bool(n, "ephemeral",
				      json_get_bool(json_get(n, "preAuthKey"), "ephemeral", false))
			    ? "true"
			    : "false");
		cell_time(&t, n, "lastSeen");
		cell_time(&t, n, "expiry");
		out_table_cell(&t, json_get_bool(n, "online", false) ? "online" : "offline");
		out_table_cell(&t, node_expired(n) ? "yes" : "no");
	}
	return print_table(a, &t);
}

static bool node_is(const json_t *n, const char *what)
{
	const json_t *v;
	size_t i;

	if (!strcmp(text(n, "givenName"), what) || !strcmp(text(n, "fqdn"), what))
		return true;
	json_array_foreach (json_get(n, "ipAddresses"), i, v) {
		if (json_is_string(v) && !strcmp(json_string_value(v), what))
			return true;
	}
	return false;
}

/* The id of the node that -i or the argument means: an id, or a name or address that is looked
 * up. */
static int named_node(const struct admin *a, const char *arg, char out[static 24])
{
	CLEANUP(json_decref) json_t *answer = NULL;
	const char *what = cli_text(a->c, "identifier", arg ? arg : "");
	const json_t *n;
	size_t i;
	int r;

	if (is_number(what) && strlen(what) < 24) {
		strcpy(out, what);
		return CLI_EXIT_GOOD;
	}
	if (!*what)
		return cli_fail(a->c, CLI_EXIT_USAGE, "nodes %s: which node? give --identifier ID",
				a->verb);
	r = call(a, "GET", "/api/v1/node", NULL, &answer);
	if (r != CLI_EXIT_GOOD)
		return r;
	json_array_foreach (json_get(answer, "nodes"), i, n) {
		const char *id = text(n, "id");

		if (node_is(n, what) && strlen(id) < 24) {
			strcpy(out, id);
			return CLI_EXIT_GOOD;
		}
	}
	return cli_fail(a->c, CLI_EXIT_FAILED,
			"there is no node \"%s\"; see wgctl admin nodes list", what);
}

static const char *first_arg(const struct admin *a)
{
	return a->c->n_args ? a->c->args[0] : NULL;
}

static int nodes_expire(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	CLEANUP(json_decref) json_t *body = NULL;
	const char *when = cli_text(a->c, "expiry", ""), *said = "Node expired";
	bool never = cli_bool(a->c, "disable", false);
	int64_t t;
	char id[24];
	int r;

	if (*when && never)
		return cli_fail(a->c, CLI_EXIT_USAGE, "--expiry and --disable exclude each other");
	if (*when && json_time_parse(when, &t) < 0)
		return cli_fail(a->c, CLI_EXIT_USAGE,
				"--expiry wants a time like 2027-01-31T12:00:00Z, not \"%s\"",
				when);
	r = named_node(a, first_arg(a), id);
	if (r != CLI_EXIT_GOOD)
		return r;
	if (never) {
		body = json_pack("{s:b}", "disableExpiry", 1);
		said = "Node expiry disabled";
	} else if (*when) {
		body = json_pack("{s:s}", "expiry", when);
		said = "Node expiration updated";
	}
	r = call_with(a, "POST", "/api/v1/node/", id, "/expire", body, &answer);
	return r != CLI_EXIT_GOOD ? r : done(a, json_get(answer, "node"), said);
}

static int nodes_rename(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	struct buf path = { 0 };
	char id[24];
	int r = named_node(a, NULL, id);

	if (r != CLI_EXIT_GOOD)
		return r;
	buf_put_str(&path, "/rename/");
	client_escape(&path, a->c->args[0]);
	r = path.bad ? cli_fail(a->c, CLI_EXIT_FAILED, "out of memory")
		     : call_with(a, "POST", "/api/v1/node/", id, buf_str(&path), NULL, &answer);
	buf_done(&path);
	return r != CLI_EXIT_GOOD ? r : done(a, json_get(answer, "node"), "Node renamed");
}

static int nodes_delete(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	char id[24];
	int r = named_node(a, first_arg(a), id);

	if (r == CLI_EXIT_GOOD)
		r = confirm(a, "remove node", id);
	if (r == CLI_EXIT_GOOD)
		r = call_with(a, "DELETE", "/api/v1/node/", id, "", NULL, &answer);
	return r != CLI_EXIT_GOOD ? r : done(a, answer, "Node deleted");
}

static int nodes_tag(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	CLEANUP(json_decref) json_t *body = NULL;
	json_t *tags = cmd_list_json(cli_text(a->c, "tags", ""));
	char id[24];
	int r;

	body = json_pack("{s:o}", "tags", tags);
	if (!body)
		return cli_fail(a->c, CLI_EXIT_USAGE, "--tags is no valid UTF-8 text");
	if (!json_array_size(tags))
		return cli_fail(a->c, CLI_EXIT_USAGE,
				"nodes tag: no tag was given; give --tags tag:NAME");
	r = named_node(a, NULL, id);
	if (r == CLI_EXIT_GOOD)
		r = call_with(a, "POST", "/api/v1/node/", id, "/tags", body, &answer);
	return r != CLI_EXIT_GOOD ? r : done(a, json_get(answer, "node"), "Node updated");
}

static int nodes_register(const struct admin *a)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	CLEANUP(json_decref) json_t *user = NULL;
	CLEANUP(json_decref) json_t *body = NULL;
	const char *who = cli_text(a->c, "user", ""), *key = cli_text(a->c, "key", "");
	const json_t *node;
	struct buf said = { 0 };
	int r;

	if (!*who || !*key)
		return cli_fail(a->c, CLI_EXIT_USAGE, "nodes register wants --user and --key");
	r = find_user(a, who, &user);
	if (r != CLI_EXIT_GOOD)
		return r;
	body = json_pack("{s:s,s:s}", "user", text(user, "name"), "authId", key);
	r = call(a, "POST", "/api/v1/auth/register", body, &answer);
	if (r != CLI_EXIT_GOOD)
		return r;
	node = json_get(answer, "node");
	buf_put_str(&said, "Node ");
	out_safe(&said, text(node, "givenName"));
	buf_put_str(&said, " registered");
	r = done(a, node, said.bad ? "Node registered" : buf_str(&said));
	buf_done(&said);
	return r;
}

int cmd_admin_nodes(struct cli *c)
{
	static const struct verb verbs[] = {
		{ "list", nodes_list },	    { "expire", nodes_expire },
		{ "rename", nodes_rename }, { "delete", nodes_delete },
		{ "tag", nodes_tag },	    { "register", nodes_register }
	};

	return dispatch(c, verbs, ARRAY_SIZE(verbs));
}

int cmd_admin_health(struct cli *c)
{
	struct admin a = admin_of(c);
	CLEANUP(json_decref) json_t *answer = NULL;
	int r = check_output(&a);

	if (r == CLI_EXIT_GOOD)
		r = call(&a, "GET", "/api/v1/health", NULL, &answer);
	if (r != CLI_EXIT_GOOD)
		return r;
	return done(&a, answer,
		    json_get_bool(answer, "databaseConnectivity", false) ? "healthy"
									 : "no database");
}
