/*
 * record: writes down what comes in from the other side, in clear, one JSON object a line.
 *
 * Stands in the programs of build/record only, which are the same objects linked once more: the
 * linker hands the calls to the functions below over to their __wrap_ twins (--wrap), so the programs
 * that are shipped have nothing of this in them. Writes to a file of its own for each process in the
 * folder that KERNSCALE_RECORD names, opened before main() and so before rights are dropped; without
 * the variable it does nothing. Secrets that come in (auth keys, mesh keys) are masked here, private
 * and session keys are never written.
 */
#include <errno.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/http.h"
#include "lib/httpc.h"
#include "lib/json.h"
#include "proto/derp.h"
#include "proto/disco.h"
#include "proto/stun.h"
#include "proto/ts2021.h"
#include "proto/tsmp.h"

#define TEXT_MAX      (4u << 20)
#define PACKETS_MAX   16  /* of one relay connection; what follows is more of the same */
#define PACKET_BYTES  256 /* of each */
#define STREAMS_MAX   128
#define POINTERS_MAX  256

/* Which of a kind of object an address means now. */
struct pointer {
	const void *p;
	int id;
	bool server;
	unsigned int packets;
};

struct incoming {
	nghttp2_session *ng; /* NULL: free */
	int32_t id;
	char path[128]; /* client: of our request */
	json_t *headers;
	struct buf body;
};

static int record_fd = -1;
static struct pointer pointers[POINTERS_MAX];
static int last_id;
static struct incoming incomings[STREAMS_MAX];

