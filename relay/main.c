/*
 * main: kernscale-relay: options, order of start and stop, sd_notify; nothing else.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/heap.h"
#include "lib/httpd.h"
#include "lib/keyfile.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/user.h"
#include "relay/metacert.h"
#include "relay/relay.h"
#include "relay/stund.h"
#include "relay/verify.h"
#include "relay/web.h"

#define STATE_DIR    "/var/lib/kernscale-relay"
#define DEFAULT_USER "kernscale-relay"
#define NAMES_MAX    16

#define ASKING_MAX  16384 /* connections that have not asked for anything yet */
#define VERIFY_MAX  256
#define FILES_OWN   24 /* sockets, standard streams, files that are read again */

enum tls_mode {
	TLS_MODE_SELF,
	TLS_MODE_FILE,
	TLS_MODE_NONE,
};

struct options {
	struct endpoint listen, stun, http;
	bool stun_on, http_on, tls_given;
	enum tls_mode tls;
	const char *cert, *key;
	const char *names[NAMES_MAX];
	size_t n_names;
	const char *state, *key_file;
	const char *verify_url;
	bool verify_fail_open;
	const char *user;
	uint64_t rate;
	unsigned int max_clients;
};

/* What each kind of connection may have of the descriptors: clients must not take those that others need to come in,
 * strangers not those that clients are asked about with. */
struct shares {
	unsigned int clients, greeters, asking, verify;
};

struct program {
	struct options o;
	struct shares shares;
	int fd, http_fd; /* listening, until the servers have them */
	struct loop *loop;
	struct key_pair key;
	struct tls_ctx *tls, *client_tls;
	struct httpd *httpd, *plain;
	struct stund *stund;
	struct verify *verify;
	struct relay *relay;
	struct loop_signal *term, *intr, *hup;
};

static const char usage_text[] =
    "usage: kernscale-relay [options]\n"
    "\n"
    "  --listen ADDR:PORT       where to serve DERP                       [[::]:443]\n"
    "  --tls self|file|none     self-made certificate, given files, plain  [self]\n"
    "  --cert FILE --key FILE   certificate chain and key, PEM; mean --tls file\n"
    "  --hostname NAME          name or address in the self-made certificate; may be repeated\n"
    "  --http-listen ADDR:PORT  plain port beside TLS, for captive portal checks\n"
    "  --stun ADDR:PORT|off     the STUN server                           [port 3478 of --listen]\n"
    "  --state DIR              key and self-made certificate             [" STATE_DIR "]\n"
    "  --key-file FILE          the relay's key                           [STATE/relay.key]\n"
    "  --verify-client-url URL  ask there about each client\n"
    "  --verify-client-url-fail-open=true|false  admit while it cannot be asked  [true]\n"
    "  --rate BYTES             what one client may send in a second      [no limit]\n"
    "  --max-clients N          connections                               [65536]\n"
    "  --user NAME|UID:GID      whom to become when started as root       [" DEFAULT_USER "]\n"
    "  --verbose LEVEL          err, warning, notice, info, debug         [info]\n"
    "  --version, -h, --help\n";

/* "ADDR:PORT", or ":PORT" for all addresses. */
static int parse_at(const char *what, const char *s, struct endpoint *ret)
{
	char any[32];

	if (*s == ':' && strlen(s) < 8) {
		snprintf(any, sizeof(any), "[::]%s", s);
		s = any;
	}
	if (endpoint_parse(s, strlen(s), ret) < 0) {
		log_err("--%s: \"%s\" is not ADDRESS:PORT", what, s);
		return -EINVAL;
	}
	return 0;
}

static int parse_number(const char *what, const char *s, uint64_t max, uint64_t *ret)
{
	unsigned long long v;
	char *end;

	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno || end == s || *end || *s == '-' || v > max) {
		log_err("--%s: \"%s\" is not a number up to %llu", what, s,
			(unsigned long long)max);
		return -EINVAL;
	}
	*ret = v;
	return 0;
}

static int parse_tls(struct options *o, const char *s)
{
	static const char *const modes[] = { "self", "file", "none" };

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (strcmp(s, modes[i]))
			continue;
		o->tls = (enum tls_mode)i;
		o->tls_given = true;
		return 0;
	}
	log_err("--tls: \"%s\" is none of self, file, none", s);
	return -EINVAL;
}

static int parse_bool(const char *what, const char *s, bool *ret)
{
	if (strcmp(s, "true") && strcmp(s, "false")) {
		log_err("--%s: \"%s\" is neither true nor false", what, s);
		return -EINVAL;
	}
	*ret = !strcmp(s, "true");
	return 0;
}

