/* http: heads and chunked bodies: what is taken, what is refused; writers; URLs; base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/http.h"

static void test_request(void **state)
{
	static const char rq[] = "POST /ts2021?a=1&b=%41+x HTTP/1.1\r\nHost: h:1\r\nConnection: keep-alive,  Upgrade \r\n"
				 "Content-Length: 0\r\nX-Empty:\r\nUpgrade:tailscale-control-protocol\r\n\r\n\4\0";
	struct http_head h;
	char out[8];

	(void)state;
	for (size_t i = 0; i < sizeof(rq) - 3; i++)
		assert_int_equal(http_request_parse(rq, i, &h), -EAGAIN);
	assert_int_equal(http_request_parse(rq, sizeof(rq) - 1, &h), (int)sizeof(rq) - 3);
	assert_true(http_str_eq(h.method, "POST"));
	assert_true(http_str_eq(h.path, "/ts2021"));
	assert_true(http_str_eq(h.query, "a=1&b=%41+x"));
	assert_int_equal(h.minor, 1);
	assert_int_equal(h.content_length, 0);
	assert_int_equal(h.n_headers, 5);
	assert_true(h.keep_alive);
	assert_true(http_has_token(&h, "connection", "upgrade"));
	assert_true(http_has_token(&h, "Connection", "KEEP-ALIVE"));
	assert_false(http_has_token(&h, "Connection", "keep"));
	assert_false(http_has_token(&h, "Upgrade2", "x"));
	assert_int_equal(http_find(&h, "x-empty").len, 0);
	assert_non_null(http_find(&h, "x-empty").p);
	assert_null(http_find(&h, "absent").p);
	assert_int_equal(http_query_get(h.query, "b", out, sizeof(out)), 3);
	assert_string_equal(out, "A x");
	assert_int_equal(http_query_get(h.query, "c", out, sizeof(out)), -ENOENT);
	assert_int_equal(http_query_get(h.query, "b", out, 3), -ENOBUFS);
}

static void test_request_refused(void **state)
{
	static const struct {
		const char *text;
		int want;
	} t[] = {
		{ "GET / HTTP/1.1\nHost: x\n\n", -EBADMSG },
		{ "\nGET / HTTP/1.1\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nA: b\rC\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\n folded: x\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nA : b\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\n: b\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nA\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nA: \x01\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", -EBADMSG },
		{ "GET  / HTTP/1.1\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1 \r\n\r\n", -EBADMSG },
		{ "GET /\r\n\r\n", -EBADMSG },
		{ "G@T / HTTP/1.1\r\n\r\n", -EBADMSG },
		{ "GET /\xc3\xa4 HTTP/1.1\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/2.0\r\n\r\n", -EPROTONOSUPPORT },
		{ "GET / HTTP/1.2\r\n\r\n", -EPROTONOSUPPORT },
		{ "GET / http/1.1\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nContent-Length: 9999999999999999\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG },
		{ "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG },
		{ "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", -EPROTONOSUPPORT },
	};
	struct http_head h;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (http_request_parse(t[i].text, strlen(t[i].text), &h) != t[i].want)
			fail_msg("%s: %d", t[i].text, http_request_parse(t[i].text, strlen(t[i].text), &h));
}

static void test_limits(void **state)
{
	struct buf b = { 0 };
	struct http_head h;

	(void)state;
	buf_put_str(&b, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < HTTP_HEADERS_MAX; i++)
		buf_put_str(&b, "A: b\r\n");
	buf_put_str(&b, "\r\n");
	assert_int_equal(http_request_parse(buf_data(&b), b.len, &h), (int)b.len);
	b.len -= 2;
	buf_put_str(&b, "A: b\r\n\r\n");
	assert_int_equal(http_request_parse(buf_data(&b), b.len, &h), -ENOBUFS);
	buf_clear(&b);
	buf_put_str(&b, "GET / HTTP/1.1\r\nA: ");
	while (b.len < HTTP_HEAD_MAX - 1)
		buf_put_u8(&b, 'x');
	assert_int_equal(http_request_parse(buf_data(&b), b.len, &h), -EAGAIN);
	buf_put_u8(&b, 'x');
	assert_int_equal(http_request_parse(buf_data(&b), b.len, &h), -ENOBUFS);
	buf_done(&b);
}

static void test_keep_alive(void **state)
{
	static const struct {
		const char *text;
		bool want;
	} t[] = {
		{ "GET / HTTP/1.1\r\n\r\n", true },
		{ "GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n", false },
		{ "GET / HTTP/1.0\r\n\r\n", false },
		{ "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true },
	};
	struct http_head h;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_true(http_request_parse(t[i].text, strlen(t[i].text), &h) > 0);
		assert_int_equal(h.keep_alive, t[i].want);
	}
}

static void test_response(void **state)
{
	static const char ok[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
	static const char bare[] = "HTTP/1.1 204\r\n\r\n";
	static const char *const bad[] = { "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 0x2 OK\r\n\r\n",
					   "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 200 O\x01K\r\n\r\n", "HTTQ/1.1 200 OK\r\n\r\n" };
	struct http_head h;

	(void)state;
	assert_int_equal(http_response_parse(ok, strlen(ok), &h), (int)strlen(ok));
	assert_int_equal(h.status, 200);
	assert_true(http_str_eq(h.reason, "OK"));
	assert_true(h.chunked);
	assert_int_equal(h.content_length, -1);
	assert_int_equal(http_response_parse(bare, strlen(bare), &h), (int)strlen(bare));
	assert_int_equal(h.status, 204);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(http_response_parse(bad[i], strlen(bad[i]), &h), -EBADMSG);
}

static int chunked(const char *in, size_t step, struct buf *out, size_t *used)
{
	struct http_chunked c = { 0 };
	size_t n = strlen(in), at = 0;

	buf_clear(out);
	while (at < n && !c.done) {
		int r = http_chunked_feed(&c, in + at, MIN(step, n - at), out);

		if (r < 0)
			return r;
		at += (size_t)r;
	}
	*used = at;
	return c.done;
}

static void test_chunked(void **state)
{
	static const char good[] = "5\r\nhello\r\n1a;ext=\"1\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nTrailer: x\r\n\r\nNEXT";
	static const char *const bad[] = { "\r\n", "g\r\n", "5\nhello", "5\r\nhelloX", "5\r\nhello\rX", "0\r\n\rX", "-1\r\n",
					   " 5\r\n", "1000000000000000\r\n", "0\r\n folded: x\r\n\r\n", "0\r\nT: \x01\r\n\r\n", "5;\n" };
	struct buf out = { 0 };
	size_t used = 0;

	(void)state;
	for (size_t step = 1; step < 80; step++) {
		assert_int_equal(chunked(good, step, &out, &used), 1);
		assert_int_equal(used, strlen(good) - 4);
		assert_string_equal(buf_str(&out), "helloabcdefghijklmnopqrstuvwxyz");
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (chunked(bad[i], 1, &out, &used) != -EBADMSG)
			fail_msg("%s", bad[i]);
	out.max = 30;
	assert_int_equal(chunked(good, 1000, &out, &used), -ENOBUFS);
	buf_done(&out);
}

static void test_writers(void **state)
{
	struct buf b = { 0 };
	struct http_head h;

	(void)state;
	http_put_request(&b, "GET", "/key?v=1", "[::1]:8080");
	http_put_header(&b, "Accept", "*/*");
	http_put_header_int(&b, "Content-Length", 7);
	http_put_end(&b);
	assert_string_equal(buf_str(&b), "GET /key?v=1 HTTP/1.1\r\nHost: [::1]:8080\r\nAccept: */*\r\nContent-Length: 7\r\n\r\n");
	assert_int_equal(http_request_parse(buf_data(&b), b.len, &h), (int)b.len);
	buf_clear(&b);
	http_put_header(&b, "A", "x\r\nB: y"); /* nobody smuggles a header in */
	assert_true(b.bad);
	buf_clear(&b);
	http_put_request(&b, "GET", "/a b", "h");
	assert_true(b.bad);
	buf_done(&b);
}

