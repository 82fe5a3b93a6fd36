#pragma once
/*
 * admin: what an operator may ask of the coordinator, as HTTP and JSON over its Unix socket.
 *
 * Borrows the coordinator's state. Decides nothing about transport: a request comes in as method,
 * path, query and body, the answer goes out as status and body, once what it depends on is on disk.
 * Rights come from the socket (root, the coordinator's own user, the group of the socket); there is
 * no token. Paths and bodies are those of Headscale's REST API v1, so that its users' scripts fit.
 *
 * Conventions: JSON, camelCase. 64-bit ids are STRINGS ("7"). Times are RFC 3339; a time that is not
 * set is null; lists are never null. Every success is 200. Every error is application/problem+json:
 *
 *   {"title": "Not Found", "status": 404, "detail": "node 12 does not exist", "errors": []}
 *
 * with 400 (malformed or not allowed as asked), 403 (who asks may not), 404 (no such thing), 405, 409 (exists
 * already), 500 (store failed), 503 (store does not take writes now). `detail` is one line for a person: cause, and
 * remedy where there is one. What lib/httpd refuses by itself is plain text: 400 and 505 (no HTTP/1), 408 (not whole
 * within 10 s), 413 (body over 1 MiB), 431; and 404 outside of any path.
 *
 * Objects
 *   User        {"id":"1","name":"alice","createdAt":T,"displayName":"","email":"","providerId":"",
 *                "provider":"","profilePicUrl":""}
 *   Node        {"id":"1","machineKey":"mkey:..","nodeKey":"nodekey:..","discoKey":"discokey:..",
 *                "ipAddresses":["100.64.0.1","fd7a:115c:a1e0::1"],
 *                "name":"box1" (as the node reported it),"givenName":"box1" (its label in DNS),
 *                "user":User|null (null when tagged),"lastSeen":T|null,"expiry":T|null (null: never),
 *                "preAuthKey":PreAuthKey|null,"createdAt":T,
 *                "registerMethod":"REGISTER_METHOD_AUTH_KEY"|"REGISTER_METHOD_CLI",
 *                "online":bool,"approvedRoutes":[],"availableRoutes":["10.0.0.0/8"],
 *                "subnetRoutes":[],"tags":["tag:x"],
 *                ours: "ephemeral":bool,"expired":bool,"fqdn":"box1.mesh.test",
 *                "version":"1.103.0" (the client's own words),"capabilityVersion":145,
 *                "endpoints":["192.0.2.1:41641"],"homeDerp":999}
 *   PreAuthKey  {"user":User|null,"id":"1","key":"hskey-auth-<12 hex>-***","reusable":bool,
 *                "ephemeral":bool,"used":bool,"expiration":T|null,"createdAt":T,
 *                "aclTags":["tag:x"]}
 *                (`key` in full only in the answer that creates it)
 *
 * Requests                                body / query                       200 answer
 *   GET    /api/v1/health                                                    {"databaseConnectivity":true}
 *   GET    /api/v1/user                   ?id= | ?name= | ?email=            {"users":[User]}
 *   POST   /api/v1/user                   {"name","displayName"?,"email"?,
 *                                          "pictureUrl"?}                    {"user":User}
 *   POST   /api/v1/user/ID/rename/NAME                                       {"user":User}
 *   DELETE /api/v1/user/ID                (400 while it has nodes)           {}
 *   GET    /api/v1/preauthkey                                                {"preAuthKeys":[PreAuthKey]}
 *   POST   /api/v1/preauthkey             {"user":"1"?,"reusable"?,"ephemeral"?,
 *                                          "expiration":T? (absent: 1 hour),
 *                                          "aclTags":["tag:x"]?}             {"preAuthKey":PreAuthKey}
 *                                         (user or tags or both; neither is 400)
 *   POST   /api/v1/preauthkey/expire      {"id":"1"}                         {}
 *   DELETE /api/v1/preauthkey             ?id=1                              {}
 *   GET    /api/v1/node                   ?user=NAME                         {"nodes":[Node]}
 *   GET    /api/v1/node/ID                                                   {"node":Node}
 *   DELETE /api/v1/node/ID                                                   {}
 *   POST   /api/v1/node/ID/expire         empty: now; {"expiry":T};
 *                                         {"disableExpiry":true}             {"node":Node}
 *   POST   /api/v1/node/ID/rename/NAME                                       {"node":Node}
 *   POST   /api/v1/node/ID/tags           {"tags":["tag:x"]} (not empty)     {"node":Node}
 *   POST   /api/v1/auth/register          {"user":"NAME","authId":"hskey-authreq-.."}
 *                                                                            {"node":Node}
 *   POST   /api/v1/auth/reject            {"authId"}                         {}
 *   POST   /api/v1/node/register          ?user=NAME&key=AUTHID              {"node":Node}
 *
 * In a request an id may be a string or a number. NAME in a path is percent-encoded.
 */
#include <stdbool.h>
#include <stddef.h>

#include "lib/buf.h"

struct coord;

struct admin_request {
	const char *method; /* "GET", "POST", "DELETE" */
	const char *path;   /* without query, still percent-encoded */
	const char *query;  /* after the '?', or NULL */
	const void *body;
	size_t body_len;
};

struct admin_reply {
	unsigned int status;
	bool wrote;	 /* hold it back until the store has committed */
	struct buf body; /* JSON; the caller frees it */
};

#define ADMIN_BODY_MAX (1u << 20)

/* Answers one request; changes state through coord. Never fails: what goes wrong is in the reply. */
void admin_handle(struct coord *c, const struct admin_request *rq, struct admin_reply *reply);
