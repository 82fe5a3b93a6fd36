/*
 * relay: a server on loopback in a thread of its own, and clients that speak raw frames to it:
 * routing, notices, duplicate keys, slow readers, admission, what is refused.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <cmocka.h>
#include <sodium.h>

#include "lib/httpd.h"
#include "lib/json.h"
#include "proto/derp.h"
#include "proto/stun.h"
#include "relay/relay.h"
#include "relay/stund.h"
#include "relay/web.h"

struct server {
	pthread_t thread;
	struct relay_config cfg;
	bool plain; /* the port beside TLS instead */
	struct key_pair key;
	struct endpoint at, stun;
	int stop;
	atomic_bool up;
	struct relay *relay; /* read only while the thread runs */
	struct key refuse;
	uint64_t later; /* a ticket whose verdict comes on the next question */
	struct relay_stats end;
};

static enum relay_verdict server_admit(void *data, uint64_t ticket, const struct key *node,
				       const struct addr *src)
{
	struct server *s = data;

	assert_true(src->family == 4);
	if (key_equal(node, &s->refuse))
		return RELAY_VERDICT_REFUSE;
	if (node->b[0] & 1)
		return RELAY_VERDICT_ADMIT;
	s->later = ticket;
	return RELAY_VERDICT_LATER;
}

static void server_stop_event(void *data, int fd, uint32_t events)
{
	eventfd_t v;

	(void)events;
	assert_int_equal(eventfd_read(fd, &v), 0);
	loop_exit(data, 0);
}

/* Verdicts that wait come a little later. */
static void server_later(void *data)
{
	struct server *s = data;

	if (s->later)
		relay_admit(s->relay, s->later, true);
	relay_admit(s->relay, 12345, true); /* a ticket of nobody */
	s->later = 0;
}

struct tick {
	struct server *s;
	struct loop_timer *t;
};

static void server_tick(void *data)
{
	struct tick *t = data;

	server_later(t->s);
	loop_timer_in(t->t, 20 * USEC_PER_MSEC);
}

static void *server_main(void *data)
{
	const struct endpoint any = { .addr = addr_v4(127, 0, 0, 1) };
	struct server *s = data;
	struct tick tick = { .s = s };
	struct httpd *h = NULL;
	struct loop_io *io = NULL;
	struct stund *stund = NULL;
	struct loop *l = NULL;

	s->cfg.key = &s->key;
	assert_int_equal(loop_new(&l), 0);
	assert_int_equal(httpd_new(l, NULL, &h), 0);
	assert_int_equal(relay_new(l, &s->cfg, &s->relay), 0);
	if (s->plain) {
		assert_int_equal(web_route_plain(h), 0);
	} else {
		assert_int_equal(relay_route(s->relay, h), 0);
		assert_int_equal(web_route(h), 0);
	}
	assert_int_equal(httpd_listen_tcp(h, &any, NULL, &s->at), 0);
	assert_int_equal(stund_new(l, &any, &s->stun, &stund), 0);
	assert_int_equal(loop_io_new(l, s->stop, EPOLLIN, server_stop_event, l, &io), 0);
	assert_int_equal(loop_timer_new(l, server_tick, &tick, &tick.t), 0);
	loop_timer_in(tick.t, 1);
	atomic_store(&s->up, true);
	loop_run(l);
	s->end = *relay_stats(s->relay);
	loop_timer_free(tick.t);
	loop_io_free(io);
	stund_free(stund);
	httpd_free(h);
	relay_free(s->relay);
	loop_free(l);
	return NULL;
}

static void server_start(struct server *s)
{
	if (key_is_zero(&s->key.priv))
		key_pair_generate(&s->key);
	s->stop = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
	while (!atomic_load(&s->up))
		poll(NULL, 0, 1);
}

static void server_stop(struct server *s)
{
	eventfd_write(s->stop, 1);
	pthread_join(s->thread, NULL);
	close(s->stop);
}

struct client {
	int fd;
	struct key_pair key;
	struct derp_reader rd;
	uint8_t bytes[70000];
	const uint8_t *p;
	size_t len;
};

static int tcp(const struct endpoint *at)
{
	union sockaddr_any sa;
	socklen_t n = endpoint_to_sockaddr(at, &sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, &sa.sa, n), 0);
	return fd;
}

static void put(int fd, const void *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);

		assert_true(k > 0);
		p = (const char *)p + k;
		n -= (size_t)k;
	}
}

