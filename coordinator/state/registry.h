#pragma once
/*
 * registry: users, pre-auth keys and nodes, all in memory, with one writer (the loop's thread).
 *
 * Owns every object in it and the indexes over them. Each change that has to survive goes to the
 * sink (the store); each change that somebody else has to hear of is noted in node->changes and told
 * to the sink too (the map's fan-out). Never blocks, knows no connection. Times are Unix nanoseconds,
 * handed in.
 *
 * registry.c has users and pre-auth keys, registry_node.c nodes and what outlives them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/state/alloc.h"
#include "coordinator/state/authkey.h"
#include "coordinator/state/name.h"
#include "coordinator/state/strs.h"
#include "coordinator/state/table.h"
#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/key.h"

#define REGISTRY_NODES_MAX	    100000
#define REGISTRY_USERS_MAX	    100000
#define REGISTRY_AUTHKEYS_MAX  100000
#define REGISTRY_NETINFOS_MAX  10000
#define NODE_ENDPOINTS_MAX  64
#define NODE_HOSTINFO_MAX   65536
#define USER_TAGGED_DEVICES UINT64_C(2147455555) /* who owns tagged nodes, on the wire */
#define NSEC_PER_SEC	    INT64_C(1000000000)

struct registry_user {
	uint64_t id;
	char *name, *display, *email, *picture;
	int64_t created_nsec;
	unsigned int nodes; /* personal ones */
};

enum node_method {
	NODE_METHOD_AUTHKEY = 1,
	NODE_METHOD_CLI = 2,
};

/* What changed since the peers, or the node itself, were told last. */
enum node_change {
	NODE_CHANGE_FULL = 1 << 0,	/* something only a whole node can say */
	NODE_CHANGE_ENDPOINTS = 1 << 1,
	NODE_CHANGE_HOME = 1 << 2,
	NODE_CHANGE_DISCO = 1 << 3,
	NODE_CHANGE_ONLINE = 1 << 4,
	NODE_CHANGE_SELF = 1 << 5,  /* the node itself has to hear of it */
	NODE_CHANGE_OWNER = 1 << 6, /* with FULL: peers may not know the owner yet */
};

struct blob;
struct map_session;

struct node {
	uint64_t id;   /* never used again, also after deletion */
	uint64_t user; /* owner; of a tagged node who made it, 0: nobody */
	struct key machine_key, node_key, disco_key;
	struct addr v4, v6; /* family 0: none */
	char *hostname;	    /* as reported */
	char given[NAME_LABEL_MAX + 1];
	bool given_fixed; /* an operator renamed it */
	struct strs tags;
	bool ephemeral;
	uint64_t authkey; /* 0: none */
	enum node_method method;
	int64_t created_nsec, expiry_nsec, last_seen_nsec; /* 0: never, not yet */
	uint32_t cap;
	char *hostinfo; /* JSON as the node sends it, but for NetInfo; "{}" at least */
	char *netinfo;	/* JSON, NULL: none yet */
	uint32_t home;	/* relay region, 0: unknown */
	struct endpoint *endpoint;
	size_t n_endpoint;

	bool online; /* after a start: it was when we ended, and has some time to come back */

	/* Not on disk. */
	bool unsaved;	       /* store's: something that may be written a little later */
	uint64_t stored_mark;  /* store's: when this is on disk, so is its row, but for what may be written later */
	bool announced;	       /* peers may know it: it has had a disco key */
	uint32_t changes;      /* enum node_change, for the fan-out */
	uint64_t disco_source; /* connection that said the disco key */

	/* The fan-out's. */
	struct blob *json;	     /* the node as its peers see it; NULL: to be made anew */
	struct map_session *session; /* its stream; NULL: none */
	struct node *next_dirty;
	uint64_t gone_usec;  /* when its last stream ended; ephemeral without one: since when; 0: has one */
	uint32_t batch;	     /* changes that the message being built tells */
	bool queued, known;  /* in the list of dirty nodes; told to peers before */

	struct table_link by_key, by_machine, by_name, by_v4, by_v6;
};

/* Told of each change; any of them may be NULL. gone: the object is about to be freed. */
struct registry_sink {
	void (*user)(void *data, const struct registry_user *u, bool gone);
	void (*authkey)(void *data, const struct authkey *k, bool gone);
	/* soon: nothing waits for it, it may be written with others a little later. */
	void (*node)(void *data, struct node *n, bool gone, bool soon);
	void (*netinfo)(void *data, const struct key *machine, const char *json,
			uint32_t home); /* NULL: forget */
	void (*changed)(void *data, struct node *n); /* n->changes has something new */
	void (*removed)(void *data, struct node *n); /* before it is freed */
};

struct registry {
	struct registry_user **user;
	size_t n_user;
	struct authkey **authkey; /* both by id, ascending */
	size_t n_authkey;
	struct node **node; /* by id, ascending */
	size_t n_node, cap_node;
	uint64_t last_user, last_authkey, last_node; /* highest id ever used */
	struct alloc v4, v6;
	struct table keys_by_name, by_key, by_machine, by_name, by_v4, by_v6, netinfos;
	struct netinfo_kept *netinfo_oldest;
	uint64_t node_expiry_sec; /* for personal nodes; 0: never */
	const struct registry_sink *sink;
	void *sink_data;
};

