#include "coordinator/front.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coordinator/admin/admin.h"
#include "coordinator/channel.h"
#include "lib/httpd.h"
#include "lib/log.h"
#include "proto/derp_admit.h"
#include "relay/relay.h"

#define FRONT_ADMIN_CONNS_MAX 64

struct front {
	struct coord *c;
	struct httpd *public, *admin;
	struct channels *channels;
	struct endpoint bound;
	gid_t gid; /* of the socket: who is in it may */
};

static void front_headers(struct httpd_req *q)
{
	httpd_header(q, "X-Content-Type-Options", "nosniff");
	httpd_header(q, "X-Frame-Options", "DENY");
	httpd_header(q, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
}

static void front_json(struct httpd_req *q, int status, const char *text)
{
	front_headers(q);
	httpd_respond(q, status, "application/json", text, strlen(text));
}

/* ---- public */

static void front_key(void *data, struct httpd_req *q)
{
	struct front *f = data;
	char v[16], key[KEY_TEXT_MAX], zero[KEY_TEXT_MAX], out[256];
	char *end;
	long version;

	if (http_query_get(httpd_head(q)->query, "v", v, sizeof(v)) < 0) {
		httpd_respond_text(q, 400, "the client's version is missing: /key?v=N");
		return;
	}
	version = strtol(v, &end, 10);
	if (!*v || *end || version < 0) {
		httpd_respond_text(q, 400, "the client's version is not a number");
		return;
	}
	snprintf(out, sizeof(out), "{\"legacyPublicKey\":\"%s\",\"publicKey\":\"%s\"}\n",
		 key_text(KEY_KIND_MACHINE, &key_zero, zero),
		 key_text(KEY_KIND_MACHINE, &f->c->noise_key.pub, key));
	front_json(q, 200, out);
}

static void front_ts2021_get(void *data, struct httpd_req *q)
{
	(void)data;
	httpd_respond_text(q, 501, "control connections by WebSocket are not supported: POST with Upgrade");
}

static void front_health(void *data, struct httpd_req *q)
{
	struct front *f = data;
	bool ok = coord_writable(f->c);
	const char *text = ok ? "{\"status\":\"pass\"}\n" : "{\"status\":\"fail\"}\n";

	front_headers(q);
	httpd_respond(q, ok ? 200 : 500, "application/health+json", text, strlen(text));
}

static void front_version(void *data, struct httpd_req *q)
{
	(void)data;
	front_json(q, 200,
		   "{\"version\":\"" KERNSCALE_VERSION "\",\"commit\":\"\",\"buildTime\":\"\",\"dirty\":false}\n");
}

/* Whether a relay should let this node in. */
static void front_verify(void *data, struct httpd_req *q)
{
	struct front *f = data;
	struct key k;
	size_t len;
	const uint8_t *p = httpd_body(q, &len);
	int r = derp_admit_request_read(p, len, &k);

	if (r == -ENOMEM)
		httpd_respond_text(q, 503, strerror(ENOMEM));
	else if (r < 0)
		httpd_respond_text(q, 400, "a JSON object with NodePublic is expected");
	else
		front_json(q, 200, derp_admit_answer_text(registry_node_by_key(&f->c->reg, &k)));
}

/* Our own relay's name is all that a node with broken DNS can need of us, and it came here by address:
 * the address that it used is the answer. */
static void front_bootstrap_dns(void *data, struct httpd_req *q)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct front *f = data;
	const struct settings *cfg = &f->c->cfg;
	struct addr a;

	buf_put_u8(&b, '{');
	if (cfg->derp.enabled && addr_parse(cfg->server_host, strlen(cfg->server_host), &a) < 0 &&
	    ((cfg->derp.ipv4 && *cfg->derp.ipv4) || (cfg->derp.ipv6 && *cfg->derp.ipv6))) {
		bool four = cfg->derp.ipv4 && *cfg->derp.ipv4, six = cfg->derp.ipv6 && *cfg->derp.ipv6;

		buf_printf(&b, "\"%s\":[", cfg->server_host);
		if (four)
			buf_printf(&b, "\"%s\"%s", cfg->derp.ipv4, six ? "," : "");
		if (six)
			buf_printf(&b, "\"%s\"", cfg->derp.ipv6);
		buf_put_u8(&b, ']');
	}
	buf_put_str(&b, "}\n");
	httpd_respond(q, 200, "application/json", buf_data(&b), b.len);
}

