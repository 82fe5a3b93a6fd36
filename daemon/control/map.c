/* The map stream: one request that never ends, a watchdog over it, and what its messages mean for us. */
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "daemon/control/internal.h"
#include "lib/log.h"

#define WATCHDOG_USEC	(120 * USEC_PER_SEC)
#define EXPIRY_MAX_USEC (3600 * USEC_PER_SEC)
#define STEADY_USEC	(30 * USEC_PER_SEC) /* a map that was live for less is as good as none */
#define TRIM_BYTES	(256u << 10)
#define TRIM_PEERS	1000 /* what so many had goes back as well */

void control_stream_drop(struct control *c)
{
	control_request_cancel(&c->stream);
	ts2021_frames_done(&c->frames);
	loop_timer_stop(c->watchdog);
	if (c->map_live)
		c->flaps = loop_now(c->loop) - c->live_since < STEADY_USEC ? c->flaps + 1 : 0;
	c->map_live = false;
}

/* The stream is over; the next one not before a while. */
static void stream_again(struct control *c, const char *why)
{
	uint64_t wait;

	control_stream_drop(c);
	c->stream_failures++;
	wait = control_backoff_usec(control_trouble(c), control_random());
	log_debug("control: map stream: %s, again in %u ms", why, (unsigned int)(wait / 1000));
	loop_timer_in(c->watchdog, wait);
	if (c->state == CONTROL_STATE_RUNNING || c->state == CONTROL_STATE_SYNCING)
		control_set_state(c, CONTROL_STATE_SYNCING, "map stream: %s", why);
}

void control_watchdog(void *data)
{
	struct control *c = data;

	if (!c->stream.st) {
		control_advance(c);
		return;
	}
	/* Whatever the connection is, it carries nothing: a new one tells more than a new stream. */
	control_stream_drop(c);
	control_retry(c, false, "the server has been silent for two minutes");
}

void control_map_state(struct control *c)
{
	const struct tailcfg_node *self = c->nm->self;

	if (!c->map_live || !self || c->need_register)
		return;
	if (c->nm->self_expired)
		control_set_state(c, CONTROL_STATE_EXPIRED, "the node key has expired");
	else if (!self->machine_authorized)
		control_set_state(c, CONTROL_STATE_NEEDS_APPROVAL,
				  "an administrator has to authorize this machine");
	else
		control_set_state(c, CONTROL_STATE_RUNNING, "%s", "");
}

/* What our own node's change means. */
static void self_changed(struct control *c, unsigned int aspects)
{
	if (!(aspects & NETMAP_EXPIRED))
		return;
	if (!c->nm->self_expired) {
		if (c->parked && c->state == CONTROL_STATE_EXPIRED) {
			c->parked = c->need_register = false;
			loop_timer_stop(c->retry);
		}
		return;
	}
	if (!c->parked && !c->need_register) { /* the server says what is to be done */
		c->need_register = true;
		control_advance(c);
	}
}

static void expiry_arm(struct control *c, int64_t next, int64_t now)
{
	uint64_t wait = next > now ? (uint64_t)(next - now) / 1000 + USEC_PER_MSEC : USEC_PER_SEC;

	if (next)
		loop_timer_in(c->expiry, MIN(wait, (uint64_t)EXPIRY_MAX_USEC));
	else
		loop_timer_stop(c->expiry);
}

/* The owner of the map looks at the clock as well, and then only the map tells that our own key has expired. */
void control_expiry_check(void *data)
{
	CLEANUP(netmap_changes_done) struct netmap_changes changes = { 0 };
	struct control *c = data;
	int64_t now = loop_wall_nsec();
	bool was = c->was_expired;

	expiry_arm(c, netmap_tick(c->nm, now, &changes), now);
	c->was_expired = c->nm->self_expired;
	if (!netmap_changes_empty(&changes))
		c->ops->on_map(c->data, &changes, false);
	else if (was == c->was_expired)
		return;
	control_map_state(c);
	self_changed(c, changes.self | (was != c->was_expired ? NETMAP_EXPIRED : 0));
}

static void browse(struct control *c, const char *url)
{
	if (!c->ops->on_browse || (c->last_browse && strcmp(c->last_browse, url) == 0))
		return;
	free(c->last_browse);
	c->last_browse = strdup(url);
	c->ops->on_browse(c->data, url);
}

/* The map has taken m in: everybody hears of it. */
static void map_changed(struct control *c, const struct netmap_changes *changes)
{
	struct h2_stream *st = c->stream.st;

	if (changes->full) {
		c->map_live = true;
		c->live_since = loop_now(c->loop);
		c->stream_failures = 0;
		c->failures = 0;
	}
	if (changes->n_skipped)
		log_remote(LOG_LEVEL_WARNING, "control: %zu entries of a map message left out",
			   changes->n_skipped);
	if (!netmap_changes_empty(changes) || changes->full)
		c->ops->on_map(c->data, changes, changes->full);
	if (c->stream.st != st)
		return;
	control_map_state(c);
	c->was_expired = c->nm->self_expired;
	self_changed(c, changes->self);
	control_map_state(c);
}