static void client_put(struct client *c, struct buf *b)
{
	assert_false(b->bad);
	put(c->fd, buf_data(b), b->len);
	buf_done(b);
}

/* 1: a frame; 0: nothing for so long; -ECONNRESET: the end. */
static int client_get(struct client *c, int timeout_msec, struct derp_frame *ret)
{
	for (;;) {
		int r = derp_reader_next(&c->rd, &c->p, &c->len, ret);
		struct pollfd pfd = { .fd = c->fd, .events = POLLIN };
		ssize_t n;

		assert_true(r >= 0);
		if (r)
			return 1;
		if (poll(&pfd, 1, timeout_msec) == 0)
			return 0;
		n = recv(c->fd, c->bytes, sizeof(c->bytes), 0);
		if (n <= 0)
			return -ECONNRESET;
		c->p = c->bytes;
		c->len = (size_t)n;
	}
}

static void client_expect(struct client *c, uint8_t type, struct derp_frame *ret)
{
	assert_int_equal(client_get(c, 2000, ret), 1);
	assert_int_equal(ret->type, type);
}

static void client_dial(struct client *c, const struct server *s, bool fast)
{
	static const char slow_text[] = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n";
	static const char fast_text[] =
	    "GET /derp HTTP/1.1\r\nHost: x\r\nDerp-Fast-Start: 1\r\nUpgrade: derp\r\n\r\n";
	static const char end[] = "\r\n\r\n";
	size_t n = 0;

	*c = (struct client){ .fd = tcp(&s->at) };
	do
		key_pair_generate(&c->key);
	while (!(c->key.pub.b[0] & 1)); /* admitted at once where anybody asks */
	derp_reader_init(&c->rd, DERP_ROLE_CLIENT);
	put(c->fd, fast ? fast_text : slow_text, strlen(fast ? fast_text : slow_text));
	if (fast)
		return;
	while (n < 4 || memcmp(c->bytes + n - 4, end, 4)) {
		assert_int_equal(recv(c->fd, c->bytes + n, 1, 0), 1);
		n++;
	}
	assert_memory_equal(c->bytes, "HTTP/1.1 101 ", 13);
}

static void client_info(struct client *c, const struct server *s)
{
	struct derp_client_info info = { .version = 2, .can_ack_pings = true };
	uint8_t nonce[DERP_NONCE_LEN];
	struct buf b = { 0 };

	randombytes_buf(nonce, sizeof(nonce));
	assert_int_equal(derp_put_client_info(&b, &info, &c->key, &s->key.pub, nonce), 0);
	client_put(c, &b);
}

static void client_welcome(struct client *c, const struct server *s)
{
	struct derp_server_info si;
	struct derp_frame f;
	struct key k;

	client_expect(c, DERP_FRAME_SERVER_KEY, &f);
	assert_int_equal(derp_server_key_decode(f.body, f.len, &k), 0);
	assert_memory_equal(&k, &s->key.pub, sizeof(k));
	client_expect(c, DERP_FRAME_SERVER_INFO, &f);
	assert_int_equal(derp_server_info_open(f.body, f.len, &c->key.priv, &k, &si), 0);
	assert_int_equal(si.version, 2);
}

static void client_start(struct client *c, const struct server *s, bool fast)
{
	client_dial(c, s, fast);
	client_info(c, s);
	client_welcome(c, s);
}

static void client_done(struct client *c)
{
	close(c->fd);
	derp_reader_done(&c->rd);
}

static void client_send(struct client *c, const struct key *to, const void *p, size_t n)
{
	struct derp_packet k = { .peer = *to, .data = p, .len = n };
	struct buf b = { 0 };

	derp_put_packet(&b, DERP_FRAME_SEND_PACKET, &k);
	client_put(c, &b);
}

static void client_receive(struct client *c, const struct key *from, const void *p, size_t n)
{
	struct derp_packet k;
	struct derp_frame f;

	client_expect(c, DERP_FRAME_RECV_PACKET, &f);
	assert_int_equal(derp_packet_decode(f.body, f.len, &k), 0);
	assert_memory_equal(&k.peer, from, sizeof(*from));
	assert_int_equal(k.len, n);
	assert_memory_equal(k.data, p, n);
}

