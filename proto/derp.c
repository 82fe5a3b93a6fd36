#include "proto/derp.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <strings.h>

#include "lib/cursor.h"
#include "lib/json.h"

static const uint8_t derp_magic[DERP_MAGIC_LEN] = { 'D', 'E', 'R', 'P', 0xf0, 0x9f, 0x94, 0x91 };

/* What a role takes of each frame. A type that is not listed is skipped. */
static const struct {
	uint8_t type;
	bool client, server;
	uint32_t min, max;
	const char *name;
} derp_frames[] = {
	{ DERP_FRAME_SERVER_KEY, true, false, 40, DERP_SERVER_KEY_MAX, "ServerKey" },
	{ DERP_FRAME_CLIENT_INFO, false, true, 56, DERP_CLIENT_INFO_MAX, "ClientInfo" },
	{ DERP_FRAME_SERVER_INFO, true, false, 40, DERP_CLIENT_FRAME_MAX, "ServerInfo" },
	{ DERP_FRAME_SEND_PACKET, false, true, KEY_LEN, KEY_LEN + DERP_PACKET_MAX, "SendPacket" },
	{ DERP_FRAME_RECV_PACKET, true, false, KEY_LEN, DERP_CLIENT_FRAME_MAX, "RecvPacket" },
	{ DERP_FRAME_KEEP_ALIVE, true, false, 0, DERP_CLIENT_FRAME_MAX, "KeepAlive" },
	{ DERP_FRAME_NOTE_PREFERRED, false, true, 1, 1, "NotePreferred" },
	{ DERP_FRAME_PEER_GONE, true, false, KEY_LEN, DERP_CLIENT_FRAME_MAX, "PeerGone" },
	{ DERP_FRAME_PEER_PRESENT, true, false, KEY_LEN, DERP_CLIENT_FRAME_MAX, "PeerPresent" },
	{ DERP_FRAME_FORWARD_PACKET, false, true, 2 * KEY_LEN, 2 * KEY_LEN + DERP_PACKET_MAX,
	  "ForwardPacket" },
	{ DERP_FRAME_WATCH_CONNS, false, true, 0, 0, "WatchConns" },
	{ DERP_FRAME_CLOSE_PEER, false, true, KEY_LEN, KEY_LEN, "ClosePeer" },
	{ DERP_FRAME_PING, true, true, DERP_PING_LEN, DERP_PING_MAX, "Ping" },
	{ DERP_FRAME_PONG, true, true, 0, DERP_PING_MAX, "Pong" },
	{ DERP_FRAME_HEALTH, true, false, 0, DERP_CLIENT_FRAME_MAX, "Health" },
	{ DERP_FRAME_RESTARTING, true, false, 8, DERP_CLIENT_FRAME_MAX, "Restarting" },
};

const char *derp_frame_name(uint8_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(derp_frames); i++)
		if (derp_frames[i].type == type)
			return derp_frames[i].name;
	return "unknown";
}

/* 1: take it; 0: skip it; -EBADMSG, -ENOBUFS. */
static int derp_frame_check(const struct derp_reader *rd, uint8_t type, uint32_t len)
{
	bool client = rd->role == DERP_ROLE_CLIENT;

	if (client && len > DERP_CLIENT_FRAME_MAX)
		return -ENOBUFS;
	for (size_t i = 0; i < ARRAY_SIZE(derp_frames); i++) {
		if (derp_frames[i].type != type)
			continue;
		if (!(client ? derp_frames[i].client : derp_frames[i].server))
			return 0;
		if (len < derp_frames[i].min)
			return -EBADMSG;
		if (len > derp_frames[i].max)
			return -ENOBUFS;
		if (type == DERP_FRAME_CLIENT_INFO && len > rd->info_max)
			return -ENOBUFS;
		return 1;
	}
	return 0;
}

void derp_reader_init(struct derp_reader *rd, enum derp_role role)
{
	*rd = (struct derp_reader){ .role = role, .info_max = DERP_CLIENT_INFO_MAX };
}

void derp_reader_done(struct derp_reader *rd)
{
	buf_done(&rd->part);
	rd->skip = 0;
	rd->lent = false;
}

