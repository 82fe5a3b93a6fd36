/* derp: vectors, recorded sessions cut in every way, limits of both roles. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <sodium.h>

#include "lib/json.h"
#include "proto/derp.h"

static struct buf unhex(const char *hex)
{
	struct buf b = { 0 };
	size_t n = strlen(hex) / 2, got;
	uint8_t *p = buf_tail(&b, n + 1);

	assert_int_equal(sodium_hex2bin(p, n + 1, hex, strlen(hex), NULL, &got, NULL), 0);
	buf_commit(&b, got);
	return b;
}

static struct key key_of(const char *hex)
{
	struct key k;

	assert_int_equal(key_parse(KEY_KIND_HEX, hex, strlen(hex), &k), 0);
	return k;
}

static void assert_bytes(const struct buf *b, const char *hex)
{
	struct buf want = unhex(hex);

	assert_false(b->bad);
	assert_int_equal(b->len, want.len);
	assert_memory_equal(buf_data(b), buf_data(&want), want.len);
	buf_done(&want);
}

static void test_vectors(void **state)
{
	static const char info_hex[] =
	    "020000006807a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"
	    "000102030405060708090a0b0c0d0e0f1011121314151617"
	    "c1dfdab00620bbd473ab23bf853b2eb614176fa29f260cf93adeb12d1729b53d"
	    "45ae1548563693ad2a77f928959357b3";
	struct derp_client_info info = { .version = 2, .can_ack_pings = true }, back;
	uint8_t nonce[DERP_NONCE_LEN];
	struct key_pair a, b;
	struct key who;
	struct buf out = { 0 };

	(void)state;
	for (uint8_t i = 0; i < KEY_LEN; i++) {
		a.priv.b[i] = (uint8_t)(i + (i > 0));
		b.priv.b[i] = (uint8_t)(0x40 + i);
	}
	a.priv.b[31] = 0x60;
	for (uint8_t i = 0; i < sizeof(nonce); i++)
		nonce[i] = i;
	assert_int_equal(key_public(&a.priv, &a.pub), 0);
	assert_int_equal(key_public(&b.priv, &b.pub), 0);
	assert_int_equal(derp_put_client_info(&out, &info, &a, &b.pub, nonce), 0);
	assert_bytes(&out, info_hex);
	assert_int_equal(
	    derp_client_info_open(buf_data(&out) + 5, out.len - 5, &b.priv, &who, &back), 0);
	assert_memory_equal(&who, &a.pub, sizeof(who));
	assert_int_equal(back.version, 2);
	assert_true(back.can_ack_pings);
	assert_false(back.has_mesh_key);
	/* Another server cannot open it, and nobody can claim another client's key. */
	assert_int_equal(
	    derp_client_info_open(buf_data(&out) + 5, out.len - 5, &a.priv, &who, &back), -EBADMSG);
	out.data[5] ^= 1;
	assert_int_equal(
	    derp_client_info_open(buf_data(&out) + 5, out.len - 5, &b.priv, &who, &back), -EBADMSG);
	buf_clear(&out);
	derp_put_empty(&out, DERP_FRAME_KEEP_ALIVE);
	assert_bytes(&out, "0600000000");
	buf_clear(&out);
	derp_put_note_preferred(&out, true);
	assert_bytes(&out, "070000000101");
	buf_clear(&out);
	derp_put_server_key(&out, &a.pub);
	assert_bytes(&out, "010000002844455250f09f9491"
			   "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c");
	buf_done(&out);
}

static void test_mesh_key(void **state)
{
	struct derp_client_info info = { .version = 2, .is_prober = true, .has_mesh_key = true },
				back;
	uint8_t nonce[DERP_NONCE_LEN] = { 1 };
	struct key_pair a, b;
	struct buf out = { 0 };
	struct key who;

	(void)state;
	key_pair_generate(&a);
	key_pair_generate(&b);
	memset(&info.mesh_key, 7, sizeof(info.mesh_key));
	assert_int_equal(derp_put_client_info(&out, &info, &a, &b.pub, nonce), 0);
	assert_int_equal(
	    derp_client_info_open(buf_data(&out) + 5, out.len - 5, &b.priv, &who, &back), 0);
	assert_true(back.has_mesh_key && back.is_prober && !back.can_ack_pings);
	assert_memory_equal(&back.mesh_key, &info.mesh_key, sizeof(back.mesh_key));
	buf_done(&out);
}