static int options_check(struct options *o)
{
	if ((o->cert || o->key) && !o->tls_given)
		o->tls = TLS_MODE_FILE;
	if (o->tls == TLS_MODE_FILE && (!o->cert || !o->key)) {
		log_err("--tls file needs --cert and --key");
		return -EINVAL;
	}
	if (o->tls != TLS_MODE_FILE && (o->cert || o->key)) {
		log_err("--cert and --key are for --tls file");
		return -EINVAL;
	}
	if (o->http_on && o->tls == TLS_MODE_NONE) {
		log_err("--http-listen is the plain port beside TLS; --listen is plain already");
		return -EINVAL;
	}
	return 0;
}

enum {
	OPT_LISTEN = 256,
	OPT_TLS,
	OPT_CERT,
	OPT_KEY,
	OPT_HOSTNAME,
	OPT_HTTP,
	OPT_STUN,
	OPT_STATE,
	OPT_KEY_FILE,
	OPT_VERIFY,
	OPT_FAIL_OPEN,
	OPT_RATE,
	OPT_MAX_CLIENTS,
	OPT_USER,
	OPT_VERBOSE,
	OPT_VERSION,
	OPT_HELP = 'h',
};

static const struct option long_options[] = {
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "tls", required_argument, NULL, OPT_TLS },
	{ "cert", required_argument, NULL, OPT_CERT },
	{ "key", required_argument, NULL, OPT_KEY },
	{ "hostname", required_argument, NULL, OPT_HOSTNAME },
	{ "http-listen", required_argument, NULL, OPT_HTTP },
	{ "stun", required_argument, NULL, OPT_STUN },
	{ "state", required_argument, NULL, OPT_STATE },
	{ "key-file", required_argument, NULL, OPT_KEY_FILE },
	{ "verify-client-url", required_argument, NULL, OPT_VERIFY },
	{ "verify-client-url-fail-open", required_argument, NULL, OPT_FAIL_OPEN },
	{ "rate", required_argument, NULL, OPT_RATE },
	{ "max-clients", required_argument, NULL, OPT_MAX_CLIENTS },
	{ "user", required_argument, NULL, OPT_USER },
	{ "verbose", required_argument, NULL, OPT_VERBOSE },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

/* 0: go on; 1: nothing more to do; -EINVAL. */
static int option_take(struct options *o, int c, const char *arg)
{
	enum log_level level;
	uint64_t n;
	int r;

	switch (c) {
	case OPT_LISTEN:
		return parse_at("listen", arg, &o->listen);
	case OPT_TLS:
		return parse_tls(o, arg);
	case OPT_CERT:
		o->cert = arg;
		return 0;
	case OPT_KEY:
		o->key = arg;
		return 0;
	case OPT_HOSTNAME:
		if (o->n_names == NAMES_MAX) {
			log_err("--hostname: more than %d names", NAMES_MAX);
			return -EINVAL;
		}
		o->names[o->n_names++] = arg;
		return 0;
	case OPT_HTTP:
		o->http_on = true;
		return parse_at("http-listen", arg, &o->http);
	case OPT_STUN:
		o->stun_on = strcmp(arg, "off") != 0;
		return o->stun_on ? parse_at("stun", arg, &o->stun) : 0;
	case OPT_STATE:
		o->state = arg;
		return 0;
	case OPT_KEY_FILE:
		o->key_file = arg;
		return 0;
	case OPT_VERIFY:
		o->verify_url = arg;
		return 0;
	case OPT_FAIL_OPEN:
		return parse_bool("verify-client-url-fail-open", arg, &o->verify_fail_open);
	case OPT_RATE:
		return parse_number("rate", arg, UINT64_C(1) << 40, &o->rate);
	case OPT_MAX_CLIENTS:
		r = parse_number("max-clients", arg, 1u << 24, &n);
		if (r == 0)
			o->max_clients = (unsigned int)n;
		return r;
	case OPT_USER:
		o->user = arg;
		return 0;
	case OPT_VERBOSE:
		if (log_level_parse(arg, &level) < 0) {
			log_err("--verbose: \"%s\" is no level", arg);
			return -EINVAL;
		}
		log_set_level(level);
		return 0;
	case OPT_VERSION:
		puts("kernscale-relay " KERNSCALE_VERSION);
		return 1;
	case OPT_HELP:
		fputs(usage_text, stdout);
		return 1;
	default:
		return -EINVAL; /* getopt has said why */
	}
}

