#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control/internal.h"
#include "lib/log.h"

#define KEY_TIMEOUT_USEC	(10 * USEC_PER_SEC)
#define KEY_CHANGED_CHECK_USEC	(60 * USEC_PER_SEC)
#define PONG_USEC		(5 * USEC_PER_SEC)

const char *control_state_name(enum control_state s)
{
	switch (s) {
	case CONTROL_STATE_STOPPED:
		return "stopped";
	case CONTROL_STATE_NEEDS_LOGIN:
		return "needs login";
	case CONTROL_STATE_CONNECTING:
		return "connecting";
	case CONTROL_STATE_AUTHENTICATING:
		return "authenticating";
	case CONTROL_STATE_SYNCING:
		return "syncing";
	case CONTROL_STATE_RUNNING:
		return "running";
	case CONTROL_STATE_NEEDS_APPROVAL:
		return "needs approval";
	case CONTROL_STATE_EXPIRED:
		return "expired";
	case CONTROL_STATE_SERVER_KEY_CHANGED:
		return "server key changed";
	}
	unreachable();
}

void control_set_state(struct control *c, enum control_state state, const char *fmt, ...)
{
	char text[sizeof(c->text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c->state == state && strcmp(c->text, text) == 0)
		return;
	log_debug("control: %s%s%s", control_state_name(state), *text ? ": " : "", text);
	c->state = state;
	memcpy(c->text, text, sizeof(text));
	c->ops->on_state(c->data, state, c->text);
}

void control_drop_session(struct control *c)
{
	struct session *s = TAKE(c->session);

	loop_timer_stop(c->pong);
	control_update_lost(c);
	control_stream_drop(c);
	control_ping_cancel(c);
	control_request_cancel(&c->reg);
	control_request_cancel(&c->bye);
	session_free(s);
}

unsigned int control_trouble(const struct control *c)
{
	return c->failures + c->stream_failures + c->flaps;
}

void control_retry(struct control *c, bool keep_session, const char *fmt, ...)
{
	char text[sizeof(c->text)];
	uint64_t wait;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!keep_session)
		control_drop_session(c);
	c->failures++;
	wait = control_backoff_usec(control_trouble(c), control_random());
	loop_timer_in(c->retry, wait);
	/* One failure is the ordinary end of a connection; the second one is news. */
	if (c->failures == 2) {
		log_warning("control: %s; trying again", text);
		if (c->login_wanted && !keep_session)
			c->ops->on_login_failed(c->data, text, false);
	}
	control_set_state(c, keep_session ? c->state : CONTROL_STATE_CONNECTING, "%s", text);
}

static void retry_now(void *data)
{
	struct control *c = data;

	c->parked = false;
	control_advance(c);
}

/* ---- the server's key ---- */

static void key_arrived(struct control *c, const struct key *key)
{
	int r;

	if (!key_is_zero(&c->pinned) && !key_equal(&c->pinned, key)) {
		if (c->logout_fn) { /* not a server to say good-bye to */
			control_logged_out(c, -EKEYREJECTED);
			return;
		}
		c->offered_key = *key;
		c->parked = true;
		log_err("control: %s shows another key than before: not connecting", c->server_url);
		control_set_state(c, CONTROL_STATE_SERVER_KEY_CHANGED,
				  "the server shows another key than before");
		c->ops->on_login_failed(c->data, "the server shows another key than before", true);
		loop_timer_in(c->retry, KEY_CHANGED_CHECK_USEC);
		return;
	}
	if (key_is_zero(&c->pinned)) {
		r = c->ops->on_server_key(c->data, c->server_url, key);
		if (r < 0) {
			control_retry(c, false, "cannot store the server's key: %s", strerror(-r));
			return;
		}
		c->pinned = *key;
	}
	c->need_key = false;
	control_advance(c);
}

static void key_answer(void *data, int r, const struct httpc_answer *a, const char *why)
{
	struct control *c = data;
	struct key key;

	c->key_request = NULL;
	if (r < 0) {
		control_retry(c, false, "cannot reach %s: %s", c->server_url, why);
		return;
	}
	if (a->head->status / 100 == 3) {
		control_retry(c, false, "%s sends us elsewhere (status %d); its own URL is needed", c->server_url,
			      a->head->status);
		return;
	}
	if (a->head->status != 200) {
		control_retry(c, false, "%s/key: status %d", c->server_url, a->head->status);
		return;
	}
	r = tailcfg_server_key_decode((struct json_slice){ (const char *)a->body, a->len }, &key);
	if (r < 0) {
		control_retry(c, false, "%s is no coordination server", c->server_url);
		return;
	}
	key_arrived(c, &key);
}

