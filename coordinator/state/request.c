#include "coordinator/state/request.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json.h"

void hostinfo_done(struct hostinfo *h)
{
	free(h->text);
	free(h->netinfo);
	free(h->hostname);
	strs_done(&h->tags);
	*h = (struct hostinfo){ 0 };
}

void register_request_done(struct register_request *r)
{
	if (r->auth_key)
		sodium_memzero(r->auth_key, strlen(r->auth_key));
	free(r->auth_key);
	free(r->followup);
	hostinfo_done(&r->hostinfo);
	*r = (struct register_request){ 0 };
}

void map_request_done(struct map_request *r)
{
	hostinfo_done(&r->hostinfo);
	*r = (struct map_request){ 0 };
}

/* 0 for an absent one (then NULL), -EBADMSG for what is no plain string or longer than max. */
static int request_string(const json_t *o, const char *name, size_t max, char **ret)
{
	const json_t *v = json_get(o, name);

	if (!v)
		return 0;
	if (!json_is_string(v) || json_string_length(v) > max ||
	    strlen(json_string_value(v)) != json_string_length(v))
		return -EBADMSG;
	if (!json_string_length(v))
		return 0;
	*ret = strdup(json_string_value(v));
	return *ret ? 0 : -ENOMEM;
}

/* Zero for an absent one. */
static int request_key(const json_t *o, const char *name, enum key_kind kind, struct key *ret)
{
	int r = json_get_key(o, name, kind, ret);

	return r == -ENOENT ? 0 : r;
}

/* What every request is: an object that tells the version of its client. */
static int request_open(const void *p, size_t len, json_t **ret, uint32_t *ret_version)
{
	CLEANUP(json_decref) json_t *o = NULL;
	int64_t version;
	int r;

	r = json_read(p, len, REQUEST_BYTES_MAX, &o);
	if (r < 0)
		return r;
	version = json_is_object(o) ? json_get_int(o, "Version", -1) : -1;
	if (version < 0 || version > UINT16_MAX)
		return -EBADMSG;
	*ret = TAKE(o);
	*ret_version = (uint32_t)version;
	return 0;
}

static int hostinfo_text(const json_t *v, char **ret)
{
	char *s = json_dumps(v, JSON_COMPACT);

	if (!s)
		return -ENOMEM;
	if (strlen(s) > NODE_HOSTINFO_MAX) {
		free(s);
		return -ENOBUFS;
	}
	*ret = s;
	return 0;
}

static int hostinfo_parse(const json_t *o, struct hostinfo *ret)
{
	json_t *hi = json_get(o, "Hostinfo"), *ni;
	int64_t home;
	int r;

	if (!hi)
		return 0;
	if (!json_is_object(hi))
		return -EBADMSG;
	ni = json_get(hi, "NetInfo");
	if (ni) {
		if (!json_is_object(ni))
			return -EBADMSG;
		home = json_get_int(ni, "PreferredDERP", 0);
		ret->home = home > 0 && home <= 65535 ? (uint32_t)home : 0;
		r = hostinfo_text(ni, &ret->netinfo);
		if (r < 0)
			return r;
	}
	json_object_del(hi, "NetInfo");
	r = request_string(hi, "Hostname", 255, &ret->hostname);
	if (r < 0)
		return r;
	if (!ret->hostname && !(ret->hostname = strdup("")))
		return -ENOMEM;
	r = strs_from_json(json_get(hi, "RequestTags"), AUTHKEY_TAGS_MAX, &ret->tags);
	if (r < 0)
		return r;
	return hostinfo_text(hi, &ret->text);
}

static int register_request_read(const json_t *o, struct register_request *q)
{
	const json_t *auth = json_get(o, "Auth");
	const char *expiry = json_get_str(o, "Expiry");
	int r;

	r = request_key(o, "NodeKey", KEY_KIND_NODE, &q->node_key);
	if (r == 0)
		r = request_key(o, "OldNodeKey", KEY_KIND_NODE, &q->old_node_key);
	if (r == 0 && auth)
		r = json_is_object(auth) ? request_string(auth, "AuthKey", 512, &q->auth_key) : -EBADMSG;
	if (r == 0)
		r = request_string(o, "Followup", 2048, &q->followup);
	if (r == 0 && expiry)
		r = json_time_parse(expiry, &q->expiry_nsec);
	if (r == 0)
		r = hostinfo_parse(o, &q->hostinfo);
	return r;
}

int register_request_parse(const void *p, size_t len, struct register_request *ret)
{
	CLEANUP(json_decref) json_t *o = NULL;
	struct register_request q = { 0 };
	int r;

	*ret = q;
	r = request_open(p, len, &o, &q.version);
	if (r < 0)
		return r;
	ret->version = q.version;
	r = register_request_read(o, &q);
	if (r < 0) {
		register_request_done(&q);
		return r;
	}
	*ret = q;
	return 0;
}

static int map_request_endpoints(const json_t *o, struct map_request *q)
{
	const json_t *list = json_get(o, "Endpoints"), *v;
	struct endpoint e;
	size_t i, k;

	if (!list)
		return 0;
	if (!json_is_array(list))
		return -EBADMSG;
	q->has_endpoints = true;
	json_array_foreach(list, i, v) {
		if (json_parse_endpoint(v, &e) < 0)
			return -EBADMSG;
		for (k = 0; k < q->n_endpoint && !endpoint_equal(&q->endpoint[k], &e); k++)
			;
		if (k == q->n_endpoint && q->n_endpoint < NODE_ENDPOINTS_MAX)
			q->endpoint[q->n_endpoint++] = e;
	}
	return 0;
}

static int map_request_read(const json_t *o, struct map_request *q)
{
	const char *compress = json_get_str(o, "Compress");
	int r;

	q->stream = json_get_bool(o, "Stream", false);
	q->omit_peers = json_get_bool(o, "OmitPeers", false);
	q->zstd = compress && !strcmp(compress, "zstd");
	r = request_key(o, "NodeKey", KEY_KIND_NODE, &q->node_key);
	if (r == 0)
		r = request_key(o, "DiscoKey", KEY_KIND_DISCO, &q->disco_key);
	if (r == 0)
		r = map_request_endpoints(o, q);
	if (r == 0)
		r = hostinfo_parse(o, &q->hostinfo);
	return r;
}

int map_request_parse(const void *p, size_t len, struct map_request *ret)
{
	CLEANUP(json_decref) json_t *o = NULL;
	struct map_request q = { 0 };
	int r;

	*ret = q;
	r = request_open(p, len, &o, &q.version);
	if (r < 0)
		return r;
	ret->version = q.version;
	r = map_request_read(o, &q);
	if (r < 0) {
		map_request_done(&q);
		return r;
	}
	*ret = q;
	return 0;
}
