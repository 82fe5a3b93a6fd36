/*
 * relayload: connections to a relay that are of no use to anybody, in great number, on loopback.
 *
 *   relayload KIND --port P --dir DIR [--count N] [--senders N]         until DIR/calm exists
 *
 * KIND: silent     connections that say nothing
 *       tls        half a ClientHello and no more
 *       slow       a request, one byte a second
 *       greeters   upgraded, and not a word of greeting
 *       partial    clients that have sent all of a long frame but its last bytes, and go on byte by byte
 *       deaf       clients that read nothing, to whom senders send as much as they can
 *       idle       clients that do nothing
 *       idle-tls   the same with TLS, whatever certificate the relay has; they come one after the other
 *
 * Keeps N of them; one that ends is replaced. Says once that all are there and have said what they have to say. Prints how many it opened, how many the other side ended, and what the
 * senders got rid of.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/derp.h"

#define PATIENCE_SEC	100
#define ROUND_MSEC	20
#define OPENS_PER_ROUND 64
#define SENDERS_MAX	16
#define PAYLOAD		60000
#define BURST		16 /* packets to the same one */

enum kind { KIND_SILENT, KIND_TLS, KIND_SLOW, KIND_GREETERS, KIND_PARTIAL, KIND_DEAF, KIND_IDLE, KIND_IDLE_TLS, KIND_COUNT };

static const char *const kind_names[KIND_COUNT] = { "silent", "tls", "slow", "greeters", "partial", "deaf", "idle", "idle-tls" };

struct conn {
	int fd;
	SSL *ssl;	   /* of an idle one with TLS */
	struct key key;	   /* of a client */
	size_t said;	   /* of the slow ones' request */
	time_t next;	   /* when they say the next byte */
	struct buf out;	   /* of a sender */
};

struct relayload {
	enum kind kind;
	uint16_t port;
	int count, senders;
	const char *dir;
	struct key server;
	SSL_CTX *tls;
	bool said;
	struct conn *conn, sender[SENDERS_MAX];
	unsigned int opened, ended, refused;
	uint64_t sent;
};

static const char request[] = "GET /derp HTTP/1.1\r\nHost: relay.test\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
			      "Derp-Fast-Start: 1\r\n\r\n";
/* The first bytes of a record that announces 512 bytes of a ClientHello. */
static const uint8_t hello[] = { 0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8 };

