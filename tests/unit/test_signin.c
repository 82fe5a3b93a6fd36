/* signin: how many logins wait, of all, of one machine, and of one site, and who makes room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "coordinator/signin.h"

static struct signins s;
static unsigned int machines;

static struct addr site(unsigned int n)
{
	return addr_v4(198, 51, (uint8_t)(n >> 8), (uint8_t)n);
}

/* A login of that machine and node key number. */
static struct signin *of_machine(unsigned int machine, const struct addr *from)
{
	struct register_request q = { .version = 131 };
	struct key m = { { (uint8_t)machine, (uint8_t)(machine >> 8), 1 } };

	machines++;
	q.node_key = (struct key){ { (uint8_t)machines, (uint8_t)(machines >> 8), (uint8_t)(machines >> 16), 2 } };
	return signin_new(&s, &m, from, &q, machines);
}

static struct signin *come(const struct addr *from)
{
	return of_machine(1000 + machines, from);
}

/* Whether that is still there. */
static const char *id_of(const struct signin *x, char out[static SIGNIN_ID_MAX])
{
	strcpy(out, x->id);
	return out;
}

static size_t count(const struct addr *from)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		n += addr_equal(&s.v[i]->from, from);
	return n;
}

static void test_machine(void **state)
{
	char first[SIGNIN_ID_MAX], second[SIGNIN_ID_MAX], other[SIGNIN_ID_MAX];
	struct addr a = site(1);

	(void)state;
	id_of(of_machine(7, &a), first);
	id_of(come(&a), other);
	id_of(of_machine(7, &a), second);
	of_machine(7, &a);
	of_machine(7, &a);
	assert_int_equal(s.n, 5);
	assert_non_null(signin_find(&s, first));
	of_machine(7, &a);
	assert_int_equal(s.n, 5);
	assert_null(signin_find(&s, first));
	assert_non_null(signin_find(&s, second));
	assert_non_null(signin_find(&s, other));
	signins_done(&s);
}

/* Nobody fills it from one address, with however many machines. */
static void test_site(void **state)
{
	char id[SIGNIN_ID_MAX], own[SIGNIN_ID_MAX];
	struct addr a = site(1), b = site(2);

	(void)state;
	id_of(come(&b), id);
	id_of(come(&a), own);
	for (int i = 0; i < 3 * SIGNIN_MAX; i++)
		come(&a);
	assert_int_equal(count(&a), SIGNIN_SITE_MAX);
	assert_int_equal(s.n, SIGNIN_SITE_MAX + 1);
	assert_non_null(signin_find(&s, id));
	assert_null(signin_find(&s, own));
	signins_done(&s);
}

/* Many together can; then the oldest of all goes. */
static void test_all(void **state)
{
	char first[SIGNIN_ID_MAX], second[SIGNIN_ID_MAX];
	struct addr a;

	(void)state;
	a = site(1);
	id_of(come(&a), first);
	a = site(2);
	id_of(come(&a), second);
	for (unsigned int i = 3; i <= SIGNIN_MAX; i++) {
		a = site(i);
		come(&a);
	}
	assert_int_equal(s.n, SIGNIN_MAX);
	assert_non_null(signin_find(&s, first));
	a = site(SIGNIN_MAX + 1);
	come(&a);
	assert_int_equal(s.n, SIGNIN_MAX);
	assert_null(signin_find(&s, first));
	assert_non_null(signin_find(&s, second));
	signins_done(&s);
	for (int i = 0; i < 2 * SIGNIN_MAX; i++) /* behind a proxy */
		come(NULL);
	assert_int_equal(s.n, SIGNIN_MAX);
	signins_done(&s);
}

struct waiter {
	struct signin_wait w;
	int ended;
	enum signin_end end;
};

static void on_end(struct signin_wait *w, enum signin_end end)
{
	struct waiter *x = container_of(w, struct waiter, w);

	x->ended++;
	x->end = end;
}

/* Who makes room is told, once; and all end in their time, the oldest first. */
static void test_told(void **state)
{
	struct waiter w = { .w.fn = on_end }, other = { .w.fn = on_end };
	struct addr a = site(1);
	struct signin *x;
	uint64_t due;

	(void)state;
	signin_wait(of_machine(7, &a), &w.w);
	for (int i = 0; i < SIGNIN_MACHINE_MAX; i++) {
		assert_int_equal(w.ended, 0);
		of_machine(7, &a);
	}
	assert_int_equal(w.ended, 1);
	assert_int_equal(w.end, SIGNIN_EXPIRED);
	x = come(&a);
	signin_wait(x, &other.w);
	due = signins_tick(&s, machines);
	assert_true(due > machines && due <= machines + SIGNIN_USEC);
	assert_int_equal(signins_tick(&s, machines + SIGNIN_USEC), UINT64_MAX);
	assert_int_equal(s.n, 0);
	assert_int_equal(other.ended, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_site),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
