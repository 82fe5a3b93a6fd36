/*
 * badcontrol: a coordination server that does one misdeed as it is told, to try nodes against.
 *
 *   badcontrol PORT MODEFILE CERT KEY NOISEKEY MAP...
 *
 * TLS with CERT and KEY; the Noise key of the server in whose place it stands; a MAP for each node, as
 * kernscaled keeps it (netmap.json): what that node was told last. MODEFILE holds one word of the table
 * at the end, read again all the time. Misdeeds behind Noise are for the node of the first MAP, all
 * others are served well. Prints `MODE accepts N asks N` when the mode changes: connections, and
 * requests in them. With a new mode all connections end.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zstd.h>

#include "lib/file.h"
#include "lib/h2.h"
#include "lib/json.h"
#include "lib/noise.h"
#include "lib/stream.h"
#include "proto/ts2021.h"

#define CONNS	  256
#define BASES	  8
#define MAP_MAX	  (16u << 20)
#define OUT_MAX	  (64u << 20)
#define FULL	  (256u << 10) /* a flood that nobody takes waits */
#define PIECES	  64	       /* of a flood, in one turn */
#define TICK_USEC (5 * USEC_PER_MSEC)

/* Red, the window's title, C1, the order of letters turned round, a new line that looks like ours. */
#define EVIL "\x1b[31m\x1b]0;owned\x07\xc2\x9b" "31m\xe2\x80\xae\n100.64.0.9 forged\r\x7f"

struct conn {
	struct stream *s; /* NULL: free */
	enum { HTTP, CHANNEL, DEAF } state;
	struct noise_cipher tx;
	struct ts2021_records rx;
	struct h2 *h2;
	struct h2_stream *map; /* of the victim, while a misdeed goes on in it */
	bool flows, ends;
	unsigned long n; /* for whoever counts */
};

/* What is done instead of the right thing; NULL: the right thing. */
struct misdeed {
	const char *name;
	bool bare; /* no TLS */
	void (*arrival)(struct conn *c);
	void (*key)(struct conn *c);
	void (*upgrade)(struct conn *c, const struct http_head *h);
	void (*channel)(struct conn *c); /* Noise stands: no HTTP/2 of ours */
	void (*login)(struct h2_stream *st);
	void (*map)(struct conn *c, struct h2_stream *st, const json_t *good);
	void (*tick)(struct conn *c);
};

static struct {
	struct loop *loop;
	struct loop_timer *tick;
	struct tls_ctx *tls;
	struct key_pair noise, other;
	json_t *base[BASES];
	size_t n_bases;
	struct conn c[CONNS];
	const struct misdeed *m;
	const char *mode_file;
	unsigned long accepts, asks;
	struct buf ready; /* the frame of a large map, which takes its time, of ready_for */
	const struct misdeed *ready_for;
} B;

static void conn_end(struct conn *c)
{
	h2_free(TAKE(c->h2));
	stream_free(TAKE(c->s));
	ts2021_records_done(&c->rx);
	*c = (struct conn){ 0 };
}

static void put(struct conn *c, const void *p, size_t n)
{
	if (c->s)
		stream_write(c->s, p, n);
}

static void put_text(struct conn *c, const char *s)
{
	put(c, s, strlen(s));
}

static void put_noise(struct conn *c, size_t n)
{
	uint8_t noise[4096];

	randombytes_buf(noise, sizeof(noise));
	put(c, noise, MIN(n, sizeof(noise)));
}

/* What is queued leaves, then the connection ends. */
static void hang_up(struct conn *c)
{
	stream_finish(TAKE(c->s));
	conn_end(c);
}

/* Plaintext into the channel. */
static int seal(struct conn *c, const void *p, size_t n)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	if (ts2021_records_put(&c->tx, p, n, &b) < 0 || !c->s)
		return -EPIPE;
	return stream_write(c->s, buf_data(&b), b.len);
}

/* ---- what a good server does ---- */

