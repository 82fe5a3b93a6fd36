#include "lib/httpd_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/log.h"

#define ACCEPTS_PER_EVENT    64
#define ACCEPT_PAUSE	     (100 * USEC_PER_MSEC)
#define ROOM_AGE_USEC	     (250 * USEC_PER_MSEC) /* so long everybody has for a request, however many come */
#define ROOM_LOOKS_MAX	     64
#define ROOM_AT_ONCE	     16 /* when memory is short: some of them, ten times a second */
#define GONE_MSEC	     90000 /* no answer to what was sent: the kernel would try for a quarter of an hour */
#define SHORT_SAID_USEC	     (60 * USEC_PER_SEC)

struct httpd_listener {
	struct httpd_listener *next;
	struct httpd *h;
	int fd;
	struct loop_io *io;
	struct loop_timer *pause;
	struct tls_ctx *tls;
	char *path; /* of a Unix socket that we bound */
	bool is_unix;
	int spare; /* of a Unix socket: a descriptor for the operator, when there is none; -1 while it is given away */
};

/* ---- the descriptor in reserve */

/* A copy of the listening socket, for nothing but its number. */
static bool take_spare(struct httpd_listener *l)
{
	if (!l->is_unix || l->spare >= 0)
		return true;
	l->spare = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
	if (l->spare >= 0)
		return true;
	loop_timer_in(l->pause, ACCEPT_PAUSE);
	return false;
}

bool httpd_listen_spare_away(const struct httpd *h)
{
	for (const struct httpd_listener *l = h->listeners; l; l = l->next)
		if (l->is_unix && l->spare < 0)
			return true;
	return false;
}

void httpd_listen_take_spares(struct httpd *h)
{
	for (struct httpd_listener *l = h->listeners; l; l = l->next)
		if (l->is_unix && l->spare < 0 && take_spare(l))
			loop_io_set(l->io, EPOLLIN);
}

/* ---- who comes */

bool httpd_peer_may(const struct httpd_peer *p, uid_t uid, gid_t gid)
{
	if (!p->is_unix || p->uid == (uid_t)-1)
		return false;
	if (p->uid == 0 || (uid != (uid_t)-1 && p->uid == uid))
		return true;
	if (gid == (gid_t)-1)
		return false;
	if (p->gid == gid)
		return true;
	for (size_t i = 0; i < p->n_groups; i++)
		if (p->groups[i] == gid)
			return true;
	return false;
}

static void peer_groups(int fd, struct httpd_peer *p)
{
	CLEANUP(free) gid_t *all = NULL;
	socklen_t n = sizeof(p->groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, p->groups, &n) == 0) {
		p->n_groups = n / sizeof(gid_t);
		return;
	}
	if (errno != ERANGE || n > 65536 * sizeof(gid_t))
		return;
	all = malloc(n);
	if (all && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, all, &n) == 0) {
		p->n_groups = MIN(n / sizeof(gid_t), (size_t)HTTPD_GROUPS_MAX);
		memcpy(p->groups, all, p->n_groups * sizeof(gid_t));
	}
}

static void peer_fill(const struct httpd_listener *l, int fd, const struct sockaddr *sa, struct httpd_peer *p)
{
	struct ucred u;
	socklen_t n = sizeof(u);

	p->is_unix = l->is_unix;
	p->is_tls = l->tls != NULL;
	p->uid = (uid_t)-1;
	p->gid = (gid_t)-1;
	if (!l->is_unix) {
		endpoint_from_sockaddr(sa, &p->remote);
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) == 0) {
		p->uid = u.uid;
		p->gid = u.gid;
		p->pid = u.pid;
		peer_groups(fd, p);
	}
}

/* One user of this machine, or one customer of a provider. */
static bool same_origin(const struct httpd_peer *a, const struct httpd_peer *b)
{
	struct addr x, y;

	if (a->is_unix || b->is_unix)
		return a->is_unix && b->is_unix && a->uid == b->uid;
	x = addr_site(&a->remote.addr);
	y = addr_site(&b->remote.addr);
	return addr_equal(&x, &y);
}

/* Root and the user that we are may do more to us than to ask. */
static bool is_operator(const struct httpd_peer *p)
{
	return p->is_unix && (p->uid == 0 || p->uid == geteuid());
}

static unsigned int origin_count(const struct httpd_conn *list, const struct httpd_peer *p)
{
	unsigned int n = 0;

	for (; list; list = list->next)
		n += same_origin(&list->peer, p);
	return n;
}

