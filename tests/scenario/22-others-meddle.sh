#!/bin/bash
# Others meddle with what is ours, as tools and people do: the table flushed, rules, address, routes and peers
# deleted, the link set down, the interface removed. The daemon puts it back and traffic goes on. On alice the
# kernel keeps others from the table, where it can (Linux 6.9); carol's kernel refuses that, so her daemon has
# to notice.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
#                                                 - carol 198.51.100.13
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob carol
start_coordinator
join alice bob
old_kernel start_node carol
check up carol
for n in alice carol; do wait_until 10 reach $n bob || fail "$n does not reach bob"; done

put_back() {
	[ "$(grep -c 'table kernscale was changed by somebody else: putting it back' "$LOGS/carol.log")" -ge "$1" ]
}
step "the ruleset is flushed"
for n in alice carol; do on $n nft flush ruleset 2>/dev/null; done
check wait_until 5 put_back 1
for n in alice carol; do wait_until 5 table_stands $n || fail "no table of $n after the flush"; done
step "the table is deleted"
on alice nft delete table inet kernscale 2>/dev/null
check on carol nft delete table inet kernscale
check wait_until 5 put_back 2
for n in alice carol; do wait_until 5 table_stands $n || fail "no table of $n after it was deleted"; done
step "a chain is emptied"
check on carol nft flush chain inet kernscale mangle-pre
check wait_until 5 put_back 3
filters() {
	on carol nft list chain inet kernscale mangle-pre | grep -q "saddr @peers4 drop"
}
check wait_until 5 filters
check wait_until 10 reach bob carol
refute put_back 6

step "the routing rules are deleted"
check rules alice 5
delete_rules alice
wait_until 5 rules alice 5 || fail "no rules again: $(on alice ip rule)"

step "the address is deleted"
alice_ip=$(ip4 alice)
check on alice ip addr del "$alice_ip/32" dev kernscale0
wait_until 5 has_address alice "$alice_ip" || fail "no address again"
wait_until 10 reach alice bob || fail "alice does not reach bob after its address was deleted"

step "the routes are flushed"
routes() {
	for family in -4 -6; do on alice ip $family route show table 52 | sort; done
}
before=$(routes)
[ "$(wc -l <<<"$before")" -ge 4 ] || fail "too few routes: $before"
routes_stand() {
	[ "$(routes)" = "$before" ]
}
kill -STOP "${PIDS[alice]}" # it may be faster than we look
for family in -4 -6; do check on alice ip $family route flush table 52; done
refute routes_stand
kill -CONT "${PIDS[alice]}"
wait_until 5 routes_stand || fail "not the same routes again: $(routes)"
wait_until 10 reach alice bob || fail "alice does not reach bob after the routes were flushed"

step "the peers are removed"
peers() {
	on alice wg show kernscale0 allowed-ips | sort
}
before=$(peers)
[ "$(wc -l <<<"$before")" = 2 ] || fail "not two peers: $before"
kill -STOP "${PIDS[alice]}" # she looks every 3 s, perhaps just now
for p in $(on alice wg show kernscale0 peers); do check on alice wg set kernscale0 peer "$p" remove; done
[ -z "$(peers)" ] || fail "they cannot be removed: $(peers)"
kill -CONT "${PIDS[alice]}"
peers_stand() {
	[ "$(peers)" = "$before" ]
}
wait_until 10 peers_stand || fail "not the same peers again: $(peers)"
wait_until 20 reach alice bob || fail "alice does not reach bob after her peers were removed"
wait_until 20 reach bob alice || fail "bob does not reach alice after her peers were removed"

step "the link is set down"
check on alice ip link set kernscale0 down
wait_until 5 link_is_up alice || fail "the link stays down"
wait_until 15 reach alice bob || fail "alice does not reach bob after the link was down"

step "the interface is removed"
check on alice ip link del kernscale0
wait_until 5 link_is_up alice || fail "no interface again"
wait_until 15 reach alice bob || fail "alice does not reach bob after the interface was removed"
wait_until 15 reach bob alice || fail "bob does not reach alice after the interface was removed"
