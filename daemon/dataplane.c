#include "daemon/dataplane_priv.h"

#include <errno.h>
#include <malloc.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/notify.h"

#define TRIM_CHANGES	 1000 /* so many peers read and planned for leave pieces of memory behind that go back */

int dataplane_fail(char *error, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error, DATAPLANE_ERROR_MAX, fmt, ap);
	va_end(ap);
	return r;
}

void dataplane_let_go(struct dataplane *d)
{
	loop_timer_stop(d->table_timer);
	tsmp_socket_close(TAKE(d->tsmp));
	shuttle_free(TAKE(d->shuttle));
	udp_close(TAKE(d->udp));
	link_close(TAKE(d->link));
	wg_close(TAKE(d->wg));
	free(TAKE(d->peers));
	free(TAKE(d->addrs));
	wg_plan_done(&d->left_over);
	d->n_peers = d->n_addrs = 0;
	d->routes_error = d->rules_error = d->addrs_error = d->link_error = 0;
	d->up = d->closed = d->stood = d->table_may_be = false;
	d->unseen = 0;
}

void dataplane_close(struct dataplane *d)
{
	if (!d)
		return;
	dataplane_let_go(d);
	nft_close(d->nft);
	loop_timer_free(d->table_timer);
	fd_close(d->kept);
	loop_io_free(d->claim_io);
	fd_close(d->claim);
	free(d);
}

int dataplane_new(struct loop *l, const struct config *cfg, const struct dataplane_ops *ops,
		  void *data, struct dataplane **ret, char error[static DATAPLANE_ERROR_MAX])
{
	CLEANUP(dataplane_close) struct dataplane *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return dataplane_fail(error, -ENOMEM, "no memory");
	d->loop = l;
	d->cfg = cfg;
	d->ops = ops;
	d->data = data;
	d->claim = d->kept = -1;
	d->filter = NFT_FILTER_REPLIES_ONLY;
	d->forwarding = true;
	if (loop_timer_new(l, dataplane_table_again, d, &d->table_timer) < 0)
		return dataplane_fail(error, -ENOMEM, "no memory");
	r = claim_take(cfg->interface, &d->claim, error);
	if (r < 0)
		return r;
	if (d->claim >= 0 && claim_watch(l, d->claim, &d->claim_io) < 0)
		return dataplane_fail(error, -ENOMEM, "no memory");
	d->kept = notify_take(DATAPLANE_KEPT);
	r = dataplane_load_journal(d);
	if (r < 0)
		return dataplane_fail(error, r, "cannot read %s: %s", cfg->runtimedir, strerror(-r));
	*ret = TAKE(d);
	return 0;
}

bool dataplane_is_up(const struct dataplane *d)
{
	return d->up;
}

uint16_t dataplane_port(const struct dataplane *d)
{
	return d->port;
}

static void on_shuttle(void *data, uint32_t index, const uint8_t *p, size_t len)
{
	struct dataplane *d = data;

	d->ops->relay_packet(d->data, index, p, len);
}

static void on_link(void *data, unsigned int events)
{
	struct dataplane *d = data;

	d->ops->link_event(d->data, events);
}

static int addr_order(const void *a, const void *b)
{
	return addr_cmp(a, b);
}

/* The first table keeps what the last one did: its peers' addresses are those the device lets in. */
static int adopt_sources(struct dataplane *d, const struct wg_device *now)
{
	size_t total = 0, k = 0;

	for (size_t i = 0; i < now->n_peers; i++)
		total += now->peers[i].n_allowed;
	d->peers = calloc(total + 1, sizeof(*d->peers));
	if (!d->peers)
		return -ENOMEM;
	for (size_t i = 0; i < now->n_peers; i++)
		for (size_t j = 0; j < now->peers[i].n_allowed; j++)
			if (prefix_is_single(&now->peers[i].allowed[j]))
				d->peers[k++] = now->peers[i].allowed[j].addr;
	qsort(d->peers, k, sizeof(*d->peers), addr_order);
	d->n_peers = k;
	return 0;
}

