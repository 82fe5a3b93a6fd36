#include "lib/sock.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- the socket below OpenSSL: its own one writes with write(), which raises SIGPIPE */

static int bio_read_sock(BIO *b, char *p, int n)
{
	struct sock *s = BIO_get_data(b);
	ssize_t k = recv(s->fd, p, (size_t)n, 0);

	BIO_clear_retry_flags(b);
	if (k < 0) {
		if (errno == EAGAIN || errno == EINTR)
			BIO_set_retry_read(b);
		else
			s->io_errno = errno;
	} else if (k == 0) {
		BIO_set_flags(b, BIO_FLAGS_IN_EOF);
	}
	return (int)k;
}

static int bio_write_sock(BIO *b, const char *p, int n)
{
	struct sock *s = BIO_get_data(b);
	ssize_t k = send(s->fd, p, (size_t)n, MSG_NOSIGNAL);

	BIO_clear_retry_flags(b);
	if (k < 0) {
		if (errno == EAGAIN || errno == EINTR)
			BIO_set_retry_write(b);
		else
			s->io_errno = errno;
	}
	return (int)k;
}

static long bio_ctrl_sock(BIO *b, int cmd, long num, void *ptr)
{
	(void)num;
	(void)ptr;
	switch (cmd) {
	case BIO_CTRL_FLUSH:
		return 1;
	case BIO_CTRL_EOF:
		return BIO_test_flags(b, BIO_FLAGS_IN_EOF) != 0;
	default:
		return 0;
	}
}

static BIO_METHOD *bio_method;

static void bio_method_make(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sock");

	if (!m)
		return;
	BIO_meth_set_read(m, bio_read_sock);
	BIO_meth_set_write(m, bio_write_sock);
	BIO_meth_set_ctrl(m, bio_ctrl_sock);
	bio_method = m;
}

int sock_tls(struct sock *s, struct tls_ctx *tls, const struct tls_expect *expect)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *b;
	int r;

	pthread_once(&once, bio_method_make);
	if (!bio_method)
		return -ENOMEM;
	if (!tls_is_server(tls) && expect->pin_sha256) {
		s->pin = malloc(32);
		if (!s->pin)
			return -ENOMEM;
		memcpy(s->pin, expect->pin_sha256, 32);
	}
	r = tls_ssl_new(tls, expect, &s->ssl);
	if (r < 0)
		return r;
	b = BIO_new(bio_method);
	if (!b)
		return -ENOMEM;
	BIO_set_data(b, s);
	BIO_set_init(b, 1);
	SSL_set_bio(s->ssl, b, b);
	return 0;
}

/* SSL_get_error() looks at OpenSSL's queue, which others may have left full. Emptying an empty one takes as long as
 * copying a packet, though. */
static void tls_begin(struct sock *s)
{
	if (ERR_peek_error())
		ERR_clear_error();
	s->io_errno = 0;
}

/* Bytes, 0 = end of stream, -EAGAIN, or another negative errno. */
static ssize_t tls_result(struct sock *s, int k)
{
	switch (SSL_get_error(s->ssl, k)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return s->io_errno ? -s->io_errno : -ECONNRESET;
	default:
		if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
			return -ECONNRESET;
		return -EPROTO;
	}
}

ssize_t sock_read(struct sock *s, void *p, size_t n)
{
	ssize_t k;

	if (s->ssl) {
		tls_begin(s);
		k = SSL_read(s->ssl, p, (int)n);
		return k > 0 ? k : tls_result(s, (int)k);
	}
	k = recv(s->fd, p, n, 0);
	if (k < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return k;
}

bool sock_read_ahead(const struct sock *s)
{
	return s->ssl && SSL_has_pending(s->ssl);
}

ssize_t sock_write(struct sock *s, const void *p, size_t n)
{
	ssize_t k;

	if (s->ssl) {
		tls_begin(s);
		k = SSL_write(s->ssl, p, (int)MIN(n, (size_t)1 << 20));
		s->write_wants_read = k <= 0 && SSL_want_read(s->ssl);
		if (k > 0)
			return k;
		k = tls_result(s, (int)k);
		return k ? k : -EPIPE;
	}
	k = send(s->fd, p, n, MSG_NOSIGNAL);
	if (k < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return k;
}

/* ---- TLS */

ssize_t sock_handshake(struct sock *s, bool *ret_write)
{
	int r;

	tls_begin(s);
	r = SSL_do_handshake(s->ssl);
	if (r == 1)
		return 1;
	*ret_write = SSL_get_error(s->ssl, r) == SSL_ERROR_WANT_WRITE;
	return tls_result(s, r);
}

static int pin_check(void *data, const struct tls_cert *c)
{
	const uint8_t *pin = data;

	/* The leaf alone decides; what follows is nobody's claim. */
	return sodium_memcmp(pin, c->sha256, 32) == 0 ? -EEXIST : -EACCES;
}

int sock_check_pin(struct sock *s)
{
	int r;

	if (!s->pin)
		return 0;
	r = tls_peer_certs(s->ssl, pin_check, s->pin);
	free(s->pin);
	s->pin = NULL;
	return r == -EEXIST ? 0 : -EACCES;
}

int sock_tls_version(const struct sock *s)
{
	return s->ssl ? SSL_version(s->ssl) : 0;
}

bool sock_tls_close(struct sock *s)
{
	int r;

	if (!s->ssl)
		return true;
	tls_begin(s);
	r = SSL_shutdown(s->ssl);
	return r >= 0 || tls_result(s, r) != -EAGAIN;
}

void sock_done(struct sock *s)
{
	SSL_free(s->ssl);
	s->ssl = NULL;
	free(s->pin);
	s->pin = NULL;
	s->fd = fd_close(s->fd);
}
