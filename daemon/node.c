#include "daemon/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "daemon/kernel/privs.h"
#include "daemon/node_priv.h"
#include "lib/file.h"
#include "lib/log.h"

/* A kernel that refused the mesh is asked again: it may have been a moment's want of memory. */
#define MESH_AGAIN_USEC	    USEC_PER_SEC /* doubled */
#define MESH_AGAIN_MAX_USEC (UINT64_C(30) * USEC_PER_SEC)
#define STATE_AGAIN_USEC    (UINT64_C(10) * USEC_PER_SEC)
#define LEFT_AGAIN_USEC	    (UINT64_C(5) * USEC_PER_SEC)

enum api_backend_state node_backend_state(const struct node *n)
{
	struct control_status s = { .state = CONTROL_STATE_STOPPED };

	if (n->control)
		control_status(n->control, &s);
	/* The server does not know us any more (deleted), or our key has had its time. */
	if (s.state == CONTROL_STATE_EXPIRED ||
	    (n->state->want_running &&
	     (s.state == CONTROL_STATE_NEEDS_LOGIN ||
	      (s.state == CONTROL_STATE_AUTHENTICATING && n->auth_url[0]))))
		return API_STATE_NEEDS_LOGIN;
	if (!n->state->registered || key_is_zero(&n->state->node.priv))
		return n->state->want_running && s.state != CONTROL_STATE_NEEDS_LOGIN &&
				       s.state != CONTROL_STATE_STOPPED && !n->auth_url[0] ?
			       API_STATE_STARTING :
			       API_STATE_NEEDS_LOGIN;
	if (!n->state->want_running)
		return API_STATE_STOPPED;
	if (s.state == CONTROL_STATE_NEEDS_APPROVAL)
		return API_STATE_NEEDS_MACHINE_AUTH;
	if (n->map->self && dataplane_is_up(n->dp) && !n->fresh_login)
		return API_STATE_RUNNING;
	return API_STATE_STARTING;
}

const struct key_pair *node_self(const struct node *n)
{
	const struct state *s = n->state;

	if (s->registered && !key_is_zero(&s->node.priv))
		return &s->node;
	return n->old_key_serves ? &s->old_node : NULL;
}

/* ---- what has to survive a restart ---- */

static void state_look_again(struct node *n)
{
	if (n->state_error < 0 || n->disco_error < 0)
		loop_timer_in(n->state_timer, STATE_AGAIN_USEC);
	else
		loop_timer_stop(n->state_timer);
}

int node_state_save(struct node *n)
{
	n->state_error = state_save(n->state);
	state_look_again(n);
	return n->state_error;
}

static void state_again(void *data)
{
	struct node *n = data;

	if (n->disco_error < 0)
		n->disco_error = state_save_disco(n->state);
	if (n->state_error < 0)
		n->state_error = state_save(n->state);
	state_look_again(n);
}

/* ---- what the server is told of this host ---- */

/* One value of /etc/os-release, without quotes. */
static char *os_release(const char *text, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		const char *v = p + n + 1, *end;

		if (strncmp(p, name, n) != 0 || p[n] != '=')
			continue;
		end = strchr(v, '\n');
		end = end ? end : v + strlen(v);
		if (end - v >= 2 && *v == '"' && end[-1] == '"') {
			v++;
			end--;
		}
		return strndup(v, (size_t)(end - v));
	}
	return strdup("");
}

void node_hostname(const struct node *n, char *ret, size_t max)
{
	ret[0] = ret[max - 1] = '\0';
	if (n->state->prefs.hostname[0])
		snprintf(ret, max, "%s", n->state->prefs.hostname);
	else if (gethostname(ret, max - 1) < 0 || !ret[0])
		snprintf(ret, max, "localhost");
}

void node_refresh_hostinfo(struct node *n)
{
	CLEANUP(buf_done) struct buf release = { .max = 65536 };
	struct tailcfg_hostinfo h = { 0 };
	char hostname[256];
	struct utsname u;
	const char *text = "";

	if (!n->control)
		return;
	if (file_read("/usr/lib/os-release", 32768, &release) == 0)
		text = buf_str(&release);
	node_hostname(n, hostname, sizeof(hostname));
	if (uname(&u) < 0)
		memset(&u, 0, sizeof(u));
	h.hostname = strdup(hostname);
	h.client_version = strdup(KERNSCALE_VERSION "-kernscale");
	h.os = strdup("linux");
	h.os_version = strdup(u.release);
	h.machine = strdup(u.machine);
	h.distro = os_release(text, "ID");
	h.distro_version = os_release(text, "VERSION_ID");
	h.distro_codename = os_release(text, "VERSION_CODENAME");
	if (control_set_hostinfo(n->control, &h) < 0)
		log_warning("no memory to describe this host to the server");
	tailcfg_hostinfo_done(&h);
}

