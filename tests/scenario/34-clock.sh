#!/bin/bash
# limit: 300 s
# The clock of a node's host is set an hour forward, two hours back, to 1970 and right again: no packet
# of a session is lost at any step forward, status answers, keys do not expire, and a handshake that the node has to begin
# afterwards is taken by its peer, although its stamp is older than the last one's. Then past 2038 and
# back, where 32 bits of seconds end.
#
#   alice 198.51.100.11 \
#                        inet - pub 198.51.100.10 (coordinator, relay)
#   bob   198.51.100.12 /
# (one clock for all of them: what counts is whose stamps go back, and alice begins all handshakes)
. "$(dirname "$0")/lib.sh"
[ "${KERNEL_INSIDE:-host}" != host ] || skip "sets the clock, and this is the machine's own kernel"
. "$(dirname "$0")/load.sh"
need wg
hosts alice bob
start_coordinator
join alice bob
check wait_until 20 reach alice bob
both_direct 20 alice bob
# wait_until measures by the clock that is set here.
tries() {
	local n=$1

	shift
	for ((; n > 0; n--)); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.2
	done
	return 1
}
# A link that goes down and up has no sessions any more. Only alice has anything to send: a peer that
# heard nothing for 15 s after it had sent something would begin by itself, so there is silence before.
begins_anew() {
	sleep 20
	ip -n "${P}alice" link set kernscale0 down
	ip -n "${P}alice" link set kernscale0 up
	tries 60 reach alice bob || fail "$1: no handshake: $(on alice wg show kernscale0)"
	step "$1: alice has a session again"
}
# set_clock WHEN TEXT: under load, and what the log says. A step forward loses nothing. At a step back each end has the
# other forget its handshakes, and here both step at once, which no two hosts do: an initiation that comes before its
# peer has forgotten is refused, and the next one follows 5 s later (REKEY_TIMEOUT). More than that one retry, both
# ways at 200 packets a second, is not lost; a second one would be 2,000 more.
set_clock() {
	load alice bob 200 200 200
	sleep 1
	phase "clock set to $1"
	sleep 1
	date -s "$1" >/dev/null || fail "cannot set the clock"
	tries 25 grep -q "the clock was set $2" "$LOGS/alice.log" || fail "the log does not tell of it"
	check tries 3 timeout $((2 * ${WAIT_FACTOR:-1})) ip netns exec "${P}alice" "$BIN/wgctl" --socket "$W/alice/run/kernscaled.sock" status
	refute grep -i 'expired' <(wgctl alice status)
	sleep 5
	case $2 in
	forward*) no_loss ;;
	*)
		sleep 10 # without a session from then on it would be 400 a second
		load_end
		[ "$LOST" -le 3200 ] || fail "$LOST packets lost: more than one handshake's retry"
		;;
	esac
}

since_boot() { cut -d. -f1 /proc/uptime; }
born=$(($(date +%s) - $(since_boot)))
right() { echo $((born + $(since_boot))); }
at_end() { date -s "@$(right)" >/dev/null; }
set_clock "@$(($(right) + 3600))" 'forward by 3[56]'
begins_anew "an hour ahead" # the stamp that the next ones are older than
set_clock "@$(($(right) - 3600))" 'back by 7'
grep -q 'forget our last handshakes' "$LOGS/alice.log" || fail "peers are not told"
begins_anew "an hour behind"
set_clock "@86400" 'back by 1'
begins_anew "in 1970"
set_clock "@$(right)" 'forward by 1'
check tries 60 reach alice bob
check tries 100 direct alice bob

# Hundredths of a second of CPU that alice's daemon has had.
ticks() {
	read -r s <"/proc/${PIDS[alice]}/stat"
	awk '{ print $12 + $13 }' <<<"${s##*)}"
}
set_clock "@2208988800" 'forward by 4'
before=$(ticks)
sleep 3
used=$(($(ticks) - before))
step "$used hundredths of CPU in 3 s of 2040"
[ $used -lt 50 ] || fail "it spins"
check reach alice bob 4
set_clock "@$(right)" 'back by 4'
begins_anew "back from 2040"
check running alice
check running bob
check running coordinator
