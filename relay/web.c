#include "relay/web.h"

#include <stdio.h>
#include <string.h>

#define CHALLENGE_MAX 64

static bool challenge_ok(struct http_str s)
{
	static const char set[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-";

	if (!s.len || s.len > CHALLENGE_MAX)
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!s.p[i] || !strchr(set, s.p[i]))
			return false;
	return true;
}

/* Nodes ask here whether a portal stands between them and the world. */
static void web_204(void *data, struct httpd_req *q)
{
	struct http_str c = http_find(httpd_head(q), "X-Tailscale-Challenge");
	char answer[CHALLENGE_MAX + 16];

	(void)data;
	if (challenge_ok(c)) {
		snprintf(answer, sizeof(answer), "response %.*s", HTTP_STR_FMT(c));
		httpd_header(q, "X-Tailscale-Response", answer);
	}
	httpd_header(q, "Cache-Control",
		     "no-cache, no-store, must-revalidate, no-transform, max-age=0");
	httpd_respond(q, 204, NULL, "", 0);
}

static void browser_headers(struct httpd_req *q)
{
	if (httpd_peer_of(q)->is_tls)
		httpd_header(q, "Strict-Transport-Security", "max-age=63072000; includeSubDomains");
	httpd_header(
	    q, "Content-Security-Policy",
	    "default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'");
	httpd_header(q, "X-Frame-Options", "DENY");
	httpd_header(q, "X-Content-Type-Options", "nosniff");
}

static void web_robots(void *data, struct httpd_req *q)
{
	static const char text[] = "User-agent: *\nDisallow: /\n";

	(void)data;
	browser_headers(q);
	httpd_respond(q, 200, "text/plain; charset=utf-8", text, sizeof(text) - 1);
}

static void web_home(void *data, struct httpd_req *q)
{
	static const char text[] =
	    "<!DOCTYPE html>\n<html lang=\"en\"><head><title>DERP relay</title></head><body>\n"
	    "<h1>DERP relay</h1>\n<p>This is a relay of a mesh network. It forwards encrypted "
	    "packets "
	    "between machines that cannot reach each other directly, and cannot read them.</p>\n"
	    "</body></html>\n";

	(void)data;
	browser_headers(q);
	httpd_respond(q, 200, "text/html; charset=utf-8", text, sizeof(text) - 1);
}

static void web_redirect(void *data, struct httpd_req *q)
{
	const struct http_head *h = httpd_head(q);
	struct http_str host = http_find(h, "Host");
	char to[512];

	(void)data;
	if ((!http_str_eq(h->method, "GET") && !http_str_eq(h->method, "HEAD")) || !host.len ||
	    host.len + h->path.len + 16 > sizeof(to)) {
		httpd_respond_text(q, 400, "Use HTTPS");
		return;
	}
	snprintf(to, sizeof(to), "https://%.*s%.*s", HTTP_STR_FMT(host), HTTP_STR_FMT(h->path));
	httpd_header(q, "Location", to);
	httpd_respond_text(q, 302, "Use HTTPS");
}

int web_route(struct httpd *h)
{
	int r = httpd_route(h, "GET", "/generate_204", 0, web_204, NULL);

	if (r >= 0)
		r = httpd_route(h, "GET", "/robots.txt", 0, web_robots, NULL);
	if (r >= 0)
		r = httpd_route(h, "GET", "/", 0, web_home, NULL);
	return r;
}

int web_route_plain(struct httpd *h)
{
	int r = httpd_route(h, NULL, "/generate_204", 0, web_204, NULL);

	if (r >= 0)
		r = httpd_route(h, NULL, "/*", 0, web_redirect, NULL);
	return r;
}
