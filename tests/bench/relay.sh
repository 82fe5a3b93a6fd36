#!/bin/bash
# relay.sh: what kernscale-relay costs beside a stock derper: memory of an idle connection and CPU of
# a delivered frame, plain and TLS, both driven by the stock client library (derpload), on loopback.
# Stock programs are looked for on PATH and in KERNSCALE_STOCK. IDLE, PAIRS, SIZE, SECONDS_EACH tune it.
# Lines: `relay NAME plain|tls KiB-a-connection us-a-frame frames/s-a-core`, - for what was not measured. Ends with 1 when a
# target is missed: memory, and half of derper's CPU at most where there is a derper.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/bench/verdict.sh
. tests/bench/verdict.sh
PATH=${KERNSCALE_STOCK:-/opt/stock/bin}:$PATH
command -v derpload >/dev/null || { echo "SKIP: no derpload on PATH or in ${KERNSCALE_STOCK:-/opt/stock/bin}"; exit 77; }
W=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$W"' EXIT
chmod 755 "$W"
# shellcheck source=tests/words.sh
. tests/words.sh
port=$(free_ports 16) || fail "no free ports"

# measure NAME KIND COMMAND…: starts a relay, waits for its port, loads it
measure() {
	local name=$1 kind=$2 pin=''

	shift 2
	port=$((port + 1))
	"$@" >"$W/log" 2>&1 &
	pid=$!
	for _ in $(seq 100); do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
		kill -0 $pid 2>/dev/null || { cat "$W/log"; pid=; return 1; }
		sleep 0.1
	done
	if [ "$kind" = tls ]; then
		for _ in $(seq 50); do
			pin=$(grep -o 'sha256-raw:[0-9a-f]*' "$W/log" | head -n 1)
			[ -n "$pin" ] && break
			sleep 0.1
		done
		set -- -url "127.0.0.1:$port" -pin "$pin"
	else
		set -- -url "http://127.0.0.1:$port/derp"
	fi
	derpload "$@" -pid $pid -n "${IDLE:-1000}" -pairs "${PAIRS:-4}" -size "${SIZE:-1200}" \
		-d "${SECONDS_EACH:-8}s" >"$W/out" 2>"$W/err" || cat "$W/err"
	sed "s/^/   $name $kind: /" "$W/out"
	awk -v n="$name" -v k="$kind" 'BEGIN { mem = cpu = fps = "-" }
		/^idle:/ { for (i = 1; i <= NF; i++) if ($i == "KiB") mem = $(i - 1) }
		/^frames:/ { for (i = 1; i <= NF; i++) { if ($i == "cpu") cpu = $(i + 1); if ($i == "->") fps = $(i + 1) } }
		END { print "relay", n, k, mem, cpu, fps }' "$W/out" >>"$W/figures"
	kill $pid
	wait $pid 2>/dev/null
	pid=
}

start_ours() {
	exec build/kernscale-relay --user 65534:65534 --state "$W/state" --hostname 127.0.0.1 --stun off "$@"
}

next() {
	echo "127.0.0.1:$((port + 1))"
}

mkdir -p "$W/derper"
measure kernscale plain start_ours --listen "$(next)" --tls none
measure kernscale tls start_ours --listen "$(next)" --tls self
if command -v derper >/dev/null; then
	measure derper plain derper -c "$W/derper/key" -a "$(next)" -stun=false -http-port -1 -hostname 127.0.0.1 -certmode letsencrypt
	measure derper tls derper -c "$W/derper/key" -a "$(next)" -stun=false -http-port -1 -hostname 127.0.0.1 -certmode manual -certdir "$W/derper"
fi
cat "$W/figures"

# figure NAME KIND COLUMN
figure() {
	awk -v n="$1" -v k="$2" -v i="$3" '$2 == n && $3 == k { sub(/[^0-9.].*/, "", $i); print $i }' "$W/figures"
}
# times COLUMN KIND: derper's in ours
times() {
	awk -v a="$(figure derper "$2" "$1")" -v b="$(figure kernscale "$2" "$1")" 'BEGIN { if (a > 0 && b > 0) printf "%.1f", a / b }'
}
bad=0
for k in plain tls; do
	case $k in plain) most=4 ;; *) most=20 ;; esac
	verdict "$k: memory of an idle connection" "$(figure kernscale $k 4)" most $most KiB || bad=1
	if command -v derper >/dev/null; then
		echo "   $k: derper takes $(times 4 $k) times the memory"
		verdict "$k: derper's CPU of a delivered frame in ours" "$(times 5 $k)" least 2 times || bad=1
	else
		verdict "$k: CPU of a delivered frame (no derper beside it)" "$(figure kernscale $k 5)" least 0 us || bad=1
	fi
done
[ $bad = 0 ]
