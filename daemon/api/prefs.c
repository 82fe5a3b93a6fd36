#include "daemon/api/prefs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/json.h"

enum kind { KIND_BOOL, KIND_TEXT, KIND_ROUTES, KIND_TAGS };

/* What may stand in a text: it ends in files, log lines and messages to the server. */
enum charset { CHARSET_NONE, CHARSET_URL, CHARSET_HOST, CHARSET_NAME, CHARSET_MODE };

#define TEXT(member, field, chars, max)                                                            \
	.bit = (member), .kind = KIND_TEXT, .at = offsetof(struct prefs, field),                   \
	.charset = (chars), .size = (max)
#define BOOL(member, field) .bit = (member), .kind = KIND_BOOL, .at = offsetof(struct prefs, field)

/* One row for each flag. `acted` is false while only the default is true of this version. */
static const struct member {
	const char *name;
	enum prefs_member bit;
	enum kind kind;
	enum charset charset;
	size_t at, size;
	bool acted, dflt;
	const char *text; /* default of a text */
} members[] = {
	{ "login-server", TEXT(PREFS_LOGIN_SERVER, login_server, CHARSET_URL, PREFS_URL_MAX),
	  .acted = true },
	{ "hostname", TEXT(PREFS_HOSTNAME, hostname, CHARSET_HOST, PREFS_NAME_MAX), .acted = true },
	{ "accept-dns", BOOL(PREFS_ACCEPT_DNS, accept_dns) },
	{ "accept-routes", BOOL(PREFS_ACCEPT_ROUTES, accept_routes) },
	{ "advertise-routes", .bit = PREFS_ADVERTISE_ROUTES, .kind = KIND_ROUTES },
	{ "advertise-exit-node", BOOL(PREFS_ADVERTISE_EXIT_NODE, advertise_exit_node) },
	{ "advertise-tags", .bit = PREFS_ADVERTISE_TAGS, .kind = KIND_TAGS },
	{ "exit-node", TEXT(PREFS_EXIT_NODE, exit_node, CHARSET_NAME, PREFS_NAME_MAX) },
	{ "exit-node-allow-lan-access", BOOL(PREFS_EXIT_NODE_LAN, exit_node_lan) },
	{ "shields-up", BOOL(PREFS_SHIELDS_UP, shields_up) },
	{ "ssh", BOOL(PREFS_SSH, ssh) },
	{ "snat-subnet-routes", BOOL(PREFS_SNAT, snat), .dflt = true },
	{ "stateful-filtering", BOOL(PREFS_STATEFUL, stateful) },
	{ "netfilter-mode", TEXT(PREFS_NETFILTER_MODE, netfilter_mode, CHARSET_MODE, 12),
	  .text = "on" },
	{ "operator", TEXT(PREFS_OPERATOR, operator_user, CHARSET_NAME, PREFS_NAME_MAX) },
	{ "nickname", TEXT(PREFS_NICKNAME, nickname, CHARSET_NAME, PREFS_NAME_MAX) },
	{ "report-posture", BOOL(PREFS_POSTURE, posture) },
};

static bool *member_bool(struct prefs *p, const struct member *m)
{
	return (bool *)(void *)((char *)p + m->at);
}

static bool member_bool_get(const struct prefs *p, const struct member *m)
{
	return *(const bool *)(const void *)((const char *)p + m->at);
}

static const char *member_text(const struct prefs *p, const struct member *m)
{
	return (const char *)p + m->at;
}

