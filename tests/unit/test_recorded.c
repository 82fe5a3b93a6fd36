/*
 * recorded: what stock programs said in the interop runs (tests/data/interop, docs/testing.md), line by
 * line through our decoders. What they make of it is compared with the .expect file beside each
 * recording; KERNSCALE_UPDATE_EXPECT=1 writes those anew.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator/state/request.h"
#include "daemon/netmap/netmap.h"
#include "lib/file.h"
#include "lib/h2.h"
#include "lib/http.h"
#include "lib/json.h"
#include "proto/derp.h"
#include "proto/disco.h"
#include "proto/stun.h"
#include "proto/tailcfg.h"
#include "proto/ts2021.h"
#include "proto/tsmp.h"
#include "tests/unit/netmap_text.h"

#define DIR_DATA "tests/data/interop"
#define FILE_MAX (8u << 20)
#define WALL	 (INT64_C(1795000000) * 1000000000) /* where a message has no time: November 2026 */

struct replay {
	const char *path;
	unsigned int line;
	const json_t *j;
	struct buf out;
	struct netmap *nm;
	uint8_t bytes[4096]; /* of "hex" */
	size_t len;
};

static struct json_slice text_of(const struct replay *t)
{
	const char *s = json_get_str(t->j, "text");

	assert_non_null(s);
	return (struct json_slice){ s, strlen(s) };
}

#define must(t, ok) must_(t, ok, #ok)
static void must_(const struct replay *t, bool ok, const char *what)
{
	if (!ok)
		fail_msg("%s line %u: %s", t->path, t->line, what);
}

static void put_key(struct replay *t, const char *name, const struct key *k)
{
	char hex[KEY_TEXT_MAX];

	if (!key_is_zero(k))
		buf_printf(&t->out, " %s=%s", name, key_text(KEY_KIND_HEX, k, hex) + 56);
}

static void put_endpoints(struct replay *t, const struct endpoint *e, size_t n)
{
	char text[ENDPOINT_TEXT_MAX];

	for (size_t i = 0; i < n; i++)
		buf_printf(&t->out, " %s", endpoint_text(&e[i], text));
}

/* ---- HTTP */

static void put_headers(struct replay *t, const struct http_head *h)
{
	for (size_t i = 0; i < h->n_headers; i++)
		buf_printf(&t->out, " %.*s", HTTP_STR_FMT(h->header[i].name));
	buf_printf(&t->out, " length=%lld%s%s", (long long)h->content_length, h->chunked ? " chunked" : "",
		   h->keep_alive ? " keep-alive" : "");
}

static void replay_request_head(struct replay *t)
{
	struct json_slice s = text_of(t);
	uint8_t initiation[NOISE_INITIATION_LEN];
	struct http_head h;

	must(t, http_request_parse(s.p, s.len, &h) == (int)s.len);
	buf_printf(&t->out, " %.*s %.*s", HTTP_STR_FMT(h.method), HTTP_STR_FMT(h.target));
	put_headers(t, &h);
	if (http_str_eq(h.path, TS2021_PATH)) {
		must(t, ts2021_read_request(&h, initiation) == 0);
		buf_printf(&t->out, " version=%d", initiation[0] << 8 | initiation[1]);
	}
}

static void replay_response_head(struct replay *t)
{
	struct json_slice s = text_of(t);
	struct http_head h;

	must(t, http_response_parse(s.p, s.len, &h) == (int)s.len);
	buf_printf(&t->out, " %d", h.status);
	put_headers(t, &h);
	if (h.status == 101)
		buf_printf(&t->out, " ts2021=%d", ts2021_read_response(&h));
}

static void replay_answer(struct replay *t)
{
	const char *url = json_get_str(t->j, "url");
	struct key k;

	buf_printf(&t->out, " %s %d", url, (int)json_get_int(t->j, "status", 0));
	if (strstr(url, "/key?v=")) {
		must(t, tailcfg_server_key_decode(text_of(t), &k) == 0);
		put_key(t, "key", &k);
	}
}

static int ignore_write(void *data, const uint8_t *p, size_t n)
{
	(void)data;
	(void)p;
	(void)n;
	return 0;
}

static void ignore_request(void *data, struct h2_stream *st, const char *method, const char *path,
			   const uint8_t *body, size_t len)
{
	(void)data;
	(void)st;
	(void)method;
	(void)path;
	(void)body;
	(void)len;
}

