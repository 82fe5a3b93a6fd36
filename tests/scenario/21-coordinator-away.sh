#!/bin/bash
# limit: 150 s
# The coordinator is gone, one daemon dies and starts again: it goes by the map on disk, and within 2 s of its start
# it answers discovery and what comes by relay gets through again. Then the relay is gone as well, and it dies
# once more: it answers discovery as soon, not one packet is lost, and the pair stays direct. The packet filter is
# taken over as it is.
#
#   pub 198.51.100.10 (coordinator, relay by itself) - inet - alice 198.51.100.11
#                                                           - bob   198.51.100.12
#                                                           - carol 198.51.100.13, without UDP
. "$(dirname "$0")/lib.sh"
need wg
hosts alice bob carol
firewall_no_udp carol
start_relay
coordinator_config false "$W/derp.yaml"
start_coordinator
join alice bob carol
alice_ip=$(ip4 alice)
expect 0 wgctl bob ping --until-direct -c 20 --timeout 5s alice
start quiet bob ping -i 0.05 -W 1 "$alice_ip"
by_relay() {
	on carol ping -q -c 1 -W 0.3 "$alice_ip"
}
check wait_until 20 by_relay
both_direct 10 alice bob
check relayed carol alice
map_settled alice bob carol
key=$(key_of alice)
answers() {
	wgctl bob ping -c 1 --timeout 300ms alice
}
# again FUNCTION WHAT: alice's daemon dies, and one second later there is another one. WHAT, as FUNCTION sees it, is over
# with the first one and begins with the second: 2 s later by the middle of all trials, and none waits for the
# kernel's next initiation (REKEY_TIMEOUT, 5 s).
declare -A TOOK=()
again() {
	local since

	stop alice KILL
	sleep 1
	refute "$1"
	node_folders alice
	since=$(now_msec)
	launch_node alice
	wait_until 10 "$1" || fail "$2: not after the start: $(wgctl alice status)"
	TOOK[$1]+=" $(($(now_msec) - since))"
	in_time 4500 "$since" "$2: after the start"
}

stop coordinator KILL
step "the coordinator is gone"
# What the new daemon does to the table is seen from outside, line by line as it happens.
start monitor alice stdbuf -oL nft monitor
for _ in 1 2 3; do
	again by_relay "relays are bridged"
	again answers "discovery is answered"
done
stop relay KILL
step "coordinator and relay are gone"
again answers "discovery is answered"
for f in by_relay answers; do
	# shellcheck disable=SC2086 # numbers
	[ "$(middle ${TOOK[$f]})" -lt $((2000 * ${WAIT_FACTOR:-1} * ${SLOWNESS:-1})) ] || fail "$f: after${TOOK[$f]} ms"
done
wait_until 10 direct alice bob || fail "alice did not adopt the path: $(wgctl alice status)"
expect 0 wgctl alice status
said "not connected.*$URL"
[ "$(key_of alice)" = "$key" ] || fail "the key changed"

for _ in $(seq 7); do
	sleep 5
	check direct bob alice
	check direct alice bob
done
step "direct for 35 s without coordinator"
check on alice nft add table inet seen
check wait_until 10 grep -q "add table inet seen" "$LOGS/monitor.log"
refute grep -qE "(chain|rule|set|element|delete table) inet kernscale( |$)" "$LOGS/monitor.log"
all_answered quiet

# The emulator may need more than the 45 s after which an idle path rests.
start quiet bob ping -q -i 0.5 "$alice_ip"
step "the coordinator is back"
start_relay
run_coordinator
wait_until 40 connected alice || fail "alice is not connected again: $(wgctl alice status)"
check reach alice bob 4 # the load has ended, and a path without any is shown as idle in time
check direct alice bob