/* ---- control ---- */

void node_up_begins(struct node *n)
{
	n->up_failed = n->up_failing = false;
	n->up_error.text[0] = '\0';
}

static void on_state(void *data, enum control_state state, const char *text)
{
	struct node *n = data;

	log_info("control: %s%s%s", control_state_name(state), text[0] ? ": " : "", text);
	if (state == CONTROL_STATE_RUNNING) {
		n->up_failing = false;
		if (dataplane_is_up(n->dp)) /* else it is what keeps the node from coming up */
			node_up_begins(n);
	} else if (state == CONTROL_STATE_SERVER_KEY_CHANGED) {
		n->up_failed = true;
		api_error_set(&n->up_error, API_CODE_REFUSED,
			      "if its operator changed the key, log out and log in again",
			      "the server's key is not the one seen before");
	}
	if (state != CONTROL_STATE_AUTHENTICATING)
		n->auth_url[0] = '\0';
	api_changed(n->api);
}

static void on_map(void *data, const struct netmap_changes *changes, bool first)
{
	struct node *n = data;

	n->fresh_login = false;
	node_mesh_start(n);
	node_map_changed(n, changes, first);
	api_changed(n->api);
}

static void on_auth_url(void *data, const char *url)
{
	struct node *n = data;

	snprintf(n->auth_url, sizeof(n->auth_url), "%s", url);
	log_notice("to log in, visit %s", url);
	api_changed(n->api);
}

static void on_login_failed(void *data, const char *text, bool permanent)
{
	struct node *n = data;

	log_remote(permanent ? LOG_LEVEL_ERR : LOG_LEVEL_WARNING, "log-in: %s", text);
	if (permanent)
		api_error_set(&n->up_error, API_CODE_REFUSED, "check the key, or make another one", "%s",
			      text);
	else
		api_error_set(&n->up_error, API_CODE_FAILED,
			      "check --login-server and the network; kernscaled goes on trying", "%s",
			      text);
	n->up_failed |= permanent;
	n->up_failing = true;
	api_changed(n->api);
}

static int on_node_key(void *data, const struct key_pair *node, const struct key_pair *old)
{
	struct node *n = data;
	struct key_pair was = n->state->node, was_old = n->state->old_node;
	bool registered = n->state->registered;
	int r;

	/* One that never came to be known is not what others know us by. */
	if (n->state->registered || key_is_zero(&n->state->old_node.priv) || key_is_zero(&node->pub))
		n->state->old_node = *old;
	if (!key_equal(&n->state->node.pub, &node->pub))
		n->state->registered = false;
	n->state->node = *node;
	if (key_is_zero(&node->pub)) /* logged out; the mesh goes, now or at the next start */
		state_want(n->state, false);
	r = node_state_save(n);
	if (r < 0 && !key_is_zero(&node->pub)) { /* it will not be used; but who logs out has none from now on */
		n->state->node = was;
		n->state->old_node = was_old;
		n->state->registered = registered;
	}
	key_pair_wipe(&was);
	key_pair_wipe(&was_old);
	return r;
}

static void on_registered(void *data, const struct key_pair *node, const char *login)
{
	struct node *n = data;
	int r;

	n->state->registered = true;
	n->old_key_serves = false;
	free(n->state->login);
	n->state->login = strdup(login);
	r = node_state_save(n);
	if (r < 0)
		log_err_errno(r, "cannot write the state in %s", n->cfg->statedir);
	n->up_failing = false;
	if (dataplane_is_up(n->dp)) {
		n->key_error = dataplane_set_key(n->dp, &node->priv);
		if (n->key_error < 0) {
			log_err_errno(n->key_error, "cannot give the interface its new key; trying again");
			node_sync_soon(n);
		}
	}
	derpc_set_self(n->derpc, node);
	paths_set_self(n->paths, &n->state->disco, &node->pub, loop_now(n->loop));
	node_mesh_start(n);
	api_changed(n->api);
}

static int on_server_key(void *data, const char *server_url, const struct key *key)
{
	struct node *n = data;
	int r = state_pin_set(n->state, server_url, key);

	return r < 0 ? r : node_state_save(n);
}

static const struct control_ops control_ops = {
	.on_state = on_state,
	.on_map = on_map,
	.on_auth_url = on_auth_url,
	.on_login_failed = on_login_failed,
	.on_node_key = on_node_key,
	.on_registered = on_registered,
	.on_server_key = on_server_key,
};

