#include "proto/tailcfg_util.h"

#include <errno.h>
#include <string.h>

char *tailcfg_text(const char *s, size_t max)
{
	size_t n = s ? strlen(s) : 0;
	char *t;

	if (n > max) {
		for (n = max; n && ((uint8_t)s[n] & 0xc0) == 0x80; n--)
			; /* back to where a character begins */
	}
	t = malloc(n + 1);
	if (!t)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		uint8_t c = (uint8_t)s[i];
		/* C1 control characters are C2 80 … C2 9F in UTF-8, and move terminals too */
		bool c1 = c == 0xc2 && i + 1 < n && (uint8_t)s[i + 1] < 0xa0;

		t[i] = s[i];
		if (c < 0x20 || c == 0x7f || c1)
			t[i] = '?';
		if (c1)
			t[++i] = '?';
	}
	t[n] = '\0';
	return t;
}

bool tailcfg_url_ok(const char *url)
{
	size_t n = strlen(url);

	if (n > TAILCFG_URL_MAX ||
	    (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (url[i] <= ' ' || url[i] >= 0x7f || strchr("\"'\\<>`", url[i]))
			return false;
	}
	return true;
}

int tailcfg_grow(void *array_p, size_t n, size_t max, size_t element_bytes)
{
	void *v;

	if (n >= max)
		return -ENOBUFS;
	if (n & (n - 1)) /* capacity is the next power of two */
		return 0;
	memcpy(&v, array_p, sizeof(v));
	/* On failure the caller still has the old array. */
	/* cppcheck-suppress memleakOnRealloc */
	v = realloc(v, (n ? 2 * n : 1) * element_bytes);
	if (!v)
		return -ENOMEM;
	memcpy(array_p, &v, sizeof(v));
	return 0;
}

void tailcfg_strv_free(char **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i]);
	free(v);
}

int tailcfg_strv_decode(const json_t *list, size_t max, char ***ret, size_t *ret_n, size_t *skipped)
{
	size_t count = json_array_size(list), n = 0;
	char **v;

	if (count > max)
		return -ENOBUFS;
	v = count ? calloc(count, sizeof(*v)) : NULL;
	if (count && !v)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const char *s = json_string_value(json_array_get(list, i));

		if (!s) {
			(*skipped)++;
			continue;
		}
		v[n] = tailcfg_text(s, TAILCFG_TEXT_MAX);
		if (!v[n++]) {
			tailcfg_strv_free(v, n);
			return -ENOMEM;
		}
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

json_t *tailcfg_strv_json(char *const *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_string(v[i]));
	return a;
}

int tailcfg_prefixes_decode(const json_t *list, bool masked, struct prefix **ret, size_t *ret_n)
{
	size_t n = json_array_size(list);
	struct prefix *v;
	int r;

	if (n > TAILCFG_PREFIXES_MAX)
		return -ENOBUFS;
	v = n ? calloc(n, sizeof(*v)) : NULL;
	if (n && !v)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		r = json_parse_prefix(json_array_get(list, i), &v[i]);
		if (r < 0) {
			free(v);
			return r;
		}
		if (masked)
			v[i] = prefix_masked(&v[i]);
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

json_t *tailcfg_prefixes_json(const struct prefix *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_prefix(&v[i]));
	return a;
}

/* Lists can contain duplicates and entries of no use (control.md 7.8): those go, the order stays. */
int tailcfg_endpoints_decode(const json_t *list, struct endpoint **ret, size_t *ret_n)
{
	struct endpoint tmp[TAILCFG_ENDPOINTS_MAX], *v;
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(list) && n < ARRAY_SIZE(tmp); i++) {
		struct endpoint e;
		bool seen = false;

		if (json_parse_endpoint(json_array_get(list, i), &e) < 0 || !e.port ||
		    addr_is_unspecified(&e.addr) || addr_is_multicast(&e.addr))
			continue;
		for (size_t k = 0; k < n && !seen; k++)
			seen = endpoint_equal(&tmp[k], &e);
		if (!seen)
			tmp[n++] = e;
	}
	v = n ? malloc(n * sizeof(*v)) : NULL;
	if (n && !v)
		return -ENOMEM;
	if (n)
		memcpy(v, tmp, n * sizeof(*v));
	*ret = v;
	*ret_n = n;
	return 0;
}

int tailcfg_capmap_decode(const json_t *map, char **ret)
{
	char *text;

	*ret = NULL;
	if (!map || json_object_size(map) == 0)
		return 0;
	text = json_dumps(map, JSON_COMPACT | JSON_SORT_KEYS);
	if (!text)
		return -ENOMEM;
	if (strlen(text) > TAILCFG_CAPMAP_MAX) {
		free(text);
		return -ENOBUFS;
	}
	*ret = text;
	return 0;
}

int tailcfg_time_decode(const json_t *o, const char *name, int64_t *ret)
{
	const json_t *v = json_get(o, name);

	*ret = 0;
	if (!v)
		return 0;
	if (!json_is_string(v))
		return -EBADMSG;
	return json_time_parse(json_string_value(v), ret);
}

int tailcfg_key_decode(const json_t *o, const char *name, enum key_kind kind, struct key *ret)
{
	int r;

	*ret = key_zero;
	r = json_get_key(o, name, kind, ret);
	return r == -ENOENT ? 0 : r;
}

int tailcfg_text_decode(const json_t *o, const char *name, char **ret)
{
	char *s = tailcfg_text(json_get_str(o, name), TAILCFG_TEXT_MAX);

	if (!s)
		return -ENOMEM;
	*ret = s;
	return 0;
}
