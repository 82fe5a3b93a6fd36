/* The device on a real kernel: made, filled, adopted, emptied; what is not ours is refused; costs. */
#include "tests/kernel/check.h"

#include "daemon/kernel/wg.h"

#define PORT 41641

static struct key_pair own;

static struct endpoint relay_of(size_t i)
{
	return (struct endpoint){ addr_v4(127, (uint8_t)(64 + (i >> 16)), (uint8_t)(i >> 8), (uint8_t)i),
				  41642 };
}

static struct wg_want *make_wanted(size_t n, struct prefix **ret_prefixes)
{
	struct wg_want *w = calloc(n, sizeof(*w));
	struct prefix *p = calloc(n, 2 * sizeof(*p));

	for (size_t i = 0; i < n; i++) {
		struct addr a = addr_v4(100, (uint8_t)(64 + (i >> 16)), (uint8_t)(i >> 8), (uint8_t)i);
		struct addr six = { 6, { 0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0 } };

		memcpy(six.b + 12, a.b, 4);
		p[2 * i] = prefix_of(&a);
		p[2 * i + 1] = prefix_of(&six);
		/* Any 32 bytes are a public key; making real pairs would be the cost of the test. */
		for (size_t k = 0; k < 8; k++)
			w[i].key.b[k] = (uint8_t)(i >> (8 * (k % 4)));
		w[i].key.b[31] = 1;
		w[i].key.b[16] = 9;
		w[i].endpoint = relay_of(i);
		w[i].allowed = p + 2 * i;
		w[i].n_allowed = 2;
	}
	*ret_prefixes = p;
	return w;
}

/* Reads, plans, sends; returns the number of changes. */
static size_t settle(struct wg *w, const struct wg_want *wanted, size_t n)
{
	struct wg_device d;
	struct wg_plan plan;
	size_t changes;

	CHECK_OK(wg_get_device(w, &d));
	CHECK_OK(wg_plan(&d, wanted, n, &plan));
	changes = plan.n;
	CHECK_EQ(wg_apply(w, &plan, 0, NULL), 0);
	wg_plan_done(&plan);
	wg_device_done(&d);
	return changes;
}

static const struct wg_peer *find(const struct wg_device *d, const struct key *k)
{
	for (size_t i = 0; i < d->n_peers; i++)
		if (key_cmp(&d->peers[i].key, k) == 0)
			return &d->peers[i];
	return NULL;
}

static struct wg *open_device(const char *ifname, bool want_adopted)
{
	struct wg_settings s = { &own.priv, PORT, 0x80000 };
	struct wg_device d;
	bool adopted;
	struct wg *w;

	CHECK_OK(wg_open(&w));
	CHECK_OK(wg_device_create(w, ifname, &own.priv, &adopted));
	CHECK_EQ(adopted, want_adopted);
	CHECK_OK(wg_get_device(w, &d));
	CHECK_OK(wg_set_device(w, &d, &s));
	wg_device_done(&d);
	return w;
}

