#include "daemon/path/path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

#define SETTLE_USEC                                                                                \
	UINT64_C(200000) /* packets that the kernel had in hand when we set its endpoint */
#define CALL_GAP_MAX_USEC UINT64_C(60000000)

bool path_active(const struct path *p, uint64_t now)
{
	return p->sent && now - p->sent <= PATH_ACTIVE_USEC;
}

static bool has_best(const struct path *p)
{
	return p->best.addr.family;
}

static const struct endpoint *kept(const struct path *p)
{
	return has_best(p) ? &p->best : NULL;
}

static uint64_t alive_usec(const struct path *p)
{
	return PATH_ALIVE_USEC + p->env->dump_gap_usec;
}

/* The peer's kernel answers what we send: a hint only, a path cut one way looks the same. */
static bool kernel_alive(const struct path *p, uint64_t now)
{
	return p->rx_grew && now - p->rx_grew <= alive_usec(p);
}

static bool kernel_dead(const struct path *p, uint64_t now)
{
	return p->unanswered_since && now - p->unanswered_since > alive_usec(p);
}

static bool daemon_silent(const struct path *p, uint64_t now)
{
	if (p->gone)
		return true;
	return p->probed && p->heard <= p->probed && now - p->probed >= PATH_SILENT_USEC;
}

/* A ping of this doubt was answered. */
static bool daemon_answers(const struct path *p)
{
	return p->probed && p->heard > p->probed;
}

static const struct endpoint *wanted(const struct path *p)
{
	return p->state == PATH_STATE_DIRECT || p->state == PATH_STATE_HELD ? &p->best : NULL;
}

/* Makes the kernel send where the state says; nothing when it does so already. */
static void apply(struct path *p, uint64_t now)
{
	const struct endpoint *want = wanted(p);

	if (want ? endpoint_equal(want, &p->kernel) : !p->kernel.addr.family)
		return;
	if (p->roam.addr.family)
		return; /* the kernel chose by itself, and that choice is being tried */
	p->kernel = want ? *want : (struct endpoint){ 0 };
	p->set = now;
	p->env->ops->set_endpoint(p->peer, want);
}

static void roam_end(struct path *p)
{
	p->roam = (struct endpoint){ 0 };
	p->roam_at = 0;
}

static void enter(struct path *p, enum path_event e, uint64_t now)
{
	enum path_state old = p->state;

	p->state = path_next(old, e);
	if (p->state != old) {
		p->waiting = p->doubted = false;
		p->wait_at = 0;
		if (p->state != PATH_STATE_DIRECT)
			p->pinned = false;
		if (p->state == PATH_STATE_RELAY) {
			p->best = (struct endpoint){ 0 };
			p->local = (struct addr){ 0 };
			p->trusted_until = p->miss_at = 0;
		}
		if (p->state == PATH_STATE_DOUBTFUL) /* also when idle: the beat then ends it */
			p->beat_at = now + PATH_SUSPECT_USEC;
	}
	apply(p, now);
	if (p->state != old || !endpoint_equal(&p->told, &p->best)) {
		p->told = p->best;
		p->env->ops->changed(p->peer, old, e);
	}
}

/* ---- pings ---- */

static void pings_drop(struct path *p, size_t i)
{
	memmove(&p->pings[i], &p->pings[i + 1], (p->n_pings - i - 1) * sizeof(*p->pings));
	p->n_pings--;
}

/* The oldest makes room, but for those that decide about the path in use: however many addresses a
 * peer names, its own way stays watched. */
static size_t pings_spare(const struct path *p)
{
	for (size_t i = 0; i < p->n_pings; i++)
		if (p->pings[i].to.addr.family && !endpoint_equal(&p->pings[i].to, &p->best))
			return i;
	return 0;
}

static struct path_ping *pings_room(struct path *p)
{
	struct path_ping *v;
	uint8_t cap;

