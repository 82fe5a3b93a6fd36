#!/bin/bash
# limit: 20000 s
# time: simulated
# bob's key expires two hours from now, and the coordinator is dead when it does. Until then not one
# packet is lost; then both sides end it by their own clocks and say why, and nobody else is harmed. When
# the coordinator is back and the key is good again, so is the mesh.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
#                                                 - carol 198.51.100.13
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"
need wg
WAIT_STEP=1
hosts alice bob carol
start_coordinator
join alice bob carol
bob_ip=$(ip4 bob)
for n in bob carol; do wait_until 10 reach alice $n || fail "no session of alice and $n"; done
load alice bob 1 1 1000
load alice carol 1 1 1000
end=$(($(date +%s) + 7200))
expect 0 admin nodes expire --identifier 2 --expiry "$(date -u -d "@$end" +%Y-%m-%dT%H:%M:%SZ)"
both_direct 10 alice bob
both_direct 10 alice carol
sleep 60
expect 0 wgctl bob status
said "key expires at $(date -u -d "@$end" '+%Y-%m-%d %H:%M') UTC.*wgctl up --force-reauth"
refute grep -q 'key expires at' <<<"$(wgctl alice status)"
phase "the key is good"
sleep 5340
stop coordinator KILL
phase "the key is good, no coordinator"
sleep $((end - $(date +%s) - 10))
check direct alice bob
check direct alice carol
no_loss

load alice carol 1 1 1000
sleep 2
phase "bob's key has expired"
sleep 30
refute on alice ping -q -c 1 -W 2 "$bob_ip"
expect 0 wgctl alice status
said ' bob .*expired'
[ "$(on alice wg show kernscale0 peers | wc -l)" = 1 ] || fail "alice keeps an expired peer: $(on alice wg show kernscale0)"
expect 0 wgctl bob status
said ' bob .*expired'
sleep 600
check reach alice carol
no_loss

run_coordinator
expect 0 admin nodes expire --identifier 2 --disable
back() {
	on alice ping -q -c 1 -W 2 "$bob_ip"
}
wait_until 120 back || fail "bob is not back: $(wgctl alice status; wgctl bob status)"
