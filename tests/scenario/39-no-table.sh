#!/bin/bash
# limit: 180 s
# No filter, no tunnel: while alice's daemon is stopped her table is taken away and another's table has
# its name, so that none can be made. The interface, which is adopted with its peers, is set down, and
# status says why; when the name is free again the mesh comes back as it was.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob
start_coordinator
join alice bob
alice_ip=$(ip4 alice)
bob_reaches() {
	on bob ping -q -c 1 -W 1 "$alice_ip"
}
check wait_until 20 bob_reaches
map_settled alice bob
key=$(key_of alice)

# At once: a daemon that lives would have its own there again.
take_name() {
	printf '%s table inet kernscale\n' delete add | on alice nft -f -
}
check stop alice
check take_name
check bob_reaches
step "stopped, and the table is another's: the mesh is open"
start_node alice
check wait_until 5 not link_is_up alice
refute bob_reaches
expect 0 wgctl alice status
said 'not in force.*interface is down.*not ours'
[ "$(key_of alice)" = "$key" ] || fail "the key changed"
[ -n "$(on alice wg show kernscale0 peers)" ] || fail "the peers are gone"
stop alice KILL
start_node alice
check wait_until 5 wgctl alice status
not link_is_up alice || fail "up after the next start, and still no filter"
step "down, and status says why"

check on alice nft delete table inet kernscale
expect 0 wgctl alice up
check wait_until 5 link_is_up alice
check on alice nft list chain inet kernscale forward >/dev/null
check wait_until 20 reach alice bob # her session ended with the link; bob would find out after 15 s
check wait_until 20 bob_reaches
step "the name is free: as before"

# Nor may it be open because something else is in the way of coming up: here another has the port that is wanted now.
check stop alice
check on alice nft delete table inet kernscale
check bob_reaches
on alice ip link add squat type wireguard
on alice wg set squat listen-port 5555
check on alice ip link set squat up
start_node alice --port 5555
check wait_until 5 not link_is_up alice
refute bob_reaches
step "the table is gone and the device cannot be set up: down"
check on alice ip link delete squat
check stop alice
start_node alice
check wait_until 10 link_is_up alice
check on alice nft list chain inet kernscale forward >/dev/null
check wait_until 20 reach alice bob
check wait_until 20 bob_reaches

# While the daemon lives, where a table cannot have an owner: also when somebody sets the link up again.
check stop alice
old_kernel start_node alice
check wait_until 5 wgctl alice status
check wait_until 5 take_name
check wait_until 5 not link_is_up alice
expect 0 wgctl alice status
said 'not in force.*interface is down.*not ours'
check on alice ip link set kernscale0 up
check wait_until 5 not link_is_up alice
check on alice nft delete table inet kernscale
check wait_until 10 link_is_up alice
check on alice nft list chain inet kernscale forward >/dev/null
check wait_until 20 reach alice bob
check wait_until 20 bob_reaches
step "the same while the daemon lives"
