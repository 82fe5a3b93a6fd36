#!/bin/bash
# limit: 400 s
# time: simulated or real
# Our daemon is killed under load and started again after its service's RestartSec of 1 s, ten times, then
# after 2 s, then ended in order and started: a stock peer, which leaves a silent node after some 5 s, loses not
# one packet either way. That there was something to lose each time shows carol, who is reached by relay. After
# 15 s the stock peer has left, and comes back.
#
#   alice (ours)  - NAT 198.51.100.11 -+- inet - pub 198.51.100.10: coordinator, relay and STUN
#   stan  (stock) - NAT 198.51.100.12 -+    +- carol 198.51.100.13 (ours), without UDP
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/../scenario/load.sh"
need_stock tailscaled tailscale
ROUNDS=${KERNSCALE_ROUNDS:-10}
nats alice stan
host carol 198.51.100.13
firewall_no_udp carol
start_coordinator
start_stock stan
expect 0 ts_up stan
join alice carol
knows() {
	ts stan status | grep alice && wgctl alice status | grep stan
}
wait_until 20 knows || fail "they do not see each other: $(ts stan status)"
expect 0 ts stan ping --until-direct -c 20 alice
expect 0 wgctl alice ping --until-direct -c 20 stan
wait_until 20 reach carol alice || fail "no session of carol and alice"
load alice stan 200 200 1200
load alice carol 50 50 1000
sleep 3
answers() {
	expect 0 wgctl alice ping -c 1 --timeout 2s stan
	said 'via 198\.51\.100\.12:'
}
# away SECONDS PHASE [SIGNAL]: a start takes no time where idle time is skipped, so there has to be a pause
PAUSES=()
away() {
	PAUSES+=("$2")
	phase "$2"
	stop alice "${3:-TERM}"
	sleep "$1"
	start_node alice
	sleep 5
	answers
}
for i in $(seq "$ROUNDS"); do away 1 "kill -9, started after 1 s, $i" KILL; done
away 2 "kill -9, started after 2 s" KILL
away 1 "ended in order, started after 1 s"
expect 0 wgctl alice status
said ' stan .* direct '
load_end
for way in "alice stan" "stan alice"; do
	# shellcheck disable=SC2086 # two words
	[ "$(lost_of $way)" = 0 ] || fail "$way: $(lost_of $way) packets were lost"
done
for p in "${PAUSES[@]}"; do
	for way in "alice carol" "carol alice"; do
		# shellcheck disable=SC2086
		[ "$(lost_of $way "$p")" -ge 35 ] || fail "$way, $p: only $(lost_of $way "$p") packets show that there was a load"
	done
done

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
