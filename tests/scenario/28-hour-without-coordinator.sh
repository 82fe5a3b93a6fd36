#!/bin/bash
# limit: 9000 s
# time: simulated
# The coordinator alone is dead for an hour; its nodes have a relay elsewhere. A relayed and a direct pair
# lose not one packet. A daemon killed and started in between finds the relay by the map on its disk. Then
# the relay is dead for ten minutes while the coordinator is back: the direct pair loses nothing, the
# relayed one comes back with it.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#        pub 198.51.100.10 (coordinator, relay on its own) -+- carol 198.51.100.13, without UDP
. "$(dirname "$0")/../interop/lib.sh"
. "$(dirname "$0")/load.sh"
need wg
WAIT_STEP=1
nats alice bob
host carol 198.51.100.13
firewall_no_udp carol
start_relay
coordinator_config false "$W/derp.yaml"
start_coordinator
join alice bob carol
for n in bob carol; do wait_until 10 reach alice $n || fail "no session of alice and $n"; done
load alice bob 2 2 1000
load alice carol 2 2 1000
both_direct 10 alice bob
check relayed alice carol
stop coordinator KILL
phase "no coordinator"
sleep 3600
check relayed carol alice
expect 0 wgctl alice status
said "not connected.*$URL"
no_loss

load alice bob 2 2 1000
load alice carol 2 2 1000
sleep 5
phase "no coordinator, bob's daemon restarted"
stop bob KILL
since=$(now_msec)
start_node bob
answers() {
	wgctl carol ping -c 1 --timeout 1s bob | grep 'via DERP(our)'
}
wait_until 5 answers || fail "bob is not at the relay: $(wgctl bob status)"
in_time 2000 "$since" "bob is at the relay after the start"
sleep 60
run_coordinator
phase "the coordinator is back"
for n in alice bob carol; do wait_until 120 connected $n || fail "$n is not connected: $(wgctl $n status)"; done
no_loss

load alice bob 2 2 1000
sleep 5
stop relay KILL
phase "no relay"
sleep 600
phase "the relay is back"
check direct alice bob
start_relay
by_relay() {
	on carol ping -q -c 1 -W 1 "$(ip4 alice)"
}
wait_until 60 by_relay || fail "the relayed pair is not back: $(wgctl alice status)"
sleep 10
no_loss