/* Encodes again what a body said; the bytes have to be the same. */
static void reencode(const struct derp_frame *f, struct buf *out)
{
	uint8_t ping[DERP_PING_LEN];
	struct derp_packet p;
	struct derp_gone g;
	struct key k;
	bool home;

	switch (f->type) {
	case DERP_FRAME_SERVER_KEY:
		assert_int_equal(derp_server_key_decode(f->body, f->len, &k), 0);
		derp_put_server_key(out, &k);
		break;
	case DERP_FRAME_SEND_PACKET:
	case DERP_FRAME_RECV_PACKET:
		assert_int_equal(derp_packet_decode(f->body, f->len, &p), 0);
		assert_int_equal(derp_put_packet(out, f->type, &p), 0);
		break;
	case DERP_FRAME_KEEP_ALIVE:
		derp_put_empty(out, DERP_FRAME_KEEP_ALIVE);
		break;
	case DERP_FRAME_NOTE_PREFERRED:
		assert_int_equal(derp_note_preferred_decode(f->body, f->len, &home), 0);
		derp_put_note_preferred(out, home);
		break;
	case DERP_FRAME_PEER_GONE:
		assert_int_equal(derp_gone_decode(f->body, f->len, &g), 0);
		derp_put_gone(out, &g);
		break;
	case DERP_FRAME_PING:
	case DERP_FRAME_PONG:
		assert_int_equal(derp_ping_decode(f->body, f->len, ping), 0);
		derp_put_ping(out, f->type, ping);
		break;
	default:
		fail_msg("frame type %02x in a recorded session", f->type);
	}
}

struct session {
	json_t *j;
	struct key_pair server, client;
	bool has_client_priv;
};

static void session_infos(const struct session *s, const struct derp_frame *f, struct buf *out)
{
	struct derp_client_info ci;
	struct derp_server_info si;
	struct key who;

	if (f->type == DERP_FRAME_CLIENT_INFO) {
		assert_int_equal(derp_client_info_open(f->body, f->len, &s->server.priv, &who, &ci),
				 0);
		assert_memory_equal(&who, &s->client.pub, sizeof(who));
		assert_int_equal(ci.version, DERP_VERSION);
		assert_true(ci.can_ack_pings);
		if (s->has_client_priv)
			assert_int_equal(derp_put_client_info(out, &ci, &s->client, &s->server.pub,
							      f->body + KEY_LEN),
					 0);
		return;
	}
	if (s->has_client_priv) {
		assert_int_equal(
		    derp_server_info_open(f->body, f->len, &s->client.priv, &s->server.pub, &si),
		    0);
	} else {
		/* The box's shared secret is the same from the other end. */
		assert_int_equal(
		    derp_server_info_open(f->body, f->len, &s->server.priv, &s->client.pub, &si),
		    0);
	}
	assert_int_equal(si.version, DERP_VERSION);
	assert_int_equal(si.rate_bytes_per_sec, 0);
	assert_int_equal(derp_put_server_info(out, &si, &s->server.priv, &s->client.pub, f->body),
			 0);
}

