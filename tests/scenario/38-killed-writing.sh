#!/bin/bash
# limit: 240 s
# alice joins with a key that is good for one machine, and her daemon is killed at a call that changes the files
# of its state (a write half done): the next one has a state that is whole or none yet, and the same `up` with
# the same key brings the one node in, not two of it. Each second one of these calls in turn, fewer in the emulator.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
. "$(dirname "$0")/lib.sh"
need jq
hosts alice
start_coordinator
state=$W/alice/state
died() { ! running alice; }
up_or_dead() { died || listens alice; }
# how many nodes pass a filter of jq
nodes() { admin nodes list -o json | jq "[.. | objects | select(.nodeKey) | $1] | length"; }
n=1 deaths=0 EACH=2
[ "${SLOWNESS:-1}" = 1 ] || EACH=4
while [ $n -lt 120 ]; do
	rm -rf "$W/alice"
	make_key once --expiration 1h
	come_in=(up --login-server="$URL" --auth-key="file:$W/once" --hostname="alice$n" --timeout=20s)
	node_folders alice
	NODE_UNDER=$(preload killer "KILL_BELOW=$state" "KILL_FILE_AT=$n") launch_node alice
	disown # the shell would report each death
	check wait_until 10 up_or_dead
	if ! died; then
		start try alice "$BIN/wgctl" --socket "$W/alice/run/kernscaled.sock" "${come_in[@]}"
		over() { died || ! running try; }
		check wait_until 30 over
		# The map is kept 2 s after it came.
		running try || wait_until 6 died
	fi
	if ! died; then
		step "no change of number $n"
		break
	fi
	deaths=$((deaths + 1))
	unset "PIDS[alice]"
	[ -z "${PIDS[try]:-}" ] || await try 2>/dev/null
	[ ! -e "$state/state.json" ] || jq -e .machine_key "$state/state.json" >/dev/null || fail "killed at change $n: the state is torn"
	[ -z "$(find "$state" -type f ! -perm 600)" ] || fail "killed at change $n: $(ls -l "$state")"
	start_node alice
	wgctl alice "${come_in[@]}" ||
		fail "killed at change $n: the next start does not come in: $(tail -n 20 "$LOGS/alice.log")"
	[ "$(nodes "select(.givenName | test(\"^alice$n(-|\$)\"))")" = 1 ] ||
		fail "killed at change $n: not one node: $(admin nodes list)"
	stop alice KILL
	ip -n "${P}alice" link del kernscale0
	on alice nft flush ruleset
	n=$((n + EACH))
done
step "killed at $deaths changes of its files"
[ $deaths -gt 10 ] || fail "too few: is the shim at work?"
[ "$(nodes .)" = $((deaths + 1)) ] || fail "nodes: $(admin nodes list)"
# No key let in two.
[ "$(admin nodes list -o json | jq '[.. | objects | select(.nodeKey) | .preAuthKey.id] | unique | length')" = $((deaths + 1)) ] || fail "a key was used twice"
