#include "coordinator/admin/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/coord.h"
#include "coordinator/state/register.h"
#include "lib/hex.h"
#include "lib/http.h"
#include "lib/json.h"
#include "lib/utf8.h"

#define ADMIN_PATH_PARTS 6
#define ADMIN_PART_MAX	 256

struct admin_call {
	struct coord *c;
	const struct admin_request *rq;
	struct admin_reply *reply;
	char part[ADMIN_PATH_PARTS][ADMIN_PART_MAX]; /* of the path behind /api/v1/, decoded */
	unsigned int parts;
	json_t *body; /* object, or NULL */
	int64_t now_nsec;
};

/* ---- answers */

static const char *admin_title(unsigned int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 409:
		return "Conflict";
	case 413:
		return "Content Too Large";
	case 503:
		return "Service Unavailable";
	}
	return "Internal Server Error";
}

static void admin_put_json(struct admin_call *a, json_t *j) /* takes j */
{
	buf_clear(&a->reply->body);
	if (!j || json_write(j, &a->reply->body) < 0)
		a->reply->status = 500;
	json_decref(j);
}

static void __attribute__((format(printf, 3, 4)))
admin_fail(struct admin_call *a, unsigned int status, const char *fmt, ...)
{
	char detail[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(detail, sizeof(detail), fmt, ap);
	va_end(ap);
	for (char *p = detail; !utf8_ok(detail) && *p; p++) /* a quoted text may have been cut in a letter */
		if (*p & 0x80)
			*p = '?';
	a->reply->status = status;
	admin_put_json(a, json_pack("{s:s, s:i, s:s, s:[]}", "title", admin_title(status), "status",
				    (int)status, "detail", detail, "errors"));
}

static void admin_answer(struct admin_call *a, const char *name, json_t *j) /* takes j */
{
	json_t *o = json_object();

	if (name)
		json_object_set_new(o, name, j);
	a->reply->status = 200;
	admin_put_json(a, o);
}

static void admin_errno(struct admin_call *a, int r, const char *what)
{
	if (r == -ENOMEM)
		admin_fail(a, 500, "%s: out of memory", what);
	else
		admin_fail(a, 500, "%s: %s", what, strerror(-r));
}

/* ---- objects */

static json_t *admin_id(uint64_t id)
{
	return json_sprintf("%llu", (unsigned long long)id);
}

static json_t *admin_time(int64_t t_nsec)
{
	char text[40];

	return t_nsec ? json_string(json_time_text(t_nsec, text)) : json_null();
}

static json_t *admin_user(const struct registry_user *u)
{
	if (!u)
		return json_null();
	return json_pack("{s:o, s:s, s:o, s:s, s:s, s:s, s:s, s:s}", "id", admin_id(u->id), "name", u->name,
			 "createdAt", admin_time(u->created_nsec), "displayName", u->display, "email",
			 u->email, "providerId", "", "provider", "", "profilePicUrl", u->picture);
}

static json_t *admin_authkey(const struct registry *reg, const struct authkey *k, const char *text)
{
	char masked[64];

	snprintf(masked, sizeof(masked), "hskey-auth-%s-***", k->name);
	return json_pack("{s:o, s:o, s:s, s:b, s:b, s:b, s:o, s:o, s:o}", "user",
			 admin_user(k->user ? registry_user(reg, k->user) : NULL), "id", admin_id(k->id),
			 "key", text ? text : masked, "reusable", k->reusable, "ephemeral",
			 k->ephemeral, "used", k->used, "expiration", admin_time(k->expiry_nsec),
			 "createdAt", admin_time(k->created_nsec), "aclTags", strs_json(&k->tags));
}

static json_t *admin_keytext(enum key_kind kind, const struct key *k)
{
	char text[KEY_TEXT_MAX];

	return json_string(key_text(kind, k, text));
}

static json_t *admin_addresses(const struct node *n)
{
	json_t *a = json_array();

	if (n->v4.family)
		json_array_append_new(a, json_addr(&n->v4));
	if (n->v6.family)
		json_array_append_new(a, json_addr(&n->v6));
	return a;
}

static json_t *admin_endpoints(const struct node *n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n->n_endpoint; i++)
		json_array_append_new(a, json_endpoint(&n->endpoint[i]));
	return a;
}

