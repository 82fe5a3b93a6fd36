/* From the map to peers, paths and kernel, and the kernel's counters back. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/netmap/netmap_routes.h"
#include "daemon/node_priv.h"
#include "lib/log.h"
#include "proto/wireguard.h"

#define SYNC_USEC	 (UINT64_C(20) * USEC_PER_MSEC) /* what comes together goes to the kernel together */
#define SYNC_AGAIN_DOUBLINGS 6 /* after failures: 1 s doubled up to a minute */
#define SYNC_COST_FACTOR 10 /* the kernel's state is read each time: a tenth of the time at most, … */
#define SYNC_WAIT_MAX_USEC (UINT64_C(5) * USEC_PER_SEC) /* … but who is removed is out within seconds */
#define REMOVAL_REST_USEC (UINT64_C(100) * USEC_PER_MSEC) /* for all else that waits for the rtnl lock */
#define SAVE_USEC	 (UINT64_C(2) * USEC_PER_SEC)
#define SAVE_AGAIN_USEC	 (UINT64_C(30) * USEC_PER_SEC)
#define SAVE_COST_FACTOR 50 /* a disk that is slow, or that others use, gets a fiftieth of its time from us */
#define SAVE_REST_USEC	 (UINT64_C(60) * USEC_PER_SEC) /* but the map is never older than that */
#define FRESH_USEC	 (UINT64_C(500) * USEC_PER_MSEC)

struct node_peer *node_peer_by_index(struct node *n, uint32_t index)
{
	struct node_peer *p;

	HASH_FIND(by_index, n->peers_by_index, &index, sizeof(index), p);
	return p;
}

struct node_peer *node_peer_by_id(struct node *n, int64_t id)
{
	struct node_peer *p;

	HASH_FIND(by_id, n->peers_by_id, &id, sizeof(id), p);
	return p;
}

/* The same number after every restart, as long as ids are small, which a coordinator's own are; the
 * official service's are hashed, by a key of ours: a hundred thousand that the server made fall on one place
 * would keep us busy for minutes. What collides takes the next free one. */
static uint32_t choose_index(struct node *n, int64_t id)
{
	uint8_t h[crypto_generichash_BYTES_MIN];
	uint32_t i = (uint32_t)(id & INT64_MAX);

	if (id <= 0 || id > SHUTTLE_INDEX_MAX) {
		crypto_generichash(h, sizeof(h), (const uint8_t *)&id, sizeof(id), n->state->machine.priv.b,
				   KEY_LEN);
		memcpy(&i, h, sizeof(i));
	}
	for (;; i++) {
		i = i % SHUTTLE_INDEX_MAX;
		if (i == 0)
			i = 1;
		if (!node_peer_by_index(n, i))
			return i;
	}
}

static struct node_peer *peer_add(struct node *n, int64_t id)
{
	struct node_peer *p = calloc(1, sizeof(*p));

	if (!p || HASH_CNT(by_index, n->peers_by_index) >= SHUTTLE_INDEX_MAX / 2) {
		free(p);
		return NULL;
	}
	p->id = id;
	p->index = choose_index(n, id);
	HASH_ADD(by_index, n->peers_by_index, index, sizeof(p->index), p);
	if (!p->by_index.tbl) {
		free(p);
		return NULL;
	}
	HASH_ADD(by_id, n->peers_by_id, id, sizeof(p->id), p);
	if (!p->by_id.tbl) {
		HASH_DELETE(by_index, n->peers_by_index, p);
		free(p);
		return NULL;
	}
	return p;
}

static void peer_remove(struct node *n, struct node_peer *p)
{
	paths_peer_remove(n->paths, p->index);
	HASH_DELETE(by_index, n->peers_by_index, p);
	HASH_DELETE(by_id, n->peers_by_id, p);
	free(p);
}

void node_peers_clear(struct node *n)
{
	struct node_peer *p, *next;

	HASH_ITER(by_index, n->peers_by_index, p, next)
		peer_remove(n, p);
}

