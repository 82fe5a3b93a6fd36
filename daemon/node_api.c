/* What wgctl asks of the node. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/netmap/netmap_routes.h"
#include "daemon/node_priv.h"
#include "lib/log.h"

#define HEALTH_MAX 10
#define TRYING	   "check --login-server and the network; kernscaled goes on trying"
#define LEFT_REMEDY "kernscaled goes on trying"

static void op_state(void *data, struct api_state *ret)
{
	struct node *n = data;
	struct control_status c = { .text = "" };

	if (n->control)
		control_status(n->control, &c);
	*ret = (struct api_state){
		.state = node_backend_state(n),
		.auth_url = n->auth_url,
		.failed = n->up_failed,
		.failing = n->up_failing,
		.error = n->up_error,
		.addrs = n->self_addrs,
		.n_addrs = n->n_self_addrs,
	};
	if (ret->state != API_STATE_STARTING || ret->error.text[0] || !n->control || c.map_live)
		return;
	/* One failed attempt is no news, but all there is to say when the time is up. */
	if (c.text && *c.text && strcmp(c.text, n->control_url) != 0)
		api_error_set(&ret->error, API_CODE_FAILED, TRYING, "%s", c.text);
	else
		api_error_set(&ret->error, API_CODE_FAILED, TRYING, "no answer from %s yet", n->control_url);
}

/* ---- status ---- */

/* What a status answer borrows until it is written. */
struct status_answer {
	struct addr addrs[8];
	struct paths_status path;
	char health[HEALTH_MAX][256];
	const char *health_list[HEALTH_MAX];
	size_t n_health;
	char suffix[TAILCFG_NAME_MAX + 1], hostname[256];
	struct api_status_user *users;
};

static void logout_abandon(struct node *n);

int node_api_init(struct node *n)
{
	n->answer = calloc(1, sizeof(*n->answer));
	return n->answer ? 0 : -ENOMEM;
}

void node_api_done(struct node *n)
{
	logout_abandon(n);
	if (n->answer)
		free(n->answer->users);
	free(n->answer);
}

static void fill_common(struct node *n, const struct tailcfg_node *t, struct api_status_peer *ret)
{
	struct status_answer *a = n->answer;
	size_t k = MIN(t->n_addresses, ARRAY_SIZE(a->addrs)), n_allowed;
	const struct prefix *allowed = tailcfg_node_allowed(t, &n_allowed);

	for (size_t i = 0; i < k; i++)
		a->addrs[i] = t->addresses[i].addr;
	*ret = (struct api_status_peer){
		.pub = t->key,
		.node_id = t->id,
		.stable_id = t->stable_id,
		.hostname = t->hostname,
		.os = t->os,
		.dns_name = t->name,
		.user_id = t->user,
		.addrs = a->addrs,
		.n_addrs = k,
		.allowed = allowed,
		.n_allowed = n_allowed,
		.primary_routes = t->primary_routes,
		.n_primary_routes = t->n_primary_routes,
		.endpoints = t->endpoints,
		.n_endpoints = t->n_endpoints,
		.tags = (const char *const *)t->tags,
		.n_tags = t->n_tags,
		.relay = node_region_code(n, t->home_derp),
		.created = t->created,
		.last_seen = t->online == TAILCFG_YES ? 0 : t->last_seen,
		.key_expiry = t->key_expiry,
		.online = t->online == TAILCFG_YES,
	};
}

static enum api_path path_word(const struct paths_status *s)
{
	switch (s->state) {
	case PATH_STATE_RELAY:
		return s->active ? API_PATH_RELAY : API_PATH_NONE;
	case PATH_STATE_DIRECT:
	case PATH_STATE_HELD:
		return API_PATH_DIRECT;
	case PATH_STATE_DOUBTFUL:
		return API_PATH_DOUBTFUL;
	}
	unreachable();
}

