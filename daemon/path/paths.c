#include "daemon/path/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/path/paths_impl.h"
#include "lib/cleanup.h"

#define LAZY_DUMPS 5 /* nothing but idle paths of dead daemons: so much more seldom */

/* ---- regions ---- */

bool paths_region_down(const struct paths *p, uint16_t region)
{
	for (size_t i = 0; i < p->n_down; i++)
		if (p->down[i] == region)
			return true;
	return false;
}

void paths_relay_state(struct paths *p, uint16_t region, bool reachable)
{
	for (size_t i = 0; i < p->n_down; i++) {
		if (p->down[i] != region)
			continue;
		if (reachable)
			p->down[i] = p->down[--p->n_down];
		return;
	}
	if (!reachable && p->n_down < REGIONS_DOWN_MAX)
		p->down[p->n_down++] = region;
}

uint16_t paths_region(const struct paths *p, const struct paths_peer *peer)
{
	if (!peer->home ||
	    (paths_region_down(p, peer->home) && peer->heard && !paths_region_down(p, peer->heard)))
		return peer->heard;
	return peer->home;
}

/* ---- beginning and end of every entry ---- */

uint64_t paths_begin(struct paths *p, uint64_t now)
{
	/* One caller took the time of the loop's turn, another the clock's: never backwards. */
	p->now = MAX(p->now, now);
	return p->now;
}

static uint64_t next_due(const struct paths *p)
{
	uint64_t at = p->peers.n_heap ? p->peers.heap[0]->due : UINT64_MAX;

	if (p->dump_at)
		at = MIN(at, p->dump_at);
	for (size_t i = 0; i < USER_PINGS_MAX; i++)
		if (p->users[i].handle)
			at = MIN(at, p->users[i].until);
	return at;
}

void paths_end(struct paths *p)
{
	uint64_t at;

	if (p->dump_asked) {
		p->dump_asked = false;
		at = MAX(p->now, p->dumped + SECOND); /* at most one a second */
		p->dump_at = p->dump_at ? MIN(p->dump_at, at) : at;
	}
	at = next_due(p);
	if (at == p->wake_at)
		return;
	p->wake_at = at;
	p->ops->wake(p->data, at);
}

/* The peer's active part, made if need be; NULL without memory. */
struct path *paths_path(struct paths_peer *peer)
{
	struct paths *p = peer->owner;
	struct path *path;

	if (peer->path)
		return peer->path;
	path = path_new(&p->env, peer, p->now);
	if (!path)
		return NULL;
	if (peertab_activate(&p->peers, peer, path) < 0) {
		path_free(path);
		return NULL;
	}
	path_set_endpoints(peer->path, peer->endpoints, peer->n_endpoints, p->now);
	return peer->path;
}

void paths_reschedule(struct paths_peer *peer)
{
	struct paths *p = peer->owner;

	/* never twice in one instant */
	peertab_set_due(&p->peers, peer,
			peer->set_later ? p->now : MAX(path_due(peer->path), p->now + 1));
}

static void set_late(struct paths_peer *peer)
{
	struct paths *p = peer->owner;
	struct path *x = peer->path;

	if (!peer->set_later)
		return;
	peer->set_later = false;
	x->set = p->now;
	p->ops->set_endpoint(p->data, peer->id, x->kernel.addr.family ? &x->kernel : NULL);
}

void paths_watch(struct paths *p)
{
	if (!p->dump_at)
		p->dump_at = MAX(p->dumped + p->env.dump_gap_usec, p->now);
}

static void run_dump(struct paths *p)
{
	bool watched = false, active = false;

	p->dumped = p->now;
	p->dump_at = 0;
	p->ops->dump(p->data);
	for (size_t i = 0; i < p->peers.n_heap; i++) {
		const struct path *x = p->peers.heap[i]->path;

		if (!x || !path_watched(x, p->now))
			continue;
		watched = true;
		active |= x->state != PATH_STATE_HELD || path_active(x, p->now);
	}
	if (watched)
		p->dump_at = p->now + p->env.dump_gap_usec * (active ? 1 : LAZY_DUMPS);
}

