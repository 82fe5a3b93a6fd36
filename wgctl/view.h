#pragma once
/*
 * view: the daemon's JSON as text for people. Pure: JSON and the time in, a buffer out.
 *
 * Reads whatever JSON it is given: absent members and wrong types print as empty, never crash.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"

struct view_status {
	bool self, peers, active, header, detail, color;
	int64_t now_unix_nsec;
};
/* The table, details where wanted, the packet filter's and the health lines. */
void view_status(const json_t *status, const struct view_status *o, struct buf *out);
/* The sentence for a node that is not running ("Logged out.\nLog in at: …") and its exit status; NULL and
 * CLI_EXIT_GOOD when it runs or starts. */
const char *view_not_running(const json_t *status, struct buf *out, int *ret_exit);
/* "# Health check:" and its lines; nothing without any. */
void view_health(const json_t *status, struct buf *out);

/* Host name for people: the first label(s) of DNSName without the mesh's suffix, else ("name"). */
void view_peer_name(const json_t *status, const json_t *peer, struct buf *out);
/* The peer (or Self) that a name, FQDN or address means; NULL when none does. */
const json_t *view_find(const json_t *status, const char *name_or_ip, bool *ret_self);

/* "pong from NAME (IP) via DERP(code) in 12ms"; *ret_direct when it came by a direct path. */
void view_pong(const json_t *pong, struct buf *out, bool *ret_direct);
/* netcheck.md 11.1, beginning with an empty line. Local time of the process's zone. */
void view_netcheck(const json_t *report, bool verbose, struct buf *out);
void view_whois(const json_t *who, struct buf *out);
