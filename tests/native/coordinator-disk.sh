#!/bin/bash
# limit: 90 s
# The disk with the coordinator's database is full, and later read-only. What would change something is refused with
# the reason, who is in goes on hearing of the others, and when there is room again everything that was promised is
# written. A coordinator that cannot even open its database says why and ends.
if [ "${1:-}" != inside ]; then # a mount namespace of its own, as root or as somebody's root
	flags=-m
	[ "$(id -u)" = 0 ] || flags=-Urm
	unshare $flags mount -t tmpfs none /mnt 2>/dev/null || { echo "SKIP: no mount namespace can be made"; exit 77; }
	exec unshare $flags bash "$0" inside
fi
. "$(dirname "$0")/lib.sh"
mkdir "$W/disk"
mount -t tmpfs -o size=1m none "$W/disk" || skip "no tmpfs can be mounted"
coordinator_config "" "$W/disk/db.sqlite"
start_coordinator
mesh_key
alice_and_bob
tell bob home 900
hears alice 'home=900'
step "two nodes are there"

fill() {
	dd if=/dev/zero of="$W/disk/filler" bs=1k count=1024 2>/dev/null
	[ "$(df --output=avail "$W/disk" | tail -n 1)" -lt 16 ] || fail "the disk is not full"
}
fill
# What fits into the pages that the log has already still goes; then somebody's answer waits for room.
made=0
while timeout 6 "$BIN/wgctl" admin --admin-socket "$W/admin.sock" users create "user$made" >>"$W/said" 2>&1; do
	made=$((made + 1))
	[ $made -lt 2000 ] || fail "the full disk takes it all"
done
step "the disk is full after $made users; the last one waited"
check grep -q "database or disk is full" "$LOGS/coordinator.log"
refute admin health
admin users create refused >"$W/said" 2>&1 && fail "a user was made on a full disk"
cat "$W/said"
check grep -q "takes no writes now" "$W/said"
node carol --auth-key "$key" --debug
hears carol 'cannot write its database'
# Who is in can come back: a daemon that starts again is answered.
stop bob
node bob
hears bob 'STATE running'
# Meanwhile alice hears of bob, though nothing of it is written.
for i in $(seq 1 5); do
	tell bob endpoints "192.0.2.$i:41641"
	hears alice "endpoint 192.0.2.$i:41641"
done
step "refused, and maps go on"
[ "$(grep -c 'cannot write' "$LOGS/coordinator.log")" -lt 20 ] || fail "the log is flooded"
rm "$W/disk/filler"
wait_until 5 admin health || fail "there is room again, and it is not taken"
step "room again"
hears carol 'STATE running'
check admin users create afterwards
# The one who waited is there, for the change was made; and all of it is on disk.
words_kept() { grep -q '192.0.2.5:41641' <(sqlite3 "$W/disk/db.sqlite" 'SELECT endpoints FROM nodes' 2>/dev/null || strings "$W/disk/db.sqlite"*); }
check wait_until 10 words_kept
stop coordinator KILL
start_coordinator
admin users list -o json >"$W/users"
for u in mesh afterwards "user$made"; do check grep -q "\"$u\"" "$W/users"; done
refute grep -q '"refused"' "$W/users"
nodes_are 3
check words_kept
step "all is on disk"

check stop coordinator
mount -o remount,ro "$W/disk" || skip "the folder cannot be made read-only"
launch_coordinator
await coordinator && fail "it starts with a read-only database"
tail -n 2 "$LOGS/coordinator.log"
check grep -q "Read-only file system" "$LOGS/coordinator.log"
mount -o remount,rw "$W/disk"
fill
launch_coordinator
wait_until 5 admin health || tail -n 2 "$LOGS/coordinator.log"
refute running coordinator
check grep -q "db.sqlite: .*No space left on device" "$LOGS/coordinator.log"
rm "$W/disk/filler"
start_coordinator
nodes_are 3
hears carol 'STATE running'
step "and again with room"
