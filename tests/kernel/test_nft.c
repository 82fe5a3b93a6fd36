/* Our table in a real kernel: as its text says, idempotent, owned, restored, refused when not ours. */
#include "tests/kernel/check.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#include "lib/loop.h"
#include "nft/batch.h"
#include "nft/reconcile.h"
#include "nft/writer.h"

static struct loop *loop;
static unsigned int changes_seen;

static void got_change(void *data)
{
	(void)data;
	changes_seen++;
}

static unsigned int wait_change(void)
{
	double end = now_msec() + 800;

	changes_seen = 0;
	while (!changes_seen && now_msec() < end)
		CHECK_OK(loop_iterate(loop, 100 * USEC_PER_MSEC));
	return changes_seen;
}

static struct addr own[2];

static struct nft_config config_of(unsigned int bits)
{
	struct nft_config c = { .table = "kernscale",
				.ifname = "ks0",
				.ifindex = if_nametoindex("ks0"),
				.port = 41641,
				.private_port = 39999,
				.mark = 0x80000,
				.mark_mask = 0xff0000,
				.own = own,
				.n_own = 2 };

	own[0] = addr_v4(100, 64, 0, 1);
	own[1] = (struct addr){ 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 1 } };
	c.share_port = bits & 1;
	c.rewrite_source = bits & 2;
	c.filter = bits & 4 ? NFT_FILTER_ALLOW_ALL : NFT_FILTER_REPLIES_ONLY;
	c.forwarding = bits & 8;
	c.gateway = bits & 16;
	c.masquerade = bits & 32;
	c.clamp_mss = bits & 64;
	c.mark_inbound = bits & 128;
	c.relay_port = bits & 256 ? 41642 : 0;
	c.own_only = bits & 512;
	return c;
}

static struct addr *make_peers(size_t n)
{
	struct addr *v = calloc(2 * n, sizeof(*v));

	for (size_t i = 0; i < n; i++) {
		v[i] = addr_v4(100, (uint8_t)(64 + (i >> 16)), (uint8_t)(i >> 8), (uint8_t)i);
		v[n + i] = (struct addr){ 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0 } };
		memcpy(v[n + i].b + 12, v[i].b, 4);
	}
	return v;
}

/* What nft prints of our table has to be what it prints of our text, loaded by itself. */
static void check_text(const struct nft_config *c)
{
	CLEANUP(buf_done) struct buf text = { 0 };
	struct nft_config copy = *c;
	struct nft_ruleset rs;
	FILE *f;

	memcpy(copy.table, "golden", 7);
	CHECK_OK(nft_ruleset_make(&copy, &rs));
	nft_ruleset_text(&rs, true, &text);
	f = fopen("/run/golden.nft", "we");
	CHECK(f && fwrite(buf_data(&text), 1, text.len, f) == text.len && fclose(f) == 0);
	CHECK(sh("nft -f /run/golden.nft || { cat /run/golden.nft; false; }\n"
		 "nft -s list table inet golden | sed 's/table inet golden/table inet kernscale/; /^$/d' >/run/a &&"
		 "nft -s list table inet kernscale | sed -E 's, # progname.*,,; /^.*flags (owner|persist).*/d; /^$/d' >/run/b; "
		 "nft delete table inet golden; diff /run/a /run/b") == 0);
}

static void test_all_layouts(struct nft *n)
{
	struct addr *peers = make_peers(3);

	for (unsigned int bits = 0; bits < 1024; bits += bits < 4 ? 1 : bits < 16 ? 4 : 67) {
		struct nft_config c = config_of(bits);
		uint64_t sent;

		c.peers = peers;
		c.n_peers = bits % 3 ? 6 : 0;
		if (nft_apply(n, &c) < 0) {
			printf("FAIL: layout %u: %s\n", bits, nft_error(n));
			exit(1);
		}
		check_text(&c);
		sent = nft_changes_sent(n);
		CHECK_EQ(nft_apply(n, &c), 0);
		CHECK_EQ(nft_changes_sent(n), sent);
	}
	free(peers);
	step("layouts: as the text says, and a second time nothing is sent");
}

