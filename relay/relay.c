#include "relay/relay.h"

#include <errno.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "relay/client.h"

#define FAST_TICK_USEC (100 * USEC_PER_MSEC)

const char *relay_drop_name(enum relay_drop d)
{
	switch (d) {
	case RELAY_DROP_UNKNOWN_DEST:
		return "unknown_dest";
	case RELAY_DROP_GONE:
		return "gone_disconnected";
	case RELAY_DROP_QUEUE_HEAD:
		return "queue_head";
	case RELAY_DROP_QUEUE_TAIL:
		return "queue_tail";
	case RELAY_DROP_WRITE_ERROR:
		return "write_error";
	case RELAY_DROP_COUNT:
		break;
	}
	unreachable();
}

void relay_greeting_end(struct relay_client *c)
{
	if (!c->listed)
		return;
	DL_DELETE2(c->relay->greeting, c, wait_prev, wait_next);
	c->listed = false;
	c->relay->stats.greeting--;
}

void relay_client_drop(struct relay_client *c, const char *why)
{
	struct relay *r = c->relay;

	(void)why;
	if (c->state == CLIENT_STATE_DEAD)
		return;
	if (c->state == CLIENT_STATE_ACTIVE) {
		r->n_active--;
		r->stats.not_ideal_connections -= c->not_ideal;
	}
	relay_greeting_end(c);
	relay_site_leave(c);
	relay_client_unblock(c);
	relay_client_partial(c, 0, false);
	c->state = CLIENT_STATE_DEAD;
	c->doom_next = r->doomed;
	r->doomed = c;
	loop_defer_arm(r->reaper);
}

static uint64_t relay_held(const struct relay *r)
{
	return r->pool.bytes + r->stats.blocked_bytes + r->stats.partial_bytes;
}

static void say_full(const struct relay *r)
{
	log_remote(LOG_LEVEL_WARNING, "%u clients are connected, as many as are allowed: others are refused",
		   r->cfg.max_clients);
}

bool relay_client_place(struct relay_client *c)
{
	struct relay *r = c->relay;
	struct relay_client *yields;
	char addr[ADDR_TEXT_MAX];

	if (r->n_active < r->cfg.max_clients)
		return true;
	r->stats.over_limit++;
	yields = relay_site_yields(r, &c->remote);
	if (!yields) {
		say_full(r);
		return false;
	}
	log_remote(LOG_LEVEL_WARNING, "%u clients are connected, as many as are allowed: the %u at %s make room",
		   r->cfg.max_clients, yields->site->n, addr_text(&yields->remote, addr));
	relay_client_drop(yields, "another needs its place");
	return true;
}

/* What it has comes back on the loop's next turn. */
static void relay_make_room(struct relay_client *c, const char *why)
{
	char addr[ADDR_TEXT_MAX];

	c->relay->stats.made_room++;
	log_remote(LOG_LEVEL_WARNING, "too much memory is in use for slow clients: one at %s is closed: %s",
		   c->remote.family ? addr_text(&c->remote, addr) : "a local socket", why);
	relay_client_drop(c, why);
}

void relay_client_block(struct relay_client *c)
{
	struct relay *r = c->relay;

	if (c->blocked || c->state != CLIENT_STATE_ACTIVE)
		return;
	c->blocked = true;
	c->progress_usec = loop_now(r->loop);
	c->progress_left = c->blocked_bytes = stream_pending(c->stream);
	r->stats.blocked_bytes += c->blocked_bytes;
	r->bulky |= relay_held(r) > RELAY_BULK;
	DL_APPEND2(r->blocked, c, wait_prev, wait_next);
	while (r->stats.blocked_bytes > r->cfg.blocked_bytes)
		relay_make_room(r->blocked, "takes too little");
	if (!loop_timer_armed(r->fast))
		loop_timer_in(r->fast, FAST_TICK_USEC);
}

void relay_client_unblock(struct relay_client *c)
{
	if (!c->blocked)
		return;
	c->blocked = false;
	c->relay->stats.blocked_bytes -= c->blocked_bytes;
	DL_DELETE2(c->relay->blocked, c, wait_prev, wait_next);
}

void relay_client_partial(struct relay_client *c, size_t bytes, bool fresh)
{
	struct relay *r = c->relay;

	if (c->partial_bytes && (fresh || !bytes))
		DL_DELETE2(r->partial, c, part_prev, part_next);
	if (bytes && (fresh || !c->partial_bytes))
		DL_APPEND2(r->partial, c, part_prev, part_next);
	r->stats.partial_bytes += bytes - c->partial_bytes;
	c->partial_bytes = bytes;
	r->bulky |= relay_held(r) > RELAY_BULK;
	while (r->stats.partial_bytes > r->cfg.partial_bytes)
		relay_make_room(r->partial, "its frame does not end");
}