/* And it lets in what is for the addresses that the device has. */
static int adopt_addresses(struct dataplane *d)
{
	int r = link_addresses(d->link, &d->addrs, &d->n_addrs);

	if (r == 0)
		qsort(d->addrs, d->n_addrs, sizeof(*d->addrs), addr_order);
	return r;
}

int dataplane_port_taken(uint16_t port, char *error)
{
	return dataplane_fail(error, -EADDRINUSE, "UDP port %u is taken: stop who has it or give --port", port);
}

static int up_link(struct dataplane *d, uint16_t port, char *error)
{
	int r = link_up(d->link, LINK_MTU);

	if (r == -EADDRINUSE)
		return dataplane_port_taken(port, error);
	if (r < 0)
		return dataplane_fail(error, r, "cannot bring interface %s up: %s", d->cfg->interface, strerror(-r));
	return 0;
}

/* The kernel chooses a port when the link comes up. The one of before is worth a try, no more. */
static int up_new_link(struct dataplane *d, struct wg_device *now, struct wg_settings *want, char *error)
{
	int r = up_link(d, want->port, error);

	if (r == -EADDRINUSE && !d->cfg->port) {
		want->port = now->port = 0;
		r = wg_set_device(d->wg, now, want);
		if (r == 0)
			r = up_link(d, 0, error);
	}
	if (r < 0)
		return r;
	wg_device_done(now);
	r = wg_get_device(d->wg, now);
	return r < 0 ? dataplane_fail(error, r, "cannot read interface %s: %s", d->cfg->interface, wg_error(d->wg)) : 0;
}

static int up_device(struct dataplane *d, const struct key *priv, uint16_t *port, bool *ret_adopted,
		     char *error)
{
	struct wg_settings want = { priv, d->cfg->port, LINK_MARK };
	CLEANUP(wg_device_done) struct wg_device now = { 0 };
	int r;

	r = wg_open(&d->wg);
	if (r < 0)
		return dataplane_fail(error, r, "cannot talk to the kernel: %s", strerror(-r));
	r = wg_device_create(d->wg, d->cfg->interface, priv, ret_adopted);
	if (r == -EOPNOTSUPP)
		return dataplane_fail(error, r, "this kernel has no WireGuard: load the module wireguard or "
				      "install a kernel with it (5.6 or newer)");
	if (r == -EPERM)
		return dataplane_fail(error, r, "not allowed to make interface %s (CAP_NET_ADMIN): start "
				      "kernscaled as root or by its unit", d->cfg->interface);
	d->gone = r == -EEXIST; /* ours, if there was one: this is somebody else's */
	if (r < 0)
		return dataplane_fail(error, r, "cannot make interface %s: %s", d->cfg->interface, wg_error(d->wg));
	/* First of all: one that was there and fails in what follows is set down unless a table of ours stands. */
	r = link_open(d->cfg->interface, wg_ifindex(d->wg), &d->link);
	if (r < 0)
		return dataplane_fail(error, r, "cannot use interface %s: %s", d->cfg->interface, strerror(-r));
	r = wg_get_device(d->wg, &now);
	if (r < 0)
		return dataplane_fail(error, r, "cannot read interface %s: %s", d->cfg->interface, wg_error(d->wg));
	r = dataplane_clear_devices(d, &now, error);
	if (r < 0)
		return r;
	if (want.port == 0) /* any port: the one it has, or had before */
		want.port = now.port ? now.port : *port;
	r = wg_set_device(d->wg, &now, &want);
	if (r == -EADDRINUSE) /* of one that is up */
		return dataplane_port_taken(want.port, error);
	if (r < 0)
		return dataplane_fail(error, r, "cannot set up interface %s: %s", d->cfg->interface, wg_error(d->wg));
	r = adopt_sources(d, &now);
	if (r == 0)
		r = adopt_addresses(d);
	if (r < 0)
		return dataplane_fail(error, r, "cannot use interface %s: %s", d->cfg->interface, strerror(-r));
	/* One with peers that is down stays so until its filter stands. */
	if (!want.port || !now.n_peers)
		r = up_new_link(d, &now, &want, error);
	d->port = *port = want.port ? want.port : now.port;
	return r;
}

