#include "daemon/netmap/netmap.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "daemon/netmap/netmap_diff.h"

#define NSEC_PER_SEC	   INT64_C(1000000000)
#define SKEW_IGNORED	   (60 * NSEC_PER_SEC)
#define EARLIEST_PLAUSIBLE (INT64_C(1673308800) * NSEC_PER_SEC) /* 2023-01-10 */
#define ASPECTS_ALL	   ((NETMAP_INFO << 1) - 1)

/* One message being applied. */
struct applying {
	struct netmap *nm;
	struct netmap_changes *c;
	int64_t now; /* by the server's clock */
};

int netmap_new(struct netmap **ret)
{
	struct netmap *nm = calloc(1, sizeof(*nm));

	if (!nm)
		return -ENOMEM;
	netmap_peers_init(&nm->peers);
	*ret = nm;
	return 0;
}

static void filter_done(struct netmap_filter *f)
{
	free(f->name);
	tailcfg_rules_done(&f->rules);
}

static void health_done(char **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i]);
	free(v);
}

void netmap_free(struct netmap *nm)
{
	if (!nm)
		return;
	tailcfg_node_free(nm->self);
	netmap_peers_done(&nm->peers);
	derp_map_done(&nm->derp);
	for (size_t i = 0; i < nm->n_filters; i++)
		filter_done(&nm->filters[i]);
	free(nm->filters);
	free(nm->dns_text);
	tailcfg_dns_done(&nm->dns);
	for (size_t i = 0; i < nm->n_users; i++)
		tailcfg_user_done(&nm->users[i]);
	free(nm->users);
	free(nm->domain);
	health_done(nm->health, nm->n_health);
	free(nm);
}

void netmap_changes_done(struct netmap_changes *c)
{
	free(c->peer);
	*c = (struct netmap_changes){ 0 };
}

bool netmap_changes_empty(const struct netmap_changes *c)
{
	return !c->n_peers && !c->self && !c->derp && !c->dns && !c->filter && !c->users &&
	       !c->domain && !c->health;
}

void netmap_stream_begin(struct netmap *nm)
{
	nm->stream_started = false;
}

static void digest_of(struct json_slice s, uint8_t out[static 16])
{
	crypto_generichash(out, 16, (const uint8_t *)s.p, s.len, NULL, 0);
}

static bool digest_equal(const uint8_t a[static 16], const uint8_t b[static 16])
{
	return memcmp(a, b, 16) == 0;
}

/* ---- time ---- */

static int64_t server_clock(const struct netmap *nm, int64_t wall_now)
{
	int64_t t;

	return __builtin_add_overflow(wall_now, nm->skew, &t) ? wall_now : t;
}

static void note_control_time(struct netmap *nm, int64_t control_time, int64_t wall_now)
{
	int64_t diff;

	if (!control_time || __builtin_sub_overflow(control_time, wall_now, &diff))
		return;
	nm->skew = diff > SKEW_IGNORED || diff < -SKEW_IGNORED ? diff : 0;
	nm->skew_known = true;
}

void netmap_clock_stepped(struct netmap *nm, int64_t by_nsec)
{
	int64_t skew;

	if (nm->skew_known && !__builtin_sub_overflow(nm->skew, by_nsec, &skew))
		nm->skew = skew > SKEW_IGNORED || skew < -SKEW_IGNORED ? skew : 0;
}

/* now is the server's clock; an impossible one lets nothing expire (control.md 7.11). */
static bool expired_at(const struct tailcfg_node *n, int64_t now)
{
	if (n->expired)
		return true;
	return n->key_expiry && now >= EARLIEST_PLAUSIBLE && n->key_expiry <= now;
}

/* ---- recording ---- */

/* One entry for each peer and message, however many members of the message speak of it. */
static int record(struct applying *a, struct netmap_peer *p, enum netmap_change_kind kind,
		  unsigned int aspects, const struct key *old_key)
{
	struct netmap_peer_change *e;
	int r;

	if (p->change) {
		e = &a->c->peer[p->change - 1];
		e->aspects |= aspects;
		if (kind == NETMAP_REMOVED)
			e->kind = kind;
		return 0;
	}
	r = tailcfg_grow(&a->c->peer, a->c->n_peers, SIZE_MAX, sizeof(*e));
	if (r < 0)
		return r;
	e = &a->c->peer[a->c->n_peers++];
	*e = (struct netmap_peer_change){ p->node->id, kind, aspects, *old_key };
	p->change = (uint32_t)a->c->n_peers;
	return 0;
}

