#pragma once
/*
 * client: one client's connection to the relay, its key's set of connections, and who sent to whom.
 *
 * Inside of relay/ only. relay.c owns life and time (making, timers, limits); client.c reads frames
 * and writes them; peers.c keeps the keys, site.c where clients come from. relay_client_drop() only marks a connection; it is taken
 * apart on the loop's next turn, so that nobody loses an object in hand, and one loss that leads to
 * the next (a notice that cannot be written) does not recurse.
 */
#include <stdbool.h>
#include <stdint.h>

#include "lib/hash.h"
#include "lib/loop.h"
#include "lib/stream.h"
#include "proto/derp.h"
#include "relay/packet.h"
#include "relay/relay.h"

#define UTHASH_NO_ABORT
#define HASH_NONFATAL_OOM	 1
/* Clients choose their keys. */
#define HASH_FUNCTION(p, len, v) ((v) = (unsigned int)hash_keyed((p), (len)))
#include <uthash.h>
#include <utlist.h>

#define RELAY_JITTERS	  6	       /* seconds that a client's KeepAlives are later than others' */
#define RELAY_WRITE_BATCH (64u << 10)  /* leaves the process at the latest */
#define RELAY_OUT_MAX	  (512u << 10) /* our own ceiling of the stream's queue */
#define RELAY_INFO_MAX	  (16u << 10)  /* ClientInfo we take; stock ones have 104 to 400 bytes */
#define RELAY_BULK	  (16u << 20)
#define RELAY_EDGES_ALL	       (1u << 20) /* of all, some 130 MiB: a thousand clients, each of which sends to each other */
#define RELAY_KEY_CLIENTS	  16	       /* connections of one key */
#define RELAY_EDGES_MAX	  16384	       /* senders remembered for one connection */

enum client_state {
	CLIENT_STATE_GREETING, /* ServerKey is out, ClientInfo not in */
	CLIENT_STATE_WAITING,  /* for the verdict */
	CLIENT_STATE_ACTIVE,
	CLIENT_STATE_DEAD, /* dropped, to be taken apart */
};

struct relay_peer;
struct relay_client;

struct relay_edge_id {
	uint64_t src, dst; /* of peer and client */
};

/* "src has sent to dst on this connection": dst is told when src leaves. */
struct relay_edge {
	struct relay_edge_id id;
	struct relay_peer *peer;
	struct relay_client *client;
	struct relay_edge *out_prev, *out_next; /* of peer */
	struct relay_edge *in_prev, *in_next;	/* of client */
	UT_hash_handle hh;
};

/* One key with one or more connections. */
struct relay_peer {
	struct key key;
	uint64_t id;
	struct relay_client *clients; /* peer_prev, peer_next */
	struct relay_client *active;
	unsigned int n_clients;
	struct relay_edge *out;
	UT_hash_handle hh;
};

/* Where clients come from: one customer of a provider (addr_site()). */
struct relay_site {
	struct addr at;
	struct relay_client *clients; /* site_prev, site_next; the oldest first */
	unsigned int n;
	bool crowded; /* in relay->crowded */
	struct relay_site *crowded_prev, *crowded_next;
	UT_hash_handle hh;
};

struct relay_client {
	struct relay *relay;
	struct stream *stream;
	struct relay_peer *peer; /* NULL before ACTIVE */
	struct relay_site *site; /* NULL: it counts nowhere; so before ACTIVE */
	enum client_state state;
	uint64_t id; /* also the admission ticket */
	struct derp_reader reader;
	struct addr remote;
	struct key key;

	bool preferred, not_ideal;
	bool listed;  /* in relay->greeting */
	bool corked;  /* in relay->batch */
	bool blocked; /* in relay->blocked: the socket is full */
	bool paused;  /* in relay->throttled */
	bool pong_due;
	uint8_t pong[DERP_PING_LEN];
	uint64_t last_spoke;	/* order of activity within the peer */
	uint64_t since_usec;	/* of this state */
	uint64_t progress_usec; /* of the blocked socket */
	size_t progress_left;
	size_t blocked_bytes; /* in the stream when it blocked, counted in relay->stats */
	size_t partial_bytes; /* in reader, counted in relay->stats; in relay->partial while not 0 */
	int64_t tokens; /* rate limit, bytes */
	uint64_t tokens_usec;
	uint8_t gone_tokens; /* PeerGone 01: one a second, three at once */
	uint64_t gone_usec;

