/* The registry's nodes: finding, making and deleting them, and what they say about themselves. */
#include "coordinator/state/registry.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* What outlives a deleted node: its machine's NetInfo. A daemon that logs in again, also as another user, sends none
 * until its home changes, and would be unreachable by relay meanwhile (control.md 12.3). */
struct netinfo_kept {
	struct key machine;
	char *json;
	uint32_t home;
	struct table_link link;
	struct netinfo_kept *prev, *next; /* oldest first */
};

static void netinfo_free(struct netinfo_kept *k)
{
	free(k->json);
	free(k);
}

void registry_node_free(struct node *n)
{
	if (!n)
		return;
	free(n->hostname);
	free(n->hostinfo);
	free(n->netinfo);
	free(n->endpoint);
	strs_done(&n->tags);
	free(n);
}

void registry_nodes_done(struct registry *s)
{
	for (size_t i = 0; i < s->n_node; i++)
		registry_node_free(s->node[i]);
	for (size_t i = 0; i < s->netinfos.cap; i++) {
		for (struct table_link *l = s->netinfos.bucket[i], *next; l; l = next) {
			next = l->next;
			netinfo_free(container_of(l, struct netinfo_kept, link));
		}
	}
	free(s->node);
	table_done(&s->by_key);
	table_done(&s->by_machine);
	table_done(&s->by_name);
	table_done(&s->by_v4);
	table_done(&s->by_v6);
	table_done(&s->netinfos);
}

static void registry_save_node(struct registry *s, struct node *n, bool soon)
{
	if (s->sink && s->sink->node)
		s->sink->node(s->sink_data, n, false, soon);
}

/* Peers learn of a node with its disco key: stock clients ignore it before (control.md 8.1). */
static void registry_note(struct registry *s, struct node *n, uint32_t changes)
{
	n->changes |= changes;
	if (s->sink && s->sink->changed)
		s->sink->changed(s->sink_data, n);
}

