#include "daemon/dataplane_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/log.h"
#include "lib/notify.h"

#define TABLE_AGAIN_USEC USEC_PER_SEC
#define HAND_OVER_TRIES	 5
#define UNSEEN_MAX	 5 /* attempts, until a table that cannot be read is taken for one that is gone */

static void on_udp(void *data, const struct udp_packet *p)
{
	struct dataplane *d = data;

	d->ops->udp_packet(d->data, &p->from, &p->to, p->p, p->len);
}

/* Whether an older table of ours filters. One that stood and cannot be read, because its dump is spoiled, still does
 * as far as anybody knows; but not for long. */
static bool is_filtered(struct dataplane *d)
{
	int r = d->nft ? nft_stands(d->nft, d->cfg->table) : 0;

	if (r == 0 && d->nft)
		r = dataplane_stands_before(d);
	if (r >= 0) {
		d->stood = r > 0;
		d->unseen = 0;
	} else if (++d->unseen > UNSEEN_MAX) {
		d->stood = false;
	}
	return d->stood;
}

/* Fail closed: a tunnel that nothing filters is set down. */
static void close_link(struct dataplane *d)
{
	int r;

	if (is_filtered(d))
		return;
	r = link_down(d->link); /* each time: it may have been set up by somebody */
	if (r < 0) {
		log_remote(LOG_LEVEL_ERR, "cannot set interface %s down, which nothing filters: %s",
			   d->cfg->interface, strerror(-r));
		return;
	}
	if (!d->closed)
		log_notice("interface %s is down: nothing would filter it", d->cfg->interface);
	d->closed = true;
}

static void open_link(struct dataplane *d)
{
	if (!d->closed)
		return;
	d->closed = false;
	log_notice("interface %s is filtered again", d->cfg->interface);
	if (d->up) /* before, up_device() has done it */
		d->ops->link_event(d->data, LINK_EVENT_OURS | LINK_EVENT_ROUTE);
}

/* Makes the table what is wanted now. */
int dataplane_apply_table(struct dataplane *d)
{
	struct nft_config c = {
		.ifindex = wg_ifindex(d->wg),
		.port = d->port,
		.private_port = d->udp ? udp_private_port(d->udp) : 0,
		.share_port = d->udp && udp_mode(d->udp) == UDP_MODE_TPROXY,
		.rewrite_source = d->udp && udp_needs_rewrite(d->udp),
		.mark = LINK_MARK,
		.mark_mask = LINK_MARK_MASK,
		.filter = d->filter,
		.own_only = true,
		.own = d->addrs,
		.n_own = MIN(d->n_addrs, (size_t)NFT_OWN_MAX),
		.peers = d->peers,
		.n_peers = d->n_peers,
	};
	bool v4 = false, v6 = false;
	int r;

	snprintf(c.table, sizeof(c.table), "%s", d->cfg->table);
	snprintf(c.ifname, sizeof(c.ifname), "%s", d->cfg->interface);
	/* What cannot be read now is as it was: without its chains a host that forwards filters nothing of that. */
	if (link_forwarding(d->link, &v4, &v6) == 0)
		d->forwarding = v4 || v6;
	c.forwarding = d->forwarding;
	c.clamp_mss = c.forwarding;
	r = nft_apply(d->nft, &c);
	if (r != -EEXIST && r != -EPERM) /* another's, and nothing was made */
		d->table_may_be = true;
	if (r < 0) {
		char why[160];

		snprintf(why, sizeof(why), "%s", nft_error(d->nft)[0] ? nft_error(d->nft) : strerror(-r));
		log_remote(LOG_LEVEL_ERR, "nftables table %s: %s", d->cfg->table, why);
		close_link(d);
		snprintf(d->filter_problem, sizeof(d->filter_problem),
			 "The packet filter is not in force%s: nftables table %s: %.130s",
			 d->closed ? ", so the interface is down" : "", d->cfg->table, why);
		loop_timer_in(d->table_timer, TABLE_AGAIN_USEC);
	} else {
		d->filter_problem[0] = '\0';
		d->stood = true;
		d->unseen = 0;
		loop_timer_stop(d->table_timer);
		open_link(d);
	}
	return r;
}

void dataplane_table_again(void *data)
{
	struct dataplane *d = data;

	if (d->up)
		dataplane_apply_table(d);
}

/* Without the rule that gives us discovery packets no direct path is found; raw sockets see them too. */
static void on_port_tested(void *data)
{
	struct dataplane *d = data;

	log_info("UDP port %u is shared by %s", d->port, udp_mode_name(udp_mode(d->udp)));
	dataplane_apply_table(d);
}