static void fetch_key(struct control *c)
{
	struct httpc_opts o = { .timeout_usec = KEY_TIMEOUT_USEC,
				.tls = c->tls,
				.dial = { .mark = c->mark, .cache = c->dial_cache } };
	char url[TAILCFG_URL_MAX + 32];
	int r;

	if (c->key_request)
		return;
	snprintf(url, sizeof(url), "%s/key?v=%d", c->server_url, TAILCFG_CAP_VERSION);
	o.url = url;
	r = httpc_start(c->loop, &o, key_answer, c, &c->key_request);
	if (r < 0)
		control_retry(c, false, "%s: %s", c->server_url, strerror(-r));
}

int control_accept_server_key(struct control *c)
{
	int r;

	if (c->state != CONTROL_STATE_SERVER_KEY_CHANGED)
		return -EALREADY;
	r = c->ops->on_server_key(c->data, c->server_url, &c->offered_key);
	if (r < 0)
		return r;
	c->pinned = c->offered_key;
	c->need_key = c->parked = false;
	loop_timer_stop(c->retry);
	control_advance(c);
	return 0;
}

/* ---- connection ---- */

static void session_is_ready(void *data)
{
	control_advance(data);
}

static void session_is_over(void *data, int error, const char *why)
{
	struct control *c = data;

	if (error == -EKEYREJECTED) /* the key, or our version: the server's key says which */
		c->need_key = true;
	control_retry(c, false, "%s: %s", c->server_url, why);
}

static void session_has_turn(void *data)
{
	control_stream_read(data);
}

static const struct session_ops session_ops = { session_is_ready, session_is_over, session_has_turn };

static void connect_session(struct control *c)
{
	struct session_opts o = { .server_url = c->server_url,
				  .machine = &c->machine,
				  .server_key = &c->pinned,
				  .tls = c->tls,
				  .mark = c->mark,
				  .cache = c->dial_cache };
	int r;

	r = session_new(c->loop, &o, &session_ops, c, &c->session);
	if (r < 0)
		control_retry(c, false, "%s: %s", c->server_url, strerror(-r));
}

static void pong_arrived(void *data)
{
	struct control *c = data;

	loop_timer_stop(c->pong);
}

static void pong_missing(void *data)
{
	control_retry(data, false, "the connection has died");
}

void control_kick(struct control *c)
{
	if (!c->running)
		return;
	c->failures = c->stream_failures = c->lite_failures = c->flaps = 0;
	if (c->state == CONTROL_STATE_SERVER_KEY_CHANGED) /* another network, another answer */
		c->parked = false;
	if (!c->parked)
		loop_timer_stop(c->retry);
	if (!c->stream.st)
		loop_timer_stop(c->watchdog);
	if (c->session && session_ready(c->session) && !loop_timer_armed(c->pong) &&
	    session_ping(c->session, pong_arrived, c) == 0)
		loop_timer_in(c->pong, PONG_USEC);
	control_advance(c);
}

/* ---- the whole ---- */

/* Looks at where we are and does what is next; each step ends in a callback that comes here again. */
void control_advance(struct control *c)
{
	if (!c->running || loop_timer_armed(c->retry) || (c->parked && !c->logout_fn))
		return;
	if (key_is_zero(&c->node.pub) && !c->login_wanted) {
		control_set_state(c, CONTROL_STATE_NEEDS_LOGIN, "%s", "");
		return;
	}
	if (!c->session && c->state != CONTROL_STATE_CONNECTING)
		control_set_state(c, CONTROL_STATE_CONNECTING, "%s", c->server_url);
	if (c->need_key || key_is_zero(&c->pinned)) {
		fetch_key(c);
		return;
	}
	if (!c->session) {
		connect_session(c);
		return;
	}
	if (!session_ready(c->session))
		return;
	if (c->logout_fn) {
		control_say_goodbye(c);
		return;
	}
	if (c->need_register) {
		if (!c->reg.st)
			control_register(c);
		return;
	}
	if (!c->stream.st) /* a new conversation gathers nothing and waits for nothing */
		loop_timer_stop(c->tell);
	control_update(c); /* before the stream: peers learn a new disco key from it (T23) */
	if (!c->stream.st && !loop_timer_armed(c->watchdog))
		control_stream(c);
}

