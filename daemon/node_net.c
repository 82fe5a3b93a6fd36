/* Relays, STUN, own endpoints; packets between sockets and paths. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/node_priv.h"
#include "daemon/path/endpoints.h"
#include "lib/httpc.h"
#include "lib/log.h"

#define LOOKUPS_MAX 32 /* at once; who finds no place is asked in the next round */

const struct derp_region *node_region(const struct node *n, int64_t region)
{
	return derp_map_find(&n->map->derp, region);
}

const char *node_region_code(const struct node *n, int64_t region)
{
	const struct derp_region *r = node_region(n, region);

	return r ? r->code : "";
}

/* ---- packets ---- */

void node_udp_packet(struct node *n, const struct endpoint *from, const struct addr *to,
		     const uint8_t *p, size_t len)
{
	uint64_t now = loop_clock();

	if (!netcheck_received(n->netcheck, p, len, now))
		paths_udp_received(n->paths, from, to, p, len, now);
}

/* The kernel sent a packet to a peer's relay address. */
void node_relay_packet(struct node *n, uint32_t index, const uint8_t *p, size_t len)
{
	struct paths_send how;

	if (paths_send_how(n->paths, index, loop_clock(), &how) < 0)
		return;
	if (how.region) {
		int r = derpc_send(n->derpc, how.region, &how.dst, p, len);

		paths_relay_state(n->paths, how.region, r == 0);
		if (r == 0)
			paths_relayed_sent(n->paths, index, p, len, loop_clock());
	}
	if (how.copy)
		dataplane_send_udp(n->dp, &how.to, how.from.family ? &how.from : NULL, p, len);
}

static void derp_packet(void *data, int64_t region, const struct key *src, const uint8_t *p, size_t len)
{
	struct node *n = data;
	struct paths_deliver how;
	uint64_t now = loop_clock();
	int r;

	if (paths_derp_received(n->paths, (uint16_t)region, src, p, len, now) || !dataplane_is_up(n->dp))
		return;
	if (!paths_relayed_allowed(n->paths, src, p, len, now) ||
	    paths_deliver_how(n->paths, (uint16_t)region, src, now, &how) < 0)
		return;
	r = how.inject ? dataplane_relay_inject(n->dp, &how.src, &how.dst, p, len) :
			 dataplane_relay_deliver(n->dp, how.id, p, len);
	/* Without raw sockets a direct endpoint may move; a lost packet would be worse. */
	if (r < 0 && how.inject)
		dataplane_relay_deliver(n->dp, how.id, p, len);
}

static void derp_gone(void *data, int64_t region, const struct key *peer, uint8_t reason)
{
	struct node *n = data;

	(void)reason;
	paths_peer_gone(n->paths, (uint16_t)region, peer);
}

static void derp_state(void *data, int64_t region, bool connected, const char *text)
{
	struct node *n = data;

	if (region == n->home) {
		if (connected != n->home_connected)
			log_remote(LOG_LEVEL_INFO, "relay %s: %s%s%s", node_region_code(n, region),
				   connected ? "connected" : "not connected", text[0] ? ": " : "",
				   text);
		n->home_connected = connected;
		snprintf(n->home_text, sizeof(n->home_text), "%s", text);
	}
	paths_relay_state(n->paths, (uint16_t)region, connected || derpc_connected(n->derpc, region));
	api_changed(n->api);
}

const struct derpc_ops node_derpc_ops = {
	.on_packet = derp_packet,
	.on_peer_gone = derp_gone,
	.on_state = derp_state,
};

/* ---- paths ---- */

static int path_send_udp(void *data, const struct endpoint *to, const struct addr *from, const void *p,
			 size_t len)
{
	struct node *n = data;

	return dataplane_is_up(n->dp) ? dataplane_send_udp(n->dp, to, from, p, len) : -ENETDOWN;
}

static int path_send_derp(void *data, uint16_t region, const struct key *dst, const void *p, size_t len)
{
	struct node *n = data;

	return derpc_send(n->derpc, region, dst, p, len);
}

static void path_set_endpoint(void *data, uint32_t id, const struct endpoint *e)
{
	struct node *n = data;
	struct node_peer *p = node_peer_by_index(n, id);

	/* Refused for want of something: the next dump shows what it sends to instead, and the path puts it right. */
	if (p && dataplane_is_up(n->dp) && dataplane_set_endpoint(n->dp, &p->key, id, e) < 0)
		loop_timer_in(n->dump_timer, USEC_PER_SEC);
}