static void good_key(struct conn *c, const struct key *k)
{
	char text[KEY_TEXT_MAX], body[256], head[256];
	int n = snprintf(body, sizeof(body), "{\"legacyPublicKey\":\"mkey:%064d\",\"publicKey\":\"%s\"}\n", 0,
			 key_text(KEY_KIND_MACHINE, k, text));

	snprintf(head, sizeof(head),
		 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", n);
	put_text(c, head);
	put_text(c, body);
}

/* spoil: what comes back does not decrypt. */
static void good_upgrade(struct conn *c, const struct http_head *h, bool spoil)
{
	uint8_t initiation[NOISE_INITIATION_LEN], response[NOISE_RESPONSE_LEN];
	CLEANUP(buf_done) struct buf b = { 0 };
	struct noise_handshake hs;
	struct noise_transport t;

	if (ts2021_read_request(h, initiation) < 0 ||
	    noise_responder_read(&hs, &B.noise, initiation, sizeof(initiation)) < 0 ||
	    noise_responder_reply(&hs, NULL, response, &t) < 0) {
		put_text(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
		return;
	}
	if (spoil)
		randombytes_buf(response + 3, sizeof(response) - 3);
	ts2021_put_response(&b);
	buf_put(&b, response, sizeof(response));
	put(c, buf_data(&b), b.len);
	c->tx = t.tx;
	c->rx.rx = t.rx;
	c->state = CHANNEL;
}

static void send_text(struct h2_stream *st, const char *text)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	ts2021_frame_put(&b, TS2021_ENCODING_ZSTD, text, strlen(text));
	h2_send(st, buf_data(&b), b.len);
}

static void send_map(struct h2_stream *st, const json_t *m)
{
	char *text = json_dumps(m, JSON_COMPACT);

	send_text(st, text);
	free(text);
}

static void forget_map(void *data, struct h2_stream *st, int error)
{
	struct conn *c = data;

	(void)error;
	if (c->map == st)
		c->map = NULL;
}

static void answer_map(struct conn *c, struct h2_stream *st, const char *body)
{
	size_t i;

	for (i = 0; i < B.n_bases; i++)
		if (strstr(body, json_get_str(json_get(B.base[i], "Node"), "Key")))
			break;
	if (i == B.n_bases || (i == 0 && B.m->login)) {
		h2_respond(st, 404, "text/plain", "node not found\n", 15);
	} else if (!strstr(body, "\"Stream\":true")) {
		h2_respond(st, 200, NULL, NULL, 0);
	} else {
		h2_set_queue_max(st, OUT_MAX);
		h2_respond_start(st, 200, NULL);
		if (i != 0 || !B.m->map) {
			send_map(st, B.base[i]);
			if (i == 0)
				printf("%s served\n", B.m->name);
			return;
		}
		c->map = st;
		h2_on_closed(st, forget_map, c);
		B.m->map(c, st, B.base[0]);
	}
}

static void on_request(void *data, struct h2_stream *st, const char *method, const char *path,
		       const uint8_t *body, size_t len)
{
	static const char ok[] = "{\"Login\":{\"ID\":1,\"LoginName\":\"mesh\"},\"MachineAuthorized\":true}\n";
	CLEANUP(free) char *text = strndup((const char *)body, len);

	(void)method;
	B.asks++;
	if (strcmp(path, "/machine/map") == 0)
		answer_map(data, st, text);
	else if (B.m->login)
		B.m->login(st);
	else
		h2_respond(st, 200, "application/json", ok, sizeof(ok) - 1);
}

static int channel_write(void *data, const uint8_t *p, size_t n)
{
	return seal(data, p, n);
}

static size_t channel_pending(void *data)
{
	struct conn *c = data;

	return c->s ? stream_pending(c->s) : 0;
}

static const struct h2_io channel_io = { channel_write, channel_pending };
static const struct h2_server_ops channel_ops = { .on_request = on_request };

static void open_channel(struct conn *c)
{
	if (B.m->channel)
		B.m->channel(c);
	else
		h2_server_new(&channel_io, c, &channel_ops, c, &c->h2);
}

/* ---- connections ---- */

static void take_request(struct conn *c, const struct http_head *h)
{
	B.asks++;
	if (http_str_eq(h->path, "/key")) {
		if (B.m->key)
			B.m->key(c);
		else
			good_key(c, &B.noise.pub);
	} else if (http_str_eq(h->path, TS2021_PATH)) {
		if (B.m->upgrade)
			B.m->upgrade(c, h);
		else
			good_upgrade(c, h, false);
		if (c->state == CHANNEL)
			open_channel(c);
	} else {
		put_text(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
	}
}

static void http_input(struct conn *c, struct buf *in)
{
	struct http_head h;
	int n;

	while (c->s && c->state == HTTP && (n = http_request_parse(buf_data(in), in->len, &h)) > 0) {
		take_request(c, &h);
		if (c->s)
			buf_consume(in, (size_t)n);
	}
}

static void channel_input(struct conn *c, struct buf *in)
{
	CLEANUP(buf_done) struct buf plain = { 0 };
	bool bad = ts2021_records_feed(&c->rx, buf_data(in), in->len, &plain) < 0;

	buf_consume(in, in->len);
	if (bad || (c->h2 && h2_feed(c->h2, buf_data(&plain), plain.len) < 0))
		conn_end(c);
	else if (c->ends)
		hang_up(c);
}

static void on_ready(void *data, struct stream *s)
{
	(void)s;
	if (B.m->arrival)
		B.m->arrival(data);
}

static void on_input(void *data, struct stream *s)
{
	struct conn *c = data;
	struct buf *in = stream_input(s);

	if (c->state == HTTP)
		http_input(c, in);
	if (c->s && c->state == CHANNEL && in->len)
		channel_input(c, in);
	if (c->s && c->state == DEAF)
		buf_consume(in, in->len);
}

static void on_drained(void *data, struct stream *s)
{
	struct conn *c = data;

	(void)s;
	if (c->h2 && h2_drained(c->h2) < 0)
		conn_end(c);
}

static void on_closed(void *data, struct stream *s, int error, const char *why)
{
	(void)s;
	(void)error;
	(void)why;
	conn_end(data);
}

static const struct stream_ops conn_ops = { on_ready, on_input, on_drained, on_closed };

static void on_accept(void *data, int listener, uint32_t events)
{
	struct stream_opts o = { .ops = &conn_ops, .tls = B.m->bare ? NULL : B.tls, .out_max = OUT_MAX };
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)data;
	(void)events;
	B.accepts += fd >= 0;
	for (size_t i = 0; fd >= 0 && i < CONNS; i++) {
		struct conn *c = &B.c[i];

		if (c->s)
			continue;
		o.data = c;
		if (stream_new(B.loop, fd, &o, &c->s) == 0)
			return;
		break;
	}
	fd_close(fd);
}

/* ---- misdeeds before Noise ---- */

static void garbage(struct conn *c)
{
	put_noise(c, 3000);
	c->state = DEAF;
}

static void deaf(struct conn *c)
{
	c->state = DEAF;
}

static void reset(struct conn *c)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(stream_fd(c->s), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	conn_end(c);
}

static void garbage_for(struct conn *c, const struct http_head *h)
{
	(void)h;
	garbage(c);
}

static void deaf_for(struct conn *c, const struct http_head *h)
{
	(void)h;
	deaf(c);
}

/* A head that never ends, one byte with every tick. */
static void drip(struct conn *c)
{
	put_text(c, "HTTP/1.1 101 Switching Protocols\r\nX-Patience: ");
	c->state = DEAF;
	c->flows = true;
}

static void drip_for(struct conn *c, const struct http_head *h)
{
	(void)h;
	drip(c);
}

static void drip_tick(struct conn *c)
{
	if (c->flows && ++c->n % 5 == 0)
		put(c, "a", 1);
}

/* 100 MB as fast as they are taken, of a body or of a head. */
static void flow(struct conn *c, const char *head)
{
	put_text(c, head);
	c->state = DEAF;
	c->flows = true;
}

static void key_huge(struct conn *c)
{
	flow(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"publicKey\":\"");
}

static void key_chunks(struct conn *c)
{
	flow(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6400000\r\n{\"publicKey\":\"");
}

static void key_length(struct conn *c)
{
	flow(c, "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n{\"publicKey\":\"");
}

static void huge_head(struct conn *c, const struct http_head *h)
{
	(void)h;
	flow(c, "HTTP/1.1 101 Switching Protocols\r\nX-Patience: ");
}

static void huge_tick(struct conn *c)
{
	static char piece[16384];

	memset(piece, 'a', sizeof(piece));
	while (c->flows && c->s && stream_pending(c->s) < FULL && c->n < (100u << 20)) {
		put(c, piece, sizeof(piece));
		c->n += sizeof(piece);
	}
}

static void page(struct conn *c, const struct http_head *h)
{
	(void)h;
	put_text(c, "HTTP/1.1 503 " "Gone fishing\r\nContent-Length: 1000\r\n\r\n<h1>" EVIL);
	hang_up(c);
}

static void spoilt_noise(struct conn *c, const struct http_head *h)
{
	good_upgrade(c, h, true);
	c->state = DEAF;
}

/* As a server does that has another key, so that the node asks for it. */
static void refuse(struct conn *c, const struct http_head *h)
{
	(void)h;
	put_text(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
	hang_up(c);
}

static void key_garbage(struct conn *c)
{
	put_text(c, "HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n");
	garbage(c);
}

/* Elsewhere lies what nobody shall go to. */
static void redirect(struct conn *c)
{
	put_text(c, "HTTP/1.1 301 Moved Permanently\r\nLocation: http://198.51.100.10:7777/key\r\n"
		    "Content-Length: 0\r\n\r\n");
	hang_up(c);
}

static void redirect_for(struct conn *c, const struct http_head *h)
{
	(void)h;
	redirect(c);
}

static void key_other(struct conn *c)
{
	good_key(c, &B.other.pub);
}

/* ---- between Noise and HTTP/2 ---- */

static void flipped_record(struct conn *c)
{
	uint8_t plain[40] = { 0 }, record[64];
	int n = noise_seal(&c->tx, plain, sizeof(plain), record);

	record[10] ^= 1;
	put(c, record, (size_t)n);
	c->state = DEAF;
}

static void channel_deaf(struct conn *c)
{
	c->state = DEAF;
}

static void channel_flows(struct conn *c)
{
	c->state = DEAF;
	c->flows = true;
}

static void empty_records_tick(struct conn *c)
{
	uint8_t many[PIECES][NOISE_RECORD_HEADER + NOISE_TAG];

	for (int k = 0; k < PIECES && c->s && c->flows && stream_pending(c->s) < FULL; k++) {
		for (size_t i = 0; i < PIECES; i++)
			noise_seal(&c->tx, (const uint8_t *)"", 0, many[i]);
		put(c, many, sizeof(many));
	}
}

static void early_huge(struct conn *c)
{
	seal(c, "\xff\xff\xffTS\xff\xff\xff\xff{", 10);
	c->state = DEAF;
}

/* As much as stock servers may send, and then nothing. */
static void early_most(struct conn *c)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	buf_put(&b, "\xff\xff\xffTS\x00\xa0\x00\x00", TS2021_EARLY_HEADER);
	memset(buf_tail(&b, TS2021_EARLY_MAX - 1), ' ', TS2021_EARLY_MAX - 1);
	buf_commit(&b, TS2021_EARLY_MAX - 1);
	seal(c, buf_data(&b), b.len);
	c->state = DEAF;
}

static void h2_garbage(struct conn *c)
{
	uint8_t noise[2000];

	randombytes_buf(noise, sizeof(noise));
	seal(c, noise, sizeof(noise));
	c->state = DEAF;
}

static void flood_tick(struct conn *c, const char *frame, size_t n)
{
	uint8_t many[PIECES * 32];

	for (size_t i = 0; i < PIECES; i++)
		memcpy(many + i * n, frame, n);
	for (int k = 0; k < PIECES && c->s && c->flows && stream_pending(c->s) < FULL; k++)
		if (seal(c, many, PIECES * n) < 0)
			return;
}

static void h2_greet(struct conn *c)
{
	seal(c, "\0\0\0\x4\0\0\0\0\0", 9); /* SETTINGS */
	channel_flows(c);
}

static void h2_pings_tick(struct conn *c)
{
	flood_tick(c, "\0\0\x8\x6\0\0\0\0\0" "hi there", 17);
}

static void h2_settings_tick(struct conn *c)
{
	flood_tick(c, "\0\0\0\x4\0\0\0\0\0", 9);
}

/* Headers that go on for ever. */
static void h2_headers(struct conn *c)
{
	h2_greet(c);
	seal(c, "\0\0\x1\x1\0\0\0\0\x1\x88", 10);
}

static void h2_headers_tick(struct conn *c)
{
	flood_tick(c, "\0\0\x0a\x9\0\0\0\0\x1\0\x03" "abc\x04" "defg", 19);
}

static void h2_leave(struct conn *c)
{
	h2_greet(c);
	seal(c, "\0\0\x8\x7\0\0\0\0\0\0\0\0\0\0\0\0\x2", 17);
}

/* ---- logins ---- */

static void login_error(struct h2_stream *st)
{
	CLEANUP(json_decref) json_t *o = json_pack("{s:s}", "Error", "database is locked " EVIL);
	char *text = json_dumps(o, 0);

	h2_respond(st, 200, "application/json", text, strlen(text));
	free(text);
}

static void login_status(struct h2_stream *st)
{
	h2_respond(st, 500, "text/html", "<h1>" EVIL, strlen("<h1>" EVIL));
}

static void login_huge(struct h2_stream *st)
{
	static char blank[OUT_MAX / 2];

	memset(blank, ' ', sizeof(blank));
	h2_respond(st, 200, "application/json", blank, sizeof(blank));
}

static void login_url(struct h2_stream *st)
{
	static const char text[] = "{\"AuthURL\":\"https://x/\\u001b]0;owned\\u0007\"}";

	h2_respond(st, 200, "application/json", text, sizeof(text) - 1);
}

static void login_never(struct h2_stream *st)
{
	(void)st;
}

/* ---- maps ---- */

static void map_never(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	(void)st;
	(void)good;
}

static void map_length(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	(void)good;
	h2_send(st, "\xff\xff\xff\xff{\"Node\":", 12);
}

/* 63 MiB are announced, the most that may come, and an eighth of them comes. */
static void map_stall(struct conn *c, struct h2_stream *st, const json_t *good)
{
	static char part[1 << 20];

	(void)c;
	(void)good;
	memset(part, ' ', sizeof(part));
	h2_send(st, "\0\0\xf0\x03", 4);
	for (int i = 0; i < 8; i++)
		h2_send(st, part, sizeof(part));
}

static void map_garbage(struct conn *c, struct h2_stream *st, const json_t *good)
{
	uint8_t noise[300];

	(void)c;
	(void)good;
	randombytes_buf(noise, sizeof(noise));
	memcpy(noise, "\xc8\0\0\0", 4);
	h2_send(st, noise, sizeof(noise));
}

static void map_truncated(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	char *text = json_dumps(good, 0);
	uint32_t n;

	(void)c;
	ts2021_frame_put(&b, TS2021_ENCODING_ZSTD, text, strlen(text));
	free(text);
	n = (uint32_t)b.len - 4 - 10;
	for (int i = 0; i < 4; i++)
		b.data[b.head + (size_t)i] = (uint8_t)(n >> 8 * i);
	h2_send(st, buf_data(&b), b.len);
}

/* begin, then what, again and again, n bytes of it, then end, as one compressed message: a few KiB on the
 * way, whatever n is. */
static void put_bomb(struct buf *b, const char *begin, const char *what, size_t n, const char *end)
{
	static char fill[3 << 18], out[1 << 20];
	ZSTD_CCtx *z = ZSTD_createCCtx();
	size_t at = b->len, len;

	for (size_t i = 0, k = strlen(what); i < sizeof(fill); i += k)
		memcpy(fill + i, what, k);
	buf_put_le32(b, 0);
	for (int part = 0; part < 3; part++) {
		const char *p = part == 0 ? begin : part == 1 ? fill : end;
		size_t left = part == 1 ? n : strlen(p), k;

		for (; left; left -= k) {
			k = MIN(left, sizeof(fill));
			ZSTD_inBuffer in = { p, k, 0 };
			ZSTD_outBuffer to = { out, sizeof(out), 0 };

			ZSTD_compressStream2(z, &to, &in, part == 2 && left == k ? ZSTD_e_end : ZSTD_e_continue);
			buf_put(b, out, to.pos);
		}
	}
	ZSTD_freeCCtx(z);
	len = b->len - at - 4;
	for (int i = 0; i < 4; i++)
		b->data[b->head + at + (size_t)i] = (uint8_t)(len >> 8 * i);
}

static void map_bomb(struct conn *c, struct h2_stream *st, const json_t *good)
{
	static struct buf b;

	(void)c;
	(void)good;
	if (!b.len)
		put_bomb(&b, "{\"Node\":\"", "x", 1u << 27, "\"}");
	h2_send(st, buf_data(&b), b.len);
}

static void map_deep(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)c;
	(void)good;
	put_bomb(&b, "{\"Node\":", "[", 100000, "1}");
	h2_send(st, buf_data(&b), b.len);
}

/* Small on the way and small as text, for what it is when it is read: twenty million empty lists. */
static void map_tree(struct conn *c, struct h2_stream *st, const json_t *good)
{
	static struct buf b;

	(void)c;
	send_map(st, good);
	if (!b.len) {
		put_bomb(&b, "{\"DERPMap\":{\"Regions\":{},\"x\":[", "[],", 60000000, "[]]}}");
		put_bomb(&b, "{\"PacketFilter\":[{\"SrcIPs\":[", "{},", 60000000, "{}]}]}");
		put_bomb(&b, "{\"Health\":[", "[],", 60000000, "[]]}");
	}
	h2_send(st, buf_data(&b), b.len);
}

/* Deep where nobody looks: a member that no version knows. */
static void map_deep_unknown(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)c;
	send_map(st, good);
	put_bomb(&b, "{\"Novelty\":", "[", 100000, "1}");
	h2_send(st, buf_data(&b), b.len);
}

