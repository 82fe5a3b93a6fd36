#pragma once
/* cmd: what more than one command needs. */
#include <jansson.h>

#include "wgctl/client.h"

/* "a,b" as ["a", "b"]; empty parts are left out. NULL when it is no UTF-8. */
json_t *cmd_list_json(const char *text);
/* GET /v1/status. */
int cmd_get_status(const struct cli *c, bool peers, json_t **ret);
/* Good when the node runs or starts; else prints the sentence and gives its exit status. */
int cmd_need_running(const struct cli *c, const json_t *status);
