#include "coordinator/relays.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "coordinator/relaykeep.h"
#include "lib/httpc.h"
#include "lib/json.h"
#include "lib/keyfile.h"
#include "lib/log.h"
#include "lib/yaml.h"
#include "proto/derpmap.h"
#include "relay/metacert.h"
#include "relay/relay.h"
#include "relay/stund.h"

#define RELAYS_URL_BODY_MAX (1u << 20)
#define RELAYS_RETRY_USEC   USEC_PER_SEC
#define RELAYS_RETRY_MAX    (60 * USEC_PER_SEC)

struct relays_url {
	struct relays *r;
	const char *url;
	struct httpc *call;
	struct loop_timer *retry; /* armed: it has failed, and no call is under way */
	unsigned int failures;	  /* since its last good answer */
	struct derp_map map;	  /* the last good answer */
};

struct relays {
	struct coord *c;
	struct relay *relay;
	struct stund *stun;
	struct derp_map *file; /* the last good reading, one for each path */
	struct relays_url *url;
	struct relaykeep *keep; /* of the URLs, then of the files */
	struct tls_ctx *client;
	struct loop_timer *again;
};

/* ---- the YAML form: the JSON form's members, in whatever case */

static const char *const relays_names[] = {
	"Regions", "omitDefaultRegions", "HomeParams", "RegionScore", "RegionID", "RegionCode",
	"RegionName", "Latitude", "Longitude", "Avoid", "NoMeasureNoHome", "Nodes", "Name", "HostName",
	"CertName", "IPv4", "IPv6", "STUNPort", "STUNOnly", "DERPPort", "InsecureForTests",
	"STUNTestIP", "CanPort80",
};

json_t *relays_map_json(const json_t *yaml)
{
	const char *name;
	json_t *out, *v;
	size_t i;

	if (json_is_array(yaml)) {
		out = json_array();
		json_array_foreach(yaml, i, v)
			json_array_append_new(out, relays_map_json(v));
		return out;
	}
	if (!json_is_object(yaml))
		return json_deep_copy(yaml);
	out = json_object();
	json_object_foreach((json_t *)(uintptr_t)yaml, name, v) {
		const char *as = name;

		for (i = 0; i < ARRAY_SIZE(relays_names); i++)
			if (!strcasecmp(name, relays_names[i]))
				as = relays_names[i];
		if (!json_is_null(v))
			json_object_set_new(out, as, relays_map_json(v));
	}
	return out;
}

static int relays_read_file(const char *path, struct derp_map *ret, char why[static YAML_ERROR_MAX])
{
	CLEANUP(json_decref) json_t *yaml = NULL;
	CLEANUP(json_decref) json_t *json = NULL;
	int r = yaml_read_file(path, &yaml, why);

	if (r < 0)
		return r;
	json = relays_map_json(yaml);
	r = derp_map_decode(json, ret);
	if (r < 0)
		snprintf(why, YAML_ERROR_MAX, "not a map of relays: regions, each with regionid and nodes");
	return r;
}

/* ---- putting it together */

static char *relays_text(const char *s)
{
	return strdup(s ? s : "");
}

/* The region that is this process. */
static int relays_put_own(struct relays *r, struct derp_map *m)
{
	const struct settings *cfg = &r->c->cfg;
	struct derp_region own = { .id = cfg->derp.region_id };
	struct derp_node *n = calloc(1, sizeof(*n));
	char id[16];
	int e;

	if (!n)
		return -ENOMEM;
	snprintf(id, sizeof(id), "%u", cfg->derp.region_id);
	own.nodes = n;
	own.n_nodes = 1;
	own.code = relays_text(cfg->derp.region_code);
	own.name = relays_text(cfg->derp.region_name);
	n->name = relays_text(id);
	n->region_id = own.id;
	n->hostname = relays_text(cfg->server_host);
	n->cert_name = relays_text("");
	n->ipv4 = relays_text(cfg->derp.ipv4);
	n->ipv6 = relays_text(cfg->derp.ipv6);
	n->stun_test_ip = relays_text("");
	n->stun_port = cfg->derp.stun.port;
	n->derp_port = cfg->server_port;
	e = own.code && own.name && n->name && n->hostname && n->cert_name && n->ipv4 && n->ipv6 &&
			    n->stun_test_ip ?
		    derp_map_put(m, &own) :
		    -ENOMEM;
	if (e < 0)
		derp_region_done(&own);
	return e;
}

