/* Addresses, routes, rules and events on a real kernel; a second run sends nothing. */
#include "tests/kernel/check.h"

#include "daemon/kernel/link.h"
#include "daemon/kernel/wg.h"
#include "lib/loop.h"

static struct loop *loop;
static unsigned int seen;

static void got_events(void *data, unsigned int events)
{
	(void)data;
	seen |= events;
}

/* Events that come within a second. */
static unsigned int wait_events(void)
{
	double end = now_msec() + 1000;

	seen = 0;
	while (!seen && now_msec() < end)
		CHECK_OK(loop_iterate(loop, 100 * USEC_PER_MSEC));
	return seen;
}

static void test_rules(struct link *l)
{
	struct link_rules_config c = { LINK_RULE_BASE, LINK_TABLE, LINK_MARK, LINK_MARK_MASK, true, true, true };
	struct link_rule rules[LINK_RULES_MAX];
	size_t n = link_rules_wanted(&c, rules);
	uint64_t sent;

	/* Rules of somebody else, one equal to ours: theirs stay. */
	CHECK(sh("ip rule add pref 5270 table 52; ip rule add pref 5271 table 99") == 0);
	CHECK_OK(link_set_rules(l, c.base, rules, n));
	CHECK(sh("ip rule; ip -6 rule") == 0);
	CHECK(sh("test $(ip rule | grep -c '^52') = 7 && test $(ip -6 rule | grep -c '^52') = 5") == 0);
	CHECK(sh("ip rule | grep -q '5260:.*lookup main suppress_prefixlength 0'") == 0);
	CHECK(sh("ip rule | grep -q '5250:.*fwmark 0x80000/0xff0000 unreachable'") == 0);
	sent = link_changes_sent(l);
	CHECK_OK(link_set_rules(l, c.base, rules, n));
	CHECK_EQ(link_changes_sent(l), sent);
	/* One is deleted by another program; it comes back alone. */
	CHECK(sh("ip rule del pref 5210") == 0);
	CHECK(wait_events() & LINK_EVENT_RULE);
	CHECK_OK(link_set_rules(l, c.base, rules, n));
	CHECK_EQ(link_changes_sent(l), sent + 1);
	CHECK_EQ(wait_events() & LINK_EVENT_RULE, 0); /* our own doing is no event */
	c.lan_first = false;
	n = link_rules_wanted(&c, rules);
	CHECK_OK(link_set_rules(l, c.base, rules, n));
	CHECK(sh("! ip rule | grep -q '^5260'") == 0);
	CHECK_OK(link_set_rules(l, c.base, NULL, 0));
	CHECK(sh("test $(ip rule | grep -c '^52') = 2 && ! ip -6 rule | grep -q '^52'") == 0);
	CHECK(sh("ip rule del pref 5270; ip rule del pref 5271") == 0);
	c.lan_first = true;
	n = link_rules_wanted(&c, rules);
	CHECK_OK(link_set_rules(l, c.base, rules, n));
	wait_events();
	step("rules");
}

static void test_addresses(struct link *l)
{
	struct addr six = { 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 1 } };
	struct addr a[] = { addr_v4(100, 64, 0, 1), six }, b[] = { six, addr_v4(100, 64, 0, 9) };
	uint64_t sent;

	CHECK_OK(link_set_addresses(l, a, 2));
	CHECK(sh("ip addr show ks0 | grep -q 'inet 100.64.0.1/32' && "
		 "ip addr show ks0 | grep -q 'inet6 fd7a:115c:a1e0::1/128'") == 0);
	sent = link_changes_sent(l);
	CHECK_OK(link_set_addresses(l, a, 2));
	CHECK_OK(link_up(l, LINK_MTU));
	CHECK_EQ(link_changes_sent(l), sent);
	CHECK_OK(link_set_addresses(l, b, 2));
	CHECK_EQ(link_changes_sent(l), sent + 2);
	CHECK(sh("! ip addr show ks0 | grep -q '100.64.0.1/32'") == 0);
	CHECK(sh("ip addr add 100.64.7.7/32 dev ks0") == 0); /* of an earlier run, say: swept */
	CHECK_OK(link_set_addresses(l, a, 2));
	CHECK(sh("test $(ip -4 addr show ks0 | grep -c inet) = 1") == 0);
	wait_events();
	CHECK(sh("ip addr del 100.64.0.1/32 dev ks0") == 0);
	CHECK(wait_events() & LINK_EVENT_OURS);
	CHECK_OK(link_set_addresses(l, a, 2));
	step("addresses");
}

