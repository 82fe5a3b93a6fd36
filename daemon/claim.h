#pragma once
/*
 * claim: one daemon for each interface of a network namespace.
 *
 * An abstract socket whose name says so; it belongs to the network namespace, as interfaces do, and ends with its
 * process. Any user can bind such a name: a holder is looked at by connecting to it, since the kernel says whose a
 * listener is. Nothing is said over it.
 */
#include "lib/loop.h"

#define CLAIM_NAMES	8 /* who is no daemon and has one of them keeps nobody out: the next is as good */
#define CLAIM_ERROR_MAX 256

/* -EBUSY: a process of root or of our own user has it, so another daemon. Where others have all of the names, there is
 * no claim: 0, and *ret_fd is -1. Else it is had until *ret_fd is closed. On failure error has one line. */
int claim_take(const char *interface, int *ret_fd, char error[static CLAIM_ERROR_MAX]);
/* For who has it for long: hangs up on those who looked, of which there is room for a few thousand only. */
int claim_watch(struct loop *l, int fd, struct loop_io **ret);
