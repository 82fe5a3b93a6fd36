#include "coordinator/state/alloc.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "lib/cleanup.h"

#define ALLOC_RANDOM_TRIES 128
#define ALLOC_WALK_BITS	   22 /* the whole of 100.64.0.0/10 */

bool alloc_reserved(const struct prefix *p, const struct addr *a)
{
	static const struct addr quad100 = { 4, { 100, 100, 100, 100 } };
	static const struct addr quad53 = { 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 0x53 } };
	struct prefix net = prefix_masked(p);

	if (addr_equal(a, &quad100) || addr_equal(a, &quad53) || addr_equal(a, &net.addr))
		return true;
	if (a->family != 4)
		return false;
	if (a->b[0] == 100 && a->b[1] == 115 && (a->b[2] & 0xfe) == 92)
		return true;
	for (unsigned int i = p->bits; i < 32; i++)
		if (!(a->b[i / 8] & (0x80 >> (i % 8))))
			return false;
	return true; /* all host bits set */
}

static struct addr alloc_random(const struct prefix *p)
{
	struct addr a = p->addr;
	uint8_t r[16];

	randombytes_buf(r, sizeof(r));
	for (unsigned int i = p->bits; i < addr_bits(&a); i++) {
		uint8_t bit = (uint8_t)(0x80 >> (i % 8));

		a.b[i / 8] = (uint8_t)((a.b[i / 8] & ~bit) | (r[i / 8] & bit));
	}
	return a;
}

static bool alloc_free(const struct alloc *al, const struct addr *a,
		       bool (*taken)(void *data, const struct addr *a), void *data)
{
	return !alloc_reserved(&al->prefix, a) && !taken(data, a);
}

int alloc_next(struct alloc *al, bool (*taken)(void *data, const struct addr *a), void *data,
	       struct addr *ret)
{
	struct prefix net = prefix_masked(&al->prefix);
	struct addr a = al->last;
	unsigned int host_bits = addr_bits(&net.addr) - net.bits;
	unsigned int walk = 1u << MIN(host_bits, ALLOC_WALK_BITS);

	if (al->random) {
		for (unsigned int i = 0; i < ALLOC_RANDOM_TRIES; i++) {
			a = alloc_random(&net);
			if (alloc_free(al, &a, taken, data)) {
				*ret = a;
				return 0;
			}
		}
	}
	/* In order, once round: also what the random choice falls back to when the prefix is nearly full. */
	if (!prefix_contains(&net, &a))
		a = net.addr;
	for (unsigned int i = 0; i < walk; i++) {
		a = addr_next(&a);
		if (!prefix_contains(&net, &a))
			a = net.addr;
		if (alloc_free(al, &a, taken, data)) {
			al->last = a;
			*ret = a;
			return 0;
		}
	}
	return -ENOSPC;
}
