#!/bin/bash
# `systemctl stop`, `start` and `restart` of the node: interface, key, table and filter stay, and no packet of
# the mesh is lost, neither while it is stopped nor when it comes back.
. "$(dirname "$0")/lib.sh"

traffic
pid=$(get kernscaled MainPID)
check systemctl stop kernscaled
props kernscaled Result ActiveState
[ "${PROP[Result]} ${PROP[ActiveState]}" = "success inactive" ] || fail "stopped with ${PROP[Result]}, ${PROP[ActiveState]}"
[ ! -e "/proc/$pid" ] || fail "the process is still there"
step "stopped"
standing
step "the mesh stands"
check systemctl start kernscaled
check wgctl vm wait --timeout=20s
step "started"
standing
check systemctl restart kernscaled
check wgctl vm wait --timeout=20s
step "restarted"
no_loss
standing
[ "$(get kernscaled NRestarts)" = 0 ] || fail "systemd restarted it by itself"
