/* coordinator: recorded requests of stock nodes (tests/data/interop), with the headers they have. */
#include "tests/unit/coordinator_world.h"

#include "lib/file.h"

#define ACTORS_MAX  64
#define HEADERS_MAX 8

struct actor {
	struct node_client *c;
	char url[256]; /* where its person was sent last */
	bool in;
};

struct play {
	const struct server *s;
	struct actor actor[ACTORS_MAX];
	size_t n;
	struct buf out;
	const json_t *line;
	json_t *body; /* NULL: none */
	char *text;   /* with our auth key and our URL */
};

/* A node is a machine, whatever connections it had: its key tells, or the one it had before. */
static struct actor *play_actor(struct play *p)
{
	struct key node = { { 0 } }, old = { { 0 } };
	struct actor *a;

	json_get_key(p->body, "NodeKey", KEY_KIND_NODE, &node);
	json_get_key(p->body, "OldNodeKey", KEY_KIND_NODE, &old);
	for (size_t i = 0; i < p->n; i++) {
		a = &p->actor[i];
		if (key_is_zero(&node) || key_equal(&a->c->node.pub, &node) ||
		    (!key_is_zero(&old) && key_equal(&a->c->node.pub, &old))) {
			if (!key_is_zero(&node))
				a->c->node.pub = node;
			return a;
		}
	}
	assert_true(p->n < ACTORS_MAX);
	a = &p->actor[p->n++];
	a->c = client_new(p->s);
	if (!key_is_zero(&node))
		a->c->node.pub = node;
	return a;
}

/* What stands in quotes behind name, replaced. */
static void play_put(struct play *p, const char *name, const char *value)
{
	char *at = strstr(p->text, name), *end, *text = NULL;

	if (!at)
		return;
	at += strlen(name);
	end = strchr(at, '"');
	if (end > at)
		assert_true(asprintf(&text, "%.*s%s%s", (int)(at - p->text), p->text, value, end) > 0);
	if (text) {
		free(p->text);
		p->text = text;
	}
}

static size_t play_headers(const struct play *p, struct h2_header *out, const char **method)
{
	json_t *headers = json_get(p->line, "headers"), *h;
	size_t i, n = 0;

	json_array_foreach(headers, i, h) {
		const char *name = json_string_value(json_array_get(h, 0));
		const char *value = json_string_value(json_array_get(h, 1));

		if (!strcmp(name, ":method"))
			*method = value;
		else if (*name != ':' && strcmp(name, "content-length") != 0 && n < HEADERS_MAX)
			out[n++] = (struct h2_header){ name, value };
	}
	return n;
}

static void play_send(struct play *p, struct node_client *c, bool stream)
{
	static const struct h2_client_ops answer_ops = { node_client_on_headers, node_client_on_data,
							 node_client_on_end };
	static const struct h2_client_ops stream_ops = { node_client_on_headers, node_client_on_map,
							 node_client_on_map_end };
	struct h2_header headers[HEADERS_MAX];
	struct h2_request rq = { .path = json_get_str(p->line, "path"), .headers = headers,
				 .body = p->text, .body_len = strlen(p->text) };
	struct h2_stream *st;

	rq.n_headers = play_headers(p, headers, &rq.method);
	c->answered = false;
	c->status = 0;
	buf_clear(&c->body);
	if (stream) {
		if (c->stream && !c->stream_over)
			h2_reset(c->stream); /* as stock nodes do before the next */
		if (c->stream)
			ts2021_frames_done(&c->frames);
		ts2021_frames_init(&c->frames, TS2021_CODING_ZSTD);
		c->stream_over = false;
	}
	assert_int_equal(h2_request(c->h2, &rq, stream ? &stream_ops : &answer_ops, c, stream ? &c->stream : &st), 0);
}

static void play_register(struct play *p, struct actor *a)
{
	char text[512];
	json_t *j = NULL;

	play_put(p, "\"AuthKey\":\"", p->s->reusable);
	play_put(p, "\"Followup\":\"", a->url);
	play_send(p, a->c, false);
	if (json_get_str(p->body, "Followup") && *json_get_str(p->body, "Followup")) {
		assert_false(client_read(a->c, 50) && a->c->answered); /* until somebody lets it in */
		assert_true(*a->url);
		snprintf(text, sizeof(text), "{\"user\":\"alice\",\"authId\":\"%s\"}", strrchr(a->url, '/') + 1);
		json_decref(admin(p->s, "POST", "/api/v1/auth/register", text));
	}
	assert_int_equal(client_answer(a->c), 200);
	assert_int_equal(json_read(buf_data(&a->c->body), a->c->body.len, 1 << 20, &j), 0);
	a->in = json_get_bool(j, "MachineAuthorized", false);
	snprintf(a->url, sizeof(a->url), "%s", json_get_str(j, "AuthURL"));
	buf_printf(&p->out, " error=\"%s\"%s%s%s login=%s", json_get_str(j, "Error"), *a->url ? " url" : "",
		   json_get_bool(j, "NodeKeyExpired", false) ? " expired" : "", a->in ? " authorized" : "",
		   json_get_str(json_get(j, "Login"), "LoginName"));
	json_decref(j);
}

