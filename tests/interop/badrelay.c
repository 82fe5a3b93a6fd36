/*
 * badrelay: a DERP relay that misbehaves as it is told, to try nodes against.
 *
 *   badrelay PORT MODEFILE
 *
 * Speaks without TLS on all addresses. MODEFILE holds one word, read again all the time:
 *
 *   good     forwards packets, as a relay should
 *   flood    forwards, and sends everybody all it can think of: packets of unknown keys, packets in
 *            its clients' names (noise, WireGuard's handshakes, forged disco), what it recorded,
 *            again and in any order and in another's name, PeerGone of everybody, pings, health
 *            messages, orders to come back after 49 days
 *   huge     says that a frame of 4 GiB follows;  trunc  ends in the middle of a frame
 *   info     greets with noise for a ServerInfo;  bye    greets and ends the connection
 *   mute     takes the connection and says nothing;  hole  greets and forwards nothing
 *   drip     says all that it says at a byte a second;  dregs  the same once it has greeted
 *   refuse   answers 503 with a body of 1 GiB;  moved  sends its clients elsewhere;  head  answers by a head without end
 *
 * Prints `MODE accepts N frames N` when the mode changes. With a new mode all connections end.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "proto/derp.h"

#define CLIENTS	 64
#define OUT_MAX	 (4u << 20)
#define RECORDED 64
#define TICK_MSEC 10

struct client {
	int fd;
	enum { HTTP, GREETING, UP, FLOW } state;
	struct buf in, out;
	struct derp_reader reader;
	struct key key;
	bool ends; /* once all is written */
	bool greeted;
	time_t dripped; /* the last byte, in seconds */
};

static struct {
	struct key_pair self;
	struct client c[CLIENTS];
	char mode[16];
	unsigned long accepts, frames;
	struct {
		struct key from;
		size_t len;
		uint8_t data[1500];
	} seen[RECORDED];
	size_t n_seen;
} R;

static bool mode_is(const char *m)
{
	return strcmp(R.mode, m) == 0;
}

static void client_end(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	buf_done(&c->in);
	buf_done(&c->out);
	derp_reader_done(&c->reader);
	*c = (struct client){ .fd = -1 };
}

static void send_packet(struct client *to, const struct key *from, const void *p, size_t len)
{
	struct derp_packet d = { *from, p, len };

	if (to->out.len < OUT_MAX)
		derp_put_packet(&to->out, DERP_FRAME_RECV_PACKET, &d);
}

static void record(const struct key *from, const uint8_t *p, size_t len)
{
	size_t i = R.n_seen++ % RECORDED;

	if (len > sizeof(R.seen[i].data))
		return;
	R.seen[i].from = *from;
	R.seen[i].len = len;
	memcpy(R.seen[i].data, p, len);
}

static void greet(struct client *c)
{
	struct derp_server_info info = { .version = DERP_VERSION };
	uint8_t nonce[DERP_NONCE_LEN], noise[120];

	randombytes_buf(nonce, sizeof(nonce));
	if (mode_is("info")) {
		randombytes_buf(noise, sizeof(noise));
		buf_put(&c->out, "\x03\0\0\0\x78", DERP_HEADER_LEN);
		buf_put(&c->out, noise, sizeof(noise));
		return;
	}
	derp_put_server_info(&c->out, &info, &R.self.priv, &c->key, nonce);
	c->state = UP;
	if (mode_is("huge"))
		buf_put(&c->out, "\x05\xff\xff\xff\xf0garbage", 12);
	if (mode_is("trunc"))
		buf_put(&c->out, "\x05\x00\x00\x40\x00only this", 14);
	c->ends = mode_is("bye") || mode_is("trunc");
}

static void take_frame(struct client *c, const struct derp_frame *f)
{
	struct derp_client_info info;
	struct derp_packet p;

	R.frames++;
	if (c->state == GREETING && f->type == DERP_FRAME_CLIENT_INFO &&
	    derp_client_info_open(f->body, f->len, &R.self.priv, &c->key, &info) == 0) {
		greet(c);
		return;
	}
	if (c->state != UP || f->type != DERP_FRAME_SEND_PACKET || mode_is("hole") ||
	    derp_packet_decode(f->body, f->len, &p) < 0)
		return;
	record(&c->key, p.data, p.len);
	for (size_t i = 0; i < CLIENTS; i++)
		if (R.c[i].state == UP && memcmp(&R.c[i].key, &p.peer, KEY_LEN) == 0)
			send_packet(&R.c[i], &c->key, p.data, p.len);
}

