/* DERP frames: the first byte picks the role and how the rest is cut; what decodes encodes back the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "proto/derp.h"
#include "tests/fuzz/check.h"

static void again(const struct derp_frame *f, struct buf *out)
{
	struct derp_restarting rs;
	struct derp_forward fw;
	struct derp_present pr;
	struct derp_packet p;
	struct derp_gone g;
	uint8_t ping[DERP_PING_LEN];
	struct key k;
	bool home;

	switch (f->type) {
	case DERP_FRAME_SERVER_KEY:
		if (derp_server_key_decode(f->body, f->len, &k) == 0)
			derp_put_server_key(out, &k);
		break;
	case DERP_FRAME_SEND_PACKET:
	case DERP_FRAME_RECV_PACKET:
		if (derp_packet_decode(f->body, f->len, &p) == 0)
			derp_put_packet(out, f->type, &p);
		break;
	case DERP_FRAME_FORWARD_PACKET:
		if (derp_forward_decode(f->body, f->len, &fw) == 0)
			derp_put_forward(out, &fw);
		break;
	case DERP_FRAME_NOTE_PREFERRED:
		if (derp_note_preferred_decode(f->body, f->len, &home) == 0 && f->body[0] < 2)
			derp_put_note_preferred(out, home);
		break;
	case DERP_FRAME_PEER_GONE:
		if (derp_gone_decode(f->body, f->len, &g) == 0 && f->len > KEY_LEN)
			derp_put_gone(out, &g);
		break;
	case DERP_FRAME_PEER_PRESENT:
		if (derp_present_decode(f->body, f->len, &pr) == 0 && f->len >= 51)
			derp_put_present(out, &pr);
		break;
	case DERP_FRAME_PING:
	case DERP_FRAME_PONG:
		if (derp_ping_decode(f->body, f->len, ping) == 0)
			derp_put_ping(out, f->type, ping);
		break;
	case DERP_FRAME_CLOSE_PEER:
		if (derp_close_peer_decode(f->body, f->len, &k) == 0)
			derp_put_close_peer(out, &k);
		break;
	case DERP_FRAME_RESTARTING:
		if (derp_restarting_decode(f->body, f->len, &rs) == 0)
			derp_put_restarting(out, &rs);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct derp_reader rd;
	struct derp_frame f;
	struct buf out = { 0 };
	size_t piece;
	int r = 0;

	if (!size)
		return 0;
	piece = (data[0] >> 1) + 1u;
	derp_reader_init(&rd, data[0] & 1 ? DERP_ROLE_SERVER : DERP_ROLE_CLIENT);
	data++, size--;
	while (size && r >= 0) {
		const uint8_t *p = data;
		size_t len = MIN(piece, size);

		data += len;
		size -= len;
		while ((r = derp_reader_next(&rd, &p, &len, &f)) == 1) {
			buf_clear(&out);
			again(&f, &out);
			/* Longer bodies are legal for some types; what is encoded is a prefix of them. */
			if (out.len) {
				CHECK(out.len - DERP_HEADER_LEN <= f.len);
				CHECK(!memcmp(buf_data(&out) + DERP_HEADER_LEN, f.body,
					      out.len - DERP_HEADER_LEN));
			}
		}
		CHECK(r < 0 || !len);
		CHECK(rd.part.len <= DERP_HEADER_LEN + DERP_CLIENT_FRAME_MAX);
	}
	derp_reader_done(&rd);
	buf_done(&out);
	return 0;
}
