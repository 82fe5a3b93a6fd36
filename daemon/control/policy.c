#include "daemon/control/policy.h"

#include <string.h>

#define MSEC UINT64_C(1000)
#define SEC  UINT64_C(1000000)

uint64_t control_backoff_usec(unsigned int failures, uint32_t rnd)
{
	uint64_t n = failures < 100 ? failures : 100;
	uint64_t base = MIN(n * n * 10 * MSEC, 30 * SEC);

	return base / 2 + base * rnd / UINT32_MAX;
}

uint64_t control_retry_after_usec(const char *value, uint32_t rnd)
{
	uint64_t secs = 0;
	const char *p;

	for (p = value ? value : ""; *p >= '0' && *p <= '9' && secs <= 3600; p++)
		secs = secs * 10 + (uint64_t)(*p - '0');
	if (*p || secs == 0 || secs > 3600)
		return 5 * SEC + 5 * SEC * rnd / UINT32_MAX;
	return secs * SEC;
}

uint64_t control_toll_usec(struct control_toll *t, uint64_t now, uint64_t used)
{
	uint64_t earned, pause;

	if (!t->begun)
		*t = (struct control_toll){ CONTROL_TOLL_BURST_USEC, now, 0, true };
	earned = now > t->since ? (now - t->since) / CONTROL_TOLL_SHARE : 0;
	t->since += earned * CONTROL_TOLL_SHARE;
	t->credit_usec = MIN(t->credit_usec + earned, CONTROL_TOLL_BURST_USEC);
	if (t->credit_usec >= CONTROL_TOLL_BURST_USEC / 4)
		t->behind = 0;
	if (used <= t->credit_usec) {
		t->credit_usec -= used;
		return 0;
	}
	if (!t->behind)
		t->behind = now;
	if (now - t->behind > CONTROL_TOLL_PATIENCE_USEC)
		return UINT64_MAX;
	pause = MIN((used - t->credit_usec) * CONTROL_TOLL_SHARE, CONTROL_TOLL_PAUSE_USEC);
	t->credit_usec = 0;
	t->since = now + pause; /* that time is paid with */
	return pause;
}

/* Servers tell by text alone (control.md 6.5): what is about the key or its tags stays as it is. */
static bool about_the_key(const char *error)
{
	static const char *const words[] = { "authkey", "auth key", "pre auth", "preauth",
					     "pre-auth", "tag",	    "invalid key" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcasestr(error, words[i]))
			return true;
	}
	return false;
}

enum control_verdict control_judge(const struct tailcfg_register_response *a,
				   const struct control_attempt *t)
{
	if (*a->error)
		return t->sent_auth_key && about_the_key(a->error) ? CONTROL_VERDICT_REFUSED
								   : CONTROL_VERDICT_TRY_AGAIN;
	if (a->wants_signature)
		return CONTROL_VERDICT_UNSUPPORTED;
	if (a->node_key_expired) {
		if (!t->login_wanted)
			return CONTROL_VERDICT_EXPIRED;
		return t->fresh_key ? CONTROL_VERDICT_TRY_AGAIN : CONTROL_VERDICT_ROTATE;
	}
	if (*a->auth_url) {
		if (!t->login_wanted)
			return CONTROL_VERDICT_NEEDS_LOGIN;
		return t->have_auth_key && !t->sent_auth_key ? CONTROL_VERDICT_USE_KEY
							     : CONTROL_VERDICT_SHOW_URL;
	}
	return CONTROL_VERDICT_SUCCESS;
}

const char *control_verdict_name(enum control_verdict v)
{
	switch (v) {
	case CONTROL_VERDICT_SUCCESS:
		return "success";
	case CONTROL_VERDICT_REFUSED:
		return "refused";
	case CONTROL_VERDICT_TRY_AGAIN:
		return "try again";
	case CONTROL_VERDICT_ROTATE:
		return "rotate the node key";
	case CONTROL_VERDICT_USE_KEY:
		return "use the auth key";
	case CONTROL_VERDICT_SHOW_URL:
		return "show the URL";
	case CONTROL_VERDICT_NEEDS_LOGIN:
		return "needs login";
	case CONTROL_VERDICT_EXPIRED:
		return "expired";
	case CONTROL_VERDICT_UNSUPPORTED:
		return "unsupported";
	}
	unreachable();
}