/* What was sent before has been handled. */
static void client_sync(struct client *c)
{
	uint8_t token[DERP_PING_LEN] = "syncsync";
	struct derp_frame f;
	struct buf b = { 0 };

	derp_put_ping(&b, DERP_FRAME_PING, token);
	client_put(c, &b);
	client_expect(c, DERP_FRAME_PONG, &f);
	assert_memory_equal(f.body, token, sizeof(token));
}

static const uint8_t disco[80] = "TS\xf0\x9f\x92\xac";

static void test_routing(void **state)
{
	struct server s = { 0 };
	struct derp_frame f;
	struct derp_gone g;
	struct client a, b;
	uint8_t big[DERP_PACKET_MAX];

	(void)state;
	server_start(&s);
	client_start(&a, &s, false);
	client_start(&b, &s, true);
	client_send(&a, &b.key.pub, "hello", 5);
	client_receive(&b, &a.key.pub, "hello", 5);
	client_send(&b, &b.key.pub, "self", 4);
	client_receive(&b, &b.key.pub, "self", 4);
	client_send(&b, &a.key.pub, "", 0);
	client_receive(&a, &b.key.pub, "", 0);
	randombytes_buf(big, sizeof(big));
	client_send(&a, &b.key.pub, big, sizeof(big));
	client_receive(&b, &a.key.pub, big, sizeof(big));
	/* a had sent to b: b hears that it is gone, once. */
	client_done(&a);
	client_expect(&b, DERP_FRAME_PEER_GONE, &f);
	assert_int_equal(derp_gone_decode(f.body, f.len, &g), 0);
	assert_memory_equal(&g.peer, &a.key.pub, sizeof(g.peer));
	assert_int_equal(g.reason, DERP_GONE_DISCONNECTED);
	client_sync(&b);
	client_done(&b);
	server_stop(&s);
	assert_int_equal(s.end.packets_sent, 4);
	assert_int_equal(s.end.gone_disconnected, 1);
	assert_int_equal(s.end.accepts, 2);
}

/* Disco for somebody who is not there is answered, three times at once; anything else is not. */
static void test_not_here(void **state)
{
	struct server s = { 0 };
	struct derp_frame f;
	struct key nobody;
	struct derp_gone g;
	struct client a;

	(void)state;
	memset(&nobody, 9, sizeof(nobody));
	server_start(&s);
	client_start(&a, &s, false);
	client_send(&a, &nobody, "wireguard", 9);
	client_sync(&a);
	for (int i = 0; i < 8; i++)
		client_send(&a, &nobody, disco, sizeof(disco));
	for (int i = 0; i < 3; i++) {
		client_expect(&a, DERP_FRAME_PEER_GONE, &f);
		assert_int_equal(derp_gone_decode(f.body, f.len, &g), 0);
		assert_int_equal(g.reason, DERP_GONE_NOT_HERE);
		assert_memory_equal(&g.peer, &nobody, sizeof(nobody));
	}
	client_sync(&a);
	client_done(&a);
	server_stop(&s);
	assert_int_equal(s.end.packets_dropped[RELAY_DROP_UNKNOWN_DEST][RELAY_KIND_DISCO], 8);
	assert_int_equal(s.end.packets_dropped[RELAY_DROP_UNKNOWN_DEST][RELAY_KIND_OTHER], 1);
	assert_int_equal(s.end.gone_not_here, 3);
}

static void test_duplicates(void **state)
{
	struct server s = { 0 };
	struct client a, b1, b2, b3;
	struct derp_frame f;

	(void)state;
	server_start(&s);
	client_start(&a, &s, false);
	client_start(&b1, &s, false);
	client_dial(&b2, &s, false);
	b2.key = b1.key;
	client_info(&b2, &s);
	client_welcome(&b2, &s);
	client_send(&a, &b1.key.pub, "newest", 6);
	client_receive(&b2, &a.key.pub, "newest", 6);
	client_sync(&b1); /* any frame makes it the active one */
	client_send(&a, &b1.key.pub, "spoke", 5);
	client_receive(&b1, &a.key.pub, "spoke", 5);
	client_dial(&b3, &s, true);
	b3.key = b1.key;
	client_info(&b3, &s);
	client_welcome(&b3, &s);
	client_sync(&b2);
	client_sync(&b3);
	client_done(&b3); /* b2 spoke last of those who remain */
	client_sync(&a);
	poll(NULL, 0, 50);
	client_send(&a, &b1.key.pub, "last", 4);
	client_receive(&b2, &a.key.pub, "last", 4);
	client_done(&b2);
	poll(NULL, 0, 50);
	client_send(&a, &b1.key.pub, "only", 4);
	client_receive(&b1, &a.key.pub, "only", 4);
	assert_int_equal(client_get(&a, 50, &f), 0); /* b never left */
	client_done(&b1);
	client_done(&a);
	server_stop(&s);
	assert_int_equal(s.end.dup_keys, 0);
	assert_int_equal(s.end.dup_connections, 0);
}

