#!/bin/bash
# limit: 600 s
# One allocation of alice's daemon fails, a later one each time: while it starts with the mesh standing, while it starts
# with nothing there, and while its map changes. It goes on and comes to the same mesh, or ends with a word and without
# a signal, having changed nothing by halves: peers never stand without a packet filter, and the next start makes the
# same mesh.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
#                                                 - carol 198.51.100.13
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob carol
start_coordinator
join alice bob carol
check wait_until 20 reach alice bob
check wait_until 20 in_map alice carol
sleep 1
mesh_of alice >"$W/mesh"
install -m 666 /dev/null "$W/told"

# Peers without a filter would let in what the policy does not.
filtered() {
	[ -z "$(on alice wg show kernscale0 peers 2>/dev/null)" ] || on alice nft list chain inet kernscale forward >/dev/null
}
# starve WORD…: nomem.so is to do that next (see there)
starve() {
	: >"$W/told"
	put nomem "$*"
	mark=$(wc -l <"$LOGS/alice.log")
}
launch_starved() {
	starve "$@"
	node_folders alice
	NODE_UNDER=$(preload nomem "NOMEM=$W/nomem" "NOMEM_TOLD=$W/told") launch_node alice
}
# Where nothing was there peers come in any order. Without memory for the test of the other way the port is shared by
# raw sockets: that is well, too.
from=standing
without_shared() {
	sed '/^\tchain shared {/,/^\t}/d; / jump shared$/d; /^$/d' "$W/$1"
}
same() {
	same_mesh alice && return
	[ "$from" = nothing ] && cmp -s <(sort "$W/now") <(sort "$W/mesh") && return
	new_lines | grep -q 'shared by raw socket' && cmp -s <(without_shared now | sort) <(without_shared mesh | sort)
}
dead_or_well() {
	not running alice || { connected alice && same; }
}
new_lines() {
	tail -n "+$((mark + 1))" "$LOGS/alice.log"
}
# settles WHERE: 0: it lives and all is well, 1: it has ended, as it may
settles() {
	local r=0

	wait_until 40 dead_or_well || fail "$1, at $(cat "$W/told"): neither well nor dead: $(diff "$W/mesh" "$W/now"; wgctl alice status)"
	refute grep -E 'runtime error|Sanitizer' <(new_lines)
	running alice && return 0
	await alice || r=$?
	[ $r = 1 ] || fail "$1, at $(cat "$W/told"): ended with $r: $(new_lines | tail -n 5)"
	new_lines | tail -n 3 | grep -iE 'memory|cannot' || fail "$1, at $(cat "$W/told"): ended without a word: $(new_lines | tail -n 5)"
	return 1
}
survivor() {
	stop alice KILL
	return 0
}
wipe() {
	ip -n "${P}alice" link del kernscale0 2>/dev/null
	on alice nft flush ruleset
	delete_rules alice
	rm -rf "$W/alice/run"
}

# walk_starts standing|nothing own|most FIRST STRIDE: what there is in the kernel before
walk_starts() {
	local n=$3 dead=0 all=0

	from=$1
	while :; do
		[ "$1" = standing ] || wipe
		launch_starved "$n" 1 "$2"
		if settles "$1: allocation $n of $2"; then
			[ -s "$W/told" ] || break
			stop alice KILL
		else
			dead=$((dead + 1))
			filtered || fail "$1: allocation $n of $2, at $(cat "$W/told"): peers without a filter"
			if [ "$1" = standing ]; then
				same || fail "$1: allocation $n of $2, at $(cat "$W/told"): changed by halves: $(diff "$W/mesh" "$W/now")"
			else
				start_node alice
				wait_until 20 same || fail "$1: allocation $n of $2, after the next start: $(diff "$W/mesh" "$W/now")"
				stop alice KILL
			fi
		fi
		n=$((n + $4 * EACH)) all=$((all + 1))
	done
	step "$1: $all of $n allocations ($2) failed, it ended $dead times"
	[ $all -gt 2 ] || fail "too few allocations: is the shim at work?"
	survivor
}

# walk_changes own|most STRIDE: carol's key expires and does not, in turn; the daemon lives through all of it
walk_changes() {
	local n=1 all=0 how

	while :; do
		starve "$n" 1 "$1"
		kill -USR2 "${PIDS[alice]}"
		if [ $((all % 2)) = 0 ]; then how=--expiry=2020-01-01T00:00:00Z; else how=--disable; fi
		check admin nodes expire --identifier carol $how >/dev/null
		cp "$W/mesh.$((all % 2))" "$W/mesh"
		if ! settles "change: allocation $n of $1"; then
			fail "change: allocation $n of $1, at $(cat "$W/told"): it has ended: $(new_lines | tail -n 5)"
		fi
		# Behind those of the map come those of our own questions.
		if [ ! -s "$W/told" ] || [ $n -gt 300 ]; then break; fi
		n=$((n + $2 * EACH)) all=$((all + 1))
	done
	step "changes: $all of $n allocations ($1) failed"
	[ $all -gt 2 ] || fail "too few allocations: is the shim at work?"
}

# Each of them takes a second, and a start has thousands.
EACH=1
[ "${SLOWNESS:-1}" = 1 ] || EACH=3
stop alice KILL
check same_mesh alice
launch_starved 0 0 own
settles "a start with all the memory"
with_carol=$W/mesh.1 without=$W/mesh.0
cp "$W/mesh" "$with_carol"
carol_key=$(key_of carol) carol_ip=$(ip4 carol)
carol_left() {
	mesh_of alice >"$without"
	! grep -qE "$carol_key|$carol_ip\>" "$without"
}
check admin nodes expire --identifier carol --expiry=2020-01-01T00:00:00Z >/dev/null
wait_until 20 carol_left || fail "an expired peer stays: $(cat "$without")"
check admin nodes expire --identifier carol --disable >/dev/null
check wait_until 20 same_mesh alice
walk_changes own 17
check admin nodes expire --identifier carol --disable >/dev/null
cp "$with_carol" "$W/mesh"
check wait_until 20 same
survivor
walk_starts standing own 1 307
walk_starts standing most 3 601
walk_starts nothing own 161 307
walk_starts nothing most 501 601
start_node alice
check wait_until 20 same
check wait_until 20 on alice ping -q -c 1 -W 1 "$(ip4 bob)"