static void expire_user_pings(struct paths *p)
{
	for (size_t i = 0; i < USER_PINGS_MAX; i++) {
		struct user_ping u = p->users[i];

		if (!u.handle || u.until > p->now)
			continue;
		p->users[i].handle = 0;
		u.fn(u.data, NULL);
	}
}

void paths_tick(struct paths *p, uint64_t now)
{
	now = paths_begin(p, now);
	while (p->peers.n_heap && p->peers.heap[0]->due <= now) {
		struct paths_peer *peer = p->peers.heap[0];

		set_late(peer);
		path_tick(peer->path, now);
		if (path_releasable(peer->path, now))
			peertab_rest(&p->peers, peer);
		else
			paths_reschedule(peer);
	}
	if (p->dump_at && p->dump_at <= now)
		run_dump(p);
	expire_user_pings(p);
	p->wake_at = 0; /* the caller's timer has fired: set it again in any case */
	paths_end(p);
}

/* ---- ourselves ---- */

int paths_new(const struct paths_ops *ops, void *data, struct paths **ret)
{
	CLEANUP(paths_free) struct paths *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->ops = ops;
	p->data = data;
	p->env = (struct path_env){ .ops = &paths_path_ops, .dump_gap_usec = PATHS_DUMP_USEC };
	p->wake_at = UINT64_MAX;
	p->shared = calloc(SHARED_SLOTS, sizeof(*p->shared));
	if (peertab_init(&p->peers) < 0 || !p->shared)
		return -ENOMEM;
	*ret = TAKE(p);
	return 0;
}

void paths_free(struct paths *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < USER_PINGS_MAX; i++)
		if (p->users[i].handle)
			p->users[i].fn(p->users[i].data, NULL);
	if (p->shared)
		paths_forget_shared(p);
	key_pair_wipe(&p->disco);
	peertab_done(&p->peers);
	free(p->shared);
	free(p);
}

/* Calls fn for every active path, then puts the heap in order: fn may change when each is due. */
static void for_active(struct paths *p, void (*fn)(struct path *, uint64_t))
{
	for (size_t i = 0; i < p->peers.n_heap; i++)
		fn(p->peers.heap[i]->path, p->now);
	for (size_t i = 0; i < p->peers.n_heap; i++)
		p->peers.heap[i]->due = MAX(path_due(p->peers.heap[i]->path), p->now + 1);
	peertab_sort(&p->peers);
}

static void forget_pings(struct path *x, uint64_t now)
{
	(void)now;
	x->n_pings = 0;
}

void paths_set_self(struct paths *p, const struct key_pair *disco, const struct key *node_pub,
		    uint64_t now)
{
	now = paths_begin(p, now);
	if (memcmp(&p->disco, disco, sizeof(*disco)) != 0) {
		paths_forget_shared(p);
		for_active(p, forget_pings);
	}
	p->disco = *disco;
	p->node = *node_pub;
	paths_end(p);
}

static bool same_set(const struct endpoint *a, size_t n, const struct endpoint *b, size_t m)
{
	size_t i, j;

	if (n != m)
		return false;
	for (i = 0; i < n; i++) {
		for (j = 0; j < m && !endpoint_equal(&a[i], &b[j]); j++)
			;
		if (j == m)
			return false;
	}
	return true;
}

void paths_set_own_endpoints(struct paths *p, const struct endpoint *v, size_t n, uint64_t now)
{
	now = paths_begin(p, now);
	n = MIN(n, DISCO_ENDPOINTS_MAX);
	p->own_at = now;
	if (!same_set(p->own, p->n_own, v, n)) {
		if (n)
			memcpy(p->own, v, n * sizeof(*v));
		p->n_own = n;
		for_active(p, path_renew);
	}
	paths_end(p);
}

void paths_set_udp_works(struct paths *p, bool works)
{
	p->no_udp = !works;
}

void paths_link_changed(struct paths *p, uint64_t now)
{
	now = paths_begin(p, now);
	p->own_at = p->restun_at = 0; /* stale, and no matter how short ago the last round was */
	for_active(p, path_link_changed);
	paths_end(p);
}

