#!/bin/bash
# scripts/leave where `wgctl down` cannot help, since nobody starts the daemon: interface, table, rules and routes
# are removed by hand, also where only the rules are left; rules and routes of a stock node, which have the same
# priorities, marks and table, stay.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob
start_coordinator
join alice bob
check wait_until 10 reach alice bob
bob_ip=$(ip4 bob)

# Behind a /run of its own there is neither a service manager nor anybody's daemon.
leave() {
	# shellcheck disable=SC2016 # for that shell
	expect "$1" on alice sh -c 'mount -t tmpfs none /run && PATH=$1:$PATH && exec sh "$2"' sh "$BIN" "$TOP/scripts/leave"
}
ours() {
	for family in -4 -6; do
		ip -N -n "${P}alice" $family rule | grep 'proto 107'
		ip -N -n "${P}alice" $family route show table 52 | grep 'proto 107'
	done
}
others() {
	for family in -4 -6; do
		ip -N -n "${P}alice" $family rule | grep -v 'proto 107'
		ip -N -n "${P}alice" $family route show table 52 | grep -v 'proto 107'
	done
}
# As a stock node makes them: before ours and behind.
stock() {
	for family in -4 -6; do
		ip -n "${P}alice" $family -batch - <<-EOF || fail "cannot add the rules of a stock node"
			rule add priority 5210 fwmark 0x80000/0xff0000 table main
			rule add priority 5230 fwmark 0x80000/0xff0000 table default
			rule add priority 5250 fwmark 0x80000/0xff0000 unreachable
			rule add priority 5270 table 52
			rule add priority 5299 fwmark 0x7/0xff table main
		EOF
	done
	ip -n "${P}alice" route add 100.99.99.99/32 dev eth0 table 52
}
stock
theirs=$(others)
[ "$(grep -c '^52' <<<"$theirs")" = 10 ] || fail "the rules of a stock node do not stand beside ours: $theirs"
[ "$(ours | grep -c '^52')" = 10 ] || fail "not ten rules of ours: $(ours)"

stop alice KILL
leave 0
said 'wgctl down failed'
gone() {
	! ip -n "${P}alice" link show kernscale0 >/dev/null 2>&1 || fail "kernscale0 is left behind"
	[ -z "$(on alice nft list tables)" ] || fail "a table is left behind: $(on alice nft list tables)"
	[ -z "$(ours)" ] || fail "rules or routes are left behind: $(ours)"
	[ "$(others)" = "$theirs" ] || fail "somebody else's rules or routes went as well: $(others)"
}
gone
step "everything of ours is gone, nothing else"
leave 0
[ -z "$SAID" ] || fail "there was something to do: $SAID"
gone
step "twice is as good as once"

start_node alice
check wait_until 20 on alice ping -q -c 1 -W 1 "$bob_ip"
stop alice KILL
check ip -n "${P}alice" link del kernscale0
check on alice nft delete table inet kernscale
[ "$(ours | grep -c '^52')" = 10 ] || fail "not ten rules of ours: $(ours)"
# A route of ours that no interface takes with it: local networks beside an exit node.
check ip -n "${P}alice" route add throw 192.0.2.0/24 table 52 proto 107 metric 2000
leave 0
gone
step "gone as well where only rules were left"
