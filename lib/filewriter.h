#pragma once
/*
 * filewriter: replaces a file as file_replace() does, synced, while the loop goes on: a thread waits for the disk.
 *
 * One file at a time. Owns the thread, which is there only as long as it has something to do, and what it
 * writes.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

struct filewriter;

/* result: as of file_replace(). took_usec: how long the disk took. */
typedef void filewriter_fn(void *data, int result, uint64_t took_usec);

int filewriter_new(struct loop *l, filewriter_fn *fn, void *data, struct filewriter **ret);
/* Waits for the file that is being written; nobody is told. */
void filewriter_free(struct filewriter *w);
DEFINE_CLEANUP(struct filewriter *, filewriter_free)

/* Takes what content holds, unless it fails. -EBUSY: one is being written. */
int filewriter_replace(struct filewriter *w, const char *path, struct buf *content, mode_t mode);
bool filewriter_busy(const struct filewriter *w);
/* Waits for the file that is being written, and tells: before it is to be removed, say. */
void filewriter_wait(struct filewriter *w);
