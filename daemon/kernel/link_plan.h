#pragma once
/*
 * link_plan: which addresses, routes and rules are ours, and how wanted and actual ones differ.
 *
 * Pure. Routes and rules of ours carry LINK_PROTOCOL, so that nothing else is ever touched; every
 * address on our interface is ours but link-local ones.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/addr.h"

#define LINK_PROTOCOL  107 /* rtm_protocol and FRA_PROTOCOL of what we make */
#define LINK_TABLE     52
#define LINK_RULE_BASE 5200
#define LINK_RULES_ROOM 100 /* priorities from there on that are ours */
#define LINK_MARK      0x80000U
#define LINK_MARK_MASK 0xff0000U

struct link_route {
	struct prefix dst; /* masked */
	bool throw;	   /* lookup goes on in the next table: local networks beside an exit node */
};

enum link_rule_action {
	LINK_RULE_LOOKUP,
	LINK_RULE_UNREACHABLE,
};

struct link_rule {
	uint8_t family; /* 4, 6 */
	uint32_t priority;
	uint32_t mark, mask; /* mask 0: any */
	enum link_rule_action action;
	uint32_t table;
	bool suppress_default; /* suppress_prefixlength 0 */
};

#define LINK_RULES_MAX 10

struct link_rules_config {
	uint32_t base;	/* LINK_RULE_BASE */
	uint32_t table; /* LINK_TABLE */
	uint32_t mark, mask;
	bool lan_first; /* specific routes of the main table win over ours */
	bool v4, v6;
};

/* The rules of kernel.md 5 in order; returns their number. */
size_t link_rules_wanted(const struct link_rules_config *c, struct link_rule out[LINK_RULES_MAX]);

/* Sorted-set difference: marks in add[] the wanted ones that are missing, in del[] the actual ones
 * that are not wanted. Sorts neither; both arrays have to be sorted by cmp and hold no duplicates
 * (actual may: the second one is marked for deletion). */
typedef int link_cmp_fn(const void *a, const void *b);
struct link_diff {
	size_t n_add, n_del;
	bool *add, *del;
};
int link_diff(const void *wanted, size_t n_wanted, const void *actual, size_t n_actual, size_t size,
	      link_cmp_fn *cmp, struct link_diff *ret);
void link_diff_done(struct link_diff *d);
static inline void link_diff_done_cleanup(struct link_diff *d)
{
	link_diff_done(d);
}

int link_route_cmp(const void *a, const void *b);
int link_rule_cmp(const void *a, const void *b);
int link_prefix_cmp(const void *a, const void *b);