static int record_change(struct applying *a, struct netmap_peer *p, unsigned int aspects,
			 const struct key *old_key)
{
	bool expired = expired_at(p->node, a->now);

	if (expired != p->expired)
		aspects |= NETMAP_EXPIRED;
	p->expired = expired;
	return aspects ? record(a, p, NETMAP_CHANGED, aspects, old_key) : 0;
}

/* ---- peers ---- */

/* A key belongs to one node. A holder that is about to leave makes room; any other keeps it. */
static int claim_key(struct applying *a, const struct netmap_peer *self, const struct key *key)
{
	struct netmap_peer *holder = netmap_peers_by_key(&a->nm->peers, key);
	int r;

	if (a->nm->self && key_cmp(&a->nm->self->key, key) == 0)
		return -EEXIST;
	if (!holder || holder == self)
		return 0;
	if (!holder->leaving)
		return -EEXIST;
	r = record(a, holder, NETMAP_REMOVED, 0, &holder->node->key);
	if (r == 0)
		netmap_peers_remove(&a->nm->peers, holder);
	return r;
}

static int add_peer(struct applying *a, struct tailcfg_node *n, const uint8_t digest[static 16])
{
	struct netmap_peer *p;
	int r;

	r = netmap_peers_add(&a->nm->peers, n, &p);
	if (r < 0) {
		tailcfg_node_free(n);
		return r;
	}
	memcpy(p->digest, digest, sizeof(p->digest));
	p->expired = expired_at(n, a->now);
	return record(a, p, NETMAP_ADDED, ASPECTS_ALL, &key_zero);
}

static int replace_peer(struct applying *a, struct netmap_peer *p, struct tailcfg_node *n,
			const uint8_t digest[static 16])
{
	unsigned int aspects = netmap_diff_nodes(p->node, n);
	struct tailcfg_node *old = p->node;
	int r;

	p->leaving = false;
	memcpy(p->digest, digest, sizeof(p->digest));
	if (aspects & NETMAP_KEY)
		netmap_peers_key_remove(&a->nm->peers, p);
	p->node = n;
	if (aspects & NETMAP_KEY)
		netmap_peers_key_insert(&a->nm->peers, p);
	if (aspects & NETMAP_ADDRESSES)
		netmap_peers_addrs_changed(&a->nm->peers);
	r = record_change(a, p, aspects, &old->key);
	tailcfg_node_free(old);
	return r;
}

static bool is_self(const struct netmap *nm, const struct tailcfg_node *n)
{
	return nm->self && (n->id == nm->self->id || key_cmp(&n->key, &nm->self->key) == 0);
}

/* A full node: new, changed, or the same as before. Only -ENOMEM ends the message. */
static int put_peer(struct applying *a, struct json_slice text)
{
	struct netmap *nm = a->nm;
	struct tailcfg_node *n = NULL;
	struct netmap_peer *p = NULL;
	uint8_t digest[16];
	int64_t id;
	int r;

	digest_of(text, digest);
	if (json_slice_int(text, "ID", &id) == 0)
		p = netmap_peers_by_id(&nm->peers, id);
	if (p && digest_equal(p->digest, digest) && !is_self(nm, p->node)) {
		p->leaving = false;
		return record_change(a, p, 0, &p->node->key);
	}
	r = tailcfg_node_decode(text, &n);
	if (r == 0) {
		p = netmap_peers_by_id(&nm->peers, n->id);
		r = is_self(nm, n) ? -EEXIST : claim_key(a, p, &n->key);
	}
	if (r < 0) {
		tailcfg_node_free(n);
		if (r == -ENOMEM)
			return r;
		a->c->n_skipped++;
		return 0;
	}
	r = p ? replace_peer(a, p, n, digest) : add_peer(a, n, digest);
	if (r == -ENOBUFS) {
		a->c->n_skipped++;
		return 0;
	}
	return r;
}

static int put_peers(struct applying *a, const struct json_slice *v, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = put_peer(a, v[i]);
	return r;
}

