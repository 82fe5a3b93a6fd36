#include "lib/jsonscan.h"

#include <errno.h>
#include <string.h>

#define SCAN_DEPTH_MAX (JSON_DEPTH_MAX + 8)

static void skip_space(struct json_scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
		s->p++;
}

/* p is at an opening bracket; gives the place behind its partner, or NULL. max: how deep it may nest, SCAN_DEPTH_MAX at
 * most. */
static const char *bracket_end(const char *p, const char *end, size_t max)
{
	char open[SCAN_DEPTH_MAX];
	size_t depth = 0;

	for (; p < end; p++) {
		if (!json_brackets[(uint8_t)*p])
			continue;
		switch (*p) {
		case '"':
			p = json_string_end(p + 1, end);
			if (!p)
				return NULL;
			break;
		case '{':
		case '[':
			if (depth == max)
				return NULL;
			open[depth++] = *p;
			break;
		case '}':
		case ']':
			if (!depth || open[depth - 1] != (*p == '}' ? '{' : '['))
				return NULL;
			if (--depth == 0)
				return p + 1;
			break;
		}
	}
	return NULL;
}

static bool take_value(struct json_scan *s, struct json_slice *ret)
{
	/* What ends a number or a word. */
	static const bool after[256] = {
		[0] = true,    [','] = true,  [']'] = true, ['}'] = true, [':'] = true, [' '] = true,
		['\t'] = true, ['\r'] = true, ['\n'] = true, ['"'] = true, ['{'] = true, ['['] = true,
	};
	const char *start, *e;

	skip_space(s);
	start = s->p;
	if (start == s->end)
		return false;
	if (*start == '"') {
		e = json_string_end(start + 1, s->end);
		e = e ? e + 1 : NULL;
	} else if (*start == '{' || *start == '[') {
		e = bracket_end(start, s->end, SCAN_DEPTH_MAX);
	} else {
		for (e = start; e < s->end && !after[(uint8_t)*e]; e++)
			;
	}
	if (!e || e == start)
		return false;
	*ret = (struct json_slice){ start, (size_t)(e - start) };
	s->p = e;
	return true;
}

static int scan_open(struct json_slice text, char open, char shut, struct json_scan *ret)
{
	struct json_scan s = { .p = text.p, .close = shut, .first = true };

	if (!text.p)
		return -EBADMSG;
	s.end = text.p + text.len;
	skip_space(&s);
	if (s.p == s.end || *s.p != open)
		return -EBADMSG;
	s.p++;
	*ret = s;
	return 0;
}

int json_scan_object(struct json_slice text, struct json_scan *ret)
{
	return scan_open(text, '{', '}', ret);
}

int json_scan_array(struct json_slice text, struct json_scan *ret)
{
	return scan_open(text, '[', ']', ret);
}

/* Steps over the comma, or over the end. True when one more item has to follow. */
static bool scan_step(struct json_scan *s)
{
	if (s->bad || s->over)
		return false;
	skip_space(s);
	if (s->p == s->end) {
		s->bad = true;
		return false;
	}
	if (*s->p == s->close) {
		s->p++;
		s->over = true;
		skip_space(s);
		s->bad = s->p != s->end;
		return false;
	}
	if (!s->first) {
		if (*s->p != ',') {
			s->bad = true;
			return false;
		}
		s->p++;
		skip_space(s);
	}
	s->first = false;
	return true;
}

bool json_scan_member(struct json_scan *s, struct json_slice *ret_name, struct json_slice *ret_value)
{
	struct json_slice name;

	if (!scan_step(s))
		return false;
	s->bad = true;
	if (s->p == s->end || *s->p != '"' || !take_value(s, &name))
		return false;
	skip_space(s);
	if (s->p == s->end || *s->p != ':')
		return false;
	s->p++;
	if (!take_value(s, ret_value))
		return false;
	s->bad = false;
	*ret_name = (struct json_slice){ name.p + 1, name.len - 2 };
	return true;
}

bool json_scan_element(struct json_scan *s, struct json_slice *ret_value)
{
	if (!scan_step(s))
		return false;
	s->bad = !take_value(s, ret_value);
	return !s->bad;
}

bool json_slice_is(struct json_slice s, const char *text)
{
	return s.p && s.len == strlen(text) && memcmp(s.p, text, s.len) == 0;
}

/* About what jansson takes for it on 64 bits. */
static size_t tree_bytes(struct json_slice s)
{
	const char *end = s.p + s.len;
	size_t n = s.len;

	for (const char *p = s.p; p < end; p++) {
		switch (*p) {
		case '"':
			p = json_string_end(p + 1, end);
			if (!p)
				return n;
			n += 80;
			break;
		case '{':
			n += 224;
			break;
		case '[':
			n += 128;
			break;
		case ':':
		case ',':
			n += 64;
			break;
		}
	}
	return n;
}

int json_slice_read(struct json_slice s, json_t **ret)
{
	struct json_scan at = { .p = s.p, .end = s.p + s.len };

	if (!s.p || !s.len)
		return -EBADMSG;
	skip_space(&at);
	/* The parser recurses: what nests too deep never reaches it. */
	if (at.p < at.end && (*at.p == '{' || *at.p == '[') && !bracket_end(at.p, at.end, JSON_DEPTH_MAX))
		return -EBADMSG;
	if (s.len > JSON_TREE_MAX / 256 && tree_bytes(s) > JSON_TREE_MAX)
		return -ENOBUFS;
	return json_parse(s.p, s.len, JSON_DECODE_ANY, ret);
}

int json_slice_int(struct json_slice object, const char *name, int64_t *ret)
{
	struct json_slice n, v;
	struct json_scan s;
	int64_t x = 0;
	int r;

	r = json_scan_object(object, &s);
	if (r < 0)
		return r;
	while (json_scan_member(&s, &n, &v)) {
		if (!json_slice_is(n, name))
			continue;
		if (v.len > 16) /* beyond 2^53, or no integer */
			return -EBADMSG;
		for (size_t i = 0; i < v.len; i++) {
			if (v.p[i] < '0' || v.p[i] > '9')
				return -EBADMSG;
			x = x * 10 + (v.p[i] - '0');
		}
		*ret = x;
		return 0;
	}
	return json_scan_ok(&s) ? -ENOENT : -EBADMSG;
}
