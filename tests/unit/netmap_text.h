#pragma once
/* netmap_text: what a message changed, as one line: "self:home +3 -4 5:online,home derp dns". */
#include "daemon/netmap/netmap.h"
#include "lib/buf.h"

static const char *const aspect_names[] = {
	"key", "disco", "disco-set", "endpoints", "home", "addresses", "allowed",
	"online", "expired", "key-expiry", "name", "caps", "info",
};

static const char *changes_text(const struct netmap_changes *c, struct buf *b)
{
	buf_clear(b);
	buf_put_str(b, c->full ? "full" : "delta");
	for (size_t i = 0; i < c->n_peers + 1; i++) {
		const struct netmap_peer_change *p = i ? &c->peer[i - 1] : NULL;
		unsigned int aspects = p ? p->aspects : c->self;
		char sep = ':';

		if (!p && c->self == (NETMAP_INFO << 1) - 1)
			buf_put_str(b, " +self");
		else if (!p && c->self)
			buf_put_str(b, " self");
		else if (p && p->kind == NETMAP_ADDED)
			buf_printf(b, " +%d", (int)p->id);
		else if (p && p->kind == NETMAP_REMOVED)
			buf_printf(b, " -%d", (int)p->id);
		else if (p)
			buf_printf(b, " %d", (int)p->id);
		if (aspects == (NETMAP_INFO << 1) - 1)
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(aspect_names); k++) {
			if (aspects & (1u << k)) {
				buf_printf(b, "%c%s", sep, aspect_names[k]);
				sep = ',';
			}
		}
	}
	buf_put_str(b, c->derp ? " derp" : "");
	buf_put_str(b, c->dns ? " dns" : "");
	buf_put_str(b, c->filter ? " filter" : "");
	buf_put_str(b, c->users ? " users" : "");
	buf_put_str(b, c->domain ? " domain" : "");
	buf_put_str(b, c->health ? " health" : "");
	if (c->n_skipped)
		buf_printf(b, " skipped=%zu", c->n_skipped);
	return buf_str(b);
}