static void map_no_node(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	(void)good;
	send_text(st, "{\"Node\":{\"ID\":-1},\"Peers\":[]}");
}

/* A good one, so that all failures are forgiven, and at once a bad one: again and again. */
static void map_flap(struct conn *c, struct h2_stream *st, const json_t *good)
{
	send_map(st, good);
	map_garbage(c, st, good);
}

static void map_bye(struct conn *c, struct h2_stream *st, const json_t *good)
{
	send_map(st, good);
	c->ends = true;
}

static void map_good(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	send_map(st, good);
}

static void alive_tick(struct conn *c)
{
	static struct buf many;

	for (int i = 0; i < 1000 && !many.bad && many.len < 30000; i++)
		ts2021_frame_put(&many, TS2021_ENCODING_ZSTD, "{\"KeepAlive\":true}", 18);
	for (int k = 0; k < PIECES && c->map && h2_pending(c->map) < FULL; k++)
		if (h2_send(c->map, buf_data(&many), many.len) < 0)
			return;
}

/* Keep-alives of a mebibyte that take a hundred bytes on the way. */
static void blank_tick(struct conn *c)
{
	static struct buf b;

	while (b.len < 30000)
		put_bomb(&b, "{\"KeepAlive\":true", " ", 1000000, "}");
	for (int k = 0; k < PIECES && c->map && h2_pending(c->map) < FULL; k++)
		if (h2_send(c->map, buf_data(&b), b.len) < 0)
			return;
}

