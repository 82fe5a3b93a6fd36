#!/bin/bash
# limit: 240 s
# alice's daemon starts again and again beside the mesh that stands, each time with two descriptors more than the last
# time, from too few for anything to more than enough. It ends with one clear line, or runs; once there are
# more it has all of its sockets, and the tunnels lose nothing.
#
#   alice 198.51.100.11 \
#                         inet - pub 198.51.100.10 (coordinator, relay)
#   bob                  /
. "$(dirname "$0")/lib.sh"
need prlimit
hosts alice bob
start_coordinator
join alice bob
check wait_until 20 reach alice bob
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"
start back bob ping -i 0.05 -W 1 "$(ip4 alice)"
both_direct 20 alice bob
check wait_until 10 in_map alice bob
sockets() { find "/proc/${PIDS[alice]}/fd" -type l -printf '%l\n' | sed 's/[0-9]*//g' | sort | uniq -c | tr '\n' ' '; }
# Not what it has for a moment only.
at_rest() {
	all=$(sockets) most=$(descriptors alice)
	sleep 2
	[ "$(sockets)" = "$all" ]
}
check wait_until 30 at_rest
index=$(ip -n "${P}alice" -o link show dev kernscale0 | cut -d: -f1)
step "usually $most: $all"
answers() { # its exit status says also how the mesh is
	wgctl_within 2 alice status >"$W/said" 2>&1
	[ $? != 124 ] && [ -s "$W/said" ] && ! grep -q 'cannot reach' "$W/said"
}
up_or_over() { not running alice || answers; }
good() { [ "$(sockets)" = "$all" ] && ! wgctl alice status | grep -qE 'Too many|Not connected|No relay'; }
ended=0 ran=0
for n in $(seq 6 2 $((most + 4))); do
	stop alice KILL
	rm -f "$W/alice/run/kernscaled.sock"
	: >"$LOGS/alice.log"
	NODE_UNDER="prlimit --nofile=$n:4096" launch_node alice
	wait_until 10 up_or_over || fail "$n descriptors: neither ends nor answers: $(cat "$W/said")"
	if not running alice; then
		ended=$((ended + 1))
		await alice && fail "$n descriptors: it ended as if all were well"
		[ "$(grep -c 'Too many open files' "$LOGS/alice.log")" = 1 ] || fail "$n descriptors: no clear end: $(cat "$LOGS/alice.log")"
		start_node alice
		continue
	fi
	ran=$((ran + 1))
	sleep 0.3
	check wait_until 5 answers
	short=$(grep -m 1 'Too many' "$W/said")
	echo "$n of $most: $(descriptors alice); ${short:-all seems well}"
	check prlimit --pid "${PIDS[alice]}" --nofile=4096:4096
	wait_until 40 good || fail "$n descriptors, then enough: $(sockets), not $all: $(wgctl alice status)"
done
step "it ended $ended times, ran $ran times"
[ $ended -gt 0 ] || fail "it never had too few"
[ $ran -gt 4 ] || fail "it hardly ever ran"
[ "$(ip -n "${P}alice" -o link show dev kernscale0 | cut -d: -f1)" = "$index" ] || fail "the interface was made anew"
check reach alice bob 4
check reach bob alice 4
all_answered traffic
all_answered back