static void fill_peer(struct node *n, const struct tailcfg_node *t, struct api_status_peer *ret)
{
	struct node_peer *p = node_peer_by_id(n, t->id);
	struct paths_status *path = &n->answer->path;
	uint64_t now = loop_clock();

	fill_common(n, t, ret);
	ret->expired = netmap_peer_expired(n->map, t);
	for (size_t i = 0; i < ret->n_allowed; i++)
		ret->exit_node_option |= prefix_is_default(&ret->allowed[i]);
	if (!p || paths_peer_status(n->paths, p->index, now, path) < 0) {
		ret->reason = ret->expired		? "its key has expired" :
			      key_is_zero(&t->disco) ? "it has not told its discovery key yet" :
						       NULL;
		return;
	}
	ret->in_engine = p->in_kernel;
	ret->rx_bytes = p->rx_bytes;
	ret->tx_bytes = p->tx_bytes;
	ret->last_handshake = p->handshake;
	if (p->written)
		ret->last_write = loop_wall_nsec() - (int64_t)(now - p->written) * 1000;
	ret->active = path->active;
	/* By a map from the disk: nobody said, but it answers. */
	if (t->online == TAILCFG_UNKNOWN && path->state == PATH_STATE_DIRECT && path->active)
		ret->online = true;
	ret->path = path_word(path);
	if (ret->path == API_PATH_DIRECT || ret->path == API_PATH_DOUBTFUL)
		ret->current = path->current;
	ret->latency_usec = path->latency_usec;
	if (path->region)
		ret->relay = node_region_code(n, path->region);
	ret->reason = path->reason[0] ? path->reason : NULL;
}

static bool status_peer(void *data, size_t i, struct api_status_peer *ret)
{
	struct node *n = data;

	if (i >= netmap_n_peers(n->map))
		return false;
	fill_peer(n, netmap_peer_at(n->map, i), ret);
	return true;
}

__attribute__((format(printf, 2, 3))) static void health(struct status_answer *a, const char *fmt, ...)
{
	va_list ap;
	char *line;

	if (a->n_health >= HEALTH_MAX)
		return;
	line = a->health[a->n_health];
	va_start(ap, fmt);
	vsnprintf(line, sizeof(a->health[0]), fmt, ap);
	va_end(ap);
	a->health_list[a->n_health++] = line;
}

static void list_health(struct node *n, const struct control_status *c)
{
	const struct report *r = netcheck_report(n->netcheck);
	const char *why = n->auth_url[0] ? "waiting for a login" : c->text ? c->text : "";
	struct status_answer *a = n->answer;
	struct api_state now;
	char expires[160];

	a->n_health = 0;
	op_state(n, &now);
	if (n->state->want_running && !dataplane_is_up(n->dp) && now.error.text[0])
		health(a, "%s", now.error.text);
	if (n->left_error[0])
		health(a, "%s", n->left_error);
	if (n->state_error < 0)
		health(a, "The state cannot be written in %s: %s", n->cfg->statedir, strerror(-n->state_error));
	if (!dataplane_is_up(n->dp))
		return;
	if (n->save_error < 0)
		health(a, "The map cannot be kept in %s: %s; a restart without the server would use an older one",
		       n->cfg->statedir, strerror(-n->save_error));
	if (n->disco_error < 0)
		health(a, "The disco key cannot be kept in %s: %s; after a restart peers would have to learn a new one",
		       n->cfg->runtimedir, strerror(-n->disco_error));
	if (dataplane_filter_problem(n->dp)[0])
		health(a, "%s", dataplane_filter_problem(n->dp));
	if (n->control && !c->map_live)
		/* The text may name the server itself, and must not tell everybody where to log in. */
		health(a, "Not connected%s%s%s%s; the mesh goes on with the last map",
		       strstr(why, n->control_url) ? "" : " to ",
		       strstr(why, n->control_url) ? "" : n->control_url, *why ? ": " : "", why);
	if (!n->home)
		health(a, "No relay is chosen: peers without a direct path cannot be reached");
	else if (!n->home_connected)
		health(a, "Not connected to the home relay %s%s%s", node_region_code(n, n->home),
		       n->home_text[0] ? ": " : "", n->home_text);
	/* Where a relay is reached, but not by UDP. */
	if (r && !r->udp && n->home_connected)
		health(a, "UDP is blocked: peers are reached by relay only");
	if (n->map->self && api_expiry_health(n->map->self->key_expiry, loop_wall_nsec(), expires, sizeof(expires)))
		health(a, "%s", expires);
	if (n->map->tailnet_lock)
		health(a, "The server uses tailnet lock, which this node does not check");
	for (size_t i = 0; i < n->map->n_health; i++)
		health(a, "%s", n->map->health[i]);
}

