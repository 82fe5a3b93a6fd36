#!/bin/bash
# limit: 400 s
# time: simulated or real
# Our daemon is killed under load and started again at once, ten times, then after 2 s, then ended in
# order and started: a stock peer, which leaves a silent node after some 5 s, loses not one packet either
# way. After 15 s it has left, and comes back.
#
#   alice (ours)  - NAT 198.51.100.11 -+- inet - pub 198.51.100.10: coordinator, relay and STUN
#   stan  (stock) - NAT 198.51.100.12 -+
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../scenario/load.sh"
need_stock tailscaled tailscale
ROUNDS=${KERNSCALE_ROUNDS:-10}
nats alice stan
start_coordinator
start_stock stan
expect 0 ts_up stan
join alice
knows() {
	ts stan status | grep alice && wgctl alice status | grep stan
}
wait_until 20 knows || fail "they do not see each other: $(ts stan status)"
expect 0 ts stan ping --until-direct -c 20 alice
expect 0 wgctl alice ping --until-direct -c 20 stan
load alice stan 200 200 1200
sleep 3
answers() {
	expect 0 wgctl alice ping -c 1 --timeout 2s stan
	said 'via 198\.51\.100\.12:'
}
for i in $(seq "$ROUNDS"); do
	stop alice KILL
	phase "kill -9, started at once, $i"
	start_node alice
	sleep 5
	answers
done
stop alice KILL
phase "kill -9, started after 2 s"
sleep 2
start_node alice
sleep 5
answers
stop alice
phase "ended in order, started at once"
start_node alice
sleep 5
expect 0 wgctl alice status
said ' stan .* direct '
no_loss

step "away for 15 s: what that costs is told, and the path comes back"
load alice stan 200 200 1200
sleep 2
stop alice KILL
phase "away for 15 s"
sleep 15
start_node alice
phase "after that"
wait_until 20 direct alice stan || fail "not direct again: $(wgctl alice status)"
sleep 8
phase "and in the end"
sleep 5
load_end
[ "$(grep -c 'and in the end .* lost *0 ' "$OUT/$SCENARIO_NAME.figures")" = 2 ] || fail "packets are still lost"
