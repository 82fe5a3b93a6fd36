#!/bin/bash
# limit: 9000 s
# time: simulated
# The coordinator and its relay are killed for an hour. Direct paths go on, with traffic both ways and
# one way, over some thirty new sessions of WireGuard: not one packet is lost, no endpoint moves. A
# daemon killed in between comes back from its disk. The daemons neither spin nor grow, and are
# connected again soon after the servers are.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#                              pub 198.51.100.10 -+- carol 198.51.100.13
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"
need wg
nats alice bob
host carol 198.51.100.13
start_coordinator
join alice bob carol
wait_until 10 reach alice bob || fail "no session of alice and bob"
wait_until 10 reach alice carol || fail "no session of alice and carol"
load alice bob 2 2 1000
load alice carol 1 0 1000 # one way: the counters at alice grow once in 10 s
both_direct 10 alice bob
both_direct 10 alice carol

endpoints() {
	local n

	for n in alice bob carol; do on $n wg show kernscale0 endpoints | sort; done
}
still() {
	[ "$(endpoints)" = "$before" ] || fail "line ${BASH_LINENO[0]}: an endpoint moved: $(endpoints)"
}
handshake() {
	on alice wg show kernscale0 latest-handshakes | awk '{ print $2 }' | sort -n | head -n 1
}

sleep 60
before=$(endpoints)
declare -A sleeps memory
for n in alice bob carol; do sleeps[$n]=$(status_of $n voluntary_ctxt_switches) memory[$n]=$(status_of $n RssAnon); done
first=$(handshake)
stop coordinator KILL
phase "no coordinator, no relay"
for _ in $(seq 30); do
	sleep 60
	still
done
[ "$(handshake)" -gt $((first + 1500)) ] || fail "no new sessions: $(on alice wg show kernscale0)"
for n in alice bob carol; do
	s=$((($(status_of $n voluntary_ctxt_switches) - sleeps[$n]) / 30)) m=$(status_of $n RssAnon)
	step "$n: woke $s times a minute, RssAnon ${memory[$n]} and then $m KiB"
	[ $s -lt 600 ] || fail "the daemon of $n spins"
	[ "$m" -le $((memory[$n] + 256)) ] || fail "the daemon of $n grows"
done
stop bob KILL
phase "bob's daemon is dead as well"
sleep 60
still
start_node bob
phase "and back"
for _ in $(seq 29); do
	sleep 60
	still
done
check direct alice bob
check direct bob alice
check direct alice carol
run_coordinator
WAIT_STEP=1
phase "the coordinator is back"
for n in alice bob carol; do
	wait_until 120 connected $n || fail "$n is not connected again: $(wgctl $n status)"
	step "$n is connected"
done
sleep 30
still
no_loss
