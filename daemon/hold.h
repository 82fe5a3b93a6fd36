#pragma once
/*
 * hold: the packet filter over the end of the daemon, where the table would go with its owner's socket.
 *
 * What `kernscaled --hold-filter` does: run by the service manager after each death of the daemon and
 * before it lets go of the socket (ExecStopPost=). Decides nothing and stays no longer than that.
 */
#include "daemon/config.h"

/* 0 also when there is nothing to hold; a negative errno, logged. */
int hold_filter(const struct config *cfg);
