/* tls: whom a client takes for the server, and the server's own certificate files. */
#include "tests/unit/httpd_world.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "lib/key.h"

static void open_tls(struct world *w, const char *const *names, size_t n)
{
	char cert[64], key[64];
	struct stat st;

	open_world(w, NULL);
	snprintf(cert, sizeof(cert), "%s/cert.pem", w->dir);
	snprintf(key, sizeof(key), "%s/key.pem", w->dir);
	assert_int_equal(tls_server_self(names, n, cert, key, &w->server), 0);
	assert_int_equal(stat(key, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* It is its own CA. */
	assert_int_equal(tls_client_new(cert, &w->client), 0);
	unlink(cert);
	unlink(key);
	listen_tcp(w);
}

static void test_tls_verify(void **state)
{
	static const char *const good[] = { "relay.example.com", "127.0.0.1" }, *const other[] = { "relay.example.com", "127.0.0.2" };
	struct httpc_opts o = { 0 };
	struct world w;

	(void)state;
	open_tls(&w, good, 2);
	ask(&w, "/hello", &o);
	if (w.r)
		fail_msg("%s", w.why);
	assert_int_equal(w.status, 200);
	close_world(&w);

	/* another address in the certificate */
	open_tls(&w, other, 2);
	o = (struct httpc_opts){ 0 };
	ask(&w, "/hello", &o);
	assert_true(w.r < 0);
	assert_non_null(strstr(w.why, "IP address mismatch"));
	assert_int_equal(w.calls, 0);
	close_world(&w);

	/* nobody's CA */
	open_tls(&w, good, 2);
	tls_ctx_unref(w.client);
	assert_int_equal(tls_client_new(NULL, &w.client), 0);
	o = (struct httpc_opts){ 0 };
	ask(&w, "/hello", &o);
	assert_true(w.r < 0);
	assert_non_null(strstr(w.why, "self-signed"));
	close_world(&w);

	/* insecure takes it */
	open_tls(&w, other, 2);
	o = (struct httpc_opts){ .insecure = true };
	ask(&w, "/hello", &o);
	assert_int_equal(w.r, 0);
	close_world(&w);
}

static void test_tls_pin(void **state)
{
	static const char *const names[] = { "x.example" };
	struct httpc_opts o = { 0 };
	struct world w;
	uint8_t pin[32];

	(void)state;
	for (int wrong = 0; wrong < 2; wrong++) {
		open_tls(&w, names, 1);
		assert_int_equal(tls_server_leaf_sha256(w.server, pin), 0);
		pin[31] ^= (uint8_t)wrong;
		o = (struct httpc_opts){ .pin_sha256 = pin };
		ask(&w, "/hello", &o);
		assert_int_equal(w.r, wrong ? -EACCES : 0);
		assert_int_equal(w.calls, !wrong);
		close_world(&w);
	}
}

/* derp.md 3: CN of 71 characters, serial 2, at the end of the chain; clients that verify do not mind it. */
static void make_meta(uint8_t **der, int *len)
{
	static const char cn[] = "derpkey00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	X509 *x = X509_new();

	assert_int_equal(strlen(cn), 71);
	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 2);
	X509_gmtime_adj(X509_getm_notBefore(x), -86400);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_set_pubkey(x, k);
	assert_int_equal(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", V_ASN1_PRINTABLESTRING,
						    (const unsigned char *)cn, -1, -1, 0), 1);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	assert_true(X509_sign(x, k, NULL) > 0);
	*der = NULL;
	*len = i2d_X509(x, der);
	X509_free(x);
	EVP_PKEY_free(k);
}

static void test_tls_meta(void **state)
{
	static const char *const names[] = { "127.0.0.1" };
	struct tls_expect e = { .name = "127.0.0.1" };
	uint8_t *der, leaf[32];
	struct world w;
	int len;

	(void)state;
	open_tls(&w, names, 1);
	make_meta(&der, &len);
	assert_int_equal(tls_server_append_cert(w.server, der, (size_t)len), 0);
	w.raw_want = 10;
	raw(&w, &e, "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\nclient info");
	if (w.raw_closed)
		fail_msg("%s", w.raw_why);
	assert_string_equal(w.taken_bytes, "client info");
	assert_int_equal(w.certs, 2);
	assert_int_equal(tls_server_leaf_sha256(w.server, leaf), 0);
	assert_memory_equal(w.leaf, leaf, 32);
	assert_memory_equal(w.last_cert.cn, "derpkey0011", 11);
	assert_int_equal(strlen(w.last_cert.cn), 71);
	assert_true(w.last_cert.serial_known && w.last_cert.serial == 2);
	OPENSSL_free(der);
	close_world(&w);
}

