#!/bin/bash
# limit: 3000 s
# time: simulated
# A network swallows all packets of a node, and nobody is told: no connection is closed. Each end finds out by itself
# and gives up what is half open: the node within two minutes, its relay in a quarter of one, the coordinator, which
# calls the node online until then, within three. When the network is back, so is the node.
#
#   pub 198.51.100.10 (coordinator :443, relay :8443) - inet - alice 198.51.100.11
#                                                            - rcarol 198.51.100.13 (no UDP) - carol 192.168.3.2
. "$(dirname "$0")/lib.sh"
need wg
WAIT_STEP=1
hosts alice
nat carol 198.51.100.13 192.168.3
firewall_no_udp carol
start_relay
coordinator_config false "$W/derp.yaml"
start_coordinator
join alice carol
check wait_until 20 reach alice carol
check wait_until 5 relayed alice carol
sleep 60
files=$(descriptors coordinator) relayed=$(descriptors relay)
offline() { wgctl alice status | grep -E '^[0-9.]+ +carol .*offline'; }
refute offline

# From now on, for all that carol says or hears
swallow() {
	check on rcarol nft -f - <<-EOF
		table inet dark { chain through { type filter hook forward priority -300; drop; }; }
	EOF
	since=$(now_msec)
}
# within SECONDS WHAT COMMAND…
within() {
	wait_until "$1" "${@:3}" || fail "$2 not within $1 s: $(wgctl alice status; wgctl carol status)"
	step "$2 after $((($(now_msec) - since) / 1000)) s"
}
closed() { [ "$(descriptors "$1")" -lt "$2" ]; }
swallow
# What alice has for carol goes to the relay, which has to find out by that.
start traffic alice ping -q -i 5 "$(ip4 carol)"
within 45 "the relay has given up" closed relay "$relayed"
within 130 "carol knows that the coordinator is not there" not connected carol
within 60 "carol knows that the relay is not there" eval 'wgctl carol status | grep -q "Not connected to the home relay"'
within 60 "the coordinator has given up, and alice knows" offline
[ "$(descriptors coordinator)" -lt "$files" ] || fail "the coordinator holds what is half open"
[ $(($(now_msec) - since)) -le 180000 ] || fail "that took too long"

check on rcarol nft delete table inet dark
since=$(now_msec)
within 60 "carol is connected" connected carol
within 20 "alice reaches carol" reach alice carol
check wait_until 5 relayed alice carol
refute offline
check wait_until 20 at_most $((files + 1)) descriptors coordinator
check wait_until 20 at_most $((relayed + 1)) descriptors relay
