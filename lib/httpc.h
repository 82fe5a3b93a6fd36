#pragma once
/*
 * httpc: one asynchronous HTTP/1.1 request: dial, TLS, request, bounded answer. No redirects, no reuse.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/cleanup.h"
#include "lib/dial.h"
#include "lib/http.h"
#include "lib/loop.h"
#include "lib/tls.h"

struct httpc;

struct httpc_opts {
	const char *url;	  /* http:// or https:// */
	const char *unix_path;	  /* connect here instead of to the URL's host */
	const char *method;	  /* NULL = GET */
	const char *const *headers; /* name, value, name, value, …, NULL; NULL = none */
	const void *body;	  /* copied */
	size_t body_len;
	size_t max_body;	/* of the answer; 0 = 64 KiB */
	uint64_t timeout_usec;	/* for everything; 0 = 10 s */
	struct tls_ctx *tls;	/* client context; needed for https */
	bool insecure;		/* takes any certificate */
	const uint8_t *pin_sha256;
	struct dial_opts dial;
};

struct httpc_answer {
	const struct http_head *head; /* head->status; views valid in the callback */
	const uint8_t *body;	      /* NUL-terminated behind len bytes */
	size_t len;
};

/* Once: r == 0 with the answer of whatever status, or r < 0 with a == NULL and why. The request frees itself. */
typedef void httpc_fn(void *data, int r, const struct httpc_answer *a, const char *why);

/* The callback never comes inside httpc_start(). */
int httpc_start(struct loop *l, const struct httpc_opts *o, httpc_fn *fn, void *data, struct httpc **ret);
void httpc_cancel(struct httpc *c);
DEFINE_CLEANUP(struct httpc *, httpc_cancel)
