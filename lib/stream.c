#include "lib/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/sock.h"

#define OUT_MAX_DEFAULT	  (1u << 20)
#define IN_MAX_DEFAULT	  (64u << 10)
#define SCRATCH_BYTES	  65536
#define READ_STEP	  16384 /* one TLS record */
#define HANDSHAKE_DEFAULT (10 * USEC_PER_SEC)
#define FINISH_USEC	  (10 * USEC_PER_SEC)
#define FINISH_ALL_USEC	  (120 * USEC_PER_SEC)
#define LINGER_USEC	  (2 * USEC_PER_SEC)

/* What is due on the loop's next turn. */
enum due {
	DUE_READY = 1 << 0,
	DUE_FAIL = 1 << 1,
	DUE_DRAINED = 1 << 2,
	DUE_INPUT = 1 << 3, /* tell a new owner of unread bytes */
	DUE_READ = 1 << 4,  /* bytes may wait inside TLS, where epoll does not see them */
};

struct stream {
	struct loop *loop;
	struct sock sock;
	uint32_t events;
	struct loop_io *io;
	struct loop_timer *timer; /* handshake, later finish */
	struct loop_defer *turn;
	struct loop_orphan *orphan; /* while finishing: the loop may end first */
	loop_fn *gone;		    /* told when it has finished */
	void *gone_data;
	unsigned int due;
	const struct stream_ops *ops;
	void *data;
	struct buf in, out;
	size_t in_max, out_max;
	uint64_t finish_until;
	int fail; /* errno of a write that failed outside an event */
	unsigned int cork;
	bool tls, ready, closed, dead, paused, finishing, shut;
	bool parting; /* TLS's own end waits for room */
	bool ended; /* the other side sends no more; it may still read */
	bool blocked; /* the queue has waited for the socket: on_drained is owed */
	bool hs_write; /* the handshake waits for room */
	bool loaned;   /* in.data is the thread's scratch memory */
};

/* Shared by all streams of a thread: a read and its callback are over before the next read begins. */
static __thread uint8_t scratch[SCRATCH_BYTES + 1]; /* buf_str() */

static void stream_down(struct stream *s, int error, const char *why);
static void stream_finished(struct stream *s);
static void turn_event(void *data);

/* ---- what we wait for */

static void watch(struct stream *s)
{
	uint32_t want = 0;

	if (!s->io)
		return;
	if (s->tls && !s->ready) {
		want = s->hs_write ? EPOLLOUT : EPOLLIN;
	} else {
		if (!s->ended && (s->finishing || (!s->paused && s->in.len < s->in_max)))
			want |= EPOLLIN;
		if (s->out.len && !s->cork)
			want |= s->sock.write_wants_read ? EPOLLIN : EPOLLOUT;
		if (s->parting)
			want |= EPOLLOUT;
	}
	if (want == s->events)
		return;
	s->events = want;
	loop_io_set(s->io, want);
}

static void due(struct stream *s, unsigned int what)
{
	if (s->dead)
		return;
	s->due |= what;
	if (!s->turn && loop_defer_new(s->loop, turn_event, s, &s->turn) < 0)
		return; /* out of memory: what is due waits for the next event */
	loop_defer_arm(s->turn);
}

/* ---- input */

static void loan_end(struct stream *s)
{
	struct buf kept = { .max = s->in_max };

	if (!s->loaned)
		return;
	s->loaned = false;
	if (s->in.len && !s->dead && buf_put(&kept, buf_data(&s->in), s->in.len) < 0) {
		s->fail = -ENOMEM;
		due(s, DUE_FAIL);
	}
	s->in = kept;
}

static void announce(struct stream *s)
{
	if (s->finishing)
		buf_clear(&s->in);
	else if (!s->paused)
		s->ops->on_input(s->data, s);
	loan_end(s);
	if (s->in.len == 0 && !s->loaned)
		buf_done(&s->in);
}

/* Fills what is free of the unread buffer, or the scratch memory when there is none. Returns the last read's result, or
 * -EXFULL when room ended before the socket did. */
