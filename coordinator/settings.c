#include "coordinator/settings.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "coordinator/settings_check.h"
#include "lib/json.h"
#include "lib/yaml.h"

#define SETTINGS_DEPTH_MAX 4

enum settings_type {
	SETTINGS_STR,
	SETTINGS_BOOL,
	SETTINGS_U32,
	SETTINGS_MODE,	 /* octal */
	SETTINGS_DURATION, /* into seconds */
	SETTINGS_LIST,
	SETTINGS_PREFIX,
	SETTINGS_LEVEL,
	SETTINGS_OTHER,	/* read by a function of its own */
	SETTINGS_IGNORED, /* accepted, nothing to do */
	SETTINGS_IDLE,	/* accepted with a warning: it has no effect here */
	SETTINGS_REFUSED, /* when it says something: the start is refused */
};

struct settings_key {
	const char *path;
	enum settings_type type;
	size_t offset;
	const char *words; /* for IDLE and REFUSED */
};

#define AT(field) offsetof(struct settings, field)

/* A path that ends in ".*" stands for everything below it. */
static const struct settings_key settings_keys[] = {
	{ "server_url", SETTINGS_STR, AT(server_url), NULL },
	{ "listen_addr", SETTINGS_STR, AT(listen_addr), NULL },
	{ "metrics_listen_addr", SETTINGS_IDLE, 0, "has no effect: there are no metrics yet" },
	{ "unix_socket", SETTINGS_STR, AT(unix_socket), NULL },
	{ "unix_socket_permission", SETTINGS_MODE, AT(unix_socket_mode), NULL },
	{ "noise.private_key_path", SETTINGS_STR, AT(noise_key_path), NULL },
	{ "tls_cert_path", SETTINGS_STR, AT(tls_cert_path), NULL },
	{ "tls_key_path", SETTINGS_STR, AT(tls_key_path), NULL },
	{ "prefixes.v4", SETTINGS_PREFIX, AT(v4), NULL },
	{ "prefixes.v6", SETTINGS_PREFIX, AT(v6), NULL },
	{ "prefixes.allocation", SETTINGS_OTHER, 0, NULL },
	{ "derp.server.enabled", SETTINGS_BOOL, AT(derp.enabled), NULL },
	{ "derp.server.region_id", SETTINGS_U32, AT(derp.region_id), NULL },
	{ "derp.server.region_code", SETTINGS_STR, AT(derp.region_code), NULL },
	{ "derp.server.region_name", SETTINGS_STR, AT(derp.region_name), NULL },
	{ "derp.server.stun_listen_addr", SETTINGS_STR, AT(derp.stun_listen_addr), NULL },
	{ "derp.server.private_key_path", SETTINGS_STR, AT(derp.private_key_path), NULL },
	{ "derp.server.verify_clients", SETTINGS_BOOL, AT(derp.verify_clients), NULL },
	{ "derp.server.ipv4", SETTINGS_STR, AT(derp.ipv4), NULL },
	{ "derp.server.ipv6", SETTINGS_STR, AT(derp.ipv6), NULL },
	{ "derp.server.automatically_add_embedded_derp_region", SETTINGS_BOOL, AT(derp.auto_add), NULL },
	{ "derp.urls", SETTINGS_LIST, AT(derp.urls), NULL },
	{ "derp.paths", SETTINGS_LIST, AT(derp.paths), NULL },
	{ "derp.auto_update_enabled", SETTINGS_BOOL, AT(derp.auto_update), NULL },
	{ "derp.update_frequency", SETTINGS_DURATION, AT(derp.update_sec), NULL },
	{ "database.type", SETTINGS_OTHER, 0, NULL },
	{ "database.sqlite.path", SETTINGS_STR, AT(db_path), NULL },
	{ "database.sqlite.write_ahead_log", SETTINGS_BOOL, AT(db_wal), NULL },
	{ "database.sqlite.wal_autocheckpoint", SETTINGS_IGNORED, 0, NULL },
	{ "database.debug", SETTINGS_IDLE, 0, "has no effect: see log.level" },
	{ "database.gorm.*", SETTINGS_IGNORED, 0, NULL },
	{ "database.postgres.*", SETTINGS_IGNORED, 0, NULL },
	{ "dns.magic_dns", SETTINGS_BOOL, AT(dns.magic), NULL },
	{ "dns.base_domain", SETTINGS_STR, AT(dns.base_domain), NULL },
	{ "dns.override_local_dns", SETTINGS_BOOL, AT(dns.override_local), NULL },
	{ "dns.nameservers.global", SETTINGS_LIST, AT(dns.global), NULL },
	{ "dns.nameservers.split.*", SETTINGS_OTHER, 0, NULL },
	{ "dns.search_domains", SETTINGS_LIST, AT(dns.search), NULL },
	{ "dns.extra_records", SETTINGS_OTHER, 0, NULL },
	{ "dns.extra_records_path", SETTINGS_REFUSED, 0,
	  "records from a file are not supported yet: list them under dns.extra_records" },
	{ "dns.use_username_in_magic_dns", SETTINGS_REFUSED, 0, "removed: names are <node>.<base_domain>" },
	{ "node.expiry", SETTINGS_DURATION, AT(node_expiry_sec), NULL },
	{ "node.ephemeral.inactivity_timeout", SETTINGS_DURATION, AT(ephemeral_sec), NULL },
	{ "ephemeral_node_inactivity_timeout", SETTINGS_DURATION, AT(ephemeral_sec),
	  "is now node.ephemeral.inactivity_timeout; used all the same" },
	{ "node.routes.*", SETTINGS_IDLE, 0, "has no effect: subnet routes are not served yet" },
	{ "preauth_keys.revoked_retention", SETTINGS_IGNORED, 0, NULL },
	{ "log.level", SETTINGS_LEVEL, AT(log_level), NULL },
	{ "log.format", SETTINGS_OTHER, 0, NULL },
	{ "logtail.enabled", SETTINGS_BOOL, AT(logtail), NULL },
	{ "taildrop.enabled", SETTINGS_BOOL, AT(taildrop), NULL },
	{ "auto_update.enabled", SETTINGS_BOOL, AT(auto_update), NULL },
	{ "randomize_client_port", SETTINGS_BOOL, AT(randomize_port),
	  "belongs into the policy (randomizeClientPort); done all the same" },
	{ "policy.mode", SETTINGS_OTHER, 0, NULL },
	{ "policy.path", SETTINGS_STR, AT(policy_path), NULL },
	{ "acl_policy_path", SETTINGS_REFUSED, 0,
	  "a policy is not supported yet, and ignoring it would let everything through: remove it" },
	{ "oidc.strip_email_domain", SETTINGS_IDLE, 0, "has no effect" },
	{ "oidc.only_start_if_oidc_is_available", SETTINGS_IGNORED, 0, NULL },
	{ "oidc.scope", SETTINGS_IGNORED, 0, NULL },
	{ "oidc.pkce.*", SETTINGS_IGNORED, 0, NULL },
	{ "oidc.email_verified_required", SETTINGS_IGNORED, 0, NULL },
	{ "oidc.expiry", SETTINGS_REFUSED, 0, "removed: use node.expiry" },
	{ "oidc.*", SETTINGS_REFUSED, 0,
	  "login by an identity provider is not supported yet: remove it and use pre-auth keys" },
	{ "tls_letsencrypt_hostname", SETTINGS_REFUSED, 0,
	  "getting certificates is not supported yet: give tls_cert_path and tls_key_path" },
	{ "tls_letsencrypt_cache_dir", SETTINGS_IGNORED, 0, NULL },
	{ "tls_letsencrypt_challenge_type", SETTINGS_IGNORED, 0, NULL },
	{ "tls_letsencrypt_listen", SETTINGS_IGNORED, 0, NULL },
	{ "acme_url", SETTINGS_IGNORED, 0, NULL },
	{ "acme_email", SETTINGS_IGNORED, 0, NULL },
	{ "grpc_listen_addr", SETTINGS_IDLE, 0, "has no effect: there is no gRPC" },
	{ "grpc_allow_insecure", SETTINGS_IDLE, 0, "has no effect: there is no gRPC" },
	{ "trusted_proxies", SETTINGS_IDLE, 0, "has no effect: forwarded-for headers are not read" },
	{ "disable_check_updates", SETTINGS_IGNORED, 0, NULL },
	{ "cli.*", SETTINGS_IGNORED, 0, NULL },
	{ "tuning.*", SETTINGS_IDLE, 0, "has no effect" },
	{ "dns_config.*", SETTINGS_REFUSED, 0, "removed: the section is now called dns" },
	{ "db_type", SETTINGS_REFUSED, 0, "removed: use database.type" },
	{ "db_path", SETTINGS_REFUSED, 0, "removed: use database.sqlite.path" },
	{ "ip_prefixes", SETTINGS_REFUSED, 0, "removed: use prefixes.v4 and prefixes.v6" },
};