static void test_url(void **state)
{
	static const struct {
		const char *url, *host, *target, *text;
		uint16_t port;
		bool tls;
	} good[] = {
		{ "https://hs.example.com", "hs.example.com", "/", "hs.example.com", 443, true },
		{ "http://10.0.0.1:8080/a?b#c", "10.0.0.1", "/a?b", "10.0.0.1:8080", 8080, false },
		{ "HTTPS://[2001:db8::1]:80?x", "2001:db8::1", "/?x", "[2001:db8::1]:80", 80, true },
		{ "http://h:", "h", "/", "h", 80, false },
	};
	static const char *const bad[] = { "ftp://h", "http://", "http://:80", "http://h:0", "http://h:65536", "http://u@h/",
					   "http://h h/", "http://h/a b", "http://[::1", "http://[::1]x", "http://h\r\n/", "h:80",
					   "http://[g]/" };
	struct http_url u;
	char text[280];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(http_url_parse(good[i].url, &u), 0);
		assert_string_equal(u.host, good[i].host);
		assert_string_equal(u.target, good[i].target);
		assert_int_equal(u.port, good[i].port);
		assert_int_equal(u.tls, good[i].tls);
		assert_string_equal(http_url_host(&u, false, text), good[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (http_url_parse(bad[i], &u) != -EBADMSG)
			fail_msg("%s", bad[i]);
}

static void test_base64(void **state)
{
	static const char *const bad[] = { "A", "AA", "AAA", "AA=A", "A===", "====", "AB==", "AAB=", "AA=", "AA\n=", "AA-_", "AAAA=" };
	struct buf b = { 0 };
	uint8_t in[40], out[40];

	(void)state;
	for (size_t n = 0; n <= sizeof(in); n++) {
		for (size_t i = 0; i < n; i++)
			in[i] = (uint8_t)(i * 37 + n);
		buf_clear(&b);
		http_base64_put(&b, in, n);
		assert_int_equal(http_base64_decode((struct http_str){ (const char *)buf_data(&b), b.len }, out, sizeof(out)), (int)n);
		assert_memory_equal(in, out, n);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (http_base64_decode((struct http_str){ bad[i], strlen(bad[i]) }, out, sizeof(out)) != -EBADMSG)
			fail_msg("%s", bad[i]);
	assert_int_equal(http_base64_decode((struct http_str){ "AAAA", 4 }, out, 2), -EBADMSG);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request),	   cmocka_unit_test(test_request_refused), cmocka_unit_test(test_limits),
		cmocka_unit_test(test_keep_alive), cmocka_unit_test(test_response),	   cmocka_unit_test(test_chunked),
		cmocka_unit_test(test_writers),	   cmocka_unit_test(test_url),		   cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
