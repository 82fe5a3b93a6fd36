# shellcheck shell=bash
# lib.sh: what native tests share: real programs on this machine's own kernel, on loopback alone, without rights.
# A test's first command is `. "$(dirname "$0")/lib.sh"`. Everything made here is undone when the script ends.
#
#   coordinator_config [LINES [DB]]  $W/config.yaml for a coordinator on 127.0.0.1:$PORT with $W/admin.sock; LINES are added
#   start_coordinator            and wait until it answers
#   start NAME COMMAND…          in the background, log in $LOGS/NAME.log; stop NAME [SIGNAL] ends it
#   wait_until SECONDS COMMAND…  poll COMMAND until it succeeds
#   node NAME ARGUMENT…          a node without a tunnel, to be talked with (talk.sh)
#   step TEXT, fail TEXT, skip TEXT, check COMMAND…, refute COMMAND…
set -u
umask 077

NATIVE_NAME=$(basename "$0" .sh)
TOP=$(realpath "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../..")
BIN=${KERNSCALE_BUILD:-build}
case $BIN in /*) ;; *) BIN=$TOP/$BIN ;; esac
W=$(mktemp -d "${TMPDIR:-/tmp}/kernscale-native.XXXXXX")
LOGS=${OUT:-$W}/$NATIVE_NAME
rm -rf "$LOGS"
mkdir -p "$LOGS"
declare -A PIDS=()
# shellcheck source=tests/words.sh
. "$TOP/tests/words.sh"
# shellcheck source=tests/talk.sh
. "$TOP/tests/talk.sh"
PORT=$(free_ports 12) || fail "no free ports" # and those behind it

start() {
	local name=$1

	shift
	"$@" >>"$LOGS/$name.log" 2>&1 </dev/null &
	PIDS[$name]=$!
}

cleanup() {
	local r=$? n

	trap '' INT TERM
	for n in "${!PIDS[@]}"; do stop "$n" KILL; done
	mountpoint -q "$W/disk" && umount -l "$W/disk"
	rm -rf "$W"
	exit $r
}
trap cleanup EXIT
trap 'exit 143' INT TERM

coordinator_config() {
	cat >"$W/derp.yaml" <<-EOF
		regions:
		  900:
		    regionid: 900
		    regioncode: tst
		    regionname: Test
		    nodes: [{name: 900a, regionid: 900, hostname: 127.0.0.1, ipv4: 127.0.0.1, derpport: 443}]
	EOF
	cat >"$W/config.yaml" <<-EOF
		server_url: http://127.0.0.1:$PORT
		listen_addr: 127.0.0.1:$PORT
		noise: {private_key_path: $W/noise.key}
		prefixes: {v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}
		derp: {server: {enabled: false}, urls: [], paths: [$W/derp.yaml], auto_update_enabled: false}
		database: {type: sqlite, sqlite: {path: ${2:-$W/db.sqlite}}}
		unix_socket: $W/admin.sock
		dns: {magic_dns: true, base_domain: mesh.test, override_local_dns: false, nameservers: {global: []}}
		${1:-}
	EOF
}

admin() {
	"$BIN/wgctl" admin --admin-socket "$W/admin.sock" "$@"
}

start_coordinator() {
	start coordinator "$BIN/kernscale-coordinator" --config "$W/config.yaml"
	wait_until 10 admin health || fail "the coordinator does not come up: $(tail -n 5 "$LOGS/coordinator.log")"
}

node() {
	talking "$1" --server "http://127.0.0.1:$PORT" "${@:2}"
	start "$1" "${TALKING[@]}"
}

# What joinload verify asks for: 20 nodes that were told that they are in, and 20 that are out. A slow machine
# gets there later.
told_enough() { awk '$3 == "0" { out++ } $3 != "0" { in_++ } END { exit !(in_ >= 20 && out >= 20) }' "$W"/told.*; }
