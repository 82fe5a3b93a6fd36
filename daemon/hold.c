#include "daemon/hold.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/claim.h"
#include "daemon/journal.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "nft/reconcile.h"

static int say(int held, const char *table, const struct nft *n)
{
	if (held == NFT_HELD_COPY)
		log_info("nftables table %s: a copy without an owner holds its place", table);
	else if (held == NFT_HELD_CLOSED)
		log_warning("nftables table %s cannot be copied: what holds its place lets in replies only",
			    table);
	else if (held < 0)
		log_err("nftables table %s: nothing can hold its place: %s", table,
			nft_error(n)[0] ? nft_error(n) : strerror(-held));
	return held < 0 ? held : 0;
}

static int hold(const struct config *cfg, const struct journal_names *names)
{
	CLEANUP(nft_close) struct nft *n = NULL;
	CLEANUP(fd_close) int claim = -1;
	char error[CLAIM_ERROR_MAX];
	struct nft_config closed = { .port = cfg->port ? cfg->port : CONFIG_PORT, .forwarding = true };
	int r;

	closed.ifindex = if_nametoindex(names->interface);
	if (!closed.ifindex) /* no tunnel, nothing to filter */
		return 0;
	snprintf(closed.table, sizeof(closed.table), "%s", names->table);
	snprintf(closed.ifname, sizeof(closed.ifname), "%s", names->interface);
	r = claim_take(names->interface, &claim, error);
	if (r < 0) {
		log_err("%s", error);
		return r;
	}
	r = nft_open(-1, &n);
	if (r < 0)
		return log_err_errno(r, "cannot talk to nf_tables");
	return say(nft_hold(n, &closed), names->table, n);
}

int hold_filter(const struct config *cfg)
{
	struct journal_names now = journal_names_of(cfg);
	struct journal j;
	int r = 0;

	/* The settings may have other names by now than those in use, and those in use could perhaps not be noted. */
	(void)journal_load(cfg->runtimedir, &j); /* empty, then */
	journal_add(&j, &now);
	for (size_t i = 0; i < j.n; i++) {
		int e = hold(cfg, &j.names[i]);

		r = e < 0 ? e : r;
	}
	return r;
}
