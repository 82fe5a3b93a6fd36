#!/bin/bash
# A service that hangs (it is stopped by SIGSTOP) is killed by systemd's watchdog and started again; the mesh
# does not notice. WatchdogSec and the time it gets to end are made short for this.
. "$(dirname "$0")/lib.sh"

# How soon, the service is told when it starts.
STORY_UNDO=restart
for u in "${UNITS[@]}"; do
	[ "$(get "$u" WatchdogUSec)" = 30s ] || fail "$u: WatchdogSec is $(get "$u" WatchdogUSec)"
	dropin "$u" WatchdogSec=3 TimeoutStopSec=2
done
check systemctl restart "${UNITS[@]}"
sleep 8
traffic
for u in "${UNITS[@]}"; do
	props "$u" NRestarts MainPID WatchdogUSec
	[ "${PROP[WatchdogUSec]}" = 3s ] || fail "$u: the drop-in is not used"
	[ "${PROP[NRestarts]}" = 0 ] || fail "$u does not feed its watchdog"
	kill -STOP "${PROP[MainPID]}"
done
step "all three hang"
for u in "${UNITS[@]}"; do
	wait_until 30 restarted "$u" 1 || fail "$u hangs and nobody minds: ${PROP[*]}"
	wait_until 10 logged "$u" "Watchdog timeout" || fail "$u: nothing in the log"
	step "$u: killed by the watchdog and back"
done
check wgctl vm wait --timeout=20s
no_loss
standing
