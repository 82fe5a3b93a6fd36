#pragma once
/* internal: what the files of daemon/control share. Nobody else includes it. */
#include "daemon/control/control.h"
#include "daemon/control/policy.h"
#include "daemon/control/session.h"
#include "lib/buf.h"
#include "lib/httpc.h"
#include "proto/ts2021.h"

/* One running request; st is NULL while there is none. */
struct control_request {
	struct control *c;
	struct h2_stream *st;
	int status; /* 0 before the head has come */
	struct buf body;
	struct loop_timer *deadline; /* NULL: none */
};

struct control {
	struct loop *loop;
	const struct control_ops *ops;
	void *data;

	char *server_url;
	struct tls_ctx *tls;
	uint32_t mark;
	struct dial_cache *dial_cache;
	struct key_pair machine, node, old_node;
	struct key disco;
	struct netmap *nm;

	enum control_state state;
	char text[256];
	bool running;	 /* started, not stopped */
	bool registered; /* by word of an earlier run, or of this one */

	/* Getting there. */
	struct key pinned;	/* the server's key; zero = not known yet */
	struct key offered_key; /* what it showed instead */
	bool need_key;		/* ask it before the next connection */
	bool parked;		/* nothing to do until the user, or a timer, says so */
	struct httpc *key_request;
	struct session *session;
	struct loop_timer *retry; /* armed: wait before the next step */
	unsigned int failures;

	/* Login. */
	bool need_register, login_wanted, force_new_key, fresh_key, use_auth_key;
	char *auth_key; /* secret */
	char *followup; /* AuthURL being waited for */
	unsigned int urls; /* that this login was sent to */
	struct control_request reg;

	/* Map. */
	struct control_request stream;
	struct ts2021_frames frames;
	struct loop_timer *watchdog; /* with a stream: it is dead; without: it may be tried again */
	struct loop_timer *expiry, *pong;
	bool was_expired; /* our own key, when that was last acted upon */
	bool map_live, was_big;
	uint64_t live_since;
	unsigned int stream_failures;
	unsigned int flaps; /* times the map was live and did not stay so */
	uint64_t last_message, bytes;
	unsigned int maps;
	char *last_ping, *last_browse;
	unsigned int pings; /* answered of late */
	uint64_t ping_time;
	struct httpc *ping_request;
	struct h2_stream *ping_stream;

	/* What we say of ourselves. */
	struct tailcfg_hostinfo hostinfo;
	struct tailcfg_endpoint *endpoints;
	size_t n_endpoints;
	bool has_endpoints;
	struct control_request lite;
	struct buf told, telling; /* texts: what the server knows, what is on its way */
	struct loop_timer *tell;  /* debounce and back-off */
	unsigned int lite_failures, tokens;
	uint64_t token_time;

	/* Logout. */
	struct control_request bye;
	control_logout_fn *logout_fn;
	void *logout_data;
	struct loop_timer *logout_deadline;
};

/* control.c: does whatever is to be done next; may be called at any time. */
void control_advance(struct control *c);
void control_set_state(struct control *c, enum control_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* A step failed: pause, then go on. The session is kept where keep_session. */
void control_retry(struct control *c, bool keep_session, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void control_drop_session(struct control *c);
/* What has gone wrong of late, however it did: what pauses go by. */
unsigned int control_trouble(const struct control *c);
uint32_t control_random(void);

/* request.c */
int control_request_start(struct control *c, struct control_request *q, const char *method,
			  const char *path, const struct buf *body, const struct h2_client_ops *ops);
/* Ends it without a word to anyone. */
void control_request_cancel(struct control_request *q);
/* In on_end: true when st is what q runs, which it then no longer does. */
bool control_request_over(struct control_request *q, const struct h2_stream *st);
void control_request_on_headers(void *data, struct h2_stream *st, int status);
void control_request_on_data(void *data, struct h2_stream *st, const uint8_t *p, size_t n);

/* login.c */
void control_register(struct control *c);
void control_not_known(struct control *c); /* the server says so: it has to say what is to be done */
void control_login_reset(struct control *c); /* forgets wish, key and URL */
void control_say_goodbye(struct control *c);
/* Forgets the node keys, stops, and tells who asked for the logout: r is what the server did not hear. */
void control_logged_out(struct control *c, int r);

/* map.c */
void control_stream(struct control *c);
void control_stream_drop(struct control *c);
/* Goes on with what the stream has brought, until there is no more or it has had its time. */
void control_stream_read(struct control *c);
void control_expiry_check(void *data);
void control_watchdog(void *data);
/* The state that the map by itself gives. */
void control_map_state(struct control *c);

/* update.c */
void control_update(struct control *c); /* tells the server what is new, when it is time */
void control_update_lost(struct control *c);
int control_encode_map_request(struct control *c, bool stream, bool latencies, struct buf *out);

/* ping.c */
void control_ping(struct control *c, const struct tailcfg_ping *p);
void control_ping_cancel(struct control *c);
/* The answer to a request in wire form that came through the server; pure. */
int control_c2n_answer(const void *request, size_t len, struct buf *out);
