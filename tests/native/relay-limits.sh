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
	UNDER="prlimit --nofile=$3" start_relay "$1" "$2" --stun off "${@:4}"
}

# come SECONDS NAME PORT CERT [NAME PORT CERT]…: all at once
come() {
	local sec=$1 names=()

	shift
	while [ $# -ge 3 ]; do
		client "$1" "$2" "$3"
		names+=("$1")
		shift 3
	done
	came "$sec" "${names[@]}"
}

# talk A B: B answers A, on the connection that both have had all the time
talk() {
	for _ in 1 2 3; do answered "$1" "$2"; done
	still_in "$1" "$2"
}

# crowd NAME KIND PORT COUNT OPTION…
crowd() {
	start "$1" "$BIN/tests/native/relayload" "$2" --dir "$W" --port "$3" --count "$4" "${@:5}"
}

calm() {
	local n

	touch "$W/calm"
	for n in "$@"; do
		ends_well "$n"
		tail -n 1 "$LOGS/$n.log"
	done
	rm "$W/calm"
}

step "the least that systemd may leave it"
relay small $((PORT + 2)) 64 --tls none
come 5 erin $((PORT + 2)) plain
stop erin
check stop small

P=$PORT T=$((PORT + 1))
FILES=512
relay plain "$P" $FILES --tls none
relay tls $T $FILES
pin=$(grep -o 'sha256-raw:[0-9a-f]*' "$LOGS/tls.log")
come 5 alice "$P" plain bob "$P" plain carol $T "$pin" dave $T "$pin"
echoes bob
echoes dave
talk alice bob
talk carol dave

step "descriptors"
crowd silent silent "$P" 400
crowd slow slow "$P" 400
crowd greeters greeters "$P" 1000
crowd half tls $T 800
crowd mute silent $T 200
sleep 1
declare -A before=()
for r in plain tls; do before[$r]=$(cpu_msec $r); done
sleep 3
for r in plain tls; do
	used=$(($(cpu_msec $r) - before[$r]))
	step "$r: $(descriptors $r) of $FILES descriptors, $used ms of CPU in 3 s"
	[ "$(descriptors $r)" -le $FILES ] || fail "more descriptors than there are"
	[ $used -lt 1500 ] || fail "it spins"
done
talk alice bob
talk carol dave
come 20 grace "$P" plain heidi $T "$pin"
calm silent slow greeters half mute
come 5 erin "$P" plain frank $T "$pin"
talk alice bob
talk carol dave
for r in plain tls; do
	alive $r
	grep 'no room' "$LOGS/$r.log"
	[ "$(grep -c 'no room for new connections' "$LOGS/$r.log")" = 1 ] || fail "$r does not say once what is the matter"
	[ "$(wc -l <"$LOGS/$r.log")" -lt 12 ] || fail "$r floods its log"
done

# EMFILE itself, whatever has been shared out: the limit falls under a relay that runs.
prlimit --pid "${PIDS[plain]}" --nofile=40:
crowd silent silent "$P" 300
wait_until 10 at_least 40 descriptors plain || fail "descriptors are not short"
used=$(cpu_msec plain)
sleep 1
used=$(($(cpu_msec plain) - used))
step "plain: $used ms of CPU in 1 s without a free descriptor"
[ $used -lt 500 ] || fail "it spins"
talk alice bob
calm silent
prlimit --pid "${PIDS[plain]}" --nofile=$FILES:
check stop plain
check stop tls
for n in alice bob carol dave erin frank grace heidi; do stop $n; rm "$W/$n.in"; : >"$LOGS/$n.log"; done

rm -f "$LOGS/plain.log" "$LOGS/tls.log"
relay plain "$P" 8192 --tls none
relay tls $T 2048
come 5 alice "$P" plain bob "$P" plain
echoes bob

# idle_cost NAME KIND PORT COUNT MOST: so many KiB does a client that does nothing cost at most, beside descriptor and
# kernel. Less than half a KiB and there is none: its keys and the peer's are kept.
idle_cost() {
	local each

	base=$(status_of "$1" RssAnon)
	: >"$LOGS/idle.log"
	crowd idle "$2" "$3" "$4"
	wait_until 30 grep -q 'all are there' "$LOGS/idle.log" || fail "$(descriptors "$1") descriptors"
	at_rest() {
		local used

		used=$(cpu_msec "$1")
		sleep 0.3
		[ "$(cpu_msec "$1")" = "$used" ]
	}
	check wait_until 20 at_rest "$1"
	each=$((($(status_of "$1" RssAnon) - base) * 1024 / $4))
	step "$1: $4 idle clients, $each bytes each"
	[ $each -le $(($5 * 1024)) ] || fail "more than $5 KiB"
	[ $each -ge 512 ] || fail "that is no client"
}

idle_cost tls idle-tls $T 400 20
calm idle
check stop tls

# All of thousands leave: whoever comes then does not wait for each of them.
idle_cost plain idle "$P" 5000 4
at_least 5001 descriptors plain || fail "$(descriptors plain) descriptors"
used=$(cpu_msec plain)
calm idle
come 4 kim "$P" plain
sleep 1
used=$(($(cpu_msec plain) - used))
step "plain: $used ms of CPU for 5,000 clients that leave"
[ $used -lt 1000 ] || fail "that is too much work"
talk alice bob

step "memory"
limit=$(($(status_of plain VmSize) + 4096))
prlimit --pid "${PIDS[plain]}" --as=$((limit * 1024)):
crowd idle idle "$P" 3000
crowd silent silent "$P" 3000
crowd partial partial "$P" 300
sleep 4
alive plain
step "plain: $(status_of plain VmSize) of $limit KiB"
wait_until 20 at_least $((limit - 599)) status_of plain VmSize || fail "$((limit - $(status_of plain VmSize))) KiB are free: nothing was tried"
calm idle silent partial
settled() {
	at_most 32767 status_of plain RssAnon
}
wait_until 5 settled || fail "plain: afterwards $(status_of plain RssAnon) KiB"
prlimit --pid "${PIDS[plain]}" --as=unlimited:
come 10 ivan "$P" plain judy "$P" plain
echoes judy
talk ivan judy
alive plain

step "slow readers, long frames"
# peak SECONDS: most memory of its own meanwhile
peak() {
	local n most=0 end=$(($(now_msec) + $1 * 1000))

	while [ "$(now_msec)" -lt $end ]; do
		n=$(status_of plain RssAnon)
		[ "$n" -le "$most" ] || most=$n
		sleep 0.1
	done
	echo "$most"
}
base=$(status_of plain RssAnon)
crowd deaf deaf "$P" 150 --senders 8
most=$(peak 5)
step "plain: $base KiB, with 150 clients that read nothing $most KiB"
[ "$most" -lt $(((256 + 128) * 1024)) ] || fail "more than is documented"
talk ivan judy
calm deaf
wait_until 5 settled || fail "plain: afterwards $(status_of plain RssAnon) KiB"
crowd partial partial "$P" 1500
most=$(peak 3)
step "plain: with 1,500 long frames that do not end $most KiB"
[ "$most" -lt $((base + (64 + 16) * 1024)) ] || fail "more than is documented"
talk ivan judy
calm partial
wait_until 5 settled || fail "plain: afterwards $(status_of plain RssAnon) KiB"
step "plain: then $(status_of plain RssAnon) KiB"
[ "$(wc -l <"$LOGS/plain.log")" -lt 40 ] || fail "plain floods its log"
