/*
 * joinload: nodes that register while their coordinator is killed again and again, and afterwards the question whether
 * it kept its word.
 *
 *   joinload load   --port P --socket ADMIN --dir DIR [--workers N]     until DIR/stop exists
 *   joinload verify --port P --socket ADMIN --dir DIR --db FILE
 *   joinload streams --port P --socket ADMIN --dir DIR [--workers N] [--count N]   until DIR/stop exists
 *   joinload flood  --port P --dir DIR [--count N] [--bytes N]          until DIR/calm exists
 *
 * Each worker goes round three stories, says everything again until it is answered, and writes down what it was told:
 * two machines race for a one-off key; a machine logs in and then again with another node key; an ephemeral node logs
 * in and out. `verify` asks a running coordinator about every one of them, and then looks into its database.
 * `streams` keeps so many map streams; when they end, all come back at once. Each worker writes DIR/full.W with a line for
 * each full map: the time of the day in milliseconds, the peers in it, and how many of them it calls offline; and at the
 * end prints what it heard besides, of who is offline, who was removed, and who came online after the streams had ended.
 * `flood` keeps so many connections that say the beginning of a request and nothing more; one that ends is replaced.
 */
#include <getopt.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/nodeclient.h"

#define PATIENCE_SEC 600 /* for all; the test has its own limit */
#define PAUSE_USEC   100000

struct joinload {
	uint16_t port;
	const char *socket, *dir, *db;
	int workers, count, bytes;
	struct key server;
	char reusable[128], ephemeral[128];
	FILE *out;
	unsigned int again; /* questions that had to be asked once more */
	json_t *nodes;	    /* what the coordinator says at the end, by node key */
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("VIOLATION: ", stdout);
	vprintf(fmt, ap);
	putchar('\n');
	va_end(ap);
	exit(1);
}

/* ---- plain HTTP */

/* The body of one answer, or NULL when there is none. */
static json_t *http_ask(int fd, const char *method, const char *path, const char *body)
{
	CLEANUP(buf_done) struct buf in = { 0 };
	char head[1024];
	const char *text, *end;
	json_t *j = NULL;
	ssize_t n;

	n = snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		     method, path, strlen(body), body);
	if (send(fd, head, (size_t)n, MSG_NOSIGNAL) != n)
		return NULL;
	do {
		uint8_t *p = buf_tail(&in, 4096);

		n = p ? read(fd, p, 4096) : -1;
		if (n > 0)
			buf_commit(&in, (size_t)n);
	} while (n > 0);
	text = buf_str(&in);
	end = text ? strstr(text, "\r\n\r\n") : NULL;
	/* 409: it was made when this was first asked, and the answer got lost. */
	if (n < 0 || !end || (strncmp(text, "HTTP/1.1 200", 12) && strncmp(text, "HTTP/1.1 409", 12)) || json_read(end + 4, strlen(end + 4), 64 << 20, &j) < 0)
		return NULL;
	return j;
}

