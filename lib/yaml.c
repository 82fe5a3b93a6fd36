#include "lib/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

#include "lib/cleanup.h"
#include "lib/json.h"

struct reader {
	yaml_parser_t parser;
	unsigned int nodes;
	char *error;
};

__attribute__((format(printf, 4, 5))) static int fail(struct reader *r, int code, size_t line,
						       const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(r->error, YAML_ERROR_MAX, "line %zu: ", line + 1);

	va_start(ap, fmt);
	vsnprintf(r->error + n, YAML_ERROR_MAX - (size_t)n, fmt, ap);
	va_end(ap);
	return code;
}

static int next(struct reader *r, yaml_event_t *e)
{
	if (!yaml_parser_parse(&r->parser, e))
		return fail(r, -EBADMSG, r->parser.problem_mark.line, "%s",
			    r->parser.problem ? r->parser.problem : "not YAML");
	if (++r->nodes > YAML_NODES_MAX)
		return fail(r, -ENOBUFS, e->start_mark.line, "more than %d values", YAML_NODES_MAX);
	return 0;
}

/* YAML 1.2 core schema, as far as a configuration file needs it. */
static json_t *plain_scalar(const char *s, size_t len)
{
	char *end;
	long long i;
	double d;

	if (len == 0 || strcmp(s, "~") == 0 || strcasecmp(s, "null") == 0)
		return json_null();
	if (strcasecmp(s, "true") == 0)
		return json_true();
	if (strcasecmp(s, "false") == 0)
		return json_false();
	if (strspn(s, "+-0123456789") == len) {
		errno = 0;
		i = strtoll(s, &end, 10);
		if (errno == 0 && *end == '\0' && end != s)
			return json_integer(i);
	}
	if (strspn(s, "+-.0123456789eE") == len && strpbrk(s, "0123456789")) {
		errno = 0;
		d = strtod(s, &end);
		if (errno == 0 && *end == '\0')
			return json_real(d);
	}
	return json_stringn(s, len);
}

static int read_value(struct reader *r, yaml_event_t *e, unsigned int depth, json_t **ret);

static int read_sequence(struct reader *r, unsigned int depth, json_t **ret)
{
	CLEANUP(json_decref) json_t *list = json_array();

	if (!list)
		return -ENOMEM;
	for (;;) {
		yaml_event_t e;
		json_t *v = NULL;
		bool end;
		int q = next(r, &e);

		if (q < 0)
			return q;
		end = e.type == YAML_SEQUENCE_END_EVENT;
		if (!end)
			q = read_value(r, &e, depth + 1, &v);
		yaml_event_delete(&e);
		if (q < 0)
			return q;
		if (end)
			break;
		if (json_array_append_new(list, v) < 0)
			return -ENOMEM;
	}
	*ret = TAKE(list);
	return 0;
}

static int read_mapping(struct reader *r, unsigned int depth, json_t **ret)
{
	CLEANUP(json_decref) json_t *map = json_object();

	if (!map)
		return -ENOMEM;
	for (;;) {
		CLEANUP(json_decref) json_t *key = NULL;
		yaml_event_t e;
		json_t *v = NULL;
		size_t line;
		bool end;
		int q = next(r, &e);

		if (q < 0)
			return q;
		line = e.start_mark.line;
		end = e.type == YAML_MAPPING_END_EVENT;
		if (!end && e.type != YAML_SCALAR_EVENT)
			q = fail(r, -EBADMSG, line, "a key must be a plain word");
		else if (!end)
			key = json_stringn((const char *)e.data.scalar.value, e.data.scalar.length);
		yaml_event_delete(&e);
		if (q < 0)
			return q;
		if (end)
			break;
		if (!key)
			return fail(r, -EBADMSG, line, "a key is not UTF-8");
		if (json_object_get(map, json_string_value(key)))
			return fail(r, -EBADMSG, line, "'%s' is given twice", json_string_value(key));
		q = next(r, &e);
		if (q < 0)
			return q;
		q = read_value(r, &e, depth + 1, &v);
		yaml_event_delete(&e);
		if (q < 0)
			return q;
		if (json_object_set_new(map, json_string_value(key), v) < 0)
			return -ENOMEM;
	}
	*ret = TAKE(map);
	return 0;
}

static int read_value(struct reader *r, yaml_event_t *e, unsigned int depth, json_t **ret)
{
	const char *s;
	json_t *v;

	if (depth > YAML_DEPTH_MAX)
		return fail(r, -ENOBUFS, e->start_mark.line, "nested deeper than %d", YAML_DEPTH_MAX);
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		s = (const char *)e->data.scalar.value;
		v = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ?
			    plain_scalar(s, e->data.scalar.length) :
			    json_stringn(s, e->data.scalar.length);
		if (!v)
			return fail(r, -EBADMSG, e->start_mark.line, "text is not UTF-8");
		*ret = v;
		return 0;
	case YAML_SEQUENCE_START_EVENT:
		return read_sequence(r, depth, ret);
	case YAML_MAPPING_START_EVENT:
		return read_mapping(r, depth, ret);
	default:
		return fail(r, -EBADMSG, e->start_mark.line, "aliases are not supported");
	}
}

static int read_document(struct reader *r, json_t **ret)
{
	CLEANUP(json_decref) json_t *doc = NULL;
	yaml_event_t e;
	int q;

	for (;;) {
		yaml_event_type_t type;

		q = next(r, &e);
		if (q < 0)
			return q;
		type = e.type;
		if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
		    type != YAML_DOCUMENT_END_EVENT && type != YAML_STREAM_END_EVENT) {
			if (doc)
				q = fail(r, -EBADMSG, e.start_mark.line, "a second document");
			else
				q = read_value(r, &e, 0, &doc);
		}
		yaml_event_delete(&e);
		if (q < 0)
			return q;
		if (type == YAML_STREAM_END_EVENT)
			break;
	}
	if (!doc || json_is_null(doc)) {
		json_decref(doc);
		doc = json_object();
	}
	if (!doc)
		return -ENOMEM;
	*ret = TAKE(doc);
	return 0;
}

int yaml_read(const void *p, size_t len, json_t **ret, char error[static YAML_ERROR_MAX])
{
	struct reader r = { .error = error };
	int q;

	error[0] = '\0';
	if (len > YAML_BYTES_MAX)
		return fail(&r, -ENOBUFS, 0, "longer than %d bytes", YAML_BYTES_MAX);
	if (!yaml_parser_initialize(&r.parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&r.parser, p, len);
	q = read_document(&r, ret);
	yaml_parser_delete(&r.parser);
	if (q < 0 && error[0] == '\0')
		snprintf(error, YAML_ERROR_MAX, "%s", strerror(-q));
	return q;
}

int yaml_read_file(const char *path, json_t **ret, char error[static YAML_ERROR_MAX])
{
	CLEANUP(buf_done) struct buf b = { .max = YAML_BYTES_MAX + 4096 };
	CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0) {
		n = -errno;
		snprintf(error, YAML_ERROR_MAX, "%s", strerror(errno));
		return (int)n;
	}
	do {
		uint8_t *tail = buf_tail(&b, 4096);

		if (!tail)
			return yaml_read(buf_data(&b), YAML_BYTES_MAX + 1, ret, error);
		n = read(fd, tail, 4096);
		if (n < 0) {
			n = -errno;
			snprintf(error, YAML_ERROR_MAX, "%s", strerror(errno));
			return (int)n;
		}
		buf_commit(&b, (size_t)n);
	} while (n > 0);
	return yaml_read(buf_data(&b), b.len, ret, error);
}
