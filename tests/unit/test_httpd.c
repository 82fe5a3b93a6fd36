/* httpd, httpc and stream together, over real sockets of this process. */
#include "tests/unit/httpd_world.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "lib/key.h"

static void test_plain(void **state)
{
	struct world w;
	struct httpc_opts o = { 0 };

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	ask(&w, "/hello", &o);
	assert_int_equal(w.r, 0);
	assert_int_equal(w.status, 200);
	assert_string_equal(buf_str(&w.body), "hello\n");
	assert_false(w.may); /* rights are for Unix sockets */
	close_world(&w);
}

static void test_statuses(void **state)
{
	static const struct {
		const char *text, *want;
	} t[] = {
		{ "GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 " },
		{ "POST /hello HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 " },
		{ "GET /hello HTTP/1.1\nConnection: close\n\n", "HTTP/1.1 400 " },
		{ "GET /hello HTTP/3.0\r\n\r\n", "HTTP/1.1 505 " },
		{ "POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", "HTTP/1.1 413 " },
		{ "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", "HTTP/1.1 200 " },
		{ "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400 " },
		{ "GET /hello HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 413 " },
		{ "HEAD /hello HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char text[4096];
		struct world w;

		if (i == 5) /* one byte over the limit, in chunks */
			snprintf(text, sizeof(text), "%s%01001d\r\n0\r\n\r\n", t[i].text, 0);
		else
			snprintf(text, sizeof(text), "%s", t[i].text);
		open_world(&w, NULL);
		listen_tcp(&w);
		raw(&w, NULL, text);
		assert_int_equal(w.raw_closed, 1);
		if (strncmp((char *)w.in.data, i == 5 ? "HTTP/1.1 413 " : t[i].want, 13) != 0)
			fail_msg("%s -> %s", text, (char *)w.in.data);
		if (i == 8) {
			assert_non_null(strstr((char *)w.in.data, "Content-Length: 6"));
			assert_null(strstr((char *)w.in.data, "\r\n\r\nhello"));
		}
		close_world(&w);
	}
}

static void turns(const struct world *w)
{
	for (int i = 0; i < 10; i++)
		assert_true(loop_iterate(w->loop, USEC_PER_MSEC) >= 0);
}

static void test_pipeline(void **state)
{
	static const char two[] = "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\noneGET /nothing HTTP/1.1\r\n\r\n"
				  "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
	struct world w;
	const char *at;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	raw(&w, NULL, two);
	assert_int_equal(w.calls, 2);
	assert_int_equal(w.raw_error, 0);
	at = strstr((char *)w.in.data, "\r\n\r\none");
	assert_non_null(at);
	at = strstr(at, "HTTP/1.1 404");
	assert_non_null(at);
	assert_non_null(strstr(at, "\r\n\r\ntwo"));
	assert_int_equal(httpd_conns(w.h), 1); /* until the client ends, too */
	close_world(&w);
}

static void test_held(void **state)
{
	struct httpc_opts o = { 0 };
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	ask(&w, "/hold?answer=1", &o);
	assert_int_equal(w.r, 0);
	assert_int_equal(w.status, 202);
	assert_int_equal(w.gone, 0);
	close_world(&w);

	open_world(&w, NULL);
	listen_tcp(&w);
	raw(&w, NULL, "GET /hold HTTP/1.1\r\n\r\n");
	assert_int_equal(w.gone, 1);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);

	/* the server goes while it holds */
	open_world(&w, NULL);
	listen_tcp(&w);
	w.raw_want = 1;
	raw(&w, NULL, "GET /hello HTTP/1.1\r\n\r\n");
	httpd_free(TAKE(w.h));
	close_world(&w);
}

static void test_stream_answer(void **state)
{
	struct httpc_opts o = { 0 };
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	ask(&w, "/chunks/x", &o);
	assert_int_equal(w.r, 0);
	assert_string_equal(buf_str(&w.body), "part part part ");
	close_world(&w);
	/* HTTP/1.0 has no chunks: the end of the connection is the end of the answer */
	open_world(&w, NULL);
	listen_tcp(&w);
	raw(&w, NULL, "GET /chunks/x HTTP/1.0\r\n\r\n");
	assert_non_null(strstr((char *)w.in.data, "\r\n\r\npart part part "));
	assert_null(strstr((char *)w.in.data, "chunked"));
	close_world(&w);
}

static void test_big(void **state)
{
	struct httpc_opts o = { .max_body = BIG };
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	ask(&w, "/big", &o);
	assert_int_equal(w.r, 0);
	assert_int_equal(w.body.len, BIG);
	assert_memory_equal(buf_data(&w.body), big, BIG);
	close_world(&w);
	open_world(&w, NULL);
	listen_tcp(&w);
	o = (struct httpc_opts){ .max_body = BIG - 1 };
	ask(&w, "/big", &o);
	assert_int_equal(w.r, -ENOBUFS);
	close_world(&w);
}

