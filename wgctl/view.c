#include "wgctl/view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "lib/addr.h"
#include "lib/json.h"
#include "wgctl/cli.h"
#include "wgctl/out.h"

static const char *str(const json_t *o, const char *name)
{
	const char *s = json_get_str(o, name);

	return s ? s : "";
}

static int64_t time_of(const json_t *o, const char *name)
{
	int64_t t = 0;

	return json_time_parse(str(o, name), &t) < 0 ? 0 : t;
}

static const char *first_ip(const json_t *peer)
{
	const char *s = json_string_value(json_array_get(json_get(peer, "TailscaleIPs"), 0));

	return s ? s : "";
}

/* Names */

static size_t trim_dots(const char *s)
{
	size_t n = strlen(s);

	while (n && s[n - 1] == '.')
		n--;
	return n;
}

/* Length of name without ".suffix" and dots at the end. */
static size_t base_name(const char *name, const char *suffix)
{
	size_t n = trim_dots(name), s;

	while (*suffix == '.')
		suffix++;
	s = trim_dots(suffix);
	if (s && n > s + 1 && name[n - s - 1] == '.' && !strncasecmp(name + n - s, suffix, s))
		return n - s - 1;
	return n;
}

void view_peer_name(const json_t *status, const json_t *peer, struct buf *out)
{
	const char *dns = str(peer, "DNSName");
	size_t n = base_name(dns, str(status, "MagicDNSSuffix"));

	if (n)
		buf_put(out, dns, n);
	else
		buf_printf(out, "(\"%s\")", str(peer, "HostName"));
}

static bool peer_is(const json_t *status, const json_t *peer, const char *what)
{
	const char *dns = str(peer, "DNSName");
	size_t len = strlen(what), n = trim_dots(dns),
	       base = base_name(dns, str(status, "MagicDNSSuffix"));
	struct addr want, have;
	const json_t *v;
	size_t i;

	if (addr_parse(what, len, &want) >= 0) {
		json_array_foreach (json_get(peer, "TailscaleIPs"), i, v) {
			const char *s = json_string_value(v);

			if (s && addr_parse(s, strlen(s), &have) >= 0 && addr_equal(&want, &have))
				return true;
		}
		return false;
	}
	len = trim_dots(what);
	if (!len)
		return false;
	if ((len == n || len == base) && !strncasecmp(dns, what, len))
		return true;
	return !n && !strcasecmp(str(peer, "HostName"), what);
}

/* This node as a map has it; before there is one, NULL: there is nothing to show. */
static const json_t *self_in_map(const json_t *status)
{
	const json_t *self = json_get(status, "Self");

	return json_is_object(self) && json_get_bool(self, "InNetworkMap", true) ? self : NULL;
}

const json_t *view_find(const json_t *status, const char *what, bool *ret_self)
{
	const json_t *self = self_in_map(status), *peers = json_get(status, "Peer"), *peer;
	const char *key;

	*ret_self = false;
	json_object_foreach ((json_t *)(uintptr_t)peers, key, peer) {
		if (peer_is(status, peer, what))
			return peer;
	}
	if (self && peer_is(status, self, what)) {
		*ret_self = true;
		return self;
	}
	return NULL;
}

/* status */

const char *view_not_running(const json_t *status, struct buf *out, int *ret_exit)
{
	const char *state = str(status, "BackendState"), *url = str(status, "AuthURL");

	*ret_exit = CLI_EXIT_GOOD;
	if (!strcmp(state, "Running") ||
	    (!strcmp(state, "Starting") && self_in_map(status)))
		return NULL;
	if (!strcmp(state, "Starting")) {
		/* Nothing is known of the mesh yet, so there is nothing to show. */
		*ret_exit = CLI_EXIT_LOGIN;
		buf_put_str(out, "Kernscale is starting, and not logged in");
		if (*str(status, "LoginServer")) {
			buf_put_str(out, " to ");
			out_safe(out, str(status, "LoginServer"));
		}
		buf_put_str(out, " yet");
	} else if (!strcmp(state, "Stopped")) {
		*ret_exit = CLI_EXIT_UNREACHABLE;
		buf_put_str(out, "Kernscale is stopped.");
	} else if (!strcmp(state, "NeedsLogin")) {
		*ret_exit = CLI_EXIT_LOGIN;
		buf_put_str(out, "Logged out.");
		if (*url) {
			buf_put_str(out, "\nLog in at: ");
			out_safe(out, url);
		}
	} else if (!strcmp(state, "NeedsMachineAuth")) {
		*ret_exit = CLI_EXIT_LOGIN;
		buf_put_str(out, "Machine is not yet approved by tailnet admin.");
	} else {
		*ret_exit = CLI_EXIT_FAILED;
		buf_put_str(out, "unexpected state: ");
		out_safe(out, state);
	}
	return buf_str(out);
}

