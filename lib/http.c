#include "lib/http.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/cleanup.h"
#include "lib/hex.h"

/* RFC 9110 5.6.2 */
static bool is_token_char(unsigned char c)
{
	if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
		return true;
	return c && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_token(struct http_str s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!is_token_char((unsigned char)s.p[i]))
			return false;
	return s.len > 0;
}

static bool is_text(struct http_str s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static bool is_graphic(struct http_str s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] >= 0x7f)
			return false;
	return s.len > 0;
}

bool http_str_eq(struct http_str s, const char *t)
{
	return s.p && strlen(t) == s.len && memcmp(s.p, t, s.len) == 0;
}

bool http_str_ieq(struct http_str s, const char *t)
{
	return s.p && strlen(t) == s.len && strncasecmp(s.p, t, s.len) == 0;
}

struct http_str http_find(const struct http_head *h, const char *name)
{
	for (size_t i = 0; i < h->n_headers; i++)
		if (http_str_ieq(h->header[i].name, name))
			return h->header[i].value;
	return (struct http_str){ 0 };
}

static struct http_str trim(struct http_str s)
{
	while (s.len && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.len--;
	}
	while (s.len && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t'))
		s.len--;
	return s;
}

bool http_has_token(const struct http_head *h, const char *name, const char *token)
{
	for (size_t i = 0; i < h->n_headers; i++) {
		struct http_str v = h->header[i].value;

		if (!http_str_ieq(h->header[i].name, name))
			continue;
		for (;;) {
			const char *comma = v.len ? memchr(v.p, ',', v.len) : NULL;
			size_t n = comma ? (size_t)(comma - v.p) : v.len;

			if (http_str_ieq(trim((struct http_str){ v.p, n }), token))
				return true;
			if (!comma)
				break;
			v.p += n + 1;
			v.len -= n + 1;
		}
	}
	return false;
}

/* ---- reading */

struct lines {
	const char *p;
	size_t left;
};

/* The next line without its CR LF; a lone CR, a lone LF or a NUL in it is an error. 0, -EBADMSG. */
static int next_line(struct lines *l, struct http_str *ret)
{
	const char *lf = memchr(l->p, '\n', l->left);
	size_t n;

	if (!lf || lf == l->p || lf[-1] != '\r')
		return -EBADMSG;
	n = (size_t)(lf - l->p) - 1;
	if (memchr(l->p, '\r', n) || memchr(l->p, '\0', n))
		return -EBADMSG;
	*ret = (struct http_str){ l->p, n };
	l->p += n + 2;
	l->left -= n + 2;
	return 0;
}

/* Length of the head with its blank line, or -EAGAIN, -ENOBUFS, -EBADMSG (as early as it shows). */
static int head_length(const char *p, size_t len)
{
	const void *end = memmem(p, MIN(len, (size_t)HTTP_HEAD_MAX), "\r\n\r\n", 4);
	const char *lf = len ? memchr(p, '\n', MIN(len, (size_t)HTTP_HEAD_MAX)) : NULL;

	if (lf && (lf == p || lf[-1] != '\r'))
		return -EBADMSG;
	if (end)
		return (int)((const char *)end - p) + 4;
	return len >= HTTP_HEAD_MAX ? -ENOBUFS : -EAGAIN;
}

static int version_read(struct http_str v, int *ret_minor)
{
	if (v.len != 8 || memcmp(v.p, "HTTP/", 5) != 0)
		return -EBADMSG;
	if (http_str_eq(v, "HTTP/1.1"))
		*ret_minor = 1;
	else if (http_str_eq(v, "HTTP/1.0"))
		*ret_minor = 0;
	else
		return -EPROTONOSUPPORT;
	return 0;
}

static struct http_str word(struct http_str *rest)
{
	const char *sp = rest->len ? memchr(rest->p, ' ', rest->len) : NULL;
	struct http_str w = { rest->p, sp ? (size_t)(sp - rest->p) : rest->len };
	size_t skip = sp ? w.len + 1 : w.len;

