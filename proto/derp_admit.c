#include "proto/derp_admit.h"

#include <errno.h>
#include <stdio.h>

#include "lib/json.h"

const char *derp_admit_request_text(const struct key *node, const struct addr *src, char out[static DERP_ADMIT_TEXT_MAX])
{
	char key[KEY_TEXT_MAX], addr[ADDR_TEXT_MAX];

	snprintf(out, DERP_ADMIT_TEXT_MAX, "{\"NodePublic\":\"%s\",\"Source\":\"%s\"}",
		 key_text(KEY_KIND_NODE, node, key), src->family ? addr_text(src, addr) : "");
	return out;
}

static int derp_admit_object(const void *p, size_t len, size_t max, json_t **ret)
{
	int r = json_read(p, len, max, ret);

	if (r == -ENOMEM)
		return r;
	return r < 0 || !json_is_object(*ret) ? -EBADMSG : 0;
}

int derp_admit_request_read(const void *p, size_t len, struct key *ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	int r = derp_admit_object(p, len, DERP_ADMIT_REQUEST_MAX, &j);

	if (r == 0 && json_get_key(j, "NodePublic", KEY_KIND_NODE, ret) < 0)
		r = -EBADMSG;
	return r;
}

const char *derp_admit_answer_text(bool allow)
{
	return allow ? "{\"Allow\":true}\n" : "{\"Allow\":false}\n";
}

int derp_admit_answer_read(const void *p, size_t len, bool *ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	int r = derp_admit_object(p, len, DERP_ADMIT_ANSWER_MAX, &j);

	if (r == 0)
		*ret = json_get_bool(j, "Allow", false);
	return r;
}
