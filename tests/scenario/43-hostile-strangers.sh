#!/bin/bash
# limit: 240 s
# Strangers on the internet crowd the coordinator from addresses of their own: connections without a byte of TLS, half
# ClientHellos, half requests, Noise handshakes of noise, channels of as many machines as they like and many of one,
# bodies without an end, logins that wait for a person, deep JSON. Whatever they do, one address, or one /64, has its
# share and no more; alice and bob lose no packet and stay connected, carol comes in within seconds, a login that waits
# for its person goes on waiting, and memory and descriptors are given back.
#
#   alice   198.51.100.11 \
#   bob     198.51.100.12  \
#   carol   198.51.100.13   inet - pub 198.51.100.10, 2001:db8::10 (coordinator, relay)
#   mallory 198.51.100.14  /
#           2001:db8:66::/64
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/talk.sh
. "$TOP/tests/talk.sh"
need curl
need_programs tests/interop/strangers tests/interop/ctlcat
SHARE=256 # connections of one address that are no channels; and channels of machines that nobody knows
F=${WAIT_FACTOR:-1} S=${SLOWNESS:-1}
hosts alice bob carol mallory dave
ip -n "${P}inet" -6 route add 2001:db8:66::/64 via 2001:db8::14
for i in 1 2 3 4; do ip -n "${P}mallory" addr add "2001:db8:66::$i/128" dev eth0 nodad; done
coordinator_config true ""
sed -i 's|^listen_addr: .*|listen_addr: "[::]:443"|' "$W/coord/config.yaml"
start_coordinator
join alice bob
check wait_until 20 reach alice bob
check wait_until 20 direct alice bob
SERVER=$(on mallory curl -s --cacert "$W/tls.pem" "$URL/key?v=131" | grep -o '"publicKey":"mkey:[0-9a-f]*' | cut -d '"' -f 4)
[ -n "$SERVER" ] || fail "the coordinator does not tell its key"
sleep 1
before=$(status_of coordinator RssAnon) fds=$(descriptors coordinator) lines=$(wc -l <"$LOGS/coordinator.log")
start traffic alice ping -i 0.1 -W 2 "$(ip4 bob)"

# crowd NAME KIND OPTION…: until peak() ends it
crowd() {
	start "$1" mallory "$BIN/tests/interop/strangers" "$2" --to 198.51.100.10:443 --key "$SERVER" --seconds $((100 * F)) "${@:3}"
}

# figure NAME WORD: what the crowd says of itself in the end
figure() {
	sed -n "s/.* $2 \([0-9]*\).*/\1/p" "$LOGS/$1.log"
}

# peak NAME LEAST MOST KIB: of descriptors and memory, while bob asks six times and is answered. LEAST, or there is no
# crowd. ROUNDS: ask more often, where the crowd needs more time to have come. WHOLE=1: until it ends by itself.
peak() {
	local n most=0 rss=0 t worst=0

	wait_until 40 at_least $((fds + $2)) descriptors coordinator || fail "$1: $(($(descriptors coordinator) - fds)) descriptors, not $2: there is no crowd"
	for ((n = 0; n < ${ROUNDS:-6}; n++)); do
		t=$(now_msec)
		check on bob curl -s -m $((15 * F)) --cacert "$W/tls.pem" -o /dev/null "$URL/health"
		t=$(($(now_msec) - t))
		[ $t -le $worst ] || worst=$t
		t=$(($(descriptors coordinator) - fds))
		[ $t -le $most ] || most=$t
		t=$(($(status_of coordinator RssAnon) - before))
		[ $t -le $rss ] || rss=$t
		sleep 0.2
		[ -z "${WHOLE:-}" ] || ! running "$1" || n=0
	done
	if [ -n "${WHOLE:-}" ]; then
		await "$1"
	else
		check running "$1"
		stop "$1"
	fi
	step "$(cat "$LOGS/$1.log"); $most descriptors, $rss KiB more; bob waits $worst ms at most"
	check running coordinator
	[ $most -ge $(($2 * 3 / 4)) ] || fail "$1: $most descriptors, not $2: there was no crowd"
	[ $most -le "$3" ] || fail "$1: $most descriptors, not $3 at most"
	[ $rss -le "$4" ] || fail "$1: $rss KiB more, not $4 at most"
}

