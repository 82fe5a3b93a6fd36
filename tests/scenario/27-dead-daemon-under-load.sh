#!/bin/bash
# limit: 240 s
# time: simulated or real
# Under a load of numbered packets both ways, between NATs: one daemon is killed and stays away for
# longer than the idle time (45 s), comes back; then both are killed and come back. Not one packet is
# lost in any phase, and no kernel moves its endpoint.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#                              pub 198.51.100.10 (coordinator, relay)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"
need wg
nats alice bob
start_coordinator
join alice bob
wait_until 10 reach alice bob || fail "no session"
load alice bob 100 100 1200
drip alice bob
both_direct 10 alice bob

endpoints() {
	echo "$(on alice wg show kernscale0 endpoints) $(on bob wg show kernscale0 endpoints)"
}
still() {
	[ "$(endpoints)" = "$before" ] || fail "line ${BASH_LINENO[0]}: an endpoint moved: $(endpoints)"
}
back() {
	start_node "$1"
	wait_until 5 direct "$1" "$2" || fail "$1 did not adopt the path: $(wgctl "$1" status)"
}

before=$(endpoints)
grep -q '198\.51\.100\.11.*198\.51\.100\.12\|198\.51\.100\.12.*198\.51\.100\.11' <<<"$before" ||
	fail "not direct: $before"
phase "both daemons alive"
sleep 5
still
stop alice KILL
phase "alice's daemon is dead for 60 s"
for _ in $(seq 12); do
	sleep 5
	still
done
phase "alice's daemon comes back"
back alice bob
sleep 5
still
stop alice KILL
stop bob KILL
phase "both daemons are dead for 10 s"
sleep 10
still
phase "both come back"
back alice bob
back bob alice
sleep 5
still
phase "both daemons alive again"
sleep 3
no_loss
