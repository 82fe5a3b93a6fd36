#!/bin/bash
# scripts/leave where `wgctl down` cannot help, since nobody starts the daemon: interface, table, rules and routes
# are removed by hand, also where only the rules are left, and where the settings give them other names; rules and
# routes of a stock node, which have the same priorities, marks and table, stay.
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

# Behind a /run of its own there is neither a service manager nor anybody's daemon, and behind an /etc of its own no
# settings but those in $W/settings.
: >"$W/settings"
leave() {
	# shellcheck disable=SC2016 # for that shell
	expect "$1" on alice sh -c 'mount -t tmpfs none /run && mount -t tmpfs none /etc && mkdir /etc/kernscale &&
		cp "$3" /etc/kernscale/kernscaled.yaml && PATH=$1:$PATH && exec sh "$2"' sh "$BIN" "$TOP/scripts/leave" "$W/settings"
}
ours() {
	for family in -4 -6; do
		ip -N -n "${P}alice" $family rule | grep 'proto 107'
		ip -N -n "${P}alice" $family route show table all | grep 'proto 107'
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
	! ip -n "${P}alice" -o link show type wireguard | grep . || fail "an interface is left behind"
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

# In the ways they may be written.
cat >"$W/settings" <<-EOF
	interface: ks0
	table: "ks" # of the firewall
	rule-base: 6000
	route-table: 99
	runtimedir: /run/elsewhere
	socket: '$W/alice/run/kernscaled.sock'
EOF
renamed() {
	start_node alice --interface ks0 --table ks --rule-base 6000 --route-table 99
	[ -z "$*" ] || check "$@"
	check wait_until 20 on alice ping -q -c 1 -W 1 "$bob_ip"
	check ip -n "${P}alice" link show ks0 >/dev/null
	check on alice nft list table inet ks >/dev/null
	[ "$(ours | grep -c '^60')" = 10 ] || fail "not ten rules from 6000 on: $(ours)"
}
renamed
leave 0
[ -z "$SAID" ] || fail "wgctl down did not do it: $SAID"
gone
step "gone in order, with other names"
stop alice KILL
renamed up alice
stop alice KILL
leave 0
said 'wgctl down failed'
gone
step "gone by hand, with other names"
check on alice nft add table inet ks
leave 0
check on alice nft delete table inet ks
step "what somebody else gave such a name stays"
