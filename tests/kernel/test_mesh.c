/*
 * Two nodes in one process, each in a network namespace, on real WireGuard devices that only our own
 * code fills: by relay (two shuttles, joined here), direct, injected, with disco on the same port.
 *
 *   a: 10.0.0.1, 2001:db8::1 ------ veth ------ b: 10.0.0.2, 2001:db8::2
 *      100.64.0.1                                  100.64.0.2
 */
#include "tests/kernel/check.h"

#include <signal.h>
#include <sys/wait.h>

#include "daemon/kernel/link.h"
#include "daemon/kernel/rawudp.h"
#include "daemon/kernel/tsmp_socket.h"
#include "daemon/kernel/udp.h"
#include "daemon/kernel/wg.h"
#include "daemon/relay/shuttle.h"
#include "lib/loop.h"
#include "nft/reconcile.h"

#define PORT 41641
#define PEER 0x010203 /* the peer's index, the same on both sides */

enum how { HOW_DELIVER, HOW_INJECT4, HOW_INJECT6, HOW_DROP };

struct node {
	char name[16];
	int ns;
	struct key_pair key;
	struct addr overlay, v4, v6;
	struct node *other;
	struct wg *wg;
	struct link *link;
	struct nft *nft;
	struct udp *udp;
	struct shuttle *shuttle;
	struct tsmp_socket *tsmp;
	struct nft_config rules;
	enum how relayed; /* what is done with packets that reach this node by relay */
	unsigned int from_relay;
	unsigned int got;
	struct endpoint got_from;
	struct addr got_to;
	uint8_t got_bytes[64];
	size_t got_len;
	struct key told;
	bool deaf; /* to TSMP */
};

static struct loop *loop;
static struct node a, b;
static const uint8_t disco[40] = { 0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac, 1, 2, 3 };
static const uint8_t stun[32] = { 0x01, 0x01, 0, 12, 0x21, 0x12, 0xa4, 0x42, 7, 7, 7 };

static void enter(const struct node *n)
{
	CHECK(setns(n->ns, CLONE_NEWNET) == 0);
}

static void spin(double msec)
{
	double end = now_msec() + msec;

	while (now_msec() < end)
		CHECK_OK(loop_iterate(loop, 5 * USEC_PER_MSEC));
}

/* Runs a command in the node's namespace while the loop turns; its exit status. */
static int run(const struct node *n, const char *command)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0) {
		enter(n);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, WNOHANG) == 0)
		CHECK_OK(loop_iterate(loop, 5 * USEC_PER_MSEC));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The relay between the two: what one kernel sends to the other's relay address. */
static void on_relay(void *data, uint32_t index, const uint8_t *p, size_t len)
{
	struct node *n = data, *to = n->other;
	struct endpoint direct = { n->v4, PORT };

	CHECK_EQ(index, PEER);
	to->from_relay++;
	switch (to->relayed) {
	case HOW_DELIVER:
		CHECK_OK(shuttle_deliver(to->shuttle, PEER, p, len));
		break;
	case HOW_INJECT4:
		CHECK_OK(shuttle_inject(to->shuttle, &direct, &to->v4, p, len));
		break;
	case HOW_INJECT6:
		direct.addr = n->v6;
		CHECK_OK(shuttle_inject(to->shuttle, &direct, &to->v6, p, len));
		break;
	case HOW_DROP:
		break;
	}
}

static void on_packet(void *data, const struct udp_packet *p)
{
	struct node *n = data;

	n->got++;
	n->got_from = p->from;
	n->got_to = p->to;
	n->got_len = p->len;
	memcpy(n->got_bytes, p->p, p->len < 64 ? p->len : 64);
	CHECK(p->ifindex != 0);
}

static bool allowed(void *data, const struct addr *from)
{
	struct node *n = data;

	CHECK(addr_equal(from, &n->other->overlay));
	return !n->deaf;
}

static void on_key(void *data, const struct addr *from, const struct key *disco_key)
{
	struct node *n = data;

	CHECK(addr_equal(from, &n->other->overlay));
	n->told = *disco_key;
}

static const struct tsmp_socket_ops tsmp_ops = { .allowed = allowed, .disco_key = on_key };

static void open_udp(struct node *n, bool no_raw)
{
	struct udp_opts o = { PORT, LINK_MARK, no_raw, on_packet, n, 0 };

	enter(n);
	udp_close(n->udp);
	CHECK_OK(udp_open(loop, &o, &n->udp));
	n->rules.private_port = udp_private_port(n->udp);
	n->rules.rewrite_source = udp_needs_rewrite(n->udp);
	CHECK_EQ(udp_needs_rewrite(n->udp), no_raw);
}

