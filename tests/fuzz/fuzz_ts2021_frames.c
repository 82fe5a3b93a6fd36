/* Map frames: plain or zstd by the first byte, small limits; any split gives the same messages. */
#include <assert.h>
#include <string.h>

#include "lib/cleanup.h"
#include "proto/ts2021.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#define MESSAGE_MAX (1u << 20)

static int decode(const uint8_t *p, size_t n, size_t step, enum ts2021_coding coding, struct buf *all)
{
	static void *dctx; /* making one costs more than the rest of a run */
	struct ts2021_frames f;
	const char *msg;
	size_t len;
	int r = 0;

	ts2021_frames_init(&f, coding);
	f.frame_max = 65536;
	f.message_max = MESSAGE_MAX;
	f.dctx = TAKE(dctx);
	for (size_t i = 0; i < n && r >= 0; i += step) {
		r = ts2021_frames_feed(&f, p + i, MIN(step, n - i));
		while (r >= 0 && (r = ts2021_frames_next(&f, &msg, &len)) > 0) {
			assert(len <= MESSAGE_MAX && msg[len] == '\0');
			if (all->len < 4 * MESSAGE_MAX)
				buf_put(all, msg, len);
		}
	}
	dctx = TAKE(f.dctx);
	ts2021_frames_done(&f);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	CLEANUP(buf_done) struct buf a = { 0 }, b = { 0 };
	enum ts2021_coding coding;

	if (n == 0)
		return 0;
	coding = p[0] & 1 ? TS2021_CODING_ZSTD : TS2021_CODING_PLAIN;
	decode(p + 1, n - 1, n, coding, &a);
	decode(p + 1, n - 1, 100, coding, &b);
	assert(a.len == b.len && memcmp(buf_data(&a), buf_data(&b), a.len) == 0);
	return 0;
}
