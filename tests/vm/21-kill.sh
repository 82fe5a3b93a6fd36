#!/bin/bash
# kill -9 of the node's daemon: systemd starts it again, the table is held meanwhile, no packet is lost.
. "$(dirname "$0")/lib.sh"

traffic
check systemctl kill -s KILL kernscaled
check nft list table inet kernscale >/dev/null
step "killed, the table is there"
wait_until 20 restarted kernscaled 1 || fail "it does not come back"
check wgctl vm wait --timeout=20s
step "back"
no_loss
standing

# Longer dead than it takes to notice.
dropin kernscaled RestartSec=8
check systemctl kill -s KILL kernscaled
step "killed again, comes back in 8 s"
standing
wait_until 30 restarted kernscaled 2 || fail "it does not come back"
check wgctl vm wait --timeout=20s
standing
