#pragma once
/*
 * verify: admission by asking a controller over HTTP, as derper's -verify-client-url does.
 *
 * POST {"NodePublic":"nodekey:…","Source":"…"}; 200 with {"Allow":true} admits. What cannot be asked
 * admits or refuses as told; any other answer refuses.
 */
#include "lib/loop.h"
#include "lib/tls.h"
#include "relay/relay.h"

struct verify;

struct verify_opts {
	const char *url;
	bool fail_open;		 /* not for want of something of ours: strangers can bring that about */
	unsigned int max_asking; /* questions at a time; 0 = 256 */
	struct tls_ctx *tls; /* client context, a reference is taken; needed for https */
};

int verify_new(struct loop *l, const struct verify_opts *o, struct verify **ret);
/* Where the verdicts go. Before the first question. */
void verify_set_relay(struct verify *v, struct relay *r);
/* Before the relay is freed, or after: questions under way are forgotten. */
void verify_free(struct verify *v);
DEFINE_CLEANUP(struct verify *, verify_free)

/* relay_admit_fn; data: the struct verify. */
enum relay_verdict verify_admit(void *data, uint64_t ticket, const struct key *node,
				const struct addr *src);
