/*
 * condense: makes test data of what record.c wrote: leaves out what is known, scrubs what is of one machine.
 *
 *   condense [--keys] [--known FILE]... [--only WHAT,WHAT] RECORDING... >STORY.jsonl
 *
 * A line stays when its shape is new: what it is, and of a text with JSON the set of its keys and the
 * kinds of their values, of a head the names of its headers, of a frame or datagram its type and length.
 * Known are the shapes of everything in the files given with --known, at any depth: recorded sessions,
 * earlier recordings. Of a map stream that has something new the first message stays too, and of a
 * control connection its registration. Keys and other long hexadecimal numbers are counted up in place
 * of what they were. --only names the kinds of line that came from a stock program. --keys prints the names of keys that no known file has instead, as PARENT.KEY.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/http.h"
#include "lib/json.h"

#define FILE_MAX (64u << 20)
#define LONG_HEX 20

/* A set of strings; its members live until the end. */
struct set {
	json_t *j;
};

static struct set known_shapes, known_keys;
static json_t *numbers; /* long hex -> its stand-in */
static const char *only;
static bool keys_only, telling;

static bool set_add(struct set *s, const char *text)
{
	if (!s->j)
		s->j = json_object();
	if (json_object_get(s->j, text))
		return false;
	json_object_set_new(s->j, text, json_true());
	return true;
}

/* ---- shapes of JSON */

/* Names that are data, not words of the protocol: ids, addresses, domains, capability URLs stay. */
static const char *key_name(const char *k)
{
	bool digits = *k != '\0', name = strchr(k, '.') && !strstr(k, "://");

	for (const char *p = k; *p; p++)
		digits = digits && (isdigit((unsigned char)*p) || *p == '-');
	return digits ? "#" : name ? "domain" : k;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void shape_of(const json_t *j, struct buf *out);

/* The members in order, each once. */
static void shape_members(char **part, size_t n, struct buf *out)
{
	qsort(part, n, sizeof(*part), by_text);
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || strcmp(part[i], part[i - 1]) != 0)
			buf_printf(out, "%s,", part[i]);
	}
	for (size_t i = 0; i < n; i++)
		free(part[i]);
	free(part);
}

static char *member_shape(const char *name, const json_t *v)
{
	struct buf b = { 0 };
	char *text;

	buf_printf(&b, "%s", name);
	shape_of(v, &b);
	text = strdup(buf_str(&b));
	buf_done(&b);
	return text;
}

static void shape_of(const json_t *j, struct buf *out)
{
	size_t n = 0, i;
	const char *k;
	char **part;
	json_t *v;

	switch (json_typeof(j)) {
	case JSON_OBJECT:
		part = calloc(json_object_size(j) + 1, sizeof(*part));
		json_object_foreach((json_t *)(uintptr_t)j, k, v)
			part[n++] = member_shape(key_name(k), v);
		buf_put_str(out, "{");
		shape_members(part, n, out);
		buf_put_str(out, "}");
		break;
	case JSON_ARRAY:
		part = calloc(json_array_size(j) + 1, sizeof(*part));
		json_array_foreach(j, i, v)
			part[n++] = member_shape("", v);
		buf_put_str(out, "[");
		shape_members(part, n, out);
		buf_put_str(out, "]");
		break;
	case JSON_STRING: buf_put_str(out, *json_string_value(j) ? ":s" : ":e"); break;
	case JSON_INTEGER:
	case JSON_REAL: buf_put_str(out, ":n"); break;
	case JSON_TRUE:
	case JSON_FALSE: buf_put_str(out, ":b"); break;
	case JSON_NULL: buf_put_str(out, ":0"); break;
	}
}

static json_t *json_in(const char *text)
{
	json_t *j = NULL;

	return *text == '{' && json_read(text, strlen(text), FILE_MAX, &j) == 0 ? j : NULL;
}

