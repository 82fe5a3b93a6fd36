#include "lib/keyfile.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/file.h"
#include "lib/json.h"

#define KEYFILE_MAX 4096

static int keyfile_parse_json(const char *text, size_t len, struct key *ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	const char *s;
	int r = json_read(text, len, KEYFILE_MAX, &j);

	if (r < 0)
		return r == -ENOMEM ? r : -EBADMSG;
	s = json_get_str(j, "PrivateKey");
	return s ? key_parse(KEY_KIND_PRIVATE, s, strlen(s), ret) : -EBADMSG;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int keyfile_parse(const char *text, size_t len, struct key_pair *ret)
{
	struct key_pair pair;
	int r;

	while (len && is_space(text[len - 1]))
		len--;
	while (len && is_space(*text)) {
		text++;
		len--;
	}
	r = len && *text == '{' ? keyfile_parse_json(text, len, &pair.priv) :
				  key_parse(KEY_KIND_PRIVATE, text, len, &pair.priv);
	if (r == 0)
		r = key_public(&pair.priv, &pair.pub);
	if (r == 0)
		*ret = pair;
	key_pair_wipe(&pair);
	return r;
}

static int keyfile_read(const char *path, struct key_pair *ret)
{
	struct buf text = { 0 };
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return -errno;
	if (st.st_mode & 077)
		return -EPERM;
	r = file_read(path, KEYFILE_MAX, &text);
	if (r >= 0)
		r = keyfile_parse((const char *)buf_data(&text), text.len, ret);
	buf_done_secret(&text);
	return r;
}

static int keyfile_write(const char *path, enum keyfile_form form, const struct key_pair *pair)
{
	char key[KEY_TEXT_MAX], text[KEY_TEXT_MAX + 32];
	int n = snprintf(text, sizeof(text), form == KEYFILE_JSON ? "{\n\t\"PrivateKey\": \"%s\"\n}\n" : "%s\n",
			 key_text(KEY_KIND_PRIVATE, &pair->priv, key));
	int r = file_replace(path, text, (size_t)n, 0600);

	sodium_memzero(key, sizeof(key));
	sodium_memzero(text, sizeof(text));
	return r;
}

int keyfile_load(const char *path, enum keyfile_form form, struct key_pair *ret)
{
	struct key_pair pair;
	int r = keyfile_read(path, ret);

	if (r != -ENOENT)
		return r;
	key_pair_generate(&pair);
	r = keyfile_write(path, form, &pair);
	if (r >= 0) {
		*ret = pair;
		r = 0;
	}
	key_pair_wipe(&pair);
	return r;
}
