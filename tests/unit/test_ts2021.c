/* ts2021: recorded sessions of stock clients and of stock headscale, byte for byte; early payload; map frames. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/h2.h"
#include "proto/ts2021.h"

static const char *text_of(const json_t *j, const char *name)
{
	const char *s = json_string_value(json_object_get(j, name));

	assert_non_null(s);
	return s;
}

static void hex_of(const json_t *j, const char *name, uint8_t *out, size_t n)
{
	const char *s = text_of(j, name);
	size_t got;

	assert_int_equal(sodium_hex2bin(out, n, s, strlen(s), NULL, &got, NULL), 0);
	assert_int_equal(got, n);
}

static struct key_pair pair_of(const json_t *j, const char *name)
{
	struct key_pair p;

	hex_of(j, name, p.priv.b, KEY_LEN);
	assert_int_equal(key_public(&p.priv, &p.pub), 0);
	return p;
}

static json_t *load(const char *name)
{
	char path[128];
	json_t *j;

	snprintf(path, sizeof(path), "tests/data/noise/%s.json", name);
	j = json_load_file(path, 0, NULL);
	if (!j)
		fail_msg("cannot read %s", path);
	return j;
}

/* ---- one recorded session, replayed */

struct replay {
	json_t *j;
	struct noise_transport t; /* as the server has it */
	struct buf c2s, s2c;	  /* plaintext */
};

static size_t base64_of(const json_t *v, uint8_t *out, size_t max)
{
	const char *s = json_string_value(v);
	int n = http_base64_decode((struct http_str){ s, strlen(s) }, out, max);

	assert_true(n > 0);
	return (size_t)n;
}

/* Opens every record in its direction; seals the plaintext again and gets the same bytes. */
static void replay_records(struct replay *r)
{
	struct ts2021_records c = { .rx = r->t.rx }, s = { .rx = r->t.tx };
	struct noise_cipher again[2] = { r->t.rx, r->t.tx };
	json_t *all = json_object_get(r->j, "records"), *e;
	size_t i;

	assert_true(json_array_size(all) > 5);
	json_array_foreach(all, i, e) {
		bool from_client = strcmp(json_string_value(json_array_get(e, 0)), "c") == 0;
		struct buf *out = from_client ? &r->c2s : &r->s2c;
		uint8_t wire[NOISE_FRAME_MAX], sealed[NOISE_FRAME_MAX], sha[32];
		size_t n = base64_of(json_array_get(e, 1), wire, sizeof(wire)), before = out->len, got;
		char hex[33];

		/* in two parts, cut elsewhere each time */
		got = i % n;
		assert_int_equal(ts2021_records_feed(from_client ? &c : &s, wire, got, out), 0);
		assert_int_equal(ts2021_records_feed(from_client ? &c : &s, wire + got, n - got, out), 0);
		got = out->len - before;
		crypto_hash_sha256(sha, buf_data(out) + before, got);
		sodium_bin2hex(hex, sizeof(hex), sha, 16);
		assert_string_equal(hex, json_string_value(json_array_get(e, 2)));
		assert_int_equal(noise_seal(&again[!from_client], buf_data(out) + before, got, sealed), (int)n);
		assert_memory_equal(sealed, wire, n);
	}
	ts2021_records_done(&c);
	ts2021_records_done(&s);
}

static void keys_check(const struct replay *r)
{
	uint8_t k1[32], k2[32], hash[32];

	hex_of(r->j, "k1", k1, 32);
	hex_of(r->j, "k2", k2, 32);
	hex_of(r->j, "hash", hash, 32);
	assert_memory_equal(r->t.rx.key.b, k1, 32);
	assert_memory_equal(r->t.tx.key.b, k2, 32);
	assert_memory_equal(r->t.hash, hash, 32);
}

