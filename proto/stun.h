#pragma once
/*
 * stun: binding requests and answers as Tailscale's nodes and relays exchange them (RFC 5389).
 *
 * Pure. A request that is not exactly what such a node sends gets no answer at all, so that a
 * server reflects nothing.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"

#define STUN_TXID_LEN	  12
#define STUN_REQUEST_LEN  40
#define STUN_RESPONSE_MAX 44
#define STUN_PORT	  3478

/* Cheap test that tells STUN from WireGuard and disco on a shared port. */
bool stun_is(const void *p, size_t len);

void stun_request_encode(const uint8_t txid[static STUN_TXID_LEN],
			 uint8_t out[static STUN_REQUEST_LEN]);
/* -EBADMSG: drop it silently. */
int stun_request_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN]);

/* Returns the length, 32 or 44; 0 when there is no address. */
size_t stun_response_encode(const uint8_t txid[static STUN_TXID_LEN], const struct endpoint *src,
			    uint8_t out[static STUN_RESPONSE_MAX]);
int stun_response_decode(const void *p, size_t len, uint8_t ret_txid[static STUN_TXID_LEN],
			 struct endpoint *ret);