static void __attribute__((noreturn)) die(const char *what)
{
	printf("FAIL: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int relay_connect(const struct relayload *l, bool deaf)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(l->port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, small = 4096;

	if (fd < 0)
		die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (deaf) /* else the kernel takes megabytes for each */
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	if (connect(fd, (struct sockaddr *)&in, sizeof(in)) < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Its key is in the first frame of whoever is upgraded. */
#define FIRST_FRAME_LEN (DERP_HEADER_LEN + DERP_MAGIC_LEN + KEY_LEN)

static void relay_read_key(struct relayload *l, const uint8_t in[static FIRST_FRAME_LEN])
{
	if (derp_server_key_decode(in + DERP_HEADER_LEN, FIRST_FRAME_LEN - DERP_HEADER_LEN, &l->server) < 0)
		die("that is no relay");
}

static void relay_ask_key(struct relayload *l)
{
	uint8_t in[FIRST_FRAME_LEN];
	struct pollfd p = { .fd = relay_connect(l, false), .events = POLLOUT };
	size_t got = 0;

	if (poll(&p, 1, 5000) != 1 || send(p.fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
		die("the relay is not there");
	p.events = POLLIN;
	while (got < sizeof(in)) {
		ssize_t n = poll(&p, 1, 5000) == 1 ? read(p.fd, in + got, sizeof(in) - got) : -1;

		if (n <= 0)
			die("no key from the relay");
		got += (size_t)n;
	}
	relay_read_key(l, in);
	close(p.fd);
}

static void put_greeting(const struct relayload *l, struct conn *c, struct buf *out)
{
	struct derp_client_info info = { .version = DERP_VERSION };
	uint8_t nonce[DERP_NONCE_LEN];
	struct key_pair me;

	key_pair_generate(&me);
	c->key = me.pub;
	randombytes_buf(nonce, sizeof(nonce));
	if (derp_put_client_info(out, &info, &me, &l->server, nonce) < 0 || out->bad)
		die("greeting");
}

/* All of a frame but some bytes. */
static void put_partial(struct buf *out)
{
	static const uint8_t zeros[DERP_PACKET_MAX - 1000];
	uint8_t head[DERP_PACKET_HEAD_LEN];
	struct key nobody = { { 1 } };

	derp_packet_head_encode(head, DERP_FRAME_SEND_PACKET, &nobody, DERP_PACKET_MAX);
	buf_put(out, head, sizeof(head));
	buf_put(out, zeros, sizeof(zeros));
}

static void conn_end(struct conn *c)
{
	SSL_free(c->ssl);
	close(c->fd);
	buf_done(&c->out);
	*c = (struct conn){ .fd = -1 };
}

/* Waits: the whole way into the relay, which has nothing more to say then. */
static void conn_enter_tls(struct relayload *l, struct conn *c)
{
	uint8_t in[FIRST_FRAME_LEN];
	size_t n = 0;

	fcntl(c->fd, F_SETFL, 0);
	c->ssl = SSL_new(l->tls);
	if (!c->ssl || !SSL_set_fd(c->ssl, c->fd) || SSL_connect(c->ssl) != 1 ||
	    SSL_write(c->ssl, request, sizeof(request) - 1) <= 0)
		die("TLS");
	while (n < sizeof(in)) {
		int got = SSL_read(c->ssl, in + n, (int)(sizeof(in) - n));

		if (got <= 0)
			die("no key from the relay");
		n += (size_t)got;
	}
	relay_read_key(l, in);
	put_greeting(l, c, &c->out);
	if (SSL_write(c->ssl, buf_data(&c->out), (int)c->out.len) <= 0)
		die("greeting");
	buf_done(&c->out);
}

static void conn_open(struct relayload *l, struct conn *c, bool sender)
{
	*c = (struct conn){ .fd = relay_connect(l, l->kind == KIND_DEAF && !sender) };
	if (c->fd < 0) {
		l->refused++;
		return;
	}
	l->opened++;
	if (l->kind == KIND_IDLE_TLS) {
		conn_enter_tls(l, c);
	} else if (sender || l->kind == KIND_DEAF || l->kind == KIND_PARTIAL || l->kind == KIND_IDLE) {
		buf_put_str(&c->out, request);
		put_greeting(l, c, &c->out);
	} else if (l->kind == KIND_GREETERS) {
		buf_put_str(&c->out, request);
	} else if (l->kind == KIND_TLS) {
		buf_put(&c->out, hello, sizeof(hello));
	}
	if (l->kind == KIND_PARTIAL && !sender)
		put_partial(&c->out);
}

/* False: it is over. */
static bool conn_write(struct relayload *l, struct conn *c)
{
	ssize_t n = send(c->fd, buf_data(&c->out), c->out.len, MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN || errno == ENOTCONN;
	l->sent += (uint64_t)n;
	buf_consume(&c->out, (size_t)n);
	if (!c->out.len)
		buf_done(&c->out);
	return true;
}

static void conn_slow(const struct relayload *l, struct conn *c, time_t now)
{
	if (c->out.len || now < c->next)
		return;
	if (l->kind == KIND_SLOW && c->said < sizeof(request) - 1)
		buf_put_u8(&c->out, (uint8_t)request[c->said++]);
	else if (l->kind == KIND_PARTIAL)
		buf_put_u8(&c->out, 0);
	c->next = now + 1;
}

static void sender_fill(const struct relayload *l, struct conn *c)
{
	static const uint8_t payload[PAYLOAD];
	uint8_t head[DERP_PACKET_HEAD_LEN];
	const struct conn *to = &l->conn[randombytes_uniform((uint32_t)l->count)];

	if (c->out.len || to->fd < 0)
		return;
	derp_packet_head_encode(head, DERP_FRAME_SEND_PACKET, &to->key, PAYLOAD);
	for (int i = 0; i < BURST; i++) {
		buf_put(&c->out, head, sizeof(head));
		buf_put(&c->out, payload, PAYLOAD);
	}
}

/* What came is read only by senders; of the others, only that it ended. */
static bool conn_event(struct relayload *l, struct conn *c, const struct pollfd *p, bool sender)
{
	static uint8_t in[65536];

	if (p->revents & (POLLERR | POLLHUP))
		return false;
	if (sender && p->revents & POLLIN && recv(c->fd, in, sizeof(in), 0) == 0)
		return false;
	return !(p->revents & POLLOUT) || conn_write(l, c);
}

static void round_of(struct relayload *l, struct conn *c, struct pollfd *p, int n, bool sender)
{
	time_t now = time(NULL);
	int opens = 0;

	for (int i = 0; i < n; i++) {
		if (c[i].fd < 0 && opens++ < OPENS_PER_ROUND)
			conn_open(l, &c[i], sender);
		if (sender && c[i].fd >= 0)
			sender_fill(l, &c[i]);
		else if (c[i].fd >= 0)
			conn_slow(l, &c[i], now);
		p[i] = (struct pollfd){ .fd = c[i].fd, .events = (short)(POLLRDHUP | (sender ? POLLIN : 0) |
									    (c[i].out.len ? POLLOUT : 0)) };
	}
}

static void round_end(struct relayload *l, struct conn *c, const struct pollfd *p, int n, bool sender)
{
	for (int i = 0; i < n; i++) {
		bool over = p[i].fd >= 0 && (p[i].revents & POLLRDHUP || !conn_event(l, &c[i], &p[i], sender));

		if (!over)
			continue;
		conn_end(&c[i]);
		l->ended++;
	}
}

static void say_once(struct relayload *l)
{
	for (int i = 0; i < l->count; i++)
		if (l->conn[i].fd < 0 || l->conn[i].out.len)
			return;
	if (!l->said)
		printf("all are there\n");
	fflush(stdout);
	l->said = true;
}

static bool calm(const struct relayload *l)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/calm", l->dir);
	return access(path, F_OK) == 0;
}

static int run(struct relayload *l)
{
	struct pollfd *p = calloc((size_t)(l->count + l->senders), sizeof(*p));

	l->conn = calloc((size_t)l->count, sizeof(*l->conn));
	if (!p || !l->conn)
		return 1;
	for (int i = 0; i < l->count; i++)
		l->conn[i].fd = -1;
	for (int i = 0; i < l->senders; i++)
		l->sender[i].fd = -1;
	if (l->kind == KIND_IDLE_TLS && !(l->tls = SSL_CTX_new(TLS_client_method())))
		die("TLS");
	if (l->kind >= KIND_PARTIAL && l->kind != KIND_IDLE_TLS)
		relay_ask_key(l);
	while (!calm(l)) {
		round_of(l, l->conn, p, l->count, false);
		round_of(l, l->sender, p + l->count, l->senders, true);
		poll(p, (nfds_t)(l->count + l->senders), ROUND_MSEC);
		round_end(l, l->conn, p, l->count, false);
		round_end(l, l->sender, p + l->count, l->senders, true);
		say_once(l);
		if (!l->senders)
			usleep(ROUND_MSEC * 1000);
	}
	printf("%s: %u opened, %u ended by the other side, %u refused, %llu MiB sent\n", kind_names[l->kind], l->opened,
	       l->ended, l->refused, (unsigned long long)l->sent >> 20);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },  { "dir", required_argument, NULL, 'd' },
		{ "count", required_argument, NULL, 'c' }, { "senders", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	struct relayload l = { .kind = KIND_COUNT, .count = 100, .dir = "." };
	struct rlimit files;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'p')
			l.port = (uint16_t)atoi(optarg);
		else if (o == 'd')
			l.dir = optarg;
		else if (o == 'c')
			l.count = atoi(optarg);
		else if (o == 's')
			l.senders = MIN(atoi(optarg), SENDERS_MAX);
		else
			return 2;
	}
	for (int i = 0; optind == argc - 1 && i < KIND_COUNT; i++)
		if (!strcmp(argv[optind], kind_names[i]))
			l.kind = (enum kind)i;
	if (l.kind == KIND_COUNT || !l.port || l.count < 1 || key_init() < 0)
		return 2;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	alarm(PATIENCE_SEC);
	return run(&l);
}
