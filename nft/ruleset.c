#include "nft/ruleset.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "lib/cleanup.h"
#include "proto/wireguard.h"

#define TSMP_PROTOCOL	99
#define PAYLOAD		8 /* of UDP, behind its header */
#define PRIORITY_RAW	(-300)
#define PRIORITY_MANGLE (-150)
#define PRIORITY_FILTER 0
#define PRIORITY_SRCNAT 100

struct maker {
	const struct nft_config *c;
	struct nft_ruleset *r;
};

static void begin_chain(struct maker *m, const char *name, enum nft_hook hook, int32_t priority)
{
	m->r->chains[m->r->n_chains++] =
		(struct nft_chain){ .name = name, .hook = hook, .priority = priority, .first = m->r->n_rules };
}

static void add_rule(struct maker *m, const struct nft_expr *e, size_t n)
{
	struct nft_rule *rule = &m->r->rules[m->r->n_rules++];

	rule->n = n;
	memcpy(rule->e, e, n * sizeof(*e));
	m->r->chains[m->r->n_chains - 1].n++;
}

#define RULE(m, ...)                                                                               \
	do {                                                                                       \
		const struct nft_expr rule_[] = { __VA_ARGS__ };                                   \
		add_rule(m, rule_, ARRAY_SIZE(rule_));                                             \
	} while (0)
#define E(k, ...) ((struct nft_expr){ .kind = NFT_EXPR_##k, ##__VA_ARGS__ })
#define IIF_WG	  E(IIF, .a = m->c->ifindex)
#define IIF_NOT_WG E(IIF, .negate = true, .a = m->c->ifindex)
#define OIF_WG	  E(OIF, .a = m->c->ifindex)
#define UDP	  E(L4PROTO, .a = IPPROTO_UDP)

/* What comes to P. Data, the mass of it, is let go by one byte, past the look at its source too: the
 * module knows its peers better. A datagram is for the daemon when it is disco, or an answer of a
 * STUN server: type and cookie, since in WireGuard's messages the cookie's place holds a random
 * number (kernel.md 3.3). */
static void chain_shared(struct maker *m)
{
	static const uint8_t families[] = { 4, 6 };

	if (!m->c->share_port)
		return;
	begin_chain(m, "shared", NFT_HOOK_NONE, 0);
	RULE(m, E(PAYLOAD, .a = PAYLOAD, .len = 1, .data = { WIREGUARD_DATA }), E(ACCEPT));
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		uint8_t f = families[i];

		RULE(m, E(PAYLOAD, .a = PAYLOAD, .len = 6, .data = { 0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac }),
		     E(NFPROTO, .a = f), UDP, E(LOCAL), E(TPROXY, .a = f, .b = m->c->private_port), E(ACCEPT));
		RULE(m, E(PAYLOAD, .a = PAYLOAD, .len = 2, .data = { 0x01, 0x01 }),
		     E(PAYLOAD, .a = PAYLOAD + 4, .len = 4, .data = { 0x21, 0x12, 0xa4, 0x42 }),
		     E(NFPROTO, .a = f), UDP, E(LOCAL), E(TPROXY, .a = f, .b = m->c->private_port), E(ACCEPT));
	}
}

/* What passes for established with the relay's loopback flows is only bookkeeping. */
static void chain_raw_out(struct maker *m)
{
	if (!m->c->relay_port && !m->c->rewrite_source)
		return;
	begin_chain(m, "raw-out", NFT_HOOK_OUTPUT, PRIORITY_RAW);
	if (m->c->rewrite_source)
		RULE(m, UDP, E(SPORT, .a = m->c->private_port),
		     E(MARK, .a = m->c->mark, .b = m->c->mark_mask), E(SET_SPORT, .a = m->c->port));
	if (m->c->relay_port) {
		RULE(m, E(OIF_LO), UDP, E(DPORT, .a = m->c->relay_port), E(NOTRACK));
		RULE(m, E(OIF_LO), UDP, E(SPORT, .a = m->c->relay_port), E(NOTRACK));
	}
}

