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
map_settled alice bob
stop first INT

# Peers without a filter would let in what the policy does not.
filtered() {
	[ -z "$(on alice wg show kernscale0 peers 2>/dev/null)" ] || on alice nft list chain inet kernscale forward >/dev/null
}
# killed_at N SECONDS: 0 if the daemon died of it, 1 if it does not send so many in that time after it is up.
killed_at() {
	node_folders alice
	NODE_UNDER=$(preload killer "KILL_AT=$1") launch_node alice
	disown # the shell would report each death
	wait_until 60 died_or_up || fail "neither up nor killed at message $1: $(wgctl alice status)"
	wait_until "$2" not running alice && unset "PIDS[alice]"
}
died_or_up() {
	not running alice || wgctl alice status
}
survivor() {
	kill -9 "${PIDS[alice]}"
	check wait_until 5 not running alice
	unset "PIDS[alice]"
}
wipe() {
	ip -n "${P}alice" link del kernscale0 2>/dev/null
	on alice nft flush ruleset
	delete_rules alice
	rm -rf "$W/alice/run"
}

mesh_of alice >"$W/mesh"
stop alice KILL
check same_mesh alice
start traffic alice ping -i 0.05 -W 1 "$bob_ip"
# All of them take a quarter of an hour in the emulator.
EACH=1
[ "${SLOWNESS:-1}" = 1 ] || EACH=5
n=0
while killed_at $((n + EACH)) 2; do
	n=$((n + EACH))
	same_mesh alice || fail "killed at message $n, with the mesh standing: $(diff "$W/mesh" "$W/now")"
	[ $n -lt 200 ] || break
done
step "the mesh stood: killed at $((n / EACH)) of $n messages, nothing changed"
[ $n -gt 10 ] || fail "too few messages: is the shim at work?"
all_answered traffic
survivor

n=0
wipe
while killed_at $((n + EACH)) 3; do
	n=$((n + EACH))
	filtered || fail "killed at message $n: peers without a filter"
	start_node alice
	wait_until 10 same_mesh alice || fail "killed at message $n, after the next start: $(diff "$W/mesh" "$W/now")"
	stop alice KILL
	wipe
	[ $n -lt 200 ] || break
done
step "nothing stood: killed at $((n / EACH)) of $n messages, and the next start makes the same mesh"
[ $n -gt 20 ] || fail "too few messages: is the shim at work?"
survivor
start_node alice
check wait_until 20 on alice ping -q -c 1 -W 1 "$bob_ip"
check wait_until 20 on bob ping -q -c 1 -W 1 "$alice_ip"
expect 0 wgctl alice down
nothing_left alice
[ -z "$(on alice nft list ruleset)" ] || fail "left behind: $(on alice nft list ruleset)"
