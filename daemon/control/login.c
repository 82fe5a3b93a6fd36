/* Registering, logging in by key or by a person, rotating the node key, logging out. */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "daemon/control/internal.h"
#include "lib/log.h"

#define DEADLINE_USEC	       (30 * USEC_PER_SEC)
#define FOLLOWUP_DEADLINE_USEC (20 * 60 * USEC_PER_SEC) /* servers end theirs after 15 minutes */
#define LOGOUT_DEADLINE_USEC   (10 * USEC_PER_SEC)
#define URLS_MAX	       3 /* that follow each other at once */
#define EXPIRED_CHECK_USEC     (5 * 60 * USEC_PER_SEC)

static const char lock_text[] = "the server wants a tailnet lock signature";

static void wipe_auth_key(struct control *c)
{
	if (c->auth_key)
		sodium_memzero(c->auth_key, strlen(c->auth_key));
	free(TAKE(c->auth_key));
	c->use_auth_key = false;
}

void control_login_reset(struct control *c)
{
	wipe_auth_key(c);
	free(TAKE(c->followup));
	c->login_wanted = c->force_new_key = c->fresh_key = false;
	c->urls = 0;
}

void control_not_known(struct control *c)
{
	unsigned int before = control_trouble(c);

	control_stream_drop(c);
	c->need_register = true;
	/* A server that registers us and does not know us, again and again, must not make us spin. */
	c->stream_failures++;
	if (before) {
		control_set_state(c, CONTROL_STATE_SYNCING, "the server does not know this node");
		loop_timer_in(c->retry, control_backoff_usec(control_trouble(c), control_random()));
	}
	control_advance(c);
}

/* A new node key is on disk before anything uses it (control.md T13). */
static int new_node_key(struct control *c)
{
	struct key_pair fresh;
	int r;

	key_pair_generate(&fresh);
	r = c->ops->on_node_key(c->data, &fresh, &c->node);
	if (r == 0) {
		c->old_node = c->node;
		c->node = fresh;
		c->fresh_key = true;
		c->registered = false;
	}
	key_pair_wipe(&fresh);
	return r;
}

static void succeed(struct control *c, const struct tailcfg_register_response *a)
{
	bool rotated = c->fresh_key;

	control_login_reset(c);
	c->registered = true;
	c->need_register = false;
	c->failures = 0;
	if (rotated) /* a stream of the old key would go on being served */
		control_stream_drop(c);
	loop_timer_stop(c->watchdog);
	c->ops->on_registered(c->data, &c->node, a->user.login);
	control_map_state(c); /* where the stream went on all the while */
	control_advance(c);
}

static void give_up(struct control *c, enum control_state state, const char *text)
{
	control_login_reset(c);
	c->parked = true;
	control_set_state(c, state, "%s", text);
	if (!c->stream.st)
		control_drop_session(c);
}

static void show_url(struct control *c, const char *url)
{
	bool again = c->followup && strcmp(c->followup, url) == 0;

	if (!again) {
		free(c->followup);
		c->followup = strdup(url);
		if (!c->followup) {
			control_retry(c, true, "out of memory");
			return;
		}
		control_set_state(c, CONTROL_STATE_AUTHENTICATING, "waiting for a login at %s", url);
		c->ops->on_auth_url(c->data, url);
		if (c->urls++ < URLS_MAX) {
			c->failures = 0;
			control_advance(c);
			return;
		}
	}
	/* A server that answers at once with the same URL, or always with another one, must not make us spin. */
	control_retry(c, true, "waiting for a login at %s", url);
}