void view_health(const json_t *status, struct buf *out)
{
	const json_t *lines = json_get(status, "Health"), *v;
	size_t i;

	if (!json_array_size(lines))
		return;
	buf_put_str(out, "# Health check:\n");
	json_array_foreach (lines, i, v) {
		const char *s = json_string_value(v);

		buf_put_str(out, "#     - ");
		out_safe(out, s ? s : "");
		buf_put_u8(out, '\n');
	}
}

static void put_owner(const json_t *status, const json_t *peer, struct out_table *t)
{
	int64_t id = json_get_int(peer, "UserID", 0);
	char key[24];
	const char *login, *at;
	const json_t *user;

	if (!id) {
		out_table_cell(t, "-");
		return;
	}
	snprintf(key, sizeof(key), "%" PRId64, id);
	user = json_get(json_get(status, "User"), key);
	login = user ? str(user, "LoginName") : key;
	at = strchr(login, '@');
	out_table_cellf(t, "%.*s", at ? (int)(at - login) + 1 : (int)strlen(login), login);
}

static void put_offline(const json_t *peer, int64_t now, const char *before, struct buf *b)
{
	int64_t seen = time_of(peer, "LastSeen");
	char age[OUT_DURATION_MAX];

	if (json_get_bool(peer, "Online", false))
		return;
	buf_printf(b, "%soffline", before);
	if (seen)
		buf_printf(b, ", last seen %s", out_age(now, seen, age));
}

static void put_active(const json_t *peer, int64_t now, struct buf *b)
{
	const char *relay = str(peer, "Relay"), *direct = str(peer, "CurAddr"),
		   *via = str(peer, "PeerRelay");

	buf_put_str(b, "active; ");
	if (json_get_bool(peer, "ExitNode", false))
		buf_put_str(b, "exit node; ");
	else if (json_get_bool(peer, "ExitNodeOption", false))
		buf_put_str(b, "offers exit node; ");
	if (*direct)
		buf_printf(b, "direct %s", direct);
	else if (*via)
		buf_printf(b, "peer-relay %s", via);
	else if (*relay)
		buf_printf(b, "relay \"%s\"", relay);
	put_offline(peer, now, "; ", b);
}

static void put_idle(const json_t *peer, int64_t now, bool traffic, struct buf *b)
{
	if (json_get_bool(peer, "ExitNode", false))
		buf_put_str(b, "idle; exit node");
	else if (json_get_bool(peer, "ExitNodeOption", false))
		buf_put_str(b, "idle; offers exit node");
	else if (traffic)
		buf_put_str(b, "idle");
	if (b->len)
		put_offline(peer, now, "; ", b);
	else
		put_offline(peer, now, "", b);
	if (!b->len)
		buf_put_str(b, "-");
}

/* The last column: what this peer does, how, and how much went through. */
static void peer_state(const json_t *peer, int64_t now, struct buf *b)
{
	int64_t tx = json_get_int(peer, "TxBytes", 0), rx = json_get_int(peer, "RxBytes", 0);
	bool traffic = tx || rx;

	if (json_get_bool(peer, "Active", false))
		put_active(peer, now, b);
	else
		put_idle(peer, now, traffic, b);
	if (json_get_bool(peer, "Expired", false))
		buf_put_str(b, "; key expired");
	if (traffic)
		buf_printf(b, ", tx %" PRId64 " rx %" PRId64, tx, rx);
}

static void put_peer(const json_t *status, const json_t *peer, int64_t now, struct out_table *t)
{
	struct buf name = { 0 }, state = { 0 };

	view_peer_name(status, peer, &name);
	peer_state(peer, now, &state);
	out_table_cell(t, first_ip(peer));
	out_table_cell(t, buf_str(&name));
	put_owner(status, peer, t);
	out_table_cell(t, str(peer, "OS"));
	out_table_cell(t, buf_str(&state));
	t->bad = t->bad || name.bad || state.bad;
	buf_done(&name);
	buf_done(&state);
}

