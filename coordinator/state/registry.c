#include "coordinator/state/registry.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

void registry_init(struct registry *s)
{
	*s = (struct registry){ 0 };
}

void registry_done(struct registry *s)
{
	registry_nodes_done(s);
	for (size_t i = 0; i < s->n_authkey; i++)
		authkey_free(s->authkey[i]);
	for (size_t i = 0; i < s->n_user; i++)
		registry_user_free(s->user[i]);
	free(s->authkey);
	free(s->user);
	table_done(&s->keys_by_name);
	*s = (struct registry){ 0 };
}

/* ---- users */

void registry_user_free(struct registry_user *u)
{
	if (!u)
		return;
	free(u->name);
	free(u->display);
	free(u->email);
	free(u->picture);
	free(u);
}

static void registry_tell_user(struct registry *s, const struct registry_user *u, bool gone)
{
	if (s->sink && s->sink->user)
		s->sink->user(s->sink_data, u, gone);
}

struct registry_user *registry_user(const struct registry *s, uint64_t id)
{
	size_t lo = 0, hi = s->n_user;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->user[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->n_user && s->user[lo]->id == id ? s->user[lo] : NULL;
}

struct registry_user *registry_user_named(const struct registry *s, const char *name)
{
	for (size_t i = 0; i < s->n_user; i++)
		if (!strcmp(s->user[i]->name, name))
			return s->user[i];
	return NULL;
}

int registry_user_load(struct registry *s, struct registry_user *u)
{
	struct registry_user **grown = reallocarray(s->user, s->n_user + 1, sizeof(struct registry_user *));

	if (!grown)
		return -ENOMEM;
	s->user = grown;
	s->user[s->n_user++] = u;
	if (u->id > s->last_user)
		s->last_user = u->id;
	return 0;
}

int registry_user_create(struct registry *s, const char *name, const char *display, const char *email,
		      const char *picture, int64_t now_nsec, struct registry_user **ret)
{
	CLEANUP(registry_user_free) struct registry_user *u = NULL;
	int r;

	if (!name_user_ok(name))
		return -EINVAL;
	if (registry_user_named(s, name))
		return -EEXIST;
	if (s->n_user >= REGISTRY_USERS_MAX)
		return -ENOSPC;
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->id = s->last_user + 1;
	u->created_nsec = now_nsec;
	u->name = strdup(name);
	u->display = strdup(display ? display : "");
	u->email = strdup(email ? email : "");
	u->picture = strdup(picture ? picture : "");
	if (!u->name || !u->display || !u->email || !u->picture)
		return -ENOMEM;
	r = registry_user_load(s, u);
	if (r < 0)
		return r;
	registry_tell_user(s, u, false);
	*ret = TAKE(u);
	return 0;
}

int registry_user_rename(struct registry *s, struct registry_user *u, const char *name)
{
	char *copy;

	if (!name_user_ok(name))
		return -EINVAL;
	if (!strcmp(u->name, name))
		return 0;
	if (registry_user_named(s, name))
		return -EEXIST;
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	free(u->name);
	u->name = copy;
	registry_tell_user(s, u, false);
	return 0;
}

int registry_user_delete(struct registry *s, struct registry_user *u)
{
	size_t i;

	if (u->nodes)
		return -ENOTEMPTY;
	for (i = s->n_authkey; i-- > 0;)
		if (s->authkey[i]->user == u->id)
			registry_authkey_delete(s, s->authkey[i]);
	for (i = 0; i < s->n_node; i++) { /* tagged nodes that it made */
		if (s->node[i]->user == u->id) {
			s->node[i]->user = 0;
			if (s->sink && s->sink->node)
				s->sink->node(s->sink_data, s->node[i], false, false);
		}
	}
	for (i = 0; s->user[i] != u; i++)
		;
	memmove(s->user + i, s->user + i + 1, (s->n_user - i - 1) * sizeof(struct registry_user *));
	s->n_user--;
	registry_tell_user(s, u, true);
	registry_user_free(u);
	return 0;
}

/* ---- pre-auth keys */

void authkey_free(struct authkey *k)
{
	if (!k)
		return;
	strs_done(&k->tags);
	sodium_memzero(k->hash, sizeof(k->hash));
	free(k);
}

static void registry_tell_authkey(struct registry *s, const struct authkey *k, bool gone)
{
	if (s->sink && s->sink->authkey)
		s->sink->authkey(s->sink_data, k, gone);
}

struct authkey *registry_authkey(const struct registry *s, uint64_t id)
{
	size_t lo = 0, hi = s->n_authkey;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->authkey[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->n_authkey && s->authkey[lo]->id == id ? s->authkey[lo] : NULL;
}

struct authkey *registry_authkey_find(const struct registry *s, const char *text)
{
	char name[AUTHKEY_NAME_LEN + 1];
	const char *secret;

