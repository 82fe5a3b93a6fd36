#pragma once
/*
 * node_priv: the node's parts, for the daemon/node_*.c files only.
 *
 *   node.c        life, login server, states
 *   node_mesh.c   map → peers, kernel, paths; counters back
 *   node_net.c    relays, STUN, own endpoints, packets between sockets and paths
 *   node_api.c    what wgctl asks
 */
#include <stddef.h>

#include "lib/hash.h"

/* Without memory a table says so; by itself it would end the process with no word. */
#define HASH_NONFATAL_OOM 1
/* A server chooses the ids of peers: it must not be able to choose those that share a bucket. */
#define HASH_FUNCTION(p, len, v) ((v) = (unsigned int)hash_keyed((p), (len)))
#include <uthash.h>

#include "daemon/api/api.h"
#include "daemon/control/control.h"
#include "daemon/dataplane.h"
#include "daemon/netmap/netmap.h"
#include "daemon/node.h"
#include "daemon/path/endpoints.h"
#include "daemon/path/netcheck.h"
#include "daemon/path/paths.h"
#include "daemon/relay/derpc.h"
#include "daemon/relay/shuttle.h"
#include "daemon/state.h"
#include "lib/clockstep.h"
#include "lib/dial.h"
#include "lib/filewriter.h"
#include "lib/tls.h"

#define NODE_MAP_CACHE "netmap.json" /* in the state folder */

/* One peer that paths and the kernel know. */
struct node_peer {
	uint32_t index; /* its number for paths, and its relay address */
	int64_t id;	/* in the map */
	struct key key;
	bool reset; /* its sessions are dead: out of the kernel and in again */
	bool in_kernel;
	bool new_session; /* by relay; it has not been told our disco key in it yet */
	uint64_t rx_bytes, tx_bytes;
	int64_t handshake; /* Unix nanoseconds, 0 = never */
	struct endpoint endpoint; /* what the kernel had at the last dump */
	uint64_t written;	  /* when tx_bytes grew last, loop time */
	UT_hash_handle by_index, by_id;
};

struct node {
	struct loop *loop;
	const struct config *cfg;
	struct state *state;
	struct api *api;
	struct tls_ctx *tls;
	struct dial_cache *dial_cache;
	struct netmap *map;
	struct control *control;
	char control_url[PREFS_URL_MAX]; /* whom control talks to */
	struct dataplane *dp;
	struct derpc *derpc;
	struct paths *paths;
	struct netcheck *netcheck;

	struct node_peer *peers_by_index, *peers_by_id;

	struct loop_timer *paths_timer, *sync_timer, *removal_timer, *dump_timer, *save_timer, *state_timer, *left_timer,
		*expiry_timer, *netcheck_timer;
	struct clockstep *clockstep;
	unsigned int mesh_failures;	    /* to come up, in a row */
	unsigned int sync_failures;	    /* in a row */
	char left_error[DATAPLANE_ERROR_MAX]; /* why something is in the kernel that shall go; "" = nothing is */
	int key_error;			    /* why the kernel does not have our key; 0 = it has */
	uint64_t sync_took_usec, sync_done; /* the kernel is asked for everything each time: not too often */
	uint64_t dumped;		    /* loop time of the last dump */
	bool dumped_once;		    /* since the mesh came up */
	bool peers_missing;		    /* for want of memory: not all of the map have a struct node_peer and a path */
	struct filewriter *map_file;
	uint64_t save_next; /* the map is not written before that: the disk has other work */
	int save_error;	    /* why the map is not on disk; 0 = it is */
	int state_error, disco_error; /* why the state and the disco key are not; 0 = they are */

	int home; /* relay region; 0 = none */
	bool home_connected;
	char home_text[160]; /* why not */

	/* The attempt to come up, for those who wait. */
	bool up_failed;
	struct api_error up_error;
	bool up_failing;  /* goes on trying after more than one failure */
	bool fresh_login; /* the first map decides, not the one on disk */
	bool old_key_serves; /* the new one is not registered yet, and the mesh runs with the one before */
	char auth_url[PREFS_URL_MAX];

	struct logout *logout; /* under way; node_api.c */

	struct own_endpoints_cache own_cache;
	struct link_local_addr *locals; /* as of the last event of a link */
	size_t n_locals;
	struct link_path way4, way6; /* to the internet, as of then */
	struct lookup *lookups; /* node_net.c */
	struct probe *probes;

	/* Storage behind what api reads. */
	struct api_request *netcheck_waiting[16];
	size_t n_netcheck_waiting;
	struct status_answer *answer; /* node_api.c */
	struct addr self_addrs[8];
	size_t n_self_addrs;
};

/* node.c */
/* The key by which peers and relays know us; NULL: none yet. */
const struct key_pair *node_self(const struct node *n);
/* The state as it is now goes to the disk: at once, or else, besides the error that is returned, as soon as it can be. */
int node_state_save(struct node *n);
void node_refresh_hostinfo(struct node *n);
/* What this host is called, or wants to be. */
void node_hostname(const struct node *n, char *ret, size_t max);
int node_control_open(struct node *n); /* for the login server of the preferences */
enum api_backend_state node_backend_state(const struct node *n);
/* Forgets why the last attempt to come up failed. */
void node_up_begins(struct node *n);
/* A new disco key, which peers take for a restart of ours: so has a new device, and a clock set back.
 * The caller tells paths. */
void node_new_disco(struct node *n);
/* Brings the data plane up as soon as there is reason to. */
void node_mesh_start(struct node *n);
/* Takes it down, `wgctl down`: all that this node ever made. On failure error has one line, and it is tried again. */
int node_mesh_stop(struct node *n, char error[static DATAPLANE_ERROR_MAX]);
void node_forget(struct node *n);    /* logged out: keys, map, cache */

/* node_clock.c */
int node_clock_open(struct node *n);

/* node_mesh.c */
void node_map_changed(struct node *n, const struct netmap_changes *c, bool everything);
void node_set_filter(struct node *n); /* as the map has it; also before the mesh is up */
void node_peers_clear(struct node *n);
struct node_peer *node_peer_by_index(struct node *n, uint32_t index);
struct node_peer *node_peer_by_id(struct node *n, int64_t id);
void node_sync_soon(struct node *n);
void node_sync(void *data);
void node_remove_more(void *data);
void node_dump(void *data);
/* Counters not older than a moment. */
void node_dump_fresh(struct node *n);
void node_map_save(void *data);
filewriter_fn node_map_saved;
void node_expiry(void *data);
extern const struct dataplane_ops node_dataplane_ops;

/* node_net.c */
extern const struct paths_ops node_paths_ops;
extern const struct derpc_ops node_derpc_ops;
int node_net_open(struct node *n);
void node_net_close(struct node *n);
void node_net_map(struct node *n);	/* the relay map changed */
void node_net_start(struct node *n);	/* the mesh is up: relays, STUN */
void node_net_stop(struct node *n);
void node_net_link(struct node *n, unsigned int events);
void node_udp_packet(struct node *n, const struct endpoint *from, const struct addr *to,
		     const uint8_t *p, size_t len);
void node_relay_packet(struct node *n, uint32_t index, const uint8_t *p, size_t len);
const struct derp_region *node_region(const struct node *n, int64_t region);
const char *node_region_code(const struct node *n, int64_t region);

/* node_api.c */
extern const struct api_ops node_api_ops;
int node_api_init(struct node *n);
void node_api_done(struct node *n);
/* Answers those who wait for a measurement: with the last report, or that the mesh was stopped. */
void node_api_netcheck_over(struct node *n, bool measured);