static bool over_limit(const struct httpd *h, const struct httpd_peer *p)
{
	unsigned int most = h->o.max_conns_per_addr;

	if (h->n_conns >= h->o.max_conns)
		return true;
	if (is_operator(p))
		return false;
	/* No user may keep the others out; and all together, of which one person can be many (subuid),
	 * not root. */
	if (p->is_unix && h->n_conns >= h->o.max_conns / 4 * 3)
		return true;
	if (p->is_unix)
		most = MIN(most, h->o.max_conns / 4);
	else if (addr_is_loopback(&p->remote.addr))
		return false;
	return origin_count(h->conns, p) + origin_count(h->ending, p) >= most;
}

/* Once a minute: it is the operator's limit that is too low, or somebody's flood. */
static void say_short(struct httpd *h, const char *why)
{
	uint64_t now = loop_now(h->loop);

	if (h->short_said_usec && now - h->short_said_usec < SHORT_SAID_USEC)
		return;
	h->short_said_usec = now;
	log_warning("no room for new connections (%s): they wait, and the oldest that ask nothing are closed", why);
}

static bool may_go(const struct httpd_conn *c, uint64_t now)
{
	if (now - c->since_usec < ROOM_AGE_USEC)
		return false;
	if (c->state == CONN_STATE_ENDING && !stream_pending(c->s))
		return true;
	return c->state != CONN_STATE_BUSY && !c->peer.is_unix;
}

static bool make_room_of(struct httpd_conn *c, uint64_t now)
{
	for (int i = 0; c && i < ROOM_LOOKS_MAX; i++, c = c->next) {
		if (!may_go(c, now))
			continue;
		httpd_conn_abort(c);
		return true;
	}
	return false;
}

/* Who is honest asks within a round trip or two: who has been answered and does not hang up, and then who has asked
 * nothing for longest makes room, so that silent connections do not keep others out. */
static bool make_room(struct httpd *h)
{
	uint64_t now = loop_now(h->loop);

	return make_room_of(h->ending, now) || make_room_of(h->conns, now);
}

/* The last descriptor is for the operator: any other user could hold it. The rest of the answer is not waited for. */
static void refuse_stranger(int fd)
{
	static const char text[] = "HTTP/1.1 503 Service Unavailable\r\n"
				   "Content-Type: text/plain; charset=utf-8\r\n"
				   "Connection: close\r\n"
				   "Content-Length: 23\r\n\r\n"
				   "no descriptor is free\r\n";

	send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Takes fd on success. */
static int let_in(struct httpd_listener *l, int fd, const struct sockaddr *sa)
{
	static const unsigned int gone_msec = GONE_MSEC;
	struct httpd_peer peer = { 0 };

	peer_fill(l, fd, sa, &peer);
	if (!take_spare(l) && !is_operator(&peer)) {
		refuse_stranger(fd);
		return -EMFILE;
	}
	if (over_limit(l->h, &peer))
		return -EUSERS;
	if (!l->is_unix)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &gone_msec, sizeof(gone_msec));
	return httpd_conn_new(l->h, fd, l->tls, &peer);
}

/* The connection stays in the backlog and would wake us for ever. */
static void accept_pause(struct httpd_listener *l)
{
	loop_io_set(l->io, 0);
	loop_timer_in(l->pause, ACCEPT_PAUSE);
}

/* For accept4() there is a descriptor again: the one that was kept for it. */
static bool give_spare(struct httpd_listener *l)
{
	if (l->spare < 0)
		return false;
	l->spare = fd_close(l->spare);
	return true;
}

/* Somebody waits and there is no room: true when it has been made, else what waits goes on waiting in the backlog,
 * without being a connection of ours. */
static bool accept_room(struct httpd_listener *l, const char *why)
{
	struct pollfd p = { .fd = l->fd, .events = POLLIN };

	if (poll(&p, 1, 0) != 1) /* accept4() looks for a descriptor before it looks for a connection */
		return false;
	say_short(l->h, why);
	if (make_room(l->h) || give_spare(l))
		return true;
	accept_pause(l);
	return false;
}

static bool accept_full(const struct httpd_listener *l)
{
	return !l->is_unix && l->h->n_conns >= l->h->o.max_conns;
}

static void accept_event(void *data, int fd, uint32_t events)
{
	struct httpd_listener *l = data;

	(void)events;
	if (loop_short_of_memory(l->h->loop)) {
		say_short(l->h, strerror(ENOMEM));
		for (int i = 0; i < ROOM_AT_ONCE && make_room(l->h); i++)
			;
		accept_pause(l);
		return;
	}
	for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
		union sockaddr_any a = { 0 };
		socklen_t n = sizeof(a);
		int c;

		if (accept_full(l) && !accept_room(l, "as many as are allowed"))
			return;
		c = accept4(fd, &a.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (c >= 0) {
			int r = let_in(l, c, &a.sa);

			if (r < 0) {
				close(c);
				take_spare(l);
			}
			if (r != -ENOMEM)
				continue;
			say_short(l->h, strerror(ENOMEM));
			accept_pause(l);
			return;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			if (accept_room(l, strerror(errno)))
				continue;
			return;
		}
		if (errno == EAGAIN)
			return;
	}
}