static int http_connect(const struct joinload *l, bool admin)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(l->port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(admin ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", l->socket);
	r = admin ? connect(fd, (struct sockaddr *)&un, sizeof(un)) : connect(fd, (struct sockaddr *)&in, sizeof(in));
	if (r < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Until it is answered. */
static json_t *ask(struct joinload *l, bool admin, const char *method, const char *path, const char *body)
{
	for (;;) {
		int fd = http_connect(l, admin);
		json_t *j = fd < 0 ? NULL : http_ask(fd, method, path, body);

		if (fd >= 0)
			close(fd);
		if (j)
			return j;
		usleep(20000);
	}
}

static void ask_key(struct joinload *l, const char *body, char out[static 128])
{
	json_t *j = ask(l, true, "POST", "/api/v1/preauthkey", body);

	snprintf(out, 128, "%s", json_get_str(json_get(j, "preAuthKey"), "key"));
	json_decref(j);
}

/* ---- questions of a node, asked until they are answered */

enum said {
	SAID_NOTHING, /* the server went away */
	SAID_YES,
	SAID_LOGIN,   /* here is a URL */
	SAID_EXPIRED, /* the node key is */
	SAID_NO,
};

static void lost(struct joinload *l, struct node_client *c)
{
	node_client_close(c);
	l->again++;
	usleep(10000);
}

static enum said said_of(struct node_client *c, char error[static 128])
{
	CLEANUP(json_decref) json_t *j = NULL;

	if (node_client_answer(c, NODE_CLIENT_WAIT_MSEC) != 200 ||
	    json_read(buf_data(&c->body), c->body.len, 1 << 20, &j) < 0)
		return SAID_NOTHING;
	snprintf(error, 128, "%s", json_get_str(j, "Error") ? json_get_str(j, "Error") : "");
	if (strstr(error, "try again later") || strstr(error, "out of memory"))
		return SAID_NOTHING; /* it cannot now */
	if (*error)
		return SAID_NO;
	if (json_get_str(j, "AuthURL") && *json_get_str(j, "AuthURL"))
		return SAID_LOGIN;
	return json_get_bool(j, "NodeKeyExpired", false) ? SAID_EXPIRED : SAID_YES;
}

/* more: members of the request. False: the server is not there. */
static bool register_send(struct joinload *l, struct node_client *c, const char *more)
{
	char text[1024], nk[KEY_TEXT_MAX];

	snprintf(text, sizeof(text),
		 "{\"Version\":131,\"NodeKey\":\"%s\",%s\"Hostinfo\":{\"Hostname\":\"load\",\"OS\":\"linux\"}}",
		 key_text(KEY_KIND_NODE, &c->node.pub, nk), more);
	if ((c->fd >= 0 || node_client_connect(c, l->port, &l->server) == 0) &&
	    node_client_send(c, "/machine/register", text) == 0)
		return true;
	lost(l, c);
	return false;
}

static enum said do_register(struct joinload *l, struct node_client *c, const char *more, char error[static 128])
{
	for (;;) {
		enum said s = register_send(l, c, more) ? said_of(c, error) : SAID_NOTHING;

		if (s != SAID_NOTHING)
			return s;
		lost(l, c);
	}
}

static const char *auth_text(const char *key, char out[static 192])
{
	snprintf(out, 192, "\"Auth\":{\"AuthKey\":\"%s\"},", key);
	return out;
}

struct identity {
	long long id;
	char v4[ADDR_TEXT_MAX + 8], v6[ADDR_TEXT_MAX + 8];
};

/* Who it is, by its first map. */
static struct identity identify(struct joinload *l, struct node_client *c)
{
	for (;;) {
		struct identity who = { 0 };
		json_t *m = NULL, *self;
		int r = c->fd >= 0 ? 0 : node_client_connect(c, l->port, &l->server);

		if (r == 0)
			r = node_client_stream(c, "");
		if (r == 0)
			r = node_client_map(c, NODE_CLIENT_WAIT_MSEC, &m);
		if (r == 0 && (self = json_get(m, "Node"))) {
			json_t *a = json_get(self, "Addresses");

			who.id = json_get_int(self, "ID", 0);
			snprintf(who.v4, sizeof(who.v4), "%s", json_string_value(json_array_get(a, 0)));
			snprintf(who.v6, sizeof(who.v6), "%s", json_string_value(json_array_get(a, 1)));
		} else if (c->status == 404) {
			die("a node that was let in is not known");
		}
		json_decref(m);
		if (who.id) {
			node_client_close(c); /* the stream with it */
			return who;
		}
		lost(l, c);
	}
}

/* ---- what was told is written down */

static void note(struct joinload *l, const struct node_client *c, const struct identity *who)
{
	char m[KEY_TEXT_MAX], n[KEY_TEXT_MAX];

	fprintf(l->out, "%s %s %lld %s %s\n", key_text(KEY_KIND_HEX, &c->machine.priv, m),
		key_text(KEY_KIND_HEX, &c->node.priv, n), who ? who->id : 0, who ? who->v4 : "-", who ? who->v6 : "-");
	fflush(l->out);
}

/* ---- the stories */

static void story_one_off(struct joinload *l)
{
	char key[128], auth[192], error[128];
	enum said said[2] = { 0 };
	struct node_client c[2];
	struct identity who;

	ask_key(l, "{\"user\":\"1\"}", key);
	auth_text(key, auth);
	for (int i = 0; i < 2; i++)
		node_client_init(&c[i]);
	while (said[0] == SAID_NOTHING || said[1] == SAID_NOTHING) { /* both on the wire before an answer is read */
		bool sent[2] = { 0 };

		for (int i = 0; i < 2; i++)
			sent[i] = said[i] == SAID_NOTHING && register_send(l, &c[i], auth);
		for (int i = 0; i < 2; i++) {
			if (!sent[i])
				continue;
			said[i] = said_of(&c[i], error);
			if (said[i] == SAID_NOTHING)
				lost(l, &c[i]);
			if (said[i] == SAID_NO && strcmp(error, "authkey already used"))
				die("one-off key: %s", error);
		}
	}
	if ((said[0] == SAID_YES) + (said[1] == SAID_YES) != 1)
		die("a one-off key let %s in", said[0] == SAID_YES ? "both" : "nobody");
	for (int i = 0; i < 2; i++) {
		if (said[i] == SAID_YES) {
			who = identify(l, &c[i]);
			note(l, &c[i], &who);
		} else {
			note(l, &c[i], NULL);
		}
		node_client_done(&c[i]);
	}
}

static void story_again(struct joinload *l)
{
	char auth[192], error[128];
	struct node_client c;
	struct identity first, second;

	auth_text(l->reusable, auth);
	node_client_init(&c);
	if (do_register(l, &c, auth, error) != SAID_YES)
		die("a node was not let in: %s", error);
	first = identify(l, &c);
	if (random() % 2) {
		struct node_client old = c;

		key_pair_generate(&c.node);
		if (do_register(l, &c, auth, error) != SAID_YES)
			die("a node was not let in again: %s", error);
		second = identify(l, &c);
		if (first.id != second.id || strcmp(first.v4, second.v4) || strcmp(first.v6, second.v6))
			die("node %lld %s became %lld %s", first.id, first.v4, second.id, second.v4);
		note(l, &old, NULL);
	}
	note(l, &c, &first);
	node_client_done(&c);
}

static void story_ephemeral(struct joinload *l)
{
	char auth[192], error[128];
	struct node_client c;
	enum said said;

	auth_text(l->ephemeral, auth);
	node_client_init(&c);
	if (do_register(l, &c, auth, error) != SAID_YES)
		die("an ephemeral node was not let in: %s", error);
	said = do_register(l, &c, "\"Expiry\":\"2001-01-01T00:00:00Z\",", error);
	if (said != SAID_EXPIRED)
		die("logout is answered by %d %s", said, error);
	note(l, &c, NULL);
	node_client_done(&c);
}

static bool has_file(const struct joinload *l, const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", l->dir, name);
	return access(path, F_OK) == 0;
}

static int work(struct joinload *l, int number)
{
	char path[4096];
	int rounds = 0;

	alarm(PATIENCE_SEC);
	srandom((unsigned int)getpid());
	snprintf(path, sizeof(path), "%s/told.%d", l->dir, number);
	l->out = fopen(path, "w");
	if (!l->out)
		die("%s: %s", path, strerror(errno));
	for (; !has_file(l, "stop"); rounds++) {
		switch (random() % 3) {
		case 0:
			story_one_off(l);
			break;
		case 1:
			story_again(l);
			break;
		default:
			story_ephemeral(l);
			break;
		}
		usleep((unsigned int)random() % PAUSE_USEC);
	}
	printf("worker %d: %d stories, %u questions asked again\n", number, rounds, l->again);
	return 0;
}

static int load(struct joinload *l)
{
	int status, bad = 0;

	alarm(PATIENCE_SEC);
	json_decref(ask(l, true, "POST", "/api/v1/user", "{\"name\":\"load\"}"));
	ask_key(l, "{\"user\":\"1\",\"reusable\":true}", l->reusable);
	ask_key(l, "{\"user\":\"1\",\"reusable\":true,\"ephemeral\":true}", l->ephemeral);
	fflush(stdout);
	for (int i = 0; i < l->workers; i++)
		if (fork() == 0)
			exit(work(l, i));
	while (wait(&status) > 0)
		bad |= !WIFEXITED(status) || WEXITSTATUS(status);
	return bad;
}

/* ---- streams that come back together */

struct watcher {
	struct node_client c;
	unsigned int maps; /* full ones */
};

struct heard {
	unsigned int full, online, offline, removed, ended, again;
};

static unsigned int count_in(const char *p, size_t len, const char *what)
{
	const char *end = p + len;
	unsigned int n = 0;

	while ((p = memmem(p, (size_t)(end - p), what, strlen(what)))) {
		p += strlen(what);
		n++;
	}
	return n;
}

static uint64_t wall_msec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Texts are counted, not read: a thousand maps of a thousand nodes would take longer here than there. */
static void watch_message(struct joinload *l, struct watcher *w, struct heard *h, const char *p, size_t len)
{
	unsigned int offline = count_in(p, len, "\"Online\":false"), online = count_in(p, len, "\"Online\":true");

	if (memmem(p, len, "\"Peers\":[", 9)) {
		w->maps++;
		h->full++;
		fprintf(l->out, "%llu %u %u\n", (unsigned long long)wall_msec(), online + offline - 1, offline);
		fflush(l->out);
		return;
	}
	if (h->ended)
		h->online += online; /* while they joined, everybody's coming was news */
	h->offline += offline;
	h->removed += memmem(p, len, "\"PeersRemoved\"", 14) != NULL;
}

/* What is there already; false: the stream is over. */
static bool watch_read(struct joinload *l, struct watcher *w, struct heard *h)
{
	const char *p;
	size_t len;
	int r;

	r = node_client_read(&w->c, 0);
	if (r < 0 && r != -ETIMEDOUT)
		return false;
	while ((r = ts2021_frames_next(&w->c.frames, &p, &len)) == 1)
		watch_message(l, w, h, p, len);
	return r == 0 && !w->c.stream_over;
}

/* All who have no stream: each step is taken by all of them before the next, as when a thousand begin at once. */
static void watch_open(struct joinload *l, struct watcher *w, int n, struct heard *h)
{
	bool *went = calloc((size_t)n, sizeof(*went));

	if (!went)
		die("out of memory");
	for (int i = 0; i < n; i++)
		went[i] = w[i].c.fd < 0 && node_client_dial(&w[i].c, l->port, &l->server) == 0;
	for (int i = 0; i < n; i++)
		went[i] = went[i] && node_client_dialled(&w[i].c) == 0;
	for (int i = 0; i < n; i++)
		went[i] = went[i] && node_client_stream(&w[i].c, "") == 0;
	for (int i = 0; i < n; i++) {
		if (went[i] || w[i].c.stream)
			continue;
		node_client_close(&w[i].c);
		h->again++;
	}
	free(went);
}

static void watch_round(struct joinload *l, struct watcher *w, int n, struct heard *h)
{
	struct pollfd *p = calloc((size_t)n, sizeof(*p));

	if (!p)
		die("out of memory");
	for (int i = 0; i < n; i++)
		p[i] = (struct pollfd){ .fd = w[i].c.fd, .events = POLLIN };
	poll(p, (nfds_t)n, 100);
	for (int i = 0; i < n; i++) {
		if (p[i].fd < 0 || !p[i].revents || watch_read(l, &w[i], h))
			continue;
		node_client_close(&w[i].c);
		h->ended++;
	}
	free(p);
}

static bool watch_missing(const struct watcher *w, int n)
{
	for (int i = 0; i < n; i++)
		if (w[i].c.fd < 0)
			return true;
	return false;
}

static int watch(struct joinload *l, int number)
{
	int n = l->count / l->workers + (number < l->count % l->workers);
	struct watcher *w = calloc((size_t)n, sizeof(*w));
	char auth[192], error[128], path[4096];
	struct heard h = { 0 };

	alarm(PATIENCE_SEC);
	snprintf(path, sizeof(path), "%s/full.%d", l->dir, number);
	l->out = fopen(path, "w");
	if (!w || !l->out)
		die("%s: %s", path, strerror(errno));
	auth_text(l->reusable, auth);
	for (int i = 0; i < n; i++) {
		node_client_init(&w[i].c);
		if (do_register(l, &w[i].c, auth, error) != SAID_YES)
			die("a node was not let in: %s", error);
		node_client_close(&w[i].c);
	}
	while (!has_file(l, "stop")) {
		if (watch_missing(w, n))
			watch_open(l, w, n, &h);
		watch_round(l, w, n, &h);
	}
	printf("worker %d: %d nodes, %u full maps, %u streams ended, %u tried again; "
	       "told of %u offline, %u removed, and since the streams ended of %u online\n",
	       number, n, h.full, h.ended, h.again, h.offline, h.removed, h.online);
	return 0;
}

static int streams(struct joinload *l)
{
	int status, bad = 0;

	alarm(PATIENCE_SEC);
	json_decref(ask(l, true, "POST", "/api/v1/user", "{\"name\":\"load\"}"));
	ask_key(l, "{\"user\":\"1\",\"reusable\":true}", l->reusable);
	fflush(stdout);
	for (int i = 0; i < l->workers; i++)
		if (fork() == 0)
			exit(watch(l, i));
	while (wait(&status) > 0)
		bad |= !WIFEXITED(status) || WEXITSTATUS(status);
	return bad;
}

/* ---- afterwards */

static void nodes_get(struct joinload *l)
{
	json_t *j = ask(l, true, "GET", "/api/v1/node", ""), *n;
	size_t i;

	l->nodes = json_object();
	json_array_foreach(json_get(j, "nodes"), i, n)
		json_object_set(l->nodes, json_get_str(n, "nodeKey"), n);
	json_decref(j);
}

static void verify_node(const struct joinload *l, const struct key *node, char *const told[5])
{
	char nk[KEY_TEXT_MAX], is[256], was[256];
	const json_t *n = json_get(l->nodes, key_text(KEY_KIND_NODE, node, nk)), *a = json_get(n, "ipAddresses");

	snprintf(was, sizeof(was), "%s %s %s", told[2], told[3], told[4]);
	snprintf(is, sizeof(is), "%s %s/32 %s/128", json_get_str(n, "id"), json_string_value(json_array_get(a, 0)),
		 json_string_value(json_array_get(a, 1)));
	if (strcmp(is, was))
		die("node %s is now %s", was, is);
}

struct tally {
	int in, out;
};

static void verify_line(struct joinload *l, char *line, struct tally *t)
{
	char *f[5] = { 0 }, *save = NULL, error[128] = "";
	struct node_client c;
	enum said said;

	for (int i = 0; i < 5; i++)
		f[i] = strtok_r(i ? NULL : line, " \n", &save);
	node_client_init(&c);
	if (!f[4] || key_parse(KEY_KIND_HEX, f[0], strlen(f[0]), &c.machine.priv) < 0 ||
	    key_parse(KEY_KIND_HEX, f[1], strlen(f[1]), &c.node.priv) < 0 ||
	    key_public(&c.machine.priv, &c.machine.pub) < 0 || key_public(&c.node.priv, &c.node.pub) < 0)
		die("a line that cannot be read");
	said = do_register(l, &c, "", error);
	if (!strcmp(f[2], "0")) {
		if (said != SAID_LOGIN)
			die("a node that is not let in or has gone is answered by %d %s", said, error);
		t->out++;
	} else {
		if (said != SAID_YES)
			die("node %s %s was let in, and now is answered by %d %s", f[2], f[3], said, error);
		verify_node(l, &c.node.pub, f);
		t->in++;
	}
	node_client_done(&c);
}

static void verify_file(struct joinload *l, const char *path, struct tally *t)
{
	char line[512];
	FILE *f = fopen(path, "r");

	if (!f)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		verify_line(l, line, t);
	fclose(f);
}

static void db_text(sqlite3 *db, const char *sql, char out[static 64])
{
	sqlite3_stmt *q = NULL;

	if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) != SQLITE_OK || sqlite3_step(q) != SQLITE_ROW)
		die("%s: %s", sql, sqlite3_errmsg(db));
	snprintf(out, 64, "%s", (const char *)sqlite3_column_text(q, 0));
	sqlite3_finalize(q);
}

static void verify_db(const struct joinload *l, const struct tally *t)
{
	static const struct {
		const char *sql, *want;
	} table[] = {
		{ "PRAGMA integrity_check", "ok" },
		{ "SELECT count(*)-count(DISTINCT ipv4) FROM nodes", "0" },
		{ "SELECT count(*)-count(DISTINCT ipv6) FROM nodes", "0" },
		{ "SELECT count(*)-count(DISTINCT machine_key) FROM nodes", "0" },
		{ "SELECT count(*) FROM nodes WHERE ephemeral", "0" },
		{ "SELECT count(*) FROM nodes n JOIN pre_auth_keys k ON n.auth_key_id=k.id WHERE NOT k.used", "0" },
		{ "SELECT count(*) FROM (SELECT n.auth_key_id FROM nodes n JOIN pre_auth_keys k ON n.auth_key_id=k.id"
		  " WHERE NOT k.reusable GROUP BY 1 HAVING count(*)>1)", "0" },
	};
	char got[64], want[64];
	sqlite3 *db = NULL;

	if (sqlite3_open_v2(l->db, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
		die("%s: %s", l->db, sqlite3_errmsg(db));
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		db_text(db, table[i].sql, got);
		if (strcmp(got, table[i].want))
			die("%s: %s", table[i].sql, got);
	}
	/* Every story came to its end, so there is nobody of ours but those who were told. */
	db_text(db, "SELECT count(*) FROM nodes WHERE hostname IN ('load','h')", got);
	snprintf(want, sizeof(want), "%d", t->in);
	if (strcmp(got, want))
		die("%s nodes in the database, %s were told that they are", got, want);
	sqlite3_close(db);
}

static int verify(struct joinload *l)
{
	struct tally t = { 0 };
	char path[4096];

	alarm(PATIENCE_SEC);
	nodes_get(l);
	for (int i = 0; i < l->workers; i++) {
		snprintf(path, sizeof(path), "%s/told.%d", l->dir, i);
		verify_file(l, path, &t);
	}
	verify_db(l, &t);
	json_decref(l->nodes);
	printf("%d nodes are what they were told, %d are out\n", t.in, t.out);
	return t.in >= 20 && t.out >= 20 ? 0 : 1; /* else nothing was tried */
}

/* ---- a flood */

static int flood_open(const struct joinload *l, const char *text)
{
	int fd = http_connect(l, false);

	if (fd >= 0 && send(fd, text, (size_t)l->bytes, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int flood(const struct joinload *l)
{
	struct pollfd *p = calloc((size_t)l->count, sizeof(*p));
	char *text = malloc((size_t)l->bytes + 1);
	unsigned int opened = 0, ended = 0;

	if (!p || !text)
		return 1;
	memset(text, 'a', (size_t)l->bytes);
	memcpy(text, "GET /", MIN((size_t)l->bytes, sizeof("GET /") - 1));
	for (int i = 0; i < l->count; i++)
		p[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	alarm(PATIENCE_SEC);
	while (!has_file(l, "calm")) {
		for (int i = 0; i < l->count; i++) {
			if (p[i].fd < 0 && (p[i].fd = flood_open(l, text)) >= 0)
				opened++;
		}
		poll(p, (nfds_t)l->count, 100);
		for (int i = 0; i < l->count; i++) {
			if (p[i].fd < 0 || !p[i].revents)
				continue;
			close(p[i].fd);
			p[i].fd = -1;
			p[i].revents = 0;
			ended++;
		}
		usleep(20000);
	}
	printf("%u connections opened, %u ended by the other side\n", opened, ended);
	free(p);
	free(text);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' }, { "socket", required_argument, NULL, 's' },
		{ "dir", required_argument, NULL, 'd' },  { "db", required_argument, NULL, 'b' },
		{ "workers", required_argument, NULL, 'w' }, { "count", required_argument, NULL, 'c' },
		{ "bytes", required_argument, NULL, 'n' }, { NULL, 0, NULL, 0 },
	};
	struct joinload l = { .workers = 6, .count = 200, .bytes = 5, .dir = "." };
	struct rlimit files;
	json_t *j;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'p':
			l.port = (uint16_t)atoi(optarg);
			break;
		case 's':
			l.socket = optarg;
			break;
		case 'd':
			l.dir = optarg;
			break;
		case 'b':
			l.db = optarg;
			break;
		case 'w':
			l.workers = atoi(optarg);
			break;
		case 'c':
			l.count = atoi(optarg);
			break;
		case 'n':
			l.bytes = atoi(optarg);
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1 || !l.port)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (key_init() < 0)
		return 1;
	if (!strcmp(argv[optind], "flood"))
		return flood(&l);
	if (!l.socket)
		return 2;
	j = ask(&l, false, "GET", "/key?v=131", "");
	if (json_get_key(j, "publicKey", KEY_KIND_MACHINE, &l.server) < 0)
		die("no key from the coordinator");
	json_decref(j);
	if (!strcmp(argv[optind], "load"))
		return load(&l);
	if (!strcmp(argv[optind], "streams"))
		return streams(&l);
	return strcmp(argv[optind], "verify") || !l.db ? 2 : verify(&l);
}
