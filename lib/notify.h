#pragma once
/*
 * notify: descriptors that the service manager keeps over our own death, under names: systemd's
 * descriptor store (sd_notify(3)), or whatever else speaks its protocol.
 *
 * NOTIFY_SOCKET alone proves no store: units keep nothing by default, and containers pass the socket
 * on. So storing asks for proof. Owns nothing: what is taken belongs to the taker. Waits, for two
 * seconds at most, so it is for the start of a program only; but not notify_send().
 */
#include <stddef.h>

/* What was kept under that name from before; everything else that was handed to us is closed. Once
 * in the life of a process. -ENOENT: nothing. */
int notify_take(const char *name);
/* 0: fd is kept from now on, also if we die at once. -ENOENT: no service manager; -EOPNOTSUPP: it
 * keeps nothing; -ETIMEDOUT: it does not say. */
int notify_store(const char *name, int fd);
/* Nothing is kept under that name any more. */
void notify_forget(const char *name);

/* A socket for notify_send(), the caller's: sd_notify() needs a descriptor each time, and who has none left would be
 * taken for dead. -ENOENT: no service manager; -EAFNOSUPPORT: its address is none of a Unix socket. */
int notify_socket(void);
/* Never waits: a manager that is busy misses it. */
int notify_send(int fd, const char *state);
