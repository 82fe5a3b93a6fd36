#!/bin/bash
# limit: 240 s
# time: simulated or real
# What systemctl restart and an upgrade of the package do to a daemon under load: ended in order and
# started again, again with the program replaced by another file under its name, both nodes at once, and
# while the other one is dead. Not one packet of a direct path is lost. A relayed pair loses what is
# sent while its daemon is away, and nothing afterwards.
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
wait_until 10 reach alice bob || fail "no session of alice and bob"
wait_until 10 reach alice carol || fail "no session of alice and carol"
load alice bob 200 200 1200
drip alice bob
both_direct 10 alice bob

endpoints() {
	for n in alice bob; do on $n wg show kernscale0 endpoints | grep '198.51.100.1[12]:'; done
}
still() {
	[ "$(endpoints)" = "$before" ] || fail "line ${BASH_LINENO[0]}: an endpoint moved: $(endpoints)"
}
before=$(endpoints)
phase "restart"
stop alice
start_node alice
sleep 5
still
phase "upgrade"
cp "$BIN/kernscaled" "$BIN/kernscaled.new"
mv "$BIN/kernscaled.new" "$BIN/kernscaled"
sleep 1
stop alice
start_node alice
sleep 5
still
phase "both restarted"
stop alice
stop bob
start_node alice
start_node bob
sleep 5
still
phase "one restarted while the other is dead"
stop bob KILL
sleep 10
stop alice
start_node alice
sleep 10
still
phase "both alive"
start_node bob
sleep 5
still
check direct alice bob
check direct bob alice
no_loss

step "a relayed pair"
load alice carol 100 100 1000
sleep 2
phase "relayed"
sleep 2
phase "relayed, restart"
stop alice
start_node alice
sleep 3
phase "relayed, kill -9"
stop alice KILL
start_node alice
sleep 3
phase "relayed, after that"
sleep 3
load_end
for p in "relayed " "relayed, after that"; do
	[ "$(grep -c -- "$p .* lost *0 " "$OUT/$SCENARIO_NAME.figures")" = 2 ] || fail "packets were lost without a restart"
done