step "a login that will wait for its person"
talking dave --server "$URL" --ca "$W/tls.pem" --hostname dave
start dave dave "${TALKING[@]}"
tell dave login
hears dave ' URL '
login=$(sed -n 's|.* URL .*/||p' "$LOGS/dave.log" | head -n 1)

step "before TLS, and before a request"
crowd silent silent --count 400
crowd hello hello --count 400
t=$(now_msec)
join carol
in_time 15000 "$t" "carol came in"
peak hello 200 $((SHARE + 24)) 16384
stop silent
cat "$LOGS/silent.log"
# Each of these has 10 s for its next word: how many there are at once is how many handshakes the machine does in that time.
crowd tls tls --count 400
peak tls $((200 / S)) $((SHARE + 24)) 24576
crowd head head --count 400
peak head $((200 / S)) $((SHARE + 24)) 24576
for i in 1 2 3 4; do from+=(--from "2001:db8:66::$i"); done
start six mallory "$BIN/tests/interop/strangers" silent --to '[2001:db8::10]:443' --seconds $((100 * F)) --count 400 "${from[@]}"
peak six 200 $((SHARE + 24)) 16384

step "Noise"
crowd noise noise --count 20
ROUNDS=20 peak noise 16 $((SHARE + 24)) 16384
[ "$(figure noise refused)" -ge 20 ] || fail "noise is not refused: $(cat "$LOGS/noise.log")"
crowd channel channel --count 600
ROUNDS=20 peak channel $((240 / S)) $((2 * SHARE + 24)) 32768
[ "$(figure channel most)" -le $((SHARE + 128)) ] || fail "$(figure channel most) channels of one address"
# Where they come so slowly that the first ones go meanwhile, there are never too many.
[ "$(figure channel refused)" -gt 0 ] || [ "$S" -gt 1 ] || fail "nobody was told that there are too many"
crowd machine machine --count 40 --once
ROUNDS=20 peak machine 16 $((2 * SHARE + 24)) 32768
[ "$(figure machine came)" -ge 20 ] || fail "too few of one machine: $(cat "$LOGS/machine.log")"
[ "$(figure machine up)" = 16 ] || fail "$(figure machine up) channels of one machine, not 16"
wait_until 30 connected alice || fail "alice is not connected: $(wgctl alice status)"

step "bodies"
crowd bodies bodies --count 128 --once
peak bodies $((100 / S)) $((2 * SHARE + 24)) 24576
printf '%02000d' 0 | tr 0 '[' >"$W/deep"
printf '%05000d' 0 | tr 0 '[' >"$W/deeper"
verify() { on mallory curl -s -m $((10 * F)) --cacert "$W/tls.pem" -o /dev/null -w '%{http_code}' --data-binary "@$1" "$URL/verify"; }
[ "$(verify "$W/deep")" = 400 ] || fail "2,000 levels of JSON are taken"
[ "$(verify "$W/deeper")" = 413 ] || fail "5,000 bytes of JSON are taken"

step "logins"
crowd login login --count 32 --total 1060
WHOLE=1 peak login 0 $((SHARE + 64)) 32768
[ "$(figure login came)" -ge 1040 ] || fail "they did not get in: $(cat "$LOGS/login.log")"
page=$(on dave curl -s --cacert "$W/tls.pem" "$URL/register/$login")
# As the page says.
read -ra words < <(sed -n "s|.*<pre>wgctl admin \(.*\) USERNAME</pre>.*|\1 mesh|p" <<<"$page")
check admin "${words[@]}"
wait_until 20 grep -q 'STATE running' "$LOGS/dave.log" || fail "dave is not let in: $(tail -n 3 "$LOGS/dave.log")"

step "afterwards"
all_answered traffic
for n in alice bob carol; do check connected $n; done
check wait_until 20 reach alice carol
knows_dave() { wgctl alice status | grep -q ' dave '; }
wait_until 10 knows_dave || fail "alice has not heard of dave"
as_before() { at_most $((fds + 8)) descriptors coordinator && at_most $((before + 6143)) status_of coordinator RssAnon; }
wait_until 90 as_before || fail "$fds descriptors are $(descriptors coordinator), $before KiB are $(status_of coordinator RssAnon)"
step "$(descriptors coordinator) descriptors and $(status_of coordinator RssAnon) KiB, before $fds and $before;" \
	"$(($(wc -l <"$LOGS/coordinator.log") - lines)) lines of log"
[ $(($(wc -l <"$LOGS/coordinator.log") - lines)) -lt 60 ] || fail "strangers fill the log"
