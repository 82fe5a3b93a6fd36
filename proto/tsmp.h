#pragma once
/*
 * tsmp: the small messages that stock nodes exchange inside the tunnel as IP protocol 99.
 *
 * Pure codec of the payload behind the IP header (disco.md 15.1). The raw sockets are elsewhere.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/key.h"

#define TSMP_IPPROTO 99
#define TSMP_PING_LEN 8
#define TSMP_MAX 33

enum tsmp_type {
	TSMP_TYPE_PING = 'p',
	TSMP_TYPE_PONG = 'o',
	TSMP_TYPE_DISCO_KEY = 'a',
	TSMP_TYPE_REJECTED = '!',
};

struct tsmp_msg {
	uint8_t type; /* enum tsmp_type, or another letter: then nothing below is set */
	union {
		struct {
			uint8_t data[TSMP_PING_LEN];
			uint16_t peerapi_port; /* of a pong; 0 = none */
		} ping;
		struct key disco;
		struct {
			uint8_t proto;
			uint8_t reason; /* 'A' filter, 'S' shields up, 'F' forwarding off, 'W'
					   firewall */
			uint16_t src_port, dst_port;
			bool maybe_broken;
		} rejected;
	};
};

/* p: from the byte after the IP header. -EBADMSG when shorter than its type asks for. */
int tsmp_decode(const void *p, size_t len, struct tsmp_msg *ret);
/* Returns the length; out has TSMP_MAX bytes. */
int tsmp_encode(const struct tsmp_msg *m, uint8_t out[static TSMP_MAX]);
