#include "proto/ts2021_conn.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "proto/ts2021.h"

#define HANDSHAKE_DEFAULT (10 * USEC_PER_SEC)
#define OUT_MAX		  (8u << 20)
#define EARLY_PART_MAX	  (TS2021_EARLY_MAX + TS2021_EARLY_HEADER)

/* Where the client's side of the conversation stands. */
enum conn_state {
	CONN_STATE_UPGRADE,   /* waits for the 101 */
	CONN_STATE_HANDSHAKE, /* waits for the Noise response */
	CONN_STATE_EARLY,     /* records flow; the first bytes may be the early payload */
	CONN_STATE_OPEN,
	CONN_STATE_CLOSED,
};

struct ts2021_conn {
	struct stream *s;
	struct loop *loop;
	struct loop_timer *timer;
	const struct ts2021_conn_ops *ops;
	void *data;
	enum conn_state state;
	struct noise_handshake hs;
	struct noise_cipher tx;
	struct ts2021_records rx;
	struct buf early; /* plaintext kept until the early payload is whole */
	struct buf plain; /* of one turn */
	struct buf sealed;
	struct key peer;
	uint16_t version;
	char *host;
	bool greeted; /* the upgrade request is out */
	bool dead;
};

static void conn_bury(void *p)
{
	struct ts2021_conn *c = p;

	noise_handshake_wipe(&c->hs);
	key_wipe(&c->tx.key);
	ts2021_records_done(&c->rx);
	buf_done_secret(&c->early);
	buf_done_secret(&c->plain);
	buf_done(&c->sealed);
	free(c->host);
	free(c);
}

void ts2021_conn_free(struct ts2021_conn *c)
{
	if (!c || c->dead)
		return;
	c->dead = true;
	c->state = CONN_STATE_CLOSED;
	stream_free(c->s);
	loop_timer_free(c->timer);
	loop_defer_free(c->loop, c, conn_bury);
}

static void conn_down(struct ts2021_conn *c, int error, const char *why)
{
	if (c->dead || c->state == CONN_STATE_CLOSED)
		return;
	c->state = CONN_STATE_CLOSED;
	loop_timer_stop(c->timer);
	stream_free(c->s);
	c->s = NULL;
	c->ops->on_closed(c->data, c, error, why);
}

/* ---- plaintext in */

static void give(struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	if (n && !c->dead && c->state != CONN_STATE_CLOSED)
		c->ops->on_input(c->data, c, p, n);
}

/* Skips the early payload: its challenge is used by nobody (control.md 5.1). */
static void early_input(struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	const char *json;
	size_t len;
	int r;

	c->early.max = EARLY_PART_MAX + NOISE_FRAME_MAX + n;
	if (buf_put(&c->early, p, n) < 0) {
		conn_down(c, -ENOMEM, "out of memory");
		return;
	}
	r = ts2021_early_read(buf_data(&c->early), c->early.len, &json, &len);
	if (r == -EAGAIN)
		return;
	if (r < 0) {
		conn_down(c, -EBADMSG, "early payload too long");
		return;
	}
	c->state = CONN_STATE_OPEN;
	buf_consume(&c->early, (size_t)r);
	give(c, buf_data(&c->early), c->early.len);
	buf_done_secret(&c->early);
}

static void records_input(struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	int r;

	c->plain.max = n + NOISE_FRAME_MAX;
	r = ts2021_records_feed(&c->rx, p, n, &c->plain);
	if (c->plain.len && c->state == CONN_STATE_EARLY)
		early_input(c, buf_data(&c->plain), c->plain.len);
	else
		give(c, buf_data(&c->plain), c->plain.len);
	buf_done_secret(&c->plain); /* idle connections hold no buffers; a login had its key in it */
	if (r < 0)
		conn_down(c, r, r == -ENOMEM ? "out of memory" : "a record does not decrypt");
}

/* ---- client */

static int client_hello(struct ts2021_conn *c)
{
	uint8_t initiation[NOISE_INITIATION_LEN];
	CLEANUP(buf_done) struct buf b = { .max = 4096 };
	struct key_pair machine = c->hs.static_key;
	int r = noise_initiator_start(&c->hs, &machine, &c->peer, c->version, NULL, initiation);

	key_pair_wipe(&machine);
	if (r < 0)
		return r;
	c->greeted = true;
	ts2021_put_request(&b, c->host, initiation);
	return b.bad ? -EINVAL : stream_write(c->s, buf_data(&b), b.len);
}

/* What the server says in plain words, as far as it is one printable line. */
static void refusal(const struct http_head *head, const struct buf *in, size_t at, char *out, size_t max)
{
	const char *p = (const char *)buf_data(in) + at;
	size_t n = 0;

	while (n < in->len - at && n < 100 && p[n] >= ' ' && p[n] < 0x7f)
		n++;
	if (head->status / 100 == 3) /* where to is for people to decide: it was they who chose the server */
		snprintf(out, max, "the server sends us elsewhere (status %d); its own URL is needed", head->status);
	else
		snprintf(out, max, "the server answered the upgrade with status %d%s%.*s", head->status,
			 n ? ": " : "", (int)n, p);
}

