/*
 * Any JSON as the daemon's answer: every view of it ends, and prints nothing that acts on a
 * terminal.
 *
 * words: wgctl/view.c wgctl/out.c
 * max_len: 3000
 */
#include <stdint.h>
#include <stdlib.h>

#include "lib/json.h"
#include "wgctl/view.h"
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct view_status o = { .self = true,
					      .peers = true,
					      .header = true,
					      .detail = true,
					      .now_unix_nsec = INT64_C(1795000000000000000) };
	static const bool acting[256] = { [0 ... 8] = true, [11 ... 31] = true, [127] = true };
	struct buf b = { 0 };
	json_t *j = NULL;
	bool direct, self, acts = false;
	int status;

	if (json_read(data, size, 1 << 20, &j) < 0)
		return 0;
	view_status(j, &o, &b);
	view_health(j, &b);
	(void)view_not_running(j, &b, &status);
	(void)view_find(j, "db1", &self);
	(void)view_find(j, "100.64.0.9", &self);
	view_pong(j, &b, &direct);
	view_netcheck(j, true, &b);
	view_whois(j, &b);
	for (size_t i = 0; i < b.len; i++)
		acts |= acting[buf_data(&b)[i]];
	if (acts)
		abort();
	buf_done(&b);
	json_decref(j);
	return 0;
}
