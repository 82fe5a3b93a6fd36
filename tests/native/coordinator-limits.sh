#!/bin/bash
# limit: 120 s
# The coordinator runs out of descriptors, and then of memory, under strangers' connections: it does not spin, it does
# not die, who is in goes on hearing of the others, whoever is told that it is in is in, and when the flood has gone
# everything is as before.
. "$(dirname "$0")/lib.sh"
need prlimit
# FLOOD connections that say BYTES of a request each
flood() {
	rm -f "$W/calm"
	start flood "$BIN/tests/native/joinload" flood --port "$PORT" --dir "$W" --count "$1" --bytes "$2"
}

calm() {
	touch "$W/calm"
	ends_well flood
	tail -n 1 "$LOGS/flood.log"
}

coordinator_config ""
UNDER="prlimit --nofile=64" start_coordinator
mesh_key
alice_and_bob

step "descriptors"
flood 300 5
wait_until 10 at_least 60 descriptors coordinator || fail "the descriptors are not all taken"
before=$(cpu_msec coordinator)
sleep 3
used=$(($(cpu_msec coordinator) - before))
step "$used ms of CPU in 3 s without a free descriptor"
[ $used -lt 600 ] || fail "it spins"
goes_on
alive coordinator
calm
wait_until 15 admin health || fail "the descriptors do not come back"
join carol
step "and after the flood"

stop coordinator
start_coordinator
for n in alice bob carol; do hears $n 'STATE running'; done
mark alice
step "memory"
vm=$(status_of coordinator VmSize)
limit=$((vm + 2500))
prlimit --pid "${PIDS[coordinator]}" --as=$((limit * 1024))
flood 1500 12000
sleep 1
load load --workers 4
sleep 8
alive coordinator
grep -E 'VmSize|VmRSS' "/proc/${PIDS[coordinator]}/status"
wait_until 20 at_least $((limit - 299)) status_of coordinator VmSize ||
	fail "$((limit - $(status_of coordinator VmSize))) KiB are free: nothing was tried"
calm
sleep 2
alive coordinator
wait_until 30 told_enough || fail "after the flood the load says: $(tail -n 3 "$LOGS/load.log")"
load_ends
goes_on
join dave
step "and after the flood"
load_verify --workers 4 --db "$W/db.sqlite"
for n in alice bob carol dave; do hears $n 'STATE running'; done