static const char *sort_key(const json_t *peer)
{
	const char *s = str(peer, "DNSName");

	if (!*s)
		s = str(peer, "HostName");
	if (!*s)
		s = first_ip(peer);
	return *s ? s : str(peer, "PublicKey");
}

static int by_name(const void *a, const void *b)
{
	const json_t *const *x = a, *const *y = b;
	int r = strcmp(sort_key(*x), sort_key(*y));

	return r ? r : strcmp(str(*x, "PublicKey"), str(*y, "PublicKey"));
}

/* The peers to show, sorted; NULL with *ret_n 0 when there are none (or no memory: out goes
 * bad). */
static const json_t **sorted_peers(const json_t *status, bool active, size_t *ret_n,
				   struct buf *out)
{
	json_t *peers = json_get(status, "Peer");
	const json_t **v;
	const char *key;
	json_t *peer;
	size_t n = 0;

	*ret_n = 0;
	if (!json_object_size(peers))
		return NULL;
	v = calloc(json_object_size(peers), sizeof(const json_t *));
	if (!v) {
		out->bad = true;
		return NULL;
	}
	json_object_foreach (peers, key, peer) {
		if (json_is_object(peer) && (!active || json_get_bool(peer, "Active", false)))
			v[n++] = peer;
	}
	if (n)
		qsort(v, n, sizeof(*v), by_name);
	*ret_n = n;
	return v;
}

static void field(struct buf *b, const char *name, const char *value)
{
	if (!*value)
		return;
	buf_printf(b, "  %-16s ", name);
	out_safe(b, value);
	buf_put_u8(b, '\n');
}

static void field_buf(struct buf *b, const char *name, struct buf *value)
{
	const char *s = buf_str(value);

	if (s)
		field(b, name, s);
	else
		b->bad = true;
}

static void field_list(struct buf *b, const char *name, const json_t *list)
{
	struct buf t = { 0 };
	const json_t *v;
	size_t i;

	json_array_foreach (list, i, v) {
		buf_printf(&t, "%s%s", i ? ", " : "",
			   json_is_string(v) ? json_string_value(v) : "?");
	}
	field_buf(b, name, &t);
	buf_done(&t);
}

static void detail_times(const json_t *peer, int64_t now, struct buf *b)
{
	int64_t handshake = time_of(peer, "LastHandshake"), expiry = time_of(peer, "KeyExpiry");
	double latency = json_get_real(peer, "LatencySeconds", 0);
	char words[80], text[OUT_DURATION_MAX], when[40];

	if (latency > 0 && latency < 1e6)
		field(b, "Latency:", out_duration((int64_t)(latency * 1e4 + 0.5) * 100000, text));
	field(b, "Last handshake:",
	      handshake ? out_ago_words(out_since(now, handshake), words) : "never");
	if (expiry)
		field(b, "Key expires:", json_time_text(expiry, when));
}

static void detail_peer(const json_t *status, const json_t *peer, int64_t now, struct buf *b)
{
	struct buf t = { 0 };
	char rx[32], tx[32], transfer[80];
	const char *direct = str(peer, "CurAddr"), *relay = str(peer, "Relay"),
		   *path = str(peer, "Path"), *name;
	bool self = peer == json_get(status, "Self");

	view_peer_name(status, peer, &t);
	name = buf_str(&t);
	if (name)
		out_safe(b, name);
	else
		b->bad = true;
	buf_put_str(b, ":\n");
	buf_clear(&t);
	field_list(b, "Addresses:", json_get(peer, "TailscaleIPs"));
	field(b, "Public key:", str(peer, "PublicKey"));
	field_list(b, "Tags:", json_get(peer, "Tags"));
	if (self) { /* no path leads here, and nothing is counted */
		field_list(b, "Candidates:", json_get(peer, "Addrs"));
		buf_put_u8(b, '\n');
		buf_done(&t);
		return;
	}
	peer_state(peer, now, &t);
	field_buf(b, "Status:", &t);
	buf_clear(&t);
	if (!*direct && strcmp(path, "relay") != 0)
		relay = "";
	buf_printf(&t, "%s%s%s", path, *direct || *relay ? " " : "", *direct ? direct : relay);
	field_buf(b, "Path:", &t);
	field(b, "Reason:", str(peer, "Reason"));
	detail_times(peer, now, b);
	snprintf(transfer, sizeof(transfer), "%s received, %s sent",
		 out_bytes((uint64_t)json_get_int(peer, "RxBytes", 0), rx),
		 out_bytes((uint64_t)json_get_int(peer, "TxBytes", 0), tx));
	field(b, "Transfer:", transfer);
	field_list(b, "Allowed IPs:", json_get(peer, "AllowedIPs"));
	field_list(b, "Candidates:", json_get(peer, "Addrs"));
	buf_put_u8(b, '\n');
	buf_done(&t);
}

