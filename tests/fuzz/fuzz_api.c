/*
 * The local API, as any user of the machine may ask it: the first line is "METHOD TARGET", the rest the body. Each request
 * is answered once, with JSON, at once or when the node is up; what the node is told to do is within its bounds; and the
 * body that had an auth key is wiped. lib/httpd, which has targets of its own, is stood in for.
 *
 * words: daemon/api/api.c daemon/api/prefs.c
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/api/api.h"
#include "lib/httpd.h"
#include "lib/json.h"
#include "tests/fuzz/check.h"
#define JSON_MUTATOR_AFTER_LINE
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- a server of one request ---- */

struct httpd_req {
	struct http_head head;
	struct httpd_peer peer;
	uint8_t body[65536];
	size_t len;
	unsigned int answers;
	bool odd; /* said at the end: a run that ends in the middle leaves the node with half a request */
	loop_fn *gone;
	void *gone_data;
};

static struct {
	const char *method, *path;
	httpd_fn *fn;
	void *data;
} routes[32];
static size_t n_routes;
static char nobody_home;

int httpd_new(struct loop *l, const struct httpd_opts *o, struct httpd **ret)
{
	(void)l;
	(void)o;
	*ret = (struct httpd *)(void *)&nobody_home;
	return 0;
}

void httpd_free(struct httpd *h)
{
	(void)h;
}

int httpd_listen_unix(struct httpd *h, const char *path, mode_t mode)
{
	(void)h;
	(void)path;
	(void)mode;
	return 0;
}

int httpd_route(struct httpd *h, const char *method, const char *path, size_t body_max, httpd_fn *fn, void *data)
{
	(void)h;
	(void)body_max;
	CHECK(n_routes < ARRAY_SIZE(routes));
	routes[n_routes].method = method;
	routes[n_routes].path = path;
	routes[n_routes].fn = fn;
	routes[n_routes++].data = data;
	return 0;
}

const struct http_head *httpd_head(const struct httpd_req *q)
{
	return &q->head;
}

const uint8_t *httpd_body(const struct httpd_req *q, size_t *ret_len)
{
	*ret_len = q->len;
	return q->body;
}

const struct httpd_peer *httpd_peer_of(const struct httpd_req *q)
{
	return &q->peer;
}

bool httpd_peer_may(const struct httpd_peer *p, uid_t uid, gid_t gid)
{
	(void)gid;
	return p->uid == uid;
}

void httpd_respond(struct httpd_req *q, int status, const char *type, const void *body, size_t len)
{
	json_t *j = NULL;

	(void)type;
	q->answers++;
	q->odd = q->odd || status < 200 || status >= 600 || json_read(body, len, 1 << 24, &j) < 0 ||
		 json_get_int(j, "schema", 0) <= 0 || (status == 200) != !json_get_str(j, "error");
	json_decref(j);
}

void httpd_respond_text(struct httpd_req *q, int status, const char *text)
{
	(void)text;
	q->answers++;
	q->odd = q->odd || status < 500; /* without memory for anything better */
}

void httpd_on_gone(struct httpd_req *q, loop_fn *fn, void *data)
{
	q->gone = fn;
	q->gone_data = data;
}

/* ---- a node ---- */

static struct node {
	struct loop *loop;
	struct api *api;
	bool up;
	struct api_request *later;
	struct addr addr;
	struct httpd_req q;
} node;

static void op_state(void *data, struct api_state *ret)
{
	(void)data;
	*ret = (struct api_state){ .state = node.up ? API_STATE_RUNNING : API_STATE_STARTING,
				   .addrs = &node.addr,
				   .n_addrs = node.up };
}

static bool op_peer(void *data, size_t i, struct api_status_peer *ret)
{
	(void)data;
	*ret = (struct api_status_peer){ .pub = { { (uint8_t)(i + 1) } }, .addrs = &node.addr, .n_addrs = i == 0, .user_id = 1 };
	return true;
}

static int op_status(void *data, struct api_status_input *ret)
{
	(void)data;
	*ret = (struct api_status_input){ .state = API_STATE_RUNNING, .n_peers = 2, .peer = op_peer };
	return 0;
}