/* One direction of a session, given to the reader in pieces of `piece` bytes. */
static unsigned int session_replay(const struct session *s, const char *dir, enum derp_role role,
				   size_t piece)
{
	struct buf all = { 0 }, again = { 0 };
	struct derp_reader rd;
	struct derp_frame f;
	unsigned int n = 0;
	const json_t *e;
	size_t i;
	int r;

	json_array_foreach (json_get(s->j, "bytes"), i, e) {
		struct buf b;

		if (strcmp(json_get_str(e, "dir"), dir))
			continue;
		b = unhex(json_get_str(e, "hex"));
		buf_put(&all, buf_data(&b), b.len);
		buf_done(&b);
	}
	derp_reader_init(&rd, role);
	for (size_t off = 0; off < all.len; off += piece) {
		const uint8_t *p = buf_data(&all) + off;
		size_t len = MIN(piece, all.len - off);

		while ((r = derp_reader_next(&rd, &p, &len, &f)) == 1) {
			size_t before = again.len;

			if (f.type == DERP_FRAME_CLIENT_INFO || f.type == DERP_FRAME_SERVER_INFO)
				session_infos(s, &f, &again);
			else
				reencode(&f, &again);
			n++;
			if (again.len == before) { /* sealed with a key the record does not hold */
				derp_header_encode(buf_tail(&again, DERP_HEADER_LEN), f.type,
						   (uint32_t)f.len);
				buf_commit(&again, DERP_HEADER_LEN);
				buf_put(&again, f.body, f.len);
			}
		}
		assert_int_equal(r, 0);
		assert_int_equal(len, 0);
	}
	assert_int_equal(again.len, all.len);
	assert_memory_equal(buf_data(&again), buf_data(&all), all.len);
	derp_reader_done(&rd);
	buf_done(&all);
	buf_done(&again);
	return n;
}

static void test_sessions(void **state)
{
	static const char *const names[] = { "client-101",	     "client-faststart",
					     "client-headscale-emb", "client-headscale-emb2",
					     "server-101",	     "server-faststart-1",
					     "server-faststart-2",   "server-peergone",
					     "server-ping" };
	static const size_t pieces[] = { 1, 3, 5, 6, 64, 1500, 1 << 20 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct session s = { 0 };
		char path[128];

		snprintf(path, sizeof(path), "tests/data/derp/%s.json", names[i]);
		s.j = json_load_file(path, 0, NULL);
		assert_non_null(s.j);
		s.server.priv = key_of(json_get_str(s.j, "server_private"));
		assert_int_equal(key_public(&s.server.priv, &s.server.pub), 0);
		s.client.pub = key_of(json_get_str(s.j, "client_public"));
		if (json_get_str(s.j, "client_private")) {
			s.client.priv = key_of(json_get_str(s.j, "client_private"));
			s.has_client_priv = true;
		}
		for (size_t k = 0; k < ARRAY_SIZE(pieces); k++) {
			assert_true(session_replay(&s, "c2s", DERP_ROLE_SERVER, pieces[k]) >= 3);
			assert_true(session_replay(&s, "s2c", DERP_ROLE_CLIENT, pieces[k]) >= 3);
		}
		json_decref(s.j);
	}
}

static int read_one(enum derp_role role, const char *hex)
{
	struct buf b = unhex(hex);
	const uint8_t *p = buf_data(&b);
	struct derp_reader rd;
	struct derp_frame f;
	size_t len = b.len;
	int r;

	derp_reader_init(&rd, role);
	r = derp_reader_next(&rd, &p, &len, &f);
	derp_reader_done(&rd);
	buf_done(&b);
	return r;
}

