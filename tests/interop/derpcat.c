/*
 * derpcat: a node's relay connection by hand: prints what a relay says, sends what it is told.
 *
 *   derpcat HOST:PORT [CERTNAME|plain]
 *
 * CERTNAME is as in a DERP map: "", a name, or sha256-raw:<hex>. Prints `key <hex>` for itself,
 * `up`, `down TEXT`, `gone KEY REASON`, `packet KEY TEXT`. Of its input, `KEY TEXT` is sent to KEY,
 * `echo` answers every packet with its text from now on, `check` pings the relay, `quit` ends.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/relay/derpc.h"
#include "lib/buf.h"
#include "lib/http.h"
#include "lib/json.h"
#include "lib/log.h"

#define REGION 900

struct cat {
	struct loop *loop;
	struct derpc *d;
	struct buf in;
	bool echo;
};

static void cat_packet(void *data, int64_t region, const struct key *src, const uint8_t *p,
		       size_t len)
{
	char hex[KEY_TEXT_MAX];
	struct cat *c = data;

	printf("packet %s %.*s\n", key_text(KEY_KIND_HEX, src, hex), (int)len, (const char *)p);
	if (c->echo)
		derpc_send(c->d, region, src, p, len);
}

static void cat_gone(void *data, int64_t region, const struct key *peer, uint8_t reason)
{
	char hex[KEY_TEXT_MAX];

	(void)data;
	(void)region;
	printf("gone %s %u\n", key_text(KEY_KIND_HEX, peer, hex), reason);
}

static void cat_state(void *data, int64_t region, bool connected, const char *text)
{
	(void)data;
	(void)region;
	printf("%s %s\n", connected ? "up" : "down", text);
}

static void cat_line(struct cat *c, char *line)
{
	char *text = strchr(line, ' ');
	struct key k;

	if (!strcmp(line, "echo")) {
		c->echo = true;
	} else if (!strcmp(line, "check")) {
		derpc_check(c->d);
	} else if (!strcmp(line, "quit")) {
		loop_exit(c->loop, 0);
	} else if (!text || key_parse(KEY_KIND_HEX, line, (size_t)(text - line), &k) < 0) {
		printf("what? %s\n", line);
	} else {
		derpc_send(c->d, REGION, &k, text + 1, strlen(text + 1));
	}
}

static void cat_input(void *data, int fd, uint32_t events)
{
	struct cat *c = data;
	uint8_t *p = buf_tail(&c->in, 4096);
	ssize_t n = p ? read(fd, p, 4096) : -1;
	char *end;

	(void)events;
	if (n <= 0) {
		loop_exit(c->loop, 0);
		return;
	}
	buf_commit(&c->in, (size_t)n);
	while ((end = memchr(buf_data(&c->in), '\n', c->in.len))) {
		char *line = (char *)c->in.data + c->in.head;

		*end = '\0';
		cat_line(c, line);
		buf_consume(&c->in, (size_t)(end - line) + 1);
	}
}

static int cat_map(const char *host, uint16_t port, const char *cert, struct derp_map *ret)
{
	CLEANUP(json_decref)
	json_t *j = json_pack("{s:{s:{s:i,s:s,s:s,s:[{s:s,s:i,s:s,s:s,s:i}]}}}", "Regions", "900",
			      "RegionID", REGION, "RegionCode", "cat", "RegionName", "cat", "Nodes",
			      "Name", "900a", "RegionID", REGION, "HostName", host, "CertName",
			      cert, "DERPPort", port);

	return derp_map_decode(j, ret);
}

int main(int argc, char **argv)
{
	static const struct derpc_ops ops = { cat_packet, cat_gone, cat_state };
	struct derp_map map = { 0 };
	struct derpc_opts o = { .ops = &ops };
	struct loop_io *io = NULL;
	struct cat c = { 0 };
	char url[300], hex[KEY_TEXT_MAX];
	struct key_pair self;
	struct http_url u;
	bool plain;

	if (argc < 2 || argc > 3 || snprintf(url, sizeof(url), "http://%s/", argv[1]) < 0 ||
	    http_url_parse(url, &u) < 0) {
		fprintf(stderr, "usage: derpcat HOST:PORT [CERTNAME|plain]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	plain = argc == 3 && !strcmp(argv[2], "plain");
	o.data = &c;
	if (key_init() < 0 || loop_new(&c.loop) < 0 || tls_client_new(NULL, &o.tls) < 0 ||
	    derpc_new(c.loop, &o, &c.d) < 0 ||
	    cat_map(u.host, u.port, argc == 3 && !plain ? argv[2] : "", &map) < 0 ||
	    loop_io_new(c.loop, STDIN_FILENO, EPOLLIN, cat_input, &c, &io) < 0)
		return 1;
	key_pair_generate(&self);
	printf("key %s\n", key_text(KEY_KIND_HEX, &self.pub, hex));
	if (plain)
		derpc_set_plain_host(c.d, u.host, u.port);
	derpc_set_self(c.d, &self);
	derpc_set_map(c.d, &map);
	derpc_set_home(c.d, REGION);
	loop_run(c.loop);
	derpc_free(c.d);
	loop_io_free(io);
	tls_ctx_unref(o.tls);
	derp_map_done(&map);
	buf_done(&c.in);
	key_pair_wipe(&self);
	loop_free(c.loop);
	return 0;
}
