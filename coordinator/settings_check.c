#include "coordinator/settings_check.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* "0.0.0.0:8080", "[::]:8080", ":8080" (all addresses, as Go programs write it). */
static int settings_listen_parse(const char *s, struct endpoint *ret)
{
	char text[ENDPOINT_TEXT_MAX + 8];

	if (*s == ':')
		snprintf(text, sizeof(text), "[::]%s", s);
	else if (!strncmp(s, "localhost:", 10))
		snprintf(text, sizeof(text), "127.0.0.1:%s", s + 10);
	else
		snprintf(text, sizeof(text), "%s", s);
	return endpoint_parse(text, strlen(text), ret);
}

static void settings_check_url(struct settings *c, struct settings_report *rep)
{
	char *u = c->server_url;
	const char *host, *end, *colon;
	uint32_t port;
	size_t n;

	for (n = strlen(u); n && u[n - 1] == '/'; n--)
		u[n - 1] = '\0';
	c->server_https = !strncmp(u, "https://", 8);
	if (!c->server_https && strncmp(u, "http://", 7)) {
		settings_problem(rep, "server_url: '%s' must begin with https:// or http://", u);
		return;
	}
	host = strchr(u, ':') + 3;
	if (strchr(host, '/') || strchr(host, '@') || strchr(host, '?')) {
		settings_problem(rep, "server_url: '%s' must be scheme, host and port only", u);
		return;
	}
	end = *host == '[' ? strchr(host, ']') : host + strcspn(host, ":");
	if (!end || end == host || (*host == '[' && (end[1] != ':' && end[1]))) {
		settings_problem(rep, "server_url: '%s' names no host", u);
		return;
	}
	colon = *host == '[' ? end + 1 : end;
	port = c->server_https ? 443 : 80;
	if (*colon && (settings_read_number(colon + 1, 10, 65535, &port) < 0 || !port))
		settings_problem(rep, "server_url: '%s' has no valid port", u);
	c->server_port = (uint16_t)port;
	c->server_host = *host == '[' ? strndup(host + 1, (size_t)(end - host - 1)) :
					strndup(host, (size_t)(end - host));
}

static bool settings_domain_ok(const char *d)
{
	size_t label = 0, n = strlen(d);

	if (n > 200)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (d[i] == '.') {
			if (!label)
				return false;
			label = 0;
			continue;
		}
		if (!isalnum((unsigned char)d[i]) && d[i] != '-' && d[i] != '_')
			return false;
		if (++label > 63)
			return false;
	}
	return label > 0;
}

static void settings_check_dns(struct settings *c, struct settings_report *rep)
{
	char *d = c->dns.base_domain;
	size_t n = strlen(d), h = c->server_host ? strlen(c->server_host) : 0;

	if (n && d[n - 1] == '.')
		d[--n] = '\0';
	for (size_t i = 0; i < n; i++)
		d[i] = (char)tolower((unsigned char)d[i]);
	if (!n && c->dns.magic)
		settings_problem(rep, "dns.base_domain: needed when dns.magic_dns is true");
	if (n && !settings_domain_ok(d))
		settings_problem(rep, "dns.base_domain: '%s' is not a domain name", d);
	if (n && h >= n && !strcasecmp(c->server_host + h - n, d) &&
	    (h == n || c->server_host[h - n - 1] == '.'))
		settings_problem(rep, "dns.base_domain: '%s' must not contain the server's own name %s: clients "
				    "would look for the server inside the mesh", d, c->server_host);
	if (c->dns.override_local && !c->dns.global.n)
		settings_problem(rep, "dns.override_local_dns: true needs dns.nameservers.global");
}

static void settings_check_prefix(const char *name, struct prefix *p, const char *parent,
				struct settings_report *rep)
{
	struct prefix masked, up;

	if (!p->addr.family)
		return;
	masked = prefix_masked(p);
	prefix_parse(parent, strlen(parent), &up);
	if (p->addr.family != up.addr.family)
		settings_problem(rep, "%s: not a prefix of that family", name);
	else if (p->bits > addr_bits(&p->addr) - 2)
		settings_problem(rep, "%s: a prefix of /%u has no room for nodes", name, p->bits);
	else if (!prefix_contains(&up, &p->addr) || p->bits < up.bits)
		settings_warn(rep, "%s is not inside %s: stock clients may not route it", name, parent);
	*p = masked;
}

/* The policy language comes later. Until then a policy that says something must stop the start. */
static void settings_check_policy(struct settings *c, struct settings_report *rep)
{
	CLEANUP(fd_close) int fd = -1;
	char text[4096];
	ssize_t n;

	if (!c->policy_path || !*c->policy_path)
		return;
	fd = open(c->policy_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		settings_problem(rep, "policy.path: %s: %s", c->policy_path, strerror(errno));
		return;
	}
	n = read(fd, text, sizeof(text));
	for (ssize_t i = 0; i < n; i++) {
		if (!isspace((unsigned char)text[i])) {
			settings_problem(rep, "policy.path: policies are not supported yet, and ignoring %s would let "
					    "everything through: empty the file or remove the key to allow all",
				       c->policy_path);
			return;
		}
	}
	if (n < 0 || n == (ssize_t)sizeof(text))
		settings_problem(rep, "policy.path: cannot read %s as an empty file", c->policy_path);
}

void settings_check(struct settings *c, struct settings_report *rep)
{
	settings_check_url(c, rep);
	settings_check_dns(c, rep);
	settings_check_prefix("prefixes.v4", &c->v4, "100.64.0.0/10", rep);
	settings_check_prefix("prefixes.v6", &c->v6, "fd7a:115c:a1e0::/48", rep);
	settings_check_policy(c, rep);
	if (!c->v4.addr.family && !c->v6.addr.family)
		settings_problem(rep, "prefixes: at least one of v4 and v6 is needed");
	if (settings_listen_parse(c->listen_addr, &c->listen) < 0)
		settings_problem(rep, "listen_addr: '%s' is not address:port", c->listen_addr);
	if (!c->tls_cert_path != !c->tls_key_path ||
	    (c->tls_cert_path && !*c->tls_cert_path != !*c->tls_key_path))
		settings_problem(rep, "tls_cert_path and tls_key_path: give both or none");
	if (c->derp.enabled) {
		if (c->derp.region_id < 1 || c->derp.region_id > 65535)
			settings_problem(rep, "derp.server.region_id: %u is not in 1..65535 (clients keep 16 bits)",
				       c->derp.region_id);
		if (settings_listen_parse(c->derp.stun_listen_addr, &c->derp.stun) < 0)
			settings_problem(rep, "derp.server.stun_listen_addr: '%s' is not address:port",
				       c->derp.stun_listen_addr);
	}
	if (!(c->derp.enabled && c->derp.auto_add) && !c->derp.urls.n && !c->derp.paths.n)
		settings_problem(rep, "derp: clients need at least one relay: set derp.server.enabled or derp.paths");
	if (c->ephemeral_sec <= 65)
		settings_problem(rep, "node.ephemeral.inactivity_timeout: must be more than 65s (keep-alives come "
				    "every 60s)");
}