void paths_link_added(struct paths *p, uint64_t now)
{
	now = paths_begin(p, now);
	p->own_at = p->restun_at = 0;
	for_active(p, path_renew);
	paths_end(p);
}

/* ---- peers ---- */

static int set_endpoints(struct paths_peer *peer, const struct endpoint *v, size_t n)
{
	struct endpoint *copy = NULL;

	n = MIN(n, PATHS_ENDPOINTS_MAX);
	if (n == peer->n_endpoints && (n == 0 || memcmp(peer->endpoints, v, n * sizeof(*v)) == 0))
		return 0;
	if (n) {
		copy = malloc(n * sizeof(*v));
		if (!copy)
			return -ENOMEM;
		memcpy(copy, v, n * sizeof(*v));
	}
	free(peer->endpoints);
	peer->endpoints = copy;
	peer->n_endpoints = (uint8_t)n;
	if (peer->path)
		path_set_endpoints(peer->path, copy, n, peer->owner->now);
	return 0;
}

static void set_disco(struct paths_peer *peer, const struct key *disco)
{
	struct paths *p = peer->owner;

	peertab_set_disco(&p->peers, peer, disco);
	if (peer->path)
		peer->path->n_pings = 0; /* sealed for a key that is gone */
}

static int peer_new(struct paths *p, const struct paths_peer_config *c)
{
	struct paths_peer *peer;

	if (p->peers.n >= PATHS_PEERS_MAX)
		return -ENOBUFS;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return -ENOMEM;
	peer->owner = p;
	peer->id = c->id;
	peer->node = c->node;
	peer->disco = peer->map_disco = c->disco;
	peer->home = c->home;
	if (set_endpoints(peer, c->endpoints, c->n_endpoints) < 0 ||
	    peertab_add(&p->peers, peer) < 0) {
		free(peer->endpoints);
		free(peer);
		return -ENOMEM;
	}
	p->env.dump_gap_usec = MAX(PATHS_DUMP_USEC, p->peers.n * 1000);
	return PATHS_PEER_NEW;
}

static int peer_update(struct paths_peer *peer, const struct paths_peer_config *c)
{
	bool reset = false;
	int r;

	peer->home = c->home;
	if (memcmp(&c->disco, &peer->map_disco, sizeof(c->disco)) != 0) {
		peer->map_disco = c->disco;
		/* Known already when the peer told it in the tunnel (disco.md 15.2). */
		if (memcmp(&c->disco, &peer->disco, sizeof(c->disco)) != 0) {
			reset = !key_is_zero(&peer->disco) && !key_is_zero(&c->disco);
			set_disco(peer, &c->disco);
		}
	}
	r = set_endpoints(peer, c->endpoints, c->n_endpoints);
	if (reset && peer->path)
		path_reset(peer->path, peer->owner->now);
	if (peer->path)
		paths_reschedule(peer);
	return r < 0 ? r : reset ? PATHS_PEER_RESET : PATHS_PEER_SAME;
}

int paths_peer_set(struct paths *p, const struct paths_peer_config *c, uint64_t now)
{
	struct paths_peer *peer = peertab_by_id(&p->peers, c->id),
			  *other = peertab_by_node(&p->peers, &c->node);
	int r;

	if (other && other != peer)
		return -EEXIST;
	now = paths_begin(p, now);
	if (peer && !other) { /* the same number with another node key is another peer */
		paths_peer_remove(p, c->id);
		peer = NULL;
	}
	r = peer ? peer_update(peer, c) : peer_new(p, c);
	paths_end(p);
	return r;
}

void paths_peer_remove(struct paths *p, uint32_t id)
{
	struct paths_peer *peer = peertab_by_id(&p->peers, id);

	if (!peer)
		return;
	peertab_remove(&p->peers, peer);
	p->env.dump_gap_usec = MAX(PATHS_DUMP_USEC, p->peers.n * 1000);
	paths_end(p);
}

