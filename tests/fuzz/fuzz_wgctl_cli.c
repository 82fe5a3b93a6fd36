/*
 * Any words as a command line, one a line: taken or refused with a sentence; texts, durations,
 * names on the way.
 *
 * words: wgctl/c*.c
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wgctl/cli.h"
#include "wgctl/out.h"
#include "tests/fuzz/check.h"

static void parse(int argc, char **argv)
{
	struct cli c = { .out = stdout, .err = stderr };
	char why[CLI_WHY_MAX];
	struct buf b = { 0 };
	int r = cli_parse(&cli_root, argc, argv, &c, why);

	CHECK((r == CLI_EXIT_GOOD) == (*why == '\0'));
	if (r == CLI_EXIT_GOOD) {
		cli_help(&c, &b);
		(void)cli_msec(&c, "timeout", 0);
		(void)cli_int(&c, "c", 0);
	}
	out_safe(&b, why);
	buf_done(&b);
	cli_done(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *argv[66] = { (char[]){ "wgctl" } }, *had[66], *save = NULL;
	int64_t msec;
	int argc = 1;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (out_duration_parse(text, &msec) == 0)
		CHECK(msec >= 0);
	for (char *w = strtok_r(text, "\n", &save); w && argc < 65; w = strtok_r(NULL, "\n", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	memcpy(had, argv, sizeof(had));
	CHECK(cli_wipe_secrets(&cli_root, argc, argv) >= 0);
	parse(argc, argv);
	for (int i = 0; i < argc; i++)
		if (argv[i] != had[i])
			free(argv[i]);
	free(text);
	return 0;
}
