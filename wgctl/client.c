#include "wgctl/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "lib/json.h"

#define ANSWER_MAX    (256u << 20)
#define CROWDED_PAUSE 10 /* ms */
#define CROWDED_TRIES 500

struct client client_node(const struct cli *c)
{
	return (struct client){ .socket = cli_text(c, "socket", CLI_SOCKET),
				.daemon = "kernscaled",
				.service = "kernscaled" };
}

struct client client_admin(const struct cli *c)
{
	return (struct client){ .socket = cli_text(c, "admin-socket", CLI_ADMIN_SOCKET),
				.daemon = "kernscale-coordinator",
				.service = "kernscale-coordinator" };
}

void client_answer_done(struct client_answer *a)
{
	json_decref(a->body);
	*a = (struct client_answer){ 0 };
}

void client_escape(struct buf *b, const char *s)
{
	for (; *s; s++) {
		unsigned char u = (unsigned char)*s;

		if ((u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z') || (u >= '0' && u <= '9') ||
		    strchr("-._~", u))
			buf_put_u8(b, u);
		else
			buf_printf(b, "%%%02X", u);
	}
}

int client_exit(const char *code, long status)
{
	static const struct {
		const char *code;
		int exit;
	} table[] = {
		{ "failed", CLI_EXIT_FAILED },		 { "usage", CLI_EXIT_USAGE },
		{ "unsupported", CLI_EXIT_FAILED },	 { "not-found", CLI_EXIT_FAILED },
		{ "not-running", CLI_EXIT_UNREACHABLE }, { "needs-login", CLI_EXIT_LOGIN },
		{ "needs-approval", CLI_EXIT_LOGIN },	 { "timeout", CLI_EXIT_TIMEOUT },
		{ "refused", CLI_EXIT_REFUSED },	 { "busy", CLI_EXIT_FAILED },
	};

	for (size_t i = 0; code && i < ARRAY_SIZE(table); i++)
		if (!strcmp(table[i].code, code))
			return table[i].exit;
	return status == 401 || status == 403 ? CLI_EXIT_REFUSED : CLI_EXIT_FAILED;
}

bool client_reachable(const struct client *to)
{
	CLEANUP(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = strlen(to->socket);

	if (fd < 0 || len >= sizeof(sa.sun_path))
		return true; /* the request itself will say what is wrong */
	memcpy(sa.sun_path, to->socket, len);
	return connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0 ||
	       (errno != ENOENT && errno != ECONNREFUSED);
}

static size_t on_body(char *p, size_t size, size_t n, void *data)
{
	return buf_put(data, p, size * n) < 0 ? 0 : size * n;
}

static int fail_connect(const struct cli *c, const struct client *to, long os_errno)
{
	struct stat st;
	int e = (int)os_errno;

	if (!e && stat(to->socket, &st) < 0)
		e = errno;
	if (e == EACCES || e == EPERM)
		return cli_fail(c, CLI_EXIT_REFUSED, "no permission for %s; run it as root or as a member of its group",
				to->socket);
	if (to->quiet)
		return CLI_EXIT_UNREACHABLE;
	if (!e || e == EAGAIN) /* as perform() has it */
		return cli_fail(c, CLI_EXIT_TIMEOUT,
				"%s takes no connection at %s: too many wait there, or it hangs; see its log: journalctl -u %s",
				to->daemon, to->socket, to->service);
	return cli_fail(c, CLI_EXIT_UNREACHABLE,
			"cannot reach %s at %s: %s; is it running? systemctl start %s", to->daemon,
			to->socket, strerror(e), to->service);
}

static int fail_curl(const struct cli *c, const struct client *to, CURL *h, CURLcode code)
{
	long os_errno = 0;

	switch ((int)code) {
	case CURLE_COULDNT_CONNECT:
		curl_easy_getinfo(h, CURLINFO_OS_ERRNO, &os_errno);
		return fail_connect(c, to, os_errno);
	case CURLE_OPERATION_TIMEDOUT:
		return cli_fail(c, CLI_EXIT_TIMEOUT, "%s gave no answer in time", to->daemon);
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		if (to->quiet)
			return CLI_EXIT_UNREACHABLE;
		return cli_fail(c, CLI_EXIT_UNREACHABLE,
				"%s closed the connection; see its log: journalctl -u %s",
				to->daemon, to->service);
	default:
		return cli_fail(c, CLI_EXIT_FAILED, "%s: %s", to->daemon, curl_easy_strerror(code));
	}
}

static void set_request(CURL *h, const struct client *to, const char *method, const char *url,
			const struct buf *body, int64_t timeout_msec, struct buf *answer)
{
	curl_easy_setopt(h, CURLOPT_URL, url);
	curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, to->socket);
	curl_easy_setopt(h, CURLOPT_PROXY, ""); /* whatever the environment says */
	curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
	curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)timeout_msec);
	curl_easy_setopt(h, CURLOPT_USERAGENT, "wgctl/" KERNSCALE_VERSION);
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, answer);
	if (strcmp(method, "GET") != 0) {
		curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE, (long)body->len);
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, buf_data(body));
		curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
	}
}

