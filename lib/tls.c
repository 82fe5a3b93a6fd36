#include "lib/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/addr.h"
#include "lib/buf.h"
#include "lib/file.h"

#define SELF_DAYS	3650
#define SELF_RENEW_DAYS 30

struct tls_ctx {
	atomic_uint refs;
	bool server;
	SSL_CTX *ssl;
	char *cert_file, *key_file; /* NULL: made in memory, cannot be read again */
	X509 *extra;
};

static __thread char error_text[256];

const char *tls_error(void)
{
	return error_text[0] ? error_text : "unknown TLS error";
}

/* Takes the first reason off OpenSSL's queue: the later ones are its consequences. Where the system refused something, its
 * errno is returned instead of r: then nothing is wrong with what was to be read. */
static int fail(int r, const char *what)
{
	unsigned long e = ERR_get_error();
	const char *why = e ? ERR_reason_error_string(e) : NULL;

	if (ERR_SYSTEM_ERROR(e)) {
		r = -ERR_GET_REASON(e);
		why = strerror(-r);
	} else if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE) {
		r = -ENOMEM;
	}
	snprintf(error_text, sizeof(error_text), "%s%s%s", what, why ? ": " : "", why ? why : "");
	ERR_clear_error();
	return r;
}

static int fail_file(const char *path)
{
	int r = -errno;

	snprintf(error_text, sizeof(error_text), "%.150s: %s", path, strerror(-r));
	return r;
}

/* OpenSSL takes a file that cannot be opened for a missing one, and one that cannot be read for garbage. */
static int check_readable(const char *path)
{
	uint8_t some[4096];
	CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r = 0;

	if (fd < 0)
		return fail_file(path);
	if (read(fd, some, sizeof(some)) < 0)
		r = fail_file(path);
	OPENSSL_cleanse(some, sizeof(some));
	return r;
}

static inline void X509_free_cleanup(X509 **x)
{
	X509_free(*x);
}

static inline void EVP_PKEY_free_cleanup(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}

static inline void SSL_CTX_free_cleanup(SSL_CTX **c)
{
	SSL_CTX_free(*c);
}

static inline void fclose_cleanup(FILE **f)
{
	if (*f)
		fclose(*f);
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void tls_ctx_unref(struct tls_ctx *t)
{
	if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	SSL_CTX_free(t->ssl);
	X509_free(t->extra);
	free(t->cert_file);
	free(t->key_file);
	free(t);
}

bool tls_is_server(const struct tls_ctx *t)
{
	return t->server;
}

/* http/1.1 where the client offers it, no answer otherwise: a client that offers only h2 then finds out by itself. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
		       unsigned int in_len, void *data)
{
	static const unsigned char ours[] = "\x08http/1.1";

	(void)ssl;
	(void)data;
	if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_len, ours, sizeof(ours) - 1, in,
				  in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *ctx_new(bool server)
{
	SSL_CTX *c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	if (!c)
		return NULL;
	SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
	/* TLS 1.3: AES-128 first, for it takes a tenth less than AES-256; ChaCha20 for a client without AES in hardware, which names
	 * it first. */
	SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
				       SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	if (server && SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
						  "TLS_CHACHA20_POLY1305_SHA256") != 1) {
		SSL_CTX_free(c);
		return NULL;
	}
	/* An idle connection keeps no record buffers: 34 KiB less. A write may be repeated from another place, since the
	 * queue moves. No tickets: connections live for days, and a resumed one would not show its certificates. */
	SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY |
				    SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(c, 1);
	if (server) {
		SSL_CTX_set_num_tickets(c, 0);
		SSL_CTX_set_alpn_select_cb(c, choose_alpn, NULL);
	}
	return c;
}

static struct tls_ctx *tls_alloc(bool server)
{
	struct tls_ctx *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	atomic_init(&t->refs, 1);
	t->server = server;
	return t;
}

static int add_extra(SSL_CTX *c, X509 *extra)
{
	if (extra && SSL_CTX_add1_chain_cert(c, extra) != 1)
		return fail(-EBADMSG, "cannot append the certificate");
	return 0;
}

static int load_files(const char *cert_file, const char *key_file, SSL_CTX **ret)
{
	CLEANUP(SSL_CTX_free) SSL_CTX *c = ctx_new(true);
	int r;

	ERR_clear_error();
	if (!c)
		return fail(-ENOMEM, "TLS");
	r = check_readable(cert_file);
	if (r == 0)
		r = check_readable(key_file);
	if (r < 0)
		return r;
	if (SSL_CTX_use_certificate_chain_file(c, cert_file) != 1)
		return fail(-EBADMSG, "certificate file");
	if (SSL_CTX_use_PrivateKey_file(c, key_file, SSL_FILETYPE_PEM) != 1)
		return fail(-EBADMSG, "key file");
	if (SSL_CTX_check_private_key(c) != 1)
		return fail(-EBADMSG, "key does not belong to the certificate");
	*ret = TAKE(c);
	return 0;
}

