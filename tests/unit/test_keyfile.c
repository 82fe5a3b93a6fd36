/* keyfile, metacert: a relay's key on disk and in its certificate. */
#include <errno.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "relay/keyfile.h"
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

static void test_made_and_kept(void **state)
{
	struct key_pair a, b;
	struct stat st;
	char path[128];

	(void)state;
	path_of("made", path, sizeof(path));
	assert_int_equal(keyfile_load(path, &a), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(keyfile_load(path, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(keyfile_load(path, &b), 0);
	assert_memory_not_equal(&a.priv, &b.priv, sizeof(a.priv));
	unlink(path);
}

static void test_derpers_file(void **state)
{
	static const char text[] =
	    "{\n\t\"PrivateKey\": \"privkey:"
	    "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f\"\n}";
	char path[128], hex[KEY_TEXT_MAX];
	struct key_pair a;

	(void)state;
	path_of("derper", path, sizeof(path));
	put(path, text, 0600);
	assert_int_equal(keyfile_load(path, &a), 0);
	assert_string_equal(key_text(KEY_KIND_HEX, &a.pub, hex),
			    "79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a");
	put(path, text, 0640);
	assert_int_equal(keyfile_load(path, &a), -EPERM);
	put(path, "{\"PrivateKey\":\"privkey:40\"}", 0600);
	assert_int_equal(keyfile_load(path, &a), -EBADMSG);
	put(path, "", 0600);
	assert_int_equal(keyfile_load(path, &a), -EBADMSG);
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
		cmocka_unit_test(test_derpers_file),
		cmocka_unit_test(test_metacert),
	};
	int r;

	if (key_init() < 0 || !mkdtemp(dir))
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return r;
}