/* Makes paths agree with the map about one peer. */
static void peer_update(struct node *n, const struct tailcfg_node *t)
{
	struct paths_peer_config c;
	struct node_peer *p = node_peer_by_id(n, t->id);
	int r;

	if (!netmap_peer_usable(n->map, t)) {
		if (p)
			peer_remove(n, p);
		return;
	}
	if (!p)
		p = peer_add(n, t->id);
	if (!p) {
		log_err("no memory for peer %s", t->name);
		n->peers_missing = true;
		return;
	}
	c = (struct paths_peer_config){
		.id = p->index,
		.node = t->key,
		.disco = t->disco,
		.home = (uint16_t)t->home_derp,
		.endpoints = t->endpoints,
		.n_endpoints = t->n_endpoints,
	};
	if (!key_equal(&p->key, &t->key)) {
		if (!key_is_zero(&p->key))
			paths_peer_remove(n->paths, p->index);
		p->key = t->key;
		p->in_kernel = false;
	}
	r = paths_peer_set(n->paths, &c, loop_now(n->loop));
	if (r == PATHS_PEER_RESET)
		p->reset = true;
	else if (r < 0)
		log_warning_errno(r, "peer %s has no path", t->name);
	n->peers_missing |= r == -ENOMEM;
}

static void set_self(struct node *n)
{
	const struct tailcfg_node *s = n->map->self;

	n->n_self_addrs = 0;
	for (size_t i = 0; s && i < s->n_addresses && n->n_self_addrs < ARRAY_SIZE(n->self_addrs); i++)
		n->self_addrs[n->n_self_addrs++] = s->addresses[i].addr;
	if (dataplane_is_up(n->dp) && s) {
		int r = dataplane_set_addresses(n->dp, n->self_addrs, n->n_self_addrs);

		if (r < 0) {
			log_err_errno(r, "cannot set the addresses of %s", n->cfg->interface);
			node_sync_soon(n);
		}
	}
}

void node_set_filter(struct node *n)
{
	bool all = n->map->self && netmap_filter_is_allow_all(n->map, n->state->prefs.accept_routes);

	dataplane_set_filter(n->dp, all ? NFT_FILTER_ALLOW_ALL : NFT_FILTER_REPLIES_ONLY);
}

/* Who is gone goes first: a node that registered anew has its key under another id. */
static void update_changed(struct node *n, const struct netmap_changes *c)
{
	for (size_t i = 0; i < c->n_peers; i++) {
		struct node_peer *p = node_peer_by_id(n, c->peer[i].id);

		if (p && !netmap_peer_by_id(n->map, c->peer[i].id))
			peer_remove(n, p);
	}
	for (size_t i = 0; i < c->n_peers; i++) {
		const struct tailcfg_node *t = netmap_peer_by_id(n->map, c->peer[i].id);

		if (t)
			peer_update(n, t);
	}
}

static void update_all(struct node *n)
{
	struct node_peer *p, *next;

	HASH_ITER(by_id, n->peers_by_id, p, next)
		if (!netmap_peer_by_id(n->map, p->id))
			peer_remove(n, p);
	for (size_t i = 0; i < netmap_n_peers(n->map); i++)
		peer_update(n, netmap_peer_at(n->map, i));
}

void node_map_changed(struct node *n, const struct netmap_changes *c, bool everything)
{
	if (!dataplane_is_up(n->dp)) {
		set_self(n);
		return;
	}
	if (everything || c->derp)
		node_net_map(n);
	if (everything || c->self)
		set_self(n);
	if (everything)
		update_all(n);
	else
		update_changed(n, c);
	if (everything || c->filter || c->n_peers) /* before a peer that it may not hold for is in the kernel */
		node_set_filter(n);
	if (everything || c->n_peers || c->self)
		node_sync_soon(n);
	if (!loop_timer_armed(n->save_timer) && (!c || !netmap_changes_empty(c)))
		loop_timer_at(n->save_timer, MAX(loop_now(n->loop) + SAVE_USEC, n->save_next));
	node_expiry(n);
}

