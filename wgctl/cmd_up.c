#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

#include "lib/json.h"
#include "wgctl/client.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"
#include "wgctl/view.h"

#define KEY_MAX 512

/* Flags that are preferences, by their name in the API (which is the flag's). */
static const struct {
	const char *name;
	enum { PREF_BOOL, PREF_TEXT, PREF_LIST } kind;
} prefs[] = {
	{ "login-server", PREF_TEXT },
	{ "hostname", PREF_TEXT },
	{ "accept-dns", PREF_BOOL },
	{ "accept-routes", PREF_BOOL },
	{ "advertise-routes", PREF_LIST },
	{ "advertise-exit-node", PREF_BOOL },
	{ "advertise-tags", PREF_LIST },
	{ "exit-node", PREF_TEXT },
	{ "exit-node-allow-lan-access", PREF_BOOL },
	{ "shields-up", PREF_BOOL },
	{ "ssh", PREF_BOOL },
	{ "snat-subnet-routes", PREF_BOOL },
	{ "stateful-filtering", PREF_BOOL },
	{ "netfilter-mode", PREF_TEXT },
	{ "operator", PREF_TEXT },
	{ "nickname", PREF_TEXT },
	{ "report-posture", PREF_BOOL },
};

json_t *cmd_list_json(const char *text)
{
	json_t *a = json_array();

	while (*text) {
		size_t n = strcspn(text, ",");

		if (n && json_array_append_new(a, json_stringn(text, n)) < 0) {
			json_decref(a);
			return NULL;
		}
		text += n + (text[n] == ',');
	}
	return a;
}

static json_t *prefs_json(const struct cli *c)
{
	json_t *o = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(prefs); i++) {
		const char *v = cli_text(c, prefs[i].name, NULL);
		json_t *j = NULL;

		if (!v)
			continue;
		switch (prefs[i].kind) {
		case PREF_BOOL:
			j = json_boolean(cli_bool(c, prefs[i].name, false));
			break;
		case PREF_TEXT:
			j = json_string(v);
			break;
		case PREF_LIST:
			j = cmd_list_json(v);
			break;
		}
		if (json_object_set_new(o, prefs[i].name, j) < 0) {
			json_decref(o);
			return NULL;
		}
	}
	return o;
}