void relay_client_throttle(struct relay_client *c)
{
	struct relay *r = c->relay;

	c->paused = true;
	stream_pause(c->stream);
	DL_APPEND2(r->throttled, c, slow_prev, slow_next);
	if (!loop_timer_armed(r->fast))
		loop_timer_in(r->fast, FAST_TICK_USEC);
}

/* The tick comes at that time or before. */
static void relay_tick_at(struct relay *r, uint64_t usec)
{
	if (loop_timer_armed(r->tick) && r->tick_usec <= usec)
		return;
	r->tick_usec = usec;
	loop_timer_at(r->tick, usec);
}

static struct relay_client **client_beat_list(struct relay_client *c)
{
	return &c->relay->beat[c->id % RELAY_JITTERS];
}

static void client_beat_end(struct relay_client *c)
{
	if (!c->beating)
		return;
	DL_DELETE2(*client_beat_list(c), c, beat_prev, beat_next);
	c->beating = false;
}

/* A minute and a jitter that stays the same for this connection, in whole seconds: one wake-up for all of a second. */
void relay_client_beat(struct relay_client *c)
{
	struct relay *r = c->relay;
	uint64_t at = loop_now(r->loop) + r->cfg.keepalive_usec + c->id % RELAY_JITTERS * USEC_PER_SEC;

	client_beat_end(c);
	c->beat_usec = (at + USEC_PER_SEC - 1) / USEC_PER_SEC * USEC_PER_SEC;
	DL_APPEND2(*client_beat_list(c), c, beat_prev, beat_next);
	c->beating = true;
	relay_tick_at(r, c->beat_usec);
}

/* Takes a dropped client apart. Others may be dropped on the way: they join the list. */
static void client_reap(struct relay_client *c)
{
	struct relay *r = c->relay;

	relay_greeting_end(c);
	relay_site_leave(c);
	relay_client_unblock(c);
	relay_client_partial(c, 0, false);
	client_beat_end(c);
	if (c->paused)
		DL_DELETE2(r->throttled, c, slow_prev, slow_next);
	if (c->corked)
		DL_DELETE2(r->batch, c, batch_prev, batch_next);
	DL_DELETE(r->clients, c);
	r->stats.connections--;
	if (c->preferred)
		r->stats.home_connections--;
	relay_edges_drop(c);
	relay_peer_leave(c);
	for (int kind = 0; kind < RELAY_KIND_COUNT; kind++) {
		struct packet *k;

		while ((k = packet_queue_pop(&c->queue[kind]))) {
			r->stats.packets_dropped[RELAY_DROP_GONE][kind]++;
			r->stats.bytes_dropped[RELAY_DROP_GONE][kind] +=
			    k->len - DERP_PACKET_HEAD_LEN;
			packet_free(&r->pool, k);
		}
	}
	r->stats.queued_bytes = r->pool.bytes;
	stream_free(c->stream);
	derp_reader_done(&c->reader);
	free(c);
}

static void relay_reap(void *data)
{
	struct relay *r = data;

	while (r->doomed) {
		struct relay_client *c = r->doomed;

		r->doomed = c->doom_next;
		client_reap(c);
	}
	relay_flush(r); /* PeerGone to those who remain */
	if (r->doomed)
		loop_defer_arm(r->reaper);
	if (!r->bulky || relay_held(r) > RELAY_BULK / 16)
		return;
	r->bulky = false;
	malloc_trim(0); /* else it stays ours, in pieces between what is in use */
}

/* Blocked clients that took nothing for too long, throttled ones that may go on. */
static void relay_fast(void *data)
{
	struct relay_client *c, *next;
	struct relay *r = data;
	uint64_t now = loop_now(r->loop);

	DL_FOREACH_SAFE2(r->blocked, c, next, wait_next)
	{
		size_t left = stream_pending(c->stream);

		if (left < c->progress_left) {
			c->progress_left = left;
			c->progress_usec = now;
		} else if (now - c->progress_usec >= r->cfg.write_usec) {
			r->stats.write_timeouts++;
			relay_client_drop(c, "write timeout");
		}
	}
	DL_FOREACH_SAFE2(r->throttled, c, next, slow_next)
	{
		relay_client_unthrottle(c, now);
		if (c->tokens < 0 || c->state == CLIENT_STATE_DEAD)
			continue;
		c->paused = false;
		DL_DELETE2(r->throttled, c, slow_prev, slow_next);
		stream_resume(c->stream);
	}
	if (r->blocked || r->throttled)
		loop_timer_in(r->fast, FAST_TICK_USEC);
}