static void test_tls_files(void **state)
{
	static const char *const one[] = { "a.example" }, *const two[] = { "a.example", "b.example" };
	uint8_t first[32], again[32];
	char dir[] = "/tmp/tls.XXXXXX", cert[64], key[64], away[64];
	struct rlimit files, few;
	struct tls_ctx *t;
	int r;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(cert, sizeof(cert), "%s/c", dir);
	snprintf(key, sizeof(key), "%s/k", dir);
	assert_int_equal(tls_server_new(cert, key, &t), -ENOENT);
	assert_int_equal(tls_server_self(one, 1, cert, key, &t), 0);
	tls_server_leaf_sha256(t, first);
	tls_ctx_unref(t);
	/* kept over a restart */
	assert_int_equal(tls_server_self(one, 1, cert, key, &t), 0);
	tls_server_leaf_sha256(t, again);
	assert_memory_equal(first, again, 32);
	tls_ctx_unref(t);
	/* what cannot be read for want of a descriptor is kept */
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	few = files;
	few.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	r = tls_server_self(one, 1, cert, key, &t);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	assert_int_equal(r, -EMFILE);
	assert_non_null(strstr(tls_error(), strerror(EMFILE)));
	assert_int_equal(tls_server_self(one, 1, cert, key, &t), 0);
	tls_server_leaf_sha256(t, again);
	assert_memory_equal(first, again, 32);
	tls_ctx_unref(t);
	/* nor is what the disk does not give */
	for (int i = 0; i < 2; i++) {
		const char *file = i ? key : cert;

		snprintf(away, sizeof(away), "%s/away", dir);
		assert_int_equal(rename(file, away), 0);
		assert_int_equal(symlink("/proc/self/mem", file), 0);
		assert_int_equal(tls_server_self(one, 1, cert, key, &t), -EIO);
		assert_int_equal(rename(away, file), 0);
	}
	/* a name more: made anew */
	assert_int_equal(tls_server_self(two, 2, cert, key, &t), 0);
	tls_server_leaf_sha256(t, again);
	assert_memory_not_equal(first, again, 32);
	assert_int_equal(tls_server_reload(t), 0);
	/* broken files change nothing */
	assert_int_equal(truncate(cert, 10), 0);
	assert_int_equal(tls_server_reload(t), -EBADMSG);
	tls_server_leaf_sha256(t, first);
	assert_memory_equal(first, again, 32);
	tls_ctx_unref(t);
	assert_int_equal(tls_server_self((const char *const[]){ "a,DNS:evil" }, 1, NULL, NULL, &t), -EINVAL);
	unlink(cert);
	unlink(key);
	rmdir(dir);
}

static void test_tls_garbage(void **state)
{
	static const char *const names[] = { "127.0.0.1" };
	struct tls_expect e = { .name = "127.0.0.1" };
	struct world w;

	(void)state;
	/* plain bytes to a TLS listener */
	open_tls(&w, names, 1);
	raw(&w, NULL, "GET /hello HTTP/1.1\r\n\r\n");
	assert_int_equal(w.raw_closed, 1);
	assert_int_equal(httpd_conns(w.h), 0);
	close_world(&w);
	/* TLS to a plain listener */
	open_world(&w, NULL);
	assert_int_equal(tls_client_new(NULL, &w.client), 0);
	listen_tcp(&w);
	raw(&w, &e, "GET /hello HTTP/1.1\r\n\r\n");
	assert_int_equal(w.raw_closed, 1);
	assert_true(w.raw_error < 0);
	close_world(&w);
}

/* ---- the end of a stream whose socket is full */

struct farewell {
	struct loop *loop;
	struct stream *server, *client;
	size_t n, came;
	int error;
	bool closed, full;
	char why[128];
};

static void farewell_guard(void *data)
{
	(void)data;
	fail_msg("took too long");
}

