#pragma once
/*
 * strs: a short list of strings that owns them (tags, routes).
 */
#include <stdbool.h>
#include <stddef.h>

#include "lib/json.h"

struct strs {
	char **v;
	size_t n;
};

void strs_done(struct strs *s);
static inline void strs_done_cleanup(struct strs *s)
{
	strs_done(s);
}
int strs_add(struct strs *s, const char *v);
int strs_copy(const struct strs *s, struct strs *ret);
bool strs_has(const struct strs *s, const char *v);
bool strs_equal(const struct strs *a, const struct strs *b); /* order counts */
/* A JSON array of strings (absent, null: empty). -EBADMSG, -ENOBUFS over max. */
int strs_from_json(const json_t *v, size_t max, struct strs *ret);
json_t *strs_json(const struct strs *s);
