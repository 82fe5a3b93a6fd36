#!/bin/bash
# limit: 180 s
# The disk of a node's state is full, then read-only: the mesh goes on, changes of the map still reach
# the kernel, what cannot be kept is said in the log and by status, a restart finds the last good state,
# and when there is room again all is written.
#
#   alice 198.51.100.11 (state folder of 256 KiB) \
#                                                  inet - pub 198.51.100.10 (coordinator, relay)
#   bob, carol                                    /
. "$(dirname "$0")/lib.sh"
hosts alice bob carol
start_coordinator
mkdir -p "$W/alice/state"
mount -t tmpfs -o size=256k,mode=700 none "$W/alice/state" || skip "no tmpfs can be mounted"
at_end() { umount -l "$W/alice/state"; }
join alice bob
check wait_until 20 reach alice bob
both_direct 20 alice bob
state=$W/alice/state
check wait_until 10 in_map alice bob

step "full"
dd if=/dev/zero of="$state/ballast" bs=4k >/dev/null 2>&1
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"
join carol
check wait_until 20 reach alice carol
expect 0 wgctl alice status
said carol
check wait_until 10 grep -q 'cannot keep the map .*No space left' "$LOGS/alice.log"
expect 0 wgctl alice status
said 'cannot be kept in .*No space left'
refute grep -q carol "$state/netmap.json"
check in_map alice bob # the last good one is whole

step "killed and started again while full"
stop alice KILL
start_node alice
check wait_until 10 reach alice bob
check wait_until 10 reach alice carol

step "a first start without room says so"
mkdir -p "$W/alice/state/fresh" && chown "$NODE_USER" "$W/alice/state/fresh"
expect 1 timeout $((20 * ${WAIT_FACTOR:-1})) ip netns exec "${P}alice" "$BIN/kernscaled" --statedir "$W/alice/state/fresh" \
	--runtimedir "$W/alice/run2" --socket "$W/alice/run2.sock" --interface ks1 --port 41642 --table ks1 --user "$NODE_USER"
said 'No space left'
rm -rf "$W/alice/state/fresh"

step "room again"
rm "$state/ballast"
check wait_until 45 in_map alice carol
check wait_until 5 map_kept alice
[ "$(grep -o '"node_key": "[^"]*"' "$state/state.json" | wc -l)" = 1 ] || fail "the state has no node key"

step "read-only, and killed"
check wait_until 10 mount -o remount,ro "$state" # not while it is written
stop alice KILL
launch_node alice # whose folder cannot be touched
check wait_until 10 reach alice bob
check wait_until 10 reach alice carol
check wait_until 10 grep -qE 'cannot (keep the map|write the state) .*Read-only' "$LOGS/alice.log"

all_answered traffic
[ "$(grep -c 'cannot keep the map' "$LOGS/alice.log")" -lt 20 ] || fail "the log is full of it"

step "down is down all the same, and kept when it can be"
expect 1 wgctl alice down
said 'the mesh is down, but a restart would bring it up: cannot write the state in .*: Read-only'
said 'make room or mend the folder'
nothing_left alice
expect 3 wgctl alice status
said 'The state cannot be written in .*: Read-only'
check mount -o remount,rw "$state"
check nsenter -t "${PIDS[alice]}" -m mount -o remount,rw "$state" # its mounts are a copy of when it was read-only
check wait_until 20 grep -q '"want_running": false' "$state/state.json"
expect 3 wgctl alice status
! grep -q 'cannot be written' <<<"$SAID" || fail "status does not know that it is kept"
stop alice
start_node alice
expect 3 wgctl alice status
nothing_left alice