/* One reader stops: the oldest packets make room, others are served, it is closed in the end. */
static void test_slow_reader(void **state)
{
	struct server s = { .cfg = { .write_usec = 600 * USEC_PER_MSEC } };
	struct client a, slow, other;
	uint8_t big[60000];
	struct derp_frame f;
	uint64_t sent = 0;
	int r, got = 0;

	(void)state;
	memset(big, 7, sizeof(big));
	server_start(&s);
	client_start(&a, &s, false);
	client_start(&slow, &s, false);
	client_start(&other, &s, false);
	/* Loopback takes some megabytes before the socket is full. */
	for (; sent < 400; sent++) {
		memcpy(big, &sent, sizeof(sent));
		client_send(&a, &slow.key.pub, big, sizeof(big));
	}
	client_sync(&a);
	client_send(&a, &other.key.pub, "not harmed", 10);
	client_receive(&other, &a.key.pub, "not harmed", 10);
	poll(NULL, 0, 1000);
	while ((r = client_get(&slow, 1000, &f)) == 1)
		got += f.type == DERP_FRAME_RECV_PACKET;
	assert_int_equal(r, -ECONNRESET);
	assert_true(got > 0 && got < 400);
	client_done(&slow);
	client_done(&other);
	client_done(&a);
	server_stop(&s);
	assert_int_equal(s.end.write_timeouts, 1);
	assert_true(s.end.packets_dropped[RELAY_DROP_QUEUE_HEAD][RELAY_KIND_OTHER] > 0);
	/* Every packet is in one account or another. */
	assert_int_equal(s.end.packets_received, 401);
	assert_int_equal(s.end.packets_sent +
			     s.end.packets_dropped[RELAY_DROP_QUEUE_HEAD][RELAY_KIND_OTHER] +
			     s.end.packets_dropped[RELAY_DROP_GONE][RELAY_KIND_OTHER] +
			     s.end.packets_dropped[RELAY_DROP_WRITE_ERROR][RELAY_KIND_OTHER],
			 401);
	assert_int_equal(s.end.queued_bytes, 0);
}

/* A reader that was slow for a while gets the newest packets, in order. */
static void test_drop_oldest(void **state)
{
	struct server s = { .cfg = { .write_usec = 10 * USEC_PER_SEC, .queue_packets = 4 } };
	struct client a, slow;
	struct derp_packet k;
	struct derp_frame f;
	uint8_t big[60000];
	uint64_t seq, last = 0;
	int n = 0;

	(void)state;
	memset(big, 7, sizeof(big));
	server_start(&s);
	client_start(&a, &s, false);
	client_start(&slow, &s, false);
	for (seq = 1; seq <= 400; seq++) {
		memcpy(big, &seq, sizeof(seq));
		client_send(&a, &slow.key.pub, big, sizeof(big));
	}
	client_sync(&a);
	while (last < 400 && client_get(&slow, 2000, &f) == 1) {
		assert_int_equal(f.type, DERP_FRAME_RECV_PACKET);
		assert_int_equal(derp_packet_decode(f.body, f.len, &k), 0);
		memcpy(&seq, k.data, sizeof(seq));
		assert_true(seq > last);
		last = seq;
		n++;
	}
	assert_int_equal(last, 400);
	assert_true(n < 400);
	client_done(&slow);
	client_done(&a);
	server_stop(&s);
	assert_int_equal(s.end.packets_sent, n);
}

