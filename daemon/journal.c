#include "daemon/journal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config.h"
#include "lib/cleanup.h"
#include "lib/file.h"

#define LINE_MAX_BYTES 80
#define LINE	       "%s %s %u"
#define FILE_MAX_BYTES ((size_t)4096)

struct journal_names journal_names_of(const struct config *cfg)
{
	struct journal_names names = { .rule_base = cfg->rule_base };

	snprintf(names.interface, sizeof(names.interface), "%s", cfg->interface);
	snprintf(names.table, sizeof(names.table), "%s", cfg->table);
	return names;
}

bool journal_names_equal(const struct journal_names *a, const struct journal_names *b)
{
	return strcmp(a->interface, b->interface) == 0 && strcmp(a->table, b->table) == 0 &&
	       a->rule_base == b->rule_base;
}

void journal_drop(struct journal *j, size_t i)
{
	j->n--;
	memmove(&j->names[i], &j->names[i + 1], (j->n - i) * sizeof(j->names[0]));
}

bool journal_add(struct journal *j, const struct journal_names *names)
{
	for (size_t i = 0; i < j->n; i++)
		if (journal_names_equal(&j->names[i], names))
			return false;
	if (j->n == JOURNAL_MAX)
		journal_drop(j, 0);
	j->names[j->n++] = *names;
	return true;
}

void journal_decode(const char *text, size_t len, struct journal *ret)
{
	const char *end = text + len;

	*ret = (struct journal){ 0 };
	while (text < end) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));
		size_t n = (size_t)((stop ? stop : end) - text);
		struct journal_names names = { 0 };
		char line[LINE_MAX_BYTES], again[LINE_MAX_BYTES];

		if (n < sizeof(line) && !memchr(text, '\0', n)) {
			memcpy(line, text, n);
			line[n] = '\0';
			/* NOLINTNEXTLINE(cert-err34-c): nine digits do not overflow */
			if (sscanf(line, "%15[a-zA-Z0-9_-] %31[a-zA-Z0-9_-] %9u", names.interface, names.table,
				   &names.rule_base) == 3 &&
			    names.rule_base >= 1 && names.rule_base <= CONFIG_RULE_BASE_MAX &&
			    snprintf(again, sizeof(again), LINE, names.interface, names.table, names.rule_base) > 0 &&
			    strcmp(line, again) == 0)
				journal_add(ret, &names);
		}
		text += stop ? n + 1 : n;
	}
}

static int path_of(const char *dir, char path[static PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/" JOURNAL_FILE, dir) >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int journal_load(const char *dir, struct journal *ret)
{
	CLEANUP(buf_done) struct buf b = { .max = FILE_MAX_BYTES + 1 };
	char path[PATH_MAX];
	int r = path_of(dir, path);

	*ret = (struct journal){ 0 };
	if (r == 0)
		r = file_read(path, FILE_MAX_BYTES, &b);
	if (r == -ENOBUFS) /* too big to be ours: no want of memory */
		r = -EFBIG;
	if (r == 0)
		journal_decode((const char *)buf_data(&b), b.len, ret);
	return r;
}

int journal_save(const char *dir, const struct journal *j)
{
	CLEANUP(buf_done) struct buf b = { .max = FILE_MAX_BYTES };
	char path[PATH_MAX];
	int r = path_of(dir, path);

	if (r < 0)
		return r;
	if (j->n == 0)
		return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	for (size_t i = 0; i < j->n; i++)
		buf_printf(&b, LINE "\n", j->names[i].interface, j->names[i].table, j->names[i].rule_base);
	/* The folder is in memory, and the file has no use after a power cut. */
	return b.bad ? -ENOMEM : file_replace_unsynced(path, buf_data(&b), b.len, 0600);
}