static int relays_put_map(struct derp_map *m, const struct derp_map *from)
{
	for (size_t i = 0; i < from->n_regions; i++) {
		struct derp_region copy = { 0 };
		int e = derp_region_copy(&from->regions[i], &copy);

		if (e == 0)
			e = derp_map_put(m, &copy);
		if (e < 0) {
			derp_region_done(&copy);
			return e;
		}
	}
	return 0;
}

static int relays_publish(struct relays *r)
{
	const struct settings *cfg = &r->c->cfg;
	CLEANUP(derp_map_done) struct derp_map m = { .has_regions = true };
	CLEANUP(json_decref) json_t *j = NULL;
	CLEANUP(buf_done) struct buf b = { 0 };
	int e = 0;

	for (size_t i = 0; i < cfg->derp.urls.n && e == 0; i++)
		e = relays_put_map(&m, &r->url[i].map);
	for (size_t i = 0; i < cfg->derp.paths.n && e == 0; i++)
		e = relays_put_map(&m, &r->file[i]);
	if (e == 0 && cfg->derp.enabled && cfg->derp.auto_add)
		e = relays_put_own(r, &m);
	if (e < 0)
		return e;
	if (!m.n_regions)
		return -ENOENT;
	j = derp_map_encode(&m);
	if (!j || json_write(j, &b) < 0)
		return -ENOMEM;
	return fanout_set_derpmap(r->c->fanout, (const char *)buf_data(&b), b.len);
}

static void relays_load_files(struct relays *r)
{
	const struct settings_list *paths = &r->c->cfg.derp.paths;

	for (size_t i = 0; i < paths->n; i++) {
		char why[YAML_ERROR_MAX] = "";
		struct derp_map m = { 0 };
		int e = relays_read_file(paths->v[i], &m, why);

		if (e == 0 && !m.n_regions) { /* it is being written, say */
			derp_map_done(&m);
			snprintf(why, sizeof(why), "the file has no relay");
			e = -ENODATA;
		}
		if (e < 0) {
			log_warning("relays: %s: %s", paths->v[i], *why ? why : strerror(-e));
			continue;
		}
		derp_map_done(&r->file[i]);
		r->file[i] = m;
		relaykeep_save(r->keep, r->c->cfg.derp.urls.n + i, &m);
	}
}

/* What each source said last, for one that says nothing now. */
static void relays_load_kept(struct relays *r)
{
	const struct settings_list *urls = &r->c->cfg.derp.urls, *paths = &r->c->cfg.derp.paths;

	for (size_t i = 0; i < urls->n; i++)
		(void)relaykeep_load(r->keep, i, urls->v[i], &r->url[i].map);
	for (size_t i = 0; i < paths->n; i++)
		(void)relaykeep_load(r->keep, urls->n + i, paths->v[i], &r->file[i]);
}

/* ---- URLs */

/* Failures before this one: 1 s doubled up to 1 min, and up to a quarter more at random. */
uint64_t relays_backoff(unsigned int failures)
{
	uint64_t base = RELAYS_RETRY_USEC << MIN(failures, 10u);

	base = MIN(base, RELAYS_RETRY_MAX);
	return base + randombytes_uniform((uint32_t)(base / 4));
}

static void relays_failed(struct relays_url *u, const char *why)
{
	if (!u->failures)
		log_warning("relays: %s: %s; it is asked again until it answers", u->url, why);
	else
		log_debug("relays: %s: %s", u->url, why);
	loop_timer_in(u->retry, relays_backoff(u->failures++));
}

