#!/bin/bash
# limit: 120 s
# Coordinator and relay are gone, and then one daemon dies and starts again: it goes by the map on
# disk, answers discovery at once, and not one packet is lost; the pair stays direct. The packet filter
# is taken over as it is.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg
hosts alice bob
start_coordinator
join alice bob
alice_ip=$(ip4 alice)
expect 0 wgctl bob ping --until-direct -c 20 --timeout 5s alice
start quiet bob ping -q -i 0.05 -c 900 -W 1 "$alice_ip"
both_direct 10 alice bob
sleep 2.5 # the map is on disk
key=$(on alice wg show kernscale0 public-key)

stop coordinator KILL
step "coordinator and relay are gone"
# What the new daemon does to the table is seen from outside, line by line as it happens.
start monitor alice stdbuf -oL nft monitor
stop alice KILL
sleep 1
start_node alice
since=$(now_msec)
wait_until 2 wgctl bob ping -c 1 --timeout 500ms alice || fail "no pong from the new daemon within 2 s"
step "discovery is answered, $(($(now_msec) - since)) ms after the start"
wait_until 2 direct alice bob || fail "alice did not adopt the path: $(wgctl alice status)"
expect 0 wgctl alice status
said "not connected.*$URL"
[ "$(on alice wg show kernscale0 public-key)" = "$key" ] || fail "the key changed"

for _ in $(seq 7); do
	sleep 5
	check direct bob alice
	check direct alice bob
done
step "direct for 35 s without coordinator"
check on alice nft add table inet seen
check wait_until 2 grep -q "add table inet seen" "$LOGS/monitor.log"
refute grep -qE "(chain|rule|set|element|delete table) inet kernscale( |$)" "$LOGS/monitor.log"
pid=${PIDS[quiet]}
wait "$pid"
unset "PIDS[quiet]"
tail -n 3 "$LOGS/quiet.log"
check grep -q ' 0% packet loss' "$LOGS/quiet.log"

# The emulator may need more than the 45 s after which an idle path rests.
start quiet bob ping -q -i 0.5 "$alice_ip"
step "the coordinator is back"
run_coordinator
live() {
	! wgctl "$1" status | grep -qi "not connected.*$URL"
}
wait_until 40 live alice || fail "alice is not connected again: $(wgctl alice status)"
check reach alice bob 2 # the load has ended, and a path without any is shown as idle in time
check direct alice bob
