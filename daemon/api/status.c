#include "daemon/api/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/json.h"

#define NSEC_PER_SEC	  INT64_C(1000000000)
#define EXPIRES_SOON_NSEC (7 * INT64_C(86400) * NSEC_PER_SEC)

const char *api_backend_state_name(enum api_backend_state s)
{
	switch (s) {
	case API_STATE_NO_STATE:
		return "NoState";
	case API_STATE_NEEDS_LOGIN:
		return "NeedsLogin";
	case API_STATE_NEEDS_MACHINE_AUTH:
		return "NeedsMachineAuth";
	case API_STATE_STOPPED:
		return "Stopped";
	case API_STATE_STARTING:
		return "Starting";
	case API_STATE_RUNNING:
		return "Running";
	}
	unreachable();
}

const char *api_path_name(enum api_path p)
{
	switch (p) {
	case API_PATH_NONE:
		return "none";
	case API_PATH_RELAY:
		return "relay";
	case API_PATH_DIRECT:
		return "direct";
	case API_PATH_DOUBTFUL:
		return "doubtful";
	}
	unreachable();
}

static const char *filter_name(enum api_filter f)
{
	switch (f) {
	case API_FILTER_NONE:
		return "none";
	case API_FILTER_ALLOW_ALL:
		return "allow-all";
	case API_FILTER_ENFORCED:
		return "enforced";
	case API_FILTER_REPLIES_ONLY:
		return "replies-only";
	}
	unreachable();
}

/* Text that came over the wire may be any bytes; jansson refuses what is no UTF-8. */
static json_t *text(const char *s)
{
	json_t *j = json_string(s ? s : "");

	return j ? j : json_string("");
}

static json_t *time_json(int64_t unix_nsec)
{
	char out[40];

	return json_string(json_time_text(unix_nsec, out));
}

static json_t *addrs_json(const struct addr *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_addr(&v[i]));
	return a;
}

static json_t *prefixes_json(const struct prefix *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_prefix(&v[i]));
	return a;
}

static json_t *endpoints_json(const struct endpoint *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_endpoint(&v[i]));
	return a;
}

static json_t *texts_json(const char *const *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, text(v[i]));
	return a;
}

/* Fully qualified, as stock prints it: with the dot at the end. */
static json_t *dns_name_json(const char *name)
{
	size_t n = name ? strlen(name) : 0;

	json_t *j = json_sprintf("%s%s", n ? name : "", n && name[n - 1] != '.' ? "." : "");

	return j ? j : json_string("");
}

json_t *api_status_peer_json(const struct api_status_peer *p)
{
	CLEANUP(json_decref) json_t *o = json_object();
	int bad = 0;

#define PUT(name, value) bad |= json_object_set_new(o, name, value)
	PUT("ID", text(p->stable_id));
	PUT("NodeID", json_integer(p->node_id));
	PUT("PublicKey", json_key(KEY_KIND_NODE, &p->pub));
	PUT("HostName", text(p->hostname));
	PUT("DNSName", dns_name_json(p->dns_name));
	PUT("OS", text(p->os));
	PUT("UserID", json_integer(p->user_id));
	PUT("TailscaleIPs", addrs_json(p->addrs, p->n_addrs));
	PUT("AllowedIPs", prefixes_json(p->allowed, p->n_allowed));
	if (p->n_tags)
		PUT("Tags", texts_json(p->tags, p->n_tags));
	if (p->n_primary_routes)
		PUT("PrimaryRoutes", prefixes_json(p->primary_routes, p->n_primary_routes));
	PUT("Addrs", endpoints_json(p->endpoints, p->n_endpoints));
	PUT("CurAddr", p->current.addr.family ? json_endpoint(&p->current) : text(""));
	PUT("Relay", text(p->relay));
	PUT("PeerRelay", text(""));
	PUT("RxBytes", json_integer((json_int_t)p->rx_bytes));
	PUT("TxBytes", json_integer((json_int_t)p->tx_bytes));
	PUT("Created", time_json(p->created));
	PUT("LastWrite", time_json(p->last_write));
	PUT("LastSeen", time_json(p->last_seen));
	PUT("LastHandshake", time_json(p->last_handshake));
	PUT("Online", json_boolean(p->online));
	PUT("ExitNode", json_boolean(p->exit_node));
	PUT("ExitNodeOption", json_boolean(p->exit_node_option));
	PUT("Active", json_boolean(p->active));
	PUT("PeerAPIURL", json_array());
	PUT("Capabilities", json_array());
	PUT("CapMap", json_object());
	PUT("InNetworkMap", json_boolean(p->node_id));
	PUT("InMagicSock", json_boolean(p->in_engine));
	PUT("InEngine", json_boolean(p->in_engine));
	if (p->expired)
		PUT("Expired", json_true());
	if (p->key_expiry)
		PUT("KeyExpiry", time_json(p->key_expiry));
	PUT("Path", text(api_path_name(p->path)));
	PUT("LatencySeconds", json_real((double)p->latency_usec / 1e6));
	PUT("Reason", text(p->reason));
#undef PUT
	return bad ? NULL : TAKE(o);
}

