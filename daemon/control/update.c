/* What the server is told of us: complete every time, and only when something differs. */
#include <errno.h>
#include <string.h>

#include "daemon/control/internal.h"
#include "lib/log.h"

#define DEADLINE_USEC	 (30 * USEC_PER_SEC)
#define TOKENS_MAX	 3 /* so many at once, so that a login waits for nothing; then */
#define TOKEN_EVERY_USEC (1 * USEC_PER_SEC)
#define GATHER_USEC	 (20 * USEC_PER_MSEC)

int control_encode_map_request(struct control *c, bool stream, bool latencies, struct buf *out)
{
	struct tailcfg_hostinfo h = c->hostinfo;
	struct tailcfg_map_request q = { .version = TAILCFG_CAP_VERSION,
					 .stream = stream,
					 .node_key = c->node.pub,
					 .disco_key = c->disco,
					 .has_endpoints = c->has_endpoints,
					 .endpoints = c->endpoints,
					 .n_endpoints = c->n_endpoints,
					 .hostinfo = &h };

	if (!latencies)
		h.net.n_latency = 0;
	return tailcfg_map_encode(&q, out);
}

/* The text that is compared: measured latencies move all the time and are no news (control.md 8.3). */
static int news(struct control *c, struct buf *out)
{
	int r;

	buf_clear(out);
	r = control_encode_map_request(c, false, false, out);
	if (r < 0)
		return r;
	return out->len != c->told.len || memcmp(buf_data(out), buf_data(&c->told), out->len) != 0;
}

static void refill(struct control *c)
{
	uint64_t now = loop_now(c->loop);

	while (c->tokens < TOKENS_MAX && now - c->token_time >= TOKEN_EVERY_USEC) {
		c->tokens++;
		c->token_time += TOKEN_EVERY_USEC;
	}
	if (c->tokens == TOKENS_MAX)
		c->token_time = now;
}

static void lite_end(void *data, struct h2_stream *st, int error)
{
	struct control_request *q = data;
	struct control *c = q->c;

	if (!control_request_over(q, st))
		return;
	buf_done(&q->body);
	if (error == 0 && q->status == 200) {
		struct buf tmp = c->told;

		c->told = c->telling;
		c->telling = tmp;
		c->lite_failures = 0;
		control_update(c); /* more may have changed meanwhile */
		return;
	}
	if (error == 0 && q->status == 404) {
		/* Deleted: an open stream would go on with keep-alives and nothing else. */
		control_not_known(c);
		return;
	}
	if (error == -EPIPE || !c->session)
		return; /* with the connection; the next one starts anew */
	log_debug("control: update refused: status %d, error %d", q->status, error);
	c->lite_failures++;
	loop_timer_in(c->tell, control_backoff_usec(c->lite_failures + 3, control_random()));
}

static const struct h2_client_ops lite_ops = {
	.on_headers = control_request_on_headers,
	.on_end = lite_end,
};

static void send_lite(struct control *c)
{
	CLEANUP(buf_done) struct buf body = { 0 };
	int r;

	r = control_encode_map_request(c, false, true, &body);
	if (r == 0)
		r = control_request_start(c, &c->lite, "POST", "/machine/map", &body, &lite_ops);
	if (r < 0 || !c->lite.st)
		return;
	log_debug("control: telling the server (%zu endpoints, home %d)", c->n_endpoints,
		  c->hostinfo.net.preferred_derp);
	loop_timer_in(c->lite.deadline, DEADLINE_USEC);
}

void control_update(struct control *c)
{
	int r;

	if (!c->running || !c->session || !session_ready(c->session) || c->need_register ||
	    c->lite.st || loop_timer_armed(c->tell))
		return;
	r = news(c, &c->telling);
	if (r <= 0)
		return;
	refill(c);
	if (!c->tokens) {
		loop_timer_in(c->tell, TOKEN_EVERY_USEC);
		return;
	}
	c->tokens--;
	send_lite(c);
}

void control_update_lost(struct control *c)
{
	control_request_cancel(&c->lite);
	loop_timer_stop(c->tell);
}

/* Setters come in groups: what changes within one moment is told at once. */
static void gather(struct control *c)
{
	if (!loop_timer_armed(c->tell))
		loop_timer_in(c->tell, GATHER_USEC);
}

int control_set_hostinfo(struct control *c, const struct tailcfg_hostinfo *h)
{
	struct tailcfg_hostinfo copy;
	int r;

	r = tailcfg_hostinfo_copy(h, &copy);
	if (r < 0)
		return r;
	copy.net = c->hostinfo.net;
	tailcfg_hostinfo_done(&c->hostinfo);
	c->hostinfo = copy;
	gather(c);
	return 0;
}

void control_set_netinfo(struct control *c, const struct tailcfg_netinfo *n)
{
	c->hostinfo.net = *n;
	gather(c);
}

static int cmp_endpoint(const void *a, const void *b)
{
	const struct tailcfg_endpoint *x = a, *y = b;

	return x->type != y->type ? (int)x->type - (int)y->type : endpoint_cmp(&x->ep, &y->ep);
}

int control_set_endpoints(struct control *c, const struct tailcfg_endpoint *e, size_t n)
{
	struct tailcfg_endpoint *copy;

	n = MIN(n, (size_t)TAILCFG_ENDPOINTS_MAX);
	copy = calloc(n ? n : 1, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		copy[i] = e[i];
	qsort(copy, n, sizeof(*copy), cmp_endpoint); /* the same set is the same text */
	free(c->endpoints);
	c->endpoints = copy;
	c->n_endpoints = n;
	c->has_endpoints = true;
	gather(c);
	return 0;
}

void control_set_disco(struct control *c, const struct key *disco)
{
	c->disco = *disco;
	gather(c);
}
