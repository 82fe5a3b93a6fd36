#!/bin/bash
# Strangers at a node: noise, disco with unknown keys, cut and forged STUN at the shared UDP port, the
# private port and the relay port; noise, cut requests and idle connections at the local API. All of it
# is met with silence or an error; the tunnel, the API, memory, descriptors and the log stay as they are. Nor does a peer
# that sends 1,000 pings a second to the daemon inside the tunnel hear more of it than a few.
#
#   alice 198.51.100.11 \
#                        inet - pub 198.51.100.10 (coordinator, relay; here the stranger)
#   bob   198.51.100.12 /
. "$(dirname "$0")/lib.sh"
need curl setpriv
need_programs tests/interop/flood
hosts alice bob
start_coordinator
join alice bob
check wait_until 20 reach alice bob
check wait_until 20 direct alice bob

sock=$W/alice/run/kernscaled.sock
before=$(status_of alice RssAnon) fds=$(descriptors alice) lines=$(wc -l <"$LOGS/alice.log")

# shoot WHERE ADDRESS PORT COUNT: datagrams to there from one port; fails when anything is answered.
cat >"$W/shoot" <<'EOS'
exec 3<>"/dev/udp/$1/$2" || exit 0
disco='TS\xf0\x9f\x92\xac'
for ((i = 0; i < $3; i++)); do
	case $((i % 6)) in
	0) head -c $((1 + RANDOM % 1200)) /dev/urandom >&3 ;;
	1) { printf "$disco"; head -c $((RANDOM % 200)) /dev/urandom; } >"$4.$$"; cat "$4.$$" >&3 ;;
	2) printf '\x01\x01\x00\x00\x21\x12\xa4\x42xxxxxxxxxxxx' >&3 ;;
	3) printf '\x01\x01\xff\xff\x21\x12\xa4\x42xxxxxxxxxxxx\x00\x20\x00\xff' >&3 ;;
	4) printf '\x04\x00\x00\x00abcdefgh' >&3 ;;
	5) printf "$disco" >&3 ;;
	esac
done 2>/dev/null
! timeout 0.3 head -c 1 <&3 2>/dev/null | grep -q .
EOS
shoot() {
	on "$1" bash "$W/shoot" "$2" "$3" "$4" "$W/datagram" || fail "the node answers noise at $2 port $3"
}

step "datagrams"
shoot pub 198.51.100.11 41641 600
for port in $(on alice ss -Hlun | awk '{ sub(/.*:/, "", $4); print $4 }' | sort -u); do
	shoot pub 198.51.100.11 "$port" 60
	shoot alice 127.0.0.1 "$port" 60
	shoot alice 127.64.0.1 "$port" 60
done
check reach alice bob 4
check direct alice bob

step "local API"
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
api() { on alice "${nobody[@]}" curl -s -m 5 -o /dev/null -w '%{http_code}' --unix-socket "$sock" "$@" || true; }
head -c 300000 /dev/zero | tr '\0' '[' >"$W/deep"
head -c 100000 /dev/urandom >"$W/noise"
chmod 644 "$W/deep" "$W/noise"
[ "$(api --data-binary "@$W/deep" http://x/v1/ping)" = 413 ] || fail "300 KB of body are taken"
head -c 200000 "$W/deep" >"$W/deep2"
chmod 644 "$W/deep2"
[ "$(api --data-binary "@$W/deep2" http://x/v1/ping)" = 400 ] || fail "200,000 levels of JSON are taken"
[ "$(api --data-binary "@$W/noise" http://x/v1/ping)" = 400 ] || fail "noise is taken for a request"
[ "$(api --data-binary "@$W/noise" http://x/v1/up)" = 403 ] || fail "who may not change is not refused first"
[ "$(api -H "x: $(head -c 60000 /dev/zero | tr '\0' y)" http://x/v1/status)" = 431 ] || fail "a head of 60 KB is taken"
curls=()
for _ in $(seq 90); do # each holds its connection with a body that never comes
	(on alice "${nobody[@]}" timeout 8 curl -s -m 8 -H 'Transfer-Encoding: chunked' -T - --unix-socket "$sock" \
		-X POST http://x/v1/ping < <(sleep 8) >/dev/null 2>&1) &
	curls+=($!)
done
sleep 1
check wgctl alice status >/dev/null
check running alice

step "TSMP"
check on bob "$BIN/tests/interop/flood" "$(ip4 alice)" tsmp 1 2 >/dev/null # the two know of each other
cpu=$(cpu_msec alice)
said=$(on bob "$BIN/tests/interop/flood" "$(ip4 alice)" tsmp 1000 5)
step "$said; alice: CPU $((($(cpu_msec alice) - cpu) / 5)) ms a second"
[ "${said##* }" -ge 5 ] || fail "pings of a daemon are not answered"
[ "${said##* }" -le 35 ] || fail "all of them are answered"

step "afterwards"
wait "${curls[@]}" # however late the last one came
check wait_until 15 at_most $((fds + 4)) descriptors alice
echo "descriptors $fds -> $(descriptors alice), log $lines -> $(wc -l <"$LOGS/alice.log") lines"
grown_less 2048 alice "$before"
[ $(($(wc -l <"$LOGS/alice.log") - lines)) -lt 60 ] || fail "strangers fill the log"
check reach alice bob 4
check direct alice bob