/* What only the node's own words say: routes it offers, its program's version. */
static void admin_put_hostinfo(json_t *o, const struct node *n)
{
	CLEANUP(json_decref) json_t *hi = NULL;
	const json_t *routes = NULL;
	const char *version = NULL;

	if (json_read(n->hostinfo, strlen(n->hostinfo), NODE_HOSTINFO_MAX + 1, &hi) == 0) {
		routes = json_get(hi, "RoutableIPs");
		version = json_get_str(hi, "IPNVersion");
	}
	json_object_set_new(o, "availableRoutes",
			    json_is_array(routes) ? json_deep_copy(routes) : json_array());
	json_object_set_new(o, "version", json_string(version ? version : ""));
}

static json_t *admin_node(struct admin_call *a, const struct node *n)
{
	const struct registry *reg = &a->c->reg;
	const struct authkey *k = n->authkey ? registry_authkey(reg, n->authkey) : NULL;
	const char *base = a->c->cfg.dns.base_domain;
	json_t *o;

	o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:b, s:[], s:[], s:o}",
		      "id", admin_id(n->id), "machineKey", admin_keytext(KEY_KIND_MACHINE, &n->machine_key),
		      "nodeKey", admin_keytext(KEY_KIND_NODE, &n->node_key), "discoKey",
		      admin_keytext(KEY_KIND_DISCO, &n->disco_key), "ipAddresses", admin_addresses(n), "name",
		      n->hostname, "user", admin_user(node_tagged(n) ? NULL : registry_user(reg, n->user)),
		      "lastSeen", admin_time(n->last_seen_nsec), "expiry", admin_time(n->expiry_nsec),
		      "preAuthKey", k ? admin_authkey(reg, k, NULL) : json_null(), "createdAt",
		      admin_time(n->created_nsec), "registerMethod",
		      n->method == NODE_METHOD_CLI ? "REGISTER_METHOD_CLI" : "REGISTER_METHOD_AUTH_KEY",
		      "givenName", n->given, "online", n->online, "approvedRoutes", "subnetRoutes", "tags",
		      strs_json(&n->tags));
	if (!o)
		return NULL;
	json_object_set_new(o, "ephemeral", json_boolean(n->ephemeral));
	json_object_set_new(o, "expired", json_boolean(node_expired(n, a->now_nsec)));
	json_object_set_new(o, "fqdn", json_sprintf("%s%s%s", n->given, *base ? "." : "", base));
	json_object_set_new(o, "capabilityVersion", json_integer(n->cap));
	json_object_set_new(o, "endpoints", admin_endpoints(n));
	json_object_set_new(o, "homeDerp", json_integer(n->home));
	admin_put_hostinfo(o, n);
	return o;
}

/* ---- what is asked */

static int admin_parse_id(const char *s, uint64_t *ret)
{
	uint64_t v = 0;

	if (!*s || strlen(s) > 18)
		return -EBADMSG;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EBADMSG;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	*ret = v;
	return 0;
}

/* An id in a body: "7" or 7. -ENOENT when absent. */
static int admin_body_id(const struct admin_call *a, const char *name, uint64_t *ret)
{
	const json_t *v = a->body ? json_get(a->body, name) : NULL;

	if (!v || (json_is_string(v) && !*json_string_value(v)))
		return -ENOENT;
	if (json_is_string(v))
		return admin_parse_id(json_string_value(v), ret);
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return -EBADMSG;
	*ret = (uint64_t)json_integer_value(v);
	return *ret ? 0 : -ENOENT;
}

static bool admin_query(const struct admin_call *a, const char *name, char out[static ADMIN_PART_MAX])
{
	struct http_str q = { a->rq->query, a->rq->query ? strlen(a->rq->query) : 0 };

	return q.p && http_query_get(q, name, out, ADMIN_PART_MAX) >= 0 && *out && utf8_ok(out);
}

static struct registry_user *admin_user_of(struct admin_call *a, const char *id)
{
	struct registry_user *u = NULL;
	uint64_t v;

	if (admin_parse_id(id, &v) < 0)
		admin_fail(a, 400, "'%.64s' is not a user's id", id);
	else if (!(u = registry_user(&a->c->reg, v)))
		admin_fail(a, 404, "user %s does not exist", id);
	return u;
}