/* ---- kernel ---- */

void node_sync_soon(struct node *n)
{
	uint64_t rest = MIN(n->sync_took_usec * SYNC_COST_FACTOR, SYNC_WAIT_MAX_USEC);

	if (!loop_timer_armed(n->sync_timer))
		loop_timer_at(n->sync_timer, MAX(loop_now(n->loop) + SYNC_USEC, n->sync_done ? n->sync_done + rest : 0));
}

struct owned_prefix {
	struct prefix prefix;
	uint32_t peer; /* in the list */
};

static int owned_prefix_cmp(const void *a, const void *b)
{
	const struct owned_prefix *x = a, *y = b;
	int r = prefix_cmp(&x->prefix, &y->prefix);

	return r ? r : (x->peer > y->peer) - (x->peer < y->peer);
}

/* A prefix belongs to one peer in the kernel; a server that names it twice gets the first. */
static size_t drop_doubles(struct owned_prefix *v, size_t n)
{
	size_t kept = 0;

	qsort(v, n, sizeof(*v), owned_prefix_cmp);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || !prefix_equal(&v[kept - 1].prefix, &v[i].prefix))
			v[kept++] = v[i];
	return kept;
}

static int owner_cmp(const void *a, const void *b)
{
	const struct owned_prefix *x = a, *y = b;

	if (x->peer != y->peer)
		return x->peer < y->peer ? -1 : 1;
	return prefix_cmp(&x->prefix, &y->prefix);
}

struct wanted {
	struct dataplane_peer *peers;
	size_t n;
	struct owned_prefix *owned;
	size_t n_owned;
	struct prefix *prefixes;
};

static void wanted_done(struct wanted *w)
{
	free(w->peers);
	free(w->owned);
	free(w->prefixes);
}
static inline void wanted_done_cleanup(struct wanted *w)
{
	wanted_done(w);
}

/* What the kernel shall have, from map and peers. */
static int wanted_build(struct node *n, struct wanted *w)
{
	size_t cap = 0, at = 0;
	struct node_peer *p, *next;

	HASH_ITER(by_index, n->peers_by_index, p, next) {
		const struct tailcfg_node *t = netmap_peer_by_id(n->map, p->id);
		size_t k;

		if (!t)
			continue;
		tailcfg_node_allowed(t, &k);
		cap += k + t->n_addresses;
	}
	w->peers = calloc(HASH_CNT(by_index, n->peers_by_index) + 1, sizeof(*w->peers));
	w->owned = calloc(cap + 1, sizeof(*w->owned));
	w->prefixes = calloc(cap + 1, sizeof(*w->prefixes));
	if (!w->peers || !w->owned || !w->prefixes)
		return -ENOMEM;
	HASH_ITER(by_index, n->peers_by_index, p, next) {
		const struct tailcfg_node *t = netmap_peer_by_id(n->map, p->id);
		size_t k;

		if (!t)
			continue;
		/* prefixes is scratch here; it gets its final order below. */
		k = netmap_peer_routes(n->map, t, n->state->prefs.accept_routes, w->prefixes,
				       cap - w->n_owned);
		for (size_t i = 0; i < k; i++)
			w->owned[w->n_owned++] = (struct owned_prefix){ prefix_masked(&w->prefixes[i]),
									(uint32_t)w->n };
		w->peers[w->n++] = (struct dataplane_peer){ .index = p->index, .key = p->key };
	}
	w->n_owned = drop_doubles(w->owned, w->n_owned);
	qsort(w->owned, w->n_owned, sizeof(*w->owned), owner_cmp);
	for (size_t i = 0; i < w->n; i++) {
		w->peers[i].allowed = w->prefixes + at;
		for (; at < w->n_owned && w->owned[at].peer == i; at++) {
			w->prefixes[at] = w->owned[at].prefix;
			w->peers[i].n_allowed++;
		}
	}
	return 0;
}

