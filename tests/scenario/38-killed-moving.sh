#!/bin/bash
# limit: 240 s
# The daemon of alice is started with another interface, table and place for its rules, and killed right after a message
# that it sends to the kernel, a later one each time: at no moment do peers stand without a packet filter, and the next
# start comes to the mesh under the new names with nothing left under the old ones.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob
start_coordinator
join alice bob
check wait_until 20 reach alice bob
map_settled alice bob

old=(kernscale0 kernscale 5200)
new=(mesh1 site 6000)
# named INTERFACE TABLE BASE: the arguments of a start with them
named() {
	echo --interface "$1" --table "$2" --rule-base "$3"
}
stands() {
	stands_as alice "$@" && [ -n "$(on alice wg show "$1" peers)" ]
}
# Every interface with peers has a table that is made for it.
filtered() {
	local i

	for i in $(on alice wg show interfaces); do
		[ -z "$(on alice wg show "$i" peers)" ] || on alice nft list ruleset | grep -q "iif != \"$i\" accept" || return 1
	done
}
# killed_at N ARGUMENT…: 0 if a daemon started so died of its N-th message, 1 if it does not send so many
killed_at() {
	node_folders alice
	# shellcheck disable=SC2046 # words
	NODE_UNDER=$(preload killer "KILL_AT=$1") launch_node alice $(named "${@:2}")
	disown # the shell would report each death
	wait_until 60 died_or_stands "${@:2}" || fail "neither up nor killed at message $1: $(wgctl alice status)"
	wait_until 1 not running alice && unset "PIDS[alice]"
}
died_or_stands() {
	not running alice || stands "$@"
}
# to INTERFACE TABLE BASE: started with them, and there
to() {
	# shellcheck disable=SC2046 # words
	start_node alice $(named "$@")
	wait_until 15 stands "$@" ||
		fail "not $*: $(on alice wg show interfaces; on alice nft list tables; ip -n "${P}alice" rule; cat "$W/alice/run/kernel-objects")"
	stop alice
}

check stop alice
# All of some eighty take two minutes, and a quarter of an hour in the emulator.
EACH=3
[ "${SLOWNESS:-1}" = 1 ] || EACH=12
n=0
while killed_at $((n + EACH)) "${new[@]}"; do
	n=$((n + EACH))
	filtered || fail "killed at message $n: peers without a filter: $(on alice wg show; on alice nft list ruleset)"
	to "${new[@]}"
	to "${old[@]}"
	[ $n -lt 200 ] || break
done
step "other names: killed at $((n / EACH)) of $n messages, and the next start is under them"
[ $n -gt 20 ] || fail "too few messages: is the shim at work?"
check stop alice
