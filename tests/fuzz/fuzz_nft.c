/* Set members and events of nf_tables, and what is copied of a table: any bytes as netlink messages.
 * To be compared, tables, chains and rules are read by libnftnl, which trusts the kernel (a rule's
 * expression without a name ends it). */
#include <libmnl/libmnl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/netlink.h"
#include "nft/batch.h"
#include "nft/copy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nft_elements elements = { 0 };
	struct buf out = { 0 };
	struct nft_copy c;
	char table[NFT_NAME_MAX];
	int left = (int)size;
	uint8_t *copy = malloc(size + 1);
	const struct nlmsghdr *nlh = (const void *)copy;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	nft_copy_begin(&c, "kernscale", false, 1, &out);
	for (; netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		nft_read_elements(nlh, 4, &elements);
		nft_event_table(nlh, table);
		nft_copy_set(&c, nlh);
		nft_copy_chain(&c, nlh);
		nft_copy_rule(&c, nlh);
	}
	buf_done(&out);
	free(elements.v);
	free(copy);
	return 0;
}