static void read_on(void *data)
{
	struct world *w = data;

	w->done = w->calls; /* until now nothing was read */
	stream_resume(w->raw);
}

/* Says text, reads nothing for a while, then all until the server closes. */
static void raw_late(struct world *w, const char *text, bool half)
{
	struct stream_opts so = { .ops = &raw_ops, .data = w };
	struct loop_timer *t;

	w->in.max = 5 * BIG;
	assert_int_equal(stream_new(w->loop, connect_raw(w), &so, &w->raw), 0);
	stream_pause(w->raw);
	assert_int_equal(stream_write(w->raw, text, strlen(text)), 0);
	if (half)
		assert_int_equal(shutdown(stream_fd(w->raw), SHUT_WR), 0);
	assert_int_equal(loop_timer_new(w->loop, read_on, w, &t), 0);
	loop_timer_in(t, 100 * USEC_PER_MSEC);
	loop_run(w->loop);
	loop_timer_free(t);
}

/* Who asks and asks and never reads costs one answer, not one for each question. */
static void test_unread(void **state)
{
#define ONE "GET /big HTTP/1.1\r\n\r\n"
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	raw_late(&w, ONE ONE ONE "GET /big HTTP/1.1\r\nConnection: close\r\n\r\n", false);
	assert_int_equal(w.done, 1);
	assert_int_equal(w.calls, 4); /* nobody was forgotten */
	assert_int_equal(w.raw_error, 0);
	assert_in_range(w.in.len, 4u * BIG, 4u * BIG + 4096);
	close_world(&w);
}

/* One that ends its half after the question reads the answer to its last byte. */
static void test_half_close(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	raw_late(&w, ONE, true);
	assert_int_equal(w.done, 1);
	assert_int_equal(w.raw_error, 0);
	assert_in_range(w.in.len, BIG, BIG + 4096);
	assert_memory_equal(buf_data(&w.in) + w.in.len - BIG, big, BIG);
	turns(&w);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);
}

/* A Unix socket for every user. */
static void open_for_all(struct world *w, const struct httpd_opts *o)
{
	open_world(w, o);
	routes(w);
	assert_int_equal(chmod(w->dir, 0755), 0);
	assert_int_equal(httpd_listen_unix(w->h, w->path, 0666), 0);
}

static void connect_unix(const struct world *w, int *fd, int n)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	memcpy(a.sun_path, w->path, strlen(w->path));
	for (int i = 0; i < n; i++) {
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&a, sizeof(a)), 0);
	}
}

/* A user of this machine cannot take all connections of a socket that is open to everybody. */
static void test_unix_share(void **state)
{
	const struct httpd_opts o = { .max_conns = 16 };
	struct world w;
	int fd[6 + 9];

	(void)state;
	if (geteuid() != 0)
		skip();
	open_for_all(&w, &o);
	assert_int_equal(seteuid(65534), 0);
	connect_unix(&w, fd, 6);
	assert_int_equal(seteuid(0), 0);
	for (int i = 0; i < 10; i++)
		assert_true(loop_iterate(w.loop, USEC_PER_MSEC) >= 0);
	assert_int_equal(httpd_conns(w.h), 4);
	connect_unix(&w, fd + 6, 9);
	for (int i = 0; i < 10; i++)
		assert_true(loop_iterate(w.loop, USEC_PER_MSEC) >= 0);
	assert_int_equal(httpd_conns(w.h), 13);
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	close_world(&w);
}

/* Takes all descriptors that there are; fills fd. */
static int starve(int *fd, int most)
{
	int n = 0;

	while (n < most && (fd[n] = dup(0)) >= 0)
		n++;
	assert_true(n < most && errno == EMFILE);
	return n;
}

static int none_free(void)
{
	int fd = dup(0);

	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == EMFILE;
}

/* -1: nothing yet; 0: the end; else the status. */
static int answer_at(int fd)
{
	char b[512] = "";
	ssize_t n = recv(fd, b, sizeof(b) - 1, MSG_DONTWAIT);

	return n < 12 ? (int)n : atoi(b + 9);
}

static void ask_at(const struct world *w, int fd, const char *more)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char text[128];

	memcpy(a.sun_path, w->path, strlen(w->path));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	snprintf(text, sizeof(text), "GET /hello HTTP/1.1\r\n%s\r\n", more);
	assert_true(send(fd, text, strlen(text), 0) > 0);
}

