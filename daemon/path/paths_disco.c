#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "daemon/path/paths_impl.h"
#include "lib/cleanup.h"
#include "proto/wireguard.h"

#define SHARED_PER_SEC                                                                             \
	2000 /* key agreements: 0.1 ms each, and whoever knows a peer's key can ask for one */
#define FOREIGN_PER_SEC 1000  /* of these, for what others sent */
/* Boxes opened, from addresses that never answered a ping of ours, and from relays: 10,000 active
 * peers make 7,000. Whoever knows a peer's disco key, which every message of it shows, can send as
 * many; so what comes from where a peer is known to be does not share in this, */
#define DISCO_PER_SEC	20000
#define KNOWN_PER_SEC	500 /* but has as many of its own. */
/* Good boxes of one peer from strange addresses: one that was recorded can be sent again from any. */
#define STRANGE_PER_SEC 100
/* Relayed handshakes: the kernel sends one in 5 s, and each costs a key agreement there. */
#define HANDSHAKES_PER_SEC 10
#define TSMP_PER_SEC  5 /* inside the tunnel: a key for each session, and pings by hand */
#define CROSSING_USEC (SECOND / 2) /* a way by relay and back */
#define RESTUN_GAP_USEC (3 * SECOND)

/* ---- limits, keys ---- */

static bool bucket_take(struct bucket *b, unsigned int per_sec, uint64_t now)
{
	if (now - b->since >= SECOND) {
		b->since = now;
		b->used = 0;
	}
	return b->used < per_sec && ++b->used;
}

void paths_forget_shared(struct paths *p)
{
	sodium_memzero(p->shared, SHARED_SLOTS * sizeof(*p->shared));
}

static const struct disco_shared *shared_with(struct paths *p, const struct key *disco,
					      unsigned int per_sec)
{
	struct shared_slot *s =
	    &p->shared[peertab_hash(&p->peers, disco, sizeof(*disco)) % SHARED_SLOTS];

	if (memcmp(&s->disco, disco, sizeof(*disco)) == 0)
		return &s->shared;
	if (!bucket_take(&p->agreements, per_sec, p->now))
		return NULL;
	if (disco_shared_init(&p->disco.priv, disco, &s->shared) < 0) {
		s->disco = key_zero;
		return NULL;
	}
	s->disco = *disco;
	return &s->shared;
}

/* ---- sending ---- */

static int seal(struct paths *p, const struct key *disco, const struct disco_msg *m,
		uint8_t wire[static DISCO_WIRE_MAX])
{
	uint8_t plain[DISCO_WIRE_MAX - DISCO_OVERHEAD];
	const struct disco_shared *k = shared_with(p, disco, SHARED_PER_SEC);
	int n;

	if (!k)
		return -ENOKEY;
	n = disco_msg_encode(m, plain, sizeof(plain));
	if (n < 0)
		return n;
	return disco_seal(k, &p->disco.pub, NULL, plain, (size_t)n, wire, DISCO_WIRE_MAX);
}

static int send_udp(struct paths *p, const struct key *disco, const struct disco_msg *m,
		    const struct endpoint *to, const struct addr *from)
{
	uint8_t wire[DISCO_WIRE_MAX];
	int n = seal(p, disco, m, wire);

	return n < 0 ? n : p->ops->send_udp(p->data, to, from, wire, (size_t)n);
}

static int send_derp(struct paths *p, const struct key *disco, const struct disco_msg *m,
		     uint16_t region, const struct key *dst)
{
	uint8_t wire[DISCO_WIRE_MAX];
	int n;

	if (!region)
		return -EHOSTUNREACH;
	n = seal(p, disco, m, wire);
	if (n < 0)
		return n;
	n = p->ops->send_derp(p->data, region, dst, wire, (size_t)n);
	paths_relay_state(p, region, n >= 0);
	return n;
}

