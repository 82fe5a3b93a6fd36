#pragma once
/*
 * log: one line for the operator, to the journal where stderr is the journal, else to stderr.
 *
 * Levels and their meaning are in docs: err (operator must act), warning (works less well), notice
 * (once and matters), info (rare and normal), debug. In the finished line what is no UTF-8 and
 * what acts on a terminal is a question mark, so text from outside cannot forge lines. Secrets are never handed to it.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* "err", "warning", "notice", "info", "debug" or 3..7; -EINVAL. */
int log_level_parse(const char *s, enum log_level *ret);

void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Appends ": <strerror(-r)>" and returns r. */
int log_at_errno(enum log_level level, int r, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_err(...)	 log_at(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)	 log_at(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)	 log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_enabled(LOG_LEVEL_DEBUG))                                                  \
			log_at(LOG_LEVEL_DEBUG, __VA_ARGS__);                                      \
	} while (0)
#define log_err_errno(r, ...)	  log_at_errno(LOG_LEVEL_ERR, r, __VA_ARGS__)
#define log_warning_errno(r, ...) log_at_errno(LOG_LEVEL_WARNING, r, __VA_ARGS__)
#define log_info_errno(r, ...)	  log_at_errno(LOG_LEVEL_INFO, r, __VA_ARGS__)
#define log_debug_errno(r, ...)	  log_at_errno(LOG_LEVEL_DEBUG, r, __VA_ARGS__)

/* For what an outsider can cause: five lines in thirty seconds for each place, then one line that
 * counts what was not shown. */
struct log_limit {
	uint64_t since_usec;
	unsigned int shown, hidden;
};
bool log_limit_pass(struct log_limit *l);
#define log_remote(level, ...)                                                                     \
	do {                                                                                       \
		static struct log_limit log_limit_;                                                \
		if (log_enabled(level) && log_limit_pass(&log_limit_))                             \
			log_at(level, __VA_ARGS__);                                                \
	} while (0)
