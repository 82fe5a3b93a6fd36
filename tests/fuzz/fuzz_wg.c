/*
 * A dump of the WireGuard device: any bytes as netlink messages; what was read is planned and encoded.
 *
 * max_len: 4096
 */
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/kernel/wg_msg.h"
#include "lib/netlink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int peer(void *data, const struct wg_peer *p)
{
	uint8_t buf[2048] __attribute__((aligned(8)));
	struct wg_encode_how how = { .family_id = 20, .ifindex = 3 };
	struct wg_change c = { .kind = WG_CHANGE_PEER,
			       .create = true,
			       .key = p->key,
			       .set_endpoint = true,
			       .endpoint = p->endpoint,
			       .allowed = p->allowed,
			       .n_allowed = p->n_allowed };
	struct wg_encode_pos pos = { 0 };
	struct nlmsghdr *nlh;

	while (pos.change < 1)
		if (wg_encode_changes(buf, sizeof(buf), &how, &c, 1, 1, &pos, &nlh) == 0)
			abort(); /* no progress */
	(*(size_t *)data)++;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wg_device device = { 0 };
	struct wg_reader r;
	size_t peers = 0;
	int left = (int)size, e = 0;
	uint8_t *copy = malloc(size + 1); /* aligned, and without slack that would hide an overread */
	const struct nlmsghdr *nlh = (const void *)copy;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	wg_reader_init(&r, &device, peer, &peers);
	for (; e >= 0 && netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
		e = wg_reader_message(&r, nlh);
	if (e >= 0)
		wg_reader_end(&r);
	wg_reader_done(&r);
	wg_device_done(&device);
	free(copy);
	return 0;
}
