#!/bin/bash
# limit: 400 s
# The real coordinator is killed at each call in turn that changes the files of its database (a write half done),
# while nodes register with it as in coordinator-killed: every node that was told it is in is there, nobody else is,
# no one-off key let in two, and the database is whole. CALLS: how many of them.
. "$(dirname "$0")/lib.sh"
calls=${CALLS:-60}
mkdir "$W/disk"
coordinator_config "" "$W/disk/db.sqlite"
start_coordinator
load load
wait_until 10 test -s "$W/told.0" || fail "nobody has joined"
deaths=0
for n in $(seq "$calls"); do
	running load || fail "the load has ended: $(tail -n 5 "$LOGS/load.log")"
	stop coordinator KILL
	UNDER=$(preload killer "KILL_BELOW=$W/disk" "KILL_FILE_AT=$n") launch_coordinator
	disown # the shell would report each death
	wait_until 15 not running coordinator && deaths=$((deaths + 1))
done
stop coordinator KILL
step "killed $deaths times"
[ $deaths -ge $((calls * 9 / 10)) ] || fail "too few deaths: is the shim at work?"
start_coordinator
wait_until 30 told_enough || fail "the load says: $(tail -n 5 "$LOGS/load.log")"
load_ends
load_verify --db "$W/disk/db.sqlite"
check stop coordinator
refute grep -iE 'database|out of memory' "$LOGS/coordinator.log"
