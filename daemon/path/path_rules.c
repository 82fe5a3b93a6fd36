/* path_rules: which state follows which, and which of two ends is better: what a path decides by, without its own. */
#include "daemon/path/path.h"

#include "lib/cleanup.h"

enum path_state path_next(enum path_state s, enum path_event e)
{
	switch (e) {
	case PATH_EVENT_PONG:
		return PATH_STATE_DIRECT;
	case PATH_EVENT_ADOPTED:
		return s == PATH_STATE_RELAY ? PATH_STATE_DIRECT : s;
	case PATH_EVENT_TRUST_LOST:
		return s == PATH_STATE_RELAY ? s : PATH_STATE_DOUBTFUL;
	case PATH_EVENT_KERNEL_ALONE:
		return PATH_STATE_HELD;
	case PATH_EVENT_BEST_LOST:
		return PATH_STATE_RELAY;
	case PATH_EVENT_LINK_CHANGED:
		return s == PATH_STATE_DIRECT ? PATH_STATE_DOUBTFUL : s;
	case PATH_EVENT_IDLE:
		/* By relay nobody would hear: a peer whose daemon is dead keeps its endpoint. */
		return s == PATH_STATE_HELD ? s : PATH_STATE_RELAY;
	case PATH_EVENT_RESET:
		return PATH_STATE_RELAY;
	}
	unreachable();
}

const char *path_state_name(enum path_state s)
{
	switch (s) {
	case PATH_STATE_RELAY:
		return "relay";
	case PATH_STATE_DIRECT:
		return "direct";
	case PATH_STATE_DOUBTFUL:
		return "doubtful";
	case PATH_STATE_HELD:
		return "held";
	}
	unreachable();
}

const char *path_event_name(enum path_event e)
{
	switch (e) {
	case PATH_EVENT_PONG:
		return "pong";
	case PATH_EVENT_ADOPTED:
		return "adopted";
	case PATH_EVENT_TRUST_LOST:
		return "pongs missing";
	case PATH_EVENT_KERNEL_ALONE:
		return "daemon silent, kernel alive";
	case PATH_EVENT_BEST_LOST:
		return "no answer";
	case PATH_EVENT_LINK_CHANGED:
		return "link changed";
	case PATH_EVENT_IDLE:
		return "idle";
	case PATH_EVENT_RESET:
		return "reset";
	}
	unreachable();
}

static unsigned int kind_points(const struct addr *a)
{
	unsigned int points = a->family == 6 ? 10 : 0;

	if (addr_is_loopback(a))
		return points + 50;
	if (addr_is_link_local(a))
		return points + 30;
	return addr_is_private(a) ? points + 20 : points;
}

bool path_better(const struct endpoint *a, uint64_t a_latency_usec, const struct endpoint *b,
		 uint64_t b_latency_usec)
{
	uint64_t a_points, b_points;

	if (endpoint_equal(a, b) || !a->addr.family)
		return false;
	if (!b->addr.family)
		return true;
	a_points = kind_points(&a->addr);
	b_points = kind_points(&b->addr);
	if (a_latency_usec < b_latency_usec)
		a_points += 100 - 100 * a_latency_usec / b_latency_usec;
	else if (b_latency_usec < a_latency_usec)
		b_points += 100 - 100 * b_latency_usec / a_latency_usec;
	if (a_points <= 1 && b_points == 0)
		return false;
	return a_points > b_points;
}
