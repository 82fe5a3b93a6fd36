#include "lib/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/jsonscan.h"

const bool json_brackets[256] = { ['"'] = true, ['{'] = true, ['['] = true, ['}'] = true, [']'] = true };

const char *json_string_end(const char *p, const char *end)
{
	const char *quote = memchr(p, '"', (size_t)(end - p));

	if (!quote || !memchr(p, '\\', (size_t)(quote - p)))
		return quote;
	for (; p < end; p++) {
		if (*p == '\\')
			p++;
		else if (*p == '"')
			return p;
	}
	return NULL;
}

/* jansson recurses; its own ceiling is 2048 levels, far beyond any message we know. */
static bool json_too_deep(const char *p, size_t len)
{
	const char *end = len ? p + len : p;
	unsigned int depth = 0;

	for (; p < end; p++) {
		if (!json_brackets[(uint8_t)*p])
			continue;
		if (*p == '"') {
			p = json_string_end(p + 1, end);
			if (!p)
				return false;
		} else if (*p == '{' || *p == '[') {
			if (++depth > JSON_DEPTH_MAX)
				return true;
		} else if (depth) {
			depth--;
		}
	}
	return false;
}

/* ---- jansson without memory ----
 *
 * Its lexer does not look at whether the text of a token could be kept: what has no room is left out, and the end of a
 * string that lost its closing quote is looked for, and written, behind it (2.14, lex_save() and lex_scan_string()).
 * So while it parses it gets what it asks for from a reserve when the system has none, and nothing more to read, which
 * ends it soon. */

#define RESERVE_PART 64 /* bytes of text that are read at once */
#define RESERVE_SMALL 16384

struct reserve {
	char *start;
	size_t size, used;
};

static struct reserve *reserve; /* while it parses */
/* How often there was no memory, and how often of these somebody has been told. */
static unsigned long refused, told;

/* The text of a token is kept in what doubles, and then copied; the rest is for what a part of the text can hold. */
static size_t reserve_for(size_t len)
{
	return 3 * len + RESERVE_SMALL / 2;
}

static void *reserve_take(struct reserve *r, size_t n)
{
	char *p = r->start + r->used;

	if (n > r->size - r->used)
		return NULL;
	r->used += MIN((n + 15) & ~(size_t)15, r->size - r->used);
	return p;
}

static void *json_malloc(size_t n)
{
	void *p = malloc(n);

	if (p)
		return p;
	refused++;
	return reserve ? reserve_take(reserve, n) : NULL;
}

static void json_free(void *p)
{
	uintptr_t at = (uintptr_t)p;

	if (!reserve || at < (uintptr_t)reserve->start || at >= (uintptr_t)reserve->start + reserve->size)
		free(p);
}

__attribute__((constructor)) static void watch_memory(void)
{
	json_set_alloc_funcs(json_malloc, json_free);
}

static bool ran_out(void)
{
	bool out = refused != told;

	told = refused;
	return out;
}

static size_t read_part(void *out, size_t max, void *data)
{
	struct json_slice *text = data;
	size_t n = refused != told ? 0 : MIN(text->len, MIN(max, (size_t)RESERVE_PART));

	memcpy(out, text->p, n);
	text->p += n;
	text->len -= n;
	return n;
}

int json_parse(const void *p, size_t len, size_t flags, json_t **ret)
{
	static _Alignas(16) char small[RESERVE_SMALL];
	CLEANUP(free) char *large = reserve_for(len) > sizeof(small) ? malloc(reserve_for(len)) : NULL;
	struct reserve r = { large ? large : small, large ? reserve_for(len) : sizeof(small), 0 };
	struct json_slice text = { p, len };
	json_error_t err;
	json_t *j;
	bool out;

	if (!large && reserve_for(len) > sizeof(small))
		return -ENOMEM;
	told = refused;
	reserve = &r;
	j = json_load_callback(read_part, &text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | flags, &err);
	out = ran_out();
	if (out)
		json_decref(j);
	reserve = NULL;
	if (out)
		return -ENOMEM;
	if (!j)
		return -EBADMSG;
	*ret = j;
	return 0;
}

int json_read(const void *p, size_t len, size_t max_bytes, json_t **ret)
{
	if (len > max_bytes || json_too_deep(p, len))
		return -ENOBUFS;
	return json_parse(p, len, 0, ret);
}

static int json_sink(const char *p, size_t n, void *data)
{
	return buf_put(data, p, n) < 0 ? -1 : 0;
}

int json_write(const json_t *j, struct buf *out)
{
	int r = json_dump_callback(j, json_sink, out, JSON_COMPACT | JSON_ENCODE_ANY);

	return ran_out() || r < 0 ? -ENOMEM : 0;
}