	if (p->n_pings < p->cap_pings)
		return &p->pings[p->n_pings++];
	if (p->cap_pings < PATH_PINGS_MAX) {
		cap = p->cap_pings ? (uint8_t)(p->cap_pings * 2) : 4;
		v = reallocarray(p->pings, cap, sizeof(*v));
		if (v) {
			p->pings = v;
			p->cap_pings = cap;
			return &p->pings[p->n_pings++];
		}
	}
	if (!p->n_pings)
		return NULL;
	pings_drop(p, pings_spare(p));
	return &p->pings[p->n_pings++];
}

static int send_ping(struct path *p, const struct endpoint *to, uint32_t user, uint64_t now)
{
	struct disco_txid txid;
	struct path_ping *ping;
	int r;

	r = p->env->ops->ping(p->peer, to, &txid);
	if (r < 0)
		return r;
	ping = pings_room(p);
	if (!ping)
		return -ENOMEM;
	*ping = (struct path_ping){ .txid = txid, .user = user, .sent = now };
	if (to)
		ping->to = *to;
	return 0;
}

static void probe_relay(struct path *p, uint64_t now)
{
	/* Also when it could not be sent: then the relay is no way to hear from the daemon either.
	 */
	if (!p->probed || daemon_answers(p))
		p->probed = now;
	send_ping(p, NULL, 0, now);
}

/* A ping to a candidate; arms the watch for its pong when it is the best. */
static int ping_candidate(struct path *p, struct candidate *c, uint32_t user, uint64_t now)
{
	struct endpoint to = c->at;
	int r;

	c->pinged =
	    now; /* whatever comes of it: an address without route is not tried at once again */
	r = send_ping(p, &to, user, now);
	if (r < 0)
		return r;
	if (has_best(p) && endpoint_equal(&to, &p->best) && !p->miss_at)
		p->miss_at = now + PATH_MISS_USEC + MIN(p->latency_usec, 2 * PATH_MISS_USEC);
	return 0;
}

static void ping_best(struct path *p, uint64_t now)
{
	struct candidate *c = candidates_find(&p->cands, &p->best);

	if (!c) /* evicted by a list too long: it is in use, so it comes back */
		c = candidates_add(&p->cands, &p->best, CANDIDATE_SOURCE_PING, &p->best, now);
	if (c && ping_candidate(p, c, 0, now) == -EHOSTUNREACH && p->state != PATH_STATE_HELD)
		enter(p, PATH_EVENT_BEST_LOST, now);
}

/* Pings every address that was not pinged just now; then, if wanted, asks the peer to do so too. */
static void discover(struct path *p, bool call_me, uint64_t now)
{
	size_t n = 0;

	candidates_expire(&p->cands, kept(p), now);
	for (size_t i = 0; i < p->cands.n; i++) {
		struct candidate *c = &p->cands.v[i];

		if (c->pinged && now - c->pinged < PATH_GAP_USEC)
			continue;
		ping_candidate(p, c, 0, now);
		n++;
	}
	p->round = now;
	if (!call_me)
		return;
	/* Stock nodes ask only when they pinged. A peer of which no address is known may still
	 * reach us, but nothing else limits asking it. */
	if (!n && !p->cands.n && (!p->called || now - p->called >= p->call_gap_usec)) {
		p->call_gap_usec = MIN(MAX(p->call_gap_usec * 2, PATH_GAP_USEC), CALL_GAP_MAX_USEC);
		p->called = now;
		n = 1;
	}
	if (!n && !p->call_due)
		return;
	p->call_due = false;
	p->env->ops->call_me(p->peer);
}

static bool direct_known_good(const struct path *p)
{
	return p->state == PATH_STATE_DIRECT || p->state == PATH_STATE_HELD;
}

int path_ping_user(struct path *p, uint32_t user, uint64_t now)
{
	struct candidate *c;
	int n = 0;

	path_traffic(p, now);
	if (p->state == PATH_STATE_DIRECT) {
		c = candidates_find(&p->cands, &p->best);
		return c && ping_candidate(p, c, user, now) == 0;
	}
	if (send_ping(p, NULL, user, now) == 0)
		n++;
	for (size_t i = 0; i < p->cands.n; i++)
		if (ping_candidate(p, &p->cands.v[i], user, now) == 0)
			n++;
	return n;
}

