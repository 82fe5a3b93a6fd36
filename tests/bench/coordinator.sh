#!/bin/bash
# coordinator.sh: what kernscale-coordinator costs beside a stock headscale, natively on loopback: N virtual
# nodes of the stock client library (fleet) join, stream maps, one changes, one says the same again; all see
# all. Stock programs are looked for on PATH and in KERNSCALE_STOCK. NODES and HEADSCALE_NODES list the sizes.
# With 1,000 nodes headscale takes seven minutes to settle, so it is asked for 100 unless told otherwise.
set -u
cd "$(dirname "$0")/../.." || exit 1
PATH=${KERNSCALE_STOCK:-/opt/stock/bin}:$PATH
command -v fleet >/dev/null || { echo "SKIP: no fleet on PATH or in ${KERNSCALE_STOCK:-/opt/stock/bin}"; exit 77; }
command -v curl >/dev/null || { echo "SKIP: no curl"; exit 77; }
build=${KERNSCALE_BUILD:-build}
W=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$W"' EXIT
port=$((20000 + $$ % 20000))

# config FILE: what both programs understand
config() {
	cat >"$W/derp.yaml" <<-EOF
		regions:
		  900:
		    regionid: 900
		    regioncode: tst
		    regionname: Test
		    nodes: [{name: 900a, regionid: 900, hostname: 127.0.0.1, ipv4: 127.0.0.1, derpport: 443}]
	EOF
	cat >"$1" <<-EOF
		server_url: http://127.0.0.1:$port
		listen_addr: 127.0.0.1:$port
		metrics_listen_addr: 127.0.0.1:$((port + 1))
		noise: {private_key_path: $W/noise.key}
		prefixes: {v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}
		derp: {server: {enabled: false}, urls: [], paths: [$W/derp.yaml], auto_update_enabled: false}
		disable_check_updates: true
		database: {type: sqlite, sqlite: {path: $W/db.sqlite}}
		unix_socket: $W/admin.sock
		log: {level: warn}
		dns: {magic_dns: true, base_domain: mesh.test, override_local_dns: false, nameservers: {global: []}}
	EOF
}

api() {
	curl -s --unix-socket "$W/admin.sock" -H 'Content-Type: application/json' -d "$2" "http://localhost/api/v1/$1"
}

# measure NAME NODES COMMAND...
measure() {
	local name=$1 n=$2 key=''

	shift 2
	rm -f "$W"/db* "$W/noise.key" "$W/admin.sock"
	port=$((port + 2))
	config "$W/config.yaml"
	"$@" >"$W/log" 2>&1 &
	pid=$!
	for _ in $(seq 100); do
		[ -S "$W/admin.sock" ] && break
		kill -0 $pid 2>/dev/null || { cat "$W/log"; pid=; return 1; }
		sleep 0.1
	done
	api user '{"name":"bench"}' >/dev/null
	key=$(api preauthkey '{"user":"1","reusable":true,"expiration":"2100-01-01T00:00:00Z"}' |
		grep -o 'hskey-auth-[0-9A-Za-z_-]*')
	[ -n "$key" ] || { echo "   $name gives no key"; kill $pid; pid=; return 1; }
	echo "   $name, $n nodes"
	if fleet -url "http://127.0.0.1:$port" -key "$key" -n "$n" -pid $pid -settle 3s >"$W/out" 2>"$W/err"; then
		sed -n 's/^\(join\|connect\|settled\|change\|no-op\|end\)/      &/p' "$W/out"
	else
		tail -n 5 "$W/err"
	fi
	kill $pid
	wait $pid 2>/dev/null
	pid=
}

for n in ${NODES:-100 1000}; do
	measure kernscale-coordinator "$n" "$build/kernscale-coordinator" --config "$W/config.yaml"
done
if command -v headscale >/dev/null; then
	for n in ${HEADSCALE_NODES:-100}; do
		measure headscale "$n" headscale -c "$W/config.yaml" serve
	done
else
	echo "   SKIP: no headscale beside it"
fi