static void __attribute__((format(printf, 2, 0)))
settings_line(struct buf *b, const char *fmt, va_list ap)
{
	char line[512];

	vsnprintf(line, sizeof(line), fmt, ap);
	buf_printf(b, "%s\n", line);
}

void settings_problem(struct settings_report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	settings_line(&r->problems, fmt, ap);
	va_end(ap);
}

void settings_warn(struct settings_report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	settings_line(&r->warnings, fmt, ap);
	va_end(ap);
}

void settings_report_done(struct settings_report *r)
{
	buf_done(&r->problems);
	buf_done(&r->warnings);
}

static void settings_list_done(struct settings_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct settings_list){ 0 };
}

void settings_done(struct settings *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings_keys); i++) {
		if (settings_keys[i].type == SETTINGS_STR)
			free(*(char **)(void *)((char *)c + settings_keys[i].offset));
		else if (settings_keys[i].type == SETTINGS_LIST)
			settings_list_done((void *)((char *)c + settings_keys[i].offset));
	}
	for (size_t i = 0; i < c->dns.n_split; i++) {
		free(c->dns.split[i].domain);
		settings_list_done(&c->dns.split[i].servers);
	}
	free(c->dns.split);
	for (size_t i = 0; i < c->dns.n_records; i++) {
		free(c->dns.records[i].name);
		free(c->dns.records[i].type);
		free(c->dns.records[i].value);
	}
	free(c->dns.records);
	free(c->server_host);
	*c = (struct settings){ 0 };
}

