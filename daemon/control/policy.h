#pragma once
/*
 * policy: what to do next in the conversation with the coordination server. Pure.
 */
#include <stdbool.h>
#include <stdint.h>

#include "proto/tailcfg.h"

/* Waiting before attempt n + 1 after n failures: n² · 10 ms up to 30 s, times 0.5 to 1.5 (rnd is uniform),
 * as stock nodes do, so that a thousand of them do not come back as one. */
uint64_t control_backoff_usec(unsigned int failures, uint32_t rnd);
/* Retry-After in whole seconds; what is missing, zero or above an hour gives 5 to 10 s. */
uint64_t control_retry_after_usec(const char *value, uint32_t rnd);

/*
 * What the conversation may cost: a server that has this host busy with reading is read more slowly.
 * A burst of CONTROL_TOLL_BURST_USEC of CPU time for free, which is a first map of ten thousand nodes, then one part
 * in CONTROL_TOLL_SHARE. Who is behind all the time for CONTROL_TOLL_PATIENCE_USEC will not catch up: what the
 * server says then is as old as what waits in front of it.
 */
#define CONTROL_TOLL_BURST_USEC UINT64_C(1000000)
#define CONTROL_TOLL_SHARE	5
#define CONTROL_TOLL_PAUSE_USEC UINT64_C(3000000) /* at most; answers to pings wait as long */
#define CONTROL_TOLL_PATIENCE_USEC UINT64_C(15000000)
struct control_toll {
	uint64_t credit_usec, since;
	uint64_t behind; /* since when there is next to no credit; 0 = there is some */
	bool begun;
};
/* used of CPU time have gone by since the last call. How long to read nothing: 0 = go on, UINT64_MAX = for good. */
uint64_t control_toll_usec(struct control_toll *t, uint64_t now, uint64_t used);

enum control_verdict {
	CONTROL_VERDICT_SUCCESS,
	CONTROL_VERDICT_REFUSED,     /* Error that no repetition changes: the auth key is no good */
	CONTROL_VERDICT_TRY_AGAIN,   /* Error of the moment */
	CONTROL_VERDICT_ROTATE,	     /* a fresh node key, and register again at once */
	CONTROL_VERDICT_USE_KEY,     /* the server wants a login and there is an auth key: send it */
	CONTROL_VERDICT_SHOW_URL,    /* a person has to visit AuthURL; wait with Followup */
	CONTROL_VERDICT_NEEDS_LOGIN, /* it would take a login and nobody asked for one */
	CONTROL_VERDICT_EXPIRED,     /* the same, because the node key has expired */
	CONTROL_VERDICT_UNSUPPORTED, /* tailnet lock */
};

struct control_attempt {
	bool login_wanted;  /* the user asked to log in */
	bool have_auth_key; /* and gave a key */
	bool sent_auth_key; /* which this request carried */
	bool fresh_key;	    /* the node key was made for this login */
};

/* An answer of status 200, in the order of control.md 6.2. */
enum control_verdict control_judge(const struct tailcfg_register_response *a,
				   const struct control_attempt *t);
const char *control_verdict_name(enum control_verdict v);
