# shellcheck shell=bash
# lib.sh: what native tests share: real programs on this machine's own kernel, on loopback alone, without rights.
# A test's first command is `. "$(dirname "$0")/lib.sh"`. Everything made here is undone when the script ends.
#
#   coordinator_config [LINES [DB]]  $W/config.yaml for a coordinator on 127.0.0.1:$PORT with $W/admin.sock; LINES are added
#   start_coordinator            below the command $UNDER, if any, and wait until it answers: launch_coordinator, coordinator_up
#   mesh_key                     user "mesh" and a reusable key in $key
#   join NAME…                   nodes with $key, one after the other
#   alice_and_bob                both join; bob's number in $bob_id
#   goes_on                      alice hears of what bob says, three times
#   load MODE [OPTION…]          joinload at this coordinator, in the background; load_ends, and it says that all was well
#   load_verify [OPTION…]        from the disk alone: the coordinator knows what the load was told
#   start_relay NAME PORT [OPTION…]  on 127.0.0.1:PORT, below $UNDER, and wait until it is up
#   client NAME PORT CERT        of a relay (derpcat), without waiting; came SECONDS NAME… waits until they are in
#   echoes NAME                  that client sends back what it hears; answered A B: B answers what A says
#   still_in NAME…               clients that have had one connection all the time
#   alive NAME                   fails with its last words if it has died
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

launch_coordinator() {
	# shellcheck disable=SC2086 # words
	start coordinator ${UNDER:-} "$BIN/kernscale-coordinator" --config "$W/config.yaml"
}

coordinator_up() {
	wait_until 10 admin health || fail "the coordinator does not come up: $(tail -n 5 "$LOGS/coordinator.log")"
}

start_coordinator() {
	launch_coordinator
	coordinator_up
}

mesh_key() {
	check admin users create mesh
	check admin preauthkeys create --user 1 --reusable --expiration 1h >"$W/key.said"
	key=$(tail -n 1 "$W/key.said")
}

node() {
	talking "$1" --server "http://127.0.0.1:$PORT" "${@:2}"
	start "$1" "${TALKING[@]}"
}

join() {
	local n

	for n in "$@"; do
		node "$n" --auth-key "$key"
		hears "$n" 'STATE running'
	done
}

alice_and_bob() {
	join alice bob
	bob_id=$(sed -nE 's/^ *[0-9]+ SELF ([0-9]+) .*/\1/p' "$LOGS/bob.log")
	mark alice
}

alive() {
	running "$1" || { await "$1"; fail "$1 has died ($?): $(tail -n 3 "$LOGS/$1.log")"; }
}

BOB_SAID=0
goes_on() {
	alive coordinator
	for _ in 1 2 3; do
		BOB_SAID=$((BOB_SAID + 1)) # another one each time, else there is nothing to hear
		tell bob endpoints "192.0.2.$BOB_SAID:41641"
		hears alice "PEER CHANGED $bob_id"
		mark alice
	done
}

load() {
	start load "$BIN/tests/native/joinload" "$1" --port "$PORT" --socket "$W/admin.sock" --dir "$W" "${@:2}"
}

# What joinload verify asks for: 20 nodes that were told that they are in, and 20 that are out. A slow machine
# gets there later.
told_enough() { awk '$3 == "0" { out++ } $3 != "0" { in_++ } END { exit !(in_ >= 20 && out >= 20) }' "$W"/told.*; }

load_ends() {
	touch "$W/stop"
	ends_well load
	cat "$LOGS/load.log"
}

load_verify() {
	stop coordinator KILL
	start_coordinator
	check "$BIN/tests/native/joinload" verify --port "$PORT" --socket "$W/admin.sock" --dir "$W" "$@"
	step "verified"
}

start_relay() {
	# shellcheck disable=SC2086 # words
	start "$1" ${UNDER:-} "$BIN/kernscale-relay" --listen "127.0.0.1:$2" --user "$(id -u):$(id -g)" --state "$W/$1" \
		--hostname 127.0.0.1 "${@:3}"
	wait_until 10 grep -q 'DERP on TCP' "$LOGS/$1.log" || fail "$1 does not come up: $(cat "$LOGS/$1.log")"
}

client() {
	mkfifo "$W/$1.in"
	# shellcheck disable=SC2016 # words of that shell
	start "$1" bash -c 'exec "$@" <>"$0"' "$W/$1.in" stdbuf -oL "$BIN/tests/interop/derpcat" "127.0.0.1:$2" "$3"
}

came() {
	local n

	for n in "${@:2}"; do
		wait_until "$1" grep -q '^up' "$LOGS/$n.log" || fail "$n does not come in: $(tail -n 3 "$LOGS/$n.log")"
		step "$n came in"
	done
}

echoes() {
	echo echo >"$W/$1.in"
}

WORDS_SAID=0
answered() {
	WORDS_SAID=$((WORDS_SAID + 1))
	echo "$(sed -n 's/^key //p' "$LOGS/$2.log") word $WORDS_SAID" >"$W/$1.in"
	wait_until 10 grep -q "^packet .* word $WORDS_SAID\$" "$LOGS/$1.log" || fail "$1 and $2 do not hear each other"
}

still_in() {
	local n

	for n in "$@"; do [ "$(grep -c '^up' "$LOGS/$n.log")" = 1 ] || fail "$n was thrown out"; done
}
