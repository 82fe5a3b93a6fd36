#!/bin/bash
# relay.sh: what kernscale-relay costs beside a stock derper: memory of an idle connection and CPU of
# a delivered frame, plain and TLS, both driven by the stock client library (derpload), on loopback.
# Stock programs are looked for on PATH and in KERNSCALE_STOCK. IDLE, PAIRS, SIZE, SECONDS_EACH tune it.
# Lines: `relay NAME plain|tls KiB-a-connection us-a-frame frames/s-a-core`.
set -u
cd "$(dirname "$0")/../.." || exit 1
PATH=${KERNSCALE_STOCK:-/opt/stock/bin}:$PATH
command -v derpload >/dev/null || { echo "SKIP: no derpload on PATH or in ${KERNSCALE_STOCK:-/opt/stock/bin}"; exit 77; }
W=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$W"' EXIT
chmod 755 "$W"
port=$((20000 + $$ % 20000))

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
	awk -v n="$name" -v k="$kind" '
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
awk '$2 == "kernscale" { m[$3] = $4; c[$3] = $5 }
	$2 == "derper" { if (c[$3] > 0) printf "   %s: derper takes %.1f times the memory, %.1f times the CPU\n", $3, $4 / m[$3], $5 / c[$3] }
	END { bad = m["plain"] + 0 > 4 || m["tls"] + 0 > 20; exit bad }' "$W/figures"