static void test_routes(struct link *l, size_t n)
{
	struct link_route *r = calloc(n + 3, sizeof(*r));
	uint64_t sent;
	double t;

	for (size_t i = 0; i < n; i++) {
		struct addr a = addr_v4(100, 100, (uint8_t)(i >> 8), (uint8_t)i);

		if (i % 2) {
			struct addr six = { 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 2 } };

			memcpy(six.b + 8, a.b, 4);
			a = six;
		}
		r[i].dst = prefix_of(&a);
	}
	r[n].dst = (struct prefix){ addr_v4(10, 9, 8, 7), 16 }; /* host bits */
	r[n + 1].dst = (struct prefix){ { .family = 4 }, 0 };	/* default */
	r[n + 2] = (struct link_route){ { addr_v4(192, 168, 9, 0), 24 }, true };
	CHECK(sh("ip route add 100.99.0.1/32 dev ks0 table 52") == 0); /* of somebody else */
	t = now_msec();
	CHECK_OK(link_set_routes(l, LINK_TABLE, r, n + 3));
	step("%zu routes in %.0f ms", n, now_msec() - t);
	CHECK(sh("ip route show table 52 | grep -q '^throw 192.168.9.0/24' && "
		 "ip route show table 52 | grep -q '^10.9.0.0/16 dev ks0' && "
		 "ip route show table 52 | grep -q '^default dev ks0'") == 0);
	CHECK(sh("test $(ip route show table 52 | wc -l) = %zu", (n + 1) / 2 + 4) == 0);
	CHECK(sh("test $(ip -6 route show table 52 | wc -l) = %zu", n / 2) == 0);
	sent = link_changes_sent(l);
	CHECK_OK(link_set_routes(l, LINK_TABLE, r, n + 3));
	CHECK_EQ(link_changes_sent(l), sent);
	r[n].throw = true; /* the route becomes a throw route: both stand for a moment */
	CHECK_OK(link_set_routes(l, LINK_TABLE, r, n + 3));
	CHECK_EQ(link_changes_sent(l), sent + 2);
	CHECK(sh("ip route show table 52 | grep -q '^throw 10.9.0.0/16'") == 0);
	wait_events();
	CHECK(sh("ip route del default table 52") == 0);
	CHECK(wait_events() & LINK_EVENT_ROUTE);
	CHECK_OK(link_set_routes(l, LINK_TABLE, NULL, 0));
	CHECK(sh("test $(ip route show table 52 | wc -l) = 1") == 0);
	CHECK(sh("ip route del 100.99.0.1/32 table 52") == 0);
	free(r);
	step("routes");
}

