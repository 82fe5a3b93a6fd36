/*
 * ctlcat: a node without a network: logs in to a coordination server and prints what the map says.
 *
 *   ctlcat --server URL --dir DIR [--auth-key KEY] [--hostname NAME] [--ca FILE] [--home REGION]
 *          [--for SECONDS] [--debug]
 *
 * Prints one line for each state, map and event; the time in front is in milliseconds since start.
 * Reads commands from stdin, one a line: home REGION, endpoints A:P …, login [KEY], relogin [KEY],
 * logout, accept, kick, newdisco, peers, status, save, quit.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/control/control.h"
#include "daemon/netmap/netmap_routes.h"
#include "daemon/state.h"
#include "lib/file.h"
#include "lib/log.h"

struct ctlcat {
	struct loop *loop;
	struct state *state;
	struct netmap *nm;
	struct control *control;
	struct loop_io *in;
	struct loop_timer *end;
	struct loop_signal *term, *intr;
	const char *server, *auth_key, *hostname;
	uint64_t start;
	char line[4096];
	size_t len;
};

static void __attribute__((format(printf, 2, 3))) say(struct ctlcat *t, const char *fmt, ...)
{
	uint64_t now = loop_now(t->loop) - t->start;
	va_list ap;

	printf("%6llu ", (unsigned long long)now / 1000);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void on_state(void *data, enum control_state state, const char *text)
{
	say(data, "STATE %s%s%s", control_state_name(state), *text ? ": " : "", text);
}

static void print_peer(struct ctlcat *t, const char *what, const struct tailcfg_node *n)
{
	char key[8], prefix[PREFIX_TEXT_MAX], ep[ENDPOINT_TEXT_MAX];
	static const char *const online[] = { "?", "no", "yes" };

	say(t, "%s %d %s %s disco=%s home=%d online=%s usable=%s", what, (int)n->id, n->name,
	    key_short(&n->key, key), key_is_zero(&n->disco) ? "no" : "yes", n->home_derp,
	    online[n->online], netmap_peer_usable(t->nm, n) ? "yes" : "no");
	for (size_t i = 0; i < n->n_addresses; i++)
		say(t, "   address %s", prefix_text(&n->addresses[i], prefix));
	for (size_t i = 0; i < n->n_endpoints; i++)
		say(t, "   endpoint %s", endpoint_text(&n->endpoints[i], ep));
}

static void on_map(void *data, const struct netmap_changes *c, bool first)
{
	static const char *const kinds[] = { "ADDED", "CHANGED", "REMOVED" };
	struct ctlcat *t = data;

	say(t, "MAP %s peers=%zu self=%#x%s%s%s%s skipped=%zu allow-all=%s", first ? "first" : "delta",
	    netmap_n_peers(t->nm), c->self, c->derp ? " derp" : "", c->dns ? " dns" : "",
	    c->filter ? " filter" : "", c->users ? " users" : "", c->n_skipped,
	    netmap_filter_is_allow_all(t->nm, false) ? "yes" : "no");
	if (first)
		print_peer(t, "SELF", t->nm->self);
	for (size_t i = 0; i < c->n_peers; i++) {
		const struct tailcfg_node *n = netmap_peer_by_id(t->nm, c->peer[i].id);

		say(t, "PEER %s %d aspects=%#x", kinds[c->peer[i].kind], (int)c->peer[i].id,
		    c->peer[i].aspects);
		if (n && c->n_peers <= 8)
			print_peer(t, "   now", n);
	}
}

static void on_auth_url(void *data, const char *url)
{
	say(data, "URL %s", url);
}

static void on_login_failed(void *data, const char *text, bool permanent)
{
	say(data, "FAILED %s: %s", permanent ? "for good" : "for now", text);
}

static int on_node_key(void *data, const struct key_pair *node, const struct key_pair *old)
{
	struct ctlcat *t = data;
	char a[8], b[8];

	t->state->node = *node;
	t->state->old_node = *old;
	t->state->registered = false;
	say(t, "NODEKEY %s was %s", key_short(&node->pub, a), key_short(&old->pub, b));
	return state_save(t->state);
}

static void on_registered(void *data, const struct key_pair *node, const char *login)
{
	struct ctlcat *t = data;
	char a[8];

	t->state->registered = true;
	say(t, "REGISTERED %s as %s", key_short(&node->pub, a), login);
	state_save(t->state);
}

static int on_server_key(void *data, const char *url, const struct key *key)
{
	struct ctlcat *t = data;
	int r;

	say(t, "PIN %s", url);
	r = state_pin_set(t->state, url, key);
	return r < 0 ? r : state_save(t->state);
}

static void on_browse(void *data, const char *url)
{
	say(data, "BROWSE %s", url);
}

static const struct control_ops ops = {
	.on_state = on_state,
	.on_map = on_map,
	.on_auth_url = on_auth_url,
	.on_login_failed = on_login_failed,
	.on_node_key = on_node_key,
	.on_registered = on_registered,
	.on_server_key = on_server_key,
	.on_browse = on_browse,
};

static void quit(void *data)
{
	struct ctlcat *t = data;

	loop_exit(t->loop, 0);
}

static void on_signal(void *data, int signo)
{
	(void)signo;
	quit(data);
}

static void logged_out(void *data, int r)
{
	say(data, "LOGGEDOUT %s", r < 0 ? strerror(-r) : "ok");
}

static void set_home(struct ctlcat *t, int region)
{
	struct tailcfg_netinfo net = { .preferred_derp = region, .working_udp = TAILCFG_YES };

	control_set_netinfo(t->control, &net);
}

static void set_endpoints(struct ctlcat *t, char *list)
{
	struct tailcfg_endpoint eps[16];
	size_t n = 0;

	for (char *e = strtok(list, " "); e && n < ARRAY_SIZE(eps); e = strtok(NULL, " ")) {
		if (endpoint_parse(e, strlen(e), &eps[n].ep) == 0)
			eps[n++].type = TAILCFG_ENDPOINT_LOCAL;
	}
	control_set_endpoints(t->control, eps, n);
}

static void print_status(struct ctlcat *t)
{
	struct control_status s;

	control_status(t->control, &s);
	say(t, "STATUS %s maps=%u bytes=%llu live=%s url=%s", control_state_name(s.state), s.maps,
	    (unsigned long long)s.bytes, s.map_live ? "yes" : "no", s.auth_url);
}

static void save(struct ctlcat *t)
{
	char path[PATH_MAX];
	CLEANUP(buf_done) struct buf b = { .max = NETMAP_BYTES_MAX };
	int r = state_path(t->state, "netmap.json", path, sizeof(path));

	if (r == 0)
		r = netmap_encode(t->nm, t->server, &b);
	if (r == 0)
		r = file_replace(path, buf_data(&b), b.len, 0600);
	say(t, "SAVED %s", r < 0 ? strerror(-r) : path);
}

static void command(struct ctlcat *t, char *line)
{
	char *arg = strchr(line, ' ');

	if (arg)
		*arg++ = '\0';
	if (strcmp(line, "quit") == 0)
		quit(t);
	else if (strcmp(line, "home") == 0 && arg)
		set_home(t, (int)strtol(arg, NULL, 10));
	else if (strcmp(line, "endpoints") == 0)
		set_endpoints(t, arg ? arg : line + strlen(line));
	else if (strcmp(line, "login") == 0 || strcmp(line, "relogin") == 0)
		say(t, "LOGIN %d", control_login(t->control, arg, line[0] == 'r'));
	else if (strcmp(line, "logout") == 0)
		control_logout(t->control, logged_out, t);
	else if (strcmp(line, "accept") == 0)
		say(t, "ACCEPT %d", control_accept_server_key(t->control));
	else if (strcmp(line, "kick") == 0)
		control_kick(t->control);
	else if (strcmp(line, "status") == 0)
		print_status(t);
	else if (strcmp(line, "save") == 0)
		save(t);
	else if (strcmp(line, "peers") == 0)
		for (size_t i = 0; i < netmap_n_peers(t->nm); i++)
			print_peer(t, "HAS", netmap_peer_at(t->nm, i));
	else if (strcmp(line, "newdisco") == 0 && state_new_disco(t->state) == 0)
		control_set_disco(t->control, &t->state->disco.pub);
	else
		say(t, "unknown command %s", line);
}

static void on_stdin(void *data, int fd, uint32_t events)
{
	struct ctlcat *t = data;
	ssize_t n = read(fd, t->line + t->len, sizeof(t->line) - 1 - t->len);
	char *end;

	(void)events;
	if (n <= 0) { /* the end of stdin is not the end of us */
		loop_io_free(TAKE(t->in));
		return;
	}
	t->len += (size_t)n;
	t->line[t->len] = '\0';
	while ((end = strchr(t->line, '\n'))) {
		*end = '\0';
		command(t, t->line);
		t->len -= (size_t)(end + 1 - t->line);
		memmove(t->line, end + 1, t->len + 1);
	}
}

