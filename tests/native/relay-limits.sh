#!/bin/bash
# limit: 90 s
# kernscale-relay alone among strangers, plain and with TLS: connections that say nothing, half a handshake, a byte a second,
# no greeting, and descriptors for one in seven of them; thousands that leave at once; clients that read nothing while others send to them, and frames that
# do not end; and no memory. Who is connected goes on, newcomers come in during and after, nothing spins, one line of the log
# says what is the matter, and memory stays below what docs/security.md says.
. "$(dirname "$0")/lib.sh"
need prlimit
need_programs kernscale-relay tests/interop/derpcat tests/native/relayload

# relay NAME PORT FILES OPTION…
relay() {
	# shellcheck disable=SC2016
	start "$1" bash -c 'ulimit -n "$0" && exec "$@"' "$3" "$BIN/kernscale-relay" --listen "127.0.0.1:$2" --stun off \
		--user "$(id -u):$(id -g)" --state "$W/$1" --hostname 127.0.0.1 "${@:4}"
	wait_until 10 grep -q 'DERP on TCP' "$LOGS/$1.log" || fail "$1 does not come up: $(cat "$LOGS/$1.log")"
}

# client NAME PORT CERT, without waiting
client() {
	mkfifo "$W/$1.in"
	# shellcheck disable=SC2016
	start "$1" bash -c 'exec "$@" <>"$0"' "$W/$1.in" stdbuf -oL "$BIN/tests/interop/derpcat" "127.0.0.1:$2" "$3"
}

up() {
	grep -q '^up' "$LOGS/$1.log"
}

