/*
 * strangers: connections to a coordinator that are of no use to anybody, from another host, over TLS.
 *
 *   strangers KIND --to ADDRESS:PORT --seconds N [--key SERVER-KEY] [--from ADDRESS]… [--count N] [--total N] [--once]
 *
 * KIND: silent    a TCP connection, and not a byte of TLS
 *       hello     half a ClientHello
 *       tls       a TLS session, and nothing in it
 *       head      half a request
 *       noise     the upgrade, with noise for a handshake
 *       channel   Noise channels, each of a machine of its own, that say nothing more
 *       machine   Noise channels of one machine, with one record each
 *       bodies    Noise channels with a body of 300 KiB that does not end
 *       login     Noise channels that ask to be let in, and go when they have an address to wait at
 *
 * Keeps N of them, until the time is up, SIGTERM comes, or TOTAL were opened; what ends is replaced, but for --once. Those from several
 * addresses take turns. Prints how many were opened; how many came as far as their kind goes, how many of these there
 * are in the end, and the most there were at a time; how many the other side ended; and how many it answered with a
 * status of 400 and more.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/h2.h"
#include "lib/stream.h"
#include "proto/ts2021.h"
#include "proto/ts2021_conn.h"

#define FROM_MAX	16
#define TICK_USEC	(20 * USEC_PER_MSEC)
#define OPENS_PER_TICK	16
#define BODY_FRAMES	19 /* of 16 KiB */

enum kind { KIND_SILENT, KIND_HELLO, KIND_TLS, KIND_HEAD, KIND_NOISE, KIND_CHANNEL, KIND_MACHINE, KIND_BODIES, KIND_LOGIN,
	    KIND_COUNT };

static const char *const kind_names[KIND_COUNT] = { "silent", "hello",	 "tls",	   "head", "noise",
						    "channel", "machine", "bodies", "login" };

struct stranger {
	struct strangers *all;
	struct key_pair machine, node;
	int fd; /* until it is connected */
	struct loop_io *io;
	struct stream *s;
	struct ts2021_conn *conn;
	struct h2 *h2;
	bool up;
};

struct strangers {
	enum kind kind;
	struct loop *loop;
	struct loop_timer *tick, *end;
	struct loop_signal *term;
	struct endpoint to;
	struct addr from[FROM_MAX];
	size_t n_from;
	unsigned int count, total;
	bool once;
	struct tls_ctx *tls;
	struct key server;
	struct key_pair machine;
	struct stranger *v;
	unsigned int opened, came, up, most, ended, refused;
};

static void stranger_end(struct stranger *x)
{
	if (x->up)
		x->all->up--;
	h2_free(TAKE(x->h2));
	ts2021_conn_free(TAKE(x->conn));
	stream_free(TAKE(x->s));
	loop_io_free(TAKE(x->io));
	fd_close(x->fd);
	x->fd = -1;
	x->up = false;
}

static void stranger_up(struct stranger *x)
{
	struct strangers *all = x->all;

	if (x->up)
		return;
	x->up = true;
	all->came++;
	all->up++;
	all->most = MAX(all->most, all->up);
}

/* ---- HTTP/2 by hand: what no library sends */

