/*
 * Any answers of a coordinator to `wgctl admin`, or of a daemon to what is no view of fuzz_wgctl_view: the first line
 * says which command and the HTTP status, the rest is the answer to all that it asks. It ends with a status of its own,
 * says why when that is not 0, and prints nothing that acts on a terminal. libcurl is stood in for.
 *
 * words: wgctl/cmd_admin.c wgctl/client.c
 * max_len: 3000
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "wgctl/cli.h"
#define JSON_MUTATOR_AFTER_LINE
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORDS = 9 };

static const char *const commands[][WORDS] = {
	{ "admin", "nodes", "list" },
	{ "admin", "nodes", "list", "--user", "alice", "-o", "json" },
	{ "admin", "nodes", "expire", "--identifier", "box" },
	{ "admin", "nodes", "rename", "--identifier", "1", "other" },
	{ "admin", "nodes", "delete", "--identifier", "1", "--force" },
	{ "admin", "nodes", "tag", "--identifier", "box", "--tags", "tag:db" },
	{ "admin", "nodes", "register", "--user", "alice", "--key", "0123456789abcdef01234567" },
	{ "admin", "users", "list" },
	{ "admin", "users", "list", "-o", "json-line" },
	{ "admin", "users", "create", "bob" },
	{ "admin", "users", "destroy", "--name", "bob", "--force" },
	{ "admin", "users", "rename", "--name", "bob", "--new-name", "carol" },
	{ "admin", "preauthkeys", "list" },
	{ "admin", "preauthkeys", "create", "--user", "alice" },
	{ "admin", "preauthkeys", "expire", "--id", "1" },
	{ "admin", "health" },
	{ "status", "--json" },
	{ "ip" },
	{ "down" },
	{ "version", "--daemon" },
};

/* ---- libcurl: every request has the same answer ---- */

static struct {
	const uint8_t *body;
	size_t len;
	long status;
	curl_write_callback write;
	void *to;
} answer;

#undef curl_easy_setopt
#undef curl_easy_getinfo

CURL *curl_easy_init(void)
{
	return &answer;
}

void curl_easy_cleanup(CURL *h)
{
	(void)h;
}

CURLcode curl_easy_setopt(CURL *h, CURLoption option, ...)
{
	va_list ap;

	(void)h;
	va_start(ap, option);
	if (option == CURLOPT_WRITEFUNCTION)
		answer.write = va_arg(ap, curl_write_callback);
	else if (option == CURLOPT_WRITEDATA)
		answer.to = va_arg(ap, void *);
	va_end(ap);
	return CURLE_OK;
}

CURLcode curl_easy_perform(CURL *h)
{
	(void)h;
	if (answer.len && answer.write((char *)(uintptr_t)answer.body, 1, answer.len, answer.to) != answer.len)
		return CURLE_WRITE_ERROR;
	return CURLE_OK;
}

CURLcode curl_easy_getinfo(CURL *h, CURLINFO info, ...)
{
	va_list ap;

	(void)h;
	va_start(ap, info);
	if (info == CURLINFO_RESPONSE_CODE)
		*va_arg(ap, long *) = answer.status;
	va_end(ap);
	return CURLE_OK;
}

/* ---- */

static size_t printed;

static ssize_t look(void *data, const char *p, size_t n)
{
	static const bool acting[256] = { [0 ... 8] = true, [11 ... 31] = true, [127] = true };

	(void)data;
	for (size_t i = 0; i < n; i++)
		if (acting[(uint8_t)p[i]])
			abort();
	printed += n;
	return (ssize_t)n;
}

static void run(char **argv, int argc, FILE *out)
{
	struct cli c = { .out = out, .err = out };
	char why[CLI_WHY_MAX];
	int r;

	if (cli_parse(&cli_root, argc, argv, &c, why) != CLI_EXIT_GOOD)
		abort();
	r = c.path[c.depth - 1]->run(&c);
	fflush(out);
	if (r < CLI_EXIT_GOOD || r > CLI_EXIT_REFUSED || (r != CLI_EXIT_GOOD && !printed))
		abort();
	cli_done(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *out;
	const uint8_t *nl = memchr(data, '\n', size);
	char line[32] = "", words[WORDS][32] = { "wgctl" }, *argv[WORDS + 1] = { words[0] };
	unsigned int which = 0;
	int argc = 1;

	if (!out)
		out = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = look });
	if (!out || !nl || (size_t)(nl - data) >= sizeof(line))
		return 0;
	memcpy(line, data, (size_t)(nl - data));
	answer.status = 200;
	if (sscanf(line, "%u %ld", &which, &answer.status) < 1)
		return 0;
	answer.body = nl + 1;
	answer.len = size - (size_t)(nl + 1 - data);
	which %= sizeof(commands) / sizeof(commands[0]);
	for (const char *const *w = commands[which]; argc < WORDS && *w; w++, argc++) {
		snprintf(words[argc], sizeof(words[argc]), "%s", *w);
		argv[argc] = words[argc];
	}
	printed = 0;
	run(argv, argc, out);
	return 0;
}
