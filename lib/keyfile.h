#pragma once
/*
 * keyfile: a server's private key on disk: made once, never changed silently.
 *
 * Reads both forms that the stock programs have: Headscale's "privkey:<64 hex>", a line of text, and derper's
 * {"PrivateKey": "privkey:<64 hex>"} (cmd/derper/derper.go). White space around either is no matter.
 */
#include "lib/key.h"

enum keyfile_form {
	KEYFILE_LINE,
	KEYFILE_JSON,
};

/*
 * Reads the file; where there is none, makes a key and the file in that form (0600, synced, whole or not at
 * all). -EBADMSG: malformed; -EPERM: others may read it; or what the system says. ret is left alone on failure.
 */
int keyfile_load(const char *path, enum keyfile_form form, struct key_pair *ret);