size_t registry_node_index(const struct registry *s, uint64_t id)
{
	size_t lo = 0, hi = s->n_node;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->node[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct node *registry_node(const struct registry *s, uint64_t id)
{
	size_t i = registry_node_index(s, id);

	return i < s->n_node && s->node[i]->id == id ? s->node[i] : NULL;
}

struct node *registry_node_by_key(const struct registry *s, const struct key *node_key)
{
	for (struct table_link *l = table_find(&s->by_key, node_key, sizeof(*node_key)); l;
	     l = table_more(l)) {
		struct node *n = container_of(l, struct node, by_key);

		if (key_equal(&n->node_key, node_key))
			return n;
	}
	return NULL;
}

struct node *registry_node_of_machine(const struct registry *s, const struct key *machine, bool tagged,
				   uint64_t user)
{
	for (struct table_link *l = table_find(&s->by_machine, machine, sizeof(*machine)); l;
	     l = table_more(l)) {
		struct node *n = container_of(l, struct node, by_machine);

		if (key_equal(&n->machine_key, machine) && node_tagged(n) == tagged &&
		    (tagged || n->user == user))
			return n;
	}
	return NULL;
}

struct node *registry_node_of_machine_any(const struct registry *s, const struct key *machine)
{
	for (struct table_link *l = table_find(&s->by_machine, machine, sizeof(*machine)); l;
	     l = table_more(l)) {
		struct node *n = container_of(l, struct node, by_machine);

		if (key_equal(&n->machine_key, machine))
			return n;
	}
	return NULL;
}

struct node *registry_node_named(const struct registry *s, const char *given)
{
	for (struct table_link *l = table_find(&s->by_name, given, strlen(given)); l; l = table_more(l)) {
		struct node *n = container_of(l, struct node, by_name);

		if (!strcmp(n->given, given))
			return n;
	}
	return NULL;
}

static bool registry_addr_taken(void *data, const struct addr *a)
{
	const struct registry *s = data;

	for (struct table_link *l = table_find(&s->by_v4, a, sizeof(*a)); l; l = table_more(l))
		if (addr_equal(&container_of(l, struct node, by_v4)->v4, a))
			return true;
	for (struct table_link *l = table_find(&s->by_v6, a, sizeof(*a)); l; l = table_more(l))
		if (addr_equal(&container_of(l, struct node, by_v6)->v6, a))
			return true;
	return false;
}

static int registry_reserve(struct registry *s)
{
	struct node **grown;

	if (s->n_node == s->cap_node) {
		grown = reallocarray(s->node, s->cap_node ? s->cap_node * 2 : 64, sizeof(struct node *));
		if (!grown)
			return -ENOMEM;
		s->node = grown;
		s->cap_node = s->cap_node ? s->cap_node * 2 : 64;
	}
	if (table_reserve(&s->by_key) < 0 || table_reserve(&s->by_machine) < 0 ||
	    table_reserve(&s->by_name) < 0 || table_reserve(&s->by_v4) < 0 ||
	    table_reserve(&s->by_v6) < 0)
		return -ENOMEM;
	return 0;
}

int registry_node_load(struct registry *s, struct node *n)
{
	struct registry_user *u;
	size_t at;
	int r = registry_reserve(s);

	if (r < 0)
		return r;
	if (n->v4.family)
		table_add(&s->by_v4, &n->by_v4, &n->v4, sizeof(n->v4));
	if (n->v6.family)
		table_add(&s->by_v6, &n->by_v6, &n->v6, sizeof(n->v6));
	table_add(&s->by_key, &n->by_key, &n->node_key, sizeof(n->node_key));
	table_add(&s->by_machine, &n->by_machine, &n->machine_key, sizeof(n->machine_key));
	table_add(&s->by_name, &n->by_name, n->given, strlen(n->given));
	at = registry_node_index(s, n->id);
	memmove(s->node + at + 1, s->node + at, (s->n_node - at) * sizeof(struct node *));
	s->node[at] = n;
	s->n_node++;
	if (n->id > s->last_node) { /* sequential allocation goes on behind the youngest node */
		s->last_node = n->id;
		s->v4.last = n->v4;
		s->v6.last = n->v6;
	}
	n->announced = !key_is_zero(&n->disco_key);
	u = node_tagged(n) ? NULL : registry_user(s, n->user);
	if (u)
		u->nodes++;
	return 0;
}

/* A free label for it: its own where it fits already. */
static void registry_unique_name(const struct registry *s, const struct node *self, const char *base,
			      char out[static NAME_LABEL_MAX + 1])
{
	for (unsigned int i = 0;; i++) {
		const struct node *other;

		name_numbered(base, i, out);
		other = registry_node_named(s, out);
		if (!other || other == self)
			return;
	}
}

static void registry_set_given(struct registry *s, struct node *n, const char *given)
{
	table_del(&s->by_name, &n->by_name);
	memcpy(n->given, given, strlen(given) + 1);
	table_add(&s->by_name, &n->by_name, n->given, strlen(n->given));
}

static struct netinfo_kept *registry_netinfo(const struct registry *s, const struct key *machine)
{
	for (struct table_link *l = table_find(&s->netinfos, machine, sizeof(*machine)); l;
	     l = table_more(l)) {
		struct netinfo_kept *k = container_of(l, struct netinfo_kept, link);

		if (key_equal(&k->machine, machine))
			return k;
	}
	return NULL;
}

static void registry_netinfo_forget(struct registry *s, struct netinfo_kept *k)
{
	table_del(&s->netinfos, &k->link);
	DL_DELETE(s->netinfo_oldest, k);
	if (s->sink && s->sink->netinfo)
		s->sink->netinfo(s->sink_data, &k->machine, NULL, 0);
	netinfo_free(k);
}

int registry_netinfo_load(struct registry *s, const struct key *machine, const char *json, uint32_t home)
{
	struct netinfo_kept *k = registry_netinfo(s, machine);
	char *copy;

	if (!k && s->netinfos.n >= REGISTRY_NETINFOS_MAX) /* those that will not come back make no room by themselves */
		registry_netinfo_forget(s, s->netinfo_oldest);
	copy = strdup(json);
	if (!copy)
		return -ENOMEM;
	if (!k) {
		if (table_reserve(&s->netinfos) < 0 || !(k = calloc(1, sizeof(*k)))) {
			free(copy);
			return -ENOMEM;
		}
		k->machine = *machine;
		table_add(&s->netinfos, &k->link, machine, sizeof(*machine));
	} else {
		DL_DELETE(s->netinfo_oldest, k);
	}
	DL_APPEND(s->netinfo_oldest, k);
	free(k->json);
	k->json = copy;
	k->home = home;
	return 0;
}

/* The machine's other node that has been there last, of those that have said where they are. */
static const struct node *registry_netinfo_node(const struct registry *s, const struct node *n)
{
	const struct node *best = NULL;

	for (struct table_link *l = table_find(&s->by_machine, &n->machine_key, sizeof(n->machine_key)); l;
	     l = table_more(l)) {
		const struct node *o = container_of(l, struct node, by_machine);

		if (o != n && o->netinfo && key_equal(&o->machine_key, &n->machine_key) &&
		    (!best || o->last_seen_nsec > best->last_seen_nsec))
			best = o;
	}
	return best;
}

static void registry_seed_netinfo(struct registry *s, struct node *n)
{
	struct netinfo_kept *k = registry_netinfo(s, &n->machine_key);
	const struct node *other = k || n->netinfo ? NULL : registry_netinfo_node(s, n);

	if (other) {
		n->netinfo = strdup(other->netinfo);
		n->home = n->netinfo ? other->home : 0;
	}
	if (!k)
		return;
	if (!n->netinfo) {
		n->netinfo = TAKE(k->json);
		n->home = k->home;
	}
	registry_netinfo_forget(s, k);
}

static int64_t registry_expiry(const struct registry *s, const struct node_new *w, int64_t now_nsec)
{
	int64_t e = w->expiry_nsec > now_nsec ? w->expiry_nsec : 0;

	if (w->tags && w->tags->n)
		return 0;
	if (s->node_expiry_sec) {
		int64_t ours = now_nsec + (int64_t)s->node_expiry_sec * NSEC_PER_SEC;

		if (!e || ours < e)
			e = ours;
	}
	return e;
}

static int registry_give_addresses(struct registry *s, struct node *n)
{
	int r = 0;

	if (s->v4.prefix.addr.family)
		r = alloc_next(&s->v4, registry_addr_taken, s, &n->v4);
	if (r == 0 && s->v6.prefix.addr.family)
		r = alloc_next(&s->v6, registry_addr_taken, s, &n->v6);
	return r;
}

int registry_node_create(struct registry *s, const struct node_new *w, int64_t now_nsec, struct node **ret)
{
	CLEANUP(registry_node_free) struct node *n = NULL;
	char base[NAME_LABEL_MAX + 1];
	int r;

	assert(!registry_node_by_key(s, &w->node_key));
	if (s->n_node >= REGISTRY_NODES_MAX)
		return -ENOSPC;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->id = s->last_node + 1;
	n->user = w->user;
	n->machine_key = w->machine_key;
	n->node_key = w->node_key;
	n->ephemeral = w->ephemeral;
	n->authkey = w->authkey;
	n->method = w->method;
	n->cap = w->cap;
	n->created_nsec = n->last_seen_nsec = now_nsec;
	n->expiry_nsec = registry_expiry(s, w, now_nsec);
	n->hostname = strdup(w->hostname);
	n->hostinfo = strdup(w->hostinfo);
	if (w->netinfo)
		n->netinfo = strdup(w->netinfo);
	n->home = w->home;
	if (!n->hostname || !n->hostinfo || (w->netinfo && !n->netinfo) ||
	    (w->tags && strs_copy(w->tags, &n->tags) < 0))
		return -ENOMEM;
	r = registry_give_addresses(s, n);
	if (r < 0)
		return r;
	name_sanitize(n->hostname, base);
	registry_unique_name(s, n, base, n->given);
	r = registry_node_load(s, n);
	if (r < 0)
		return r;
	registry_seed_netinfo(s, n);
	registry_save_node(s, n, false);
	*ret = TAKE(n);
	return 0;
}

static void registry_follow_hostname(struct registry *s, struct node *n)
{
	char base[NAME_LABEL_MAX + 1], given[NAME_LABEL_MAX + 1];
	size_t len;

	if (n->given_fixed)
		return;
	name_sanitize(n->hostname, base);
	/* box-2 stays box-2 while it calls itself box, also when box has become free. */
	len = strlen(base);
	if (!strncmp(n->given, base, len) && n->given[len] == '-' && n->given[len + 1] &&
	    !n->given[len + 1 + strspn(n->given + len + 1, "0123456789")] &&
	    registry_node_named(s, base))
		return;
	registry_unique_name(s, n, base, given);
	if (strcmp(given, n->given))
		registry_set_given(s, n, given);
}

int registry_node_relogin(struct registry *s, struct node *n, const struct node_new *w, int64_t now_nsec)
{
	uint64_t owner = node_wire_user(n);
	struct strs tags = { 0 };
	struct registry_user *u;

	if (w->tags && strs_copy(w->tags, &tags) < 0)
		return -ENOMEM;
	if (!key_equal(&n->node_key, &w->node_key)) {
		table_del(&s->by_key, &n->by_key);
		n->node_key = w->node_key;
		table_add(&s->by_key, &n->by_key, &n->node_key, sizeof(n->node_key));
	}
	u = node_tagged(n) ? NULL : registry_user(s, n->user);
	if (u)
		u->nodes--;
	strs_done(&n->tags);
	n->tags = tags;
	n->user = w->user;
	u = node_tagged(n) ? NULL : registry_user(s, n->user);
	if (u)
		u->nodes++;
	n->expiry_nsec = registry_expiry(s, w, now_nsec);
	n->ephemeral = w->ephemeral;
	if (!n->online) /* it has just been here: an ephemeral one that was away for long is not away since then */
		n->gone_usec = 0;
	n->authkey = w->authkey;
	n->method = w->method;
	n->cap = w->cap;
	registry_node_set_hostinfo(s, n, w->hostname, w->hostinfo);
	if (w->netinfo)
		registry_node_set_netinfo(s, n, w->netinfo, w->home);
	registry_save_node(s, n, false);
	registry_note(s, n, NODE_CHANGE_FULL | NODE_CHANGE_SELF |
				    (node_wire_user(n) != owner ? NODE_CHANGE_OWNER : 0));
	return 0;
}

static void registry_unlink_node(struct registry *s, struct node *n)
{
	size_t at = registry_node_index(s, n->id);
	struct registry_user *u = node_tagged(n) ? NULL : registry_user(s, n->user);

	memmove(s->node + at, s->node + at + 1, (s->n_node - at - 1) * sizeof(struct node *));
	s->n_node--;
	table_del(&s->by_key, &n->by_key);
	table_del(&s->by_machine, &n->by_machine);
	table_del(&s->by_name, &n->by_name);
	table_del(&s->by_v4, &n->by_v4);
	table_del(&s->by_v6, &n->by_v6);
	if (u)
		u->nodes--;
}

void registry_node_delete(struct registry *s, struct node *n)
{
	if (n->netinfo && registry_netinfo_load(s, &n->machine_key, n->netinfo, n->home) == 0 &&
	    s->sink && s->sink->netinfo)
		s->sink->netinfo(s->sink_data, &n->machine_key, n->netinfo, n->home);
	registry_unlink_node(s, n);
	if (s->sink && s->sink->removed)
		s->sink->removed(s->sink_data, n);
	if (s->sink && s->sink->node)
		s->sink->node(s->sink_data, n, true, false);
	registry_node_free(n);
}

/* ---- what a node says about itself */

static bool registry_set_text(char **at, const char *v)
{
	char *copy;

	if (*at && !strcmp(*at, v))
		return false;
	copy = strdup(v);
	if (!copy)
		return false; /* out of memory: the next update tries again */
	free(*at);
	*at = copy;
	return true;
}

bool registry_node_set_hostinfo(struct registry *s, struct node *n, const char *hostname,
			     const char *hostinfo)
{
	bool name = registry_set_text(&n->hostname, hostname);
	bool info = registry_set_text(&n->hostinfo, hostinfo);

	if (!name && !info)
		return false;
	if (name)
		registry_follow_hostname(s, n);
	registry_save_node(s, n, true);
	registry_note(s, n, NODE_CHANGE_FULL | NODE_CHANGE_SELF);
	return true;
}

bool registry_node_set_netinfo(struct registry *s, struct node *n, const char *netinfo, uint32_t home)
{
	/* No home is no news: peers would lose the relay path, and a stock client cannot be told by
	 * a patch (control.md T29). The last one stands until there is another. */
	bool moved = home && home != n->home;

	if (!registry_set_text(&n->netinfo, netinfo) && !moved)
		return false;
	if (moved)
		n->home = home;
	registry_save_node(s, n, true);
	registry_note(s, n, moved ? NODE_CHANGE_HOME | NODE_CHANGE_SELF : 0);
	return moved;
}

bool registry_node_set_endpoints(struct registry *s, struct node *n, const struct endpoint *e,
			      size_t count)
{
	struct endpoint *copy = NULL;
	size_t same = 0;

	while (count == n->n_endpoint && same < count && endpoint_equal(&e[same], &n->endpoint[same]))
		same++;
	if (count == n->n_endpoint && same == count)
		return false;
	if (count) {
		copy = malloc(count * sizeof(*e));
		if (!copy)
			return false;
		memcpy(copy, e, count * sizeof(*e));
	}
	free(n->endpoint);
	n->endpoint = copy;
	n->n_endpoint = count;
	registry_save_node(s, n, true);
	registry_note(s, n, NODE_CHANGE_ENDPOINTS | NODE_CHANGE_SELF);
	return true;
}

bool registry_node_set_disco(struct registry *s, struct node *n, const struct key *disco)
{
	if (key_equal(&n->disco_key, disco) || key_is_zero(disco))
		return false;
	n->disco_key = *disco;
	n->announced = true;
	registry_save_node(s, n, true);
	registry_note(s, n, NODE_CHANGE_DISCO | NODE_CHANGE_SELF);
	return true;
}

bool registry_node_set_cap(struct registry *s, struct node *n, uint32_t cap)
{
	if (n->cap == cap)
		return false;
	n->cap = cap;
	registry_save_node(s, n, true);
	registry_note(s, n, NODE_CHANGE_FULL);
	return true;
}

bool registry_node_set_online(struct registry *s, struct node *n, bool online, int64_t now_nsec)
{
	if (n->online == online)
		return false;
	n->online = online;
	n->last_seen_nsec = now_nsec;
	registry_save_node(s, n, true);
	registry_note(s, n, NODE_CHANGE_ONLINE);
	return true;
}

void registry_node_set_expiry(struct registry *s, struct node *n, int64_t expiry_nsec)
{
	if (n->expiry_nsec == expiry_nsec)
		return;
	n->expiry_nsec = expiry_nsec;
	registry_save_node(s, n, false);
	registry_note(s, n, NODE_CHANGE_FULL | NODE_CHANGE_SELF);
}

void registry_node_expired(struct registry *s, struct node *n)
{
	registry_note(s, n, NODE_CHANGE_FULL | NODE_CHANGE_SELF);
}

int registry_node_rename(struct registry *s, struct node *n, const char *label)
{
	const struct node *other = registry_node_named(s, label);

	if (!name_label_ok(label))
		return -EINVAL;
	if (other && other != n)
		return -EEXIST;
	n->given_fixed = true;
	registry_set_given(s, n, label);
	registry_save_node(s, n, false);
	registry_note(s, n, NODE_CHANGE_FULL | NODE_CHANGE_SELF);
	return 0;
}

int registry_node_set_tags(struct registry *s, struct node *n, const struct strs *tags)
{
	struct registry_user *u = node_tagged(n) ? NULL : registry_user(s, n->user);
	struct strs copy;

	if (strs_equal(&n->tags, tags))
		return 0;
	if (strs_copy(tags, &copy) < 0)
		return -ENOMEM;
	strs_done(&n->tags);
	n->tags = copy;
	if (u && node_tagged(n)) {
		u->nodes--;
		n->expiry_nsec = 0; /* a tagged node never expires */
	}
	registry_save_node(s, n, false);
	registry_note(s, n, NODE_CHANGE_FULL | NODE_CHANGE_SELF | NODE_CHANGE_OWNER);
	return 0;
}