static void sync_again(struct node *n)
{
	loop_timer_in(n->sync_timer, USEC_PER_SEC << MIN(n->sync_failures, SYNC_AGAIN_DOUBLINGS));
	n->sync_failures++; /* not within MIN(), which takes it twice */
}

void node_sync(void *data)
{
	struct node *n = data;
	CLEANUP(wanted_done) struct wanted w = { 0 };
	uint64_t before = loop_clock();
	char error[DATAPLANE_ERROR_MAX];
	int r, not_reset = 0;
	bool more = false;

	if (!dataplane_is_up(n->dp)) {
		node_mesh_start(n);
		return;
	}
	if (dataplane_repair(n->dp, 0) == -ENODEV) {
		log_warning("interface %s was removed by somebody else: making it anew", n->cfg->interface);
		(void)node_mesh_stop(n, error); /* what is left is adopted */
		node_mesh_start(n);
		return;
	}
	dataplane_settle(n->dp);
	if (n->key_error < 0 && node_self(n)) /* no peer can make a session with the one that it has */
		n->key_error = dataplane_set_key(n->dp, &node_self(n)->priv);
	if (!n->map->self) { /* nothing is known: what the kernel has goes on */
		if (n->key_error < 0 || dataplane_undone(n->dp) < 0)
			sync_again(n);
		return;
	}
	if (n->peers_missing) { /* whoever is missing has not left the mesh: the kernel keeps them until we know them all */
		n->peers_missing = false;
		update_all(n);
	}
	r = n->peers_missing ? -ENOMEM : wanted_build(n, &w);
	if (r < 0) {
		log_err("no memory to program the kernel; trying again");
		loop_timer_in(n->sync_timer, USEC_PER_SEC);
		return;
	}
	for (size_t i = 0; i < w.n; i++) {
		struct node_peer *p = node_peer_by_index(n, w.peers[i].index);

		r = p->reset && p->in_kernel ? dataplane_reset_peer(n->dp, &w.peers[i]) : 0;
		if (r < 0)
			not_reset = r; /* tried again with the rest */
		else
			p->reset = false;
	}
	r = dataplane_set_peers(n->dp, w.peers, w.n);
	for (size_t i = 0; i < w.n && r >= 0; i++) {
		node_peer_by_index(n, w.peers[i].index)->in_kernel = !w.peers[i].later;
		more |= w.peers[i].later;
	}
	if (r > 0)
		loop_timer_in(n->removal_timer, REMOVAL_REST_USEC);
	if (r >= 0)
		r = not_reset < 0 ? not_reset : n->key_error < 0 ? n->key_error : dataplane_undone(n->dp);
	n->sync_took_usec = loop_clock() - before;
	n->sync_done = loop_clock();
	if (more) /* as long for everybody else */
		loop_timer_at(n->sync_timer, n->sync_done + MAX(n->sync_took_usec, SYNC_USEC));
	else if (r < 0)
		sync_again(n);
	else
		n->sync_failures = 0;
	if (!n->dumped_once)
		node_dump(n);
}

void node_remove_more(void *data)
{
	struct node *n = data;
	int r = dataplane_remove_more(n->dp);

	if (r > 0)
		loop_timer_in(n->removal_timer, REMOVAL_REST_USEC);
	else if (r < 0)
		sync_again(n);
}

/* ---- counters ---- */

struct dump {
	struct node *n;
	uint64_t taken;
	int64_t wall;
	size_t found; /* of those that we have put there */
};