static int options_parse(int argc, char **argv, struct options *ret)
{
	struct options o = { .stun_on = true, .state = STATE_DIR, .verify_fail_open = true };
	int c, r;

	parse_at("listen", ":443", &o.listen);
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		if (c == '?' || c == ':') {
			log_err("%s \"%s\"; see kernscale-relay --help",
				c == ':' ? "no value for" : "unknown option", argv[optind - 1]);
			return -EINVAL;
		}
		r = option_take(&o, c, optarg);
		if (r != 0)
			return r;
	}
	if (optind < argc) {
		log_err("\"%s\": there are options only; see --help", argv[optind]);
		return -EINVAL;
	}
	if (o.stun_on && !o.stun.addr.family) {
		o.stun = o.listen;
		o.stun.port = 3478;
	}
	r = options_check(&o);
	if (r == 0)
		*ret = o;
	return r;
}

/* The state folder, made for whom we become. */
static int state_make(const struct options *o, const struct user *u)
{
	if (mkdir(o->state, 0700) < 0)
		return errno == EEXIST ? 0 : log_err_errno(-errno, "cannot make %s", o->state);
	if (geteuid() == 0 && chown(o->state, u->uid, u->gid) < 0)
		return log_err_errno(-errno, "cannot give %s away", o->state);
	return 0;
}

static int state_path(const struct options *o, const char *name, char *out, size_t max)
{
	if (snprintf(out, max, "%s/%s", o->state, name) >= (int)max)
		return log_err_errno(-ENAMETOOLONG, "%s", o->state);
	return 0;
}

static int key_start(struct program *p)
{
	const char *file = p->o.key_file;
	char path[4096];
	int r;

	if (!file) {
		r = state_path(&p->o, "relay.key", path, sizeof(path));
		if (r < 0)
			return r;
		file = path;
	}
	r = keyfile_load(file, KEYFILE_JSON, &p->key);
	if (r == -EPERM)
		log_err("%s can be read by others: chmod 600 it", file);
	else if (r == -EBADMSG)
		log_err("%s is not a private key; it is not replaced", file);
	else if (r < 0)
		log_err_errno(r, "cannot read or make %s", file);
	return r;
}

/* The names in a self-made certificate: as given or this machine's, and the listener's address. */
static size_t self_names(const struct program *p, const char *out[static NAMES_MAX + 2], char *host,
			 size_t host_max, char at[static ADDR_TEXT_MAX])
{
	size_t n = 0;

	for (; n < p->o.n_names; n++)
		out[n] = p->o.names[n];
	/* A host that has not been given a name has an odd one. */
	if (!n && gethostname(host, host_max) == 0 && *host &&
	    strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == strlen(host))
		out[n++] = host;
	if (!addr_is_unspecified(&p->o.listen.addr))
		out[n++] = addr_text(&p->o.listen.addr, at);
	if (!n)
		out[n++] = "localhost";
	return n;
}

static int tls_files(struct program *p)
{
	int r;

	if (p->o.tls != TLS_MODE_FILE)
		return 0;
	r = tls_server_new(p->o.cert, p->o.key, &p->tls);
	if (r < 0)
		log_err("cannot use %s and %s: %s", p->o.cert, p->o.key, tls_error());
	return r;
}

static int tls_self(struct program *p)
{
	char cert[4096], key[4096], host[256] = "", at[ADDR_TEXT_MAX];
	const char *names[NAMES_MAX + 2];
	size_t n = self_names(p, names, host, sizeof(host) - 1, at);
	int r;

	if (p->o.tls != TLS_MODE_SELF)
		return 0;
	if (state_path(&p->o, "relay.crt", cert, sizeof(cert)) < 0 ||
	    state_path(&p->o, "relay.tls.key", key, sizeof(key)) < 0)
		return -ENAMETOOLONG;
	r = tls_server_self(names, n, cert, key, &p->tls);
	if (r < 0)
		log_err("cannot make or use %s: %s", cert, tls_error());
	return r;
}

static int tls_meta(struct program *p)
{
	uint8_t meta[METACERT_MAX];
	int r;

	if (!p->tls)
		return 0;
	r = metacert_make(&p->key.pub, meta);
	if (r > 0)
		r = tls_server_append_cert(p->tls, meta, (size_t)r);
	if (r < 0)
		log_err_errno(r, "cannot make the meta certificate");
	return r;
}

/* What a DERP map needs to name this relay, where its certificate is nobody's but ours. */
static void say_pin(const struct program *p)
{
	uint8_t hash[32];
	char hex[65];

	if (p->o.tls != TLS_MODE_SELF || tls_server_leaf_sha256(p->tls, hash) < 0)
		return;
	log_notice("self-made certificate: in a DERP map, CertName is sha256-raw:%s",
		   sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash)));
}