/* Without a descriptor the operator is answered all the same, one question at a time; the one that is kept for this
 * is taken back at once, and no other user holds it. */
static void test_no_descriptors(void **state)
{
	static const char last[] = "Connection: close\r\n";
	struct rlimit was, few;
	int fd[128], at[6], n;
	struct world w;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	open_for_all(&w, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		at[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	few = (struct rlimit){ ARRAY_SIZE(fd), was.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	n = starve(fd, ARRAY_SIZE(fd));

	ask_at(&w, at[0], "");
	turns(&w);
	assert_int_equal(answer_at(at[0]), 200);
	ask_at(&w, at[1], last); /* while the first one is still there */
	turns(&w);
	assert_int_equal(answer_at(at[1]), -1);
	assert_int_equal(httpd_conns(w.h), 1);
	assert_true(send(at[0], "GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n", 42, 0) > 0);
	turns(&w);
	assert_int_equal(answer_at(at[0]), 200);
	assert_int_equal(answer_at(at[1]), 200);
	assert_int_equal(httpd_conns(w.h), 0);
	assert_true(none_free());

	if (geteuid() == 0) {
		assert_int_equal(seteuid(65534), 0);
		ask_at(&w, at[2], "");
		ask_at(&w, at[3], "");
		assert_int_equal(seteuid(0), 0);
		ask_at(&w, at[4], last);
		turns(&w);
		assert_int_equal(answer_at(at[2]), 503);
		assert_int_equal(answer_at(at[3]), 503);
		assert_int_equal(answer_at(at[4]), 200);
		assert_true(none_free());
		while (n)
			close(fd[--n]);
		assert_int_equal(seteuid(65534), 0);
		ask_at(&w, at[5], last);
		assert_int_equal(seteuid(0), 0);
		turns(&w);
		assert_int_equal(answer_at(at[5]), 200);
	}
	while (n)
		close(fd[--n]);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		close(at[i]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	close_world(&w);
}

/* derp.md trap 2: what stands behind the head belongs to the new owner; and nothing is written for it. */
static void test_take(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, NULL);
	listen_tcp(&w);
	w.raw_want = 10;
	raw(&w, NULL, "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\nclient info");
	assert_string_equal(w.taken_bytes, "client info");
	assert_int_equal(w.in.len, 10);
	assert_memory_equal(w.in.data, "raw answer", 10);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);
}

static void test_unix(void **state)
{
	struct httpc_opts o = { .url = "http://local/hello" };
	struct httpd_peer p = { .is_unix = true, .uid = 1000, .gid = 1000, .n_groups = 1, .groups = { 7 } };
	struct world w;
	struct stat st;

	(void)state;
	open_world(&w, NULL);
	routes(&w);
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0660), 0);
	assert_int_equal(stat(w.path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	/* somebody answers there */
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0660), -EADDRINUSE);
	o.unix_path = w.path;
	ask(&w, "", &o);
	assert_int_equal(w.r, 0);
	assert_int_equal(w.status, 200);
	assert_true(w.may);
	close_world(&w);
	assert_int_equal(access(w.path, F_OK), -1);

	assert_true(httpd_peer_may(&p, 1000, (gid_t)-1));
	assert_true(httpd_peer_may(&p, (uid_t)-1, 7));
	assert_true(httpd_peer_may(&p, (uid_t)-1, 1000));
	assert_false(httpd_peer_may(&p, (uid_t)-1, 8));
	assert_false(httpd_peer_may(&p, 999, (gid_t)-1));
	p.is_unix = false;
	assert_false(httpd_peer_may(&p, 1000, 7));
}

static void test_unix_stale(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct httpc_opts o = { .url = "http://local/hello" };
	struct world w;
	int fd;

	(void)state;
	open_world(&w, NULL);
	routes(&w);
	memcpy(a.sun_path, w.path, strlen(w.path));
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0666), 0);
	httpd_stop_listening(w.h); /* takes its socket with it */
	/* nobody there: the request fails by its callback */
	o.unix_path = w.path;
	ask(&w, "", &o);
	assert_int_equal(w.r, -ENOENT);
	close_world(&w);
	/* what is no socket is left alone */
	open_world(&w, NULL);
	fd = creat(w.path, 0600);
	close(fd);
	assert_int_equal(httpd_listen_unix(w.h, w.path, 0666), -EEXIST);
	unlink(w.path);
	close_world(&w);
}

