#pragma once
/*
 * derp_admit: what a relay asks a controller about each client, and the answer.
 *
 * POST, 200 and both bodies JSON: tailcfg.DERPAdmitClientRequest {"NodePublic":"nodekey:…","Source":"1.2.3.4"}
 * and DERPAdmitClientResponse {"Allow":true}. Pure; bytes are the other side's.
 */
#include <stdbool.h>
#include <stddef.h>

#include "lib/addr.h"
#include "lib/key.h"

#define DERP_ADMIT_REQUEST_MAX 4096 /* bytes that are read; so for the answer */
#define DERP_ADMIT_ANSWER_MAX  4096
#define DERP_ADMIT_TEXT_MAX    256

/* The question, 0-terminated. src.family 0: not known, "". Returns out. */
const char *derp_admit_request_text(const struct key *node, const struct addr *src, char out[static DERP_ADMIT_TEXT_MAX]);
/* About whom. What else is in it is not read. -EBADMSG: no such JSON; -ENOMEM: our own fault. */
int derp_admit_request_read(const void *p, size_t len, struct key *ret);

/* The answer, 0-terminated, static. */
const char *derp_admit_answer_text(bool allow);
/* As above; without "Allow" it is no. */
int derp_admit_answer_read(const void *p, size_t len, bool *ret);
