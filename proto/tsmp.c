#include "proto/tsmp.h"

#include <errno.h>
#include <string.h>

#include "lib/cursor.h"

int tsmp_decode(const void *p, size_t len, struct tsmp_msg *ret)
{
	struct cursor c = cursor_of(p, len);
	struct tsmp_msg m;

	memset(&m, 0, sizeof(m));
	m.type = cursor_u8(&c);
	switch (m.type) {
	case TSMP_TYPE_PING:
		cursor_copy(&c, m.ping.data, TSMP_PING_LEN);
		break;
	case TSMP_TYPE_PONG:
		cursor_copy(&c, m.ping.data, TSMP_PING_LEN);
		m.ping.peerapi_port = c.left >= 2 ? cursor_be16(&c) : 0;
		break;
	case TSMP_TYPE_DISCO_KEY:
		cursor_copy(&c, m.disco.b, KEY_LEN);
		break;
	case TSMP_TYPE_REJECTED:
		m.rejected.proto = cursor_u8(&c);
		m.rejected.reason = cursor_u8(&c);
		m.rejected.src_port = cursor_be16(&c);
		m.rejected.dst_port = cursor_be16(&c);
		m.rejected.maybe_broken = c.left > 0 && (cursor_u8(&c) & 1);
		break;
	default:
		break;
	}
	if (!cursor_ok(&c))
		return -EBADMSG;
	*ret = m;
	return 0;
}

int tsmp_encode(const struct tsmp_msg *m, uint8_t out[static TSMP_MAX])
{
	out[0] = m->type;
	switch (m->type) {
	case TSMP_TYPE_PING:
		memcpy(out + 1, m->ping.data, TSMP_PING_LEN);
		return 1 + TSMP_PING_LEN;
	case TSMP_TYPE_PONG:
		memcpy(out + 1, m->ping.data, TSMP_PING_LEN);
		out[9] = (uint8_t)(m->ping.peerapi_port >> 8);
		out[10] = (uint8_t)m->ping.peerapi_port;
		return 1 + TSMP_PING_LEN + 2;
	case TSMP_TYPE_DISCO_KEY:
		memcpy(out + 1, m->disco.b, KEY_LEN);
		return 1 + KEY_LEN;
	case TSMP_TYPE_REJECTED:
		out[1] = m->rejected.proto;
		out[2] = m->rejected.reason;
		out[3] = (uint8_t)(m->rejected.src_port >> 8);
		out[4] = (uint8_t)m->rejected.src_port;
		out[5] = (uint8_t)(m->rejected.dst_port >> 8);
		out[6] = (uint8_t)m->rejected.dst_port;
		out[7] = m->rejected.maybe_broken;
		return 8;
	default:
		return -EPROTONOSUPPORT;
	}
}