static json_t *tailnet_json(const struct api_status_input *in)
{
	if (!in->tailnet_name)
		return json_null();
	return json_pack("{s:o,s:o,s:b}", "Name", text(in->tailnet_name), "MagicDNSSuffix",
			 text(in->magic_dns_suffix), "MagicDNSEnabled", in->magic_dns_enabled);
}

static json_t *user_json(const struct api_status_user *u)
{
	return json_pack("{s:I,s:o,s:o,s:o}", "ID", (json_int_t)u->id, "LoginName",
			 text(u->login_name), "DisplayName", text(u->display_name), "ProfilePicURL",
			 text(u->profile_pic_url));
}

static json_t *users_json(const struct api_status_input *in)
{
	json_t *o = json_object();

	for (size_t i = 0; i < in->n_users; i++) {
		char id[24];

		snprintf(id, sizeof(id), "%lld", (long long)in->users[i].id);
		json_object_set_new(o, id, user_json(&in->users[i]));
	}
	return o;
}

/* Everything but Peer{}, which is spliced in at the end. */
static json_t *head_json(const struct api_status_input *in, bool hide_auth_url)
{
	CLEANUP(json_decref) json_t *o = json_object();
	int bad = 0;

#define PUT(name, value) bad |= json_object_set_new(o, name, value)
	PUT("schema", json_integer(API_SCHEMA));
	PUT("Version", text(in->version));
	PUT("TUN", json_true());
	PUT("BackendState", text(api_backend_state_name(in->state)));
	PUT("HaveNodeKey", json_boolean(in->have_node_key));
	PUT("AuthURL", text(hide_auth_url ? NULL : in->auth_url));
	PUT("TailscaleIPs",
	    in->have_self ? addrs_json(in->self.addrs, in->self.n_addrs) : json_array());
	PUT("Self", api_status_peer_json(&in->self));
	PUT("ExitNodeStatus", json_null());
	PUT("Health", texts_json(in->health, in->n_health));
	PUT("MagicDNSSuffix", text(in->magic_dns_suffix));
	PUT("CurrentTailnet", tailnet_json(in));
	PUT("CertDomains", json_array());
	PUT("ExtraRecords", json_array());
	PUT("User", users_json(in));
	PUT("ClientVersion", json_null());
	PUT("LoginServer", text(in->login_server));
	PUT("ControlConnected", json_boolean(in->control_connected));
	PUT("Interface",
	    json_pack("{s:o,s:i}", "Name", text(in->interface), "ListenPort", in->port));
	PUT("PacketFilter", json_pack("{s:o,s:o}", "State", text(filter_name(in->filter)), "Reason",
				      text(in->filter == API_FILTER_REPLIES_ONLY ? in->filter_reason : NULL)));
	PUT("HomeRelay",
	    json_pack("{s:i,s:o,s:b}", "RegionID", in->home_relay_id, "RegionCode",
		      text(in->home_relay_code), "Connected", in->home_relay_connected));
#undef PUT
	return bad ? NULL : TAKE(o);
}