int settings_duration_parse(const char *s, uint64_t *ret_sec)
{
	static const struct {
		const char *unit;
		uint64_t msec;
	} units[] = { { "ms", 1 },	    { "s", 1000 },	{ "m", 60000 },
		      { "h", 3600000 },	    { "d", 86400000 },	{ "w", UINT64_C(604800000) },
		      { "y", UINT64_C(31536000000) } };
	uint64_t msec = 0;

	if (!strcmp(s, "0")) {
		*ret_sec = 0;
		return 0;
	}
	if (!*s)
		return -EBADMSG;
	while (*s) {
		uint64_t v = 0;
		size_t u, best = ARRAY_SIZE(units), n;

		if (!isdigit((unsigned char)*s))
			return -EBADMSG;
		for (; isdigit((unsigned char)*s); s++) {
			v = v * 10 + (uint64_t)(*s - '0');
			if (v > 1000000000)
				return -EBADMSG;
		}
		for (n = 0; isalpha((unsigned char)s[n]); n++)
			;
		for (u = 0; u < ARRAY_SIZE(units); u++)
			if (strlen(units[u].unit) == n && !strncmp(units[u].unit, s, n))
				best = u;
		if (best == ARRAY_SIZE(units))
			return -EBADMSG;
		msec += v * units[best].msec;
		s += n;
	}
	if (msec / 1000 > UINT64_C(100) * 31536000)
		return -EBADMSG;
	*ret_sec = (msec + 999) / 1000;
	return 0;
}

static int settings_read_list(const json_t *v, struct settings_list *ret)
{
	struct settings_list l = { 0 };
	size_t n = json_is_array(v) ? json_array_size(v) : 1;

	if (n > SETTINGS_LIST_MAX)
		return -ENOBUFS;
	if (n && !(l.v = calloc(n, sizeof(*l.v))))
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;

		if (json_is_null(e))
			continue;
		if (!json_is_string(e) || !(l.v[l.n] = strdup(json_string_value(e)))) {
			settings_list_done(&l);
			return -EBADMSG;
		}
		l.n++;
	}
	settings_list_done(ret);
	*ret = l;
	return 0;
}

static int settings_read_bool(const char *s, bool *ret)
{
	static const char *const yes[] = { "true", "True", "TRUE", "yes", "on", "1" };
	static const char *const no[] = { "false", "False", "FALSE", "no", "off", "0" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcmp(s, yes[i]) || !strcmp(s, no[i])) {
			*ret = !strcmp(s, yes[i]);
			return 0;
		}
	}
	return -EBADMSG;
}