void registry_init(struct registry *s);
void registry_done(struct registry *s);

/* ---- users. Views are valid until the user is deleted. */
struct registry_user *registry_user(const struct registry *s, uint64_t id);
struct registry_user *registry_user_named(const struct registry *s, const char *name);
/* -EEXIST, -EINVAL (name), -ENOSPC, -ENOMEM */
int registry_user_create(struct registry *s, const char *name, const char *display, const char *email,
		      const char *picture, int64_t now_nsec, struct registry_user **ret);
int registry_user_rename(struct registry *s, struct registry_user *u, const char *name);
int registry_user_delete(struct registry *s, struct registry_user *u); /* -ENOTEMPTY while it owns nodes; its keys go too */
/* From the store: takes u on success. */
int registry_user_load(struct registry *s, struct registry_user *u);
void registry_user_free(struct registry_user *u);
DEFINE_CLEANUP(struct registry_user *, registry_user_free)

/* ---- pre-auth keys */
struct authkey *registry_authkey(const struct registry *s, uint64_t id);
/* By text, secret compared. NULL: no such key. */
struct authkey *registry_authkey_find(const struct registry *s, const char *text);
/* tags are copied. text gets the whole key, shown this once. */
int registry_authkey_create(struct registry *s, const struct registry_user *u, bool reusable, bool ephemeral,
			 const struct strs *tags, int64_t expiry_nsec, int64_t now_nsec,
			 char text[static AUTHKEY_TEXT_MAX], struct authkey **ret);
void registry_authkey_use(struct registry *s, struct authkey *k);
void registry_authkey_expire(struct registry *s, struct authkey *k, int64_t now_nsec);
void registry_authkey_delete(struct registry *s, struct authkey *k);
int registry_authkey_load(struct registry *s, struct authkey *k);
void authkey_free(struct authkey *k);
DEFINE_CLEANUP(struct authkey *, authkey_free)

/* ---- nodes */
struct node *registry_node(const struct registry *s, uint64_t id);
size_t registry_node_index(const struct registry *s, uint64_t id); /* of the first node with this id or a higher one */
struct node *registry_node_by_key(const struct registry *s, const struct key *node_key);
/* The machine's node that belongs to user, or, tagged, its tagged one. NULL: none. */
struct node *registry_node_of_machine(const struct registry *s, const struct key *machine, bool tagged,
				   uint64_t user);
struct node *registry_node_of_machine_any(const struct registry *s, const struct key *machine);
struct node *registry_node_named(const struct registry *s, const char *given);
static inline bool node_tagged(const struct node *n)
{
	return n->tags.n > 0;
}
static inline uint64_t node_wire_user(const struct node *n)
{
	return node_tagged(n) || !n->user ? USER_TAGGED_DEVICES : n->user;
}
static inline bool node_expired(const struct node *n, int64_t now_nsec)
{
	return n->expiry_nsec && n->expiry_nsec <= now_nsec;
}

struct node_new {
	struct key machine_key, node_key;
	uint64_t user;
	const struct strs *tags; /* may be NULL */
	bool ephemeral;
	uint64_t authkey;
	enum node_method method;
	const char *hostname;
	const char *hostinfo, *netinfo; /* JSON; netinfo NULL: what the machine had before */
	uint32_t home, cap;
	int64_t expiry_nsec;
};
/* A new node with id, addresses and name. -ENOSPC: no address or too many nodes. */
int registry_node_create(struct registry *s, const struct node_new *w, int64_t now_nsec, struct node **ret);
/* Another login of the same node: new key, expiry, tags; everything else stays. */
int registry_node_relogin(struct registry *s, struct node *n, const struct node_new *w, int64_t now_nsec);
void registry_node_delete(struct registry *s, struct node *n);

/* Each says true when something changed. */
bool registry_node_set_hostinfo(struct registry *s, struct node *n, const char *hostname, const char *hostinfo);
bool registry_node_set_netinfo(struct registry *s, struct node *n, const char *netinfo, uint32_t home);
bool registry_node_set_endpoints(struct registry *s, struct node *n, const struct endpoint *e, size_t count);
bool registry_node_set_disco(struct registry *s, struct node *n, const struct key *disco);
bool registry_node_set_cap(struct registry *s, struct node *n, uint32_t cap);
bool registry_node_set_online(struct registry *s, struct node *n, bool online, int64_t now_nsec);
void registry_node_set_expiry(struct registry *s, struct node *n, int64_t expiry_nsec); /* 0: never */
int registry_node_rename(struct registry *s, struct node *n, const char *label); /* -EEXIST, -EINVAL */
int registry_node_set_tags(struct registry *s, struct node *n, const struct strs *tags);
/* The moment came: peers have to be told that it is expired now. */
void registry_node_expired(struct registry *s, struct node *n);

/* From the store: takes n on success (links it, no sink). */
int registry_node_load(struct registry *s, struct node *n);
int registry_netinfo_load(struct registry *s, const struct key *machine, const char *json, uint32_t home);
void registry_node_free(struct node *n);
DEFINE_CLEANUP(struct node *, registry_node_free)
void registry_nodes_done(struct registry *s); /* all of them, for registry_done() */
