#include <netdb.h>
#include <string.h>
#include <time.h>

#include "lib/addr.h"
#include "lib/json.h"
#include "wgctl/cmd.h"
#include "wgctl/out.h"
#include "wgctl/view.h"

#define PING_COUNT	   10
#define PING_TIMEOUT_MSEC  5000
#define PING_INTERVAL_MSEC 1000
#define RESOLVE_SEC	   2

/* A name that is no peer's: what the resolver says, as stock asks it; but nobody waits the 5 to 20 s
 * in which a dead one gives up. */
static bool resolve(const char *name, char out[static ADDR_TEXT_MAX])
{
	/* The look-up may outlive us, so what it writes to is not on the stack. */
	static const struct addrinfo hints = { .ai_socktype = SOCK_DGRAM };
	static struct gaicb ask;
	struct gaicb *list[] = { &ask };
	const struct gaicb *waited[] = { &ask };
	const struct timespec limit = { .tv_sec = RESOLVE_SEC };
	struct endpoint e;

	ask = (struct gaicb){ .ar_name = name, .ar_service = "1", .ar_request = &hints };
	if (getaddrinfo_a(GAI_NOWAIT, list, 1, NULL) != 0)
		return false;
	gai_suspend(waited, 1, &limit);
	if (gai_error(&ask) != 0 || !ask.ar_result ||
	    endpoint_from_sockaddr(ask.ar_result->ai_addr, &e) < 0)
		return false; /* what it has found by then ends with this program */
	addr_text(&e.addr, out);
	freeaddrinfo(ask.ar_result);
	return true;
}

/* The address to ping. *ret_self when it is our own. */
static int find_target(const struct cli *c, const json_t *status, const char *what,
		       char out[static ADDR_TEXT_MAX], bool *ret_self)
{
	const json_t *peer = view_find(status, what, ret_self);
	const char *ip = json_string_value(json_array_get(json_get(peer, "TailscaleIPs"), 0));
	struct addr a;

	if (addr_parse(what, strlen(what), &a) >= 0) {
		addr_text(&a, out);
		return CLI_EXIT_GOOD; /* the daemon knows routes that are no peer's own address */
	}
	if (peer && !ip)
		return cli_fail(c, CLI_EXIT_FAILED, "%s has no address in the mesh", what);
	if (ip && strlen(ip) < ADDR_TEXT_MAX)
		memcpy(out, ip, strlen(ip) + 1);
	else if (!resolve(what, out))
		return cli_fail(c, CLI_EXIT_FAILED, "there is no peer \"%s\"; see wgctl status",
				what);
	if (cli_bool(c, "verbose", false))
		fprintf(c->err, "lookup \"%s\" => \"%s\"\n", what, out);
	return CLI_EXIT_GOOD;
}

enum round { ROUND_NO_ANSWER, ROUND_RELAY, ROUND_DIRECT, ROUND_FAILED };

static enum round ping_once(const struct cli *c, const struct client *node, const char *ip,
			    int64_t timeout_msec, int *ret_exit)
{
	CLEANUP(client_answer_done) struct client_answer a = { 0 };
	CLEANUP(json_decref)
	json_t *body = json_pack("{s:i,s:s,s:I}", "schema", 1, "ip", ip, "timeout_msec",
				 (json_int_t)timeout_msec);
	struct buf line = { 0 };
	bool direct;

	*ret_exit = client_exchange(c, node, "POST", "/v1/ping", body, timeout_msec + 2000, &a);
	if (*ret_exit != CLI_EXIT_GOOD)
		return ROUND_FAILED;
	if (a.status == 504) {
		fprintf(c->out, "ping \"%s\" timed out\n", ip);
		fflush(c->out);
		return ROUND_NO_ANSWER;
	}
	if (a.status != 200 || !json_is_object(a.body)) {
		*ret_exit = client_fail(c, node, &a);
		return ROUND_FAILED;
	}
	view_pong(a.body, &line, &direct);
	out_flush(c->out, &line);
	buf_done(&line);
	return direct ? ROUND_DIRECT : ROUND_RELAY;
}

static int ping_rounds(const struct cli *c, const char *ip)
{
	struct client node = client_node(c);
	long count = cli_int(c, "c", PING_COUNT);
	int64_t timeout = cli_msec(c, "timeout", PING_TIMEOUT_MSEC);
	int64_t interval = cli_msec(c, "interval", PING_INTERVAL_MSEC) * 1000000;
	bool until_direct = cli_bool(c, "until-direct", true), any = false;
	int r;

	for (long n = 1; !count || n <= count; n++) {
		int64_t began = out_now(), rest;
		enum round got = ping_once(c, &node, ip, MAX(timeout, 1), &r);

		if (got == ROUND_FAILED)
			return r;
		any |= got != ROUND_NO_ANSWER;
		if (got == ROUND_DIRECT && until_direct)
			return CLI_EXIT_GOOD;
		rest = interval - (out_now() - began);
		if (n != count && rest > 0) {
			struct timespec ts = { .tv_sec = rest / 1000000000,
					       .tv_nsec = rest % 1000000000 };

			nanosleep(&ts, NULL);
		}
	}
	if (!any)
		return cli_fail(c, CLI_EXIT_TIMEOUT, "no reply");
	if (until_direct)
		return cli_fail(c, CLI_EXIT_FAILED, "direct connection not established");
	return CLI_EXIT_GOOD;
}

int cmd_ping(struct cli *c)
{
	CLEANUP(json_decref) json_t *status = NULL;
	char ip[ADDR_TEXT_MAX] = "";
	bool self = false;
	int r = cmd_get_status(c, true, &status);

	if (r == CLI_EXIT_GOOD)
		r = cmd_need_running(c, status);
	if (r == CLI_EXIT_GOOD)
		r = find_target(c, status, c->args[0], ip, &self);
	if (r != CLI_EXIT_GOOD)
		return r;
	if (self) {
		fprintf(c->out, "%s is local Kernscale IP\n", ip);
		return CLI_EXIT_GOOD;
	}
	return ping_rounds(c, ip);
}