void derp_reader_trim(struct derp_reader *rd)
{
	if (rd->lent || !rd->part.len)
		buf_done(&rd->part);
	rd->lent = false;
}

/* Moves bytes from the input until part holds want; false when the input ends before. */
static bool derp_reader_gather(struct derp_reader *rd, size_t want, const uint8_t **p, size_t *len)
{
	size_t n = want > rd->part.len ? MIN(want - rd->part.len, *len) : 0;

	buf_put(&rd->part, *p, n);
	*p += n;
	*len -= n;
	return rd->part.len >= want;
}

int derp_reader_next(struct derp_reader *rd, const uint8_t **p, size_t *len, struct derp_frame *ret)
{
	int r;

	if (rd->lent) {
		buf_clear(&rd->part);
		rd->lent = false;
	}
	for (;;) {
		const uint8_t *h;
		uint32_t body;
		size_t n;

		n = MIN(rd->skip, *len);
		rd->skip -= n;
		*p += n;
		*len -= n;
		if (rd->skip || (!*len && rd->part.len < DERP_HEADER_LEN))
			return 0;
		if (rd->part.len || *len < DERP_HEADER_LEN) {
			bool whole = derp_reader_gather(rd, DERP_HEADER_LEN, p, len);

			if (rd->part.bad)
				return -ENOMEM;
			if (!whole)
				return 0;
			h = buf_data(&rd->part);
		} else {
			h = *p;
		}
		body = (uint32_t)h[1] << 24 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 8 | h[4];
		ret->type = h[0];
		ret->len = body;
		r = derp_frame_check(rd, ret->type, body);
		if (r < 0)
			return r;
		if (r == 0) {
			if (rd->part.len) {
				buf_clear(&rd->part);
			} else {
				*p += DERP_HEADER_LEN;
				*len -= DERP_HEADER_LEN;
			}
			rd->skip = body;
			continue;
		}
		if (!rd->part.len && *len - DERP_HEADER_LEN >= body) {
			ret->body = *p + DERP_HEADER_LEN;
			*p += DERP_HEADER_LEN + body;
			*len -= DERP_HEADER_LEN + body;
			return 1;
		}
		r = derp_reader_gather(rd, DERP_HEADER_LEN + (size_t)body, p, len);
		if (rd->part.bad)
			return -ENOMEM;
		if (!r)
			return 0;
		ret->body = buf_data(&rd->part) + DERP_HEADER_LEN;
		rd->lent = true;
		return 1;
	}
}

static void derp_put_header(struct buf *out, uint8_t type, size_t len)
{
	buf_put_u8(out, type);
	buf_put_be32(out, (uint32_t)len);
}

void derp_put_empty(struct buf *out, enum derp_frame_type type)
{
	derp_put_header(out, type, 0);
}

void derp_put_server_key(struct buf *out, const struct key *server)
{
	derp_put_header(out, DERP_FRAME_SERVER_KEY, sizeof(derp_magic) + KEY_LEN);
	buf_put(out, derp_magic, sizeof(derp_magic));
	buf_put(out, server->b, KEY_LEN);
}

int derp_server_key_decode(const void *body, size_t len, struct key *ret)
{
	struct cursor c = cursor_of(body, len);
	uint8_t magic[DERP_MAGIC_LEN];
	struct key k;

	cursor_copy(&c, magic, sizeof(magic));
	cursor_copy(&c, k.b, KEY_LEN);
	if (!cursor_ok(&c) || memcmp(magic, derp_magic, sizeof(magic)))
		return -EBADMSG;
	*ret = k;
	return 0;
}

/* Appends nonce and box of the JSON text: what ClientInfo and ServerInfo end with. */
static int derp_put_box(struct buf *out, const struct buf *json, const uint8_t *nonce,
			const struct key *to, const struct key *from_priv)
{
	uint8_t *p;

	buf_put(out, nonce, DERP_NONCE_LEN);
	p = buf_tail(out, json->len + DERP_MAC_LEN);
	if (!p)
		return -ENOMEM;
	if (crypto_box_easy(p, buf_data(json), json->len, nonce, to->b, from_priv->b) < 0)
		return -EBADMSG;
	buf_commit(out, json->len + DERP_MAC_LEN);
	return 0;
}

