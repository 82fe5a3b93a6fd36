#pragma once
/*
 * http: HTTP/1.1 heads and bodies as bytes: read strictly and with limits, written safely. No I/O.
 *
 * Refused: LF without CR, folded lines, control characters, space before a colon, two differing
 * Content-Length, Content-Length beside Transfer-Encoding, any transfer coding but chunked.
 * All views point into the parsed bytes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

#define HTTP_HEAD_MAX	 16384
#define HTTP_HEADERS_MAX 64

struct http_str {
	const char *p; /* not NUL-terminated; NULL = absent */
	size_t len;
};
#define HTTP_STR_FMT(s) (int)(s).len, (s).p /* for %.*s */

struct http_header {
	struct http_str name, value; /* value without surrounding blanks */
};

struct http_head {
	struct http_str method, target; /* request: target as sent; path and query are its parts */
	struct http_str path, query;	/* query without '?', NULL where there is none */
	int status;			/* response */
	struct http_str reason;
	int minor; /* HTTP/1.minor: 0 or 1 */
	size_t n_headers;
	struct http_header header[HTTP_HEADERS_MAX];
	int64_t content_length; /* -1: absent */
	bool chunked;
	bool keep_alive; /* what version and Connection say */
};

/* Bytes of the head (blank line included), -EAGAIN while it is incomplete, -EBADMSG, -ENOBUFS over a limit,
 * -EPROTONOSUPPORT for a version that is not HTTP/1.0 or 1.1. */
int http_request_parse(const void *p, size_t len, struct http_head *ret);
int http_response_parse(const void *p, size_t len, struct http_head *ret);

bool http_str_eq(struct http_str s, const char *t);	/* exact */
bool http_str_ieq(struct http_str s, const char *t);	/* without case */
/* First header of that name (without case); p == NULL when there is none. */
struct http_str http_find(const struct http_head *h, const char *name);
/* Is token in the comma-separated lists of all headers of that name? Without case. */
bool http_has_token(const struct http_head *h, const char *name, const char *token);
/* First value of name in a query string (or form body), %XX and + decoded, NUL-terminated. Length, -ENOENT, -EBADMSG,
 * -ENOBUFS. */
int http_query_get(struct http_str query, const char *name, char *out, size_t max);

/* Decoding of a chunked body, any split of the input. Zero-initialise, feed until .done. */
struct http_chunked {
	unsigned int state;
	uint64_t left;	  /* of this chunk */
	unsigned int line; /* bytes of a size line or trailer so far */
	bool digits;
	bool done;
};
/* Appends what is decoded to out (its max is the limit). Bytes taken from p, -EBADMSG, -ENOBUFS. */
int http_chunked_feed(struct http_chunked *c, const void *p, size_t n, struct buf *out);

const char *http_reason(int status);
/* Start lines and headers; a name, value or target with a forbidden character marks the buffer bad. */
void http_put_request(struct buf *b, const char *method, const char *target, const char *host);
void http_put_status(struct buf *b, int status); /* "HTTP/1.1 200 OK\r\n" */
void http_put_header(struct buf *b, const char *name, const char *value);
void http_put_header_int(struct buf *b, const char *name, int64_t value);
void http_put_end(struct buf *b);

/* http://host[:port][/path] or https://…; IPv6 in brackets. host without brackets, target at least "/". */
struct http_url {
	bool tls;
	char host[256];
	uint16_t port;
	bool port_given;
	char target[2048];
};
int http_url_parse(const char *url, struct http_url *ret); /* -EBADMSG */
/* "host", "host:port", "[v6]:port" for a Host header; the port is left out where it is the scheme's own. */
const char *http_url_host(const struct http_url *u, bool always_port, char out[static 280]);

/* base64 (standard, padded). Decoding: bytes written, or -EBADMSG; exactly this alphabet, no blanks. */
int http_base64_decode(struct http_str in, uint8_t *out, size_t max);
void http_base64_put(struct buf *b, const void *p, size_t n);