int tls_server_new(const char *cert_file, const char *key_file, struct tls_ctx **ret)
{
	CLEANUP(tls_ctx_unref) struct tls_ctx *t = tls_alloc(true);
	int r;

	if (!t)
		return -ENOMEM;
	r = load_files(cert_file, key_file, &t->ssl);
	if (r < 0)
		return r;
	t->cert_file = strdup(cert_file);
	t->key_file = strdup(key_file);
	if (!t->cert_file || !t->key_file)
		return -ENOMEM;
	*ret = TAKE(t);
	return 0;
}

int tls_server_reload(struct tls_ctx *t)
{
	CLEANUP(SSL_CTX_free) SSL_CTX *c = NULL;
	int r;

	if (!t->server || !t->cert_file)
		return 0;
	r = load_files(t->cert_file, t->key_file, &c);
	if (r < 0)
		return r;
	r = add_extra(c, t->extra);
	if (r < 0)
		return r;
	SSL_CTX_free(t->ssl); /* connections hold their own reference */
	t->ssl = TAKE(c);
	return 0;
}

int tls_server_append_cert(struct tls_ctx *t, const uint8_t *der, size_t len)
{
	CLEANUP(X509_free) X509 *x = NULL;
	const unsigned char *p = der;
	int r;

	if (!t->server || len > LONG_MAX)
		return -EINVAL;
	ERR_clear_error();
	x = d2i_X509(NULL, &p, (long)len);
	if (!x || p != der + len)
		return fail(-EBADMSG, "certificate");
	r = add_extra(t->ssl, x);
	if (r < 0)
		return r;
	X509_free(t->extra);
	t->extra = TAKE(x);
	return 0;
}

int tls_server_leaf_sha256(const struct tls_ctx *t, uint8_t out[static 32])
{
	X509 *x = SSL_CTX_get0_certificate(t->ssl);

	if (!x || X509_digest(x, EVP_sha256(), out, NULL) != 1)
		return -EINVAL;
	return 0;
}

/* ---- self-made certificates */

static int add_ext(X509 *x, int nid, const char *value)
{
	X509V3_CTX v;
	X509_EXTENSION *e;
	int ok;

	X509V3_set_ctx_nodb(&v);
	X509V3_set_ctx(&v, x, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &v, nid, value);
	if (!e)
		return -EINVAL;
	ok = X509_add_ext(x, e, -1);
	X509_EXTENSION_free(e);
	return ok ? 0 : -ENOMEM;
}

static bool is_literal(const char *s)
{
	struct addr a;

	return addr_parse(s, strlen(s), &a) == 0;
}

/* Names go into OpenSSL's little configuration language: nothing but host name characters may. */
static int alt_names(const char *const *names, size_t n, struct buf *out)
{
	for (size_t i = 0; i < n; i++) {
		bool ip = is_literal(names[i]);

		if (!names[i][0] || (!ip && strspn(names[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
								 "0123456789-._*") != strlen(names[i])))
			return -EINVAL;
		buf_printf(out, "%s%s:%s", i ? "," : "", ip ? "IP" : "DNS", names[i]);
	}
	return buf_str(out) ? 0 : -ENOMEM;
}

static int self_make(const char *const *names, size_t n, X509 **ret_cert, EVP_PKEY **ret_key)
{
	CLEANUP(buf_done) struct buf san = { .max = 65536 };
	CLEANUP(X509_free) X509 *x = NULL;
	CLEANUP(EVP_PKEY_free) EVP_PKEY *k = NULL;
	CLEANUP(X509_free) X509 *done = NULL;
	X509_NAME *subject;
	BIGNUM *serial;
	int r;

	ERR_clear_error();
	if (n == 0)
		return -EINVAL;
	r = alt_names(names, n, &san);
	if (r < 0)
		return r;
	k = EVP_EC_gen("P-256");
	x = X509_new();
	serial = BN_new();
	if (!k || !x || !serial || BN_rand(serial, 120, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) != 1 ||
	    !BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(x))) {
		BN_free(serial);
		return fail(-ENOMEM, "certificate");
	}
	BN_free(serial);
	X509_set_version(x, X509_VERSION_3);
	X509_gmtime_adj(X509_getm_notBefore(x), -86400L); /* clocks of fresh machines are behind */
	X509_time_adj_ex(X509_getm_notAfter(x), SELF_DAYS, 0, NULL);
	X509_set_pubkey(x, k);
	subject = X509_get_subject_name(x);
	if (strlen(names[0]) <= 64)
		X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)names[0], -1, -1, 0);
	X509_set_issuer_name(x, subject);
	/* A CA of its own alone: so that it can be given to clients as a CA file too. */
	if (add_ext(x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") < 0 ||
	    add_ext(x, NID_key_usage, "critical,digitalSignature,keyCertSign") < 0 ||
	    add_ext(x, NID_ext_key_usage, "serverAuth") < 0 ||
	    add_ext(x, NID_subject_key_identifier, "hash") < 0 ||
	    add_ext(x, NID_subject_alt_name, buf_str(&san)) < 0 || X509_sign(x, k, EVP_sha256()) == 0)
		return fail(-EBADMSG, "cannot make the certificate");
	done = TAKE(x);
	*ret_cert = TAKE(done);
	*ret_key = TAKE(k);
	return 0;
}