static bool own_only(const struct maker *m)
{
	return m->c->own_only && !m->c->gateway;
}

/* What comes out of the tunnel. Linux takes a packet for any of its addresses on any of its interfaces, so a peer
 * could reach what listens on a bridge for containers alone. */
static void chain_for_us(struct maker *m)
{
	if (!own_only(m))
		return;
	begin_chain(m, "for-us", NFT_HOOK_NONE, 0);
	for (size_t i = 0; i < m->c->n_own; i++)
		RULE(m, E(DADDR, .addr = &m->c->own[i]), E(ACCEPT));
	RULE(m, E(DROP));
}

/* Nothing that is from the tunnel comes back from for-us. */
static void add_source_rules(struct maker *m)
{
	for (size_t i = 0; i < m->r->n_sets; i++) {
		const struct nft_set *s = &m->r->sets[i];

		if (own_only(m))
			RULE(m, E(SADDR_IN, .a = s->family, .name = s->name), E(DROP));
		else
			RULE(m, IIF_NOT_WG, E(SADDR_IN, .a = s->family, .name = s->name), E(DROP));
	}
}

static void chain_mangle_pre(struct maker *m)
{
	const struct nft_config *c = m->c;

	if (!c->share_port && !c->mark_inbound && c->n_peers == 0 && !own_only(m))
		return;
	begin_chain(m, "mangle-pre", NFT_HOOK_PREROUTING, PRIORITY_MANGLE);
	if (c->mark_inbound)
		RULE(m, UDP, E(DPORT, .a = c->port), IIF_NOT_WG,
		     E(SET_MARK, .a = c->mark, .b = c->mark_mask));
	if (c->share_port)
		RULE(m, UDP, E(DPORT, .a = c->port), E(JUMP, .name = "shared"));
	if (own_only(m))
		RULE(m, IIF_WG, E(JUMP, .name = "for-us"));
	add_source_rules(m);
}

static void chain_input(struct maker *m)
{
	if (m->c->filter == NFT_FILTER_ALLOW_ALL)
		return;
	begin_chain(m, "input", NFT_HOOK_INPUT, PRIORITY_FILTER);
	RULE(m, IIF_NOT_WG, E(ACCEPT));
	RULE(m, E(CT_REPLY), E(ACCEPT));
	RULE(m, E(L4PROTO, .a = TSMP_PROTOCOL), E(ACCEPT)); /* read by the daemon alone */
	RULE(m, E(DROP));
}

/* A peer must not use a host that forwards for something else as its way out. Where nothing is
 * forwarded no connection tracking is asked for, since asking switches it on for every packet. */
static void chain_forward(struct maker *m)
{
	const struct nft_config *c = m->c;

	begin_chain(m, "forward", NFT_HOOK_FORWARD, PRIORITY_FILTER);
	RULE(m, IIF_NOT_WG, E(ACCEPT));
	if (c->forwarding || c->gateway)
		RULE(m, E(CT_REPLY), E(ACCEPT));
	if (c->gateway && c->filter == NFT_FILTER_ALLOW_ALL)
		RULE(m, OIF_WG, E(DROP)); /* from peer to peer they have their own way */
	if (c->gateway && c->filter == NFT_FILTER_ALLOW_ALL)
		RULE(m, E(SET_MARK, .a = NFT_FORWARD_MARK, .b = c->mark_mask), E(ACCEPT));
	RULE(m, E(DROP));
}

static void chain_clamp(struct maker *m)
{
	if (!m->c->clamp_mss)
		return;
	begin_chain(m, "mangle-fwd", NFT_HOOK_FORWARD, PRIORITY_MANGLE);
	RULE(m, IIF_WG, E(TCP_SYN), E(CLAMP_MSS));
	RULE(m, OIF_WG, E(TCP_SYN), E(CLAMP_MSS));
}

