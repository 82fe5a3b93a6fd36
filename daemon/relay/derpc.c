#include "daemon/relay/derpc.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/relay/derpconn.h"
#include "lib/log.h"

#define IDLE_USEC  (60 * USEC_PER_SEC)
#define SWEEP_USEC (15 * USEC_PER_SEC)
#define CHECK_USEC (3 * USEC_PER_SEC)
#define STEADY_USEC (30 * USEC_PER_SEC) /* up for less, a relay is as good as unreachable */
#define HEALTH_USEC USEC_PER_SEC	/* between two reports of what a relay says of itself */
#define QUIET_AFTER 4	/* failures of which each has its line in the log */
#define TEXT_MAX   192

struct region {
	struct derpc *d;
	struct derp_region def;
	struct derpconn *conn;
	struct derp_queue queue;
	struct loop_timer *retry, *health;
	unsigned int failures; /* since it was last up */
	unsigned int flaps;    /* times it was up and did not stay */
	uint64_t up_usec;
	size_t first_node;     /* where the next attempt begins */
	bool plain;	       /* the next attempt does without TLS */
	bool dead;	       /* left the map */
	uint64_t wrote_usec;
	struct derpc_info info;
	char text[TEXT_MAX], said[TEXT_MAX];
	uint64_t said_usec;
};

struct derpc {
	struct loop *loop;
	struct derpc_opts o;
	struct key_pair self;
	bool has_self, network;
	char plain_host[256];
	uint16_t plain_port;
	int64_t home;
	struct region **regions; /* sorted by id */
	size_t n_regions;
	struct loop_timer *sweep;
};