static void test_life(void)
{
	struct prefix *p, subnet = { addr_v4(10, 7, 3, 9), 16 }, both[3];
	struct wg_want *want = make_wanted(3, &p);
	struct wg *w = open_device("ks0", false);
	struct endpoint direct = { addr_v4(192, 0, 2, 9), 777 };
	struct wg_device d;
	uint64_t sent;

	CHECK_EQ(settle(w, want, 3), 3);
	CHECK_OK(wg_get_device(w, &d));
	CHECK_EQ(d.n_peers, 3);
	CHECK_EQ(d.port, PORT);
	CHECK_EQ(d.fwmark, 0x80000);
	CHECK(key_equal(&d.public_key, &own.pub));
	CHECK(strcmp(d.ifname, "ks0") == 0 && d.ifindex == if_nametoindex("ks0"));
	CHECK(endpoint_equal(&find(&d, &want[1].key)->endpoint, &want[1].endpoint));
	CHECK_EQ(find(&d, &want[1].key)->n_allowed, 2);
	wg_device_done(&d);
	step("made and filled");

	sent = wg_changes_sent(w);
	CHECK_EQ(settle(w, want, 3), 0);
	CHECK_EQ(wg_changes_sent(w), sent);
	CHECK_OK(wg_set_endpoint(w, &want[1].key, &direct));
	/* The kernel's endpoint is kept by the plan, also for the next one to adopt the device. */
	CHECK_EQ(settle(w, want, 3), 0);
	wg_close(w);
	w = open_device("ks0", true);
	CHECK_EQ(settle(w, want, 3), 0);
	CHECK_EQ(wg_changes_sent(w), 0);
	CHECK_OK(wg_get_device(w, &d));
	CHECK(endpoint_equal(&find(&d, &want[1].key)->endpoint, &direct));
	wg_device_done(&d);
	step("adopted, and nothing was sent");

	/* A subnet moves, then goes; the others stay all the time. */
	both[0] = p[2];
	both[1] = p[3];
	both[2] = subnet;
	want[1].allowed = both;
	want[1].n_allowed = 3;
	CHECK_EQ(settle(w, want, 3), 1);
	want[1].n_allowed = 2;
	both[0] = p[0], both[1] = p[1];
	want[0].allowed = (struct prefix[]){ p[0], p[1], subnet };
	want[0].n_allowed = 3;
	want[1].allowed = p + 2;
	CHECK_EQ(settle(w, want, 3), 1);
	CHECK_EQ(settle(w, want, 3), 0);
	want[0].n_allowed = 2;
	CHECK_EQ(settle(w, want, 3), 1);
	CHECK_OK(wg_get_device(w, &d));
	CHECK_EQ(d.n_peers, 3); /* no throw-away peer is left */
	CHECK_EQ(find(&d, &want[0].key)->n_allowed, 2);
	CHECK_EQ(find(&d, &want[1].key)->n_allowed, 2);
	wg_device_done(&d);
	step("a prefix moved and was dropped");

	CHECK_OK(wg_reset_peer(w, &want[2]));
	CHECK_EQ(settle(w, want, 3), 0);
	CHECK_EQ(settle(w, want, 1), 2);
	CHECK_OK(wg_get_device(w, &d));
	CHECK_EQ(d.n_peers, 1);
	wg_device_done(&d);
	CHECK_OK(wg_device_delete(w));
	CHECK_EQ(if_nametoindex("ks0"), 0);
	wg_close(w);
	free(want);
	free(p);
	step("removed");
}

static void test_not_ours(void)
{
	bool adopted;
	struct wg *w;

	CHECK(sh("ip link add ks1 type dummy") == 0);
	CHECK_OK(wg_open(&w));
	CHECK_EQ(wg_device_create(w, "ks1", &own.priv, &adopted), -EEXIST);
	CHECK(strstr(wg_error(w), "no WireGuard"));
	CHECK_EQ(wg_device_delete(w), -ENODEV); /* what was refused cannot be touched */
	CHECK(sh("ip link add ks2 type wireguard && wg genkey >/run/ks2.key && "
		 "wg set ks2 private-key /run/ks2.key") == 0);
	CHECK_EQ(wg_device_create(w, "ks2", &own.priv, &adopted), -EEXIST);
	CHECK(strstr(wg_error(w), "not ours"));
	/* A fresh one without a key is what a crash between two messages leaves: taken. */
	CHECK(sh("ip link add ks3 type wireguard") == 0);
	CHECK_OK(wg_device_create(w, "ks3", &own.priv, &adopted));
	CHECK(adopted);
	CHECK_OK(wg_device_delete(w));
	CHECK_EQ(wg_device_create(w, "seventeen-letters", NULL, &adopted), -EINVAL);
	wg_close(w);
	CHECK(sh("ip link del ks1; ip link del ks2; rm /run/ks2.key") == 0);
	step("what is not ours is refused");
}