static void client_upgrade(struct ts2021_conn *c, struct buf *in)
{
	struct http_head head;
	int n = http_response_parse(buf_data(in), in->len, &head);
	char why[180];

	if (n == -EAGAIN)
		return;
	if (n < 0) {
		conn_down(c, -EPROTO, "the answer to the upgrade is not HTTP/1.1");
		return;
	}
	if (ts2021_read_response(&head) < 0) {
		refusal(&head, in, (size_t)n, why, sizeof(why));
		conn_down(c, head.status == 400 ? -EKEYREJECTED : -EPROTO, why);
		return;
	}
	buf_consume(in, (size_t)n); /* what is behind it is Noise already (control.md T5) */
	c->state = CONN_STATE_HANDSHAKE;
}

static void client_finish(struct ts2021_conn *c, struct buf *in)
{
	struct noise_transport t;
	int r;

	if (in->len && buf_data(in)[0] == NOISE_TYPE_ERROR) {
		conn_down(c, -EPROTO, "the server refused the Noise handshake");
		return;
	}
	if (in->len < NOISE_RESPONSE_LEN)
		return;
	r = noise_initiator_finish(&c->hs, buf_data(in), &t);
	if (r < 0) {
		conn_down(c, r == -EACCES ? -EKEYREJECTED : r, "the server does not have the key we know");
		return;
	}
	buf_consume(in, NOISE_RESPONSE_LEN);
	c->tx = t.tx;
	c->rx.rx = t.rx;
	noise_transport_wipe(&t);
	c->state = CONN_STATE_EARLY;
	loop_timer_stop(c->timer);
	if (c->ops->on_ready)
		c->ops->on_ready(c->data, c);
}

/* ---- stream callbacks */

static void conn_ready(void *data, struct stream *s)
{
	struct ts2021_conn *c = data;
	int r;

	(void)s;
	if (c->state != CONN_STATE_UPGRADE || c->greeted)
		return;
	r = client_hello(c);
	if (r < 0)
		conn_down(c, r, "cannot send the upgrade request");
}

static void conn_input(void *data, struct stream *s)
{
	struct ts2021_conn *c = data;
	struct buf *in = stream_input(s);

	if (c->state == CONN_STATE_UPGRADE)
		client_upgrade(c, in);
	if (c->state == CONN_STATE_HANDSHAKE)
		client_finish(c, in);
	if (c->dead || (c->state != CONN_STATE_EARLY && c->state != CONN_STATE_OPEN) || in->len == 0)
		return;
	if (c->ops->on_batch)
		c->ops->on_batch(c->data, c, true);
	records_input(c, buf_data(in), in->len);
	if (c->dead || c->state == CONN_STATE_CLOSED)
		return;
	buf_consume(in, in->len);
	if (c->ops->on_batch)
		c->ops->on_batch(c->data, c, false);
}

static void conn_drained(void *data, struct stream *s)
{
	struct ts2021_conn *c = data;

	(void)s;
	if (c->ops->on_drained && (c->state == CONN_STATE_EARLY || c->state == CONN_STATE_OPEN))
		c->ops->on_drained(c->data, c);
}

static void conn_closed(void *data, struct stream *s, int error, const char *why)
{
	struct ts2021_conn *c = data;

	(void)s;
	/* A server that cannot decrypt says nothing: the end right after the 101 is its answer (control.md T3). */
	if (c->state == CONN_STATE_HANDSHAKE && (error == 0 || error == -ECONNRESET))
		conn_down(c, -EKEYREJECTED, "the server ended the handshake: it has another key or refuses our version");
	else if (c->state == CONN_STATE_UPGRADE && error == 0)
		conn_down(c, -ECONNRESET, "the server closed the connection before it answered");
	else
		conn_down(c, error, why);
}

static const struct stream_ops conn_stream_ops = {
	.on_ready = conn_ready,
	.on_input = conn_input,
	.on_drained = conn_drained,
	.on_closed = conn_closed,
};

static void conn_timeout(void *data)
{
	conn_down(data, -ETIMEDOUT, "the Noise handshake timed out");
}

static struct ts2021_conn *conn_alloc(struct loop *l, const struct ts2021_conn_ops *ops, void *data)
{
	struct ts2021_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->loop = l;
	c->ops = ops;
	c->data = data;
	return c;
}

