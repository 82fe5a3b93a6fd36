/* coordinator: the map of relays comes from a URL, which answers well, badly or not at all. */
#include "tests/unit/coordinator_world.h"

#include <arpa/inet.h>
#include <glob.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define REGION(id)                                                                                                    \
	"\"" #id "\":{\"RegionID\":" #id ",\"RegionCode\":\"u\",\"RegionName\":\"U\",\"Nodes\":[{\"Name\":\"" #id       \
	"a\",\"RegionID\":" #id ",\"HostName\":\"127.0.0.1\"}]}"
#define SAYS(body) "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n" body

enum { MAP_AWAY, MAP_SEVEN, MAP_GARBAGE, MAP_OTHER, MAP_EMPTY, MAP_GONE, MAP_EIGHT };

static const char *const map_answers[] = {
	[MAP_AWAY] = "HTTP/1.1 503 Away\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
	[MAP_SEVEN] = SAYS("{\"Regions\":{" REGION(7) "}}"),
	[MAP_GARBAGE] = SAYS("{\"Regions\":{" REGION(9) "}"),
	[MAP_OTHER] = SAYS("{\"Regions\":[7]}"),
	[MAP_EMPTY] = SAYS("{}"),
	[MAP_GONE] = "HTTP/1.1 404 Gone\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
	[MAP_EIGHT] = SAYS("{\"Regions\":{" REGION(8) "}}"),
};

/* A web server that says to everybody what it is told to. */
struct mapserver {
	pid_t pid;
	uint16_t port;
	struct {
		atomic_int answer, asked;
	} *shared;
};

static void mapserver_main(struct mapserver *m, int listening)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		int fd = accept(listening, NULL, NULL);
		const char *text;
		char in[4096];
		size_t n = 0;
		ssize_t k;

		while (n < sizeof(in) - 1 && (k = read(fd, in + n, sizeof(in) - 1 - n)) > 0) {
			n += (size_t)k;
			in[n] = '\0';
			if (strstr(in, "\r\n\r\n"))
				break;
		}
		atomic_fetch_add(&m->shared->asked, 1); /* first: who is counted hears what is said from then on */
		text = map_answers[strncmp(in, "GET /map ", 9) ? MAP_GONE : atomic_load(&m->shared->answer)];
		if (write(fd, text, strlen(text)) < 0)
			_exit(1);
		close(fd);
	}
}

