#pragma once
/*
 * config: what kernscaled was told at start: one checked struct.
 *
 * Owns nothing but its own strings. The file (YAML, optional) gives values, the command line
 * overrides them. What a user changes at run time (login server, host name, …) is not here but in
 * prefs (daemon/state.h), set by `wgctl up`.
 */
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/log.h"

#define CONFIG_PATH_MAX	  256
#define CONFIG_ERROR_MAX  384
#define CONFIG_FILE	  "/etc/kernscale/kernscaled.yaml"
#define CONFIG_STATEDIR	  "/var/lib/kernscale"
#define CONFIG_RUNTIMEDIR "/run/kernscale"
#define CONFIG_PORT	  41641
#define CONFIG_ROUTE_TABLE 52
#define CONFIG_RULE_BASE   5200
#define CONFIG_RULE_BASE_MAX 32000 /* before the main table's */

struct config {
	char file[CONFIG_PATH_MAX];
	char statedir[CONFIG_PATH_MAX];
	char runtimedir[CONFIG_PATH_MAX];
	char socket[CONFIG_PATH_MAX];	 /* default: runtimedir/kernscaled.sock */
	char ca_file[CONFIG_PATH_MAX];	 /* more certificate authorities, PEM; "" = the system's alone */
	char interface[IFNAMSIZ];
	char table[32];			 /* nftables table */
	char user[64];			 /* NAME or UID:GID to become when started as root */
	uint16_t port;			 /* UDP; 0 = random, kept as long as the device lives */
	uint32_t route_table;
	uint32_t rule_base;
	bool lan_first;			 /* specific routes of the main table win over the mesh's */
	bool port_sharing_raw;		 /* raw sockets instead of nftables' tproxy */
	bool allow_plain_relay;		 /* relays without TLS, for closed networks */
	bool check_only;
	bool hold_filter;		 /* not the daemon, but what comes after its death */
	enum log_level log_level;
};

/* With hold_filter a file that cannot be used counts as far as it could be read.
 *
 * Command line, then file, then defaults for what neither named. Returns 0; 1 when it has printed
 * help or version and the program should end well; -EINVAL with one line in error. */
int config_load(int argc, char **argv, struct config *ret, char error[static CONFIG_ERROR_MAX]);
