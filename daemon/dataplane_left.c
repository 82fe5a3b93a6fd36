/* What of ours is in the kernel under the names of the journal, whoever made it, is taken away. */
#include "daemon/dataplane_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/log.h"

static struct journal_names names_now(const struct dataplane *d)
{
	struct journal_names now = { .rule_base = d->cfg->rule_base };

	snprintf(now.interface, sizeof(now.interface), "%s", d->cfg->interface);
	snprintf(now.table, sizeof(now.table), "%s", d->cfg->table);
	return now;
}

int dataplane_load_journal(struct dataplane *d)
{
	int r = journal_load(d->cfg->runtimedir, &d->journal);

	if (is_shortage(r))
		return r; /* it says that something of ours is there */
	if (r < 0 && r != -ENOENT)
		log_warning_errno(r, "cannot read which names are in use from %s", d->cfg->runtimedir);
	return 0;
}

static void save_journal(struct dataplane *d)
{
	int r = journal_save(d->cfg->runtimedir, &d->journal);

	if (r < 0 && !d->journal_unsaved)
		log_warning_errno(r, "cannot note in %s which names are in use: wgctl down will not find them after "
				     "a restart with others", d->cfg->runtimedir);
	d->journal_unsaved = r < 0;
}

bool dataplane_note_names(struct dataplane *d)
{
	struct journal_names now = names_now(d);
	bool added = journal_add(&d->journal, &now);

	if (added)
		save_journal(d);
	return added;
}

void dataplane_unnote_names(struct dataplane *d)
{
	struct journal_names now = names_now(d);

	for (size_t i = 0; i < d->journal.n; i++)
		if (journal_names_equal(&d->journal.names[i], &now)) {
			journal_drop(&d->journal, i);
			save_journal(d);
			return;
		}
}

bool dataplane_made(const struct dataplane *d)
{
	return d->journal.n > 0;
}

bool dataplane_is_left(const struct dataplane *d)
{
	if (d->journal_unsaved)
		return true;
	return d->up ? d->journal.n > 1 : d->going && d->journal.n > 0;
}

/* ---- one set of names; 0: nothing of ours is there any more ---- */

static int remove_device(const struct dataplane *d, const struct journal_names *was, char *error)
{
	bool given_up = strcmp(was->interface, d->cfg->interface) != 0;
	CLEANUP(wg_close) struct wg *w = NULL;
	int r = wg_open(&w);

	if (r < 0)
		return dataplane_fail(error, r, "cannot talk to the kernel: %s", strerror(-r));
	r = wg_device_find(w, was->interface);
	if (r == 0)
		r = wg_device_delete(w);
	if (r == 0)
		log_notice("interface %s removed", was->interface);
	else if (r != -ENODEV && (r != -EEXIST || !given_up)) /* another's by now */
		return dataplane_fail(error, r, "cannot remove interface %s, so its packet filter stays: %s",
				      was->interface, wg_error(w));
	return 0;
}

static int remove_table(struct dataplane *d, const struct journal_names *was, char *error)
{
	const char *why;
	int r = dataplane_open_nft(d);

	if (r == -EPROTONOSUPPORT) /* no nfnetlink, no tables */
		return 0;
	if (r < 0)
		return dataplane_fail(error, r, "cannot remove nftables table %s: %s", was->table, strerror(-r));
	r = nft_remove(d->nft, was->table);
	if (r == 0 || r == -EEXIST || nft_probe(d->nft) == 0) /* another's, or none can be there */
		return 0;
	why = nft_error(d->nft);
	return dataplane_fail(error, r, "cannot remove nftables table %s: %s", was->table, *why ? why : strerror(-r));
}