/* Everything in it is known from now on, at any depth, in strings too. */
static void know(const json_t *j, const char *parent)
{
	char name[300];
	const char *k;
	struct buf b = { 0 };
	json_t *v;
	size_t i;

	if (json_is_object(j)) {
		shape_of(j, &b);
		set_add(&known_shapes, buf_str(&b));
		json_object_foreach((json_t *)(uintptr_t)j, k, v) {
			/* What a document is part of differs, so its own members go by their name alone. */
			bool fresh = set_add(&known_keys, key_name(k));

			snprintf(name, sizeof(name), "%.100s.%.100s", key_name(parent), key_name(k));
			if ((set_add(&known_keys, name) && *parent ? true : fresh) && telling)
				puts(name);
			know(v, k);
		}
	} else if (json_is_array(j)) {
		json_array_foreach(j, i, v)
			know(v, parent);
	} else if (json_is_string(j) && (v = json_in(json_string_value(j)))) {
		know(v, "");
		json_decref(v);
	}
	buf_done(&b);
}

/* ---- shapes of the rest */

static void shape_names(char **name, size_t n, struct buf *out)
{
	for (size_t i = 0; i < n; i++) {
		for (char *p = name[i]; *p; p++)
			*p = (char)tolower((unsigned char)*p);
	}
	shape_members(name, n, out);
}

static int shape_head(const char *text, struct buf *out)
{
	char *name[HTTP_HEADERS_MAX];
	struct http_head h;
	char **list;

	if (http_request_parse(text, strlen(text), &h) > 0)
		buf_printf(out, "%.*s %.*s", HTTP_STR_FMT(h.method), HTTP_STR_FMT(h.path));
	else if (http_response_parse(text, strlen(text), &h) > 0)
		buf_printf(out, "%d", h.status);
	else
		return -EBADMSG;
	for (size_t i = 0; i < h.n_headers; i++)
		name[i] = strndup(h.header[i].name.p, h.header[i].name.len);
	list = calloc(h.n_headers + 1, sizeof(*list));
	memcpy(list, name, h.n_headers * sizeof(*list));
	shape_names(list, h.n_headers, out);
	return 0;
}

/* [[name, value]…] of ours, {name: value} of others. */
static void shape_headers(const json_t *j, struct buf *out)
{
	char **list = calloc(json_array_size(j) + json_object_size(j) + 1, sizeof(*list));
	size_t n = 0, i;
	const char *k;
	json_t *v;

	json_array_foreach(j, i, v)
		list[n++] = strdup(json_string_value(json_array_get(v, 0)));
	json_object_foreach((json_t *)(uintptr_t)j, k, v)
		list[n++] = strdup(k);
	shape_names(list, n, out);
}

/* Of a datagram or frame: its first bytes where they are its type, and its length. */
static void shape_bytes(const char *what, const char *hex, struct buf *out)
{
	size_t len = strlen(hex) / 2;
	int types = !strcmp(what, "disco") ? 4 : !strcmp(what, "tsmp") ? 2 : 0;

	buf_printf(out, "%.*s %zu", types, hex, len);
}

static void shape_derp(const json_t *line, struct buf *out)
{
	const char *hex = json_get_str(line, "hex"), *frame = json_get_str(line, "frame");
	bool packet = strstr(frame, "Packet") != NULL;

	buf_printf(out, "%s %s", json_get_str(line, "role"), frame);
	if (packet) /* behind the key: disco, or the type of a WireGuard message */
		buf_printf(out, " %.8s", strlen(hex) > 72 ? hex + 64 : "");
	else
		buf_printf(out, " %d", (int)json_get_int(line, "len", 0));
}

/* The shape of a recorded line, and whether something known has it. */
static bool line_is_new(const json_t *line)
{
	const char *what = json_get_str(line, "what"), *text = json_get_str(line, "text");
	CLEANUP(json_decref) json_t *j = text ? json_in(text) : NULL;
	struct buf b = { 0 }, inner = { 0 };
	bool fresh = false;

	buf_printf(&b, "%s ", what);
	if (!strcmp(what, "derp")) {
		shape_derp(line, &b);
	} else if (json_get_str(line, "hex")) {
		shape_bytes(what, json_get_str(line, "hex"), &b);
	} else if (text && strstr(what, "-head")) {
		shape_head(text, &inner);
	} else if (j) {
		shape_of(j, &inner);
	} else if (strcmp(what, "map-begin") != 0) {
		CLEANUP(json_decref) json_t *rest = json_copy((json_t *)(uintptr_t)line);

		json_object_del(rest, "session");
		json_object_del(rest, "stream");
		json_object_del(rest, "headers");
		json_write(rest, &b);
	}
	if (inner.len)
		fresh = !json_object_get(known_shapes.j, buf_str(&inner));
	if (json_get(line, "headers")) {
		struct buf names = { 0 };

		shape_headers(json_get(line, "headers"), &names);
		fresh = fresh || !json_object_get(known_shapes.j, buf_str(&names));
		buf_printf(&b, "%s ", buf_str(&names));
		buf_done(&names);
	}
	if (inner.len)
		buf_printf(&b, "%s %s", json_get_str(line, "path") ? json_get_str(line, "path") : "", buf_str(&inner));
	else if (!json_get(line, "headers"))
		fresh = strcmp(what, "map-begin") != 0;
	fresh = fresh && set_add(&known_shapes, buf_str(&b));
	buf_done(&b);
	buf_done(&inner);
	return fresh;
}

