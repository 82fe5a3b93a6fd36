#include "daemon/relay/derpconn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/http.h"
#include "lib/log.h"
#include "lib/stream.h"
#include "proto/derp.h"

#define CONNECT_USEC	(10 * USEC_PER_SEC) /* all of dialling, TLS, HTTP and greeting */
#define NODE_TCP_USEC	(1500 * USEC_PER_MSEC)
#define NODE_USEC	(4 * USEC_PER_SEC)   /* with looking up its name */
#define SILENCE_USEC	(120 * USEC_PER_SEC) /* relays send a KeepAlive every 60 to 65 s */
#define OUT_MAX		(256u << 10)
#define HTTP_ANSWER_MAX 8192

enum derpconn_state {
	DERPCONN_STATE_DIALLING,
	DERPCONN_STATE_TLS,
	DERPCONN_STATE_HTTP,	/* waiting for 101 */
	DERPCONN_STATE_KEY,	/* waiting for ServerKey */
	DERPCONN_STATE_GREETED, /* ClientInfo is out: packets may be sent */
	DERPCONN_STATE_UP,
	DERPCONN_STATE_DOWN,
};

struct derpconn {
	struct loop *loop;
	struct derpconn_opts o;
	enum derpconn_state state;
	size_t node;
	size_t tried;
	struct dial *dial;
	struct stream *stream;
	struct endpoint remote;
	struct key server;
	struct derp_reader reader;
	struct loop_timer *timer;  /* connecting, then silence */
	struct loop_timer *check;  /* an answer is due */
	struct loop_defer *flush;  /* ends the cork */
	struct loop_defer *downer; /* tells the owner */
	uint64_t heard_usec;
	enum derpconn_reach reach;
	bool home, corked, fast;
	unsigned int busy; /* callbacks that are running */
	bool freed;	   /* by one of them */
	int error;
	char why[192];
	/* What the relay asked of us: more than this is dropped here, as stock nodes do. */
	int64_t rate, burst, tokens;
	uint64_t tokens_usec;
};

static void conn_dial(struct derpconn *c);

static void derp_queue_pop(struct derp_queue *q)
{
	buf_done(&q->at[q->head]);
	q->head = (q->head + 1) % DERP_QUEUE_PACKETS;
	q->n--;
}

int derp_queue_push(struct derp_queue *q, const struct key *dst, const uint8_t *p, size_t len)
{
	struct derp_packet packet = { .peer = *dst, .data = p, .len = len };
	struct buf b = { 0 };
	int r = derp_put_packet(&b, DERP_FRAME_SEND_PACKET, &packet);

	if (r < 0 || b.bad) {
		buf_done(&b);
		return r < 0 ? r : -ENOMEM;
	}
	if (q->n == DERP_QUEUE_PACKETS) {
		derp_queue_pop(q);
		q->dropped++;
	}
	q->at[(q->head + q->n++) % DERP_QUEUE_PACKETS] = b;
	return 0;
}

void derp_queue_clear(struct derp_queue *q)
{
	while (q->n) {
		derp_queue_pop(q);
		q->dropped++;
	}
}

static const struct derp_node *conn_node(const struct derpconn *c)
{
	return &c->o.region->nodes[c->node];
}

/* Ends the attempt; the owner hears of it on the loop's next turn. */
static void conn_down(struct derpconn *c, int error, const char *why)
{
	if (c->state == DERPCONN_STATE_DOWN)
		return;
	c->state = DERPCONN_STATE_DOWN;
	c->error = error;
	if (why != c->why)
		snprintf(c->why, sizeof(c->why), "%s", why);
	loop_timer_stop(c->timer);
	loop_timer_stop(c->check);
	loop_defer_arm(c->downer);
}

static void conn_tell_down(void *data)
{
	struct derpconn *c = data;

	c->o.ops->on_down(c->o.data, c, c->error, c->why);
}