int settings_read_number(const char *s, int base, uint32_t max, uint32_t *ret)
{
	unsigned long v;
	char *end;

	if (base == 8 && !strncmp(s, "0o", 2))
		s += 2;
	if (!isdigit((unsigned char)*s))
		return -EBADMSG;
	errno = 0;
	v = strtoul(s, &end, base);
	if (errno || *end || v > max)
		return -EBADMSG;
	*ret = (uint32_t)v;
	return 0;
}

static int settings_read_level(const char *s, enum log_level *ret)
{
	if (!strcmp(s, "trace"))
		s = "debug";
	else if (!strcmp(s, "warn"))
		s = "warning";
	else if (!strcmp(s, "error") || !strcmp(s, "fatal") || !strcmp(s, "panic"))
		s = "err";
	return log_level_parse(s, ret);
}

/* One scalar or list into its field. -EBADMSG when it is not of its type. */
static int settings_set(struct settings *c, const struct settings_key *k, const json_t *v)
{
	void *at = (char *)c + k->offset;
	const char *s = json_is_string(v) ? json_string_value(v) : NULL;
	uint32_t n;

	if (k->type == SETTINGS_LIST)
		return settings_read_list(v, at);
	if (!s)
		return -EBADMSG;
	switch (k->type) {
	case SETTINGS_STR:
		free(*(char **)at);
		*(char **)at = strdup(s);
		return *(char **)at ? 0 : -ENOMEM;
	case SETTINGS_BOOL:
		return settings_read_bool(s, at);
	case SETTINGS_U32:
		return settings_read_number(s, 10, INT32_MAX, at);
	case SETTINGS_MODE:
		if (settings_read_number(s, 8, 0777, &n) < 0)
			return -EBADMSG;
		*(unsigned int *)at = n;
		return 0;
	case SETTINGS_DURATION:
		return settings_duration_parse(s, at);
	case SETTINGS_PREFIX:
		return *s ? prefix_parse(s, strlen(s), at) : 0;
	case SETTINGS_LEVEL:
		return settings_read_level(s, at);
	case SETTINGS_LIST:
	case SETTINGS_OTHER:
	case SETTINGS_IGNORED:
	case SETTINGS_IDLE:
	case SETTINGS_REFUSED:
		break;
	}
	return 0;
}

static int settings_add_split(struct settings *c, const char *domain, const json_t *v)
{
	struct settings_split *s;

	if (c->dns.n_split >= SETTINGS_LIST_MAX)
		return -ENOBUFS;
	s = reallocarray(c->dns.split, c->dns.n_split + 1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	c->dns.split = s;
	s = &c->dns.split[c->dns.n_split];
	*s = (struct settings_split){ .domain = strdup(domain) };
	if (!s->domain)
		return -ENOMEM;
	c->dns.n_split++;
	return settings_read_list(v, &s->servers);
}

static int settings_add_record(struct settings *c, const json_t *v)
{
	const char *name = json_get_str(v, "name"), *value = json_get_str(v, "value");
	const char *type = json_get_str(v, "type");
	struct settings_record *r;
	struct addr a;

	if (!name || !*name || !value || addr_parse(value, strlen(value), &a) < 0)
		return -EBADMSG;
	type = type && *type ? type : a.family == 4 ? "A" : "AAAA";
	if (strcmp(type, a.family == 4 ? "A" : "AAAA") || c->dns.n_records >= SETTINGS_LIST_MAX)
		return -EBADMSG;
	r = reallocarray(c->dns.records, c->dns.n_records + 1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	c->dns.records = r;
	r = &c->dns.records[c->dns.n_records];
	*r = (struct settings_record){ strdup(name), strdup(type), strdup(value) };
	c->dns.n_records++;
	return r->name && r->type && r->value ? 0 : -ENOMEM;
}

/* Keys whose value steers more than one field. */
static void settings_set_other(struct settings *c, const char *path, const json_t *v,
			     struct settings_report *rep)
{
	const char *s = json_is_string(v) ? json_string_value(v) : "";

	if (!strcmp(path, "prefixes.allocation")) {
		c->allocate_random = !strcmp(s, "random");
		if (strcmp(s, "random") && strcmp(s, "sequential"))
			settings_problem(rep, "prefixes.allocation: '%s' is neither sequential nor random", s);
	} else if (!strcmp(path, "database.type")) {
		if (!strcmp(s, "postgres"))
			settings_problem(rep, "database.type: postgres is not supported yet: use sqlite");
		else if (strcmp(s, "sqlite") && strcmp(s, "sqlite3"))
			settings_problem(rep, "database.type: '%s' is not known: use sqlite", s);
	} else if (!strcmp(path, "log.format")) {
		if (*s && strcmp(s, "text")) /* what it is anyway */
			settings_warn(rep, "log.format: '%s' has no effect: log lines are text", s);
	} else if (!strcmp(path, "policy.mode")) {
		if (!strcmp(s, "database"))
			settings_problem(rep, "policy.mode: a policy in the database is not supported yet, and "
					    "without one everything is allowed: use file with an empty path");
		else if (strcmp(s, "file") && *s)
			settings_problem(rep, "policy.mode: '%s' is neither file nor database", s);
	} else if (!strncmp(path, "dns.nameservers.split.", 22)) {
		if (settings_add_split(c, path + 22, v) < 0)
			settings_problem(rep, "%s: a list of name servers is expected", path);
	} else if (!strcmp(path, "dns.extra_records")) {
		const json_t *e;
		size_t i;

		if (!json_is_array(v))
			settings_problem(rep, "dns.extra_records: a list is expected");
		json_array_foreach(v, i, e)
			if (settings_add_record(c, e) < 0)
				settings_problem(rep, "dns.extra_records: entry %zu needs a name, a type A or AAAA "
						    "and an address of that type", i + 1);
	}
}

static const struct settings_key *settings_find(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings_keys); i++) {
		size_t n = strlen(settings_keys[i].path);

		if (!strcmp(settings_keys[i].path, path))
			return &settings_keys[i];
		if (settings_keys[i].path[n - 1] == '*' && !strncmp(settings_keys[i].path, path, n - 1))
			return &settings_keys[i];
	}
	return NULL;
}

