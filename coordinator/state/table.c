#include "coordinator/state/table.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/hash.h"

void table_done(struct table *t)
{
	free(t->bucket);
	*t = (struct table){ 0 };
}

int table_reserve(struct table *t)
{
	size_t cap = t->cap ? t->cap * 2 : 64;
	struct table_link **b;

	if (t->n < t->cap)
		return 0;
	b = calloc(cap, sizeof(struct table_link *));
	if (!b)
		return -ENOMEM;
	for (size_t i = 0; i < t->cap; i++) {
		for (struct table_link *l = t->bucket[i], *next; l; l = next) {
			next = l->next;
			l->next = b[l->hash & (cap - 1)];
			b[l->hash & (cap - 1)] = l;
		}
	}
	free(t->bucket);
	t->bucket = b;
	t->cap = cap;
	return 0;
}

void table_add(struct table *t, struct table_link *l, const void *key, size_t len)
{
	struct table_link **b;

	l->hash = hash_keyed(key, len);
	b = &t->bucket[l->hash & (t->cap - 1)];
	l->next = *b;
	l->in = true;
	*b = l;
	t->n++;
}

void table_del(struct table *t, struct table_link *l)
{
	if (!l->in)
		return;
	for (struct table_link **p = &t->bucket[l->hash & (t->cap - 1)]; *p; p = &(*p)->next) {
		if (*p == l) {
			*p = l->next;
			l->in = false;
			t->n--;
			return;
		}
	}
}

static struct table_link *table_from(struct table_link *l, uint64_t hash)
{
	while (l && l->hash != hash)
		l = l->next;
	return l;
}

struct table_link *table_find(const struct table *t, const void *key, size_t len)
{
	uint64_t h;

	if (!t->cap)
		return NULL;
	h = hash_keyed(key, len);
	return table_from(t->bucket[h & (t->cap - 1)], h);
}

struct table_link *table_more(const struct table_link *l)
{
	return table_from(l->next, l->hash);
}
