#pragma once
/*
 * out: text for people and JSON for programs: columns, durations, ages, byte counts, safe names.
 *
 * Pure but for out_json(): everything goes to a struct buf. What comes from elsewhere is escaped
 * before it reaches a terminal: control characters, and those that turn the direction of text.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/buf.h"

#define OUT_COLUMNS_MAX	 16
#define OUT_DURATION_MAX 40

/* Appends s with everything escaped that could act on a terminal; broken UTF-8 as \xNN. */
void out_safe(struct buf *b, const char *s);

/* Rows of cells, printed with each column as wide as its widest cell. */
struct out_table {
	char **cells; /* owned; rows * columns */
	size_t columns, n;
	bool bad;
};
void out_table_init(struct out_table *t, size_t columns);
void out_table_done(struct out_table *t);
void out_table_cell(struct out_table *t, const char *s); /* escapes */
void out_table_cellf(struct out_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* between: what stands between two columns ("  ", " | "). No blanks at the end of a line. */
void out_table_print(const struct out_table *t, const char *between, struct buf *out);

/* As Go prints durations: 0s, 400µs, 12.3ms, 1.203s, 1m0.5s, 24h0m0s. */
const char *out_duration(int64_t nsec, char out[static OUT_DURATION_MAX]);
/* "30s", "1m30s", "1.5h", "90d", "0"; up to 100 years. -EINVAL. */
int out_duration_parse(const char *s, int64_t *ret_msec);
/* From then to now in nanoseconds; 0 when then is later. */
int64_t out_since(int64_t now_unix_nsec, int64_t then_unix_nsec);
/* "5m ago", "3h ago", "2d ago"; at least a minute. */
const char *out_age(int64_t now_unix_nsec, int64_t then_unix_nsec, char out[static OUT_DURATION_MAX]);
/* "1 minute, 4 seconds" */
const char *out_ago_words(int64_t nsec, char out[static 80]);
/* "1.20 MiB" */
const char *out_bytes(uint64_t n, char out[static 32]);

/* Pretty: indent with two blanks, or tabs. Ends with a newline. */
enum out_json_form { OUT_JSON_BLANKS, OUT_JSON_TABS, OUT_JSON_LINE };
int out_json(FILE *f, const json_t *j, enum out_json_form form);
int out_json_buf(struct buf *b, const json_t *j, enum out_json_form form, bool ascii);
/* Everything in b to f; 0 or negative errno. */
int out_flush(FILE *f, const struct buf *b);

int64_t out_now(void); /* wall clock, Unix nanoseconds */