json_t *json_get(const json_t *o, const char *name)
{
	json_t *v = json_object_get(o, name);

	return json_is_null(v) ? NULL : v;
}

const char *json_get_str(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	/* A string with an embedded NUL would mean two things to two readers. */
	if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
		return NULL;
	return json_string_value(v);
}

int64_t json_get_int(const json_t *o, const char *name, int64_t dflt)
{
	const json_t *v = json_object_get(o, name);

	return json_is_integer(v) ? json_integer_value(v) : dflt;
}

bool json_get_bool(const json_t *o, const char *name, bool dflt)
{
	const json_t *v = json_object_get(o, name);

	return json_is_boolean(v) ? json_is_true(v) : dflt;
}

double json_get_real(const json_t *o, const char *name, double dflt)
{
	const json_t *v = json_object_get(o, name);

	return json_is_number(v) ? json_number_value(v) : dflt;
}

int json_get_key(const json_t *o, const char *name, enum key_kind kind, struct key *ret)
{
	const json_t *v = json_get(o, name);

	if (!v)
		return -ENOENT;
	if (!json_is_string(v))
		return -EBADMSG;
	return key_parse(kind, json_string_value(v), json_string_length(v), ret);
}

int json_parse_prefix(const json_t *v, struct prefix *ret)
{
	if (!json_is_string(v))
		return -EBADMSG;
	return prefix_parse(json_string_value(v), json_string_length(v), ret);
}

int json_parse_endpoint(const json_t *v, struct endpoint *ret)
{
	if (!json_is_string(v))
		return -EBADMSG;
	return endpoint_parse(json_string_value(v), json_string_length(v), ret);
}

int json_time_parse(const char *s, int64_t *ret_unix_nsec)
{
	struct tm tm = { 0 };
	int64_t nsec = 0, secs;
	int off_sign = 0, off_h = 0, off_m = 0, n = 0;
	long scale = 100000000;

	/* Widths bound each number, so none overflows: NOLINTNEXTLINE(cert-err34-c) */
	if (sscanf(s, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &n) != 6)
		return -EBADMSG;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
	    tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 || tm.tm_min > 59 ||
	    tm.tm_sec < 0 || tm.tm_sec > 60 || tm.tm_year < 0)
		return -EBADMSG;
	s += n;
	if (*s == '.') {
		for (s++; *s >= '0' && *s <= '9'; s++, scale /= 10)
			nsec += (*s - '0') * scale;
	}
	if (*s == '+' || *s == '-') {
		off_sign = *s == '+' ? 1 : -1;
		/* As above: NOLINTNEXTLINE(cert-err34-c) */
		if (sscanf(s + 1, "%2d:%2d%n", &off_h, &off_m, &n) != 2 || s[1 + n] != '\0')
			return -EBADMSG;
	} else if ((*s != 'Z' && *s != 'z') || s[1] != '\0') {
		return -EBADMSG;
	}
	if (tm.tm_year <= 1) { /* Go's zero time, in whatever zone */
		*ret_unix_nsec = 0;
		return 0;
	}
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	secs = timegm(&tm) - off_sign * (off_h * 3600 + off_m * 60);
	if (secs > INT64_MAX / 1000000000 - 1)
		secs = INT64_MAX / 1000000000 - 1;
	if (secs < INT64_MIN / 1000000000 + 1)
		secs = INT64_MIN / 1000000000 + 1;
	*ret_unix_nsec = secs * 1000000000 + nsec;
	return 0;
}

const char *json_time_text(int64_t unix_nsec, char out[static 40])
{
	time_t secs = unix_nsec / 1000000000;
	long nsec = (long)(unix_nsec % 1000000000);
	struct tm tm;
	size_t n;

	if (unix_nsec == 0) {
		snprintf(out, 40, "0001-01-01T00:00:00Z");
		return out;
	}
	if (nsec < 0) {
		nsec += 1000000000;
		secs--;
	}
	gmtime_r(&secs, &tm);
	n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	if (nsec)
		n += (size_t)snprintf(out + n, 40 - n, ".%09ld", nsec);
	snprintf(out + n, 40 - n, "Z");
	return out;
}

json_t *json_key(enum key_kind kind, const struct key *k)
{
	char text[KEY_TEXT_MAX];

	return json_string(key_text(kind, k, text));
}

json_t *json_prefix(const struct prefix *p)
{
	char text[PREFIX_TEXT_MAX];

	return json_string(prefix_text(p, text));
}

json_t *json_endpoint(const struct endpoint *e)
{
	char text[ENDPOINT_TEXT_MAX];

	return json_string(endpoint_text(e, text));
}

json_t *json_addr(const struct addr *a)
{
	char text[ADDR_TEXT_MAX];

	return json_string(addr_text(a, text));
}