static void replay_server(struct replay *r, const char *name)
{
	uint8_t initiation[NOISE_INITIATION_LEN], recorded[NOISE_INITIATION_LEN];
	uint8_t response[NOISE_RESPONSE_LEN], answer[NOISE_RESPONSE_LEN];
	struct key_pair server, ephemeral;
	struct noise_handshake hs;
	struct http_head head;
	struct key machine;
	const char *rq;

	r->j = load(name);
	rq = text_of(r->j, "request");
	assert_int_equal(http_request_parse(rq, strlen(rq), &head), (int)strlen(rq));
	assert_true(http_str_eq(head.method, "POST"));
	assert_true(http_str_eq(head.path, TS2021_PATH));
	assert_int_equal(ts2021_read_request(&head, initiation), 0);
	hex_of(r->j, "initiation", recorded, sizeof(recorded));
	assert_memory_equal(initiation, recorded, sizeof(recorded));
	server = pair_of(r->j, "server_private");
	ephemeral = pair_of(r->j, "ephemeral_private");
	assert_int_equal(noise_responder_read(&hs, &server, initiation, sizeof(initiation)), 0);
	hex_of(r->j, "client_machine", machine.b, KEY_LEN);
	assert_true(key_equal(&hs.peer_static, &machine));
	assert_int_equal(hs.version, json_integer_value(json_object_get(r->j, "version")));
	assert_int_equal(noise_responder_reply(&hs, &ephemeral, answer, &r->t), 0);
	hex_of(r->j, "response", response, sizeof(response));
	assert_memory_equal(answer, response, sizeof(response));
	keys_check(r);
	replay_records(r);
}

static void replay_done(struct replay *r)
{
	buf_done(&r->c2s);
	buf_done(&r->s2c);
	json_decref(r->j);
}

/* ---- the HTTP/2 that stock clients spoke, read by our server session */

struct seen {
	struct h2 *h2;
	struct buf log, out;
};

static void on_request(void *data, struct h2_stream *st, const char *method, const char *path,
		       const uint8_t *body, size_t len)
{
	struct seen *s = data;

	(void)body;
	buf_printf(&s->log, "%s %s %zu\n", method, path, len);
	h2_respond(st, 200, "application/json", "{}", 2);
}

static int keep(void *data, const uint8_t *p, size_t n)
{
	struct seen *s = data;

	return buf_put(&s->out, p, n);
}

static const struct h2_io keep_io = { .write = keep };

static void feed_server(const struct replay *r, const char *want)
{
	static const struct h2_server_ops ops = { .on_request = on_request };
	struct seen s = { 0 };

	assert_int_equal(h2_server_new(&keep_io, &s, &ops, &s, &s.h2), 0);
	assert_true(s.out.len > 9); /* SETTINGS without waiting for the client: T47 */
	assert_int_equal(buf_data(&s.out)[3], 4);
	for (size_t i = 0; i < r->c2s.len; i += 7)
		assert_int_equal(h2_feed(s.h2, buf_data(&r->c2s) + i, MIN((size_t)7, r->c2s.len - i)), 0);
	assert_string_equal(buf_str(&s.log), want);
	h2_free(s.h2);
	buf_done(&s.log);
	buf_done(&s.out);
}

