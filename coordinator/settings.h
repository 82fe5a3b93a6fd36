#pragma once
/*
 * settings: the coordinator's configuration file, checked as a whole, as one struct.
 *
 * YAML with Headscale's key names and meanings, so that its users bring their file. Decides from the
 * text alone; opens nothing but the file itself and an (allowed only when empty) policy file. What
 * is unknown is named in a warning; what we do not do yet and would be unsafe to ignore is a
 * problem, and all problems are given in one go.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#define SETTINGS_PATH_DEFAULT   "/etc/kernscale-coordinator/config.yaml"
#define SETTINGS_STATE_DEFAULT  "/var/lib/kernscale-coordinator"
#define SETTINGS_SOCKET_DEFAULT "/run/kernscale-coordinator/admin.sock"
#define SETTINGS_LIST_MAX	      256

struct settings_list {
	char **v;
	size_t n;
};

struct settings_split {
	char *domain;
	struct settings_list servers;
};

struct settings_record {
	char *name, *type, *value;
};

struct settings {
	char *server_url;  /* without a trailing slash */
	bool server_https; /* by its scheme */
	char *server_host; /* without brackets */
	uint16_t server_port;

	char *listen_addr; /* as written; listen is what it says */
	struct endpoint listen;
	char *unix_socket;
	unsigned int unix_socket_mode;
	char *noise_key_path;
	char *tls_cert_path, *tls_key_path;

	struct prefix v4, v6; /* family 0: none */
	bool allocate_random;

	struct {
		bool enabled;
		uint32_t region_id;
		char *region_code, *region_name;
		char *stun_listen_addr;
		struct endpoint stun;
		char *private_key_path;
		bool verify_clients;
		char *ipv4, *ipv6;
		bool auto_add;
		struct settings_list urls, paths;
		bool auto_update;
		uint64_t update_sec;
	} derp;

	char *db_path;
	bool db_wal;

	struct {
		bool magic;
		char *base_domain; /* "" = none */
		bool override_local;
		struct settings_list global, search;
		struct settings_split *split;
		size_t n_split;
		struct settings_record *records;
		size_t n_records;
	} dns;

	uint64_t node_expiry_sec; /* 0 = never */
	uint64_t ephemeral_sec;

	enum log_level log_level;
	bool logtail, taildrop, auto_update, randomize_port;
	char *policy_path; /* given and empty: allow all, as without */
};

/* What is wrong (refuses the start) and what should be known, one line each. */
struct settings_report {
	struct buf problems, warnings;
};

void settings_report_done(struct settings_report *r);

void settings_done(struct settings *c);
static inline void settings_done_cleanup(struct settings *c)
{
	settings_done(c);
}

/* From text. 0; -EINVAL with problems in the report (the config is then empty). */
int settings_parse(const void *text, size_t len, struct settings *ret, struct settings_report *report);
int settings_load(const char *path, struct settings *ret, struct settings_report *report);
/* "30m", "24h", "180d", "0", "1h30m", a bare number is nanoseconds only when 0. -EBADMSG. */
int settings_duration_parse(const char *s, uint64_t *ret_sec);