static int op_status(void *data, struct api_status_input *ret)
{
	struct node *n = data;
	struct control_status c = { .text = "" };
	struct status_answer *a = n->answer;

	if (n->control)
		control_status(n->control, &c);
	node_dump_fresh(n);
	list_health(n, &c);
	free(a->users);
	a->users = calloc(n->map->n_users + 1, sizeof(*a->users));
	if (!a->users)
		return -ENOMEM;
	for (size_t i = 0; i < n->map->n_users; i++)
		a->users[i] = (struct api_status_user){ n->map->users[i].id, n->map->users[i].login,
							n->map->users[i].display,
							n->map->users[i].picture };
	*ret = (struct api_status_input){
		.version = KERNSCALE_VERSION,
		.state = node_backend_state(n),
		.have_node_key = !key_is_zero(&n->state->node.priv),
		.auth_url = n->auth_url,
		.tailnet_name = n->map->domain,
		.magic_dns_suffix = netmap_suffix(n->map, a->suffix, sizeof(a->suffix)),
		.magic_dns_enabled = n->map->dns.proxied,
		.login_server = n->state->prefs.login_server,
		.interface = n->cfg->interface,
		.port = dataplane_port(n->dp),
		.health = a->health_list,
		.n_health = a->n_health,
		.filter = !n->map->self				   ? API_FILTER_NONE :
			  netmap_filter_is_allow_all(n->map, n->state->prefs.accept_routes) ?
								     API_FILTER_ALLOW_ALL :
								     API_FILTER_REPLIES_ONLY,
		.filter_reason = "the policy is not allow-all for every peer, and its rules are not compiled yet",
		.home_relay_id = n->home,
		.home_relay_code = node_region_code(n, n->home),
		.home_relay_connected = n->home_connected,
		.control_connected = c.map_live,
		.have_self = n->map->self,
		.n_users = n->map->n_users,
		.users = a->users,
		.n_peers = netmap_n_peers(n->map),
		.peer = status_peer,
		.data = n,
	};
	if (n->map->self) {
		fill_common(n, n->map->self, &ret->self);
		ret->self.online = c.map_live;
		ret->self.relay = node_region_code(n, n->home);
		ret->self.in_engine = dataplane_is_up(n->dp);
		ret->self.expired = n->map->self_expired;
		/* The addresses are overwritten by the first peer. */
		ret->self.addrs = n->self_addrs;
		ret->self.n_addrs = n->n_self_addrs;
	} else {
		node_hostname(n, a->hostname, sizeof(a->hostname));
		ret->self = (struct api_status_peer){ .pub = n->state->node.pub, .hostname = a->hostname, .os = "linux" };
	}
	return 0;
}

/* ---- up, down, logout ---- */

static int save_state(struct node *n, struct api_error *err)
{
	int r = node_state_save(n);

	if (r < 0)
		api_error_set(err, API_CODE_FAILED, "make room or mend the folder, then try again",
			      "cannot write the state in %s: %s", n->cfg->statedir, strerror(-r));
	return r;
}

/* Merges the wish into the preferences, or with reset into the defaults; the login server stays with that, too, and can
 * only change while logged out, or by force. */