static int set_up(struct ctlcat *t, const char *dir, const char *ca, int home)
{
	static char os[] = "linux", client[] = KERNSCALE_VERSION "-kernscale";
	char hostname[256] = "";
	struct tailcfg_hostinfo h = { .os = os, .client_version = client, .hostname = hostname };
	CLEANUP(tls_ctx_unref) struct tls_ctx *tls = NULL;
	struct control_config cfg = { .server_url = t->server };
	int r;

	snprintf(hostname, sizeof(hostname), "%s", t->hostname);
	r = state_open(dir, dir, &t->state);
	if (r < 0)
		return log_err_errno(r, "%s", dir);
	r = netmap_new(&t->nm);
	if (r == 0 && strncmp(t->server, "https:", 6) == 0)
		r = tls_client_new(ca, &tls);
	if (r < 0)
		return log_err_errno(r, "TLS: %s", tls_error());
	cfg.tls = tls;
	cfg.machine = &t->state->machine;
	cfg.node = &t->state->node;
	cfg.old_node = &t->state->old_node;
	cfg.registered = t->state->registered;
	cfg.disco = &t->state->disco.pub;
	cfg.server_key = state_pin_find(t->state, t->server);
	cfg.netmap = t->nm;
	r = control_new(t->loop, &cfg, &ops, t, &t->control);
	if (r < 0)
		return log_err_errno(r, "%s", t->server);
	control_set_hostinfo(t->control, &h);
	if (home)
		set_home(t, home);
	return 0;
}

