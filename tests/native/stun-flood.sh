#!/bin/bash
# limit: 60 s
# The relay's STUN port in a flood of questions, and of what is none: every question has one answer at most, nothing else
# has any, no answer is longer than docs/security.md says, and two clients of the relay go on hearing each other while
# its memory and descriptors stay as they are. By IPv4 and, where this machine has it, by IPv6.
. "$(dirname "$0")/lib.sh"
need_programs kernscale-relay tests/interop/derpcat tests/native/stunload
RATE=12000 SECONDS_EACH=4
S=$((PORT + 1))

start_relay relay "$PORT" --stun "[::]:$S" --tls none
for n in alice bob; do client $n "$PORT" plain; done
came 10 alice bob
echoes bob

worst=0 second=0
# says: alice's word comes back from bob, and how long that took: the two longest, since one may be the machine's
says() {
	local t

	t=$(now_msec)
	answered alice bob
	t=$(($(now_msec) - t))
	if [ $t -gt $worst ]; then
		second=$worst worst=$t
	elif [ $t -gt $second ]; then
		second=$t
	fi
}

# flood NAME LONGEST OPTION…
flood() {
	local name=$1 longest=$2 cpu all questions others answers unasked most

	shift 2
	worst=0 second=0 cpu=$(cpu_msec relay)
	start "$name" "$BIN/tests/native/stunload" --port "$S" --rate $RATE --seconds $SECONDS_EACH "$@"
	while running "$name"; do
		says
		sleep 0.1
	done
	await "$name" || fail "$name: a question after the flood is not answered: $(cat "$LOGS/$name.log")"
	cpu=$((($(cpu_msec relay) - cpu) * 1000))
	read -r _ questions _ others _ answers _ unasked _ most _ <"$LOGS/$name.log"
	all=$((questions + others))
	step "$name: $(cat "$LOGS/$name.log"); $((cpu / all)) us of CPU for each; frames take $worst and $second ms at most; RssAnon $(status_of relay RssAnon) KiB"
	alive relay
	[ $all -ge 20000 ] || fail "that was no flood"
	[ "$answers" -ge 1000 ] || fail "questions are not answered"
	[ "$answers" -le $((questions + 1)) ] || fail "more answers than questions"
	[ "$unasked" = 0 ] || fail "$unasked answers that nobody asked for"
	[ "$most" = "$longest" ] || fail "the longest answer has $most bytes"
	[ $((cpu / all)) -lt 100 ] || fail "that is too much work"
	[ $second -lt 2000 ] || fail "frames took $worst and $second ms"
	[ $worst -lt 8000 ] || fail "a frame took $worst ms"
	[ $(($(status_of relay RssAnon) - before)) -lt 512 ] || fail "$before KiB of memory are $(status_of relay RssAnon)"
	[ "$(descriptors relay)" = "$fds" ] || fail "$fds descriptors are $(descriptors relay)"
}

says
says
before=$(status_of relay RssAnon) fds=$(descriptors relay) lines=$(wc -l <"$LOGS/relay.log")
flood four 32
if grep -q '^0*1 .* lo$' /proc/net/if_inet6 2>/dev/null; then
	flood six 44 --six
else
	step "without IPv6"
fi
[ "$(wc -l <"$LOGS/relay.log")" = "$lines" ] || fail "the flood is in the log: $(tail -n 3 "$LOGS/relay.log")"
still_in alice bob