static void pings_tick(struct conn *c)
{
	static const char *const urls[] = { "http://127.0.0.1:7777", "https://127.0.0.1:7777",
					    "http://[::1]:7777", "http://localhost:7777",
					    "http://169.254.169.254:7777", "/machine/ping" };
	static unsigned long n;
	char url[80], text[160];

	for (int i = 0; i < 100 && c->map && h2_pending(c->map) < FULL; i++, n++) {
		snprintf(url, sizeof(url), "%s/%lu", urls[n % ARRAY_SIZE(urls)], n);
		snprintf(text, sizeof(text), "{\"KeepAlive\":true,\"PingRequest\":{\"URL\":\"%s\"}}", url);
		send_text(c->map, text);
	}
}

/* ---- maps that can be read ---- */

static json_t *first_peer(json_t *m)
{
	return json_array_get(json_get(m, "Peers"), 0);
}

static json_t *add_peer(json_t *m, int id)
{
	json_t *p = json_deep_copy(first_peer(m));
	char text[KEY_TEXT_MAX + 32];
	struct key_pair k;

	key_pair_generate(&k);
	json_object_set_new(p, "ID", json_integer(id));
	json_object_set_new(p, "Key", json_string(key_text(KEY_KIND_NODE, &k.pub, text)));
	json_object_set_new(p, "DiscoKey", json_string(key_text(KEY_KIND_DISCO, &k.pub, text)));
	snprintf(text, sizeof(text), "mallory%d.mesh.test.", id);
	json_object_set_new(p, "Name", json_string(text));
	snprintf(text, sizeof(text), "100.64.7.%d/32", id % 250);
	json_object_set_new(p, "Addresses", json_pack("[s]", text));
	json_object_del(p, "AllowedIPs");
	json_array_append_new(json_get(m, "Peers"), p);
	return p;
}

