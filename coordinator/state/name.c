#include "coordinator/state/name.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/utf8.h"

/* Plain ASCII: the locale has no say in what a name is. */
static bool name_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static size_t name_stem(const char *h)
{
	static const char *const suffix[] = { ".localdomain", ".local", ".lan" };
	size_t n = strlen(h);

	for (size_t i = 0; i < sizeof(suffix) / sizeof(suffix[0]); i++) {
		size_t s = strlen(suffix[i]);

		if (n >= s && !strcasecmp(h + n - s, suffix[i]))
			return n - s;
	}
	return n;
}

void name_sanitize(const char *hostname, char out[static NAME_LABEL_MAX + 1])
{
	size_t from = 0, to = name_stem(hostname), n = 0;

	if (to > NAME_LABEL_MAX)
		to = NAME_LABEL_MAX;
	while (from < to && !name_alnum(hostname[from]))
		from++;
	while (to > from && !name_alnum(hostname[to - 1]))
		to--;
	for (; from < to; from++) {
		char c = hostname[from];

		if (name_alnum(c))
			out[n++] = (char)tolower((unsigned char)c);
		else if (c == '-' || strchr(" .@_", c))
			out[n++] = '-';
	}
	out[n] = '\0';
	if (!n)
		memcpy(out, "node", 5);
}

void name_numbered(const char *base, unsigned int n, char out[static NAME_LABEL_MAX + 1])
{
	char tail[12] = "";

	if (n)
		snprintf(tail, sizeof(tail), "-%u", n);
	snprintf(out, NAME_LABEL_MAX + 1, "%.*s%s", (int)(NAME_LABEL_MAX - strlen(tail)), base, tail);
}

bool name_label_ok(const char *label)
{
	size_t n = strlen(label);

	if (!n || n > NAME_LABEL_MAX || label[0] == '-' || label[n - 1] == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!name_alnum(label[i]) && label[i] != '-')
			return false;
	for (size_t i = 0; i < n; i++)
		if (isupper((unsigned char)label[i]))
			return false;
	return true;
}

/* Letters and digits of any script: what is above ASCII is taken for one. */
bool name_user_ok(const char *name)
{
	size_t n = strlen(name), at = 0;

	if (!n || n > NAME_USER_MAX || !utf8_ok(name))
		return false;
	if (!name_alnum(name[0]) && !((unsigned char)name[0] & 0x80))
		return false;
	if (name[0] >= '0' && name[0] <= '9')
		return false;
	for (size_t i = 0; i < n; i++) {
		if (name[i] == '@')
			at++;
		else if (!name_alnum(name[i]) && !((unsigned char)name[i] & 0x80) && !strchr("-._", name[i]))
			return false;
	}
	return at <= 1;
}

bool name_tag_ok(const char *tag)
{
	size_t n = strlen(tag);

	if (n < 5 || n > 128 || strncmp(tag, "tag:", 4) || !name_alnum(tag[4]) ||
	    (tag[4] >= '0' && tag[4] <= '9'))
		return false;
	for (size_t i = 4; i < n; i++)
		if (!name_alnum(tag[i]) && tag[i] != '-')
			return false;
	return true;
}