int paths_peer_disco_key(struct paths *p, uint32_t id, const struct key *disco, uint64_t now)
{
	struct paths_peer *peer = peertab_by_id(&p->peers, id);

	if (!peer)
		return -ENOENT;
	if (key_is_zero(disco) || memcmp(disco, &peer->disco, sizeof(*disco)) == 0)
		return 0;
	now = paths_begin(p, now);
	set_disco(peer, disco);
	if (peer->path)
		paths_reschedule(peer);
	paths_end(p);
	return 0;
}

bool paths_peer_by_key(const struct paths *p, const struct key *node, uint32_t *ret_id)
{
	const struct paths_peer *peer = peertab_by_node(&p->peers, node);

	if (peer)
		*ret_id = peer->id;
	return peer;
}

size_t paths_count(const struct paths *p)
{
	return p->peers.n;
}

bool paths_any_active(const struct paths *p, uint64_t now)
{
	now = MAX(now, p->now);
	for (size_t i = 0; i < p->peers.n_heap; i++)
		if (path_active(p->peers.heap[i]->path, now))
			return true;
	return false;
}

/* ---- kernel and shuttle ---- */

void paths_peer_gone(struct paths *p, uint16_t region, const struct key *src)
{
	struct paths_peer *peer = peertab_by_node(&p->peers, src);

	if (peer && peer->path && region == paths_region(p, peer))
		path_gone(peer->path);
}

void paths_counters(struct paths *p, uint32_t id, const struct path_counters *c, uint64_t now)
{
	struct paths_peer *peer = peertab_by_id(&p->peers, id);

	if (!peer)
		return;
	if (!peer->path && !c->direct)
		return; /* at rest, as it should be */
	now = paths_begin(p, now);
	if (paths_path(peer)) {
		p->counting = true;
		path_counters(peer->path, c, now);
		p->counting = false;
		paths_reschedule(peer);
	}
	paths_end(p);
}

int paths_send_how(struct paths *p, uint32_t id, uint64_t now, struct paths_send *ret)
{
	struct paths_peer *peer = peertab_by_id(&p->peers, id);
	struct paths_send s = { 0 };

	if (!peer)
		return -ENOENT;
	now = paths_begin(p, now);
	s.region = paths_region(p, peer);
	s.dst = peer->node;
	if (paths_path(peer)) {
		path_relay_traffic(peer->path, now);
		s.copy = peer->path->best.addr.family;
		s.to = peer->path->best;
		s.from = peer->path->local;
		paths_reschedule(peer);
	}
	paths_end(p);
	*ret = s;
	return 0;
}

/* Our address on the way to where the kernel sends; false when none is known. */
static bool local_of_kernel(struct path *x, struct addr *ret)
{
	const struct candidate *c;

	if (endpoint_equal(&x->kernel, &x->best)) {
		*ret = x->local;
	} else {
		c = candidates_find(&x->cands, &x->kernel);
		*ret = c ? c->local : (struct addr){ 0 };
	}
	return ret->family && ret->family == x->kernel.addr.family;
}

int paths_deliver_how(struct paths *p, uint16_t region, const struct key *src, uint64_t now,
		      struct paths_deliver *ret)
{
	struct paths_peer *peer = peertab_by_node(&p->peers, src);
	struct paths_deliver d = { 0 };

	if (!peer)
		return -ENOENT;
	d.id = peer->id;
	peer->heard = region;
	if (peer->path) {
		now = paths_begin(p, now);
		path_relay_heard(peer->path, true, now);
		if (peer->path->kernel.addr.family && local_of_kernel(peer->path, &d.dst)) {
			d.inject = true;
			d.src = peer->path->kernel;
		} else { /* the packet takes the kernel to the relay address */
			peer->path->kernel = (struct endpoint){ 0 };
		}
		paths_reschedule(peer);
		paths_end(p);
	}
	*ret = d;
	return 0;
}

/* ---- asking ---- */

