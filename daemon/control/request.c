#include "daemon/control/internal.h"

#include <errno.h>
#include <sodium.h>

uint32_t control_random(void)
{
	return randombytes_random();
}

int control_request_start(struct control *c, struct control_request *q, const char *method,
			  const char *path, const struct buf *body, const struct h2_client_ops *ops)
{
	int r;

	q->c = c;
	q->status = 0;
	buf_done(&q->body);
	q->body.max = TAILCFG_REGISTER_TEXT_MAX;
	if (!c->session)
		return -ENOTCONN;
	r = session_request(c->session, method, path, &c->node.pub, buf_data(body), body->len, ops, q,
			    &q->st);
	if (r < 0)
		q->st = NULL;
	return r;
}

void control_request_cancel(struct control_request *q)
{
	struct h2_stream *st = TAKE(q->st);

	if (q->deadline)
		loop_timer_stop(q->deadline);
	buf_done(&q->body);
	if (st)
		h2_reset(st);
}

bool control_request_over(struct control_request *q, const struct h2_stream *st)
{
	if (q->st != st)
		return false;
	q->st = NULL;
	if (q->deadline)
		loop_timer_stop(q->deadline);
	return true;
}

void control_request_on_headers(void *data, struct h2_stream *st, int status)
{
	struct control_request *q = data;

	if (q->st == st)
		q->status = status;
}

void control_request_on_data(void *data, struct h2_stream *st, const uint8_t *p, size_t n)
{
	struct control_request *q = data;

	if (q->st == st)
		buf_put(&q->body, p, n); /* over its limit the buffer is bad, which on_end sees */
}
