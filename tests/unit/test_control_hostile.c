/* control: what a server can say to do harm, and one that does not know what it wants. */
#include "tests/unit/control_world.h"

#include <sodium.h>
#include <zstd.h>

static unsigned int streams_wanted;
static bool next_stream(struct world *w)
{
	return w->n_streams >= streams_wanted && w->stream;
}

/* A frame of the server's own making; the node drops that stream, asks for the next, and keeps what it has. */
static void send_bad(struct world *w, const void *frame, size_t n)
{
	streams_wanted = w->n_streams + 1;
	assert_int_equal(h2_send(w->stream, frame, n), 0);
	run(w, next_stream);
	assert_non_null(w->nm->self);
}

/* 70 MiB of zeros in a few KiB. */
static void put_bomb(struct buf *b)
{
	static uint8_t zeros[1 << 16], out[1 << 17];
	ZSTD_CCtx *z = ZSTD_createCCtx();

	buf_put_le32(b, 0);
	for (int i = 0; i < 70 * 16; i++) {
		ZSTD_inBuffer in = { zeros, sizeof(zeros), 0 };
		ZSTD_outBuffer to = { out, sizeof(out), 0 };

		ZSTD_compressStream2(z, &to, &in, i == 70 * 16 - 1 ? ZSTD_e_end : ZSTD_e_continue);
		assert_int_equal(in.pos, in.size);
		buf_put(b, out, to.pos);
	}
	ZSTD_freeCCtx(z);
	assert_true(!b->bad && b->len < 16384);
	b->data[b->head] = (uint8_t)(b->len - 4);
	b->data[b->head + 1] = (uint8_t)((b->len - 4) >> 8);
}

/* What a server can say to do harm: endless lengths, frames that grow, deep JSON, noise. */
static void test_hostile_map(void **state)
{
	static const char key[] = "{\"Node\":", peers[] = "{\"PeersChanged\":[{\"ID\":-1},[],null,7,\"x\",{\"ID\":1e300}]}";
	CLEANUP(buf_done) struct buf bomb = { 0 }, deep = { 0 }, frame = { 0 };
	struct world *w = *state;
	uint8_t noise[300];
	char map[1024];

	log_in(w, accepted);
	send_bad(w, "\xff\xff\xff\xff", 4);
	send_bad(w, "\0\0\0\0", 4);
	randombytes_buf(noise, sizeof(noise));
	noise[0] = 200;
	noise[1] = noise[2] = noise[3] = 0;
	send_bad(w, noise, sizeof(noise));
	put_bomb(&bomb);
	send_bad(w, buf_data(&bomb), bomb.len);
	buf_put(&deep, key, sizeof(key) - 1);
	for (int i = 0; i < 200000; i++)
		buf_put_u8(&deep, '[');
	assert_int_equal(ts2021_frame_put(&frame, TS2021_ENCODING_ZSTD, buf_data(&deep), deep.len), 0);
	send_bad(w, buf_data(&frame), frame.len);
	/* entries that make no sense cost themselves only */
	send_map(w, first_map(w, "", map));
	run(w, running);
	send_map(w, peers);
	settle(w);
	assert_int_equal(w->state, CONTROL_STATE_RUNNING);
	assert_int_equal(netmap_n_peers(w->nm), 0);
	assert_int_equal(w->n_conns, 1);
}

/* A server whose map does not stay, or that registers a node and then does not know it, is asked less and less often. */
static void test_flapping(void **state)
{
	struct world *w = *state;

	log_in(w, accepted);
	w->flaps = true;
	send_map(w, "{\"Node\":");
	settle_for(w, 600);
	assert_in_range(w->n_streams, 4, 14);
	assert_int_equal(w->n_conns, 1);
	w->flaps = false;
	w->map_status = 404;
	w->n_register = 0;
	control_kick(w->control);
	settle_for(w, 600);
	assert_in_range(w->n_register, 4, 14);
	w->map_status = 200;
	control_kick(w->control);
	come_up(w);
}

/* Small on the way: a mebibyte of blanks around a keep-alive. */
static void put_blank(struct buf *b)
{
	size_t n = 1u << 20;
	char *text = malloc(n + 1);

	assert_non_null(text);
	memset(text, ' ', n);
	memcpy(text, "{\"KeepAlive\":true", 17);
	memcpy(text + n - 1, "}", 2);
	assert_int_equal(ts2021_frame_put(b, TS2021_ENCODING_ZSTD, text, n), 0);
	free(text);
}

/* A server that sends more than can be read in good time: others have their turn all the while. */
static void test_flood(void **state)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct world *w = *state;
	struct control_status s;
	unsigned int first, before;

	log_in(w, accepted);
	for (int i = 0; i < 200; i++)
		put_blank(&b);
	assert_in_range(b.len, 1, 60000);
	control_status(w->control, &s);
	first = before = s.maps;
	assert_int_equal(h2_send(w->stream, buf_data(&b), b.len), 0);
	while (before < first + 100) {
		assert_true(loop_iterate(w->loop, USEC_PER_SEC) >= 0);
		control_status(w->control, &s);
		assert_in_range(s.maps - before, 0, 100);
		before = s.maps;
	}
	assert_int_equal(w->state, CONTROL_STATE_RUNNING);
	/* what waits goes with the conversation */
	control_stop(w->control);
	settle(w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		world_test(test_flapping),
		world_test(test_flood),
		world_test(test_hostile_map),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