/* What the kernel said, if it did. */
static const char *why_not(struct dataplane *d)
{
	const char *text = link_error(d->link);

	snprintf(d->why, sizeof(d->why), *text ? " (%s)" : "%s", text);
	return d->why;
}

size_t dataplane_rules(const struct dataplane *d, struct link_rule out[LINK_RULES_MAX])
{
	struct link_rules_config c = { .base = d->cfg->rule_base,
				       .table = d->cfg->route_table,
				       .mark = LINK_MARK,
				       .mask = LINK_MARK_MASK,
				       .lan_first = d->cfg->lan_first,
				       .v4 = true,
				       .v6 = true };

	return link_rules_wanted(&c, out);
}

static int up_rules(struct dataplane *d)
{
	struct link_rule rules[LINK_RULES_MAX];
	size_t n = dataplane_rules(d, rules);
	int r = link_set_rules(d->link, d->cfg->rule_base, rules, n);

	if (r < 0 && r != d->rules_error)
		log_warning_errno(r, "cannot set all routing rules%s", why_not(d));
	d->rules_error = r;
	return r;
}

static int up_relay(struct dataplane *d, uint16_t *relay_port, char *error)
{
	int r = shuttle_new(d->loop, d->port, *relay_port, on_shuttle, d, &d->shuttle);

	/* Another port costs a relayed peer one change of its endpoint. */
	if (r == -EADDRINUSE && *relay_port)
		r = shuttle_new(d->loop, d->port, 0, on_shuttle, d, &d->shuttle);
	if (r < 0)
		return dataplane_fail(error, r, "cannot open the relay port on loopback: %s", strerror(-r));
	*relay_port = shuttle_port(d->shuttle);
	return 0;
}

/* What it can do without, but not because of a lack of the moment. */
static int up_extras(struct dataplane *d, char *error)
{
	int r;

	up_rules(d);
	r = link_watch(d->link, d->loop, on_link, d);
	if (is_shortage(r))
		return dataplane_fail(error, r, "cannot watch interfaces: %s", strerror(-r));
	if (r < 0)
		log_warning_errno(r, "changes of interfaces will not be noticed");
	r = tsmp_socket_open(d->loop, d->cfg->interface, &d->ops->tsmp, d->data, &d->tsmp);
	if (is_shortage(r))
		return dataplane_fail(error, r, "cannot listen inside the tunnel: %s", strerror(-r));
	if (r < 0)
		log_warning_errno(r, "control messages inside the tunnel are not answered");
	return 0;
}

int dataplane_up(struct dataplane *d, const struct key *node_private, struct dataplane_ports *ports,
		 bool *ret_adopted, char error[static DATAPLANE_ERROR_MAX])
{
	bool adopted = false, noted, unmade = false;
	int r;

	d->left = 0;
	d->going = d->gone = false;
	/* Before anything is touched: who cannot see whether the tunnel is filtered must not judge it. */
	r = dataplane_open_nft(d);
	if (is_shortage(r))
		return dataplane_fail(error, r, "cannot talk to nf_tables: %s", strerror(-r));
	noted = dataplane_note_names(d);
	r = up_device(d, node_private, &ports->wireguard, &adopted, error);
	if (r == 0)
		r = up_relay(d, &ports->relay, error);
	if (r == 0)
		r = dataplane_up_table(d, &ports->disco, error);
	if (r == 0)
		r = up_link(d, d->port, error);
	if (r == 0)
		r = up_extras(d, error);
	if (r == 0) {
		d->up = true;
		*ret_adopted = adopted;
		return 0;
	}
	/* A device that was there before is somebody's mesh: it stays. */
	if (d->wg && !adopted && wg_ifindex(d->wg))
		unmade = wg_device_delete(d->wg) == 0;
	else if (d->link)
		dataplane_leave_link(d);
	else /* it was another's, or none can be */
		unmade = r == -EEXIST || r == -EPERM || r == -EOPNOTSUPP;
	/* A device that stays is noted under the names that it had, if any are known. */
	if (noted && !d->table_may_be && (unmade || dataplane_has_other_names(d)))
		dataplane_unnote_names(d);
	dataplane_let_go(d);
	return r;
}

