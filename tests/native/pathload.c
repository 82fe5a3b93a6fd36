/*
 * pathload: what datagrams of strangers, forgers and repeaters cost a node that knows PEERS peers.
 *
 *   pathload KIND [COUNT]
 *
 * They are handed to paths_udp_received(), where the daemon hands what its socket has read, RATE of them in a second
 * of the node's clock; the kernel's part of receiving is not in it. Kinds:
 *
 *   random    noise of any length, half of it behind disco's magic
 *   strange   boxes of disco keys that nobody here has
 *   forged    a peer's disco key in front of a box that its owner did not make, a new one each time
 *   replayed  pings that peers have made, over and over, each from its own address
 *   spread    the same from ever new addresses
 *
 * Prints how many there were, how much CPU time each took, by how much the memory has grown since the first tenth of
 * them, and how often the node has sent something.
 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define assert_true(x)                                                                             \
	do {                                                                                       \
		if (!(x))                                                                          \
			abort();                                                                   \
	} while (0)
#define assert_int_equal(a, b) assert_true((a) == (b))
#include "tests/unit/paths_tap.h"

#define PEERS	 1000
#define STRANGES 64
#define REPLAYED 4000
#define RATE	 50000

enum kind { KIND_RANDOM, KIND_STRANGE, KIND_FORGED, KIND_REPLAYED, KIND_SPREAD, KINDS };
static const char *const kinds[KINDS] = { "random", "strange", "forged", "replayed", "spread" };

struct datagram {
	uint8_t p[DISCO_WIRE_MAX];
	size_t len;
	struct endpoint from;
};

static struct load {
	struct tap tap;
	struct key_pair node[PEERS], disco[PEERS], stranger[STRANGES];
	struct datagram made[REPLAYED];
	uint8_t noise[1 << 16];
} load;

static void make_world(void)
{
	tap_init(&load.tap);
	for (uint32_t i = 0; i < PEERS; i++) {
		key_pair_generate(&load.node[i]);
		key_pair_generate(&load.disco[i]);
		tap_peer(&load.tap, i + 1, &load.node[i].pub, &load.disco[i].pub);
	}
	for (size_t i = 0; i < STRANGES; i++)
		key_pair_generate(&load.stranger[i]);
	randombytes_buf(load.noise, sizeof(load.noise));
}

static void make_pings(const struct key_pair *keys, size_t n_keys)
{
	struct disco_msg ping = { .type = DISCO_TYPE_PING };

	for (size_t i = 0; i < REPLAYED; i++) {
		struct datagram *d = &load.made[i];

		randombytes_buf(ping.ping.txid.b, sizeof(ping.ping.txid.b));
		d->len = box(&keys[i % n_keys], &load.tap.disco.pub, &ping, d->p);
		d->from = (struct endpoint){ addr_v4(203, 0, (uint8_t)(i % n_keys >> 8), (uint8_t)(i % n_keys)), 41641 };
	}
}

static void make(enum kind kind)
{
	make_world();
	if (kind == KIND_STRANGE)
		make_pings(load.stranger, STRANGES);
	else if (kind != KIND_RANDOM)
		make_pings(load.disco, PEERS);
}

/* Number i of them, in d's place where it has to be changed. */
static void next_datagram(enum kind kind, uint32_t i, struct datagram *d)
{
	uint32_t at = i * 2654435761u;

	if (kind == KIND_RANDOM) {
		d->len = (at >> 8) % DISCO_WIRE_MAX;
		memcpy(d->p, load.noise + at % (sizeof(load.noise) - DISCO_WIRE_MAX), d->len);
		if (i % 2 && d->len > DISCO_MAGIC_LEN)
			memcpy(d->p, DISCO_MAGIC, DISCO_MAGIC_LEN);
		d->from = (struct endpoint){ addr_v4(192, 0, 2, (uint8_t)i), (uint16_t)(at >> 16) };
		return;
	}
	*d = load.made[i % REPLAYED];
	if (kind == KIND_FORGED)
		memcpy(d->p + DISCO_HEADER_LEN, &at, sizeof(at));
	if (kind == KIND_SPREAD)
		d->from = (struct endpoint){ addr_v4(10, (uint8_t)(at >> 24), (uint8_t)(at >> 16), (uint8_t)i), (uint16_t)(at >> 4) };
}

static uint64_t cpu_nsec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static long memory_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	long kib = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %ld", &kib) == 1)
			break;
	assert_true(kib > 0);
	fclose(f);
	return kib;
}

/* Of count datagrams; the time that it takes to make them does not count. */
static void run(enum kind kind, uint32_t count)
{
	enum { BATCH = 500 };
	static struct datagram batch[BATCH];
	struct addr local = addr_v4(10, 0, 0, 9);
	uint64_t took = 0, now = T0;
	long memory = 0;

	for (uint32_t i = 0; i < count; i += BATCH) {
		uint64_t start;

		if (i >= count / 10 && !memory)
			memory = memory_kib();
		for (uint32_t k = 0; k < BATCH; k++)
			next_datagram(kind, i + k, &batch[k]);
		start = cpu_nsec();
		for (uint32_t k = 0; k < BATCH; k++) {
			now += SEC / RATE;
			paths_udp_received(load.tap.p, &batch[k].from, &local, batch[k].p, batch[k].len, now);
		}
		paths_tick(load.tap.p, now);
		took += cpu_nsec() - start;
	}
	printf("%s: %u datagrams, %lu ns each, %ld KiB more memory, %d sent\n", kinds[kind], count,
	       (unsigned long)(took / count), memory_kib() - memory, load.tap.n_udp + load.tap.n_derp);
}

int main(int argc, char **argv)
{
	uint32_t count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000000;

	if (key_init() < 0 || argc < 2 || !count)
		return 1;
	for (int kind = 0; kind < KINDS; kind++)
		if (strcmp(kinds[kind], argv[1]) == 0) {
			make((enum kind)kind);
			run((enum kind)kind, count);
			paths_free(load.tap.p);
			return 0;
		}
	return 1;
}