static void path_restun(void *data)
{
	struct node *n = data;

	netcheck_start(n->netcheck, false, loop_clock());
}

static void path_dump(void *data)
{
	struct node *n = data;

	loop_timer_in(n->dump_timer, 0);
}

static void path_changed(void *data, uint32_t id, enum path_state old, enum path_state now,
			 const char *why)
{
	struct node *n = data;
	struct node_peer *p = node_peer_by_index(n, id);
	const struct tailcfg_node *t = p ? netmap_peer_by_id(n->map, p->id) : NULL;

	log_info("peer %s: %s → %s (%s)", t ? t->hostname : "?", path_state_name(old),
		 path_state_name(now), why);
}

static void path_wake(void *data, uint64_t when_usec)
{
	struct node *n = data;

	if (when_usec == UINT64_MAX)
		loop_timer_stop(n->paths_timer);
	else
		loop_timer_at(n->paths_timer, when_usec);
}

static void paths_timer(void *data)
{
	struct node *n = data;

	paths_tick(n->paths, loop_clock());
}

static const char *path_region_code(void *data, uint16_t region)
{
	return node_region_code(data, region);
}

const struct paths_ops node_paths_ops = {
	.send_udp = path_send_udp,
	.send_derp = path_send_derp,
	.set_endpoint = path_set_endpoint,
	.restun = path_restun,
	.dump = path_dump,
	.changed = path_changed,
	.wake = path_wake,
	.region_code = path_region_code,
};

/* ---- home relay and own endpoints ---- */

static enum tailcfg_tristate tristate(int v)
{
	return v < 0 ? TAILCFG_UNKNOWN : v ? TAILCFG_YES : TAILCFG_NO;
}

static void tell_netinfo(struct node *n, const struct report *r)
{
	struct tailcfg_netinfo i = { .preferred_derp = n->home };

	if (!n->control)
		return;
	if (r) {
		i.mapping_varies = tristate(r->mapping_varies);
		i.working_ipv6 = tristate(r->ipv6);
		i.os_has_ipv6 = tristate(r->os_has_ipv6);
		i.working_udp = tristate(r->udp);
		i.working_icmpv4 = tristate(r->icmpv4);
		i.upnp = tristate(r->upnp);
		i.pmp = tristate(r->pmp);
		i.pcp = tristate(r->pcp);
		for (size_t k = 0; k < r->n_regions && i.n_latency + 2 <= ARRAY_SIZE(i.latency); k++) {
			const struct report_region *g = &r->regions[k];

			if (g->v4_usec)
				i.latency[i.n_latency++] = (struct tailcfg_latency){
					(int)g->id, 4, (uint32_t)MIN(g->v4_usec, UINT32_MAX)
				};
			if (g->v6_usec)
				i.latency[i.n_latency++] = (struct tailcfg_latency){
					(int)g->id, 6, (uint32_t)MIN(g->v6_usec, UINT32_MAX)
				};
		}
	}
	control_set_netinfo(n->control, &i);
}

static void set_home(struct node *n, int64_t region)
{
	if (region == n->home || !region)
		return;
	log_info("home relay: %s", node_region_code(n, region));
	n->home = (int)region;
	n->home_connected = derpc_connected(n->derpc, region);
	derpc_set_home(n->derpc, region);
	netcheck_set_home(n->netcheck, region);
	if (n->state->last_home != n->home) {
		n->state->last_home = n->home;
		(void)state_save(n->state); /* a guess for the next start: worth a try, no more */
	}
	api_changed(n->api);
}

/* Whether sockets of that family work here at all (netcheck.md 6): one is bound to ::1. */
static bool os_has_ipv6(void)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	CLEANUP(fd_close) int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	/* Without a descriptor nothing is known, and a host without IPv6 is the rarer one. */
	return fd < 0 ? errno != EAFNOSUPPORT : bind(fd, (struct sockaddr *)&in6, sizeof(in6)) == 0;
}