static int dump_peer(void *data, const struct wg_peer *k)
{
	struct dump *d = data;
	struct path_counters c = { .taken = d->taken,
				   .endpoint = k->endpoint,
				   .at_start = !d->n->dumped_once,
				   .handshake_age_sec = UINT64_MAX };
	struct node_peer *p;
	uint32_t index, relay;

	if (!paths_peer_by_key(d->n->paths, &k->key, &index))
		return 0;
	p = node_peer_by_index(d->n, index);
	if (!p)
		return 0;
	d->found += p->in_kernel;
	if (k->handshake_wall_nsec)
		c.handshake_age_sec = d->wall > k->handshake_wall_nsec ?
					      (uint64_t)(d->wall - k->handshake_wall_nsec) / 1000000000 :
					      0;
	c.direct = k->endpoint.addr.family && shuttle_index_of(&k->endpoint, &relay) < 0;
	c.received = !c.at_start && k->rx_bytes > p->rx_bytes;
	c.sent = !c.at_start && k->tx_bytes > p->tx_bytes;
	if (c.sent)
		p->written = d->taken;
	p->rx_bytes = k->rx_bytes;
	p->tx_bytes = k->tx_bytes;
	p->handshake = k->handshake_wall_nsec;
	p->endpoint = k->endpoint;
	paths_counters(d->n->paths, index, &c, d->taken);
	return 0;
}

static void dump_begins(void *data)
{
	struct dump *d = data;

	d->found = 0;
}

/* WireGuard tells nobody when a peer is removed: what is missing in a dump was taken away. */
static void miss_peers(struct node *n, size_t found)
{
	struct node_peer *p, *next;
	size_t known = 0;
	uint32_t index;

	HASH_ITER(by_index, n->peers_by_index, p, next)
		known += p->in_kernel && paths_peer_by_key(n->paths, &p->key, &index);
	if (known <= found)
		return;
	log_remote(LOG_LEVEL_NOTICE, "%zu peers of interface %s were removed by somebody else: putting them back",
		   known - found, n->cfg->interface);
	node_sync_soon(n);
}

void node_dump(void *data)
{
	struct node *n = data;
	struct dump d = { .n = n, .taken = loop_clock(), .wall = loop_wall_nsec() };
	int r;

	if (!dataplane_is_up(n->dp))
		return;
	r = dataplane_dump(n->dp, dump_begins, dump_peer, &d);
	if (r < 0) {
		log_remote(LOG_LEVEL_WARNING, "cannot read the kernel's counters: %s", strerror(-r));
		return;
	}
	n->dumped = d.taken;
	n->dumped_once = true;
	miss_peers(n, d.found);
}

void node_dump_fresh(struct node *n)
{
	uint64_t least = MAX(FRESH_USEC, HASH_CNT(by_index, n->peers_by_index) * USEC_PER_MSEC);

	if (dataplane_is_up(n->dp) && (!n->dumped_once || loop_clock() - n->dumped > least))
		node_dump(n);
}

/* ---- time and disk ---- */

void node_map_saved(void *data, int result, uint64_t took_usec)
{
	struct node *n = data;

	n->save_error = result;
	n->save_next = loop_clock() + MIN(took_usec * SAVE_COST_FACTOR, SAVE_REST_USEC);
	if (result < 0) {
		log_remote(LOG_LEVEL_WARNING, "cannot keep the map in %s: %s", n->cfg->statedir, strerror(-result));
		loop_timer_in(n->save_timer, SAVE_AGAIN_USEC);
	}
}

void node_map_save(void *data)
{
	struct node *n = data;
	CLEANUP(buf_done) struct buf b = { .max = NETMAP_BYTES_MAX };
	char path[CONFIG_PATH_MAX + 32];
	int r;

	loop_timer_stop(n->save_timer);
	if (!n->map->self || !n->state->registered ||
	    state_path(n->state, NODE_MAP_CACHE, path, sizeof(path)) < 0)
		return;
	if (filewriter_busy(n->map_file)) {
		loop_timer_in(n->save_timer, SAVE_USEC);
		return;
	}
	r = netmap_encode(n->map, n->state->prefs.login_server, &b);
	if (r == 0)
		r = filewriter_replace(n->map_file, path, &b, 0600);
	if (r < 0)
		node_map_saved(n, r, 0);
}