static void test_server_sessions(void **state)
{
	static const struct {
		const char *name;
		bool early;
		const char *requests;
	} t[] = {
		{ "server-login", true,
		  "POST /machine/register 891\nPOST /machine/map 759\nPOST /machine/map 762\nPOST /machine/map 830\n" },
		{ "server-no-early-payload", false,
		  "POST /machine/register 862\nPOST /machine/map 759\nPOST /machine/map 762\nPOST /machine/map 830\n"
		  "POST /machine/map 1119\n" },
		{ "server-over-tls", true, "POST /machine/register 885\n" },
		{ "server-authority-unused", true,
		  "HEAD /machine/pr?id=1 0\nPOST /c2n-reply?id=2 79\nPOST /c2n-reply?id=3 142\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct replay r = { 0 };
		const char *json = NULL;
		size_t len = 0;
		int n;

		replay_server(&r, t[i].name);
		n = ts2021_early_read(buf_data(&r.s2c), r.s2c.len, &json, &len);
		assert_int_equal(n, t[i].early ? 9 + 95 : 0);
		feed_server(&r, t[i].requests);
		replay_done(&r);
	}
}

/* ---- what stock headscale answered, read by our client session */

struct reader {
	struct h2 *h2;
	struct buf out;
	struct ts2021_frames frames;
	int status[5], ended[5], messages;
	bool peers_seen;
};

static struct reader *reader;

static int drop(void *data, const uint8_t *p, size_t n)
{
	struct reader *r = data;

	return buf_put(&r->out, p, n);
}

static void got_status(void *data, struct h2_stream *st, int status)
{
	(void)st;
	reader->status[*(int *)data] = status;
}

static void got_data(void *data, struct h2_stream *st, const uint8_t *p, size_t n)
{
	const char *msg;
	size_t len;
	int r;

	(void)st;
	if (*(int *)data != 2)
		return;
	assert_int_equal(ts2021_frames_feed(&reader->frames, p, n), 0);
	while ((r = ts2021_frames_next(&reader->frames, &msg, &len)) > 0) {
		json_t *j = json_loadb(msg, len, 0, NULL);

		assert_non_null(j);
		assert_true(json_is_object(j));
		reader->peers_seen |= json_object_get(j, "Peers") || json_object_get(j, "PeersChanged");
		reader->messages++;
		json_decref(j);
	}
	assert_int_equal(r, 0);
}

static void got_end(void *data, struct h2_stream *st, int error)
{
	(void)st;
	reader->ended[*(int *)data] = error ? error : 1;
}

/* The recorded client sent SETTINGS twice and got two acknowledgements; ours sends them once. */
static void drop_second_ack(struct buf *b)
{
	static const uint8_t ack[9] = { 0, 0, 0, 4, 1 };
	uint8_t *p = memmem(b->data + b->head, b->len, ack, sizeof(ack));
	size_t behind;

	assert_non_null(p);
	assert_memory_equal(p + 9, ack, sizeof(ack));
	behind = (size_t)(b->data + b->head + b->len - (p + 9));
	memmove(p, p + 9, behind);
	b->len -= 9;
}

static void test_client_session(void **state)
{
	static const struct h2_io io = { .write = drop };
	static const struct h2_client_ops ops = { .on_headers = got_status, .on_data = got_data, .on_end = got_end };
	static int number[] = { 0, 1, 2, 3 };
	uint8_t initiation[NOISE_INITIATION_LEN], recorded[NOISE_INITIATION_LEN], response[NOISE_RESPONSE_LEN];
	struct replay r = { .j = load("client-headscale") };
	struct reader rd = { 0 };
	struct key_pair machine = pair_of(r.j, "client_private"), ephemeral = pair_of(r.j, "ephemeral_private");
	struct noise_transport mine;
	struct noise_handshake hs;
	struct http_head head;
	struct key server;
	const char *json, *answer = text_of(r.j, "response_head");
	size_t len;
	int n;

	(void)state;
	reader = &rd;
	assert_int_equal(http_response_parse(answer, strlen(answer), &head), (int)strlen(answer));
	assert_int_equal(ts2021_read_response(&head), 0);
	hex_of(r.j, "server_public", server.b, KEY_LEN);
	assert_int_equal(noise_initiator_start(&hs, &machine, &server, 131, &ephemeral, initiation), 0);
	hex_of(r.j, "initiation", recorded, sizeof(recorded));
	assert_memory_equal(initiation, recorded, sizeof(recorded));
	hex_of(r.j, "response", response, sizeof(response));
	assert_int_equal(noise_initiator_finish(&hs, response, &mine), 0);
	r.t = (struct noise_transport){ .tx = mine.rx, .rx = mine.tx };
	memcpy(r.t.hash, mine.hash, 32);
	keys_check(&r);
	replay_records(&r);

	n = ts2021_early_read(buf_data(&r.s2c), r.s2c.len, &json, &len);
	assert_int_equal(n, 9 + 95);
	assert_int_equal(len, strlen(text_of(r.j, "early")));
	assert_memory_equal(json, text_of(r.j, "early"), len);
	buf_consume(&r.s2c, (size_t)n);
	drop_second_ack(&r.s2c);

	ts2021_frames_init(&rd.frames, TS2021_CODING_ZSTD);
	assert_int_equal(h2_client_new(&io, &rd, &rd.h2), 0);
	for (size_t i = 0; i < ARRAY_SIZE(number); i++) {
		struct h2_request rq = { .path = "/machine/map", .body = "{}", .body_len = 2 };
		struct h2_stream *st;

		assert_int_equal(h2_request(rd.h2, &rq, &ops, &number[i], &st), 0);
	}
	for (size_t i = 0; i < r.s2c.len; i += 11)
		assert_int_equal(h2_feed(rd.h2, buf_data(&r.s2c) + i, MIN((size_t)11, r.s2c.len - i)), 0);
	assert_int_equal(rd.status[0], 200); /* register */
	assert_int_equal(rd.ended[0], 1);
	assert_int_equal(rd.status[1], 200); /* lite update: no body */
	assert_int_equal(rd.ended[1], 1);
	assert_int_equal(rd.status[2], 200); /* the stream goes on */
	assert_int_equal(rd.ended[2], 0);
	assert_true(rd.messages > 25);
	assert_true(rd.peers_seen);
	assert_int_equal(rd.frames.in.len, 0);
	h2_free(rd.h2);
	assert_int_equal(rd.ended[2], -EPIPE);
	ts2021_frames_done(&rd.frames);
	buf_done(&rd.out);
	replay_done(&r);
}

/* ---- parts */

static void test_records(void **state)
{
	static uint8_t plain[20000];
	struct noise_cipher tx = { .counter = 5 };
	struct ts2021_records rx = { .rx = { .counter = 5 } };
	struct buf wire = { 0 }, out = { 0 };
	uint8_t frame[19];

	(void)state;
	randombytes_buf(&tx.key, sizeof(tx.key));
	rx.rx.key = tx.key;
	randombytes_buf(plain, sizeof(plain));
	assert_int_equal(ts2021_records_put(&tx, plain, sizeof(plain), &wire), 0);
	assert_int_equal(wire.len, sizeof(plain) + 5 * 19);
	/* an empty one in between is skipped */
	assert_int_equal(noise_seal(&tx, NULL, 0, frame), 19);
	buf_put(&wire, frame, sizeof(frame));
	assert_int_equal(ts2021_records_put(&tx, plain, 100, &wire), 0);
	for (size_t i = 0; i < wire.len; i++)
		assert_int_equal(ts2021_records_feed(&rx, buf_data(&wire) + i, 1, &out), 0);
	assert_int_equal(out.len, sizeof(plain) + 100);
	assert_memory_equal(buf_data(&out), plain, sizeof(plain));
	assert_int_equal(rx.part.len, 0);
	/* not a record */
	assert_int_equal(ts2021_records_feed(&rx, (const uint8_t *)"\3\0\5error", 8, &out), -EBADMSG);
	ts2021_records_done(&rx);
	buf_done(&wire);
	buf_done(&out);
}

static void test_early(void **state)
{
	struct key k = { .b = { 1, 2, 3 } };
	struct buf b = { 0 };
	const char *json;
	size_t len;

	(void)state;
	ts2021_early_put(&b, &k);
	assert_int_equal(b.len, 9 + 95);
	buf_put(&b, "rest", 4);
	for (size_t i = 0; i < 9 + 95; i++)
		assert_int_equal(ts2021_early_read(buf_data(&b), i, &json, &len), -EAGAIN);
	assert_int_equal(ts2021_early_read(buf_data(&b), b.len, &json, &len), 9 + 95);
	assert_int_equal(len, 95);
	assert_memory_equal(json, "{\"nodeKeyChallenge\":\"chalpub:010203", 35);
	/* HTTP/2 at once */
	assert_int_equal(ts2021_early_read((const uint8_t *)"\0\0\x24\4\0\0\0\0\0", 9, &json, &len), 0);
	assert_int_equal(ts2021_early_read((const uint8_t *)"\xff\xff\xfe", 3, &json, &len), 0);
	/* too long */
	assert_int_equal(ts2021_early_read((const uint8_t *)"\xff\xff\xffTS\0\xa0\0\1", 9, &json, &len), -ENOBUFS);
	assert_int_equal(ts2021_early_read((const uint8_t *)"\xff\xff\xffTS\xff\xff\xff\xff", 9, &json, &len), -ENOBUFS);
	buf_done(&b);
}

static void test_upgrade_heads(void **state)
{
	static const char *const bad[] = {
		"HTTP/1.1 200 OK\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 101 X\r\nUpgrade: Tailscale-Control-Protocol\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 101 X\r\nUpgrade: tailscale-control-protocol\r\n\r\n",
		"HTTP/1.1 101 X\r\nConnection: upgrade\r\n\r\n",
	};
	uint8_t m[NOISE_INITIATION_LEN], back[NOISE_INITIATION_LEN];
	struct buf b = { 0 };
	struct http_head h;

	(void)state;
	randombytes_buf(m, sizeof(m));
	ts2021_put_request(&b, "[2001:db8::1]:443", m);
	assert_int_equal(http_request_parse(buf_data(&b), b.len, &h), (int)b.len);
	assert_int_equal(ts2021_read_request(&h, back), 0);
	assert_memory_equal(m, back, sizeof(m));
	assert_true(http_str_eq(http_find(&h, "host"), "[2001:db8::1]:443"));
	buf_clear(&b);
	ts2021_put_response(&b);
	assert_int_equal(http_response_parse(buf_data(&b), b.len, &h), (int)b.len);
	assert_int_equal(ts2021_read_response(&h), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(http_response_parse(bad[i], strlen(bad[i]), &h), (int)strlen(bad[i]));
		assert_int_equal(ts2021_read_response(&h), -EPROTO);
	}
	buf_done(&b);
}

/* ---- map frames */

static void frames_take(struct ts2021_frames *f, const struct buf *wire, size_t step, const char *want, size_t want_len)
{
	size_t seen = 0, len;
	const char *msg;

	for (size_t i = 0; i < wire->len; i += step) {
		assert_int_equal(ts2021_frames_feed(f, buf_data(wire) + i, MIN(step, wire->len - i)), 0);
		while (ts2021_frames_next(f, &msg, &len) > 0) {
			assert_int_equal(len, want_len);
			assert_memory_equal(msg, want, want_len);
			assert_int_equal(msg[len], 0);
			seen++;
		}
	}
	assert_int_equal(seen, 2);
}

static void test_frames(void **state)
{
	static const size_t sizes[] = { 0, 1, 18, 255, 256, 65536, (128 << 10), (128 << 10) + 1, 300000 };
	static const enum ts2021_encoding e[] = { TS2021_ENCODING_PLAIN, TS2021_ENCODING_ZSTD_RAW, TS2021_ENCODING_ZSTD };
	static char text[300000];

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i * i % 23);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(e); k++) {
			struct buf wire = { 0 };
			struct ts2021_frames f;

			ts2021_frames_init(&f, k ? TS2021_CODING_ZSTD : TS2021_CODING_PLAIN);
			assert_int_equal(ts2021_frame_put(&wire, e[k], text, sizes[i]), 0);
			assert_int_equal(ts2021_frame_put(&wire, e[k], text, sizes[i]), 0);
			frames_take(&f, &wire, sizes[i] > 1000 ? 9999 : 1, text, sizes[i]);
			frames_take(&f, &wire, wire.len, text, sizes[i]);
			assert_int_equal(f.in.len, 0);
			ts2021_frames_done(&f);
			buf_done(&wire);
		}
	}
}