/* Peers that claim everything, us, a friend's address, loopback; keys twice; numbers twice. */
static void map_thieves(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);
	const json_t *self = json_get(json_get(m, "Node"), "Addresses");
	const json_t *friends = json_get(first_peer(m), "Addresses");
	json_t *p;

	(void)c;
	json_object_set_new(add_peer(m, 901), "AllowedIPs", json_pack("[s,s,s]", "0.0.0.0/0", "::/0", "0.0.0.0/0"));
	json_object_set_new(add_peer(m, 902), "AllowedIPs", json_deep_copy(self));
	json_object_set_new(add_peer(m, 903), "AllowedIPs", json_deep_copy(friends));
	p = add_peer(m, 904);
	json_object_set_new(p, "Addresses", json_deep_copy(friends));
	json_object_set_new(p, "AllowedIPs", json_pack("[s,s,s,s]", "127.0.0.0/8", "224.0.0.0/4", "::1/128", "100.64.0.0/10"));
	p = add_peer(m, 905);
	json_object_set_new(p, "Addresses", json_deep_copy(self));
	json_object_set(add_peer(m, 906), "Key", json_get(first_peer(m), "Key"));
	json_object_set(add_peer(m, 907), "Key", json_get(json_get(m, "Node"), "Key"));
	json_object_set(add_peer(m, 908), "ID", json_get(json_get(m, "Node"), "ID"));
	json_object_set_new(add_peer(m, 909), "Endpoints",
			    json_pack("[s,s,s,s]", "127.0.0.1:41641", "255.255.255.255:1", "224.0.0.1:9", "[::1]:41641"));
	send_map(st, m);
}