/* In place of the upgrade; NULL: nothing. */
static const char *instead(void)
{
	return mode_is("refuse") ? "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1073741824\r\n\r\n" :
	       mode_is("moved")	 ? "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:8443/derp\r\nContent-Length: 0\r\n\r\n" :
	       mode_is("head")	 ? "HTTP/1.1 101 Switching Protocols\r\nX-Patience: " :
				   NULL;
}

static void flow(struct client *c)
{
	static char piece[65536];

	memset(piece, 'a', sizeof(piece));
	if (c->out.len < sizeof(piece))
		buf_put(&c->out, piece, sizeof(piece));
}

static void client_input(struct client *c)
{
	static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n"
				     "Connection: Upgrade\r\n\r\n";
	static const char refusal[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
	uint8_t *room = buf_tail(&c->in, 65536);
	ssize_t n = room ? read(c->fd, room, 65536) : -1;
	struct derp_frame f;
	const uint8_t *p;
	size_t len;
	int r = 1;

	if (n == 0 || (n < 0 && errno != EAGAIN)) {
		client_end(c);
		return;
	}
	if (n < 0 || mode_is("mute") || c->state == FLOW)
		return;
	buf_commit(&c->in, (size_t)n);
	if (c->state == HTTP) {
		const uint8_t *end = memmem(buf_data(&c->in), c->in.len, "\r\n\r\n", 4);

		if (!end)
			return;
		if (memmem(buf_data(&c->in), c->in.len, "latency-check", 13)) {
			buf_put(&c->out, refusal, sizeof(refusal) - 1);
			c->ends = true;
			return;
		}
		if (instead()) {
			buf_put_str(&c->out, instead());
			c->ends = mode_is("moved");
			c->state = c->ends ? HTTP : FLOW;
			return;
		}
		buf_consume(&c->in, (size_t)(end + 4 - buf_data(&c->in)));
		buf_put(&c->out, answer, sizeof(answer) - 1);
		derp_put_server_key(&c->out, &R.self.pub);
		c->state = GREETING;
	}
	p = buf_data(&c->in);
	len = c->in.len;
	while (c->fd >= 0 && (r = derp_reader_next(&c->reader, &p, &len, &f)) > 0)
		take_frame(c, &f);
	buf_consume(&c->in, c->in.len - len);
	if (r < 0)
		client_end(c);
}

static bool drips(const struct client *c)
{
	return mode_is("drip") || (mode_is("dregs") && c->greeted);
}

/* How much of what there is leaves now. */
static size_t allowed(struct client *c)
{
	struct timespec now;

	if (!drips(c))
		return c->out.len;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec == c->dripped)
		return 0;
	c->dripped = now.tv_sec;
	return 1;
}

static void client_output(struct client *c)
{
	size_t most;
	ssize_t n;

	while (c->out.len && (most = allowed(c))) {
		n = send(c->fd, buf_data(&c->out), MIN(most, c->out.len), MSG_NOSIGNAL);
		if (n <= 0) {
			if (errno != EAGAIN)
				client_end(c);
			return;
		}
		buf_consume(&c->out, (size_t)n);
	}
	if (c->out.len)
		return;
	c->greeted = c->state == UP;
	if (c->ends)
		client_end(c);
}

/* ---- misbehaviour ---- */

static void flood_in_the_name_of(struct client *to, const struct key *k)
{
	struct derp_gone gone = { *k, DERP_GONE_DISCONNECTED };
	uint8_t p[300];

	randombytes_buf(p, sizeof(p));
	send_packet(to, k, p, sizeof(p));
	memcpy(p, "\x04\0\0\0", 4); /* data */
	send_packet(to, k, p, 200);
	for (uint8_t i = 0; i < 20; i++) {
		memcpy(p, "\x01\0\0\0", 4); /* initiation */
		p[5] = i;
		send_packet(to, k, p, 148);
	}
	memcpy(p, "TS\xf0\x9f\x92\xac", 6); /* disco with a key that nobody has */
	send_packet(to, k, p, 120);
	derp_put_gone(&to->out, &gone);
}

