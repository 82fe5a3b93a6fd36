#include "daemon/kernel/privs.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"

#define KEPT (1u << CAP_NET_ADMIN | 1u << CAP_NET_RAW | 1u << CAP_NET_BIND_SERVICE)

int privs_user_find(const char *text, struct user *ret, char error[static PRIVS_ERROR_MAX])
{
	struct user u;

	if (user_parse(text, &u) < 0) {
		snprintf(error, PRIVS_ERROR_MAX,
			 "no user '%.64s': make it (useradd --system --user-group --no-create-home "
			 "--shell /usr/sbin/nologin %.64s) or give --user UID:GID",
			 text, text);
		return -ENOENT;
	}
	if (u.uid == 0 || u.gid == 0) {
		snprintf(error, PRIVS_ERROR_MAX, "--user %.64s is root: give an ordinary user", text);
		return -EINVAL;
	}
	*ret = u;
	return 0;
}

int privs_own_folder(const char *path, mode_t mode, const struct user *u,
		     char error[static PRIVS_ERROR_MAX])
{
	CLEANUP(fd_close) int fd = -1;
	bool made = mkdir(path, mode) == 0;
	struct stat st;

	if (!made && errno != EEXIST)
		goto fail;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		goto fail;
	if (made && fchmod(fd, mode) < 0) /* whatever the umask is */
		goto fail;
	/* What is right already is left alone: it may have become read-only. */
	if (fstat(fd, &st) < 0)
		goto fail;
	if (geteuid() == 0 && u && (st.st_uid != u->uid || st.st_gid != u->gid) &&
	    fchown(fd, u->uid, u->gid) < 0)
		goto fail;
	return 0;
fail:
	snprintf(error, PRIVS_ERROR_MAX, "cannot use folder %.150s: %s", path, strerror(errno));
	return -errno;
}

/* Of what root has: a container may have taken some of it already. */
static int capset_kept(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2] = { 0 };

	if (syscall(SYS_capget, &h, d) < 0)
		return -errno;
	d[0].permitted &= KEPT;
	d[0].effective = d[0].permitted;
	d[0].inheritable = 0;
	memset(&d[1], 0, sizeof(d[1]));
	return syscall(SYS_capset, &h, d) < 0 ? -errno : 0;
}

static uint32_t caps_effective(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2] = { 0 };

	return syscall(SYS_capget, &h, d) < 0 ? 0 : d[0].effective;
}

int privs_drop(const struct user *u, char error[static PRIVS_ERROR_MAX])
{
	const char *step;

	step = "no_new_privs";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		goto fail;
	step = "bounding set";
	for (unsigned long c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
		if ((c >= 32 || !(KEPT & 1u << c)) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0)
			goto fail;
	step = "keepcaps";
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		goto fail;
	step = "groups";
	if (setgroups(1, &u->gid) < 0 || setresgid(u->gid, u->gid, u->gid) < 0)
		goto fail;
	step = "user";
	if (setresuid(u->uid, u->uid, u->uid) < 0)
		goto fail;
	step = "capabilities";
	if (capset_kept() < 0)
		goto fail;
	step = "keepcaps";
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
		goto fail;
	return 0;
fail:
	snprintf(error, PRIVS_ERROR_MAX, "cannot give up root's rights (%s): %s", step,
		 strerror(errno));
	return -errno;
}

int privs_check(char error[static PRIVS_ERROR_MAX])
{
	if (caps_effective() & 1u << CAP_NET_ADMIN)
		return 0;
	snprintf(error, PRIVS_ERROR_MAX,
		 "not allowed to program the network (CAP_NET_ADMIN): start it as root or by its unit");
	return -EPERM;
}

bool privs_has_net_raw(void)
{
	return caps_effective() & 1u << CAP_NET_RAW;
}
