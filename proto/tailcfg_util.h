#pragma once
/*
 * tailcfg_util: what the files of tailcfg share: lists of strings, prefixes and endpoints with
 * limits, and growing arrays. Nobody else includes it.
 */
#include "proto/tailcfg.h"

/* A JSON list of strings; entries of other types are skipped and counted. Text is cleaned. */
int tailcfg_strv_decode(const json_t *list, size_t max, char ***ret, size_t *ret_n,
			size_t *skipped);
void tailcfg_strv_free(char **v, size_t n);
json_t *tailcfg_strv_json(char *const *v, size_t n);

int tailcfg_prefixes_decode(const json_t *list, bool masked, struct prefix **ret, size_t *ret_n);
json_t *tailcfg_prefixes_json(const struct prefix *v, size_t n);
int tailcfg_endpoints_decode(const json_t *list, struct endpoint **ret, size_t *ret_n);
/* The canonical text of CapMap; NULL for an empty or absent one. */
int tailcfg_capmap_decode(const json_t *map, char **ret);

/* An optional time: absent gives 0. -EBADMSG. */
int tailcfg_time_decode(const json_t *o, const char *name, int64_t *ret);
/* An optional key: absent gives zero. -EBADMSG. */
int tailcfg_key_decode(const json_t *o, const char *name, enum key_kind kind, struct key *ret);
/* A cleaned copy of a string member; absent gives "". */
int tailcfg_text_decode(const json_t *o, const char *name, char **ret);
