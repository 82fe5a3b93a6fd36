#include "lib/dial.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define ADDRESS_DEFAULT (3 * USEC_PER_SEC)
#define TOTAL_DEFAULT	(10 * USEC_PER_SEC)
#define RACE_USEC	(200 * USEC_PER_MSEC)
#define STALE_USEC	(2 * USEC_PER_SEC) /* how long a look-up may take while the cache has an answer */
#define LOOKUP_MSEC	2000
#define LOOKUP_TRIES	2
#define CACHE_MAX	64
#define WATCH_MAX	16
#define HOST_MAX	254

/* ---- the last good addresses */

struct cache_entry {
	char host[HOST_MAX];
	struct addr a[DIAL_ADDRS_MAX];
	size_t n;
	uint64_t used;
};

struct dial_cache {
	struct cache_entry *e[CACHE_MAX];
	uint64_t clock;
};

int dial_cache_new(struct dial_cache **ret)
{
	struct dial_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	*ret = c;
	return 0;
}

void dial_cache_free(struct dial_cache *c)
{
	for (size_t i = 0; c && i < CACHE_MAX; i++)
		free(c->e[i]);
	free(c);
}

int dial_cache_put(struct dial_cache *c, const char *host, const struct addr *a, size_t n)
{
	size_t slot = 0;

	if (strlen(host) >= HOST_MAX || n == 0)
		return -EINVAL;
	for (size_t i = 0; i < CACHE_MAX; i++) {
		if (c->e[i] && strcasecmp(c->e[i]->host, host) == 0) {
			slot = i;
			break;
		}
		if (!c->e[slot])
			continue; /* a free place is kept, unless the name shows up */
		if (!c->e[i] || c->e[i]->used < c->e[slot]->used)
			slot = i;
	}
	if (!c->e[slot])
		c->e[slot] = calloc(1, sizeof(*c->e[slot]));
	if (!c->e[slot])
		return -ENOMEM;
	snprintf(c->e[slot]->host, HOST_MAX, "%s", host);
	c->e[slot]->n = MIN(n, (size_t)DIAL_ADDRS_MAX);
	memcpy(c->e[slot]->a, a, c->e[slot]->n * sizeof(*a));
	c->e[slot]->used = ++c->clock;
	return 0;
}

size_t dial_cache_get(const struct dial_cache *c, const char *host, struct addr *out, size_t max)
{
	for (size_t i = 0; c && i < CACHE_MAX; i++) {
		size_t n;

		if (!c->e[i] || strcasecmp(c->e[i]->host, host) != 0)
			continue;
		n = MIN(c->e[i]->n, max);
		memcpy(out, c->e[i]->a, n * sizeof(*out));
		return n;
	}
	return 0;
}

/* ---- a dial */

struct attempt {
	struct dial *d;
	int fd;
	struct loop_io *io;
	struct loop_timer *timer;
	struct endpoint to;
};

struct dial {
	struct loop *loop;
	char host[HOST_MAX];
	uint16_t port;
	struct dial_opts o;
	dial_fn *fn;
	dial_lookup_fn *found; /* only the addresses are wanted: instead of fn */
	void *data;
	ares_channel ares;
	struct {
		int fd;
		struct loop_io *io;
	} watch[WATCH_MAX];
	struct loop_timer *lookup, *race, *total;
	struct loop_defer *turn;
	struct addr addrs[DIAL_ADDRS_MAX];
	size_t n, next; /* next: the first that was not tried yet */
	struct attempt attempt[DIAL_ADDRS_MAX];
	int error;
	char why[192];
	bool looked_up, racing, cached, dead;
};

static void try_next(struct dial *d);
static void race_start(struct dial *d);

static void mark_socket(const struct dial *d, int fd)
{
	/* Without the right to, our traffic goes as everybody's does. */
	if (d->o.mark)
		setsockopt(fd, SOL_SOCKET, SO_MARK, &d->o.mark, sizeof(d->o.mark));
}

static void attempt_end(struct attempt *a)
{
	loop_io_free(a->io);
	loop_timer_free(a->timer);
	a->io = NULL;
	a->timer = NULL;
	a->fd = fd_close(a->fd);
}

static void dial_bury(void *p)
{
	free(p);
}

