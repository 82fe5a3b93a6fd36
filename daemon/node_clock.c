/* What a node does when its host's clock is set. */
#include "daemon/node_priv.h"
#include "lib/log.h"

/* A peer's kernel takes handshakes only with a newer stamp than the last one (TAI64N, WireGuard 5.1).
 * One is sent every two minutes, so a small step is made up for by the next. */
#define HARMLESS_NSEC (INT64_C(60) * 1000000000)

/* Peers that see another disco key take us for restarted and forget our last handshake, its stamp
 * included; without that they would refuse new ones for as long as the clock was set back. */
static void begin_anew(struct node *n)
{
	const struct key_pair *self = node_self(n);

	node_new_disco(n);
	if (self)
		paths_set_self(n->paths, &n->state->disco, &self->pub, loop_now(n->loop));
}

static void clock_stepped(void *data, int64_t by_nsec)
{
	struct node *n = data;
	bool back = by_nsec < 0, anew = by_nsec < -HARMLESS_NSEC && dataplane_is_up(n->dp);

	log_notice("the clock was set %s by %lld s%s", back ? "back" : "forward",
		   (long long)((back ? -by_nsec : by_nsec) / 1000000000),
		   anew ? ": peers are asked to forget our last handshakes" : "");
	netmap_clock_stepped(n->map, by_nsec);
	node_expiry(n);
	if (anew)
		begin_anew(n);
}

int node_clock_open(struct node *n)
{
	return clockstep_new(n->loop, clock_stepped, n, &n->clockstep);
}