static void accept_again(void *data)
{
	struct httpd_listener *l = data;

	loop_io_set(l->io, EPOLLIN);
	take_spare(l);
}

static void listener_free(struct httpd_listener *l)
{
	if (!l)
		return;
	loop_io_free(l->io);
	loop_timer_free(l->pause);
	tls_ctx_unref(l->tls);
	fd_close(l->spare);
	fd_close(l->fd);
	if (l->path)
		unlink(l->path);
	free(l->path);
	free(l);
}
DEFINE_CLEANUP(struct httpd_listener *, listener_free)

int httpd_listen_fd(struct httpd *h, int fd, struct tls_ctx *tls)
{
	CLEANUP(listener_free) struct httpd_listener *l = calloc(1, sizeof(*l));
	int domain = 0, r;
	socklen_t n = sizeof(domain);

	if (!l)
		return -ENOMEM;
	l->fd = l->spare = -1;
	l->h = h;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
		return -errno;
	l->is_unix = domain == AF_UNIX;
	r = loop_timer_new(h->loop, accept_again, l, &l->pause);
	if (r < 0)
		return r;
	r = loop_io_new(h->loop, fd, EPOLLIN, accept_event, l, &l->io);
	if (r < 0)
		return r;
	l->tls = tls ? tls_ctx_ref(tls) : NULL;
	l->fd = fd;
	if (!take_spare(l)) {
		r = -EMFILE;
		l->fd = -1; /* the caller's */
		return r;
	}
	l->next = h->listeners;
	h->listeners = TAKE(l);
	return 0;
}

static int tcp_socket(struct endpoint *at)
{
	int fd = socket(addr_af(&at->addr), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 && errno == EAFNOSUPPORT && at->addr.family == 6 && addr_is_unspecified(&at->addr)) {
		at->addr = addr_v4(0, 0, 0, 0);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	}
	return fd < 0 ? -errno : fd;
}

int httpd_open_tcp(const struct endpoint *at, struct endpoint *bound)
{
	struct endpoint e = *at;
	CLEANUP(fd_close) int fd = e.addr.family ? tcp_socket(&e) : -EINVAL;
	int one = 1, only = !addr_is_unspecified(&e.addr);
	union sockaddr_any a;
	socklen_t n = endpoint_to_sockaddr(&e, &a);

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (e.addr.family == 6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
	if (bind(fd, &a.sa, n) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	n = sizeof(a);
	if (bound && (getsockname(fd, &a.sa, &n) < 0 || endpoint_from_sockaddr(&a.sa, bound) < 0))
		return -EINVAL;
	return TAKE_FD(fd);
}

int httpd_listen_tcp(struct httpd *h, const struct endpoint *at, struct tls_ctx *tls, struct endpoint *bound)
{
	int fd = httpd_open_tcp(at, bound), r;

	if (fd < 0)
		return fd;
	r = httpd_listen_fd(h, fd, tls);
	if (r < 0)
		fd_close(fd);
	return r;
}

/* Somebody answers: -EADDRINUSE. A socket that nobody answers on is removed; anything else is left alone. */
static int clear_stale(const struct sockaddr_un *a)
{
	CLEANUP(fd_close) int fd = -1;
	struct stat st;

	if (lstat(a->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno == EAGAIN)
		return -EADDRINUSE;
	if (errno != ECONNREFUSED)
		return -errno;
	return unlink(a->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

int httpd_listen_unix(struct httpd *h, const char *path, mode_t mode)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	CLEANUP(fd_close) int fd = -1;
	int r;

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, path, strlen(path));
	r = clear_stale(&a);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	fchmod(fd, mode); /* never wider than asked for, from the first moment */
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	if (chmod(path, mode) < 0 || listen(fd, 128) < 0) {
		r = -errno;
		unlink(path);
		return r;
	}
	r = httpd_listen_fd(h, fd, NULL);
	if (r < 0) {
		unlink(path);
		return r;
	}
	TAKE_FD(fd);
	h->listeners->path = strdup(path);
	return 0;
}

void httpd_stop_listening(struct httpd *h)
{
	while (h->listeners) {
		struct httpd_listener *l = h->listeners;

		h->listeners = l->next;
		listener_free(l);
	}
}