static void relays_good(struct relays_url *u, struct derp_map *m)
{
	struct relays *r = u->r;
	int e;

	if (u->failures)
		log_notice("relays: %s: has answered", u->url);
	u->failures = 0;
	derp_map_done(&u->map);
	u->map = *m;
	relaykeep_save(r->keep, (size_t)(u - r->url), m);
	e = relays_publish(r);
	if (e < 0)
		log_warning_errno(e, "relays: cannot publish the map");
}

static void relays_on_answer(void *data, int e, const struct httpc_answer *a, const char *why)
{
	CLEANUP(json_decref) json_t *j = NULL;
	struct relays_url *u = data;
	struct derp_map m = { 0 };
	char status[48];

	u->call = NULL;
	if (e < 0) {
		relays_failed(u, why);
	} else if (a->head->status != 200) {
		snprintf(status, sizeof(status), "the answer is %d", a->head->status);
		relays_failed(u, status);
	} else if (json_read(a->body, a->len, RELAYS_URL_BODY_MAX, &j) < 0 || derp_map_decode(j, &m) < 0) {
		relays_failed(u, "the answer is not a map of relays");
	} else if (!m.n_regions) {
		derp_map_done(&m);
		relays_failed(u, "the answer has no relay");
	} else {
		relays_good(u, &m);
	}
}

static void relays_ask_url(void *data)
{
	struct relays_url *u = data;
	const struct httpc_opts o = { .url = u->url, .max_body = RELAYS_URL_BODY_MAX, .tls = u->r->client,
				      .timeout_usec = 30 * USEC_PER_SEC };
	int e;

	if (u->call)
		return;
	loop_timer_stop(u->retry);
	e = httpc_start(u->r->c->loop, &o, relays_on_answer, u, &u->call);
	if (e < 0)
		relays_failed(u, strerror(-e));
}

static void relays_ask(struct relays *r)
{
	for (size_t i = 0; i < r->c->cfg.derp.urls.n; i++)
		relays_ask_url(&r->url[i]);
}

void relays_reload(struct relays *r)
{
	int e;

	relays_load_files(r);
	e = relays_publish(r);
	if (e < 0 && e != -ENOENT)
		log_warning_errno(e, "relays: cannot publish the map");
	relays_ask(r);
}

static void relays_on_again(void *data)
{
	struct relays *r = data;

	relays_reload(r);
	loop_timer_in(r->again, r->c->cfg.derp.update_sec * USEC_PER_SEC);
}

/* ---- the embedded one */

static enum relay_verdict relays_admit(void *data, uint64_t ticket, const struct key *node,
				       const struct addr *src)
{
	struct relays *r = data;

	(void)ticket;
	(void)src;
	return registry_node_by_key(&r->c->reg, node) ? RELAY_VERDICT_ADMIT : RELAY_VERDICT_REFUSE;
}