static struct node *admin_node_of(struct admin_call *a, const char *id)
{
	struct node *n = NULL;
	uint64_t v;

	if (admin_parse_id(id, &v) < 0)
		admin_fail(a, 400, "'%.64s' is not a node's id", id);
	else if (!(n = registry_node(&a->c->reg, v)))
		admin_fail(a, 404, "node %s does not exist", id);
	return n;
}

static int admin_tags(struct admin_call *a, const char *name, struct strs *ret)
{
	int r = strs_from_json(a->body ? json_get(a->body, name) : NULL, AUTHKEY_TAGS_MAX, ret);

	for (size_t i = 0; r == 0 && i < ret->n; i++) {
		if (!name_tag_ok(ret->v[i])) {
			admin_fail(a, 400, "'%.64s' is not a tag: tag:, a letter, then letters, digits and -", ret->v[i]);
			return -EBADMSG;
		}
	}
	if (r < 0)
		admin_fail(a, 400, "%s: a list of at most %d tags is expected", name, AUTHKEY_TAGS_MAX);
	return r;
}

/* ---- users */

static void admin_user_list(struct admin_call *a)
{
	char id[ADMIN_PART_MAX] = "", name[ADMIN_PART_MAX] = "", email[ADMIN_PART_MAX] = "";
	json_t *list = json_array();
	uint64_t want = 0;

	if (admin_query(a, "id", id) && admin_parse_id(id, &want) < 0) {
		json_decref(list);
		admin_fail(a, 400, "'%.64s' is not a user's id", id);
		return;
	}
	admin_query(a, "name", name);
	admin_query(a, "email", email);
	for (size_t i = 0; i < a->c->reg.n_user; i++) {
		const struct registry_user *u = a->c->reg.user[i];

		if ((*id && u->id != want) || (*name && strcmp(u->name, name)) ||
		    (*email && strcmp(u->email, email)))
			continue;
		json_array_append_new(list, admin_user(u));
	}
	admin_answer(a, "users", list);
}

static void admin_user_errno(struct admin_call *a, int r, const char *name)
{
	if (r == -EEXIST)
		admin_fail(a, 409, "a user named %.64s exists already: take another name, or that one", name);
	else if (r == -EINVAL)
		admin_fail(a, 400, "'%.64s' is not a user name: a letter first, then letters, "
				   "digits, . - _ and at most one @", name);
	else
		admin_errno(a, r, "users");
}

static void admin_user_create(struct admin_call *a)
{
	const char *name = json_get_str(a->body, "name");
	struct registry_user *u;
	int r;

	if (!name) {
		admin_fail(a, 400, "name: is needed");
		return;
	}
	r = registry_user_create(&a->c->reg, name, json_get_str(a->body, "displayName"),
				 json_get_str(a->body, "email"), json_get_str(a->body, "pictureUrl"),
				 a->now_nsec, &u);
	if (r < 0)
		admin_user_errno(a, r, name);
	else
		admin_answer(a, "user", admin_user(u));
}

static void admin_user_rename(struct admin_call *a)
{
	struct registry_user *u = admin_user_of(a, a->part[1]);
	int r;

	if (!u)
		return;
	r = registry_user_rename(&a->c->reg, u, a->part[3]);
	if (r < 0)
		admin_user_errno(a, r, a->part[3]);
	else
		admin_answer(a, "user", admin_user(u));
}

static void admin_user_delete(struct admin_call *a)
{
	struct registry_user *u = admin_user_of(a, a->part[1]);

	if (!u)
		return;
	if (registry_user_delete(&a->c->reg, u) < 0)
		admin_fail(a, 400, "user %s still has %u nodes: delete them first", u->name, u->nodes);
	else
		admin_answer(a, NULL, NULL);
}

/* ---- pre-auth keys */

static void admin_authkey_list(struct admin_call *a)
{
	json_t *list = json_array();

	for (size_t i = 0; i < a->c->reg.n_authkey; i++)
		json_array_append_new(list, admin_authkey(&a->c->reg, a->c->reg.authkey[i], NULL));
	admin_answer(a, "preAuthKeys", list);
}

