/*
 * nomem: a fuzz target while memory runs out. Every allocation of our code (linked with --wrap) is
 * counted; a chosen one fails, or all from it on. Libraries get what they ask for, but jansson, which asks us
 * (lib/json.c).
 */
#ifndef TESTS_FUZZ_NOMEM_H
#define TESTS_FUZZ_NOMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Runs the target on this input with each allocation failing in turn (the first ones all, later ones
 * more and more seldom). What the target asserts of its results does not hold without memory, so its
 * assertions end the run quietly; what sanitizers see does count. Adds to *runs.
 */
void nomem_run(const uint8_t *data, size_t size, unsigned long *runs);

#endif