static void put_frame(struct buf *b, uint8_t type, uint8_t flags, uint8_t id, const void *p, size_t n)
{
	const uint8_t head[] = { (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags, 0, 0, 0, id };

	buf_put(b, head, sizeof(head));
	buf_put(b, p, n);
}

static void put_opening(struct buf *b)
{
	buf_put_str(b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	put_frame(b, 4, 0, 0, NULL, 0);
	put_frame(b, 4, 1, 0, NULL, 0);
}

static void put_body(struct buf *b)
{
	static const char head[] = "\x83\x87\x84\x01\x01x"; /* POST, https, /, authority x */
	static const uint8_t data[16384];

	put_frame(b, 1, 4, 1, head, sizeof(head) - 1);
	for (int i = 0; i < BODY_FRAMES; i++)
		put_frame(b, 0, 0, 1, data, sizeof(data));
}

/* ---- a login */

static int conn_write(void *data, const uint8_t *p, size_t n)
{
	return ts2021_conn_write(data, p, n);
}

static const struct h2_io conn_io = { .write = conn_write };

static void login_headers(void *data, struct h2_stream *st, int status)
{
	struct stranger *x = data;

	(void)st;
	if (status >= 400)
		x->all->refused++;
	else
		stranger_up(x);
}

static const struct h2_client_ops login_ops = { .on_headers = login_headers };

static void login(struct stranger *x)
{
	char text[512], nk[KEY_TEXT_MAX];
	struct h2_request rq = { .method = "POST", .path = "/machine/register", .body = text };
	struct h2_stream *st;

	key_pair_generate(&x->node);
	snprintf(text, sizeof(text), "{\"Version\":131,\"NodeKey\":\"%s\",\"Hostinfo\":{\"Hostname\":\"x\",\"OS\":\"linux\"}}",
		 key_text(KEY_KIND_NODE, &x->node.pub, nk));
	rq.body_len = strlen(text);
	if (h2_client_new(&conn_io, x->conn, &x->h2) == 0)
		h2_request(x->h2, &rq, &login_ops, x, &st);
}

/* ---- Noise */

static void conn_ready(void *data, struct ts2021_conn *c)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct stranger *x = data;

	if (x->all->kind == KIND_LOGIN) {
		login(x);
		return;
	}
	stranger_up(x);
	if (x->all->kind == KIND_MACHINE || x->all->kind == KIND_BODIES)
		put_opening(&b);
	if (x->all->kind == KIND_BODIES)
		put_body(&b);
	if (b.len)
		ts2021_conn_write(c, buf_data(&b), b.len);
}

static void conn_input(void *data, struct ts2021_conn *c, const uint8_t *p, size_t n)
{
	struct stranger *x = data;

	(void)c;
	if (x->h2 && (h2_feed(x->h2, p, n) < 0 || x->up))
		stranger_end(x);
}

static void conn_closed(void *data, struct ts2021_conn *c, int error, const char *why)
{
	struct stranger *x = data;

	(void)c;
	if (error == -EKEYREJECTED || error == -EPROTO || strstr(why, "status"))
		x->all->refused++;
	x->all->ended++;
	stranger_end(x);
}

static const struct ts2021_conn_ops conn_ops = { .on_ready = conn_ready, .on_input = conn_input, .on_closed = conn_closed };

/* ---- TCP and TLS */

static void stream_is_ready(void *data, struct stream *s)
{
	static const uint8_t hello[] = { 0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8 };
	static const char head[] = "GET /key?v=131 HT";
	uint8_t noise[NOISE_INITIATION_LEN];
	CLEANUP(buf_done) struct buf rq = { 0 };
	struct stranger *x = data;

	stranger_up(x);
	switch (x->all->kind) {
	case KIND_HELLO:
		stream_write(s, hello, sizeof(hello));
		break;
	case KIND_HEAD:
		stream_write(s, head, sizeof(head) - 1);
		break;
	case KIND_NOISE:
		randombytes_buf(noise, sizeof(noise));
		ts2021_put_request(&rq, "x:443", noise);
		stream_write(s, buf_data(&rq), rq.len);
		break;
	default:
		break;
	}
}

static void stream_in(void *data, struct stream *s)
{
	struct stranger *x = data;
	struct buf *in = stream_input(s);

	if (in->len > 12 && !memcmp(buf_data(in), "HTTP/1.1 ", 9) && buf_data(in)[9] >= '4')
		x->all->refused++;
	buf_consume(in, in->len);
}

static void stream_over(void *data, struct stream *s, int error, const char *why)
{
	struct stranger *x = data;

	(void)s;
	(void)error;
	(void)why;
	x->all->ended++;
	stranger_end(x);
}

static const struct stream_ops stream_ops = { .on_ready = stream_is_ready, .on_input = stream_in, .on_closed = stream_over };

static int connected(struct stranger *x)
{
	struct strangers *all = x->all;
	struct stream_opts so = { .ops = &stream_ops, .data = x, .tls = all->kind >= KIND_TLS ? all->tls : NULL,
				  .expect = { .insecure = true }, .handshake_usec = 60 * USEC_PER_SEC };
	struct ts2021_client_opts co = { .host = "x:443", .machine = &x->machine, .server = &all->server, .version = 131,
					 .handshake_usec = 60 * USEC_PER_SEC };
	int r = stream_new(all->loop, x->fd, &so, &x->s);

	if (r < 0)
		return r;
	x->fd = -1;
	if (all->kind < KIND_CHANNEL)
		return 0;
	if (all->kind == KIND_MACHINE)
		x->machine = all->machine;
	else
		key_pair_generate(&x->machine);
	r = ts2021_conn_client(x->s, &co, &conn_ops, x, &x->conn);
	if (r == 0)
		TAKE(x->s);
	return r;
}

static void on_connect(void *data, int fd, uint32_t events)
{
	struct stranger *x = data;
	int error = 0;
	socklen_t n = sizeof(error);

	(void)events;
	loop_io_free(TAKE(x->io));
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error || connected(x) < 0) {
		x->all->ended++;
		stranger_end(x);
	}
}