static void detail_node(const json_t *status, struct buf *b)
{
	const json_t *relay = json_get(status, "HomeRelay"),
		     *interface = json_get(status, "Interface"),
		     *filter = json_get(status, "PacketFilter");
	char text[192];

	field(b, "Daemon version:", str(status, "Version"));
	if (*str(status, "LoginServer")) {
		snprintf(text, sizeof(text), "%s, %s", str(status, "LoginServer"),
			 json_get_bool(status, "ControlConnected", false) ? "connected"
									  : "not connected");
		field(b, "Login server:", text);
	}
	if (*str(relay, "RegionCode")) {
		snprintf(text, sizeof(text), "%s, %s", str(relay, "RegionCode"),
			 json_get_bool(relay, "Connected", false) ? "connected" : "not connected");
		field(b, "Home relay:", text);
	} else {
		field(b, "Home relay:", "none");
	}
	snprintf(text, sizeof(text), "%s, kernel WireGuard, UDP port %" PRId64,
		 str(interface, "Name"), json_get_int(interface, "ListenPort", 0));
	field(b, "Interface:", text);
	field(b, "Packet filter:", str(filter, "State"));
}

static void view_filter(const json_t *status, struct buf *out)
{
	const json_t *filter = json_get(status, "PacketFilter");
	const char *why = str(filter, "Reason");

	if (strcmp(str(filter, "State"), "replies-only") != 0)
		return;
	buf_put_str(out, "\n# Packet filter: only replies are let in");
	if (*why) {
		buf_put_str(out, ": ");
		out_safe(out, why);
	}
	buf_put_u8(out, '\n');
}

static void view_details(const json_t *status, const struct view_status *o, const json_t **v,
			 size_t n, struct buf *out)
{
	size_t online = 0;
	const json_t *self = self_in_map(status);

	buf_put_u8(out, '\n');
	if (self && o->self)
		detail_peer(status, self, o->now_unix_nsec, out);
	for (size_t i = 0; i < n; i++) {
		online += json_get_bool(v[i], "Online", false);
		detail_peer(status, v[i], o->now_unix_nsec, out);
	}
	detail_node(status, out);
	if (o->peers)
		buf_printf(out, "  %-16s %zu, %zu online\n", "Peers:", n, online);
}

/* Green for a direct path, yellow for a relay, faint for who is away: only the line's last
 * column. */
static void put_colored(const struct buf *plain, struct buf *out)
{
	const char *p = (const char *)buf_data(plain), *end = p + plain->len;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = nl ? (size_t)(nl - p) : (size_t)(end - p);
		const char *at = memmem(p, n, "active; ", 8), *color = NULL;

		if (at && memmem(at, n - (size_t)(at - p), "direct ", 7))
			color = "\033[32m";
		else if (at)
			color = "\033[33m";
		else if ((at = memmem(p, n, "offline", 7)) != NULL)
			color = "\033[2m";
		if (color) {
			buf_put(out, p, (size_t)(at - p));
			buf_put_str(out, color);
			buf_put(out, at, n - (size_t)(at - p));
			buf_put_str(out, "\033[0m");
		} else {
			buf_put(out, p, n);
		}
		if (nl)
			buf_put_u8(out, '\n');
		p += n + 1;
	}
}

