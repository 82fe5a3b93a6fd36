#include "tests/fuzz/nomem.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIVE_MAX = 1 << 16 };

/* What the linker makes of the names that are wrapped. */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
_Noreturn void __real_abort(void);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t max);
void __wrap_free(void *p);
_Noreturn void __wrap_abort(void);
_Noreturn void __wrap___assert_fail(const char *what, const char *file, unsigned int line, const char *function);

static struct {
	bool on, forever, hit;
	unsigned long count, fail_at;
	void *live[LIVE_MAX]; /* a hash table: what this run has allocated and not freed */
	jmp_buf out;
} run;

static bool refused(void)
{
	bool now;

	if (!run.on)
		return false;
	now = run.forever ? run.count >= run.fail_at : run.count == run.fail_at;
	run.count++;
	run.hit |= now;
	return now;
}

static size_t place(const void *p)
{
	return (size_t)(((uintptr_t)p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 40) % LIVE_MAX;
}

/* A block that finds no room in the table is only not freed after an assertion. */
static void *note(void *p)
{
	if (run.on && p) {
		for (size_t i = place(p), k = 0; k < 64; k++, i = (i + 1) % LIVE_MAX) {
			if (!run.live[i]) {
				run.live[i] = p;
				break;
			}
		}
	}
	return p;
}

static void forget(const void *p)
{
	if (!run.on || !p)
		return;
	for (size_t i = place(p), k = 0; k < 64; k++, i = (i + 1) % LIVE_MAX) {
		if (run.live[i] == p) {
			run.live[i] = NULL;
			return;
		}
	}
}

void *__wrap_malloc(size_t n)
{
	return refused() ? NULL : note(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t size)
{
	return refused() ? NULL : note(__real_calloc(n, size));
}

void *__wrap_realloc(void *p, size_t n)
{
	void *q;

	if (refused())
		return NULL;
	forget(p);
	q = __real_realloc(p, n);
	return note(q ? q : p);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	size_t all;

	return __builtin_mul_overflow(n, size, &all) ? NULL : __wrap_realloc(p, all);
}

char *__wrap_strndup(const char *s, size_t max)
{
	size_t n = strnlen(s, max);
	char *p = __wrap_malloc(n + 1);

	if (p) {
		memcpy(p, s, n);
		p[n] = '\0';
	}
	return p;
}

char *__wrap_strdup(const char *s)
{
	return __wrap_strndup(s, SIZE_MAX);
}

void __wrap_free(void *p)
{
	forget(p);
	__real_free(p);
}

_Noreturn void __wrap_abort(void)
{
	if (run.on && run.hit)
		longjmp(run.out, 1);
	__real_abort();
}

_Noreturn void __wrap___assert_fail(const char *what, const char *file, unsigned int line, const char *function)
{
	if (!(run.on && run.hit))
		fprintf(stderr, "%s:%u: %s: %s\n", file, line, function, what);
	__wrap_abort();
}

/* True when the allocation that was to fail was reached. */
static bool one(const uint8_t *data, size_t size, unsigned long fail_at, bool forever)
{
	memset(run.live, 0, sizeof(run.live));
	run.count = 0;
	run.fail_at = fail_at;
	run.forever = forever;
	run.hit = false;
	run.on = true;
	if (setjmp(run.out)) {
		run.on = false;
		for (size_t i = 0; i < LIVE_MAX; i++)
			__real_free(run.live[i]);
		return true;
	}
	LLVMFuzzerTestOneInput(data, size);
	run.on = false;
	return run.hit;
}

void nomem_run(const uint8_t *data, size_t size, unsigned long *runs)
{
	static bool begun;

	if (!begun) {
		LLVMFuzzerTestOneInput(data, size); /* what is kept for good is made now */
		begun = true;
	}
	for (int forever = 0; forever < 2; forever++) {
		for (unsigned long n = 0; one(data, size, n, forever); n += 1 + n / 32)
			(*runs)++;
	}
}
