#pragma once
/*
 * keyfile: the relay's private key on disk, in derper's form: {"PrivateKey": "privkey:<64 hex>"}.
 */
#include "lib/key.h"

/*
 * Reads the file; where there is none, makes a key and the file (0600, synced, whole or not at
 * all). -EBADMSG: malformed; -EPERM: others may read it; or what the system says.
 */
int keyfile_load(const char *path, struct key_pair *ret);
