#include "daemon/control/session.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "daemon/control/policy.h"
#include "lib/http.h"
#include "lib/stream.h"
#include "proto/tailcfg.h"
#include "proto/ts2021_conn.h"

#define TURN_USEC (50 * USEC_PER_MSEC) /* of CPU time; so long others wait at the most, but for one message */

struct session {
	struct loop *loop;
	const struct session_ops *ops;
	void *data;
	struct http_url url;
	char authority[280];
	struct key_pair machine;
	struct key server_key;
	struct tls_ctx *tls;
	struct dial *dial;
	struct ts2021_conn *conn;
	struct h2 *h2;
	struct control_toll toll;
	struct loop_timer *rest; /* nothing is read until then */
	uint64_t turn;		 /* CPU time at its beginning */
	bool tired;
	bool dead; /* freed by its owner; the memory goes at the end of the turn */
};

static void session_bury(void *p)
{
	free(p);
}

static void drop_transport(struct session *s)
{
	struct ts2021_conn *conn = TAKE(s->conn);
	struct h2 *h2 = TAKE(s->h2);

	dial_cancel(TAKE(s->dial));
	if (s->rest)
		loop_timer_stop(s->rest);
	h2_free(h2);
	ts2021_conn_free(conn);
}

void session_free(struct session *s)
{
	if (!s || s->dead)
		return;
	s->dead = true;
	drop_transport(s);
	loop_timer_free(s->rest);
	tls_ctx_unref(s->tls);
	key_pair_wipe(&s->machine);
	loop_defer_free(s->loop, s, session_bury);
}

static void session_fail(struct session *s, int error, const char *why)
{
	if (s->dead)
		return;
	drop_transport(s); /* requests end here, and may free us */
	if (!s->dead)
		s->ops->on_closed(s->data, error, why);
}

static int transport_write(void *data, const uint8_t *p, size_t n)
{
	struct session *s = data;

	return s->conn ? ts2021_conn_write(s->conn, p, n) : -EPIPE;
}

static size_t transport_pending(void *data)
{
	struct session *s = data;

	return s->conn ? ts2021_conn_pending(s->conn) : 0;
}

static const struct h2_io transport = { transport_write, transport_pending };

static void h2_failed(void *data, int r, const char *why)
{
	session_fail(data, r, why);
}

static void conn_ready(void *data, struct ts2021_conn *c)
{
	struct session *s = data;
	int r;

	(void)c;
	r = h2_client_new(&transport, s, &s->h2);
	if (r < 0) {
		session_fail(s, r, "cannot start HTTP/2");
		return;
	}
	h2_set_error(s->h2, h2_failed, s);
	s->ops->on_ready(s->data);
}

static uint64_t cpu_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

static void turn_begin(struct session *s)
{
	s->turn = cpu_usec();
}

static void turn_end(struct session *s)
{
	struct stream *stream = s->conn ? ts2021_conn_stream(s->conn) : NULL;
	uint64_t wait;

	if (s->dead || !stream)
		return;
	wait = control_toll_usec(&s->toll, loop_clock(), cpu_usec() - s->turn);
	if (wait == UINT64_MAX) {
		session_fail(s, -EBUSY, "the server sends more than can be read in good time");
	} else if (wait || s->tired) {
		stream_pause(stream);
		loop_timer_in(s->rest, MAX(wait, USEC_PER_MSEC));
	}
}

bool session_tired(struct session *s)
{
	s->tired = s->tired || cpu_usec() - s->turn > TURN_USEC;
	return s->tired;
}

static void rested(void *data)
{
	struct session *s = data;
	struct stream *stream;
	bool waits = s->tired;

	s->tired = false;
	turn_begin(s);
	if (waits)
		s->ops->on_turn(s->data);
	turn_end(s);
	if (s->dead || !s->conn || loop_timer_armed(s->rest))
		return;
	stream = ts2021_conn_stream(s->conn);
	if (stream)
		stream_resume(stream);
}

