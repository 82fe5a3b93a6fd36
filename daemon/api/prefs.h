#pragma once
/*
 * prefs: what a user may set of a node, as one bounded value, and its JSON form.
 *
 * Pure: no I/O. `set` says which members carry a value: in a request those are the changes, in a
 * stored or reported value all of them. JSON keys are the names of the flags, as stock's `get --json`
 * prints them ("login-server", "accept-dns", …). Secrets (the auth key) are no preferences: they are
 * in struct api_up.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"

#define PREFS_URL_MAX	 512
#define PREFS_NAME_MAX	 64
#define PREFS_ROUTES_MAX 256
#define PREFS_TAGS_MAX	 64
#define PREFS_WHY_MAX	 200

enum prefs_member {
	PREFS_LOGIN_SERVER = 1u << 0,
	PREFS_HOSTNAME = 1u << 1,
	PREFS_ACCEPT_DNS = 1u << 2,
	PREFS_ACCEPT_ROUTES = 1u << 3,
	PREFS_ADVERTISE_ROUTES = 1u << 4,
	PREFS_ADVERTISE_EXIT_NODE = 1u << 5,
	PREFS_ADVERTISE_TAGS = 1u << 6,
	PREFS_EXIT_NODE = 1u << 7,
	PREFS_EXIT_NODE_LAN = 1u << 8,
	PREFS_SHIELDS_UP = 1u << 9,
	PREFS_SSH = 1u << 10,
	PREFS_SNAT = 1u << 11,
	PREFS_STATEFUL = 1u << 12,
	PREFS_NETFILTER_MODE = 1u << 13,
	PREFS_OPERATOR = 1u << 14,
	PREFS_NICKNAME = 1u << 15,
	PREFS_POSTURE = 1u << 16,
	PREFS_ALL = (1u << 17) - 1,
};

struct prefs {
	uint32_t set; /* enum prefs_member bits */
	char login_server[PREFS_URL_MAX]; /* "http://host[:port]" or "https://…", no trailing slash */
	char hostname[PREFS_NAME_MAX];	  /* "" = the machine's own */
	char exit_node[PREFS_NAME_MAX];	  /* "" = none */
	char operator_user[PREFS_NAME_MAX];
	char nickname[PREFS_NAME_MAX];
	char netfilter_mode[12]; /* "on", "nodivert", "off" */
	bool accept_dns, accept_routes, advertise_exit_node, exit_node_lan, shields_up, ssh, snat,
		stateful, posture;
	size_t n_routes, n_tags;
	struct prefix routes[PREFS_ROUTES_MAX];
	char tags[PREFS_TAGS_MAX][PREFS_NAME_MAX]; /* "tag:x" */
};

/* The flag's name of one member. */
const char *prefs_name(enum prefs_member m);
/* The values of a fresh node; all members set. */
void prefs_default(struct prefs *ret);
/* Only the members present are set. -EBADMSG with a sentence in why (unknown member, wrong type,
 * bad value). */
int prefs_from_json(const json_t *j, struct prefs *ret, char why[static PREFS_WHY_MAX]);
/* The members that are set. NULL without memory. */
json_t *prefs_to_json(const struct prefs *p);
/* Takes the set members of change over into p; gives the bits of those that differ. */
uint32_t prefs_merge(struct prefs *p, const struct prefs *change);
/*
 * What this version does not act on yet has one value that is true today. -EOPNOTSUPP with a sentence that
 * names the flag when p sets another one; 0 when every member set is either acted on or already so.
 */
int prefs_check_supported(const struct prefs *p, char why[static PREFS_WHY_MAX]);
