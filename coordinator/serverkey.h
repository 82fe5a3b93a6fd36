#pragma once
/*
 * serverkey: the coordinator's private key on disk: made once, never changed silently.
 *
 * Reads Headscale's form ("privkey:<64 hex>", a line of text) and derper's JSON; writes the former.
 */
#include "lib/key.h"

/* A missing file is made (0600). -EBADMSG: malformed; -EPERM: others may read it. */
int serverkey_load(const char *path, struct key_pair *ret);