static void dial_end(struct dial *d)
{
	d->dead = true;
	for (size_t i = 0; i < DIAL_ADDRS_MAX; i++)
		attempt_end(&d->attempt[i]);
	if (d->ares)
		ares_destroy(d->ares); /* calls back; dead says that nobody listens */
	d->ares = NULL;
	for (size_t i = 0; i < WATCH_MAX; i++) {
		loop_io_free(d->watch[i].io);
		d->watch[i].io = NULL;
	}
	loop_timer_free(d->lookup);
	loop_timer_free(d->race);
	loop_timer_free(d->total);
	loop_defer_drop(d->turn);
	d->lookup = d->race = d->total = NULL;
	d->turn = NULL;
	loop_defer_free(d->loop, d, dial_bury);
}

void dial_cancel(struct dial *d)
{
	if (d && !d->dead)
		dial_end(d);
}

static void dial_fail(struct dial *d, int error, const char *what)
{
	char text[sizeof(d->why) + HOST_MAX + 8];

	if (strstr(what, d->host)) /* a literal, named already */
		snprintf(text, sizeof(text), "%s", what);
	else
		snprintf(text, sizeof(text), "%s: %s", d->host, what);
	dial_end(d);
	if (d->found)
		d->found(d->data, error, NULL, 0, text);
	else
		d->fn(d->data, error, NULL, text);
}

static void dial_won(struct dial *d, struct attempt *a)
{
	struct endpoint to = a->to;
	int fd = TAKE_FD(a->fd);

	if (d->o.cache && d->looked_up && !d->cached) {
		/* The one that worked comes first. */
		for (size_t i = 0; i < d->n; i++)
			if (addr_equal(&d->addrs[i], &to.addr)) {
				d->addrs[i] = d->addrs[0];
				d->addrs[0] = to.addr;
				break;
			}
		dial_cache_put(d->o.cache, d->host, d->addrs, d->n);
	}
	dial_end(d);
	d->fn(d->data, fd, &to, "connected");
}

/* ---- the race */

static void attempt_failed(struct attempt *a, int error)
{
	struct dial *d = a->d;
	char at[ENDPOINT_TEXT_MAX];

	attempt_end(a);
	d->error = -error;
	snprintf(d->why, sizeof(d->why), "%s: %s", endpoint_text(&a->to, at), strerror(error));
	try_next(d);
}

static void attempt_event(void *data, int fd, uint32_t events)
{
	struct attempt *a = data;
	socklen_t n = sizeof(int);
	int error = 0;

	(void)events;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	if (error)
		attempt_failed(a, error);
	else
		dial_won(a->d, a);
}

static void attempt_timeout(void *data)
{
	attempt_failed(data, ETIMEDOUT);
}