	rest->p += skip;
	rest->len -= skip;
	return w;
}

static int request_line(struct http_str line, struct http_head *h)
{
	const char *q;

	h->method = word(&line);
	h->target = word(&line);
	if (!is_token(h->method) || !is_graphic(h->target))
		return -EBADMSG;
	h->path = h->target;
	q = memchr(h->target.p, '?', h->target.len);
	if (q) {
		h->path.len = (size_t)(q - h->target.p);
		h->query = (struct http_str){ q + 1, h->target.len - h->path.len - 1 };
	}
	return version_read(line, &h->minor);
}

static int status_line(struct http_str line, struct http_head *h)
{
	struct http_str version = word(&line);
	struct http_str code = word(&line);
	int r = version_read(version, &h->minor);

	if (r < 0)
		return r;
	if (code.len != 3)
		return -EBADMSG;
	for (size_t i = 0; i < 3; i++) {
		if (code.p[i] < '0' || code.p[i] > '9')
			return -EBADMSG;
		h->status = h->status * 10 + (code.p[i] - '0');
	}
	h->reason = line;
	return h->status < 100 || !is_text(line) ? -EBADMSG : 0;
}

static int length_read(struct http_str v, int64_t *ret)
{
	int64_t n = 0;

	if (v.len == 0 || v.len > 15)
		return -EBADMSG;
	for (size_t i = 0; i < v.len; i++) {
		if (v.p[i] < '0' || v.p[i] > '9')
			return -EBADMSG;
		n = n * 10 + (v.p[i] - '0');
	}
	*ret = n;
	return 0;
}

/* Body framing is decided in one place, so that no two parsers can see two different requests in the same bytes. */
static int framing(struct http_head *h)
{
	bool coding = false;

	h->content_length = -1;
	for (size_t i = 0; i < h->n_headers; i++) {
		const struct http_header *x = &h->header[i];
		int64_t n;

		if (http_str_ieq(x->name, "Content-Length")) {
			if (length_read(x->value, &n) < 0 || (h->content_length >= 0 && h->content_length != n))
				return -EBADMSG;
			h->content_length = n;
		} else if (http_str_ieq(x->name, "Transfer-Encoding")) {
			if (coding || h->minor == 0 || !http_str_ieq(x->value, "chunked"))
				return -EBADMSG;
			coding = h->chunked = true;
		}
	}
	if (h->chunked && h->content_length >= 0)
		return -EBADMSG;
	h->keep_alive = h->minor == 1 ? !http_has_token(h, "Connection", "close") :
					http_has_token(h, "Connection", "keep-alive");
	return 0;
}

static int headers_read(struct lines *l, struct http_head *h)
{
	for (;;) {
		struct http_str line, name;
		const char *colon;

		if (next_line(l, &line) < 0)
			return -EBADMSG;
		if (line.len == 0)
			return l->left == 0 ? framing(h) : -EBADMSG;
		colon = memchr(line.p, ':', line.len);
		if (!colon)
			return -EBADMSG;
		name = (struct http_str){ line.p, (size_t)(colon - line.p) };
		line = (struct http_str){ colon + 1, line.len - name.len - 1 };
		if (!is_token(name) || !is_text(line)) /* a folded line begins with a blank: no token */
			return -EBADMSG;
		if (h->n_headers == HTTP_HEADERS_MAX)
			return -ENOBUFS;
		h->header[h->n_headers++] = (struct http_header){ name, trim(line) };
	}
}

static int head_parse(const void *p, size_t len, int (*first)(struct http_str, struct http_head *),
		      struct http_head *h)
{
	struct http_str line;
	struct lines l;
	int n = head_length(p, len), r;

	if (n < 0)
		return n;
	l = (struct lines){ p, (size_t)n };
	memset(h, 0, sizeof(*h));
	r = next_line(&l, &line);
	if (r == 0)
		r = first(line, h);
	if (r == 0)
		r = headers_read(&l, h);
	return r < 0 ? r : n;
}

int http_request_parse(const void *p, size_t len, struct http_head *ret)
{
	return head_parse(p, len, request_line, ret);
}

int http_response_parse(const void *p, size_t len, struct http_head *ret)
{
	return head_parse(p, len, status_line, ret);
}

/* ---- query strings */

static int percent_decode(struct http_str s, char *out, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if (c == '+') {
			c = ' ';
		} else if (c == '%') {
			int hi = i + 2 < s.len ? hex_digit(s.p[i + 1]) : -1;
			int lo = i + 2 < s.len ? hex_digit(s.p[i + 2]) : -1;

			if (hi < 0 || lo < 0 || (hi == 0 && lo == 0))
				return -EBADMSG;
			c = (char)(hi << 4 | lo);
			i += 2;
		}
		if (n + 1 >= max)
			return -ENOBUFS;
		out[n++] = c;
	}
	if (max == 0)
		return -ENOBUFS;
	out[n] = '\0';
	return (int)n;
}