static void admin_authkey_create(struct admin_call *a)
{
	CLEANUP(strs_done) struct strs tags = { 0 };
	const char *when = a->body ? json_get_str(a->body, "expiration") : NULL;
	int64_t expiry = a->now_nsec + 3600 * NSEC_PER_SEC;
	struct registry_user *u = NULL;
	char text[AUTHKEY_TEXT_MAX];
	struct authkey *k;
	uint64_t id;
	int r = admin_body_id(a, "user", &id);

	if (r == -EBADMSG) {
		admin_fail(a, 400, "user: an id is expected");
		return;
	}
	if (r == 0 && !(u = registry_user(&a->c->reg, id))) {
		admin_fail(a, 404, "user %llu does not exist", (unsigned long long)id);
		return;
	}
	if (admin_tags(a, "aclTags", &tags) < 0)
		return;
	if (!u && !tags.n) {
		admin_fail(a, 400, "a pre-auth key needs a user or tags");
		return;
	}
	if (when && json_time_parse(when, &expiry) < 0) {
		admin_fail(a, 400, "expiration: '%.64s' is not a time", when);
		return;
	}
	r = registry_authkey_create(&a->c->reg, u, json_get_bool(a->body, "reusable", false),
				    json_get_bool(a->body, "ephemeral", false), &tags, expiry, a->now_nsec,
				    text, &k);
	if (r < 0)
		admin_errno(a, r, "pre-auth keys");
	else
		admin_answer(a, "preAuthKey", admin_authkey(&a->c->reg, k, text));
}

static struct authkey *admin_authkey_of(struct admin_call *a, int r, uint64_t id)
{
	struct authkey *k = r < 0 ? NULL : registry_authkey(&a->c->reg, id);

	if (r < 0)
		admin_fail(a, 400, "id: a key's id is expected");
	else if (!k)
		admin_fail(a, 404, "pre-auth key %llu does not exist", (unsigned long long)id);
	return k;
}

static void admin_authkey_expire(struct admin_call *a)
{
	uint64_t id = 0;
	int r = admin_body_id(a, "id", &id);
	struct authkey *k = admin_authkey_of(a, r, id);

	if (!k)
		return;
	registry_authkey_expire(&a->c->reg, k, a->now_nsec);
	admin_answer(a, NULL, NULL);
}

static void admin_authkey_delete(struct admin_call *a)
{
	char text[ADMIN_PART_MAX];
	uint64_t id = 0;
	int r = admin_query(a, "id", text) ? admin_parse_id(text, &id) : -EBADMSG;
	struct authkey *k = admin_authkey_of(a, r, id);

	if (!k)
		return;
	registry_authkey_delete(&a->c->reg, k);
	admin_answer(a, NULL, NULL);
}

/* ---- nodes */

static void admin_node_list(struct admin_call *a)
{
	char name[ADMIN_PART_MAX];
	struct registry_user *u = NULL;
	json_t *list;

	if (admin_query(a, "user", name) && !(u = registry_user_named(&a->c->reg, name))) {
		admin_fail(a, 404, "there is no user named %.64s", name);
		return;
	}
	list = json_array();
	for (size_t i = 0; i < a->c->reg.n_node; i++) {
		const struct node *n = a->c->reg.node[i];

		if (!u || (!node_tagged(n) && n->user == u->id))
			json_array_append_new(list, admin_node(a, n));
	}
	admin_answer(a, "nodes", list);
}

static void admin_node_get(struct admin_call *a)
{
	struct node *n = admin_node_of(a, a->part[1]);

	if (n)
		admin_answer(a, "node", admin_node(a, n));
}

static void admin_node_delete(struct admin_call *a)
{
	struct node *n = admin_node_of(a, a->part[1]);

	if (!n)
		return;
	registry_node_delete(&a->c->reg, n);
	admin_answer(a, NULL, NULL);
}

static void admin_node_expire(struct admin_call *a)
{
	const char *when = a->body ? json_get_str(a->body, "expiry") : NULL;
	bool never = a->body && json_get_bool(a->body, "disableExpiry", false);
	struct node *n = admin_node_of(a, a->part[1]);
	int64_t expiry = a->now_nsec;

	if (!n)
		return;
	if (when && (json_time_parse(when, &expiry) < 0 || !expiry)) {
		admin_fail(a, 400, "expiry: '%.64s' is not a time", when);
		return;
	}
	if (when && never) {
		admin_fail(a, 400, "expiry and disableExpiry exclude each other");
		return;
	}
	registry_node_set_expiry(&a->c->reg, n, never ? 0 : expiry);
	admin_answer(a, "node", admin_node(a, n));
}