/* ---- what stays */

static bool has_header(const json_t *line, const char *name)
{
	json_t *headers = json_get(line, "headers"), *h;
	size_t i;

	json_array_foreach(headers, i, h) {
		if (!strcmp(json_string_value(json_array_get(h, 0)), name))
			return true;
	}
	return false;
}

/* Frames that steer and statuses of ours are for reading, not for replay. Requests of our own programs
 * do not say what made them, or wgctl; stock ones do. */
static bool line_counts(const json_t *line)
{
	const char *what = json_get_str(line, "what"), *text = json_get_str(line, "text");
	size_t n = strlen(what);

	if (!strcmp(what, "frame") || !strcmp(what, "status"))
		return false;
	if ((!strcmp(what, "request-head") && (!strstr(text, "User-Agent:") || strstr(text, "wgctl/"))) ||
	    (!strcmp(what, "request") && !has_header(line, "user-agent")))
		return false;
	for (const char *p = only; p; p = (p = strchr(p, ',')) ? p + 1 : NULL) {
		if (strncmp(p, what, n) == 0 && (p[n] == ',' || p[n] == '\0'))
			return true;
	}
	return !only;
}

/* Index of the line at which the stream of this line begins, or its connection registers; SIZE_MAX: none. */
static size_t line_context(const json_t *lines, size_t at)
{
	const json_t *line = json_array_get(lines, at);
	const char *what = json_get_str(line, "what");
	int64_t session = json_get_int(line, "session", 0);

	if (!strcmp(what, "map")) {
		while (at > 0 && strcmp(json_get_str(json_array_get(lines, at - 1), "what"), "map-begin") != 0)
			at--;
		while (strcmp(json_get_str(json_array_get(lines, at), "what"), "map") != 0)
			at++;
		return at;
	}
	if (strcmp(what, "request") != 0)
		return SIZE_MAX;
	for (size_t i = 0; i < at; i++) {
		const json_t *l = json_array_get(lines, i);

		if (!strcmp(json_get_str(l, "what"), "request") && json_get_int(l, "session", 0) == session &&
		    !strcmp(json_get_str(l, "path"), "/machine/register"))
			return i;
	}
	return SIZE_MAX;
}

static void choose(const json_t *lines, bool *keep)
{
	size_t n = json_array_size(lines);

	for (size_t i = 0; i < n; i++) {
		const json_t *line = json_array_get(lines, i);

		keep[i] = line_counts(line) && line_is_new(line);
	}
	for (size_t i = 0; i < n; i++) {
		size_t c = keep[i] ? line_context(lines, i) : SIZE_MAX;

		if (c == SIZE_MAX)
			continue;
		keep[c] = true;
		while (c > 0 && !strcmp(json_get_str(json_array_get(lines, i), "what"), "map")) {
			if (strcmp(json_get_str(json_array_get(lines, --c), "what"), "map-begin") == 0) {
				keep[c] = true;
				break;
			}
		}
	}
}

/* ---- scrubbing */

static void put_number(const char *p, size_t n, struct buf *out)
{
	char *text = strndup(p, n);
	json_t *v = json_object_get(numbers, text);

	if (strspn(text, "0") == n) { /* "none" */
		buf_put(out, p, n);
	} else {
		if (!v) {
			v = json_integer((json_int_t)json_object_size(numbers) + 1);
			json_object_set_new(numbers, text, v);
		}
		buf_printf(out, "%0*llx", (int)n, (unsigned long long)json_integer_value(v));
	}
	free(text);
}