/* Frames of the trial server that stock clients took: ours are the same bytes. */
static void test_frames_recorded(void **state)
{
	json_t *all = load("map-frames"), *e;
	size_t i;

	(void)state;
	assert_int_equal(json_array_size(all), 3);
	json_array_foreach(all, i, e) {
		const char *json = text_of(e, "json"), *hex = text_of(e, "frame");
		struct buf ours = { 0 };
		char *out;

		assert_int_equal(ts2021_frame_put(&ours, TS2021_ENCODING_ZSTD_RAW, json, strlen(json)), 0);
		out = calloc(1, ours.len * 2 + 1);
		sodium_bin2hex(out, ours.len * 2 + 1, buf_data(&ours), ours.len);
		assert_string_equal(out, hex);
		free(out);
		buf_done(&ours);
	}
	json_decref(all);
}

static void test_frame_limits(void **state)
{
	static char zeros[1 << 20], more[9 << 20];
	struct buf wire = { 0 };
	struct ts2021_frames f;
	const char *msg;
	size_t len;

	(void)state;
	/* a small frame that would become big */
	assert_int_equal(ts2021_frame_put(&wire, TS2021_ENCODING_ZSTD, zeros, sizeof(zeros)), 0);
	assert_true(wire.len < 1000);
	ts2021_frames_init(&f, TS2021_CODING_ZSTD);
	f.message_max = sizeof(zeros) - 1;
	assert_int_equal(ts2021_frames_feed(&f, buf_data(&wire), wire.len), 0);
	assert_int_equal(ts2021_frames_next(&f, &msg, &len), -ENOBUFS);
	ts2021_frames_done(&f);
	/* one that grows as no map does, though the message might be so long; and one that just does not */
	ts2021_frames_init(&f, TS2021_CODING_ZSTD);
	for (int i = 0; i < 2; i++) {
		struct buf big = { 0 };

		randombytes_buf(more, i << 16);
		assert_int_equal(ts2021_frame_put(&big, TS2021_ENCODING_ZSTD, more, sizeof(more)), 0);
		assert_int_equal(ts2021_frames_feed(&f, buf_data(&big), big.len), 0);
		assert_int_equal(ts2021_frames_next(&f, &msg, &len), i ? 1 : -ENOBUFS);
		ts2021_frames_done(&f);
		ts2021_frames_init(&f, TS2021_CODING_ZSTD);
		buf_done(&big);
	}
	/* cut, or with something behind it */
	ts2021_frames_init(&f, TS2021_CODING_ZSTD);
	wire.data[wire.head]--;
	assert_int_equal(ts2021_frames_feed(&f, buf_data(&wire), wire.len - 1), 0);
	assert_int_equal(ts2021_frames_next(&f, &msg, &len), -EBADMSG);
	ts2021_frames_done(&f);
	ts2021_frames_init(&f, TS2021_CODING_ZSTD);
	wire.data[wire.head] += 2;
	buf_put(&wire, "x", 1);
	assert_int_equal(ts2021_frames_feed(&f, buf_data(&wire), wire.len), 0);
	assert_int_equal(ts2021_frames_next(&f, &msg, &len), -EBADMSG);
	ts2021_frames_done(&f);
	/* a length beyond the limit is refused before its bytes come */
	ts2021_frames_init(&f, TS2021_CODING_PLAIN);
	assert_int_equal(ts2021_frames_feed(&f, (const uint8_t *)"\1\0\0\4", 4), 0);
	assert_int_equal(ts2021_frames_next(&f, &msg, &len), -ENOBUFS);
	ts2021_frames_done(&f);
	buf_done(&wire);
}