static void flood_replays(struct client *to)
{
	for (size_t i = 0; i < RECORDED && i < R.n_seen; i++) {
		size_t k = randombytes_uniform((uint32_t)MIN(R.n_seen, (size_t)RECORDED)),
		       other = randombytes_uniform((uint32_t)MIN(R.n_seen, (size_t)RECORDED));

		if (!R.seen[k].len)
			continue;
		send_packet(to, &R.seen[k].from, R.seen[k].data, R.seen[k].len);
		send_packet(to, &R.seen[other].from, R.seen[k].data, R.seen[k].len);
	}
}

static void flood(struct client *to)
{
	static const struct derp_restarting later = { UINT32_MAX, UINT32_MAX };
	static unsigned int n;
	uint8_t token[DERP_PING_LEN] = { 0 };
	char text[64];
	struct key k;

	if (to->out.len > OUT_MAX / 16)
		return;
	for (int i = 0; i < 20; i++) {
		randombytes_buf(&k, sizeof(k));
		send_packet(to, &k, "\x04\0\0\0nobody", 10);
	}
	for (size_t i = 0; i < CLIENTS; i++)
		if (R.c[i].state == UP)
			flood_in_the_name_of(to, &R.c[i].key);
	flood_replays(to);
	for (int i = 0; i < 20; i++) {
		snprintf(text, sizeof(text), "duplicate \x1b[31m %u\xff\n", n++);
		derp_put_health(&to->out, i % 2 ? text : "");
		derp_put_ping(&to->out, DERP_FRAME_PING, token);
	}
	derp_put_restarting(&to->out, &later);
}

/* ---- main ---- */

static void read_mode(const char *path)
{
	char now[16] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, now, sizeof(now) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return;
	now[n] = '\0';
	now[strcspn(now, "\n")] = '\0';
	if (!now[0] || mode_is(now))
		return;
	if (R.mode[0])
		printf("%s accepts %lu frames %lu\n", R.mode, R.accepts, R.frames);
	R.accepts = R.frames = 0;
	for (size_t i = 0; i < CLIENTS; i++)
		client_end(&R.c[i]);
	memcpy(R.mode, now, sizeof(now));
}

static void accept_one(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	R.accepts++;
	for (size_t i = 0; i < CLIENTS; i++) {
		if (R.c[i].fd >= 0)
			continue;
		R.c[i].fd = fd;
		derp_reader_init(&R.c[i].reader, DERP_ROLE_SERVER);
		return;
	}
	close(fd);
}

static void turn(int listener, const char *path)
{
	struct pollfd p[CLIENTS + 1] = { { .fd = listener, .events = POLLIN } };

	for (size_t i = 0; i < CLIENTS; i++) {
		bool waits = R.c[i].out.len && !drips(&R.c[i]); /* for room, not for its time */

		p[i + 1] = (struct pollfd){ .fd = R.c[i].fd, .events = (short)(POLLIN | (waits ? POLLOUT : 0)) };
	}
	poll(p, CLIENTS + 1, TICK_MSEC);
	read_mode(path);
	if (p[0].revents)
		accept_one(listener);
	for (size_t i = 0; i < CLIENTS; i++) {
		struct client *c = &R.c[i];

		if (c->fd >= 0 && c->fd == p[i + 1].fd && (p[i + 1].revents & ~POLLOUT))
			client_input(c);
		if (c->fd >= 0 && c->state == UP && mode_is("flood"))
			flood(c);
		if (c->fd >= 0 && c->state == FLOW)
			flow(c);
		if (c->fd >= 0)
			client_output(c);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	static const int on = 1;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: badrelay PORT MODEFILE\n");
		return 2;
	}
	if (key_init() < 0)
		return 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	key_pair_generate(&R.self);
	for (size_t i = 0; i < CLIENTS; i++)
		R.c[i].fd = -1;
	sin.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, 64) < 0) {
		perror("badrelay");
		return 1;
	}
	for (;;)
		turn(fd, argv[2]);
}
