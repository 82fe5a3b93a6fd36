#pragma once
/*
 * path: which way packets for one peer go (relay, direct), and why.
 *
 * The active part of a peer: made when there is traffic or a ping, freed when both are over. Owns
 * the candidate list and the outstanding pings. Decides in path_next(); acts only through struct
 * path_ops and takes the time from its caller, so that tests drive it without sockets. Drawn and
 * explained in docs/paths.md. Never blocks; allocates only within CANDIDATES_MAX and
 * PATH_PINGS_MAX.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/path/candidates.h"
#include "lib/addr.h"
#include "lib/cleanup.h"
#include "proto/disco.h"

/* The numbers of stock nodes, which interlock: see docs/paths.md. */
#define PATH_ACTIVE_USEC    UINT64_C(45000000) /* a peer is active so long after a send */
#define PATH_HEARTBEAT_USEC UINT64_C(3000000)
#define PATH_TRUST_USEC	    UINT64_C(6500000)  /* after a pong, UDP alone is used */
#define PATH_PING_USEC	    UINT64_C(5000000)  /* a ping without answer is forgotten */
#define PATH_GAP_USEC	    UINT64_C(5000000)  /* between discovery pings to one address */
#define PATH_UPGRADE_USEC   UINT64_C(60000000) /* while direct: look for something better */
#define PATH_GOOD_USEC	    UINT64_C(5000)     /* a latency that needs no better one */
/* Ours. */
#define PATH_PINGBACK_USEC UINT64_C(1000000) /* at most one ping in answer to a ping */
#define PATH_MISS_USEC	   UINT64_C(1000000) /* plus the latency: then a heartbeat's pong is missed */
#define PATH_SUSPECT_USEC  UINT64_C(1000000) /* heartbeat while the path is doubtful */
#define PATH_SILENT_USEC                                                                           \
	UINT64_C(2000000) /* a relayed ping without answer: the daemon is silent \
					     */
#define PATH_ALIVE_USEC                                                                            \
	UINT64_C(12000000) /* the kernel of a peer that is sent to answers in 10 to 11 s */
#define PATH_ROAM_USEC UINT64_C(2000000) /* an address the kernel chose has so long to answer */
#define PATH_ADOPT_SEC 180		 /* a session older than that is not adopted at start */
#define PATH_PINGS_MAX 64
/* CallMeMaybe that are followed by pings: stock nodes send one or two in 5 s, and a liar's would turn
 * each message into a ping to every address it names. */
#define PATH_CALLS_BURST    4
#define PATH_CALL_GAP_USEC  UINT64_C(1000000)

enum path_state {
	PATH_STATE_RELAY,    /* the kernel sends to the relay address */
	PATH_STATE_DIRECT,   /* a pong came within PATH_TRUST_USEC: the kernel sends to it */
	PATH_STATE_DOUBTFUL, /* no pong: relay address, and a copy to where the last pong came from
			      */
	PATH_STATE_HELD,     /* no pong, but only the peer's daemon is dead: stays direct */
};

enum path_event {
	PATH_EVENT_PONG,	 /* a candidate answered and is now the best */
	PATH_EVENT_ADOPTED,	 /* found in the kernel at start */
	PATH_EVENT_TRUST_LOST,	 /* pongs are missing */
	PATH_EVENT_KERNEL_ALONE, /* pongs are missing, its daemon is silent, its kernel answers */
	PATH_EVENT_BEST_LOST,	 /* the best address is given up */
	PATH_EVENT_LINK_CHANGED,
	PATH_EVENT_IDLE,
	PATH_EVENT_RESET, /* the peer started afresh */
};
#define PATH_STATES 4
#define PATH_EVENTS 8

enum path_state path_next(enum path_state s, enum path_event e);
const char *path_state_name(enum path_state s);
const char *path_event_name(enum path_event e);

/* Is a better than b? (disco.md 8: private and IPv6 addresses have a bonus, small gains do not
 * count.) */
bool path_better(const struct endpoint *a, uint64_t a_latency_usec, const struct endpoint *b,
		 uint64_t b_latency_usec);

struct path;

struct path_ops {
	/* Sends a disco ping with a fresh txid. to NULL = by relay. 0, or a negative errno. */
	int (*ping)(void *peer, const struct endpoint *to, struct disco_txid *ret);
	void (*call_me)(void *peer);
	/* What the kernel shall send to; NULL = the relay address. */
	void (*set_endpoint)(void *peer, const struct endpoint *e);
	/* Please read the kernel's counters soon. */
	void (*dump)(void *peer);
	void (*changed)(void *peer, enum path_state old, enum path_event why);
};

/* Shared by all paths of a node. */
struct path_env {
	const struct path_ops *ops;
	uint64_t dump_gap_usec; /* how far apart dumps of the counters are */
};