/* As the first frame of a connection; a client's comes behind its preface. */
static void replay_settings(struct replay *t)
{
	static const struct h2_io io = { .write = ignore_write };
	static const struct h2_server_ops ops = { ignore_request };
	bool server = !strcmp(json_get_str(t->j, "role"), "server");
	json_t *values = json_get(t->j, "values"), *v;
	CLEANUP(buf_done) struct buf b = { 0 };
	CLEANUP(h2_free) struct h2 *h = NULL;
	size_t i;

	must(t, (server ? h2_server_new(&io, NULL, &ops, NULL, &h) : h2_client_new(&io, NULL, &h)) == 0);
	if (server)
		buf_put_str(&b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	buf_put_be32(&b, (uint32_t)(json_array_size(values) * 6) << 8 | 4);
	buf_put(&b, "\0\0\0\0\0", 5);
	json_array_foreach(values, i, v) {
		buf_put_be16(&b, (uint16_t)json_integer_value(json_array_get(v, 0)));
		buf_put_be32(&b, (uint32_t)json_integer_value(json_array_get(v, 1)));
		buf_printf(&t->out, " %d=%lld", (int)json_integer_value(json_array_get(v, 0)),
			   (long long)json_integer_value(json_array_get(v, 1)));
	}
	must(t, h2_feed(h, buf_data(&b), b.len) == 0);
}

/* ---- from a coordination server */

static void replay_early(struct replay *t)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct json_slice s = text_of(t);
	uint8_t head[TS2021_EARLY_HEADER];
	const char *json = NULL;
	json_t *j = NULL;
	size_t len = 0;
	struct key k;

	sodium_hex2bin(head, sizeof(head), json_get_str(t->j, "head"), 2 * sizeof(head), NULL, NULL, NULL);
	buf_put(&b, head, sizeof(head));
	buf_put(&b, s.p, s.len);
	for (size_t n = 0; n < b.len; n++)
		must(t, ts2021_early_read(buf_data(&b), n, &json, &len) == -EAGAIN);
	must(t, ts2021_early_read(buf_data(&b), b.len, &json, &len) == (int)b.len);
	must(t, json_read(json, len, 1 << 16, &j) == 0);
	must(t, json_get_key(j, "nodeKeyChallenge", KEY_KIND_CHALLENGE, &k) == 0);
	put_key(t, "challenge", &k);
	json_decref(j);
}

static void replay_response(struct replay *t)
{
	CLEANUP(tailcfg_register_done) struct tailcfg_register_response r = { 0 };
	const char *path = json_get_str(t->j, "path");
	const json_t *status = json_array_get(json_array_get(json_get(t->j, "headers"), 0), 1);

	buf_printf(&t->out, " %s %s", path, json_string_value(status));
	if (strcmp(path, "/machine/register") != 0 || strcmp(json_string_value(status), "200") != 0)
		return;
	must(t, tailcfg_register_decode(text_of(t), &r) == 0);
	buf_printf(&t->out, " error=\"%s\" url=\"%s\"%s%s%s user=%d \"%s\" \"%s\"", r.error, r.auth_url,
		   r.node_key_expired ? " expired" : "", r.machine_authorized ? " authorized" : "",
		   r.wants_signature ? " signature" : "", (int)r.user.id, r.user.login, r.user.display);
}

static void replay_map_begin(struct replay *t)
{
	netmap_stream_begin(t->nm);
}

/* What changes, and then the whole map as it stands, in the form it is kept on disk. */
static void replay_map(struct replay *t)
{
	CLEANUP(netmap_changes_done) struct netmap_changes c = { 0 };
	CLEANUP(tailcfg_map_done) struct tailcfg_map_response m = { 0 };
	CLEANUP(buf_done) struct buf line = { 0 }, all = { 0 };

	must(t, tailcfg_map_decode(text_of(t), &m) == 0);
	must(t, netmap_apply(t->nm, &m, m.control_time ? m.control_time : WALL, &c) == 0);
	must(t, c.n_skipped == 0 && m.n_skipped == 0);
	buf_printf(&t->out, " %s", changes_text(&c, &line));
	if (m.keep_alive)
		buf_put_str(&t->out, " keep-alive");
	if (m.ping)
		buf_printf(&t->out, " ping=%s", m.ping->url);
	must(t, netmap_encode(t->nm, "", &all) == 0);
	buf_printf(&t->out, "\n      %s", buf_str(&all));
}

