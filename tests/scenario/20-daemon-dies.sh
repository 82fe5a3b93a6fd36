#!/bin/bash
# The daemon is killed, stays away for a while, and starts again: not one packet of an established
# direct path is lost, interface, key and table are the same.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg
hosts alice bob
start_coordinator
join alice bob
expect 0 wgctl alice ping --until-direct -c 20 --timeout 5s bob
key=$(key_of alice)

start traffic alice ping -i 0.1 -W 1 "$(ip4 bob)"
both_direct 10 alice bob
stop alice KILL
step "killed"
[ "$(key_of alice)" = "$key" ] || fail "the interface went with the daemon"
check on alice nft list table inet kernscale >/dev/null
sleep 2
start_node alice
wait_until 5 wgctl alice status || fail "the daemon is not back: $(wgctl alice status 2>&1)"
step "back"
sleep 3
all_answered traffic
[ "$(key_of alice)" = "$key" ] || fail "the key changed"

step "stopped in order, the mesh stays up"
check stop alice
check on alice ping -q -c 3 -i 0.2 -W 1 "$(ip4 bob)"
check on alice nft list table inet kernscale >/dev/null
start_node alice
expect 0 wgctl alice down
nothing_left alice
