/*
 * The coordinator's configuration: any text gives settings or problems, never both, never neither. JSON is
 * YAML too, and can be changed as a tree.
 *
 * words: coordinator/settings.c
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "coordinator/settings.h"
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct settings_report rep = { 0 };
	struct settings c = { 0 };
	int r = settings_parse(data, size, &c, &rep);

	if (r == 0 && (rep.problems.len || !c.server_host || !c.listen_addr || !c.db_path))
		abort();
	if (r == -EINVAL && (!rep.problems.len || c.server_url))
		abort();
	settings_done(&c);
	settings_report_done(&rep);
	return 0;
}
