#include "proto/tailcfg_util.h"

#include <errno.h>
#include <string.h>

static void rule_done(struct tailcfg_rule *r)
{
	for (size_t i = 0; i < r->n_src; i++)
		free(r->src[i].cap);
	free(r->src);
	free(r->dst);
	free(r->proto);
	*r = (struct tailcfg_rule){ 0 };
}

void tailcfg_rules_done(struct tailcfg_rules *r)
{
	for (size_t i = 0; i < r->n; i++)
		rule_done(&r->rule[i]);
	free(r->rule);
	*r = (struct tailcfg_rules){ 0 };
}

/* "a-b". b may be an IPv6 address that is IPv4's elsewhere: it is the last one of ::/80, say, and of its kind only here. */
static int range_decode(const char *s, const char *sep, struct tailcfg_net *ret)
{
	struct addr last;

	if (addr_parse(s, (size_t)(sep - s), &ret->lo) < 0 || addr_parse(sep + 1, strlen(sep + 1), &last) < 0)
		return -EBADMSG;
	ret->hi = last;
	if (ret->lo.family == 6 && last.family == 4 && strchr(sep, ':')) {
		ret->hi.family = 6;
		addr_to16(&last, ret->hi.b);
	}
	return ret->lo.family != ret->hi.family || addr_cmp(&ret->lo, &ret->hi) > 0 ? -EBADMSG : 0;
}

/* The address forms of control.md 9.2. */
static int net_decode(const char *s, bool source, struct tailcfg_net *ret)
{
	struct tailcfg_net n = { .kind = TAILCFG_NET_RANGE };
	const char *sep;
	struct prefix p, clean;

	if (strcmp(s, "*") == 0) {
		n.kind = TAILCFG_NET_ANY;
	} else if (strncmp(s, "cap:", 4) == 0) {
		if (!source)
			return -EBADMSG;
		n.kind = TAILCFG_NET_CAP;
		n.cap = tailcfg_text(s + 4, TAILCFG_NAME_MAX);
		if (!n.cap)
			return -ENOMEM;
	} else if (strchr(s, '/')) {
		if (prefix_parse(s, strlen(s), &p) < 0)
			return -EBADMSG;
		clean = prefix_masked(&p);
		if (!prefix_equal(&p, &clean))
			return -EBADMSG;
		n.lo = p.addr;
		n.hi = prefix_last(&p);
	} else if ((sep = strchr(s, '-'))) {
		if (range_decode(s, sep, &n) < 0)
			return -EBADMSG;
	} else {
		if (addr_parse(s, strlen(s), &n.lo) < 0)
			return -EBADMSG;
		n.hi = n.lo;
	}
	*ret = n;
	return 0;
}

static int sources_decode(const json_t *list, struct tailcfg_rule *rule, size_t *skipped)
{
	size_t n = json_array_size(list);
	int r;

	rule->src = n ? calloc(n, sizeof(*rule->src)) : NULL;
	if (n && !rule->src)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char *s = json_string_value(json_array_get(list, i));

		r = s ? net_decode(s, true, &rule->src[rule->n_src]) : -EBADMSG;
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			(*skipped)++;
		else
			rule->n_src++;
	}
	return 0;
}

static int dst_decode(const json_t *o, struct tailcfg_dst *ret)
{
	const json_t *ports = json_get(o, "Ports");
	int64_t first = json_get_int(ports, "First", 0), last = json_get_int(ports, "Last", 0);
	const char *ip = json_get_str(o, "IP");
	struct tailcfg_dst d = { 0 };

	if (!ip || first < 0 || last > UINT16_MAX || first > last ||
	    net_decode(ip, false, &d.net) < 0)
		return -EBADMSG;
	d.first = (uint16_t)first;
	d.last = (uint16_t)last;
	*ret = d;
	return 0;
}

static int destinations_decode(const json_t *list, struct tailcfg_rule *rule, size_t *skipped)
{
	size_t n = json_array_size(list);

	rule->dst = n ? calloc(n, sizeof(*rule->dst)) : NULL;
	if (n && !rule->dst)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (dst_decode(json_array_get(list, i), &rule->dst[rule->n_dst]) < 0)
			(*skipped)++;
		else
			rule->n_dst++;
	}
	return 0;
}

static int protos_decode(const json_t *list, struct tailcfg_rule *rule)
{
	size_t n = json_array_size(list);
	bool seen[256] = { false };

	rule->proto_default = n == 0;
	if (n == 0)
		return 0;
	rule->proto = malloc(256);
	if (!rule->proto)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);
		json_int_t p = json_is_integer(v) ? json_integer_value(v) : -1;

		if (p >= 0 && p <= 255)
			seen[p] = true;
	}
	for (unsigned int p = 0; p < 256; p++) {
		if (seen[p])
			rule->proto[rule->n_proto++] = (uint8_t)p;
	}
	return 0;
}

/* The obsolete members change what a rule means: a rule that has them allows nothing here. */
static bool rule_obsolete(const json_t *o)
{
	const json_t *dst = json_get(o, "DstPorts");

	if (json_get(o, "SrcBits"))
		return true;
	for (size_t i = 0; i < json_array_size(dst); i++) {
		if (json_get(json_array_get(dst, i), "Bits"))
			return true;
	}
	return false;
}