static void test_limits(void **state)
{
	static const struct {
		enum derp_role role;
		const char *hex;
		int want;
	} t[] = {
		{ DERP_ROLE_SERVER, "0700000000", -EBADMSG },
		{ DERP_ROLE_SERVER, "070000000201", -ENOBUFS },
		{ DERP_ROLE_SERVER, "0200000037", -EBADMSG },
		{ DERP_ROLE_SERVER, "0200040001", -ENOBUFS },
		{ DERP_ROLE_SERVER, "0200040000", 0 },
		{ DERP_ROLE_SERVER, "040000001f", -EBADMSG },
		{ DERP_ROLE_SERVER, "0400010020", 0 },
		{ DERP_ROLE_SERVER, "0400010021", -ENOBUFS },
		{ DERP_ROLE_SERVER, "0a00010041", -ENOBUFS },
		{ DERP_ROLE_SERVER, "1000000001", -ENOBUFS },
		{ DERP_ROLE_SERVER, "1100000021", -ENOBUFS },
		{ DERP_ROLE_SERVER, "1200000007", -EBADMSG },
		{ DERP_ROLE_SERVER, "12000003e9", -ENOBUFS },
		{ DERP_ROLE_SERVER, "77ffffffff", 0 }, /* unknown: skipped whatever its length */
		{ DERP_ROLE_SERVER, "0500100001", 0 }, /* not for a server: skipped */
		{ DERP_ROLE_CLIENT, "7700100001", -ENOBUFS },
		{ DERP_ROLE_CLIENT, "0500100001", -ENOBUFS },
		{ DERP_ROLE_CLIENT, "0100000401", -ENOBUFS },
		{ DERP_ROLE_CLIENT, "770000000001", 0 },
		{ DERP_ROLE_CLIENT, "77000000010006000000", 0 },
		{ DERP_ROLE_CLIENT, "7700000001000600000000", 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(read_one(t[i].role, t[i].hex), t[i].want);
}

/* A header promises 64 KiB; what was not sent is not allocated. */
static void test_promise(void **state)
{
	static const uint8_t h[] = { DERP_FRAME_SEND_PACKET, 0, 1, 0, 0 };
	const uint8_t *p = h;
	struct derp_reader rd;
	struct derp_frame f;
	size_t len = sizeof(h);

	(void)state;
	derp_reader_init(&rd, DERP_ROLE_SERVER);
	assert_int_equal(derp_reader_next(&rd, &p, &len, &f), 0);
	assert_true(rd.part.cap <= 256);
	derp_reader_done(&rd);
}

static void test_bodies(void **state)
{
	struct derp_present pr = { .port = 41641, .flags = DERP_PRESENT_REGULAR }, pr2;
	struct derp_restarting rs = { 1000, 70000 }, rs2;
	struct derp_gone g;
	struct buf b = { 0 };
	struct key k;

	(void)state;
	memset(&pr.peer, 3, sizeof(pr.peer));
	memset(pr.ip, 9, sizeof(pr.ip));
	derp_put_present(&b, &pr);
	assert_int_equal(b.len, DERP_HEADER_LEN + 51);
	assert_int_equal(derp_present_decode(buf_data(&b) + 5, 51, &pr2), 0);
	assert_memory_equal(&pr, &pr2, sizeof(pr));
	assert_int_equal(derp_present_decode(buf_data(&b) + 5, 50, &pr2), 0);
	assert_int_equal(pr2.flags, 0);
	assert_int_equal(pr2.port, 41641);
	assert_int_equal(derp_present_decode(buf_data(&b) + 5, 32, &pr2), 0);
	assert_int_equal(pr2.port, 0);
	assert_int_equal(derp_present_decode(buf_data(&b) + 5, 31, &pr2), -EBADMSG);
	assert_int_equal(derp_gone_decode(buf_data(&b) + 5, 32, &g), 0);
	assert_int_equal(g.reason, DERP_GONE_DISCONNECTED);
	assert_int_equal(derp_close_peer_decode(buf_data(&b) + 5, 33, &k), -EBADMSG);
	buf_clear(&b);
	derp_put_restarting(&b, &rs);
	assert_int_equal(derp_restarting_decode(buf_data(&b) + 5, 8, &rs2), 0);
	assert_memory_equal(&rs, &rs2, sizeof(rs));
	buf_done(&b);
}

static void test_disco(void **state)
{
	uint8_t p[64] = "TS\xf0\x9f\x92\xac";

	(void)state;
	assert_true(derp_looks_disco(p, 62));
	assert_false(derp_looks_disco(p, 61));
	p[5]++;
	assert_false(derp_looks_disco(p, 62));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),	 cmocka_unit_test(test_mesh_key),
		cmocka_unit_test(test_sessions), cmocka_unit_test(test_limits),
		cmocka_unit_test(test_promise),	 cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_disco),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