static void conn_timeout(void *data)
{
	static const char *const what[] = {
		[DERPCONN_STATE_DIALLING] = "no connection in time",
		[DERPCONN_STATE_TLS] = "no TLS handshake in time",
		[DERPCONN_STATE_HTTP] = "no answer to the upgrade in time",
		[DERPCONN_STATE_KEY] = "no ServerKey in time",
		[DERPCONN_STATE_GREETED] = "no ServerInfo in time",
	};
	struct derpconn *c = data;
	uint64_t now = loop_now(c->loop);

	if (c->state == DERPCONN_STATE_DOWN)
		return;
	if (c->state != DERPCONN_STATE_UP)
		conn_down(c, -ETIMEDOUT, what[c->state]);
	else if (now - c->heard_usec >= SILENCE_USEC)
		conn_down(c, -ETIMEDOUT, "silent for two minutes");
	else
		loop_timer_at(c->timer, c->heard_usec + SILENCE_USEC);
}

static void conn_check_timeout(void *data)
{
	conn_down(data, -ETIMEDOUT, "no answer to a ping");
}

/* What is sent in one turn of the loop leaves together. */
static int conn_write(struct derpconn *c, const struct buf *b)
{
	int r;

	if (b->bad)
		return -ENOMEM;
	if (!c->corked) {
		stream_cork(c->stream);
		c->corked = true;
		loop_defer_arm(c->flush);
	}
	r = stream_write(c->stream, buf_data(b), b->len);
	if (r < 0)
		conn_down(c, r, "cannot write");
	return r;
}

static void conn_flush(void *data)
{
	struct derpconn *c = data;

	if (!c->corked)
		return;
	c->corked = false;
	stream_uncork(c->stream);
}

static bool conn_may_write(const struct derpconn *c)
{
	return (c->state == DERPCONN_STATE_GREETED || c->state == DERPCONN_STATE_UP) &&
	       (c->corked ? stream_pending(c->stream) < OUT_MAX / 4 : !stream_pending(c->stream));
}

/* The relay's wish for a limit; a packet beyond it is dropped. */
static bool conn_within_rate(struct derpconn *c, size_t bytes)
{
	uint64_t now;

	if (!c->rate)
		return true;
	now = loop_now(c->loop);
	c->tokens += (int64_t)((double)MIN(now - c->tokens_usec, 60 * USEC_PER_SEC) *
			       (double)c->rate / (double)USEC_PER_SEC);
	c->tokens = MIN(c->tokens, c->burst);
	c->tokens_usec = now;
	if (c->tokens < (int64_t)bytes)
		return false;
	c->tokens -= (int64_t)bytes;
	return true;
}

void derpconn_run(struct derpconn *c)
{
	while (c->o.queue->n && conn_may_write(c)) {
		const struct buf *b = &c->o.queue->at[c->o.queue->head];

		if (conn_within_rate(c, b->len))
			conn_write(c, b);
		else
			c->o.queue->dropped++;
		derp_queue_pop(c->o.queue);
	}
}

void derpconn_prefer(struct derpconn *c, bool home)
{
	struct buf b = { 0 };

	c->home = home;
	if (c->state != DERPCONN_STATE_GREETED && c->state != DERPCONN_STATE_UP)
		return;
	derp_put_note_preferred(&b, home);
	conn_write(c, &b);
	buf_done(&b);
}

void derpconn_check(struct derpconn *c, uint64_t within_usec)
{
	uint8_t token[DERP_PING_LEN];
	struct buf b = { 0 };

	if (c->state != DERPCONN_STATE_UP)
		return; /* connecting has a deadline of its own */
	if (stream_stranded(c->stream)) {
		conn_down(c, -EADDRNOTAVAIL, "our address there is gone");
		return;
	}
	randombytes_buf(token, sizeof(token));
	derp_put_ping(&b, DERP_FRAME_PING, token);
	if (conn_write(c, &b) >= 0 && !loop_timer_armed(c->check))
		loop_timer_in(c->check, within_usec);
	buf_done(&b);
}