static int peers_write(const struct api_status_input *in, struct buf *out)
{
	bool first = true;
	int r;

	for (size_t i = 0; i < in->n_peers; i++) {
		CLEANUP(json_decref) json_t *o = NULL;
		struct api_status_peer p = { 0 };
		char key[KEY_TEXT_MAX];

		if (!in->peer(in->data, i, &p))
			continue;
		o = api_status_peer_json(&p);
		if (!o)
			return -ENOMEM;
		buf_printf(out, "%s\"%s\":", first ? "" : ",",
			   key_text(KEY_KIND_NODE, &p.pub, key));
		r = json_write(o, out);
		if (r < 0)
			return r;
		first = false;
	}
	return 0;
}

bool api_expiry_health(int64_t expiry, int64_t now, char *ret, size_t max)
{
	time_t at = (time_t)(expiry / NSEC_PER_SEC);
	char when[32];
	struct tm tm;

	if (expiry <= now || expiry - now > EXPIRES_SOON_NSEC || !gmtime_r(&at, &tm))
		return false;
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M UTC", &tm);
	snprintf(ret, max, "The node key expires at %s, and this node leaves the mesh; log in again before: "
		 "wgctl up --force-reauth", when);
	return true;
}

int api_status_write(const struct api_status_input *in, bool with_peers, bool hide_auth_url,
		     struct buf *out)
{
	CLEANUP(json_decref) json_t *head = head_json(in, hide_auth_url);
	int r;

	if (!head)
		return -ENOMEM;
	r = json_write(head, out);
	if (r < 0)
		return r;
	if (!out->bad && out->len)
		out->len--; /* the closing brace comes again behind the peers */
	buf_put_str(out, ",\"Peer\":{");
	if (with_peers) {
		r = peers_write(in, out);
		if (r < 0)
			return r;
	}
	buf_put_str(out, "}}");
	return out->bad ? -ENOBUFS : 0;
}

static json_t *single_prefixes_json(const struct addr *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++) {
		struct prefix p = prefix_of(&v[i]);

		json_array_append_new(a, json_prefix(&p));
	}
	return a;
}

json_t *api_whois_json(const struct api_status_peer *p, const struct api_status_user *user)
{
	static const struct api_status_user nobody = { 0 };
	CLEANUP(json_decref) json_t *node = json_object();
	int bad = 0;

#define PUT(name, value) bad |= json_object_set_new(node, name, value)
	PUT("ID", json_integer(p->node_id));
	PUT("StableID", text(p->stable_id));
	PUT("Name", dns_name_json(p->dns_name));
	PUT("User", json_integer(p->user_id));
	PUT("Key", json_key(KEY_KIND_NODE, &p->pub));
	PUT("KeyExpiry", time_json(p->key_expiry));
	PUT("Addresses", single_prefixes_json(p->addrs, p->n_addrs));
	PUT("AllowedIPs", prefixes_json(p->allowed, p->n_allowed));
	if (p->n_tags)
		PUT("Tags", texts_json(p->tags, p->n_tags));
	PUT("Hostinfo", json_pack("{s:o,s:o}", "OS", text(p->os), "Hostname", text(p->hostname)));
	PUT("Created", time_json(p->created));
	PUT("Online", json_boolean(p->online));
	PUT("ComputedName", text(p->hostname));
#undef PUT
	if (bad)
		return NULL;
	return json_pack("{s:i,s:O,s:o,s:{}}", "schema", API_SCHEMA, "Node", node, "UserProfile",
			 user_json(user ? user : &nobody), "CapMap");
}
