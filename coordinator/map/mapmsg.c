#include "coordinator/map/mapmsg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "coordinator/map/mapjson.h"
#include "lib/json.h"
#include "lib/loop.h"

#define MAPMSG_GROUP 64 /* ids in one piece of a first map */

static void piece_drop(struct mapmsg_piece *p)
{
	for (int i = 0; i < CODING_COUNT; i++)
		if (p->coded[i])
			blob_unref(p->coded[i]);
	*p = (struct mapmsg_piece){ 0 };
}

/* The text coded as one zstd frame, or as it is. Owned by the caller; NULL: no memory. */
static struct blob *mapmsg_code(struct mapmsg *m, enum coding coding, const void *p, size_t len)
{
	size_t room = ZSTD_compressBound(len), n;
	uint8_t *tmp;
	struct blob *b;

	if (coding == CODING_PLAIN)
		return blob_new(p, len);
	tmp = malloc(room);
	if (!tmp)
		return NULL;
	n = ZSTD_compressCCtx(m->zstd, tmp, room, p, len, 1);
	b = ZSTD_isError(n) ? NULL : blob_new(tmp, n);
	free(tmp);
	return b;
}

static struct blob *piece_get(struct mapmsg *m, struct mapmsg_piece *p, enum coding coding, const struct buf *text)
{
	if (!p->coded[coding] && !text->bad) {
		p->coded[coding] = mapmsg_code(m, coding, buf_data(text), text->len);
		m->pieces_made++;
	}
	m->pieces_used++;
	return p->coded[coding];
}

/* A whole message: length, then the coded text. */
struct blob *mapmsg_new(struct mapmsg *m, enum coding coding, const struct buf *text)
{
	CLEANUP(blob_unref) struct blob *body = NULL;
	struct blob *b;

	if (text->bad)
		return NULL;
	body = mapmsg_code(m, coding, buf_data(text), text->len);
	b = body ? blob_new(NULL, body->len + 4) : NULL;
	if (!b)
		return NULL;
	for (int i = 0; i < 4; i++)
		b->data[i] = (uint8_t)(body->len >> (8 * i));
	memcpy(b->data + 4, body->data, body->len);
	return b;
}

struct blob *mapmsg_keepalive(struct mapmsg *m, enum coding coding)
{
	static const char text[] = "{\"KeepAlive\":true}";
	CLEANUP(buf_done) struct buf b = { 0 };

	if (!m->keepalive.coded[coding]) {
		buf_put_str(&b, text);
		m->keepalive.coded[coding] = mapmsg_new(m, coding, &b);
	}
	return m->keepalive.coded[coding];
}

/* ---- texts */

static struct blob *mapmsg_node_json(struct mapmsg *m, struct node *n)
{
	if (!n->json) {
		struct buf b = { 0 };

		mapjson_node(&b, n, m->cfg->dns.base_domain, loop_wall_nsec());
		if (!b.bad)
			n->json = blob_new(buf_data(&b), b.len);
		buf_done(&b);
	}
	return n->json;
}

void mapmsg_put_node(struct mapmsg *m, struct node *n, struct buf *b)
{
	const struct blob *j = mapmsg_node_json(m, n);

	if (j)
		buf_put(b, j->data, j->len);
	else
		b->bad = true;
}

void mapmsg_put_self(struct mapmsg *m, struct node *n, struct buf *b)
{
	const struct blob *j = mapmsg_node_json(m, n);

	if (j)
		mapjson_self(b, (const char *)j->data, j->len, m->cfg);
	else
		b->bad = true;
}

void mapmsg_put_time(struct buf *b)
{
	char text[40];

	buf_printf(b, "{\"ControlTime\":\"%s\"", json_time_text(loop_wall_nsec(), text));
}

/* Peers of a group of ids, with commas between them, but for one node. */
static void mapmsg_put_group(struct mapmsg *m, size_t group, const struct node *but, struct buf *b)
{
	const struct registry *reg = m->reg;
	uint64_t end = (group + 1) * MAPMSG_GROUP;
	size_t was = b->len;

	for (size_t i = registry_node_index(reg, group * MAPMSG_GROUP);
	     i < reg->n_node && reg->node[i]->id < end; i++) {
		struct node *n = reg->node[i];

		if (!n->announced || n == but)
			continue;
		if (b->len > was)
			buf_put_u8(b, ',');
		mapmsg_put_node(m, n, b);
	}
}

static void mapmsg_put_profiles(struct mapmsg *m, struct buf *b)
{
	bool tagged = false, comma = false;

	for (size_t i = 0; i < m->reg->n_node && !tagged; i++)
		tagged = node_wire_user(m->reg->node[i]) == USER_TAGGED_DEVICES;
	if (tagged) {
		mapjson_tagged_devices(b);
		comma = true;
	}
	for (size_t i = 0; i < m->reg->n_user; i++) {
		if (!m->reg->user[i]->nodes)
			continue;
		if (comma)
			buf_put_u8(b, ',');
		comma = true;
		mapjson_user(b, m->reg->user[i]);
	}
}