/* The relay inside a server without TLS has none either. */
static void set_plain_host(struct node *n, const char *url)
{
	char host[PREFS_URL_MAX];
	unsigned long port = 80;
	char *end, *colon;

	if (strncmp(url, "http://", 7) != 0) {
		derpc_set_plain_host(n->derpc, NULL, 0);
		return;
	}
	snprintf(host, sizeof(host), "%s", url + 7);
	host[strcspn(host, "/")] = '\0';
	colon = strrchr(host, ':');
	if (colon && !strchr(colon, ']')) {
		port = strtoul(colon + 1, &end, 10);
		*colon = '\0';
	}
	if (port > 0 && port <= 65535)
		derpc_set_plain_host(n->derpc, host, (uint16_t)port);
}

int node_control_open(struct node *n)
{
	const char *url = n->state->prefs.login_server;
	struct control_config c = {
		.server_url = url,
		.tls = n->tls,
		.mark = DIAL_MARK,
		.dial_cache = n->dial_cache,
		.machine = &n->state->machine,
		.node = &n->state->node,
		.old_node = &n->state->old_node,
		.registered = n->state->registered,
		.disco = &n->state->disco.pub,
		.server_key = state_pin_find(n->state, url),
		.netmap = n->map,
	};
	int r;

	if (n->control && strcmp(n->control_url, url) == 0)
		return 0;
	control_free(TAKE(n->control));
	r = control_new(n->loop, &c, &control_ops, n, &n->control);
	if (r < 0)
		return log_err_errno(r, "cannot talk to %s", url);
	snprintf(n->control_url, sizeof(n->control_url), "%s", url);
	set_plain_host(n, url);
	node_refresh_hostinfo(n);
	return 0;
}

/* ---- the mesh ---- */

/* Before control and netcheck borrow the map. One that is of no use is done without, but not one that could not be
 * opened: the mesh stays without us, and whoever starts us again is told why. */
static int load_map(struct node *n, const struct key *self)
{
	char path[CONFIG_PATH_MAX + 32];
	struct netmap *map;
	int r;

	if (state_path(n->state, NODE_MAP_CACHE, path, sizeof(path)) < 0)
		return 0;
	r = netmap_load(path, n->state->prefs.login_server, self, loop_wall_nsec(), &map);
	if (r == -EMFILE || r == -ENFILE)
		return r;
	if (r < 0) {
		if (r != -ENOENT)
			log_info_errno(r, "the map on disk is of no use");
		return 0;
	}
	netmap_free(n->map);
	n->map = map;
	return 0;
}

static void keep_ports(struct node *n, const struct dataplane_ports *p)
{
	struct state *s = n->state;
	int r;

	if (s->relay_port == p->relay && s->disco_port == p->disco && s->wireguard_port == p->wireguard)
		return;
	s->relay_port = p->relay;
	s->disco_port = p->disco;
	s->wireguard_port = p->wireguard;
	r = node_state_save(n);
	if (r < 0)
		log_warning_errno(r, "cannot write the state in %s", n->cfg->statedir);
}

void node_new_disco(struct node *n)
{
	n->disco_error = state_new_disco(n->state);
	if (n->disco_error < 0)
		log_warning_errno(n->disco_error, "cannot keep the disco key in %s", n->cfg->runtimedir);
	state_look_again(n);
	if (n->control)
		control_set_disco(n->control, &n->state->disco.pub);
}

/* Said once; what is left of what shall not be in the kernel any more is tried again until it is gone. */
static void look_left(struct node *n, int r, const char *error)
{
	if (r == 0)
		error = "";
	if (strcmp(n->left_error, error) != 0) {
		if (*error)
			log_remote(LOG_LEVEL_ERR, "%s", error);
		snprintf(n->left_error, sizeof(n->left_error), "%s", error);
		api_changed(n->api);
	}
	if (dataplane_is_left(n->dp))
		loop_timer_in(n->left_timer, LEFT_AGAIN_USEC);
	else
		loop_timer_stop(n->left_timer);
}

static void clear_left(void *data)
{
	struct node *n = data;
	char error[DATAPLANE_ERROR_MAX];
	int r = dataplane_clear(n->dp, error);

	look_left(n, r, error);
}