/* ClientInfo, and that this is home, in one flush. */
static void conn_greet(struct derpconn *c, struct buf *b)
{
	struct derp_client_info info = { .version = DERP_VERSION, .can_ack_pings = true };
	uint8_t nonce[DERP_NONCE_LEN];

	randombytes_buf(nonce, sizeof(nonce));
	if (derp_put_client_info(b, &info, c->o.self, &c->server, nonce) < 0) {
		conn_down(c, -EBADMSG, "the relay's key cannot be");
		return;
	}
	if (c->home)
		derp_put_note_preferred(b, true);
	c->state = DERPCONN_STATE_GREETED;
}

static void conn_request(const struct derpconn *c, struct buf *b)
{
	const struct derp_node *n = conn_node(c);
	uint16_t port = c->remote.port;
	bool bare = port == (derpconn_tls(c) ? 443 : 80);
	bool v6 = strchr(n->hostname, ':');
	char host[DERP_TEXT_MAX + 16], suffix[8] = "";

	if (!bare)
		snprintf(suffix, sizeof(suffix), ":%u", port);
	snprintf(host, sizeof(host), "%s%s%s%s", v6 ? "[" : "", n->hostname, v6 ? "]" : "", suffix);
	http_put_request(b, "GET", "/derp", host);
	http_put_header(b, "User-Agent", "kernscaled/" KERNSCALE_VERSION);
	http_put_header(b, "Connection", "Upgrade");
	if (c->fast)
		http_put_header(b, "Derp-Fast-Start", "1");
	if (c->node != 0)
		http_put_header(b, "Ideal-Node", c->o.region->nodes[0].name);
	http_put_header(b, "Upgrade", "DERP");
	http_put_end(b);
}

/* derpkey<64 hex> with the protocol's version as serial number: the server's key, known early. */
static int conn_meta_cert(void *data, const struct tls_cert *cert)
{
	static const char prefix[] = "derpkey";
	size_t skip = sizeof(prefix) - 1;
	struct key *k = data;
	struct key found;

	if (!key_is_zero(k) || strncmp(cert->cn, prefix, skip) || !cert->serial_known ||
	    !cert->serial || cert->serial > UINT8_MAX)
		return 0;
	if (key_parse(KEY_KIND_HEX, cert->cn + skip, strlen(cert->cn + skip), &found) == 0)
		*k = found;
	return 0;
}

static void conn_ready(void *data, struct stream *s)
{
	struct derpconn *c = data;
	struct buf b = { 0 };

	if (c->state != DERPCONN_STATE_TLS)
		return;
	if (stream_is_tls(s) && stream_tls_version(s) == 0x0304) {
		stream_peer_certs(s, conn_meta_cert, &c->server);
		c->fast = !key_is_zero(&c->server);
	}
	conn_request(c, &b);
	c->state = DERPCONN_STATE_HTTP;
	c->reach = DERPCONN_REACH_TLS;
	if (c->fast)
		conn_greet(c, &b);
	if (c->state != DERPCONN_STATE_DOWN)
		conn_write(c, &b);
	buf_done(&b);
	derpconn_run(c);
}

/* The answer to the upgrade; false while it is incomplete or when it ended the attempt. */
static bool conn_answer(struct derpconn *c, struct buf *in)
{
	struct http_head h;
	char why[128];
	int r = http_response_parse(buf_data(in), in->len, &h);

	if (r == -EAGAIN && in->len < HTTP_ANSWER_MAX)
		return false;
	if (r < 0) {
		conn_down(c, -EBADMSG, "no HTTP answer to the upgrade");
		return false;
	}
	if (h.status != 101) {
		snprintf(why, sizeof(why), "the upgrade was answered by %d %.*s", h.status,
			 (int)MIN(h.reason.len, (size_t)64), h.reason.p ? h.reason.p : "");
		conn_down(c, -EPROTO, why);
		return false;
	}
	buf_consume(in, (size_t)r);
	c->state = DERPCONN_STATE_KEY;
	return true;
}

