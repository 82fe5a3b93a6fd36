#pragma once
/*
 * client: one HTTP request to a daemon of this machine over its Unix socket, and its answer as JSON.
 *
 * Blocks (wgctl has nothing else to do). Turns what goes wrong into one line and an exit status.
 */
#include <jansson.h>
#include <stdint.h>

#include "wgctl/cli.h"

struct client {
	const char *socket;
	const char *daemon;  /* "kernscaled", for the sentences */
	const char *service; /* what to start */
	bool quiet;	     /* that it cannot be reached, or ended, is told by the exit status alone */
};

struct client_answer {
	long status;  /* HTTP */
	json_t *body; /* NULL when it is none */
};
void client_answer_done(struct client_answer *a);
static inline void client_answer_done_cleanup(struct client_answer *a)
{
	client_answer_done(a);
}

struct client client_node(const struct cli *c);
struct client client_admin(const struct cli *c);

/* Does anybody listen there, as far as we may know? True when only the rights are missing. */
bool client_reachable(const struct client *to);
/*
 * Sends body (borrowed, may be NULL) and gives the answer of whatever status. timeout_msec 0 = none. path NULL: there was
 * no memory to write it, which is what is said then.
 * CLI_EXIT_GOOD, or an exit status after saying why.
 */
int client_exchange(const struct cli *c, const struct client *to, const char *method, const char *path,
		    const json_t *body, int64_t timeout_msec, struct client_answer *ret);
/* The same, but any answer other than 200 is said and turned into its exit status. *ret is an
 * object. */
int client_call(const struct cli *c, const struct client *to, const char *method, const char *path,
		const json_t *body, int64_t timeout_msec, json_t **ret);
/* Says what an answer that is a failure holds; gives its exit status. */
int client_fail(const struct cli *c, const struct client *to, const struct client_answer *a);
/* The exit status of an error of the local API (its "code"), or of an HTTP status without one. */
int client_exit(const char *code, long http_status);
/* Appends s percent-encoded for a path segment or a query value. */
void client_escape(struct buf *b, const char *s);