/* Those in use may be in the same range: they stay. */
static int remove_rules(struct dataplane *d, const struct journal_names *was, char *error)
{
	CLEANUP(link_close) struct link *l = NULL;
	struct link_rule rules[LINK_RULES_MAX];
	size_t n = d->up ? dataplane_rules(d, rules) : 0, k = 0;
	int r = link_open(was->interface, 0, &l);

	for (size_t i = 0; i < n; i++)
		if (rules[i].priority >= was->rule_base && rules[i].priority < was->rule_base + LINK_RULES_ROOM)
			rules[k++] = rules[i];
	if (r == 0)
		r = link_set_rules(l, was->rule_base, rules, k);
	if (r == 0 || r == -EOPNOTSUPP) /* a kernel without rules */
		return 0;
	return dataplane_fail(error, r, "cannot remove the routing rules from %u on: %s", was->rule_base, strerror(-r));
}

/* Another daemon may have the interface by now: then all of that is its own. */
static bool is_anothers(const struct dataplane *d, const struct journal_names *was)
{
	CLEANUP(fd_close) int claim = -1;
	char error[CLAIM_ERROR_MAX];

	return strcmp(was->interface, d->cfg->interface) != 0 && claim_take(was->interface, &claim, error) == -EBUSY;
}

/* The filter goes when the device has gone: nothing comes out of the tunnel unfiltered. What is in use now stays. */
static int clear_names(struct dataplane *d, const struct journal_names *was, char *error)
{
	bool keep_device = d->up && strcmp(was->interface, d->cfg->interface) == 0;
	bool keep_table = d->up && strcmp(was->table, d->cfg->table) == 0;
	char other[DATAPLANE_ERROR_MAX];
	int r = 0, e;

	if (is_anothers(d, was))
		return 0;
	if (!keep_device)
		r = remove_device(d, was, error);
	if (r == 0 && !keep_table)
		r = remove_table(d, was, error);
	e = remove_rules(d, was, r < 0 ? other : error);
	return r < 0 ? r : e;
}

static bool is_in_use(const struct dataplane *d, const struct journal_names *names)
{
	struct journal_names now = names_now(d);

	return d->up && journal_names_equal(names, &now);
}

int dataplane_clear(struct dataplane *d, char error[static DATAPLANE_ERROR_MAX])
{
	size_t before = d->journal.n, i = 0;
	int r = 0, e;

	while (i < d->journal.n && (d->up || d->going)) {
		e = is_in_use(d, &d->journal.names[i]) ? 1 : clear_names(d, &d->journal.names[i], error);
		if (e == 0)
			journal_drop(&d->journal, i);
		else
			i++;
		r = e < 0 ? e : r;
	}
	if (d->journal.n != before || d->journal_unsaved)
		save_journal(d);
	return r;
}

/* The devices of other names have our port, and our addresses. What cannot be had is said while they still stand. */
int dataplane_clear_devices(struct dataplane *d, char *error)
{
	int r = 0;

	for (size_t i = 0; i < d->journal.n; i++) {
		const struct journal_names *was = &d->journal.names[i];

		if (strcmp(was->interface, d->cfg->interface) == 0 || is_anothers(d, was))
			continue;
		r = d->nft ? nft_may_have(d->nft, d->cfg->table) : 0;
		if (r < 0)
			return dataplane_fail(error, r, "nftables table %s: %s", d->cfg->table, nft_error(d->nft));
		r = remove_device(d, was, error);
		if (r < 0)
			return r;
	}
	return 0;
}

bool dataplane_stands_before(struct dataplane *d)
{
	for (size_t i = 0; i < d->journal.n; i++)
		if (strcmp(d->journal.names[i].interface, d->cfg->interface) == 0 &&
		    strcmp(d->journal.names[i].table, d->cfg->table) != 0 &&
		    nft_stands(d->nft, d->journal.names[i].table) > 0)
			return true;
	return false;
}

int dataplane_down(struct dataplane *d, char error[static DATAPLANE_ERROR_MAX])
{
	d->going = true;
	if (d->up && wg_device_delete(d->wg) == 0) /* ours whatever it is called now */
		log_notice("interface %s removed", d->cfg->interface);
	dataplane_let_go(d);
	d->filter = NFT_FILTER_REPLIES_ONLY;
	return dataplane_clear(d, error);
}
