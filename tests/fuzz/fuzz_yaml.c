/* Configuration files: any bytes give a tree or a refusal. */
#include <stddef.h>
#include <stdint.h>

#include "lib/json.h"
#include "lib/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char error[YAML_ERROR_MAX];
	json_t *j = NULL;

	if (yaml_read(data, size, &j, error) == 0)
		json_decref(j);
	return 0;
}
