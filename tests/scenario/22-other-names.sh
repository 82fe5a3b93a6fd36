#!/bin/bash
# limit: 240 s
# The daemon of alice is started with another interface, table and place for its rules than before: the mesh comes up
# under the new names and nothing is left under the old ones, also where the two places of rules overlap. What it cannot
# have, since it is another's, does not cost what stands. `wgctl down` finds what was made under any name.
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

move() {
	check stop alice
	start_node alice --interface "$1" --table "$2" --rule-base "$3"
	wait_until 10 stands_as alice "$1" "$2" "$3" ||
		fail "not $1 $2 $3: $(on alice wg show interfaces; on alice nft list tables; ip -n "${P}alice" rule; cat "$W/alice/run/kernel-objects")"
	check wait_until 20 reach alice bob
	check wait_until 20 reach bob alice
	step "$1 $2 $3"
}
wait_until 5 stands_as alice kernscale0 kernscale 5200 || fail "not as it began: $(ip -n "${P}alice" rule | grep "proto 107")"
move kernscale0 kernscale 5210
move kernscale0 kernscale 5260
move kernscale0 kernscale 5220
move kernscale0 mesh 5220
move mesh1 mesh 5220
# Names of a start that came to nothing, with the same interface.
echo "mesh1 mesh 7000" >>"$W/alice/run/kernel-objects"
check ip -n "${P}alice" rule add priority 7010 table 52 protocol 107
move mesh2 site 6000

step "names that cannot be had"
check on alice nft add table inet others
check on alice ip link add foreign type dummy
start traffic alice ping -i 0.2 -W 1 "$(ip4 bob)"
check stop alice
fails() {
	wgctl alice status | grep -q "$1"
}
check on alice ip link add squat type wireguard
check on alice wg set squat listen-port 5555
check on alice ip link set squat up
for what in "mesh3 others" "mesh2 others" "foreign kernscale" "mesh3 kernscale --port 5555"; do
	# shellcheck disable=SC2086 # words
	set -- $what
	start_node alice --interface "$1" --table "$2" "${@:3}"
	why='exists and is'
	[ $# = 2 ] || why='port 5555 is taken'
	wait_until 10 fails "$why" || fail "$what: $(wgctl alice status)"
	check stop alice
	check on alice nft list chain inet site forward >/dev/null
	[ "$(cat "$W/alice/run/kernel-objects")" = "mesh2 site 6000" ] || fail "$what: noted: $(cat "$W/alice/run/kernel-objects")"
done
check on alice ip link del squat
check on alice wg show mesh2 peers
sleep 1
all_answered traffic
check on alice nft delete table inet others
check on alice ip link del foreign

step "down, by one that does not have those names"
start_node alice --interface foreign --table kernscale --port 0
check wait_until 10 wgctl alice status
expect 0 wgctl alice down
[ -z "$(on alice wg show interfaces)$(on alice nft list tables)$(ip -n "${P}alice" rule | grep "proto 107")" ] ||
	fail "left behind: $(on alice wg show interfaces; on alice nft list tables; ip -n "${P}alice" rule)"
[ ! -e "$W/alice/run/kernel-objects" ] || fail "the names are still noted: $(cat "$W/alice/run/kernel-objects")"
expect 0 wgctl alice up
check wait_until 20 reach alice bob