static int run(struct ctlcat *t, const char *dir, const char *ca, int home, unsigned int seconds)
{
	int r;

	r = set_up(t, dir, ca, home);
	if (r < 0)
		return r;
	r = loop_signal_new(t->loop, SIGTERM, on_signal, t, &t->term);
	if (r == 0)
		r = loop_signal_new(t->loop, SIGINT, on_signal, t, &t->intr);
	if (r == 0)
		r = loop_timer_new(t->loop, quit, t, &t->end);
	if (r < 0)
		return r;
	if (seconds)
		loop_timer_in(t->end, seconds * USEC_PER_SEC);
	loop_io_new(t->loop, 0, EPOLLIN, on_stdin, t, &t->in); /* a file cannot be watched: then no commands */
	if (t->auth_key)
		r = control_login(t->control, t->auth_key, false);
	else
		control_start(t->control);
	return r < 0 ? r : loop_run(t->loop);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "server", 1, NULL, 's' },   { "dir", 1, NULL, 'd' },	 { "auth-key", 1, NULL, 'k' },
		{ "hostname", 1, NULL, 'n' }, { "ca", 1, NULL, 'c' },	 { "home", 1, NULL, 'h' },
		{ "for", 1, NULL, 'f' },      { "debug", 0, NULL, 'v' }, { NULL, 0, NULL, 0 },
	};
	struct ctlcat t = { .hostname = "ctlcat" };
	const char *dir = NULL, *ca = NULL;
	unsigned int seconds = 0;
	int home = 0, o, r;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's': t.server = optarg; break;
		case 'd': dir = optarg; break;
		case 'k': t.auth_key = optarg; break;
		case 'n': t.hostname = optarg; break;
		case 'c': ca = optarg; break;
		case 'h': home = (int)strtol(optarg, NULL, 10); break;
		case 'f': seconds = (unsigned int)strtoul(optarg, NULL, 10); break;
		case 'v': log_set_level(LOG_LEVEL_DEBUG); break;
		default: return 2;
		}
	}
	if (!t.server || !dir) {
		fprintf(stderr, "ctlcat: --server and --dir are needed\n");
		return 2;
	}
	if (key_init() < 0 || loop_new(&t.loop) < 0)
		return 1;
	t.start = loop_now(t.loop);
	r = run(&t, dir, ca, home, seconds);
	control_free(t.control);
	loop_io_free(t.in);
	loop_timer_free(t.end);
	loop_signal_free(t.term);
	loop_signal_free(t.intr);
	netmap_free(t.nm);
	state_free(t.state);
	loop_free(t.loop);
	return r < 0 ? 1 : 0;
}