void view_status(const json_t *status, const struct view_status *o, struct buf *out)
{
	static const char *const header[] = { "IP", "Hostname", "Owner", "OS", "Status",
					      "--", "--------", "-----", "--", "------" };
	CLEANUP(free) const json_t **v = NULL;
	const json_t *self = self_in_map(status);
	struct buf table = { 0 };
	struct out_table t;
	size_t n = 0;

	out_table_init(&t, 5);
	for (size_t i = 0; o->header && i < ARRAY_SIZE(header); i++)
		out_table_cell(&t, header[i]);
	if (o->self && self)
		put_peer(status, self, o->now_unix_nsec, &t);
	if (o->peers)
		v = sorted_peers(status, o->active, &n, out);
	for (size_t i = 0; i < n; i++)
		put_peer(status, v[i], o->now_unix_nsec, &t);
	out_table_print(&t, "  ", &table);
	out_table_done(&t);
	if (table.bad)
		out->bad = true;
	else if (o->color)
		put_colored(&table, out);
	else
		buf_put(out, buf_data(&table), table.len);
	buf_done(&table);
	if (o->detail)
		view_details(status, o, v, n, out);
	view_filter(status, out);
	if (json_array_size(json_get(status, "Health"))) {
		buf_put_u8(out, '\n');
		view_health(status, out);
	}
}

/* ping */

void view_pong(const json_t *pong, struct buf *out, bool *ret_direct)
{
	const char *endpoint = str(pong, "Endpoint");
	double sec = json_get_real(pong, "LatencySeconds", 0);
	char text[OUT_DURATION_MAX];

	if (!(sec >= 0 && sec < 1e6))
		sec = 0;
	*ret_direct = *endpoint;
	buf_put_str(out, "pong from ");
	out_safe(out, str(pong, "NodeName"));
	buf_put_str(out, " (");
	out_safe(out, str(pong, "NodeIP"));
	buf_put_str(out, ") via ");
	if (*endpoint) {
		out_safe(out, endpoint);
	} else {
		buf_put_str(out, "DERP(");
		out_safe(out, str(pong, "DERPRegionCode"));
		buf_put_u8(out, ')');
	}
	buf_printf(out, " in %s\n", out_duration((int64_t)(sec * 1e3 + 0.5) * 1000000, text));
}

/* netcheck */

static const char *tri(const json_t *o, const char *name)
{
	const json_t *v = json_get(o, name);

	return !json_is_boolean(v) ? "" : json_is_true(v) ? "true" : "false";
}

static void put_time(const json_t *report, struct buf *out)
{
	int64_t t = time_of(report, "Now");
	time_t sec = t / 1000000000;
	long nsec = t % 1000000000;
	char text[40], fraction[16] = "";
	struct tm tm = { 0 };
	size_t n;

	localtime_r(&sec, &tm);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	if (nsec)
		snprintf(fraction, sizeof(fraction), ".%09ld", nsec);
	for (n = strlen(fraction); n && fraction[n - 1] == '0'; n--)
		fraction[n - 1] = '\0';
	buf_printf(out, "\t* Time: %s%s", text, fraction);
	if (tm.tm_gmtoff == 0)
		buf_put_str(out, "Z\n");
	else
		buf_printf(out, "%c%02ld:%02ld\n", tm.tm_gmtoff < 0 ? '-' : '+',
			   labs(tm.tm_gmtoff) / 3600, labs(tm.tm_gmtoff) / 60 % 60);
}

static void put_families(const json_t *report, struct buf *out)
{
	const char *v4 = str(report, "GlobalV4"), *v6 = str(report, "GlobalV6");

	buf_put_str(out, "\t* IPv4: ");
	if (*v4)
		buf_put_str(out, "yes, "), out_safe(out, v4);
	else
		buf_put_str(out, "(no addr found)");
	buf_put_str(out, "\n\t* IPv6: ");
	if (*v6)
		buf_put_str(out, "yes, "), out_safe(out, v6);
	else if (json_get_bool(report, "IPv6", false))
		buf_put_str(out, "(no addr found)");
	else if (json_get_bool(report, "OSHasIPv6", false))
		buf_put_str(out, "no, but OS has support");
	else
		buf_put_str(out, "no, unavailable in OS");
	buf_put_u8(out, '\n');
}

static void put_port_mapping(const json_t *report, struct buf *out)
{
	static const struct {
		const char *key, *name;
	} kinds[] = { { "UPnP", "UPnP" }, { "PMP", "NAT-PMP" }, { "PCP", "PCP" } };
	const char *between = "";
	bool checked = false;

	buf_put_str(out, "\t* PortMapping: ");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		checked |= json_is_boolean(json_get(report, kinds[i].key));
		if (!json_get_bool(report, kinds[i].key, false))
			continue;
		buf_printf(out, "%s%s", between, kinds[i].name);
		between = ", ";
	}
	buf_printf(out, "%s\n", checked ? "" : "not checked");
}

