#pragma once
/*
 * channel: the nodes' control connections: Noise, HTTP/2 in it, /machine/register and /machine/map.
 *
 * Owns the connections that the front hands it after the upgrade. State hangs on the machine key,
 * never on the connection: a node may have several. Strangers can come this far (anybody may make a
 * machine key), so connections are bounded, in all and for each machine, and idle ones of machines
 * that have no node are closed.
 */
#include <stdint.h>

#include "coordinator/coord.h"
#include "lib/cleanup.h"
#include "lib/httpd.h"

#define CHANNEL_MAX	    65536u
#define CHANNEL_MACHINE_MAX 16u
#define CHANNEL_STRANGERS_MAX 256u /* of one IPv4 address or IPv6 /64, of machines without a node */

struct channels;

int channels_new(struct coord *c, struct channels **ret);
void channels_free(struct channels *cs);
DEFINE_CLEANUP(struct channels *, channels_free)

/* httpd_fn of POST /ts2021. data: struct channels. */
void channel_upgrade(void *data, struct httpd_req *q);
unsigned int channels_count(const struct channels *cs);