# come SECONDS NAME PORT CERT [NAME PORT CERT]…: all at once
come() {
	local sec=$1 names='' n

	shift
	while [ $# -ge 3 ]; do
		client "$1" "$2" "$3"
		names+=" $1"
		shift 3
	done
	for n in $names; do
		wait_until "$sec" up "$n" || fail "$n does not come in: $(tail -n 3 "$LOGS/$n.log")"
		step "$n came in"
	done
}

key_of() {
	sed -n 's/^key //p' "$LOGS/$1.log"
}

said=0
# goes_on A B: B answers A, on the connection that both have had all the time
goes_on() {
	for _ in 1 2 3; do
		said=$((said + 1))
		echo "$(key_of "$2") word $said" >"$W/$1.in"
		wait_until 10 grep -q "^packet .* word $said\$" "$LOGS/$1.log" || fail "$1 and $2 do not hear each other"
	done
	[ "$(grep -c '^up' "$LOGS/$1.log") $(grep -c '^up' "$LOGS/$2.log")" = "1 1" ] || fail "$1 or $2 was thrown out"
}

# load NAME KIND PORT COUNT OPTION…
load() {
	start "$1" "$BIN/tests/native/relayload" "$2" --dir "$W" --port "$3" --count "$4" "${@:5}"
}

calm() {
	local n

	touch "$W/calm"
	for n in "$@"; do
		wait "${PIDS[$n]}" || fail "$n says: $(cat "$LOGS/$n.log")"
		unset "PIDS[$n]"
		tail -n 1 "$LOGS/$n.log"
	done
	rm "$W/calm"
}

# of a process: descriptors, hundredths of a second of CPU, KiB of memory of its own
files() {
	find "/proc/${PIDS[$1]}/fd" -type l | wc -l
}

ticks() {
	local s

	read -r s <"/proc/${PIDS[$1]}/stat"
	awk '{ print $12 + $13 }' <<<"${s##*)}"
}

kib() {
	awk -v k="$2" '$1 == k ":" { print $2 }' "/proc/${PIDS[$1]}/status"
}

alive() {
	running "$1" || { wait "${PIDS[$1]}"; fail "$1 has died ($?): $(tail -n 3 "$LOGS/$1.log")"; }
}

P=$PORT T=$((PORT + 1))
FILES=512
relay plain $P $FILES --tls none
relay tls $T $FILES
pin=$(grep -o 'sha256-raw:[0-9a-f]*' "$LOGS/tls.log")
come 5 alice $P plain bob $P plain carol $T "$pin" dave $T "$pin"
echo echo >"$W/bob.in"
echo echo >"$W/dave.in"
goes_on alice bob
goes_on carol dave

step "descriptors"
load silent silent $P 400
load slow slow $P 400
load greeters greeters $P 1000
load half tls $T 800
load mute silent $T 200
sleep 1
declare -A before=()
for r in plain tls; do before[$r]=$(ticks $r); done
sleep 3
for r in plain tls; do
	used=$(($(ticks $r) - before[$r]))
	step "$r: $(files $r) of $FILES descriptors, $used hundredths of CPU in 3 s"
	[ "$(files $r)" -le $FILES ] || fail "more descriptors than there are"
	[ $used -lt 150 ] || fail "it spins"
done
goes_on alice bob
goes_on carol dave
come 10 grace $P plain heidi $T "$pin"
calm silent slow greeters half mute
come 5 erin $P plain frank $T "$pin"
goes_on alice bob
goes_on carol dave
for r in plain tls; do
	alive $r
	grep 'no room' "$LOGS/$r.log"
	[ "$(grep -c 'no room for new connections' "$LOGS/$r.log")" = 1 ] || fail "$r does not say once what is the matter"
	[ "$(wc -l <"$LOGS/$r.log")" -lt 12 ] || fail "$r floods its log"
done

# EMFILE itself, whatever has been shared out: the limit falls under a relay that runs.
prlimit --pid "${PIDS[plain]}" --nofile=40:
load silent silent $P 300
sleep 1
[ "$(files plain)" -ge 40 ] || fail "descriptors are not short"
used=$(ticks plain)
sleep 1
used=$(($(ticks plain) - used))
step "plain: $used hundredths of CPU in 1 s without a free descriptor"
[ $used -lt 50 ] || fail "it spins"
goes_on alice bob
calm silent
prlimit --pid "${PIDS[plain]}" --nofile=$FILES:
check stop plain
check stop tls
for n in alice bob carol dave erin frank grace heidi; do stop $n; rm "$W/$n.in"; : >"$LOGS/$n.log"; done

rm -f "$LOGS/plain.log"
relay plain $P 8192 --tls none
come 5 alice $P plain bob $P plain
echo echo >"$W/bob.in"

# All of thousands leave: whoever comes then does not wait for each of them.
load idle idle $P 5000
many() {
	[ "$(files plain)" -gt 5000 ]
}
wait_until 10 many || fail "$(files plain) descriptors"
used=$(ticks plain)
calm idle
come 4 kim $P plain
sleep 1
used=$(($(ticks plain) - used))
step "plain: $used hundredths of CPU for 5,000 clients that leave"
[ $used -lt 100 ] || fail "that is too much work"
goes_on alice bob

step "memory"
limit=$(($(kib plain VmSize) + 4096))
prlimit --pid "${PIDS[plain]}" --as=$((limit * 1024)):
load idle idle $P 3000
load silent silent $P 3000
load partial partial $P 300
sleep 4
alive plain
step "plain: $(kib plain VmSize) of $limit KiB"
[ "$(kib plain VmSize)" -gt $((limit - 600)) ] || fail "$((limit - $(kib plain VmSize))) KiB are free: nothing was tried"
calm idle silent partial
settled() {
	[ "$(kib plain RssAnon)" -lt 32768 ]
}
wait_until 5 settled || fail "plain: afterwards $(kib plain RssAnon) KiB"
prlimit --pid "${PIDS[plain]}" --as=unlimited:
come 10 ivan $P plain judy $P plain
echo echo >"$W/judy.in"
goes_on ivan judy
alive plain

step "slow readers, long frames"
# peak SECONDS: most memory of its own meanwhile
peak() {
	local n most=0 end=$(($(now_msec) + $1 * 1000))

	while [ "$(now_msec)" -lt $end ]; do
		n=$(kib plain RssAnon)
		[ "$n" -le "$most" ] || most=$n
		sleep 0.1
	done
	echo "$most"
}
base=$(kib plain RssAnon)
load deaf deaf $P 150 --senders 8
most=$(peak 5)
step "plain: $base KiB, with 150 clients that read nothing $most KiB"
[ "$most" -lt $(((256 + 128) * 1024)) ] || fail "more than is documented"
goes_on ivan judy
calm deaf
wait_until 5 settled || fail "plain: afterwards $(kib plain RssAnon) KiB"
load partial partial $P 1500
most=$(peak 3)
step "plain: with 1,500 long frames that do not end $most KiB"
[ "$most" -lt $((base + (64 + 16) * 1024)) ] || fail "more than is documented"
goes_on ivan judy
calm partial
wait_until 5 settled || fail "plain: afterwards $(kib plain RssAnon) KiB"
step "plain: then $(kib plain RssAnon) KiB"
[ "$(wc -l <"$LOGS/plain.log")" -lt 40 ] || fail "plain floods its log"
