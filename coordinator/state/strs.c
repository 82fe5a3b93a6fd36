#include "coordinator/state/strs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void strs_done(struct strs *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	*s = (struct strs){ 0 };
}

int strs_add(struct strs *s, const char *v)
{
	char **grown = reallocarray(s->v, s->n + 1, sizeof(*s->v));

	if (!grown)
		return -ENOMEM;
	s->v = grown;
	s->v[s->n] = strdup(v);
	if (!s->v[s->n])
		return -ENOMEM;
	s->n++;
	return 0;
}

int strs_copy(const struct strs *s, struct strs *ret)
{
	CLEANUP(strs_done) struct strs c = { 0 };

	for (size_t i = 0; i < s->n; i++)
		if (strs_add(&c, s->v[i]) < 0)
			return -ENOMEM;
	*ret = c;
	c = (struct strs){ 0 };
	return 0;
}

bool strs_has(const struct strs *s, const char *v)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i], v))
			return true;
	return false;
}

bool strs_equal(const struct strs *a, const struct strs *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->v[i], b->v[i]))
			return false;
	return true;
}

int strs_from_json(const json_t *v, size_t max, struct strs *ret)
{
	CLEANUP(strs_done) struct strs c = { 0 };
	const json_t *e;
	size_t i;

	if (v && !json_is_null(v) && !json_is_array(v))
		return -EBADMSG;
	if (json_array_size(v) > max)
		return -ENOBUFS;
	json_array_foreach(v, i, e) {
		if (!json_is_string(e) || strlen(json_string_value(e)) != json_string_length(e))
			return -EBADMSG;
		if (strs_add(&c, json_string_value(e)) < 0)
			return -ENOMEM;
	}
	*ret = c;
	c = (struct strs){ 0 };
	return 0;
}

json_t *strs_json(const struct strs *s)
{
	json_t *a = json_array();

	for (size_t i = 0; a && i < s->n; i++)
		json_array_append_new(a, json_string(s->v[i]));
	return a;
}
