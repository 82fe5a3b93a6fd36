#include "relay/keyfile.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/file.h"
#include "lib/json.h"

#define KEYFILE_MAX 4096

static int keyfile_parse(const char *text, size_t len, struct key_pair *ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	struct key_pair pair;
	const char *s;
	int r = json_read(text, len, KEYFILE_MAX, &j);

	if (r < 0)
		return r == -ENOMEM ? r : -EBADMSG;
	s = json_get_str(j, "PrivateKey");
	if (!s || key_parse(KEY_KIND_PRIVATE, s, strlen(s), &pair.priv) < 0)
		return -EBADMSG;
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

static int keyfile_write(const char *path, const struct key_pair *pair)
{
	char key[KEY_TEXT_MAX], text[KEY_TEXT_MAX + 32];
	int n = snprintf(text, sizeof(text), "{\n\t\"PrivateKey\": \"%s\"\n}\n",
			 key_text(KEY_KIND_PRIVATE, &pair->priv, key));
	int r = file_replace(path, text, (size_t)n, 0600);

	sodium_memzero(key, sizeof(key));
	sodium_memzero(text, sizeof(text));
	return r;
}

int keyfile_load(const char *path, struct key_pair *ret)
{
	struct key_pair pair;
	int r = keyfile_read(path, ret);

	if (r != -ENOENT)
		return r;
	key_pair_generate(&pair);
	r = keyfile_write(path, &pair);
	if (r >= 0) {
		*ret = pair;
		r = 0;
	}
	key_pair_wipe(&pair);
	return r;
}
