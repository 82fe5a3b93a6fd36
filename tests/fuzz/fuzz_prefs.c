/*
 * Preferences as another local user may send them: what is taken comes back the same from its
 * own JSON.
 *
 * words: daemon/api/prefs.c
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/prefs.h"
#include "lib/json.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct prefs p, again, all;
	char why[PREFS_WHY_MAX];
	json_t *j = NULL, *back;

	if (json_read(data, size, 65536, &j) < 0)
		return 0;
	if (prefs_from_json(j, &p, why) < 0) {
		CHECK(*why);
	} else {
		back = prefs_to_json(&p);
		CHECK(back && prefs_from_json(back, &again, why) == 0);
		CHECK(again.set == p.set && prefs_merge(&p, &again) == 0);
		json_decref(back);
		prefs_default(&all);
		prefs_merge(&all, &p);
		CHECK(all.set == PREFS_ALL);
		CHECK((prefs_check_supported(&p, why) < 0) == (*why != '\0'));
	}
	json_decref(j);
	return 0;
}
