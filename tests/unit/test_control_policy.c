/* control: verdicts on register answers, pauses, answers to c2n requests. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/control/internal.h"

#define S(text) ((struct json_slice){ text, strlen(text) })

static void test_judge(void **state)
{
	static const struct control_attempt restart = { 0 };
	static const struct control_attempt by_key = { .login_wanted = true, .have_auth_key = true,
						       .sent_auth_key = true, .fresh_key = true };
	static const struct control_attempt known = { .login_wanted = true, .have_auth_key = true };
	static const struct control_attempt person = { .login_wanted = true, .fresh_key = true };
	static const struct {
		const char *answer;
		const struct control_attempt *t;
		enum control_verdict want;
	} table[] = {
		{ "{\"Login\":{\"LoginName\":\"u\"}}", &restart, CONTROL_VERDICT_SUCCESS },
		{ "{\"AuthURL\":\"\",\"Error\":\"\"}", &by_key, CONTROL_VERDICT_SUCCESS },
		/* the texts of a stock server */
		{ "{\"Error\":\"invalid pre auth key\"}", &by_key, CONTROL_VERDICT_REFUSED },
		{ "{\"Error\":\"authkey expired\"}", &by_key, CONTROL_VERDICT_REFUSED },
		{ "{\"Error\":\"authkey already used\"}", &by_key, CONTROL_VERDICT_REFUSED },
		{ "{\"Error\":\"authkey revoked\"}", &by_key, CONTROL_VERDICT_REFUSED },
		{ "{\"Error\":\"requested tags [tag:x] are invalid or not permitted\"}", &by_key,
		  CONTROL_VERDICT_REFUSED },
		{ "{\"Error\":\"database is locked\"}", &by_key, CONTROL_VERDICT_TRY_AGAIN },
		{ "{\"Error\":\"node exists with a different machine key\"}", &restart,
		  CONTROL_VERDICT_TRY_AGAIN },
		/* an error hides everything else */
		{ "{\"Error\":\"x\",\"NodeKeyExpired\":true,\"AuthURL\":\"http://x\"}", &known,
		  CONTROL_VERDICT_TRY_AGAIN },
		{ "{\"NodeKeySignature\":\"AAAA\"}", &by_key, CONTROL_VERDICT_UNSUPPORTED },
		{ "{\"NodeKeyExpired\":true}", &restart, CONTROL_VERDICT_EXPIRED },
		{ "{\"NodeKeyExpired\":true}", &known, CONTROL_VERDICT_ROTATE },
		{ "{\"NodeKeyExpired\":true}", &by_key, CONTROL_VERDICT_TRY_AGAIN },
		{ "{\"AuthURL\":\"http://x/1\"}", &restart, CONTROL_VERDICT_NEEDS_LOGIN },
		{ "{\"AuthURL\":\"http://x/1\"}", &known, CONTROL_VERDICT_USE_KEY },
		{ "{\"AuthURL\":\"http://x/1\"}", &person, CONTROL_VERDICT_SHOW_URL },
		{ "{\"AuthURL\":\"http://x/1\"}", &by_key, CONTROL_VERDICT_SHOW_URL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		CLEANUP(tailcfg_register_done) struct tailcfg_register_response a = { 0 };

		assert_int_equal(tailcfg_register_decode(S(table[i].answer), &a), 0);
		if (control_judge(&a, table[i].t) != table[i].want)
			fail_msg("row %zu: %s", i, control_verdict_name(control_judge(&a, table[i].t)));
	}
}

static void test_pauses(void **state)
{
	(void)state;
	assert_int_equal(control_backoff_usec(0, UINT32_MAX), 0);
	assert_int_equal(control_backoff_usec(1, 0), 5000);
	assert_int_equal(control_backoff_usec(1, UINT32_MAX), 15000);
	assert_int_equal(control_backoff_usec(10, 0), 500000);
	assert_int_equal(control_backoff_usec(1000000, UINT32_MAX), 45000000);
	assert_int_equal(control_retry_after_usec("3", 0), 3000000);
	assert_int_equal(control_retry_after_usec("3600", 0), 3600000000);
	assert_int_equal(control_retry_after_usec("3601", 0), 5000000);
	assert_int_equal(control_retry_after_usec("99999999999999999999", UINT32_MAX), 10000000);
	assert_int_equal(control_retry_after_usec("-1", 0), 5000000);
	assert_int_equal(control_retry_after_usec("", 0), 5000000);
	assert_int_equal(control_retry_after_usec(NULL, 0), 5000000);
}

/* A burst for free, then a fifth of the time; what is not used for long is not saved up. */
static void test_toll(void **state)
{
	struct control_toll t = { 0 };
	uint64_t now = UINT64_C(1) << 40, used = 0, until, pause;

	(void)state;
	assert_int_equal(control_toll_usec(&t, now, CONTROL_TOLL_BURST_USEC), 0);
	assert_int_equal(control_toll_usec(&t, now, 1000), 5000);
	assert_int_equal(control_toll_usec(&t, now + 5000, 0), 0);
	assert_int_equal(control_toll_usec(&t, now + 5000, 1000), 5000);
	assert_int_equal(control_toll_usec(&t, now + 10000, UINT64_C(1) << 50), CONTROL_TOLL_PAUSE_USEC);
	now += UINT64_C(3600000000);
	assert_int_equal(control_toll_usec(&t, now, CONTROL_TOLL_BURST_USEC), 0);
	assert_int_equal(control_toll_usec(&t, now, 1), 5);
	/* who would have us read all the time, for longer than we are patient */
	for (until = now + CONTROL_TOLL_PATIENCE_USEC, pause = 0; now <= until + 10000 && pause != UINT64_MAX;
	     now += pause + 1000) {
		control_toll_usec(&t, now, 0); /* nothing for once does not make up for it */
		pause = control_toll_usec(&t, now, 1000);
	}
	assert_int_equal(pause, UINT64_MAX);
	assert_in_range(now, until, until + 10000);
	assert_int_equal(control_toll_usec(&t, now += 2000000, 100000), 0);
	assert_int_equal(t.behind, 0);
	/* work in small pieces, as fast as it may go */
	for (until = now + 10000000; now < until; used += 7)
		now += 7 + control_toll_usec(&t, now + 7, 7);
	assert_in_range(used, 1850000, 2250000);
}

static void test_c2n(void **state)
{
	static const char echo[] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello+more";
	static const char other[] = "GET /debug/goroutines HTTP/1.1\r\nHost: x\r\n\r\n";
	CLEANUP(buf_done) struct buf b = { 0 };

	(void)state;
	assert_int_equal(control_c2n_answer(echo, sizeof(echo) - 1, &b), 0);
	assert_string_equal(buf_str(&b), "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
					 "Content-Length: 5\r\n\r\nhello");
	buf_clear(&b);
	assert_int_equal(control_c2n_answer(other, sizeof(other) - 1, &b), 0);
	assert_memory_equal(buf_str(&b), "HTTP/1.1 404 ", 13);
	assert_int_equal(control_c2n_answer(other, 10, &b), -EBADMSG);
	assert_true(control_c2n_answer("\0\1\2", 3, &b) < 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judge),
		cmocka_unit_test(test_pauses),
		cmocka_unit_test(test_toll),
		cmocka_unit_test(test_c2n),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