static int on_ping(void *data, const struct endpoint *to, struct disco_txid *ret)
{
	struct paths_peer *peer = data;
	struct paths *p = peer->owner;
	struct disco_msg m = { .type = DISCO_TYPE_PING };
	int r;

	if (key_is_zero(&peer->disco))
		return -ENOKEY;
	randombytes_buf(m.ping.txid.b, sizeof(m.ping.txid.b));
	m.ping.node = p->node;
	r = to ? send_udp(p, &peer->disco, &m, to, NULL)
	       : send_derp(p, &peer->disco, &m, paths_region(p, peer), &peer->node);
	if (r < 0)
		return r;
	*ret = m.ping.txid;
	return 0;
}

static void ask_own_addresses(struct paths *p)
{
	if (p->restun_at && p->now - p->restun_at < RESTUN_GAP_USEC)
		return;
	p->restun_at = p->now;
	p->ops->restun(p->data);
}

static void on_call_me(void *data)
{
	struct paths_peer *peer = data;
	struct paths *p = peer->owner;
	struct disco_msg m = { .type = DISCO_TYPE_CALL_ME_MAYBE };

	/* What we have goes out at once; when the round finds other addresses, the peer hears
	 * again. */
	if (!p->own_at || p->now - p->own_at > PATHS_FRESH_USEC)
		ask_own_addresses(p);
	if (!p->n_own || key_is_zero(&peer->disco))
		return;
	m.call.n = p->n_own;
	memcpy(m.call.at, p->own, p->n_own * sizeof(*p->own));
	send_derp(p, &peer->disco, &m, paths_region(p, peer), &peer->node);
}

static void on_set_endpoint(void *data, const struct endpoint *e)
{
	struct paths_peer *peer = data;
	struct paths *p = peer->owner;

	peer->set_later = p->counting;
	if (!p->counting)
		p->ops->set_endpoint(p->data, peer->id, e);
}

static void on_dump(void *data)
{
	struct paths_peer *peer = data;

	peer->owner->dump_asked = true;
}

static void on_changed(void *data, enum path_state old, enum path_event why)
{
	struct paths_peer *peer = data;
	struct paths *p = peer->owner;

	paths_watch(p);
	/* It may be our own address that is another now: a NAT's restart is not seen here. */
	if (why == PATH_EVENT_TRUST_LOST || why == PATH_EVENT_BEST_LOST) {
		p->own_at = 0; /* where a round was asked for just now, the next call asks again */
		ask_own_addresses(p);
	}
	if (p->ops->changed)
		p->ops->changed(p->data, peer->id, old, peer->path->state, path_event_name(why));
}

const struct path_ops paths_path_ops = {
	.ping = on_ping,
	.call_me = on_call_me,
	.set_endpoint = on_set_endpoint,
	.dump = on_dump,
	.changed = on_changed,
};

/* ---- disco in ---- */

static void user_pong(struct paths *p, const struct path_ping *ping, uint16_t region)
{
	struct paths_pong pong = { .relayed = !ping->to.addr.family,
				   .region = region,
				   .from = ping->to,
				   .latency_usec = p->now - ping->sent };

	for (size_t i = 0; ping->user && i < USER_PINGS_MAX; i++)
		if (p->users[i].handle == (int)ping->user)
			p->users[i].fn(p->users[i].data, &pong);
}

/* local NULL: by relay. */
static void pong_received(struct paths *p, struct paths_peer *peer, const struct disco_msg *m,
			  const struct addr *local, uint16_t region)
{
	struct path_ping ping;

	for (; peer; peer = peertab_next_disco(peer)) {
		if (!peer->path || path_pong(peer->path, &m->pong.txid, local, p->now, &ping) < 0)
			continue;
		paths_reschedule(peer);
		user_pong(p, &ping, region);
		return;
	}
}

static void answer(const struct disco_msg *m, const struct endpoint *seen, struct disco_msg *ret)
{
	*ret = (struct disco_msg){ .type = DISCO_TYPE_PONG };
	ret->pong.txid = m->ping.txid;
	ret->pong.seen = *seen;
}