int ts2021_conn_client(struct stream *s, const struct ts2021_client_opts *o, const struct ts2021_conn_ops *ops,
		       void *data, struct ts2021_conn **ret)
{
	CLEANUP(ts2021_conn_free) struct ts2021_conn *c = conn_alloc(stream_loop(s), ops, data);
	int r;

	if (!c)
		return -ENOMEM;
	c->host = strdup(o->host);
	if (!c->host)
		return -ENOMEM;
	r = loop_timer_new(c->loop, conn_timeout, c, &c->timer);
	if (r < 0)
		return r;
	loop_timer_in(c->timer, o->handshake_usec ? o->handshake_usec : HANDSHAKE_DEFAULT);
	c->hs.static_key = *o->machine;
	c->peer = *o->server;
	c->version = o->version;
	c->state = CONN_STATE_UPGRADE;
	c->s = s;
	/* A stream whose on_ready has been and gone will not call again. */
	r = stream_ready(s) ? client_hello(c) : 0;
	if (r < 0) {
		c->s = NULL;
		return r;
	}
	stream_set_limits(s, OUT_MAX, 0);
	stream_set_ops(s, &conn_stream_ops, c);
	*ret = TAKE(c);
	return 0;
}

/* ---- server */

static int server_greet(struct ts2021_conn *c, const uint8_t response[static NOISE_RESPONSE_LEN], bool early)
{
	CLEANUP(buf_done) struct buf b = { .max = 4096 }, payload = { .max = 4096 };
	struct key challenge;
	int r = 0;

	ts2021_put_response(&b);
	buf_put(&b, response, NOISE_RESPONSE_LEN);
	if (early) {
		struct key_pair once;

		key_pair_generate(&once);
		challenge = once.pub;
		key_pair_wipe(&once);
		ts2021_early_put(&payload, &challenge);
		r = ts2021_records_put(&c->tx, buf_data(&payload), payload.len, &b);
	}
	if (r < 0 || b.bad)
		return -ENOMEM;
	return stream_write(c->s, buf_data(&b), b.len);
}

int ts2021_conn_server(struct httpd_req *q, const struct key_pair *server, bool early,
		       const struct ts2021_conn_ops *ops, void *data, struct ts2021_conn **ret)
{
	uint8_t initiation[NOISE_INITIATION_LEN], response[NOISE_RESPONSE_LEN];
	CLEANUP(ts2021_conn_free) struct ts2021_conn *c = NULL;
	struct noise_handshake hs;
	struct noise_transport t;
	int r = ts2021_read_request(httpd_head(q), initiation);

	if (r < 0) {
		httpd_respond_text(q, 400, r == -EPROTO ?
				   "no upgrade to " TS2021_PROTOCOL ": does a proxy in between take it away?" :
				   "missing or malformed " TS2021_HANDSHAKE_HEADER);
		return r;
	}
	r = noise_responder_read(&hs, server, initiation, sizeof(initiation));
	if (r < 0) {
		httpd_respond_text(q, 400, "Noise handshake failed: not made with this server's key");
		return r;
	}
	r = noise_responder_reply(&hs, NULL, response, &t);
	c = r < 0 ? NULL : conn_alloc(httpd_loop(q), ops, data);
	if (!c) {
		noise_transport_wipe(&t);
		httpd_respond_text(q, 500, "out of memory");
		return r < 0 ? r : -ENOMEM;
	}
	c->peer = hs.peer_static;
	c->version = hs.version;
	c->tx = t.tx;
	c->rx.rx = t.rx;
	noise_transport_wipe(&t);
	c->state = CONN_STATE_OPEN;
	c->s = httpd_take(q);
	stream_set_limits(c->s, OUT_MAX, 0);
	stream_set_ops(c->s, &conn_stream_ops, c);
	/* The owner's first bytes, HTTP/2 SETTINGS, join this in one segment as far as the socket decides. */
	r = server_greet(c, response, early);
	if (r < 0)
		return r;
	*ret = TAKE(c);
	return 0;
}

/* ---- both */

int ts2021_conn_write(struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	size_t sealed = n + (n / NOISE_PLAIN_MAX + 1) * (NOISE_RECORD_HEADER + NOISE_TAG);
	int r;

	if (c->dead || (c->state != CONN_STATE_EARLY && c->state != CONN_STATE_OPEN))
		return -EPIPE;
	/* Asked before sealing: a sealed record that is not sent would cost the counter its place. */
	if (sealed > OUT_MAX || stream_pending(c->s) > OUT_MAX - sealed)
		return -ENOBUFS;
	r = ts2021_records_put(&c->tx, p, n, &c->sealed);
	if (r == 0)
		r = stream_write(c->s, buf_data(&c->sealed), c->sealed.len);
	if (c->sealed.cap > 2048) /* a server has ten thousand of these that are idle */
		buf_done(&c->sealed);
	buf_clear(&c->sealed);
	if (r < 0 && r != -EPIPE) {
		stream_free(c->s);
		c->s = NULL;
		c->state = CONN_STATE_CLOSED;
	}
	return r < 0 ? -EPIPE : 0;
}

size_t ts2021_conn_pending(const struct ts2021_conn *c)
{
	return c->s ? stream_pending(c->s) : 0;
}

const struct key *ts2021_conn_peer(const struct ts2021_conn *c)
{
	return &c->peer;
}

uint16_t ts2021_conn_version(const struct ts2021_conn *c)
{
	return c->version;
}

struct stream *ts2021_conn_stream(struct ts2021_conn *c)
{
	return c->s;
}