/* ---- from nodes, to our coordinator */

static void put_hostinfo(struct replay *t, const struct hostinfo *h)
{
	if (!h->text)
		return;
	buf_printf(&t->out, " host=%s home=%u", h->hostname, h->home);
	for (size_t i = 0; i < h->tags.n; i++)
		buf_printf(&t->out, " %s", h->tags.v[i]);
	buf_printf(&t->out, "\n      %s\n      %s", h->text, h->netinfo ? h->netinfo : "-");
}

static void replay_register(struct replay *t, struct json_slice s)
{
	struct register_request q;

	must(t, register_request_parse(s.p, s.len, &q) == 0);
	buf_printf(&t->out, " version=%u", q.version);
	put_key(t, "node", &q.node_key);
	put_key(t, "old", &q.old_node_key);
	buf_printf(&t->out, "%s%s expiry=%lld", q.auth_key ? " auth-key" : "", q.followup ? " followup" : "",
		   (long long)q.expiry_nsec);
	put_hostinfo(t, &q.hostinfo);
	register_request_done(&q);
}

static void replay_map_request(struct replay *t, struct json_slice s)
{
	struct map_request q;

	must(t, map_request_parse(s.p, s.len, &q) == 0);
	buf_printf(&t->out, " version=%u", q.version);
	put_key(t, "node", &q.node_key);
	put_key(t, "disco", &q.disco_key);
	buf_printf(&t->out, "%s%s%s%s", q.stream ? " stream" : "", q.omit_peers ? " omit-peers" : "",
		   q.zstd ? " zstd" : "", q.has_endpoints ? " endpoints:" : "");
	put_endpoints(t, q.endpoint, q.n_endpoint);
	put_hostinfo(t, &q.hostinfo);
	map_request_done(&q);
}

static void replay_request(struct replay *t)
{
	const char *path = json_get_str(t->j, "path");
	const json_t *headers = json_get(t->j, "headers"), *h;
	size_t i;

	buf_printf(&t->out, " %s", path);
	json_array_foreach(headers, i, h)
		buf_printf(&t->out, " %s", json_string_value(json_array_get(h, 0)));
	if (!strcmp(path, "/machine/register"))
		replay_register(t, text_of(t));
	else if (!strcmp(path, "/machine/map"))
		replay_map_request(t, text_of(t));
}

/* ---- relays */

static void put_packet(struct replay *t, const struct derp_frame *f)
{
	struct derp_packet p;

	must(t, derp_packet_decode(f->body, f->len, &p) == 0);
	put_key(t, "peer", &p.peer);
	buf_printf(&t->out, " %zu bytes%s", p.len, derp_looks_disco(p.data, p.len) ? " of disco" : "");
}

static void put_frame(struct replay *t, const struct derp_frame *f)
{
	uint8_t ping[DERP_PING_LEN];
	struct derp_gone gone;
	struct key k;
	bool home;

	switch (f->type) {
	case DERP_FRAME_SERVER_KEY:
		must(t, derp_server_key_decode(f->body, f->len, &k) == 0);
		put_key(t, "key", &k);
		break;
	case DERP_FRAME_SEND_PACKET:
	case DERP_FRAME_RECV_PACKET: put_packet(t, f); break;
	case DERP_FRAME_NOTE_PREFERRED:
		must(t, derp_note_preferred_decode(f->body, f->len, &home) == 0);
		buf_printf(&t->out, " %s", home ? "home" : "not home");
		break;
	case DERP_FRAME_PEER_GONE:
		must(t, derp_gone_decode(f->body, f->len, &gone) == 0);
		put_key(t, "peer", &gone.peer);
		buf_printf(&t->out, " reason=%u", gone.reason);
		break;
	case DERP_FRAME_PING:
	case DERP_FRAME_PONG: must(t, derp_ping_decode(f->body, f->len, ping) == 0); break;
	default: break; /* sealed, empty, or text */
	}
}

