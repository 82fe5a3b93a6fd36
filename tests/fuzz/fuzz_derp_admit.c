/*
 * What relay and controller say to each other of a client: any bytes as the question and as the answer. A key that is
 * read is written and read again.
 *
 * words: proto/derp_admit.c
 * max_len: 4200
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "proto/derp_admit.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct addr none = { 0 }, there = addr_v4(192, 0, 2, 1);
	char text[DERP_ADMIT_TEXT_MAX];
	struct key k, again;
	bool allow = false;
	int r;

	if (derp_admit_request_read(data, size, &k) == 0) {
		derp_admit_request_text(&k, size % 2 ? &there : &none, text);
		r = derp_admit_request_read(text, strlen(text), &again);
		CHECK(r == -ENOMEM || (r == 0 && key_equal(&k, &again)));
		CHECK(size <= DERP_ADMIT_REQUEST_MAX);
	}
	/* never by chance: what admits has the words in it */
	if (derp_admit_answer_read(data, size, &allow) < 0)
		CHECK(!allow);
	else if (allow)
		CHECK(memmem(data, size, "true", 4));
	return 0;
}
