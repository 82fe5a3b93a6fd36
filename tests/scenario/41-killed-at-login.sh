#!/bin/bash
# limit: 180 s
# alice logs in anew and has a new key, but nobody confirms it, and her daemon is killed: the next one goes
# on with the key that the others know, answers discovery, and none of bob's pings is lost. Then the
# log-in is done, and killing is harmless again.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg
hosts alice bob
start_coordinator
join alice bob
alice_ip=$(ip4 alice)
start quiet bob ping -i 0.1 -W 1 "$alice_ip"
both_direct 20 alice bob
map_settled alice bob
stop quiet INT
key=$(key_of alice)

start quiet bob ping -i 0.1 -W 1 "$alice_ip"
expect 5 wgctl alice up --force-reauth --timeout=3s
step "a log-in waits for somebody"
took=()
for _ in 1 2 3; do
	stop alice KILL
	node_folders alice
	since=$(now_msec)
	launch_node alice
	wait_until 10 wgctl bob ping -c 1 --timeout 300ms alice || fail "no pong from the new daemon"
	took+=($(($(now_msec) - since)))
	in_time 4500 "$since" "discovery is answered after the start"
	check wait_until 5 direct bob alice
	[ "$(key_of alice)" = "$key" ] || fail "the key changed"
done
[ "$(middle "${took[@]}")" -lt $((2000 * ${WAIT_FACTOR:-1} * ${SLOWNESS:-1})) ] || fail "discovery is answered after ${took[*]} ms"
sleep 8
check direct bob alice
all_answered quiet

check up alice --force-reauth
[ "$(key_of alice)" != "$key" ] || fail "the key is the old one"
check wait_until 20 reach bob alice
stop alice KILL
start_node alice
check wait_until 20 reach bob alice