static void front_robots(void *data, struct httpd_req *q)
{
	(void)data;
	httpd_respond_text(q, 200, "User-agent: *\nDisallow: /");
}

static void front_root(void *data, struct httpd_req *q)
{
	(void)data;
	front_headers(q);
	httpd_respond_text(q, 200, "Kernscale coordinator");
}

/* What a person sees who opens the address that `up` printed. */
static void front_register(void *data, struct httpd_req *q)
{
	struct front *f = data;
	struct http_str path = httpd_path(q);
	char id[SIGNIN_ID_MAX], page[1024];
	const size_t skip = strlen("/register/");

	if (path.len < skip || path.len - skip >= sizeof(id)) {
		httpd_respond_text(q, 404, "no such login");
		return;
	}
	memcpy(id, path.p + skip, path.len - skip);
	id[path.len - skip] = '\0';
	if (!signin_find(&f->c->signins, id)) { /* what is found is one of our own ids, safe to print */
		httpd_respond_text(q, 404, "this login is not waiting any more: run `up` on the node again");
		return;
	}
	snprintf(page, sizeof(page),
		 "<!DOCTYPE html><title>Node registration</title><h1>Node registration</h1>"
		 "<p>An administrator lets this node in with:</p>"
		 "<pre>wgctl admin nodes register --key %s --user USERNAME</pre>\n", id);
	front_headers(q);
	httpd_respond(q, 200, "text/html; charset=utf-8", page, strlen(page));
}

static int front_routes(struct front *f)
{
	const struct {
		const char *method, *path;
		size_t body;
		httpd_fn *fn;
		void *data;
	} routes[] = {
		{ "GET", "/key", 0, front_key, f },
		{ "POST", "/ts2021", 1024, channel_upgrade, f->channels },
		{ "GET", "/ts2021", 0, front_ts2021_get, f },
		{ "GET", "/health", 0, front_health, f },
		{ "GET", "/version", 0, front_version, f },
		{ "POST", "/verify", DERP_ADMIT_REQUEST_MAX, front_verify, f },
		{ "GET", "/bootstrap-dns", 0, front_bootstrap_dns, f },
		{ "GET", "/robots.txt", 0, front_robots, f },
		{ "GET", "/register/", 0, front_register, f },
		{ "GET", "/", 0, front_root, f },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(routes) && r == 0; i++)
		r = httpd_route(f->public, routes[i].method, routes[i].path, routes[i].body, routes[i].fn,
				routes[i].data);
	if (r == 0 && f->c->relay)
		r = relay_route(f->c->relay, f->public);
	return r;
}

/* ---- admin */

struct admin_answer {
	struct httpd_req *q; /* NULL: who asked has gone */
	struct admin_reply reply;
};

static void admin_answer_gone(void *data)
{
	((struct admin_answer *)data)->q = NULL;
}

static void admin_answer_send(void *data)
{
	struct admin_answer *a = data;

	if (a->q)
		httpd_respond(a->q, (int)a->reply.status,
			      a->reply.status == 200 ? "application/json" : "application/problem+json",
			      buf_data(&a->reply.body), a->reply.body.len);
	buf_done_secret(&a->reply.body); /* may hold a fresh pre-auth key */
	free(a);
}

static char *front_str(struct http_str s)
{
	return s.p ? strndup(s.p, s.len) : NULL;
}