/* Opens nonce and box at the cursor's rest. The tree, an object, is the caller's after 0 only. */
static int derp_open_box(struct cursor *c, const struct key *from, const struct key *to_priv,
			 json_t **ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	uint8_t nonce[DERP_NONCE_LEN];
	struct buf text = { 0 };
	const uint8_t *box;
	size_t n;
	uint8_t *p;
	int r;

	cursor_copy(c, nonce, sizeof(nonce));
	if (!cursor_ok(c) || c->left < DERP_MAC_LEN || c->left > DERP_INFO_JSON_MAX + DERP_MAC_LEN)
		return -EBADMSG;
	n = c->left - DERP_MAC_LEN;
	box = cursor_take(c, c->left);
	p = buf_tail(&text, n);
	if (!p)
		return -ENOMEM;
	if (crypto_box_open_easy(p, box, n + DERP_MAC_LEN, nonce, from->b, to_priv->b) < 0) {
		r = -EBADMSG;
	} else {
		buf_commit(&text, n);
		r = json_read(buf_data(&text), n, DERP_INFO_JSON_MAX, &j);
		if (r == -ENOBUFS || (r == 0 && !json_is_object(j)))
			r = -EBADMSG;
	}
	buf_done_secret(&text);
	if (r == 0)
		*ret = TAKE(j);
	return r;
}

/* Stock decoders match names without regard to case. */
static const json_t *derp_json_member(json_t *o, const char *name)
{
	const char *k;
	json_t *v;

	v = json_get(o, name);
	if (v)
		return v;
	json_object_foreach (o, k, v)
		if (!strcasecmp(k, name))
			return json_is_null(v) ? NULL : v;
	return NULL;
}

static int64_t derp_json_int(json_t *o, const char *name)
{
	return json_integer_value(derp_json_member(o, name));
}

int derp_put_client_info(struct buf *out, const struct derp_client_info *info,
			 const struct key_pair *client, const struct key *server,
			 const uint8_t nonce[static DERP_NONCE_LEN])
{
	char mesh[KEY_TEXT_MAX];
	struct buf json = { 0 };
	int r;

	buf_put_u8(&json, '{');
	if (info->has_mesh_key)
		buf_printf(&json, "\"meshKey\":\"%s\",",
			   key_text(KEY_KIND_HEX, &info->mesh_key, mesh));
	buf_printf(&json, "\"version\":%lld,\"CanAckPings\":%s", (long long)info->version,
		   info->can_ack_pings ? "true" : "false");
	if (info->is_prober)
		buf_put_str(&json, ",\"IsProber\":true");
	buf_put_u8(&json, '}');
	sodium_memzero(mesh, sizeof(mesh));
	if (json.bad) {
		buf_done_secret(&json);
		return -ENOMEM;
	}
	derp_put_header(out, DERP_FRAME_CLIENT_INFO,
			KEY_LEN + DERP_NONCE_LEN + DERP_MAC_LEN + json.len);
	buf_put(out, client->pub.b, KEY_LEN);
	r = derp_put_box(out, &json, nonce, server, &client->priv);
	buf_done_secret(&json);
	return r;
}

int derp_client_info_open(const void *body, size_t len, const struct key *server_priv,
			  struct key *ret_client, struct derp_client_info *ret)
{
	struct cursor c = cursor_of(body, len);
	struct derp_client_info info = { 0 };
	CLEANUP(json_decref) json_t *j = NULL;
	const json_t *mesh;
	struct key client;
	int r;

	cursor_copy(&c, client.b, KEY_LEN);
	r = derp_open_box(&c, &client, server_priv, &j);
	if (r < 0)
		return r;
	info.version = derp_json_int(j, "version");
	info.can_ack_pings = json_is_true(derp_json_member(j, "CanAckPings"));
	info.is_prober = json_is_true(derp_json_member(j, "IsProber"));
	mesh = derp_json_member(j, "meshKey");
	if (mesh && (!json_is_string(mesh) || json_string_length(mesh))) {
		if (!json_is_string(mesh) ||
		    key_parse(KEY_KIND_HEX, json_string_value(mesh), json_string_length(mesh),
			      &info.mesh_key) < 0)
			return -EBADMSG;
		info.has_mesh_key = !key_is_zero(&info.mesh_key);
	}
	*ret_client = client;
	*ret = info;
	key_wipe(&info.mesh_key);
	return 0;
}