static void __attribute__((constructor)) record_open(void)
{
	const char *dir = getenv("KERNSCALE_RECORD");
	char path[512];

	if (!dir || !*dir)
		return;
	snprintf(path, sizeof(path), "%s/%s-%d.jsonl", dir, program_invocation_short_name, (int)getpid());
	record_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* Steals j. */
static void emit(json_t *j)
{
	char *line = j ? json_dumps(j, JSON_COMPACT) : NULL;
	struct buf b = { 0 };

	if (line && record_fd >= 0) {
		buf_put_str(&b, line);
		buf_put_u8(&b, '\n');
		if (write(record_fd, buf_data(&b), b.len) != (ssize_t)b.len)
			record_fd = -1;
	}
	buf_done_secret(&b);
	free(line);
	json_decref(j);
}

static bool on(void)
{
	return record_fd >= 0;
}

static json_t *hex(const void *p, size_t n)
{
	char *text = malloc(2 * n + 1);
	json_t *j;

	if (!text)
		return NULL;
	sodium_bin2hex(text, 2 * n + 1, p, n);
	j = json_string(text);
	free(text);
	return j;
}

/* What stands in quotes behind name becomes x, as long as it was. */
static void mask(char *text, const char *name)
{
	for (char *p = text; (p = strstr(p, name));) {
		for (p += strlen(name); *p && *p != '"'; p++)
			*p = 'x';
	}
}

/* As text where it is text, else in hex. */
static json_t *text_of(const void *p, size_t n)
{
	char *text = n < TEXT_MAX ? malloc(n + 1) : NULL;
	json_t *j;

	if (!text)
		return json_null();
	memcpy(text, p, n);
	text[n] = '\0';
	mask(text, "\"AuthKey\":\"");
	mask(text, "\"meshKey\":\"");
	mask(text, "\"Oauth2Token\":\"");
	j = strlen(text) == n ? json_stringn(text, n) : NULL;
	if (!j)
		j = json_pack("{s:o}", "hex", hex(p, n));
	sodium_memzero(text, n);
	free(text);
	return j;
}

/* Makes p mean a new object. */
static struct pointer *pointer_new(const void *p, bool server)
{
	struct pointer *at = &pointers[last_id % POINTERS_MAX];

	for (size_t i = 0; i < POINTERS_MAX; i++) {
		if (pointers[i].p == p)
			pointers[i].p = NULL;
	}
	*at = (struct pointer){ .p = p, .id = ++last_id, .server = server };
	return at;
}

static struct pointer *pointer_find(const void *p)
{
	for (size_t i = 0; i < POINTERS_MAX; i++) {
		if (pointers[i].p == p)
			return &pointers[i];
	}
	return pointer_new(p, false);
}

static const char *role_of(const struct pointer *p)
{
	return p->server ? "server" : "client";
}

/* ---- HTTP/1.1 heads, and /key */

int __real_http_request_parse(const void *p, size_t len, struct http_head *ret);
int __wrap_http_request_parse(const void *p, size_t len, struct http_head *ret);
int __wrap_http_request_parse(const void *p, size_t len, struct http_head *ret)
{
	int r = __real_http_request_parse(p, len, ret);

	if (r > 0 && on())
		emit(json_pack("{s:s,s:o}", "what", "request-head", "text", text_of(p, (size_t)r)));
	return r;
}

int __real_http_response_parse(const void *p, size_t len, struct http_head *ret);
int __wrap_http_response_parse(const void *p, size_t len, struct http_head *ret);
int __wrap_http_response_parse(const void *p, size_t len, struct http_head *ret)
{
	int r = __real_http_response_parse(p, len, ret);

	if (r > 0 && on())
		emit(json_pack("{s:s,s:o}", "what", "response-head", "text", text_of(p, (size_t)r)));
	return r;
}

struct answer {
	httpc_fn *fn;
	void *data;
	char *url;
};

static void answered(void *data, int r, const struct httpc_answer *a, const char *why)
{
	struct answer *t = data;

	if (r == 0)
		emit(json_pack("{s:s,s:s,s:i,s:o}", "what", "answer", "url", t->url, "status",
			       a->head->status, "text", text_of(a->body, a->len)));
	t->fn(t->data, r, a, why);
	free(t->url);
	free(t);
}

/* A request that is cancelled leaks its struct answer: this is a test program. */
int __real_httpc_start(struct loop *l, const struct httpc_opts *o, httpc_fn *fn, void *data, struct httpc **ret);
int __wrap_httpc_start(struct loop *l, const struct httpc_opts *o, httpc_fn *fn, void *data, struct httpc **ret);
int __wrap_httpc_start(struct loop *l, const struct httpc_opts *o, httpc_fn *fn, void *data, struct httpc **ret)
{
	struct answer *t = on() ? calloc(1, sizeof(*t)) : NULL;
	int r;

	if (!t)
		return __real_httpc_start(l, o, fn, data, ret);
	*t = (struct answer){ fn, data, strdup(o->url) };
	r = __real_httpc_start(l, o, answered, t, ret);
	if (r < 0) {
		free(t->url);
		free(t);
	}
	return r;
}

/* ---- HTTP/2: headers, bodies and the frames that steer, as nghttp2 has them */

static struct incoming *incoming_find(nghttp2_session *ng, int32_t id)
{
	for (size_t i = 0; i < STREAMS_MAX; i++) {
		if (incomings[i].ng == ng && incomings[i].id == id)
			return &incomings[i];
	}
	return NULL;
}

static struct incoming *incoming_of(nghttp2_session *ng, int32_t id)
{
	struct incoming *in = incoming_find(ng, id);

	if (!in)
		in = incoming_find(NULL, 0);
	if (in && !in->ng) {
		*in = (struct incoming){ .ng = ng, .id = id, .headers = json_array() };
		in->body.max = TEXT_MAX;
	}
	return in;
}

static void incoming_done(struct incoming *in)
{
	json_decref(in->headers);
	buf_done_secret(&in->body);
	*in = (struct incoming){ 0 };
}

static void incoming_emit(struct incoming *in, bool whole)
{
	struct pointer *s = pointer_find(in->ng);

	if (!json_array_size(in->headers))
		return;
	emit(json_pack("{s:s,s:i,s:i,s:s,s:b,s:O,s:o}", "what", s->server ? "request" : "response", "session",
		       s->id, "stream", in->id, "path", in->path, "whole", whole, "headers", in->headers,
		       "text", text_of(buf_data(&in->body), in->body.len)));
	json_array_clear(in->headers);
	buf_clear(&in->body);
}

static nghttp2_on_header_callback real_header;
static nghttp2_on_data_chunk_recv_callback real_data;
static nghttp2_on_frame_recv_callback real_frame;
static nghttp2_on_stream_close_callback real_close;

static int got_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nn,
		      const uint8_t *value, size_t vn, uint8_t flags, void *data)
{
	struct incoming *in = incoming_of(ng, f->hd.stream_id);

	if (in) {
		json_array_append_new(in->headers, json_pack("[o,o]", text_of(name, nn), text_of(value, vn)));
		if (nn == 5 && !memcmp(name, ":path", 5))
			snprintf(in->path, sizeof(in->path), "%.*s", (int)vn, (const char *)value);
	}
	return real_header(ng, f, name, nn, value, vn, flags, data);
}