static int rule_decode(struct json_slice text, struct tailcfg_rule *rule, size_t *skipped)
{
	CLEANUP(json_decref) json_t *o = NULL;
	int r;

	r = json_slice_read(text, &o);
	if (r < 0)
		return r;
	if (!json_is_object(o) || rule_obsolete(o))
		return -EBADMSG;
	if (json_array_size(json_get(o, "SrcIPs")) + json_array_size(json_get(o, "DstPorts")) >
	    TAILCFG_RULE_ENTRIES_MAX)
		return -ENOBUFS;
	rule->cap_grant = json_get(o, "CapGrant") != NULL;
	r = sources_decode(json_get(o, "SrcIPs"), rule, skipped);
	if (r == 0)
		r = destinations_decode(json_get(o, "DstPorts"), rule, skipped);
	return r == 0 ? protos_decode(json_get(o, "IPProto"), rule) : r;
}

int tailcfg_rules_decode(struct json_slice text, struct tailcfg_rules *ret)
{
	CLEANUP(tailcfg_rules_done) struct tailcfg_rules rules = { 0 };
	struct json_slice v;
	struct json_scan s;
	size_t entries = 0;
	int r;

	if (json_slice_is_null(text)) {
		*ret = rules;
		return 0;
	}
	r = json_scan_array(text, &s);
	if (r < 0)
		return r;
	while (json_scan_element(&s, &v)) {
		struct tailcfg_rule rule = { 0 };

		r = rule_decode(v, &rule, &rules.n_skipped);
		entries += rule.n_src + rule.n_dst;
		if (r == 0)
			r = entries > TAILCFG_RULE_ENTRIES_MAX
				    ? -ENOBUFS
				    : tailcfg_grow(&rules.rule, rules.n, TAILCFG_RULES_MAX,
						   sizeof(rule));
		if (r < 0)
			rule_done(&rule);
		if (r == -EBADMSG)
			rules.n_skipped++;
		else if (r < 0)
			return r;
		else
			rules.rule[rules.n++] = rule;
	}
	if (!json_scan_ok(&s))
		return -EBADMSG;
	*ret = rules;
	rules = (struct tailcfg_rules){ 0 };
	return 0;
}

static json_t *net_json(const struct tailcfg_net *n)
{
	char lo[ADDR_TEXT_MAX], hi[ADDR_TEXT_MAX];

	switch (n->kind) {
	case TAILCFG_NET_ANY:
		return json_string("*");
	case TAILCFG_NET_CAP:
		return json_sprintf("cap:%s", n->cap);
	case TAILCFG_NET_RANGE:
		if (addr_equal(&n->lo, &n->hi))
			return json_addr(&n->lo);
		return json_sprintf("%s-%s", addr_text(&n->lo, lo), addr_text(&n->hi, hi));
	}
	unreachable();
}

static json_t *rule_json(const struct tailcfg_rule *r)
{
	json_t *o = json_object(), *src = json_array(), *dst = json_array(), *proto = json_array();

	for (size_t i = 0; i < r->n_src; i++)
		json_array_append_new(src, net_json(&r->src[i]));
	for (size_t i = 0; i < r->n_dst; i++)
		json_array_append_new(dst, json_pack("{s:o,s:{s:i,s:i}}", "IP",
						     net_json(&r->dst[i].net), "Ports", "First",
						     r->dst[i].first, "Last", r->dst[i].last));
	json_object_set_new(o, "SrcIPs", src);
	json_object_set_new(o, "DstPorts", dst);
	for (size_t i = 0; i < r->n_proto; i++)
		json_array_append_new(proto, json_integer(r->proto[i]));
	if (!r->proto_default && !r->n_proto)
		json_array_append_new(proto, json_integer(-1)); /* a list of which nothing remains */
	json_object_set_new(o, "IPProto", proto);
	if (r->cap_grant)
		json_object_set_new(o, "CapGrant", json_array());
	return o;
}

int tailcfg_rules_encode(const struct tailcfg_rules *r, struct buf *out)
{
	buf_put_u8(out, '[');
	for (size_t i = 0; i < r->n; i++) {
		CLEANUP(json_decref) json_t *o = rule_json(&r->rule[i]);

		if (i)
			buf_put_u8(out, ',');
		if (json_write(o, out) < 0)
			return -ENOMEM;
	}
	return buf_put_u8(out, ']');
}

bool tailcfg_rule_opens_all(const struct tailcfg_rule *r)
{
	static const uint8_t usual[] = { 1, 6, 17, 58 };
	bool any_dst = false;

	for (size_t i = 0; i < r->n_dst; i++)
		any_dst |= r->dst[i].net.kind == TAILCFG_NET_ANY && r->dst[i].first == 0 &&
			   r->dst[i].last == UINT16_MAX;
	if (!any_dst)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(usual) && !r->proto_default; i++) {
		if (!memchr(r->proto, usual[i], r->n_proto))
			return false;
	}
	return true;
}

static bool net_has(const struct tailcfg_net *n, const struct prefix *p)
{
	struct addr last;

	switch (n->kind) {
	case TAILCFG_NET_ANY:
		return true;
	case TAILCFG_NET_RANGE:
		last = prefix_last(p);
		return n->lo.family == p->addr.family && addr_cmp(&n->lo, &p->addr) <= 0 &&
		       addr_cmp(&last, &n->hi) <= 0;
	case TAILCFG_NET_CAP:
		return false;
	}
	unreachable();
}

bool tailcfg_rule_has_source(const struct tailcfg_rule *r, const struct prefix *p)
{
	for (size_t i = 0; i < r->n_src; i++) {
		if (net_has(&r->src[i], p))
			return true;
	}
	return false;
}
