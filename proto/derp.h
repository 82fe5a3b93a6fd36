#pragma once
/*
 * derp: frames of the DERP v2 relay protocol, both directions, for relay, node and tests.
 *
 * Pure: bytes in, struct out. Owns no socket; the frame reader owns only the bytes of a frame that
 * came in pieces. All integers on the wire are big-endian.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/key.h"

#define DERP_VERSION	      2
#define DERP_HEADER_LEN	      5
#define DERP_MAGIC_LEN	      8
#define DERP_NONCE_LEN	      24
#define DERP_MAC_LEN	      16
#define DERP_PACKET_MAX	      65536 /* payload of SendPacket, RecvPacket, ForwardPacket */
#define DERP_PACKET_HEAD_LEN  (DERP_HEADER_LEN + KEY_LEN)
#define DERP_INFO_JSON_MAX    (1u << 20)
#define DERP_CLIENT_INFO_MAX  (256u << 10) /* whole payload, as the server takes it */
#define DERP_CLIENT_FRAME_MAX (1u << 20)   /* a client drops the connection beyond it */
#define DERP_SERVER_KEY_MAX   1024
#define DERP_PING_LEN	      8
#define DERP_PING_MAX	      1000
#define DERP_DISCO_MIN_LEN    62 /* magic, sender's disco key, nonce: shorter cannot be disco */

enum derp_frame_type {
	DERP_FRAME_SERVER_KEY = 0x01,
	DERP_FRAME_CLIENT_INFO = 0x02,
	DERP_FRAME_SERVER_INFO = 0x03,
	DERP_FRAME_SEND_PACKET = 0x04,
	DERP_FRAME_RECV_PACKET = 0x05,
	DERP_FRAME_KEEP_ALIVE = 0x06,
	DERP_FRAME_NOTE_PREFERRED = 0x07,
	DERP_FRAME_PEER_GONE = 0x08,
	DERP_FRAME_PEER_PRESENT = 0x09,
	DERP_FRAME_FORWARD_PACKET = 0x0a,
	DERP_FRAME_WATCH_CONNS = 0x10,
	DERP_FRAME_CLOSE_PEER = 0x11,
	DERP_FRAME_PING = 0x12,
	DERP_FRAME_PONG = 0x13,
	DERP_FRAME_HEALTH = 0x14,
	DERP_FRAME_RESTARTING = 0x15,
};

enum derp_gone_reason {
	DERP_GONE_DISCONNECTED = 0x00,
	DERP_GONE_NOT_HERE = 0x01,
};

/* Who reads: what is legal and how long it may be differs. */
enum derp_role {
	DERP_ROLE_CLIENT,
	DERP_ROLE_SERVER,
};

struct derp_client_info {
	int64_t version;
	bool can_ack_pings;
	bool is_prober;
	bool has_mesh_key;
	struct key mesh_key; /* a bearer secret: wipe */
};

struct derp_server_info {
	int64_t version;
	int64_t rate_bytes_per_sec; /* 0: no limit */
	int64_t rate_burst_bytes;
};

struct derp_packet {
	struct key peer; /* SendPacket: destination; RecvPacket: source */
	const uint8_t *data;
	size_t len;
};

struct derp_forward {
	struct key src, dst;
	const uint8_t *data;
	size_t len;
};

struct derp_gone {
	struct key peer;
	uint8_t reason; /* enum derp_gone_reason, or what a newer server says */
};

enum derp_present_flag {
	DERP_PRESENT_REGULAR = 1,
	DERP_PRESENT_MESH = 2,
	DERP_PRESENT_PROBER = 4,
	DERP_PRESENT_NOT_IDEAL = 8,
};

struct derp_present {
	struct key peer;
	uint8_t ip[16]; /* IPv4 as ::ffff:a.b.c.d; zeros: unknown */
	uint16_t port;
	uint8_t flags; /* enum derp_present_flag */
};

struct derp_restarting {
	uint32_t reconnect_in_msec, try_for_msec;
};

const char *derp_frame_name(uint8_t type);

static inline void derp_header_encode(uint8_t out[static DERP_HEADER_LEN], uint8_t type,
				      uint32_t len)
{
	out[0] = type;
	out[1] = (uint8_t)(len >> 24);
	out[2] = (uint8_t)(len >> 16);
	out[3] = (uint8_t)(len >> 8);
	out[4] = (uint8_t)len;
}

