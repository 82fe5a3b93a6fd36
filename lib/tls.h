#pragma once
/*
 * tls: certificates, keys and trust for struct stream; OpenSSL 3 stays behind this header.
 *
 * A context is shared by all connections of one listener or of one program's client side (the
 * system's CA bundle costs 1.3 MB: load it once). Counted; a stream keeps its own reference, so a
 * context may be let go while connections live. TLS 1.2 and 1.3. A server never picks h2: it
 * answers ALPN only where the client asks, with http/1.1 (control.md 3.1, derp.md 2.1).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/cleanup.h"

struct tls_ctx;
struct ssl_st; /* OpenSSL's SSL: for lib/sock.c and lib/stream.c only */

/* Server. Both files PEM; the first certificate is the leaf, the rest its chain. -EBADMSG with the reason
 * in tls_error(). */
int tls_server_new(const char *cert_file, const char *key_file, struct tls_ctx **ret);
/*
 * A self-made ECDSA P-256 certificate, ten years, for the given DNS names and address literals. Kept in the two
 * files (made 0600 when missing, loaded when there; made anew when the names differ). NULL files: in memory only.
 */
int tls_server_self(const char *const *names, size_t n, const char *cert_file, const char *key_file,
		    struct tls_ctx **ret);
/* Reads the files again; on failure everything stays as it was. New connections only. */
int tls_server_reload(struct tls_ctx *t);
/* One more certificate (DER) behind the chain, kept over reloads: DERP's meta certificate. */
int tls_server_append_cert(struct tls_ctx *t, const uint8_t *der, size_t len);
/* SHA-256 of the leaf's DER: what `sha256-raw:` pins name. */
int tls_server_leaf_sha256(const struct tls_ctx *t, uint8_t out[static 32]);

/* Client. ca_file NULL: OpenSSL's default places (SSL_CERT_FILE, SSL_CERT_DIR). A given file is trusted besides them. */
int tls_client_new(const char *ca_file, struct tls_ctx **ret);

struct tls_ctx *tls_ctx_ref(struct tls_ctx *t);
void tls_ctx_unref(struct tls_ctx *t);
DEFINE_CLEANUP(struct tls_ctx *, tls_ctx_unref)

/* Whom a client expects. Copied by stream_new(). */
struct tls_expect {
	const char *name;	   /* DNS name (also SNI) or address literal (IP SAN); NULL only with pin or insecure */
	const char *sni;	   /* DNS name to ask for where it is not the one to verify; NULL = name */
	const uint8_t *pin_sha256; /* 32 bytes: the leaf's DER has this hash; replaces chain and name checks */
	bool insecure;		   /* takes any certificate */
};

/* One certificate that the peer presented, in its order (leaf first). Views valid during the callback. */
struct tls_cert {
	char cn[160]; /* subject CN; "" where it has none, is longer, or holds a NUL */
	bool serial_known; /* fits 64 bits */
	uint64_t serial;
	const uint8_t *der;
	size_t der_len;
	uint8_t sha256[32]; /* of the DER */
};

/* For lib/sock.c and lib/stream.c: one connection's object (role by the context), the check of the peer once shaken
 * hands (0, -EACCES), and the reason in OpenSSL's queue as text. */
int tls_ssl_new(struct tls_ctx *t, const struct tls_expect *e, struct ssl_st **ret);
bool tls_is_server(const struct tls_ctx *t);
int tls_peer_certs(struct ssl_st *ssl, int (*fn)(void *data, const struct tls_cert *c), void *data);
const char *tls_reason(struct ssl_st *ssl);

/* Why the last tls_ call of this thread failed, for one log line. */
const char *tls_error(void);
