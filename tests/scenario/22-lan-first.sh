#!/bin/bash
# A host has a route of its own to an address that a peer has in the mesh, as one in the network of an office may. The
# host's own wins, unless it was said otherwise (lan-first); a default route never does.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11, 100.64.0.2 by eth0
#                                                 - bob   198.51.100.12, 100.64.0.2 in the mesh
. "$(dirname "$0")/lib.sh"
hosts alice bob
start_coordinator
join alice bob
wait_until 10 reach alice bob || fail "alice does not reach bob: $(wgctl alice status)"
expect 0 ip4 bob
[ "$SAID" = 100.64.0.2 ] || fail "bob got $SAID"
bob6=$(ip6 bob)

# leaves_by DEVICE: for bob's addresses
leaves_by() {
	on alice ip route get 100.64.0.2 | grep -q " dev $1 " && on alice ip -6 route get "$bob6" | grep -q " dev $1 "
}
check leaves_by kernscale0
check ip -n "${P}alice" route add 100.64.0.0/24 via 198.51.100.1
check ip -n "${P}alice" route add "$bob6/120" via 2001:db8::1
check rules alice 5
check leaves_by eth0

step "told that the mesh wins"
stop alice
start_node alice --lan-first false
wait_until 10 rules alice 4 || fail "rules: $(on alice ip rule)"
check leaves_by kernscale0
wait_until 10 reach alice bob || fail "alice does not reach bob: $(wgctl alice status)"

step "and back"
stop alice
start_node alice --lan-first true
wait_until 10 rules alice 5 || fail "rules: $(on alice ip rule)"
check leaves_by eth0
expect 0 wgctl alice down
nothing_left alice
