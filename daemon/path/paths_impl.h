#pragma once
/*
 * paths_impl: what paths.c (peers, time, kernel, shuttle) and paths_disco.c (messages) share.
 */
#include "daemon/path/paths.h"
#include "daemon/path/peertab.h"
#include "proto/disco.h"

#define SECOND		 UINT64_C(1000000)
#define SHARED_SLOTS	 512
#define USER_PINGS_MAX	 32
#define REGIONS_DOWN_MAX 64

struct shared_slot {
	struct key disco; /* zero = free */
	struct disco_shared shared;
};

struct bucket {
	uint64_t since;
	unsigned int used;
};

struct user_ping {
	int handle; /* 0 = free */
	uint32_t id;
	uint64_t until;
	paths_ping_fn *fn;
	void *data;
};

struct paths {
	const struct paths_ops *ops;
	void *data;
	struct path_env env;
	uint64_t now; /* of the entry that runs */

	struct key_pair disco;
	struct key node;
	struct shared_slot *shared;
	struct bucket agreements, boxes, relayed_boxes;

	struct peertab peers;

	struct endpoint own[DISCO_ENDPOINTS_MAX];
	size_t n_own;
	uint64_t own_at, restun_at; /* 0 = never */
	bool no_udp;

	uint64_t dumped, dump_at; /* dump_at 0 = none wanted */
	bool dump_asked;
	uint64_t wake_at;
	bool counting; /* the caller is reading the kernel, and cannot write to it */

	uint16_t down[REGIONS_DOWN_MAX];
	size_t n_down;
	struct user_ping users[USER_PINGS_MAX];
	int last_handle;

	uint8_t plain[DISCO_PLAIN_MAX];
};

/* paths.c */
uint64_t paths_begin(struct paths *p, uint64_t now); /* gives the time to go by */
void paths_end(struct paths *p);
/* The peer's active part, made if need be; NULL without memory. */
struct path *paths_path(struct paths_peer *peer);
/* After every event of its path. */
void paths_reschedule(struct paths_peer *peer);
void paths_watch(struct paths *p); /* the kernel may roam: dumps begin */
uint16_t paths_region(const struct paths *p, const struct paths_peer *peer);
bool paths_region_down(const struct paths *p, uint16_t region);

/* paths_disco.c */
extern const struct path_ops paths_path_ops;
void paths_forget_shared(struct paths *p);