static void map_names(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);
	static char longest[10240 + 1];
	const char *const names[] = { EVIL, "../../etc/passwd", "$(reboot)", longest, "", "%s%n" };
	const char *id;
	json_t *p;

	(void)c;
	memset(longest, 'x', sizeof(longest) - 1);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		p = add_peer(m, 901 + (int)i);
		json_object_set_new(p, "Name", json_string(names[i]));
		json_object_set_new(p, "StableID", json_string(names[i]));
		json_object_set_new(p, "Tags", json_pack("[s,s]", names[i], "tag:x" EVIL));
		json_object_set_new(p, "User", json_integer(901));
		json_object_set_new(p, "Hostinfo",
				    json_pack("{s:s,s:s,s:s}", "Hostname", names[i], "OS", EVIL, "IPNVersion", EVIL));
	}
	json_object_set_new(m, "Domain", json_string(EVIL));
	json_object_set_new(m, "Health", json_pack("[s,s]", EVIL, longest));
	json_object_set_new(m, "UserProfiles", json_pack("[{s:i,s:s,s:s,s:s}]", "ID", 901, "LoginName", EVIL,
							 "DisplayName", longest, "ProfilePicURL", EVIL));
	json_object_set_new(m, "PopBrowserURL", json_string("https://x/" EVIL));
	json_object_set_new(m, "DNSConfig", json_pack("{s:[s],s:[{s:s}]}", "Domains", EVIL, "Resolvers", "Addr", EVIL));
	json_object_foreach(json_get(json_get(m, "DERPMap"), "Regions"), id, p) {
		json_object_set_new(p, "RegionCode", json_string(EVIL));
		json_object_set_new(p, "RegionName", json_string(EVIL));
	}
	send_map(st, m);
}

/* As text, since the tree would take longer to make than the map to read. */
static void send_with(struct h2_stream *st, const json_t *good, const char *member, const struct buf *value)
{
	CLEANUP(json_decref) json_t *m = json_copy((json_t *)(uintptr_t)good);
	CLEANUP(buf_done) struct buf b = { 0 };
	char *text;

	json_object_del(m, member);
	text = json_dumps(m, JSON_COMPACT);
	buf_put(&b, text, strlen(text) - 1);
	buf_printf(&b, ",\"%s\":", member);
	buf_put(&b, buf_data(value), value->len);
	buf_put_str(&b, "}");
	buf_done(&B.ready);
	ts2021_frame_put(&B.ready, TS2021_ENCODING_ZSTD, buf_data(&b), b.len);
	B.ready_for = B.m;
	h2_send(st, buf_data(&B.ready), B.ready.len);
	free(text);
}

/* It was made for the one who asked before. */
static bool send_ready(struct h2_stream *st)
{
	if (B.ready_for != B.m)
		return false;
	h2_send(st, buf_data(&B.ready), B.ready.len);
	return true;
}

static void map_rules(struct conn *c, struct h2_stream *st, const json_t *good)
{
	char *base = json_dumps(json_get(json_get(good, "PacketFilters"), "base"), 0);
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)c;
	if (send_ready(st)) {
		free(base);
		return;
	}
	buf_printf(&b, "{\"base\":%s,\"many\":[{}", base);
	for (unsigned int i = 0; i < 100000; i++)
		buf_printf(&b, ",{\"SrcIPs\":[\"10.%u.%u.%u\"],\"DstPorts\":[{\"IP\":\"*\",\"Ports\":"
			   "{\"First\":%u,\"Last\":65535}}]}", i / 65536, i / 256 % 256, i % 256, i % 1000);
	buf_put_str(&b, "]}");
	send_with(st, good, "PacketFilters", &b);
	free(base);
}

static uint64_t id_plain(unsigned int i)
{
	return 10000 + i;
}

/* All those numbers fall on one place, for who multiplies by the golden ratio and takes the upper bits. */
static uint64_t id_colliding(unsigned int i)
{
	static const uint64_t inverse = UINT64_C(0xf1de83e19937733d);

	return (((UINT64_C(1) << 42) + 1 + i) * inverse) & INT64_MAX;
}