static void replay_derp(struct replay *t)
{
	enum derp_role role = !strcmp(json_get_str(t->j, "role"), "server") ? DERP_ROLE_SERVER : DERP_ROLE_CLIENT;
	const char *name = json_get_str(t->j, "frame");
	CLEANUP(buf_done) struct buf b = { 0 };
	struct derp_frame f = { 0 };
	struct derp_reader rd;
	uint8_t head[DERP_HEADER_LEN];
	unsigned int type = 1;
	const uint8_t *p;
	size_t len;

	while (strcmp(derp_frame_name((uint8_t)type), name) != 0)
		must(t, ++type < 256);
	buf_printf(&t->out, " %s %s %d", json_get_str(t->j, "role"), name, (int)json_get_int(t->j, "len", 0));
	derp_header_encode(head, (uint8_t)type, (uint32_t)t->len);
	buf_put(&b, head, sizeof(head));
	buf_put(&b, t->bytes, t->len);
	derp_reader_init(&rd, role);
	p = buf_data(&b);
	len = b.len;
	must(t, derp_reader_next(&rd, &p, &len, &f) == 1 && len == 0 && f.type == type);
	put_frame(t, &f);
	derp_reader_done(&rd);
}

static const struct key_pair *pair(int which)
{
	static struct key_pair pairs[2];
	struct key_pair *k = &pairs[which];

	if (key_is_zero(&k->pub)) {
		memset(k->priv.b, which + 1, KEY_LEN);
		assert_int_equal(key_public(&k->priv, &k->pub), 0);
	}
	return k;
}

/* Sealed again, by keys that are at hand. */
static void seal(struct replay *t, const struct key_pair *from, const struct key_pair *to, struct buf *out)
{
	struct json_slice s = text_of(t);
	uint8_t nonce[DERP_NONCE_LEN] = { 7 }, *p;

	buf_put(out, nonce, sizeof(nonce));
	p = buf_tail(out, s.len + DERP_MAC_LEN);
	must(t, p && crypto_box_easy(p, (const uint8_t *)s.p, s.len, nonce, to->pub.b, from->priv.b) == 0);
	buf_commit(out, s.len + DERP_MAC_LEN);
}

static void replay_client_info(struct replay *t)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct derp_client_info info;
	struct key who;

	buf_put(&b, pair(0)->pub.b, KEY_LEN);
	seal(t, pair(0), pair(1), &b);
	must(t, derp_client_info_open(buf_data(&b), b.len, &pair(1)->priv, &who, &info) == 0);
	must(t, key_equal(&who, &pair(0)->pub));
	buf_printf(&t->out, " version=%d%s%s%s", (int)info.version, info.can_ack_pings ? " can-ack-pings" : "",
		   info.is_prober ? " prober" : "", info.has_mesh_key ? " mesh-key" : "");
}

static void replay_server_info(struct replay *t)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct derp_server_info info;

	seal(t, pair(1), pair(0), &b);
	must(t, derp_server_info_open(buf_data(&b), b.len, &pair(0)->priv, &pair(1)->pub, &info) == 0);
	buf_printf(&t->out, " version=%d rate=%lld burst=%lld", (int)info.version, (long long)info.rate_bytes_per_sec,
		   (long long)info.rate_burst_bytes);
}

/* ---- datagrams */

static void replay_disco(struct replay *t)
{
	struct disco_msg m;
	uint8_t again[DISCO_PLAIN_MAX];
	int n;

	must(t, disco_msg_decode(t->bytes, t->len, &m) == 0);
	buf_printf(&t->out, " type=%u %zu bytes", m.type, t->len);
	if (m.type == DISCO_TYPE_PING)
		put_key(t, "node", &m.ping.node);
	else if (m.type == DISCO_TYPE_PONG)
		put_endpoints(t, &m.pong.seen, 1);
	else if (m.type == DISCO_TYPE_CALL_ME_MAYBE)
		put_endpoints(t, m.call.at, m.call.n);
	n = disco_msg_encode(&m, again, sizeof(again));
	must(t, n > 0 && (size_t)n <= t->len && memcmp(again, t->bytes, (size_t)n) == 0);
	for (size_t i = (size_t)n; i < t->len; i++)
		must(t, t->bytes[i] == 0); /* a ping's padding */
}

static void replay_tsmp(struct replay *t)
{
	uint8_t again[TSMP_MAX];
	struct tsmp_msg m;
	int n;

	must(t, tsmp_decode(t->bytes, t->len, &m) == 0);
	buf_printf(&t->out, " type=%c", m.type);
	if (m.type == TSMP_TYPE_DISCO_KEY)
		put_key(t, "disco", &m.disco);
	n = tsmp_encode(&m, again);
	must(t, n == (int)t->len && memcmp(again, t->bytes, t->len) == 0);
}