/* A Unix socket whose queue of connections is full refuses at once, without an errno that curl keeps:
 * others crowd it, and there is room again in a moment. Tried for five seconds. */
static CURLcode perform(const struct client *to, CURL *h)
{
	static const struct timespec pause = { .tv_nsec = CROWDED_PAUSE * 1000000L };
	CURLcode code = curl_easy_perform(h);
	long os_errno = 0;
	struct stat st;

	for (int i = 0; i < CROWDED_TRIES && code == CURLE_COULDNT_CONNECT; i++) {
		curl_easy_getinfo(h, CURLINFO_OS_ERRNO, &os_errno);
		if ((os_errno && os_errno != EAGAIN) || stat(to->socket, &st) < 0)
			break;
		nanosleep(&pause, NULL);
		code = curl_easy_perform(h);
	}
	return code;
}

static int exchange(const struct cli *c, const struct client *to, const char *method,
		    const char *url, const struct buf *body, int64_t timeout_msec,
		    struct client_answer *ret)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	struct buf text = { .max = ANSWER_MAX };
	CURL *h = curl_easy_init();
	CURLcode code = CURLE_OUT_OF_MEMORY;
	int r = CLI_EXIT_GOOD;

	if (h && headers) {
		set_request(h, to, method, url, body, timeout_msec, &text);
		curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
		code = perform(to, h);
	}
	if (code != CURLE_OK) {
		r = fail_curl(c, to, h, code);
	} else {
		curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &ret->status);
		if (json_read(buf_data(&text), text.len, ANSWER_MAX, &ret->body) < 0)
			ret->body = NULL;
	}
	curl_slist_free_all(headers);
	if (h)
		curl_easy_cleanup(h);
	buf_done_secret(&text); /* may hold a new pre-auth key */
	return r;
}

int client_exchange(const struct cli *c, const struct client *to, const char *method,
		    const char *path, const json_t *body, int64_t timeout_msec,
		    struct client_answer *ret)
{
	struct buf text = { 0 }, url = { 0 };
	int r;

	*ret = (struct client_answer){ 0 };
	if (path)
		buf_printf(&url, "http://localhost%s", path);
	if (!path || (body && json_write(body, &text) < 0) || text.bad || !buf_str(&url))
		r = cli_fail(c, CLI_EXIT_FAILED, "out of memory");
	else
		r = exchange(c, to, method, buf_str(&url), &text, timeout_msec, ret);
	buf_done_secret(&text);
	buf_done(&url);
	return r;
}

int client_fail(const struct cli *c, const struct client *to, const struct client_answer *a)
{
	const char *error = json_get_str(a->body, "error");
	const char *remedy = json_get_str(a->body, "remedy");

	if (!error)
		error = json_get_str(a->body, "detail"); /* problem+json of the coordinator */
	if (error && *error && a->status == 404 && !remedy && c->depth > 2)
		return cli_fail(c, CLI_EXIT_FAILED, "%s; see %s %s %s list", error, c->path[0]->name,
				c->path[1]->name, c->path[2]->name);
	if ((!error || !*error) && a->status == 503) /* lib/httpd */
		return cli_fail(c, CLI_EXIT_FAILED, "%s has no descriptor free for another question; ask again later", to->daemon);
	if (!error || !*error)
		return cli_fail(c, client_exit(NULL, a->status), "%s answered with status %ld",
				to->daemon, a->status);
	return cli_fail(c, client_exit(json_get_str(a->body, "code"), a->status), "%s%s%s", error,
			remedy && *remedy ? "; " : "", remedy ? remedy : "");
}

int client_call(const struct cli *c, const struct client *to, const char *method, const char *path,
		const json_t *body, int64_t timeout_msec, json_t **ret)
{
	CLEANUP(client_answer_done) struct client_answer a = { 0 };
	int r = client_exchange(c, to, method, path, body, timeout_msec, &a);

	if (r != CLI_EXIT_GOOD)
		return r;
	if (a.status != 200)
		return client_fail(c, to, &a);
	if (!json_is_object(a.body))
		return cli_fail(
		    c, CLI_EXIT_FAILED,
		    "%s gave an answer that is not understood; are both of one version?",
		    to->daemon);
	*ret = TAKE(a.body);
	return CLI_EXIT_GOOD;
}
