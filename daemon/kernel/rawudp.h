#pragma once
/*
 * rawudp: UDP datagrams with headers of our own making, for raw sockets that choose their source.
 *
 * The headers are pure bytes; rawudp_open() and rawudp_send() are the edge. The sockets only send
 * (protocol IPPROTO_RAW): one that received would cost every UDP packet of the host a clone.
 */
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"

#define RAWUDP_HEADERS_MAX 48	/* IPv6 and UDP */
#define RAWUDP_PAYLOAD_MAX 4096 /* far more than any path takes unfragmented */

/* Writes the IP and UDP headers for p; returns their length, 0 when families differ or p is too long. */
size_t rawudp_headers(const struct endpoint *src, const struct endpoint *dst, const void *p, size_t len,
		      uint8_t out[static RAWUDP_HEADERS_MAX]);

struct rawudp {
	int fd[2]; /* IPv4, IPv6; -1 where there is none */
};
/* mark 0: none. -EPERM without CAP_NET_RAW; a host without IPv6 is no error. */
int rawudp_open(struct rawudp *r, uint32_t mark);
void rawudp_close(struct rawudp *r);
/* -EAFNOSUPPORT: families differ, or no socket of that one. */
int rawudp_send(const struct rawudp *r, const struct endpoint *src, const struct endpoint *dst,
		const void *p, size_t len);
