#pragma once
/*
 * packet: RecvPacket frames that wait for a slow client, and the pool they come from.
 *
 * A frame that fits a small slot reuses one; what is freed is kept for the next burst up to a
 * limit. Only packets for clients whose socket is full come here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/key.h"

struct packet {
	struct packet *next;
	uint32_t len; /* of the whole frame */
	uint32_t cap;
	uint8_t frame[];
};

struct packet_pool {
	struct packet *free_small;
	unsigned int n_free;
	uint64_t bytes, max_bytes; /* handed out */
};

/* First in, first out. */
struct packet_queue {
	struct packet *head, **tail;
	unsigned int n;
};

void packet_pool_done(struct packet_pool *p);
/* A RecvPacket frame; NULL when the pool's limit or memory ends. */
struct packet *packet_new(struct packet_pool *p, const struct key *src, const uint8_t *payload,
			  size_t len);
void packet_free(struct packet_pool *p, struct packet *k);

void packet_queue_init(struct packet_queue *q);
void packet_queue_push(struct packet_queue *q, struct packet *k);
struct packet *packet_queue_pop(struct packet_queue *q); /* NULL when empty */
