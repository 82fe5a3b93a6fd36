#pragma once
/*
 * front: what the coordinator answers on its public HTTP(S) port, and the admin API on its socket.
 *
 * Owns the HTTP servers and the control connections that come out of them. Public: /key, /ts2021,
 * /health, /version, /verify, /register/ID, the embedded relay's paths. Admin: /api/v1/ for root, the
 * coordinator's own user and the socket's group.
 */
#include "coordinator/coord.h"
#include "lib/cleanup.h"
#include "lib/tls.h"

struct front;

/* Opens the public port, which may need rights that are given up before the rest; serves nobody yet. tls
 * NULL: plain HTTP. why: a sentence on failure. */
int front_new(struct coord *c, struct tls_ctx *tls, char why[static STORE_WHY_MAX], struct front **ret);
/* Once the coordinator has started: routes, and the admin socket. Before the loop runs. */
int front_open(struct front *f, char why[static STORE_WHY_MAX]);
void front_free(struct front *f);
DEFINE_CLEANUP(struct front *, front_free)
/* For port 0 in tests. */
struct endpoint front_listening(const struct front *f);
