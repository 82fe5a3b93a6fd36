/* coordinator: the map of relays comes from a URL, which answers well, badly or not at all. */
#include "tests/unit/coordinator_world.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>

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
		text = map_answers[strncmp(in, "GET /map ", 9) ? MAP_GONE : atomic_load(&m->shared->answer)];
		if (write(fd, text, strlen(text)) < 0)
			_exit(1);
		close(fd);
		atomic_fetch_add(&m->shared->asked, 1);
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

static void test_relays_from_url(void **state)
{
	struct server *s = *state;
	struct node_client *a, *b;
	struct mapserver web;
	json_t *m;

	mapserver_start(&web);
	server_kill(s);
	snprintf(s->derp, sizeof(s->derp), "urls: [\"http://127.0.0.1:%u/map\"]", web.port);
	server_start(s);
	a = joined(s, "a");
	client_stream(a);
	m = client_map(a, WAIT_MSEC);
	assert_non_null(json_get(m, "DERPMap"));
	assert_int_equal(json_object_size(json_get(json_get(m, "DERPMap"), "Regions")), 0);
	json_decref(m);
	mapserver_says(s, &web, MAP_SEVEN, 1);
	m = client_map_with(a, "DERPMap");
	assert_string_equal(json_get_str(region(m, "7"), "RegionName"), "U");
	json_decref(m);
	for (int bad = MAP_GARBAGE; bad <= MAP_GONE; bad++) {
		mapserver_says(s, &web, bad, 2);
		b = joined(s, "b");
		client_stream(b);
		m = client_map(b, WAIT_MSEC);
		if (!region(m, "7") || json_object_size(json_get(json_get(m, "DERPMap"), "Regions")) != 1)
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_relays_from_url),
	};

	signal(SIGPIPE, SIG_IGN);
	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
