# shellcheck shell=bash
# lib.sh: what native tests share: real programs on this machine's own kernel, on loopback alone, without rights.
# A test's first command is `. "$(dirname "$0")/lib.sh"`. Everything made here is undone when the script ends.
#
#   coordinator_config [LINES]   $W/config.yaml for a coordinator on 127.0.0.1:$PORT with $W/admin.sock; LINES are added
#   start_coordinator            and wait until it answers
#   start NAME COMMAND…          in the background, log in $LOGS/NAME.log; stop NAME [SIGNAL] ends it
#   wait_until SECONDS COMMAND…  poll COMMAND until it succeeds
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
START_MSEC=$(($(date +%s%N) / 1000000))
PORT=$((20000 + $$ % 20000))

now_msec() {
	echo $(($(date +%s%N) / 1000000))
}

step() {
	printf '[%6d ms] %s\n' $(($(now_msec) - START_MSEC)) "$*"
}

fail() {
	echo "FAIL: $*"
	exit 1
}

skip() {
	echo "SKIP: $*"
	exit 77
}

check() {
	"$@" || fail "line ${BASH_LINENO[0]}: $*"
}

refute() {
	! "$@" || fail "line ${BASH_LINENO[0]}: should have failed: $*"
}

wait_until() {
	local end=$(($(now_msec) + $1 * 1000))

	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(now_msec)" -lt $end ] || return 1
		sleep 0.02
	done
}

start() {
	local name=$1

	shift
	"$@" >>"$LOGS/$name.log" 2>&1 </dev/null &
	PIDS[$name]=$!
}

# stop NAME [SIGNAL]: and wait until it is gone; its exit status is handed on.
stop() {
	local pid=${PIDS[$1]} r=0

	unset "PIDS[$1]"
	kill "-${2:-TERM}" "$pid" 2>/dev/null
	{ wait "$pid" || r=$?; } 2>/dev/null
	return $r
}

running() {
	kill -0 "${PIDS[$1]}" 2>/dev/null
}

cleanup() {
	local r=$? n

	trap '' INT TERM
	for n in "${!PIDS[@]}"; do stop "$n" KILL; done
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
		database: {type: sqlite, sqlite: {path: $W/db.sqlite}}
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
