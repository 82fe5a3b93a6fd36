#include "coordinator/state/register.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *register_outcome_name(enum register_outcome o)
{
	switch (o) {
	case REGISTER_REFUSE:
		return "refused";
	case REGISTER_OK:
		return "known";
	case REGISTER_KEY_EXPIRED:
		return "key expired";
	case REGISTER_LOGOUT:
		return "logout";
	case REGISTER_GONE:
		return "gone";
	case REGISTER_CREATE:
		return "new";
	case REGISTER_RELOGIN:
		return "login again";
	case REGISTER_WAIT:
		return "waiting";
	case REGISTER_ASK:
		return "interactive";
	}
	return "?";
}

static void __attribute__((format(printf, 2, 3)))
register_refuse(struct register_decision *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->error, sizeof(d->error), fmt, ap);
	va_end(ap);
	d->outcome = REGISTER_REFUSE;
}

/* The machine's node that this key logs in: its tagged node for a tagged key, and where there is none the
 * owner's, which the key converts; its owner's own for a personal key. */
static struct node *register_existing(const struct registry *s, const struct key *machine,
				      const struct authkey *k)
{
	struct node *n;

	if (!k->tags.n)
		return registry_node_of_machine(s, machine, false, k->user);
	n = registry_node_of_machine(s, machine, true, 0);
	if (!n && k->user)
		n = registry_node_of_machine(s, machine, false, k->user);
	return n || k->user ? n : registry_node_of_machine_any(s, machine);
}

static void register_decide_key(const struct registry *s, const struct key *machine,
				const struct register_request *q, const struct node *bound,
				int64_t now_nsec, struct register_decision *d)
{
	struct authkey *k = registry_authkey_find(s, q->auth_key);
	struct node *n;

	if (!k) {
		register_refuse(d, "invalid pre auth key");
		return;
	}
	n = register_existing(s, machine, k);
	if (n && n == bound && !node_expired(n, now_nsec) &&
	    (!k->tags.n || strs_equal(&n->tags, &k->tags))) {
		/* A daemon that always gives its key, restarting: also when the key is spent. */
		d->outcome = REGISTER_OK;
		d->node = n;
		return;
	}
	if (k->expiry_nsec && k->expiry_nsec <= now_nsec) {
		register_refuse(d, "authkey expired");
		return;
	}
	if (k->used && !k->reusable) {
		register_refuse(d, "authkey already used");
		return;
	}
	for (size_t i = 0; i < q->hostinfo.tags.n; i++) {
		if (!strs_has(&k->tags, q->hostinfo.tags.v[i])) {
			register_refuse(d, "requested tags [%.64s] are invalid or not permitted: a node's tags come "
					   "from its pre-auth key", q->hostinfo.tags.v[i]);
			return;
		}
	}
	/* An expired key is not revived, nor one shared by two nodes of a machine: a new one, please. */
	if (bound && (bound != n || node_expired(bound, now_nsec))) {
		d->outcome = REGISTER_KEY_EXPIRED;
		d->node = (struct node *)(uintptr_t)bound;
		return;
	}
	d->outcome = n ? REGISTER_RELOGIN : REGISTER_CREATE;
	d->node = n;
	d->authkey = k;
}

void register_decide(const struct registry *s, const struct key *machine,
		     const struct register_request *q, int64_t now_nsec,
		     struct register_decision *ret)
{
	struct register_decision *d = ret;
	struct node *n;

	*d = (struct register_decision){ 0 };
	if (q->version < REQUEST_CAP_MIN) {
		register_refuse(d, "unsupported client version: %u (%u, that is Tailscale 1.80, or newer is needed)",
				q->version, REQUEST_CAP_MIN);
		return;
	}
	if (key_is_zero(&q->node_key)) {
		register_refuse(d, "the request has no node key");
		return;
	}
	if (key_is_weak(&q->node_key)) {
		register_refuse(d, "the node key is of small order: it keeps no secret");
		return;
	}
	n = registry_node_by_key(s, &q->node_key);
	if (n && !key_equal(&n->machine_key, machine)) {
		register_refuse(d, "node exists with a different machine key");
		return;
	}
	d->node = n;
	if (q->expiry_nsec && q->expiry_nsec <= now_nsec) {
		d->outcome = n ? REGISTER_LOGOUT : REGISTER_GONE;
		return;
	}
	if (n && !q->auth_key) {
		if (node_expired(n, now_nsec))
			d->outcome = REGISTER_KEY_EXPIRED;
		else if (q->expiry_nsec)
			register_refuse(d, "extending key is not allowed");
		else
			d->outcome = REGISTER_OK;
		/* An expired node that waits for its followup came with a new key, so it is not here. */
		return;
	}
	if (q->followup) {
		d->outcome = REGISTER_WAIT;
		return;
	}
	if (q->auth_key) {
		register_decide_key(s, machine, q, n, now_nsec, d);
		return;
	}
	d->outcome = REGISTER_ASK;
}

static struct node_new register_wish(const struct key *machine, const struct register_request *q)
{
	return (struct node_new){
		.machine_key = *machine,
		.node_key = q->node_key,
		.hostname = q->hostinfo.hostname ? q->hostinfo.hostname : "",
		.hostinfo = q->hostinfo.text ? q->hostinfo.text : "{}",
		.netinfo = q->hostinfo.netinfo,
		.home = q->hostinfo.home,
		.cap = q->version,
		.expiry_nsec = q->expiry_nsec,
	};
}

static int register_put(struct registry *s, struct node *n, const struct node_new *w, int64_t now_nsec,
			struct node **ret)
{
	int r = n ? registry_node_relogin(s, n, w, now_nsec) : registry_node_create(s, w, now_nsec, &n);

	if (r == 0)
		*ret = n;
	return r;
}

int register_apply(struct registry *s, const struct key *machine, const struct register_request *q,
		   const struct register_decision *d, int64_t now_nsec, struct node **ret_node)
{
	struct node_new w = register_wish(machine, q);
	int r;

	if (d->outcome == REGISTER_LOGOUT) {
		*ret_node = d->node->ephemeral ? NULL : d->node;
		if (d->node->ephemeral)
			registry_node_delete(s, d->node);
		else if (!node_expired(d->node, now_nsec))
			registry_node_set_expiry(s, d->node, now_nsec);
		return 0;
	}
	if (d->outcome != REGISTER_CREATE && d->outcome != REGISTER_RELOGIN)
		return -EINVAL;
	w.user = d->authkey->user;
	w.tags = &d->authkey->tags;
	w.ephemeral = d->authkey->ephemeral;
	w.authkey = d->authkey->id;
	w.method = NODE_METHOD_AUTHKEY;
	r = register_put(s, d->node, &w, now_nsec, ret_node);
	if (r == 0)
		registry_authkey_use(s, d->authkey);
	return r;
}

int register_approve(struct registry *s, const struct key *machine, const struct register_request *q,
		     const struct registry_user *u, int64_t now_nsec, struct node **ret_node)
{
	struct node_new w = register_wish(machine, q);
	struct node *bound = registry_node_by_key(s, &q->node_key);
	struct node *n = registry_node_of_machine(s, machine, false, u->id);

	if (bound && bound != n)
		return -EEXIST;
	w.user = u->id;
	w.method = NODE_METHOD_CLI;
	return register_put(s, n, &w, now_nsec, ret_node);
}
