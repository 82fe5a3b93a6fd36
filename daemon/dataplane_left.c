/* What of ours is in the kernel under the names of the journal, whoever made it, is taken away. */
#include "daemon/dataplane_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/log.h"

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
	struct journal_names now = journal_names_of(d->cfg);
	bool added = journal_add(&d->journal, &now);

	if (added || d->journal_unsaved)
		save_journal(d);
	return added;
}

void dataplane_unnote_names(struct dataplane *d)
{
	struct journal_names now = journal_names_of(d->cfg);

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

static bool has_our_interface(const struct dataplane *d, const struct journal_names *names)
{
	return strcmp(names->interface, d->cfg->interface) == 0;
}

bool dataplane_has_other_names(const struct dataplane *d)
{
	struct journal_names now = journal_names_of(d->cfg);

	for (size_t i = 0; i < d->journal.n; i++)
		if (has_our_interface(d, &d->journal.names[i]) && !journal_names_equal(&d->journal.names[i], &now))
			return true;
	return false;
}

/* ---- one set of names; 0: nothing of ours is there any more ---- */

static int remove_device(const struct dataplane *d, const struct journal_names *was, char *error)
{
	CLEANUP(wg_close) struct wg *w = NULL;
	int r = wg_open(&w);

	if (r < 0)
		return dataplane_fail(error, r, "cannot talk to the kernel: %s", strerror(-r));
	r = wg_device_find(w, was->interface);
	if (r == 0)
		r = wg_device_delete(w);
	if (r == 0)
		log_notice("interface %s removed", was->interface);
	else if (r != -ENODEV && (r != -EEXIST || has_our_interface(d, was))) /* of a name given up: another's by now */
		return dataplane_fail(error, r, "cannot remove interface %s, so its packet filter stays: %s",
				      was->interface, wg_error(w));
	return 0;
}

static int remove_table(struct dataplane *d, const struct journal_names *was, char *error)
{
	int r = dataplane_open_nft(d);
	char why[DATAPLANE_ERROR_MAX / 2];

	if (r == -EPROTONOSUPPORT) /* no nfnetlink, no tables */
		return 0;
	if (r < 0)
		return dataplane_fail(error, r, "cannot remove nftables table %s: %s", was->table, strerror(-r));
	r = nft_remove(d->nft, was->table);
	if (r == 0 || r == -EEXIST) /* another's */
		return 0;
	if (r == -EPERM && strcmp(was->table, d->cfg->table) != 0) /* of a name given up, which another daemon has by now */
		return 0;
	snprintf(why, sizeof(why), "%s", nft_error(d->nft)[0] ? nft_error(d->nft) : strerror(-r));
	if ((r == -EINVAL || r == -ENOENT || r == -EOPNOTSUPP) && nft_probe(d->nft) == 0) /* none can be there */
		return 0;
	return dataplane_fail(error, r, "cannot remove nftables table %s: %s", was->table, why);
}

/* Those in use may be in the same range: they stay. */
static int remove_rules(struct dataplane *d, const struct journal_names *was, char *error)
{
	CLEANUP(link_close) struct link *l = NULL;
	struct link_rule keep[LINK_RULES_MAX];
	int r = link_open(was->interface, 0, &l);

	if (r == 0)
		r = link_remove_rules(l, was->rule_base, keep, d->up ? dataplane_rules(d, keep) : 0);
	if (r == 0 || r == -EOPNOTSUPP) /* a kernel without rules */
		return 0;
	return dataplane_fail(error, r, "cannot remove the routing rules from %u on: %s", was->rule_base, strerror(-r));
}

static bool is_in_use(const struct dataplane *d, const struct journal_names *names)
{
	struct journal_names now = journal_names_of(d->cfg);

	return d->up && journal_names_equal(names, &now);
}

/* The device of a set of names. DONE: there is none any more, or it has other names besides. */
enum cleared { FAILED, IN_USE, ANOTHERS, DONE };

/* Another daemon may have the interface by now: then all of that is left to it. Nobody else takes it meanwhile. */
static enum cleared clear_other_device(struct dataplane *d, const struct journal_names *was, int *ret_claim, char *error)
{
	char why[CLAIM_ERROR_MAX];
	int r = claim_take(was->interface, ret_claim, why);

	if (r == -EBUSY)
		return ANOTHERS;
	if (r < 0) {
		dataplane_fail(error, r, "cannot remove interface %s: %s", was->interface, why);
		return FAILED;
	}
	return remove_device(d, was, error) == 0 ? DONE : FAILED;
}

/* how, claims: of the names before; the first that has an interface decides, and has its claim. */
static enum cleared clear_device(struct dataplane *d, size_t i, const enum cleared *how, int *claims, char *error)
{
	const struct journal_names *was = &d->journal.names[i];

	if (is_in_use(d, was))
		return IN_USE;
	if (has_our_interface(d, was))
		return d->up || d->gone || remove_device(d, was, error) == 0 ? DONE : FAILED;
	for (size_t k = 0; k < i; k++)
		if (strcmp(d->journal.names[k].interface, was->interface) == 0)
			return how[k];
	return clear_other_device(d, was, &claims[i], error);
}

/* A device that stands may be filtered by it: ours, one that could not be removed, another daemon's. */
static bool is_needed(const struct dataplane *d, const char *table, const enum cleared *how)
{
	if (d->up && strcmp(table, d->cfg->table) == 0)
		return true;
	for (size_t i = 0; i < d->journal.n; i++)
		if ((how[i] == FAILED || how[i] == ANOTHERS) && strcmp(d->journal.names[i].table, table) == 0)
			return true;
	return false;
}

/* All devices, and then the tables: nothing comes out of a tunnel unfiltered. What is in use now stays. */
static int clear_all(struct dataplane *d, char *error)
{
	enum cleared how[JOURNAL_MAX] = { FAILED };
	const size_t n = d->journal.n;
	int claims[JOURNAL_MAX], r = 0;
	struct journal left = { 0 };

	for (size_t i = 0; i < n; i++) {
		claims[i] = -1;
		how[i] = clear_device(d, i, how, claims, error);
	}
	for (size_t i = 0; i < n; i++) {
		const struct journal_names *was = &d->journal.names[i];
		bool failed = how[i] == FAILED;

		if (how[i] == FAILED || how[i] == DONE)
			failed |= remove_rules(d, was, error) < 0;
		if (how[i] == DONE && !is_needed(d, was->table, how))
			failed |= remove_table(d, was, error) < 0;
		if (failed || how[i] == IN_USE)
			journal_add(&left, was);
		if (failed)
			r = -EIO;
	}
	for (size_t i = 0; i < n; i++)
		fd_close(claims[i]);
	if (left.n != n) {
		d->journal = left;
		save_journal(d);
	}
	return r;
}

int dataplane_clear(struct dataplane *d, char error[static DATAPLANE_ERROR_MAX])
{
	if (d->journal_unsaved)
		save_journal(d);
	return d->up || d->going ? clear_all(d, error) : 0;
}

/* Whether that device has the port: one that cannot be read may. */
static bool may_have_port(const struct journal_names *was, uint16_t port)
{
	CLEANUP(wg_device_done) struct wg_device now = { 0 };
	CLEANUP(wg_close) struct wg *w = NULL;
	int r = wg_open(&w);

	if (r == 0)
		r = wg_device_find(w, was->interface);
	if (r == 0)
		r = wg_get_device(w, &now);
	return r == 0 ? now.port == port : r != -ENODEV;
}

/* That nobody has the port but who is to go. */
static bool can_have_port(const struct dataplane *d, const struct wg_device *now)
{
	if (!d->cfg->port || now->port == d->cfg->port || !udp_port_is_taken(d->cfg->port))
		return true;
	for (size_t i = 0; i < d->journal.n; i++)
		if (!has_our_interface(d, &d->journal.names[i]) && may_have_port(&d->journal.names[i], d->cfg->port))
			return true;
	return false;
}

/* The devices of other names have our port, and our addresses. What cannot be had is said while they still stand. */
int dataplane_clear_devices(struct dataplane *d, const struct wg_device *now, char *error)
{
	for (size_t i = 0; i < d->journal.n; i++) {
		const struct journal_names *was = &d->journal.names[i];
		CLEANUP(fd_close) int claim = -1;
		int r;

		if (has_our_interface(d, was))
			continue;
		r = d->nft ? nft_may_have(d->nft, d->cfg->table) : 0;
		if (r < 0)
			return dataplane_fail(error, r, "nftables table %s: %s", d->cfg->table,
					      nft_error(d->nft)[0] ? nft_error(d->nft) : strerror(-r));
		if (!can_have_port(d, now))
			return dataplane_port_taken(d->cfg->port, error);
		if (clear_other_device(d, was, &claim, error) == FAILED)
			return -EIO;
	}
	return 0;
}

int dataplane_stands_before(struct dataplane *d)
{
	int r = 0;

	for (size_t i = 0; i < d->journal.n && r == 0; i++)
		if (has_our_interface(d, &d->journal.names[i]) && strcmp(d->journal.names[i].table, d->cfg->table) != 0)
			r = nft_stands(d->nft, d->journal.names[i].table);
	return r;
}

void dataplane_keep(struct dataplane *d)
{
	d->going = false;
}

int dataplane_down(struct dataplane *d, char error[static DATAPLANE_ERROR_MAX])
{
	unsigned int ifindex = d->up ? wg_ifindex(d->wg) : 0;
	int r;

	d->going = true;
	if (d->up) { /* ours whatever it is called now */
		r = wg_device_delete(d->wg);
		if (r == 0)
			log_notice("interface %s removed", d->cfg->interface);
		d->gone = r == 0 || r == -ENODEV;
	}
	dataplane_let_go(d);
	d->filter = NFT_FILTER_REPLIES_ONLY;
	r = dataplane_clear(d, error);
	if (r < 0 && !d->gone && ifindex)
		d->left = ifindex;
	return r;
}