static int conn_server_key(struct derpconn *c, const struct derp_frame *f)
{
	struct buf b = { 0 };

	if (c->state != DERPCONN_STATE_KEY)
		return 0; /* fast start: known already */
	if (derp_server_key_decode(f->body, f->len, &c->server) < 0)
		return -EBADMSG;
	conn_greet(c, &b);
	if (c->state == DERPCONN_STATE_GREETED)
		conn_write(c, &b);
	buf_done(&b);
	derpconn_run(c);
	return 0;
}

static int conn_server_info(struct derpconn *c, const struct derp_frame *f)
{
	struct derp_server_info info;

	if (c->state != DERPCONN_STATE_GREETED)
		return c->state == DERPCONN_STATE_UP ? 0 : -EPROTO;
	if (derp_server_info_open(f->body, f->len, &c->o.self->priv, &c->server, &info) < 0)
		return -EBADMSG;
	if (info.rate_bytes_per_sec > 0) {
		c->rate = MIN(info.rate_bytes_per_sec, INT64_C(1) << 40);
		c->burst = MAX(MIN(info.rate_burst_bytes, INT64_C(1) << 40),
			       (int64_t)(DERP_PACKET_HEAD_LEN + DERP_PACKET_MAX));
		c->tokens = c->burst;
		c->tokens_usec = loop_now(c->loop);
	}
	c->state = DERPCONN_STATE_UP;
	c->reach = DERPCONN_REACH_UP;
	loop_timer_at(c->timer, loop_now(c->loop) + SILENCE_USEC);
	c->o.ops->on_up(c->o.data, c);
	return 0;
}

static int conn_health(struct derpconn *c, const struct derp_frame *f)
{
	char text[256];
	size_t n = MIN(f->len, sizeof(text) - 1);

	memcpy(text, f->body, n);
	text[n] = '\0';
	c->o.ops->on_health(c->o.data, c, text);
	return 0;
}

static int conn_ping(struct derpconn *c, const struct derp_frame *f)
{
	uint8_t token[DERP_PING_LEN];
	struct buf b = { 0 };

	if (derp_ping_decode(f->body, f->len, token) < 0)
		return -EBADMSG;
	derp_put_ping(&b, DERP_FRAME_PONG, token);
	conn_write(c, &b);
	buf_done(&b);
	return 0;
}

static int conn_frame(struct derpconn *c, const struct derp_frame *f)
{
	struct derp_packet p;
	struct derp_gone g;

	if (c->state == DERPCONN_STATE_KEY && f->type != DERP_FRAME_SERVER_KEY)
		return -EPROTO;
	switch (f->type) {
	case DERP_FRAME_SERVER_KEY:
		return conn_server_key(c, f);
	case DERP_FRAME_SERVER_INFO:
		return conn_server_info(c, f);
	case DERP_FRAME_RECV_PACKET:
		if (derp_packet_decode(f->body, f->len, &p) < 0)
			return -EBADMSG;
		c->o.ops->on_packet(c->o.data, c, &p.peer, p.data, p.len);
		return 0;
	case DERP_FRAME_PEER_GONE:
		if (derp_gone_decode(f->body, f->len, &g) < 0)
			return -EBADMSG;
		c->o.ops->on_gone(c->o.data, c, &g.peer, g.reason);
		return 0;
	case DERP_FRAME_PING:
		return conn_ping(c, f);
	case DERP_FRAME_HEALTH:
		return conn_health(c, f);
	default: /* KeepAlive, Pong, PeerPresent, Restarting: being heard is all */
		return 0;
	}
}

