#!/bin/bash
# limit: 600 s
# The daemon of alice is killed right after every single message that it sends to the kernel, from its
# first one on: once with the mesh standing, where nothing may change and no ping be lost, and once for
# each message with nothing there, where the next start has to come to the same mesh. At no moment do
# peers stand without a packet filter, and nothing is there twice or left behind.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob
start_coordinator
join alice bob
alice_ip=$(ip4 alice) bob_ip=$(ip4 bob)
start first alice ping -q -i 0.1 "$bob_ip"
both_direct 20 alice bob
sleep 2.5 # the map is on disk
stop first INT

# All that is ours in the kernel, but what the network decides (endpoints).
mesh() {
	on alice wg show kernscale0 dump | sed 's/\t/ /g' | awk 'NR == 1 { print } NR > 1 { print $1, $4, $8 }'
	ip -n "${P}alice" -o addr show dev kernscale0 | sed 's/^[0-9]*: //'
	ip -n "${P}alice" link show dev kernscale0 | grep -o 'mtu.*state [A-Z]*'
	for family in -4 -6; do
		ip -n "${P}alice" $family route show table 52 | sort
		ip -n "${P}alice" $family rule
	done
	on alice nft list ruleset | sed 's/ # progname.*//; /^\tflags /d'
}
same() {
	mesh >"$W/now" 2>/dev/null
	cmp -s "$W/now" "$W/mesh"
}
# Peers without a filter would let in what the policy does not.
filtered() {
	[ -z "$(on alice wg show kernscale0 peers 2>/dev/null)" ] || on alice nft list chain inet kernscale forward >/dev/null
}
# killed_at N SECONDS: 0 if the daemon died of it, 1 if it does not send so many in that time after it is up.
killed_at() {
	NODE_UNDER="env LD_PRELOAD=$BIN/tests/scenario/killer.so KILL_AT=$1" start_doomed
	wait_until 60 died_or_up || fail "neither up nor killed at message $1: $(wgctl alice status)"
	wait_until "$2" died && unset "PIDS[alice]"
}
died_or_up() {
	died || wgctl alice status
}
start_doomed() {
	mkdir -p "$W/alice/run"
	chown "$NODE_USER" "$W/alice/run"
	# shellcheck disable=SC2086 # words
	start alice alice $NODE_UNDER "$BIN/kernscaled" --statedir "$W/alice/state" --runtimedir "$W/alice/run" \
		--socket "$W/alice/run/kernscaled.sock" --interface kernscale0 --port 41641 --table kernscale \
		--user "$NODE_USER" --ca-file "$W/tls.pem" --verbose debug
	disown # the shell would report each death
}
survivor() {
	kill -9 "${PIDS[alice]}"
	check wait_until 5 died
	unset "PIDS[alice]"
}
died() {
	! running alice
}
wipe() {
	ip -n "${P}alice" link del kernscale0 2>/dev/null
	on alice nft flush ruleset
	for family in -4 -6; do
		ip -n "${P}alice" $family rule | sed -n 's/^\(52[0-9][0-9]\):.*/\1/p' | while read -r priority; do
			ip -n "${P}alice" $family rule del pref "$priority"
		done
	done
	rm -rf "$W/alice/run"
}

mesh >"$W/mesh"
stop alice KILL
check same
start traffic alice ping -i 0.05 -W 1 "$bob_ip"
n=0
while killed_at $((n + 1)) 2; do
	n=$((n + 1))
	same || fail "killed at message $n, with the mesh standing: $(diff "$W/mesh" "$W/now")"
	[ $n -lt 200 ] || break
done
step "the mesh stood: killed at each of $n messages, nothing changed"
[ $n -gt 10 ] || fail "too few messages: is the shim at work?"
all_answered traffic
survivor

n=0
wipe
while killed_at $((n + 1)) 3; do
	n=$((n + 1))
	filtered || fail "killed at message $n: peers without a filter"
	start_node alice
	wait_until 10 same || fail "killed at message $n, after the next start: $(diff "$W/mesh" "$W/now")"
	stop alice KILL
	wipe
	[ $n -lt 200 ] || break
done
step "nothing stood: killed at each of $n messages, and the next start makes the same mesh"
[ $n -gt 20 ] || fail "too few messages: is the shim at work?"
survivor
start_node alice
check wait_until 20 on alice ping -q -c 1 -W 1 "$bob_ip"
check wait_until 20 on bob ping -q -c 1 -W 1 "$alice_ip"
expect 0 wgctl alice down
nothing_left alice
[ -z "$(on alice nft list ruleset)" ] || fail "left behind: $(on alice nft list ruleset)"