static void start_kernel(struct node *n)
{
	struct link_rules_config rc = { LINK_RULE_BASE, LINK_TABLE, LINK_MARK, LINK_MARK_MASK, true, true, true };
	struct wg_settings s = { &n->key.priv, PORT, LINK_MARK };
	struct link_rule rules[LINK_RULES_MAX];
	struct link_route route = { prefix_of(&n->other->overlay), false };
	struct wg_device d;
	bool adopted;

	CHECK_OK(wg_open(&n->wg));
	CHECK_OK(wg_device_create(n->wg, "ks0", &n->key.priv, &adopted));
	CHECK_OK(wg_get_device(n->wg, &d));
	CHECK_OK(wg_set_device(n->wg, &d, &s));
	wg_device_done(&d);
	CHECK_OK(link_open("ks0", wg_ifindex(n->wg), &n->link));
	CHECK_OK(link_up(n->link, LINK_MTU));
	CHECK_OK(link_set_addresses(n->link, &n->overlay, 1));
	CHECK_OK(link_set_routes(n->link, LINK_TABLE, &route, 1));
	CHECK_OK(link_set_rules(n->link, LINK_RULE_BASE, rules, link_rules_wanted(&rc, rules)));
}

static void add_peer(struct node *n)
{
	struct prefix p = prefix_of(&n->other->overlay);
	struct wg_want w = { .key = n->other->key.pub,
			     .endpoint = shuttle_endpoint(n->shuttle, PEER),
			     .allowed = &p,
			     .n_allowed = 1 };
	struct wg_device d;
	struct wg_plan plan;

	CHECK_OK(wg_get_device(n->wg, &d));
	CHECK_OK(wg_plan(&d, &w, 1, &plan));
	CHECK_EQ(wg_apply(n->wg, &plan, 0, NULL), 0);
	wg_plan_done(&plan);
	wg_device_done(&d);
}

static void start_node(struct node *n, const char *name, struct node *other, uint8_t number)
{
	*n = (struct node){ .other = other };
	snprintf(n->name, sizeof(n->name), "%s", name);
	CHECK(unshare(CLONE_NEWNET) == 0);
	n->ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	CHECK(n->ns >= 0);
	CHECK(sh("ip link set lo up") == 0);
	key_pair_generate(&n->key);
	n->overlay = addr_v4(100, 64, 0, number);
	n->v4 = addr_v4(10, 0, 0, number);
	n->v6 = (struct addr){ 6, { 0x20, 0x01, 0x0d, 0xb8, [15] = number } };
}

static void start_rest(struct node *n)
{
	enter(n);
	start_kernel(n);
	/* R: any free port; the kernel's own is not. */
	CHECK_OK(shuttle_new(loop, PORT, 0, on_relay, n, &n->shuttle));
	add_peer(n);
	n->rules = (struct nft_config){ .table = NFT_TABLE,
					.ifname = "ks0",
					.ifindex = wg_ifindex(n->wg),
					.port = PORT,
					.share_port = true,
					.mark = LINK_MARK,
					.mark_mask = LINK_MARK_MASK,
					.filter = NFT_FILTER_ALLOW_ALL,
					.peers = &n->other->overlay,
					.n_peers = 1 };
	open_udp(n, false);
	CHECK_OK(nft_open(-1, &n->nft));
	CHECK_OK(nft_apply(n->nft, &n->rules));
	CHECK_OK(tsmp_socket_open(loop, "ks0", &tsmp_ops, n, &n->tsmp));
}

static struct endpoint kernel_endpoint(struct node *n)
{
	struct wg_device d;
	struct endpoint e;

	CHECK_OK(wg_get_device(n->wg, &d));
	CHECK_EQ(d.n_peers, 1);
	e = d.peers[0].endpoint;
	wg_device_done(&d);
	return e;
}

static bool is_relay(const struct endpoint *e)
{
	uint32_t index;

	return shuttle_index_of(e, &index) == 0 && index == PEER;
}

static void set_direct(struct node *n, bool v6)
{
	struct endpoint e = { v6 ? n->other->v6 : n->other->v4, PORT };

	CHECK_OK(wg_set_endpoint(n->wg, &n->other->key.pub, &e));
}

static void set_relay(struct node *n)
{
	struct endpoint e = shuttle_endpoint(n->shuttle, PEER);

	CHECK_OK(wg_set_endpoint(n->wg, &n->other->key.pub, &e));
}

