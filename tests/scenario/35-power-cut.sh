#!/bin/bash
# What a power cut would leave: whatever node, coordinator and relay replace in their state folders has been synced
# before it takes its name, and its folder after that; what the coordinator has said is in its database is on
# the disk. (A library between the programs and the system notes it, synced.c: no disk is torn here.) What is
# left of a map that a disk has lost all the same is no harm.
#
#   pub 198.51.100.10 (coordinator, relay by itself) - inet - alice 198.51.100.11
#                                                           - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
hosts alice bob
for n in coord relay alice; do install -m 666 /dev/null "$W/$n.log"; done
# noted LOG COMMAND...: whatever it starts
noted() {
	LD_PRELOAD="$BIN/tests/scenario/synced.so" SYNC_LOG="$W/$1.log" "${@:2}"
}
need_programs tests/scenario/synced.so
make_cert
noted relay run_relay --stun off --hostname relay.test
coordinator_config true ""
noted coord start_coordinator
noted alice start_node alice
check up alice
join bob
check wait_until 20 reach alice bob
key=$(key_of alice)
check up alice --force-reauth
[ "$(key_of alice)" != "$key" ] || fail "the key is the old one"
check wait_until 20 reach alice bob
check wait_until 20 in_map alice bob
# judge LOG FOLDER NAME...: all of these were replaced, and whatever was, safely
judge() {
	local said n folder=$W/$2

	said=$(awk -v folder="$folder" '$1 == "rename" && index($3, folder "/") == 1 { last = $3; if ($2 != "synced") print last " was not synced" }
		$1 == "folder" && $2 == folder { last = "" }
		END { if (last != "") print "the folder was not synced after " last }' "$W/$1.log")
	[ -z "$said" ] || fail "$2: $said"
	for n in "${@:3}"; do
		grep -qE "^rename synced $folder/$n\$" "$W/$1.log" || fail "$2: $n was not written: $(cat "$W/$1.log")"
	done
	step "$2: $(grep -c "^rename synced $folder/" "$W/$1.log") files replaced, synced before"
}
commits() {
	grep -c "^file $W/coord/db.sqlite" "$W/coord.log"
}
before=$(commits)
check admin users create other >/dev/null
[ "$(commits)" -gt "$before" ] || fail "the coordinator has said that a user is made, and it is not on the disk"
check stop alice
stop coordinator
stop relay
judge alice alice/state state.json netmap.json
judge coord coord noise.key derp.key
judge relay relay relay.key relay.tls.key relay.crt

step "a map that is lost after all"
: >"$W/alice/state/netmap.json"
run_coordinator
start_node alice
check wait_until 20 reach alice bob
check wait_until 10 grep -q 'the map on disk is of no use' "$LOGS/alice.log"
check wait_until 20 in_map alice bob
