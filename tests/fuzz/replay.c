/*
 * replay: run one fuzz target over stored inputs, without a fuzzer.
 *
 * Arguments are files and folders (not searched deeper). Every input is given whole and then cut
 * short, small ones at every length, from a heap block of exactly that size, so that a sanitizer
 * sees one byte read too far. Then the whole input once more with each allocation failing in turn.
 * Prints how many inputs ran.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/nomem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	INPUT_MAX = 16 << 20,
	CUT_SMALL = 4096,	/* up to this size every length is tried */
	CUT_STEPS = 128,	/* above it so many, evenly: a map of 1 MB would take minutes */
};

static unsigned long n_files, n_runs, n_nomem;

static int run_one(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, data, size);
	/* With nothing to read, point behind the block: any access is then seen. */
	LLVMFuzzerTestOneInput(size ? copy : copy + 1, size);
	free(copy);
	n_runs++;
	return 0;
}

static int run_cuts(const uint8_t *data, size_t size)
{
	size_t step = size > CUT_SMALL ? size / CUT_STEPS : 1;
	int r = run_one(data, size);

	for (size_t n = 0; r >= 0 && n < size; n += step)
		r = run_one(data, n);
	return r;
}

static int run_file(const char *path)
{
	uint8_t *data = NULL;
	FILE *f = fopen(path, "rb");
	long size;
	int r;

	if (!f)
		return -errno;
	r = -EIO;
	if (fseek(f, 0, SEEK_END) < 0)
		goto out;
	size = ftell(f);
	if (size < 0 || size > INPUT_MAX || fseek(f, 0, SEEK_SET) < 0)
		goto out;
	r = -ENOMEM;
	data = malloc(size ? (size_t)size : 1);
	if (!data)
		goto out;
	r = -EIO;
	if (fread(data, 1, (size_t)size, f) != (size_t)size)
		goto out;
	n_files++;
	r = run_cuts(data, (size_t)size);
	nomem_run(data, (size_t)size, &n_nomem);
out:
	free(data);
	fclose(f);
	return r;
}

static int run_path(const char *path)
{
	struct stat st;
	struct dirent *e;
	DIR *d;
	int r = 0;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return run_file(path);
	d = opendir(path);
	if (!d)
		return -errno;
	while (r >= 0 && (e = readdir(d))) {
		char name[4096];

		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		r = run_file(name);
	}
	closedir(d);
	return r;
}

int main(int argc, char **argv)
{
	static const uint8_t nothing[1];
	int r = run_one(nothing, 0);

	for (int i = 1; r >= 0 && i < argc; i++) {
		r = run_path(argv[i]);
		if (r < 0)
			fprintf(stderr, "%s: %s\n", argv[i], strerror(-r));
	}
	printf("%lu inputs, %lu runs, %lu without memory\n", n_files, n_runs, n_nomem);
	return r < 0 ? 1 : 0;
}