/* 0, or the errno that ended it at once. */
static int attempt_start(struct attempt *a)
{
	union sockaddr_any sa;
	socklen_t n = endpoint_to_sockaddr(&a->to, &sa);
	struct dial *d = a->d;

	a->fd = socket(sa.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (a->fd < 0)
		return errno;
	mark_socket(d, a->fd);
	if (connect(a->fd, &sa.sa, n) < 0 && errno != EINPROGRESS)
		return errno;
	if (loop_timer_new(d->loop, attempt_timeout, a, &a->timer) < 0 ||
	    loop_io_new(d->loop, a->fd, EPOLLOUT, attempt_event, a, &a->io) < 0)
		return ENOMEM;
	loop_timer_in(a->timer, d->o.address_usec ? d->o.address_usec : ADDRESS_DEFAULT);
	return 0;
}

static bool any_running(const struct dial *d)
{
	for (size_t i = 0; i < d->next; i++)
		if (d->attempt[i].fd >= 0)
			return true;
	return false;
}

static void try_next(struct dial *d)
{
	while (d->next < d->n) {
		struct attempt *a = &d->attempt[d->next];
		char at[ENDPOINT_TEXT_MAX];
		int error;

		a->d = d;
		a->to = (struct endpoint){ d->addrs[d->next], d->port };
		d->next++;
		error = attempt_start(a);
		if (error == 0) {
			if (d->next < d->n)
				loop_timer_in(d->race, RACE_USEC);
			return;
		}
		attempt_end(a);
		d->error = -error;
		snprintf(d->why, sizeof(d->why), "%s: %s", endpoint_text(&a->to, at), strerror(error));
	}
	if (!any_running(d))
		dial_fail(d, d->error, d->why);
}

/* During the race: the next address starts. Before it: the resolver hangs, and we know where to go. */
static void race_timer(void *data)
{
	struct dial *d = data;

	if (d->racing)
		try_next(d);
	else
		race_start(d);
}

/* IPv6 and IPv4 in turns, each in the order that the look-up gave. */
static void order(struct dial *d)
{
	struct addr in[DIAL_ADDRS_MAX];
	bool used[DIAL_ADDRS_MAX] = { false };
	size_t n = d->n;
	uint8_t want = 6;

	memcpy(in, d->addrs, sizeof(in));
	for (size_t k = 0; k < n; k++, want = want == 6 ? 4 : 6) {
		size_t pick = n;

		for (size_t i = 0; i < n; i++)
			if (!used[i] && (pick == n || (in[i].family == want && in[pick].family != want)))
				pick = i;
		used[pick] = true;
		d->addrs[k] = in[pick];
	}
}

static void add_addr(struct dial *d, const struct addr *a)
{
	if (d->n == DIAL_ADDRS_MAX || !a->family || (d->o.family && d->o.family != a->family))
		return;
	for (size_t i = 0; i < d->n; i++)
		if (addr_equal(&d->addrs[i], a))
			return;
	d->addrs[d->n++] = *a;
}

static void race_start(struct dial *d)
{
	if (d->racing)
		return;
	d->racing = true;
	loop_timer_stop(d->lookup);
	loop_timer_stop(d->race);
	if (d->n == 0) {
		d->n = dial_cache_get(d->o.cache, d->host, d->addrs, DIAL_ADDRS_MAX);
		d->cached = true;
	}
	if (d->n == 0) {
		dial_fail(d, d->error ? d->error : -ENOENT, d->why[0] ? d->why : "no address");
		return;
	}
	if (!d->cached)
		order(d);
	if (!d->found) {
		try_next(d);
		return;
	}
	if (d->o.cache && d->looked_up && !d->cached)
		dial_cache_put(d->o.cache, d->host, d->addrs, d->n);
	dial_end(d);
	d->found(d->data, 0, d->addrs, d->n, "");
}

/* ---- the look-up */

static void ares_next(struct dial *d)
{
	struct timeval tv, *t;

	if (d->dead)
		return;
	if (d->looked_up) { /* answered inside c-ares: act outside of it */
		loop_defer_arm(d->turn);
		return;
	}
	t = ares_timeout(d->ares, NULL, &tv);
	if (t)
		loop_timer_in(d->lookup, (uint64_t)t->tv_sec * USEC_PER_SEC + (uint64_t)t->tv_usec + 1000);
}

static void ares_event(void *data, int fd, uint32_t events)
{
	struct dial *d = data;
	bool in = events & (EPOLLIN | EPOLLHUP | EPOLLERR), out = events & EPOLLOUT;

	if (!d->ares)
		return;
	ares_process_fd(d->ares, in ? fd : ARES_SOCKET_BAD, out ? fd : ARES_SOCKET_BAD);
	ares_next(d);
}

static void lookup_timer(void *data)
{
	struct dial *d = data;

	if (!d->ares)
		return;
	ares_process_fd(d->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	ares_next(d);
}

static void ares_sockets(void *data, ares_socket_t fd, int readable, int writable)
{
	struct dial *d = data;
	uint32_t want = (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0);
	size_t i, empty = WATCH_MAX;

	if (d->dead)
		return;
	for (i = 0; i < WATCH_MAX; i++) {
		if (d->watch[i].io && d->watch[i].fd == fd)
			break;
		if (!d->watch[i].io && empty == WATCH_MAX)
			empty = i;
	}
	if (i < WATCH_MAX && want) {
		loop_io_set(d->watch[i].io, want);
	} else if (i < WATCH_MAX) {
		loop_io_free(d->watch[i].io);
		d->watch[i].io = NULL;
	} else if (want && empty < WATCH_MAX) {
		d->watch[empty].fd = fd;
		loop_io_new(d->loop, fd, want, ares_event, d, &d->watch[empty].io);
	}
}

static int ares_mark(ares_socket_t fd, int type, void *data)
{
	(void)type;
	mark_socket(data, fd);
	return 0;
}

static void ares_answer(void *data, int status, int timeouts, struct ares_addrinfo *info)
{
	struct dial *d = data;

	(void)timeouts;
	if (!d->dead) {
		d->looked_up = true;
		for (struct ares_addrinfo_node *a = info ? info->nodes : NULL; a; a = a->ai_next) {
			struct endpoint e;

			if (endpoint_from_sockaddr(a->ai_addr, &e) == 0)
				add_addr(d, &e.addr);
		}
		if (status != ARES_SUCCESS) {
			d->error = status == ARES_ENOTFOUND || status == ARES_ENODATA ? -ENOENT :
				   status == ARES_ETIMEOUT			     ? -ETIMEDOUT :
				   status == ARES_ENOMEM			     ? -ENOMEM :
										       -EHOSTUNREACH;
			snprintf(d->why, sizeof(d->why), "name look-up: %s", ares_strerror(status));
		}
	}
	ares_freeaddrinfo(info);
}

static void library_init(void)
{
	ares_library_init(ARES_LIB_INIT_ALL);
}

/* c-ares takes a resolv.conf that it cannot open for none, and what it cannot ask for silence. */
static int descriptor_is_free(void)
{
	CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : 0;
}

static int lookup_start(struct dial *d)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct ares_options o = { .sock_state_cb = ares_sockets, .sock_state_cb_data = d,
				  .timeout = LOOKUP_MSEC, .tries = LOOKUP_TRIES };
	struct ares_addrinfo_hints hints = { .ai_family = d->o.family == 4 ? AF_INET :
							  d->o.family == 6 ? AF_INET6 :
									     AF_UNSPEC,
					     .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT };

	int r = descriptor_is_free();

	if (r < 0)
		return r;
	pthread_once(&once, library_init);
	if (ares_init_options(&d->ares, &o, ARES_OPT_SOCK_STATE_CB | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES) !=
	    ARES_SUCCESS) {
		d->ares = NULL;
		return -ENOMEM;
	}
	ares_set_socket_configure_callback(d->ares, ares_mark, d);
	ares_getaddrinfo(d->ares, d->host, NULL, &hints, ares_answer, d);
	ares_next(d);
	return 0;
}

static void turn_event(void *data)
{
	struct dial *d = data;

	race_start(d);
}

static void total_timer(void *data)
{
	struct dial *d = data;

	dial_fail(d, -ETIMEDOUT, d->racing ? "no address answered in time" : "name look-up timed out");
}

/* ---- start */

static int host_copy(struct dial *d, const char *host)
{
	size_t n = strlen(host);

	if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
		host++;
		n -= 2;
	}
	if (n == 0 || n >= sizeof(d->host))
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)host[i] <= ' ' || (unsigned char)host[i] >= 0x7f)
			return -EINVAL;
	memcpy(d->host, host, n);
	return 0;
}