int paths_ping(struct paths *p, uint32_t id, paths_ping_fn *fn, void *data, uint64_t now)
{
	struct paths_peer *peer = peertab_by_id(&p->peers, id);
	struct user_ping *u = NULL;

	if (!peer)
		return -ENOENT;
	if (key_is_zero(&peer->disco))
		return -ENOKEY;
	for (size_t i = 0; !u && i < USER_PINGS_MAX; i++)
		if (!p->users[i].handle)
			u = &p->users[i];
	if (!u)
		return -ENOBUFS;
	now = paths_begin(p, now);
	if (!paths_path(peer))
		return -ENOMEM;
	p->last_handle = p->last_handle == INT32_MAX ? 1 : p->last_handle + 1;
	*u = (struct user_ping){ .handle = p->last_handle,
				 .id = id,
				 .until = now + PATH_PING_USEC,
				 .fn = fn,
				 .data = data };
	path_ping_user(peer->path, (uint32_t)u->handle, now);
	paths_reschedule(peer);
	paths_end(p);
	return u->handle;
}

void paths_ping_cancel(struct paths *p, int handle)
{
	for (size_t i = 0; handle > 0 && i < USER_PINGS_MAX; i++)
		if (p->users[i].handle == handle)
			p->users[i].handle = 0;
}

static unsigned int count_pinged(const struct path *x)
{
	unsigned int n = 0;

	for (size_t i = 0; i < x->cands.n; i++)
		n += x->cands.v[i].pinged != 0;
	return n;
}

static const char *region_name(const struct paths *p, uint16_t region, char out[static 8])
{
	const char *code = p->ops->region_code ? p->ops->region_code(p->data, region) : NULL;

	snprintf(out, 8, "%u", region);
	return code && *code ? code : out;
}

static void relay_reason(const struct paths *p, const struct paths_peer *peer, uint64_t now,
			 char out[static PATHS_REASON_MAX])
{
	const struct path *x = peer->path;
	uint16_t region = paths_region(p, peer);
	char number[8];

	if (!region)
		snprintf(out, PATHS_REASON_MAX, "no relay is known for this peer");
	else if (paths_region_down(p, region))
		snprintf(out, PATHS_REASON_MAX, "relay %s is unreachable",
			 region_name(p, region, number));
	else if (key_is_zero(&peer->disco))
		snprintf(out, PATHS_REASON_MAX, "the peer has no disco key");
	else if (!x || !path_active(x, now))
		out[0] = 0;
	else if (p->no_udp)
		snprintf(out, PATHS_REASON_MAX, "no UDP gets out of this host's network");
	else if (!x->cands.n)
		snprintf(out, PATHS_REASON_MAX, "the peer told no address where UDP reaches it");
	else if (x->gone)
		snprintf(out, PATHS_REASON_MAX, "relay %s says that the peer is not connected",
			 region_name(p, region, number));
	else
		snprintf(out, PATHS_REASON_MAX, "none of its %u addresses answers",
			 count_pinged(x));
}

int paths_peer_status(const struct paths *p, uint32_t id, uint64_t now, struct paths_status *ret)
{
	const struct paths_peer *peer = peertab_by_id(&p->peers, id);
	struct paths_status s = { 0 };
	const struct path *x;

	if (!peer)
		return -ENOENT;
	now = MAX(now, p->now);
	x = peer->path;
	s.region = paths_region(p, peer);
	if (x) {
		s.state = x->state;
		s.active = path_active(x, now);
		s.last_pong = x->ponged;
		if (x->state != PATH_STATE_RELAY)
			s.latency_usec = x->latency_usec;
	}
	switch (s.state) {
	case PATH_STATE_RELAY:
		relay_reason(p, peer, now, s.reason);
		break;
	case PATH_STATE_DIRECT:
		s.current = x->best;
		break;
	case PATH_STATE_HELD:
		s.current = x->best;
		snprintf(s.reason, sizeof(s.reason),
			 "the peer's daemon is silent, its kernel still answers");
		break;
	case PATH_STATE_DOUBTFUL:
		snprintf(s.reason, sizeof(s.reason), "no answer from the direct address for %llu s",
			 x->ponged ? (unsigned long long)((now - x->ponged) / SECOND) : 0ULL);
		break;
	}
	*ret = s;
	return 0;
}