static int got_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *data)
{
	struct incoming *in = incoming_find(ng, id);

	/* A map stream is recorded message by message. */
	if (in && (pointer_find(ng)->server || strcmp(in->path, "/machine/map") != 0))
		buf_put(&in->body, p, n);
	return real_data(ng, flags, id, p, n, data);
}

static json_t *settings_of(const nghttp2_settings *s)
{
	json_t *j = json_array();

	for (size_t i = 0; i < s->niv; i++)
		json_array_append_new(j, json_pack("[i,I]", s->iv[i].settings_id, (json_int_t)s->iv[i].value));
	return j;
}

static void frame_emit(nghttp2_session *ng, const nghttp2_frame *f)
{
	struct pointer *s = pointer_find(ng);

	if (f->hd.type == NGHTTP2_SETTINGS && !(f->hd.flags & NGHTTP2_FLAG_ACK))
		emit(json_pack("{s:s,s:s,s:i,s:o}", "what", "settings", "role", role_of(s), "session", s->id,
			       "values", settings_of(&f->settings)));
	else if (f->hd.type == NGHTTP2_PING || f->hd.type == NGHTTP2_GOAWAY || f->hd.type == NGHTTP2_RST_STREAM ||
		 f->hd.type == NGHTTP2_WINDOW_UPDATE)
		emit(json_pack("{s:s,s:s,s:i,s:i,s:i,s:i}", "what", "frame", "role", role_of(s), "session",
			       s->id, "type", f->hd.type, "flags", f->hd.flags, "stream", f->hd.stream_id));
}

static int got_frame(nghttp2_session *ng, const nghttp2_frame *f, void *data)
{
	struct incoming *in = incoming_find(ng, f->hd.stream_id);
	bool headers = f->hd.type == NGHTTP2_HEADERS;

	if (f->hd.stream_id == 0 || (!headers && f->hd.type != NGHTTP2_DATA))
		frame_emit(ng, f);
	else if (in && (f->hd.flags & NGHTTP2_FLAG_END_STREAM))
		incoming_emit(in, true);
	else if (in && headers && !pointer_find(ng)->server && !strcmp(in->path, "/machine/map"))
		incoming_emit(in, false);
	return real_frame(ng, f, data);
}

static int got_close(nghttp2_session *ng, int32_t id, uint32_t error, void *data)
{
	struct incoming *in = incoming_find(ng, id);

	if (in) {
		incoming_emit(in, false);
		incoming_done(in);
	}
	return real_close(ng, id, error, data);
}

#define WRAP_CALLBACK(name, type, real, ours)                                                 \
	void __real_nghttp2_session_callbacks_set_##name(nghttp2_session_callbacks *c, type fn); \
	void __wrap_nghttp2_session_callbacks_set_##name(nghttp2_session_callbacks *c, type fn); \
	void __wrap_nghttp2_session_callbacks_set_##name(nghttp2_session_callbacks *c, type fn)  \
	{                                                                                     \
		(real) = fn;                                                                  \
		__real_nghttp2_session_callbacks_set_##name(c, on() ? (ours) : fn);           \
	}
WRAP_CALLBACK(on_header_callback, nghttp2_on_header_callback, real_header, got_header)
WRAP_CALLBACK(on_data_chunk_recv_callback, nghttp2_on_data_chunk_recv_callback, real_data, got_data)
WRAP_CALLBACK(on_frame_recv_callback, nghttp2_on_frame_recv_callback, real_frame, got_frame)
WRAP_CALLBACK(on_stream_close_callback, nghttp2_on_stream_close_callback, real_close, got_close)

#define WRAP_SESSION(name, is_server)                                                           \
	int __real_nghttp2_session_##name##_new2(nghttp2_session **ret, const nghttp2_session_callbacks *c, \
						 void *data, const nghttp2_option *o);          \
	int __wrap_nghttp2_session_##name##_new2(nghttp2_session **ret, const nghttp2_session_callbacks *c, \
						 void *data, const nghttp2_option *o);          \
	int __wrap_nghttp2_session_##name##_new2(nghttp2_session **ret, const nghttp2_session_callbacks *c, \
						 void *data, const nghttp2_option *o)           \
	{                                                                                       \
		int r = __real_nghttp2_session_##name##_new2(ret, c, data, o);                  \
                                                                                                \
		if (r == 0 && on())                                                             \
			pointer_new(*ret, is_server);                                           \
		return r;                                                                       \
	}
WRAP_SESSION(server, true)
WRAP_SESSION(client, false)

int32_t __real_nghttp2_submit_request(nghttp2_session *ng, const nghttp2_priority_spec *pri, const nghttp2_nv *nva,
				      size_t n, const nghttp2_data_provider *prd, void *data);