static void test_port_taken(void)
{
	struct wg *w = open_device("ks4", false);
	struct wg_settings s = { &own.priv, PORT + 7, 0x80000 };
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PORT + 7) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct wg_device d;

	CHECK(sh("ip link set ks4 up") == 0);
	CHECK(bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	CHECK_OK(wg_get_device(w, &d));
	CHECK_EQ(wg_set_device(w, &d, &s), -EADDRINUSE);
	wg_device_done(&d);
	close(fd);
	CHECK_OK(wg_get_device(w, &d));
	CHECK_EQ(d.port, PORT);
	CHECK_OK(wg_set_device(w, &d, &s));
	wg_device_done(&d);
	CHECK_OK(wg_device_delete(w));
	wg_close(w);
	step("a taken port is refused, a free one taken");
}

static int count_peer(void *data, const struct wg_peer *p)
{
	size_t *n = data;

	n[0]++;
	n[1] += p->n_allowed;
	return 0;
}

static void count_begin(void *data)
{
	memset(data, 0, 2 * sizeof(size_t));
}

static long rss_anon_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "RssAnon: %ld", &kib);
	if (f)
		fclose(f);
	return kib;
}

static void test_many(size_t n)
{
	struct prefix *p;
	struct wg_want *want = make_wanted(n, &p);
	struct wg *w = open_device("ks5", false);
	size_t seen[2];
	struct wg_device d;
	struct wg_plan plan;
	struct wg_encode_pos pos = { 0 };
	double t = now_msec();
	long before, after;
	uint64_t sent;

	CHECK_EQ(settle(w, want, n), n);
	step("%zu peers added in %.0f ms, %llu messages", n, now_msec() - t,
	     (unsigned long long)wg_changes_sent(w));
	sent = wg_changes_sent(w);
	t = now_msec();
	CHECK_EQ(settle(w, want, n), 0);
	CHECK_EQ(wg_changes_sent(w), sent);
	step("%zu peers read and compared in %.0f ms, nothing sent", n, now_msec() - t);
	before = rss_anon_kib();
	t = now_msec();
	CHECK_OK(wg_dump(w, NULL, count_begin, count_peer, seen));
	after = rss_anon_kib();
	CHECK_EQ(seen[0], n);
	CHECK_EQ(seen[1], 2 * n);
	step("%zu peers dumped in %.0f ms, %ld KiB more", n, now_msec() - t, after - before);
	CHECK(after - before < 256);
	/* Some go: in the background, a few at a time, but all without addresses from the first moment on. */
	CHECK_OK(wg_get_device(w, &d));
	CHECK_OK(wg_plan(&d, want, n - 20, &plan));
	CHECK_EQ(plan.n, 40);
	t = now_msec();
	CHECK_EQ(wg_apply(w, &plan, 8, &pos), 1);
	CHECK_EQ(pos.change, 28);
	step("8 peers removed in %.0f ms", now_msec() - t);
	CHECK_OK(wg_dump(w, NULL, count_begin, count_peer, seen));
	CHECK_EQ(seen[0], n - 8);
	CHECK_EQ(seen[1], 2 * (n - 20));
	CHECK_EQ(wg_apply(w, &plan, 8, &pos), 1);
	CHECK_EQ(wg_apply(w, &plan, 8, &pos), 0);
	wg_plan_done(&plan);
	wg_device_done(&d);
	CHECK_OK(wg_device_delete(w));
	wg_close(w);
	free(want);
	free(p);
}

int main(void)
{
	const char *slow;

	enter_new_netns();
	key_pair_generate(&own);
	test_life();
	test_not_ours();
	test_port_taken();
	test_many(1000);
	/* The kernel takes two minutes in the emulator to let go of ten thousand. */
	slow = getenv("SLOWNESS");
	test_many(slow && strtoul(slow, NULL, 10) > 1 ? 2500 : 10000);
	return 0;
}