/* What comes behind the peers in every first map. */
static struct blob *mapmsg_tail(struct mapmsg *m, enum coding coding)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	if (m->tail.coded[coding])
		return m->tail.coded[coding];
	buf_put_str(&b, "],\"UserProfiles\":[");
	mapmsg_put_profiles(m, &b);
	buf_put_str(&b, "],\"DERPMap\":");
	buf_put(&b, buf_data(&m->derpmap), m->derpmap.len);
	buf_put_str(&b, ",\"DNSConfig\":");
	buf_put(&b, buf_data(&m->dns), m->dns.len);
	buf_put_u8(&b, ',');
	mapjson_rest(&b, m->cfg);
	buf_put_u8(&b, '}');
	return piece_get(m, &m->tail, coding, &b);
}

static struct blob *mapmsg_comma(struct mapmsg *m, enum coding coding)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	buf_put_u8(&b, ',');
	return piece_get(m, &m->comma, coding, &b);
}

static struct mapmsg_piece *mapmsg_group(struct mapmsg *m, size_t group)
{
	if (group >= m->n_group) {
		struct mapmsg_piece *grown = reallocarray(m->group, group + 64, sizeof(*grown));

		if (!grown)
			return NULL;
		memset(grown + m->n_group, 0, (group + 64 - m->n_group) * sizeof(*grown));
		m->group = grown;
		m->n_group = group + 64;
	}
	return &m->group[group];
}

/* ---- first maps */

static void first_add(struct mapmsg_first *out, struct blob *b) /* takes the reference */
{
	struct blob **grown;

	if (!b) {
		out->bad = true;
		return;
	}
	if (out->n == out->cap) {
		grown = reallocarray(out->part, out->cap ? out->cap * 2 : 64, sizeof(struct blob *));
		if (!grown) {
			out->bad = true;
			blob_unref(b);
			return;
		}
		out->part = grown;
		out->cap = out->cap ? out->cap * 2 : 64;
	}
	out->part[out->n++] = b;
	out->len += b->len;
}

void mapmsg_first_done(struct mapmsg_first *out)
{
	for (size_t i = 0; i < out->n; i++)
		blob_unref(out->part[i]);
	free(out->part);
}

static void first_add_group(struct mapmsg *m, size_t group, struct node *self, enum coding coding,
			    bool *comma, struct mapmsg_first *out)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct mapmsg_piece *p = mapmsg_group(m, group);
	bool own = self->id / MAPMSG_GROUP == group;
	struct blob *coded;

	if (!p) {
		out->bad = true;
		return;
	}
	if (!own && p->empty)
		return;
	if (own || !p->coded[coding]) {
		mapmsg_put_group(m, group, own ? self : NULL, &b);
		if (b.bad) {
			out->bad = true;
			return;
		}
		if (!b.len) {
			p->empty = !own;
			return;
		}
	}
	coded = own ? mapmsg_code(m, coding, buf_data(&b), b.len) :
		      blob_ref(piece_get(m, p, coding, &b));
	if (*comma)
		first_add(out, blob_ref(mapmsg_comma(m, coding)));
	*comma = true;
	first_add(out, coded);
}

void mapmsg_first(struct mapmsg *m, struct node *n, enum coding coding, struct mapmsg_first *out)
{
	CLEANUP(buf_done) struct buf head = { 0 };
	uint64_t last = m->reg->last_node;
	bool comma = false;

	mapmsg_put_time(&head);
	buf_put_str(&head, ",\"Node\":");
	mapmsg_put_self(m, n, &head);
	buf_put_str(&head, ",\"Peers\":[");
	first_add(out, head.bad ? NULL : mapmsg_code(m, coding, buf_data(&head), head.len));
	for (size_t g = 0; g <= last / MAPMSG_GROUP && !out->bad; g++)
		first_add_group(m, g, n, coding, &comma, out);
	first_add(out, blob_ref(mapmsg_tail(m, coding)));
}

/* ---- changes */

static void node_json_drop(struct node *n)
{
	if (n->json)
		blob_unref(n->json);
	n->json = NULL;
}

void mapmsg_node_changed(struct mapmsg *m, struct node *n)
{
	node_json_drop(n);
	if (n->id / MAPMSG_GROUP < m->n_group)
		piece_drop(&m->group[n->id / MAPMSG_GROUP]);
}

void mapmsg_owners_changed(struct mapmsg *m)
{
	piece_drop(&m->tail);
}

int mapmsg_set_derpmap(struct mapmsg *m, const char *json, size_t len)
{
	if (len == m->derpmap.len && !memcmp(json, buf_data(&m->derpmap), len))
		return 0;
	buf_clear(&m->derpmap);
	if (buf_put(&m->derpmap, json, len) < 0)
		return -ENOMEM;
	piece_drop(&m->tail);
	return 1;
}

/* ---- life */

int mapmsg_init(struct mapmsg *m, const struct registry *reg, const struct settings *cfg)
{
	m->reg = reg;
	m->cfg = cfg;
	m->zstd = ZSTD_createCCtx();
	if (!m->zstd)
		return -ENOMEM;
	mapjson_dns(&m->dns, cfg);
	return m->dns.bad ? -ENOMEM : 0;
}

void mapmsg_done(struct mapmsg *m)
{
	for (size_t i = 0; m->reg && i < m->reg->n_node; i++)
		node_json_drop(m->reg->node[i]);
	for (size_t i = 0; i < m->n_group; i++)
		piece_drop(&m->group[i]);
	piece_drop(&m->tail);
	piece_drop(&m->comma);
	piece_drop(&m->keepalive);
	buf_done(&m->dns);
	buf_done(&m->derpmap);
	free(m->group);
	ZSTD_freeCCtx(m->zstd);
}
