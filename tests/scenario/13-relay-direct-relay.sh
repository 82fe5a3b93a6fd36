#!/bin/bash
# limit: 180 s
# UDP is cut under a direct path and restored: the pair goes on by the relay, and back to direct.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#                              pub 198.51.100.10 (coordinator, relay)
. "$(dirname "$0")/lib.sh"
need wg
nats alice bob
start_coordinator
join alice bob
bob_ip=$(ip4 bob)
reach_bob() {
	on alice ping -q -c 1 -W 1 "$bob_ip"
}

wait_until 5 reach_bob || fail "no relay"
step "first reply"
# Traffic keeps the path wanted; a ping every 0.2 s throughout.
start traffic alice ping -q -i 0.2 "$bob_ip"
wait_until 15 direct alice bob || fail "not direct: $(wgctl alice status)"
step "direct"

firewall_no_udp bob
step "UDP is cut"
wait_until 30 reach_bob || fail "no reply after UDP was cut"
step "replies again"
wait_until 10 relayed alice bob || fail "replies, but status does not say relay: $(wgctl alice status)"
check reach_bob

firewall_open bob
step "UDP is restored"
wait_until 60 direct alice bob || fail "not direct again: $(wgctl alice status)"
step "direct again"
check reach_bob
