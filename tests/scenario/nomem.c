/*
 * nomem: for LD_PRELOAD: chosen allocations of a program fail, as the file NOMEM says, which is read at the start and
 * again at each SIGUSR2: "AT FOR own|most". From the AT-th one on, counted from then, FOR of them return NULL; "own" are
 * those that the program itself asks for, "most" those of its libraries as well, but for OpenSSL, which asks for a
 * quarter of a million to read the system's authorities. AT 0: none.
 *
 * Each that fails is noted in the file NOMEM_TOLD, as "FILE+ADDRESS of who asked"; addr2line -e FILE knows the line.
 */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/scenario/below.h"

/* glibc's own: what looks them up allocates itself. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

struct code {
	uintptr_t start, end;
};

static struct {
	struct code own, openssl[2];
	atomic_ulong at, runs;
	atomic_bool own_only;
	atomic_ulong count;
} plan;

static void read_plan(int sig)
{
	const char *path = getenv("NOMEM");
	int keep = errno, fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	unsigned long value[2] = { 0 };
	char text[64];
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	char *p = text;

	(void)sig;
	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = '\0';
	for (int i = 0; i < 2; i++, p += *p == ' ')
		for (; *p >= '0' && *p <= '9'; p++)
			value[i] = value[i] * 10 + (unsigned long)(*p - '0');
	plan.at = 0;
	plan.count = 0;
	plan.runs = value[1];
	plan.own_only = strncmp(p, "own", 3) == 0;
	plan.at = value[0];
	errno = keep;
}

static struct code code_of(const struct dl_phdr_info *info)
{
	struct code c = { 0 };

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[i];

		if (h->p_type == PT_LOAD && (h->p_flags & PF_X))
			c = (struct code){ info->dlpi_addr + h->p_vaddr, info->dlpi_addr + h->p_vaddr + h->p_memsz };
	}
	return c;
}

/* The program comes first. */
static int find_code(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	(void)data;
	if (!plan.own.end)
		plan.own = code_of(info);
	if (strstr(info->dlpi_name, "/libcrypto."))
		plan.openssl[0] = code_of(info);
	if (strstr(info->dlpi_name, "/libssl."))
		plan.openssl[1] = code_of(info);
	return 0;
}

static bool is_in(const struct code *c, const void *p)
{
	return (uintptr_t)p >= c->start && (uintptr_t)p < c->end;
}

__attribute__((constructor)) static void begin(void)
{
	struct sigaction a = { .sa_handler = read_plan, .sa_flags = SA_RESTART };

	dl_iterate_phdr(find_code, NULL);
	sigaction(SIGUSR2, &a, NULL);
	read_plan(0);
}

static void note(const void *asker)
{
	const char *path = getenv("NOMEM_TOLD");
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;
	char line[256];
	Dl_info where;
	int n;

	if (fd < 0)
		return;
	if (!dladdr(asker, &where))
		abort();
	n = snprintf(line, sizeof(line), "%s+%#tx\n", where.dli_fname, (const char *)asker - (const char *)where.dli_fbase);
	if (n < 0 || write(fd, line, (size_t)n) != n)
		abort();
	close(fd);
}

static bool refused(const void *asker)
{
	unsigned long n;

	if (!plan.at || (plan.own_only && !is_in(&plan.own, asker)) || is_in(&plan.openssl[0], asker) ||
	    is_in(&plan.openssl[1], asker))
		return false;
	n = ++plan.count;
	if (n < plan.at || n >= plan.at + plan.runs)
		return false;
	note(asker);
	errno = ENOMEM;
	return true;
}

#define ASKER __builtin_return_address(0)

void *malloc(size_t n)
{
	return refused(ASKER) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	return refused(ASKER) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	return refused(ASKER) ? NULL : __libc_realloc(p, n);
}

void *reallocarray(void *p, size_t n, size_t size)
{
	size_t all;

	if (__builtin_mul_overflow(n, size, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	return refused(ASKER) ? NULL : __libc_realloc(p, all);
}

/* Those of the C library that our code calls; in there they would count as another's. */
static char *copy(const void *asker, const char *s, size_t n)
{
	char *p = refused(asker) ? NULL : __libc_malloc(n + 1);

	if (p) {
		memcpy(p, s, n);
		p[n] = '\0';
	}
	return p;
}

char *strdup(const char *s)
{
	return copy(ASKER, s, strlen(s));
}

char *strndup(const char *s, size_t max)
{
	return copy(ASKER, s, strnlen(s, max));
}