static int merge_prefs(struct node *n, const struct prefs *wish, bool reset, bool force,
		       bool *ret_changed, struct api_error *err)
{
	struct prefs *now = calloc(1, sizeof(*now));
	uint32_t differs;

	if (!now)
		return -ENOMEM;
	*now = n->state->prefs;
	if (reset) {
		char server[PREFS_URL_MAX];

		memcpy(server, now->login_server, sizeof(server));
		prefs_default(now);
		memcpy(now->login_server, server, sizeof(server));
	}
	prefs_merge(now, wish);
	if (n->state->registered && !force &&
	    strcmp(now->login_server, n->state->prefs.login_server) != 0) {
		api_error_set(err, API_CODE_FAILED, "`wgctl logout` first, or add --force-reauth",
			      "this node is logged in to %s", n->state->prefs.login_server);
		free(now);
		return -EACCES;
	}
	if (!now->login_server[0]) {
		api_error_set(err, API_CODE_USAGE, "give --login-server http(s)://host[:port]",
			      "no login server is known");
		free(now);
		return -EINVAL;
	}
	differs = prefs_merge(&n->state->prefs, now);
	*ret_changed = differs != 0;
	free(now);
	return 0;
}

/* A log-in is on its way, and the wish brings nothing that would change it: its outcome is waited for. */
static bool joins_login(const struct node *n, const struct api_up *up)
{
	struct control_status c = { .state = CONTROL_STATE_STOPPED };

	if (n->control)
		control_status(n->control, &c);
	return n->fresh_login && !up->auth_key[0] && !up->force_reauth &&
	       (c.state == CONTROL_STATE_CONNECTING || c.state == CONTROL_STATE_AUTHENTICATING ||
		c.state == CONTROL_STATE_SYNCING);
}

static int start_login(struct node *n, const struct api_up *up, struct api_error *err)
{
	int r;

	n->fresh_login = true;
	n->auth_url[0] = '\0';
	r = control_login(n->control, up->auth_key[0] ? up->auth_key : NULL, up->force_reauth);
	if (r < 0) {
		api_error_set(err, API_CODE_USAGE, "check it for missing or odd characters",
			      "that is no auth key");
		n->fresh_login = false;
	}
	return r;
}

static int op_up(void *data, const struct api_up *up, bool *ret_changed, struct api_error *err)
{
	struct node *n = data;
	bool changed = false, was = n->state->want_running, was_fresh = n->state->fresh;
	enum api_backend_state before = node_backend_state(n);
	CLEANUP(free) struct prefs *old = NULL;
	char error[DATAPLANE_ERROR_MAX];
	int r;

	if (n->logout) {
		api_error_set(err, API_CODE_BUSY, "try again in a moment", "a log-out is under way");
		return -EBUSY;
	}
	old = malloc(sizeof(*old));
	if (!old)
		return -ENOMEM;
	*old = n->state->prefs;
	r = merge_prefs(n, &up->prefs, up->reset, up->force_reauth, &changed, err);
	if (r < 0)
		return r;
	state_want(n->state, true);
	r = save_state(n, err);
	if (r < 0) {
		n->state->want_running = was;
		n->state->fresh = was_fresh;
		n->state->prefs = *old;
		return r;
	}
	node_up_begins(n);
	if (node_self(n)) /* else what is left is of who was logged in before */
		dataplane_keep(n->dp);
	if (old->login_server[0] && strcmp(old->login_server, n->state->prefs.login_server) != 0) {
		/* Another server: nothing of the old one is worth keeping. */
		(void)node_mesh_stop(n, error); /* tried again until the new server has taken us */
		node_forget(n);
	}
	r = node_control_open(n);
	if (r < 0)
		return r;
	node_refresh_hostinfo(n);
	/* A key is used only where the server does not know the node any more. */
	if (!joins_login(n, up) &&
	    (!n->state->registered || up->force_reauth || before == API_STATE_NEEDS_LOGIN ||
	     (up->auth_key[0] && before != API_STATE_RUNNING)))
		r = start_login(n, up, err);
	else
		control_start(n->control);
	if (r < 0)
		return r;
	node_mesh_start(n);
	if (n->up_failed) {
		*err = n->up_error;
		return -EIO;
	}
	*ret_changed = changed || !was || before != API_STATE_RUNNING;
	if (changed && dataplane_is_up(n->dp))
		node_sync_soon(n);
	return 0;
}

