#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/api/api.h"
#include "lib/json.h"

const char *api_code_name(enum api_code c)
{
	switch (c) {
	case API_CODE_FAILED:
		return "failed";
	case API_CODE_USAGE:
		return "usage";
	case API_CODE_UNSUPPORTED:
		return "unsupported";
	case API_CODE_NOT_FOUND:
		return "not-found";
	case API_CODE_NOT_RUNNING:
		return "not-running";
	case API_CODE_NEEDS_LOGIN:
		return "needs-login";
	case API_CODE_NEEDS_APPROVAL:
		return "needs-approval";
	case API_CODE_TIMEOUT:
		return "timeout";
	case API_CODE_REFUSED:
		return "refused";
	case API_CODE_BUSY:
		return "busy";
	}
	unreachable();
}

int api_code_http(enum api_code c)
{
	switch (c) {
	case API_CODE_FAILED:
		return 500;
	case API_CODE_USAGE:
		return 400;
	case API_CODE_UNSUPPORTED:
		return 501;
	case API_CODE_NOT_FOUND:
		return 404;
	case API_CODE_NOT_RUNNING:
	case API_CODE_NEEDS_LOGIN:
	case API_CODE_NEEDS_APPROVAL:
		return 409;
	case API_CODE_TIMEOUT:
		return 504;
	case API_CODE_REFUSED:
		return 403;
	case API_CODE_BUSY:
		return 503;
	}
	unreachable();
}

void api_error_set(struct api_error *e, enum api_code code, const char *remedy, const char *fmt,
		   ...)
{
	va_list ap;

	e->code = code;
	snprintf(e->remedy, sizeof(e->remedy), "%s", remedy ? remedy : "");
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
}

/* A text that may hold anything as a JSON string; what is no UTF-8 loses its high bytes. */
static json_t *any_text(const char *s)
{
	char ascii[512];
	json_t *j = json_string(s);
	size_t n = 0;

	if (j)
		return j;
	for (; *s && n + 1 < sizeof(ascii); s++)
		ascii[n++] = (unsigned char)*s < 0x80 ? *s : '?';
	ascii[n] = '\0';
	return json_string(ascii);
}

json_t *api_error_json(const struct api_error *e)
{
	return json_pack("{s:i,s:o,s:o,s:s}", "schema", API_SCHEMA, "error", any_text(e->text),
			 "remedy", any_text(e->remedy), "code", api_code_name(e->code));
}

json_t *api_state_json(const struct api_state *s)
{
	json_t *addrs = json_array();

	for (size_t i = 0; i < s->n_addrs; i++)
		json_array_append_new(addrs, json_addr(&s->addrs[i]));
	return json_pack("{s:i,s:s,s:o,s:o}", "schema", API_SCHEMA, "BackendState",
			 api_backend_state_name(s->state), "AuthURL",
			 any_text(s->auth_url ? s->auth_url : ""), "TailscaleIPs", addrs);
}

json_t *api_pong_json(const struct api_pong *p)
{
	bool direct = p->endpoint.addr.family;

	return json_pack("{s:o,s:o,s:f,s:o,s:i,s:o}", "NodeIP", json_addr(&p->node_ip), "NodeName",
			 any_text(p->node_name ? p->node_name : ""), "LatencySeconds",
			 (double)p->latency_usec / 1e6, "Endpoint",
			 direct ? json_endpoint(&p->endpoint) : json_string(""), "DERPRegionID",
			 direct ? 0 : p->derp_region, "DERPRegionCode",
			 any_text(!direct && p->derp_code ? p->derp_code : ""));
}

static json_t *tri_json(int v)
{
	return v < 0 ? json_null() : json_boolean(v);
}

enum which { WHICH_BEST, WHICH_V4, WHICH_V6 };