static void act(struct control *c, const struct tailcfg_register_response *a, bool sent_key)
{
	struct control_attempt t = { .login_wanted = c->login_wanted,
				     .have_auth_key = c->auth_key != NULL,
				     .sent_auth_key = sent_key,
				     .fresh_key = c->fresh_key };
	enum control_verdict v = control_judge(a, &t);
	int r;

	log_debug("control: register: %s", control_verdict_name(v));
	switch (v) {
	case CONTROL_VERDICT_SUCCESS:
		succeed(c, a);
		return;
	case CONTROL_VERDICT_REFUSED:
		give_up(c, CONTROL_STATE_NEEDS_LOGIN, a->error);
		c->ops->on_login_failed(c->data, a->error, true);
		return;
	case CONTROL_VERDICT_TRY_AGAIN:
		c->ops->on_login_failed(c->data, *a->error ? a->error : "the server calls a new key expired",
					false);
		control_retry(c, true, "%s", a->error);
		return;
	case CONTROL_VERDICT_ROTATE:
		r = new_node_key(c);
		c->use_auth_key = c->auth_key != NULL;
		if (r < 0)
			control_retry(c, true, "cannot store the new node key: %s", strerror(-r));
		else
			control_advance(c);
		return;
	case CONTROL_VERDICT_USE_KEY:
		c->use_auth_key = true;
		control_advance(c);
		return;
	case CONTROL_VERDICT_SHOW_URL:
		wipe_auth_key(c);
		show_url(c, a->auth_url);
		return;
	case CONTROL_VERDICT_NEEDS_LOGIN:
		give_up(c, CONTROL_STATE_NEEDS_LOGIN, "the server does not know this node");
		return;
	case CONTROL_VERDICT_EXPIRED:
		give_up(c, CONTROL_STATE_EXPIRED, "the node key has expired");
		/* An administrator may take it back. */
		loop_timer_in(c->retry, EXPIRED_CHECK_USEC);
		return;
	case CONTROL_VERDICT_UNSUPPORTED:
		give_up(c, CONTROL_STATE_NEEDS_LOGIN, lock_text);
		c->ops->on_login_failed(c->data, lock_text, true);
		return;
	}
	unreachable();
}

static void answer_text(const struct control_request *q, char *out, size_t max)
{
	char *text = tailcfg_text(buf_str((struct buf *)(uintptr_t)&q->body), max / 2);

	snprintf(out, max, "%s", text ? text : "");
	free(text);
	for (size_t n = strlen(out); n && (out[n - 1] == '?' || out[n - 1] == ' '); n--)
		out[n - 1] = '\0'; /* the newline that ends it */
}

static void register_end(void *data, struct h2_stream *st, int error)
{
	CLEANUP(tailcfg_register_done) struct tailcfg_register_response a = { 0 };
	struct control_request *q = data;
	struct control *c = q->c;
	bool sent_key = c->use_auth_key;
	char text[200];
	int r;

	if (!control_request_over(q, st))
		return;
	if (error == -EPIPE)
		return; /* the session's own end says more */
	if (error < 0) {
		control_retry(c, true, "register: %s", strerror(-error));
		return;
	}
	if (q->status == 429) {
		c->ops->on_login_failed(c->data, "the server is busy, it will be asked again", false);
		loop_timer_in(c->retry, control_retry_after_usec(h2_header(st, "retry-after"),
								 control_random()));
		return;
	}
	if (q->status != 200) {
		answer_text(q, text, sizeof(text));
		c->ops->on_login_failed(c->data, *text ? text : "the server failed", false);
		control_retry(c, true, "register: status %d: %s", q->status, text);
		return;
	}
	r = tailcfg_register_decode((struct json_slice){ buf_str(&q->body), q->body.len }, &a);
	buf_done(&q->body);
	if (r < 0) {
		control_retry(c, true, "register: the answer cannot be read");
		return;
	}
	act(c, &a, sent_key);
}

static const struct h2_client_ops register_ops = {
	.on_headers = control_request_on_headers,
	.on_data = control_request_on_data,
	.on_end = register_end,
};

static int send_register(struct control *c, struct control_request *q, bool logout,
			 const struct h2_client_ops *ops)
{
	struct tailcfg_register_request rq = { .version = TAILCFG_CAP_VERSION,
					       .node_key = c->node.pub,
					       .old_node_key = c->fresh_key ? c->old_node.pub : key_zero,
					       .logout = logout,
					       .hostinfo = &c->hostinfo };
	struct buf body = { 0 };
	int r;

	if (!logout) {
		rq.followup = c->followup;
		rq.auth_key = c->use_auth_key && !c->followup ? c->auth_key : NULL;
	}
	/* Room at once, so that growing leaves no copies of the auth key behind. */
	r = buf_reserve(&body, 65536);
	if (r == 0)
		r = tailcfg_register_encode(&rq, &body);
	if (r == 0)
		r = control_request_start(c, q, "POST", "/machine/register", &body, ops);
	buf_done_secret(&body);
	return r;
}

