#!/bin/bash
# Others meddle with what is ours, as tools and people do: the table flushed, rules, address and routes
# deleted, the link set down, the interface removed. The daemon puts it back and traffic goes on.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob
start_coordinator
join alice bob
wait_until 10 reach alice bob || fail "alice does not reach bob"

step "the ruleset is flushed"
on alice nft flush ruleset 2>/dev/null
on alice nft delete table inet kernscale 2>/dev/null
table_stands() {
	on alice nft list table inet kernscale | grep -q tproxy
}
wait_until 5 table_stands || fail "no table after the flush"

step "the routing rules are deleted"
for family in -4 -6; do
	for priority in 5210 5230 5250 5260 5270; do
		check on alice ip $family rule del priority $priority
	done
done
rules_stand() {
	[ "$(on alice ip rule | grep -c '^52[0-9][0-9]:')" = 5 ] && [ "$(on alice ip -6 rule | grep -c '^52[0-9][0-9]:')" = 5 ]
}
wait_until 5 rules_stand || fail "no rules again: $(on alice ip rule)"

step "the address is deleted"
check on alice ip addr del "$(ip4 alice)/32" dev kernscale0
address_stands() {
	on alice ip addr show dev kernscale0 | grep -q "inet $(ip4 alice)/32"
}
wait_until 5 address_stands || fail "no address again"
wait_until 10 reach alice bob || fail "alice does not reach bob after its address was deleted"

step "the link is set down"
check on alice ip link set kernscale0 down
link_is_up() {
	on alice ip link show up dev kernscale0 | grep -q kernscale0
}
wait_until 5 link_is_up || fail "the link stays down"
wait_until 15 reach alice bob || fail "alice does not reach bob after the link was down"

step "the interface is removed"
check on alice ip link del kernscale0
wait_until 5 link_is_up || fail "no interface again"
wait_until 15 reach alice bob || fail "alice does not reach bob after the interface was removed"
wait_until 15 reach bob alice || fail "bob does not reach alice after the interface was removed"
