#pragma once
/*
 * relays: which relays the nodes are told of, and the one that runs in here.
 *
 * Owns the embedded relay with its STUN server, and the DERP map made of it, of YAML files
 * (derp.paths) and of JSON from URLs (derp.urls), read again at intervals; later sources replace
 * earlier ones region by region. A source that fails keeps what it said before, also in an earlier life of ours
 * (relaykeep.h), and is a warning: a region that clients live in must never vanish for a moment (control.md 12.3).
 * A URL that fails is asked again until it answers; while no relay is known at all, map streams wait.
 */
#include "coordinator/coord.h"
#include "lib/cleanup.h"
#include "lib/tls.h"

struct relays;

/* Before the fronts are made: sets c->relay, and the fan-out's first map where there is one. tls: whether the front
 * speaks it, and so the embedded relay. -ENOENT: no region at all, nor a URL to say some. */
int relays_new(struct coord *c, struct tls_ctx *tls, char why[static STORE_WHY_MAX], struct relays **ret);
/* After the fronts. */
void relays_free(struct relays *r);
DEFINE_CLEANUP(struct relays *, relays_free)
/* Reads the files and asks the URLs again, now. */
void relays_reload(struct relays *r);

/* How long after a failure a URL is asked again, by how many there were before it. */
uint64_t relays_backoff(unsigned int failures);

/* A derp.paths file (YAML, keys in any case) as the map's JSON form: what derp_map_decode() takes. */
json_t *relays_map_json(const json_t *yaml);