static void send_peers(struct h2_stream *st, const json_t *good, unsigned int count, uint64_t (*id)(unsigned int i))
{
	char *friends = json_dumps(json_array_get(json_get(good, "Peers"), 0), JSON_COMPACT);
	CLEANUP(buf_done) struct buf b = { 0 };

	buf_printf(&b, "[%s", friends);
	free(friends);
	for (unsigned int i = 0; i < count; i++)
		buf_printf(&b, ",{\"ID\":%llu,\"StableID\":\"%u\",\"Name\":\"m%u.mesh.test.\",\"Key\":\"nodekey:%064x\","
			   "\"DiscoKey\":\"discokey:%064x\",\"Addresses\":[\"100.%u.%u.%u/32\"],\"HomeDERP\":902,"
			   "\"Endpoints\":[\"198.51.100.10:%u\"],\"Hostinfo\":{\"Hostname\":\"m%u\"},"
			   "\"MachineAuthorized\":true}",
			   (unsigned long long)id(i), i, i, i + 0x10000000, i + 0x20000000, 65 + i / 65536,
			   i / 256 % 256, i % 256, 1024 + i % 60000, i);
	buf_put_str(&b, "]");
	send_with(st, good, "Peers", &b);
}

static void map_too_many(struct conn *c, struct h2_stream *st, const json_t *good)
{
	(void)c;
	if (!send_ready(st))
		send_peers(st, good, 100010, id_plain);
}

/* On a slow machine (SLOWNESS, tests/scenario/all) fewer: the kernel takes so long for each new peer. */
static void map_colliding(struct conn *c, struct h2_stream *st, const json_t *good)
{
	const char *slow = getenv("SLOWNESS");

	(void)c;
	if (!send_ready(st))
		send_peers(st, good, slow && strtoul(slow, NULL, 10) > 1 ? 5000 : 20000, id_colliding);
}

static json_t *relay(int id, int node, const char *host)
{
	char name[24];

	snprintf(name, sizeof(name), "%d-%d", id, node);
	return json_pack("{s:s,s:i,s:s,s:i}", "Name", name, "RegionID", id, "HostName", host, "DERPPort", 9);
}

static void put_regions(json_t *m, int count, int nodes)
{
	static const char *const hosts[] = { "127.0.0.1", "nowhere.invalid", "../../x", EVIL, "255.255.255.255",
					     "[::1]", "localhost", "224.0.0.1", "a b c", "x@y:99/../?" };
	json_t *regions = json_get(json_get(m, "DERPMap"), "Regions"), *list;
	char id[16];

	for (int i = 1; i <= count; i++) {
		list = json_array();
		for (int k = 0; k < nodes; k++)
			json_array_append_new(list, relay(i, k, hosts[(i + k) % (int)ARRAY_SIZE(hosts)]));
		snprintf(id, sizeof(id), "%d", i);
		if (!json_get(regions, id))
			json_object_set_new(regions, id,
					    json_pack("{s:i,s:s,s:s,s:o}", "RegionID", i, "RegionCode", "evil",
						      "RegionName", EVIL, "Nodes", list));
		else
			json_decref(list);
	}
}

static void map_relays(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);

	(void)c;
	put_regions(m, 1000, 8);
	send_map(st, m);
}

static void map_too_many_relays(struct conn *c, struct h2_stream *st, const json_t *good)
{
	CLEANUP(json_decref) json_t *m = json_deep_copy(good);

	(void)c;
	put_regions(m, 5000, 1);
	send_map(st, m);
}

/* We alone are left, and ourselves among those who go. */
static void map_alone(struct conn *c, struct h2_stream *st, const json_t *good)
{
	json_t *gone = json_array();
	CLEANUP(json_decref) json_t *m = json_pack("{s:o}", "PeersRemoved", gone);
	const json_t *p;
	size_t i;

	(void)c;
	send_map(st, good);
	json_array_append(gone, json_get(json_get(good, "Node"), "ID"));
	json_array_foreach(json_get(good, "Peers"), i, p)
		json_array_append(gone, json_get(p, "ID"));
	send_map(st, m);
}