int dataplane_set_key(struct dataplane *d, const struct key *node_private)
{
	CLEANUP(wg_device_done) struct wg_device now = { 0 };
	struct wg_settings want = { node_private, d->port, LINK_MARK };
	int r = wg_get_device(d->wg, &now);

	return r < 0 ? r : wg_set_device(d->wg, &now, &want);
}

/* The table first: what is for a new address shall not be lost, nor what was for an old one come in. */
int dataplane_set_addresses(struct dataplane *d, const struct addr *a, size_t n)
{
	struct addr *copy = calloc(n + 1, sizeof(*copy));
	bool same;

	if (!copy)
		return -ENOMEM;
	memcpy(copy, a, n * sizeof(*copy));
	qsort(copy, n, sizeof(*copy), addr_order);
	same = n == d->n_addrs && (n == 0 || memcmp(copy, d->addrs, n * sizeof(*copy)) == 0);
	free(d->addrs);
	d->addrs = copy;
	d->n_addrs = n;
	if (!same)
		dataplane_apply_table(d); /* what goes wrong is in status, and tried again */
	d->addrs_error = link_set_addresses(d->link, a, n);
	return d->addrs_error;
}

static int want_cmp(const void *key, const void *elem)
{
	return key_cmp(key, &((const struct wg_peer *)elem)->key);
}

/* Whatever the kernel has stays, but for a relay address that is not (any more) this peer's. k NULL: it has not. */
static struct wg_want want_peer(const struct dataplane *d, const struct wg_peer *k, const struct dataplane_peer *p)
{
	struct wg_want w = {
		.key = p->key,
		.endpoint = shuttle_endpoint(d->shuttle, p->index),
		.n_allowed = p->n_allowed,
		.allowed = p->allowed,
	};
	uint32_t index;

	w.force_endpoint = k && (!k->endpoint.addr.family || (shuttle_index_of(&k->endpoint, &index) == 0 &&
							      !endpoint_equal(&k->endpoint, &w.endpoint)));
	return w;
}

static size_t want_peers(const struct dataplane *d, const struct wg_device *now, struct dataplane_peer *p, size_t n,
			 struct wg_want *ret)
{
	size_t k = 0, fresh = 0;

	for (size_t i = 0; i < n; i++) {
		const struct wg_peer *has =
			now->n_peers ? bsearch(&p[i].key, now->peers, now->n_peers, sizeof(*has), want_cmp) : NULL;

		p[i].later = !has && fresh++ >= DATAPLANE_NEW_MAX;
		if (!p[i].later)
			ret[k++] = want_peer(d, has, &p[i]);
	}
	return k;
}

static void set_routes(struct dataplane *d, const struct dataplane_peer *p, size_t n)
{
	CLEANUP(free) struct link_route *routes = NULL;
	size_t total = 0, k = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		total += p[i].n_allowed;
	routes = calloc(total + 1, sizeof(*routes));
	if (!routes) {
		d->routes_error = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < p[i].n_allowed && !p[i].later; j++)
			routes[k++].dst = p[i].allowed[j];
	r = link_set_routes(d->link, d->cfg->route_table, routes, k);
	if (r < 0 && r != d->routes_error) /* told once: with IPv6 switched off it stays so */
		log_warning_errno(r, "cannot set all routes in table %u%s", d->cfg->route_table, why_not(d));
	d->routes_error = r;
}

