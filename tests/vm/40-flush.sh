#!/bin/bash
# Somebody else's `nft flush ruleset`: while the daemon runs, while it is dead after kill -9, and after
# `systemctl stop`. Running, it is undone at once. Dead, the table is held: by the descriptor store, whatever
# the kernel. Stopped by its operator nothing holds it, and a start brings it back.
. "$(dirname "$0")/lib.sh"

flush() {
	nft flush ruleset 2>&1 || true # a kernel that knows owners refuses for a table that has one
}
there() {
	nft list table inet kernscale 2>/dev/null | grep -q 'chain forward'
}
flush
wait_until 10 there || fail "running, and the table stays away"
standing
step "flushed while it runs"

dropin kernscaled RestartSec=10
check systemctl kill -s KILL kernscaled
flush
there || fail "dead, and the table went with somebody else's flush"
standing
step "flushed while it is dead"
wait_until 30 restarted kernscaled 1 || fail "it does not come back"
check wgctl vm wait --timeout=20s
standing

check systemctl stop kernscaled
standing
flush
check systemctl start kernscaled
check wgctl vm wait --timeout=20s
wait_until 10 there || fail "started, and the table stays away"
standing
step "flushed while it is stopped"
