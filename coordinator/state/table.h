#pragma once
/*
 * table: an intrusive hash table: objects carry their links, the table allocates only its buckets.
 *
 * Keyed with SipHash under a random key, because strangers choose what is looked up (node keys,
 * host names). Never owns what is in it. Several objects may have the same key.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_link {
	struct table_link *next;
	uint64_t hash;
	bool in;
};

struct table {
	struct table_link **bucket;
	size_t n, cap;
};

void table_done(struct table *t);
/* Room for one more; after that table_add() of one cannot fail. */
int table_reserve(struct table *t);
void table_add(struct table *t, struct table_link *l, const void *key, size_t len);
void table_del(struct table *t, struct table_link *l); /* nothing when it is not in it */
/* Candidates with the key's hash: the caller compares the key itself. NULL at the end. */
struct table_link *table_find(const struct table *t, const void *key, size_t len);
struct table_link *table_more(const struct table_link *l);
