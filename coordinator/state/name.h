#pragma once
/*
 * name: host names, user names and tags as the server accepts them (control.md 12.4, server-ux.md 7). Pure.
 */
#include <stdbool.h>
#include <stddef.h>

#define NAME_LABEL_MAX 63
#define NAME_USER_MAX  254

/* The DNS label of a reported host name: "node" where nothing is left of it. */
void name_sanitize(const char *hostname, char out[static NAME_LABEL_MAX + 1]);
/* base for n == 0, else base cut to fit and "-n". */
void name_numbered(const char *base, unsigned int n, char out[static NAME_LABEL_MAX + 1]);
bool name_label_ok(const char *label); /* what an operator may rename a node to */
bool name_user_ok(const char *name);
bool name_tag_ok(const char *tag); /* "tag:" letter [A-Za-z0-9-]* */
