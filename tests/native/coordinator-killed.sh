#!/bin/bash
# limit: 120 s
# The real coordinator is killed (kill -9) again and again, at any moment, while nodes register with it: two machines
# race for each one-off key, machines log in again with new keys, ephemeral nodes come and go. Afterwards every node
# that was told it is in is there with the number and the addresses it was told, nobody else is, no one-off key
# let in two, nothing ephemeral is left, and the database is whole. KILLS and SEED tune it.
. "$(dirname "$0")/lib.sh"
kills=${KILLS:-30}
RANDOM=${SEED:-$$}
step "seed ${SEED:-$$}"
coordinator_config ""
start_coordinator
load load
wait_until 10 test -s "$W/told.0" || fail "nobody has joined"
for _ in $(seq "$kills"); do
	sleep "0.$(printf %03d $((50 + RANDOM % 500)))"
	running load || fail "the load has ended: $(tail -n 5 "$LOGS/load.log")"
	stop coordinator KILL
	start_coordinator
done
step "killed $kills times"
wait_until 30 told_enough || fail "the load says: $(tail -n 5 "$LOGS/load.log")"
load_ends
load_verify --db "$W/db.sqlite"
check stop coordinator
refute grep -iE 'database|out of memory' "$LOGS/coordinator.log"
