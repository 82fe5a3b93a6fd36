/*
 * client: reads what a client sends, writes what is for it.
 *
 * A packet goes straight from the reader's memory into the receiver's stream, which is corked until
 * the sender's input is used up: one system call or TLS record carries many frames. Only when the
 * receiver's socket is full are packets queued, 32 of each kind, the oldest dropped.
 */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "lib/log.h"
#include "relay/client.h"

static const char *client_text(const struct relay_client *c, char out[static 80])
{
	char key[8], addr[ADDR_TEXT_MAX];

	snprintf(out, 80, "client %s at %s",
		 c->peer || c->state == CLIENT_STATE_WAITING ? key_short(&c->key, key) : "?",
		 c->remote.family ? addr_text(&c->remote, addr) : "a local socket");
	return out;
}

static void client_fail(struct relay_client *c, const char *why)
{
	char text[80];

	if (c->state == CLIENT_STATE_DEAD)
		return;
	c->relay->stats.protocol_errors++;
	log_remote(LOG_LEVEL_INFO, "%s: closed: %s", client_text(c, text), why);
	relay_client_drop(c, why);
}

static void record_drop(struct relay *r, enum relay_drop why, enum relay_kind kind, size_t bytes)
{
	r->stats.packets_dropped[why][kind]++;
	r->stats.bytes_dropped[why][kind] += bytes;
}

/* Adds to what this turn of the loop writes to the client; false when the stream took nothing. */
static bool client_put(struct relay_client *c, const void *p, size_t n)
{
	int r;

	if (!c->corked) {
		stream_cork(c->stream);
		c->corked = true;
		DL_APPEND2(c->relay->batch, c, batch_prev, batch_next);
	}
	r = stream_write(c->stream, p, n);
	if (r == -ENOBUFS)
		relay_client_drop(c, "takes nothing"); /* a frame in parts must never be seen */
	return r >= 0;
}

/* Lets the socket have what was gathered. */
static void client_uncork(struct relay_client *c)
{
	if (!c->corked)
		return;
	c->corked = false;
	DL_DELETE2(c->relay->batch, c, batch_prev, batch_next);
	stream_uncork(c->stream);
	if (c->state == CLIENT_STATE_DEAD)
		return;
	if (stream_pending(c->stream))
		relay_client_block(c);
}

/* Keeps what is gathered bounded. */
static void client_cut(struct relay_client *c)
{
	if (c->corked && stream_pending(c->stream) >= RELAY_WRITE_BATCH)
		client_uncork(c);
}

void relay_flush(struct relay *r)
{
	while (r->batch)
		client_uncork(r->batch);
}

static void client_count_sent(struct relay_client *c, size_t payload)
{
	c->relay->stats.packets_sent++;
	c->relay->stats.bytes_sent += payload;
}

/* The socket takes bytes again: pong first, then disco, then the rest. */
static void client_drain_queues(struct relay_client *c)
{
	struct relay *r = c->relay;

	if (c->pong_due) {
		struct buf b = { 0 };

		derp_put_ping(&b, DERP_FRAME_PONG, c->pong);
		c->pong_due = false;
		if (client_put(c, buf_data(&b), b.len))
			r->stats.sent_pong++;
		buf_done(&b);
	}
	for (int kind = 0; kind < RELAY_KIND_COUNT; kind++) {
		while (c->state == CLIENT_STATE_ACTIVE && !c->blocked && c->queue[kind].n) {
			struct packet *k = packet_queue_pop(&c->queue[kind]);
			size_t payload = k->len - DERP_PACKET_HEAD_LEN;

			if (client_put(c, k->frame, k->len))
				client_count_sent(c, payload);
			else
				record_drop(r, RELAY_DROP_WRITE_ERROR, (enum relay_kind)kind,
					    payload);
			packet_free(&r->pool, k);
			client_cut(c);
		}
	}
	r->stats.queued_bytes = r->pool.bytes;
}