static void say(char why[static PREFS_WHY_MAX], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void say(char why[static PREFS_WHY_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, PREFS_WHY_MAX, fmt, ap);
	va_end(ap);
}

const char *prefs_name(enum prefs_member bit)
{
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (members[i].bit == bit)
			return members[i].name;
	return "?";
}

void prefs_default(struct prefs *ret)
{
	*ret = (struct prefs){ .set = PREFS_ALL };
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		if (members[i].kind == KIND_BOOL)
			*member_bool(ret, &members[i]) = members[i].dflt;
		else if (members[i].kind == KIND_TEXT && members[i].text)
			snprintf((char *)ret + members[i].at, members[i].size, "%s",
				 members[i].text);
	}
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool text_only(const char *s, const char *also)
{
	for (; *s; s++)
		if (!is_alnum(*s) && !strchr(also, *s))
			return false;
	return true;
}

static bool text_is_url(const char *s)
{
	const char *host;

	if (!*s)
		return true;
	if (strncmp(s, "http://", 7) != 0 && strncmp(s, "https://", 8) != 0)
		return false;
	host = strstr(s, "://") + 3;
	/* No user:password@, no query: neither has a meaning here, and both would be logged. */
	return is_alnum(*host == '[' ? host[1] : *host) && text_only(host, ".-_:[]/~%+");
}

static bool text_ok(enum charset c, const char *s)
{
	switch (c) {
	case CHARSET_NONE:
		return true;
	case CHARSET_URL:
		return text_is_url(s);
	case CHARSET_HOST:
		return *s != '-' && *s != '.' && text_only(s, "-.");
	case CHARSET_NAME:
		return *s != '-' && text_only(s, "-._:@");
	case CHARSET_MODE:
		return !strcmp(s, "on") || !strcmp(s, "nodivert") || !strcmp(s, "off");
	}
	unreachable();
}

static int text_from_json(const struct member *m, const json_t *v, struct prefs *p,
			  char why[static PREFS_WHY_MAX])
{
	char *at = (char *)p + m->at;
	size_t len;

	if (!json_is_string(v))
		return say(why, "%s must be a text", m->name), -EBADMSG;
	len = json_string_length(v);
	if (len >= m->size)
		return say(why, "%s is longer than %zu characters", m->name, m->size - 1), -EBADMSG;
	if (strlen(json_string_value(v)) != len || !text_ok(m->charset, json_string_value(v))) {
		if (m->charset == CHARSET_URL)
			say(why, "%s must begin with http:// or https:// and a host", m->name);
		else if (m->charset == CHARSET_MODE)
			say(why, "%s must be on, nodivert or off", m->name);
		else
			say(why, "%s has a character that is not allowed there", m->name);
		return -EBADMSG;
	}
	memcpy(at, json_string_value(v), len + 1);
	while (m->charset == CHARSET_URL && len && at[len - 1] == '/')
		at[--len] = '\0';
	return 0;
}

static int routes_from_json(const struct member *m, const json_t *v, struct prefs *p,
			    char why[static PREFS_WHY_MAX])
{
	const json_t *e;
	size_t i;

	if (!json_is_array(v) || json_array_size(v) > PREFS_ROUTES_MAX)
		return say(why, "%s must be a list of at most %d prefixes", m->name,
			   PREFS_ROUTES_MAX),
		       -EBADMSG;
	json_array_foreach (v, i, e) {
		struct prefix r, masked;

		if (json_parse_prefix(e, &r) < 0)
			return say(why, "%s: not a prefix like 192.0.2.0/24", m->name), -EBADMSG;
		masked = prefix_masked(&r);
		if (!prefix_equal(&masked, &r))
			return say(why, "%s: a prefix has bits set behind its length", m->name),
			       -EBADMSG;
		p->routes[p->n_routes++] = r;
	}
	return 0;
}

static int tags_from_json(const struct member *m, const json_t *v, struct prefs *p,
			  char why[static PREFS_WHY_MAX])
{
	const json_t *e;
	size_t i;

	if (!json_is_array(v) || json_array_size(v) > PREFS_TAGS_MAX)
		return say(why, "%s must be a list of at most %d tags", m->name, PREFS_TAGS_MAX),
		       -EBADMSG;
	json_array_foreach (v, i, e) {
		const char *t = json_string_value(e);

		if (!t || strlen(t) != json_string_length(e) || strlen(t) >= PREFS_NAME_MAX ||
		    strncmp(t, "tag:", 4) != 0 || !t[4] || !text_only(t + 4, "-"))
			return say(why, "%s: a tag is tag: and letters, digits, hyphens", m->name),
			       -EBADMSG;
		memcpy(p->tags[p->n_tags++], t, strlen(t) + 1);
	}
	return 0;
}

static int member_from_json(const struct member *m, const json_t *v, struct prefs *p,
			    char why[static PREFS_WHY_MAX])
{
	switch (m->kind) {
	case KIND_BOOL:
		if (!json_is_boolean(v))
			return say(why, "%s must be true or false", m->name), -EBADMSG;
		*member_bool(p, m) = json_is_true(v);
		return 0;
	case KIND_TEXT:
		return text_from_json(m, v, p, why);
	case KIND_ROUTES:
		return routes_from_json(m, v, p, why);
	case KIND_TAGS:
		return tags_from_json(m, v, p, why);
	}
	unreachable();
}

int prefs_from_json(const json_t *j, struct prefs *ret, char why[static PREFS_WHY_MAX])
{
	CLEANUP(free) struct prefs *p = NULL;
	size_t known = 0;
	int r;

	why[0] = '\0';
	if (!json_is_object(j)) {
		say(why, "preferences must be an object");
		return -EBADMSG;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		const json_t *v = json_object_get(j, members[i].name);

		if (!v)
			continue;
		known++;
		r = member_from_json(&members[i], v, p, why);
		if (r < 0)
			return r;
		p->set |= members[i].bit;
	}
	if (known != json_object_size(j)) {
		say(why, "an unknown preference is in the request");
		return -EBADMSG;
	}
	*ret = *p;
	return 0;
}

static json_t *routes_to_json(const struct prefs *p)
{
	json_t *a = json_array();

	for (size_t i = 0; i < p->n_routes; i++)
		json_array_append_new(a, json_prefix(&p->routes[i]));
	return a;
}

static json_t *tags_to_json(const struct prefs *p)
{
	json_t *a = json_array();

	for (size_t i = 0; i < p->n_tags; i++)
		json_array_append_new(a, json_string(p->tags[i]));
	return a;
}

json_t *prefs_to_json(const struct prefs *p)
{
	json_t *o = json_object();

	if (!o)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		const struct member *m = &members[i];
		json_t *v = NULL;

		if (!(p->set & m->bit))
			continue;
		switch (m->kind) {
		case KIND_BOOL:
			v = json_boolean(member_bool_get(p, m));
			break;
		case KIND_TEXT:
			v = json_string(member_text(p, m));
			break;
		case KIND_ROUTES:
			v = routes_to_json(p);
			break;
		case KIND_TAGS:
			v = tags_to_json(p);
			break;
		}
		if (json_object_set_new(o, m->name, v) < 0) {
			json_decref(o);
			return NULL;
		}
	}
	return o;
}