static void conn_input(void *data, struct stream *s)
{
	struct derpconn *c = data;
	struct buf *in = stream_input(s);
	const uint8_t *p;
	size_t len;
	int r = 0;

	if (c->state == DERPCONN_STATE_DOWN ||
	    (c->state == DERPCONN_STATE_HTTP && !conn_answer(c, in)))
		return;
	c->busy++;
	p = buf_data(in);
	len = in->len;
	while (c->state != DERPCONN_STATE_DOWN) {
		struct derp_frame f;

		r = derp_reader_next(&c->reader, &p, &len, &f);
		if (r <= 0)
			break;
		c->heard_usec = loop_now(c->loop);
		loop_timer_stop(c->check);
		r = conn_frame(c, &f);
		if (r < 0)
			break;
	}
	buf_consume(in, in->len - len);
	derp_reader_trim(&c->reader);
	if (r < 0)
		conn_down(c, r, r == -EPROTO ? "frames out of order" : "malformed frame");
	c->busy--;
	if (c->freed)
		derpconn_free(c);
}

static void conn_drained(void *data, struct stream *s)
{
	(void)s;
	derpconn_run(data);
}

static void conn_closed(void *data, struct stream *s, int error, const char *why)
{
	struct derpconn *c = data;

	(void)s;
	if (c->state == DERPCONN_STATE_GREETED && !error)
		conn_down(c, -EACCES, "closed after our greeting: not admitted");
	else
		conn_down(c, error ? error : -ECONNRESET, why);
}

static const struct stream_ops conn_stream_ops = {
	.on_ready = conn_ready,
	.on_input = conn_input,
	.on_drained = conn_drained,
	.on_closed = conn_closed,
};

bool derpconn_is_plain(const struct derp_node *n, bool all, const char *host, uint16_t port)
{
	return all || (host && *host && !strcasecmp(host, n->hostname) && port == derp_node_port(n));
}

/* Whom CertName makes us trust: a pin, a name of its own behind the host asked for, or the host. */
static int conn_expect(const struct derp_node *n, uint8_t pin[static 32], struct tls_expect *ret)
{
	int r = derp_node_pin(n, pin);

	if (r < 0)
		return r;
	*ret = (struct tls_expect){ .name = n->hostname };
	if (r == 1) {
		ret->pin_sha256 = pin;
	} else if (*n->cert_name) {
		ret->name = n->cert_name;
		ret->sni = n->hostname;
	} else {
		ret->insecure = n->insecure_for_tests;
	}
	return 0;
}

static void conn_dialled(void *data, int fd, const struct endpoint *to, const char *why)
{
	static const int user_msec = 20000;
	struct derpconn *c = data;
	const struct derp_node *n = conn_node(c);
	struct stream_opts so = { .ops = &conn_stream_ops,
				  .data = c,
				  .out_max = OUT_MAX,
				  .handshake_usec = CONNECT_USEC };
	uint8_t pin[32];
	int r;

	c->dial = NULL;
	if (c->state == DERPCONN_STATE_DOWN) {
		fd_close(fd);
		return;
	}
	if (fd < 0) {
		log_debug("relay node %s: %s", n->name, why);
		c->tried++;
		c->node = (c->node + 1) % c->o.region->n_nodes;
		snprintf(c->why, sizeof(c->why), "%s", why);
		conn_dial(c);
		return;
	}
	c->reach = DERPCONN_REACH_TCP;
	c->remote = *to;
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_msec, sizeof(user_msec));
	if (!derpconn_is_plain(n, c->o.plain_all, c->o.plain_host, c->o.plain_port)) {
		so.tls = c->o.tls;
		r = conn_expect(n, pin, &so.expect);
		if (r < 0) {
			close(fd);
			conn_down(c, r, "the pin in CertName is malformed");
			return;
		}
	}
	c->state = DERPCONN_STATE_TLS;
	r = stream_new(c->loop, fd, &so, &c->stream);
	if (r < 0) {
		close(fd);
		conn_down(c, r, "cannot set up the connection");
	}
}