static void mesh_failed(struct node *n, const char *error)
{
	uint64_t again = MESH_AGAIN_USEC << MIN(n->mesh_failures, 10U);

	if (!n->mesh_failures || strcmp(n->up_error.text, error) != 0) /* not each time */
		log_err("%s", error);
	n->mesh_failures++;
	n->up_failed = true;
	api_error_set(&n->up_error, API_CODE_FAILED, "once that is mended, wgctl up again", "%s", error);
	api_changed(n->api);
	loop_timer_in(n->sync_timer, MIN(again, MESH_AGAIN_MAX_USEC));
}

void node_mesh_start(struct node *n)
{
	struct dataplane_ports ports = { .wireguard = n->state->wireguard_port,
					 .relay = n->state->relay_port,
					 .disco = n->state->disco_port };
	const struct key_pair *self = node_self(n);
	char error[DATAPLANE_ERROR_MAX];
	bool adopted;
	int r;

	if (dataplane_is_up(n->dp) || !n->state->want_running || !self)
		return;
	node_set_filter(n); /* an adopted table changes once, not by way of a stricter one */
	r = dataplane_up(n->dp, &self->priv, &ports, &adopted, error);
	if (r < 0) {
		mesh_failed(n, error);
		return;
	}
	n->mesh_failures = 0;
	node_up_begins(n);
	loop_timer_stop(n->sync_timer); /* it may be armed for the next attempt */
	clear_left(n);
	if (!adopted)
		node_new_disco(n);
	keep_ports(n, &ports);
	log_notice("interface %s %s, UDP port %u", n->cfg->interface, adopted ? "adopted" : "made",
		   dataplane_port(n->dp));
	n->dumped_once = false;
	n->sync_failures = 0;
	derpc_set_self(n->derpc, self);
	paths_set_self(n->paths, &n->state->disco, &self->pub, loop_now(n->loop));
	node_net_start(n);
	if (n->map->self)
		node_map_changed(n, NULL, true);
}

int node_mesh_stop(struct node *n, char error[static DATAPLANE_ERROR_MAX])
{
	int r = 0;

	n->old_key_serves = false;
	node_net_stop(n);
	node_peers_clear(n);
	if (dataplane_made(n->dp))
		r = dataplane_down(n->dp, error);
	look_left(n, r, error);
	return r;
}

void node_forget(struct node *n)
{
	char path[CONFIG_PATH_MAX + 32];
	struct netmap *map;

	state_forget_node(n->state);
	if (node_state_save(n) < 0)
		log_err("cannot write the state in %s", n->cfg->statedir);
	derpc_set_self(n->derpc, NULL);
	filewriter_wait(n->map_file);
	loop_timer_stop(n->save_timer);
	if (state_path(n->state, NODE_MAP_CACHE, path, sizeof(path)) == 0)
		unlink(path);
	if (netmap_new(&map) < 0)
		return;
	/* control feeds the map, so it goes first. */
	control_free(TAKE(n->control));
	n->control_url[0] = '\0';
	netmap_free(n->map);
	n->map = map;
	n->n_self_addrs = 0;
}

static int open_timers(struct node *n);

/* By `wgctl down` or logout, perhaps not to the end. A state folder that is new has not been asked for that. */
static bool went_down(const struct state *s)
{
	bool nobody = key_is_zero(&s->node.priv) && key_is_zero(&s->old_node.priv);

	return !s->fresh && (!s->want_running || nobody);
}

