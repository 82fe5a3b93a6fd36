#pragma once
/*
 * nodeclient: a node of the control protocol for tests: blocking, one connection, no kernel. Logs in, updates, streams
 * maps. Everything returns 0 or a negative errno, because servers are killed under it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/h2.h"
#include "lib/json.h"
#include "lib/key.h"
#include "proto/ts2021.h"

#define NODE_CLIENT_WAIT_MSEC 5000

struct node_client {
	struct key_pair machine, node;
	struct key disco;
	int fd;
	struct ts2021_records rx;
	struct noise_cipher tx;
	struct noise_handshake hs;
	struct h2 *h2;
	struct buf plain;
	/* the last plain answer */
	int status;
	bool answered;
	struct buf body;
	/* the map stream */
	struct h2_stream *stream;
	bool stream_over;
	struct ts2021_frames frames;
};

static inline void node_client_init(struct node_client *c)
{
	struct key_pair disco;

	*c = (struct node_client){ .fd = -1 };
	key_pair_generate(&c->machine);
	key_pair_generate(&c->node);
	key_pair_generate(&disco);
	c->disco = disco.pub;
}

/* The connection ends; keys stay. */
static inline void node_client_close(struct node_client *c)
{
	h2_free(c->h2);
	c->h2 = NULL;
	ts2021_records_done(&c->rx);
	c->rx = (struct ts2021_records){ 0 };
	buf_clear(&c->plain);
	if (c->stream)
		ts2021_frames_done(&c->frames);
	c->stream = NULL;
	c->stream_over = false;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static inline void node_client_done(struct node_client *c)
{
	node_client_close(c);
	buf_done(&c->plain);
	buf_done(&c->body);
}

static inline int node_client_write(void *data, const uint8_t *p, size_t n)
{
	struct node_client *c = data;
	CLEANUP(buf_done) struct buf out = { 0 };

	if (ts2021_records_put(&c->tx, p, n, &out) < 0)
		return -EPIPE;
	return send(c->fd, buf_data(&out), out.len, MSG_NOSIGNAL) == (ssize_t)out.len ? 0 : -EPIPE;
}

/* What comes, once; -ETIMEDOUT, -EPIPE. */
static inline ssize_t node_client_recv(struct node_client *c, uint8_t *p, size_t n, int msec)
{
	struct pollfd f = { .fd = c->fd, .events = POLLIN };
	ssize_t r;

	if (poll(&f, 1, msec) <= 0)
		return -ETIMEDOUT;
	r = read(c->fd, p, n);
	return r > 0 ? r : -EPIPE;
}

static inline int node_client_early(struct node_client *c)
{
	uint8_t in[4096];
	const char *json;
	size_t len;
	ssize_t r;
	int n;

	while ((n = ts2021_early_read(buf_data(&c->plain), c->plain.len, &json, &len)) == -EAGAIN) {
		r = node_client_recv(c, in, sizeof(in), NODE_CLIENT_WAIT_MSEC);
		if (r < 0)
			return (int)r;
		n = ts2021_records_feed(&c->rx, in, (size_t)r, &c->plain);
		if (n < 0)
			return n;
	}
	if (n < 0)
		return n;
	buf_consume(&c->plain, (size_t)n);
	return 0;
}

/* First half of node_client_connect(): the request is on its way. */
static inline int node_client_dial(struct node_client *c, uint16_t port, const struct key *server)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	CLEANUP(buf_done) struct buf rq = { 0 };
	uint8_t init[NOISE_INITIATION_LEN];
	int r, one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(c->fd, (struct sockaddr *)&in, sizeof(in)) < 0)
		return -errno;
	r = noise_initiator_start(&c->hs, &c->machine, server, 131, NULL, init);
	if (r < 0)
		return r;
	ts2021_put_request(&rq, "127.0.0.1:80", init);
	return send(c->fd, buf_data(&rq), rq.len, MSG_NOSIGNAL) == (ssize_t)rq.len ? 0 : -EPIPE;
}

static inline int node_client_upgraded(struct node_client *c)
{
	struct noise_transport t;
	uint8_t in[4096];
	struct http_head head;
	size_t got = 0;
	int n, r;

	do {
		ssize_t k = node_client_recv(c, in + got, sizeof(in) - got, NODE_CLIENT_WAIT_MSEC);

		if (k < 0)
			return (int)k;
		got += (size_t)k;
		n = http_response_parse(in, got, &head);
	} while (n == -EAGAIN || (n > 0 && got < (size_t)n + NOISE_RESPONSE_LEN));
	if (n <= 0)
		return -EPROTO;
	r = ts2021_read_response(&head);
	if (r == 0)
		r = noise_initiator_finish(&c->hs, in + n, &t);
	if (r < 0)
		return r;
	c->tx = t.tx;
	c->rx.rx = t.rx;
	noise_transport_wipe(&t);
	return ts2021_records_feed(&c->rx, in + n + NOISE_RESPONSE_LEN, got - (size_t)n - NOISE_RESPONSE_LEN, &c->plain);
}

