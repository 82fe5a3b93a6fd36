#include "daemon/api/api.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/file.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/httpd.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/user.h"

#define BODY_MAX     (256u << 10)
#define CONNS_MAX    256
#define CONNS_LEAST  8
#define REQUESTS_MAX 128 /* deferred at one time */
#define REQUESTS_OPERATORS 32 /* besides, for those who may change something: nobody else keeps them out */
#define STATUS_MAX   (256u << 20)
#define FAILING_USEC (5 * USEC_PER_SEC)

struct api_request {
	struct api *api;     /* NULL when the api is gone */
	struct httpd_req *q; /* NULL when nobody waits any more */
	struct loop_timer *deadline;
	bool waits; /* for a state; owned by the api then, else by the daemon */
	bool patient; /* has a time limit; who has none gets one once things go wrong */
	bool may_change;
	bool changed; /* what up() said */
	enum api_wish wish;
	char what[16]; /* for the sentence of a timeout */
	LIST_ENTRY(api_request) link;
};

struct api {
	struct loop *loop;
	struct httpd *httpd;
	const struct api_ops *ops;
	void *data;
	char *socket, *version;
	int lock;
	bool bound;
	uid_t uid;
	gid_t gid;		 /* (gid_t)-1: no group may change */
	struct loop_defer *look; /* at who waits */
	unsigned int n_requests;
	LIST_HEAD(api_request_list, api_request) requests;
};

static void respond_json(struct httpd_req *q, int status, const json_t *j)
{
	struct buf b = { .max = STATUS_MAX };

	if (!j || json_write(j, &b) < 0 || b.bad)
		httpd_respond_text(q, 500, "out of memory");
	else
		httpd_respond(q, status, "application/json", buf_data(&b), b.len);
	buf_done(&b);
}

static void respond_error(struct httpd_req *q, const struct api_error *e)
{
	CLEANUP(json_decref) json_t *j = api_error_json(e);

	respond_json(q, api_code_http(e->code), j);
}

static void fail(struct httpd_req *q, enum api_code code, const char *remedy, const char *text)
{
	struct api_error e;

	api_error_set(&e, code, remedy, "%s", text);
	respond_error(q, &e);
}

static void fail_errno(struct httpd_req *q, int r, struct api_error *e)
{
	if (!e->text[0])
		api_error_set(e, r == -EACCES ? API_CODE_REFUSED : API_CODE_FAILED, NULL, "%s",
			      strerror(-r));
	respond_error(q, e);
}

/* Rights */

static bool may_change(const struct api *a, const struct httpd_req *q)
{
	return httpd_peer_may(httpd_peer_of(q), a->uid, a->gid);
}

static bool admit(struct api *a, struct httpd_req *q)
{
	if (may_change(a, q))
		return true;
	fail(q, API_CODE_REFUSED, "run it as root or as a member of group kernscale",
	     "changing the mesh is for root and the group of the daemon");
	return false;
}

/* Deferred answers */

static void request_gone(void *data)
{
	struct api_request *r = data;

	r->q = NULL;
	loop_timer_stop(r->deadline);
	if (r->waits && r->api)
		loop_defer_arm(r->api->look); /* drops it */
}

/* What went wrong last is the best guess at why it takes so long. */
static void expired_error(const struct api_request *r, struct api_error *e)
{
	struct api_state s = { 0 };

	if (r->waits && r->api)
		r->api->ops->state(r->api->data, &s);
	if (s.auth_url && *s.auth_url && r->wish != API_WISH_RUNNING)
		api_error_set(e, API_CODE_TIMEOUT, "the address stays good for a while, see wgctl status",
			      "%s: nobody has logged this node in yet", r->what);
	else if (s.error.text[0])
		api_error_set(e, API_CODE_TIMEOUT, s.error.remedy, "%s: not done in time: %s", r->what,
			      s.error.text);
	else if (s.state == API_STATE_STOPPED || s.state == API_STATE_NEEDS_LOGIN)
		api_error_set(e, API_CODE_TIMEOUT, "wgctl up", "%s: not done in time: this node is %s",
			      r->what, s.state == API_STATE_STOPPED ? "stopped" : "not logged in");
	else
		api_error_set(e, API_CODE_TIMEOUT, NULL, "%s: no answer in time", r->what);
}