/* All of it into the socket at once, and the end behind it. */
static void farewell_server_ready(void *data, struct stream *s)
{
	struct farewell *f = data;

	assert_int_equal(stream_write(s, big, f->n), 0);
	f->full = stream_pending(s) > 0;
	stream_finish(s, NULL, NULL);
	f->server = NULL;
}

static void farewell_no_input(void *data, struct stream *s)
{
	(void)data;
	buf_clear(stream_input(s));
}

static void farewell_server_closed(void *data, struct stream *s, int error, const char *why)
{
	(void)data;
	(void)s;
	fail_msg("server: %d %s", error, why);
}

static void farewell_client_input(void *data, struct stream *s)
{
	struct farewell *f = data;

	f->came += stream_input(s)->len;
	buf_clear(stream_input(s));
}

static void farewell_client_closed(void *data, struct stream *s, int error, const char *why)
{
	struct farewell *f = data;

	(void)s;
	f->closed = true;
	f->error = error;
	snprintf(f->why, sizeof(f->why), "%s", why);
	loop_exit(f->loop, 0);
}

static void farewell_client_ready(void *data, struct stream *s)
{
	(void)data;
	(void)s;
}

/* How full the socket was when the last byte had gone: 1 and all would not fit, 0 and it did. */
static bool farewell(struct tls_ctx *server, struct tls_ctx *client, size_t n)
{
	static const struct stream_ops server_ops = { .on_ready = farewell_server_ready, .on_input = farewell_no_input,
						      .on_closed = farewell_server_closed },
				       client_ops = { .on_ready = farewell_client_ready, .on_input = farewell_client_input,
						      .on_closed = farewell_client_closed };
	struct farewell f = { .n = n };
	struct loop_timer *guard_timer;
	int fd[2], bytes = 16384;

	assert_int_equal(loop_new(&f.loop), 0);
	assert_int_equal(loop_timer_new(f.loop, farewell_guard, &f, &guard_timer), 0);
	loop_timer_in(guard_timer, 10 * USEC_PER_SEC);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
	assert_int_equal(stream_new(f.loop, fd[0], &(struct stream_opts){ .ops = &server_ops, .data = &f, .tls = server }, &f.server), 0);
	assert_int_equal(stream_new(f.loop, fd[1], &(struct stream_opts){ .ops = &client_ops, .data = &f, .tls = client,
									  .expect = { .name = "x" } }, &f.client), 0);
	assert_int_equal(loop_run(f.loop), 0);
	assert_true(f.closed);
	if (f.error)
		fail_msg("%zu bytes: %zu came, then: %s", n, f.came, f.why);
	assert_int_equal(f.came, n);
	stream_free(f.client);
	loop_timer_free(guard_timer);
	loop_free(f.loop);
	return f.full;
}

/* What says that this is the end has to wait for room like everything before it: without it the other side has to take
 * the end for a cut. */
static void test_tls_farewell(void **state)
{
	static const char *const names[] = { "x" };
	struct tls_ctx *server, *client;
	bool fits = false, full = false;
	char cert[] = "/tmp/farewell.XXXXXX", key[] = "/tmp/farewell.XXXXXX";

	(void)state;
	assert_true(close(mkstemp(cert)) == 0 && close(mkstemp(key)) == 0 && unlink(cert) == 0 && unlink(key) == 0);
	assert_int_equal(tls_server_self(names, 1, cert, key, &server), 0);
	assert_int_equal(tls_client_new(cert, &client), 0);
	assert_true(unlink(cert) == 0 && unlink(key) == 0);
	for (size_t n = 1; n < 100000; n += 1500) {
		if (farewell(server, client, n))
			full = true;
		else
			fits = true;
	}
	assert_true(fits && full);
	tls_ctx_unref(client);
	tls_ctx_unref(server);
}

/* ---- a client that begins to say something about keys, and stops */

static char traffic_secret[160];

static void keep_secret(const SSL *ssl, const char *line)
{
	(void)ssl;
	if (!strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24))
		snprintf(traffic_secret, sizeof(traffic_secret), "%s", strrchr(line, ' ') + 1);
}

