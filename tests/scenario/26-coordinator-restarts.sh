#!/bin/bash
# limit: 240 s
# Coordinator and relay are restarted in order and by kill -9, a few times each. Map streams and relay connections
# come back by themselves, nobody is lost, the direct pair loses not one packet and status says what is so in
# between. Who could not listen while others came and went hears of it when it is back.
#
#   pub 198.51.100.10 (coordinator :443, relay :8443) - inet - alice 198.51.100.11
#                                                            - bob   198.51.100.12
#                                                            - rcarol 198.51.100.13 (no UDP) - carol 192.168.3.2
. "$(dirname "$0")/lib.sh"
. "$HERE/load.sh"
need wg
hosts alice bob
nat carol 198.51.100.13 192.168.3
firewall_no_udp carol
start_relay
coordinator_config false "$W/derp.yaml"
start_coordinator
join alice bob carol
expect 0 wgctl alice ping --until-direct -c 20 --timeout 5s bob
alice_ip=$(ip4 alice) carol_ip=$(ip4 carol)
wait_until 10 reach alice carol || fail "no way to carol"
load alice bob 50 50 100
both_direct 15 alice bob
nodes_are 3

# back: each node is connected again, to this one; and after how many ms since $since
sessions() { on pub ss -Htn state established sport = :443 | wc -l; }
back() {
	local n

	wait_until 20 at_least 3 sessions || fail "$(sessions) of 3 are back"
	for n in alice bob carol; do
		wait_until 20 connected $n || fail "$n is not back: $(wgctl $n status)"
		step "$n is back after $(($(now_msec) - since)) ms"
	done
}

for how in TERM KILL KILL; do
	phase "coordinator: $how"
	stop coordinator $how
	for n in alice bob carol; do
		wait_until 5 not connected $n || fail "the coordinator is gone and $n does not say so: $(wgctl $n status)"
	done
	check reach alice carol 4
	run_coordinator
	since=$(now_msec)
	step "coordinator started after $how"
	back
	in_time 8000 "$since" "all are back"
done
[ "$(ip4 alice)" = "$alice_ip" ] || fail "alice has another address"

# A quick restart, seen by nobody but the streams that it ends.
phase "coordinator: quick"
stop coordinator KILL
run_coordinator
since=$(now_msec)
back

relay_way() {
	on alice ping -q -c 1 -W 1 "$carol_ip"
}

relay_missed() {
	wgctl alice status | grep -q 'Not connected to the home relay our'
}

for how in TERM KILL KILL; do
	phase "relay: $how"
	stop relay $how
	refute relay_way
	wait_until 5 relay_missed || fail "the relay is gone and alice does not say so: $(wgctl alice status)"
	start_relay
	since=$(now_msec)
	wait_until 15 relay_way || fail "no way by the relay: $(wgctl alice status)"
	in_time 8000 "$since" "the first reply by the relay ($how)"
	check wait_until 5 relayed alice carol
	refute relay_missed
done

# bob cannot listen while dave joins and carol is deleted.
phase "a delta is missed"
host dave 198.51.100.14
start_node dave
stop coordinator KILL
kill -STOP "${PIDS[bob]}"
run_coordinator
check up dave
check admin nodes delete --identifier carol --force
kill -CONT "${PIDS[bob]}"
wait_until 15 connected bob || fail "bob is not back"
has() {
	wgctl bob status | grep -qE "^[0-9.]+ +$1 "
}
wait_until 10 has dave || fail "bob does not know dave: $(wgctl bob status)"
refute has carol
wait_until 10 reach bob dave || fail "bob does not reach dave"
refute on bob ping -q -c 1 -W 1 "$carol_ip"
wgctl bob status

sleep 1
no_loss
nodes_are 3 # alice, bob and dave
refute grep -iE 'database:|out of memory' "$LOGS/coordinator.log"