/* Keys expire by the clock, with nobody telling us. */
void node_expiry(void *data)
{
	struct node *n = data;
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	int64_t now = loop_wall_nsec(), next = netmap_tick(n->map, now, &c);

	loop_timer_stop(n->expiry_timer);
	for (size_t i = 0; i < c.n_peers; i++) {
		const struct tailcfg_node *t = netmap_peer_by_id(n->map, c.peer[i].id);

		if (t && dataplane_is_up(n->dp))
			peer_update(n, t);
	}
	if (c.n_peers) /* allow-all is for those that are good now */
		node_set_filter(n);
	if (c.n_peers || c.self)
		node_sync_soon(n);
	if (next)
		loop_timer_in(n->expiry_timer,
			      (uint64_t)MAX(INT64_C(1000000), MIN(next - now, INT64_C(3600) * 1000000000)) /
				      1000);
}

/* ---- the data plane's events ---- */

static void dp_udp(void *data, const struct endpoint *from, const struct addr *to, const uint8_t *p,
		   size_t len)
{
	node_udp_packet(data, from, to, p, len);
}

static void tell_disco(struct node *n, const struct node_peer *p)
{
	const struct tailcfg_node *t = netmap_peer_by_id(n->map, p->id);

	for (size_t i = 0; t && i < n->n_self_addrs; i++)
		if (t->n_addresses && n->self_addrs[i].family == t->addresses[0].addr.family) {
			dataplane_tell_disco(n->dp, &n->self_addrs[i], &t->addresses[0].addr,
					     &n->state->disco.pub);
			return;
		}
}

/* A new session gets our disco key, as stock nodes do it (disco.md 15.2): after a reboot with the
 * coordinator away it is the only way in which the other side can learn it. The peer whose session
 * is direct has it. */
static void dp_relay(void *data, uint32_t index, const uint8_t *p, size_t len)
{
	struct node_peer *peer = node_peer_by_index(data, index);
	enum wireguard_type type = wireguard_type(p, len);

	if (peer && (type == WIREGUARD_INITIATION || type == WIREGUARD_RESPONSE))
		peer->new_session = true;
	node_relay_packet(data, index, p, len);
	if (peer && type == WIREGUARD_DATA && peer->new_session) {
		peer->new_session = false;
		tell_disco(data, peer);
	}
}

static struct node_peer *peer_by_addr(struct node *n, const struct addr *a)
{
	const struct tailcfg_node *t = netmap_peer_by_addr(n->map, a);

	return t ? node_peer_by_id(n, t->id) : NULL;
}

static bool dp_tsmp_allowed(void *data, const struct addr *src)
{
	struct node *n = data;
	const struct node_peer *p = peer_by_addr(n, src);

	return p && paths_tsmp_allowed(n->paths, p->index, loop_now(n->loop));
}

static void dp_tsmp_disco(void *data, const struct addr *src, const struct key *disco)
{
	struct node *n = data;
	const struct node_peer *p = peer_by_addr(n, src);

	if (p)
		paths_peer_disco_key(n->paths, p->index, disco, loop_now(n->loop));
}

static void dp_link(void *data, unsigned int events)
{
	struct node *n = data;
	int r = dataplane_repair(n->dp, events);

	/* Routes go with the last address, or with the link; a device that is gone is made anew there,
	 * not inside the link's own callback. */
	if (r < 0 || (events & (LINK_EVENT_OURS | LINK_EVENT_ROUTE)))
		node_sync_soon(n);
	if (r != -ENODEV)
		node_net_link(n, events);
}

const struct dataplane_ops node_dataplane_ops = {
	.udp_packet = dp_udp,
	.relay_packet = dp_relay,
	.tsmp = { .allowed = dp_tsmp_allowed, .disco_key = dp_tsmp_disco },
	.link_event = dp_link,
};
