#!/bin/bash
# limit: 360 s
# Our relay alone serves stock nodes on a stock Headscale: pinned self-made certificate, STUN, netcheck
# without complaint, by relay both ways and a direct path arranged over it; through the relay's restart
# and through more silence than stock nodes bear without its keep-alives.
#
#   stan - NAT 198.51.100.11 -+
#   sue  - NAT 198.51.100.12 -+- inet - pub 198.51.100.10: headscale without relay; kernscale-relay :8443
#   sid  - no UDP 198.51.100.13
. "$(dirname "$0")/lib.sh"
need_stock headscale tailscaled tailscale
nats stan sue sid
firewall_no_udp sid
start_pinned_relay
start_headscale false "$W/derp.yaml"
for n in stan sue sid; do
	start_stock $n
	expect 0 ts_up $n
done
expect 0 ts stan netcheck
said 'UDP: true'
said 'Nearest DERP: Ours'
expect 0 ts stan ping --until-direct -c 20 sue
said 'via DERP\(our\)'
said 'via 198\.51\.100\.12:'
expect 1 ts stan ping -c 3 sid
said 'via DERP\(our\)'
tcp stan sid
tcp sid stan

step "the relay restarts: its nodes come back"
check stop relay
refute ts stan ping -c 1 --timeout 3s sid
start_pinned_relay
by_relay() {
	ts stan ping -c 1 --timeout 3s sid | grep -q 'via DERP(our)'
}
wait_until 40 by_relay || fail "nothing gets through by the relay that has restarted"
tcp sid stan

step "idle for longer than the two minutes of silence that end a connection"
count() {
	ss -Htn state established sport 8443 | awk '{ print $4 }' | sort
}
before=$(on pub bash -c "$(declare -f count); count")
sleep 135
after=$(on pub bash -c "$(declare -f count); count")
[ "$before" = "$after" ] || fail "connections were $before and are $after"
check by_relay
expect 0 ts sid debug derp our
said 'Successfully established a DERP connection'
expect 0 ts stan status
if grep '^#     - ' <<<"$SAID" | grep -v 'unstable version'; then fail "stock status complains"; fi
