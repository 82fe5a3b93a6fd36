#pragma once
/*
 * golden: compares text with a file under tests/data. GOLDEN_WRITE=1 writes the files instead; look at
 * the difference before it is committed.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline bool golden_is(const char *path, const void *text, size_t len)
{
	const char *write = getenv("GOLDEN_WRITE");
	char *have = NULL;
	size_t n = 0;
	bool same;
	FILE *f;

	if (write && *write == '1') {
		f = fopen(path, "we");
		if (!f)
			return false;
		same = fwrite(text, 1, len, f) == len;
		return fclose(f) == 0 && same;
	}
	f = fopen(path, "re");
	if (f) {
		have = calloc(1, len + 4096);
		n = have ? fread(have, 1, len + 4095, f) : 0;
		fclose(f);
	}
	same = have && n == len && !memcmp(have, text, len);
	if (!same)
		printf("# %s differs; this is what there is now:\n%.*s\n", path, (int)len, (const char *)text);
	free(have);
	return same;
}