/* Addresses of peers are theirs: from elsewhere they are forged. */
static int set_sources(struct dataplane *d, const struct dataplane_peer *p, size_t n)
{
	CLEANUP(free) struct addr *v = NULL;
	size_t total = 0, k = 0;

	for (size_t i = 0; i < n; i++)
		total += p[i].n_allowed;
	v = calloc(total + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < p[i].n_allowed; j++)
			if (prefix_is_single(&p[i].allowed[j]))
				v[k++] = p[i].allowed[j].addr;
	qsort(v, k, sizeof(*v), addr_order);
	if (k == d->n_peers && (k == 0 || memcmp(v, d->peers, k * sizeof(*v)) == 0))
		return 0;
	free(d->peers);
	d->peers = TAKE(v);
	d->n_peers = k;
	return dataplane_apply_table(d);
}

/* On with d->left_over, from its beginning. */
static int apply_peers(struct dataplane *d)
{
	struct wg_encode_pos pos = { 0 };
	int left = wg_apply(d->wg, &d->left_over, WG_REMOVE_BATCH, &pos);

	if (left < 0)
		log_remote(LOG_LEVEL_ERR, "cannot program the peers of %s: %s", d->cfg->interface,
			   wg_error(d->wg));
	if (left > 0)
		wg_plan_forget(&d->left_over, pos.change);
	else
		wg_plan_done(&d->left_over);
	return left;
}

int dataplane_remove_more(struct dataplane *d)
{
	return d->up ? apply_peers(d) : 0;
}

/* Into d->left_over: all of it, for now. */
static int plan_peers(struct dataplane *d, struct dataplane_peer *p, size_t n)
{
	CLEANUP(wg_device_done) struct wg_device now = { 0 };
	CLEANUP(free) struct wg_want *want = calloc(n + 1, sizeof(*want));
	int r;

	wg_plan_done(&d->left_over); /* who was to go may be wanted again */
	if (!want)
		return -ENOMEM;
	r = wg_get_device(d->wg, &now);
	if (r < 0) {
		log_remote(LOG_LEVEL_ERR, "cannot read interface %s: %s", d->cfg->interface, strerror(-r));
		return r;
	}
	set_sources(d, p, n); /* what went wrong is in status; peers are not kept out for it */
	r = wg_plan(&now, want, want_peers(d, &now, p, n, want), &d->left_over);
	return r < 0 ? log_err_errno(r, "cannot plan the peers of %s", d->cfg->interface) : 0;
}

int dataplane_set_peers(struct dataplane *d, struct dataplane_peer *p, size_t n)
{
	int left = plan_peers(d, p, n);

	if (left < 0)
		return left;
	if (d->left_over.n > TRIM_CHANGES)
		malloc_trim(0);
	left = apply_peers(d);
	if (left >= 0)
		set_routes(d, p, n);
	return left;
}

int dataplane_set_endpoint(struct dataplane *d, const struct key *peer, uint32_t index,
			   const struct endpoint *e)
{
	struct endpoint relay = shuttle_endpoint(d->shuttle, index);
	int r = wg_set_endpoint(d->wg, peer, e ? e : &relay);

	if (r < 0)
		log_remote(LOG_LEVEL_WARNING, "cannot set an endpoint: %s", wg_error(d->wg));
	return r;
}

int dataplane_reset_peer(struct dataplane *d, const struct dataplane_peer *p)
{
	struct wg_want want = { .key = p->key,
				.endpoint = shuttle_endpoint(d->shuttle, p->index),
				.force_endpoint = true,
				.n_allowed = p->n_allowed,
				.allowed = p->allowed };

	return wg_reset_peer(d->wg, &want);
}

int dataplane_tell_disco(struct dataplane *d, const struct addr *from, const struct addr *to,
			 const struct key *disco)
{
	return d->tsmp ? tsmp_socket_send(d->tsmp, from, to,
					  &(struct tsmp_msg){ .type = TSMP_TYPE_DISCO_KEY, .disco = *disco }) :
			 -EPERM;
}

