#pragma once
/*
 * privs: what the process may do, and giving up the rest.
 *
 * Started as root, the daemon keeps CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE and becomes
 * an ordinary user. Under its unit it is one already: then none of the calls that the unit's filter
 * refuses is made. Never gets anything back.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "lib/user.h"

#define PRIVS_ERROR_MAX 256

/* NAME (from the user database) or UID:GID. -EINVAL, -ENOENT with one line in error that says how to
 * make the user. root is refused. */
int privs_user_find(const char *text, struct user *ret, char error[static PRIVS_ERROR_MAX]);
/* Creates the folder with this mode, whatever the umask is, where it is missing and its parent exists,
 * and gives it to the user when we are root. Symbolic links in the last part are refused. */
int privs_own_folder(const char *path, mode_t mode, const struct user *u,
		     char error[static PRIVS_ERROR_MAX]);
/* Root only: becomes u with the three capabilities, no others to be had again. */
int privs_drop(const struct user *u, char error[static PRIVS_ERROR_MAX]);
/* -EPERM with a remedy where CAP_NET_ADMIN is missing. */
int privs_check(char error[static PRIVS_ERROR_MAX]);
bool privs_has_net_raw(void);
