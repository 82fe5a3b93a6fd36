#pragma once
/*
 * json: jansson with limits, and the forgiving reads that the control protocol asks for.
 *
 * Absent and null are the same to the getters (control.md 0.1). All strings they give are borrowed
 * from the tree. Numbers are 64-bit integers, never doubles. One thread of a process does all of this.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/key.h"

DEFINE_CLEANUP(json_t *, json_decref)

#define JSON_DEPTH_MAX 32

/* Parses len bytes (at most max_bytes, at most JSON_DEPTH_MAX levels). -ENOBUFS over a limit, -EBADMSG,
 * -ENOMEM. */
int json_read(const void *p, size_t len, size_t max_bytes, json_t **ret);
/* The same with no limits, which the caller has looked at, and with jansson's flags. By itself jansson says of text for
 * which it has no memory that it is no JSON, and may take a number or word that it has cut short. */
int json_parse(const void *p, size_t len, size_t flags, json_t **ret);
/* Appends compact JSON. Steals nothing. -ENOMEM also when there was none while the tree was made, which then lacks
 * members: since the last call of these. */
int json_write(const json_t *j, struct buf *out);

/* For who scans text: what opens or closes something, and the end of a string (p is behind its opening quote), NULL
 * where it has none. */
extern const bool json_brackets[256];
const char *json_string_end(const char *p, const char *end);

/* Member access on an object; NULL/absent/null/wrong type give the default. */
json_t *json_get(const json_t *o, const char *name); /* NULL when absent or null */
const char *json_get_str(const json_t *o, const char *name); /* NULL when absent */
int64_t json_get_int(const json_t *o, const char *name, int64_t dflt);
bool json_get_bool(const json_t *o, const char *name, bool dflt);
double json_get_real(const json_t *o, const char *name, double dflt);
/* 0 with *ret set; -ENOENT absent; -EBADMSG malformed. */
int json_get_key(const json_t *o, const char *name, enum key_kind kind, struct key *ret);
int json_parse_prefix(const json_t *v, struct prefix *ret);
int json_parse_endpoint(const json_t *v, struct endpoint *ret);

/* RFC 3339 to Unix nanoseconds; the zero time "0001-01-01T00:00:00Z" gives 0 ("unset"). -EBADMSG. */
int json_time_parse(const char *s, int64_t *ret_unix_nsec);
/* Unix nanoseconds to RFC 3339 with "Z"; 0 gives the zero time. out: 40 bytes. */
const char *json_time_text(int64_t unix_nsec, char out[static 40]);

json_t *json_key(enum key_kind kind, const struct key *k);
json_t *json_prefix(const struct prefix *p);
json_t *json_endpoint(const struct endpoint *e);
json_t *json_addr(const struct addr *a);
