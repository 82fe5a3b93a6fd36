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
	on alice ping -q -c 1 -W "${1:-1}" "$bob_ip"
}

wait_until 10 reach_bob || fail "no relay"
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
check reach_bob 4

# It says by which way each answer came, and ends with the first direct one.
wgctl alice ping --until-direct -c 100 --timeout 5s bob >"$LOGS/ping.log" 2>&1 &
ping=$!
wait_until 10 grep -q 'via DERP(tst) in' "$LOGS/ping.log" || fail "no answer by the relay: $(cat "$LOGS/ping.log")"
firewall_open bob
step "UDP is restored"
wait_until 60 direct alice bob || fail "not direct again: $(wgctl alice status)"
step "direct again"
wait $ping || fail "ping --until-direct fails: $(cat "$LOGS/ping.log")"
tail -n 1 "$LOGS/ping.log" | grep -E 'via 198\.51\.100\.12:[0-9]+ in' || fail "the last answer: $(cat "$LOGS/ping.log")"
check reach_bob 4
