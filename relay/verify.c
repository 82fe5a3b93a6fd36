#include "relay/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "lib/httpc.h"
#include "lib/log.h"
#include "proto/derp_admit.h"

#define VERIFY_USEC	  (5 * USEC_PER_SEC)
#define VERIFY_ASKING_MAX 256

struct question {
	struct verify *v;
	struct httpc *http;
	uint64_t ticket;
	struct question *prev, *next;
};

struct verify {
	struct loop *loop;
	struct relay *relay;
	char *url;
	bool fail_open;
	struct tls_ctx *tls;
	struct question *asking;
	unsigned int n_asking, max_asking;
};

static void question_free(struct question *q)
{
	DL_DELETE(q->v->asking, q);
	q->v->n_asking--;
	httpc_cancel(q->http);
	free(q);
}

static bool verify_says_yes(const struct verify *v, const struct httpc_answer *a)
{
	bool allow = false;
	int r;

	if (a->head->status != 200) {
		log_remote(LOG_LEVEL_WARNING, "%s answers %d: clients are refused", v->url, a->head->status);
		return false;
	}
	r = derp_admit_answer_read(a->body, a->len, &allow);
	if (r < 0)
		log_remote(LOG_LEVEL_WARNING, "%s: %s: a client is refused", v->url,
			   r == -ENOMEM ? strerror(ENOMEM) : "the answer is not JSON with \"Allow\"");
	return allow;
}

/* Whether a client is admitted about which nobody could be asked. */
static bool verify_unasked(const struct verify *v, int error)
{
	switch (-error) {
	case EMFILE:
	case ENFILE:
	case ENOMEM:
	case ENOBUFS:
		return false; /* a flood must not open what a controller keeps shut */
	default:
		return v->fail_open;
	}
}

static void verify_answer(void *data, int r, const struct httpc_answer *a, const char *why)
{
	struct question *q = data;
	struct verify *v = q->v;
	uint64_t ticket = q->ticket;
	bool allow;

	q->http = NULL;
	if (r < 0) {
		allow = verify_unasked(v, r);
		log_remote(LOG_LEVEL_WARNING, "cannot ask %s about a client (%s): %s", v->url, why,
			   allow ? "admitted" : "refused");
	} else {
		allow = verify_says_yes(v, a);
	}
	question_free(q);
	relay_admit(v->relay, ticket, allow);
}

enum relay_verdict verify_admit(void *data, uint64_t ticket, const struct key *node,
				const struct addr *src)
{
	static const char *const headers[] = { "Content-Type", "application/json", NULL };
	char body[DERP_ADMIT_TEXT_MAX];
	struct verify *v = data;
	struct question *q;
	int r;

	if (v->n_asking >= v->max_asking)
		return RELAY_VERDICT_REFUSE;
	q = calloc(1, sizeof(*q));
	if (!q)
		return RELAY_VERDICT_REFUSE;
	q->v = v;
	q->ticket = ticket;
	DL_APPEND(v->asking, q);
	v->n_asking++;
	derp_admit_request_text(node, src, body);
	r = httpc_start(v->loop,
			&(struct httpc_opts){ .url = v->url,
					      .method = "POST",
					      .headers = headers,
					      .body = body,
					      .body_len = strlen(body),
					      .max_body = DERP_ADMIT_ANSWER_MAX,
					      .timeout_usec = VERIFY_USEC,
					      .tls = v->tls },
			verify_answer, q, &q->http);
	if (r < 0) {
		question_free(q);
		log_remote(LOG_LEVEL_WARNING, "cannot ask %s about a client: %s", v->url,
			   strerror(-r));
		return verify_unasked(v, r) ? RELAY_VERDICT_ADMIT : RELAY_VERDICT_REFUSE;
	}
	return RELAY_VERDICT_LATER;
}

int verify_new(struct loop *l, const struct verify_opts *o, struct verify **ret)
{
	CLEANUP(verify_free) struct verify *v = calloc(1, sizeof(*v));
	struct http_url u;

	if (http_url_parse(o->url, &u) < 0)
		return -EINVAL;
	if (!v)
		return -ENOMEM;
	v->loop = l;
	v->fail_open = o->fail_open;
	v->max_asking = o->max_asking ? o->max_asking : VERIFY_ASKING_MAX;
	v->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
	v->url = strdup(o->url);
	if (!v->url)
		return -ENOMEM;
	*ret = TAKE(v);
	return 0;
}

void verify_set_relay(struct verify *v, struct relay *r)
{
	v->relay = r;
}

void verify_free(struct verify *v)
{
	if (!v)
		return;
	while (v->asking)
		question_free(v->asking);
	tls_ctx_unref(v->tls);
	free(v->url);
	free(v);
}
