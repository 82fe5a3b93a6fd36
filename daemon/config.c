#include "daemon/config.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/json.h"
#include "lib/yaml.h"

enum kind { KIND_TEXT, KIND_PORT, KIND_U32, KIND_LOG, KIND_BOOL };

/* One row for each setting: its long option is its key in the file. */
static const struct setting {
	const char *name;
	enum kind kind;
	size_t offset, size;
	bool in_file;
	const char *arg, *help;
} settings[] = {
#define TEXT(n, field, in, a, h)                                                                   \
	{ n, KIND_TEXT, offsetof(struct config, field), sizeof(((struct config *)0)->field), in, a, h }
#define OTHER(n, k, field, a, h)                                                                   \
	{ n, k, offsetof(struct config, field), 0, true, a, h }
	TEXT("config", file, false, "FILE", "settings (default " CONFIG_FILE ", may be missing)"),
	TEXT("statedir", statedir, true, "DIR", "keys and the last map (default " CONFIG_STATEDIR ")"),
	TEXT("runtimedir", runtimedir, true, "DIR", "what lives until a reboot (default " CONFIG_RUNTIMEDIR ")"),
	TEXT("socket", socket, true, "PATH", "local API (default: kernscaled.sock in the runtime folder)"),
	TEXT("ca-file", ca_file, true, "FILE", "trust these certificate authorities (PEM) beside the system's"),
	TEXT("interface", interface, true, "NAME", "network interface (default kernscale0)"),
	TEXT("table", table, true, "NAME", "nftables table, family inet (default kernscale)"),
	TEXT("user", user, true, "USER", "NAME or UID:GID to become when started as root (default kernscale)"),
	OTHER("port", KIND_PORT, port, "PORT", "UDP port of WireGuard and discovery (default 41641, 0 = any)"),
	OTHER("route-table", KIND_U32, route_table, "N", "routing table (default 52)"),
	OTHER("rule-base", KIND_U32, rule_base, "N", "first priority of our routing rules (default 5200)"),
	OTHER("lan-first", KIND_BOOL, lan_first, "BOOL", "routes of local networks win over the mesh's (default true)"),
	OTHER("raw-port-sharing", KIND_BOOL, port_sharing_raw, NULL, "share the port by raw sockets instead of nftables"),
	OTHER("allow-plain-relay", KIND_BOOL, allow_plain_relay, NULL, "use relays without TLS (closed networks)"),
	OTHER("verbose", KIND_LOG, log_level, "LEVEL", "err, warning, notice, info, debug or 3..7 (default info)"),
#undef TEXT
#undef OTHER
};

static int set_value(const struct setting *s, const char *value, struct config *c, char *error)
{
	char *field = (char *)c + s->offset, *end;
	unsigned long n;

	switch (s->kind) {
	case KIND_TEXT:
		if (strlen(value) >= s->size || (value[0] == '\0' && s->in_file)) {
			snprintf(error, CONFIG_ERROR_MAX, "%s: must have 1 to %zu characters", s->name,
				 s->size - 1);
			return -EINVAL;
		}
		memcpy(field, value, strlen(value) + 1);
		return 0;
	case KIND_PORT:
	case KIND_U32:
		errno = 0;
		n = strtoul(value, &end, 10);
		if (errno || end == value || *end || value[0] == '-' ||
		    n > (s->kind == KIND_PORT ? 65535ul : 0x7ffffffful)) {
			snprintf(error, CONFIG_ERROR_MAX, "%s: '%.60s' is not a number from 0 to %lu",
				 s->name, value, s->kind == KIND_PORT ? 65535ul : 0x7ffffffful);
			return -EINVAL;
		}
		if (s->kind == KIND_PORT)
			memcpy(field, &(uint16_t){ (uint16_t)n }, sizeof(uint16_t));
		else
			memcpy(field, &(uint32_t){ (uint32_t)n }, sizeof(uint32_t));
		return 0;
	case KIND_LOG:
		if (log_level_parse(value, &c->log_level) < 0) {
			snprintf(error, CONFIG_ERROR_MAX,
				 "%s: '%s' is none of err, warning, notice, info, debug, 3..7",
				 s->name, value);
			return -EINVAL;
		}
		return 0;
	case KIND_BOOL:
		if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0) {
			snprintf(error, CONFIG_ERROR_MAX, "%s: true or false, not '%s'", s->name, value);
			return -EINVAL;
		}
		memcpy(field, &(bool){ value[0] == 't' }, sizeof(bool));
		return 0;
	}
	unreachable();
}

