/* Answers to what the server asks along the way (control.md 7.12): HEAD pings and c2n requests. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control/internal.h"
#include "lib/http.h"
#include "lib/log.h"

#define PING_USEC (15 * USEC_PER_SEC)
#define PINGS_MAX 5 /* at once, then one a second */
#define C2N_MAX	  65536

static void head_done(void *data, int r, const struct httpc_answer *a, const char *why)
{
	struct control *c = data;

	(void)a;
	c->ping_request = NULL;
	if (r < 0)
		log_debug("control: ping answer failed: %s", why);
}

/* A node is nobody's way to what listens on its own host, or in the networks around it: whatever host the URL
 * names (the server may have other names than the one we log in to), the login server is asked. */
static void head_at_server(struct control *c, const char *url)
{
	struct http_url u, server;
	char host[280], own[sizeof("https://") + sizeof(host) + sizeof(u.target)];
	struct httpc_opts o = { .url = own,
				.method = "HEAD",
				.timeout_usec = PING_USEC,
				.tls = c->tls,
				.dial = { .mark = c->mark, .cache = c->dial_cache } };

	if (http_url_parse(url, &u) < 0 || http_url_parse(c->server_url, &server) < 0) {
		log_debug("control: the server asks for a call to what is no URL");
		return;
	}
	snprintf(own, sizeof(own), "http%s://%s%s", server.tls ? "s" : "", http_url_host(&server, false, host), u.target);
	httpc_cancel(TAKE(c->ping_request));
	if (httpc_start(c->loop, &o, head_done, c, &c->ping_request) < 0)
		c->ping_request = NULL;
}

static void noise_end(void *data, struct h2_stream *st, int error)
{
	struct control *c = data;

	(void)error;
	if (c->ping_stream == st)
		c->ping_stream = NULL;
}

static const struct h2_client_ops noise_ops = { .on_end = noise_end };

void control_ping_cancel(struct control *c)
{
	struct h2_stream *st = TAKE(c->ping_stream);

	httpc_cancel(TAKE(c->ping_request));
	if (st)
		h2_reset(st);
}

static const char *path_of(const char *url)
{
	const char *host = strstr(url, "://");
	const char *path = strchr(host ? host + 3 : url, '/');

	return path ? path : "/";
}

static void over_noise(struct control *c, const char *method, const char *url,
		       const struct buf *body)
{
	struct h2_stream *st = TAKE(c->ping_stream);

	if (st)
		h2_reset(st);
	if (!c->session ||
	    session_request(c->session, method, path_of(url), &c->node.pub, buf_data(body),
			    body->len, &noise_ops, c, &c->ping_stream) < 0)
		c->ping_stream = NULL;
}

int control_c2n_answer(const void *request, size_t len, struct buf *out)
{
	struct http_head h;
	const uint8_t *body;
	size_t body_len;
	bool echo;
	int n;

	n = http_request_parse(request, len, &h);
	if (n < 0)
		return n == -EAGAIN ? -EBADMSG : n;
	body = (const uint8_t *)request + n;
	body_len = len - (size_t)n;
	if (h.content_length >= 0)
		body_len = MIN(body_len, (size_t)h.content_length);
	echo = http_str_eq(h.path, "/echo");
	http_put_status(out, echo ? 200 : 404);
	http_put_header(out, "Content-Type", "text/plain; charset=utf-8");
	http_put_header_int(out, "Content-Length", echo ? (int64_t)body_len : 0);
	http_put_end(out);
	if (echo)
		buf_put(out, body, body_len);
	return out->bad ? -ENOMEM : 0;
}

static void c2n(struct control *c, const struct tailcfg_ping *p)
{
	CLEANUP(buf_done) struct buf in = { .max = C2N_MAX }, out = { .max = 2 * C2N_MAX };
	size_t len = p->payload ? strlen(p->payload) : 0;
	uint8_t *to = buf_tail(&in, len / 4 * 3 + 3);
	int n = to ? http_base64_decode((struct http_str){ p->payload, len }, to, len / 4 * 3 + 3) : -1;

	if (n < 0 || control_c2n_answer(to, (size_t)n, &out) < 0) {
		log_remote(LOG_LEVEL_DEBUG, "control: a c2n request that cannot be read");
		return;
	}
	over_noise(c, "POST", p->url, &out);
}

static bool too_many(struct control *c)
{
	uint64_t now = loop_now(c->loop);

	for (; c->pings && now - c->ping_time >= USEC_PER_SEC; c->pings--)
		c->ping_time += USEC_PER_SEC;
	if (c->pings == PINGS_MAX)
		return true;
	if (c->pings++ == 0)
		c->ping_time = now;
	return false;
}

void control_ping(struct control *c, const struct tailcfg_ping *p)
{
	static const struct buf empty;

	if ((c->last_ping && strcmp(c->last_ping, p->url) == 0) || too_many(c))
		return;
	free(c->last_ping);
	c->last_ping = strdup(p->url);
	if (strcmp(p->types, "c2n") == 0)
		c2n(c, p);
	else if (*p->types)
		return; /* network pings: nothing is posted where none was made */
	else if (p->over_noise || *p->url == '/')
		over_noise(c, "HEAD", p->url, &empty);
	else
		head_at_server(c, p->url);
}
