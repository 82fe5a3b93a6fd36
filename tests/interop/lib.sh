# shellcheck shell=bash
# lib.sh: stock programs beside ours. They are looked for on PATH and in KERNSCALE_STOCK (default
# /opt/stock/bin); a story that lacks one is skipped and says so.
#
#   need_stock PROGRAM...
#   start_headscale EMBEDDED PATHS   a stock Headscale on pub, in our coordinator's place; key in $W/key
#   start_derper                     a stock derper on pub, port 8443; its map in $W/derp.yaml
#   start_pinned_relay               the same with our relay, whose certificate it makes itself
#   start_stock NAME                 tailscaled in NAME; ts NAME ARGUMENT... is tailscale there
#   ts_up NAME                       joins with $W/key
#
# With KERNSCALE_RECORD set our programs are those of build/record, which write down what comes in, a
# file for each process in $LOGS/record; tests/run collects them.
# shellcheck source=tests/scenario/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scenario/lib.sh"
PATH=${KERNSCALE_STOCK:-/opt/stock/bin}:$PATH
export TS_NO_LOGS_NO_SUPPORT=true SSL_CERT_FILE=$W/tls.pem
if [ -n "${KERNSCALE_RECORD:-}" ]; then
	export KERNSCALE_RECORD=$LOGS/record
	mkdir -m 755 "$KERNSCALE_RECORD"
fi

need_stock() {
	local p

	for p in "$@"; do
		command -v "$p" >/dev/null || skip "no stock $p on PATH or in ${KERNSCALE_STOCK:-/opt/stock/bin}"
	done
}

start_headscale() {
	need_stock headscale
	make_cert
	coordinator_config "$@"
	cat >>"$W/coord/config.yaml" <<-EOF
		metrics_listen_addr: 127.0.0.1:9090
		grpc_listen_addr: 127.0.0.1:50443
		log: {level: info}
		policy: {mode: database}
	EOF
	start headscale pub headscale -c "$W/coord/config.yaml" serve
	wait_until 20 test -S "$W/coord/admin.sock" || fail "headscale does not come up: $(tail -n 5 "$LOGS/headscale.log")"
	check hs users create mesh >/dev/null
	hs preauthkeys create --user 1 --reusable --expiration 24h 2>/dev/null | tail -n 1 >"$W/key"
	[ -s "$W/key" ] || fail "headscale makes no key"
}

hs() {
	on pub headscale -c "$W/coord/config.yaml" "$@"
}

start_derper() {
	local pin

	need_stock derper
	mkdir -p "$W/derper"
	start derper pub derper -c "$W/derper/config.json" -a 198.51.100.10:8443 -certmode manual \
		-certdir "$W/derper" -hostname 198.51.100.10 -stun -http-port -1
	wait_until 10 grep -q sha256-raw "$LOGS/derper.log" || fail "derper does not come up"
	pin=$(grep -o 'sha256-raw:[0-9a-f]*' "$LOGS/derper.log" | head -n 1)
	relay_map 901 stk Stock 3478 "$pin"
}

start_pinned_relay() {
	need_programs kernscale-relay
	mkdir -p "$W/relay"
	chown "$NODE_USER" "$W/relay"
	start relay pub "$BIN/kernscale-relay" --listen 198.51.100.10:8443 --stun 198.51.100.10:3478 --tls self \
		--hostname 198.51.100.10 --state "$W/relay" --user "$NODE_USER"
	wait_until 10 grep -q sha256-raw "$LOGS/relay.log" || fail "the relay does not come up"
	relay_map 902 our Ours 3478 "$(grep -o 'sha256-raw:[0-9a-f]*' "$LOGS/relay.log" | head -n 1)"
}

start_stock() {
	need_stock tailscaled tailscale
	mkdir -p "$W/$1"
	start "$1" "$1" tailscaled --statedir="$W/$1" --socket="$W/$1/sock" --tun=ts0 --port=41641
	wait_until 20 test -S "$W/$1/sock" || fail "tailscaled of $1 does not come up"
}

ts() {
	local n=$1

	shift
	on "$n" tailscale --socket="$W/$n/sock" "$@"
}

ts_up() {
	ts "$1" up --login-server="$URL" --auth-key="file:$W/key" --hostname="$1" --accept-dns=false --timeout=60s
}

# For tcp and reach, which ask a node for its address: a stock one is asked by its own program.
ip4() {
	if [ -S "$W/$1/sock" ]; then ts "$1" ip -4; else wgctl "$1" ip -4; fi
}
