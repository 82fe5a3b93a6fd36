#!/bin/bash
# limit: 150 s
# The real coordinator is killed at each call in turn that changes the files of its database (a write half done),
# while nodes register with it as in coordinator-killed: every node that was told it is in is there, nobody else is,
# no one-off key let in two, and the database is whole. CALLS: how many of them.
. "$(dirname "$0")/lib.sh"
calls=${CALLS:-60}
mkdir "$W/disk"
coordinator_config "" "$W/disk/db.sqlite"
start_coordinator
start load "$BIN/tests/native/joinload" load --port "$PORT" --socket "$W/admin.sock" --dir "$W"
wait_until 10 test -s "$W/told.0" || fail "nobody has joined"
dead() { ! running coordinator; }
deaths=0
for n in $(seq "$calls"); do
	running load || fail "the load has ended: $(tail -n 5 "$LOGS/load.log")"
	stop coordinator KILL
	start coordinator env "LD_PRELOAD=$BIN/tests/scenario/killer.so" "KILL_BELOW=$W/disk" "KILL_FILE_AT=$n" \
		"$BIN/kernscale-coordinator" --config "$W/config.yaml"
	disown # the shell would report each death
	wait_until 5 dead && deaths=$((deaths + 1))
done
stop coordinator KILL
step "killed $deaths times"
[ $deaths -ge $((calls * 9 / 10)) ] || fail "too few deaths: is the shim at work?"
start_coordinator
wait_until 30 told_enough || fail "the load says: $(tail -n 5 "$LOGS/load.log")"
touch "$W/stop"
wait "${PIDS[load]}" || fail "the load says $?: $(tail -n 5 "$LOGS/load.log")"
unset "PIDS[load]"
cat "$LOGS/load.log"
# Once more from the disk alone, whatever it remembered.
stop coordinator KILL
start_coordinator
check "$BIN/tests/native/joinload" verify --port "$PORT" --socket "$W/admin.sock" --dir "$W" --db "$W/disk/db.sqlite"
step "verified"
check stop coordinator
refute grep -iE 'database|out of memory' "$LOGS/coordinator.log"