static int verify_start(struct program *p)
{
	struct verify_opts o = { .url = p->o.verify_url,
				 .fail_open = p->o.verify_fail_open,
				 .max_asking = p->shares.verify };
	int r = 0;

	if (!o.url)
		return 0;
	if (!strncmp(o.url, "https:", 6)) {
		r = tls_client_new(NULL, &p->client_tls);
		if (r < 0)
			return log_err_errno(r, "cannot load the certificate authorities");
		o.tls = p->client_tls;
	}
	r = verify_new(p->loop, &o, &p->verify);
	if (r == -EINVAL)
		log_err("--verify-client-url: \"%s\" is not an http or https URL", o.url);
	else if (r < 0)
		log_err_errno(r, "--verify-client-url");
	return r;
}

static int listen_tcp(const struct endpoint *at, int *ret)
{
	char text[ENDPOINT_TEXT_MAX];

	*ret = httpd_open_tcp(at, NULL);
	return *ret < 0 ? log_err_errno(*ret, "cannot listen on TCP %s", endpoint_text(at, text)) : 0;
}

/* Ports first, while we may still be root. */
static int sockets_start(struct program *p)
{
	char at[ENDPOINT_TEXT_MAX];
	struct endpoint bound;
	int r = listen_tcp(&p->o.listen, &p->fd);

	if (r == 0 && p->o.http_on)
		r = listen_tcp(&p->o.http, &p->http_fd);
	if (r < 0 || !p->o.stun_on)
		return r;
	r = stund_new(p->loop, &p->o.stun, &bound, &p->stund);
	if (r < 0)
		return log_err_errno(r, "cannot bind UDP %s", endpoint_text(&p->o.stun, at));
	log_notice("STUN on UDP %s", endpoint_text(&bound, at));
	return 0;
}

/* As many descriptors as the system lets us hold. */
static rlim_t raise_descriptors(void)
{
	struct rlimit l, more;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return 1024;
	more = (struct rlimit){ .rlim_cur = l.rlim_max, .rlim_max = l.rlim_max };
	return setrlimit(RLIMIT_NOFILE, &more) < 0 ? l.rlim_cur : l.rlim_max;
}

static int share_out(const struct options *o, rlim_t files, struct shares *ret)
{
	struct shares s = { .greeters = (unsigned int)MIN(files / 8, (rlim_t)RELAY_GREETERS_MORE),
			    .asking = (unsigned int)MIN(files / 8, (rlim_t)ASKING_MAX),
			    .verify = o->verify_url ? (unsigned int)MIN(files / 8, (rlim_t)VERIFY_MAX) : 0 };
	rlim_t others = FILES_OWN + s.greeters + s.verify + s.asking * (o->http_on ? 2 : 1);
	unsigned int want = o->max_clients ? o->max_clients : RELAY_CLIENTS_MAX;

	if (files < others + 8) {
		log_err("the limit on descriptors, %llu, is too low: 64 are needed (LimitNOFILE=, ulimit -n)",
			(unsigned long long)files);
		return -EMFILE;
	}
	s.clients = (unsigned int)MIN((rlim_t)want, files - others);
	if (o->max_clients && s.clients < want)
		log_warning("--max-clients: the limit on descriptors leaves %u of %u", s.clients, want);
	*ret = s;
	return 0;
}

static void on_signal(void *data, int signo)
{
	struct program *p = data;

	if (signo != SIGHUP) {
		loop_notify(p->loop, "STOPPING=1");
		loop_exit(p->loop, 0);
	} else if (p->tls) {
		if (tls_server_reload(p->tls) < 0)
			log_warning("the certificate stays as it was: %s", tls_error());
		else
			log_notice("certificate read again");
	}
}

static int signals_start(struct program *p)
{
	int r = loop_signal_new(p->loop, SIGTERM, on_signal, p, &p->term);

	if (r >= 0)
		r = loop_signal_new(p->loop, SIGINT, on_signal, p, &p->intr);
	if (r >= 0)
		r = loop_signal_new(p->loop, SIGHUP, on_signal, p, &p->hup);
	return r;
}

static int relay_start(struct program *p)
{
	struct relay_config c = { .key = &p->key,
				  .rate_bytes_per_sec = p->o.rate,
				  .max_clients = p->shares.clients,
				  .greeters_more = p->shares.greeters };
	int r;

	if (p->verify) {
		c.admit = verify_admit;
		c.admit_data = p->verify;
	}
	r = relay_new(p->loop, &c, &p->relay);
	if (r < 0)
		return r;
	if (p->verify)
		verify_set_relay(p->verify, p->relay);
	r = relay_route(p->relay, p->httpd);
	if (r >= 0)
		r = web_route(p->httpd);
	if (r >= 0 && p->plain)
		r = web_route_plain(p->plain);
	return r;
}