static void test_admission(void **state)
{
	struct server s = { .cfg = { .admit = server_admit, .greet_usec = USEC_PER_SEC } };
	struct client good, bad, late, liar, silent;
	struct derp_frame f;

	(void)state;
	s.cfg.admit_data = &s;
	server_start(&s);
	client_dial(&silent, &s, false);
	client_start(&good, &s, true);
	client_dial(&bad, &s, false);
	s.refuse = bad.key.pub;
	client_info(&bad, &s);
	client_expect(&bad, DERP_FRAME_SERVER_KEY, &f);
	assert_int_equal(client_get(&bad, 2000, &f), -ECONNRESET);
	/* Asked later; what it sent meanwhile is not lost. */
	client_dial(&late, &s, true);
	do
		key_pair_generate(&late.key);
	while (late.key.pub.b[0] & 1);
	client_info(&late, &s);
	client_send(&late, &good.key.pub, "early", 5);
	client_welcome(&late, &s);
	client_receive(&good, &late.key.pub, "early", 5);
	/* Somebody else's key without its private half. */
	client_dial(&liar, &s, true);
	liar.key.pub = good.key.pub;
	client_info(&liar, &s);
	client_expect(&liar, DERP_FRAME_SERVER_KEY, &f);
	assert_int_equal(client_get(&liar, 2000, &f), -ECONNRESET);
	client_expect(&silent, DERP_FRAME_SERVER_KEY, &f);
	assert_int_equal(client_get(&silent, 4000, &f), -ECONNRESET);
	client_done(&silent);
	client_done(&good);
	client_done(&bad);
	client_done(&late);
	client_done(&liar);
	server_stop(&s);
	assert_int_equal(s.end.refused, 1);
	assert_int_equal(s.end.protocol_errors, 1);
	assert_int_equal(s.end.greet_timeouts, 1);
	assert_int_equal(s.end.greeting, 0);
}

static void http(const struct server *s, const char *request, char *answer, size_t max)
{
	int fd = tcp(&s->at);
	size_t n = 0;
	ssize_t k;

	put(fd, request, strlen(request));
	shutdown(fd, SHUT_WR);
	while ((k = recv(fd, answer + n, max - 1 - n, 0)) > 0)
		n += (size_t)k;
	answer[n] = '\0';
	close(fd);
}

/* Those who do not greet do not keep others out: the oldest of them goes. */
static void test_silent_ones(void **state)
{
	struct server s = { .cfg = { .max_greeting = 2, .max_clients = 4 } };
	struct client silent[3], good, more;
	struct derp_frame f;
	char a[1024];

	(void)state;
	server_start(&s);
	for (int i = 0; i < 3; i++)
		client_dial(&silent[i], &s, false);
	client_expect(&silent[0], DERP_FRAME_SERVER_KEY, &f);
	assert_int_equal(client_get(&silent[0], 2000, &f), -ECONNRESET);
	client_start(&good, &s, false);
	client_expect(&silent[1], DERP_FRAME_SERVER_KEY, &f);
	assert_int_equal(client_get(&silent[1], 2000, &f), -ECONNRESET);
	client_expect(&silent[2], DERP_FRAME_SERVER_KEY, &f);
	client_done(&silent[0]);
	client_start(&silent[0], &s, false);
	client_done(&silent[1]);
	client_start(&silent[1], &s, false);
	/* All four places are taken: one more that does not greet takes that of the one that has not. */
	client_start(&more, &s, false);
	assert_int_equal(client_get(&silent[2], 2000, &f), -ECONNRESET);
	client_done(&silent[2]);
	http(&s, "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n", a, sizeof(a));
	assert_memory_equal(a, "HTTP/1.1 503 ", 13);
	client_done(&silent[0]);
	client_done(&silent[1]);
	client_done(&more);
	client_sync(&good); /* and so the server has seen the others go */
	client_done(&good);
	server_stop(&s);
	assert_int_equal(s.end.over_limit, 4);
	assert_int_equal(s.end.greeting, 0);
}

static void test_refused_frames(void **state)
{
	static const char *const bad[] = {
		"0700000000",
		"070000000201ff",
		"1000000000",
		"04000000050102030405",
		("1100000020"
		 "0000000000000000000000000000000000000000000000000000000000000000"),
		"0400010021",
		"12000000020102",
	};
	struct server s = { 0 };
	struct derp_frame f;

	(void)state;
	server_start(&s);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t raw[128];
		struct client c;
		size_t n;

		client_start(&c, &s, false);
		assert_int_equal(
		    sodium_hex2bin(raw, sizeof(raw), bad[i], strlen(bad[i]), NULL, &n, NULL), 0);
		put(c.fd, raw, n);
		assert_int_equal(client_get(&c, 2000, &f), -ECONNRESET);
		client_done(&c);
	}
	server_stop(&s);
	assert_int_equal(s.end.protocol_errors, ARRAY_SIZE(bad));
	assert_int_equal(s.end.connections, 0);
}