static void mapserver_start(struct mapserver *m)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	m->port = ntohs(in.sin_port);
	m->shared = mmap(NULL, sizeof(*m->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(m->shared != MAP_FAILED);
	m->pid = fork();
	assert_true(m->pid >= 0);
	if (m->pid == 0)
		mapserver_main(m, fd);
	close(fd);
}

static void mapserver_stop(struct mapserver *m)
{
	kill(m->pid, SIGKILL);
	waitpid(m->pid, NULL, 0);
	munmap(m->shared, sizeof(*m->shared));
}

/* From now on it answers so, and is asked so many times: the coordinator has taken note of an answer before it asks again. */
static void mapserver_says(const struct server *s, struct mapserver *m, int answer, int times)
{
	atomic_store(&m->shared->answer, answer);
	while (times--) {
		int before = atomic_load(&m->shared->asked);

		for (int tries = 0; atomic_load(&m->shared->asked) == before; tries++) {
			if (tries == 500)
				fail_msg("the URL is not asked again");
			kill(s->pid, SIGHUP);
			usleep(10000);
		}
	}
}

static json_t *region(json_t *map, const char *id)
{
	return json_get(json_get(json_get(map, "DERPMap"), "Regions"), id);
}

static size_t regions(json_t *map)
{
	return json_object_size(json_get(json_get(map, "DERPMap"), "Regions"));
}

/* A new stream's first map has these regions and no others; the stream is over when it is seen. */
static void first_map_has(const struct server *s, const char *first, const char *second)
{
	struct node_client *c = joined(s, "first");
	json_t *m;

	client_stream(c);
	m = client_map(c, WAIT_MSEC);
	if (!m || !region(m, first) || (second && !region(m, second)) || regions(m) != (second ? 2 : 1))
		fail_msg("the first map has not got region %s %s", first, second ? second : "alone");
	json_decref(m);
	client_free(c);
}

/* Maps that are kept, and the path of one. */
static size_t kept_count(const struct server *s, char path[static 256])
{
	char pattern[128];
	glob_t g = { 0 };
	size_t n;

	snprintf(pattern, sizeof(pattern), "%s/derpmap-*.json", s->dir);
	n = glob(pattern, 0, NULL, &g) == 0 ? g.gl_pathc : 0;
	if (n)
		snprintf(path, 256, "%s", g.gl_pathv[0]);
	globfree(&g);
	return n;
}

static bool file_says(const char *path, const char *word)
{
	FILE *f = fopen(path, "r");
	char text[4096] = "";
	bool says = f && fread(text, 1, sizeof(text) - 1, f) > 0 && strstr(text, word);

	if (f)
		fclose(f);
	return says;
}

/* Waits until the only map that is kept says this. */
static void kept(const struct server *s, const char *word, char path[static 256])
{
	for (int tries = 0; kept_count(s, path) != 1 || !file_says(path, word); tries++) {
		if (tries == 500)
			fail_msg("no map with %s is kept", word);
		usleep(20000);
	}
}

/* Starts again with this in its configuration. */
static void restart(struct server *s, const struct mapserver *m, const char *more)
{
	server_kill(s);
	snprintf(s->derp, sizeof(s->derp), "urls: [\"http://127.0.0.1:%u/map\"]%s", m->port, more);
	server_start(s);
}

/* The same, and it has never known a relay. */
static void restart_afresh(struct server *s, const struct mapserver *m)
{
	char path[256];

	restart(s, m, ""); /* from now on the file of the beginning is not read, and not kept */
	while (kept_count(s, path))
		assert_int_equal(unlink(path), 0);
}

static void test_relays_from_url(void **state)
{
	struct server *s = *state;
	struct node_client *a, *b;
	struct mapserver web;
	json_t *m;

	mapserver_start(&web);
	restart_afresh(s, &web);
	a = joined(s, "a");
	client_stream(a);
	assert_null(client_map(a, 300)); /* it would leave its home for good if it heard of no relay */
	assert_false(a->stream_over);
	m = admin(s, "GET", "/api/v1/node", ""); /* and all else goes on */
	assert_int_equal(json_array_size(json_get(m, "nodes")), 1);
	json_decref(m);
	mapserver_says(s, &web, MAP_SEVEN, 1);
	m = client_map_with(a, "DERPMap");
	assert_non_null(json_get(m, "Node"));
	assert_string_equal(json_get_str(region(m, "7"), "RegionName"), "U");
	json_decref(m);
	for (int bad = MAP_GARBAGE; bad <= MAP_GONE; bad++) {
		mapserver_says(s, &web, bad, 2);
		b = joined(s, "b");
		client_stream(b);
		m = client_map(b, WAIT_MSEC);
		if (!region(m, "7") || regions(m) != 1)
			fail_msg("answer %d does not leave the last good map", bad);
		json_decref(m);
		client_free(b);
	}
	mapserver_says(s, &web, MAP_EIGHT, 1);
	m = client_map_with(a, "DERPMap"); /* and a has heard of none in between */
	assert_non_null(region(m, "8"));
	assert_null(region(m, "7"));
	json_decref(m);
	client_free(a);
	mapserver_stop(&web);
}

/* 1 s, doubled up to 1 min, and never more than a quarter above it. */
static void test_backoff(void **state)
{
	static const unsigned int seconds[] = { 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60 };

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(seconds); i++) {
		for (int k = 0; k < 100; k++) {
			uint64_t usec = relays_backoff(i);

			assert_true(usec >= seconds[i] * USEC_PER_SEC && usec <= seconds[i] * USEC_PER_SEC * 5 / 4);
		}
	}
	assert_true(relays_backoff(UINT_MAX) >= 60 * USEC_PER_SEC);
}