static void test_elements(struct nft *n)
{
	struct nft_config c = config_of(1);
	struct addr *peers = make_peers(10000);
	double t = now_msec();

	c.peers = peers;
	c.n_peers = 20000;
	CHECK_EQ(nft_apply(n, &c), 1);
	step("10,000 peers loaded in %.0f ms", now_msec() - t);
	t = now_msec();
	CHECK_EQ(nft_apply(n, &c), 0);
	step("read and compared in %.0f ms", now_msec() - t);
	CHECK(sh("nft get element inet kernscale peers4 '{ 100.64.39.15 }' >/dev/null") == 0);
	/* The first goes, another comes: two members are sent, not the table. */
	CHECK(sh("nft -a list chain inet kernscale forward >/run/before") == 0);
	peers[0] = addr_v4(100, 63, 255, 255);
	t = now_msec();
	CHECK_EQ(nft_apply(n, &c), 1);
	step("one exchanged in %.0f ms", now_msec() - t);
	CHECK(sh("nft -a list chain inet kernscale forward | cmp - /run/before") == 0);
	CHECK(sh("! nft get element inet kernscale peers4 '{ 100.64.0.0 }' >/dev/null 2>&1 && "
		 "nft get element inet kernscale peers4 '{ 100.63.255.255 }' >/dev/null") == 0);
	c.n_peers = 0; /* without members there is no set and no rule */
	CHECK_EQ(nft_apply(n, &c), 1);
	CHECK(sh("! nft list table inet kernscale | grep -q peers") == 0);
	free(peers);
}

static void test_foreign(struct nft **n)
{
	struct nft_config c = config_of(1 | 8), d = config_of(4);
	bool persist = nft_probe(*n) & NFT_HAS_PERSIST;
	struct nft *other;

	CHECK_OK(nft_apply(*n, &c));
	CHECK_OK(nft_watch(*n, loop, got_change, NULL));
	wait_change();
	CHECK_EQ(nft_apply(*n, &d), 1);
	CHECK_EQ(nft_apply(*n, &c), 1);
	CHECK_EQ(wait_change(), 0); /* our own doing is no event */
	if (persist) {
		CHECK(sh("nft flush ruleset; nft list table inet kernscale | grep -q tproxy") == 0);
		CHECK(sh("! nft delete table inet kernscale 2>/dev/null") == 0);
		step("owned: flush ruleset does nothing to it");
	} else {
		CHECK(sh("nft flush ruleset") == 0);
		CHECK(wait_change() > 0);
		CHECK_EQ(nft_apply(*n, &c), 1);
		CHECK(sh("nft list table inet kernscale | grep -q tproxy") == 0);
		step("not owned: flushed, noticed and restored");
	}
	/* A second daemon cannot take it while the first lives. */
	CHECK_OK(nft_open(-1, &other));
	if (persist) {
		CHECK_EQ(nft_apply(other, &d), -EPERM);
		CHECK_EQ(nft_may_have(other, "kernscale"), -EPERM);
	}
	/* A dead one's table is found as it was, and adopted. */
	nft_close(*n);
	CHECK(sh("nft list table inet kernscale | grep -q tproxy") == 0);
	CHECK(sh("nft add rule inet kernscale forward counter") == 0); /* an orphan anyone can change */
	CHECK_EQ(nft_apply(other, &c), 1);
	CHECK(sh("! nft list table inet kernscale | grep -q counter") == 0);
	CHECK_EQ(nft_apply(other, &c), 0);
	CHECK_OK(nft_remove(other, "kernscale"));
	CHECK_OK(nft_remove(other, "kernscale"));
	CHECK(sh("nft add table inet kernscale") == 0);
	CHECK_EQ(nft_apply(other, &c), -EEXIST);
	CHECK_EQ(nft_may_have(other, "kernscale"), -EEXIST);
	CHECK(strstr(nft_error(other), "not ours"));
	CHECK_EQ(nft_remove(other, "kernscale"), -EEXIST);
	CHECK(sh("nft delete table inet kernscale") == 0);
	*n = other;
	step("adopted from a dead owner; what is not ours is refused");
}