static void play_put_list(struct play *p, const char *name, const json_t *list)
{
	const json_t *v;
	size_t i;

	buf_printf(&p->out, " %s=", name);
	json_array_foreach(list, i, v)
		buf_printf(&p->out, "%s%s", i ? "," : "", json_string_value(v));
}

static void play_put_node(struct play *p, const json_t *n)
{
	char *text = json_dumps(json_get(n, "Hostinfo"), JSON_COMPACT | JSON_SORT_KEYS);

	buf_printf(&p->out, "%s key=%s disco=%s home=%d cap=%d", json_get_str(n, "Name"), json_get_str(n, "Key") + 64,
		   json_get_str(n, "DiscoKey") + 65, (int)json_get_int(n, "HomeDERP", 0), (int)json_get_int(n, "Cap", 0));
	play_put_list(p, "addresses", json_get(n, "Addresses"));
	play_put_list(p, "allowed", json_get(n, "AllowedIPs"));
	play_put_list(p, "endpoints", json_get(n, "Endpoints"));
	buf_printf(&p->out, "\n      %s", text);
	free(text);
}

static void play_map(struct play *p, struct actor *a)
{
	bool stream = json_get_bool(p->body, "Stream", false);
	json_t *m;

	if (!a->in) { /* what it was before is not in this recording */
		assert_string_equal(client_register(a->c, p->s->reusable, "x", 131), "");
		a->in = true;
	}
	play_send(p, a->c, stream);
	if (!stream) {
		buf_printf(&p->out, " %d", client_answer(a->c));
		assert_int_equal(a->c->body.len, 0);
		return;
	}
	m = client_map(a->c, WAIT_MSEC);
	assert_non_null(m);
	assert_int_equal(a->c->status, 200);
	assert_string_equal(json_get_str(json_get(m, "Node"), "Key"), json_get_str(p->body, "NodeKey"));
	buf_put_str(&p->out, " node ");
	play_put_node(p, json_get(m, "Node"));
	json_decref(m);
}

static void play_line(struct play *p, unsigned int number)
{
	const char *path = json_get_str(p->line, "path"), *text = json_get_str(p->line, "text");
	struct actor *a;

	if (strcmp(json_get_str(p->line, "what"), "request") != 0)
		return;
	p->text = strdup(text ? text : "");
	p->body = NULL;
	json_read(p->text, strlen(p->text), 1 << 20, &p->body);
	buf_printf(&p->out, "%u %s", number, path);
	a = play_actor(p);
	if (!strcmp(path, "/machine/register")) {
		play_register(p, a);
	} else if (!strcmp(path, "/machine/map")) {
		play_map(p, a);
	} else {
		play_send(p, a->c, false);
		buf_printf(&p->out, " %d", client_answer(a->c));
		buf_printf(&p->out, " %.*s", (int)strcspn(buf_str(&a->c->body), "\n"), buf_str(&a->c->body));
	}
	buf_put_u8(&p->out, '\n');
	json_decref(p->body);
	free(p->text);
}

/* What somebody sees in the end who comes last. */
static void play_end(struct play *p)
{
	struct node_client *c = joined(p->s, "last");
	json_t *m, *n;
	size_t i;

	client_stream(c);
	m = client_map(c, WAIT_MSEC);
	json_array_foreach(json_get(m, "Peers"), i, n) {
		play_put_node(p, n);
		buf_put_u8(&p->out, '\n');
	}
	json_decref(m);
	client_free(c);
	for (i = 0; i < p->n; i++)
		client_free(p->actor[i].c);
}

static void play(const struct server *s, const char *name)
{
	CLEANUP(buf_done) struct buf in = { 0 }, want = { 0 };
	struct play p = { .s = s };
	char path[256], *line, *save = NULL;
	unsigned int number = 0;

	snprintf(path, sizeof(path), "tests/data/interop/%s.jsonl", name);
	assert_int_equal(file_read(path, 8 << 20, &in), 0);
	buf_str(&in);
	for (line = strtok_r((char *)in.data + in.head, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *j = NULL;

		assert_int_equal(json_read(line, strlen(line), 8 << 20, &j), 0);
		p.line = j;
		play_line(&p, ++number);
		json_decref(j);
	}
	play_end(&p);
	snprintf(path, sizeof(path), "tests/data/interop/%s.answers", name);
	if (getenv("KERNSCALE_UPDATE_EXPECT"))
		assert_int_equal(file_replace(path, buf_data(&p.out), p.out.len, 0644), 0);
	assert_int_equal(file_read(path, 8 << 20, &want), 0);
	assert_string_equal(buf_str(&p.out), buf_str(&want));
	buf_done(&p.out);
}

static void test_stock_joins(void **state)
{
	play(*state, "e-coordinator");
}

static void test_stock_asks(void **state)
{
	play(*state, "h-requests");
}

static void test_stock_lives(void **state)
{
	play(*state, "trial-requests");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_stock_joins),
		T(test_stock_asks),
		T(test_stock_lives),
	};

	signal(SIGPIPE, SIG_IGN);
	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