/* Addresses in the map spare the look-up; a field that holds no address forbids its family. */
static int conn_addresses(const struct derp_node *n, struct dial_opts *o, struct addr at[static 2])
{
	int v4 = derp_node_addr(n->ipv4, 4, &at[0]);
	int v6 = derp_node_addr(n->ipv6, 6, &at[v4 == 1]);

	if (v4 < 0 && v6 < 0)
		return -EAFNOSUPPORT;
	o->addrs = at;
	o->n_addrs = (size_t)(v4 == 1) + (size_t)(v6 == 1);
	if (o->n_addrs == 0)
		o->addrs = NULL;
	if (v4 < 0)
		o->family = 6;
	if (v6 < 0)
		o->family = 4;
	return 0;
}

static void conn_dial(struct derpconn *c)
{
	int r;

	for (; c->tried < c->o.region->n_nodes;
	     c->tried++, c->node = (c->node + 1) % c->o.region->n_nodes) {
		const struct derp_node *n = conn_node(c);
		struct dial_opts o = { .mark = c->o.mark,
				       .cache = c->o.cache,
				       .address_usec = NODE_TCP_USEC,
				       .total_usec = NODE_USEC };
		struct addr at[2];

		if (n->stun_only || conn_addresses(n, &o, at) < 0)
			continue;
		r = dial_start(c->loop, n->hostname, derp_node_port(n), &o, conn_dialled, c,
			       &c->dial);
		if (r >= 0)
			return;
		snprintf(c->why, sizeof(c->why), "cannot dial %s: %s", n->hostname, strerror(-r));
	}
	conn_down(c, -ENOTCONN, *c->why ? c->why : "the region has no relay to dial");
}

int derpconn_new(struct loop *l, const struct derpconn_opts *o, struct derpconn **ret)
{
	CLEANUP(derpconn_free) struct derpconn *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->loop = l;
	c->o = *o;
	c->home = o->home;
	derp_reader_init(&c->reader, DERP_ROLE_CLIENT);
	r = loop_timer_new(l, conn_timeout, c, &c->timer);
	if (r >= 0)
		r = loop_timer_new(l, conn_check_timeout, c, &c->check);
	if (r >= 0)
		r = loop_defer_new(l, conn_flush, c, &c->flush);
	if (r >= 0)
		r = loop_defer_new(l, conn_tell_down, c, &c->downer);
	if (r < 0)
		return r;
	loop_timer_in(c->timer, CONNECT_USEC);
	c->node = o->region->n_nodes ? o->first_node % o->region->n_nodes : 0;
	conn_dial(c);
	*ret = TAKE(c);
	return 0;
}

void derpconn_free(struct derpconn *c)
{
	if (!c)
		return;
	if (c->busy) {
		conn_down(c, -ECANCELED, "closed");
		loop_defer_drop(TAKE(c->downer)); /* nobody is there to be told */
		c->freed = true;
		return;
	}
	dial_cancel(c->dial);
	stream_free(c->stream);
	derp_reader_done(&c->reader);
	loop_timer_free(c->timer);
	loop_timer_free(c->check);
	loop_defer_drop(c->flush);
	loop_defer_drop(c->downer);
	free(c);
}

bool derpconn_up(const struct derpconn *c)
{
	return c->state == DERPCONN_STATE_UP;
}

bool derpconn_tls(const struct derpconn *c)
{
	return c->stream && stream_is_tls(c->stream);
}

size_t derpconn_node(const struct derpconn *c)
{
	return c->node;
}

const struct endpoint *derpconn_remote(const struct derpconn *c)
{
	return &c->remote;
}

const struct key *derpconn_server_key(const struct derpconn *c)
{
	return &c->server;
}

bool derpconn_fast(const struct derpconn *c)
{
	return c->fast;
}

enum derpconn_reach derpconn_reached(const struct derpconn *c)
{
	return c->reach;
}