static void test_relay(void)
{
	struct endpoint ea, eb;
	unsigned int before;

	CHECK(run(&a, "ping -q -c 3 -i 0.02 -W 5 100.64.0.2 >/dev/null") == 0);
	ea = kernel_endpoint(&a);
	eb = kernel_endpoint(&b);
	CHECK(is_relay(&ea) && is_relay(&eb));
	CHECK(a.from_relay >= 4 && b.from_relay >= 4); /* handshake and pings, both ways */
	/* Nobody but the module can speak to the relay socket. */
	before = a.from_relay;
	enter(&a);
	CHECK(sh("bash -c 'echo forged >/dev/udp/127.65.2.3/%u'", shuttle_port(a.shuttle)) == 0);
	spin(30);
	CHECK(a.from_relay == before);
	step("relay: ping there and back, endpoints stay, forged packets are refused");
}

static void test_direct(void)
{
	struct endpoint ea, eb;
	unsigned int before;

	for (int v6 = 0; v6 < 2; v6++) {
		set_direct(&a, v6);
		set_direct(&b, v6);
		spin(50);
		before = a.from_relay + b.from_relay;
		CHECK(run(&a, "ping -q -c 3 -i 0.02 -W 5 100.64.0.2 >/dev/null") == 0);
		CHECK_EQ(a.from_relay + b.from_relay, before);
		ea = kernel_endpoint(&a);
		eb = kernel_endpoint(&b);
		CHECK(ea.addr.family == (v6 ? 6 : 4) && eb.addr.family == (v6 ? 6 : 4));
		CHECK(ea.port == PORT && eb.port == PORT);
	}
	step("direct: IPv4 and IPv6, without a session of its own");
}

static void expect(struct node *n, const struct node *from, bool v6, const uint8_t *p, size_t len)
{
	double end = now_msec() + 1000;

	while (!n->got && now_msec() < end)
		CHECK_OK(loop_iterate(loop, 10 * USEC_PER_MSEC));
	CHECK_EQ(n->got, 1);
	CHECK(addr_equal(&n->got_from.addr, v6 ? &from->v6 : &from->v4));
	CHECK_EQ(n->got_from.port, PORT);
	CHECK(addr_equal(&n->got_to, v6 ? &n->v6 : &n->v4));
	CHECK(n->got_len == len && memcmp(n->got_bytes, p, len) == 0);
	n->got = 0;
}

/* There with an address of the kernel's choice, back with that of the PKTINFO. */
static void exchange(const char *what)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct endpoint to = { v6 ? b.v6 : b.v4, PORT };

		CHECK_OK(udp_send(a.udp, &to, NULL, disco, sizeof(disco)));
		expect(&b, &a, v6, disco, sizeof(disco));
		CHECK_OK(udp_send(b.udp, &b.got_from, &b.got_to, stun, sizeof(stun)));
		expect(&a, &b, v6, stun, sizeof(stun));
	}
	step("disco and STUN on the shared port, %s", what);
}

static unsigned int verdicts;

static void count_verdict(void *data)
{
	(void)data;
	verdicts++;
}

static void self_test(struct node *n, enum udp_mode want)
{
	double end = now_msec() + 1000;

	enter(n); /* a raw socket may be opened */
	verdicts = 0;
	CHECK_OK(udp_self_test(n->udp, count_verdict, NULL));
	while (!verdicts && now_msec() < end)
		CHECK_OK(loop_iterate(loop, 10 * USEC_PER_MSEC));
	CHECK_EQ(verdicts, 1);
	CHECK_EQ(udp_mode(n->udp), want);
}

static void test_shared_port(void)
{
	static const uint8_t junk[3][24] = {
		{ 4, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42 },		/* WireGuard data */
		{ 0x01, 0x01, 0, 0, 1, 2, 3, 4 },		/* type, no cookie */
		{ 1, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42 },		/* cookie, no type: a handshake's index */
	};
	struct endpoint to = { b.v4, PORT };
	pid_t load;

	self_test(&a, UDP_MODE_TPROXY);
	self_test(&b, UDP_MODE_TPROXY);
	/* While traffic flows through the tunnel. */
	load = fork();
	CHECK(load >= 0);
	if (load == 0) {
		enter(&a);
		execl("/bin/sh", "sh", "-c", "exec ping -q -f -s 1200 100.64.0.2 >/dev/null", (char *)NULL);
		_exit(127);
	}
	spin(100);
	exchange("given by nftables, under load");
	for (size_t i = 0; i < 3; i++)
		CHECK_OK(udp_send(a.udp, &to, NULL, junk[i], sizeof(junk[i])));
	/* Straight to Q: not given, dropped. */
	to.port = udp_private_port(b.udp);
	CHECK_OK(udp_send(a.udp, &to, NULL, disco, sizeof(disco)));
	spin(50);
	CHECK_EQ(b.got, 0);
	kill(load, SIGINT);
	CHECK(waitpid(load, NULL, 0) == load);
	CHECK(run(&a, "ping -q -c 1 -W 5 100.64.0.2 >/dev/null") == 0);
	step("what is WireGuard's is left alone, the private port is closed");
}