/* ---- what the peer sends ---- */

/* x answers: from now on the kernel sends there, if it is the best. */
static void trust(struct path *p, const struct candidate *x, uint64_t since, uint64_t now)
{
	p->best = x->at;
	p->local = x->local;
	p->latency_usec = x->latency_usec;
	p->trusted_until = since + PATH_TRUST_USEC;
	p->missed = 0;
	p->miss_at = p->probed = 0;
	enter(p, PATH_EVENT_PONG, now);
}

static void pong_from_candidate(struct path *p, const struct path_ping *ping,
				const struct addr *local, uint64_t now)
{
	struct candidate *c = candidates_find(&p->cands, &ping->to);
	bool better;

	if (!c)
		return;
	c->local = *local;
	c->ponged = p->ponged = now;
	c->latency_usec = (uint32_t)MIN(now - ping->sent, UINT32_MAX);
	if (endpoint_equal(&ping->to, &p->roam)) {
		roam_end(p);
		trust(p, c, now, now);
		p->pinned = true;
		return;
	}
	better = !p->pinned && path_better(&c->at, c->latency_usec, &p->best, p->latency_usec);
	if (p->state != PATH_STATE_DIRECT || better || endpoint_equal(&c->at, &p->best))
		trust(p, c, now, now);
}

/* Held, and the peer's daemon has answered by relay: so it has to answer there too. */
static void daemon_back(struct path *p, uint64_t now)
{
	if (p->state != PATH_STATE_HELD)
		return;
	if (p->doubted) { /* it sends by relay: it does not trust the path */
		enter(p, PATH_EVENT_TRUST_LOST, now);
	} else if (!p->waiting) {
		p->waiting = true;
		p->wait_at = now + PATH_MISS_USEC;
		ping_best(p, now);
	}
}

int path_pong(struct path *p, const struct disco_txid *txid, const struct addr *local, uint64_t now,
	      struct path_ping *ret)
{
	struct path_ping ping;

	for (size_t i = 0; i < p->n_pings; i++) {
		if (memcmp(&p->pings[i].txid, txid, sizeof(*txid)) != 0)
			continue;
		ping = p->pings[i];
		pings_drop(p, i);
		p->heard = now;
		p->gone = false;
		if (!ping.to.addr.family)
			daemon_back(p, now);
		else if (local)
			pong_from_candidate(p, &ping, local, now);
		*ret = ping;
		return 0;
	}
	return -ENOENT;
}

int path_ping_heard(struct path *p, const struct endpoint *from, const struct addr *local,
		    const struct disco_txid *txid, uint64_t now)
{
	struct candidate *c = candidates_find(&p->cands, from);

	if (c && c->has_txid && memcmp(&c->txid, txid, sizeof(*txid)) == 0)
		return 0;
	p->heard_udp = now;
	path_relay_heard(p, false, now); /* where its daemon is heard makes no difference */
	c = candidates_add(&p->cands, from, CANDIDATE_SOURCE_PING, kept(p), now);
	if (!c)
		return 1;
	c->txid = *txid;
	c->has_txid = true;
	c->local = *local;
	/* Behind NATs our first pings die in the peer's filter. Its ping shows that the way is open
	 * now; without this the next try is 5 s away. Bounded, lest two nodes ping each other for
	 * ever. */
	if (p->state != PATH_STATE_DIRECT &&
	    (!p->pinged_back || now - p->pinged_back >= PATH_PINGBACK_USEC)) {
		p->pinged_back = now;
		ping_candidate(p, c, 0, now);
	}
	return 1;
}

void path_call_me(struct path *p, const struct endpoint *v, size_t n, uint64_t now)
{
	uint64_t full = MAX(p->call_full, now) + PATH_CALL_GAP_USEC;

	if (full > now + PATH_CALLS_BURST * PATH_CALL_GAP_USEC)
		return;
	p->call_full = full;
	candidates_update(&p->cands, CANDIDATE_SOURCE_CALL, v, n, kept(p), now);
	for (size_t i = 0; i < p->cands.n; i++)
		p->cands.v[i].pinged = 0;
	discover(p, false, now);
}

