#!/bin/bash
# limit: 240 s
# time: simulated or real
# What systemctl restart, an upgrade of the package and kill -9 do to a daemon under load: it is away for a second
# (RestartSec) and started again, again with the program replaced by another file under its name, both nodes at
# once, and while the other one is dead. Not one packet of a direct path is lost. That there was something to lose
# shows a relayed pair with the same load: it loses what is sent while its daemon is away, and nothing afterwards.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#            pub 198.51.100.10 (coordinator, relay) -+- carol 198.51.100.13, without UDP
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"
need wg
# Programs of its own, so that one can be replaced.
need_programs kernscaled wgctl
mkdir -p "$W/bin/tests"
chmod 755 "$W/bin" "$W/bin/tests"
for p in kernscale-coordinator wgctl tests/bench; do ln -s "$BIN/$p" "$W/bin/$p"; done
cp "$BIN/kernscaled" "$W/bin/"
BIN=$W/bin
chmod 755 "$W/bin/kernscaled"
nats alice bob
host carol 198.51.100.13
firewall_no_udp carol
start_coordinator
join alice bob carol
for n in bob carol; do wait_until 10 reach alice $n || fail "no session of alice and $n"; done
load alice bob 200 200 1200
load alice carol 100 100 1000
drip alice bob
both_direct 10 alice bob
check relayed alice carol

endpoints() {
	for n in alice bob; do on "$n" wg show kernscale0 endpoints | grep '198.51.100.1[12]:'; done
}
still() {
	[ "$(endpoints)" = "$before" ] || fail "line ${BASH_LINENO[0]}: an endpoint moved: $(endpoints)"
}
# started_again NAME...: after their service's RestartSec. Two processes on the way from kill to start take no time
# where idle time is skipped, and then nothing would be sent in it.
started_again() {
	local n

	sleep 1
	for n in "$@"; do start_node "$n"; done
	sleep 5
	still
}
before=$(endpoints)
phase "all alive"
sleep 2
phase "restart"
sleep 0.1 # what is on its way by relay belongs to the phase before
stop alice
started_again alice
phase "upgrade"
cp "$BIN/kernscaled" "$BIN/kernscaled.new"
mv "$BIN/kernscaled.new" "$BIN/kernscaled"
sleep 1
stop alice
started_again alice
phase "kill -9"
stop alice KILL
started_again alice
phase "both restarted"
stop alice
stop bob
started_again alice bob
phase "one restarted while the other is dead"
stop bob KILL
sleep 10
stop alice
started_again alice
sleep 5
check wait_until 30 reach alice carol
phase "both alive"
start_node bob
sleep 5
still
check direct alice bob
check direct bob alice
load_end
for way in "alice bob" "bob alice"; do
	# shellcheck disable=SC2086 # two words
	[ "$(lost_of $way)" = 0 ] || fail "$way, direct: $(lost_of $way) packets were lost"
done
for way in "alice carol" "carol alice"; do
	for p in restart upgrade "kill -9" "both restarted" "one restarted while the other is dead"; do
		# shellcheck disable=SC2086
		[ "$(lost_of $way "$p")" -ge 75 ] || fail "$way, $p: only $(lost_of $way "$p") packets show that there was a load"
	done
	for p in "all alive" "both alive"; do
		# shellcheck disable=SC2086
		[ "$(lost_of $way "$p")" = 0 ] || fail "$way, $p: packets were lost without a restart"
	done
done
