#!/bin/bash
# coordinator.sh: what kernscale-coordinator costs beside a stock headscale, natively on loopback: N virtual
# nodes of the stock client library (fleet) join, stream maps, one changes, one says the same again; all see
# all. Stock programs are looked for on PATH and in KERNSCALE_STOCK. NODES and HEADSCALE_NODES list the sizes.
# With 1,000 nodes headscale takes seven minutes to settle, so it is asked for 100 unless told otherwise. Ends with 1 when a
# figure of ours is missing; there are no targets beyond that yet.
. "$(dirname "$0")/../native/lib.sh"
# shellcheck source=tests/bench/verdict.sh
. "$TOP/tests/bench/verdict.sh"
PATH=${KERNSCALE_STOCK:-/opt/stock/bin}:$PATH
command -v fleet >/dev/null || skip "no fleet on PATH or in ${KERNSCALE_STOCK:-/opt/stock/bin}"
need curl

api() {
	curl -s --unix-socket "$W/admin.sock" -H 'Content-Type: application/json' -d "$2" "http://localhost/api/v1/$1"
}

# measure NAME NODES COMMAND...
measure() {
	local name=$1 n=$2 key=''

	shift 2
	rm -f "$W"/db* "$W/noise.key" "$W/admin.sock"
	PORT=$((PORT + 2))
	# What both programs understand.
	coordinator_config "metrics_listen_addr: 127.0.0.1:$((PORT + 1))
disable_check_updates: true
log: {level: warn}"
	start "$name" "$@"
	wait_until 10 test -S "$W/admin.sock" || { tail -n 5 "$LOGS/$name.log"; stop "$name"; return 1; }
	api user '{"name":"bench"}' >/dev/null
	key=$(api preauthkey '{"user":"1","reusable":true,"expiration":"2100-01-01T00:00:00Z"}' |
		grep -o 'hskey-auth-[0-9A-Za-z_-]*')
	[ -n "$key" ] || { echo "   $name gives no key"; stop "$name"; return 1; }
	echo "   $name, $n nodes"
	: >"$W/out"
	if fleet -url "http://127.0.0.1:$PORT" -key "$key" -n "$n" -pid "${PIDS[$name]}" -settle 3s >"$W/out" 2>"$W/err"; then
		sed -n 's/^\(join\|connect\|settled\|change\|no-op\|end\)/      &/p' "$W/out"
	else
		tail -n 5 "$W/err"
	fi
	stop "$name"
}

# all_measured NODES
bad=0
all_measured() {
	local what

	for what in join settled change no-op end; do
		verdict "$1 nodes, figures of '$what'" "$(grep -c "^$what" "$W/out")" least 1 lines || bad=1
	done
}

for n in ${NODES:-100 1000}; do
	: >"$W/out"
	measure kernscale-coordinator "$n" "$BIN/kernscale-coordinator" --config "$W/config.yaml"
	all_measured "$n"
done
if command -v headscale >/dev/null; then
	for n in ${HEADSCALE_NODES:-100}; do
		measure headscale "$n" headscale -c "$W/config.yaml" serve
	done
else
	echo "   SKIP: no headscale beside it"
fi
[ $bad = 0 ]
