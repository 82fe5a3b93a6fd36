#pragma once
/*
 * user: whom a program started as root becomes.
 */
#include <sys/types.h>

struct user {
	uid_t uid;
	gid_t gid;
};

/* "NAME" or "UID:GID" in digits. -ENOENT: no such user; -EBADMSG. */
int user_parse(const char *spec, struct user *ret);
/* Of a group with any number of members, up to a record of 1 MiB. -ENOENT: there is none. */
int user_group(const char *name, gid_t *ret);
/* Groups, gid, uid, for good, with no way back: no new privileges, no core dumps of what was read as
 * root. Drops all capabilities. Nothing to do when not root. */
int user_become(const struct user *u);
/* No core dump, no ptrace by others of our user: memory holds keys. Always allowed; once more after a change of user, which
 * makes a process dumpable again. */
void user_hide_memory(void);
