/* Everything of the kernel's edge works as an ordinary user with the three capabilities, and what
 * others must not do they cannot. Without any, each says what is missing. */
#include "tests/kernel/check.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "daemon/kernel/link.h"
#include "daemon/kernel/privs.h"
#include "daemon/kernel/tsmp_socket.h"
#include "daemon/kernel/udp.h"
#include "daemon/kernel/wg.h"
#include "daemon/relay/shuttle.h"
#include "lib/loop.h"
#include "nft/reconcile.h"

#define PORT 41641

static unsigned int verdicts;

static void count(void *data)
{
	(void)data;
	verdicts++;
}

static void no_packet(void *data, const struct udp_packet *p)
{
	(void)data;
	(void)p;
}

static void no_relay(void *data, uint32_t index, const uint8_t *p, size_t len)
{
	(void)data;
	(void)index;
	(void)p;
	(void)len;
}

static void no_key(void *data, const struct addr *from, const struct key *k)
{
	(void)data;
	(void)from;
	(void)k;
}

static bool nobody(void *data, const struct addr *from)
{
	(void)data;
	(void)from;
	return false;
}

static const struct tsmp_socket_ops tsmp_ops = { .allowed = nobody, .disco_key = no_key };

static void test_all(void)
{
	struct link_rules_config rc = { LINK_RULE_BASE, LINK_TABLE, LINK_MARK, LINK_MARK_MASK, true, true, true };
	struct nft_config rules = { .table = NFT_TABLE, .ifname = "ks0", .port = PORT, .share_port = true,
				    .mark = LINK_MARK, .mark_mask = LINK_MARK_MASK };
	struct udp_opts o = { PORT, LINK_MARK, false, no_packet, NULL, 0 };
	struct endpoint peer = { addr_v4(10, 0, 0, 9), PORT };
	struct addr own = addr_v4(100, 64, 0, 1), eth = addr_v4(10, 0, 0, 1);
	struct link_route route = { { { .family = 4 }, 0 }, false };
	struct link_rule r[LINK_RULES_MAX];
	struct link_local_addr *locals;
	struct tsmp_socket *t;
	struct shuttle *s;
	struct key_pair key;
	struct wg_settings ws = { &key.priv, PORT, LINK_MARK };
	struct wg_device d;
	struct loop *loop;
	struct link *l;
	struct nft *n;
	struct udp *u;
	struct wg *w;
	bool adopted, v4, v6;
	size_t count_locals;

	key_pair_generate(&key);
	CHECK_OK(loop_new(&loop));
	CHECK_OK(wg_open(&w));
	CHECK_OK(wg_device_create(w, "ks0", &key.priv, &adopted));
	CHECK_OK(wg_get_device(w, &d));
	CHECK_OK(wg_set_device(w, &d, &ws));
	wg_device_done(&d);
	step("device");
	CHECK_OK(link_open("ks0", wg_ifindex(w), &l));
	CHECK_OK(link_up(l, LINK_MTU));
	CHECK_OK(link_set_addresses(l, &own, 1));
	CHECK_OK(link_set_routes(l, LINK_TABLE, &route, 1));
	CHECK_OK(link_set_rules(l, LINK_RULE_BASE, r, link_rules_wanted(&rc, r)));
	CHECK_OK(link_fix_rp_filter(l));
	CHECK_OK(link_forwarding(l, &v4, &v6));
	CHECK_OK(link_local_addresses(l, &locals, &count_locals));
	CHECK_EQ(count_locals, 1);
	free(locals);
	CHECK_OK(link_watch(l, loop, NULL, NULL));
	step("links, routes, rules, sysctls");
	CHECK_OK(udp_open(loop, &o, &u));
	CHECK(!udp_needs_rewrite(u));
	CHECK_OK(nft_open(-1, &n));
	CHECK(nft_probe(n) & NFT_HAS_TPROXY);
	rules.ifindex = wg_ifindex(w);
	rules.private_port = udp_private_port(u);
	CHECK_EQ(nft_apply(n, &rules), 1);
	CHECK_OK(udp_self_test(u, count, NULL));
	while (!verdicts)
		CHECK_OK(loop_iterate(loop, 10 * USEC_PER_MSEC));
	CHECK_EQ(udp_mode(u), UDP_MODE_TPROXY);
	CHECK_OK(udp_set_mode(u, UDP_MODE_RAW));
	CHECK_OK(udp_send(u, &peer, NULL, "x", 1));
	step("table, shared port both ways");
	CHECK_OK(shuttle_new(loop, PORT, 0, no_relay, NULL, &s));
	CHECK_OK(shuttle_deliver(s, 1, "x", 1));
	CHECK_OK(shuttle_inject(s, &peer, &eth, "x", 1));
	CHECK_OK(tsmp_socket_open(loop, "ks0", &tsmp_ops, NULL, &t));
	step("shuttle, TSMP");
	tsmp_socket_close(t);
	shuttle_free(s);
	udp_close(u);
	CHECK_OK(nft_remove(n, NFT_TABLE));
	nft_close(n);
	link_close(l);
	CHECK_OK(wg_device_delete(w));
	wg_close(w);
	loop_free(loop);
}

static void set_no_caps(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	CHECK(syscall(SYS_capset, &h, none) == 0);
}

/* -EPERM everywhere, and nothing made. */
static void test_nothing(void)
{
	struct udp_opts o = { PORT, LINK_MARK, false, no_packet, NULL, 0 };
	char error[PRIVS_ERROR_MAX] = "";
	struct nft_config rules = { .table = NFT_TABLE, .ifname = "lo", .ifindex = 1, .port = PORT };
	struct tsmp_socket *t;
	struct loop *loop;
	struct nft *n;
	struct udp *u;
	struct wg *w;
	bool adopted;

	set_no_caps();
	CHECK_OK(loop_new(&loop));
	CHECK_EQ(privs_check(error), -EPERM);
	CHECK(strstr(error, "CAP_NET_ADMIN"));
	CHECK_OK(wg_open(&w));
	CHECK_EQ(wg_device_create(w, "ks1", NULL, &adopted), -EPERM);
	wg_close(w);
	CHECK_OK(nft_open(-1, &n));
	CHECK_EQ(nft_probe(n), 0);
	CHECK_EQ(nft_apply(n, &rules), -EPERM);
	nft_close(n);
	CHECK_EQ(udp_open(loop, &o, &u), -EPERM);
	CHECK_EQ(tsmp_socket_open(loop, "lo", &tsmp_ops, NULL, &t), -EPERM);
	loop_free(loop);
	step("without capabilities everything is refused");
}

int main(void)
{
	struct user user = { 12345, 12345 };
	char error[PRIVS_ERROR_MAX] = "";

	enter_new_netns();
	CHECK(sh("ip link add eth0 type veth peer name other && ip link set eth0 up && ip link set other up && "
		 "ip addr add 10.0.0.1/24 dev eth0 && sysctl -qw net.ipv4.conf.eth0.rp_filter=1") == 0);
	if (privs_drop(&user, error) < 0) {
		printf("FAIL: %s\n", error);
		return 1;
	}
	CHECK(getuid() == 12345 && geteuid() == 12345 && getgid() == 12345);
	CHECK(setuid(0) < 0);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	CHECK(open("/etc/shadow", O_RDONLY | O_CLOEXEC) < 0); /* no CAP_DAC_OVERRIDE */
	CHECK_OK(privs_check(error));
	test_all();
	test_nothing();
	return 0;
}
