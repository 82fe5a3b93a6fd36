#!/bin/bash
# The other ways to share the one UDP port, each a whole mesh behind NATs: without the nftables rule
# (raw sockets with a filter get copies of discovery packets), and without CAP_NET_RAW, as in a container
# that drops it (a rule rewrites the source port of what the daemon sends).
#
#   raw   192.168.1.2 - NAT 198.51.100.11 -+
#   norw  192.168.2.2 - NAT 198.51.100.12 -+- inet - pub 198.51.100.10 (coordinator, relay)
#                        none 198.51.100.13 -+
. "$(dirname "$0")/lib.sh"
need wg setpriv
nats raw norw
host none 198.51.100.13
start_coordinator

rule() {
	on "$1" nft list table inet kernscale | grep -q "$2"
}

step "raw sockets instead of the rule"
start_node raw --raw-port-sharing
check up raw
step "no CAP_NET_RAW"
NODE_UNDER="setpriv --bounding-set=-net_raw" start_node norw
check up norw
[ $((0x$(awk '/^CapPrm:/ { print $2 }' "/proc/${PIDS[norw]}/status") & 0x2000)) = 0 ] ||
	fail "norw has CAP_NET_RAW: nothing is tested"

check wait_until 10 reach raw norw # what is sent before a peer's relay is known is lost
expect 0 wgctl raw ping --until-direct -c 10 --timeout 5s norw
said 'via 198\.51\.100\.12:'
expect 0 wgctl norw ping --until-direct -c 10 --timeout 5s raw
said 'via 198\.51\.100\.11:'
check rule norw tproxy
refute rule raw tproxy
check rule norw 'udp sport set'
refute rule raw 'udp sport set'
check tcp raw norw 1
check tcp norw raw 1
check direct raw norw >/dev/null
check direct norw raw >/dev/null

step "the relay, while the direct path is cut, and direct again"
firewall_no_udp norw
wait_until 30 relayed raw norw || fail "raw still says direct: $(wgctl raw status)"
# Each finds out by itself that the path is cut.
check wait_until 20 reach raw norw 3
check wait_until 20 reach norw raw 3
firewall_open norw
start traffic raw ping -q -i 0.2 "$(ip4 norw)"
both_direct 40 raw norw
stop traffic INT

step "neither: refused in a sentence"
NODE_UNDER="setpriv --bounding-set=-net_raw" start_node none --raw-port-sharing
expect 1 wgctl none up --login-server="$URL" --auth-key="file:$W/key" --timeout=10s
said 'cannot share UDP port 41641'
stop none
nothing_left none
for n in raw norw; do
	expect 0 wgctl $n down
	nothing_left $n
done