static void relay_beat(struct relay *r, struct relay_client **list, uint64_t now)
{
	while (*list && (*list)->beat_usec <= now) {
		struct relay_client *c = *list;

		relay_client_keepalive(c);
		relay_client_beat(c);
	}
	if (*list)
		relay_tick_at(r, (*list)->beat_usec);
}

/* Who is not admitted yet is looked at once a second, else nothing is done before the next KeepAlive. */
static void relay_tick(void *data)
{
	struct relay_client *c, *next;
	struct relay *r = data;
	uint64_t now = loop_now(r->loop);

	for (size_t i = 0; i < RELAY_JITTERS; i++)
		relay_beat(r, &r->beat[i], now);
	DL_FOREACH_SAFE2(r->greeting, c, next, wait_next)
	{
		if (now - c->since_usec < r->cfg.greet_usec)
			continue;
		r->stats.greet_timeouts++;
		relay_client_drop(c, "no greeting in time");
	}
	relay_flush(r);
	if (r->greeting)
		relay_tick_at(r, now + USEC_PER_SEC);
}

int relay_new(struct loop *l, const struct relay_config *cfg, struct relay **ret)
{
	CLEANUP(relay_free) struct relay *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return -ENOMEM;
	r->loop = l;
	r->cfg = *cfg;
	r->key = *cfg->key;
	r->cfg.key = NULL;
	if (!r->cfg.max_clients)
		r->cfg.max_clients = RELAY_CLIENTS_MAX;
	if (!r->cfg.greeters_more)
		r->cfg.greeters_more = RELAY_GREETERS_MORE;
	if (!r->cfg.max_greeting)
		r->cfg.max_greeting = 1024;
	if (!r->cfg.queue_packets)
		r->cfg.queue_packets = 32;
	if (!r->cfg.queue_bytes)
		r->cfg.queue_bytes = (size_t)256 << 20;
	if (!r->cfg.blocked_bytes)
		r->cfg.blocked_bytes = (size_t)128 << 20;
	if (!r->cfg.partial_bytes)
		r->cfg.partial_bytes = (size_t)64 << 20;
	if (!r->cfg.write_usec)
		r->cfg.write_usec = 2 * USEC_PER_SEC;
	if (!r->cfg.greet_usec)
		r->cfg.greet_usec = 10 * USEC_PER_SEC;
	if (!r->cfg.keepalive_usec)
		r->cfg.keepalive_usec = 60 * USEC_PER_SEC;
	r->cfg.rate_burst_bytes = MAX(r->cfg.rate_burst_bytes, (uint64_t)KEY_LEN + DERP_PACKET_MAX);
	r->pool.max_bytes = r->cfg.queue_bytes;
	r->next_id = randombytes_random(); /* tickets and jitter start anywhere */
	e = loop_timer_new(l, relay_tick, r, &r->tick);
	if (e >= 0)
		e = loop_timer_new(l, relay_fast, r, &r->fast);
	if (e >= 0)
		e = loop_defer_new(l, relay_reap, r, &r->reaper);
	if (e < 0)
		return e;
	*ret = TAKE(r);
	return 0;
}

void relay_free(struct relay *r)
{
	if (!r)
		return;
	/* Marked dead first: nobody is told that the others leave. */
	for (struct relay_client *c = r->clients; c; c = c->next)
		c->state = CLIENT_STATE_DEAD;
	while (r->clients)
		client_reap(r->clients);
	loop_timer_free(r->tick);
	loop_timer_free(r->fast);
	loop_defer_drop(r->reaper);
	packet_pool_done(&r->pool);
	key_pair_wipe(&r->key);
	free(r);
}