static void update_endpoints(struct node *n)
{
	struct own_endpoints_input in = { .report = netcheck_report(n->netcheck),
					  .port = dataplane_port(n->dp),
					  .fixed_port = n->cfg->port != 0 };
	struct tailcfg_endpoint told[OWN_ENDPOINTS_MAX];
	struct endpoint list[OWN_ENDPOINTS_MAX];
	struct own_endpoints own;
	CLEANUP(free) struct link_local_addr *local = NULL;
	CLEANUP(free) struct addr *addrs = NULL;
	size_t n_local = 0;

	if (!dataplane_is_up(n->dp))
		return;
	if (dataplane_local_addresses(n->dp, &local, &n_local) < 0)
		n_local = 0;
	addrs = calloc(n_local + 1, sizeof(*addrs));
	if (!addrs)
		return;
	for (size_t i = 0; i < n_local; i++)
		addrs[i] = local[i].addr;
	in.local = addrs;
	in.n_local = n_local;
	netcheck_set_host(n->netcheck, netcheck_usable(addrs, n_local, 4),
			  netcheck_usable(addrs, n_local, 6), os_has_ipv6());
	own_endpoints_determine(&n->own_cache, &in, loop_clock(), &own);
	for (size_t i = 0; i < own.n; i++) {
		list[i] = own.v[i].at;
		told[i] = (struct tailcfg_endpoint){ own.v[i].at,
						     (enum tailcfg_endpoint_type)own.v[i].type };
	}
	paths_set_own_endpoints(n->paths, list, own.n, loop_clock());
	if (n->control && control_set_endpoints(n->control, told, own.n) < 0)
		log_warning("no memory to tell the server our endpoints");
}

static int check_send(void *data, const struct endpoint *to, const void *p, size_t len)
{
	return path_send_udp(data, to, NULL, p, len);
}

/* Names of relays, for STUN. */
struct lookup {
	struct node *n;
	struct lookup *next;
	struct dial *dial;
	uint32_t cookie;
	uint8_t family;
};

static void lookup_unlink(struct lookup *l)
{
	for (struct lookup **at = &l->n->lookups; *at; at = &(*at)->next)
		if (*at == l) {
			*at = l->next;
			break;
		}
	free(l);
}

static void lookup_found(void *data, int r, const struct addr *a, size_t count, const char *why)
{
	struct lookup *l = data;
	struct node *n = l->n;
	const struct addr *found = NULL;

	(void)why;
	for (size_t i = 0; r == 0 && i < count && !found; i++)
		if (a[i].family == l->family)
			found = &a[i];
	netcheck_address(n->netcheck, l->cookie, found, loop_clock());
	lookup_unlink(l);
}

static void check_lookup(void *data, const char *host, uint8_t family, uint32_t cookie)
{
	struct node *n = data;
	struct dial_opts o = { .mark = DIAL_MARK, .family = family, .total_usec = NETCHECK_STUN_USEC };
	struct lookup *l;
	size_t running = 0;

	for (l = n->lookups; l; l = l->next)
		running++;
	l = running < LOOKUPS_MAX ? calloc(1, sizeof(*l)) : NULL;
	if (!l)
		return;
	*l = (struct lookup){ .n = n, .cookie = cookie, .family = family };
	if (dial_lookup(n->loop, host, &o, lookup_found, l, &l->dial) < 0) {
		free(l);
		return;
	}
	l->next = n->lookups;
	n->lookups = l;
}

/* Latency over HTTPS, where UDP is silent. */
struct probe {
	struct node *n;
	struct probe *next;
	struct httpc *http;
	int64_t region;
	uint64_t started;
};