int32_t __wrap_nghttp2_submit_request(nghttp2_session *ng, const nghttp2_priority_spec *pri, const nghttp2_nv *nva,
				      size_t n, const nghttp2_data_provider *prd, void *data);
int32_t __wrap_nghttp2_submit_request(nghttp2_session *ng, const nghttp2_priority_spec *pri, const nghttp2_nv *nva,
				      size_t n, const nghttp2_data_provider *prd, void *data)
{
	int32_t id = __real_nghttp2_submit_request(ng, pri, nva, n, prd, data);
	struct incoming *in = id > 0 && on() ? incoming_of(ng, id) : NULL;

	for (size_t i = 0; in && i < n; i++) {
		if (nva[i].namelen == 5 && !memcmp(nva[i].name, ":path", 5))
			snprintf(in->path, sizeof(in->path), "%.*s", (int)nva[i].valuelen, (char *)nva[i].value);
	}
	return id;
}

/* What we answered to a stock node: the status says whether we know what it asks. */
int __real_nghttp2_submit_response(nghttp2_session *ng, int32_t id, const nghttp2_nv *nva, size_t n,
				   const nghttp2_data_provider *prd);
int __wrap_nghttp2_submit_response(nghttp2_session *ng, int32_t id, const nghttp2_nv *nva, size_t n,
				   const nghttp2_data_provider *prd);
int __wrap_nghttp2_submit_response(nghttp2_session *ng, int32_t id, const nghttp2_nv *nva, size_t n,
				   const nghttp2_data_provider *prd)
{
	struct incoming *in = on() ? incoming_find(ng, id) : NULL;

	if (in && n && nva[0].valuelen == 3)
		emit(json_pack("{s:s,s:i,s:i,s:s,s:o}", "what", "status", "session", pointer_find(ng)->id, "stream",
			       id, "path", in->path, "status", text_of(nva[0].value, 3)));
	return __real_nghttp2_submit_response(ng, id, nva, n, prd);
}

/* ---- the control channel */

int __real_ts2021_early_read(const uint8_t *p, size_t len, const char **json, size_t *json_len);
int __wrap_ts2021_early_read(const uint8_t *p, size_t len, const char **json, size_t *json_len);
int __wrap_ts2021_early_read(const uint8_t *p, size_t len, const char **json, size_t *json_len)
{
	int r = __real_ts2021_early_read(p, len, json, json_len);

	if (r > 0 && on())
		emit(json_pack("{s:s,s:o,s:o}", "what", "early", "head", hex(p, TS2021_EARLY_HEADER), "text",
			       text_of(*json, *json_len)));
	return r;
}

void __real_ts2021_frames_init(struct ts2021_frames *f, enum ts2021_coding coding);
void __wrap_ts2021_frames_init(struct ts2021_frames *f, enum ts2021_coding coding);
void __wrap_ts2021_frames_init(struct ts2021_frames *f, enum ts2021_coding coding)
{
	__real_ts2021_frames_init(f, coding);
	if (on())
		emit(json_pack("{s:s}", "what", "map-begin"));
}

int __real_ts2021_frames_next(struct ts2021_frames *f, const char **msg, size_t *len);
int __wrap_ts2021_frames_next(struct ts2021_frames *f, const char **msg, size_t *len);
int __wrap_ts2021_frames_next(struct ts2021_frames *f, const char **msg, size_t *len)
{
	int r = __real_ts2021_frames_next(f, msg, len);

	if (r > 0 && on())
		emit(json_pack("{s:s,s:o}", "what", "map", "text", text_of(*msg, *len)));
	return r;
}

/* ---- relays */

void __real_derp_reader_init(struct derp_reader *rd, enum derp_role role);
void __wrap_derp_reader_init(struct derp_reader *rd, enum derp_role role);
void __wrap_derp_reader_init(struct derp_reader *rd, enum derp_role role)
{
	__real_derp_reader_init(rd, role);
	if (on())
		pointer_new(rd, role == DERP_ROLE_SERVER);
}

