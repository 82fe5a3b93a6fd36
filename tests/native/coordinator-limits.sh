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
	wait "${PIDS[flood]}" || fail "the flood says: $(cat "$LOGS/flood.log")"
	unset "PIDS[flood]"
	tail -n 1 "$LOGS/flood.log"
}

# ticks: CPU of the coordinator, in hundredths of a second
ticks() {
	local s

	read -r s <"/proc/${PIDS[coordinator]}/stat"
	awk '{ print $12 + $13 }' <<<"${s##*)}"
}

alive() {
	running coordinator || { wait "${PIDS[coordinator]}"; fail "the coordinator has died ($?): $(tail -n 3 "$LOGS/coordinator.log")"; }
}

told=0
goes_on() {
	for _ in 1 2 3; do
		told=$((told + 1)) # another one each time, else there is nothing to hear
		tell bob endpoints "192.0.2.$told:41641"
		hears alice "PEER CHANGED $bob_id"
		mark alice
	done
}

coordinator_config ""
start coordinator bash -c 'ulimit -n 64 && exec "$@"' - "$BIN/kernscale-coordinator" --config "$W/config.yaml"
wait_until 10 admin health || fail "the coordinator does not come up: $(tail -n 5 "$LOGS/coordinator.log")"
check admin users create mesh
check admin preauthkeys create --user 1 --reusable --expiration 1h >"$W/key.said"
key=$(tail -n 1 "$W/key.said")
for n in alice bob; do
	node $n --auth-key "$key"
	hears $n 'STATE running'
done
bob_id=$(sed -nE 's/^ *[0-9]+ SELF ([0-9]+) .*/\1/p' "$LOGS/bob.log")
mark alice

step "descriptors"
flood 300 5
sleep 1
[ "$(find "/proc/${PIDS[coordinator]}/fd" -type l | wc -l)" -ge 60 ] || fail "the descriptors are not all taken"
before=$(ticks)
sleep 3
used=$(($(ticks) - before))
step "$used hundredths of CPU in 3 s without a free descriptor"
[ $used -lt 60 ] || fail "it spins"
goes_on
alive
calm
wait_until 15 admin health || fail "the descriptors do not come back"
node carol --auth-key "$key"
hears carol 'STATE running'
step "and after the flood"

stop coordinator
start_coordinator
for n in alice bob carol; do hears $n 'STATE running'; done
mark alice
step "memory"
vm=$(awk '/^VmSize/ { print $2 }' "/proc/${PIDS[coordinator]}/status")
limit=$((vm + 2500))
prlimit --pid "${PIDS[coordinator]}" --as=$((limit * 1024))
flood 1500 12000
sleep 1
start load "$BIN/tests/native/joinload" load --port "$PORT" --socket "$W/admin.sock" --dir "$W" --workers 4
sleep 8
alive
grep -E 'VmSize|VmRSS' "/proc/${PIDS[coordinator]}/status"
vm=$(awk '/^VmSize/ { print $2 }' "/proc/${PIDS[coordinator]}/status")
[ "$vm" -gt $((limit - 300)) ] || fail "$((limit - vm)) KiB are free: nothing was tried"
calm
sleep 2
alive
wait_until 30 told_enough || fail "after the flood the load says: $(tail -n 3 "$LOGS/load.log")"
touch "$W/stop"
wait "${PIDS[load]}" || fail "the load says: $(tail -n 3 "$LOGS/load.log")"
unset "PIDS[load]"
goes_on
node dave --auth-key "$key"
hears dave 'STATE running'
step "and after the flood"
stop coordinator KILL
start_coordinator
check "$BIN/tests/native/joinload" verify --port "$PORT" --socket "$W/admin.sock" --dir "$W" --workers 4 --db "$W/db.sqlite"
for n in alice bob carol dave; do hears $n 'STATE running'; done
cat "$LOGS/load.log"
