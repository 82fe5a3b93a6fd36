#pragma once
/*
 * httpd: a small HTTP/1.1 server for TCP, TLS and Unix sockets.
 *
 * Routes by method and path. A handler answers now, or later (the request waits, and the handler is
 * told when the client goes away meanwhile), or takes the connection over (upgrades). Limits: all
 * connections, connections of one address, head and body sizes, time for a head, idle time. One that
 * has had its last answer counts until the client has read it and ended, too. Where connections,
 * descriptors or memory end, those that are only waiting for that end and then TCP connections that
 * have asked nothing for longest make room, and that is logged once a minute; a Unix socket has a
 * descriptor in reserve, for one at a time.
 * Serves the public listeners and the local API alike; who asks on a Unix socket is in struct httpd_peer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/addr.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/http.h"
#include "lib/loop.h"
#include "lib/stream.h"

#define HTTPD_GROUPS_MAX 64

struct httpd;
struct httpd_req;

/* Asked at every head for which there is a route, before anything of a body is kept. False: it has refused by
 * httpd_respond*(). */
typedef bool httpd_gate_fn(void *data, struct httpd_req *q);

struct httpd_opts {
	unsigned int max_conns;		 /* 0 = 4096 */
	/* 0 = 256; an IPv6 /64 is one. Loopback counts only in the total, as do root and our own user on a Unix socket; any
	 * other user there may have a quarter of max_conns. */
	unsigned int max_conns_per_addr;
	uint64_t head_usec;		 /* from the first byte (or accept) to the whole request; 0 = 10 s */
	uint64_t idle_usec;		 /* between requests; 0 = 60 s */
	const char *server;		 /* Server header; NULL = none */
	httpd_gate_fn *gate;		 /* NULL: everybody may ask */
	void *gate_data;
};

struct httpd_peer {
	bool is_unix, is_tls;
	struct endpoint remote; /* zero for Unix sockets */
	uid_t uid;		/* Unix sockets only, else (uid_t)-1 */
	gid_t gid;
	pid_t pid;
	size_t n_groups;
	gid_t groups[HTTPD_GROUPS_MAX];
};
/* True when the peer came by a Unix socket and is root, is uid, or has gid (own or supplementary). (uid_t)-1 and
 * (gid_t)-1 match nobody. */
bool httpd_peer_may(const struct httpd_peer *p, uid_t uid, gid_t gid);

int httpd_new(struct loop *l, const struct httpd_opts *o, struct httpd **ret); /* o may be NULL */
/* Closes listeners and connections; held requests get their on_gone. Taken streams are not touched. */
void httpd_free(struct httpd *h);
DEFINE_CLEANUP(struct httpd *, httpd_free)

/* Takes a listening socket on success (socket activation, tests). tls NULL: plain; a reference is taken. */
int httpd_listen_fd(struct httpd *h, int fd, struct tls_ctx *tls);
/* A socket for it, or negative errno. bound (may be NULL) tells the port that port 0 became. IPv6 "::" takes IPv4 as
 * well; on a kernel without IPv6 it is 0.0.0.0. */
int httpd_open_tcp(const struct endpoint *at, struct endpoint *bound);
/* Both in one. */
int httpd_listen_tcp(struct httpd *h, const struct endpoint *at, struct tls_ctx *tls, struct endpoint *bound);
/* A stale socket is replaced, one that somebody answers on is -EADDRINUSE. */
int httpd_listen_unix(struct httpd *h, const char *path, mode_t mode);
/* Stops accepting; what runs goes on. */
void httpd_stop_listening(struct httpd *h);
unsigned int httpd_conns(const struct httpd *h);

/*
 * The handler ends in one of: httpd_respond*, httpd_take, or returning without either, which holds the request until
 * httpd_respond is called later (set httpd_on_gone first).
 */
typedef void httpd_fn(void *data, struct httpd_req *q);

/* method NULL: any; GET serves HEAD too. A path that ends in '/' or '*' matches what begins with it (without the '*'),
 * "/" alone and all others match exactly; the longest wins. Routes are made before the first request comes. body_max: 0 = requests with a body are refused (413). No match: 404; path but not method: 405. */
int httpd_route(struct httpd *h, const char *method, const char *path, size_t body_max, httpd_fn *fn,
		void *data);

/* Valid until the request is answered, taken or gone. */
const struct http_head *httpd_head(const struct httpd_req *q);
struct http_str httpd_path(const struct httpd_req *q);
const uint8_t *httpd_body(const struct httpd_req *q, size_t *ret_len);
const struct httpd_peer *httpd_peer_of(const struct httpd_req *q);
struct loop *httpd_loop(const struct httpd_req *q);

/* One more header for the answer to come. */
void httpd_header(struct httpd_req *q, const char *name, const char *value);
/* The whole answer; q is gone afterwards. type NULL: no Content-Type. HEAD sends no body. */
void httpd_respond(struct httpd_req *q, int status, const char *type, const void *body, size_t len);
/* text/plain with a newline added. */
void httpd_respond_text(struct httpd_req *q, int status, const char *text);

/* A streamed answer (chunked): start, send…, end. send: -ENOBUFS when the reader is too slow (over 4 MiB queued),
 * -EPIPE when gone. q lives until httpd_end() or on_gone. */
int httpd_respond_start(struct httpd_req *q, int status, const char *type);
int httpd_send(struct httpd_req *q, const void *p, size_t n);
size_t httpd_pending(const struct httpd_req *q);
void httpd_end(struct httpd_req *q);
/* The client went away before the answer was complete. q dies when fn returns; do not answer. */
void httpd_on_gone(struct httpd_req *q, loop_fn *fn, void *data);

/*
 * Takes the connection over, nothing having been answered: the caller owns the stream (stream_set_ops at once), bytes
 * behind the head (and its declared body) are in stream_input(). q and its views are gone; the server does not count
 * the connection any more. The caller writes its own 101, or nothing at all (DERP's fast start).
 */
struct stream *httpd_take(struct httpd_req *q);