int __real_derp_reader_next(struct derp_reader *rd, const uint8_t **p, size_t *len, struct derp_frame *ret);
int __wrap_derp_reader_next(struct derp_reader *rd, const uint8_t **p, size_t *len, struct derp_frame *ret);
int __wrap_derp_reader_next(struct derp_reader *rd, const uint8_t **p, size_t *len, struct derp_frame *ret)
{
	int r = __real_derp_reader_next(rd, p, len, ret);
	struct pointer *at;

	if (r <= 0 || !on())
		return r;
	at = pointer_find(rd);
	if ((ret->type == DERP_FRAME_SEND_PACKET || ret->type == DERP_FRAME_RECV_PACKET) &&
	    at->packets++ >= PACKETS_MAX)
		return r;
	emit(json_pack("{s:s,s:s,s:i,s:s,s:i,s:o}", "what", "derp", "role", role_of(at), "conn", at->id, "frame",
		       derp_frame_name(ret->type), "len", (int)ret->len, "hex",
		       hex(ret->body, ret->len > PACKET_BYTES ? PACKET_BYTES : ret->len)));
	return r;
}

/* The JSON in a box: nonce, then what the sender sealed. */
static void box_emit(const char *what, const uint8_t *p, size_t len, const struct key *pub, const struct key *priv)
{
	size_t head = DERP_NONCE_LEN + DERP_MAC_LEN;
	uint8_t *plain = len > head ? malloc(len) : NULL;

	if (plain && crypto_box_open_easy(plain, p + DERP_NONCE_LEN, len - DERP_NONCE_LEN, p, pub->b, priv->b) == 0)
		emit(json_pack("{s:s,s:o}", "what", what, "text", text_of(plain, len - head)));
	free(plain);
}

int __real_derp_client_info_open(const void *body, size_t len, const struct key *server_priv,
				 struct key *ret_client, struct derp_client_info *ret);
int __wrap_derp_client_info_open(const void *body, size_t len, const struct key *server_priv,
				 struct key *ret_client, struct derp_client_info *ret);
int __wrap_derp_client_info_open(const void *body, size_t len, const struct key *server_priv,
				 struct key *ret_client, struct derp_client_info *ret)
{
	int r = __real_derp_client_info_open(body, len, server_priv, ret_client, ret);

	if (r == 0 && on())
		box_emit("client-info", (const uint8_t *)body + KEY_LEN, len - KEY_LEN, ret_client, server_priv);
	return r;
}

int __real_derp_server_info_open(const void *body, size_t len, const struct key *client_priv,
				 const struct key *server, struct derp_server_info *ret);
int __wrap_derp_server_info_open(const void *body, size_t len, const struct key *client_priv,
				 const struct key *server, struct derp_server_info *ret);
int __wrap_derp_server_info_open(const void *body, size_t len, const struct key *client_priv,
				 const struct key *server, struct derp_server_info *ret)
{
	int r = __real_derp_server_info_open(body, len, client_priv, server, ret);

	if (r == 0 && on())
		box_emit("server-info", body, len, server, client_priv);
	return r;
}

/* ---- datagrams */

int __real_disco_open(const struct disco_shared *k, const void *p, size_t len, uint8_t *out, size_t cap);
int __wrap_disco_open(const struct disco_shared *k, const void *p, size_t len, uint8_t *out, size_t cap);
int __wrap_disco_open(const struct disco_shared *k, const void *p, size_t len, uint8_t *out, size_t cap)
{
	int r = __real_disco_open(k, p, len, out, cap);

	if (r > 0 && on())
		emit(json_pack("{s:s,s:o}", "what", "disco", "hex", hex(out, (size_t)r)));
	return r;
}

int __real_tsmp_decode(const void *p, size_t len, struct tsmp_msg *ret);
int __wrap_tsmp_decode(const void *p, size_t len, struct tsmp_msg *ret);
int __wrap_tsmp_decode(const void *p, size_t len, struct tsmp_msg *ret)
{
	if (on() && len <= 4 * TSMP_MAX)
		emit(json_pack("{s:s,s:o}", "what", "tsmp", "hex", hex(p, len)));
	return __real_tsmp_decode(p, len, ret);
}

int __real_stun_request_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN]);
int __wrap_stun_request_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN]);
int __wrap_stun_request_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN])
{
	if (on() && len <= 512)
		emit(json_pack("{s:s,s:o}", "what", "stun-request", "hex", hex(p, len)));
	return __real_stun_request_decode(p, len, ret_txid);
}

int __real_stun_response_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN],
				struct endpoint *ret);
int __wrap_stun_response_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN],
				struct endpoint *ret);
int __wrap_stun_response_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN],
				struct endpoint *ret)
{
	if (on() && len <= 512)
		emit(json_pack("{s:s,s:o}", "what", "stun-response", "hex", hex(p, len)));
	return __real_stun_response_decode(p, len, ret_txid, ret);
}
