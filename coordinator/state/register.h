#pragma once
/*
 * register: what becomes of a register request (control.md 6.3, 6.4).
 *
 * register_decide() is pure: state and request in, a decision out, nothing changed. register_apply()
 * does what was decided, in one go, so that a one-off key and the node it admits are one write.
 */
#include "coordinator/state/request.h"
#include "coordinator/state/registry.h"

enum register_outcome {
	REGISTER_REFUSE,      /* error says why, for the person at the client */
	REGISTER_OK,	      /* known node, nothing changes */
	REGISTER_KEY_EXPIRED, /* come again with a new node key */
	REGISTER_LOGOUT,      /* expire or delete the node */
	REGISTER_GONE,	      /* logout of a node we do not have */
	REGISTER_CREATE,      /* pre-auth key: a new node */
	REGISTER_RELOGIN,     /* pre-auth key: node has a new key, or expired */
	REGISTER_WAIT,	      /* hold until the pending login of the followup is decided */
	REGISTER_ASK,	      /* a new interactive login */
};

struct register_decision {
	enum register_outcome outcome;
	struct node *node;	 /* OK, KEY_EXPIRED, LOGOUT, RELOGIN */
	struct authkey *authkey; /* CREATE, RELOGIN */
	char error[256];	 /* REFUSE */
};

const char *register_outcome_name(enum register_outcome o);

void register_decide(const struct registry *s, const struct key *machine,
		     const struct register_request *q, int64_t now_nsec,
		     struct register_decision *ret);
/* CREATE, RELOGIN, LOGOUT. The node in *ret_node (NULL after a logout that deleted it). On failure nothing
 * has changed. */
int register_apply(struct registry *s, const struct key *machine, const struct register_request *q,
		   const struct register_decision *d, int64_t now_nsec, struct node **ret_node);
/* An operator approved the request for this user: creates or moves on the machine's node. */
int register_approve(struct registry *s, const struct key *machine, const struct register_request *q,
		     const struct registry_user *u, int64_t now_nsec, struct node **ret_node);