static int message(struct control *c, struct json_slice text)
{
	CLEANUP(tailcfg_map_done) struct tailcfg_map_response m = { 0 };
	CLEANUP(netmap_changes_done) struct netmap_changes changes = { 0 };
	struct h2_stream *st = c->stream.st;
	int64_t now = loop_wall_nsec();
	int r;

	c->maps++;
	c->bytes += text.len;
	c->last_message = loop_now(c->loop);
	loop_timer_in(c->watchdog, WATCHDOG_USEC);
	r = tailcfg_map_decode(text, &m);
	if (r < 0)
		return r;
	r = netmap_apply(c->nm, &m, now, &changes);
	if (r < 0)
		return r;
	if (m.ping)
		control_ping(c, m.ping);
	if (m.browse_url)
		browse(c, m.browse_url);
	if (!m.keep_alive)
		map_changed(c, &changes);
	if (changes.n_peers > TRIM_PEERS)
		malloc_trim(0);
	if (c->stream.st == st)
		control_expiry_check(c);
	return 0;
}

static void stream_fail(struct control *c, int r)
{
	stream_again(c, r == -EPROTO ? "the first message has no node of ours" :
			r == -ENOMEM ? "no memory for what it says" :
				       "a message that cannot be read");
}

void control_stream_read(struct control *c)
{
	const struct h2_stream *st = c->stream.st;
	const char *text;
	size_t len;
	int r = 0;

	while (st && !session_tired(c->session)) {
		r = ts2021_frames_next(&c->frames, &text, &len);
		if (r <= 0)
			break;
		r = message(c, (struct json_slice){ text, len });
		if (c->stream.st != st)
			return;
		/* Also what a big one had brought, and the next one took away. */
		if (len > TRIM_BYTES || c->was_big)
			malloc_trim(0);
		c->was_big = len > TRIM_BYTES;
		if (r < 0)
			break;
	}
	if (r < 0)
		stream_fail(c, r);
}

static void stream_data(void *data, struct h2_stream *st, const uint8_t *p, size_t n)
{
	struct control_request *q = data;
	int r;

	if (q->st != st)
		return;
	if (q->status != 200) {
		buf_put(&q->body, p, n);
		return;
	}
	r = ts2021_frames_feed(&q->c->frames, p, n);
	if (r < 0)
		stream_fail(q->c, r);
	else
		control_stream_read(q->c);
}

static void stream_headers(void *data, struct h2_stream *st, int status)
{
	struct control_request *q = data;

	control_request_on_headers(data, st, status);
	if (q->st == st && status == 200)
		loop_timer_in(q->c->watchdog, WATCHDOG_USEC);
}

static void stream_end(void *data, struct h2_stream *st, int error)
{
	struct control_request *q = data;
	struct control *c = q->c;
	char why[64];

	if (!control_request_over(q, st))
		return;
	if (error == -EPIPE) { /* with its connection, whose end is told apart */
		control_stream_drop(c);
		return;
	}
	if (error == 0 && q->status == 404) { /* deleted, or another machine's */
		control_not_known(c);
		return;
	}
	if (error < 0)
		snprintf(why, sizeof(why), "%s", strerror(-error));
	else
		snprintf(why, sizeof(why), "ended, status %d", q->status);
	stream_again(c, why);
}

static const struct h2_client_ops stream_ops = {
	.on_headers = stream_headers,
	.on_data = stream_data,
	.on_end = stream_end,
};

void control_stream(struct control *c)
{
	CLEANUP(buf_done) struct buf body = { 0 };
	int r;

	ts2021_frames_done(&c->frames);
	ts2021_frames_init(&c->frames, TS2021_CODING_ZSTD);
	netmap_stream_begin(c->nm);
	c->was_expired = c->nm->self_expired;
	r = control_encode_map_request(c, true, true, &body);
	if (r == 0)
		r = control_request_start(c, &c->stream, "POST", "/machine/map", &body, &stream_ops);
	if (r < 0) {
		stream_again(c, strerror(-r));
		return;
	}
	if (!c->stream.st) /* with its connection, which was found dead: that has been acted on */
		return;
	loop_timer_in(c->watchdog, WATCHDOG_USEC);
	/* Why it is not the first one says more than that it is awaited. */
	if (c->state != CONTROL_STATE_EXPIRED && (c->state != CONTROL_STATE_SYNCING || !c->stream_failures))
		control_set_state(c, CONTROL_STATE_SYNCING, "waiting for the first map");
}
