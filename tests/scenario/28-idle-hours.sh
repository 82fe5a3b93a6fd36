#!/bin/bash
# limit: 200000 s
# time: simulated
# Six hours (KERNSCALE_HOURS=24: a day) of an idle mesh of three: nobody leaves, nothing grows, the daemons
# sleep, and the first packet after an hour gets through at once.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#                              pub 198.51.100.10 -+- carol 198.51.100.13
. "$(dirname "$0")/lib.sh"
need wg
HOURS=${KERNSCALE_HOURS:-6}
inet
host pub 198.51.100.10
nat alice 198.51.100.11 192.168.1
nat bob 198.51.100.12 192.168.2
host carol 198.51.100.13
start_coordinator
for n in alice bob carol; do join $n; done
# One contact in an hour: discovery, sessions and what ends them are part of a day.
mesh() {
	wait_until 5 reach alice bob || fail "alice does not reach bob: $(wgctl alice status)"
	wait_until 5 reach carol alice || fail "carol does not reach alice: $(wgctl carol status)"
	wait_until 5 reach bob carol || fail "bob does not reach carol: $(wgctl bob status)"
}
connected() {
	! wgctl "$1" status | grep -qi "not connected.*$URL"
}
of() {
	sed -n "s/^$2:[^0-9]*\([0-9]*\).*/\1/p" "/proc/${PIDS[$1]}/status"
}
fds() {
	find "/proc/${PIDS[$1]}/fd" -mindepth 1 | wc -l
}

for _ in 1 2 3; do
	mesh
	sleep 600
done
declare -A memory sleeps files
for n in alice bob carol coordinator; do
	memory[$n]=$(of $n RssAnon) sleeps[$n]=$(of $n voluntary_ctxt_switches) files[$n]=$(fds $n)
done
for h in $(seq "$HOURS"); do
	for _ in 1 2 3 4; do
		sleep 900
		for n in alice bob carol; do connected $n || fail "$n was not connected in hour $h"; done
	done
	mesh
done
sleep 600
for n in alice bob carol coordinator; do
	m=$(of $n RssAnon) s=$((($(of $n voluntary_ctxt_switches) - sleeps[$n]) / (HOURS * 60 + 10)))
	step "$n: RssAnon ${memory[$n]} and then $m KiB, woke $s times a minute, ${files[$n]} and $(fds $n) files"
	[ "$m" -le $((memory[$n] + 64)) ] || fail "$n grows"
	[ "$(fds $n)" -le $((files[$n] + 2)) ] || fail "$n keeps files open"
	[ $s -lt 180 ] || fail "$n does not sleep"
done
