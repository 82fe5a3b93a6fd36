#!/bin/bash
# What a load loses while daemons die, restart and are upgraded, in real time and at a rate that hurts:
# UDP both ways and one way, TCP, between NATs, and by relay, where the daemon is in the path. A rekeying
# of WireGuard (every 120 s) falls into the time without a daemon. Each phase is told to the packet.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#                              pub 198.51.100.10 -+- carol 198.51.100.13, without UDP
. "$(dirname "$0")/../scenario/lib.sh"
. "$(dirname "$0")/../scenario/load.sh"
need wg
RATE=${KERNSCALE_RATE:-1000}
nats alice bob
host carol 198.51.100.13
firewall_no_udp carol
start_coordinator
join alice bob carol
wait_until 20 reach alice bob || fail "no session of alice and bob"
wait_until 20 reach alice carol || fail "no session of alice and carol"
load alice bob "$RATE" "$RATE" 1200
drip alice bob
both_direct 20 alice bob

endpoints() {
	for n in alice bob; do on $n wg show kernscale0 endpoints | grep '198.51.100.1[12]:'; done
}
before=$(endpoints)
for n in alice bob; do
	start "watch-$n" "$n" bash -c 'while :; do wg show kernscale0 endpoints; sleep 0.5; done'
done
phase "alive, 10 s"
sleep 10
stop alice KILL
phase "alice's daemon dead, 180 s"
sleep 180
phase "and back"
start_node alice
sleep 10
for i in 1 2 3; do
	stop alice KILL
	phase "kill -9 and start, $i"
	start_node alice
	sleep 6
done
stop alice
phase "ended in order and started"
start_node alice
sleep 6
stop alice KILL
stop bob KILL
phase "both dead, 60 s"
sleep 60
phase "both back"
start_node alice
start_node bob
sleep 10
load_end
both=$LOST
stop watch-alice
stop watch-bob
moved=$(cat "$LOGS/watch-alice.log" "$LOGS/watch-bob.log" | grep '198.51.100.1[12]:\|127.64' | sort -u)
echo "endpoints seen: $moved"
echo "expected: $before"

step "one way only"
load alice bob "$RATE" 0 1200
sleep 5
stop bob KILL
phase "one way, receiver's daemon dead, 60 s"
sleep 60
phase "one way, and back"
start_node bob
sleep 6
stop alice KILL
phase "one way, sender's daemon dead, 60 s"
sleep 60
phase "one way, and back again"
start_node alice
sleep 6
load_end
both=$((both + LOST))

step "by relay"
load alice carol 200 200 1000
sleep 3
phase "relayed"
sleep 5
for i in 1 2 3 4 5; do
	stop alice KILL
	phase "relayed, kill -9 and start, $i"
	start_node alice
	sleep 5
done
phase "relayed, at rest"
sleep 5
load_end
echo "direct paths lost $both packets"
[ "$both" = 0 ]