static void conn_input(void *data, struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	struct session *s = data;
	int r;

	(void)c;
	r = s->h2 ? h2_feed(s->h2, p, n) : -EPROTO;
	if (r < 0 && !s->dead && s->conn)
		session_fail(s, r, "HTTP/2 broke off");
}

static void conn_batch(void *data, struct ts2021_conn *c, bool begins)
{
	(void)c;
	if (begins)
		turn_begin(data);
	else
		turn_end(data);
}

static void conn_drained(void *data, struct ts2021_conn *c)
{
	struct session *s = data;

	(void)c;
	if (s->h2 && h2_drained(s->h2) < 0 && !s->dead && s->conn)
		session_fail(s, -EPIPE, "HTTP/2 broke off");
}

static void conn_closed(void *data, struct ts2021_conn *c, int error, const char *why)
{
	(void)c;
	session_fail(data, error, why);
}

static const struct ts2021_conn_ops conn_ops = {
	.on_ready = conn_ready,
	.on_input = conn_input,
	.on_drained = conn_drained,
	.on_batch = conn_batch,
	.on_closed = conn_closed,
};

static int connected(struct session *s, int fd)
{
	struct ts2021_client_opts o = { .machine = &s->machine,
					.server = &s->server_key,
					.version = TAILCFG_CAP_VERSION };
	struct stream_opts so = { .tls = s->url.tls ? s->tls : NULL,
				  .expect = { .name = s->url.host },
				  .out_max = 4u << 20 };
	CLEANUP(stream_free) struct stream *stream = NULL;
	char host[280];
	int r;

	r = stream_new(s->loop, fd, &so, &stream);
	if (r < 0) {
		fd_close(fd);
		return r;
	}
	o.host = http_url_host(&s->url, true, host);
	r = ts2021_conn_client(stream, &o, &conn_ops, s, &s->conn);
	if (r == 0)
		(void)TAKE(stream);
	return r;
}

static void dialled(void *data, int fd, const struct endpoint *to, const char *why)
{
	struct session *s = data;
	int r;

	(void)to;
	s->dial = NULL;
	if (fd < 0) {
		session_fail(s, fd, why);
		return;
	}
	r = connected(s, fd);
	if (r < 0)
		session_fail(s, r, "cannot set up the connection");
}

int session_new(struct loop *l, const struct session_opts *o, const struct session_ops *ops,
		void *data, struct session **ret)
{
	struct dial_opts d = { .mark = o->mark, .cache = o->cache };
	struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->loop = l;
	s->ops = ops;
	s->data = data;
	s->machine = *o->machine;
	s->server_key = *o->server_key;
	r = loop_timer_new(l, rested, s, &s->rest);
	if (r == 0)
		r = http_url_parse(o->server_url, &s->url);
	if (r == 0 && s->url.tls && !o->tls)
		r = -EINVAL;
	if (r == 0) {
		http_url_host(&s->url, false, s->authority);
		s->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
		r = dial_start(l, s->url.host, s->url.port, &d, dialled, s, &s->dial);
	}
	if (r < 0) {
		session_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

bool session_ready(const struct session *s)
{
	return s->h2 != NULL;
}

int session_request(struct session *s, const char *method, const char *path, const struct key *node,
		    const void *body, size_t len, const struct h2_client_ops *ops, void *data,
		    struct h2_stream **ret)
{
	char key[KEY_TEXT_MAX];
	struct h2_header headers[] = { { "content-type", "application/json" },
				       { "ts-lb", key_text(KEY_KIND_NODE, node, key) } };
	struct h2_request rq = { .method = method,
				 .authority = s->authority,
				 .path = path,
				 .headers = headers,
				 .n_headers = ARRAY_SIZE(headers),
				 .body = body,
				 .body_len = len };

	return s->h2 ? h2_request(s->h2, &rq, ops, data, ret) : -ENOTCONN;
}

int session_ping(struct session *s, void (*fn)(void *data), void *data)
{
	return s->h2 ? h2_ping(s->h2, fn, data) : -ENOTCONN;
}