static void udp_ping_received(struct paths *p, struct paths_peer *first, const struct key *disco,
			      const struct disco_msg *m, const struct endpoint *from,
			      const struct addr *local)
{
	struct paths_peer *named =
	    m->ping.has_node ? peertab_by_node(&p->peers, &m->ping.node) : NULL;
	struct disco_msg pong;
	bool reply = false;

	if (named && memcmp(&named->disco, disco, sizeof(*disco)) != 0)
		named = NULL;
	for (struct paths_peer *peer = first; peer; peer = peertab_next_disco(peer)) {
		if (named && peer != named)
			continue;
		/* Without memory for more, at least the answer. */
		if (!paths_path(peer)) {
			reply = true;
			continue;
		}
		if (path_ping_heard(peer->path, from, local, &m->ping.txid, p->now))
			reply = true;
		paths_reschedule(peer);
	}
	if (!reply)
		return;
	paths_watch(p); /* it may be about to send there as well */
	answer(m, from, &pong);
	send_udp(p, disco, &pong, from, local);
}

/* The count of this second, and one more of it; false when max is reached. */
static bool peer_take(struct paths_peer *peer, uint16_t *count, unsigned int max, uint64_t now)
{
	uint32_t sec = (uint32_t)(now / SECOND);

	if (peer->boxes_sec != sec) {
		peer->boxes_sec = sec;
		peer->boxes_known = peer->boxes_strange = 0;
		peer->handshakes = peer->tsmp = 0;
	}
	return *count < max && ++*count;
}

/* The one of the peers with this disco key that has answered a ping of ours from there. */
static struct paths_peer *known_at(struct paths_peer *peer, const struct endpoint *from)
{
	for (; peer; peer = peertab_next_disco(peer)) {
		struct candidate *c = peer->path ? candidates_find(&peer->path->cands, from) : NULL;

		if (c && c->ponged)
			return peer;
	}
	return NULL;
}

void paths_relayed_sent(struct paths *p, uint32_t id, const uint8_t *buf, size_t len, uint64_t now)
{
	struct paths_peer *peer = peertab_by_id(&p->peers, id);

	if (peer && wireguard_type(buf, len) == WIREGUARD_INITIATION)
		peer->initiated = paths_begin(p, now);
}

/* Two kernels that begin a session within the time of one way answer each other, and each forgets its own
 * beginning over it: neither takes the other's answer. With a load both ways they repeat that every five
 * seconds, in step, for good (seen: 30 s without a packet). So one of the two beginnings counts, that of
 * the greater key; the other one never gets to its kernel. */
static bool crosses(const struct paths *p, const struct paths_peer *peer, uint64_t now)
{
	return peer->initiated && now - peer->initiated < CROSSING_USEC &&
	       key_cmp(&p->node, &peer->node) > 0;
}

bool paths_relayed_allowed(struct paths *p, const struct key *src, const uint8_t *buf, size_t len,
			   uint64_t now)
{
	struct paths_peer *peer = peertab_by_node(&p->peers, src);
	enum wireguard_type type = wireguard_type(buf, len);

	if (!peer)
		return false;
	if (type != WIREGUARD_INITIATION && type != WIREGUARD_RESPONSE)
		return true;
	now = paths_begin(p, now);
	if (type == WIREGUARD_INITIATION && crosses(p, peer, now))
		return false;
	if (!peer_take(peer, &peer->handshakes, HANDSHAKES_PER_SEC, now))
		return false;
	if (type == WIREGUARD_RESPONSE)
		peer->initiated = 0;
	return true;
}

bool paths_tsmp_allowed(struct paths *p, uint32_t id, uint64_t now)
{
	struct paths_peer *peer = peertab_by_id(&p->peers, id);

	return peer && peer_take(peer, &peer->tsmp, TSMP_PER_SEC, paths_begin(p, now));
}

