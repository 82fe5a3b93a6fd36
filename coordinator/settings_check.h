#pragma once
/*
 * settings_check: what a configuration that could be read must also be: whole, of one mind, and not asking for what we do
 * not do and could not safely ignore. Fills in what follows from the text (host, port, addresses). For settings.c alone;
 * its readers of values that the checks need as well are declared here.
 */
#include <stdint.h>

#include "coordinator/settings.h"

/* Every default is set. Each problem found is a line of rep. */
void settings_check(struct settings *c, struct settings_report *rep);

/* One line more of what keeps the coordinator from starting, or of what its owner should know. */
void settings_problem(struct settings_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void settings_warn(struct settings_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* -EBADMSG: not a number of that base, or more than max. */
int settings_read_number(const char *s, int base, uint32_t max, uint32_t *ret);
