/*
 * badcontrol: a coordination server that does one misdeed as it is told, to try nodes against.
 *
 *   badcontrol PORT MODEFILE CERT KEY NOISEKEY MAP...
 *
 * TLS with CERT and KEY; the Noise key of the server in whose place it stands; a MAP for each node, as
 * kernscaled keeps it (netmap.json): what that node was told last. MODEFILE holds one word of the tables
 * of misdeeds, read again all the time. Misdeeds behind Noise are for the node of the first MAP, all
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

#include "lib/file.h"
#include "tests/interop/badcontrol.h"

#define CONNS	  256
#define BASES	  8
#define MAP_MAX	  (16u << 20)
#define TICK_USEC (5 * USEC_PER_MSEC)

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
} B;

const struct misdeed *misdeed_now(void)
{
	return B.m;
}

void conn_end(struct conn *c)
{
	h2_free(TAKE(c->h2));
	stream_free(TAKE(c->s));
	ts2021_records_done(&c->rx);
	*c = (struct conn){ 0 };
}

void put(struct conn *c, const void *p, size_t n)
{
	if (c->s)
		stream_write(c->s, p, n);
}

void put_text(struct conn *c, const char *s)
{
	put(c, s, strlen(s));
}

void hang_up(struct conn *c)
{
	stream_finish(TAKE(c->s), NULL, NULL);
	conn_end(c);
}

int seal(struct conn *c, const void *p, size_t n)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	if (ts2021_records_put(&c->tx, p, n, &b) < 0 || !c->s)
		return -EPIPE;
	return stream_write(c->s, buf_data(&b), b.len);
}

/* ---- what a good server does ---- */

void good_key(struct conn *c, bool other)
{
	const struct key *k = other ? &B.other.pub : &B.noise.pub;
	char text[KEY_TEXT_MAX], body[256], head[256];
	int n = snprintf(body, sizeof(body), "{\"legacyPublicKey\":\"mkey:%064d\",\"publicKey\":\"%s\"}\n", 0,
			 key_text(KEY_KIND_MACHINE, k, text));

	snprintf(head, sizeof(head),
		 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", n);
	put_text(c, head);
	put_text(c, body);
}

void good_upgrade(struct conn *c, const struct http_head *h, bool spoil)
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

void send_text(struct h2_stream *st, const char *text)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	ts2021_frame_put(&b, TS2021_ENCODING_ZSTD, text, strlen(text));
	h2_send(st, buf_data(&b), b.len);
}

void send_map(struct h2_stream *st, const json_t *m)
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
			good_key(c, false);
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

/* ---- main ---- */

static const struct misdeed *find(const char *name)
{
	static const struct misdeed good = { .name = "good" };
	const struct misdeed *m;

	for (m = early_misdeeds; m->name; m++)
		if (strcmp(m->name, name) == 0)
			return m;
	for (m = map_misdeeds; m->name; m++)
		if (strcmp(m->name, name) == 0)
			return m;
	return strcmp(name, good.name) == 0 ? &good : NULL;
}

static void read_mode(void)
{
	const struct misdeed *m;
	char now[32] = "";
	int fd = open(B.mode_file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, now, sizeof(now) - 1);

	fd_close(fd);
	if (n <= 0)
		return;
	now[strcspn(now, "\n")] = '\0';
	if (B.m && strcmp(now, B.m->name) == 0)
		return;
	m = find(now);
	if (!m) {
		fprintf(stderr, "badcontrol: no misdeed has the name %s\n", now);
		exit(2);
	}
	if (B.m)
		printf("%s accepts %lu asks %lu\n", B.m->name, B.accepts, B.asks);
	B.accepts = B.asks = 0;
	for (size_t k = 0; k < CONNS; k++)
		if (B.c[k].s)
			conn_end(&B.c[k]);
	B.m = m;
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