static void admin_node_rename(struct admin_call *a)
{
	struct node *n = admin_node_of(a, a->part[1]);
	int r;

	if (!n)
		return;
	r = registry_node_rename(&a->c->reg, n, a->part[3]);
	if (r == -EEXIST)
		admin_fail(a, 400, "another node is named %.64s already: take another name", a->part[3]);
	else if (r < 0)
		admin_fail(a, 400, "'%.64s' is not a name: lower-case letters, digits and -, at most %d", a->part[3],
			   NAME_LABEL_MAX);
	else
		admin_answer(a, "node", admin_node(a, n));
}

static void admin_node_tags(struct admin_call *a)
{
	CLEANUP(strs_done) struct strs tags = { 0 };
	struct node *n = admin_node_of(a, a->part[1]);
	int r;

	if (!n || admin_tags(a, "tags", &tags) < 0)
		return;
	if (!tags.n) {
		admin_fail(a, 400, "a node's tags cannot all be taken away: its user has to log in again");
		return;
	}
	r = registry_node_set_tags(&a->c->reg, n, &tags);
	if (r < 0)
		admin_errno(a, r, "tags");
	else
		admin_answer(a, "node", admin_node(a, n));
}

/* ---- interactive logins */

static void admin_approve(struct admin_call *a, const char *user, const char *id)
{
	struct registry_user *u = user ? registry_user_named(&a->c->reg, user) : NULL;
	struct signin *x;
	struct node *n;
	int r;

	if (!u) {
		admin_fail(a, 404, "there is no user named %.64s", user ? user : "");
		return;
	}
	if (!id || strncmp(id, "hskey-authreq-", 14) || strlen(id) != 38) {
		admin_fail(a, 400, "'%.64s' is not the id of a login: it begins with hskey-authreq-", id ? id : "");
		return;
	}
	x = signin_find(&a->c->signins, id);
	if (!x) {
		admin_fail(a, 404, "no login %s is waiting: it ends after 15 minutes, the node shows a new one", id);
		return;
	}
	r = register_approve(&a->c->reg, &x->machine, &x->q, u, a->now_nsec, &n);
	if (r < 0) {
		admin_errno(a, r, "cannot register the node");
		return;
	}
	admin_answer(a, "node", admin_node(a, n));
	signin_finish(&a->c->signins, x, SIGNIN_APPROVED);
}

static void admin_auth_register(struct admin_call *a)
{
	admin_approve(a, json_get_str(a->body, "user"), json_get_str(a->body, "authId"));
}

static void admin_node_register(struct admin_call *a)
{
	char user[ADMIN_PART_MAX] = "", key[ADMIN_PART_MAX] = "";

	admin_query(a, "user", user);
	admin_query(a, "key", key);
	admin_approve(a, user, key);
}

static void admin_auth_reject(struct admin_call *a)
{
	const char *id = json_get_str(a->body, "authId");
	struct signin *x = id ? signin_find(&a->c->signins, id) : NULL;

	if (!x) {
		admin_fail(a, 404, "no such login is waiting");
		return;
	}
	signin_finish(&a->c->signins, x, SIGNIN_REJECTED);
	admin_answer(a, NULL, NULL);
}

static void admin_health(struct admin_call *a)
{
	if (coord_writable(a->c))
		admin_answer(a, "databaseConnectivity", json_true());
	else
		admin_fail(a, 500, "the database takes no writes: see the log");
}

/* ---- which is which */

struct admin_route {
	const char *method;
	const char *path; /* behind /api/v1/; * is any one part */
	bool writes, body; /* body: a JSON object is needed */
	void (*fn)(struct admin_call *a);
};

