#include "lib/user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/cleanup.h"

#define GROUP_MAX (1u << 20)

/* Digits only, and not -1, which the calls below take for "leave it". */
static int user_id(const char *s, const char *end, unsigned int *ret)
{
	unsigned long long v = 0;

	if (s == end || end - s > 10)
		return -EBADMSG;
	for (; s < end; s++) {
		if (*s < '0' || *s > '9')
			return -EBADMSG;
		v = v * 10 + (unsigned long long)(*s - '0');
	}
	if (v >= (unsigned int)-1)
		return -EBADMSG;
	*ret = (unsigned int)v;
	return 0;
}

int user_parse(const char *spec, struct user *ret)
{
	const char *colon = strchr(spec, ':');
	struct passwd pw, *found = NULL;
	char text[4096];
	struct user u;

	if (colon) {
		if (user_id(spec, colon, &u.uid) < 0 ||
		    user_id(colon + 1, colon + strlen(colon), &u.gid) < 0)
			return -EBADMSG;
		*ret = u;
		return 0;
	}
	if (getpwnam_r(spec, &pw, text, sizeof(text), &found) != 0 || !found)
		return -ENOENT;
	*ret = (struct user){ .uid = pw.pw_uid, .gid = pw.pw_gid };
	return 0;
}

int user_group(const char *name, gid_t *ret)
{
	for (size_t n = 4096; n <= GROUP_MAX; n *= 4) {
		CLEANUP(free) char *text = malloc(n);
		struct group g, *found = NULL;
		int r;

		if (!text)
			return -ENOMEM;
		r = getgrnam_r(name, &g, text, n, &found);
		if (r == ERANGE)
			continue;
		if (r != 0 || !found)
			return r != 0 ? -r : -ENOENT;
		*ret = found->gr_gid;
		return 0;
	}
	return -ENOBUFS;
}

int user_become(const struct user *u)
{
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(u->gid, u->gid, u->gid) < 0 ||
	    setresuid(u->uid, u->uid, u->uid) < 0)
		return -errno;
	user_hide_memory();
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

void user_hide_memory(void)
{
	struct rlimit none = { 0, 0 }, now;

	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	/* The units have LimitCORE=0, and refuse the call. */
	if (getrlimit(RLIMIT_CORE, &now) == 0 && (now.rlim_cur || now.rlim_max))
		(void)setrlimit(RLIMIT_CORE, &none);
}
