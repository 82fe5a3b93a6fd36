#include "coordinator/serverkey.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/file.h"
#include "lib/json.h"

#define SERVERKEY_MAX 4096

static int serverkey_parse(const char *p, size_t len, struct key *ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	const char *s = p;

	while (len && (p[len - 1] == '\n' || p[len - 1] == '\r' || p[len - 1] == ' '))
		len--;
	if (len && *p == '{') {
		if (json_read(p, len, SERVERKEY_MAX, &j) < 0 || !(s = json_get_str(j, "PrivateKey")))
			return -EBADMSG;
		len = strlen(s);
	}
	return key_parse(KEY_KIND_PRIVATE, s, len, ret);
}

static int serverkey_make(const char *path, struct key_pair *ret)
{
	char text[KEY_TEXT_MAX], line[KEY_TEXT_MAX + 2];
	struct key_pair pair;
	int r, n;

	key_pair_generate(&pair);
	n = snprintf(line, sizeof(line), "%s\n", key_text(KEY_KIND_PRIVATE, &pair.priv, text));
	r = file_replace(path, line, (size_t)n, 0600);
	if (r == 0)
		*ret = pair;
	key_pair_wipe(&pair);
	explicit_bzero(text, sizeof(text));
	explicit_bzero(line, sizeof(line));
	return r;
}

int serverkey_load(const char *path, struct key_pair *ret)
{
	struct buf b = { .max = SERVERKEY_MAX + 1 };
	struct key_pair pair;
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? serverkey_make(path, ret) : -errno;
	if (st.st_mode & 077)
		return -EPERM;
	r = file_read(path, SERVERKEY_MAX, &b);
	if (r >= 0)
		r = serverkey_parse((const char *)buf_data(&b), b.len, &pair.priv);
	buf_done_secret(&b);
	if (r >= 0)
		r = key_public(&pair.priv, &pair.pub);
	if (r >= 0)
		*ret = pair;
	key_pair_wipe(&pair);
	return r < 0 ? r : 0;
}