static void prefs_fit(const struct prefs *p)
{
	char why[PREFS_WHY_MAX];

	CHECK(memchr(p->login_server, 0, sizeof(p->login_server)) && memchr(p->hostname, 0, sizeof(p->hostname)));
	CHECK(prefs_check_supported(p, why) == 0);
}

static int op_up(void *data, const struct api_up *up, bool *ret_changed, struct api_error *err)
{
	(void)data;
	(void)err;
	CHECK(memchr(up->auth_key, 0, sizeof(up->auth_key)));
	prefs_fit(&up->prefs);
	for (size_t i = 0; i < node.q.len; i++)
		CHECK(!node.q.body[i]);
	*ret_changed = true;
	return 0;
}

static void keep(void *data, struct api_request *later)
{
	(void)data;
	node.later = later;
}

static void op_prefs_get(void *data, struct prefs *ret)
{
	(void)data;
	prefs_default(ret);
}

static int op_prefs_set(void *data, const struct prefs *change, bool *ret_changed, struct api_error *err)
{
	(void)data;
	(void)err;
	prefs_fit(change);
	*ret_changed = change->set;
	return 0;
}

static void op_ping(void *data, const struct api_ping *ping, struct api_request *later)
{
	CHECK(ping->target.family && ping->timeout_msec && ping->timeout_msec <= API_TIMEOUT_MSEC_MAX);
	keep(data, later);
}

static const struct api_ops ops = {
	.state = op_state,
	.status = op_status,
	.up = op_up,
	.down = keep,
	.logout = keep,
	.prefs_get = op_prefs_get,
	.prefs_set = op_prefs_set,
	.ping = op_ping,
	.netcheck = keep,
};

static void start(void)
{
	static char socket[64];
	struct api_options o = { .socket = socket, .group = NULL, .version = "1" };

	snprintf(socket, sizeof(socket), "/tmp/kernscale-fuzz-api.%d", (int)getpid());
	CHECK(addr_parse("100.64.0.9", 10, &node.addr) == 0 && loop_new(&node.loop) == 0);
	CHECK(api_new(node.loop, &o, &ops, NULL, &node.api) == 0);
	strcat(socket, ".lock");
	unlink(socket);
}

static bool matches(const char *pattern, struct http_str path)
{
	size_t n = strlen(pattern);

	return pattern[n - 1] == '*' || (path.len == n && memcmp(path.p, pattern, n) == 0);
}

static void ask(void)
{
	struct httpd_req *q = &node.q;

	for (size_t i = 0; i < n_routes; i++) {
		if (!matches(routes[i].path, q->head.path) ||
		    (routes[i].method && !http_str_eq(q->head.method, routes[i].method)))
			continue;
		routes[i].fn(routes[i].data, q);
		return;
	}
}

/* Whoever waits is answered, or has gone. */
static void finish(bool gone)
{
	struct httpd_req *q = &node.q;

	if (!q->answers && gone) {
		CHECK(q->gone);
		q->gone(q->gone_data);
		q->answers++;
	}
	node.up = true;
	if (node.later)
		api_reply(TAKE(node.later), json_object());
	api_changed(node.api);
	for (int i = 0; i < 3 && (gone || !q->answers); i++)
		loop_iterate(node.loop, 0);
	CHECK(q->answers == 1 && !q->odd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *nl = memchr(data, '\n', size);
	struct httpd_req *q = &node.q;
	char head[1024];
	int n;

	if (!node.api)
		start();
	if (!nl || nl - data > 800 || size - (size_t)(nl + 1 - data) > sizeof(q->body))
		return 0;
	n = snprintf(head, sizeof(head), "%.*s HTTP/1.1\r\nHost: x\r\n\r\n", (int)(nl - data), (const char *)data);
	memset(&q->head, 0, sizeof(q->head));
	q->answers = 0;
	q->odd = false;
	q->gone = NULL;
	if (http_request_parse(head, (size_t)n, &q->head) < 0)
		return 0;
	q->peer = (struct httpd_peer){ .is_unix = true, .uid = q->head.minor ? geteuid() : (uid_t)-1 };
	q->len = size - (size_t)(nl + 1 - data);
	memcpy(q->body, nl + 1, q->len);
	node.up = size % 2;
	ask();
	finish(size % 3 == 0);
	return 0;
}