static void chain_post(struct maker *m)
{
	if (!m->c->masquerade || !m->c->gateway)
		return;
	begin_chain(m, "post", NFT_HOOK_POSTROUTING, PRIORITY_SRCNAT);
	m->r->chains[m->r->n_chains - 1].nat = true;
	RULE(m, E(MARK, .a = NFT_FORWARD_MARK, .b = m->c->mark_mask), E(MASQUERADE));
}

static int make_sets(struct maker *m)
{
	static const char *const names[] = { "peers4", "peers6" };
	const struct nft_config *c = m->c;
	size_t i = 0;

	if (c->n_peers > NFT_PEERS_MAX)
		return -ENOBUFS;
	for (size_t k = 1; k < c->n_peers; k++)
		if (addr_cmp(&c->peers[k - 1], &c->peers[k]) >= 0)
			return -EINVAL;
	for (size_t f = 0; f < 2; f++) {
		size_t first = i;

		while (i < c->n_peers && c->peers[i].family == (f ? 6 : 4))
			i++;
		if (i > first)
			m->r->sets[m->r->n_sets++] = (struct nft_set){
				names[f], (uint8_t)(f ? 6 : 4), c->peers + first, i - first
			};
	}
	return i == c->n_peers ? 0 : -EINVAL;
}

/* Names go into messages and into text that people paste. */
static bool is_name(const char *s, size_t max)
{
	size_t n = strnlen(s, max);

	if (n == 0 || n == max)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.", s[i]))
			return false;
	return true;
}

int nft_ruleset_make(const struct nft_config *c, struct nft_ruleset *ret)
{
	struct maker m = { .c = c };
	int r;

	memset(ret, 0, sizeof(*ret));
	m.r = ret;
	if (!is_name(c->table, sizeof(c->table)) || !is_name(c->ifname, sizeof(c->ifname)) ||
	    !c->ifindex || !c->port || (c->share_port && !c->private_port))
		return -EINVAL;
	memcpy(ret->table, c->table, sizeof(ret->table));
	memcpy(ret->ifname, c->ifname, sizeof(ret->ifname));
	if (c->n_own > NFT_OWN_MAX)
		return -ENOBUFS;
	r = make_sets(&m);
	if (r < 0)
		return r;
	chain_shared(&m);
	chain_for_us(&m);
	chain_raw_out(&m);
	chain_mangle_pre(&m);
	chain_input(&m);
	chain_forward(&m);
	chain_clamp(&m);
	chain_post(&m);
	return 0;
}

/* Text */

static void text_bytes(const struct nft_expr *e, struct buf *out)
{
	if (e->len == 1) {
		buf_printf(out, "0x%x ", e->data[0]);
		return;
	}
	buf_put_str(out, "0x");
	for (size_t i = 0; i < e->len; i++)
		buf_printf(out, "%02x", e->data[i]);
	buf_put_str(out, " ");
}

static const char *header_name(uint32_t family)
{
	return family == 4 ? "ip" : "ip6";
}