static void probe_unlink(struct probe *p)
{
	for (struct probe **at = &p->n->probes; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	free(p);
}

static void probe_done(void *data, int r, const struct httpc_answer *a, const char *why)
{
	struct probe *p = data;
	uint64_t now = loop_clock(), took = MAX(now - p->started, (uint64_t)1);
	bool good = r == 0 && a->head->status == 200;

	(void)why;
	/* Dialling and TLS are in it, so it is several round trips: good for comparing regions with
	 * each other. The family is not known here; 4 stands for it. */
	netcheck_https(p->n->netcheck, p->region, 4, good ? took : 0, now);
	probe_unlink(p);
}

static const struct derp_node *relay_of(const struct derp_region *r)
{
	for (size_t i = 0; r && i < r->n_nodes; i++)
		if (!r->nodes[i].stun_only)
			return &r->nodes[i];
	return NULL;
}

static void check_https(void *data, int64_t region)
{
	struct node *n = data;
	const struct derp_node *d = relay_of(node_region(n, region));
	struct httpc_opts o = { .tls = n->tls,
				.timeout_usec = NETCHECK_REPORT_USEC,
				.dial = { .mark = DIAL_MARK, .cache = n->dial_cache } };
	struct addr addrs[2];
	uint8_t pin[32];
	struct probe *p;
	char url[512];
	bool plain;

	p = d ? calloc(1, sizeof(*p)) : NULL;
	if (!p)
		return;
	for (uint8_t f = 4; f <= 6; f = (uint8_t)(f + 2))
		if (derp_node_addr(f == 4 ? d->ipv4 : d->ipv6, f, &addrs[o.dial.n_addrs]) > 0)
			o.dial.n_addrs++;
	o.dial.addrs = o.dial.n_addrs ? addrs : NULL;
	if (derp_node_pin(d, pin) > 0)
		o.pin_sha256 = pin;
	o.insecure = d->insecure_for_tests;
	plain = derpc_is_plain(n->derpc, region);
	snprintf(url, sizeof(url), strchr(d->hostname, ':') ? "%s://[%s]:%u/derp/latency-check" :
							      "%s://%s:%u/derp/latency-check",
		 plain ? "http" : "https", d->hostname, derp_node_port(d));
	o.url = url;
	*p = (struct probe){ .n = n, .region = region, .started = loop_clock() };
	if (httpc_start(n->loop, &o, probe_done, p, &p->http) < 0) {
		free(p);
		return;
	}
	p->next = n->probes;
	n->probes = p;
}

static uint64_t check_heard(void *data, int64_t region)
{
	struct derpc_info info[64];
	struct node *n = data;
	size_t k = derpc_list(n->derpc, info, ARRAY_SIZE(info));

	for (size_t i = 0; i < k; i++)
		if (info[i].region == region)
			return info[i].heard_usec;
	return 0;
}

static bool check_wanted(void *data)
{
	struct node *n = data;

	return dataplane_is_up(n->dp) && paths_any_active(n->paths, loop_clock());
}

static void check_hint(void *data, int64_t region)
{
	struct node *n = data;

	if (!n->home) {
		set_home(n, region);
		tell_netinfo(n, NULL);
	}
}

static void check_done(void *data, const struct report *r)
{
	struct node *n = data;
	struct control_status c = { 0 };

	if (!dataplane_is_up(n->dp))
		return;
	paths_set_udp_works(n->paths, r->udp);
	if (n->control)
		control_status(n->control, &c);
	/* Peers could not learn of another home while the server is away. */
	if (c.map_live || !n->home)
		set_home(n, r->preferred);
	tell_netinfo(n, r);
	update_endpoints(n);
	node_api_netcheck_over(n, true);
}

static void check_wake(void *data, uint64_t when_usec)
{
	struct node *n = data;

	if (when_usec == UINT64_MAX)
		loop_timer_stop(n->netcheck_timer);
	else
		loop_timer_at(n->netcheck_timer, when_usec);
}

static void check_timer(void *data)
{
	struct node *n = data;

	netcheck_tick(n->netcheck, loop_clock());
}

static const struct netcheck_ops check_ops = {
	.send_udp = check_send,
	.lookup = check_lookup,
	.https = check_https,
	.heard = check_heard,
	.wanted = check_wanted,
	.hint = check_hint,
	.done = check_done,
	.wake = check_wake,
};

/* ---- life ---- */

int node_net_open(struct node *n)
{
	struct derpc_opts o = { .ops = &node_derpc_ops,
				.data = n,
				.tls = n->tls,
				.mark = DIAL_MARK,
				.cache = n->dial_cache,
				.allow_plain = n->cfg->allow_plain_relay };
	int r = loop_timer_new(n->loop, paths_timer, n, &n->paths_timer);

	if (r == 0)
		r = loop_timer_new(n->loop, check_timer, n, &n->netcheck_timer);
	if (r == 0)
		r = paths_new(&node_paths_ops, n, &n->paths);
	if (r == 0)
		r = derpc_new(n->loop, &o, &n->derpc);
	if (r == 0)
		r = netcheck_new(&check_ops, n, &n->netcheck);
	if (r == 0)
		derpc_set_network(n->derpc, false);
	return r;
}

void node_net_close(struct node *n)
{
	while (n->lookups) {
		dial_cancel(n->lookups->dial);
		lookup_unlink(n->lookups);
	}
	while (n->probes) {
		httpc_cancel(n->probes->http);
		probe_unlink(n->probes);
	}
	node_api_netcheck_over(n, false);
	netcheck_free(TAKE(n->netcheck));
	derpc_free(TAKE(n->derpc));
	free(TAKE(n->locals));
}

void node_net_map(struct node *n)
{
	int r;

	if (!dataplane_is_up(n->dp))
		return;
	r = derpc_set_map(n->derpc, &n->map->derp);
	if (r < 0)
		log_err_errno(r, "cannot take over the relay map");
	if (n->home && !node_region(n, n->home)) {
		log_info("home relay %d is gone from the map", n->home);
		n->home = 0;
		n->home_connected = false;
		derpc_set_home(n->derpc, 0);
	}
	if (!n->home) {
		set_home(n, netcheck_provisional_home(&n->map->derp, n->state->last_home));
		if (n->home)
			tell_netinfo(n, NULL);
	}
	netcheck_set_map(n->netcheck, &n->map->derp, loop_clock());
	netcheck_start(n->netcheck, true, loop_clock());
}

/* ---- links that change */

enum locals_change {
	LOCALS_SAME,
	LOCALS_MORE,
	LOCALS_LOST, /* some that packets may have gone by; or nobody knows */
};

static bool has_local(const struct link_local_addr *v, size_t n, const struct link_local_addr *a)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].ifindex == a->ifindex && v[i].running == a->running && v[i].prefix_bits == a->prefix_bits &&
		    addr_equal(&v[i].addr, &a->addr))
			return true;
	return false;
}