void path_relay_heard(struct path *p, bool packet, uint64_t now)
{
	p->gone = false;
	switch (p->state) {
	case PATH_STATE_RELAY:
	case PATH_STATE_DOUBTFUL:
		break;
	case PATH_STATE_DIRECT: {
		const struct candidate *c = candidates_find(&p->cands, &p->best);

		/* The peer does not trust the path that we trust: look at once. */
		if (packet && (!c || now - c->pinged >= PATH_PINGBACK_USEC))
			ping_best(p, now);
		break;
	}
	case PATH_STATE_HELD:
		p->doubted |= packet;
		if (p->asked && now - p->asked < PATH_PINGBACK_USEC)
			break;
		p->asked = now;
		probe_relay(p, now);
		ping_best(p, now);
		break;
	}
}

void path_gone(struct path *p)
{
	p->gone = true;
}

/* ---- what we and our host do ---- */

static void touch(struct path *p, uint64_t now)
{
	/* The first send after a rest: the peer hears our addresses even if its own were all pinged
	 * just now, because it called us first. */
	if (!path_active(p, now))
		p->call_due = true;
	p->sent = now;
	if (!p->beat_at)
		p->beat_at = now + PATH_HEARTBEAT_USEC;
}

void path_traffic(struct path *p, uint64_t now)
{
	touch(p, now);
	if (!direct_known_good(p) && (p->call_due || !p->round || now - p->round >= PATH_GAP_USEC))
		discover(p, true, now);
}

void path_relay_traffic(struct path *p, uint64_t now)
{
	path_traffic(p, now);
	/* Meant to be direct, and yet the kernel sends to the relay address: something moved it. */
	if (wanted(p) && now - p->set > SETTLE_USEC) {
		p->kernel = (struct endpoint){ 0 };
		apply(p, now);
	}
}

void path_set_endpoints(struct path *p, const struct endpoint *v, size_t n, uint64_t now)
{
	candidates_update(&p->cands, CANDIDATE_SOURCE_MAP, v, n, kept(p), now);
	for (size_t i = 0; i < p->cands.n; i++)
		if (!p->cands.v[i].pinged)
			p->round = 0; /* something new to try with the next packet */
}

void path_renew(struct path *p, uint64_t now)
{
	for (size_t i = 0; i < p->cands.n; i++)
		p->cands.v[i].pinged = 0;
	p->called = 0;
	p->call_gap_usec = 0;
	if (path_active(p, now))
		discover(p, true, now);
}

void path_link_changed(struct path *p, uint64_t now)
{
	p->n_pings = 0;
	p->miss_at = 0;
	p->missed = 0;
	roam_end(p);
	for (size_t i = 0; i < p->cands.n; i++) {
		p->cands.v[i].ponged = 0;
		p->cands.v[i].local = (struct addr){ 0 };
	}
	p->local = (struct addr){ 0 };
	enter(p, path_active(p, now) ? PATH_EVENT_LINK_CHANGED : PATH_EVENT_IDLE, now);
	path_renew(p, now);
}

void path_reset(struct path *p, uint64_t now)
{
	p->n_pings = 0;
	roam_end(p);
	p->kernel =
	    (struct endpoint){ 0 }; /* the caller makes the peer anew, with its relay address */
	p->set = now;
	p->probed = p->heard = p->rx_grew = p->unanswered_since = p->round = 0;
	p->counted = false;
	p->missed = 0;
	for (size_t i = 0; i < p->cands.n; i++)
		p->cands.v[i].pinged = p->cands.v[i].ponged = 0;
	enter(p, PATH_EVENT_RESET, now);
	if (path_active(p, now))
		discover(p, true, now);
}

/* ---- what the kernel says ---- */