static void reg_deadline(void *data)
{
	struct control *c = data;

	control_request_cancel(&c->reg);
	control_retry(c, false, "register: no answer");
}

static void lite_deadline(void *data)
{
	struct control *c = data;

	control_request_cancel(&c->lite);
	control_update(c);
}

static void tell_now(void *data)
{
	control_update(data);
}

static int make_timers(struct control *c)
{
	struct {
		loop_fn *fn;
		struct loop_timer **t;
	} timers[] = {
		{ retry_now, &c->retry },	    { control_watchdog, &c->watchdog },
		{ control_expiry_check, &c->expiry }, { tell_now, &c->tell },
		{ reg_deadline, &c->reg.deadline }, { lite_deadline, &c->lite.deadline },
		{ pong_missing, &c->pong },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(timers) && r == 0; i++)
		r = loop_timer_new(c->loop, timers[i].fn, c, timers[i].t);
	return r;
}

int control_new(struct loop *l, const struct control_config *cfg, const struct control_ops *ops,
		void *data, struct control **ret)
{
	CLEANUP(control_free) struct control *c = NULL;
	struct http_url url;
	size_t n = strlen(cfg->server_url);

	while (n && cfg->server_url[n - 1] == '/')
		n--;
	if (n > TAILCFG_URL_MAX || http_url_parse(cfg->server_url, &url) < 0 ||
	    (url.tls && !cfg->tls))
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->loop = l;
	c->ops = ops;
	c->data = data;
	c->server_url = strndup(cfg->server_url, n);
	c->tls = cfg->tls ? tls_ctx_ref(cfg->tls) : NULL;
	c->mark = cfg->mark;
	c->dial_cache = cfg->dial_cache;
	c->machine = *cfg->machine;
	c->node = *cfg->node;
	if (cfg->old_node)
		c->old_node = *cfg->old_node;
	c->registered = cfg->registered;
	/* A login that was cut off between the new key and the server's word goes on with that key. */
	c->fresh_key = !cfg->registered && !key_is_zero(&c->old_node.pub);
	c->disco = *cfg->disco;
	if (cfg->server_key)
		c->pinned = *cfg->server_key;
	c->nm = cfg->netmap;
	c->need_register = true;
	c->tokens = 3;
	c->token_time = loop_now(l);
	if (!c->server_url || make_timers(c) < 0)
		return -ENOMEM;
	*ret = TAKE(c);
	return 0;
}

void control_start(struct control *c)
{
	if (!c->running || c->parked)
		c->need_register = true;
	c->running = true;
	c->parked = false;
	control_advance(c);
}

void control_stop(struct control *c)
{
	c->running = false;
	loop_timer_stop(c->retry);
	loop_timer_stop(c->expiry);
	httpc_cancel(TAKE(c->key_request));
	control_login_reset(c);
	control_drop_session(c);
	buf_clear(&c->told);
	control_set_state(c, CONTROL_STATE_STOPPED, "%s", "");
}

void control_free(struct control *c)
{
	if (!c)
		return;
	httpc_cancel(TAKE(c->key_request));
	c->running = false;
	if (c->retry && c->watchdog && c->expiry && c->tell && c->pong) {
		control_login_reset(c);
		control_drop_session(c);
	}
	loop_timer_free(c->retry);
	loop_timer_free(c->watchdog);
	loop_timer_free(c->expiry);
	loop_timer_free(c->tell);
	loop_timer_free(c->pong);
	loop_timer_free(c->reg.deadline);
	loop_timer_free(c->lite.deadline);
	loop_timer_free(c->logout_deadline);
	tls_ctx_unref(c->tls);
	key_pair_wipe(&c->machine);
	key_pair_wipe(&c->node);
	key_pair_wipe(&c->old_node);
	tailcfg_hostinfo_done(&c->hostinfo);
	free(c->endpoints);
	buf_done(&c->told);
	buf_done(&c->telling);
	free(c->last_ping);
	free(c->last_browse);
	free(c->server_url);
	free(c);
}

void control_status(const struct control *c, struct control_status *ret)
{
	*ret = (struct control_status){
		.state = c->state,
		.text = c->text,
		.auth_url = c->followup ? c->followup : "",
		.server_url = c->server_url,
		.last_message = c->last_message,
		.maps = c->maps,
		.bytes = c->bytes,
		.map_live = c->map_live,
		.offered_key = c->offered_key,
	};
}
