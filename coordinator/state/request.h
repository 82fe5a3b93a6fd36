#pragma once
/*
 * request: what nodes send to /machine/register and /machine/map, decoded (control.md 6.1, 7.1). Pure.
 *
 * Takes strangers' bytes: everything is bounded before it is kept. Hostinfo stays JSON text as it
 * came, but for NetInfo, which is kept apart because it outlives requests that have none.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/state/authkey.h"
#include "coordinator/state/registry.h"
#include "coordinator/state/strs.h"

#define REQUEST_BYTES_MAX (1u << 20)
#define REQUEST_CAP_MIN	  113u /* Tailscale 1.80 */

struct hostinfo {
	char *text;    /* JSON object without NetInfo; NULL: the request has no Hostinfo */
	char *netinfo; /* JSON, NULL: absent */
	uint32_t home; /* NetInfo.PreferredDERP */
	char *hostname;
	struct strs tags; /* RequestTags */
};

struct register_request {
	uint32_t version;
	struct key node_key, old_node_key; /* zero: absent */
	char *auth_key;			   /* NULL: absent */
	char *followup;			   /* NULL: absent */
	int64_t expiry_nsec;		   /* 0: absent */
	struct hostinfo hostinfo;
};

struct map_request {
	uint32_t version;
	struct key node_key, disco_key; /* zero: absent */
	bool stream, omit_peers, zstd;
	struct hostinfo hostinfo;
	bool has_endpoints;
	size_t n_endpoint;
	struct endpoint endpoint[NODE_ENDPOINTS_MAX];
};

/* -EBADMSG, -ENOBUFS, -ENOMEM. version is set whenever it could be read, also on failure. */
int register_request_parse(const void *p, size_t len, struct register_request *ret);
void register_request_done(struct register_request *r);
int map_request_parse(const void *p, size_t len, struct map_request *ret);
void map_request_done(struct map_request *r);
void hostinfo_done(struct hostinfo *h);