static void replay_stun_request(struct replay *t)
{
	uint8_t txid[STUN_TXID_LEN], again[STUN_REQUEST_LEN];

	must(t, stun_is(t->bytes, t->len) && stun_request_decode(t->bytes, t->len, txid) == 0);
	stun_request_encode(txid, again);
	must(t, t->len == sizeof(again) && memcmp(again, t->bytes, t->len) == 0);
}

static void replay_stun_response(struct replay *t)
{
	uint8_t txid[STUN_TXID_LEN];
	struct endpoint seen;

	must(t, stun_is(t->bytes, t->len) && stun_response_decode(t->bytes, t->len, txid, &seen) == 0);
	put_endpoints(t, &seen, 1);
}

/* ---- */

static const struct {
	const char *what;
	void (*replay)(struct replay *t);
} kinds[] = {
	{ "answer", replay_answer },
	{ "client-info", replay_client_info },
	{ "derp", replay_derp },
	{ "disco", replay_disco },
	{ "early", replay_early },
	{ "map", replay_map },
	{ "map-begin", replay_map_begin },
	{ "request", replay_request },
	{ "request-head", replay_request_head },
	{ "response", replay_response },
	{ "response-head", replay_response_head },
	{ "server-info", replay_server_info },
	{ "settings", replay_settings },
	{ "stun-request", replay_stun_request },
	{ "stun-response", replay_stun_response },
	{ "tsmp", replay_tsmp },
};

static void replay_line(struct replay *t)
{
	const char *what = json_get_str(t->j, "what"), *hex = json_get_str(t->j, "hex");

	buf_printf(&t->out, "%u %s", t->line, what);
	t->len = 0;
	if (hex)
		must(t, sodium_hex2bin(t->bytes, sizeof(t->bytes), hex, strlen(hex), NULL, &t->len, NULL) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!strcmp(kinds[i].what, what)) {
			kinds[i].replay(t);
			buf_put_u8(&t->out, '\n');
			return;
		}
	}
	must(t, !"a kind of line that is known");
}

/* What lets somebody in is masked by the recorder. */
static void check_no_secret(const struct replay *t, const char *line)
{
	static const char *const secrets[] = { "hskey-auth-", "tskey-", "privkey:", "hskey-api-" };
	static const char auth[] = "\\\"AuthKey\\\":\\\"";
	const char *p = strstr(line, auth);

	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
		must(t, !strstr(line, secrets[i]));
	if (p) {
		p += sizeof(auth) - 1;
		must(t, p[strspn(p, "x")] == '\\');
	}
}

static void replay_file(const char *name)
{
	CLEANUP(buf_done) struct buf in = { 0 }, want = { 0 };
	char path[300], *line, *save = NULL;
	struct replay t = { .path = path };

	snprintf(path, sizeof(path), DIR_DATA "/%s", name);
	assert_int_equal(file_read(path, FILE_MAX, &in), 0);
	assert_int_equal(netmap_new(&t.nm), 0);
	buf_str(&in);
	for (line = strtok_r((char *)in.data + in.head, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *j = NULL;

		t.line++;
		check_no_secret(&t, line);
		must(&t, json_read(line, strlen(line), FILE_MAX, &j) == 0);
		t.j = j;
		replay_line(&t);
		json_decref(j);
	}
	netmap_free(t.nm);
	must(&t, t.line > 0);
	memcpy(strrchr(path, '.'), ".expect", sizeof(".expect"));
	if (getenv("KERNSCALE_UPDATE_EXPECT"))
		assert_int_equal(file_replace(path, buf_data(&t.out), t.out.len, 0644), 0);
	assert_int_equal(file_read(path, FILE_MAX, &want), 0);
	assert_string_equal(buf_str(&t.out), buf_str(&want));
	buf_done(&t.out);
}

static void test_recordings(void **state)
{
	DIR *d = opendir(DIR_DATA);
	unsigned int n = 0;
	struct dirent *e;

	(void)state;
	assert_non_null(d);
	while ((e = readdir(d))) {
		const char *dot = strrchr(e->d_name, '.');

		if (!dot || strcmp(dot, ".jsonl") != 0)
			continue;
		replay_file(e->d_name);
		n++;
	}
	closedir(d);
	assert_true(n > 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recordings),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