/* The client is held back by TCP, and nothing is lost. */
static void test_rate(void **state)
{
	struct server s = { .cfg = { .rate_bytes_per_sec = 400000 } };
	struct client a, b;
	uint8_t p[30000];

	(void)state;
	memset(p, 3, sizeof(p));
	server_start(&s);
	client_start(&a, &s, false);
	client_start(&b, &s, false);
	for (int i = 0; i < 10; i++)
		client_send(&a, &b.key.pub, p, sizeof(p));
	for (int i = 0; i < 10; i++)
		client_receive(&b, &a.key.pub, p, sizeof(p));
	client_done(&a);
	client_done(&b);
	server_stop(&s);
	assert_true(s.end.throttled > 0);
	assert_int_equal(s.end.packets_sent, 10);
}

static void test_http(void **state)
{
	struct server s = { 0 };
	char a[4096];

	(void)state;
	server_start(&s);
	http(&s, "GET /derp HTTP/1.1\r\nHost: x\r\n\r\n", a, sizeof(a));
	assert_memory_equal(a, "HTTP/1.1 426 ", 13);
	assert_non_null(strstr(a, "DERP requires connection upgrade"));
	http(&s, "GET /derp/latency-check HTTP/1.1\r\nHost: x\r\n\r\n", a, sizeof(a));
	assert_memory_equal(a, "HTTP/1.1 200 ", 13);
	assert_non_null(strstr(a, "Access-Control-Allow-Origin: *\r\n"));
	http(&s, "POST /derp/probe HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", a, sizeof(a));
	assert_memory_equal(a, "HTTP/1.1 405 ", 13);
	http(&s, "GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Tailscale-Challenge: ts_1.a\r\n\r\n",
	     a, sizeof(a));
	assert_memory_equal(a, "HTTP/1.1 204 ", 13);
	assert_non_null(strstr(a, "X-Tailscale-Response: response ts_1.a\r\n"));
	http(&s, "GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Tailscale-Challenge: a b\r\n\r\n", a,
	     sizeof(a));
	assert_null(strstr(a, "X-Tailscale-Response"));
	http(&s, "GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n", a, sizeof(a));
	assert_non_null(strstr(a, "\r\n\r\nUser-agent: *\nDisallow: /\n"));
	server_stop(&s);
}

/* Beside TLS: the portal check is served, everything else belongs to https. */
static void test_plain_port(void **state)
{
	struct server s = { .plain = true };
	char a[4096];

	(void)state;
	server_start(&s);
	http(&s, "GET /generate_204 HTTP/1.1\r\nHost: x\r\n\r\n", a, sizeof(a));
	assert_memory_equal(a, "HTTP/1.1 204 ", 13);
	http(&s, "GET /derp?a=b HTTP/1.1\r\nHost: x:80\r\nUpgrade: DERP\r\n\r\n", a, sizeof(a));
	assert_memory_equal(a, "HTTP/1.1 302 ", 13);
	assert_non_null(strstr(a, "Location: https://x:80/derp\r\n"));
	http(&s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", a, sizeof(a));
	assert_non_null(strstr(a, "Location: https://x/\r\n"));
	http(&s, "POST /derp HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", a, sizeof(a));
	assert_memory_equal(a, "HTTP/1.1 400 ", 13);
	server_stop(&s);
}

static void test_stun(void **state)
{
	struct server s = { 0 };
	union sockaddr_any sa;
	uint8_t txid[STUN_TXID_LEN] = "transaction", got[STUN_TXID_LEN], p[STUN_REQUEST_LEN], r[64];
	struct endpoint me, seen;
	struct pollfd pfd;
	socklen_t n = sizeof(sa);
	int fd;

	(void)state;
	server_start(&s);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	endpoint_to_sockaddr(&s.stun, &sa);
	assert_int_equal(connect(fd, &sa.sa, sizeof(sa.in)), 0);
	assert_int_equal(getsockname(fd, &sa.sa, &n), 0);
	assert_int_equal(endpoint_from_sockaddr(&sa.sa, &me), 0);
	stun_request_encode(txid, p);
	assert_int_equal(send(fd, p, sizeof(p), 0), sizeof(p));
	assert_int_equal(recv(fd, r, sizeof(r), 0), 32);
	assert_int_equal(stun_response_decode(r, 32, got, &seen), 0);
	assert_memory_equal(got, txid, sizeof(txid));
	assert_true(endpoint_equal(&me, &seen));
	p[39] ^= 1;
	assert_int_equal(send(fd, p, sizeof(p), 0), sizeof(p));
	pfd = (struct pollfd){ .fd = fd, .events = POLLIN };
	assert_int_equal(poll(&pfd, 1, 50), 0);
	close(fd);
	server_stop(&s);
}

/* ---- sessions of stock clients, byte by byte (tests/data/derp), the relay having the key it had then */

struct session {
	json_t *j;
	size_t at; /* in its "bytes" */
	struct client c;
	struct key pub;
	struct session *peer; /* NULL: the other node is not here */
	unsigned int sent, received, gone;
};

static uint8_t *session_bytes(const struct session *s, const char **dir, size_t *len)
{
	const json_t *b = json_array_get(json_get(s->j, "bytes"), s->at);
	const char *hex = json_get_str(b, "hex");
	size_t n = strlen(hex) / 2;
	uint8_t *p = malloc(n + 1);

	*dir = json_get_str(b, "dir");
	assert_int_equal(sodium_hex2bin(p, n + 1, hex, 2 * n, NULL, len, NULL), 0);
	p[n] = 0;
	return p;
}

static struct key session_key(const struct session *s, const char *name)
{
	const char *hex = json_get_str(s->j, name);
	struct key k;

	assert_int_equal(key_parse(KEY_KIND_HEX, hex, strlen(hex), &k), 0);
	return k;
}

static void session_load(struct session *s, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "tests/data/derp/server-%s.json", name);
	*s = (struct session){ .j = json_load_file(path, 0, NULL) };
	assert_non_null(s->j);
	s->pub = session_key(s, "client_public");
}