int derp_put_server_info(struct buf *out, const struct derp_server_info *info,
			 const struct key *server_priv, const struct key *client,
			 const uint8_t nonce[static DERP_NONCE_LEN])
{
	struct buf json = { 0 };
	int r;

	buf_printf(&json, "{\"version\":%lld", (long long)info->version);
	if (info->rate_bytes_per_sec)
		buf_printf(&json, ",\"TokenBucketBytesPerSecond\":%lld",
			   (long long)info->rate_bytes_per_sec);
	if (info->rate_burst_bytes)
		buf_printf(&json, ",\"TokenBucketBytesBurst\":%lld",
			   (long long)info->rate_burst_bytes);
	buf_put_u8(&json, '}');
	if (json.bad) {
		buf_done(&json);
		return -ENOMEM;
	}
	derp_put_header(out, DERP_FRAME_SERVER_INFO, DERP_NONCE_LEN + DERP_MAC_LEN + json.len);
	r = derp_put_box(out, &json, nonce, client, server_priv);
	buf_done(&json);
	return r;
}

int derp_server_info_open(const void *body, size_t len, const struct key *client_priv,
			  const struct key *server, struct derp_server_info *ret)
{
	struct cursor c = cursor_of(body, len);
	CLEANUP(json_decref) json_t *j = NULL;
	int r;

	r = derp_open_box(&c, server, client_priv, &j);
	if (r < 0)
		return r;
	*ret = (struct derp_server_info){
		.version = derp_json_int(j, "version"),
		.rate_bytes_per_sec = derp_json_int(j, "TokenBucketBytesPerSecond"),
		.rate_burst_bytes = derp_json_int(j, "TokenBucketBytesBurst"),
	};
	return 0;
}

int derp_put_packet(struct buf *out, enum derp_frame_type type, const struct derp_packet *p)
{
	if (p->len > DERP_PACKET_MAX)
		return -EMSGSIZE;
	derp_put_header(out, type, KEY_LEN + p->len);
	buf_put(out, p->peer.b, KEY_LEN);
	return buf_put(out, p->data, p->len);
}

int derp_packet_decode(const void *body, size_t len, struct derp_packet *ret)
{
	struct cursor c = cursor_of(body, len);
	struct derp_packet p;

	cursor_copy(&c, p.peer.b, KEY_LEN);
	p.len = c.left;
	p.data = cursor_take(&c, c.left);
	if (!cursor_ok(&c) || p.len > DERP_PACKET_MAX)
		return -EBADMSG;
	*ret = p;
	return 0;
}

int derp_put_forward(struct buf *out, const struct derp_forward *f)
{
	if (f->len > DERP_PACKET_MAX)
		return -EMSGSIZE;
	derp_put_header(out, DERP_FRAME_FORWARD_PACKET, 2 * KEY_LEN + f->len);
	buf_put(out, f->src.b, KEY_LEN);
	buf_put(out, f->dst.b, KEY_LEN);
	return buf_put(out, f->data, f->len);
}

int derp_forward_decode(const void *body, size_t len, struct derp_forward *ret)
{
	struct cursor c = cursor_of(body, len);
	struct derp_forward f;

	cursor_copy(&c, f.src.b, KEY_LEN);
	cursor_copy(&c, f.dst.b, KEY_LEN);
	f.len = c.left;
	f.data = cursor_take(&c, c.left);
	if (!cursor_ok(&c) || f.len > DERP_PACKET_MAX)
		return -EBADMSG;
	*ret = f;
	return 0;
}

void derp_put_note_preferred(struct buf *out, bool home)
{
	derp_put_header(out, DERP_FRAME_NOTE_PREFERRED, 1);
	buf_put_u8(out, home);
}

