#!/bin/bash
# limit: 150 s
# The disk of a node's state fails (EIO) at each of the calls that change it: what was asked for is refused
# with the cause, or told by status, the mesh goes on, the files are the last good ones, and a disk that has
# healed has everything. Files torn by a crash: never another identity, and the mesh in the kernel stays.
#
#   alice 198.51.100.11 (liar.so) \
#                                  inet - pub 198.51.100.10 (coordinator, relay)
#   bob, carol, dave              /
. "$(dirname "$0")/lib.sh"
need wg
hosts alice bob carol dave
start_coordinator
state=$W/alice/state
lies
NODE_UNDER=$(liar "$state") join alice
join bob
check wait_until 20 reach alice bob
alice_ip=$(ip4 alice)
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"
both_direct 20 alice bob
check wait_until 10 in_map alice bob

for call in write fsync rename; do
	cp "$state/state.json" "$W/before.json"
	lies $call
	expect 1 wgctl alice up --hostname="alice-$call"
	said 'cannot write the state in .*: Input/output error'
	cmp "$state/state.json" "$W/before.json" || fail "$call: the state changed"
	[ ! -e "$state/state.json.new" ] || fail "$call: half a file is left behind"
	check wgctl alice status >/dev/null
	lies
	expect 0 wgctl alice up --hostname="alice-$call"
	check grep -q "alice-$call" "$state/state.json"
done
for letter in w f r; do
	grep -q $letter "$W/told" || fail "not all three calls failed: $(cat "$W/told")"
done
step "what cannot be kept is refused, and goes when it can"

lies write rename
cp "$state/netmap.json" "$W/before.map"
join carol
check wait_until 20 reach alice carol
check wait_until 10 not map_kept alice
expect 0 wgctl alice status
said 'cannot be kept in .*Input/output error'
cmp "$state/netmap.json" "$W/before.map" || fail "the map on disk is not the last good one"
stop alice KILL
NODE_UNDER=$(liar "$state") start_node alice # with the disk as it is
check wait_until 10 reach alice carol
check wait_until 10 direct alice bob
[ "$(grep -c 'cannot keep the map' "$LOGS/alice.log")" -lt 6 ] || fail "the log is full of it"
lies
check wait_until 40 map_kept alice
check wait_until 10 in_map alice carol
step "the map goes on, and is kept when it can be"

# What a start finds out for itself and keeps.
stop alice KILL
grep -v '"relay_port"' "$state/state.json" >"$W/less.json" && cat "$W/less.json" >"$state/state.json"
lies write rename
NODE_UNDER=$(liar "$state") start_node alice
check wait_until 10 reach alice carol
not_written() { wgctl alice status | grep -q 'The state cannot be written in .*Input/output error'; }
check wait_until 10 not_written
cmp "$state/state.json" "$W/less.json" || fail "the state changed"
lies
check wait_until 20 grep -q '"relay_port"' "$state/state.json"
expect 0 wgctl alice status
! grep -q 'cannot be written' <<<"$SAID" || fail "status does not know that it is kept"
step "the state is kept as soon as it can be"

# Torn by a power cut, or half of what a dying disk gave back.
stop alice KILL
cp -p "$state/state.json" "$W/whole.json"
node_command alice
for bytes in 0 1 300; do
	head -c $bytes "$W/whole.json" >"$state/state.json"
	cp "$state/state.json" "$W/torn.json"
	expect 1 timeout 20 ip netns exec "${P}alice" "${NODE_COMMAND[@]}"
	said 'cannot be read: it holds this machine.s identity'
	[ "$(grep -c . <<<"$SAID")" = 1 ] || fail "not one line: $SAID"
	cmp "$state/state.json" "$W/torn.json" || fail "the torn state was changed"
done
step "a torn state is told, and not replaced"
cp -p "$W/whole.json" "$state/state.json"
head -c 100 "$W/whole.json" >"$state/state.json.new" # of a start that was killed there
head -c 400 "$state/netmap.json" >"$W/torn.map" && cat "$W/torn.map" >"$state/netmap.json"
start_node alice
check wait_until 20 direct alice bob
check wait_until 20 reach alice carol
[ "$(ip4 alice)" = "$alice_ip" ] || fail "another address: $(ip4 alice)"
nodes_are 3
all_answered traffic
join dave
check wait_until 20 reach alice dave
check wait_until 10 in_map alice dave
