#pragma once
/*
 * metacert: the extra certificate behind a relay's chain that tells clients its DERP key early.
 *
 * Never validated by anybody; with TLS 1.3 it travels encrypted, and a client that finds it spares
 * one round trip (fast start).
 */
#include <stddef.h>
#include <stdint.h>

#include "lib/key.h"

#define METACERT_MAX 1024

/* The DER of a self-signed Ed25519 certificate, CN "derpkey<64 hex>", serial = protocol version. Length, or -EIO. */
int metacert_make(const struct key *server, uint8_t out[static METACERT_MAX]);