static int relays_embed(struct relays *r, struct tls_ctx *tls, char why[static STORE_WHY_MAX])
{
	const struct settings *cfg = &r->c->cfg;
	struct relay_config rc = { 0 };
	struct key_pair key;
	struct rlimit l;
	uint8_t cert[METACERT_MAX];
	int e = keyfile_load(cfg->derp.private_key_path, KEYFILE_LINE, &key);

	if (e < 0) {
		snprintf(why, STORE_WHY_MAX, "derp.server.private_key_path: %.150s: %s", cfg->derp.private_key_path,
			 e == -EPERM ? "others may read it: chmod 600" : strerror(-e));
		return e;
	}
	rc.key = &key;
	/* The rest of the descriptors is for nodes and people. */
	if (getrlimit(RLIMIT_NOFILE, &l) == 0)
		rc.max_clients = (unsigned int)MIN(l.rlim_cur / 2, (rlim_t)RELAY_CLIENTS_MAX);
	if (cfg->derp.verify_clients) {
		rc.admit = relays_admit;
		rc.admit_data = r;
	}
	e = relay_new(r->c->loop, &rc, &r->relay);
	if (e == 0 && tls) {
		int len = metacert_make(&key.pub, cert);

		if (len > 0)
			e = tls_server_append_cert(tls, cert, (size_t)len);
	}
	key_pair_wipe(&key);
	if (e < 0)
		return e;
	r->c->relay = r->relay;
	e = stund_new(r->c->loop, &cfg->derp.stun, NULL, &r->stun);
	if (e < 0)
		snprintf(why, STORE_WHY_MAX, "derp.server.stun_listen_addr: %.100s: %s",
			 cfg->derp.stun_listen_addr, strerror(-e));
	else if (!tls && !cfg->server_https)
		log_warning("relays: the embedded relay is on plain HTTP: stock clients speak TLS with relays "
			    "and will not reach it");
	return e;
}

int relays_new(struct coord *c, struct tls_ctx *tls, char why[static STORE_WHY_MAX], struct relays **ret)
{
	CLEANUP(relays_free) struct relays *r = calloc(1, sizeof(*r));
	const struct settings *cfg = &c->cfg;
	int e = 0;

	snprintf(why, STORE_WHY_MAX, "out of memory or descriptors");
	if (!r)
		return -ENOMEM;
	r->c = c;
	r->file = calloc(cfg->derp.paths.n + 1, sizeof(*r->file));
	r->url = calloc(cfg->derp.urls.n + 1, sizeof(*r->url));
	if (!r->file || !r->url)
		return -ENOMEM;
	e = relaykeep_new(c->loop, cfg->db_path, cfg->derp.urls.n + cfg->derp.paths.n, &r->keep);
	for (size_t i = 0; i < cfg->derp.urls.n && e == 0; i++) {
		r->url[i] = (struct relays_url){ .r = r, .url = cfg->derp.urls.v[i] };
		e = loop_timer_new(c->loop, relays_ask_url, &r->url[i], &r->url[i].retry);
	}
	if (e == 0 && cfg->derp.urls.n)
		e = tls_client_new(NULL, &r->client);
	if (e == 0 && cfg->derp.enabled)
		e = relays_embed(r, tls, why);
	if (e == 0)
		e = loop_timer_new(c->loop, relays_on_again, r, &r->again);
	if (e < 0)
		return e;
	relays_load_kept(r);
	relays_load_files(r);
	e = relays_publish(r);
	if (e == -ENOENT && cfg->derp.urls.n) {
		log_warning("relays: none is known until one of derp.urls has answered: nodes' maps wait for it");
		e = 0;
	}
	if (e < 0) {
		snprintf(why, STORE_WHY_MAX, e == -ENOENT ? "no relay in any of derp.paths, and clients need one" :
							    "cannot make the map of relays");
		return e;
	}
	relays_ask(r);
	if (cfg->derp.auto_update && cfg->derp.update_sec && (cfg->derp.urls.n || cfg->derp.paths.n))
		loop_timer_in(r->again, cfg->derp.update_sec * USEC_PER_SEC);
	*ret = TAKE(r);
	return 0;
}

void relays_free(struct relays *r)
{
	if (!r)
		return;
	for (size_t i = 0; r->url && i < r->c->cfg.derp.urls.n; i++) {
		httpc_cancel(r->url[i].call);
		loop_timer_free(r->url[i].retry);
		derp_map_done(&r->url[i].map);
	}
	for (size_t i = 0; r->file && i < r->c->cfg.derp.paths.n; i++)
		derp_map_done(&r->file[i]);
	r->c->relay = NULL;
	relaykeep_free(r->keep);
	loop_timer_free(r->again);
	stund_free(r->stun);
	relay_free(r->relay);
	tls_ctx_unref(r->client);
	free(r->file);
	free(r->url);
	free(r);
}