struct path_ping {
	struct disco_txid txid;
	struct endpoint to; /* family 0 = by relay */
	uint32_t user;	    /* 0 = ours */
	uint64_t sent;
};

/* What the kernel says of a peer. */
struct path_counters {
	uint64_t taken; /* when the dump was begun */
	bool received, sent; /* more than at the dump before */
	bool direct; /* endpoint is set, else the kernel has the relay address */
	struct endpoint endpoint;
	bool at_start;		    /* first dump of this run: what is found may be adopted */
	uint64_t handshake_age_sec; /* UINT64_MAX = never */
};

struct path {
	const struct path_env *env;
	void *peer;
	enum path_state state;
	struct candidates cands;
	struct path_ping *pings; /* oldest first */
	uint8_t n_pings, cap_pings;
	uint8_t missed; /* heartbeats in a row without pong */
	bool pinned;	/* the kernel roamed here: no change for a better one while it answers */
	bool gone;	/* a relay said that the peer is not there */
	bool call_due;	/* it has not heard our addresses since traffic began */
	bool waiting;	/* held, and its daemon answers by relay: the best must answer now */
	bool doubted;	/* held, and something came by relay: its daemon is being asked */

	struct endpoint best; /* family 0 = none */
	struct endpoint told; /* best, as ops->changed() last heard it */
	struct addr local;    /* ours on the way to it; family 0 = not known */
	uint64_t latency_usec;
	uint64_t trusted_until;

	uint64_t born;
	uint64_t sent;	 /* last outbound trigger */
	uint64_t ponged; /* last pong by UDP */
	uint64_t round;	 /* last discovery round */
	uint64_t pinged_back;
	uint64_t called; /* last CallMeMaybe without candidates */
	uint64_t call_gap_usec;
	/* The last answer to a ping of ours. Nothing else proves that the peer's daemon lives: whoever
	 * recorded a message can send it again, and a relay can name any sender. */
	uint64_t heard;
	uint64_t asked;	    /* held: last ping after a hint that the daemon is back */
	uint64_t call_full; /* when PATH_CALLS_BURST may be answered again */
	uint64_t probed;    /* first relayed ping of this doubt; 0 = none */
	uint64_t heard_udp; /* last ping by UDP */

	struct endpoint
	    kernel;   /* what the kernel has, as far as we know; family 0 = relay address */
	uint64_t set; /* when we last changed that */
	bool counted; /* there was a dump since it began: what the next one says is later than that */
	uint64_t rx_grew;	   /* on a direct path */
	uint64_t unanswered_since; /* we send and nothing comes back; 0 = not so */
	struct endpoint roam; /* the kernel went there by itself, and it has not answered yet */

	uint64_t beat_at, miss_at, roam_at, wait_at; /* 0 = not armed */
};

/* NULL without memory. env outlives the path. */
struct path *path_new(const struct path_env *env, void *peer, uint64_t now);
void path_free(struct path *p);
DEFINE_CLEANUP(struct path *, path_free)

/* Events. Each may call ops. */
void path_traffic(struct path *p, uint64_t now); /* something was sent to the peer */
void path_relay_traffic(struct path *p,
			uint64_t now); /* the same, and it came to the relay address */
void path_set_endpoints(struct path *p, const struct endpoint *v, size_t n, uint64_t now);
/* 1: answer it; 0: a duplicate, be silent. */
int path_ping_heard(struct path *p, const struct endpoint *from, const struct addr *local,
		    const struct disco_txid *txid, uint64_t now);
/* The sent ping that txid answers, -ENOENT for none. local NULL: it came by relay. */
int path_pong(struct path *p, const struct disco_txid *txid, const struct addr *local, uint64_t now,
	      struct path_ping *ret);
void path_call_me(struct path *p, const struct endpoint *v, size_t n, uint64_t now);
void path_relay_heard(struct path *p, bool packet, uint64_t now); /* packet: WireGuard, not disco */
void path_gone(struct path *p);
void path_counters(struct path *p, const struct path_counters *c, uint64_t now);
void path_link_changed(struct path *p, uint64_t now);
/* Our own addresses changed: tell the peer, and ping it from the new ones. */
void path_renew(struct path *p, uint64_t now);
void path_reset(struct path *p, uint64_t now);
/* A person asks: by the trusted path alone, else by all and by relay. Returns the pings sent. */
int path_ping_user(struct path *p, uint32_t user, uint64_t now);

/* Time. path_tick() does what is due; path_due() says when it wants to be called next (UINT64_MAX =
 * never). */
void path_tick(struct path *p, uint64_t now);
uint64_t path_due(const struct path *p);

bool path_active(const struct path *p, uint64_t now);
bool path_releasable(const struct path *p, uint64_t now);
/* The kernel's counters of this peer are of interest. */
bool path_watched(const struct path *p, uint64_t now);
