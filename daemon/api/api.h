#pragma once
/*
 * api: kernscaled's local API: HTTP/1.1 and JSON on a Unix socket, for wgctl, scripts and derper.
 *
 * Owns the socket, its lock, the rights of each caller, reading of requests, deadlines of answers
 * and those who wait for a state. Knows nothing of the node: it asks through struct api_ops.
 * Never changes anything by itself, never blocks.
 *
 *   method path                             answer (200)                                   rights
 *   GET  /v1/status[?peers=false]           status.h                                       read
 *   GET  /v1/version                        {schema, version}                              read
 *   GET  /v1/prefs                          {schema, prefs{…}}                             read
 *   POST /v1/prefs    {prefs{…}}            {schema, changed, prefs{…}}                    change
 *   POST /v1/up       {prefs{…}, auth_key, reset, force_reauth, timeout_msec}
 *                                           {schema, BackendState, AuthURL, TailscaleIPs, changed}  change
 *        answers when Running, when there is a URL to visit, when approval is awaited, or on failure
 *   POST /v1/down                           {schema, changed}                              change
 *   POST /v1/logout                         {schema, changed, server_told}                 change
 *        server_told: false where the server could not be told, and still has the node
 *   POST /v1/ping     {ip, timeout_msec}    {schema, NodeIP, NodeName, LatencySeconds, Endpoint,
 *                                            DERPRegionID, DERPRegionCode}; one round      read
 *   GET  /v1/netcheck                       report of netcheck.md 11.2 + schema, Regions   read
 *   GET  /v1/wait[?timeout_msec=N][&outcome=true]  as up answers, when Running with addresses;
 *                                           with outcome also when the attempt failed      read
 *   GET  /v1/whois?addr=IP|IP:PORT|nodekey:…  {schema, Node, UserProfile, CapMap} or 404   read
 *   GET  /localapi/v0/whois?addr=…          the same; what derper --verify-clients asks    read
 *   GET  /localapi/v0/status[?peers=false]  as /v1/status                                  read
 *
 * Failure: {schema, error, remedy, code}: one sentence, what to do ("" = nothing), and a word of
 * enum api_code; HTTP status by the same table. Rights by SO_PEERCRED and SO_PEERGROUPS: reading
 * for all, changing for root, the daemon's own user and the group of the options.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/api/prefs.h"
#include "daemon/api/status.h"
#include "lib/addr.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define API_AUTH_KEY_MAX      256
#define API_TIMEOUT_MSEC_MAX  (24u * 3600 * 1000)

enum api_code {		    /*  word             HTTP  exit status of wgctl */
	API_CODE_FAILED,	/* "failed"          500   1 */
	API_CODE_USAGE,		/* "usage"           400   2: a request that makes no sense */
	API_CODE_UNSUPPORTED,	/* "unsupported"     501   1: understood, not acted on yet */
	API_CODE_NOT_FOUND,	/* "not-found"       404   1 */
	API_CODE_NOT_RUNNING,	/* "not-running"     409   3: stopped; `wgctl up` first */
	API_CODE_NEEDS_LOGIN,	/* "needs-login"     409   4 */
	API_CODE_NEEDS_APPROVAL, /* "needs-approval" 409   4 */
	API_CODE_TIMEOUT,	/* "timeout"         504   5 */
	API_CODE_REFUSED,	/* "refused"         403   6: no rights, or the server said no */
	API_CODE_BUSY,		/* "busy"            503   1: too many requests wait */
};
const char *api_code_name(enum api_code c);
int api_code_http(enum api_code c);

