#!/bin/bash
# limit: 90 s
# The disk with the coordinator's database fails: each write, then each sync, ends with EIO. What would change
# something is refused with the reason or waits, who is in goes on hearing of the others, the log says it in few
# lines, and a disk that has healed has everything that was promised.
. "$(dirname "$0")/lib.sh"
mkdir "$W/disk"
lies
coordinator_config "" "$W/disk/db.sqlite"
UNDER=$(liar "$W/disk") start_coordinator
mesh_key
alice_and_bob
tell bob home 900
hears alice 'home=900'

for call in write fsync; do
	: >"$W/told"
	lies $call
	# It may be made in memory and wait for the disk, or be refused; what is said to be done is done.
	timeout 6 "$BIN/wgctl" admin --admin-socket "$W/admin.sock" users create "waits$call" >"$W/said" 2>&1 &&
		fail "$call: a user was made that is not on disk"
	check wait_until 5 not admin health
	[ -s "$W/told" ] || fail "$call: nothing failed"
	admin users create "refused$call" >"$W/said" 2>&1 && fail "$call: a user was made"
	check grep -q "takes no writes now" "$W/said"
	check grep -q 'database: cannot write: disk I/O error' "$LOGS/coordinator.log"
	node "carol$call" --auth-key "$key" --debug
	hears "carol$call" 'cannot write its database'
	goes_on
	[ "$(grep -c 'cannot write' "$LOGS/coordinator.log")" -lt 20 ] || fail "the log is flooded"
	step "$call: refused, and maps go on"
	lies
	wait_until 10 admin health || fail "$call: the disk is well again, and it is not taken"
	hears "carol$call" 'STATE running'
	check admin users create "after$call"
done
step "the disk is well"
sleep 1.2
stop coordinator KILL
start_coordinator
admin users list -o json >"$W/users"
for call in write fsync; do
	check grep -q "\"after$call\"" "$W/users"
	check grep -q "\"waits$call\"" "$W/users" # it was made, and nobody was told that it was not
	refute grep -q "\"refused$call\"" "$W/users"
done
nodes_are 4
check stop coordinator

# It cannot even be opened: said, and the end.
lies write fsync
rm -f "$W/disk/"*
UNDER=$(liar "$W/disk") launch_coordinator
await coordinator && fail "it starts without a database"
tail -n 2 "$LOGS/coordinator.log"
check grep -qE 'db.sqlite: .*(disk I/O error|Input/output error)' "$LOGS/coordinator.log"
step "one that cannot be made is told"