static bool may_open(struct paths *p, struct paths_peer *first, const struct endpoint *from,
		     bool *ret_known)
{
	struct paths_peer *known = from ? known_at(first, from) : NULL;

	*ret_known = known && peer_take(known, &known->boxes_known, KNOWN_PER_SEC, p->now);
	return *ret_known ||
	       bucket_take(from ? &p->boxes : &p->relayed_boxes, DISCO_PER_SEC, p->now);
}

/* The message in a box from a known peer; NULL for all others, who hear nothing. from NULL: it came
 * by relay. */
static struct paths_peer *open_box(struct paths *p, const struct endpoint *from, const void *buf,
				   size_t len, struct key *ret_disco, struct disco_msg *ret)
{
	const struct disco_shared *k;
	struct paths_peer *peer;
	bool known;
	int n;

	if (disco_sender(buf, len, ret_disco) < 0)
		return NULL;
	peer = peertab_by_disco(&p->peers, ret_disco);
	if (!peer || !may_open(p, peer, from, &known))
		return NULL;
	k = shared_with(p, ret_disco, FOREIGN_PER_SEC);
	if (!k)
		return NULL;
	n = disco_open(k, buf, len, p->plain, sizeof(p->plain));
	if (n < 0 || disco_msg_decode(p->plain, (size_t)n, ret) < 0)
		return NULL;
	/* A pong is worth what its number is, once. */
	if (from && !known && ret->type != DISCO_TYPE_PONG &&
	    !peer_take(peer, &peer->boxes_strange, STRANGE_PER_SEC, p->now))
		return NULL;
	return peer;
}

bool paths_udp_received(struct paths *p, const struct endpoint *from, const struct addr *to_local,
			const void *buf, size_t len, uint64_t now)
{
	struct paths_peer *peer;
	struct disco_msg m;
	struct key disco;

	if (!disco_looks_like(buf, len))
		return false;
	now = paths_begin(p, now);
	peer = open_box(p, from, buf, len, &disco, &m);
	if (!peer)
		return true;
	switch (m.type) {
	case DISCO_TYPE_PING:
		udp_ping_received(p, peer, &disco, &m, from, to_local);
		break;
	case DISCO_TYPE_PONG:
		pong_received(p, peer, &m, to_local, 0);
		break;
	default: /* CallMeMaybe counts by relay only; the rest is for peer relays */
		break;
	}
	paths_end(p);
	return true;
}

static void derp_ping_received(struct paths *p, uint16_t region, const struct paths_peer *from,
			       const struct key *disco, const struct disco_msg *m)
{
	struct endpoint seen = { .addr = addr_v4(127, 3, 3, 40), .port = region };
	struct disco_msg pong;

	answer(m, &seen, &pong);
	send_derp(p, disco, &pong, region, &from->node);
}

bool paths_derp_received(struct paths *p, uint16_t region, const struct key *src, const void *buf,
			 size_t len, uint64_t now)
{
	struct paths_peer *peer, *from;
	struct disco_msg m;
	struct key disco;

	if (!disco_looks_like(buf, len))
		return false;
	now = paths_begin(p, now);
	peer = open_box(p, NULL, buf, len, &disco, &m);
	from = peertab_by_node(&p->peers, src);
	if (!peer || !from)
		return true;
	from->heard = region;
	if (from->path) {
		path_relay_heard(from->path, false, now);
		paths_reschedule(from);
	}
	switch (m.type) {
	case DISCO_TYPE_PING:
		derp_ping_received(p, region, from, &disco, &m);
		break;
	case DISCO_TYPE_PONG:
		pong_received(p, peer, &m, NULL, region);
		break;
	case DISCO_TYPE_CALL_ME_MAYBE:
		if (memcmp(&from->disco, &disco, sizeof(disco)) != 0 || !paths_path(from))
			break;
		path_call_me(from->path, m.call.at, m.call.n, now);
		paths_reschedule(from);
		break;
	default:
		break;
	}
	paths_end(p);
	return true;
}