/* Every header that the client took then. */
static void session_head(struct session *s, const char *want)
{
	struct http_head old, now;
	size_t n = 0;

	while (n < 4 || memcmp(s->c.bytes + n - 4, "\r\n\r\n", 4)) {
		assert_int_equal(recv(s->c.fd, s->c.bytes + n, 1, 0), 1);
		n++;
	}
	assert_true(http_response_parse(want, strlen(want), &old) > 0);
	assert_int_equal(http_response_parse(s->c.bytes, n, &now), n);
	assert_int_equal(now.status, old.status);
	for (size_t i = 0; i < old.n_headers; i++) {
		char name[64], value[128];

		snprintf(name, sizeof(name), "%.*s", HTTP_STR_FMT(old.header[i].name));
		snprintf(value, sizeof(value), "%.*s", HTTP_STR_FMT(old.header[i].value));
		assert_true(http_str_ieq(http_find(&now, name), value));
	}
}

/* The next frame but for PeerGone, of which only "not here" is right where the other is not. */
static void session_expect(struct session *s, uint8_t type, struct derp_frame *ret)
{
	for (;;) {
		struct derp_gone g;

		assert_int_equal(client_get(&s->c, 2000, ret), 1);
		if (ret->type != DERP_FRAME_PEER_GONE)
			break;
		assert_null(s->peer);
		assert_int_equal(derp_gone_decode(ret->body, ret->len, &g), 0);
		assert_int_equal(g.reason, DERP_GONE_NOT_HERE);
		s->gone++;
	}
	assert_int_equal(ret->type, type);
}

static void session_frame(struct session *s, const struct server *srv, const uint8_t *p, size_t len)
{
	struct derp_server_info si;
	struct derp_frame f;

	if (p[0] == DERP_FRAME_PEER_GONE || (p[0] == DERP_FRAME_RECV_PACKET && !s->peer))
		return;
	session_expect(s, p[0], &f);
	if (p[0] == DERP_FRAME_SERVER_INFO) { /* the shared key is the same from either side */
		assert_int_equal(derp_server_info_open(f.body, f.len, &srv->key.priv, &s->pub, &si), 0);
		assert_int_equal(si.version, 2);
		return;
	}
	assert_int_equal(f.len, len - DERP_HEADER_LEN);
	assert_memory_equal(f.body, p + DERP_HEADER_LEN, f.len);
	s->received += p[0] == DERP_FRAME_RECV_PACKET;
}