static const struct h2_io node_client_io = { .write = node_client_write };

/* The second half. */
static inline int node_client_dialled(struct node_client *c)
{
	int r = node_client_upgraded(c);

	if (r == 0)
		r = node_client_early(c);
	if (r == 0)
		r = h2_client_new(&node_client_io, c, &c->h2);
	if (r == 0 && c->plain.len)
		r = h2_feed(c->h2, buf_data(&c->plain), c->plain.len);
	buf_clear(&c->plain);
	return r;
}

/* To the coordinator on loopback whose Noise key this is. */
static inline int node_client_connect(struct node_client *c, uint16_t port, const struct key *server)
{
	int r = node_client_dial(c, port, server);

	return r < 0 ? r : node_client_dialled(c);
}

/* Reads once, for at most so long: 0, -ETIMEDOUT, or the connection is over. */
static inline int node_client_read(struct node_client *c, int msec)
{
	uint8_t in[65536];
	ssize_t n = node_client_recv(c, in, sizeof(in), msec);
	int r;

	if (n < 0)
		return (int)n;
	buf_clear(&c->plain);
	r = ts2021_records_feed(&c->rx, in, (size_t)n, &c->plain);
	return r < 0 ? r : h2_feed(c->h2, buf_data(&c->plain), c->plain.len);
}

static inline void node_client_on_headers(void *data, struct h2_stream *st, int status)
{
	(void)st;
	((struct node_client *)data)->status = status;
}

static inline void node_client_on_data(void *data, struct h2_stream *st, const uint8_t *p, size_t n)
{
	(void)st;
	buf_put(&((struct node_client *)data)->body, p, n);
}

static inline void node_client_on_end(void *data, struct h2_stream *st, int error)
{
	struct node_client *c = data;

	(void)st;
	if (error)
		c->status = error;
	c->answered = true;
}

/* POST, to be followed by node_client_answer(). */
static inline int node_client_send(struct node_client *c, const char *path, const char *body)
{
	static const struct h2_client_ops ops = { node_client_on_headers, node_client_on_data, node_client_on_end };
	struct h2_request rq = { .method = "POST", .path = path, .body = body, .body_len = strlen(body) };
	struct h2_stream *st;

	c->answered = false;
	c->status = 0;
	buf_clear(&c->body);
	return h2_request(c->h2, &rq, &ops, c, &st);
}

/* The status; what came is in body. */
static inline int node_client_answer(struct node_client *c, int msec)
{
	int r = 0;

	while (!c->answered && r == 0)
		r = node_client_read(c, msec);
	return c->answered ? c->status : r;
}

/* Of a map request; more: further members, with a comma at their end. */
static inline void node_client_map_text(const struct node_client *c, bool stream, const char *more, char *out) /* 4096 bytes */
{
	char nk[KEY_TEXT_MAX], dk[KEY_TEXT_MAX];

	snprintf(out, 4096, "{\"Version\":131,\"NodeKey\":\"%s\",\"DiscoKey\":\"%s\",\"KeepAlive\":true,%s%s"
		 "\"Hostinfo\":{\"Hostname\":\"h\",\"OS\":\"linux\",\"NetInfo\":{\"PreferredDERP\":900}}}",
		 key_text(KEY_KIND_NODE, &c->node.pub, nk), key_text(KEY_KIND_DISCO, &c->disco, dk),
		 stream ? "\"Stream\":true,\"Compress\":\"zstd\"," : "\"OmitPeers\":true,", more);
}

static inline void node_client_on_map(void *data, struct h2_stream *st, const uint8_t *p, size_t n)
{
	(void)st;
	(void)ts2021_frames_feed(&((struct node_client *)data)->frames, p, n);
}

static inline void node_client_on_map_end(void *data, struct h2_stream *st, int error)
{
	(void)st;
	(void)error;
	((struct node_client *)data)->stream_over = true;
}

/* more: as above. */
static inline int node_client_stream(struct node_client *c, const char *more)
{
	static const struct h2_client_ops ops = { node_client_on_headers, node_client_on_map, node_client_on_map_end };
	char text[4096];
	struct h2_request rq = { .method = "POST", .path = "/machine/map", .body = text };

	node_client_map_text(c, true, more, text);
	rq.body_len = strlen(text);
	if (c->stream)
		ts2021_frames_done(&c->frames);
	ts2021_frames_init(&c->frames, TS2021_CODING_ZSTD);
	c->stream_over = false;
	return h2_request(c->h2, &rq, &ops, c, &c->stream);
}

/* The next map message: 0 with *ret to be freed; -ETIMEDOUT; -EPIPE: the stream is over. */
static inline int node_client_map(struct node_client *c, int msec, json_t **ret)
{
	const char *msg;
	size_t len;
	int r;

	for (;;) {
		r = ts2021_frames_next(&c->frames, &msg, &len);
		if (r < 0)
			return r;
		if (r == 1)
			return json_read(msg, len, 64 << 20, ret);
		if (c->stream_over)
			return -EPIPE;
		r = node_client_read(c, msec);
		if (r < 0)
			return r;
	}
}
