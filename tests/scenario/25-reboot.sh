#!/bin/bash
# limit: 240 s
# Both hosts lose their power while the coordinator is away, and only the relay is there: the mesh comes
# up from the map on disk, by relay first (UDP is cut), then direct; a node whose port was chosen by the
# kernel has the same again. Nothing but the state folder outlives a reboot: interface, rules, table
# and runtime folder are taken away.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob
start_relay
coordinator_config false "$W/derp.yaml"
start_coordinator
start_node alice --port 0
check up alice
join bob
alice_ip=$(ip4 alice) bob_ip=$(ip4 bob)
check wait_until 20 reach alice bob
map_settled alice bob
map_settled bob alice
port=$(on alice wg show kernscale0 listen-port)
key=$(key_of alice)

stop coordinator KILL
check running relay
for n in alice bob; do
	stop $n KILL
	check on $n ip link del kernscale0
	check on $n nft delete table inet kernscale
	delete_rules $n
	rm -rf "$W/$n/run"
	nothing_left $n
done
firewall_no_udp bob
step "both hosts are down, the coordinator is away"

# An initiation that the relay cannot deliver yet is lost, and the kernel's next one follows after 5 s (REKEY_TIMEOUT).
relays_of() { grep -c 'relay our: connected$' "$LOGS/$1.log"; }
at_relay() { [ "$(relays_of "$1")" -gt "${before[$1]}" ]; }
declare -A before=()
for n in alice bob; do
	node_folders $n
	before[$n]=$(relays_of $n)
done
since=$(now_msec)
launch_node alice --port 0
launch_node bob
check wait_until 10 at_relay alice
check wait_until 10 at_relay bob
check wait_until 15 on alice ping -q -c 1 -W 0.3 "$bob_ip"
in_time 5000 "$since" "the first reply by relay after the start"
check wait_until 5 relayed alice bob
check on bob ping -q -c 1 -W 4 "$alice_ip"
[ "$(key_of alice)" = "$key" ] || fail "the key changed"
[ "$(on alice wg show kernscale0 listen-port)" = "$port" ] || fail "another port: $(on alice wg show kernscale0 listen-port), not $port"
expect 0 wgctl alice status
said "not connected.*$URL"
check on alice nft list table inet kernscale >/dev/null

firewall_open bob
start traffic alice ping -q -i 0.2 "$bob_ip"
wait_until 70 direct alice bob || fail "not direct: $(wgctl alice status)"
step "direct"
wait_until 10 direct bob alice || fail "not direct: $(wgctl bob status)"

run_coordinator
check wait_until 60 connected alice
check wait_until 60 connected bob
check direct alice bob