static json_t *scrub(const json_t *s)
{
	const char *p = json_string_value(s);
	struct buf b = { 0 };
	json_t *j;

	while (*p) {
		size_t n = strspn(p, "0123456789abcdef");

		if (n >= LONG_HEX)
			put_number(p, n, &b);
		else
			buf_put(&b, p, n ? n : 1);
		p += n ? n : 1;
	}
	j = json_stringn((const char *)buf_data(&b), b.len);
	buf_done(&b);
	return j;
}

static void scrub_line(json_t *line)
{
	json_t *headers = json_object_get(line, "headers"), *h;
	size_t i;

	if (json_is_string(json_object_get(line, "text")))
		json_object_set_new(line, "text", scrub(json_object_get(line, "text")));
	json_array_foreach(headers, i, h)
		json_array_set_new(h, 1, scrub(json_array_get(h, 1)));
}

/* ---- files */

static json_t *load(const char *path)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	json_t *lines = json_array(), *j;
	char *line, *save = NULL;
	int r = file_read(path, FILE_MAX, &b);

	if (r < 0) {
		fprintf(stderr, "condense: %s: %s\n", path, strerror(-r));
		exit(1);
	}
	if (json_read(buf_data(&b), b.len, FILE_MAX, &j) == 0) { /* one document */
		json_array_append_new(lines, j);
		return lines;
	}
	buf_str(&b);
	for (line = strtok_r((char *)b.data + b.head, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (json_read(line, strlen(line), FILE_MAX, &j) == 0)
			json_array_append_new(lines, j);
	}
	return lines;
}

static void know_more(const json_t *j);

static void know_file(const char *path)
{
	CLEANUP(json_decref) json_t *lines = load(path);
	json_t *line;
	size_t i;

	know(lines, "");
	know_more(lines);
	json_array_foreach(lines, i, line) {
		if (json_get_str(line, "what"))
			line_is_new(line);
	}
}

/* Heads, and the names of headers. */
static void know_more(const json_t *j)
{
	struct buf b = { 0 };
	const char *k;
	json_t *v;
	size_t i;

	json_array_foreach(j, i, v)
		know_more(v);
	json_object_foreach((json_t *)(uintptr_t)j, k, v) {
		buf_clear(&b);
		if (!strcmp(k, "headers"))
			shape_headers(v, &b);
		if (b.len)
			set_add(&known_shapes, buf_str(&b));
		know_more(v);
	}
	if (json_is_string(j) && shape_head(json_string_value(j), &b) == 0)
		set_add(&known_shapes, buf_str(&b));
	buf_done(&b);
}

static void condense(const char *path)
{
	CLEANUP(json_decref) json_t *lines = load(path);
	bool *keep = calloc(json_array_size(lines) + 1, sizeof(*keep));
	json_t *line;
	size_t i;

	if (keys_only) {
		json_array_foreach(lines, i, line) {
			const char *text = json_get_str(line, "text");
			json_t *j = text && line_counts(line) ? json_in(text) : NULL;

			if (j)
				know(j, "");
			json_decref(j);
		}
	} else {
		choose(lines, keep);
		json_array_foreach(lines, i, line) {
			if (!keep[i])
				continue;
			scrub_line(line);
			json_dumpf(line, stdout, JSON_COMPACT);
			putchar('\n');
		}
	}
	free(keep);
}

int main(int argc, char **argv)
{
	int i;

	numbers = json_object();
	set_add(&known_shapes, "");
	set_add(&known_keys, "");
	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--keys"))
			keys_only = true;
		else if (!strcmp(argv[i], "--known") && i + 1 < argc)
			know_file(argv[++i]);
		else if (!strcmp(argv[i], "--only") && i + 1 < argc)
			only = argv[++i];
		else
			break;
	}
	if (i == argc || argv[i][0] == '-') {
		fprintf(stderr, "usage: condense [--keys] [--known FILE]... [--only WHAT,WHAT] RECORDING...\n");
		return 2;
	}
	telling = keys_only;
	for (; i < argc; i++)
		condense(argv[i]);
	json_decref(numbers);
	json_decref(known_shapes.j);
	json_decref(known_keys.j);
	return 0;
}
