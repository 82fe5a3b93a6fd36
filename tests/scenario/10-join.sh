#!/bin/bash
# A node joins by key: it gets its addresses, the kernel has them, a second node appears at the first
# within seconds, and `up` again, `down` and `up` change nothing that they should not. Logged out, it is out for its
# peers and at the server, which an ephemeral one leaves altogether; where the server cannot be told, wgctl says so.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
#                                                 - carol 198.51.100.13, ephemeral
. "$(dirname "$0")/lib.sh"
need jq
hosts alice bob carol
start_coordinator

start_node alice
expect 4 wgctl alice status
said 'logged out'
# Scripts read this one without asking whether it is there.
[ "$(wgctl alice status --json | jq -c '[.Self | .Online, .HostName, .OS, .TailscaleIPs]')" = "[false,\"$(uname -n)\",\"linux\",[]]" ] ||
	fail "of itself alice says: $(wgctl alice status --json | jq .Self)"
step "up"
expect 0 up alice
step "up is done"
expect 0 ip4 alice
[ "$SAID" = 100.64.0.1 ] || fail "alice got $SAID"
check ip -n "${P}alice" addr show dev kernscale0 to 100.64.0.1/32 | grep -q 100.64.0.1 || fail "no address on kernscale0"
expect 0 ip6 alice
said '^fd7a:115c:a1e0:'
expect 0 wgctl alice status
said '^100\.64\.0\.1 +alice '
key=$(key_of alice)

# As root it started, as its own user it runs.
[ "$(awk '/^Uid:/ { print $2 }' "/proc/${PIDS[alice]}/status")" = "${NODE_USER%%:*}" ] || fail "kernscaled still runs as root"

join bob
wait_until 10 reach alice bob || fail "alice does not reach bob"
wait_until 10 reach bob alice || fail "bob does not reach alice"
check on alice ping -6 -q -c 1 -W 4 "$(ip6 bob)"
expect 0 wgctl alice status
said '^100\.64\.0\.2 +bob '

step "up again"
expect 0 up alice
[ "$(key_of alice)" = "$key" ] || fail "the node's key changed by a second up"
check reach alice bob 4

step "another name, and --reset: the machine's own again, at the same server"
named() {
	[ "$(admin nodes list -o json | jq -r '.[] | select(.ipAddresses[0] == "100.64.0.1").name')" = "$1" ]
}
check named alice
expect 0 wgctl alice up --hostname=other --timeout=20s
wait_until 10 named other || fail "alice is not called other: $(admin nodes list)"
expect 0 wgctl alice up --timeout=20s
check named other
expect 0 wgctl alice up --reset --timeout=20s
wait_until 10 named "$(uname -n)" || fail "alice is not called $(uname -n): $(admin nodes list)"
expect 0 wgctl alice status
[ "$(key_of alice)" = "$key" ] || fail "the node's key changed by --reset"
check reach alice bob 4

step "down and up"
expect 0 wgctl alice down
expect 3 wgctl alice status
said stopped
nothing_left alice
expect 0 up alice
expect 0 ip4 alice
said '^100\.64\.0\.1$'
wait_until 10 reach alice bob || fail "alice does not reach bob after down and up"

step "logout"
# seen_by_bob PATTERN: behind the name of a node, in bob's status
seen_by_bob() {
	wgctl bob status | grep -E "^[0-9.]+ +$1"
}
expect 0 wgctl alice logout
[ -z "$SAID" ] || fail "there was something to say: $SAID"
expect 4 wgctl alice status
nothing_left alice
[ ! -e "$W/alice/state/netmap.json" ] || fail "the map of before is still there"
! grep -q '"node_key"' "$W/alice/state/state.json" || fail "the key of before is still there"
wait_until 15 seen_by_bob '[^ ]+ .*offline.*; key expired' || fail "bob still sees alice: $(wgctl bob status)"
logged_out() {
	admin nodes list | grep -qE '100\.64\.0\.1,.* offline +\| yes *$'
}
wait_until 15 logged_out || fail "at the server alice is not logged out: $(admin nodes list)"
make_key brief --ephemeral --expiration 1h
start_node carol
expect 0 up_with brief carol
check wait_until 15 seen_by_bob 'carol '
nodes_are 3
expect 0 wgctl carol logout
wait_until 15 not seen_by_bob 'carol ' || fail "bob still sees carol: $(wgctl bob status)"
nodes_are 2

step "logout without a server"
stop coordinator KILL
expect 0 wgctl bob logout
said 'could not be told and still has this node'
said 'nodes delete'
expect 4 wgctl bob status
nothing_left bob
expect 0 wgctl bob logout
[ -z "$SAID" ] || fail "twice the same warning: $SAID"
run_coordinator
nodes_are 2