static void client_enqueue(struct relay_client *c, enum relay_kind kind, const struct key *src,
			   const uint8_t *p, size_t len)
{
	struct packet_queue *q = &c->queue[kind];
	struct relay *r = c->relay;
	struct packet *k;

	if (q->n >= r->cfg.queue_packets) {
		k = packet_queue_pop(q);
		record_drop(r, RELAY_DROP_QUEUE_HEAD, kind, k->len - DERP_PACKET_HEAD_LEN);
		packet_free(&r->pool, k);
	}
	k = packet_new(&r->pool, src, p, len);
	if (!k) {
		record_drop(r, RELAY_DROP_QUEUE_TAIL, kind, len);
		return;
	}
	packet_queue_push(q, k);
	r->stats.queued_bytes = r->pool.bytes;
}

/* A packet for this client from src, straight through where the socket takes it. */
static void client_deliver(struct relay_client *c, struct relay_peer *src, enum relay_kind kind,
			   const uint8_t *p, size_t len)
{
	uint8_t head[DERP_PACKET_HEAD_LEN];
	struct relay *r = c->relay;

	if (c->state != CLIENT_STATE_ACTIVE) {
		record_drop(r, RELAY_DROP_GONE, kind, len);
		return;
	}
	relay_edge_note(c, src);
	if (c->blocked) {
		client_enqueue(c, kind, &src->key, p, len);
		return;
	}
	derp_packet_head_encode(head, DERP_FRAME_RECV_PACKET, &src->key, len);
	if (!client_put(c, head, sizeof(head)) || (len && !client_put(c, p, len))) {
		record_drop(r, RELAY_DROP_WRITE_ERROR, kind, len);
		return;
	}
	client_count_sent(c, len);
	client_cut(c);
}

void relay_client_gone(struct relay_client *c, const struct key *peer, enum derp_gone_reason why)
{
	struct derp_gone g = { .peer = *peer, .reason = (uint8_t)why };
	struct buf b = { 0 };

	if (c->state != CLIENT_STATE_ACTIVE)
		return;
	derp_put_gone(&b, &g);
	if (!b.bad && client_put(c, buf_data(&b), b.len)) {
		if (why == DERP_GONE_DISCONNECTED)
			c->relay->stats.gone_disconnected++;
		else
			c->relay->stats.gone_not_here++;
	}
	buf_done(&b);
}

/* "Not here" is said of disco only, three times at once and then once a second. */
static void client_not_here(struct relay_client *c, const struct key *dst)
{
	uint64_t now = loop_now(c->relay->loop), sec = (now - c->gone_usec) / USEC_PER_SEC;

	if (sec) {
		c->gone_tokens = (uint8_t)MIN(c->gone_tokens + sec, UINT64_C(3));
		c->gone_usec = now;
	}
	if (!c->gone_tokens)
		return;
	c->gone_tokens--;
	relay_client_gone(c, dst, DERP_GONE_NOT_HERE);
}

static int client_send_packet(struct relay_client *c, const struct derp_frame *f)
{
	struct relay *r = c->relay;
	struct relay_peer *dst;
	struct derp_packet p;
	enum relay_kind kind;

	if (derp_packet_decode(f->body, f->len, &p) < 0)
		return -EBADMSG;
	kind = derp_looks_disco(p.data, p.len) ? RELAY_KIND_DISCO : RELAY_KIND_OTHER;
	r->stats.packets_received++;
	r->stats.packets_received_kind[kind]++;
	r->stats.bytes_received += p.len;
	dst = relay_peer_find(r, &p.peer);
	if (dst) {
		client_deliver(dst->active, c->peer, kind, p.data, p.len);
		return 0;
	}
	record_drop(r, RELAY_DROP_UNKNOWN_DEST, kind, p.len);
	if (kind == RELAY_KIND_DISCO)
		client_not_here(c, &p.peer);
	return 0;
}