static ssize_t fill(struct stream *s)
{
	ssize_t k;

	if (s->in.len == 0) {
		buf_done(&s->in);
		s->in = (struct buf){ .data = scratch, .cap = SCRATCH_BYTES, .max = s->in_max };
		s->loaned = true;
	}
	for (;;) {
		size_t room = s->in_max > s->in.len ? s->in_max - s->in.len : 0;
		uint8_t *p;

		if (s->loaned) {
			room = MIN(MIN(s->in_max, (size_t)SCRATCH_BYTES) - s->in.len, room);
			p = scratch + s->in.len;
		} else {
			room = MIN(room, (size_t)READ_STEP);
			p = room ? buf_tail(&s->in, room) : NULL;
			if (room && !p)
				return -ENOMEM;
		}
		if (room == 0)
			return -EXFULL;
		k = sock_read(&s->sock, p, room);
		if (k <= 0)
			return k;
		s->in.len += (size_t)k;
		if (!sock_read_ahead(&s->sock))
			return -EAGAIN; /* epoll tells of more */
	}
}

static void read_event(struct stream *s)
{
	size_t before;
	ssize_t k;

	if (s->closed || (s->paused && !s->finishing))
		return;
	if (s->fail == -ENOMEM) /* what came last could not be kept: what is behind it would be taken for it */
		return;
	before = s->in.len;
	k = fill(s);
	if (s->in.len > before || s->loaned) {
		if (s->in.len > before) {
			announce(s);
		} else {
			s->loaned = false;
			s->in = (struct buf){ .max = s->in_max };
		}
		if (s->dead || s->closed)
			return;
	}
	if (k == -EAGAIN)
		return;
	if (k == -EXFULL) {
		if (s->in.len < s->in_max)
			due(s, DUE_READ);
		return;
	}
	if (k == 0) {
		s->ended = true;
		stream_down(s, 0, "closed by the other side");
	} else if (k == -ECONNRESET && s->sock.ssl && !s->sock.io_errno)
		stream_down(s, (int)k, "ended without a TLS close");
	else if (k == -EPROTO)
		stream_down(s, (int)k, tls_reason(s->sock.ssl));
	else
		stream_down(s, (int)k, strerror((int)-k));
}

/* ---- output */

/* 0, or a negative errno of a socket that is broken. */
static int flush(struct stream *s)
{
	while (s->out.len) {
		ssize_t k = sock_write(&s->sock, buf_data(&s->out), s->out.len);

		if (k == -EAGAIN) {
			s->blocked = true;
			return 0;
		}
		if (k < 0)
			return (int)k;
		buf_consume(&s->out, (size_t)k);
	}
	buf_done(&s->out);
	return 0;
}

/* For use outside the stream's own events: what follows is told on the next turn. */
static int flush_later(struct stream *s)
{
	int r = flush(s);

	if (r < 0) {
		s->fail = r;
		due(s, DUE_FAIL);
		return -EPIPE;
	}
	if (s->out.len == 0 && s->blocked)
		due(s, DUE_DRAINED);
	watch(s);
	return 0;
}

static void linger(struct stream *s)
{
	if (s->shut)
		return;
	/* The socket may hold so much that the end has no room yet: the other side must not take it for a cut. */
	s->parting = s->ready && !sock_tls_close(&s->sock);
	if (s->parting)
		return;
	s->shut = true;
	if (s->ended) { /* nothing unread can come */
		stream_finished(s);
		return;
	}
	/* Closing with unread input would reset the connection and take our last words with it. */
	shutdown(s->sock.fd, SHUT_WR);
	loop_timer_in(s->timer, LINGER_USEC);
}

static void drained(struct stream *s)
{
	if (s->out.len || !s->blocked)
		return;
	s->blocked = false;
	if (!s->finishing && s->ops->on_drained)
		s->ops->on_drained(s->data, s);
}

/* Writing has failed. What the other side said before it hung up is often the reason: read that first. */
static void broken(struct stream *s, int error)
{
	read_event(s);
	stream_down(s, error, strerror(-error));
}

