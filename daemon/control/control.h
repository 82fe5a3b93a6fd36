#pragma once
/*
 * control: the conversation with the coordination server: key, login, map stream, updates, logout.
 *
 * Owns the connection and every request on it; borrows loop, TLS context and netmap, which it feeds.
 * Decides by policy.h; what has to be on disk before it is used goes out through the ops, which say
 * when it is. Repeats without end with growing pauses; only what a repetition cannot change makes it
 * stop: a refused auth key, a server with another key, an expired node key without a login.
 * Not to be freed inside its ops: control_stop() there, free later.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/netmap/netmap.h"
#include "lib/cleanup.h"
#include "lib/dial.h"
#include "lib/key.h"
#include "lib/loop.h"
#include "lib/tls.h"
#include "proto/tailcfg.h"

enum control_state {
	CONTROL_STATE_STOPPED,
	CONTROL_STATE_NEEDS_LOGIN,	  /* no node key, or the server does not know it: control_login() */
	CONTROL_STATE_CONNECTING,
	CONTROL_STATE_AUTHENTICATING,	  /* registering, or waiting for a person: on_auth_url */
	CONTROL_STATE_SYNCING,		  /* registered, the first map has not come yet */
	CONTROL_STATE_RUNNING,		  /* the map is live */
	CONTROL_STATE_NEEDS_APPROVAL,	  /* an administrator has to authorize the machine */
	CONTROL_STATE_EXPIRED,		  /* the node key: control_login() */
	CONTROL_STATE_SERVER_KEY_CHANGED, /* control_accept_server_key() */
};
const char *control_state_name(enum control_state s);

struct control_ops {
	/* text: one line about why, "" when there is nothing to say. */
	void (*on_state)(void *data, enum control_state state, const char *text);
	/* The netmap has changed. first: the first map of a stream, so absent things are gone. */
	void (*on_map)(void *data, const struct netmap_changes *changes, bool first);
	/* Somebody has to visit it. */
	void (*on_auth_url)(void *data, const char *url);
	/* permanent: given up, the auth key is forgotten; else it is tried again. */
	void (*on_login_failed)(void *data, const char *text, bool permanent);
	/*
	 * A new node key (zero: logged out) and the one before: store both, synced, before returning 0.
	 * The kernel goes on with the old one until on_registered.
	 */
	int (*on_node_key)(void *data, const struct key_pair *node, const struct key_pair *old);
	/* The server has taken the node key; login: whose node, "" = not told. */
	void (*on_registered)(void *data, const struct key_pair *node, const char *login);
	/* The server's key was seen for the first time, or accepted anew: store it. */
	int (*on_server_key)(void *data, const char *server_url, const struct key *key);
	/* The server asks that a person looks at a page. Optional. */
	void (*on_browse)(void *data, const char *url);
};

struct control_config {
	const char *server_url; /* http://host[:port] or https:// */
	struct tls_ctx *tls;	/* client context; needed for https:// */
	uint32_t mark;		/* of all sockets; 0 = none */
	struct dial_cache *dial_cache;
	const struct key_pair *machine, *node, *old_node; /* node may be zero */
	bool registered;				  /* node has been accepted before */
	const struct key *disco;			  /* public */
	const struct key *server_key; /* pinned; NULL = never seen */
	struct netmap *netmap;	      /* outlives control */
};

struct control;

int control_new(struct loop *l, const struct control_config *cfg, const struct control_ops *ops,
		void *data, struct control **ret);
/* Closes everything, wipes keys. The server notices the end of the stream. */
void control_free(struct control *c);
DEFINE_CLEANUP(struct control *, control_free)

/* With a node key: connects, registers, streams. Without: NEEDS_LOGIN. */
void control_start(struct control *c);
/* Ends the conversation; the map stays as it is. */
void control_stop(struct control *c);

/*
 * Logs in, starting if need be. auth_key: copied, wiped after use; NULL = a person will do it. A node the
 * server still knows sends no key. force_new_key: a new node key in any case. -EINVAL: no such key can be.
 */
int control_login(struct control *c, const char *auth_key, bool force_new_key);
/* Tells the server (10 s at most), forgets the node keys whatever it says, and stops. fn once, with 0 or what
 * kept the server from hearing it. */
typedef void control_logout_fn(void *data, int r);
int control_logout(struct control *c, control_logout_fn *fn, void *data);
/* After SERVER_KEY_CHANGED: takes the key the server shows now. */
int control_accept_server_key(struct control *c);

/* Own state, complete each time. The server is told when something differs, after a moment in which
 * more may come. Latencies alone do not count. -ENOMEM. */
int control_set_hostinfo(struct control *c, const struct tailcfg_hostinfo *h); /* keeps the NetInfo */
void control_set_netinfo(struct control *c, const struct tailcfg_netinfo *n);
int control_set_endpoints(struct control *c, const struct tailcfg_endpoint *e, size_t n);
void control_set_disco(struct control *c, const struct key *disco);

/* Something about the network has changed: no pause any more, and a dead stream is found out now. */
void control_kick(struct control *c);

struct control_status {
	enum control_state state;
	const char *text;     /* borrowed */
	const char *auth_url; /* "" = none */
	const char *server_url;
	uint64_t last_message; /* loop time of the last complete map message; 0 = none yet */
	unsigned int maps;     /* messages since start */
	uint64_t bytes;	       /* of them */
	bool map_live;
	struct key offered_key; /* with SERVER_KEY_CHANGED */
};
void control_status(const struct control *c, struct control_status *ret);