int dataplane_dump(struct dataplane *d, void (*begin)(void *data), wg_peer_fn *fn, void *data)
{
	return wg_dump(d->wg, NULL, begin, fn, data);
}

int dataplane_relay_deliver(struct dataplane *d, uint32_t index, const void *p, size_t len)
{
	return shuttle_deliver(d->shuttle, index, p, len);
}

int dataplane_relay_inject(struct dataplane *d, const struct endpoint *src, const struct addr *dst,
			   const void *p, size_t len)
{
	return shuttle_inject(d->shuttle, src, dst, p, len);
}

int dataplane_local_addresses(struct dataplane *d, struct link_local_addr **ret, size_t *ret_n)
{
	return link_local_addresses(d->link, ret, ret_n);
}

void dataplane_ways(struct dataplane *d, struct link_path *ret_v4, struct link_path *ret_v6)
{
	/* Some address that nobody has a route of its own for: nothing is sent there. */
	const struct addr v4 = addr_v4(2, 0, 0, 1), v6 = { .family = 6, .b = { 0x20, [15] = 1 } };

	if (link_lookup(d->link, &v4, LINK_MARK, ret_v4) < 0)
		*ret_v4 = (struct link_path){ 0 };
	if (link_lookup(d->link, &v6, LINK_MARK, ret_v6) < 0)
		*ret_v6 = (struct link_path){ 0 };
}

/* Events may have been lost, so that nothing is wrong after all: told is what was. */
static int repair_rules(struct dataplane *d)
{
	uint64_t before = link_changes_sent(d->link);
	int r = up_rules(d);

	if (r == 0 && link_changes_sent(d->link) != before)
		log_notice("routing rules were taken away: they are back");
	return r;
}

static int repair_link(struct dataplane *d)
{
	uint64_t before = link_changes_sent(d->link);

	d->link_error = link_up(d->link, LINK_MTU);
	d->addrs_error = link_set_addresses(d->link, d->addrs, d->n_addrs);
	if (link_changes_sent(d->link) != before)
		log_remote(LOG_LEVEL_NOTICE, "interface %s was changed by somebody else: it is put right",
			   d->cfg->interface);
	return d->link_error < 0 ? d->link_error : d->addrs_error;
}

int dataplane_repair(struct dataplane *d, unsigned int events)
{
	int r = 0, e = 0;

	if (!d->up)
		return 0;
	if (wg_device_is_gone(d->wg, d->cfg->interface))
		return -ENODEV;
	if (events & LINK_EVENT_RULE)
		r = repair_rules(d);
	if (events & LINK_EVENT_FORWARDING)
		dataplane_apply_table(d);
	if ((events & LINK_EVENT_OURS) && !d->closed)
		e = repair_link(d);
	return r < 0 ? r : e;
}

int dataplane_undone(const struct dataplane *d)
{
	return d->link_error < 0  ? d->link_error :
	       d->addrs_error < 0 ? d->addrs_error :
	       d->rules_error < 0 ? d->rules_error :
				    d->routes_error;
}

void dataplane_settle(struct dataplane *d)
{
	if (d->link_error < 0 && !d->closed)
		d->link_error = link_up(d->link, LINK_MTU);
	if (d->addrs_error < 0)
		d->addrs_error = link_set_addresses(d->link, d->addrs, d->n_addrs);
	if (d->rules_error < 0)
		up_rules(d);
}

/* Not into our own tunnel: a packet for a peer that only the tunnel leads to would go round in
 * circles. The mark keeps ours out where our rules stand; this is for when they do not. */
int dataplane_send_udp(struct dataplane *d, const struct endpoint *to, const struct addr *from,
		       const void *p, size_t len)
{
	if (addr_is_tailnet(&to->addr))
		return -ENETUNREACH;
	return udp_send(d->udp, to, from, p, len);
}