int http_query_get(struct http_str query, const char *name, char *out, size_t max)
{
	while (query.len) {
		const char *amp = memchr(query.p, '&', query.len);
		struct http_str pair = { query.p, amp ? (size_t)(amp - query.p) : query.len };
		const char *eq = pair.len ? memchr(pair.p, '=', pair.len) : NULL;
		struct http_str key = { pair.p, eq ? (size_t)(eq - pair.p) : pair.len };

		if (http_str_eq(key, name)) {
			struct http_str value = { key.p + key.len, 0 };

			if (eq)
				value = (struct http_str){ eq + 1, pair.len - key.len - 1 };
			return percent_decode(value, out, max);
		}
		if (!amp)
			break;
		query.p += pair.len + 1;
		query.len -= pair.len + 1;
	}
	return -ENOENT;
}

/* ---- chunked bodies */

enum chunk_state {
	CHUNK_STATE_SIZE,      /* hex digits */
	CHUNK_STATE_EXTENSION, /* up to CR, skipped */
	CHUNK_STATE_SIZE_LF,
	CHUNK_STATE_DATA,
	CHUNK_STATE_DATA_CR,
	CHUNK_STATE_DATA_LF,
	CHUNK_STATE_TRAILER, /* at the start of a trailer line */
	CHUNK_STATE_TRAILER_TEXT,
	CHUNK_STATE_TRAILER_LF,
	CHUNK_STATE_END_LF,
};

#define CHUNK_LINE_MAX 4096

static int chunk_byte(struct http_chunked *c, char b)
{
	int d;

	switch ((enum chunk_state)c->state) {
	case CHUNK_STATE_SIZE:
		d = hex_digit(b);
		if (d >= 0) {
			if (c->left >> 48)
				return -EBADMSG;
			c->left = c->left << 4 | (uint64_t)d;
			c->digits = true;
		} else if (!c->digits) {
			return -EBADMSG;
		} else if (b == '\r') {
			c->state = CHUNK_STATE_SIZE_LF;
		} else if (b == ';' || b == ' ' || b == '\t') {
			c->state = CHUNK_STATE_EXTENSION;
		} else {
			return -EBADMSG;
		}
		break;
	case CHUNK_STATE_EXTENSION:
		if (b == '\r')
			c->state = CHUNK_STATE_SIZE_LF;
		else if (((unsigned char)b < 0x20 && b != '\t') || b == 0x7f)
			return -EBADMSG;
		break;
	case CHUNK_STATE_SIZE_LF:
		if (b != '\n')
			return -EBADMSG;
		c->line = 0;
		c->digits = false;
		c->state = c->left ? CHUNK_STATE_DATA : CHUNK_STATE_TRAILER;
		return 0;
	case CHUNK_STATE_DATA:
		break;
	case CHUNK_STATE_DATA_CR:
		if (b != '\r')
			return -EBADMSG;
		c->state = CHUNK_STATE_DATA_LF;
		break;
	case CHUNK_STATE_DATA_LF:
		if (b != '\n')
			return -EBADMSG;
		c->line = 0;
		c->state = CHUNK_STATE_SIZE;
		return 0;
	case CHUNK_STATE_TRAILER:
		if (b == '\r')
			c->state = CHUNK_STATE_END_LF;
		else if (!is_token_char((unsigned char)b))
			return -EBADMSG;
		else
			c->state = CHUNK_STATE_TRAILER_TEXT;
		break;
	case CHUNK_STATE_TRAILER_TEXT:
		if (b == '\r')
			c->state = CHUNK_STATE_TRAILER_LF;
		else if (((unsigned char)b < 0x20 && b != '\t') || b == 0x7f)
			return -EBADMSG;
		break;
	case CHUNK_STATE_TRAILER_LF:
		if (b != '\n')
			return -EBADMSG;
		c->state = CHUNK_STATE_TRAILER;
		break;
	case CHUNK_STATE_END_LF:
		if (b != '\n')
			return -EBADMSG;
		c->done = true;
		break;
	}
	return ++c->line > CHUNK_LINE_MAX ? -ENOBUFS : 0;
}