static void client_socket_options(int fd)
{
	static const int yes = 1, idle_sec = 600, user_msec = 15000;

	/* A peer that vanished is noticed by the bytes it does not acknowledge. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_sec, sizeof(idle_sec));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_msec, sizeof(user_msec));
}

/* 101 (unless the client started without waiting for it) and ServerKey leave together. */
static void client_hello(struct relay_client *c, bool fast)
{
	char hex[KEY_TEXT_MAX];
	struct buf b = { 0 };

	if (!fast)
		buf_printf(
		    &b,
		    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
		    "Derp-Version: %d\r\nDerp-Public-Key: %s\r\n\r\n",
		    DERP_VERSION, key_text(KEY_KIND_HEX, &c->relay->key.pub, hex));
	derp_put_server_key(&b, &c->relay->key.pub);
	if (b.bad || stream_write(c->stream, buf_data(&b), b.len) < 0)
		relay_client_drop(c, "cannot write");
	buf_done(&b);
}

static void client_start(struct relay *r, struct relay_client *c, struct httpd_req *q)
{
	const struct http_head *h = httpd_head(q);
	bool fast = http_str_eq(http_find(h, "Derp-Fast-Start"), "1");

	c->relay = r;
	c->id = ++r->next_id;
	c->state = CLIENT_STATE_GREETING;
	c->since_usec = loop_now(r->loop);
	c->remote = httpd_peer_of(q)->remote.addr;
	c->not_ideal = http_find(h, "Ideal-Node").len > 0;
	c->tokens = (int64_t)r->cfg.rate_burst_bytes;
	c->tokens_usec = c->since_usec;
	for (int kind = 0; kind < RELAY_KIND_COUNT; kind++)
		packet_queue_init(&c->queue[kind]);
	derp_reader_init(&c->reader, DERP_ROLE_SERVER);
	c->reader.info_max = RELAY_INFO_MAX;
	c->stream = httpd_take(q);
	stream_set_ops(c->stream, &relay_client_ops, c);
	stream_set_limits(c->stream, RELAY_OUT_MAX, 0);
	client_socket_options(stream_fd(c->stream));
	DL_APPEND(r->clients, c);
	DL_APPEND2(r->greeting, c, wait_prev, wait_next);
	c->listed = true;
	r->stats.connections++;
	r->stats.greeting++;
	r->stats.accepts++;
	relay_tick_at(r, c->since_usec + USEC_PER_SEC);
	client_hello(c, fast);
}

/* Who is honest greets within a round trip: who has waited longest makes room, so that silent
 * connections do not keep others out. Nobody who is admitted goes for one who is not. */
static bool relay_room(struct relay *r, const struct addr *from)
{
	unsigned int n = (unsigned int)r->stats.connections, most = r->cfg.max_clients;

	if (r->stats.greeting < r->cfg.max_greeting &&
	    (n < most || (n < most + r->cfg.greeters_more && relay_site_yields(r, from))))
		return true;
	r->stats.over_limit++;
	if (!r->greeting) {
		say_full(r);
		return false;
	}
	relay_client_drop(r->greeting, "too many that have not greeted");
	return true;
}

void relay_upgrade(void *data, struct httpd_req *q)
{
	struct http_str up = http_find(httpd_head(q), "Upgrade");
	struct relay_client *c;
	struct relay *r = data;

	if (!http_str_ieq(up, "derp") && !http_str_ieq(up, "websocket")) {
		httpd_header(q, "Upgrade", "DERP");
		httpd_respond_text(q, 426, "DERP requires connection upgrade");
		return;
	}
	if (http_str_ieq(up, "websocket") &&
	    http_has_token(httpd_head(q), "Sec-WebSocket-Protocol", "derp")) {
		httpd_respond_text(q, 501, "DERP over WebSocket is not served here");
		return;
	}
	if (!relay_room(r, &httpd_peer_of(q)->remote.addr)) {
		httpd_respond_text(q, 503, "too many connections");
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		httpd_respond_text(q, 503, "no memory");
		return;
	}
	client_start(r, c, q);
}

static void relay_probe(void *data, struct httpd_req *q)
{
	struct http_str m = httpd_head(q)->method;

	(void)data;
	if (!http_str_eq(m, "GET") && !http_str_eq(m, "HEAD")) {
		httpd_respond_text(q, 405, "bogus probe method");
		return;
	}
	httpd_header(q, "Access-Control-Allow-Origin", "*");
	httpd_respond(q, 200, NULL, "", 0);
}

int relay_route(struct relay *r, struct httpd *h)
{
	int e = httpd_route(h, NULL, "/derp", 0, relay_upgrade, r);

	if (e >= 0)
		e = httpd_route(h, NULL, "/derp/probe", 0, relay_probe, r);
	if (e >= 0)
		e = httpd_route(h, NULL, "/derp/latency-check", 0, relay_probe, r);
	return e;
}

void relay_admit(struct relay *r, uint64_t ticket, bool allow)
{
	struct relay_client *c;

	DL_FOREACH2(r->greeting, c, wait_next)
	{
		if (c->id != ticket || c->state != CLIENT_STATE_WAITING)
			continue;
		if (allow) {
			relay_client_admitted(c);
			stream_resume(c->stream);
		} else {
			r->stats.refused++;
			relay_client_drop(c, "not admitted");
		}
		relay_flush(r);
		return;
	}
}

const struct key *relay_public_key(const struct relay *r)
{
	return &r->key.pub;
}

const struct relay_stats *relay_stats(const struct relay *r)
{
	return &r->stats;
}

bool relay_has_client(const struct relay *r, const struct key *node)
{
	return relay_peer_find(r, node) != NULL;
}

unsigned int relay_disconnect(struct relay *r, const struct key *node)
{
	struct relay_peer *p = relay_peer_find(r, node);
	struct relay_client *c;
	unsigned int n = 0;

	if (!p)
		return 0;
	DL_FOREACH2(p->clients, c, peer_next)
	{
		relay_client_drop(c, "removed");
		n++;
	}
	return n;
}