	if (authkey_split(text, name, &secret) < 0)
		return NULL;
	for (struct table_link *l = table_find(&s->keys_by_name, name, AUTHKEY_NAME_LEN); l;
	     l = table_more(l)) {
		struct authkey *k = container_of(l, struct authkey, by_name);

		if (!strcmp(k->name, name) && authkey_matches(k, secret))
			return k;
	}
	return NULL;
}

int registry_authkey_load(struct registry *s, struct authkey *k)
{
	struct authkey **grown = reallocarray(s->authkey, s->n_authkey + 1, sizeof(struct authkey *));

	if (!grown)
		return -ENOMEM;
	s->authkey = grown;
	if (table_reserve(&s->keys_by_name) < 0)
		return -ENOMEM;
	table_add(&s->keys_by_name, &k->by_name, k->name, AUTHKEY_NAME_LEN);
	s->authkey[s->n_authkey++] = k;
	if (k->id > s->last_authkey)
		s->last_authkey = k->id;
	return 0;
}

int registry_authkey_create(struct registry *s, const struct registry_user *u, bool reusable, bool ephemeral,
			 const struct strs *tags, int64_t expiry_nsec, int64_t now_nsec,
			 char text[static AUTHKEY_TEXT_MAX], struct authkey **ret)
{
	CLEANUP(authkey_free) struct authkey *k = NULL;
	int r;

	if (s->n_authkey >= REGISTRY_AUTHKEYS_MAX)
		return -ENOSPC;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	k->id = s->last_authkey + 1;
	k->user = u ? u->id : 0;
	k->reusable = reusable;
	k->ephemeral = ephemeral;
	k->created_nsec = now_nsec;
	k->expiry_nsec = expiry_nsec;
	authkey_generate(text, k);
	if (tags && strs_copy(tags, &k->tags) < 0)
		return -ENOMEM;
	r = registry_authkey_load(s, k);
	if (r < 0)
		return r;
	registry_tell_authkey(s, k, false);
	*ret = TAKE(k);
	return 0;
}

void registry_authkey_use(struct registry *s, struct authkey *k)
{
	if (k->used)
		return;
	k->used = true;
	registry_tell_authkey(s, k, false);
}

void registry_authkey_expire(struct registry *s, struct authkey *k, int64_t now_nsec)
{
	if (k->expiry_nsec && k->expiry_nsec <= now_nsec)
		return;
	k->expiry_nsec = now_nsec;
	registry_tell_authkey(s, k, false);
}

void registry_authkey_delete(struct registry *s, struct authkey *k)
{
	size_t i;

	for (i = 0; s->authkey[i] != k; i++)
		;
	memmove(s->authkey + i, s->authkey + i + 1,
		(s->n_authkey - i - 1) * sizeof(struct authkey *));
	s->n_authkey--;
	table_del(&s->keys_by_name, &k->by_name);
	registry_tell_authkey(s, k, true);
	authkey_free(k);
}