int http_chunked_feed(struct http_chunked *c, const void *p, size_t n, struct buf *out)
{
	const char *at = p;
	size_t i = 0;

	if (n > INT32_MAX)
		return -ENOBUFS;
	while (i < n && !c->done) {
		int r;

		if (c->state == CHUNK_STATE_DATA) {
			size_t k = (size_t)MIN(c->left, (uint64_t)(n - i));

			r = buf_put(out, at + i, k);
			if (r < 0)
				return r;
			i += k;
			c->left -= k;
			if (c->left == 0)
				c->state = CHUNK_STATE_DATA_CR;
			continue;
		}
		r = chunk_byte(c, at[i]);
		if (r < 0)
			return r;
		i++;
	}
	return (int)i;
}

/* ---- writing */

const char *http_reason(int status)
{
	static const struct {
		int status;
		const char *text;
	} all[] = {
		{ 100, "Continue" },
		{ 101, "Switching Protocols" },
		{ 200, "OK" },
		{ 201, "Created" },
		{ 202, "Accepted" },
		{ 204, "No Content" },
		{ 301, "Moved Permanently" },
		{ 302, "Found" },
		{ 303, "See Other" },
		{ 304, "Not Modified" },
		{ 307, "Temporary Redirect" },
		{ 308, "Permanent Redirect" },
		{ 400, "Bad Request" },
		{ 401, "Unauthorized" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 409, "Conflict" },
		{ 411, "Length Required" },
		{ 412, "Precondition Failed" },
		{ 413, "Content Too Large" },
		{ 415, "Unsupported Media Type" },
		{ 426, "Upgrade Required" },
		{ 429, "Too Many Requests" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 502, "Bad Gateway" },
		{ 503, "Service Unavailable" },
		{ 504, "Gateway Timeout" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i].status == status)
			return all[i].text;
	return "Status";
}

static struct http_str str_of(const char *s)
{
	return (struct http_str){ s, strlen(s) };
}

void http_put_request(struct buf *b, const char *method, const char *target, const char *host)
{
	if (!is_token(str_of(method)) || !is_graphic(str_of(target)) || !is_graphic(str_of(host))) {
		b->bad = true;
		return;
	}
	buf_printf(b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, host);
}

void http_put_status(struct buf *b, int status)
{
	buf_printf(b, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
}

void http_put_header(struct buf *b, const char *name, const char *value)
{
	if (!is_token(str_of(name)) || !is_text(str_of(value))) {
		b->bad = true;
		return;
	}
	buf_printf(b, "%s: %s\r\n", name, value);
}

void http_put_header_int(struct buf *b, const char *name, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)value);
	http_put_header(b, name, text);
}

void http_put_end(struct buf *b)
{
	buf_put(b, "\r\n", 2);
}

/* ---- URLs */

static int port_read(const char *s, size_t n, uint16_t *ret)
{
	uint32_t v = 0;

	if (n == 0 || n > 5)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -EBADMSG;
		v = v * 10 + (uint32_t)(s[i] - '0');
	}
	if (v == 0 || v > 65535)
		return -EBADMSG;
	*ret = (uint16_t)v;
	return 0;
}

