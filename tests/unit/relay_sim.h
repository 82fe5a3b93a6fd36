#pragma once
/* relay_sim: a relay on loopback in a thread of its own, and clients that speak raw frames to it. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "lib/httpd.h"
#include "proto/derp.h"
#include "relay/relay.h"
#include "relay/stund.h"
#include "relay/web.h"

#define PATIENCE_MSEC 10000 /* for what has to come */

struct server {
	pthread_t thread;
	struct relay_config cfg;
	bool plain; /* the port beside TLS instead */
	struct key_pair key;
	struct endpoint at, stun;
	struct endpoint from; /* of clients to come; none: loopback */
	int stop;
	atomic_bool up;
	struct relay *relay; /* read only while the thread runs */
	struct key refuse;
	uint64_t later; /* a ticket whose verdict comes on the next question */
	struct relay_stats end;
};

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
	uint8_t nonce[DERP_NONCE_LEN]; /* of the ServerInfo it got */
};

static int tcp(const struct server *s)
{
	union sockaddr_any sa;
	socklen_t n = endpoint_to_sockaddr(&s->from, &sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (s->from.addr.family)
		assert_int_equal(bind(fd, &sa.sa, n), 0);
	n = endpoint_to_sockaddr(&s->at, &sa);
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
	assert_int_equal(client_get(c, PATIENCE_MSEC, ret), 1);
	assert_int_equal(ret->type, type);
}

static void client_dial(struct client *c, const struct server *s, bool fast)
{
	static const char slow_text[] = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n";
	static const char fast_text[] =
	    "GET /derp HTTP/1.1\r\nHost: x\r\nDerp-Fast-Start: 1\r\nUpgrade: derp\r\n\r\n";
	static const char end[] = "\r\n\r\n";
	size_t n = 0;

	*c = (struct client){ .fd = tcp(s) };
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
	memcpy(c->nonce, f.body, sizeof(c->nonce));
}

static inline void client_start(struct client *c, const struct server *s, bool fast)
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

static inline void client_send(struct client *c, const struct key *to, const void *p, size_t n)
{
	struct derp_packet k = { .peer = *to, .data = p, .len = n };
	struct buf b = { 0 };

	derp_put_packet(&b, DERP_FRAME_SEND_PACKET, &k);
	client_put(c, &b);
}

static inline void client_receive(struct client *c, const struct key *from, const void *p, size_t n)
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
static inline void client_sync(struct client *c)
{
	uint8_t token[DERP_PING_LEN] = "syncsync";
	struct derp_frame f;
	struct buf b = { 0 };

	derp_put_ping(&b, DERP_FRAME_PING, token);
	client_put(c, &b);
	client_expect(c, DERP_FRAME_PONG, &f);
	assert_memory_equal(f.body, token, sizeof(token));
}