static void reply_changed(struct api_request *later, bool changed)
{
	api_reply(later, json_pack("{s:b}", "changed", changed));
}

static void fail_with(struct api_request *later, enum api_code code, const char *remedy, const char *text)
{
	struct api_error err;

	api_error_set(&err, code, remedy, "%s", text);
	api_fail(later, &err);
}

static void op_down(void *data, struct api_request *later)
{
	struct node *n = data;
	bool changed = n->state->want_running || dataplane_made(n->dp);
	char error[DATAPLANE_ERROR_MAX];
	struct api_error err;
	int r, kept;

	/* A disk that is full does not keep a mesh up. */
	state_want(n->state, false);
	kept = node_state_save(n);
	if (n->control)
		control_stop(n->control);
	r = node_mesh_stop(n, error);
	node_up_begins(n);
	n->fresh_login = false;
	if (r < 0) {
		fail_with(later, API_CODE_FAILED, LEFT_REMEDY, error);
	} else if (kept < 0) {
		api_error_set(&err, API_CODE_FAILED, "make room or mend the folder; it is tried again every few seconds",
			      "the mesh is down, but a restart would bring it up: cannot write the state in %s: %s",
			      n->cfg->statedir, strerror(-kept));
		api_fail(later, &err);
	} else {
		reply_changed(later, changed);
	}
	api_changed(n->api);
}

struct logout {
	struct node *n; /* NULL: it is gone */
	struct api_request *later;
	bool changed;
	bool told;  /* logout_end() comes from the loop */
	bool known; /* to the server */
	bool unheard;
};

static void logout_end(void *data)
{
	struct logout *l = data;
	struct node *n = l->n;
	char error[DATAPLANE_ERROR_MAX];
	struct api_error err;
	int left;

	if (!n) {
		free(l);
		return;
	}
	state_want(n->state, false);
	n->fresh_login = false;
	left = node_mesh_stop(n, error);
	/* The way out when a server's operator has changed its key: what it shows at the next login counts. */
	state_pin_drop(n->state, n->control_url);
	node_forget(n);
	if (save_state(n, &err) < 0)
		api_fail(l->later, &err);
	else if (left < 0)
		fail_with(l->later, API_CODE_FAILED, LEFT_REMEDY, error);
	else
		api_reply(l->later, json_pack("{s:b,s:b}", "changed", l->changed, "server_told", !l->unheard));
	n->logout = NULL;
	api_changed(n->api);
	free(l);
}

static void logout_told(void *data, int r)
{
	struct logout *l = data;

	if (r < 0)
		log_warning_errno(r, "the server did not hear of the log-out; its administrator can "
				     "delete this node");
	l->told = true;
	l->unheard = l->known && r < 0;
	/* Not inside control's own callback: it is freed. */
	loop_defer_free(l->n->loop, l, logout_end);
}

/* The daemon ends before the server has answered; control has no more to say. */
static void logout_abandon(struct node *n)
{
	struct logout *l = TAKE(n->logout);
	struct api_error err;

	if (!l)
		return;
	api_error_set(&err, API_CODE_FAILED, "log out again when it runs", "kernscaled is ending");
	api_fail(l->later, &err);
	l->n = NULL;
	if (!l->told)
		free(l);
}