int node_new(struct loop *l, const struct config *cfg, struct node **ret,
	     char error[static NODE_ERROR_MAX])
{
	CLEANUP(node_free) struct node *n = calloc(1, sizeof(*n));
	char why[DATAPLANE_ERROR_MAX];
	struct api_options api = { cfg->socket, "kernscale", KERNSCALE_VERSION };
	int r;

	if (!n) {
		snprintf(error, NODE_ERROR_MAX, "no memory");
		return -ENOMEM;
	}
	n->loop = l;
	n->cfg = cfg;
	if (node_api_init(n) < 0) {
		snprintf(error, NODE_ERROR_MAX, "no memory");
		return -ENOMEM;
	}
	r = state_open(cfg->statedir, cfg->runtimedir, &n->state);
	if (r < 0) {
		snprintf(error, NODE_ERROR_MAX,
			 r == -EBUSY ? "another kernscaled has the state folder %.200s: stop it or give "
				       "--statedir" :
			 r == -EBADMSG ? "the state in %.200s cannot be read: it holds this machine's "
					 "identity, so restore it, or move it away to join as a new machine" :
			 r == -EADDRINUSE ? "another kernscaled has the runtime folder %.200s: stop it or give "
					    "--runtimedir" :
					 "cannot use the state folder %.200s: %s",
			 r == -EADDRINUSE ? cfg->runtimedir : cfg->statedir, strerror(-r));
		return r;
	}
	r = dataplane_new(l, cfg, &node_dataplane_ops, n, &n->dp, error);
	if (r < 0)
		return r;
	r = api_new(l, &api, &node_api_ops, n, &n->api);
	if (r < 0) {
		snprintf(error, NODE_ERROR_MAX,
			 r == -EADDRINUSE ? "another kernscaled listens on %.200s: stop it or give --socket" :
					    "cannot listen on %.200s: %s",
			 cfg->socket, strerror(-r));
		return r;
	}
	r = tls_client_new(cfg->ca_file[0] ? cfg->ca_file : NULL, &n->tls);
	if (r < 0) {
		snprintf(error, NODE_ERROR_MAX, "cannot load certificate authorities: %.200s", tls_error());
		return r;
	}
	r = dial_cache_new(&n->dial_cache);
	if (r == 0)
		r = netmap_new(&n->map);
	if (r == 0)
		r = open_timers(n);
	if (r == 0)
		r = node_net_open(n);
	if (r < 0) {
		snprintf(error, NODE_ERROR_MAX, "cannot start: %s", strerror(-r));
		return r;
	}
	if (n->state->registered) {
		r = load_map(n, &n->state->node.pub);
	} else if (!key_is_zero(&n->state->old_node.priv)) {
		/* A log-in was under way: until it is done others know us by the key before. */
		r = load_map(n, &n->state->old_node.pub);
		n->old_key_serves = n->map->self;
	}
	if (r < 0) {
		snprintf(error, NODE_ERROR_MAX, "cannot read the map in %.200s: %s", cfg->statedir, strerror(-r));
		return r;
	}
	if (went_down(n->state) && dataplane_made(n->dp)) {
		log_notice("what was made is not wanted any more: taking it away");
		(void)node_mesh_stop(n, why); /* tried again */
	}
	if (n->state->want_running && n->state->prefs.login_server[0]) {
		/* What the kernel has goes on with it at once; the server comes after. */
		node_mesh_start(n);
		r = node_control_open(n);
		if (r == -ENOMEM) { /* nothing would try it again */
			snprintf(error, NODE_ERROR_MAX, "cannot start: %s", strerror(-r));
			return r;
		}
		if (r == 0)
			control_start(n->control);
	}
	*ret = TAKE(n);
	return 0;
}

static int open_timers(struct node *n)
{
	int r = loop_timer_new(n->loop, node_sync, n, &n->sync_timer);

	if (r == 0)
		r = loop_timer_new(n->loop, node_remove_more, n, &n->removal_timer);
	if (r == 0)
		r = loop_timer_new(n->loop, node_dump, n, &n->dump_timer);
	if (r == 0)
		r = loop_timer_new(n->loop, node_map_save, n, &n->save_timer);
	if (r == 0)
		r = loop_timer_new(n->loop, state_again, n, &n->state_timer);
	if (r == 0)
		r = loop_timer_new(n->loop, clear_left, n, &n->left_timer);
	if (r == 0)
		r = filewriter_new(n->loop, node_map_saved, n, &n->map_file);
	if (r == 0)
		r = loop_timer_new(n->loop, node_expiry, n, &n->expiry_timer);
	if (r == 0)
		r = node_clock_open(n);
	return r;
}

void node_hand_over(struct node *n)
{
	dataplane_hand_over(n->dp);
}

void node_free(struct node *n)
{
	if (!n)
		return;
	if (n->map_file) {
		filewriter_wait(n->map_file);
		if (loop_timer_armed(n->save_timer))
			node_map_save(n);
		filewriter_wait(n->map_file);
	}
	if (n->state_error < 0)
		(void)state_save(n->state);
	control_free(n->control);
	node_net_close(n);
	if (n->paths)
		node_peers_clear(n);
	paths_free(n->paths);
	dataplane_close(n->dp);
	loop_timer_free(n->sync_timer);
	loop_timer_free(n->removal_timer);
	loop_timer_free(n->dump_timer);
	loop_timer_free(n->save_timer);
	loop_timer_free(n->state_timer);
	loop_timer_free(n->left_timer);
	filewriter_free(n->map_file);
	loop_timer_free(n->expiry_timer);
	clockstep_free(n->clockstep);
	loop_timer_free(n->paths_timer);
	loop_timer_free(n->netcheck_timer);
	api_free(n->api);
	node_api_done(n);
	netmap_free(n->map);
	dial_cache_free(n->dial_cache);
	tls_ctx_unref(n->tls);
	state_free(n->state);
	free(n);
}