/* Whether a value says something: an empty one, false, [] and {} in a refused key harm nobody. */
static bool settings_says(const json_t *v)
{
	const char *s = json_string_value(v);

	if (json_is_string(v))
		return *s && strcmp(s, "false") && strcmp(s, "0");
	return json_is_array(v) ? json_array_size(v) > 0 : !json_is_null(v);
}

static void settings_one(struct settings *c, const char *path, const json_t *v,
		       struct settings_report *rep)
{
	const struct settings_key *k = settings_find(path);

	if (!k) {
		settings_warn(rep, "%s: unknown key, ignored", path);
		return;
	}
	if (json_is_null(v))
		return;
	switch (k->type) {
	case SETTINGS_OTHER:
		settings_set_other(c, path, v, rep);
		return;
	case SETTINGS_IGNORED:
		return;
	case SETTINGS_IDLE:
		if (settings_says(v))
			settings_warn(rep, "%s %s", path, k->words);
		return;
	case SETTINGS_REFUSED:
		if (settings_says(v))
			settings_problem(rep, "%s: %s", path, k->words);
		return;
	case SETTINGS_STR:
	case SETTINGS_BOOL:
	case SETTINGS_U32:
	case SETTINGS_MODE:
	case SETTINGS_DURATION:
	case SETTINGS_LIST:
	case SETTINGS_PREFIX:
	case SETTINGS_LEVEL:
		if (settings_set(c, k, v) < 0)
			settings_problem(rep, "%s: '%s' is not a value for it", path,
				       json_is_string(v) ? json_string_value(v) : "(list)");
		else if (k->words)
			settings_warn(rep, "%s %s", path, k->words);
		return;
	}
}

static void settings_walk(struct settings *c, const char *prefix, const json_t *o, unsigned int depth,
			struct settings_report *rep)
{
	const char *name;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)o, name, v) {
		char path[256];

		snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "." : "", name);
		if (json_is_object(v) && depth < SETTINGS_DEPTH_MAX)
			settings_walk(c, path, v, depth + 1, rep);
		else
			settings_one(c, path, v, rep);
	}
}

static char *settings_default_str(char **at, const char *s)
{
	if (!*at)
		*at = strdup(s);
	return *at;
}

static void settings_defaults(struct settings *c)
{
	c->unix_socket_mode = 0770;
	c->derp.region_id = 999;
	c->derp.verify_clients = c->derp.auto_add = c->derp.auto_update = true;
	c->derp.update_sec = 3 * 3600;
	c->db_wal = c->dns.magic = c->taildrop = true;
	c->ephemeral_sec = 120;
	c->log_level = LOG_LEVEL_INFO;
}