/* A failure in words. Texts are one line, no stop at the end, no newline. */
struct api_error {
	enum api_code code;
	char text[256];
	char remedy[256]; /* "" = none */
};
void api_error_set(struct api_error *e, enum api_code code, const char *remedy, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
json_t *api_error_json(const struct api_error *e);

/* What the waiting requests are judged by. Strings are borrowed until the callback's caller
 * returns. */
struct api_state {
	enum api_backend_state state;
	const char *auth_url;	/* NULL or "" = none */
	bool failed;		/* the newest attempt to come up ended in `error`; cleared by up() */
	bool failing;		/* it goes on being tried, in vain until now; for who set no time limit */
	struct api_error error; /* the last one, "" = none; also while it is still being tried */
	const struct addr *addrs; /* own addresses, on the interface already */
	size_t n_addrs;
};

json_t *api_state_json(const struct api_state *s);

/* What a waiting request waits for. */
enum api_wish {
	API_WISH_RUNNING,  /* nothing less */
	API_WISH_OUTCOME,  /* Running, or the attempt failed */
	API_WISH_PROGRESS, /* that, or something a person has to do: visit a URL, approve */
};
enum api_verdict { API_VERDICT_WAIT, API_VERDICT_ANSWER, API_VERDICT_FAIL };
/* Pure. err is written with FAIL only. */
enum api_verdict api_judge(const struct api_state *s, enum api_wish wish, struct api_error *err);

struct api_up {
	struct prefs prefs; /* only the members that are set change */
	bool reset;	    /* all the others go back to their default */
	bool force_reauth;
	char auth_key[API_AUTH_KEY_MAX]; /* "" = none; wiped by the api when up() has returned */
};

struct api_ping {
	struct addr target;
	uint32_t timeout_msec;
};

/*
 * A deferred answer. From the op that gets it until api_reply() or api_fail(), exactly one of
 * which must come in the end, it belongs to the daemon. The caller may vanish or its time may run out
 * meanwhile: the answer then goes nowhere. Also allowed after api_free().
 */
struct api_request;
void api_reply(struct api_request *r, json_t *answer); /* steals answer; "schema" is added */
void api_fail(struct api_request *r, const struct api_error *e);
bool api_request_gone(const struct api_request *r); /* nobody waits for it any more */

/* Ops return 0, or a negative errno with *err filled when they have one (else the errno is
 * worded). */
struct api_ops {
	void (*state)(void *data, struct api_state *ret); /* cheap */
	int (*status)(void *data, struct api_status_input *ret);
	/* Starts to come up: prefs are kept, `failed` is cleared, the state leaves STOPPED. Success is
	 * told by state() later: call api_changed(). prefs_check_supported() has passed already. */
	int (*up)(void *data, const struct api_up *up, bool *ret_changed, struct api_error *err);
	void (*down)(void *data, struct api_request *later);   /* reply {"changed": bool} */
	void (*logout)(void *data, struct api_request *later); /* reply {"changed": bool, "server_told": bool} */
	void (*prefs_get)(void *data, struct prefs *ret);
	int (*prefs_set)(void *data, const struct prefs *change, bool *ret_changed,
			 struct api_error *err);
	/* One round: reply with api_pong_json(). A timeout needs no answer in time: the api
	 * gives it. */
	void (*ping)(void *data, const struct api_ping *ping, struct api_request *later);
	void (*netcheck)(void *data, struct api_request *later); /* reply with api_netcheck_json() */
};

struct api_pong {
	const char *node_name; /* host name without suffix */
	struct addr node_ip;
	uint64_t latency_usec;
	struct endpoint endpoint; /* family 0 = it came over a relay */
	int derp_region;
	const char *derp_code;
};
json_t *api_pong_json(const struct api_pong *p);

/* Tri-state: 0 false, 1 true, -1 not known. Latencies in microseconds, 0 = no answer. */
struct api_netcheck_region {
	int id;
	const char *code, *name;
	uint64_t latency_usec, v4_usec, v6_usec;
};
struct api_netcheck {
	int64_t now_unix_nsec;
	bool udp, ipv4, ipv6, ipv4_can_send, ipv6_can_send, os_has_ipv6, icmpv4;
	int mapping_varies, upnp, pmp, pcp, captive_portal;
	int preferred_derp;
	struct endpoint global_v4, global_v6; /* family 0 = none */
	const struct api_netcheck_region *regions; /* of the whole DERP map */
	size_t n_regions;
};
json_t *api_netcheck_json(const struct api_netcheck *n);

struct api_options {
	const char *socket;  /* path; its folder exists and is ours */
	const char *group;   /* who may change beside root and ourselves; NULL or unknown = nobody */
	const char *version;
};

struct api;

/*
 * Listens. A stale socket is replaced, a live one never: -EADDRINUSE when another daemon holds PATH.lock
 * or answers on the socket. Logs nothing: main says it. ops and data are borrowed for the api's life.
 */
int api_new(struct loop *loop, const struct api_options *o, const struct api_ops *ops, void *data,
	    struct api **ret);
void api_free(struct api *a); /* closes, removes the socket; who waits is told that we stop */
DEFINE_CLEANUP(struct api *, api_free)
/* State, AuthURL, own addresses or the last error changed: whoever waits is looked at (soon, not now).
 * NULL is accepted: a daemon that starts has nobody waiting. */
void api_changed(struct api *a);
