#!/bin/bash
# limit: 300 s
# A stock node and ours on our coordinator with our relay: directly and by relay, ping and TCP both
# ways; the stock programs have nothing to complain of.
#
#   alice (ours)  - NAT 198.51.100.11 -+- inet - pub 198.51.100.10: coordinator, relay and STUN
#   stan  (stock) - NAT 198.51.100.12 -+
. "$(dirname "$0")/lib.sh"
need_stock tailscaled tailscale
nats alice stan
start_coordinator
start_stock stan
expect 0 ts_up stan
step "stan joined"
join alice
step "alice joined"

expect 0 ts stan status
said 'alice'
# A stock program built from source says so of itself; that is no complaint.
if grep '^#     - ' <<<"$SAID" | grep -v 'unstable version'; then fail "stock status complains"; fi
expect 0 ts stan netcheck
said 'UDP: true'
said 'Nearest DERP: Test'
expect 0 wgctl alice status
said ' stan '

expect 0 ts stan ping --until-direct -c 20 alice
said 'via 198\.51\.100\.11:'
expect 0 wgctl alice ping --until-direct -c 20 stan
said 'via 198\.51\.100\.12:'
step "direct both ways"
check on alice ping -q -c 3 -i 0.2 "$(ip4 stan)"
check on stan ping -q -c 3 -i 0.2 "$(ip4 alice)"
tcp alice stan
tcp stan alice

step "UDP is cut: by relay"
firewall_no_udp stan
by_relay() {
	on alice ping -q -c 1 -W 1 "$(ip4 stan)" && on stan ping -q -c 1 -W 1 "$(ip4 alice)"
}
wait_until 40 by_relay || fail "nothing gets through by the relay"
tcp alice stan
tcp stan alice
wait_until 20 relayed alice stan || fail "status does not say relay: $(wgctl alice status)"
expect 1 ts stan ping --until-direct -c 2 --timeout 3s alice
said 'via DERP\(tst\)'
expect 0 ts stan status
said 'relay "tst"'

step "UDP is restored"
firewall_open stan
wait_until 90 sh -c "ip netns exec ${P}alice $BIN/wgctl --socket $W/alice/run/kernscaled.sock ping -c 1 stan | grep -q 198.51.100.12" ||
	fail "not direct again: $(wgctl alice status)"

step "the stock node logs out"
check ts stan logout
logged_out() {
	wgctl alice status | grep -qE "^[0-9.]+ +stan .*offline.*; key expired" && admin nodes list | grep -qE ' stan .* offline +\| yes *$'
}
wait_until 15 logged_out || fail "stan is not logged out: $(wgctl alice status; admin nodes list)"
