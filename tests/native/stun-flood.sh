#!/bin/bash
# limit: 60 s
# The relay's STUN port in a flood of questions, and of what is none: every question has one answer at most, nothing else
# has any, no answer is longer than docs/security.md says, and two clients of the relay go on hearing each other while
# its memory and descriptors stay as they are. By IPv4 and, where this machine has it, by IPv6.
. "$(dirname "$0")/lib.sh"
need_programs kernscale-relay tests/interop/derpcat tests/native/stunload
RATE=12000 SECONDS_EACH=4
S=$((PORT + 1))

start relay "$BIN/kernscale-relay" --listen "127.0.0.1:$PORT" --stun "[::]:$S" --tls none --user "$(id -u):$(id -g)" \
	--state "$W/relay" --hostname 127.0.0.1
wait_until 10 grep -q 'DERP on TCP' "$LOGS/relay.log" || fail "the relay does not come up: $(cat "$LOGS/relay.log")"
for n in alice bob; do
	mkfifo "$W/$n.in"
	# shellcheck disable=SC2016
	start $n bash -c 'exec "$@" <>"$0"' "$W/$n.in" stdbuf -oL "$BIN/tests/interop/derpcat" "127.0.0.1:$PORT" plain
	wait_until 10 grep -q '^up' "$LOGS/$n.log" || fail "$n does not come in"
done
echo echo >"$W/bob.in"
bob=$(sed -n 's/^key //p' "$LOGS/bob.log")

word=0 worst=0
# says: alice's word comes back from bob, and how long that took
says() {
	local t

	word=$((word + 1))
	t=$(now_msec)
	echo "$bob word $word" >"$W/alice.in"
	wait_until 10 grep -q "^packet .* word $word\$" "$LOGS/alice.log" || fail "alice and bob do not hear each other"
	t=$(($(now_msec) - t))
	[ $t -le $worst ] || worst=$t
}

kib() {
	awk '/^RssAnon/ { print $2 }' "/proc/${PIDS[relay]}/status"
}

files() {
	find "/proc/${PIDS[relay]}/fd" -type l | wc -l
}

# usec: CPU of the relay
usec() {
	local s

	read -r s <"/proc/${PIDS[relay]}/stat"
	awk '{ print ($12 + $13) * 10000 }' <<<"${s##*)}"
}

# flood NAME LONGEST OPTION…
flood() {
	local name=$1 longest=$2 cpu all questions others answers unasked most

	shift 2
	worst=0 cpu=$(usec)
	start "$name" "$BIN/tests/native/stunload" --port "$S" --rate $RATE --seconds $SECONDS_EACH "$@"
	while running "$name"; do
		says
		sleep 0.1
	done
	wait "${PIDS[$name]}" || fail "$name: a question after the flood is not answered: $(cat "$LOGS/$name.log")"
	unset "PIDS[$name]"
	cpu=$(($(usec) - cpu))
	read -r _ questions _ others _ answers _ unasked _ most _ <"$LOGS/$name.log"
	all=$((questions + others))
	step "$name: $(cat "$LOGS/$name.log"); $((cpu / all)) us of CPU for each; frames take $worst ms at most; RssAnon $(kib) KiB"
	running relay || fail "the relay has died: $(tail -n 3 "$LOGS/relay.log")"
	[ $all -ge 20000 ] || fail "that was no flood"
	[ "$answers" -ge 1000 ] || fail "questions are not answered"
	[ "$answers" -le $((questions + 1)) ] || fail "more answers than questions"
	[ "$unasked" = 0 ] || fail "$unasked answers that nobody asked for"
	[ "$most" = "$longest" ] || fail "the longest answer has $most bytes"
	[ $((cpu / all)) -lt 100 ] || fail "that is too much work"
	[ $worst -lt 2000 ] || fail "a frame took $worst ms"
	[ $(($(kib) - before)) -lt 512 ] || fail "$before KiB of memory are $(kib)"
	[ "$(files)" = "$fds" ] || fail "$fds descriptors are $(files)"
}

says
says
before=$(kib) fds=$(files) lines=$(wc -l <"$LOGS/relay.log")
flood four 32
if grep -q '^0*1 .* lo$' /proc/net/if_inet6 2>/dev/null; then
	flood six 44 --six
else
	step "without IPv6"
fi
[ "$(wc -l <"$LOGS/relay.log")" = "$lines" ] || fail "the flood is in the log: $(tail -n 3 "$LOGS/relay.log")"
[ "$(grep -c '^up' "$LOGS/alice.log") $(grep -c '^up' "$LOGS/bob.log")" = "1 1" ] || fail "alice or bob was thrown out"
