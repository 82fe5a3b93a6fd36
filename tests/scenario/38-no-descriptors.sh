#!/bin/bash
# limit: 180 s
# alice's daemon gets no more descriptors: a node joins, the coordinator and its relay restart and cannot be
# dialled, other users crowd its socket. The tunnels lose nothing, the operator is answered and told why, nothing
# spins, the service manager's watchdog hears of it, and with descriptors again all is as before.
#
#   alice 198.51.100.11 \
#                         inet - pub 198.51.100.10 (coordinator, relay)
#   bob, carol           /
. "$(dirname "$0")/lib.sh"
need prlimit wg setpriv
need_programs tests/interop/crowd
hosts alice bob carol
start_coordinator
manage alice --watchdog $((4000 + 4000 * ${SLOWNESS:-1})) # it is without descriptors for longer: 16 s, 27 in the emulator
check up alice
join bob
check wait_until 20 reach alice bob
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"
start back bob ping -i 0.05 -W 1 "$(ip4 alice)"
both_direct 20 alice bob
check wait_until 10 in_map alice bob
node=$(pid_of alice)
of_node() { # asks about the daemon below the service manager
	local manager=${PIDS[alice]}

	PIDS[alice]=$node
	"$@" alice
	PIDS[alice]=$manager
}
# Not one more than it has; what it has for a moment only, as for a call that is refused, does not count.
starve() {
	local n least=4096

	for _ in $(seq 20); do
		n=0
		while [ -e "/proc/$node/fd/$n" ]; do n=$((n + 1)); done
		[ $n -ge $least ] || least=$n
		sleep 0.05
	done
	check prlimit --pid "$node" --nofile=$least:4096
	step "no descriptor from number $least on; it has $(of_node descriptors)"
}
index() { ip -n "${P}alice" -o link show dev kernscale0 | cut -d: -f1; }
lines() { grep -c 'Too many open files' "$LOGS/alice.log"; }
status() { wgctl_within 10 alice status; }
said_so() { status | grep -qE "$1"; }
# asked MSEC: bob is in its status for 4 s, and it uses less CPU a second than that.
asked() {
	local cpu since

	cpu=$(of_node cpu_msec) since=$(now_msec)
	for _ in $(seq 8); do
		sleep 0.5
		expect 0 status
		said bob
	done
	cpu=$((($(of_node cpu_msec) - cpu) * 1000 / ($(now_msec) - since)))
	step "CPU $cpu ms a second"
	[ "$cpu" -lt $(($1 * ${SLOWNESS:-1})) ] || fail "line ${BASH_LINENO[0]}: $cpu ms of CPU a second"
}
before=$(index)

starve
join carol
check wait_until 10 said_so carol
check wait_until 20 reach alice carol
check wait_until 10 said_so 'cannot be kept in .*Too many open files'
[ "$(index)" = "$before" ] || fail "the interface was made anew"
step "a peer came; the map cannot be kept"

stop coordinator
starve
run_coordinator
check wait_until 20 connected bob
check wait_until 10 said_so 'Not connected: https.*Too many open files'
check wait_until 10 said_so 'home relay.*Too many open files'
asked 100
[ "$(index)" = "$before" ] || fail "the interface was made anew"
[ "$(lines)" -lt 60 ] || fail "the log is full of it: $(lines) lines"
check direct alice bob
step "servers cannot be dialled; $(lines) lines in the log"

# Other users cannot hold what is kept for the operator, and are told.
start crowd alice setpriv --reuid 60001 --regid 60001 --clear-groups \
	"$BIN/tests/interop/crowd" "$W/alice/run/kernscaled.sock" 20 4 'GET /v1/st'
asked 200
ends_well crowd
step "a crowd: $(cat "$LOGS/crowd.log")"
# Nobody waits for his question: whoever has not written it yet when he is refused finds the connection closed.
SAID=$(on alice setpriv --reuid 60000 --regid 60000 --clear-groups "$BIN/wgctl" --socket "$W/alice/run/kernscaled.sock" status 2>&1)
case $?-$SAID in
1-*'no descriptor free'* | 3-*'closed the connection'*) ;;
*) fail "who is refused is told: $SAID" ;;
esac
[ "$(grep -c . <<<"$SAID")" = 1 ] || fail "not one line: $SAID"

check prlimit --pid "$node" --nofile=4096:4096
check wait_until 40 connected alice
check wait_until 40 not said_so 'Too many|Not connected'
check wait_until 40 in_map alice carol
check wait_until 10 reach alice carol
check wait_until 10 reach bob alice
step "descriptors again"
[ "$(pid_of alice)" = "$node" ] || fail "the service manager started another daemon"
all_answered traffic
all_answered back