/* Events tell of a lot that changes nothing: each router advertisement, lease and container makes some. */
static enum locals_change compare_locals(struct node *n)
{
	CLEANUP(free) struct link_local_addr *was = n->locals;
	enum locals_change change = LOCALS_SAME;
	size_t n_was = n->n_locals;

	n->locals = NULL;
	n->n_locals = 0;
	if (dataplane_local_addresses(n->dp, &n->locals, &n->n_locals) < 0)
		return LOCALS_LOST;
	for (size_t i = 0; i < n->n_locals && change == LOCALS_SAME; i++)
		if (!has_local(was, n_was, &n->locals[i]))
			change = LOCALS_MORE;
	for (size_t i = 0; i < n_was; i++)
		if (was[i].running && !has_local(n->locals, n->n_locals, &was[i]))
			return LOCALS_LOST;
	return change;
}

static bool same_way(const struct link_path *a, const struct link_path *b)
{
	/* Not by the source: a new temporary IPv6 address is one, and what it was before is still good. */
	return a->ifindex == b->ifindex && addr_equal(&a->gateway, &b->gateway);
}

/* A default route is told again with each router advertisement, where it is not the kernel that takes them. */
static bool ways_moved(struct node *n)
{
	struct link_path v4 = n->way4, v6 = n->way6;

	dataplane_ways(n->dp, &n->way4, &n->way6);
	return !same_way(&v4, &n->way4) || !same_way(&v6, &n->way6);
}

void node_net_start(struct node *n)
{
	compare_locals(n);
	ways_moved(n);
	derpc_set_network(n->derpc, true);
	update_endpoints(n);
}

void node_net_stop(struct node *n)
{
	derpc_set_network(n->derpc, false);
	netcheck_set_map(n->netcheck, NULL, loop_clock());
	node_api_netcheck_over(n, false);
	derpc_set_home(n->derpc, 0);
	n->home = 0;
	n->home_connected = false;
}

void node_net_link(struct node *n, unsigned int events)
{
	enum locals_change change;
	bool moved;

	if (!(events & (LINK_EVENT_ADDRESS | LINK_EVENT_LINK | LINK_EVENT_DEFAULT)))
		return;
	change = compare_locals(n);
	moved = ways_moved(n);
	if (change == LOCALS_SAME && !moved)
		return;
	update_endpoints(n);
	/* A path that is good by what there was goes on, and what is new is tried beside it. */
	if (change == LOCALS_LOST || moved)
		paths_link_changed(n->paths, loop_clock());
	else
		paths_link_added(n->paths, loop_clock());
	derpc_check(n->derpc);
	if (n->control)
		control_kick(n->control);
	netcheck_start(n->netcheck, true, loop_clock());
}