static void test_raw_mode(void)
{
	struct node *both[] = { &a, &b };

	/* The rules are gone: the self-test notices. */
	for (int i = 0; i < 2; i++) {
		both[i]->rules.share_port = false;
		CHECK_EQ(nft_apply(both[i]->nft, &both[i]->rules), 1);
		self_test(both[i], UDP_MODE_RAW);
	}
	self_test(&b, UDP_MODE_RAW); /* this way passes its test too */
	exchange("copied to raw sockets");
	CHECK(run(&a, "ping -q -c 1 -W 5 100.64.0.2 >/dev/null") == 0);
	for (int i = 0; i < 2; i++) {
		both[i]->rules.share_port = true;
		CHECK_EQ(nft_apply(both[i]->nft, &both[i]->rules), 1);
		CHECK_OK(udp_set_mode(both[i]->udp, UDP_MODE_TPROXY));
		self_test(both[i], UDP_MODE_TPROXY);
	}
	exchange("given by nftables again");
}

static void test_no_raw(void)
{
	struct node *both[] = { &a, &b };

	for (int i = 0; i < 2; i++) {
		open_udp(both[i], true);
		CHECK_EQ(nft_apply(both[i]->nft, &both[i]->rules), 1);
		self_test(both[i], UDP_MODE_TPROXY);
	}
	exchange("sent through the rewriting rule");
	for (int i = 0; i < 2; i++) {
		open_udp(both[i], false);
		CHECK_EQ(nft_apply(both[i]->nft, &both[i]->rules), 1);
	}
	exchange("sent raw again");
}

/* Packets that come by relay while the peer is direct: injected they leave its endpoint alone. */
static void test_inject(void)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct endpoint want = { v6 ? b.v6 : b.v4, PORT }, e;
		unsigned int before = a.from_relay;

		set_direct(&a, v6);
		set_direct(&b, v6);
		CHECK(run(&a, "ping -q -c 1 -W 5 100.64.0.2 >/dev/null") == 0);
		a.relayed = v6 ? HOW_INJECT6 : HOW_INJECT4;
		for (int i = 0; i < 5; i++) {
			/* b sends by relay; a answers direct, which moves b back. */
			set_relay(&b);
			CHECK(run(&b, "ping -q -c 1 -W 5 100.64.0.1 >/dev/null") == 0);
			e = kernel_endpoint(&a);
			CHECK(endpoint_equal(&e, &want));
		}
		CHECK(a.from_relay >= before + 5);
		/* And the direct way is not hurt. */
		set_direct(&b, v6);
		CHECK(run(&a, "ping -q -c 3 -i 0.02 -W 5 100.64.0.2 >/dev/null") == 0);
	}
	a.relayed = HOW_DELIVER;
	/* The other way moves it: what the injection is for. */
	set_relay(&b);
	b.relayed = HOW_DELIVER;
	CHECK(run(&b, "ping -q -c 1 -W 5 100.64.0.1 >/dev/null") == 0);
	CHECK(is_relay(&(struct endpoint){ kernel_endpoint(&a).addr, 1 }));
	step("injection keeps the direct endpoint, delivery moves it");
}

