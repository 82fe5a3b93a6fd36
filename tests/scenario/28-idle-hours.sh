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
nats alice bob
host carol 198.51.100.13
start_coordinator
join alice bob carol
# One contact in an hour: discovery, sessions and what ends them are part of a day.
mesh() {
	wait_until 5 reach alice bob || fail "alice does not reach bob: $(wgctl alice status)"
	wait_until 5 reach carol alice || fail "carol does not reach alice: $(wgctl carol status)"
	wait_until 5 reach bob carol || fail "bob does not reach carol: $(wgctl bob status)"
}

for _ in 1 2 3; do
	mesh
	sleep 600
done
declare -A memory sleeps files
for n in alice bob carol coordinator; do
	memory[$n]=$(status_of $n RssAnon) sleeps[$n]=$(status_of $n voluntary_ctxt_switches) files[$n]=$(descriptors $n)
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
	m=$(status_of $n RssAnon) s=$((($(status_of $n voluntary_ctxt_switches) - sleeps[$n]) / (HOURS * 60 + 10)))
	step "$n: RssAnon ${memory[$n]} and then $m KiB, woke $s times a minute, ${files[$n]} and $(descriptors $n) files"
	[ "$m" -le $((memory[$n] + 64)) ] || fail "$n grows"
	[ "$(descriptors $n)" -le $((files[$n] + 2)) ] || fail "$n keeps files open"
	[ $s -le 12 ] || fail "$n does not sleep" # measured: 4 a daemon, 6 the coordinator
done