static const struct setting *setting_named(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		if (settings[i].in_file && strcmp(settings[i].name, name) == 0)
			return &settings[i];
	return NULL;
}

/* Applies the file to c. A missing file is fine unless it was asked for by name. */
static int load_file(const char *path, bool asked, struct config *c, char *error)
{
	CLEANUP(json_decref) json_t *doc = NULL;
	char why[YAML_ERROR_MAX], number[32];
	const char *name;
	json_t *v;
	int r = yaml_read_file(path, &doc, why);

	if (r == -ENOENT && !asked)
		return 0;
	if (r < 0 || !json_is_object(doc)) {
		snprintf(error, CONFIG_ERROR_MAX, "cannot use %.100s: %s", path,
			 r < 0 ? why : "not a list of settings");
		return -EINVAL;
	}
	json_object_foreach(doc, name, v) {
		const struct setting *s = setting_named(name);
		const char *text = number;

		if (!s) {
			snprintf(error, CONFIG_ERROR_MAX, "%.100s: unknown setting '%.60s'", path, name);
			return -EINVAL;
		}
		if (json_is_string(v))
			text = json_string_value(v);
		else if (json_is_integer(v))
			snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
		else if (json_is_boolean(v))
			text = json_is_true(v) ? "true" : "false";
		else
			text = "";
		r = set_value(s, text, c, error);
		if (r < 0)
			return r;
	}
	return 0;
}

static void print_help(void)
{
	printf("usage: kernscaled [options]\n\n"
	       "Joins this host to a mesh: programs the kernel's WireGuard, finds direct paths and\n"
	       "bridges relays. Told what to do by wgctl(8).\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		printf("  --%s%s%-*s %s\n", settings[i].name, settings[i].arg ? " " : "",
		       (int)(22 - strlen(settings[i].name) - (settings[i].arg ? 1 : 0)),
		       settings[i].arg ? settings[i].arg : "", settings[i].help);
	printf("  --%-22s %s\n  --%-22s %s\n  --%-22s %s\n  --%-22s %s\n", "hold-filter",
	       "after the daemon's death: keep the packet filter, and end", "check-config",
	       "check the settings and end", "version", "print the version", "help, -h", "print this");
}

/* Names that go into the kernel's tables and into file paths. */
static int check_names(const struct config *c, char *error)
{
	static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

	if (strspn(c->interface, ok) != strlen(c->interface) || c->interface[0] == '-') {
		snprintf(error, CONFIG_ERROR_MAX, "interface: '%s' is not a name for an interface",
			 c->interface);
		return -EINVAL;
	}
	if (strspn(c->table, ok) != strlen(c->table) || c->table[0] == '-') {
		snprintf(error, CONFIG_ERROR_MAX, "table: '%s' is not a name for a table", c->table);
		return -EINVAL;
	}
	if (c->route_table == 0 || c->route_table == 253 || c->route_table == 254 ||
	    c->route_table == 255) {
		snprintf(error, CONFIG_ERROR_MAX, "route-table: %u belongs to the system",
			 c->route_table);
		return -EINVAL;
	}
	if (c->rule_base == 0 || c->rule_base > CONFIG_RULE_BASE_MAX) {
		snprintf(error, CONFIG_ERROR_MAX, "rule-base: must be 1 to %d", CONFIG_RULE_BASE_MAX);
		return -EINVAL;
	}
	return 0;
}