	struct packet_queue queue[RELAY_KIND_COUNT];
	struct relay_edge *in;
	unsigned int n_in;
	uint64_t last_src; /* peer id of the newest edge used */

	struct relay_client *prev, *next; /* relay->clients */
	struct relay_client *peer_prev, *peer_next;
	struct relay_client *site_prev, *site_next;
	struct relay_client *beat_prev, *beat_next;
	struct relay_client *batch_prev, *batch_next;
	struct relay_client *wait_prev, *wait_next; /* relay->greeting, later relay->blocked */
	struct relay_client *slow_prev, *slow_next; /* relay->throttled */
	struct relay_client *part_prev, *part_next; /* relay->partial */
	struct relay_client *doom_next;		    /* relay->doomed */
	uint64_t beat_usec; /* the next KeepAlive */
	bool beating;	    /* in relay->beat */
};

struct relay {
	struct loop *loop;
	struct relay_config cfg;
	struct key_pair key;
	struct relay_stats stats;
	struct packet_pool pool;
	uint64_t next_id, spoke;
	unsigned int n_active;

	struct relay_client *greeting; /* not yet admitted, oldest first */
	struct relay_client *clients;
	struct relay_peer *peers;
	struct relay_edge *edges;
	struct relay_site *sites, *crowded; /* crowded: three at most */
	struct relay_client *batch, *blocked, *throttled, *doomed;
	struct relay_client *partial; /* whose frame began first is first */
	bool bulky; /* so much was held for slow clients that the heap is to be given back afterwards */
	struct loop_defer *reaper;

	struct loop_timer *tick; /* when a KeepAlive or the end of a greeting is due */
	uint64_t tick_usec;	 /* that time, while armed */
	struct loop_timer *fast; /* while somebody is blocked or throttled */
	/* Each in order of time, because all its clients have the same period. */
	struct relay_client *beat[RELAY_JITTERS];
};

/* client.c */
extern const struct stream_ops relay_client_ops;
void relay_client_admitted(struct relay_client *c);
void relay_client_keepalive(struct relay_client *c);
void relay_client_gone(struct relay_client *c, const struct key *peer, enum derp_gone_reason why);
/* Ends a batch: what was gathered for each client leaves. */
void relay_flush(struct relay *r);
/* Goes on reading after a pause, if tokens allow. */
void relay_client_unthrottle(struct relay_client *c, uint64_t now);

/* relay.c */
void relay_client_drop(struct relay_client *c, const char *why);
void relay_client_block(struct relay_client *c);
void relay_client_unblock(struct relay_client *c);
void relay_client_throttle(struct relay_client *c);
/* So much of a frame is here. fresh: another frame than before. */
void relay_client_partial(struct relay_client *c, size_t bytes, bool fresh);
void relay_client_beat(struct relay_client *c); /* its next KeepAlive is a period away */
void relay_greeting_end(struct relay_client *c); /* leaves the list of those not yet admitted */
bool relay_client_place(struct relay_client *c); /* one for it, which has greeted, as far as there is */

/* site.c */
int relay_site_join(struct relay_client *c); /* admitted; one from this host counts nowhere; -ENOMEM */
void relay_site_leave(struct relay_client *c);
/* Who gives up his place for one from there, all being taken; NULL: nobody. */
struct relay_client *relay_site_yields(const struct relay *r, const struct addr *from);

/* peers.c */
struct relay_peer *relay_peer_find(const struct relay *r, const struct key *k);
int relay_peer_join(struct relay_client *c); /* the newest connection is the active one; -ENOMEM */
void relay_peer_leave(struct relay_client *c); /* tells the others when the key is gone */
void relay_peer_spoke(struct relay_client *c);
/* Remembers that src wrote to this connection. */
void relay_edge_note(struct relay_client *dst, struct relay_peer *src);
void relay_edges_drop(struct relay_client *c);