static json_t *latencies_json(const struct api_netcheck *n, enum which which)
{
	json_t *o = json_object();

	for (size_t i = 0; i < n->n_regions; i++) {
		const struct api_netcheck_region *r = &n->regions[i];
		uint64_t usec = which == WHICH_BEST ? r->latency_usec
				: which == WHICH_V4 ? r->v4_usec
						    : r->v6_usec;
		char id[16];

		if (!usec)
			continue;
		snprintf(id, sizeof(id), "%d", r->id);
		json_object_set_new(
		    o, id, json_integer((json_int_t)usec * 1000)); /* nanoseconds, as stock */
	}
	return o;
}

static json_t *regions_json(const struct api_netcheck *n)
{
	json_t *o = json_object();

	for (size_t i = 0; i < n->n_regions; i++) {
		const struct api_netcheck_region *r = &n->regions[i];
		char id[16];

		snprintf(id, sizeof(id), "%d", r->id);
		json_object_set_new(o, id,
				    json_pack("{s:o,s:o}", "RegionCode",
					      any_text(r->code ? r->code : ""), "RegionName",
					      any_text(r->name ? r->name : "")));
	}
	return o;
}

static json_t *counters_json(const struct endpoint *e)
{
	char at[ENDPOINT_TEXT_MAX];

	if (!e->addr.family)
		return json_null();
	return json_pack("{s:i}", endpoint_text(e, at), 1);
}

static json_t *global_json(const struct endpoint *e)
{
	return e->addr.family ? json_endpoint(e) : json_string("");
}

json_t *api_netcheck_json(const struct api_netcheck *n)
{
	CLEANUP(json_decref) json_t *o = json_object();
	char now[40];
	int bad = 0;

#define PUT(name, value) bad |= json_object_set_new(o, name, value)
	PUT("schema", json_integer(API_SCHEMA));
	PUT("Now", json_string(json_time_text(n->now_unix_nsec, now)));
	PUT("UDP", json_boolean(n->udp));
	PUT("IPv6", json_boolean(n->ipv6));
	PUT("IPv4", json_boolean(n->ipv4));
	PUT("IPv6CanSend", json_boolean(n->ipv6_can_send));
	PUT("IPv4CanSend", json_boolean(n->ipv4_can_send));
	PUT("OSHasIPv6", json_boolean(n->os_has_ipv6));
	PUT("ICMPv4", json_boolean(n->icmpv4));
	PUT("MappingVariesByDestIP", tri_json(n->mapping_varies));
	PUT("UPnP", tri_json(n->upnp));
	PUT("PMP", tri_json(n->pmp));
	PUT("PCP", tri_json(n->pcp));
	PUT("PreferredDERP", json_integer(n->preferred_derp));
	PUT("RegionLatency", latencies_json(n, WHICH_BEST));
	PUT("RegionV4Latency", latencies_json(n, WHICH_V4));
	PUT("RegionV6Latency", latencies_json(n, WHICH_V6));
	PUT("GlobalV4Counters", counters_json(&n->global_v4));
	PUT("GlobalV6Counters", counters_json(&n->global_v6));
	PUT("GlobalV4", global_json(&n->global_v4));
	PUT("GlobalV6", global_json(&n->global_v6));
	PUT("CaptivePortal", tri_json(n->captive_portal));
	PUT("Regions", regions_json(n));
#undef PUT
	return bad ? NULL : TAKE(o);
}

enum api_verdict api_judge(const struct api_state *s, enum api_wish wish, struct api_error *err)
{
	if (s->state == API_STATE_RUNNING && s->n_addrs)
		return API_VERDICT_ANSWER;
	if (wish == API_WISH_RUNNING)
		return API_VERDICT_WAIT;
	if (s->failed) {
		*err = s->error;
		return API_VERDICT_FAIL;
	}
	if (s->state == API_STATE_STOPPED) {
		api_error_set(err, API_CODE_NOT_RUNNING, "wgctl up",
			      "the mesh was stopped meanwhile");
		return API_VERDICT_FAIL;
	}
	if (wish == API_WISH_PROGRESS &&
	    ((s->state == API_STATE_NEEDS_LOGIN && s->auth_url && *s->auth_url) ||
	     s->state == API_STATE_NEEDS_MACHINE_AUTH))
		return API_VERDICT_ANSWER;
	return API_VERDICT_WAIT;
}
