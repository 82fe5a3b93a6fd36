#pragma once
/*
 * hash: a keyed hash for tables whose keys outsiders choose (SipHash-2-4 of libsodium; the secret is made anew in each
 * process), so that nobody can choose keys that share a bucket.
 */
#include <stddef.h>
#include <stdint.h>

uint64_t hash_keyed(const void *p, size_t len);
