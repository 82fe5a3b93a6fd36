#pragma once
/*
 * sock: a connected socket, plain or inside TLS: what read, write and close are for struct stream.
 *
 * Owns the descriptor and OpenSSL's object for it. Does one call at a time and remembers nothing of it: what to wait
 * for, queues and callbacks are stream.c's. Never raises SIGPIPE.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/tls.h"

struct sock {
	int fd;
	struct ssl_st *ssl; /* NULL: plain */
	int io_errno;	    /* of the last call, where it was the socket that failed, not TLS */
	bool write_wants_read; /* the last write waits for the rest of what the other side has begun to say about keys */
	uint8_t *pin;	    /* of the other side's certificate, until it is checked */
};

/* To be inside TLS from now on; s stays where it is until sock_done(). */
int sock_tls(struct sock *s, struct tls_ctx *tls, const struct tls_expect *expect);
/* 1: done; -EAGAIN: later, ret_write says for what it waits; 0: the other side has ended; another negative errno. */
ssize_t sock_handshake(struct sock *s, bool *ret_write);
/* -EACCES: not the certificate that was expected by its hash. */
int sock_check_pin(struct sock *s);
/* Bytes, 0 = end of stream (of reading), -EAGAIN, or another negative errno. */
ssize_t sock_read(struct sock *s, void *p, size_t n);
/* Bytes wait that epoll does not see, for they were taken from the socket with others: read on. */
bool sock_read_ahead(const struct sock *s);
ssize_t sock_write(struct sock *s, const void *p, size_t n);
int sock_tls_version(const struct sock *s); /* 0: plain */
/* Says goodbye inside TLS; nothing where there is none. False: the socket has no room for it, once more when it has. What
 * cannot be said any more is no matter. */
bool sock_tls_close(struct sock *s);
void sock_done(struct sock *s);
