#pragma once
/*
 * journal: under which names this node may have something in the kernel: interface, nftables table, routing rules.
 *
 * A small file in the runtime folder, since it shall live as long as what it names. Written before the first of it is
 * made and without a name once all of that is taken away, so that `wgctl down` finds what an earlier process
 * made, or one that was told other names; and so that nothing of others is taken for ours. A line for each:
 * interface, table, first priority of the rules.
 */
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_FILE "kernel-objects"
#define JOURNAL_MAX  8 /* names that were given up and could not be cleared: who has more forgets the oldest */

struct journal_names {
	char interface[IFNAMSIZ], table[32];
	uint32_t rule_base;
};

struct journal {
	size_t n;
	struct journal_names names[JOURNAL_MAX];
};

struct config;
/* What the settings say. */
struct journal_names journal_names_of(const struct config *cfg);
bool journal_names_equal(const struct journal_names *a, const struct journal_names *b);
/* true: they were not in it. */
bool journal_add(struct journal *j, const struct journal_names *names);
void journal_drop(struct journal *j, size_t i);
/* Lines that are none are passed over. Takes any text. */
void journal_decode(const char *text, size_t len, struct journal *ret);
/* -ENOENT: there is none. */
int journal_load(const char *dir, struct journal *ret);
/* Replaced whole; without names there is no file. */
int journal_save(const char *dir, const struct journal *j);
