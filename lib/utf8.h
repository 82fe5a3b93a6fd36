#pragma once
/*
 * utf8: text from outside, character by character (RFC 3629), and what of it must not reach a terminal or a log as it
 * is.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that begins at s, 1 to 4, and the character; 0 when the bytes there are no UTF-8. A NUL is a
 * character of one byte, and ends any that is cut short. */
size_t utf8_at(const char *s, uint32_t *ret);
/* All of a C string. */
bool utf8_ok(const char *s);
/* C0, DEL, C1; marks and overrides of direction, line and paragraph separators, what has no width, the byte order mark,
 * tags. */
bool utf8_acts_on_terminal(uint32_t c);
