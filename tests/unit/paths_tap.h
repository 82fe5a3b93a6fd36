#pragma once
/* paths_tap: an engine with keys of its own whose sends are only looked at; and boxes for it. */
#include <string.h>

#include "daemon/path/paths.h"
#include "lib/cleanup.h"

#define MSEC UINT64_C(1000)
#define SEC  UINT64_C(1000000)
#define T0   (1000 * SEC)

struct tap {
	struct paths *p;
	struct key_pair disco, node; /* its own */
	/* the last sent, and how many */
	uint8_t udp[DISCO_WIRE_MAX], derp[DISCO_WIRE_MAX];
	int n_udp, n_derp, n_sets;
	size_t udp_len, derp_len;
	struct endpoint udp_to;
	struct addr udp_from;
	uint16_t region;
};

static inline int tap_udp(void *data, const struct endpoint *to, const struct addr *from,
			  const void *p, size_t len)
{
	struct tap *t = data;

	t->n_udp++;
	t->udp_to = *to;
	t->udp_from = from ? *from : (struct addr){ 0 };
	memcpy(t->udp, p, len);
	t->udp_len = len;
	return 0;
}

static inline int tap_derp(void *data, uint16_t region, const struct key *dst, const void *p,
			   size_t len)
{
	struct tap *t = data;

	(void)dst;
	t->n_derp++;
	t->region = region;
	memcpy(t->derp, p, len);
	t->derp_len = len;
	return 0;
}

static inline void tap_pong(void *data, const struct paths_pong *pong)
{
	(void)data;
	(void)pong;
}

static inline void tap_set(void *data, uint32_t id, const struct endpoint *e)
{
	(void)id;
	(void)e;
	((struct tap *)data)->n_sets++;
}

static inline void tap_nothing(void *data)
{
	(void)data;
}

static inline void tap_wake(void *data, uint64_t when)
{
	(void)data;
	(void)when;
}

static const struct paths_ops tap_ops = { .send_udp = tap_udp,
					  .send_derp = tap_derp,
					  .set_endpoint = tap_set,
					  .restun = tap_nothing,
					  .dump = tap_nothing,
					  .wake = tap_wake };

static inline void tap_init(struct tap *t)
{
	*t = (struct tap){ 0 };
	key_pair_generate(&t->disco);
	key_pair_generate(&t->node);
	assert_int_equal(paths_new(&tap_ops, t, &t->p), 0);
	paths_set_self(t->p, &t->disco, &t->node.pub, T0);
}

/* Peer id, whose home is relay 3, and of whom no address is known. */
static inline void tap_peer(struct tap *t, uint32_t id, const struct key *node,
			    const struct key *disco)
{
	struct paths_peer_config c = { .id = id, .home = 3, .node = *node, .disco = *disco };

	assert_int_equal(paths_peer_set(t->p, &c, T0), PATHS_PEER_NEW);
}

static inline size_t box(const struct key_pair *from, const struct key *to,
			 const struct disco_msg *m, uint8_t *wire)
{
	struct disco_shared k;
	uint8_t plain[DISCO_WIRE_MAX];
	int n = disco_msg_encode(m, plain, sizeof(plain));

	assert_true(n > 0);
	assert_int_equal(disco_shared_init(&from->priv, to, &k), 0);
	n = disco_seal(&k, &from->pub, NULL, plain, (size_t)n, wire, DISCO_WIRE_MAX);
	assert_true(n > 0);
	return (size_t)n;
}
