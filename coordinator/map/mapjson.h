#pragma once
/*
 * mapjson: the JSON texts that map messages are put together from (control.md 7, 8). Pure.
 *
 * Texts are appended to a buffer; out of memory marks the buffer, so that a message is checked once.
 */
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/settings.h"
#include "coordinator/state/registry.h"
#include "lib/buf.h"

/* A quoted JSON string. */
void mapjson_string(struct buf *b, const char *s);
/* Labels under this domain; "" for none. */
void mapjson_fqdn(struct buf *b, const struct node *n, const char *base_domain);

/* A whole Node object as its peers see it: always with Hostinfo, Cap, Endpoints and Online. */
void mapjson_node(struct buf *b, const struct node *n, const char *base_domain, int64_t now_nsec);
/* As it sees itself, from its text as peers see it: capabilities on top. */
void mapjson_self(struct buf *b, const char *peer_json, size_t len, const struct settings *cfg);
/* One PeersChangedPatch entry for these changes (enum node_change, without FULL). */
void mapjson_patch(struct buf *b, const struct node *n, uint32_t changes);
void mapjson_user(struct buf *b, const struct registry_user *u);	 /* UserProfile */
void mapjson_tagged_devices(struct buf *b);		 /* the same for the owner of tagged nodes */
void mapjson_dns(struct buf *b, const struct settings *cfg);
/* What every first message has besides Node, Peers, UserProfiles, DERPMap and DNSConfig. */
void mapjson_rest(struct buf *b, const struct settings *cfg);
/* RegisterResponse: user NULL for a tagged node. */
void mapjson_register(struct buf *b, const struct registry_user *u, bool key_expired);
void mapjson_register_error(struct buf *b, const char *error);
void mapjson_register_url(struct buf *b, const char *url);