static void test_host(struct link *l)
{
	struct link_route dflt = { { { .family = 4 }, 0 }, false };
	struct addr far = addr_v4(203, 0, 113, 5), near = addr_v4(192, 168, 1, 9);
	struct link_local_addr *a;
	struct link_path path;
	bool v4 = true, v6 = true;
	uint64_t sent;
	size_t n;

	CHECK(sh("ip link add eth0 type veth peer name other && ip link set eth0 up && ip link set other up &&"
		 "ip addr add 192.168.1.2/24 dev eth0 && ip addr add 2001:db8::2/64 dev eth0 nodad &&"
		 "ip link add zt7 type dummy && ip link set zt7 up && ip addr add 10.1.1.1/24 dev zt7 &&"
		 "ip route add default via 192.168.1.1") == 0);
	CHECK(wait_events() & LINK_EVENT_ADDRESS);
	CHECK_OK(link_local_addresses(l, &a, &n));
	CHECK_EQ(n, 2); /* not lo, not ours, not zt7, not link-local */
	CHECK(strcmp(a[0].ifname, "eth0") == 0 && strcmp(a[1].ifname, "eth0") == 0);
	CHECK(a[0].addr.family != a[1].addr.family);
	free(a);
	/* With an exit node's default route ours leave by the tunnel, the marked ones do not. */
	CHECK_OK(link_set_routes(l, LINK_TABLE, &dflt, 1));
	CHECK_OK(link_lookup(l, &far, 0, &path));
	CHECK_EQ(path.ifindex, if_nametoindex("ks0"));
	CHECK_OK(link_lookup(l, &far, LINK_MARK, &path));
	CHECK_EQ(path.ifindex, if_nametoindex("eth0"));
	CHECK(path.source.b[3] == 2 && path.gateway.b[3] == 1);
	/* The local network wins (rule 5260). */
	CHECK_OK(link_lookup(l, &near, 0, &path));
	CHECK_EQ(path.ifindex, if_nametoindex("eth0"));
	CHECK(path.gateway.family == 0);
	CHECK(sh("ip route del default via 192.168.1.1") == 0);
	CHECK(link_lookup(l, &far, LINK_MARK, &path) < 0);
	step("local addresses and ways out");

	CHECK(sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=1 "
		 "net.ipv4.conf.zt7.rp_filter=2") == 0);
	CHECK_OK(link_fix_rp_filter(l));
	CHECK(sh("test $(cat /proc/sys/net/ipv4/conf/eth0/src_valid_mark) = 1 && "
		 "test $(cat /proc/sys/net/ipv4/conf/zt7/src_valid_mark) = 0 && "
		 "test $(cat /proc/sys/net/ipv4/conf/all/src_valid_mark) = 0") == 0);
	sent = link_changes_sent(l);
	CHECK_OK(link_fix_rp_filter(l));
	CHECK_EQ(link_changes_sent(l), sent);
	CHECK_OK(link_forwarding(l, &v4, &v6));
	CHECK(!v4 && !v6);
	CHECK(sh("sysctl -qw net.ipv4.ip_forward=1") == 0);
	CHECK(wait_events() & LINK_EVENT_FORWARDING);
	CHECK_OK(link_forwarding(l, &v4, &v6));
	CHECK(v4 && !v6);
	step("sysctls");
	CHECK(sh("ip link set ks0 down") == 0);
	CHECK(wait_events() & LINK_EVENT_OURS);
	step("events");
}

static void test_no_ipv6(struct link *l)
{
	struct addr six = { 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 1 } };
	struct addr a[] = { six, addr_v4(100, 64, 0, 3) };

	CHECK(sh("sysctl -qw net.ipv6.conf.ks0.disable_ipv6=1") == 0);
	CHECK(link_set_addresses(l, a, 2) < 0);
	CHECK(sh("ip addr show ks0 | grep -q 'inet 100.64.0.3/32'") == 0); /* the rest was done */
	step("IPv6 switched off does not stop IPv4");
}

int main(void)
{
	struct link *l;
	struct wg *w;
	bool adopted;

	enter_new_netns();
	CHECK_OK(wg_open(&w));
	CHECK_OK(wg_device_create(w, "ks0", NULL, &adopted));
	CHECK_OK(link_open("ks0", wg_ifindex(w), &l));
	CHECK_OK(link_up(l, LINK_MTU));
	CHECK(sh("ip link show ks0 | grep -q 'UP.* mtu 1280'") == 0);
	CHECK_OK(loop_new(&loop));
	CHECK_OK(link_watch(l, loop, got_events, NULL));
	test_rules(l);
	test_addresses(l);
	test_routes(l, 2000);
	test_host(l);
	test_no_ipv6(l);
	link_close(l);
	wg_close(w);
	loop_free(loop);
	return 0;
}