/* False: at the end, or the other node has to speak first. */
static bool session_step(struct session *s, const struct server *srv)
{
	const char *dir;
	uint8_t *p;
	size_t len;

	if (s->at == json_array_size(json_get(s->j, "bytes")))
		return false;
	p = session_bytes(s, &dir, &len);
	if (!strcmp(dir, "s2c") && p[0] == DERP_FRAME_RECV_PACKET && s->peer && s->peer->sent == s->received) {
		free(p);
		return false;
	}
	s->at++;
	if (!strncmp(dir, "c2s", 3)) {
		put(s->c.fd, p, len);
		s->sent += !strcmp(dir, "c2s") && p[0] == DERP_FRAME_SEND_PACKET;
	} else if (!strcmp(dir, "s2c-http")) {
		session_head(s, (const char *)p);
	} else {
		session_frame(s, srv, p, len);
	}
	free(p);
	return true;
}

/* It is still there, and what it sent has been handled. */
static void session_sync(struct session *s)
{
	static const uint8_t token[DERP_PING_LEN] = "syncsync";
	struct derp_frame f;
	struct buf b = { 0 };

	derp_put_ping(&b, DERP_FRAME_PING, token);
	client_put(&s->c, &b);
	session_expect(s, DERP_FRAME_PONG, &f);
	assert_memory_equal(f.body, token, sizeof(token));
}

/* Both ends where both were recorded. */
static void sessions_replay(const char *one, const char *other)
{
	struct session s[2] = { 0 };
	struct server srv = { 0 };
	size_t n = other ? 2 : 1;
	unsigned int sent = 0;
	bool moved = true;

	session_load(&s[0], one);
	if (other) {
		session_load(&s[1], other);
		s[0].peer = &s[1];
		s[1].peer = &s[0];
	}
	srv.key.priv = session_key(&s[0], "server_private");
	assert_int_equal(key_public(&srv.key.priv, &srv.key.pub), 0);
	server_start(&srv);
	for (size_t i = 0; i < n; i++) {
		s[i].c.fd = tcp(&srv.at);
		derp_reader_init(&s[i].c.rd, DERP_ROLE_CLIENT);
	}
	while (moved) {
		moved = false;
		for (size_t i = 0; i < n; i++)
			while (session_step(&s[i], &srv))
				moved = true;
	}
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(s[i].at, json_array_size(json_get(s[i].j, "bytes")));
		assert_int_equal(s[i].received, s[i].peer ? s[i].peer->sent : 0);
		session_sync(&s[i]);
		sent += s[i].sent;
	}
	server_stop(&srv);
	assert_int_equal(srv.end.packets_received, sent);
	assert_int_equal(srv.end.home_connections, n);
	assert_int_equal(srv.end.protocol_errors, 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(other || s[i].gone == (sent < 3 ? sent : 3)); /* three at once, then one a second */
		client_done(&s[i].c);
		json_decref(s[i].j);
	}
}

static void test_stock_sessions(void **state)
{
	(void)state;
	sessions_replay("faststart-1", "faststart-2");
	sessions_replay("101", NULL);
	sessions_replay("peergone", NULL);
	sessions_replay("ping", NULL);
}

/* Who hears nothing of others hears from the relay. Of six that come one after the other each has another number of
 * whole seconds added, so the first of them is heard of at once. */
static void test_keepalive(void **state)
{
	struct server s = { .cfg.keepalive_usec = 1 };
	struct client c[6];
	struct derp_frame f;
	int heard = 0;

	(void)state;
	server_start(&s);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		client_start(&c[i], &s, i & 1);
	for (int tries = 0; tries < 50 && !heard; tries++) {
		for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
			int r = client_get(&c[i], 10, &f);

			assert_true(r >= 0);
			if (!r)
				continue;
			assert_int_equal(f.type, DERP_FRAME_KEEP_ALIVE);
			assert_int_equal(f.len, 0);
			heard++;
		}
	}
	assert_true(heard > 0);
	assert_true(heard < 6);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		client_done(&c[i]);
	server_stop(&s);
	assert_true(s.end.keepalives >= (uint64_t)heard);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routing),	    cmocka_unit_test(test_not_here),
		cmocka_unit_test(test_duplicates),  cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_drop_oldest), cmocka_unit_test(test_admission),
		cmocka_unit_test(test_silent_ones), cmocka_unit_test(test_refused_frames),
		cmocka_unit_test(test_rate),	    cmocka_unit_test(test_http),
		cmocka_unit_test(test_plain_port),  cmocka_unit_test(test_stun),
		cmocka_unit_test(test_keepalive),   cmocka_unit_test(test_stock_sessions),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