static int timers_new(struct dial *d)
{
	int r = loop_timer_new(d->loop, lookup_timer, d, &d->lookup);

	if (r == 0)
		r = loop_timer_new(d->loop, race_timer, d, &d->race);
	if (r == 0)
		r = loop_timer_new(d->loop, total_timer, d, &d->total);
	if (r == 0)
		r = loop_defer_new(d->loop, turn_event, d, &d->turn);
	return r;
}

static int start(struct loop *l, const char *host, uint16_t port, const struct dial_opts *o, dial_fn *fn,
		 dial_lookup_fn *found, void *data, struct dial **ret)
{
	CLEANUP(dial_cancel) struct dial *d = calloc(1, sizeof(*d));
	struct addr literal, probe;
	int r;

	if (!d)
		return -ENOMEM;
	d->loop = l;
	d->port = port;
	d->fn = fn;
	d->found = found;
	d->data = data;
	for (size_t i = 0; i < DIAL_ADDRS_MAX; i++)
		d->attempt[i].fd = -1;
	if (o)
		d->o = *o;
	r = host_copy(d, host);
	if (r < 0)
		return r;
	r = timers_new(d);
	if (r < 0)
		return r;
	loop_timer_in(d->total, d->o.total_usec ? d->o.total_usec : TOTAL_DEFAULT);
	for (size_t i = 0; i < d->o.n_addrs; i++)
		add_addr(d, &d->o.addrs[i]);
	d->o.addrs = NULL;
	if (d->n == 0 && addr_parse(d->host, strlen(d->host), &literal) == 0)
		add_addr(d, &literal);
	if (d->n) {
		loop_defer_arm(d->turn);
	} else {
		r = lookup_start(d);
		if (r < 0)
			return r;
		if (dial_cache_get(d->o.cache, d->host, &probe, 1))
			loop_timer_in(d->race, STALE_USEC);
	}
	*ret = TAKE(d);
	return 0;
}

int dial_start(struct loop *l, const char *host, uint16_t port, const struct dial_opts *o, dial_fn *fn,
	       void *data, struct dial **ret)
{
	return start(l, host, port, o, fn, NULL, data, ret);
}

int dial_lookup(struct loop *l, const char *host, const struct dial_opts *o, dial_lookup_fn *fn,
		void *data, struct dial **ret)
{
	return start(l, host, 0, o, NULL, fn, data, ret);
}
