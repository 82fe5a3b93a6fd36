/*
 * The names of what is in the kernel, as a file in the runtime folder may have them: what is taken is names, whatever the
 * rest is, and comes back the same.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/journal.h"
#include "tests/fuzz/check.h"

static void whole(const char *s, size_t room)
{
	CHECK(*s && memchr(s, 0, room) && !strpbrk(s, "/ .\n{}\""));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct journal j, again;
	char text[JOURNAL_MAX * 80];
	size_t len = 0;

	journal_decode((const char *)data, size, &j);
	CHECK(j.n <= JOURNAL_MAX);
	for (size_t i = 0; i < j.n; i++) {
		const struct journal_names *n = &j.names[i];

		whole(n->interface, sizeof(n->interface));
		whole(n->table, sizeof(n->table));
		CHECK(n->rule_base >= 1 && n->rule_base <= CONFIG_RULE_BASE_MAX);
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s %s %u\n", n->interface, n->table, n->rule_base);
	}
	journal_decode(text, len, &again);
	CHECK(again.n == j.n);
	for (size_t i = 0; i < j.n; i++)
		CHECK(journal_names_equal(&j.names[i], &again.names[i]));
	return 0;
}
