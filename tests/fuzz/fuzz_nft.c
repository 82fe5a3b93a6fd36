/* Set members and events of nf_tables: any bytes as netlink messages. Tables, chains and rules are
 * read by libnftnl, which trusts the kernel (a rule's expression without a name ends it). */
#include <libmnl/libmnl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/netlink.h"
#include "nft/batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nft_elements elements = { 0 };
	char table[NFT_NAME_MAX];
	int left = (int)size;
	uint8_t *copy = malloc(size + 1);
	const struct nlmsghdr *nlh = (const void *)copy;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	for (; netlink_msg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		nft_read_elements(nlh, 4, &elements);
		nft_event_table(nlh, table);
	}
	free(elements.v);
	free(copy);
	return 0;
}