static int patch_peer(struct applying *a, struct tailcfg_peer_change *patch)
{
	struct netmap_peer *p = netmap_peers_by_id(&a->nm->peers, patch->node_id);
	unsigned int aspects;
	struct key old_key;
	int r;

	if (!p)
		return 0;
	aspects = netmap_diff_patch(p->node, patch);
	old_key = p->node->key;
	if (aspects & NETMAP_KEY) {
		r = claim_key(a, p, &patch->key);
		if (r < 0) {
			a->c->n_skipped += r != -ENOMEM;
			return r == -ENOMEM ? r : 0;
		}
		netmap_peers_key_remove(&a->nm->peers, p);
	}
	tailcfg_node_patch(p->node, patch);
	if (aspects & NETMAP_KEY)
		netmap_peers_key_insert(&a->nm->peers, p);
	/* The node is no longer what its text says; expired may be among what the patch took back. */
	memset(p->digest, 0, sizeof(p->digest));
	return record_change(a, p, aspects, &old_key);
}

static int apply_flags(struct applying *a, const struct tailcfg_map_response *m)
{
	struct netmap_peer *p;
	int r = 0;

	for (size_t i = 0; i < m->n_seen && r == 0; i++) {
		struct tailcfg_peer_change c = { .node_id = m->seen[i].node_id,
						 .has = TAILCFG_PATCH_LAST_SEEN,
						 .last_seen = m->seen[i].on ? a->now : 0 };

		r = patch_peer(a, &c);
	}
	for (size_t i = 0; i < m->n_online && r == 0; i++) {
		p = netmap_peers_by_id(&a->nm->peers, m->online[i].node_id);
		if (p) {
			struct tailcfg_peer_change c = { .node_id = p->node->id,
							 .has = TAILCFG_PATCH_ONLINE,
							 .online = m->online[i].on };

			r = patch_peer(a, &c);
		}
	}
	return r;
}

/* Those still marked as leaving are gone. */
static int drop_leaving(struct applying *a)
{
	struct netmap_peers *ps = &a->nm->peers;
	int r = 0;

	for (size_t i = 0; i < ps->n && r == 0; i++) {
		if (ps->by_id[i]->leaving)
			r = record(a, ps->by_id[i], NETMAP_REMOVED, 0, &ps->by_id[i]->node->key);
	}
	netmap_peers_sweep(ps);
	return r;
}

static int apply_peers(struct applying *a, struct tailcfg_map_response *m, bool first)
{
	struct netmap_peers *ps = &a->nm->peers;
	struct netmap_peer *p;
	int r = 0;

	for (size_t i = 0; i < ps->n && (first || m->n_peers); i++)
		ps->by_id[i]->leaving = true;
	if (a->c->self) { /* we are not our own peer, whoever we have become */
		p = netmap_peers_by_id(ps, a->nm->self->id);
		if (p)
			p->leaving = true;
		p = netmap_peers_by_key(ps, &a->nm->self->key);
		if (p)
			p->leaving = true;
	}
	if (m->n_peers) {
		r = put_peers(a, m->peers, m->n_peers);
		return r == 0 ? drop_leaving(a) : r;
	}
	for (size_t i = 0; i < m->n_peers_removed; i++) {
		p = netmap_peers_by_id(ps, m->peers_removed[i]);
		if (p)
			p->leaving = true;
	}
	r = put_peers(a, m->peers_changed, m->n_peers_changed);
	if (r == 0)
		r = drop_leaving(a);
	if (r == 0)
		r = apply_flags(a, m);
	for (size_t i = 0; i < m->n_patches && r == 0; i++)
		r = patch_peer(a, &m->patches[i]);
	return r;
}

/* ---- self ---- */

static int apply_self(struct applying *a, const struct tailcfg_map_response *m, bool first)
{
	struct netmap *nm = a->nm;
	struct tailcfg_node *n = NULL;
	uint8_t digest[16];
	bool expired;
	int r = 0;

	if (m->node.p) {
		digest_of(m->node, digest);
		if (!nm->self || !digest_equal(digest, nm->self_digest))
			r = tailcfg_node_decode(m->node, &n);
		if (r < 0 && (first || r == -ENOMEM))
			return r;
		a->c->n_skipped += r < 0;
	}
	if (n) {
		a->c->self |= nm->self ? netmap_diff_nodes(nm->self, n) : ASPECTS_ALL;
		if (nm->self && nm->self->id != n->id)
			a->c->self = ASPECTS_ALL;
		memcpy(nm->self_digest, digest, sizeof(digest));
		tailcfg_node_free(nm->self);
		nm->self = n;
	}
	if (!nm->self)
		return -EPROTO;
	expired = expired_at(nm->self, a->now);
	a->c->self |= expired != nm->self_expired ? NETMAP_EXPIRED : 0;
	nm->self_expired = expired;
	return 0;
}

