#include "proto/derpmap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json.h"
#include "lib/key.h"
#include "proto/tailcfg.h"

static void derp_node_done(struct derp_node *n)
{
	free(n->name);
	free(n->hostname);
	free(n->cert_name);
	free(n->ipv4);
	free(n->ipv6);
	free(n->stun_test_ip);
}

void derp_region_done(struct derp_region *r)
{
	for (size_t i = 0; i < r->n_nodes; i++)
		derp_node_done(&r->nodes[i]);
	free(r->nodes);
	free(r->code);
	free(r->name);
	*r = (struct derp_region){ 0 };
}

void derp_map_done(struct derp_map *m)
{
	for (size_t i = 0; i < m->n_regions; i++)
		derp_region_done(&m->regions[i]);
	free(m->regions);
	free(m->scores);
	*m = (struct derp_map){ 0 };
}

static int derp_text(const json_t *o, const char *name, char **ret)
{
	const json_t *v = json_get(o, name);
	const char *s = v ? json_get_str(o, name) : "";

	if (!s)
		return -EBADMSG;
	if (strlen(s) > DERP_TEXT_MAX)
		return -ENOBUFS;
	*ret = tailcfg_text(s, DERP_TEXT_MAX); /* codes and names reach logs and terminals */
	return *ret ? 0 : -ENOMEM;
}

static int derp_node_decode(const json_t *j, int64_t region, struct derp_node *ret)
{
	const struct {
		const char *name;
		char **at;
	} texts[] = {
		{ "Name", &ret->name },		 { "HostName", &ret->hostname },
		{ "CertName", &ret->cert_name }, { "IPv4", &ret->ipv4 },
		{ "IPv6", &ret->ipv6 },		 { "STUNTestIP", &ret->stun_test_ip },
	};
	int64_t stun, port;

	if (!json_is_object(j))
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		int r = derp_text(j, texts[i].name, texts[i].at);

		if (r < 0)
			return r;
	}
	ret->region_id = region;
	stun = json_get_int(j, "STUNPort", 0);
	port = json_get_int(j, "DERPPort", 0);
	if (stun < -1 || stun > UINT16_MAX || port < 0 || port > UINT16_MAX)
		return -EBADMSG;
	ret->stun_port = (int)stun;
	ret->derp_port = (int)port;
	ret->stun_only = json_get_bool(j, "STUNOnly", false);
	ret->insecure_for_tests = json_get_bool(j, "InsecureForTests", false);
	ret->can_port80 = json_get_bool(j, "CanPort80", false);
	return 0;
}

