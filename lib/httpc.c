#include "lib/httpc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/stream.h"

#define TIMEOUT_DEFAULT (10 * USEC_PER_SEC)
#define BODY_DEFAULT	(64u << 10)

enum httpc_state {
	HTTPC_STATE_DIAL,
	HTTPC_STATE_HEAD,
	HTTPC_STATE_LENGTH, /* body of a known length */
	HTTPC_STATE_CHUNKED,
	HTTPC_STATE_CLOSE, /* body up to the connection's end */
};

struct httpc {
	struct loop *loop;
	httpc_fn *fn;
	void *data;
	struct http_url url;
	struct tls_ctx *tls;
	uint8_t pin[32];
	bool pinned, insecure, head_only, dead;
	struct dial *dial;
	struct stream *s;
	struct loop_timer *timer;
	struct loop_defer *turn; /* a result that start() found out */
	int early;		 /* errno of it */
	enum httpc_state state;
	struct buf request, body;
	char *bytes; /* of the head */
	struct http_head head;
	struct http_chunked chunked;
	size_t max_body;
};

static void httpc_bury(void *p)
{
	struct httpc *c = p;

	buf_done_secret(&c->request);
	buf_done_secret(&c->body);
	tls_ctx_unref(c->tls);
	free(c->bytes);
	free(c);
}

void httpc_cancel(struct httpc *c)
{
	if (!c || c->dead)
		return;
	c->dead = true;
	dial_cancel(c->dial);
	stream_free(c->s);
	loop_timer_free(c->timer);
	loop_defer_drop(c->turn);
	loop_defer_free(c->loop, c, httpc_bury);
}

static void httpc_fail(struct httpc *c, int r, const char *why)
{
	if (c->dead)
		return;
	httpc_cancel(c);
	c->fn(c->data, r, NULL, why);
}

static void httpc_done(struct httpc *c)
{
	struct httpc_answer a = { .head = &c->head };

	/* The terminator is one byte beyond the limit that was asked for. */
	c->body.max = c->max_body + 1;
	a.body = (const uint8_t *)buf_str(&c->body);
	if (!a.body) {
		httpc_fail(c, -ENOMEM, "out of memory");
		return;
	}
	a.len = c->body.len;
	httpc_cancel(c);
	c->fn(c->data, 0, &a, "ok");
}

/* ---- the answer */

/* 0 go on, 1 wait, negative */
static int head_input(struct httpc *c, struct buf *in)
{
	int n = http_response_parse(buf_data(in), in->len, &c->head);
	bool bodyless;

	if (n == -EAGAIN)
		return 1;
	if (n < 0)
		return n;
	free(c->bytes);
	c->bytes = malloc((size_t)n);
	if (!c->bytes)
		return -ENOMEM;
	memcpy(c->bytes, buf_data(in), (size_t)n);
	http_response_parse(c->bytes, (size_t)n, &c->head);
	buf_consume(in, (size_t)n);
	if (c->head.status / 100 == 1)
		return c->head.status == 101 ? -EPROTO : 0;
	bodyless = c->head_only || c->head.status == 204 || c->head.status == 304;
	if (bodyless)
		c->head.content_length = 0;
	if (c->head.content_length > (int64_t)c->max_body)
		return -ENOBUFS;
	c->state = c->head.chunked && !bodyless	  ? HTTPC_STATE_CHUNKED :
		   c->head.content_length >= 0 ? HTTPC_STATE_LENGTH :
						 HTTPC_STATE_CLOSE;
	return 0;
}

/* 0 complete, 1 wait, negative */
static int body_input(struct httpc *c, struct buf *in)
{
	size_t n = in->len;
	int r;

	if (c->state == HTTPC_STATE_CHUNKED) {
		r = http_chunked_feed(&c->chunked, buf_data(in), n, &c->body);
		if (r < 0)
			return r;
		buf_consume(in, (size_t)r);
		return c->chunked.done ? 0 : 1;
	}
	if (c->state == HTTPC_STATE_LENGTH)
		n = MIN(n, (size_t)c->head.content_length - c->body.len);
	r = buf_put(&c->body, buf_data(in), n);
	if (r < 0)
		return r;
	buf_consume(in, n);
	return c->state == HTTPC_STATE_LENGTH && c->body.len == (size_t)c->head.content_length ? 0 : 1;
}

static void on_input(void *data, struct stream *s)
{
	struct httpc *c = data;
	struct buf *in = stream_input(s);
	int r = 0;

	while (c->state == HTTPC_STATE_HEAD && r == 0)
		r = head_input(c, in);
	if (r == 0)
		r = body_input(c, in);
	if (r < 0)
		httpc_fail(c, r, r == -ENOBUFS ? "the answer is too long" : "the answer is not valid HTTP/1.1");
	else if (r == 0)
		httpc_done(c);
}

