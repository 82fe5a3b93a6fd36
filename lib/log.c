#include "lib/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "lib/utf8.h"

#define LOG_LINE_MAX	 1024
#define LOG_LIMIT_USEC	 30000000
#define LOG_LIMIT_LINES	 5

static enum log_level log_max = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
	log_max = level;
}

bool log_enabled(enum log_level level)
{
	return level <= log_max;
}

int log_level_parse(const char *s, enum log_level *ret)
{
	static const char *const names[] = { "err", "warning", "notice", "info", "debug" };

	for (int i = 0; i < 5; i++)
		if (strcmp(s, names[i]) == 0 || (s[0] == '3' + i && s[1] == '\0')) {
			*ret = (enum log_level)(LOG_LEVEL_ERR + i);
			return 0;
		}
	return -EINVAL;
}

/* systemd names device and inode of the stream it gave us (systemd.exec(5), JOURNAL_STREAM). */
static bool stderr_is_journal(void)
{
	static int known = -1;
	const char *e;
	struct stat st;
	char want[64];

	if (known >= 0)
		return known;
	known = 0;
	e = getenv("JOURNAL_STREAM");
	if (e && fstat(STDERR_FILENO, &st) == 0) {
		snprintf(want, sizeof(want), "%llu:%llu", (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino);
		known = strcmp(e, want) == 0;
	}
	return known;
}

static void log_line(enum log_level level, char *line)
{
	size_t n;

	for (char *p = line; *p; p += n) {
		uint32_t c = 0;

		n = utf8_at(p, &c);
		if (!n || utf8_acts_on_terminal(c)) {
			n += !n;
			memset(p, '?', n);
		}
	}
	if (stderr_is_journal())
		sd_journal_send("MESSAGE=%s", line, "PRIORITY=%d", (int)level, NULL);
	else
		fprintf(stderr, "%s: %s\n", program_invocation_short_name, line);
}

void log_at(enum log_level level, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log_line(level, line);
}

int log_at_errno(enum log_level level, int r, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	va_list ap;
	int n;

	if (!log_enabled(level))
		return r;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(line))
		snprintf(line + n, sizeof(line) - (size_t)n, ": %s", strerror(-r));
	log_line(level, line);
	return r;
}

bool log_limit_pass(struct log_limit *l)
{
	struct timespec ts;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
	if (l->since_usec == 0 || now - l->since_usec >= LOG_LIMIT_USEC) {
		if (l->hidden)
			log_at(LOG_LEVEL_WARNING, "%u lines like the next were not shown", l->hidden);
		*l = (struct log_limit){ .since_usec = now };
	}
	if (l->shown >= LOG_LIMIT_LINES) {
		l->hidden++;
		return false;
	}
	l->shown++;
	return true;
}
