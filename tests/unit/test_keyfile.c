/* keyfile, metacert: a server's key on disk and in its certificate. */
#include <errno.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/file.h"
#include "lib/keyfile.h"
#include "relay/metacert.h"

static char dir[] = "/tmp/kernscale-test-XXXXXX";

static void path_of(const char *name, char *out, size_t max)
{
	snprintf(out, max, "%s/%s", dir, name);
}

static void put(const char *path, const char *text, mode_t mode)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static void made_and_kept(enum keyfile_form form, const char *begins)
{
	CLEANUP(buf_done) struct buf text = { 0 };
	struct key_pair a, b;
	struct stat st;
	char path[128];

	path_of("made", path, sizeof(path));
	assert_int_equal(keyfile_load(path, form, &a), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(file_read(path, 4096, &text), 0);
	assert_memory_equal(buf_data(&text), begins, strlen(begins));
	assert_int_equal(keyfile_load(path, KEYFILE_LINE, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(keyfile_load(path, KEYFILE_JSON, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(keyfile_load(path, form, &b), 0);
	assert_memory_not_equal(&a.priv, &b.priv, sizeof(a.priv));
	unlink(path);
}

static void test_made_and_kept(void **state)
{
	(void)state;
	made_and_kept(KEYFILE_LINE, "privkey:");
	made_and_kept(KEYFILE_JSON, "{\n\t\"PrivateKey\": \"privkey:");
}

#define PRIVATE "privkey:404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"

static void assert_key_of(const char *path, const char *text, int r)
{
	char hex[KEY_TEXT_MAX];
	struct key_pair a;

	put(path, text, 0600);
	assert_int_equal(keyfile_load(path, KEYFILE_LINE, &a), r);
	if (r == 0)
		assert_string_equal(key_text(KEY_KIND_HEX, &a.pub, hex),
				    "79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a");
}

static void test_stock_files(void **state)
{
	struct key_pair a;
	char path[128];

	(void)state;
	path_of("stock", path, sizeof(path));
	assert_key_of(path, "{\n\t\"PrivateKey\": \"" PRIVATE "\"\n}", 0);
	assert_key_of(path, "\n {\"PrivateKey\":\"" PRIVATE "\"}\r\n", 0);
	assert_key_of(path, PRIVATE, 0);
	assert_key_of(path, PRIVATE "\r\n", 0);
	put(path, PRIVATE, 0640);
	assert_int_equal(keyfile_load(path, KEYFILE_LINE, &a), -EPERM);
	assert_key_of(path, "{\"PrivateKey\":\"privkey:40\"}", -EBADMSG);
	assert_key_of(path, "{\"PrivateKey\":7}", -EBADMSG);
	assert_key_of(path, "{", -EBADMSG);
	assert_key_of(path, "privkey:40", -EBADMSG);
	assert_key_of(path, PRIVATE "\n" PRIVATE "\n", -EBADMSG);
	assert_key_of(path, " \n", -EBADMSG);
	assert_key_of(path, "", -EBADMSG);
	unlink(path);
}

static void test_metacert(void **state)
{
	uint8_t der[METACERT_MAX];
	const uint8_t *p = der;
	struct key_pair a;
	char cn[160], want[160], hex[KEY_TEXT_MAX];
	int n;
	X509 *x;

	(void)state;
	key_pair_generate(&a);
	n = metacert_make(&a.pub, der);
	assert_true(n > 0);
	x = d2i_X509(NULL, &p, n);
	assert_non_null(x);
	assert_ptr_equal(p, der + n);
	assert_int_equal(
	    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn, sizeof(cn)),
	    71);
	snprintf(want, sizeof(want), "derpkey%s", key_text(KEY_KIND_HEX, &a.pub, hex));
	assert_string_equal(cn, want);
	assert_int_equal(ASN1_INTEGER_get(X509_get0_serialNumber(x)), 2);
	assert_int_equal(X509_get_ext_count(x), 1);
	assert_int_equal(X509_verify(x, X509_get0_pubkey(x)), 1);
	assert_true(X509_cmp_current_time(X509_get0_notBefore(x)) < 0);
	assert_true(X509_cmp_current_time(X509_get0_notAfter(x)) > 0);
	X509_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_made_and_kept),
		cmocka_unit_test(test_stock_files),
		cmocka_unit_test(test_metacert),
	};
	int r;

	if (key_init() < 0 || !mkdtemp(dir))
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return r;
}
