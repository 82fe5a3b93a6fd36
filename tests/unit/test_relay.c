/* relay: routing, notices, duplicate keys, slow readers, admission, what is refused. */
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>
#include <sodium.h>

#include "proto/derp.h"
#include "proto/stun.h"
#include "tests/unit/relay_sim.h"

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
	/* one key, one secret, and never the same box */
	assert_memory_not_equal(b1.nonce, b2.nonce, DERP_NONCE_LEN);
	assert_memory_not_equal(b1.nonce, b3.nonce, DERP_NONCE_LEN);
	assert_memory_not_equal(b2.nonce, b3.nonce, DERP_NONCE_LEN);
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
	struct server s = { .cfg = { .write_usec = 3 * USEC_PER_SEC } };
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
	/* Whoever reads before the relay has given up is not slow. */
	for (int tries = 0; tries < PATIENCE_MSEC / 10 && !relay_stats(s.relay)->write_timeouts; tries++)
		poll(NULL, 0, 10);
	while ((r = client_get(&slow, PATIENCE_MSEC, &f)) == 1)
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
	while (last < 400 && client_get(&slow, PATIENCE_MSEC, &f) == 1) {
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

static void test_admission(void **state)
{
	struct server s = { .cfg = { .admit = server_admit, .greet_usec = 4 * USEC_PER_SEC } };
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
	assert_int_equal(client_get(&bad, PATIENCE_MSEC, &f), -ECONNRESET);
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
	assert_int_equal(client_get(&liar, PATIENCE_MSEC, &f), -ECONNRESET);
	client_expect(&silent, DERP_FRAME_SERVER_KEY, &f);
	assert_int_equal(client_get(&silent, PATIENCE_MSEC, &f), -ECONNRESET);
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
	int fd = tcp(s);
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
	assert_int_equal(client_get(&silent[0], PATIENCE_MSEC, &f), -ECONNRESET);
	client_start(&good, &s, false);
	client_expect(&silent[1], DERP_FRAME_SERVER_KEY, &f);
	assert_int_equal(client_get(&silent[1], PATIENCE_MSEC, &f), -ECONNRESET);
	client_expect(&silent[2], DERP_FRAME_SERVER_KEY, &f);
	client_done(&silent[0]);
	client_start(&silent[0], &s, false);
	client_done(&silent[1]);
	client_start(&silent[1], &s, false);
	/* All four places are taken: one more that does not greet takes that of the one that has not. */
	client_start(&more, &s, false);
	assert_int_equal(client_get(&silent[2], PATIENCE_MSEC, &f), -ECONNRESET);
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
		assert_int_equal(client_get(&c, PATIENCE_MSEC, &f), -ECONNRESET);
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

/* One key has 16 connections: whichever of them has been silent for longest goes. */
static void test_key_limit(void **state)
{
	struct server s = { 0 };
	struct client c[17], a;
	struct derp_frame f;

	(void)state;
	server_start(&s);
	client_start(&a, &s, false);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		client_dial(&c[i], &s, true);
		c[i].key = c[0].key;
		client_info(&c[i], &s);
		client_welcome(&c[i], &s);
		if (i == 1)
			client_sync(&c[0]);
	}
	assert_int_equal(client_get(&c[1], PATIENCE_MSEC, &f), -ECONNRESET);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		if (i != 1)
			client_sync(&c[i]);
	client_sync(&a);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		client_done(&c[i]);
	client_done(&a);
	server_stop(&s);
}

/* A network of our own, where not all addresses are loopback. */
static bool other_addresses(void)
{
	struct ifreq up = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &up), 0);
	for (unsigned char i = 1; i <= 2; i++) {
		struct ifreq add = { 0 };
		struct sockaddr_in *in = (struct sockaddr_in *)&add.ifr_addr;

		snprintf(add.ifr_name, sizeof(add.ifr_name), "lo:%d", i);
		in->sin_family = AF_INET;
		in->sin_addr.s_addr = htonl(0xc0000200u + i);
		assert_int_equal(ioctl(fd, SIOCSIFADDR, &add), 0);
	}
	close(fd);
	return true;
}

static bool is_refused(const struct server *s)
{
	char a[1024];

	http(s, "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n", a, sizeof(a));
	return memcmp(a, "HTTP/1.1 503 ", 13) == 0;
}

/* While places are free, one address may have them all; then the newest of those who have the most make room for others
 * who have greeted, until these have as many. */
static void test_sites(void **state)
{
	struct server s = { .cfg = { .max_clients = 8 } };
	struct client many[8], other[4], silent;
	struct derp_frame f;

	(void)state;
	if (!other_addresses()) {
		print_message("no right to a network namespace: sites are not tested\n");
		skip();
	}
	server_start(&s);
	s.from.addr = addr_v4(192, 0, 2, 1);
	for (int i = 0; i < 8; i++)
		client_start(&many[i], &s, false);
	assert_true(is_refused(&s));
	s.from.addr = addr_v4(192, 0, 2, 2);
	client_dial(&silent, &s, false);
	for (int i = 0; i < 8; i++)
		client_sync(&many[i]);
	for (int i = 0; i < 4; i++) {
		client_start(&other[i], &s, false);
		assert_int_equal(client_get(&many[7 - i], PATIENCE_MSEC, &f), -ECONNRESET);
		client_done(&many[7 - i]);
		for (int k = 0; k < 7 - i; k++)
			client_sync(&many[k]);
	}
	client_done(&silent);
	poll(NULL, 0, 50);
	assert_true(is_refused(&s));
	s.from.addr = addr_v4(192, 0, 2, 1);
	assert_true(is_refused(&s)); /* or these two would push each other out for ever */
	s.from.addr = addr_v4(0, 0, 0, 0); /* from loopback, which is no site */
	client_start(&many[7], &s, false);
	assert_int_equal(client_get(&many[3], PATIENCE_MSEC, &f), -ECONNRESET);
	client_done(&many[3]);
	client_sync(&many[7]);
	client_done(&other[0]);
	poll(NULL, 0, 50);
	s.from.addr = addr_v4(192, 0, 2, 1);
	client_start(&many[3], &s, false); /* has room */
	for (int i = 0; i < 4; i++)
		client_sync(&many[i]);
	for (int i = 1; i < 4; i++)
		client_sync(&other[i]);
	for (int i = 1; i < 4; i++)
		client_done(&other[i]);
	for (int i = 0; i < 4; i++)
		client_done(&many[i]);
	client_done(&many[7]);
	server_stop(&s);
	assert_int_equal(s.end.over_limit, 8);
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
		cmocka_unit_test(test_keepalive),   cmocka_unit_test(test_key_limit),
		cmocka_unit_test(test_sites), /* last: its network is not the machine's */
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
