#pragma once
/*
 * jsonscan: cuts JSON text at its brackets, so that a big list is parsed one element at a time.
 *
 * Borrows the text; never allocates. It finds where values begin and end and checks no more than
 * that needs: what is inside a value is checked by whoever parses it (json_slice_read), which is also where nesting is
 * limited to JSON_DEPTH_MAX. Cutting allows for some levels more, so that what can be read stays readable inside of
 * something else: a map in its cache.
 */
#include <stdbool.h>
#include <stddef.h>

#include "lib/json.h"

struct json_slice {
	const char *p; /* NULL: no such value */
	size_t len;
};

struct json_scan {
	const char *p, *end;
	char close; /* the bracket that ends the container */
	bool first, bad, over;
};

/* Opens the object or array that is the whole of text. -EBADMSG when it is not one. */
int json_scan_object(struct json_slice text, struct json_scan *ret);
int json_scan_array(struct json_slice text, struct json_scan *ret);

/* The next member or element; false at the end, or when the text is malformed: json_scan_ok tells.
 * A name is the raw text between its quotes. */
bool json_scan_member(struct json_scan *s, struct json_slice *ret_name,
		      struct json_slice *ret_value);
bool json_scan_element(struct json_scan *s, struct json_slice *ret_value);

/* True when the container ended properly and nothing but space follows it. */
static inline bool json_scan_ok(const struct json_scan *s)
{
	return s->over && !s->bad;
}

bool json_slice_is(struct json_slice s, const char *text);
static inline bool json_slice_is_null(struct json_slice s)
{
	return !s.p || json_slice_is(s, "null");
}

/* What a tree may take in memory: of some texts, "[[],[],[]…", it is a hundred times as large as they are. */
#define JSON_TREE_MAX (64u << 20)

/* Parses one value of any type. -EBADMSG (also for too deep), -ENOBUFS (over JSON_TREE_MAX). */
int json_slice_read(struct json_slice s, json_t **ret);

/* An integer member of an object text, without parsing the rest. -ENOENT, -EBADMSG. */
int json_slice_int(struct json_slice object, const char *name, int64_t *ret);