static void test_filter(void)
{
	struct endpoint to = { b.v4, PORT };
	struct rawudp raw;
	struct endpoint spoof = { a.overlay, 7 };
	struct tsmp_msg m = { .type = TSMP_TYPE_DISCO_KEY };

	set_direct(&a, false);
	set_direct(&b, false);
	b.rules.filter = NFT_FILTER_REPLIES_ONLY;
	CHECK_EQ(nft_apply(b.nft, &b.rules), 1);
	CHECK(run(&a, "ping -q -c 1 -W 1 100.64.0.2 >/dev/null") != 0);
	CHECK(run(&b, "ping -q -c 1 -W 5 100.64.0.1 >/dev/null") == 0);
	/* TSMP passes it: it is for the daemon. */
	memset(m.disco.b, 9, KEY_LEN);
	CHECK_OK(tsmp_socket_send(a.tsmp, &a.overlay, &b.overlay, &m));
	spin(50);
	CHECK(key_equal(&b.told, &m.disco));
	b.deaf = true;
	m.disco.b[0]++;
	CHECK_OK(tsmp_socket_send(a.tsmp, &a.overlay, &b.overlay, &m));
	spin(50);
	CHECK(!key_equal(&b.told, &m.disco));
	b.deaf = false;
	CHECK(run(&a, "nft list ruleset | grep -q 'type filter hook input'") != 0); /* lean: none while allow-all */
	CHECK_OK(udp_send(a.udp, &to, NULL, disco, sizeof(disco)));
	expect(&b, &a, false, disco, sizeof(disco));
	/* Not by the tunnel, but with an address that only the tunnel has: dropped before anything. */
	enter(&a);
	CHECK_OK(rawudp_open(&raw, 0));
	CHECK(run(&b, "nft -f - <<X\ntable inet t { counter c { }\n chain in { type filter hook input priority -200; "
		      "ip saddr 100.64.0.1 udp dport 9999 counter name c; }\n }\nX") == 0);
	CHECK_OK(rawudp_send(&raw, &spoof, &(struct endpoint){ b.v4, 9999 }, disco, sizeof(disco)));
	spin(30);
	CHECK(run(&b, "nft list counter inet t c | grep -q 'packets 0'") == 0);
	b.rules.n_peers = 0; /* without the set it comes through: the test can see it */
	CHECK_EQ(nft_apply(b.nft, &b.rules), 1);
	CHECK_OK(rawudp_send(&raw, &spoof, &(struct endpoint){ b.v4, 9999 }, disco, sizeof(disco)));
	spin(30);
	CHECK(run(&b, "nft list counter inet t c | grep -q 'packets 1'") == 0);
	rawudp_close(&raw);
	step("replies only; spoofed sources dropped; TSMP and disco pass");
}

static void test_handshake(void)
{
	struct prefix p = prefix_of(&b.overlay);
	struct wg_want w = { .key = b.key.pub, .endpoint = { b.v4, PORT }, .allowed = &p, .n_allowed = 1 };
	struct wg_device d;
	int64_t before;

	CHECK_OK(wg_reset_peer(a.wg, &w)); /* forgets the session */
	CHECK_OK(wg_get_device(a.wg, &d));
	before = d.peers[0].handshake_wall_nsec;
	wg_device_done(&d);
	CHECK_EQ(before, 0);
	CHECK_OK(wg_force_handshake(a.wg, &b.key.pub));
	spin(100);
	CHECK_OK(wg_get_device(a.wg, &d));
	CHECK(d.peers[0].handshake_wall_nsec > 0);
	CHECK_EQ(d.peers[0].keepalive_sec, 0);
	wg_device_done(&d);
	step("handshake forced");
}

static void stop_node(struct node *n)
{
	enter(n);
	tsmp_socket_close(n->tsmp);
	udp_close(n->udp);
	shuttle_free(n->shuttle);
	nft_close(n->nft);
	link_close(n->link);
	CHECK_OK(wg_device_delete(n->wg));
	wg_close(n->wg);
	close(n->ns);
}

int main(void)
{
	enter_new_netns();
	CHECK_OK(loop_new(&loop));
	start_node(&a, "a", &b, 1);
	start_node(&b, "b", &a, 2);
	/* In b now: the cable, its far end moved to a. */
	CHECK(sh("ip link add eth0 type veth peer name far && ip link set far netns /proc/self/fd/%d name eth0 && "
		 "ip link set eth0 up && ip addr add 10.0.0.2/24 dev eth0 && "
		 "ip addr add 2001:db8::2/64 dev eth0 nodad", dup(a.ns)) == 0);
	enter(&a);
	CHECK(sh("ip link set eth0 up && ip addr add 10.0.0.1/24 dev eth0 && "
		 "ip addr add 2001:db8::1/64 dev eth0 nodad") == 0);
	start_rest(&a);
	start_rest(&b);
	test_relay();
	test_direct();
	test_shared_port();
	test_raw_mode();
	test_no_raw();
	test_inject();
	test_filter();
	test_handshake();
	stop_node(&a);
	stop_node(&b);
	loop_free(loop);
	return 0;
}