/* 1: what is in the file will do; 0: it will not, or there is none; negative errno: that cannot be told. */
static int self_serves(const char *cert_file, const char *const *names, size_t n)
{
	int days = 0, secs = 0, r = check_readable(cert_file);
	CLEANUP(fclose) FILE *f = r == 0 ? fopen(cert_file, "re") : NULL;
	CLEANUP(X509_free) X509 *x = NULL;

	ERR_clear_error();
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!f)
		return fail_file(cert_file);
	x = PEM_read_X509(f, NULL, NULL, NULL);
	if (!x)
		return fail(0, cert_file);
	if (ASN1_TIME_diff(&days, &secs, NULL, X509_get0_notAfter(x)) != 1 || days < SELF_RENEW_DAYS)
		return 0;
	for (size_t i = 0; i < n; i++)
		if ((is_literal(names[i]) ? X509_check_ip_asc(x, names[i], 0) :
					    X509_check_host(x, names[i], 0, 0, NULL)) != 1)
			return 0;
	return 1;
}

static int write_pem(const char *path, X509 *x, EVP_PKEY *k)
{
	BIO *b = BIO_new(BIO_s_mem());
	char *text = NULL;
	long n = 0;
	int r = -ENOMEM;

	if (!b)
		return r;
	if ((x ? PEM_write_bio_X509(b, x) : PEM_write_bio_PrivateKey(b, k, NULL, NULL, 0, NULL, NULL)) == 1)
		n = BIO_get_mem_data(b, &text);
	if (n > 0) {
		r = file_replace(path, text, (size_t)n, 0600);
		OPENSSL_cleanse(text, (size_t)n);
	}
	BIO_free(b);
	return r;
}

int tls_server_self(const char *const *names, size_t n, const char *cert_file, const char *key_file,
		    struct tls_ctx **ret)
{
	CLEANUP(tls_ctx_unref) struct tls_ctx *t = NULL;
	CLEANUP(X509_free) X509 *x = NULL;
	CLEANUP(EVP_PKEY_free) EVP_PKEY *k = NULL;
	int r;

	/* Clients have pinned what is there: only what cannot serve any more is replaced, and twice it is looked at, for OpenSSL
	 * does not always say that memory is what it was short of. */
	for (int i = 0; i < 2 && cert_file && key_file; i++) {
		r = self_serves(cert_file, names, n);
		if (r > 0)
			r = tls_server_new(cert_file, key_file, &t);
		else if (r == 0)
			r = -ENOENT;
		if (r == 0)
			*ret = TAKE(t);
		if (r != -ENOENT && r != -EBADMSG)
			return r;
	}
	r = self_make(names, n, &x, &k);
	if (r < 0)
		return r == -EINVAL ? fail(r, "not a host name or address") : r;
	if (cert_file && key_file) {
		r = write_pem(key_file, NULL, k);
		if (r == 0)
			r = write_pem(cert_file, x, NULL);
		if (r < 0)
			return fail(r, "cannot write the self-made certificate");
		return tls_server_new(cert_file, key_file, ret);
	}
	t = tls_alloc(true);
	if (!t)
		return -ENOMEM;
	t->ssl = ctx_new(true);
	if (!t->ssl || SSL_CTX_use_certificate(t->ssl, x) != 1 || SSL_CTX_use_PrivateKey(t->ssl, k) != 1)
		return fail(-ENOMEM, "self-made certificate");
	*ret = TAKE(t);
	return 0;
}

/* ---- client */

