#pragma once
/*
 * relay: a DERP server as a library: forwards packets between clients by their node keys.
 *
 * Runs on one loop and takes its connections from an HTTP server, so that it serves alone
 * (kernscale-relay) and inside the coordinator. Owns the clients and what is queued for them; never
 * blocks on a slow client, never looks into a packet beyond the disco magic, allocates nothing for
 * a packet that goes straight through. One struct relay belongs to one thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/httpd.h"
#include "lib/key.h"
#include "lib/loop.h"

#define RELAY_CLIENTS_MAX   65536 /* where nobody says otherwise */
#define RELAY_GREETERS_MORE 64	  /* likewise */

struct relay;

enum relay_verdict {
	RELAY_VERDICT_REFUSE,
	RELAY_VERDICT_ADMIT,
	RELAY_VERDICT_LATER, /* relay_admit() will be called with the ticket */
};

/* Asked once for each connection, after the client has proven its key. src: family 0 if unknown. */
typedef enum relay_verdict relay_admit_fn(void *data, uint64_t ticket, const struct key *node,
					  const struct addr *src);

/* Zeros mean the default in brackets. */
struct relay_config {
	const struct key_pair *key; /* the server's; copied */
	relay_admit_fn *admit;	    /* NULL: everybody may come */
	void *admit_data;
	/* Connections [RELAY_CLIENTS_MAX]; 16 of one key. While all are taken, the address or /64 (not loopback) that has the most of
	 * them, if more than a quarter, makes room for those that have fewer. */
	unsigned int max_clients;
	unsigned int greeters_more;  /* that may be greeting then [RELAY_GREETERS_MORE] */
	unsigned int max_greeting;   /* not yet admitted [1024] */
	unsigned int queue_packets;  /* for each client and kind (disco, other) [32] */
	size_t queue_bytes;	     /* all that is queued for all clients [256 MiB] */
	size_t blocked_bytes;	     /* all that full sockets left over; who is blocked for longest makes room [128 MiB] */
	size_t partial_bytes;	     /* all frames that are not whole yet; the oldest makes room [64 MiB] */
	uint64_t write_usec;	     /* a client that takes nothing for so long is closed [2 s] */
	uint64_t greet_usec;	     /* for ClientInfo, and for the verdict [10 s] */
	uint64_t keepalive_usec;     /* between KeepAlive frames, 0–5 s are added [60 s] */
	uint64_t rate_bytes_per_sec; /* what one client may send; 0: no limit */
	uint64_t rate_burst_bytes;   /* raised to one whole frame */
};

enum relay_drop {
	RELAY_DROP_UNKNOWN_DEST,
	RELAY_DROP_GONE,
	RELAY_DROP_QUEUE_HEAD, /* the oldest made room */
	RELAY_DROP_QUEUE_TAIL, /* no memory, or queue_bytes reached */
	RELAY_DROP_WRITE_ERROR,
	RELAY_DROP_COUNT,
};

enum relay_kind {
	RELAY_KIND_DISCO,
	RELAY_KIND_OTHER,
	RELAY_KIND_COUNT,
};

/* Gauges first, then counters that only grow. */
struct relay_stats {
	uint64_t connections, greeting, home_connections, not_ideal_connections;
	uint64_t keys, dup_keys, dup_connections;
	uint64_t queued_bytes, blocked_bytes, partial_bytes;
	uint64_t accepts, refused, over_limit;
	uint64_t packets_received, bytes_received, packets_sent, bytes_sent;
	uint64_t packets_received_kind[RELAY_KIND_COUNT];
	uint64_t packets_dropped[RELAY_DROP_COUNT][RELAY_KIND_COUNT];
	uint64_t bytes_dropped[RELAY_DROP_COUNT][RELAY_KIND_COUNT];
	uint64_t got_ping, sent_pong, keepalives;
	uint64_t gone_disconnected, gone_not_here;
	uint64_t home_moves_in, home_moves_out;
	uint64_t write_timeouts, greet_timeouts, protocol_errors, throttled;
	uint64_t made_room; /* closed, because too much was queued for all, or in frames that were not whole */
};

int relay_new(struct loop *l, const struct relay_config *c, struct relay **ret);
/* Closes all connections. */
void relay_free(struct relay *r);
DEFINE_CLEANUP(struct relay *, relay_free)

/* Serves /derp, /derp/probe, /derp/latency-check; the relay outlives the requests of the server. */
int relay_route(struct relay *r, struct httpd *h);
/* httpd_fn for the upgrade itself, where the caller routes. data: the relay. */
void relay_upgrade(void *data, struct httpd_req *q);

/* The verdict on a ticket. One whose client has left meanwhile is ignored. */
void relay_admit(struct relay *r, uint64_t ticket, bool allow);

const struct key *relay_public_key(const struct relay *r);
const struct relay_stats *relay_stats(const struct relay *r);
const char *relay_drop_name(enum relay_drop d);
bool relay_has_client(const struct relay *r, const struct key *node);
/* Closes all connections of a node: one that was removed from the mesh. Returns how many. */
unsigned int relay_disconnect(struct relay *r, const struct key *node);