static int find_user(const struct program *p, struct user *ret)
{
	const char *name = p->o.user ? p->o.user : DEFAULT_USER;
	int r;

	if (geteuid() != 0) {
		*ret = (struct user){ .uid = geteuid(), .gid = getegid() };
		return 0;
	}
	r = user_parse(name, ret);
	if (r == -ENOENT && !p->o.user) {
		log_notice("there is no user %s: becoming nobody (useradd --system %s, or --user)",
			   name, name);
		r = user_parse("nobody", ret);
	}
	if (r < 0)
		log_err("--user: \"%s\" is neither a user nor UID:GID", name);
	return r;
}

/* What only root may: given files, low ports, the state folder. Then never again. */
static int start_as_root(struct program *p)
{
	struct user u;
	int r = find_user(p, &u);

	if (r == 0)
		r = state_make(&p->o, &u);
	if (r == 0)
		r = tls_files(p);
	if (r == 0 && p->o.key_file)
		r = key_start(p);
	if (r == 0)
		r = sockets_start(p);
	if (r < 0)
		return r;
	r = user_become(&u);
	return r < 0 ? log_err_errno(r, "cannot become uid %u", u.uid) : 0;
}

static int serve_start(struct program *p)
{
	char at[ENDPOINT_TEXT_MAX], hex[KEY_TEXT_MAX];
	int r = p->o.key_file ? 0 : key_start(p);

	if (r == 0)
		r = tls_self(p);
	if (r == 0)
		r = tls_meta(p);
	if (r == 0)
		r = verify_start(p);
	if (r < 0)
		return r;
	r = relay_start(p);
	if (r >= 0)
		r = httpd_listen_fd(p->httpd, p->fd, p->tls);
	if (r < 0)
		return log_err_errno(r, "cannot serve");
	p->fd = -1;
	log_notice("DERP on TCP %s%s, key %s", endpoint_text(&p->o.listen, at),
		   p->tls ? "" : " without TLS", key_text(KEY_KIND_HEX, &p->key.pub, hex));
	if (!p->plain)
		return 0;
	r = httpd_listen_fd(p->plain, p->http_fd, NULL);
	if (r < 0)
		return log_err_errno(r, "cannot serve");
	p->http_fd = -1;
	return 0;
}

static int program_start(struct program *p)
{
	struct httpd_opts ho = { 0 };
	int r = share_out(&p->o, raise_descriptors(), &p->shares);

	if (r < 0)
		return r;
	ho.max_conns = p->shares.asking;
	r = loop_new(&p->loop);
	if (r >= 0)
		r = signals_start(p);
	if (r >= 0)
		r = httpd_new(p->loop, &ho, &p->httpd);
	if (r >= 0 && p->o.http_on)
		r = httpd_new(p->loop, &ho, &p->plain);
	if (r < 0)
		return log_err_errno(r, "cannot start");
	r = start_as_root(p);
	if (r >= 0)
		r = serve_start(p);
	if (r < 0)
		return r;
	say_pin(p);
	malloc_trim(0); /* what starting took */
	loop_watchdog(p->loop);
	loop_notify(p->loop, "READY=1");
	return 0;
}

static void program_done(struct program *p)
{
	verify_free(p->verify);
	relay_free(p->relay);
	httpd_free(p->httpd);
	httpd_free(p->plain);
	stund_free(p->stund);
	fd_close(p->fd);
	fd_close(p->http_fd);
	tls_ctx_unref(p->tls);
	tls_ctx_unref(p->client_tls);
	loop_signal_free(p->term);
	loop_signal_free(p->intr);
	loop_signal_free(p->hup);
	loop_free(p->loop);
	key_pair_wipe(&p->key);
}

/* 0: stopped in order; 1: could not start or run; 2: the command line. */
int main(int argc, char **argv)
{
	struct program p = { .fd = -1, .http_fd = -1 };
	int r = options_parse(argc, argv, &p.o);

	if (r != 0)
		return r > 0 ? 0 : 2;
	heap_keep_small();
	user_hide_memory();
	if (key_init() < 0) {
		log_err("no source of randomness");
		return 1;
	}
	r = program_start(&p);
	if (r >= 0)
		r = loop_run(p.loop);
	program_done(&p);
	return r < 0 ? 1 : 0;
}