static const struct misdeed misdeeds[] = {
	{ "good", .map = NULL },
	{ "reset", .bare = true, .arrival = reset },
	{ "tls-garbage", .bare = true, .arrival = garbage },
	{ "tls-mute", .bare = true, .arrival = deaf },
	{ "up-garbage", .upgrade = garbage_for },
	{ "up-mute", .upgrade = deaf_for },
	{ "up-drip", .upgrade = drip_for, .tick = drip_tick },
	{ "up-huge", .upgrade = huge_head, .tick = huge_tick },
	{ "up-page", .upgrade = page },
	{ "up-noise", .upgrade = spoilt_noise },
	{ "key-garbage", .upgrade = refuse, .key = key_garbage },
	{ "key-huge", .upgrade = refuse, .key = key_huge, .tick = huge_tick },
	{ "key-chunks", .upgrade = refuse, .key = key_chunks, .tick = huge_tick },
	{ "key-length", .upgrade = refuse, .key = key_length, .tick = huge_tick },
	{ "key-mute", .upgrade = refuse, .key = deaf },
	{ "key-drip", .upgrade = refuse, .key = drip, .tick = drip_tick },
	{ "key-other", .upgrade = refuse, .key = key_other },
	{ "key-moved", .upgrade = refuse, .key = redirect },
	{ "up-moved", .upgrade = redirect_for },
	{ "rec-flip", .channel = flipped_record },
	{ "rec-empty", .channel = channel_flows, .tick = empty_records_tick },
	{ "early-huge", .channel = early_huge },
	{ "early-most", .channel = early_most },
	{ "h2-garbage", .channel = h2_garbage },
	{ "h2-mute", .channel = channel_deaf },
	{ "h2-pings", .channel = h2_greet, .tick = h2_pings_tick },
	{ "h2-settings", .channel = h2_greet, .tick = h2_settings_tick },
	{ "h2-headers", .channel = h2_headers, .tick = h2_headers_tick },
	{ "h2-goaway", .channel = h2_leave },
	{ "login-error", .login = login_error },
	{ "login-status", .login = login_status },
	{ "login-huge", .login = login_huge },
	{ "login-url", .login = login_url },
	{ "login-never", .login = login_never },
	{ "map-never", .map = map_never },
	{ "map-length", .map = map_length },
	{ "map-stall", .map = map_stall },
	{ "map-garbage", .map = map_garbage },
	{ "map-truncated", .map = map_truncated },
	{ "map-bomb", .map = map_bomb },
	{ "map-deep", .map = map_deep },
	{ "map-deep-unknown", .map = map_deep_unknown },
	{ "map-tree", .map = map_tree },
	{ "map-no-node", .map = map_no_node },
	{ "map-flap", .map = map_flap },
	{ "map-bye", .map = map_bye },
	{ "map-alive", .map = map_good, .tick = alive_tick },
	{ "map-blank", .map = map_good, .tick = blank_tick },
	{ "map-pings", .map = map_good, .tick = pings_tick },
	{ "map-thieves", .map = map_thieves },
	{ "map-names", .map = map_names },
	{ "map-too-many", .map = map_too_many },
	{ "map-colliding", .map = map_colliding },
	{ "map-rules", .map = map_rules },
	{ "map-relays", .map = map_relays },
	{ "map-too-many-relays", .map = map_too_many_relays },
	{ "map-alone", .map = map_alone },
};

/* ---- main ---- */

static void read_mode(void)
{
	char now[32] = "";
	int fd = open(B.mode_file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, now, sizeof(now) - 1);

	fd_close(fd);
	if (n <= 0)
		return;
	now[strcspn(now, "\n")] = '\0';
	if (B.m && strcmp(now, B.m->name) == 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(misdeeds); i++) {
		if (strcmp(misdeeds[i].name, now) != 0)
			continue;
		if (B.m)
			printf("%s accepts %lu asks %lu\n", B.m->name, B.accepts, B.asks);
		B.accepts = B.asks = 0;
		for (size_t k = 0; k < CONNS; k++)
			if (B.c[k].s)
				conn_end(&B.c[k]);
		B.m = &misdeeds[i];
		return;
	}
	fprintf(stderr, "badcontrol: no misdeed has the name %s\n", now);
	exit(2);
}

static void on_tick(void *data)
{
	read_mode();
	for (size_t i = 0; i < CONNS; i++)
		if (B.c[i].s && B.m->tick && stream_ready(B.c[i].s))
			B.m->tick(&B.c[i]);
	(void)data;
	loop_timer_in(B.tick, TICK_USEC);
}

static int read_noise_key(const char *path)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	int r = file_read(path, 4096, &b);

	if (r == 0)
		r = key_parse(KEY_KIND_PRIVATE, buf_str(&b), strcspn(buf_str(&b), "\n"), &B.noise.priv);
	return r == 0 ? key_public(&B.noise.priv, &B.noise.pub) : r;
}

static int read_map(const char *path)
{
	CLEANUP(buf_done) struct buf b = { .max = MAP_MAX + 1 };
	CLEANUP(json_decref) json_t *j = NULL;
	int r = file_read(path, MAP_MAX, &b);

	if (r == 0)
		r = json_read(buf_data(&b), b.len, MAP_MAX, &j);
	if (r < 0 || B.n_bases == BASES || !json_get_str(json_get(json_get(j, "Map"), "Node"), "Key"))
		return r < 0 ? r : -EBADMSG;
	B.base[B.n_bases++] = json_incref(json_get(j, "Map"));
	return 0;
}

static int listen_at(const char *port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)) };
	static const int on = 1;
	struct loop_io *io;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, 64) < 0)
		return -errno;
	return loop_io_new(B.loop, fd, EPOLLIN, on_accept, NULL, &io);
}

static int start(char **argv)
{
	int r = key_init();

	if (r == 0)
		r = loop_new(&B.loop);
	if (r == 0)
		r = tls_server_new(argv[3], argv[4], &B.tls);
	if (r == 0)
		r = read_noise_key(argv[5]);
	for (char **map = argv + 6; r == 0 && *map; map++)
		r = read_map(*map);
	key_pair_generate(&B.other);
	B.mode_file = argv[2];
	if (r == 0)
		r = loop_timer_new(B.loop, on_tick, NULL, &B.tick);
	if (r < 0)
		return r;
	read_mode();
	loop_timer_in(B.tick, 0);
	return B.m ? listen_at(argv[1]) : -ENOENT;
}

int main(int argc, char **argv)
{
	int r;

	if (argc < 7) {
		fprintf(stderr, "usage: badcontrol PORT MODEFILE CERT KEY NOISEKEY MAP...\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	r = start(argv);
	if (r < 0) {
		fprintf(stderr, "badcontrol: %s\n", strerror(-r));
		return 1;
	}
	return loop_run(B.loop) < 0;
}