/* Nobody has to say that it is to be asked again, and auto_update_enabled is false. */
static void test_asked_again(void **state)
{
	struct server *s = *state;
	struct node_client *a;
	struct mapserver web;
	json_t *m;
	int asked;

	mapserver_start(&web);
	restart_afresh(s, &web);
	a = joined(s, "a");
	client_stream(a);
	for (int tries = 0; atomic_load(&web.shared->asked) < 2; tries++) {
		if (tries == 3000)
			fail_msg("the URL is not asked again");
		usleep(10000);
	}
	atomic_store(&web.shared->answer, MAP_SEVEN);
	m = client_map(a, 30000);
	assert_non_null(m);
	assert_non_null(region(m, "7"));
	json_decref(m);
	asked = atomic_load(&web.shared->asked);
	usleep(1500000);
	assert_int_equal(atomic_load(&web.shared->asked), asked); /* a good answer ends it */
	client_free(a);
	mapserver_stop(&web);
}

/* A restart while the URL is away: what it said last is in the very first map. */
static void test_kept(void **state)
{
	struct server *s = *state;
	struct mapserver web;
	char path[256], yaml[96], paths[128];
	struct stat st;

	snprintf(yaml, sizeof(yaml), "%s/derp.yaml", s->dir);
	mapserver_start(&web);
	restart_afresh(s, &web);
	mapserver_says(s, &web, MAP_SEVEN, 1);
	kept(s, "\"7\":", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	atomic_store(&web.shared->answer, MAP_EMPTY); /* the worst of all that is not good */
	restart(s, &web, "");
	first_map_has(s, "7", NULL);
	mapserver_says(s, &web, MAP_EMPTY, 2);
	first_map_has(s, "7", NULL);
	mapserver_says(s, &web, MAP_EIGHT, 1);
	kept(s, "\"8\":", path); /* the newest one */
	mapserver_stop(&web);
	restart(s, &web, ""); /* now nobody listens */
	first_map_has(s, "8", NULL);

	/* The same for a file that is gone, and neither is lost for the other. */
	snprintf(paths, sizeof(paths), ", paths: [%s]", yaml);
	restart(s, &web, paths);
	first_map_has(s, "8", "900");
	for (int tries = 0; kept_count(s, path) != 2; tries++) {
		assert_true(tries < 500);
		usleep(20000);
	}
	assert_int_equal(truncate(yaml, 0), 0); /* somebody is about to write it anew */
	restart(s, &web, paths);
	first_map_has(s, "8", "900");
	assert_int_equal(unlink(yaml), 0);
	restart(s, &web, paths);
	first_map_has(s, "8", "900");
}

static void overwrite(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* What is kept and no map, and what is kept of another URL: the coordinator starts, and nodes wait for the answer. */
static void test_kept_of_no_use(void **state)
{
	static const char *const texts[] = { "", "{\"Regions\":{" REGION(9) "}", "{\"Regions\":[7]}", "{}",
					     "{\"Regions\":{\"9\":{\"RegionID\":8}}}" };
	struct server *s = *state;
	struct node_client *a;
	struct mapserver web;
	char path[256];

	mapserver_start(&web);
	restart_afresh(s, &web);
	mapserver_says(s, &web, MAP_SEVEN, 1);
	kept(s, "\"7\":", path);
	atomic_store(&web.shared->answer, MAP_AWAY);
	for (size_t i = 0; i <= ARRAY_SIZE(texts); i++) {
		if (i < ARRAY_SIZE(texts))
			overwrite(path, texts[i]);
		else
			assert_int_equal(truncate(path, 64 << 20), 0);
		restart(s, &web, "");
		a = joined(s, "a");
		client_stream(a);
		assert_null(client_map(a, 100));
		client_free(a);
	}
	mapserver_says(s, &web, MAP_SEVEN, 1);
	first_map_has(s, "7", NULL);
	kept(s, "\"7\":", path); /* in place of what was of no use */
	server_kill(s);
	snprintf(s->derp, sizeof(s->derp), "urls: [\"http://127.0.0.1:%u/elsewhere\"]", web.port);
	server_start(s);
	a = joined(s, "a");
	client_stream(a);
	assert_null(client_map(a, 300));
	client_free(a);
	mapserver_stop(&web);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_relays_from_url),
		cmocka_unit_test(test_backoff),
		T(test_asked_again),
		T(test_kept),
		T(test_kept_of_no_use),
	};

	signal(SIGPIPE, SIG_IGN);
	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