static void request_expired(void *data)
{
	struct api_request *r = data;
	struct httpd_req *q = TAKE(r->q);
	struct api_error e;

	if (!q)
		return;
	expired_error(r, &e);
	respond_error(q, &e);
	if (r->waits && r->api)
		loop_defer_arm(r->api->look);
}

static struct api_request *request_new(struct api *a, struct httpd_req *q, uint64_t timeout_msec,
				       const char *what)
{
	struct api_request *r;

	if (a->n_requests >= REQUESTS_MAX + (may_change(a, q) ? REQUESTS_OPERATORS : 0)) {
		fail(q, API_CODE_BUSY, "try again later", "too many requests are waiting");
		return NULL;
	}
	r = calloc(1, sizeof(*r));
	if (!r || loop_timer_new(a->loop, request_expired, r, &r->deadline) < 0) {
		free(r);
		fail(q, API_CODE_FAILED, NULL, "out of memory");
		return NULL;
	}
	r->api = a;
	r->q = q;
	r->may_change = may_change(a, q);
	snprintf(r->what, sizeof(r->what), "%s", what);
	httpd_on_gone(q, request_gone, r);
	if (timeout_msec)
		loop_timer_in(r->deadline,
			      MIN(timeout_msec, (uint64_t)API_TIMEOUT_MSEC_MAX) * USEC_PER_MSEC);
	LIST_INSERT_HEAD(&a->requests, r, link);
	a->n_requests++;
	return r;
}

static void request_free(struct api_request *r)
{
	if (r->api) {
		LIST_REMOVE(r, link);
		r->api->n_requests--;
	}
	loop_timer_free(r->deadline);
	free(r);
}

void api_reply(struct api_request *r, json_t *answer)
{
	CLEANUP(json_decref) json_t *j = answer;

	if (r->q && j)
		json_object_set_new(j, "schema", json_integer(API_SCHEMA));
	if (r->q)
		respond_json(TAKE(r->q), 200, j);
	request_free(r);
}

void api_fail(struct api_request *r, const struct api_error *e)
{
	if (r->q)
		respond_error(TAKE(r->q), e);
	request_free(r);
}

bool api_request_gone(const struct api_request *r)
{
	return !r->q;
}

/* Those who wait for a state */

static void look_at(struct api *a, struct api_request *r, const struct api_state *s)
{
	struct api_state seen = *s;
	struct api_error e;
	json_t *j;

	if (!r->q) {
		request_free(r);
		return;
	}
	switch (api_judge(s, r->wish, &e)) {
	case API_VERDICT_WAIT:
		if (s->failing && !r->patient && r->wish != API_WISH_RUNNING) {
			/* Nobody wants to wait without a word for ever. */
			r->patient = true;
			loop_timer_in(r->deadline, FAILING_USEC);
		}
		return;
	case API_VERDICT_ANSWER:
		if (!r->may_change)
			seen.auth_url = NULL;
		j = api_state_json(&seen);
		json_object_set_new(j, "changed", json_boolean(r->changed));
		api_reply(r, j);
		return;
	case API_VERDICT_FAIL:
		api_fail(r, &e);
		return;
	}
	(void)a;
}

static void look(void *data)
{
	struct api *a = data;
	struct api_state s = { 0 };
	struct api_request *r, *next;

	a->ops->state(a->data, &s);
	for (r = LIST_FIRST(&a->requests); r; r = next) {
		next = LIST_NEXT(r, link);
		if (r->waits)
			look_at(a, r, &s);
	}
}

void api_changed(struct api *a)
{
	if (a)
		loop_defer_arm(a->look);
}

static void wait_for(struct api *a, struct httpd_req *q, enum api_wish wish, uint64_t timeout_msec,
		     bool changed, const char *what)
{
	struct api_request *r = request_new(a, q, timeout_msec, what);
	struct api_state s = { 0 };

	if (!r)
		return;
	r->waits = true;
	r->patient = timeout_msec != 0;
	r->wish = wish;
	r->changed = changed;
	a->ops->state(a->data, &s);
	look_at(a, r, &s);
}

/* Requests */