static int authority_read(const char *s, size_t n, struct http_url *u)
{
	const char *host = s, *colon;
	size_t host_len;

	if (n && s[0] == '[') {
		const char *close = memchr(s, ']', n);

		if (!close)
			return -EBADMSG;
		host = s + 1;
		host_len = (size_t)(close - host);
		s = close + 1;
		n -= host_len + 2;
		if (n && s[0] != ':')
			return -EBADMSG;
		for (size_t i = 0; i < host_len; i++)
			if (hex_digit(host[i]) < 0 && host[i] != ':' && host[i] != '.')
				return -EBADMSG;
		colon = n ? s : NULL;
	} else {
		colon = n ? memchr(s, ':', n) : NULL;
		host_len = colon ? (size_t)(colon - s) : n;
		for (size_t i = 0; i < host_len; i++) {
			unsigned char c = (unsigned char)host[i];

			if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
			      c == '.' || c == '_'))
				return -EBADMSG;
		}
		n -= host_len;
	}
	if (host_len == 0 || host_len >= sizeof(u->host))
		return -EBADMSG;
	memcpy(u->host, host, host_len);
	u->host[host_len] = '\0';
	u->port = u->tls ? 443 : 80;
	if (!colon || n == 1) /* "host:" is allowed by RFC 3986 */
		return 0;
	u->port_given = true;
	return port_read(colon + 1, n - 1, &u->port);
}

int http_url_parse(const char *url, struct http_url *ret)
{
	struct http_url u = { 0 };
	size_t n, rest;

	if (strncasecmp(url, "https://", 8) == 0) {
		u.tls = true;
		url += 8;
	} else if (strncasecmp(url, "http://", 7) == 0) {
		url += 7;
	} else {
		return -EBADMSG;
	}
	n = strcspn(url, "/?#");
	if (authority_read(url, n, &u) < 0)
		return -EBADMSG;
	url += n;
	rest = strcspn(url, "#");
	if (rest + 2 > sizeof(u.target))
		return -EBADMSG;
	snprintf(u.target, sizeof(u.target), "%s%.*s", url[0] == '/' ? "" : "/", (int)rest, url);
	if (!is_graphic(str_of(u.target)))
		return -EBADMSG;
	*ret = u;
	return 0;
}

const char *http_url_host(const struct http_url *u, bool always_port, char out[static 280])
{
	bool v6 = strchr(u->host, ':') != NULL;

	if (always_port || u->port != (u->tls ? 443 : 80))
		snprintf(out, 280, "%s%s%s:%u", v6 ? "[" : "", u->host, v6 ? "]" : "", u->port);
	else
		snprintf(out, 280, "%s%s%s", v6 ? "[" : "", u->host, v6 ? "]" : "");
	return out;
}

/* ---- base64 */

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int base64_digit(char c)
{
	const char *at = c ? strchr(base64_digits, c) : NULL;

	return at ? (int)(at - base64_digits) : -1;
}

int http_base64_decode(struct http_str in, uint8_t *out, size_t max)
{
	size_t pad = 0, n = 0, bytes;

	if (in.len % 4 || in.len > INT32_MAX)
		return -EBADMSG;
	while (pad < 2 && pad < in.len && in.p[in.len - 1 - pad] == '=')
		pad++;
	bytes = in.len / 4 * 3 - pad;
	if (bytes > max)
		return -EBADMSG;
	for (size_t i = 0; i < in.len; i += 4) {
		uint32_t v = 0;

		for (size_t j = 0; j < 4; j++) {
			bool filler = i + j >= in.len - pad;
			int d = filler ? 0 : base64_digit(in.p[i + j]);

			if (d < 0)
				return -EBADMSG;
			v = v << 6 | (uint32_t)d;
		}
		for (int shift = 16; shift >= 0; shift -= 8) {
			uint8_t byte = (uint8_t)(v >> shift);

			if (n < bytes)
				out[n++] = byte;
			else if (byte) /* bits under the padding: two texts for one value */
				return -EBADMSG;
		}
	}
	return (int)n;
}

void http_base64_put(struct buf *b, const void *p, size_t n)
{
	const uint8_t *in = p;

	for (size_t i = 0; i < n; i += 3) {
		size_t k = MIN(n - i, (size_t)3);
		uint32_t v = (uint32_t)in[i] << 16 | (k > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (k > 2 ? in[i + 2] : 0);
		char d[4] = { base64_digits[v >> 18], base64_digits[v >> 12 & 63],
			      k > 1 ? base64_digits[v >> 6 & 63] : '=', k > 2 ? base64_digits[v & 63] : '=' };

		buf_put(b, d, 4);
	}
}