enum { OPT_FIRST = 1000, OPT_VERSION = 2000, OPT_CHECK, OPT_HOLD, OPT_HELP = 'h' };

/* Fills given, one for each of settings[]. 1: help or version has been printed. */
static int read_options(int argc, char **argv, const char *given[static ARRAY_SIZE(settings)],
			struct config *ret, char *error)
{
	struct option longs[ARRAY_SIZE(settings) + 5] = { 0 };
	int o;

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		longs[i] = (struct option){ settings[i].name,
					    settings[i].arg ? required_argument : no_argument, NULL,
					    OPT_FIRST + (int)i };
	longs[ARRAY_SIZE(settings)] = (struct option){ "version", no_argument, NULL, OPT_VERSION };
	longs[ARRAY_SIZE(settings) + 1] = (struct option){ "help", no_argument, NULL, OPT_HELP };
	longs[ARRAY_SIZE(settings) + 2] = (struct option){ "check-config", no_argument, NULL, OPT_CHECK };
	longs[ARRAY_SIZE(settings) + 3] = (struct option){ "hold-filter", no_argument, NULL, OPT_HOLD };
	optind = 0;
	opterr = 0;
	while ((o = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (o == OPT_VERSION) {
			printf("kernscaled %s\n", KERNSCALE_VERSION);
			return 1;
		}
		if (o == OPT_HELP) {
			print_help();
			return 1;
		}
		if (o == OPT_CHECK) {
			ret->check_only = true;
			continue;
		}
		if (o == OPT_HOLD) {
			ret->hold_filter = true;
			continue;
		}
		if (o < OPT_FIRST) {
			snprintf(error, CONFIG_ERROR_MAX, "%s '%.100s': see kernscaled --help",
				 o == ':' ? "no value for" : "unknown option", argv[optind - 1]);
			return -EINVAL;
		}
		given[o - OPT_FIRST] = settings[o - OPT_FIRST].arg ? optarg : "true";
	}
	if (optind < argc) {
		snprintf(error, CONFIG_ERROR_MAX, "unknown word '%.100s': see kernscaled --help",
			 argv[optind]);
		return -EINVAL;
	}
	return 0;
}

int config_load(int argc, char **argv, struct config *ret, char error[static CONFIG_ERROR_MAX])
{
	struct config c = {
		.file = CONFIG_FILE,
		.statedir = CONFIG_STATEDIR,
		.runtimedir = CONFIG_RUNTIMEDIR,
		.interface = "kernscale0",
		.table = "kernscale",
		.user = "kernscale",
		.port = CONFIG_PORT,
		.route_table = CONFIG_ROUTE_TABLE,
		.rule_base = CONFIG_RULE_BASE,
		.lan_first = true,
		.log_level = LOG_LEVEL_INFO,
	};
	const char *given[ARRAY_SIZE(settings)] = { 0 };
	int r = read_options(argc, argv, given, &c, error);

	if (r != 0)
		return r;
	if (given[0])
		snprintf(c.file, sizeof(c.file), "%s", given[0]);
	r = load_file(c.file, given[0], &c, error);
	if (r < 0 && c.hold_filter) { /* what keeps the daemon from starting must not open the filter */
		log_warning("%s", error);
		r = 0;
	}
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(settings); i++)
		if (given[i])
			r = set_value(&settings[i], given[i], &c, error);
	if (r < 0)
		return r;
	if (c.socket[0] == '\0') {
		if (strlen(c.runtimedir) + strlen("/kernscaled.sock") >= sizeof(c.socket)) {
			snprintf(error, CONFIG_ERROR_MAX, "runtimedir: too long for a socket in it");
			return -EINVAL;
		}
		snprintf(c.socket, sizeof(c.socket), "%.200s/kernscaled.sock", c.runtimedir);
	}
	r = check_names(&c, error);
	if (r < 0)
		return r;
	*ret = c;
	return 0;
}