static void stranger_open(struct stranger *x)
{
	struct strangers *all = x->all;
	union sockaddr_any a;
	socklen_t n;

	x->fd = socket(addr_af(&all->to.addr), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (x->fd < 0)
		return;
	if (all->n_from) {
		struct endpoint from = { .addr = all->from[all->opened % all->n_from] };

		n = endpoint_to_sockaddr(&from, &a);
		if (bind(x->fd, &a.sa, n) < 0) {
			perror("strangers: bind");
			exit(1);
		}
	}
	all->opened++;
	n = endpoint_to_sockaddr(&all->to, &a);
	if ((connect(x->fd, &a.sa, n) < 0 && errno != EINPROGRESS) ||
	    loop_io_new(all->loop, x->fd, EPOLLOUT, on_connect, x, &x->io) < 0) {
		all->ended++;
		stranger_end(x);
	}
}

/* ---- all of them */

static void print(const struct strangers *all)
{
	printf("%s opened %u came %u up %u most %u ended %u refused %u\n", kind_names[all->kind], all->opened, all->came,
	       all->up, all->most, all->ended, all->refused);
}

static bool is_free(const struct stranger *x)
{
	return x->fd < 0 && !x->s && !x->conn;
}

static void on_tick(void *data)
{
	struct strangers *all = data;
	unsigned int opens = 0, busy = 0;

	for (unsigned int i = 0; i < all->count; i++) {
		bool more = !all->total || all->opened < all->total;

		if (is_free(&all->v[i]) && more && opens < OPENS_PER_TICK && !(all->once && all->opened >= all->count)) {
			stranger_open(&all->v[i]);
			opens++;
		}
		busy += !is_free(&all->v[i]);
	}
	if (all->total && all->opened >= all->total && !busy)
		loop_exit(all->loop, 0);
	else
		loop_timer_in(all->tick, TICK_USEC);
}

static void on_end(void *data)
{
	loop_exit(((struct strangers *)data)->loop, 0);
}

static void on_term(void *data, int signo)
{
	(void)signo;
	on_end(data);
}

/* The server key is that of its /key: mkey:…, for what begins with Noise. */
static int parse(struct strangers *all, int argc, char **argv, unsigned int *seconds)
{
	static const struct option options[] = {
		{ "to", 1, NULL, 't' },	   { "from", 1, NULL, 'f' }, { "seconds", 1, NULL, 's' }, { "count", 1, NULL, 'c' },
		{ "total", 1, NULL, 'n' }, { "once", 0, NULL, 'o' }, { "key", 1, NULL, 'k' },	  { NULL, 0, NULL, 0 },
	};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 't' && endpoint_parse(optarg, strlen(optarg), &all->to) == 0)
			continue;
		if (o == 'f' && all->n_from < FROM_MAX && addr_parse(optarg, strlen(optarg), &all->from[all->n_from]) == 0)
			all->n_from++;
		else if (o == 'k' && key_parse(KEY_KIND_MACHINE, optarg, strlen(optarg), &all->server) == 0)
			continue;
		else if (o == 's')
			*seconds = (unsigned int)strtoul(optarg, NULL, 10);
		else if (o == 'c')
			all->count = (unsigned int)strtoul(optarg, NULL, 10);
		else if (o == 'n')
			all->total = (unsigned int)strtoul(optarg, NULL, 10);
		else if (o == 'o')
			all->once = true;
		else
			return -EINVAL;
	}
	for (int i = 0; optind == argc - 1 && i < KIND_COUNT; i++)
		if (!strcmp(argv[optind], kind_names[i]))
			all->kind = (enum kind)i;
	return all->kind == KIND_COUNT || !all->to.port || !*seconds || !all->count ||
			       (all->kind >= KIND_CHANNEL && key_is_zero(&all->server))
		       ? -EINVAL
		       : 0;
}

int main(int argc, char **argv)
{
	struct strangers all = { .kind = KIND_COUNT, .count = 100 };
	unsigned int seconds = 0;
	struct rlimit files;

	if (key_init() < 0 || parse(&all, argc, argv, &seconds) < 0) {
		fprintf(stderr, "usage: strangers KIND --to ADDRESS:PORT --seconds N [--key mkey:…] …\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	key_pair_generate(&all.machine);
	all.v = calloc(all.count, sizeof(*all.v));
	if (!all.v || loop_new(&all.loop) < 0 || tls_client_new(NULL, &all.tls) < 0 ||
	    loop_timer_new(all.loop, on_tick, &all, &all.tick) < 0 || loop_timer_new(all.loop, on_end, &all, &all.end) < 0 ||
	    loop_signal_new(all.loop, SIGTERM, on_term, &all, &all.term) < 0)
		return 1;
	for (unsigned int i = 0; i < all.count; i++)
		all.v[i] = (struct stranger){ .all = &all, .fd = -1 };
	loop_timer_in(all.tick, TICK_USEC);
	loop_timer_in(all.end, seconds * USEC_PER_SEC);
	loop_run(all.loop);
	print(&all);
	for (unsigned int i = 0; i < all.count; i++)
		stranger_end(&all.v[i]);
	loop_timer_free(all.tick);
	loop_timer_free(all.end);
	loop_signal_free(all.term);
	tls_ctx_unref(all.tls);
	loop_free(all.loop);
	free(all.v);
	return 0;
}