struct region {
	long id;
	int64_t nsec; /* 0 = no answer */
	const char *code, *name;
};

static int by_latency(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	if (!x->nsec != !y->nsec)
		return !x->nsec ? 1 : -1;
	if (x->nsec != y->nsec)
		return x->nsec < y->nsec ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static size_t column_pad(const char *s, size_t width)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n < width ? width - n : 0;
}

static void put_region(const struct region *g, bool verbose, struct buf *out)
{
	char latency[OUT_DURATION_MAX] = "";

	if (g->nsec)
		out_duration((g->nsec + 50000) / 100000 * 100000, latency);
	buf_printf(out, "\t\t- %*s", (int)column_pad(g->code, 3), "");
	out_safe(out, g->code);
	buf_printf(out, ": %s%*s (", latency, (int)column_pad(latency, 7), "");
	if (verbose)
		buf_printf(out, "derp%ld, ", g->id);
	out_safe(out, g->name);
	buf_put_str(out, ")\n");
}

static void put_regions(const json_t *report, bool verbose, struct buf *out)
{
	json_t *regions = json_get(report, "Regions");
	const json_t *latency = json_get(report, "RegionLatency");
	CLEANUP(free) struct region *v = calloc(json_object_size(regions) + 1, sizeof(*v));
	const char *key;
	json_t *region;
	size_t n = 0;

	if (!v) {
		out->bad = true;
		return;
	}
	buf_put_str(out, "\t* DERP latency:\n");
	json_object_foreach (regions, key, region) {
		v[n].id = strtol(key, NULL, 10);
		v[n].nsec = MIN(MAX(json_get_int(latency, key, 0), 0), INT64_C(1000000000000));
		v[n].code = str(region, "RegionCode");
		v[n++].name = str(region, "RegionName");
	}
	qsort(v, n, sizeof(*v), by_latency);
	for (size_t i = 0; i < n; i++)
		put_region(&v[i], verbose, out);
}

void view_netcheck(const json_t *report, bool verbose, struct buf *out)
{
	int64_t home = json_get_int(report, "PreferredDERP", 0);
	const json_t *regions = json_get(report, "Regions"), *region;
	bool any = json_object_size(json_get(report, "RegionLatency"));
	char key[24];

	buf_put_str(out, "\nReport:\n");
	put_time(report, out);
	buf_printf(out, "\t* UDP: %s\n", tri(report, "UDP"));
	put_families(report, out);
	buf_printf(out, "\t* MappingVariesByDestIP: %s\n", tri(report, "MappingVariesByDestIP"));
	put_port_mapping(report, out);
	if (*tri(report, "CaptivePortal"))
		buf_printf(out, "\t* CaptivePortal: %s\n", tri(report, "CaptivePortal"));
	snprintf(key, sizeof(key), "%" PRId64, home);
	region = json_get(regions, key);
	buf_put_str(out, "\t* Nearest DERP: ");
	if (!any)
		buf_put_str(out, "unknown (no response to latency probes)");
	else if (!home)
		buf_put_str(out, "[none]");
	else if (region)
		out_safe(out, str(region, "RegionName"));
	else
		buf_printf(out, "%s (region not found in map)", key);
	buf_put_u8(out, '\n');
	if (any)
		put_regions(report, verbose, out);
}

/* whois */

void view_whois(const json_t *who, struct buf *out)
{
	const json_t *node = json_get(who, "Node"), *user = json_get(who, "UserProfile");
	const char *name = str(node, "Name");
	char text[300];

	buf_put_str(out, "Machine:\n");
	snprintf(text, sizeof(text), "%.*s", (int)MIN(trim_dots(name), sizeof(text) - 1), name);
	field(out, "Name:", text);
	field(out, "ID:", str(node, "StableID"));
	field_list(out, "Addresses:", json_get(node, "Addresses"));
	if (json_array_size(json_get(node, "Tags"))) {
		field_list(out, "Tags:", json_get(node, "Tags"));
		return;
	}
	buf_put_str(out, "User:\n");
	field(out, "Name:", str(user, "LoginName"));
	snprintf(text, sizeof(text), "%" PRId64, json_get_int(user, "ID", 0));
	field(out, "ID:", text);
}
