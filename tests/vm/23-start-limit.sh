#!/bin/bash
# The node's daemon is never given up by systemd, however often it dies. Where the operator sets a limit all the
# same and it is hit, the mesh stays up and filtered, and `systemctl reset-failed; start` heals. (Where the table
# goes with its owner a copy filters: 23-table-held.)
. "$(dirname "$0")/lib.sh"

[ "$(get kernscaled StartLimitIntervalUSec)" = 0 ] || fail "there is a start limit: $(get kernscaled StartLimitIntervalUSec)"
dropin kernscaled RestartSec=100ms
for n in 1 2 3 4 5 6; do
	check systemctl kill -s KILL kernscaled
	wait_until 20 restarted kernscaled $n || fail "death number $n was the last: $(get kernscaled SubState)"
done
step "died six times, runs"
check wgctl vm wait --timeout=20s
standing

dropin kernscaled '[Unit]' StartLimitIntervalSec=300 StartLimitBurst=3 '[Service]' RestartSec=100ms
check systemctl reset-failed kernscaled
traffic
give_up
step "start limit hit"
refute systemctl start kernscaled
if outlives_owner; then
	standing
else
	standing_by kernscale-held
fi
step "the mesh stands"
check systemctl reset-failed kernscaled
check systemctl start kernscaled
check wgctl vm wait --timeout=20s
no_loss
standing
