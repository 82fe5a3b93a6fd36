/*
 * http heads: whatever parses is written again and means the same; chunked bodies give the same in any split.
 *
 * words: lib/http*.c proto/ts2021.c
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void views_inside(const struct http_head *h, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < h->n_headers; i++) {
		const struct http_header *x = &h->header[i];

		assert((const uint8_t *)x->name.p >= p && (const uint8_t *)x->value.p + x->value.len <= p + n);
		assert(!memchr(x->value.p, '\n', x->value.len) && x->name.len > 0);
	}
}

static void request_again(const struct http_head *h)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct http_head again;

	buf_printf(&b, "%.*s %.*s HTTP/1.%d\r\n", HTTP_STR_FMT(h->method), HTTP_STR_FMT(h->target), h->minor);
	for (size_t i = 0; i < h->n_headers; i++)
		buf_printf(&b, "%.*s: %.*s\r\n", HTTP_STR_FMT(h->header[i].name), HTTP_STR_FMT(h->header[i].value));
	buf_put_str(&b, "\r\n");
	if (b.len > HTTP_HEAD_MAX)
		return;
	assert(http_request_parse(buf_data(&b), b.len, &again) == (int)b.len);
	assert(again.n_headers == h->n_headers && again.content_length == h->content_length);
	assert(again.chunked == h->chunked && again.keep_alive == h->keep_alive);
}

static int decode(const uint8_t *p, size_t n, size_t step, struct buf *out)
{
	struct http_chunked c = { 0 };
	int r = 0;

	for (size_t i = 0; i < n && !c.done && r >= 0; i += (size_t)r)
		r = http_chunked_feed(&c, p + i, MIN(step, n - i), out);
	return r < 0 ? r : c.done;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	CLEANUP(buf_done) struct buf whole = { .max = 65536 }, bytes = { .max = 65536 };
	struct http_head h;
	struct http_url u;
	char text[300];

	if (http_request_parse(p, n, &h) > 0) {
		views_inside(&h, p, n);
		request_again(&h);
		http_has_token(&h, "Connection", "upgrade");
		http_query_get(h.query, "v", text, sizeof(text));
	}
	if (http_response_parse(p, n, &h) > 0)
		views_inside(&h, p, n);
	assert(decode(p, n, SIZE_MAX, &whole) == decode(p, n, 1, &bytes));
	assert(whole.bad || (whole.len == bytes.len && memcmp(buf_data(&whole), buf_data(&bytes), whole.len) == 0));
	if (n < sizeof(text)) {
		memcpy(text, p, n);
		text[n] = '\0';
		http_url_parse(text, &u);
	}
	return 0;
}
