#pragma once
/*
 * wireguard: the messages of WireGuard told apart by their heads (whitepaper 5.4, messages.h of
 * the module). Only the kernel makes and opens them.
 */
#include <stddef.h>
#include <stdint.h>

enum wireguard_type {
	WIREGUARD_NONE,
	WIREGUARD_INITIATION,
	WIREGUARD_RESPONSE,
	WIREGUARD_COOKIE,
	WIREGUARD_DATA,
};

/* The type of the message: a little-endian word of 32 bits. WIREGUARD_NONE where it is none. */
static inline enum wireguard_type wireguard_type(const uint8_t *buf, size_t len)
{
	return len < 4 || buf[1] || buf[2] || buf[3] || buf[0] > WIREGUARD_DATA ?
		       WIREGUARD_NONE :
		       (enum wireguard_type)buf[0];
}
