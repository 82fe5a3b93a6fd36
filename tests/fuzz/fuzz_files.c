/*
 * Files that an administrator writes or carries about: kernscaled's settings, and a server's key, from the same text (JSON
 * is YAML, too). Settings are whole and within their bounds or there is a sentence; a key that is taken stays the same.
 *
 * words: daemon/config.c lib/keyfile.c
 * max_len: 4096
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config.h"
#include "lib/keyfile.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void remove_file(void);

static const char *file_path(void)
{
	static char path[64];

	if (!*path) {
		/* in memory: ten times as many runs */
		snprintf(path, sizeof(path), "%s/kernscale-fuzz-files.%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
			 (int)getpid());
		atexit(remove_file);
	}
	return path;
}

static void remove_file(void)
{
	unlink(file_path());
}

static void whole(const char *s, size_t room)
{
	CHECK(*s && memchr(s, 0, room));
}

static void settings(const char *path)
{
	char file[64], error[CONFIG_ERROR_MAX] = "", *argv[] = { (char[]){ "kernscaled" }, (char[]){ "--config" }, file, NULL };
	static struct config c;

	snprintf(file, sizeof(file), "%s", path);
	if (config_load(3, argv, &c, error) < 0) {
		CHECK(*error && memchr(error, 0, sizeof(error)));
		return;
	}
	whole(c.statedir, sizeof(c.statedir));
	whole(c.runtimedir, sizeof(c.runtimedir));
	whole(c.socket, sizeof(c.socket));
	whole(c.interface, sizeof(c.interface));
	whole(c.table, sizeof(c.table));
	whole(c.user, sizeof(c.user));
	CHECK(!strpbrk(c.interface, "/ .\n{}\"") && !strpbrk(c.table, "/ .\n{}\""));
	CHECK(c.route_table != 0 && (c.route_table < 253 || c.route_table > 255));
	CHECK(c.rule_base >= 1 && c.rule_base <= 32000);
	CHECK(!c.check_only && !c.hold_filter);
}

static void key(const char *path)
{
	struct key_pair pair, again;
	struct key pub;

	if (keyfile_load(path, KEYFILE_LINE, &pair) < 0)
		return;
	CHECK(key_public(&pair.priv, &pub) == 0 && key_equal(&pub, &pair.pub));
	CHECK(keyfile_load(path, KEYFILE_JSON, &again) == 0 && key_equal(&again.priv, &pair.priv));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	const char *path = file_path();

	if (fd < 0)
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	settings(path);
	key(path);
	return 0;
}