/* HKDF-Expand-Label (RFC 8446, 7.1) of the client's traffic secret, with SHA-256. */
static void expand_label(const char *label, uint8_t *out, size_t n)
{
	uint8_t secret[64], info[64] = { 0, (uint8_t)n, (uint8_t)(strlen(label) + 6) };
	size_t len, k = 3 + (size_t)sprintf((char *)info + 3, "tls13 %s", label) + 1;
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);

	assert_int_equal(sodium_hex2bin(secret, sizeof(secret), traffic_secret, strlen(traffic_secret), NULL, &len, NULL), 0);
	assert_true(EVP_PKEY_derive_init(c) > 0 && EVP_PKEY_CTX_set_hkdf_mode(c, EVP_PKEY_HKDEF_MODE_EXPAND_ONLY) > 0 &&
		    EVP_PKEY_CTX_set_hkdf_md(c, EVP_sha256()) > 0 && EVP_PKEY_CTX_set1_hkdf_key(c, secret, (int)len) > 0 &&
		    EVP_PKEY_CTX_add1_hkdf_info(c, info, (int)k) > 0 && EVP_PKEY_derive(c, out, &n) > 0);
	EVP_PKEY_CTX_free(c);
}

/* One protected record, the number-th of this client. */
static void put_record(int fd, unsigned int number, uint8_t type, const char *p, size_t n)
{
	uint8_t key[16], iv[12], in[256], rec[300] = { 23, 3, 3, 0, (uint8_t)(n + 17) };
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int k, last;

	expand_label("key", key, sizeof(key));
	expand_label("iv", iv, sizeof(iv));
	iv[11] ^= (uint8_t)number;
	memcpy(in, p, n);
	in[n] = type;
	assert_true(EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, key, iv) && EVP_EncryptUpdate(c, NULL, &k, rec, 5) &&
		    EVP_EncryptUpdate(c, rec + 5, &k, in, (int)n + 1) && EVP_EncryptFinal_ex(c, rec + 5 + k, &last) &&
		    EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, 16, rec + 6 + n));
	EVP_CIPHER_CTX_free(c);
	assert_int_equal(write(fd, rec, n + 22), (ssize_t)n + 22);
}

static void turns_over(void *data)
{
	*(bool *)data = true;
}

/* An answer that TLS does not write before it has read the rest: it is waited for, and nothing spins meanwhile. */
static void test_tls_half_key_update(void **state)
{
	static const char *const names[] = { "127.0.0.1" };
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	union sockaddr_any sa;
	struct loop_timer *timer;
	unsigned int turns = 0;
	struct world w;
	bool over = false;
	char answer[512];
	SSL *ssl;
	int fd, n = 0;

	(void)state;
	open_tls(&w, names, 1);
	SSL_CTX_set_keylog_callback(ctx, keep_secret);
	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	ssl = SSL_new(ctx);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, &sa.sa, endpoint_to_sockaddr(&w.at, &sa)), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	SSL_set_fd(ssl, fd);
	while (SSL_connect(ssl) != 1)
		assert_true(loop_iterate(w.loop, 50 * USEC_PER_MSEC) >= 0);
	assert_string_equal(SSL_get_cipher(ssl), "TLS_AES_128_GCM_SHA256");
	put_record(fd, 0, 23, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 32);
	put_record(fd, 1, 22, "\x18\0\0\1", 4);
	assert_int_equal(loop_timer_new(w.loop, turns_over, &over, &timer), 0);
	loop_timer_in(timer, 300 * USEC_PER_MSEC);
	for (; !over; turns++)
		assert_true(loop_iterate(w.loop, USEC_PER_SEC) >= 0);
	assert_int_equal(w.calls, 1);
	assert_in_range(turns, 1, 50);
	put_record(fd, 2, 22, "\0", 1);
	for (over = false, loop_timer_in(timer, 2 * USEC_PER_SEC); !over && (n = SSL_read(ssl, answer, sizeof(answer) - 1)) <= 0;)
		assert_true(loop_iterate(w.loop, 50 * USEC_PER_MSEC) >= 0);
	assert_true(n > 0);
	answer[n] = '\0';
	assert_non_null(strstr(answer, " 200 "));
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
	loop_timer_free(timer);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tls_verify),
		cmocka_unit_test(test_tls_pin),
		cmocka_unit_test(test_tls_meta),
		cmocka_unit_test(test_tls_files),
		cmocka_unit_test(test_tls_garbage),
		cmocka_unit_test(test_tls_farewell),
		cmocka_unit_test(test_tls_half_key_update),
	};

	if (key_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