static void on_table_changed(void *data)
{
	struct dataplane *d = data;

	if (!d->up)
		return;
	if (d->may_tproxy) /* else the kernel would refuse the table as a whole */
		udp_set_mode(d->udp, UDP_MODE_TPROXY);
	if (dataplane_apply_table(d) > 0) /* else events were lost, and it stands */
		log_notice("nftables table %s was changed by somebody else: putting it back", d->cfg->table);
	udp_self_test(d->udp, on_port_tested, d);
}

/* The socket that owns the table: of before, or a new one, which is given away to be kept. */
int dataplane_open_nft(struct dataplane *d)
{
	int r;

	if (d->nft)
		return 0;
	if (d->kept >= 0) {
		r = nft_open(d->kept, &d->nft);
		if (r == 0) {
			d->kept = -1;
			nft_set_kept(d->nft, true);
			return 0;
		}
		if (is_shortage(r))
			return r; /* a table may hang on it */
		log_warning_errno(r, "the service manager kept a descriptor that is of no use");
		d->kept = fd_close(d->kept);
		notify_forget(DATAPLANE_KEPT);
	}
	r = nft_open(-1, &d->nft);
	if (r < 0)
		return r;
	r = notify_store(DATAPLANE_KEPT, nft_fd(d->nft));
	if (is_shortage(r)) {
		nft_close(TAKE(d->nft));
		return r;
	}
	nft_set_kept(d->nft, r == 0);
	if (r < 0 && r != -ENOENT)
		log_info_errno(r, "the service manager keeps no descriptor for us");
	return 0;
}

/* The shared port and what stands around it. The filter stands before the first packet is let in. */
int dataplane_up_table(struct dataplane *d, uint16_t *disco_port, char *error)
{
	int r = dataplane_open_nft(d), has = 0;

	if (r == 0)
		has = nft_probe(d->nft);
	if (has < 0)
		return dataplane_fail(error, has, "nf_tables does not answer as it should: %s", strerror(-has));
	if (!(has & NFT_HAS_TABLES))
		return dataplane_fail(error, -EOPNOTSUPP,
				      "this kernel has no nf_tables (or not the right to use them): the packet "
				      "filter cannot stand, so nothing is let in; load nf_tables, nft_ct, nft_tproxy");
	d->may_tproxy = !d->cfg->port_sharing_raw && (has & NFT_HAS_TPROXY);
	r = udp_open(d->loop,
		     &(struct udp_opts){ .port = d->port,
					 .private_port = *disco_port,
					 .mark = LINK_MARK,
					 .fn = on_udp,
					 .data = d },
		     &d->udp);
	if (r == 0 && !d->may_tproxy)
		r = udp_set_mode(d->udp, UDP_MODE_RAW);
	if (r < 0)
		return dataplane_fail(error, r, "cannot share UDP port %u with the kernel: %s", d->port, strerror(-r));
	*disco_port = udp_private_port(d->udp);
	r = dataplane_apply_table(d);
	if (r < 0)
		return dataplane_fail(error, r, "%s", d->filter_problem);
	udp_self_test(d->udp, on_port_tested, d);
	r = nft_watch(d->nft, d->loop, on_table_changed, d);
	if (is_shortage(r)) /* a lack of the moment shall not last for good */
		return dataplane_fail(error, r, "cannot watch the nftables table: %s", strerror(-r));
	if (r < 0)
		log_warning_errno(r, "changes of the nftables table will not be noticed");
	return 0;
}

int dataplane_set_filter(struct dataplane *d, enum nft_filter mode)
{
	if (mode == d->filter)
		return 0;
	d->filter = mode;
	return d->up ? dataplane_apply_table(d) : 0;
}

/* An adopted device that could not be brought up. */
void dataplane_leave_link(struct dataplane *d)
{
	if (!d->nft && dataplane_open_nft(d) < 0)
		log_err("cannot talk to nf_tables");
	close_link(d);
	d->left = d->closed ? 0 : wg_ifindex(d->wg);
}

void dataplane_hand_over(struct dataplane *d)
{
	if (!d->nft || !nft_goes_with_owner(d->nft))
		return;
	nft_set_kept(d->nft, false);
	/* What was done may be told as if it were not: the next attempt sees that nothing is left to do. */
	for (int i = 0; d->up && i < HAND_OVER_TRIES; i++)
		if (dataplane_apply_table(d) >= 0) {
			log_info("nftables table %s stays without an owner", d->cfg->table);
			return;
		}
	if (!d->up && (!d->left || link_open(d->cfg->interface, d->left, &d->link) < 0))
		return;
	if (link_down(d->link) == 0)
		log_err("interface %s is down: its packet filter ends with kernscaled", d->cfg->interface);
}

const char *dataplane_filter_problem(const struct dataplane *d)
{
	return d->filter_problem;
}
