#pragma once
/*
 * derpmap: regions and their relays, as control sends them (MapResponse.DERPMap), nodes keep them.
 *
 * Pure: JSON tree in, structs out, and back. A map owns all its memory; derp_map_done() frees it.
 * Regions are sorted by id. What is out of limits is refused, what is unknown is skipped.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"
#include "lib/cleanup.h"

#define DERP_REGIONS_MAX       1024
#define DERP_REGION_NODES_MAX  64
#define DERP_TEXT_MAX	       255
#define DERP_REGION_ID_MAX     65535 /* stock nodes keep the home region in a port field */
#define DERP_PORT_DEFAULT      443
#define DERP_STUN_PORT_DEFAULT 3478

/* Texts are never NULL. */
struct derp_node {
	char *name; /* unique over all regions */
	int64_t region_id;
	char *hostname;
	char *cert_name; /* "", a name, or sha256-raw:<64 hex> */
	char *ipv4;	 /* "": ask DNS; an address: use it; anything else: no such family */
	char *ipv6;
	int stun_port; /* 0: 3478; -1: none */
	bool stun_only;
	int derp_port; /* 0: 443 */
	bool insecure_for_tests;
	char *stun_test_ip;
	bool can_port80;
};

struct derp_region {
	int64_t id;
	char *code, *name;
	double latitude, longitude;
	bool avoid;
	bool no_measure_no_home;
	struct derp_node *nodes; /* in order of priority */
	size_t n_nodes;
};

struct derp_score {
	int64_t region_id;
	double score;
};

struct derp_map {
	bool has_regions; /* false: the message leaves them as they were */
	struct derp_region *regions;
	size_t n_regions;
	bool omit_default_regions;
	bool has_scores; /* false: as they were */
	struct derp_score *scores;
	size_t n_scores;
};

void derp_map_done(struct derp_map *m);
static inline void derp_map_done_cleanup(struct derp_map *m)
{
	derp_map_done(m);
}
void derp_region_done(struct derp_region *r);

/* j: the DERPMap object. -EBADMSG, -ENOBUFS, -ENOMEM. */
int derp_map_decode(const json_t *j, struct derp_map *ret);
/* A new tree with stock's names and omissions; NULL: no memory. */
json_t *derp_map_encode(const struct derp_map *m);

/* One region of the map's JSON form. */
int derp_region_decode(const json_t *j, struct derp_region *ret);
json_t *derp_region_encode(const struct derp_region *r);
int derp_region_copy(const struct derp_region *r, struct derp_region *ret);
/* As far as connections to it go: a changed one is dialled anew. */
bool derp_region_equal(const struct derp_region *a, const struct derp_region *b);

/* NULL when there is none. */
const struct derp_region *derp_map_find(const struct derp_map *m, int64_t id);
double derp_map_score(const struct derp_map *m, int64_t id); /* 1.0 where none is given */
/* Takes what the update says out of it and keeps the rest of prev; update is empty afterwards. */
void derp_map_merge(struct derp_map *prev, struct derp_map *update);
/* Adds or replaces a region (taken over). -ENOMEM, -ENOBUFS. */
int derp_map_put(struct derp_map *m, struct derp_region *region);

/* Ports with their defaults; stun_port: 0 means no STUN. */
uint16_t derp_node_port(const struct derp_node *n);
uint16_t derp_node_stun_port(const struct derp_node *n);
/* An address field (ipv4, ipv6): 1 and *ret: use it; 0: ask DNS; -EAFNOSUPPORT: not this family. */
int derp_node_addr(const char *field, uint8_t family, struct addr *ret);
/* 1 and the hash when cert_name is a pin; 0 when it is not; -EBADMSG for a pin that is none. */
int derp_node_pin(const struct derp_node *n, uint8_t ret_sha256[static 32]);