static void op_logout(void *data, struct api_request *later)
{
	struct node *n = data;
	struct api_error err;
	struct logout *l;

	if (n->logout) {
		api_error_set(&err, API_CODE_BUSY, "", "a log-out is under way");
		api_fail(later, &err);
		return;
	}
	l = calloc(1, sizeof(*l));
	if (!l) {
		api_error_set(&err, API_CODE_FAILED, "", "no memory");
		api_fail(later, &err);
		return;
	}
	*l = (struct logout){ .n = n, .later = later, .changed = !key_is_zero(&n->state->node.priv) };
	l->known = l->changed && (n->state->registered || n->old_key_serves);
	n->logout = l;
	if (l->changed && n->state->prefs.login_server[0] && node_control_open(n) == 0 &&
	    control_logout(n->control, logout_told, l) == 0)
		return;
	l->unheard = l->known;
	logout_end(l);
}

static void op_prefs_get(void *data, struct prefs *ret)
{
	struct node *n = data;

	*ret = n->state->prefs;
}

static int op_prefs_set(void *data, const struct prefs *change, bool *ret_changed,
			struct api_error *err)
{
	struct node *n = data;
	CLEANUP(free) struct prefs *old = NULL;
	int r;

	if ((change->set & PREFS_LOGIN_SERVER) &&
	    strcmp(change->login_server, n->state->prefs.login_server) != 0) {
		api_error_set(err, API_CODE_UNSUPPORTED, "use `wgctl up --login-server`",
			      "the login server is chosen when logging in");
		return -EOPNOTSUPP;
	}
	old = malloc(sizeof(*old));
	if (!old)
		return -ENOMEM;
	*old = n->state->prefs;
	*ret_changed = prefs_merge(&n->state->prefs, change) != 0;
	if (!*ret_changed)
		return 0;
	r = save_state(n, err);
	if (r < 0) {
		n->state->prefs = *old;
		return r;
	}
	node_refresh_hostinfo(n);
	node_sync_soon(n);
	return 0;
}

/* ---- ping ---- */

struct ping {
	struct node *n;
	struct api_request *later;
	int64_t id;
	int handle;
};

static void ping_pong(void *data, const struct paths_pong *pong)
{
	struct ping *p = data;
	const struct tailcfg_node *t = netmap_peer_by_id(p->n->map, p->id);
	struct api_error err;
	struct api_pong a;

	if (!pong || !t) {
		api_error_set(&err, API_CODE_TIMEOUT, "", "no reply");
		api_fail(p->later, &err);
	} else {
		a = (struct api_pong){
			.node_name = t->hostname,
			.node_ip = t->n_addresses ? t->addresses[0].addr : (struct addr){ 0 },
			.latency_usec = pong->latency_usec,
			.derp_region = pong->relayed ? pong->region : 0,
			.derp_code = pong->relayed ? node_region_code(p->n, pong->region) : "",
		};
		if (!pong->relayed)
			a.endpoint = pong->from;
		api_reply(p->later, api_pong_json(&a));
	}
	if (pong)
		paths_ping_cancel(p->n->paths, p->handle);
	free(p);
}

static void op_ping(void *data, const struct api_ping *ping, struct api_request *later)
{
	struct node *n = data;
	const struct tailcfg_node *t;
	struct node_peer *peer;
	struct ping *p;

	if (node_backend_state(n) != API_STATE_RUNNING) {
		fail_with(later, API_CODE_NOT_RUNNING, "run `wgctl up`", "this node is not up");
		return;
	}
	for (size_t i = 0; i < n->n_self_addrs; i++)
		if (addr_equal(&n->self_addrs[i], &ping->target)) {
			fail_with(later, API_CODE_USAGE, "", "that is this node's own address");
			return;
		}
	t = netmap_peer_by_addr(n->map, &ping->target);
	peer = t ? node_peer_by_id(n, t->id) : NULL;
	if (!peer) {
		fail_with(later, API_CODE_NOT_FOUND, "see `wgctl status` for who is there",
			  t ? "that peer cannot be reached: its key has expired or it told none" :
			      "no peer has that address");
		return;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		fail_with(later, API_CODE_FAILED, "", "no memory");
		return;
	}
	*p = (struct ping){ n, later, t->id, 0 };
	p->handle = paths_ping(n->paths, peer->index, ping_pong, p, loop_clock());
	if (p->handle < 0) {
		fail_with(later, API_CODE_FAILED, "",
			  p->handle == -ENOKEY ? "that peer has not told its discovery key" :
						 "too many pings at once");
		free(p);
	}
}