/* Who comes waits for a place, and whoever has asked nothing for longest makes it, but not within its first moments. */
static void test_limits(void **state)
{
	struct httpd_opts o = { .max_conns = 2 };
	uint64_t from = loop_clock();
	struct world w;
	char c;
	int a, b;

	(void)state;
	open_world(&w, &o);
	listen_tcp(&w);
	a = connect_raw(&w);
	b = connect_raw(&w);
	raw(&w, NULL, "GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n");
	assert_int_equal(w.raw_closed, 1);
	assert_memory_equal(w.in.data, "HTTP/1.1 200 ", 13);
	assert_true(loop_clock() - from >= 250 * USEC_PER_MSEC);
	assert_int_equal(httpd_conns(w.h), 2);
	assert_int_equal(recv(a, &c, 1, MSG_DONTWAIT), 0);
	assert_int_equal(recv(b, &c, 1, MSG_DONTWAIT), -1);
	close(a);
	close(b);
	close_world(&w);
}

/* Who was refused, or has been answered for the last time, and does not hang up has a place until it is taken away. */
static void test_ending(void **state)
{
	static const char last[] = "GET /hello HTTP/1.1\r\nConnection: close\r\n\r\n", bad[] = "HELLO\r\n\r\n";
	struct httpd_opts o = { .max_conns = 2 };
	uint64_t from = loop_clock();
	struct world w;
	int a, b;

	(void)state;
	open_world(&w, &o);
	listen_tcp(&w);
	a = connect_raw(&w);
	assert_int_equal(send(a, last, strlen(last), 0), strlen(last));
	turns(&w);
	assert_int_equal(httpd_conns(w.h), 1);
	close(a);
	turns(&w);
	assert_int_equal(httpd_conns(w.h), 0);

	a = connect_raw(&w);
	assert_int_equal(send(a, last, strlen(last), 0), strlen(last));
	turns(&w);
	b = connect_raw(&w);
	assert_int_equal(send(b, bad, strlen(bad), 0), strlen(bad));
	turns(&w);
	assert_int_equal(answer_at(a), 200);
	assert_int_equal(answer_at(b), 400);
	assert_int_equal(answer_at(a), 0);
	assert_int_equal(httpd_conns(w.h), 2);
	raw(&w, NULL, last);
	assert_memory_equal(w.in.data, "HTTP/1.1 200 ", 13);
	assert_true(loop_clock() - from >= 250 * USEC_PER_MSEC);
	assert_int_equal(httpd_conns(w.h), 2);
	assert_int_equal(send(a, "x", 1, MSG_NOSIGNAL), 1); /* answered by a reset: it made room */
	assert_int_equal(send(a, "x", 1, MSG_NOSIGNAL), -1);
	close(a);
	close(b);
	close_world(&w);
}

/* Nobody gets past his share by connections that end: they have a descriptor for seconds more. */
static void test_unix_share_ending(void **state)
{
	static const char bad[] = "HELLO\r\n\r\n";
	const struct httpd_opts o = { .max_conns = 16 };
	struct world w;
	int fd[6];

	(void)state;
	if (geteuid() != 0)
		skip();
	open_for_all(&w, &o);
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++) {
		assert_int_equal(seteuid(65534), 0);
		connect_unix(&w, fd + i, 1);
		assert_int_equal(seteuid(0), 0);
		send(fd[i], bad, strlen(bad), MSG_NOSIGNAL);
		turns(&w);
		assert_int_equal(answer_at(fd[i]) == 400, i < 4);
	}
	assert_int_equal(httpd_conns(w.h), 4);
	for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	turns(&w);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);
}

static void test_timeouts(void **state)
{
	struct httpd_opts o = { .head_usec = 50 * USEC_PER_MSEC, .idle_usec = 50 * USEC_PER_MSEC };
	struct world w;

	(void)state;
	open_world(&w, &o);
	listen_tcp(&w);
	raw(&w, NULL, "GET /hello HT");
	assert_memory_equal(w.in.data, "HTTP/1.1 408 ", 13);
	close_world(&w);
	open_world(&w, &o);
	listen_tcp(&w);
	raw(&w, NULL, "GET /hello HTTP/1.1\r\n\r\n"); /* answered, then idle */
	assert_memory_equal(w.in.data, "HTTP/1.1 200 ", 13);
	assert_int_equal(w.raw_closed, 1);
	close_world(&w);
	open_world(&w, &o);
	listen_tcp(&w);
	raw(&w, NULL, "POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf");
	assert_memory_equal(w.in.data, "HTTP/1.1 408 ", 13);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_pipeline),
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_stream_answer),
		cmocka_unit_test(test_big),
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_unix),
		cmocka_unit_test(test_unix_stale),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_ending),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_unread),
		cmocka_unit_test(test_half_close),
		cmocka_unit_test(test_unix_share),
		cmocka_unit_test(test_unix_share_ending),
		cmocka_unit_test(test_no_descriptors),
	};

	if (key_init() < 0)
		return 1;
	randombytes_buf(big, sizeof(big));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
