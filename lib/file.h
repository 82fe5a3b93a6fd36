#pragma once
/*
 * file: whole small files, read with a limit and replaced so that a crash leaves the old or the new.
 */
#include <stddef.h>
#include <sys/types.h>

#include "lib/buf.h"

/* Appends the whole file; out needs room for max_bytes + 1. Regular files only, links are not followed. -ENOENT, -ENOBUFS over max_bytes. */
int file_read(const char *path, size_t max_bytes, struct buf *out);

/* Writes beside the file, syncs, renames over it and syncs the folder. On failure the old file stays. */
int file_replace(const char *path, const void *p, size_t n, mode_t mode);
/* The same without waiting for the disk: for what may be lost in a power cut, but never be half. */
int file_replace_unsynced(const char *path, const void *p, size_t n, mode_t mode);