/* ---- filter ---- */

static struct netmap_filter *find_filter(struct netmap *nm, const char *name)
{
	for (size_t i = 0; i < nm->n_filters; i++) {
		if (strcmp(nm->filters[i].name, name) == 0)
			return &nm->filters[i];
	}
	return NULL;
}

static int new_filter(struct netmap *nm, const char *name, struct netmap_filter **ret)
{
	struct netmap_filter f = { .name = strdup(name) };
	int r;

	if (!f.name)
		return -ENOMEM;
	r = tailcfg_grow(&nm->filters, nm->n_filters, TAILCFG_FILTERS_MAX, sizeof(f));
	if (r < 0) {
		free(f.name);
		return r;
	}
	nm->filters[nm->n_filters] = f;
	*ret = &nm->filters[nm->n_filters++];
	return 0;
}

static int set_filter(struct applying *a, const char *name, struct json_slice text)
{
	struct netmap_filter *f = find_filter(a->nm, name);
	struct tailcfg_rules rules = { 0 };
	uint8_t digest[16];
	int r;

	digest_of(text, digest);
	if (f && digest_equal(f->digest, digest)) {
		f->leaving = false;
		return 0;
	}
	r = tailcfg_rules_decode(text, &rules);
	if (r == -ENOMEM)
		return r;
	if (r < 0) /* what cannot be read allows nothing */
		a->c->n_skipped++;
	a->c->n_skipped += rules.n_skipped;
	if (!f) {
		r = new_filter(a->nm, name, &f);
		if (r < 0) {
			tailcfg_rules_done(&rules);
			a->c->n_skipped += r != -ENOMEM;
			return r == -ENOMEM ? r : 0;
		}
	}
	tailcfg_rules_done(&f->rules);
	f->rules = rules;
	f->leaving = false;
	memcpy(f->digest, digest, sizeof(digest));
	a->c->filter = true;
	return 0;
}

static void clear_filters(struct netmap *nm)
{
	for (size_t i = 0; i < nm->n_filters; i++)
		nm->filters[i].leaving = true;
}

static int apply_filters(struct applying *a, const struct tailcfg_map_response *m, bool first)
{
	struct netmap *nm = a->nm;
	size_t kept = 0;
	int r = 0;

	if (first)
		clear_filters(nm);
	if (m->packet_filter.p)
		r = set_filter(a, "base", m->packet_filter);
	if (m->filters_clear)
		clear_filters(nm);
	for (size_t i = 0; i < m->n_filters && r == 0; i++) {
		struct netmap_filter *f = find_filter(nm, m->filters[i].name);

		if (!json_slice_is_null(m->filters[i].text))
			r = set_filter(a, m->filters[i].name, m->filters[i].text);
		else if (f)
			f->leaving = true;
	}
	for (size_t i = 0; i < nm->n_filters; i++) {
		struct netmap_filter f = nm->filters[i];

		if (f.leaving) {
			a->c->filter = true;
			filter_done(&f);
		} else {
			nm->filters[kept++] = f;
		}
	}
	nm->n_filters = kept;
	if (kept == 0) /* the growing array starts anew from an empty one */
		free(TAKE(nm->filters));
	return r;
}

/* ---- relays, DNS, users, the rest ---- */

static int apply_derp(struct applying *a, const struct tailcfg_map_response *m, bool first)
{
	CLEANUP(json_decref) json_t *j = NULL;
	CLEANUP(derp_map_done) struct derp_map d = { 0 };
	struct netmap *nm = a->nm;
	uint8_t digest[16] = { 0 };
	int r;

	if (!m->derp_map.p && (!first || !nm->derp.n_regions))
		return 0;
	if (m->derp_map.p) {
		digest_of(m->derp_map, digest);
		if (digest_equal(digest, nm->derp_digest))
			return 0;
		r = json_slice_read(m->derp_map, &j);
		if (r == 0)
			r = derp_map_decode(j, &d);
		if (r < 0) {
			a->c->n_skipped++;
			return r == -ENOMEM ? r : 0;
		}
	}
	if (first)
		derp_map_done(&nm->derp);
	if (!d.has_regions) /* the text alone does not say what the map is */
		memset(digest, 0, sizeof(digest));
	derp_map_merge(&nm->derp, &d);
	memcpy(nm->derp_digest, digest, sizeof(digest));
	a->c->derp = true;
	return 0;
}

