#pragma once
/*
 * What the parts of dataplane share: dataplane.c has the device, its peers, addresses and routes,
 * dataplane_table.c the filter, the port that stands behind it, and the link that is down without one, and
 * dataplane_left.c what is taken away.
 */
#include "daemon/claim.h"
#include "daemon/dataplane.h"
#include "daemon/journal.h"
#include "daemon/kernel/udp.h"
#include "daemon/relay/shuttle.h"
#include "nft/reconcile.h"

#define DATAPLANE_KEPT "nft" /* the socket that owns the table, in the service manager's store */

struct dataplane {
	struct loop *loop;
	const struct config *cfg;
	const struct dataplane_ops *ops;
	void *data;

	int claim; /* of the interface's name */
	struct loop_io *claim_io;
	struct wg *wg;
	struct link *link;
	struct udp *udp;
	struct nft *nft;   /* once opened, for good: its socket owns the table */
	int kept;	   /* that socket, from the one before us; -1: none, or nft has it */
	struct shuttle *shuttle;
	struct tsmp_socket *tsmp;
	bool up;
	struct journal journal; /* names under which something may be in the kernel; those in use among them */
	bool journal_unsaved;
	bool going; /* all of it shall go; until it is to come up again */
	bool gone;  /* and the device has, whatever has its name now */
	unsigned int left; /* interface that could not be adopted, or removed, with its table */
	bool closed; /* the link is down because nothing would filter it */
	bool stood;  /* the table, when it was seen last */
	bool table_may_be; /* made, or not known not to be */
	unsigned int unseen; /* attempts to look at it that failed since */
	bool may_tproxy; /* the kernel can, and the user has not said otherwise */
	struct addr *addrs; /* own; sorted */
	size_t n_addrs;
	struct addr *peers; /* addresses that only the tunnel may bring; sorted */
	size_t n_peers;
	struct wg_plan left_over; /* of the last plan for the peers: removals, which are slow */
	uint16_t port;
	enum nft_filter filter;
	char filter_problem[DATAPLANE_ERROR_MAX];
	bool forwarding; /* as far as is known; at first that it does */
	char why[170];
	int link_error, addrs_error, rules_error, routes_error; /* why what is missing could not be had; 0: it is there */
	struct loop_timer *table_timer; /* armed while the table is not what it shall be */
};

/* One line into error; r. */
__attribute__((format(printf, 3, 4))) int dataplane_fail(char *error, int r, const char *fmt, ...);

/* The error of a port that another has. */
int dataplane_port_taken(uint16_t port, char *error);

/* Ends our use of the kernel's objects; they stay. */
void dataplane_let_go(struct dataplane *d);
/* The routing rules that are wanted; their number. */
size_t dataplane_rules(const struct dataplane *d, struct link_rule out[LINK_RULES_MAX]);

/* ---- dataplane_left.c */

int dataplane_load_journal(struct dataplane *d);
/* Those in use, before the first thing is made. true: they were not there. */
bool dataplane_note_names(struct dataplane *d);
void dataplane_unnote_names(struct dataplane *d);
/* Our interface is noted with another table or place of rules as well. */
bool dataplane_has_other_names(const struct dataplane *d);
/* For our device, which may be new, before it has its port: those of names that were given up go. Negative: one that has to
 * go first cannot, or what is wanted in its place cannot be had. */
int dataplane_clear_devices(struct dataplane *d, const struct wg_device *now, char *error);
/* Whether a table filters our interface that was made when it had another name; as nft_stands(). */
int dataplane_stands_before(struct dataplane *d);

/* ---- dataplane_table.c */

/* The socket that owns the table: of before, or a new one, which is given away to be kept. Does nothing a second time. */
int dataplane_open_nft(struct dataplane *d);
/* The shared port and what stands around it. The filter stands before the first packet is let in. */
int dataplane_up_table(struct dataplane *d, uint16_t *disco_port, char *error);
/* Makes the table what is wanted now, or sets the link down. 1: something was changed; 0; negative: errno, logged, tried again. */
int dataplane_apply_table(struct dataplane *d);
/* struct dataplane *, when its table is due to be tried again. */
void dataplane_table_again(void *data);
/* An adopted device that could not be brought up: down, if nothing filters it. */
void dataplane_leave_link(struct dataplane *d);