void control_register(struct control *c)
{
	int r = 0;

	/* A node key of our own making that no server has seen yet needs the auth key in any case. */
	if (c->login_wanted && (c->force_new_key || key_is_zero(&c->node.pub))) {
		c->force_new_key = false;
		r = new_node_key(c);
	}
	if (c->login_wanted && c->auth_key && !c->registered)
		c->use_auth_key = true;
	if (r < 0) {
		control_retry(c, true, "cannot store the node key: %s", strerror(-r));
		return;
	}
	if (!c->followup && (c->login_wanted || c->state != CONTROL_STATE_EXPIRED))
		control_set_state(c, CONTROL_STATE_AUTHENTICATING, "registering");
	r = send_register(c, &c->reg, false, &register_ops);
	if (r == -EINVAL) {
		give_up(c, CONTROL_STATE_NEEDS_LOGIN, "that is no auth key");
		c->ops->on_login_failed(c->data, "that is no auth key", true);
	} else if (r < 0) {
		control_retry(c, false, "register: %s", strerror(-r));
	} else if (c->reg.st) { /* else the connection was found dead, and that has been acted on */
		loop_timer_in(c->reg.deadline, c->followup ? FOLLOWUP_DEADLINE_USEC : DEADLINE_USEC);
	}
}

int control_login(struct control *c, const char *auth_key, bool force_new_key)
{
	char *copy = NULL;

	if (auth_key && (!*auth_key || strlen(auth_key) > 1024))
		return -EINVAL;
	if (auth_key) {
		copy = strdup(auth_key);
		if (!copy)
			return -ENOMEM;
	}
	control_login_reset(c);
	control_request_cancel(&c->reg);
	c->auth_key = copy;
	c->login_wanted = true;
	c->force_new_key = force_new_key;
	c->need_register = true;
	c->running = true;
	c->parked = false;
	c->failures = 0;
	loop_timer_stop(c->retry);
	control_advance(c);
	return 0;
}

/* ---- logout ---- */

void control_logged_out(struct control *c, int r)
{
	static const struct key_pair none;
	control_logout_fn *fn = TAKE(c->logout_fn);

	if (!fn)
		return;
	loop_timer_stop(c->logout_deadline);
	control_request_cancel(&c->bye);
	c->ops->on_node_key(c->data, &none, &none);
	key_pair_wipe(&c->node);
	key_pair_wipe(&c->old_node);
	c->registered = false;
	control_stop(c);
	fn(c->logout_data, r);
}

static void logout_late(void *data)
{
	control_logged_out(data, -ETIMEDOUT);
}

static void bye_end(void *data, struct h2_stream *st, int error)
{
	struct control_request *q = data;

	if (!control_request_over(q, st))
		return;
	if (error == -EPIPE)
		return; /* the connection is gone: the deadline allows one more try */
	control_logged_out(q->c, error < 0 ? error : q->status == 200 ? 0 : -EREMOTEIO);
}

static const struct h2_client_ops bye_ops = {
	.on_headers = control_request_on_headers,
	.on_data = control_request_on_data,
	.on_end = bye_end,
};

void control_say_goodbye(struct control *c)
{
	int r;

	if (c->bye.st)
		return;
	r = send_register(c, &c->bye, true, &bye_ops);
	if (r < 0)
		control_logged_out(c, r);
}

int control_logout(struct control *c, control_logout_fn *fn, void *data)
{
	int r;

	if (c->logout_fn)
		return -EALREADY;
	if (!c->logout_deadline) {
		r = loop_timer_new(c->loop, logout_late, c, &c->logout_deadline);
		if (r < 0)
			return r;
	}
	control_login_reset(c);
	control_request_cancel(&c->reg);
	c->logout_fn = fn;
	c->logout_data = data;
	if (key_is_zero(&c->node.pub)) {
		loop_timer_in(c->logout_deadline, 0);
		return 0;
	}
	c->running = true;
	loop_timer_stop(c->retry);
	loop_timer_in(c->logout_deadline, LOGOUT_DEADLINE_USEC);
	control_advance(c);
	return 0;
}