static bool member_equal(const struct member *m, const struct prefs *a, const struct prefs *b)
{
	switch (m->kind) {
	case KIND_BOOL:
		return member_bool_get(a, m) == member_bool_get(b, m);
	case KIND_TEXT:
		return !strcmp(member_text(a, m), member_text(b, m));
	case KIND_ROUTES:
		if (a->n_routes != b->n_routes)
			return false;
		for (size_t i = 0; i < a->n_routes; i++)
			if (!prefix_equal(&a->routes[i], &b->routes[i]))
				return false;
		return true;
	case KIND_TAGS:
		if (a->n_tags != b->n_tags)
			return false;
		for (size_t i = 0; i < a->n_tags; i++)
			if (strcmp(a->tags[i], b->tags[i]) != 0)
				return false;
		return true;
	}
	unreachable();
}

static void member_copy(const struct member *m, struct prefs *to, const struct prefs *from)
{
	switch (m->kind) {
	case KIND_BOOL:
		*member_bool(to, m) = member_bool_get(from, m);
		return;
	case KIND_TEXT:
		memcpy((char *)to + m->at, (const char *)from + m->at, m->size);
		return;
	case KIND_ROUTES:
		memcpy(to->routes, from->routes, sizeof(to->routes));
		to->n_routes = from->n_routes;
		return;
	case KIND_TAGS:
		memcpy(to->tags, from->tags, sizeof(to->tags));
		to->n_tags = from->n_tags;
		return;
	}
	unreachable();
}

uint32_t prefs_merge(struct prefs *p, const struct prefs *change)
{
	uint32_t differs = 0;

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		const struct member *m = &members[i];

		if (!(change->set & m->bit))
			continue;
		if (!(p->set & m->bit) || !member_equal(m, p, change))
			differs |= m->bit;
		member_copy(m, p, change);
		p->set |= m->bit;
	}
	return differs;
}

int prefs_check_supported(const struct prefs *p, char why[static PREFS_WHY_MAX])
{
	CLEANUP(free) struct prefs *now = calloc(1, sizeof(*now));

	why[0] = '\0';
	if (!now)
		return -ENOMEM;
	prefs_default(now);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		const struct member *m = &members[i];

		if (m->acted || !(p->set & m->bit) || member_equal(m, p, now))
			continue;
		if (m->kind == KIND_BOOL)
			say(why, "--%s=%s is not supported yet, only --%s=%s is", m->name,
			    m->dflt ? "false" : "true", m->name, m->dflt ? "true" : "false");
		else
			say(why, "--%s=%s is not supported yet, only %s is", m->name,
			    m->kind == KIND_TEXT ? member_text(p, m) : "…",
			    m->text ? m->text : "an empty value");
		return -EOPNOTSUPP;
	}
	return 0;
}