static void adopt(struct path *p, const struct candidate *c, uint64_t since, enum path_event e,
		  uint64_t now)
{
	p->best = c->at;
	p->local = c->local;
	p->latency_usec = c->latency_usec;
	p->trusted_until = since + PATH_TRUST_USEC;
	p->missed = 0;
	p->miss_at = 0;
	enter(p, e, now);
	p->pinned = p->state == PATH_STATE_DIRECT;
}

static void roamed(struct path *p, const struct path_counters *k, uint64_t now)
{
	struct candidate *c;

	p->kernel = k->endpoint;
	roam_end(p);
	if (wanted(p) && endpoint_equal(wanted(p), &p->kernel))
		return;
	c = candidates_add(&p->cands, &k->endpoint, CANDIDATE_SOURCE_PING, kept(p), now);
	if (!c) {
		apply(p, now);
		return;
	}
	if (k->at_start && p->state == PATH_STATE_RELAY && k->handshake_age_sec <= PATH_ADOPT_SEC) {
		touch(p, now);
		adopt(p, c, now, PATH_EVENT_ADOPTED, now);
		p->pinned = false;
		ping_best(p, now);
		return;
	}
	if (c->ponged && now - c->ponged <= PATH_TRUST_USEC) {
		adopt(p, c, c->ponged, PATH_EVENT_PONG,
		      now); /* own choice again would only fight */
		return;
	}
	if (!k->at_start)
		p->rx_grew = now; /* only an authentic packet moves the kernel */
	p->roam = k->endpoint;
	p->roam_at = now + PATH_ROAM_USEC;
	probe_relay(p, now);
	ping_candidate(p, c, 0, now);
}

static void roam_decide(struct path *p, uint64_t now)
{
	struct candidate *c = candidates_find(&p->cands, &p->roam);
	bool alone = c && daemon_silent(p, now) && kernel_alive(p, now);

	roam_end(p);
	if (alone)
		adopt(p, c, now, PATH_EVENT_KERNEL_ALONE, now);
	else
		apply(p, now);
}

static void count(struct path *p, const struct path_counters *k, bool was_direct, uint64_t now)
{
	/* What a relay brought proves nothing about the path; only after a silence of the daemon's
	 * can it not have been one. Nor does what came before the path began. */
	if (k->received && p->counted && (was_direct || k->direct))
		p->rx_grew = now;
	p->counted = true;
	if (k->received)
		p->unanswered_since = 0;
	else if (k->sent && !p->unanswered_since)
		p->unanswered_since = now;
	if (k->sent)
		path_traffic(p, now);
}

void path_counters(struct path *p, const struct path_counters *k, uint64_t now)
{
	bool was_direct = p->kernel.addr.family;

	count(p, k, was_direct, now);
	if (k->taken < p->set)
		return; /* we have set another endpoint since */
	if (!k->direct) {
		if (!was_direct)
			return;
		roam_end(p);
		p->kernel = (struct endpoint){ 0 };
		apply(p, now);
	} else if (!endpoint_equal(&k->endpoint, &p->kernel)) {
		roamed(p, k, now);
	}
}

/* ---- time ---- */

static void missed(struct path *p, uint64_t now)
{
	p->miss_at = 0;
	if (p->state != PATH_STATE_DIRECT)
		return;
	if (p->missed < UINT8_MAX)
		p->missed++;
	if (p->missed == 1)
		p->env->ops->dump(p->peer);
	/* One lost pong is tolerated. Two, while the daemon answers by relay, are a dead path. */
	if (p->missed > 1 && daemon_answers(p)) {
		enter(p, PATH_EVENT_TRUST_LOST, now);
		discover(p, true, now);
		return;
	}
	probe_relay(p, now);
	ping_best(p, now);
}

static void trust_over(struct path *p, uint64_t now)
{
	if (!path_active(p, now)) {
		enter(p, PATH_EVENT_IDLE, now);
	} else if (daemon_silent(p, now) && kernel_alive(p, now)) {
		enter(p, PATH_EVENT_KERNEL_ALONE, now);
	} else {
		enter(p, PATH_EVENT_TRUST_LOST, now);
		discover(p, true, now);
	}
}