static int derp_region_fill(const json_t *j, struct derp_region *r)
{
	const json_t *nodes = json_get(j, "Nodes");
	int ret;

	if (!json_is_object(j))
		return -EBADMSG;
	r->id = json_get_int(j, "RegionID", 0);
	if (r->id < 1 || r->id > DERP_REGION_ID_MAX || (nodes && !json_is_array(nodes)))
		return -EBADMSG;
	ret = derp_text(j, "RegionCode", &r->code);
	if (ret == 0)
		ret = derp_text(j, "RegionName", &r->name);
	if (ret < 0)
		return ret;
	r->latitude = json_get_real(j, "Latitude", 0);
	r->longitude = json_get_real(j, "Longitude", 0);
	r->avoid = json_get_bool(j, "Avoid", false);
	r->no_measure_no_home = json_get_bool(j, "NoMeasureNoHome", false);
	if (json_array_size(nodes) > DERP_REGION_NODES_MAX)
		return -ENOBUFS;
	r->nodes = calloc(json_array_size(nodes) + 1, sizeof(*r->nodes));
	if (!r->nodes)
		return -ENOMEM;
	for (size_t i = 0; i < json_array_size(nodes); i++) {
		r->n_nodes++; /* counted first: a node in parts is freed with the rest */
		ret = derp_node_decode(json_array_get(nodes, i), r->id, &r->nodes[i]);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int derp_region_decode(const json_t *j, struct derp_region *ret)
{
	struct derp_region region = { 0 };
	int r = derp_region_fill(j, &region);

	if (r < 0) {
		derp_region_done(&region);
		return r;
	}
	*ret = region;
	return 0;
}

static int derp_region_cmp(const void *a, const void *b)
{
	int64_t x = ((const struct derp_region *)a)->id, y = ((const struct derp_region *)b)->id;

	return (x > y) - (x < y);
}

static int derp_scores_decode(const json_t *j, struct derp_map *m)
{
	const json_t *scores = json_get(json_get(j, "HomeParams"), "RegionScore");
	const json_t *v;
	const char *id;

	if (!scores)
		return 0;
	if (!json_is_object(scores))
		return -EBADMSG;
	if (json_object_size(scores) > DERP_REGIONS_MAX)
		return -ENOBUFS;
	m->has_scores = true;
	m->scores = calloc(json_object_size(scores) + 1, sizeof(*m->scores));
	if (!m->scores)
		return -ENOMEM;
	/* cppcheck-suppress constVariablePointer ; the macro of jansson wants it writable */
	json_object_foreach ((json_t *)(uintptr_t)scores, id, v) {
		char *end;
		long long n = strtoll(id, &end, 10);

		if (*end || end == id || n < 1 || n > DERP_REGION_ID_MAX || !json_is_number(v) ||
		    json_number_value(v) <= 0)
			continue;
		m->scores[m->n_scores++] =
		    (struct derp_score){ .region_id = n, .score = json_number_value(v) };
	}
	return 0;
}

static int derp_map_fill(const json_t *j, struct derp_map *m)
{
	const json_t *regions = json_get(j, "Regions"), *v;
	const char *id;
	int r;

	if (!json_is_object(j) || (regions && !json_is_object(regions)))
		return -EBADMSG;
	m->omit_default_regions = json_get_bool(j, "omitDefaultRegions", false);
	r = derp_scores_decode(j, m);
	if (r < 0 || !regions)
		return r;
	m->has_regions = true;
	if (json_object_size(regions) > DERP_REGIONS_MAX)
		return -ENOBUFS;
	m->regions = calloc(json_object_size(regions) + 1, sizeof(*m->regions));
	if (!m->regions)
		return -ENOMEM;
	/* cppcheck-suppress constVariablePointer ; see above */
	json_object_foreach ((json_t *)(uintptr_t)regions, id, v) {
		char text[24];

		if (json_is_null(v))
			continue; /* stock nodes drop it */
		r = derp_region_decode(v, &m->regions[m->n_regions]);
		if (r < 0)
			return r;
		m->n_regions++;
		snprintf(text, sizeof(text), "%lld", (long long)m->regions[m->n_regions - 1].id);
		if (strcmp(text, id))
			return -EBADMSG;
	}
	qsort(m->regions, m->n_regions, sizeof(*m->regions), derp_region_cmp);
	return 0;
}

int derp_map_decode(const json_t *j, struct derp_map *ret)
{
	struct derp_map m = { 0 };
	int r = derp_map_fill(j, &m);

	if (r < 0) {
		derp_map_done(&m);
		return r;
	}
	*ret = m;
	return 0;
}

static void put_text(json_t *o, const char *name, const char *s, bool always)
{
	if (always || *s)
		json_object_set_new(o, name, json_string(s));
}

static void put_int(json_t *o, const char *name, int64_t v)
{
	if (v)
		json_object_set_new(o, name, json_integer(v));
}

static void put_true(json_t *o, const char *name, bool v)
{
	if (v)
		json_object_set_new(o, name, json_true());
}

static json_t *derp_node_encode(const struct derp_node *n)
{
	json_t *o = json_object();

	put_text(o, "Name", n->name, true);
	json_object_set_new(o, "RegionID", json_integer(n->region_id));
	put_text(o, "HostName", n->hostname, true);
	put_text(o, "CertName", n->cert_name, false);
	put_text(o, "IPv4", n->ipv4, false);
	put_text(o, "IPv6", n->ipv6, false);
	put_int(o, "STUNPort", n->stun_port);
	put_true(o, "STUNOnly", n->stun_only);
	put_int(o, "DERPPort", n->derp_port);
	put_true(o, "InsecureForTests", n->insecure_for_tests);
	put_text(o, "STUNTestIP", n->stun_test_ip, false);
	put_true(o, "CanPort80", n->can_port80);
	return o;
}

json_t *derp_region_encode(const struct derp_region *r)
{
	json_t *o = json_object(), *nodes = json_array();

	json_object_set_new(o, "RegionID", json_integer(r->id));
	put_text(o, "RegionCode", r->code, true);
	put_text(o, "RegionName", r->name, true);
	if (r->latitude != 0)
		json_object_set_new(o, "Latitude", json_real(r->latitude));
	if (r->longitude != 0)
		json_object_set_new(o, "Longitude", json_real(r->longitude));
	put_true(o, "Avoid", r->avoid);
	put_true(o, "NoMeasureNoHome", r->no_measure_no_home);
	for (size_t i = 0; i < r->n_nodes; i++)
		json_array_append_new(nodes, derp_node_encode(&r->nodes[i]));
	json_object_set_new(o, "Nodes", nodes);
	return o;
}

json_t *derp_map_encode(const struct derp_map *m)
{
	json_t *o = json_object(), *regions = json_object(), *scores;
	char id[24];

	if (!o || !regions) {
		json_decref(o);
		json_decref(regions);
		return NULL;
	}
	if (m->has_scores) {
		scores = json_object();
		for (size_t i = 0; i < m->n_scores; i++) {
			snprintf(id, sizeof(id), "%lld", (long long)m->scores[i].region_id);
			json_object_set_new(scores, id, json_real(m->scores[i].score));
		}
		json_object_set_new(o, "HomeParams", json_pack("{s:o}", "RegionScore", scores));
	}
	for (size_t i = 0; i < m->n_regions; i++) {
		snprintf(id, sizeof(id), "%lld", (long long)m->regions[i].id);
		json_object_set_new(regions, id, derp_region_encode(&m->regions[i]));
	}
	json_object_set_new(o, "Regions", regions);
	put_true(o, "omitDefaultRegions", m->omit_default_regions);
	return o;
}

int derp_region_copy(const struct derp_region *r, struct derp_region *ret)
{
	CLEANUP(json_decref) json_t *j = derp_region_encode(r);

	return derp_region_decode(j, ret);
}

bool derp_region_equal(const struct derp_region *a, const struct derp_region *b)
{
	CLEANUP(json_decref) json_t *ja = derp_region_encode(a);
	CLEANUP(json_decref) json_t *jb = derp_region_encode(b);

	return json_equal(ja, jb);
}

const struct derp_region *derp_map_find(const struct derp_map *m, int64_t id)
{
	struct derp_region want = { .id = id };

	if (!m->n_regions)
		return NULL;
	return bsearch(&want, m->regions, m->n_regions, sizeof(want), derp_region_cmp);
}

double derp_map_score(const struct derp_map *m, int64_t id)
{
	for (size_t i = 0; i < m->n_scores; i++)
		if (m->scores[i].region_id == id)
			return m->scores[i].score;
	return 1.0;
}

void derp_map_merge(struct derp_map *prev, struct derp_map *update)
{
	if (update->has_regions) {
		for (size_t i = 0; i < prev->n_regions; i++)
			derp_region_done(&prev->regions[i]);
		free(prev->regions);
		prev->has_regions = true;
		prev->omit_default_regions = update->omit_default_regions;
		prev->n_regions = update->n_regions;
		prev->regions = TAKE(update->regions);
		update->n_regions = 0;
	}
	if (update->has_scores) {
		free(prev->scores);
		prev->has_scores = true;
		prev->n_scores = update->n_scores;
		prev->scores = TAKE(update->scores);
		update->n_scores = 0;
	}
	derp_map_done(update);
}

int derp_map_put(struct derp_map *m, struct derp_region *region)
{
	struct derp_region *p;

	for (size_t i = 0; i < m->n_regions; i++) {
		if (m->regions[i].id != region->id)
			continue;
		derp_region_done(&m->regions[i]);
		m->regions[i] = *region;
		*region = (struct derp_region){ 0 };
		return 0;
	}
	if (m->n_regions == DERP_REGIONS_MAX)
		return -ENOBUFS;
	p = reallocarray(m->regions, m->n_regions + 1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	m->has_regions = true;
	m->regions = p;
	p[m->n_regions++] = *region;
	*region = (struct derp_region){ 0 };
	qsort(p, m->n_regions, sizeof(*p), derp_region_cmp);
	return 0;
}

uint16_t derp_node_port(const struct derp_node *n)
{
	return n->derp_port ? (uint16_t)n->derp_port : DERP_PORT_DEFAULT;
}

uint16_t derp_node_stun_port(const struct derp_node *n)
{
	if (n->stun_port < 0)
		return 0;
	return n->stun_port ? (uint16_t)n->stun_port : DERP_STUN_PORT_DEFAULT;
}

int derp_node_addr(const char *field, uint8_t family, struct addr *ret)
{
	struct addr a;

	if (!*field)
		return 0;
	if (addr_parse(field, strlen(field), &a) < 0 || a.family != family)
		return -EAFNOSUPPORT;
	*ret = a;
	return 1;
}

int derp_node_pin(const struct derp_node *n, uint8_t ret_sha256[static 32])
{
	static const char prefix[] = "sha256-raw:";
	size_t skip = sizeof(prefix) - 1;
	struct key k;

	if (strncmp(n->cert_name, prefix, skip))
		return 0;
	/* Stock nodes want lower case here; a pin in capitals is still the same pin. */
	if (key_parse(KEY_KIND_HEX, n->cert_name + skip, strlen(n->cert_name + skip), &k) < 0)
		return -EBADMSG;
	memcpy(ret_sha256, k.b, 32);
	return 1;
}
