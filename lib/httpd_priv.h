#pragma once
/*
 * httpd_priv: what the two halves of httpd know of each other, and nobody else: httpd_listen.c has the
 * listening sockets and decides who gets in; httpd.c has the connections, their requests and the answers.
 */
#include "lib/httpd.h"

struct httpd_listener;
struct httpd_route_entry;

struct httpd {
	struct loop *loop;
	struct httpd_opts o;
	char *server;
	struct httpd_listener *listeners;
	struct httpd_conn *conns, *ending; /* by since_usec */
	unsigned int n_conns, burst; /* of both; burst: the most there were since they were few */
	struct loop_timer *calm;     /* a while after a burst */
	uint64_t short_said_usec;
	struct httpd_route_entry *routes;
	size_t n_routes;
	bool dead;
};

enum conn_state {
	CONN_STATE_IDLE, /* between requests */
	CONN_STATE_HEAD, /* part of a head is here */
	CONN_STATE_BODY,
	CONN_STATE_BUSY, /* the handler has it */
	CONN_STATE_ENDING, /* in httpd.ending: the stream writes what is left, and waits for the other side's end */
};

struct httpd_conn {
	struct httpd_conn *prev, *next;
	struct httpd *h;
	struct stream *s;
	struct loop_timer *timer;
	struct httpd_peer peer;
	enum conn_state state;
	uint64_t since_usec; /* accepted, the last request answered, or ENDING */
	struct httpd_req *q;
	size_t unsent; /* of an answer, when the idle timer was set */
	bool dead;
};

/* httpd.c */

/* Takes fd on success. */
int httpd_conn_new(struct httpd *h, int fd, struct tls_ctx *tls, const struct httpd_peer *peer);
/* The client is gone, has to go, or the server goes: whoever holds the request hears of it. */
void httpd_conn_abort(struct httpd_conn *c);

/* httpd_listen.c */

/* Whether a listener has given its spare descriptor to a connection. */
bool httpd_listen_spare_away(const struct httpd *h);
/* A descriptor may have come free: before anything else of this program has it. Who waited is served at once. */
void httpd_listen_take_spares(struct httpd *h);