static void text_expr(const struct nft_ruleset *r, const struct nft_expr *e, struct buf *out)
{
	const char *not = e->negate ? "!= " : "";
	char addr[ADDR_TEXT_MAX];

	switch (e->kind) {
	case NFT_EXPR_IIF:
		buf_printf(out, "iif %s\"%s\" ", not, r->ifname);
		break;
	case NFT_EXPR_OIF:
		buf_printf(out, "oif %s\"%s\" ", not, r->ifname);
		break;
	case NFT_EXPR_IIF_LO:
		buf_put_str(out, "iifname \"lo\" ");
		break;
	case NFT_EXPR_OIF_LO:
		buf_put_str(out, "oifname \"lo\" ");
		break;
	case NFT_EXPR_NFPROTO:
		buf_printf(out, "meta nfproto ipv%u ", e->a);
		break;
	case NFT_EXPR_L4PROTO:
		if (e->a == IPPROTO_UDP)
			buf_put_str(out, "meta l4proto udp ");
		else
			buf_printf(out, "meta l4proto %u ", e->a);
		break;
	case NFT_EXPR_DPORT:
		buf_printf(out, "udp dport %u ", e->a);
		break;
	case NFT_EXPR_SPORT:
		buf_printf(out, "udp sport %u ", e->a);
		break;
	case NFT_EXPR_PAYLOAD:
		buf_printf(out, "@th,%u,%u %s", e->a * 8, e->len * 8U, not);
		text_bytes(e, out);
		break;
	case NFT_EXPR_LOCAL:
		buf_put_str(out, "fib daddr type local ");
		break;
	case NFT_EXPR_MARK:
		buf_printf(out, "meta mark & 0x%08x == 0x%08x ", e->b, e->a);
		break;
	case NFT_EXPR_CT_REPLY:
		buf_put_str(out, "ct state established,related ");
		break;
	case NFT_EXPR_SADDR_IN:
		buf_printf(out, "%s saddr @%s ", header_name(e->a), e->name);
		break;
	case NFT_EXPR_DADDR:
		buf_printf(out, "%s daddr %s ", header_name(e->addr->family), addr_text(e->addr, addr));
		break;
	case NFT_EXPR_TCP_SYN:
		buf_put_str(out, "tcp flags & (syn | rst) == syn ");
		break;
	case NFT_EXPR_SET_MARK:
		buf_printf(out, "meta mark set meta mark & 0x%08x | 0x%08x ", ~e->b, e->a);
		break;
	case NFT_EXPR_SET_SPORT:
		buf_printf(out, "udp sport set %u ", e->a);
		break;
	case NFT_EXPR_TPROXY:
		buf_printf(out, "tproxy ip%s to :%u ", e->a == 6 ? "6" : "", e->b);
		break;
	case NFT_EXPR_CLAMP_MSS:
		buf_put_str(out, "tcp option maxseg size set rt mtu ");
		break;
	case NFT_EXPR_MASQUERADE:
		buf_put_str(out, "masquerade ");
		break;
	case NFT_EXPR_NOTRACK:
		buf_put_str(out, "notrack ");
		break;
	case NFT_EXPR_JUMP:
		buf_printf(out, "jump %s ", e->name);
		break;
	case NFT_EXPR_ACCEPT:
		buf_put_str(out, "accept ");
		break;
	case NFT_EXPR_DROP:
		buf_put_str(out, "drop ");
		break;
	}
}

static void text_chain(const struct nft_ruleset *r, const struct nft_chain *c, struct buf *out)
{
	static const char *const hooks[] = { "", "prerouting", "input", "forward", "output", "postrouting" };

	buf_printf(out, "\tchain %s {\n", c->name);
	if (c->hook != NFT_HOOK_NONE)
		buf_printf(out, "\t\ttype %s hook %s priority %d; policy accept;\n",
			   c->nat ? "nat" : "filter", hooks[c->hook], c->priority);
	for (size_t i = c->first; i < c->first + c->n; i++) {
		buf_put_str(out, "\t\t");
		for (size_t k = 0; k < r->rules[i].n; k++)
			text_expr(r, &r->rules[i].e[k], out);
		if (out->len > 0)
			out->len--; /* the last blank */
		buf_put_str(out, "\n");
	}
	buf_put_str(out, "\t}\n");
}

void nft_ruleset_text(const struct nft_ruleset *r, bool elements, struct buf *out)
{
	char addr[ADDR_TEXT_MAX];

	buf_printf(out, "table inet %s {\n", r->table);
	for (size_t i = 0; i < r->n_sets; i++) {
		const struct nft_set *s = &r->sets[i];

		buf_printf(out, "\tset %s {\n\t\ttype %s\n", s->name, s->family == 4 ? "ipv4_addr" : "ipv6_addr");
		for (size_t k = 0; elements && k < s->n; k++)
			buf_printf(out, "%s%s", k ? ", " : "\t\telements = { ", addr_text(&s->addrs[k], addr));
		if (elements)
			buf_put_str(out, " }\n");
		buf_put_str(out, "\t}\n");
	}
	for (size_t i = 0; i < r->n_chains; i++)
		text_chain(r, &r->chains[i], out);
	buf_put_str(out, "}\n");
}
