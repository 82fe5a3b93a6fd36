#pragma once
/*
 * signin: interactive logins that wait for somebody to approve them (control.md 6.4, server-ux.md 8).
 *
 * Memory only: bounded in number, in number for each machine and each site that they come from (anybody may make
 * machine keys), and in time. The node's request is held by its follow-up until the login is approved, rejected or
 * expired; who waits is told once.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/state/request.h"
#include "lib/addr.h"
#include "lib/key.h"

#define SIGNIN_ID_MAX	   48 /* hskey-authreq-<24 hex> */
#define SIGNIN_MAX	   1024
#define SIGNIN_MACHINE_MAX 4
#define SIGNIN_SITE_MAX	   256
#define SIGNIN_USEC	   (UINT64_C(15) * 60 * 1000000)

enum signin_end {
	SIGNIN_APPROVED,
	SIGNIN_REJECTED,
	SIGNIN_EXPIRED,
};

struct signin_wait {
	struct signin_wait *next;
	void (*fn)(struct signin_wait *w, enum signin_end end); /* w is the waiter's again */
	struct signin *on;
};

struct signin {
	char id[SIGNIN_ID_MAX];
	struct key machine;
	struct addr from; /* the site, none where nobody counts */
	struct register_request q;
	uint64_t until_usec;
	struct signin_wait *waits;
};

struct signins {
	struct signin *v[SIGNIN_MAX]; /* oldest first */
	size_t n;
};

/* Takes what is in q (the caller's is empty then). An earlier one of the same machine and node key is
 * given again. from: an IPv4 address or IPv6 /64; NULL: it is not counted. NULL: no memory. */
struct signin *signin_new(struct signins *s, const struct key *machine, const struct addr *from,
			  struct register_request *q, uint64_t now_usec);
struct signin *signin_find(const struct signins *s, const char *id);
/* By the URL that the node was given; only its own. */
struct signin *signin_followed(const struct signins *s, const char *url, const struct key *machine);
void signin_wait(struct signin *s, struct signin_wait *w);
void signin_unwait(struct signin_wait *w);
/* Tells who waits and forgets it. */
void signin_finish(struct signins *s, struct signin *x, enum signin_end end);
uint64_t signins_tick(struct signins *s, uint64_t now_usec); /* when it is due again */
void signins_done(struct signins *s);