/* Contents of several zstd frames in one message follow each other, whichever way they were made. */
static void test_frames_of_pieces(void **state)
{
	static const char *const piece[] = { "{\"Peers\":[", "1", ",", "2", "]}" };
	struct buf wire = { 0 }, one = { 0 };
	struct ts2021_frames f;
	const char *msg;
	size_t len;

	(void)state;
	buf_put(&wire, "\0\0\0\0", 4);
	for (size_t i = 0; i < sizeof(piece) / sizeof(piece[0]); i++) {
		buf_clear(&one);
		assert_int_equal(ts2021_frame_put(&one, i % 2 ? TS2021_ENCODING_ZSTD_RAW : TS2021_ENCODING_ZSTD,
						  piece[i], strlen(piece[i])), 0);
		buf_put(&wire, buf_data(&one) + 4, one.len - 4); /* without its length */
	}
	wire.data[wire.head] = (uint8_t)(wire.len - 4);
	assert_true(wire.len - 4 < 256);
	ts2021_frames_init(&f, TS2021_CODING_ZSTD);
	assert_int_equal(ts2021_frames_feed(&f, buf_data(&wire), wire.len), 0);
	assert_int_equal(ts2021_frames_next(&f, &msg, &len), 1);
	assert_string_equal(msg, "{\"Peers\":[1,2]}");
	ts2021_frames_done(&f);
	ts2021_frames_init(&f, TS2021_CODING_ZSTD); /* the last one cut */
	wire.data[wire.head]--;
	assert_int_equal(ts2021_frames_feed(&f, buf_data(&wire), wire.len - 1), 0);
	assert_int_equal(ts2021_frames_next(&f, &msg, &len), -EBADMSG);
	ts2021_frames_done(&f);
	buf_done(&wire);
	buf_done(&one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_of_pieces),
		cmocka_unit_test(test_server_sessions), cmocka_unit_test(test_client_session),
		cmocka_unit_test(test_records),		cmocka_unit_test(test_early),
		cmocka_unit_test(test_upgrade_heads),	cmocka_unit_test(test_frames),
		cmocka_unit_test(test_frames_recorded), cmocka_unit_test(test_frame_limits),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