static const struct admin_route admin_routes[] = {
	{ "GET", "health", false, false, admin_health },
	{ "GET", "user", false, false, admin_user_list },
	{ "POST", "user", true, true, admin_user_create },
	{ "POST", "user/*/rename/*", true, false, admin_user_rename },
	{ "DELETE", "user/*", true, false, admin_user_delete },
	{ "GET", "preauthkey", false, false, admin_authkey_list },
	{ "POST", "preauthkey", true, true, admin_authkey_create },
	{ "POST", "preauthkey/expire", true, true, admin_authkey_expire },
	{ "DELETE", "preauthkey", true, false, admin_authkey_delete },
	{ "GET", "node", false, false, admin_node_list },
	{ "POST", "node/register", true, false, admin_node_register },
	{ "GET", "node/*", false, false, admin_node_get },
	{ "DELETE", "node/*", true, false, admin_node_delete },
	{ "POST", "node/*/expire", true, false, admin_node_expire },
	{ "POST", "node/*/rename/*", true, false, admin_node_rename },
	{ "POST", "node/*/tags", true, true, admin_node_tags },
	{ "POST", "auth/register", true, true, admin_auth_register },
	{ "POST", "auth/reject", true, true, admin_auth_reject },
};

/* Cuts the path into decoded parts. -EBADMSG: not ours, or malformed. */
static int admin_split(struct admin_call *a)
{
	static const char base[] = "/api/v1/";
	const char *p = a->rq->path;
	size_t n = 0;

	if (strncmp(p, base, sizeof(base) - 1))
		return -EBADMSG;
	for (p += sizeof(base) - 1;; p++) {
		if (*p == '/' || !*p) {
			a->part[a->parts][n] = '\0';
			if (!utf8_ok(a->part[a->parts++]))
				return -EBADMSG;
			n = 0;
			if (!*p)
				return 0;
			if (a->parts == ADMIN_PATH_PARTS)
				return -EBADMSG;
			continue;
		}
		if (n + 1 >= ADMIN_PART_MAX)
			return -EBADMSG;
		if (*p == '%') {
			int hi = hex_digit(p[1]), lo = hi < 0 ? -1 : hex_digit(p[2]);

			if (lo < 0 || (hi | lo) == 0)
				return -EBADMSG;
			a->part[a->parts][n++] = (char)(hi << 4 | lo);
			p += 2;
		} else {
			a->part[a->parts][n++] = *p;
		}
	}
}

static bool admin_path_is(const struct admin_call *a, const char *pattern)
{
	unsigned int i = 0;

	for (const char *p = pattern;; i++) {
		size_t n = strcspn(p, "/");

		if (i >= a->parts || !*a->part[i])
			return false;
		if (strncmp(p, "*", n) && (strlen(a->part[i]) != n || strncmp(p, a->part[i], n)))
			return false;
		p += n;
		if (!*p)
			return i + 1 == a->parts;
		p++;
	}
}

static const struct admin_route *admin_find(struct admin_call *a)
{
	bool path = false;

	for (size_t i = 0; i < ARRAY_SIZE(admin_routes); i++) {
		if (!admin_path_is(a, admin_routes[i].path))
			continue;
		path = true;
		if (!strcmp(admin_routes[i].method, a->rq->method))
			return &admin_routes[i];
	}
	if (path)
		admin_fail(a, 405, "%s is not possible here", a->rq->method);
	else
		admin_fail(a, 404, "there is no %.128s", a->rq->path);
	return NULL;
}

void admin_handle(struct coord *c, const struct admin_request *rq, struct admin_reply *reply)
{
	struct admin_call a = { .c = c, .rq = rq, .reply = reply, .now_nsec = loop_wall_nsec() };
	const struct admin_route *route;
	int r;

	*reply = (struct admin_reply){ .status = 500 };
	if (admin_split(&a) < 0) {
		admin_fail(&a, 404, "there is no %.128s", rq->path);
		return;
	}
	route = admin_find(&a);
	if (!route)
		return;
	r = rq->body_len ? json_read(rq->body, rq->body_len, ADMIN_BODY_MAX, &a.body) : 0;
	if (r < 0) {
		if (r == -ENOMEM)
			admin_errno(&a, r, "the body");
		else
			admin_fail(&a, 400, "the body is not JSON");
		return;
	}
	if (!json_is_object(a.body) && (route->body || a.body))
		admin_fail(&a, 400, "the body: an object is expected");
	else if (route->writes && !coord_writable(c))
		admin_fail(&a, 503, "the database takes no writes now: see the log, try again later");
	else
		route->fn(&a);
	reply->wrote = route->writes && reply->status == 200; /* a refusal has nothing to wait for */
	json_decref(a.body);
}