static void write_event(struct stream *s)
{
	size_t before = s->out.len;
	int r = flush(s);

	if (r < 0) {
		broken(s, r);
		return;
	}
	if (s->out.len == 0 && s->finishing)
		linger(s);
	else if (!s->finishing)
		drained(s);
	else if (s->out.len < before && loop_now(s->loop) < s->finish_until)
		loop_timer_in(s->timer, FINISH_USEC); /* it moves: the other side only reads slowly */
}

int stream_write(struct stream *s, const void *p, size_t n)
{
	const uint8_t *at = p;

	if (s->closed || s->dead || s->finishing || s->fail)
		return -EPIPE;
	if (n > s->out_max || s->out.len > s->out_max - n)
		return -ENOBUFS;
	if (s->ready && !s->cork && s->out.len == 0) {
		while (n) {
			ssize_t k = sock_write(&s->sock, at, n);

			if (k == -EAGAIN) {
				s->blocked = true;
				break;
			}
			if (k < 0) {
				s->fail = (int)k;
				due(s, DUE_FAIL);
				return -EPIPE;
			}
			at += k;
			n -= (size_t)k;
		}
	}
	if (n == 0)
		return 0;
	if (buf_put(&s->out, at, n) < 0) {
		s->fail = -ENOMEM;
		due(s, DUE_FAIL);
		return -EPIPE;
	}
	watch(s);
	return 0;
}

void stream_cork(struct stream *s)
{
	s->cork++;
}

void stream_uncork(struct stream *s)
{
	if (!s->cork || --s->cork || s->closed || s->dead || s->fail || !s->ready || s->out.len == 0)
		return;
	flush_later(s);
}

size_t stream_pending(const struct stream *s)
{
	return s->out.len;
}

/* ---- events */

static void become_ready(struct stream *s)
{
	if (s->tls && !s->finishing) {
		loop_timer_free(s->timer);
		s->timer = NULL;
	}
	if (sock_check_pin(&s->sock) < 0) {
		stream_down(s, -EACCES, "certificate refused: it is not the pinned one");
		return;
	}
	s->ready = true;
	s->hs_write = false;
	if (!s->finishing && s->ops->on_ready)
		s->ops->on_ready(s->data, s);
	if (s->dead || s->closed)
		return;
	if (s->out.len && !s->cork)
		write_event(s);
	else if (s->finishing)
		linger(s);
}

static void handshake(struct stream *s)
{
	ssize_t k = sock_handshake(&s->sock, &s->hs_write);

	if (k == 1) {
		become_ready(s);
		if (!s->dead && !s->closed)
			read_event(s); /* what came in the same segment is inside TLS by now */
		return;
	}
	if (k == -EAGAIN)
		return;
	if (k == -EPROTO)
		stream_down(s, -EPROTO, tls_reason(s->sock.ssl));
	else
		stream_down(s, k ? (int)k : -ECONNRESET, "connection ended during the TLS handshake");
}

static void first_turn(struct stream *s)
{
	s->due &= ~(unsigned int)DUE_READY;
	if (!s->tls)
		become_ready(s);
	else if (!s->ready)
		handshake(s);
}

static void turn_event(void *data)
{
	struct stream *s = data;
	unsigned int todo = s->due;

	s->due = 0;
	if ((todo & DUE_READY) && !s->closed)
		first_turn(s);
	if ((todo & DUE_FAIL) && !s->dead && s->fail)
		broken(s, s->fail);
	if ((todo & DUE_DRAINED) && !s->dead && !s->closed)
		drained(s);
	if ((todo & DUE_INPUT) && !s->dead && !s->closed && s->in.len)
		announce(s);
	if ((todo & DUE_READ) && !s->dead && !s->closed)
		read_event(s);
	if (!s->dead && !s->closed)
		watch(s);
}

static void io_event(void *data, int fd, uint32_t events)
{
	struct stream *s = data;

	(void)fd;
	if (s->tls && !s->ready) {
		handshake(s);
	} else {
		if (s->due & DUE_READY)
			first_turn(s);
		if ((events & EPOLLOUT) && !s->dead && !s->closed)
			write_event(s);
		if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !s->dead && !s->closed) {
			bool stopped = !(s->events & EPOLLIN);

			read_event(s);
			/* Nobody reads, so nobody would find out, and epoll would tell us for ever. */
			if (stopped && (events & (EPOLLHUP | EPOLLERR)) && !s->dead && !s->closed)
				stream_down(s, -ECONNRESET, strerror(ECONNRESET));
		}
		if (s->sock.ssl && !s->dead && !s->closed && s->out.len && !s->cork)
			write_event(s); /* a write that waited for a read */
	}
	if (!s->dead && !s->closed)
		watch(s);
}