/* ---- netcheck ---- */

static void netcheck_reply(struct node *n, struct api_request *later)
{
	const struct report *r = netcheck_report(n->netcheck);
	const struct derp_map *m = &n->map->derp;
	CLEANUP(free) struct api_netcheck_region *g = NULL;
	struct api_netcheck a;

	g = calloc(m->n_regions + 1, sizeof(*g));
	if (!r || !g) {
		fail_with(later, API_CODE_FAILED, "", "nothing was measured");
		return;
	}
	for (size_t i = 0; i < m->n_regions; i++) {
		const struct report_region *got = report_region(r, m->regions[i].id);

		g[i] = (struct api_netcheck_region){ .id = (int)m->regions[i].id,
						     .code = m->regions[i].code,
						     .name = m->regions[i].name };
		if (got) {
			g[i].latency_usec = got->latency_usec;
			g[i].v4_usec = got->v4_usec;
			g[i].v6_usec = got->v6_usec;
		}
	}
	a = (struct api_netcheck){
		.now_unix_nsec = loop_wall_nsec(),
		.udp = r->udp,
		.ipv4 = r->ipv4,
		.ipv6 = r->ipv6,
		.ipv4_can_send = r->ipv4_can_send,
		.ipv6_can_send = r->ipv6_can_send,
		.os_has_ipv6 = r->os_has_ipv6,
		.icmpv4 = r->icmpv4,
		.mapping_varies = r->mapping_varies,
		.upnp = r->upnp,
		.pmp = r->pmp,
		.pcp = r->pcp,
		.captive_portal = r->captive_portal,
		.preferred_derp = (int)r->preferred,
		.global_v4 = r->global_v4,
		.global_v6 = r->global_v6,
		.regions = g,
		.n_regions = m->n_regions,
	};
	api_reply(later, api_netcheck_json(&a));
}

void node_api_netcheck_over(struct node *n, bool measured)
{
	for (size_t i = 0; i < n->n_netcheck_waiting; i++) {
		if (measured)
			netcheck_reply(n, n->netcheck_waiting[i]);
		else
			fail_with(n->netcheck_waiting[i], API_CODE_NOT_RUNNING, "run `wgctl up`",
				  "the mesh was stopped meanwhile");
	}
	n->n_netcheck_waiting = 0;
}

static void op_netcheck(void *data, struct api_request *later)
{
	struct node *n = data;

	if (!dataplane_is_up(n->dp)) {
		fail_with(later, API_CODE_NOT_RUNNING, "run `wgctl up`",
			  "the network is measured from the node's own port, and it is not up");
		return;
	}
	if (n->map->derp.n_regions == 0) {
		fail_with(later, API_CODE_FAILED, "", "the server has named no relay to measure by");
		return;
	}
	if (n->n_netcheck_waiting == ARRAY_SIZE(n->netcheck_waiting)) {
		fail_with(later, API_CODE_BUSY, "", "too many wait for a measurement");
		return;
	}
	n->netcheck_waiting[n->n_netcheck_waiting++] = later;
	netcheck_start(n->netcheck, true, loop_clock());
}

const struct api_ops node_api_ops = {
	.state = op_state,
	.status = op_status,
	.up = op_up,
	.down = op_down,
	.logout = op_logout,
	.prefs_get = op_prefs_get,
	.prefs_set = op_prefs_set,
	.ping = op_ping,
	.netcheck = op_netcheck,
};
