#include "relay/packet.h"

#include <stdlib.h>
#include <string.h>

#include "proto/derp.h"

#define PACKET_SMALL	2048 /* with its head: a tunnel's MTU fits */
#define PACKET_FREE_MAX 1024 /* 2 MiB kept over bursts */

void packet_pool_done(struct packet_pool *p)
{
	while (p->free_small) {
		struct packet *k = p->free_small;

		p->free_small = k->next;
		free(k);
	}
	p->n_free = 0;
}

struct packet *packet_new(struct packet_pool *p, const struct key *src, const uint8_t *payload,
			  size_t len)
{
	size_t need = sizeof(struct packet) + DERP_PACKET_HEAD_LEN + len;
	size_t cap = need <= PACKET_SMALL ? PACKET_SMALL : need;
	struct packet *k = p->free_small;

	if (p->bytes + cap > p->max_bytes)
		return NULL;
	if (cap == PACKET_SMALL && k) {
		p->free_small = k->next;
		p->n_free--;
	} else {
		k = malloc(cap);
		if (!k)
			return NULL;
	}
	p->bytes += cap;
	k->next = NULL;
	k->cap = (uint32_t)cap;
	k->len = (uint32_t)(DERP_PACKET_HEAD_LEN + len);
	derp_packet_head_encode(k->frame, DERP_FRAME_RECV_PACKET, src, len);
	memcpy(k->frame + DERP_PACKET_HEAD_LEN, payload, len);
	return k;
}

void packet_free(struct packet_pool *p, struct packet *k)
{
	if (!k)
		return;
	p->bytes -= k->cap;
	if (k->cap != PACKET_SMALL || p->n_free == PACKET_FREE_MAX) {
		free(k);
		return;
	}
	k->next = p->free_small;
	p->free_small = k;
	p->n_free++;
}

void packet_queue_init(struct packet_queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
	q->n = 0;
}

void packet_queue_push(struct packet_queue *q, struct packet *k)
{
	k->next = NULL;
	*q->tail = k;
	q->tail = &k->next;
	q->n++;
}

struct packet *packet_queue_pop(struct packet_queue *q)
{
	struct packet *k = q->head;

	if (!k)
		return NULL;
	q->head = k->next;
	if (!q->head)
		q->tail = &q->head;
	q->n--;
	return k;
}