static void timer_event(void *data)
{
	struct stream *s = data;

	if (s->finishing)
		stream_finished(s);
	else
		stream_down(s, -ETIMEDOUT, "TLS handshake timed out");
}

static void stream_down(struct stream *s, int error, const char *why)
{
	if (s->closed || s->dead)
		return;
	s->closed = true;
	loop_io_free(s->io);
	s->io = NULL;
	loop_timer_stop(s->timer);
	if (s->finishing)
		stream_finished(s);
	else
		s->ops->on_closed(s->data, s, error, why);
}

/* ---- life */

static void stream_bury(void *p)
{
	free(p);
}

void stream_free(struct stream *s)
{
	if (!s || s->dead)
		return;
	if (s->ready && !s->closed && !s->shut && !s->fail)
		sock_tls_close(&s->sock);
	s->dead = s->closed = true;
	loop_io_free(s->io);
	loop_timer_free(s->timer);
	loop_defer_drop(s->turn);
	loop_orphan_free(s->orphan);
	s->orphan = NULL;
	s->io = NULL;
	s->timer = NULL;
	s->turn = NULL;
	sock_done(&s->sock);
	if (!s->loaned)
		buf_done(&s->in);
	buf_done(&s->out);
	loop_defer_free(s->loop, s, stream_bury);
}

int stream_new(struct loop *l, int fd, const struct stream_opts *o, struct stream **ret)
{
	CLEANUP(stream_free) struct stream *s = NULL;
	int flags = fcntl(fd, F_GETFL), one = 1, r;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->loop = l;
	s->sock.fd = -1; /* the caller's until we cannot fail */
	s->ops = o->ops;
	s->data = o->data;
	s->out_max = o->out_max ? o->out_max : OUT_MAX_DEFAULT;
	s->in_max = o->in_max ? o->in_max : IN_MAX_DEFAULT;
	s->in.max = s->in_max;
	s->out.max = s->out_max;
	s->tls = o->tls != NULL;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (o->tls) {
		r = sock_tls(&s->sock, o->tls, &o->expect);
		if (r < 0)
			return r;
		r = loop_timer_new(l, timer_event, s, &s->timer);
		if (r < 0)
			return r;
		loop_timer_in(s->timer, o->handshake_usec ? o->handshake_usec : HANDSHAKE_DEFAULT);
	} else {
		s->ready = true;
	}
	s->events = EPOLLIN;
	r = loop_io_new(l, fd, s->events, io_event, s, &s->io);
	if (r < 0)
		return r;
	r = loop_defer_new(l, turn_event, s, &s->turn);
	if (r < 0)
		return r;
	/* A client speaks first; a TLS server waits for bytes. */
	if (!o->tls || !tls_is_server(o->tls))
		due(s, DUE_READY);
	s->sock.fd = fd;
	*ret = TAKE(s);
	return 0;
}

static void stream_finished(struct stream *s)
{
	loop_fn *gone = s->gone;
	void *data = s->gone_data;

	stream_free(s);
	if (gone)
		gone(data);
}

static void stream_orphaned(void *p)
{
	stream_free(p);
}

/* The other side has ended, but reads: what is queued goes out all the same. */
static bool reopen(struct stream *s)
{
	if (!s->ended || s->fail || s->out.len == 0)
		return false;
	s->events = EPOLLOUT;
	if (loop_io_new(s->loop, s->sock.fd, s->events, io_event, s, &s->io) < 0)
		return false;
	s->closed = false;
	return true;
}