static int apply_dns(struct applying *a, const struct tailcfg_map_response *m, bool first)
{
	struct netmap *nm = a->nm;
	struct tailcfg_dns dns = { 0 };
	uint8_t digest[16] = { 0 };
	char *text = NULL;
	int r;

	if (!m->dns.p && (!first || !nm->dns_text))
		return 0;
	if (m->dns.p) {
		digest_of(m->dns, digest);
		if (digest_equal(digest, nm->dns_digest))
			return 0;
		r = tailcfg_dns_decode(m->dns, &dns);
		if (r < 0) {
			a->c->n_skipped++;
			return r == -ENOMEM ? r : 0;
		}
		text = strndup(m->dns.p, m->dns.len);
		if (!text) {
			tailcfg_dns_done(&dns);
			return -ENOMEM;
		}
	}
	tailcfg_dns_done(&nm->dns);
	free(nm->dns_text);
	nm->dns = dns;
	nm->dns_text = text;
	memcpy(nm->dns_digest, digest, sizeof(digest));
	a->c->dns = true;
	return 0;
}

static size_t user_slot(const struct netmap *nm, int64_t id)
{
	size_t lo = 0, hi = nm->n_users;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (nm->users[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const struct tailcfg_user *netmap_user(const struct netmap *nm, int64_t id)
{
	size_t i = user_slot(nm, id);

	return i < nm->n_users && nm->users[i].id == id ? &nm->users[i] : NULL;
}

/* Profiles are merged by id and never deleted. */
static int apply_users(struct applying *a, struct tailcfg_map_response *m)
{
	struct netmap *nm = a->nm;
	int r;

	for (size_t i = 0; i < m->n_users; i++) {
		struct tailcfg_user *u = &m->users[i];
		size_t at = user_slot(nm, u->id);
		bool known = at < nm->n_users && nm->users[at].id == u->id;

		if (known && strcmp(nm->users[at].login, u->login) == 0 &&
		    strcmp(nm->users[at].display, u->display) == 0 &&
		    strcmp(nm->users[at].picture, u->picture) == 0)
			continue;
		if (known) {
			tailcfg_user_done(&nm->users[at]);
		} else {
			r = tailcfg_grow(&nm->users, nm->n_users, TAILCFG_USERS_MAX, sizeof(*u));
			if (r == -ENOMEM)
				return r;
			if (r < 0) {
				a->c->n_skipped++;
				continue;
			}
			memmove(&nm->users[at + 1], &nm->users[at],
				(nm->n_users++ - at) * sizeof(*u));
		}
		nm->users[at] = *u;
		*u = (struct tailcfg_user){ 0 };
		a->c->users = true;
	}
	return 0;
}

static void apply_health(struct applying *a, struct tailcfg_map_response *m, bool first)
{
	struct netmap *nm = a->nm;
	bool same = nm->n_health == m->n_health;

	if (!m->has_health && !first)
		return;
	for (size_t i = 0; i < nm->n_health && same; i++)
		same = strcmp(nm->health[i], m->health[i]) == 0;
	if (same)
		return;
	health_done(nm->health, nm->n_health);
	nm->health = TAKE(m->health);
	nm->n_health = m->n_health;
	m->n_health = 0;
	a->c->health = true;
}

static void apply_domain(struct applying *a, struct tailcfg_map_response *m)
{
	if (!m->domain || !*m->domain || (a->nm->domain && strcmp(m->domain, a->nm->domain) == 0))
		return;
	free(a->nm->domain);
	a->nm->domain = TAKE(m->domain);
	a->c->domain = true;
}

static int apply_all(struct applying *a, struct tailcfg_map_response *m, bool first)
{
	int r;

	r = apply_self(a, m, first);
	if (r < 0)
		return r == -ENOMEM ? r : -EPROTO;
	a->nm->stream_started = true;
	a->c->full = first;
	r = apply_peers(a, m, first);
	if (r == 0)
		r = apply_users(a, m);
	if (r == 0)
		r = apply_derp(a, m, first);
	if (r == 0)
		r = apply_filters(a, m, first);
	if (r == 0)
		r = apply_dns(a, m, first);
	apply_domain(a, m);
	apply_health(a, m, first);
	a->nm->tailnet_lock = m->tailnet_lock || (!first && a->nm->tailnet_lock && !m->tka_off);
	return r;
}

int netmap_apply(struct netmap *nm, struct tailcfg_map_response *m, int64_t wall_now,
		 struct netmap_changes *ret)
{
	CLEANUP(netmap_changes_done) struct netmap_changes c = { .n_skipped = m->n_skipped };
	struct applying a = { .nm = nm, .c = &c };
	bool first = !nm->stream_started;
	int r;

	note_control_time(nm, m->control_time, wall_now);
	a.now = server_clock(nm, wall_now);
	if (!m->keep_alive) {
		if (first && !m->node.p)
			return -EPROTO;
		r = apply_all(&a, m, first);
		for (size_t i = 0; i < nm->peers.n; i++)
			nm->peers.by_id[i]->change = 0;
		if (r < 0)
			return r;
	}
	*ret = c;
	c = (struct netmap_changes){ 0 };
	return 0;
}

int64_t netmap_tick(struct netmap *nm, int64_t wall_now, struct netmap_changes *ret)
{
	struct netmap_changes c = { 0 };
	struct applying a = { .nm = nm, .c = &c, .now = server_clock(nm, wall_now) };
	int64_t next = 0;

	for (size_t i = 0; i < nm->peers.n; i++) {
		struct netmap_peer *p = nm->peers.by_id[i];

		record_change(&a, p, 0, &p->node->key); /* out of memory: at the next tick */
		p->change = 0;
		if (!p->expired && p->node->key_expiry > a.now &&
		    (!next || p->node->key_expiry < next))
			next = p->node->key_expiry;
	}
	if (nm->self) {
		bool expired = expired_at(nm->self, a.now);

		c.self = expired != nm->self_expired ? NETMAP_EXPIRED : 0;
		nm->self_expired = expired;
		if (!expired && nm->self->key_expiry > a.now &&
		    (!next || nm->self->key_expiry < next))
			next = nm->self->key_expiry;
	}
	*ret = c;
	/* Beyond the last year that 64 bits hold, a key lives as long as any. */
	if (next && __builtin_sub_overflow(next, nm->skew, &next))
		next = INT64_MAX;
	return next;
}

/* ---- reading ---- */

const struct tailcfg_node *netmap_peer_at(const struct netmap *nm, size_t i)
{
	return i < nm->peers.n ? nm->peers.by_id[i]->node : NULL;
}

const struct tailcfg_node *netmap_peer_by_id(const struct netmap *nm, int64_t id)
{
	const struct netmap_peer *p = netmap_peers_by_id(&nm->peers, id);

	return p ? p->node : NULL;
}

const struct tailcfg_node *netmap_peer_by_key(const struct netmap *nm, const struct key *key)
{
	const struct netmap_peer *p = netmap_peers_by_key(&nm->peers, key);

	return p ? p->node : NULL;
}

const struct tailcfg_node *netmap_peer_by_addr(struct netmap *nm, const struct addr *a)
{
	const struct netmap_peer *p = netmap_peers_by_addr(&nm->peers, a);

	return p ? p->node : NULL;
}

bool netmap_peer_expired(const struct netmap *nm, const struct tailcfg_node *n)
{
	const struct netmap_peer *p = netmap_peers_by_id(&nm->peers, n->id);

	return n->expired || (p && p->expired);
}

bool netmap_peer_usable(const struct netmap *nm, const struct tailcfg_node *n)
{
	return !netmap_peer_expired(nm, n) && (!key_is_zero(&n->disco) || n->wireguard_only);
}

const char *netmap_suffix(const struct netmap *nm, char *out, size_t max)
{
	const char *dot = nm->self ? strchr(nm->self->name, '.') : NULL;
	size_t n = dot ? strlen(dot + 1) : 0;

	while (n && dot[n] == '.')
		n--;
	if (n >= max)
		n = 0;
	if (n)
		memcpy(out, dot + 1, n);
	out[n] = '\0';
	return out;
}