static struct region *derpc_find(const struct derpc *d, int64_t id)
{
	size_t lo = 0, hi = d->n_regions;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (d->regions[mid]->def.id == id)
			return d->regions[mid];
		if (d->regions[mid]->def.id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool region_is_home(const struct region *g)
{
	return g->d->home == g->def.id;
}

static void region_say(struct region *g, bool connected, const char *text)
{
	snprintf(g->text, sizeof(g->text), "%s", text);
	g->d->o.ops->on_state(g->d->o.data, g->def.id, connected, g->text);
}

static void conn_on_up(void *data, struct derpconn *c)
{
	struct region *g = data;
	char at[ENDPOINT_TEXT_MAX];

	g->failures = 0;
	g->first_node = 0;
	g->info.heard_usec = g->up_usec = loop_now(g->d->loop);
	log_at(g->flaps < QUIET_AFTER ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG,
	       "relay %s: connected to %s at %s%s", g->def.code,
	       g->def.nodes[derpconn_node(c)].name, endpoint_text(derpconn_remote(c), at),
	       !derpconn_tls(c)	  ? ", without TLS"
	       : derpconn_fast(c) ? ", fast start"
				  : "");
	region_say(g, true, "");
}

static void conn_on_packet(void *data, struct derpconn *c, const struct key *src, const uint8_t *p,
			   size_t len)
{
	struct region *g = data;

	(void)c;
	g->info.rx_packets++;
	g->info.rx_bytes += len;
	g->info.heard_usec = loop_now(g->d->loop);
	g->d->o.ops->on_packet(g->d->o.data, g->def.id, src, p, len);
}

static void conn_on_gone(void *data, struct derpconn *c, const struct key *peer, uint8_t reason)
{
	struct region *g = data;

	(void)c;
	g->d->o.ops->on_peer_gone(g->d->o.data, g->def.id, peer, reason);
}

/* Whatever a relay says, and however often: the last of it is told once a second. */
static void region_tell_health(void *data)
{
	struct region *g = data;

	if (!g->conn || strcmp(g->said, g->text) == 0)
		return;
	g->said_usec = loop_now(g->d->loop);
	if (*g->said)
		log_remote(LOG_LEVEL_WARNING, "relay %s: says: %s", g->def.code, g->said);
	region_say(g, derpconn_up(g->conn), g->said);
}

static void conn_on_health(void *data, struct derpconn *c, const char *text)
{
	struct region *g = data;
	uint64_t now = loop_now(g->d->loop);

	(void)c;
	snprintf(g->said, sizeof(g->said), "%s", text);
	if (!g->said_usec || now - g->said_usec >= HEALTH_USEC)
		region_tell_health(g);
	else if (!loop_timer_armed(g->health))
		loop_timer_at(g->health, g->said_usec + HEALTH_USEC);
}

/* n² · 10 ms up to 5 s, half more or less at random: a relay's clients do not return as one. */
static uint64_t backoff(unsigned int failures)
{
	uint64_t n = MIN(failures, 100u);
	uint64_t base = MIN(n * n * 10 * USEC_PER_MSEC, 5 * USEC_PER_SEC);

	return base / 2 + randombytes_uniform((uint32_t)base + 1);
}

static unsigned int region_failures(const struct region *g)
{
	return MIN(g->failures + g->flaps, 1000u);
}

/* Home always; another one as long as something was sent to it of late. */
static bool region_wanted(const struct region *g, uint64_t now)
{
	if (!g->d->has_self || !g->d->network || g->dead)
		return false;
	return region_is_home(g) || (g->wrote_usec && now - g->wrote_usec < IDLE_USEC);
}

/* What the next attempt does differently. Nothing, when this one was up. */
static void region_learn(struct region *g, const struct derpconn *c)
{
	switch (derpconn_reached(c)) {
	case DERPCONN_REACH_NOTHING: /* all nodes were tried */
	case DERPCONN_REACH_UP:
		return;
	case DERPCONN_REACH_TCP:
		if (g->d->o.allow_plain && !g->plain) {
			g->plain = true;
			return;
		}
		break;
	case DERPCONN_REACH_TLS:
		break;
	}
	/* Another relay of the region may do better than one that fails above TCP. */
	g->plain = false;
	g->first_node = derpconn_node(c) + 1;
}

/* A relay that greets and goes, again and again, must not have us at its door every 10 ms. */
static void region_count(struct region *g, bool was_up, const char *text, int error)
{
	bool steady = was_up && loop_now(g->d->loop) - g->up_usec >= STEADY_USEC;
	unsigned int n;

	if (steady)
		g->flaps = 0;
	else if (was_up)
		g->flaps++;
	g->failures++;
	n = region_failures(g);
	if (n < QUIET_AFTER)
		log_info("relay %s: %s", g->def.code, text);
	else if (n == QUIET_AFTER && g->flaps)
		log_warning("relay %s: does not keep a connection: %s; trying more and more seldom",
			    g->def.code, text);
	else
		log_debug_errno(error, "relay %s: %s (%u failures in a row)", g->def.code, text, n);
}

static void conn_on_down(void *data, struct derpconn *c, int error, const char *why)
{
	char text[TEXT_MAX];
	struct region *g = data;

	snprintf(text, sizeof(text), "%s", why); /* why dies with the connection */
	region_count(g, derpconn_reached(c) == DERPCONN_REACH_UP, text, error);
	region_learn(g, c);
	derpconn_free(TAKE(g->conn));
	if (region_wanted(g, loop_now(g->d->loop)))
		loop_timer_in(g->retry, backoff(region_failures(g)));
	else
		derp_queue_clear(&g->queue);
	region_say(g, false, text);
}

static const struct derpconn_ops conn_ops = {
	.on_up = conn_on_up,
	.on_packet = conn_on_packet,
	.on_gone = conn_on_gone,
	.on_health = conn_on_health,
	.on_down = conn_on_down,
};

static int region_open(struct region *g)
{
	struct derpc *d = g->d;
	struct derpconn_opts o = {
		.ops = &conn_ops,
		.data = g,
		.region = &g->def,
		.self = &d->self,
		.queue = &g->queue,
		.tls = d->o.tls,
		.mark = d->o.mark,
		.cache = d->o.cache,
		.first_node = g->first_node,
		.home = region_is_home(g),
		.plain_all = g->plain,
		.plain_host = *d->plain_host ? d->plain_host : NULL,
		.plain_port = d->plain_port,
	};

	if (g->conn)
		return 0;
	if (!d->has_self || !d->network)
		return -ENETDOWN;
	loop_timer_stop(g->retry);
	if (!loop_timer_armed(d->sweep))
		loop_timer_in(d->sweep, SWEEP_USEC);
	return derpconn_new(d->loop, &o, &g->conn);
}

static void region_close(struct region *g, const char *why)
{
	bool up = g->conn && derpconn_up(g->conn);

	loop_timer_stop(g->retry);
	derp_queue_clear(&g->queue);
	if (!g->conn)
		return;
	derpconn_free(TAKE(g->conn));
	if (up)
		log_debug("relay %s: closed: %s", g->def.code, why);
	region_say(g, false, why);
}

static void region_retry(void *data)
{
	struct region *g = data;

	if (region_wanted(g, loop_now(g->d->loop)) && region_open(g) < 0)
		loop_timer_in(g->retry, backoff(++g->failures));
}

static void region_free(struct region *g)
{
	if (!g)
		return;
	derpconn_free(g->conn);
	derp_queue_clear(&g->queue);
	loop_timer_free(g->retry);
	loop_timer_free(g->health);
	derp_region_done(&g->def);
	free(g);
}
DEFINE_CLEANUP(struct region *, region_free)

static int region_new(struct derpc *d, const struct derp_region *def, struct region **ret)
{
	CLEANUP(region_free) struct region *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return -ENOMEM;
	g->d = d;
	r = derp_region_copy(def, &g->def);
	if (r < 0)
		return r;
	g->info.region = def->id;
	r = loop_timer_new(d->loop, region_retry, g, &g->retry);
	if (r == 0)
		r = loop_timer_new(d->loop, region_tell_health, g, &g->health);
	if (r < 0)
		return r;
	*ret = TAKE(g);
	return 0;
}

/* Closes what was not written to for a minute, home apart. */
static void derpc_sweep(void *data)
{
	struct derpc *d = data;
	uint64_t now = loop_now(d->loop);
	bool more = false;

	for (size_t i = 0; i < d->n_regions; i++) {
		struct region *g = d->regions[i];

		if (!g->conn || region_is_home(g))
			continue;
		if (now - g->wrote_usec > IDLE_USEC)
			region_close(g, "idle");
		else
			more = true;
	}
	if (more)
		loop_timer_in(d->sweep, SWEEP_USEC);
}

static void derpc_open_home(struct derpc *d)
{
	struct region *g = derpc_find(d, d->home);

	if (g && !g->conn && region_open(g) < 0 && d->has_self && d->network)
		loop_timer_in(g->retry, backoff(++g->failures));
}

static void derpc_close_all(struct derpc *d, const char *why)
{
	for (size_t i = 0; i < d->n_regions; i++) {
		d->regions[i]->failures = d->regions[i]->flaps = 0;
		region_close(d->regions[i], why);
	}
}

int derpc_new(struct loop *l, const struct derpc_opts *o, struct derpc **ret)
{
	CLEANUP(derpc_free) struct derpc *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->loop = l;
	d->o = *o;
	d->o.tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
	d->network = true;
	r = loop_timer_new(l, derpc_sweep, d, &d->sweep);
	if (r < 0)
		return r;
	*ret = TAKE(d);
	return 0;
}

void derpc_free(struct derpc *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n_regions; i++)
		region_free(d->regions[i]);
	free(d->regions);
	loop_timer_free(d->sweep);
	tls_ctx_unref(d->o.tls);
	key_pair_wipe(&d->self);
	free(d);
}

void derpc_set_self(struct derpc *d, const struct key_pair *self)
{
	bool same = self ? d->has_self && key_equal(&self->priv, &d->self.priv) : !d->has_self;

	if (same)
		return;
	derpc_close_all(d, "the node's key changed");
	key_pair_wipe(&d->self);
	d->has_self = self != NULL;
	if (self)
		d->self = *self;
	derpc_open_home(d);
}

int derpc_set_map(struct derpc *d, const struct derp_map *map)
{
	struct region **fresh = calloc(map->n_regions + 1, sizeof(struct region *)),
		      **old = d->regions;
	size_t n_old = d->n_regions;
	int r = 0;

	if (!fresh)
		return -ENOMEM;
	for (size_t i = 0; i < map->n_regions && r == 0; i++) {
		struct region *g = derpc_find(d, map->regions[i].id);

		if (g && derp_region_equal(&g->def, &map->regions[i]))
			fresh[i] = g;
		else
			r = region_new(d, &map->regions[i], &fresh[i]);
	}
	if (r < 0) {
		for (size_t i = 0; i < map->n_regions; i++)
			if (fresh[i] && fresh[i] != derpc_find(d, map->regions[i].id))
				region_free(fresh[i]);
		free(fresh);
		return r;
	}
	d->regions = fresh;
	d->n_regions = map->n_regions;
	for (size_t i = 0; i < n_old; i++) {
		struct region *now = derpc_find(d, old[i]->def.id);

		if (now == old[i])
			continue;
		old[i]->dead = true;
		region_close(old[i], now ? "the map changed" : "no longer in the map");
		region_free(old[i]);
	}
	free(old);
	derpc_open_home(d);
	return 0;
}

void derpc_set_home(struct derpc *d, int64_t region)
{
	if (d->home == region)
		return;
	d->home = region;
	for (size_t i = 0; i < d->n_regions; i++)
		if (d->regions[i]->conn)
			derpconn_prefer(d->regions[i]->conn, region_is_home(d->regions[i]));
	/* The old one idles out from now. */
	if (!loop_timer_armed(d->sweep))
		loop_timer_in(d->sweep, SWEEP_USEC);
	derpc_open_home(d);
}

int derpc_set_plain_host(struct derpc *d, const char *host, uint16_t port)
{
	if (host && strlen(host) >= sizeof(d->plain_host))
		return -ENOBUFS;
	snprintf(d->plain_host, sizeof(d->plain_host), "%s", host ? host : "");
	d->plain_port = port;
	return 0;
}

void derpc_set_network(struct derpc *d, bool up)
{
	if (d->network == up)
		return;
	d->network = up;
	if (!up)
		derpc_close_all(d, "no network");
	derpc_open_home(d);
}

void derpc_check(struct derpc *d)
{
	for (size_t i = 0; i < d->n_regions; i++) {
		struct region *g = d->regions[i];

		if (g->conn)
			derpconn_check(g->conn, CHECK_USEC);
		else if (loop_timer_armed(g->retry))
			loop_timer_in(g->retry, 0); /* what failed on the old link may work now */
	}
}

void derpc_restart(struct derpc *d)
{
	derpc_close_all(d, "restarted");
	derpc_open_home(d);
}

int derpc_send(struct derpc *d, int64_t region, const struct key *dst, const void *p, size_t len)
{
	struct region *g = derpc_find(d, region);
	int r;

	if (!g)
		return -ENOENT;
	if (!d->has_self || !d->network)
		return -ENETDOWN;
	g->wrote_usec = loop_now(d->loop);
	r = derp_queue_push(&g->queue, dst, p, len);
	/* While a failed region waits for its next try, packets wait with it. */
	if (r == 0 && !g->conn && !loop_timer_armed(g->retry))
		r = region_open(g);
	if (r < 0)
		return r;
	if (g->conn)
		derpconn_run(g->conn);
	g->info.tx_packets++;
	g->info.tx_bytes += len;
	return 0;
}

int64_t derpc_home(const struct derpc *d)
{
	return d->home;
}

bool derpc_connected(const struct derpc *d, int64_t region)
{
	const struct region *g = derpc_find(d, region);

	return g && g->conn && derpconn_up(g->conn);
}

size_t derpc_list(const struct derpc *d, struct derpc_info *out, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < d->n_regions && n < max; i++) {
		const struct region *g = d->regions[i];

		if (!g->conn && !g->failures)
			continue;
		out[n] = g->info;
		out[n].home = region_is_home(g);
		out[n].connected = g->conn && derpconn_up(g->conn);
		out[n].dialling = g->conn && !derpconn_up(g->conn);
		out[n].tls = g->conn && derpconn_tls(g->conn);
		out[n].node = "";
		if (g->conn) {
			out[n].remote = *derpconn_remote(g->conn);
			if (g->def.n_nodes)
				out[n].node = g->def.nodes[derpconn_node(g->conn)].name;
		}
		out[n].tx_dropped = g->queue.dropped;
		out[n].failures = region_failures(g);
		out[n].text = g->text;
		n++;
	}
	return n;
}

bool derpc_is_plain(const struct derpc *d, int64_t region)
{
	const struct region *g = derpc_find(d, region);

	for (size_t i = 0; g && i < g->def.n_nodes; i++)
		if (!g->def.nodes[i].stun_only)
			return derpconn_is_plain(&g->def.nodes[i], g->plain, d->plain_host,
						 d->plain_port);
	return false;
}