/* Header and key of SendPacket or RecvPacket; the payload follows. */
static inline void derp_packet_head_encode(uint8_t out[static DERP_PACKET_HEAD_LEN], uint8_t type,
					   const struct key *k, size_t payload_len)
{
	derp_header_encode(out, type, (uint32_t)(KEY_LEN + payload_len));
	memcpy(out + DERP_HEADER_LEN, k->b, KEY_LEN);
}

/* Relays queue disco apart from the rest and answer only to it that a peer is not here. */
static inline bool derp_looks_disco(const uint8_t *p, size_t len)
{
	return len >= DERP_DISCO_MIN_LEN && !memcmp(p, "TS\xf0\x9f\x92\xac", 6);
}

/* One frame as the reader gives it; body is valid until the next call with the reader. */
struct derp_frame {
	uint8_t type;
	const uint8_t *body;
	size_t len;
};

/*
 * Cuts a byte stream into frames. What lies whole in the given bytes is not copied; a frame in
 * pieces is gathered in the reader's own buffer, which grows as bytes arrive, never by what a
 * header promises. Frame types that the role does not know are skipped, whatever their length.
 */
struct derp_reader {
	enum derp_role role;
	uint32_t info_max; /* largest ClientInfo taken; DERP_CLIENT_INFO_MAX unless lowered */
	size_t skip;	   /* bytes of an unknown frame still to come */
	bool lent;	   /* part is what the last frame points to */
	struct buf part;
};

void derp_reader_init(struct derp_reader *rd, enum derp_role role);
void derp_reader_done(struct derp_reader *rd);
/*
 * 1: *ret is the next frame, and *p, *len are advanced behind it; 0: all of *len is used up, more
 * is needed; -EBADMSG: a frame whose length cannot be; -ENOBUFS: one longer than the role takes.
 */
int derp_reader_next(struct derp_reader *rd, const uint8_t **p, size_t *len,
		     struct derp_frame *ret);
/* Gives back the gathering buffer when nothing is gathered: for connections that fall idle. */
void derp_reader_trim(struct derp_reader *rd);

/* Append whole frames. Errors are in out->bad; what seals too gives -ENOMEM or -EBADMSG (bad key). */
void derp_put_empty(struct buf *out, enum derp_frame_type type); /* KeepAlive, WatchConns */
void derp_put_server_key(struct buf *out, const struct key *server);
int derp_put_client_info(struct buf *out, const struct derp_client_info *info,
			 const struct key_pair *client, const struct key *server,
			 const uint8_t nonce[static DERP_NONCE_LEN]);
int derp_put_server_info(struct buf *out, const struct derp_server_info *info,
			 const struct key *server_priv, const struct key *client,
			 const uint8_t nonce[static DERP_NONCE_LEN]);
int derp_put_packet(struct buf *out, enum derp_frame_type type, const struct derp_packet *p);
int derp_put_forward(struct buf *out, const struct derp_forward *f);
void derp_put_note_preferred(struct buf *out, bool home);
void derp_put_gone(struct buf *out, const struct derp_gone *g);
void derp_put_present(struct buf *out, const struct derp_present *p);
void derp_put_ping(struct buf *out, enum derp_frame_type type,
		   const uint8_t data[static DERP_PING_LEN]);
void derp_put_close_peer(struct buf *out, const struct key *peer);
void derp_put_health(struct buf *out, const char *text);
void derp_put_restarting(struct buf *out, const struct derp_restarting *r);

/* Bodies. 0, or -EBADMSG. */
int derp_server_key_decode(const void *body, size_t len, struct key *ret);
/* The box proves that the sender holds the private key of *ret_client. */
int derp_client_info_open(const void *body, size_t len, const struct key *server_priv,
			  struct key *ret_client, struct derp_client_info *ret);
int derp_server_info_open(const void *body, size_t len, const struct key *client_priv,
			  const struct key *server, struct derp_server_info *ret);
int derp_packet_decode(const void *body, size_t len, struct derp_packet *ret);
int derp_forward_decode(const void *body, size_t len, struct derp_forward *ret);
int derp_note_preferred_decode(const void *body, size_t len, bool *ret);
int derp_gone_decode(const void *body, size_t len, struct derp_gone *ret);
int derp_present_decode(const void *body, size_t len, struct derp_present *ret);
int derp_ping_decode(const void *body, size_t len, uint8_t ret[static DERP_PING_LEN]);
int derp_close_peer_decode(const void *body, size_t len, struct key *ret);
int derp_restarting_decode(const void *body, size_t len, struct derp_restarting *ret);