/* The socket lives on in somebody's hands, as in a descriptor store. */
static void test_kept(struct nft **n)
{
	struct nft_config c = config_of(1 | 8);
	bool persist = nft_probe(*n) & NFT_HAS_PERSIST;
	int kept = dup(nft_fd(*n)), other = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE),
	    unbound = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	struct nft *wrong;
	uint64_t sent;

	nft_set_kept(*n, true);
	CHECK_EQ(nft_goes_with_owner(*n), !persist);
	CHECK_EQ(nft_apply(*n, &c), 1);
	CHECK(sh("nft flush ruleset; nft list table inet kernscale | grep -q tproxy") == 0);
	CHECK(sh("nft -a list chain inet kernscale forward >/run/before") == 0);
	nft_close(*n);
	CHECK(sh("nft flush ruleset; ! nft delete table inet kernscale 2>/dev/null") == 0);
	CHECK_EQ(nft_open(other, &wrong), -EBADMSG);
	CHECK_EQ(nft_open(unbound, &wrong), -EBADMSG);
	CHECK_EQ(nft_open(STDOUT_FILENO, &wrong), -EBADMSG);
	close(other);
	close(unbound);
	CHECK_OK(nft_open(kept, n));
	nft_set_kept(*n, true);
	sent = nft_changes_sent(*n);
	CHECK_EQ(nft_apply(*n, &c), 0);
	CHECK_EQ(nft_changes_sent(*n), sent + 1); /* the question whether there is PERSIST */
	CHECK(sh("nft -a list chain inet kernscale forward | cmp - /run/before") == 0);
	step("kept: out of reach while nobody runs, and the same afterwards");
	/* Handed over, then taken back: without an owner in between, or as an orphan. */
	nft_set_kept(*n, false);
	CHECK_EQ(nft_apply(*n, &c), !persist);
	nft_close(*n);
	CHECK_OK(sh("nft -a list chain inet kernscale forward >/run/before"));
	CHECK_OK(nft_open(-1, n));
	nft_set_kept(*n, true);
	CHECK_EQ(nft_stands(*n, "kernscale"), 1);
	CHECK_OK(nft_may_have(*n, "kernscale"));
	CHECK_EQ(nft_apply(*n, &c), 1);
	if (persist) /* an orphan is taken as it is */
		CHECK(sh("nft -a list chain inet kernscale forward | cmp -s - /run/before") == 0);
	CHECK(sh("! nft delete table inet kernscale 2>/dev/null") == 0);
	nft_set_kept(*n, false);
	CHECK_OK(nft_remove(*n, "kernscale"));
	CHECK_EQ(nft_stands(*n, "kernscale"), 0);
	step("handed over and taken back");
	/* One that was emptied filters nothing. */
	CHECK_EQ(nft_apply(*n, &c), 1);
	nft_close(*n);
	CHECK_OK(sh("nft flush table inet kernscale"));
	CHECK_OK(nft_open(-1, n));
	CHECK_EQ(nft_stands(*n, "kernscale"), 0);
	CHECK_OK(nft_may_have(*n, "kernscale"));
	CHECK_OK(nft_remove(*n, "kernscale"));
	step("emptied: does not stand");
}

/* The table's and its copy's texts differ in the name and the owner alone. */
static int same_text(void)
{
	return sh("nft -s list table inet kernscale | sed -E 's, # progname.*,,; /^.*flags owner/d; /^$/d' >/run/a; "
		  "nft -s list table inet kernscale-held | sed 's/kernscale-held/kernscale/; /^$/d' >/run/b; "
		  "test -s /run/a && diff /run/a /run/b");
}

/* What no table of ours has, by the socket that owns it: a rule that counts. */
static void add_foreign_rule(struct nft *n)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	struct nft_writer w = { &b, 1, 0 };
	struct nlattr *list, *elem;
	struct nlmsghdr *nlh;
	char answer[512];

	CHECK_OK(nft_writer_marker(&w, NFNL_MSG_BATCH_BEGIN));
	nlh = nft_writer_begin(&w, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, "kernscale");
	mnl_attr_put_strz(nlh, NFTA_RULE_CHAIN, "forward");
	list = mnl_attr_nest_start(nlh, NFTA_RULE_EXPRESSIONS);
	elem = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM);
	mnl_attr_put_strz(nlh, NFTA_EXPR_NAME, "counter");
	mnl_attr_nest_end(nlh, mnl_attr_nest_start(nlh, NFTA_EXPR_DATA));
	mnl_attr_nest_end(nlh, elem);
	mnl_attr_nest_end(nlh, list);
	nft_writer_end(&w, nlh);
	CHECK_OK(nft_writer_marker(&w, NFNL_MSG_BATCH_END));
	CHECK(send(nft_fd(n), buf_data(&b), b.len, 0) == (ssize_t)b.len);
	CHECK(recv(nft_fd(n), answer, sizeof(answer), 0) > 0);
	CHECK(sh("nft list chain inet kernscale forward | grep -q counter") == 0);
}

static void test_held_layouts(struct nft *n, struct nft *other)
{
	struct addr *peers = make_peers(3);

	for (unsigned int bits = 0; bits < 1024; bits += bits < 4 ? 1 : bits < 16 ? 4 : 67) {
		struct nft_config c = config_of(bits);

		c.peers = peers;
		c.n_peers = bits % 3 ? 6 : 0;
		CHECK(nft_apply(n, &c) >= 0);
		CHECK_EQ(nft_hold(other, &c), NFT_HELD_COPY);
		CHECK(same_text() == 0);
		CHECK(sh("nft -a list table inet kernscale >/run/before") == 0);
		CHECK_EQ(nft_hold(other, &c), NFT_HELD_COPY); /* a second death: once more */
		CHECK(same_text() == 0);
		CHECK_EQ(nft_apply(n, &c), 1); /* the socket was kept: the copy goes, the table stays */
		CHECK(sh("nft -a list table inet kernscale | cmp - /run/before") == 0);
		CHECK(sh("! nft list table inet kernscale-held 2>/dev/null") == 0);
		CHECK_EQ(nft_apply(n, &c), 0);
	}
	free(peers);
	step("held: each layout as it is, and gone when the table is looked after again");
}