static void on_closed(void *data, struct stream *s, int error, const char *why)
{
	struct httpc *c = data;

	(void)s;
	if (error == 0 && c->state == HTTPC_STATE_CLOSE)
		httpc_done(c);
	else
		httpc_fail(c, error ? error : -ECONNRESET, error ? why : "closed before the answer was complete");
}

static const struct stream_ops httpc_stream_ops = { .on_input = on_input, .on_closed = on_closed };

/* ---- the way there */

static int connected(struct httpc *c, int fd)
{
	struct stream_opts so = { .ops = &httpc_stream_ops, .data = c, .tls = c->url.tls ? c->tls : NULL,
				  .out_max = c->request.len + 1 };
	int r;

	so.expect = (struct tls_expect){ .name = c->url.host, .pin_sha256 = c->pinned ? c->pin : NULL,
					 .insecure = c->insecure };
	r = stream_new(c->loop, fd, &so, &c->s);
	if (r < 0) {
		close(fd);
		return r;
	}
	c->state = HTTPC_STATE_HEAD;
	r = stream_write(c->s, buf_data(&c->request), c->request.len);
	buf_done_secret(&c->request);
	return r;
}

static void dialled(void *data, int fd, const struct endpoint *to, const char *why)
{
	struct httpc *c = data;
	int r;

	(void)to;
	c->dial = NULL;
	r = fd < 0 ? fd : connected(c, fd);
	if (r < 0)
		httpc_fail(c, r, fd < 0 ? why : strerror(-r));
}

static int unix_connect(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	CLEANUP(fd_close) int fd = -1;

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static void on_turn(void *data)
{
	struct httpc *c = data;

	httpc_fail(c, c->early, strerror(-c->early));
}

static void on_timeout(void *data)
{
	httpc_fail(data, -ETIMEDOUT, "no answer in time");
}

static int request_build(struct httpc *c, const struct httpc_opts *o)
{
	const char *method = o->method ? o->method : "GET";
	char host[280];

	c->request.max = HTTP_HEAD_MAX + o->body_len;
	c->head_only = strcmp(method, "HEAD") == 0;
	http_put_request(&c->request, method, c->url.target, http_url_host(&c->url, false, host));
	http_put_header(&c->request, "Connection", "close");
	for (const char *const *h = o->headers; h && h[0]; h += 2)
		http_put_header(&c->request, h[0], h[1]);
	if (o->body_len || (strcmp(method, "GET") != 0 && !c->head_only))
		http_put_header_int(&c->request, "Content-Length", (int64_t)o->body_len);
	http_put_end(&c->request);
	buf_put(&c->request, o->body, o->body_len);
	return c->request.bad ? -EINVAL : 0;
}

static int go(struct httpc *c, const struct httpc_opts *o)
{
	int r;

	if (!o->unix_path)
		return dial_start(c->loop, c->url.host, c->url.port, &o->dial, dialled, c, &c->dial);
	c->url.tls = false;
	r = unix_connect(o->unix_path);
	if (r >= 0)
		r = connected(c, r);
	if (r < 0) {
		c->early = r;
		loop_defer_arm(c->turn);
	}
	return 0;
}

int httpc_start(struct loop *l, const struct httpc_opts *o, httpc_fn *fn, void *data, struct httpc **ret)
{
	CLEANUP(httpc_cancel) struct httpc *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->loop = l;
	c->fn = fn;
	c->data = data;
	c->max_body = o->max_body ? o->max_body : BODY_DEFAULT;
	c->body.max = c->max_body;
	c->insecure = o->insecure;
	c->pinned = o->pin_sha256 != NULL;
	if (c->pinned)
		memcpy(c->pin, o->pin_sha256, sizeof(c->pin));
	r = http_url_parse(o->url, &c->url);
	if (r < 0)
		return r;
	if (c->url.tls && !o->unix_path && !o->tls)
		return -EINVAL;
	c->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
	r = request_build(c, o);
	if (r == 0)
		r = loop_timer_new(l, on_timeout, c, &c->timer);
	if (r == 0)
		r = loop_defer_new(l, on_turn, c, &c->turn);
	if (r < 0)
		return r;
	loop_timer_in(c->timer, o->timeout_usec ? o->timeout_usec : TIMEOUT_DEFAULT);
	r = go(c, o);
	if (r < 0)
		return r;
	*ret = TAKE(c);
	return 0;
}