/* The whole of a small file or of standard input. Length, or negative errno. */
static ssize_t read_small(int fd, char *out, size_t max)
{
	size_t n = 0;

	for (;;) {
		ssize_t r = read(fd, out + n, max - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return (ssize_t)n;
		n += (size_t)r;
		if (n == max)
			return -EFBIG;
	}
}

#define KEY_REMEDY "make one by wgctl admin preauthkeys create, or leave --auth-key out to log in by a URL"

static int fail_key(const struct cli *c, const char *from, const char *why)
{
	return cli_fail(c, CLI_EXIT_FAILED, "cannot read the auth key from %s: %s; " KEY_REMEDY, from, why);
}

static int read_key(const struct cli *c, const char *from, char out[static KEY_MAX])
{
	CLEANUP(fd_close) int opened = -1;
	const char *path = from + strlen("file:");
	bool is_stdin = !strcmp(from, "-");
	int fd = STDIN_FILENO;
	ssize_t n;

	if (!is_stdin) {
		fd = opened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			return fail_key(c, path, strerror(errno));
	}
	n = read_small(fd, out, KEY_MAX);
	if (n < 0)
		return fail_key(c, is_stdin ? "standard input" : path,
				n == -EFBIG ? "it is too long for a key" : strerror((int)-n));
	while (n && strchr(" \t\r\n", out[n - 1]))
		n--;
	out[n] = '\0';
	if (!n)
		return cli_fail(c, CLI_EXIT_FAILED, "there is no auth key in %s; " KEY_REMEDY,
				is_stdin ? "standard input" : path);
	return CLI_EXIT_GOOD;
}

static int put_key(const struct cli *c, json_t *body)
{
	const char *v = cli_text(c, "auth-key", "");
	char key[KEY_MAX] = "";
	json_t *j;
	int r = CLI_EXIT_GOOD;

	if (!cli_has(c, "auth-key"))
		return r;
	if (!*v)
		return cli_fail(c, CLI_EXIT_USAGE, "--auth-key is empty: without a key leave the flag away");
	if (!strcmp(v, "-") || !strncmp(v, "file:", 5))
		r = read_key(c, v, key);
	else if (strlen(v) < sizeof(key))
		memcpy(key, v, strlen(v) + 1);
	else
		r = cli_fail(c, CLI_EXIT_USAGE, "this is no auth key: it is too long");
	if (r == CLI_EXIT_GOOD) {
		j = json_string(key);
		if (j && *key)
			json_object_set_new(body, "auth_key", j);
		else
			r = cli_fail(c, CLI_EXIT_USAGE, "this is no auth key");
	}
	sodium_memzero(key, sizeof(key));
	return r;
}

static int print_json(const struct cli *c, const json_t *state)
{
	return out_json(c->out, state, OUT_JSON_BLANKS) < 0 ? CLI_EXIT_FAILED : CLI_EXIT_GOOD;
}

/* Something a person has to do stands between us and the mesh: say it, then wait for it. */
static int wait_for_person(const struct cli *c, const struct client *node, const json_t *state,
			   int64_t left_msec)
{
	CLEANUP(json_decref) json_t *done = NULL;
	const char *url = json_get_str(state, "AuthURL");
	struct buf text = { 0 }, path = { 0 };
	int r;

	if (cli_bool(c, "json", false)) {
		print_json(c, state);
	} else if (url && *url) {
		out_safe(&text, url);
		fprintf(c->err, "\nTo authenticate, visit:\n\n\t%s\n\n",
			text.bad ? "" : buf_str(&text));
	} else {
		fprintf(c->err, "\nThis machine waits for approval by an admin of the mesh.\n\n");
	}
	buf_done(&text);
	fflush(c->err);
	buf_printf(&path, "/v1/wait?outcome=true&timeout_msec=%lld", (long long)left_msec);
	r = client_call(c, node, "GET", buf_str(&path), NULL, left_msec ? left_msec + 2000 : 0,
			&done);
	buf_done(&path);
	if (r != CLI_EXIT_GOOD)
		return r;
	if (cli_bool(c, "json", false))
		return print_json(c, done);
	fprintf(c->err, "Success.\n");
	return r;
}

int cmd_up(struct cli *c)
{
	CLEANUP(json_decref) json_t *body = json_object();
	CLEANUP(json_decref) json_t *state = NULL;
	struct client node = client_node(c);
	int64_t timeout = cli_msec(c, "timeout", 0), began = out_now() / 1000000, spent;
	const char *word;
	int r;

	r = put_key(c, body);
	if (r != CLI_EXIT_GOOD)
		return r;
	json_object_set_new(body, "schema", json_integer(1));
	if (json_object_set_new(body, "prefs", prefs_json(c)) < 0)
		return cli_fail(c, CLI_EXIT_USAGE, "a flag's value is no valid UTF-8 text");
	json_object_set_new(body, "reset", json_boolean(cli_bool(c, "reset", false)));
	json_object_set_new(body, "force_reauth", json_boolean(cli_bool(c, "force-reauth", false)));
	json_object_set_new(body, "timeout_msec", json_integer(timeout));
	/* The daemon answers in time; a little more is for a daemon that hangs. */
	r = client_call(c, &node, "POST", "/v1/up", body, timeout ? timeout + 2000 : 0, &state);
	if (r != CLI_EXIT_GOOD)
		return r;
	word = json_get_str(state, "BackendState");
	if (word && !strcmp(word, "Running"))
		return cli_bool(c, "json", false) ? print_json(c, state) : CLI_EXIT_GOOD;
	spent = out_now() / 1000000 - began;
	return wait_for_person(c, &node, state, timeout ? MAX(timeout - spent, 1) : 0);
}

static int change(struct cli *c, const char *path, json_t **ret)
{
	struct client node = client_node(c);

	return client_call(c, &node, "POST", path, NULL, 60000, ret);
}

int cmd_down(struct cli *c)
{
	CLEANUP(json_decref) json_t *answer = NULL;

	return change(c, "/v1/down", &answer);
}

int cmd_logout(struct cli *c)
{
	CLEANUP(json_decref) json_t *answer = NULL;
	int r = change(c, "/v1/logout", &answer);

	if (r == CLI_EXIT_GOOD && !json_get_bool(answer, "server_told", true))
		cli_warn(c, "warning: logged out here, but the server could not be told and still has this node; delete it "
			    "there (wgctl admin nodes delete), or log in and out again");
	return r;
}