static int client_prefer(struct relay_client *c, const struct derp_frame *f)
{
	struct relay_stats *s = &c->relay->stats;
	bool settled = loop_now(c->relay->loop) - c->since_usec > 5 * USEC_PER_SEC;
	bool home;

	if (derp_note_preferred_decode(f->body, f->len, &home) < 0)
		return -EBADMSG;
	if (home == c->preferred)
		return 0;
	c->preferred = home;
	s->home_connections += home ? 1 : -UINT64_C(1);
	/* What is said while connecting is no move. */
	if (settled && home)
		s->home_moves_in++;
	else if (settled)
		s->home_moves_out++;
	return 0;
}

/* At most one pong is pending; pings beyond it are not answered. */
static int client_ping(struct relay_client *c, const struct derp_frame *f)
{
	c->relay->stats.got_ping++;
	if (c->pong_due)
		return 0;
	if (derp_ping_decode(f->body, f->len, c->pong) < 0)
		return -EBADMSG;
	c->pong_due = true;
	if (!c->blocked)
		client_drain_queues(c);
	return 0;
}

void relay_client_keepalive(struct relay_client *c)
{
	uint8_t frame[DERP_HEADER_LEN];

	/* A full socket has bytes under way: they say the same. */
	if (c->state != CLIENT_STATE_ACTIVE || c->blocked)
		return;
	derp_header_encode(frame, DERP_FRAME_KEEP_ALIVE, 0);
	if (client_put(c, frame, sizeof(frame)))
		c->relay->stats.keepalives++;
}

void relay_client_admitted(struct relay_client *c)
{
	struct derp_server_info info = { .version = DERP_VERSION };
	uint8_t nonce[DERP_NONCE_LEN];
	struct relay *r = c->relay;
	struct buf b = { 0 };
	char text[80];

	relay_greeting_end(c);
	if (!relay_client_place(c)) {
		relay_client_drop(c, "no place");
		return;
	}
	randombytes_buf(nonce, sizeof(nonce));
	if (derp_put_server_info(&b, &info, &r->key.priv, &c->key, nonce) < 0 || b.bad ||
	    relay_site_join(c) < 0 || relay_peer_join(c) < 0) {
		buf_done(&b);
		relay_client_drop(c, "no memory");
		return;
	}
	c->state = CLIENT_STATE_ACTIVE;
	r->n_active++;
	c->since_usec = loop_now(r->loop);
	c->gone_usec = c->since_usec;
	c->gone_tokens = 3;
	if (c->not_ideal)
		r->stats.not_ideal_connections++;
	client_put(c, buf_data(&b), b.len);
	buf_done(&b);
	relay_client_beat(c);
	log_debug("%s: connected", client_text(c, text));
}

static int client_greet(struct relay_client *c, const struct derp_frame *f)
{
	enum relay_verdict v = RELAY_VERDICT_ADMIT;
	struct derp_client_info info;
	struct relay *r = c->relay;
	char text[80];
	int e;

	if (f->type != DERP_FRAME_CLIENT_INFO)
		return -EPROTO;
	e = derp_client_info_open(f->body, f->len, &r->key.priv, &c->key, &info);
	if (e < 0)
		return e;
	sodium_memzero(&info, sizeof(info));
	c->state = CLIENT_STATE_WAITING;
	c->since_usec = loop_now(r->loop);
	if (r->cfg.admit)
		v = r->cfg.admit(r->cfg.admit_data, c->id, &c->key, &c->remote);
	switch (v) {
	case RELAY_VERDICT_ADMIT:
		relay_client_admitted(c);
		return 0;
	case RELAY_VERDICT_LATER:
		stream_pause(c->stream);
		return 0;
	case RELAY_VERDICT_REFUSE:
		break;
	}
	r->stats.refused++;
	log_remote(LOG_LEVEL_INFO, "%s: not admitted", client_text(c, text));
	relay_client_drop(c, "not admitted");
	return 0;
}