static void heartbeat(struct path *p, uint64_t now)
{
	p->beat_at = 0;
	if (!path_active(p, now)) {
		enter(p, PATH_EVENT_IDLE, now);
		return;
	}
	p->beat_at = now + PATH_HEARTBEAT_USEC;
	switch (p->state) {
	case PATH_STATE_RELAY:
		discover(p, true, now);
		break;
	case PATH_STATE_DIRECT:
		ping_best(p, now);
		if (!p->pinned && p->latency_usec > PATH_GOOD_USEC &&
		    now - p->round >= PATH_UPGRADE_USEC)
			discover(p, true, now);
		break;
	case PATH_STATE_DOUBTFUL:
		p->beat_at = now + PATH_SUSPECT_USEC;
		ping_best(p, now);
		if (p->state == PATH_STATE_DOUBTFUL && now - p->round >= PATH_GAP_USEC)
			discover(p, true, now);
		break;
	case PATH_STATE_HELD:
		if (kernel_dead(p, now)) {
			enter(p, PATH_EVENT_TRUST_LOST, now);
			discover(p, true, now);
			break;
		}
		probe_relay(p, now);
		ping_best(p, now);
		break;
	}
}

static void expire_pings(struct path *p, uint64_t now)
{
	while (p->n_pings && now - p->pings[0].sent >= PATH_PING_USEC) {
		struct path_ping ping = p->pings[0];

		pings_drop(p, 0);
		if (p->state == PATH_STATE_DOUBTFUL && endpoint_equal(&ping.to, &p->best) &&
		    ping.sent >= p->ponged)
			enter(p, PATH_EVENT_BEST_LOST, now);
	}
}

static bool due(uint64_t at, uint64_t now)
{
	return at && at <= now;
}

void path_tick(struct path *p, uint64_t now)
{
	expire_pings(p, now);
	if (due(p->miss_at, now))
		missed(p, now);
	if (due(p->roam_at, now))
		roam_decide(p, now);
	if (due(p->wait_at, now)) {
		p->wait_at = 0;
		p->waiting = false;
		if (p->state == PATH_STATE_HELD)
			enter(p, PATH_EVENT_TRUST_LOST, now);
	}
	if (p->state == PATH_STATE_DIRECT && now > p->trusted_until)
		trust_over(p, now);
	if (due(p->beat_at, now))
		heartbeat(p, now);
}

static uint64_t release_at(const struct path *p)
{
	uint64_t last = MAX(MAX(p->sent, p->heard_udp), p->born);

	return last + PATH_ACTIVE_USEC + 1;
}

uint64_t path_due(const struct path *p)
{
	const uint64_t at[] = { p->beat_at,
				p->miss_at,
				p->roam_at,
				p->wait_at,
				p->n_pings ? p->pings[0].sent + PATH_PING_USEC : 0,
				p->state == PATH_STATE_DIRECT ? p->trusted_until + 1 : 0 };
	uint64_t first = p->state == PATH_STATE_RELAY ? release_at(p) : UINT64_MAX;

	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		if (at[i] && at[i] < first)
			first = at[i];
	return first;
}

bool path_releasable(const struct path *p, uint64_t now)
{
	return p->state == PATH_STATE_RELAY && !p->beat_at && !p->n_pings && !p->roam_at &&
	       !p->kernel.addr.family && now >= release_at(p);
}

bool path_watched(const struct path *p, uint64_t now)
{
	/* A peer that pings us by UDP may send there as well, and move the kernel. */
	return p->state != PATH_STATE_RELAY || p->kernel.addr.family ||
	       (p->heard_udp && now - p->heard_udp <= PATH_ACTIVE_USEC);
}

/* ---- life ---- */

struct path *path_new(const struct path_env *env, void *peer, uint64_t now)
{
	struct path *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->env = env;
	p->peer = peer;
	p->born = now;
	return p;
}

void path_free(struct path *p)
{
	if (!p)
		return;
	candidates_done(&p->cands);
	free(p->pings);
	free(p);
}