void stream_finish(struct stream *s, loop_fn *gone, void *data)
{
	if (!s || s->dead)
		return;
	s->gone = gone;
	s->gone_data = data;
	if (s->finishing)
		return;
	if (s->fail || (s->closed && !reopen(s))) {
		stream_finished(s);
		return;
	}
	s->finishing = true;
	s->cork = 0;
	if (s->loaned)
		buf_clear(&s->in);
	else
		buf_done(&s->in);
	if (loop_orphan_new(s->loop, stream_orphaned, s, &s->orphan) < 0 ||
	    (!s->timer && loop_timer_new(s->loop, timer_event, s, &s->timer) < 0)) {
		stream_finished(s);
		return;
	}
	s->finish_until = loop_now(s->loop) + FINISH_ALL_USEC;
	loop_timer_in(s->timer, FINISH_USEC);
	if (s->ready) {
		if (flush(s) < 0) {
			stream_finished(s);
			return;
		}
		if (s->out.len == 0)
			linger(s);
	}
	watch(s);
}

void stream_set_ops(struct stream *s, const struct stream_ops *ops, void *data)
{
	s->ops = ops;
	s->data = data;
	if (s->in.len)
		due(s, DUE_INPUT);
}

void stream_set_limits(struct stream *s, size_t out_max, size_t in_max)
{
	if (out_max)
		s->out_max = s->out.max = out_max;
	if (in_max)
		s->in_max = s->in.max = in_max;
	if (!s->closed)
		watch(s);
}

struct buf *stream_input(struct stream *s)
{
	return &s->in;
}

void stream_resume(struct stream *s)
{
	if (s->closed || s->dead)
		return;
	s->paused = false;
	if (s->in.len)
		due(s, DUE_INPUT);
	if (s->sock.ssl && s->ready)
		due(s, DUE_READ);
	watch(s);
}

void stream_pause(struct stream *s)
{
	s->paused = true;
	if (!s->closed && !s->dead)
		watch(s);
}

bool stream_ready(const struct stream *s)
{
	return s->ready;
}

bool stream_closed(const struct stream *s)
{
	return s->closed;
}

struct loop *stream_loop(const struct stream *s)
{
	return s->loop;
}

int stream_fd(const struct stream *s)
{
	return s->sock.fd;
}

int stream_peer(const struct stream *s, struct endpoint *ret)
{
	union sockaddr_any a = { 0 };
	socklen_t n = sizeof(a);

	if (getpeername(s->sock.fd, &a.sa, &n) < 0)
		return -errno;
	return endpoint_from_sockaddr(&a.sa, ret);
}

int stream_local(const struct stream *s, struct endpoint *ret)
{
	union sockaddr_any a = { 0 };
	socklen_t n = sizeof(a);

	if (getsockname(s->sock.fd, &a.sa, &n) < 0)
		return -errno;
	return endpoint_from_sockaddr(&a.sa, ret);
}

bool stream_stranded(const struct stream *s)
{
	CLEANUP(fd_close) int fd = -1;
	union sockaddr_any a;
	struct endpoint local;
	socklen_t n;

	if (stream_local(s, &local) < 0)
		return false;
	local.port = 0;
	n = endpoint_to_sockaddr(&local, &a);
	fd = socket(a.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && bind(fd, &a.sa, n) < 0 && errno == EADDRNOTAVAIL;
}

int stream_detach(struct stream *s, struct buf *rest)
{
	int fd, r;

	if (s->tls)
		return -EOPNOTSUPP;
	if (s->out.len)
		return -EAGAIN;
	if (s->closed)
		return -EPIPE;
	if (rest) {
		r = buf_put(rest, buf_data(&s->in), s->in.len);
		if (r < 0)
			return r;
	}
	loop_io_free(s->io);
	s->io = NULL;
	fd = TAKE_FD(s->sock.fd);
	stream_free(s);
	return fd;
}

bool stream_is_tls(const struct stream *s)
{
	return s->tls;
}

int stream_tls_version(const struct stream *s)
{
	return s->ready ? sock_tls_version(&s->sock) : 0;
}

int stream_peer_certs(const struct stream *s, int (*fn)(void *data, const struct tls_cert *c),
		      void *data)
{
	return s->sock.ssl && s->ready ? tls_peer_certs(s->sock.ssl, fn, data) : 0;
}