static int client_frame(struct relay_client *c, const struct derp_frame *f)
{
	if (c->state == CLIENT_STATE_GREETING)
		return client_greet(c, f);
	relay_peer_spoke(c);
	switch (f->type) {
	case DERP_FRAME_SEND_PACKET:
		return client_send_packet(c, f);
	case DERP_FRAME_NOTE_PREFERRED:
		return client_prefer(c, f);
	case DERP_FRAME_PING:
		return client_ping(c, f);
	case DERP_FRAME_FORWARD_PACKET:
	case DERP_FRAME_WATCH_CONNS:
	case DERP_FRAME_CLOSE_PEER:
		return -EACCES;
	default: /* ClientInfo again, Pong */
		return 0;
	}
}

/* Tokens of a frame; false when the client has to wait. */
static bool client_charge(struct relay_client *c, size_t bytes)
{
	const struct relay_config *cfg = &c->relay->cfg;

	if (!cfg->rate_bytes_per_sec)
		return true;
	c->tokens -= (int64_t)MIN(bytes, (size_t)KEY_LEN + DERP_PACKET_MAX);
	if (c->tokens >= 0)
		return true;
	relay_client_unthrottle(c, loop_now(c->relay->loop));
	return c->tokens >= 0;
}

void relay_client_unthrottle(struct relay_client *c, uint64_t now)
{
	const struct relay_config *cfg = &c->relay->cfg;
	uint64_t usec = MIN(now - c->tokens_usec, 60 * USEC_PER_SEC);
	uint64_t more = usec * cfg->rate_bytes_per_sec / USEC_PER_SEC;

	if (more) {
		c->tokens = MIN(c->tokens + (int64_t)more, (int64_t)cfg->rate_burst_bytes);
		c->tokens_usec = now;
	}
}

static const char *client_error(int e)
{
	switch (e) {
	case -EPROTO:
		return "expected ClientInfo";
	case -EACCES:
		return "insufficient permissions";
	case -ENOBUFS:
		return "frame too long";
	case -ENOMEM:
		return "no memory";
	default:
		return "malformed frame";
	}
}

static void client_input(void *data, struct stream *s)
{
	struct relay_client *c = data;
	struct relay *r = c->relay;
	struct buf *in = stream_input(s);
	const uint8_t *p = buf_data(in);
	size_t len = in->len;
	bool fresh = false;
	int e = 0;

	while ((c->state == CLIENT_STATE_GREETING || c->state == CLIENT_STATE_ACTIVE) &&
	       !c->paused) {
		struct derp_frame f;

		e = derp_reader_next(&c->reader, &p, &len, &f);
		if (e <= 0)
			break;
		fresh = true;
		e = client_frame(c, &f);
		if (e < 0)
			break;
		if (c->state == CLIENT_STATE_ACTIVE && !client_charge(c, f.len)) {
			r->stats.throttled++;
			relay_client_throttle(c);
		}
	}
	if (c->state != CLIENT_STATE_DEAD) {
		buf_consume(in, in->len - len);
		derp_reader_trim(&c->reader);
		relay_client_partial(c, c->reader.part.cap, fresh);
	}
	if (e < 0)
		client_fail(c, client_error(e));
	relay_flush(r);
}

static void client_drained(void *data, struct stream *s)
{
	struct relay_client *c = data;

	(void)s;
	if (c->state == CLIENT_STATE_DEAD)
		return;
	relay_client_unblock(c);
	client_drain_queues(c);
	relay_flush(c->relay);
}

static void client_closed(void *data, struct stream *s, int error, const char *why)
{
	struct relay_client *c = data;
	char text[80];

	(void)s;
	if (c->state == CLIENT_STATE_DEAD)
		return;
	if (error)
		log_debug("%s: %s", client_text(c, text), why);
	relay_client_drop(c, why);
}

const struct stream_ops relay_client_ops = {
	.on_input = client_input,
	.on_drained = client_drained,
	.on_closed = client_closed,
};