int derp_note_preferred_decode(const void *body, size_t len, bool *ret)
{
	struct cursor c = cursor_of(body, len);
	uint8_t v = cursor_u8(&c);

	if (!cursor_done(&c))
		return -EBADMSG;
	*ret = v != 0;
	return 0;
}

void derp_put_gone(struct buf *out, const struct derp_gone *g)
{
	derp_put_header(out, DERP_FRAME_PEER_GONE, KEY_LEN + 1);
	buf_put(out, g->peer.b, KEY_LEN);
	buf_put_u8(out, g->reason);
}

int derp_gone_decode(const void *body, size_t len, struct derp_gone *ret)
{
	struct cursor c = cursor_of(body, len);
	struct derp_gone g = { .reason = DERP_GONE_DISCONNECTED };

	cursor_copy(&c, g.peer.b, KEY_LEN);
	if (c.left) /* very old servers send no reason */
		g.reason = cursor_u8(&c);
	if (!cursor_ok(&c))
		return -EBADMSG;
	*ret = g;
	return 0;
}

void derp_put_present(struct buf *out, const struct derp_present *p)
{
	derp_put_header(out, DERP_FRAME_PEER_PRESENT, KEY_LEN + 16 + 2 + 1);
	buf_put(out, p->peer.b, KEY_LEN);
	buf_put(out, p->ip, sizeof(p->ip));
	buf_put_be16(out, p->port);
	buf_put_u8(out, p->flags);
}

int derp_present_decode(const void *body, size_t len, struct derp_present *ret)
{
	struct cursor c = cursor_of(body, len);
	struct derp_present p = { 0 };

	/* 32 bytes once, 50 later, 51 now, more tomorrow. */
	cursor_copy(&c, p.peer.b, KEY_LEN);
	if (c.left >= sizeof(p.ip) + 2) {
		cursor_copy(&c, p.ip, sizeof(p.ip));
		p.port = cursor_be16(&c);
	}
	if (c.left && len > KEY_LEN + sizeof(p.ip) + 2)
		p.flags = cursor_u8(&c);
	if (!cursor_ok(&c))
		return -EBADMSG;
	*ret = p;
	return 0;
}

void derp_put_ping(struct buf *out, enum derp_frame_type type,
		   const uint8_t data[static DERP_PING_LEN])
{
	derp_put_header(out, type, DERP_PING_LEN);
	buf_put(out, data, DERP_PING_LEN);
}

int derp_ping_decode(const void *body, size_t len, uint8_t ret[static DERP_PING_LEN])
{
	struct cursor c = cursor_of(body, len);

	if (len < DERP_PING_LEN || len > DERP_PING_MAX)
		return -EBADMSG;
	cursor_copy(&c, ret, DERP_PING_LEN);
	return 0;
}

void derp_put_close_peer(struct buf *out, const struct key *peer)
{
	derp_put_header(out, DERP_FRAME_CLOSE_PEER, KEY_LEN);
	buf_put(out, peer->b, KEY_LEN);
}

int derp_close_peer_decode(const void *body, size_t len, struct key *ret)
{
	struct cursor c = cursor_of(body, len);
	struct key k;

	cursor_copy(&c, k.b, KEY_LEN);
	if (!cursor_done(&c))
		return -EBADMSG;
	*ret = k;
	return 0;
}

void derp_put_health(struct buf *out, const char *text)
{
	derp_put_header(out, DERP_FRAME_HEALTH, strlen(text));
	buf_put_str(out, text);
}

void derp_put_restarting(struct buf *out, const struct derp_restarting *r)
{
	derp_put_header(out, DERP_FRAME_RESTARTING, 8);
	buf_put_be32(out, r->reconnect_in_msec);
	buf_put_be32(out, r->try_for_msec);
}

int derp_restarting_decode(const void *body, size_t len, struct derp_restarting *ret)
{
	struct cursor c = cursor_of(body, len);
	struct derp_restarting r;

	r.reconnect_in_msec = cursor_be32(&c);
	r.try_for_msec = cursor_be32(&c);
	if (!cursor_ok(&c))
		return -EBADMSG;
	*ret = r;
	return 0;
}