/* A mesh of one family names that one. What cannot be read is one problem, not a family that is missing as well. */
static void settings_default_prefixes(struct settings *c, const json_t *tree)
{
	const json_t *named = json_get(tree, "prefixes"), *v4 = json_get(named, "v4"), *v6 = json_get(named, "v6");
	bool none = !v4 && !v6;

	if (none || json_string_length(v4))
		prefix_parse("100.64.0.0/10", 13, &c->v4);
	if (none || json_string_length(v6))
		prefix_parse("fd7a:115c:a1e0::/48", 19, &c->v6);
}

/* Headscale's is true, and refuses the start where no server is named: those who name none mean none. */
static void settings_default_override(struct settings *c, const json_t *tree)
{
	if (!json_get(json_get(tree, "dns"), "override_local_dns"))
		c->dns.override_local = c->dns.global.n > 0;
}

static bool settings_default_strings(struct settings *c)
{
	return settings_default_str(&c->server_url, "http://127.0.0.1:8080") &&
	       settings_default_str(&c->listen_addr, "127.0.0.1:8080") &&
	       settings_default_str(&c->unix_socket, SETTINGS_SOCKET_DEFAULT) &&
	       settings_default_str(&c->noise_key_path, SETTINGS_STATE_DEFAULT "/noise_private.key") &&
	       settings_default_str(&c->derp.region_code, "kernscale") &&
	       settings_default_str(&c->derp.region_name, "Kernscale embedded relay") &&
	       settings_default_str(&c->derp.stun_listen_addr, "0.0.0.0:3478") &&
	       settings_default_str(&c->derp.private_key_path, SETTINGS_STATE_DEFAULT "/derp_private.key") &&
	       settings_default_str(&c->db_path, SETTINGS_STATE_DEFAULT "/db.sqlite") &&
	       settings_default_str(&c->dns.base_domain, "");
}

/* Every scalar as text: the reader of a key knows its type, YAML's guess does not matter. */
static json_t *settings_as_text(const json_t *v)
{
	const char *name;
	json_t *e, *o;
	size_t i;

	switch (json_typeof(v)) {
	case JSON_OBJECT:
		o = json_object();
		json_object_foreach((json_t *)(uintptr_t)v, name, e)
			json_object_set_new(o, name, settings_as_text(e));
		return o;
	case JSON_ARRAY:
		o = json_array();
		json_array_foreach(v, i, e)
			json_array_append_new(o, settings_as_text(e));
		return o;
	case JSON_TRUE:
		return json_string("true");
	case JSON_FALSE:
		return json_string("false");
	case JSON_INTEGER:
		return json_sprintf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
	case JSON_REAL:
		return json_sprintf("%g", json_real_value(v));
	case JSON_STRING:
	case JSON_NULL:
		break;
	}
	return json_deep_copy(v);
}

int settings_parse(const void *text, size_t len, struct settings *ret, struct settings_report *report)
{
	CLEANUP(settings_done) struct settings c = { 0 };
	CLEANUP(json_decref) json_t *raw = NULL;
	CLEANUP(json_decref) json_t *tree = NULL;
	char why[YAML_ERROR_MAX];

	settings_defaults(&c);
	if (yaml_read(text, len, &raw, why) < 0) {
		settings_problem(report, "%s", why);
		return -EINVAL;
	}
	tree = settings_as_text(raw);
	if (!json_is_object(tree)) {
		settings_problem(report, "not a list of keys and values");
		return -EINVAL;
	}
	settings_default_prefixes(&c, tree);
	settings_walk(&c, "", tree, 0, report);
	settings_default_override(&c, tree);
	if (!settings_default_strings(&c))
		return -ENOMEM;
	settings_check(&c, report);
	if (report->problems.len)
		return -EINVAL;
	*ret = c;
	c = (struct settings){ 0 };
	return 0;
}

int settings_load(const char *path, struct settings *ret, struct settings_report *report)
{
	CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP(buf_done) struct buf b = { .max = YAML_BYTES_MAX + 1 };
	ssize_t n;

	if (fd < 0) {
		settings_problem(report, "%s", strerror(errno));
		return -EINVAL;
	}
	do {
		uint8_t *p = buf_tail(&b, 65536 - 1);

		n = p ? read(fd, p, 65536 - 1) : -1;
		if (n > 0)
			buf_commit(&b, (size_t)n);
	} while (n > 0 && b.len <= YAML_BYTES_MAX);
	if (n < 0) {
		settings_problem(report, "%s", b.bad ? "too large" : strerror(errno));
		return -EINVAL;
	}
	return settings_parse(buf_data(&b), b.len, ret, report);
}
