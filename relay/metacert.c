#include "relay/metacert.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "proto/derp.h"

#define METACERT_SECONDS (30L * 24 * 3600)

DEFINE_CLEANUP(X509 *, X509_free)
DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free)
DEFINE_CLEANUP(X509_EXTENSION *, X509_EXTENSION_free)

/* 71 characters, more than a CN may have: OpenSSL takes them only with an explicit string type. */
static int metacert_name(X509 *x, const struct key *server)
{
	char hex[KEY_TEXT_MAX], cn[KEY_TEXT_MAX + 8];
	X509_NAME *name = X509_get_subject_name(x);

	snprintf(cn, sizeof(cn), "derpkey%s", key_text(KEY_KIND_HEX, server, hex));
	if (!X509_NAME_add_entry_by_txt(name, "CN", V_ASN1_PRINTABLESTRING,
					(const unsigned char *)cn, -1, -1, 0) ||
	    !X509_set_issuer_name(x, name))
		return -EIO;
	return 0;
}

int metacert_make(const struct key *server, uint8_t out[static METACERT_MAX])
{
	CLEANUP(EVP_PKEY_free) EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	CLEANUP(X509_free) X509 *x = X509_new();
	CLEANUP(X509_EXTENSION_free)
	X509_EXTENSION *ext =
	    X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:FALSE");
	int len;

	if (!key || !x || !ext || !X509_set_version(x, X509_VERSION_3) ||
	    !ASN1_INTEGER_set(X509_get_serialNumber(x), DERP_VERSION) ||
	    !X509_gmtime_adj(X509_getm_notBefore(x), -METACERT_SECONDS) ||
	    !X509_gmtime_adj(X509_getm_notAfter(x), METACERT_SECONDS) ||
	    metacert_name(x, server) < 0 || !X509_set_pubkey(x, key) || !X509_add_ext(x, ext, -1) ||
	    !X509_sign(x, key, NULL))
		return -EIO;
	len = i2d_X509(x, NULL);
	if (len <= 0 || len > METACERT_MAX)
		return -EIO;
	return i2d_X509(x, &out);
}