int tls_client_new(const char *ca_file, struct tls_ctx **ret)
{
	CLEANUP(tls_ctx_unref) struct tls_ctx *t = tls_alloc(false);
	int fd;

	ERR_clear_error();
	if (!t)
		return -ENOMEM;
	/* OpenSSL says nothing of why it cannot open a file, and takes a bundle that it cannot open for a missing one. */
	fd = open(ca_file ? ca_file : "/", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return fail_file(ca_file ? ca_file : "/");
	close(fd);
	t->ssl = ctx_new(false);
	if (!t->ssl)
		return -ENOMEM;
	/* The default folder is looked into by hash when a chain needs it; nothing is loaded for a missing bundle. */
	if (SSL_CTX_set_default_verify_paths(t->ssl) != 1)
		ERR_clear_error();
	if (ca_file && SSL_CTX_load_verify_file(t->ssl, ca_file) != 1)
		return fail(-EBADMSG, ca_file);
	SSL_CTX_set_verify(t->ssl, SSL_VERIFY_PEER, NULL);
	*ret = TAKE(t);
	return 0;
}

static int expect_name(SSL *ssl, const char *name)
{
	char host[256];
	size_t n = strlen(name);

	if (n && name[n - 1] == '.')
		n--;
	if (n == 0 || n >= sizeof(host))
		return -EINVAL;
	memcpy(host, name, n);
	host[n] = '\0';
	if (is_literal(host))
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 ? 0 : -EINVAL;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (SSL_set1_host(ssl, host) != 1 || SSL_set_tlsext_host_name(ssl, host) != 1)
		return -EINVAL;
	return 0;
}

/* OpenSSL's macro casts const away; a copy spares the warning. */
static int ask_name(SSL *ssl, const char *name)
{
	char host[256];

	if (snprintf(host, sizeof(host), "%s", name) >= (int)sizeof(host))
		return -EINVAL;
	return SSL_set_tlsext_host_name(ssl, host) == 1 ? 0 : -EINVAL;
}

int tls_ssl_new(struct tls_ctx *t, const struct tls_expect *e, struct ssl_st **ret)
{
	SSL *ssl = SSL_new(t->ssl);
	int r = 0;

	if (!ssl)
		return -ENOMEM;
	if (t->server) {
		SSL_set_accept_state(ssl);
		*ret = ssl;
		return 0;
	}
	SSL_set_connect_state(ssl);
	if (e->name)
		r = expect_name(ssl, e->name);
	else if (!e->pin_sha256 && !e->insecure)
		r = -EINVAL;
	if (r == 0 && e->sni && !is_literal(e->sni))
		r = ask_name(ssl, e->sni);
	if (r < 0) {
		SSL_free(ssl);
		return fail(r, "no name to verify");
	}
	if (e->pin_sha256 || e->insecure)
		SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
	*ret = ssl;
	return 0;
}

static void cert_describe(X509 *x, struct tls_cert *c)
{
	X509_NAME *subject = X509_get_subject_name(x);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	uint64_t serial;

	if (at >= 0) {
		const ASN1_STRING *s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
		size_t n = (size_t)ASN1_STRING_length(s);
		const unsigned char *p = ASN1_STRING_get0_data(s);

		if (n < sizeof(c->cn) && !memchr(p, 0, n))
			memcpy(c->cn, p, n);
	}
	if (ASN1_INTEGER_get_uint64(&serial, X509_get0_serialNumber(x)) == 1) {
		c->serial_known = true;
		c->serial = serial;
	}
	ERR_clear_error();
}

int tls_peer_certs(struct ssl_st *ssl, int (*fn)(void *data, const struct tls_cert *c), void *data)
{
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
	int n = chain ? sk_X509_num(chain) : 0;

	for (int i = 0; i < n; i++) {
		X509 *x = sk_X509_value(chain, i);
		struct tls_cert c = { 0 };
		unsigned char *der = NULL;
		int len = i2d_X509(x, &der), r;

		if (len < 0)
			return -ENOMEM;
		cert_describe(x, &c);
		c.der = der;
		c.der_len = (size_t)len;
		EVP_Digest(der, (size_t)len, c.sha256, NULL, EVP_sha256(), NULL);
		r = fn(data, &c);
		OPENSSL_free(der);
		if (r < 0)
			return r;
	}
	return n;
}

const char *tls_reason(struct ssl_st *ssl)
{
	unsigned long e = ERR_get_error();
	long v = SSL_get_verify_result(ssl);
	const char *why = e ? ERR_reason_error_string(e) : NULL;

	if (v != X509_V_OK && ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED)
		snprintf(error_text, sizeof(error_text), "certificate refused: %s", X509_verify_cert_error_string(v));
	else
		snprintf(error_text, sizeof(error_text), "TLS: %s", why ? why : "failed");
	ERR_clear_error();
	return error_text;
}