/* Where a table goes with its owner: a copy stays. */
static void test_held(struct nft **n)
{
	struct nft_config c = config_of(1 | 4 | 8);
	struct addr *peers = make_peers(10000);
	struct nft *other;
	double t;

	CHECK_OK(nft_open(-1, &other));
	nft_set_kept(*n, true);
	CHECK_EQ(nft_apply(*n, &c), 1);
	if (nft_probe(*n) & NFT_HAS_PERSIST) {
		CHECK_EQ(nft_hold(other, &c), NFT_HELD_NOTHING);
		CHECK(sh("! nft list table inet kernscale-held 2>/dev/null") == 0);
		nft_close(other);
		step("nothing to hold: the table outlives its owner");
		return;
	}
	test_held_layouts(*n, other);
	c.peers = peers;
	c.n_peers = 20000;
	CHECK_EQ(nft_apply(*n, &c), 1);
	t = now_msec();
	CHECK_EQ(nft_hold(other, &c), NFT_HELD_COPY);
	step("10,000 peers: held in %.0f ms", now_msec() - t);
	nft_close(*n);
	CHECK(sh("! nft list table inet kernscale 2>/dev/null") == 0);
	CHECK(sh("nft get element inet kernscale-held peers4 '{ 100.64.39.15 }' >/dev/null") == 0);
	CHECK_EQ(nft_stands(other, "kernscale"), 1);
	CHECK_EQ(nft_hold(other, &c), NFT_HELD_NOTHING);
	CHECK(sh("nft list table inet kernscale-held >/dev/null") == 0); /* not taken away for that */
	CHECK_OK(sh("nft flush table inet kernscale-held"));
	CHECK_EQ(nft_stands(other, "kernscale"), 0);
	nft_set_kept(other, true);
	CHECK_EQ(nft_apply(other, &c), 1);
	CHECK(sh("! nft list table inet kernscale-held 2>/dev/null") == 0);
	step("held while there was no owner, and gone with the next table");

	CHECK_OK(nft_open(-1, n));
	CHECK_EQ(nft_hold(*n, &c), NFT_HELD_COPY);
	CHECK_OK(nft_remove(other, "kernscale"));
	CHECK(sh("! nft list tables | grep kernscale") == 0);
	CHECK(sh("nft add table inet kernscale-held") == 0);
	CHECK_EQ(nft_apply(other, &c), 1);
	CHECK_EQ(nft_hold(*n, &c), -EEXIST);
	CHECK_OK(nft_remove(other, "kernscale"));
	CHECK(sh("nft list table inet kernscale-held | wc -l | grep -qx 2 && nft delete table inet kernscale-held") == 0);
	step("removed with the table; another's of that name is let alone");

	CHECK_EQ(nft_apply(other, &c), 1);
	add_foreign_rule(other);
	CHECK_EQ(nft_hold(*n, &c), NFT_HELD_CLOSED);
	CHECK(sh("nft list chain inet kernscale-held input | tail -n 3 | grep -qx '[[:space:]]*drop'") == 0);
	CHECK_EQ(nft_hold(*n, &c), NFT_HELD_CLOSED);
	CHECK_OK(nft_remove(other, "kernscale"));
	CHECK(sh("! nft list tables | grep kernscale") == 0);
	step("what is not ours is not copied: closed");
	free(peers);
	nft_close(other);
}

int main(void)
{
	unsigned int has;
	struct nft *n;

	enter_new_netns();
	CHECK(sh("ip link add ks0 type dummy && ip link set ks0 up") == 0);
	CHECK_OK(loop_new(&loop));
	CHECK_OK(nft_open(-1, &n));
	has = nft_probe(n);
	step("probe: tables %d, tproxy %d, persist %d", !!(has & NFT_HAS_TABLES), !!(has & NFT_HAS_TPROXY),
	     !!(has & NFT_HAS_PERSIST));
	CHECK(has & NFT_HAS_TABLES && has & NFT_HAS_TPROXY);
	CHECK(sh("test -z \"$(nft list ruleset)\"") == 0);
	test_all_layouts(n);
	test_elements(n);
	test_foreign(&n);
	test_kept(&n);
	test_held(&n);
	CHECK_OK(nft_remove(n, "kernscale"));
	nft_close(n);
	CHECK(sh("test -z \"$(nft list ruleset)\"") == 0);
	loop_free(loop);
	return 0;
}
