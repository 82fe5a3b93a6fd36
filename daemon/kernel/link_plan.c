#include "daemon/kernel/link_plan.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>

#define ORDER(x, y) ((x) < (y) ? -1 : (x) > (y))

int link_route_cmp(const void *a, const void *b)
{
	const struct link_route *x = a, *y = b;
	int r = prefix_cmp(&x->dst, &y->dst);

	return r ? r : ORDER(x->throw, y->throw);
}

int link_prefix_cmp(const void *a, const void *b)
{
	return prefix_cmp(a, b);
}

int link_rule_cmp(const void *a, const void *b)
{
	const struct link_rule *x = a, *y = b;

	if (x->family != y->family)
		return ORDER(x->family, y->family);
	if (x->priority != y->priority)
		return ORDER(x->priority, y->priority);
	if (x->mark != y->mark)
		return ORDER(x->mark, y->mark);
	if (x->mask != y->mask)
		return ORDER(x->mask, y->mask);
	if (x->action != y->action)
		return ORDER(x->action, y->action);
	if (x->table != y->table)
		return ORDER(x->table, y->table);
	return ORDER(x->suppress_default, y->suppress_default);
}

static void family_rules(const struct link_rules_config *c, uint8_t family, struct link_rule *out,
			 size_t *n)
{
	const struct link_rule rules[] = {
		/* What the daemon and the module send themselves never enters the tunnel. */
		{ family, c->base + 10, c->mark, c->mask, LINK_RULE_LOOKUP, RT_TABLE_MAIN, false },
		{ family, c->base + 30, c->mark, c->mask, LINK_RULE_LOOKUP, RT_TABLE_DEFAULT, false },
		{ family, c->base + 50, c->mark, c->mask, LINK_RULE_UNREACHABLE, 0, false },
		/* Local networks win over routes of peers, the default route does not. */
		{ family, c->base + 60, 0, 0, LINK_RULE_LOOKUP, RT_TABLE_MAIN, true },
		{ family, c->base + 70, 0, 0, LINK_RULE_LOOKUP, c->table, false },
	};

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (!rules[i].suppress_default || c->lan_first)
			out[(*n)++] = rules[i];
}

size_t link_rules_wanted(const struct link_rules_config *c, struct link_rule out[LINK_RULES_MAX])
{
	size_t n = 0;

	if (c->v4)
		family_rules(c, 4, out, &n);
	if (c->v6)
		family_rules(c, 6, out, &n);
	return n;
}

int link_diff(const void *wanted, size_t n_wanted, const void *actual, size_t n_actual, size_t size,
	      link_cmp_fn *cmp, struct link_diff *ret)
{
	const char *w = wanted, *a = actual;
	struct link_diff d = { 0 };
	size_t i = 0, k = 0;

	d.add = calloc(n_wanted + 1, sizeof(*d.add));
	d.del = calloc(n_actual + 1, sizeof(*d.del));
	if (!d.add || !d.del) {
		link_diff_done(&d);
		return -ENOMEM;
	}
	while (i < n_wanted || k < n_actual) {
		int c;

		if (i == n_wanted)
			c = 1;
		else if (k == n_actual)
			c = -1;
		else
			c = cmp(w + i * size, a + k * size);
		if (c < 0) {
			d.add[i++] = true;
			d.n_add++;
		} else if (c > 0) {
			d.del[k++] = true;
			d.n_del++;
		} else {
			i++;
			k++;
		}
	}
	*ret = d;
	return 0;
}

void link_diff_done(struct link_diff *d)
{
	free(d->add);
	free(d->del);
	*d = (struct link_diff){ 0 };
}
