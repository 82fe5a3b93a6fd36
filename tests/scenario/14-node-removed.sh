#!/bin/bash
# A node is deleted at the coordinator: its peers drop it within seconds, it is told so, and can join
# again with a key. Deleted it stays also for a peer that starts anew while the coordinator is away.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg
hosts alice bob
start_coordinator
join alice bob
wait_until 10 reach alice bob || fail "alice does not reach bob"
bob_ip=$(ip4 bob) alice_ip=$(ip4 alice)
wait_until 15 in_map alice bob || fail "alice has not kept the map"

expect 0 admin nodes list
id=$(admin nodes list --output json | jq -r '.[] | select((.name // .given_name) == "bob") | .id')
[ -n "$id" ] || fail "no node bob in the list"
expect 0 admin nodes delete --identifier "$id" --force
step "bob is deleted"

no_peers() {
	[ -z "$(on alice wg show kernscale0 peers)" ]
}
wait_until 5 no_peers || fail "alice still has bob as a peer: $(on alice wg show kernscale0)"
step "alice dropped bob"
refute on alice ping -q -c 1 -W 1 "$bob_ip"
logged_out() {
	wgctl bob status
	[ $? = 4 ]
}
wait_until 15 logged_out || fail "bob does not know: $(wgctl bob status)"
step "bob knows"

step "alice starts anew, from the map that it kept"
check wait_until 30 not in_map alice bob
stop coordinator KILL
stop alice KILL
ip -n "${P}alice" link del kernscale0 # as after a reboot: what is there comes from the map
launch_node alice
check wait_until 20 listens alice
check wait_until 20 has_address alice "$alice_ip"
check wait_until 20 link_is_up alice
for _ in 1 2 3; do
	refute on alice ping -q -c 1 -W 1 "$bob_ip"
	check no_peers
done
refute connected alice
run_coordinator
wait_until 60 connected alice || fail "alice does not find the coordinator again"
check no_peers
# Without a key a person has to log it in; a key that comes later is taken all the same.
expect 5 wgctl bob up --timeout=6s
said 'To authenticate, visit'
said 'nobody has logged this node in'
expect 0 up bob
refute grep -q 'To authenticate' <<<"$SAID"
wait_until 10 reach alice bob || fail "alice does not reach bob after it joined again"