/* Who may not ask cannot make us keep its bodies either. */
static bool front_admin_gate(void *data, struct httpd_req *q)
{
	static const char refusal[] =
	    "{\"title\": \"Forbidden\", \"status\": 403, \"detail\": \"only root, the coordinator's own user and the group "
	    "of its socket may ask\", \"errors\": []}";
	struct front *f = data;

	if (httpd_peer_may(httpd_peer_of(q), geteuid(), f->gid))
		return true;
	httpd_respond(q, 403, "application/problem+json", refusal, sizeof(refusal) - 1);
	return false;
}

static void front_admin(void *data, struct httpd_req *q)
{
	struct front *f = data;
	const struct http_head *h = httpd_head(q);
	CLEANUP(free) char *method = front_str(h->method);
	CLEANUP(free) char *path = front_str(h->path);
	CLEANUP(free) char *query = front_str(h->query);
	struct admin_answer *a = calloc(1, sizeof(*a));
	struct admin_request rq = { .method = method, .path = path, .query = query };

	if (!a || !method || !path) {
		free(a);
		httpd_respond_text(q, 500, "out of memory");
		return;
	}
	rq.body = httpd_body(q, &rq.body_len);
	admin_handle(f->c, &rq, &a->reply);
	a->q = q;
	if (a->reply.wrote) {
		httpd_on_gone(q, admin_answer_gone, a);
		coord_when_stored(f->c, coord_mark(f->c), admin_answer_send, a);
	} else {
		admin_answer_send(a);
	}
}

static int front_admin_new(struct front *f, char why[static STORE_WHY_MAX])
{
	const struct httpd_opts opts = { .max_conns = FRONT_ADMIN_CONNS_MAX, .gate = front_admin_gate, .gate_data = f };
	const char *path = f->c->cfg.unix_socket;
	struct stat st = { 0 };
	int r;

	if (!*path)
		return 0; /* switched off */
	r = httpd_new(f->c->loop, &opts, &f->admin);
	if (r == 0)
		r = httpd_route(f->admin, NULL, "/*", ADMIN_BODY_MAX, front_admin, f);
	if (r == 0)
		r = httpd_listen_unix(f->admin, path, (mode_t)f->c->cfg.unix_socket_mode);
	if (r == 0 && stat(path, &st) < 0)
		r = -errno;
	if (r < 0) {
		snprintf(why, STORE_WHY_MAX, "cannot listen on %.160s: %s", path, strerror(-r));
		return r;
	}
	f->gid = st.st_mode & S_IWGRP ? st.st_gid : (gid_t)-1;
	return 0;
}

/* ---- both */

int front_new(struct coord *c, struct tls_ctx *tls, char why[static STORE_WHY_MAX], struct front **ret)
{
	CLEANUP(front_free) struct front *f = calloc(1, sizeof(*f));
	const struct httpd_opts opts = { .max_conns = 65536, .server = "kernscale" };
	int r;

	snprintf(why, STORE_WHY_MAX, "out of memory or descriptors");
	if (!f)
		return -ENOMEM;
	f->c = c;
	f->gid = (gid_t)-1;
	r = channels_new(c, &f->channels);
	if (r == 0)
		r = httpd_new(c->loop, &opts, &f->public);
	if (r < 0)
		return r;
	r = httpd_listen_tcp(f->public, &c->cfg.listen, tls, &f->bound);
	if (r < 0) {
		snprintf(why, STORE_WHY_MAX, "cannot listen on %.100s: %s", c->cfg.listen_addr, strerror(-r));
		return r;
	}
	*ret = TAKE(f);
	return 0;
}

int front_open(struct front *f, char why[static STORE_WHY_MAX])
{
	int r;

	snprintf(why, STORE_WHY_MAX, "out of memory or descriptors");
	r = front_routes(f);
	if (r < 0)
		return r;
	return front_admin_new(f, why);
}

void front_free(struct front *f)
{
	if (!f)
		return;
	httpd_free(f->admin);
	httpd_free(f->public);
	channels_free(f->channels);
	free(f);
}

struct endpoint front_listening(const struct front *f)
{
	return f->bound;
}