static uint64_t query_msec(const struct httpd_req *q, bool *bad)
{
	char text[24];
	int r = http_query_get(httpd_head(q)->query, "timeout_msec", text, sizeof(text));
	uint64_t v = 0;

	*bad = false;
	if (r == -ENOENT)
		return 0;
	*bad = r <= 0 || strspn(text, "0123456789") != strlen(text) || strlen(text) > 10;
	for (const char *p = text; !*bad && *p; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	return v;
}

static bool query_is(const struct httpd_req *q, const char *name, const char *value)
{
	char text[16];

	return http_query_get(httpd_head(q)->query, name, text, sizeof(text)) > 0 &&
	       !strcmp(text, value);
}

/* The body as an object; an empty one as {}. NULL when it was answered with the failure. */
static json_t *body_object(struct httpd_req *q)
{
	size_t len;
	const uint8_t *p = httpd_body(q, &len);
	CLEANUP(json_decref) json_t *j = NULL;
	int r = len ? json_read(p, len, BODY_MAX, &j) : 0;

	if (!len)
		j = json_object();
	if (r == -ENOMEM || (!len && !j)) {
		fail(q, API_CODE_FAILED, NULL, "out of memory");
		return NULL;
	}
	if (r < 0 || !json_is_object(j)) {
		fail(q, API_CODE_USAGE, NULL, "the request is not a JSON object");
		return NULL;
	}
	return TAKE(j);
}

static void handle_version(void *data, struct httpd_req *q)
{
	struct api *a = data;
	CLEANUP(json_decref)
	json_t *j = json_pack("{s:i,s:s}", "schema", API_SCHEMA, "version", a->version);

	respond_json(q, 200, j);
}

static void handle_status(void *data, struct httpd_req *q)
{
	struct api *a = data;
	struct api_status_input in = { 0 };
	struct buf b = { .max = STATUS_MAX };
	struct api_error e = { 0 };
	int r = a->ops->status(a->data, &in);

	if (r >= 0) {
		if (!in.version)
			in.version = a->version;
		r = api_status_write(&in, !query_is(q, "peers", "false"), !may_change(a, q), &b);
	}
	if (r < 0)
		fail_errno(q, r, &e);
	else
		httpd_respond(q, 200, "application/json", buf_data(&b), b.len);
	buf_done(&b);
}

static json_t *prefs_answer(struct api *a)
{
	CLEANUP(free) struct prefs *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	a->ops->prefs_get(a->data, p);
	return json_pack("{s:i,s:o}", "schema", API_SCHEMA, "prefs", prefs_to_json(p));
}

static void handle_prefs_get(void *data, struct httpd_req *q)
{
	CLEANUP(json_decref) json_t *j = prefs_answer(data);

	respond_json(q, 200, j);
}

/* Reads prefs{} of a body and refuses what is malformed or not acted on. */
static bool prefs_of(struct httpd_req *q, const json_t *body, struct prefs *ret)
{
	const json_t *j = json_object_get(body, "prefs");
	char why[PREFS_WHY_MAX] = "";

	if (!j) {
		*ret = (struct prefs){ 0 };
		return true;
	}
	if (prefs_from_json(j, ret, why) < 0) {
		fail(q, API_CODE_USAGE, NULL, why[0] ? why : "out of memory");
		return false;
	}
	if (prefs_check_supported(ret, why) < 0) {
		fail(q, API_CODE_UNSUPPORTED, "leave the flag out", why[0] ? why : "out of memory");
		return false;
	}
	return true;
}

static void handle_prefs_set(void *data, struct httpd_req *q)
{
	struct api *a = data;
	CLEANUP(json_decref) json_t *body = NULL;
	CLEANUP(json_decref) json_t *j = NULL;
	CLEANUP(free) struct prefs *p = NULL;
	struct api_error e = { 0 };
	bool changed = false;
	int r;

	if (!admit(a, q))
		return;
	p = calloc(1, sizeof(*p));
	if (!p) {
		fail(q, API_CODE_FAILED, NULL, "out of memory");
		return;
	}
	body = body_object(q);
	if (!body || !prefs_of(q, body, p))
		return;
	r = a->ops->prefs_set(a->data, p, &changed, &e);
	if (r < 0) {
		fail_errno(q, r, &e);
		return;
	}
	j = prefs_answer(a);
	if (j)
		json_object_set_new(j, "changed", json_boolean(changed));
	respond_json(q, 200, j);
}

/* The key stood in buffers that we only borrow; they are ours to wipe, since nobody reads them
 * again. */
static void wipe(const void *p, size_t len)
{
	sodium_memzero((void *)(uintptr_t)p, len);
}

/* True when the key is well formed; it is gone from body and tree afterwards in any case. */
static bool take_auth_key(struct httpd_req *q, const json_t *body, struct api_up *up)
{
	const json_t *v = json_object_get(body, "auth_key");
	const char *s = json_string_value(v);
	size_t len = json_string_length(v), body_len;
	const uint8_t *p = httpd_body(q, &body_len);
	bool ok = !v || (s && len < sizeof(up->auth_key));

	for (size_t i = 0; ok && i < len; i++)
		ok = s[i] > ' ' && s[i] < 0x7f;
	if (ok && len)
		memcpy(up->auth_key, s, len);
	if (len)
		wipe(s, len);
	wipe(p, body_len);
	if (!ok)
		fail(q, API_CODE_USAGE, "copy it again from where it was made",
		     "this is no auth key");
	return ok;
}

static void up_free(struct api_up *up)
{
	sodium_memzero(up, sizeof(*up));
	free(up);
}
DEFINE_CLEANUP(struct api_up *, up_free)

static void handle_up(void *data, struct httpd_req *q)
{
	struct api *a = data;
	CLEANUP(json_decref) json_t *body = NULL;
	CLEANUP(up_free) struct api_up *up = NULL;
	struct api_error e = { 0 };
	int64_t timeout_msec;
	bool changed = false;
	int r;

	if (!admit(a, q))
		return;
	up = calloc(1, sizeof(*up));
	if (!up) {
		fail(q, API_CODE_FAILED, NULL, "out of memory");
		return;
	}
	body = body_object(q);
	if (!body || !take_auth_key(q, body, up) || !prefs_of(q, body, &up->prefs))
		return;
	up->reset = json_get_bool(body, "reset", false);
	up->force_reauth = json_get_bool(body, "force_reauth", false);
	timeout_msec = json_get_int(body, "timeout_msec", 0);
	if (timeout_msec < 0) {
		fail(q, API_CODE_USAGE, NULL, "timeout_msec must not be negative");
		return;
	}
	r = a->ops->up(a->data, up, &changed, &e);
	if (r < 0)
		fail_errno(q, r, &e);
	else
		wait_for(a, q, API_WISH_PROGRESS, (uint64_t)timeout_msec, changed, "up");
}

static void handle_wait(void *data, struct httpd_req *q)
{
	struct api *a = data;
	bool bad;
	uint64_t msec = query_msec(q, &bad);

	if (bad)
		fail(q, API_CODE_USAGE, NULL, "timeout_msec must be a number");
	else if (query_is(q, "outcome", "true"))
		wait_for(a, q, API_WISH_OUTCOME, msec, false, "up");
	else
		wait_for(a, q, API_WISH_RUNNING, msec, false, "wait");
}

#define CHANGE_TIMEOUT_MSEC 30000

static void handle_down(void *data, struct httpd_req *q)
{
	struct api *a = data;
	struct api_request *r;

	if (!admit(a, q))
		return;
	r = request_new(a, q, CHANGE_TIMEOUT_MSEC, "down");
	if (r)
		a->ops->down(a->data, r);
}

static void handle_logout(void *data, struct httpd_req *q)
{
	struct api *a = data;
	struct api_request *r;

	if (!admit(a, q))
		return;
	r = request_new(a, q, CHANGE_TIMEOUT_MSEC, "logout");
	if (r)
		a->ops->logout(a->data, r);
}

#define PING_TIMEOUT_MSEC     5000
#define NETCHECK_TIMEOUT_MSEC 30000

static void handle_ping(void *data, struct httpd_req *q)
{
	struct api *a = data;
	CLEANUP(json_decref) json_t *body = body_object(q);
	struct api_ping ping = { 0 };
	struct api_request *r;
	const char *ip;
	int64_t msec;

	if (!body)
		return;
	ip = json_get_str(body, "ip");
	msec = json_get_int(body, "timeout_msec", PING_TIMEOUT_MSEC);
	if (!ip || addr_parse(ip, strlen(ip), &ping.target) < 0 || msec <= 0 || msec > UINT32_MAX) {
		fail(q, API_CODE_USAGE, NULL,
		     "ping wants an address of the mesh and a positive timeout");
		return;
	}
	ping.timeout_msec = (uint32_t)MIN((uint64_t)msec, (uint64_t)API_TIMEOUT_MSEC_MAX);
	r = request_new(a, q, ping.timeout_msec, "ping");
	if (r)
		a->ops->ping(a->data, &ping, r);
}

static void handle_netcheck(void *data, struct httpd_req *q)
{
	struct api *a = data;
	struct api_request *r = request_new(a, q, NETCHECK_TIMEOUT_MSEC, "netcheck");

	if (r)
		a->ops->netcheck(a->data, r);
}

/* whois */

struct who {
	bool by_key;
	struct key key;
	struct addr addr;
};

static int who_parse(const char *s, struct who *ret)
{
	struct endpoint e;
	size_t len = strlen(s);

	*ret = (struct who){ 0 };
	if (!strncmp(s, "nodekey:", 8)) {
		ret->by_key = true;
		return key_parse(KEY_KIND_NODE, s, len, &ret->key);
	}
	if (addr_parse(s, len, &ret->addr) >= 0)
		return 0;
	if (endpoint_parse(s, len, &e) < 0)
		return -EBADMSG;
	ret->addr = e.addr;
	return 0;
}

static bool who_is(const struct who *w, const struct api_status_peer *p)
{
	if (w->by_key)
		return key_equal(&w->key, &p->pub);
	for (size_t i = 0; i < p->n_addrs; i++)
		if (addr_equal(&w->addr, &p->addrs[i]))
			return true;
	return false;
}

static json_t *who_answer(const struct api_status_input *in, const struct api_status_peer *p)
{
	for (size_t i = 0; i < in->n_users; i++)
		if (in->users[i].id == p->user_id)
			return api_whois_json(p, &in->users[i]);
	return api_whois_json(p, NULL);
}

static void handle_whois(void *data, struct httpd_req *q)
{
	struct api *a = data;
	CLEANUP(json_decref) json_t *j = NULL;
	struct api_status_input in = { 0 };
	struct api_error e = { 0 };
	struct who who;
	char text[KEY_TEXT_MAX + 8];
	int r;

	/* The text of this failure is derper's: it tells its operator by it what is wrong. */
	if (http_query_get(httpd_head(q)->query, "addr", text, sizeof(text)) <= 0 ||
	    who_parse(text, &who) < 0) {
		fail(q, API_CODE_USAGE, "give IP, IP:PORT or nodekey:…",
		     "invalid 'addr' parameter");
		return;
	}
	r = a->ops->status(a->data, &in);
	if (r < 0) {
		fail_errno(q, r, &e);
		return;
	}
	if (in.have_self && who_is(&who, &in.self))
		j = who_answer(&in, &in.self);
	for (size_t i = 0; i < in.n_peers && !j; i++) {
		struct api_status_peer p = { 0 };

		if (in.peer(in.data, i, &p) && who_is(&who, &p))
			j = who_answer(&in, &p);
	}
	if (j)
		respond_json(q, 200, j);
	else
		fail(q, API_CODE_NOT_FOUND, "see `wgctl status` for who is there",
		     "no node of the mesh has this address or key");
}

static void handle_unknown(void *data, struct httpd_req *q)
{
	(void)data;
	fail(q, API_CODE_NOT_FOUND, "are wgctl and kernscaled of one version?",
	     "this daemon has no such request");
}

static const struct {
	const char *method, *path;
	size_t body_max;
	httpd_fn *fn;
} routes[] = {
	{ "GET", "/v1/status", 0, handle_status },
	{ "GET", "/v1/version", 0, handle_version },
	{ "GET", "/v1/prefs", 0, handle_prefs_get },
	{ "POST", "/v1/prefs", BODY_MAX, handle_prefs_set },
	{ "POST", "/v1/up", BODY_MAX, handle_up },
	{ "POST", "/v1/down", BODY_MAX, handle_down },
	{ "POST", "/v1/logout", BODY_MAX, handle_logout },
	{ "POST", "/v1/ping", BODY_MAX, handle_ping },
	{ "GET", "/v1/netcheck", 0, handle_netcheck },
	{ "GET", "/v1/wait", 0, handle_wait },
	{ "GET", "/v1/whois", 0, handle_whois },
	{ "GET", "/localapi/v0/whois", 0, handle_whois },
	{ "GET", "/localapi/v0/status", 0, handle_status },
	{ NULL, "/*", BODY_MAX, handle_unknown },
};

/* The socket and its lock */

/* Holds the lock file; the name may have been removed by who held it before, then once more. */
static int lock_take(const char *path)
{
	for (unsigned int tries = 0; tries < 16; tries++) {
		CLEANUP(fd_close)
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat mine, named;

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
		if (fstat(fd, &mine) == 0 && stat(path, &named) == 0 &&
		    mine.st_ino == named.st_ino && mine.st_dev == named.st_dev)
			return TAKE_FD(fd);
	}
	return -EAGAIN;
}

static gid_t group_id(const char *name)
{
	gid_t gid;
	int r = name ? user_group(name, &gid) : -ENOENT;

	if (r < 0 && r != -ENOENT)
		log_warning_errno(r, "group %s cannot be looked up, and has no right to change the node", name);
	return r < 0 ? (gid_t)-1 : gid;
}

/* Of the descriptors a quarter at the most: the others are for servers and files, however many ask. */
static unsigned int conns_max(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return CONNS_MAX;
	return (unsigned int)MAX(MIN(files.rlim_cur / 4, (rlim_t)CONNS_MAX), (rlim_t)CONNS_LEAST);
}

int api_new(struct loop *loop, const struct api_options *o, const struct api_ops *ops, void *data,
	    struct api **ret)
{
	const struct httpd_opts opts = { .max_conns = conns_max() };
	CLEANUP(api_free) struct api *a = calloc(1, sizeof(*a));
	CLEANUP(free) char *lock = NULL;
	int r;

	if (!a)
		return -ENOMEM;
	a->lock = -1;
	a->loop = loop;
	a->ops = ops;
	a->data = data;
	a->uid = geteuid();
	a->gid = group_id(o->group);
	LIST_INIT(&a->requests);
	a->socket = strdup(o->socket);
	a->version = strdup(o->version);
	if (!a->socket || !a->version || asprintf(&lock, "%s.lock", o->socket) < 0)
		return -ENOMEM;
	a->lock = lock_take(lock);
	if (a->lock < 0)
		return a->lock;
	r = loop_defer_new(loop, look, a, &a->look);
	if (r < 0)
		return r;
	r = httpd_new(loop, &opts, &a->httpd);
	for (size_t i = 0; i < ARRAY_SIZE(routes) && r >= 0; i++)
		r = httpd_route(a->httpd, routes[i].method, routes[i].path, routes[i].body_max,
				routes[i].fn, a);
	if (r < 0)
		return r;
	r = httpd_listen_unix(a->httpd, a->socket, 0666);
	if (r < 0)
		return r;
	a->bound = true;
	*ret = TAKE(a);
	return 0;
}

static void requests_end(struct api *a)
{
	struct api_request *r, *next;
	struct api_error e;

	api_error_set(&e, API_CODE_NOT_RUNNING, NULL, "kernscaled is stopping");
	for (r = LIST_FIRST(&a->requests); r; r = next) {
		next = LIST_NEXT(r, link);
		if (r->waits) {
			api_fail(r, &e);
			continue;
		}
		/* The daemon still holds it and will answer into nothing. */
		if (r->q)
			respond_error(TAKE(r->q), &e);
		LIST_REMOVE(r, link);
		loop_timer_free(TAKE(r->deadline));
		r->api = NULL;
	}
}

void api_free(struct api *a)
{
	if (!a)
		return;
	requests_end(a);
	httpd_free(a->httpd);
	if (a->look)
		loop_defer_drop(a->look);
	if (a->bound)
		unlink(a->socket);
	if (a->lock >= 0) {
		CLEANUP(free) char *lock = NULL;

		if (asprintf(&lock, "%s.lock", a->socket) >= 0)
			unlink(lock);
		fd_close(a->lock);
	}
	free(a->socket);
	free(a->version);
	free(a);
}
