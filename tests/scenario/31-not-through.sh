#!/bin/bash
# limit: 300 s
# Alice, a member, takes bob, who forwards for containers of his, as her way out (TS-2024-005): she has her own
# WireGuard send him what is for the internet and for what is behind him. None of it is forwarded, also with another
# table on bob's host whose forward chain accepts and which translates what is for bob's mesh address, nor when that copy
# of the filter alone is left which stays when the table goes with its owner. What bob's own asks of alice is answered.
#
#   alice 198.51.100.11 - inet - bob 198.51.100.12, bridge0 172.17.0.1 - inside 172.17.0.2
#                              - third 198.51.100.13
. "$(dirname "$0")/lib.sh"
. "$HERE/unanswered.sh"
need wg nft
hosts alice bob third
space inside
cable bob bridge0 inside eth0
ip -n "${P}bob" addr add 172.17.0.1/24 dev bridge0
ip_batch inside <<-X
	addr add 172.17.0.2/24 dev eth0
	route add default via 172.17.0.1
X
start_coordinator
old_kernel manage bob --limit 1
up bob || fail "bob does not come up"
join alice
check wait_until 20 reach alice bob
both_direct 20 alice bob
ip4=$(ip4 bob)

# What comes to these two of alice's, or in bob's name.
for h in third inside; do
	on $h nft -f - <<-X
		table inet seen {
			chain in { type filter hook input priority 0; ip saddr { 100.64.0.0/10, 198.51.100.12 } counter; }
		}
	X
done
ip -n "${P}third" route add 100.64.0.0/10 via 198.51.100.12
seen() {
	on "$1" nft list chain inet seen in | sed -n 's/.* packets \([0-9]*\) .*/\1/p'
}
count_from_tunnel 198.51.100.13 172.17.0.2
start sink inside "$BIN/tests/bench/netload" sink 8080
wait_until 10 on inside sh -c 'ss -Hltn sport 8080 | grep -q .' || fail "no sink"
# connects HOST: to what bob's host has at port 8080 of his mesh address
connects() {
	on "$1" timeout 3 bash -c "exec 3<>/dev/tcp/$ip4/8080" 2>/dev/null
}

sends() {
	on alice wg set kernscale0 peer "$(key_of bob)" allowed-ips 0.0.0.0/0
	ip -n "${P}alice" route replace 198.51.100.13/32 dev kernscale0
	ip -n "${P}alice" route replace 172.17.0.0/24 dev kernscale0
	on alice ping -q -c 3 -i 0.1 -W 1 "$1"
}

# way WHEN: what alice sends there gets nowhere
way() {
	local before_third before_inside

	check wait_until 20 on alice ping -q -c 1 -W 1 "$ip4"
	before_third=$(seen third) before_inside=$(seen inside)
	unanswered "$1" 198.51.100.13 172.17.0.2
	refute connects alice
	[ "$(seen third)" = "$before_third" ] || fail "$1: something came to third"
	[ "$(seen inside)" = "$before_inside" ] || fail "$1: something came to inside"
	step "$1: nothing gets through bob"
}

step "the way is there, but for the filter"
check on bob ping -q -c 1 -W 4 198.51.100.13
check on bob ping -q -c 1 -W 4 172.17.0.2
[ "$(on bob sysctl -n net.ipv4.ip_forward)" = 1 ] || fail "bob does not forward"
[ "$(seen third)" -gt 0 ] || fail "third does not see what comes from bob"
way "bob's table alone"

on bob nft -f - <<-X
	table inet docker {
		chain through { type filter hook forward priority 0; policy accept; }
		chain first { type filter hook forward priority -200; policy accept; iifname kernscale0 tcp dport 8080 counter accept; }
		chain pre { type nat hook prerouting priority dstnat; ip daddr $ip4 tcp dport 8080 dnat ip to 172.17.0.2:8080; }
		chain post { type nat hook postrouting priority srcnat; oifname { eth0, kernscale0 } masquerade; }
	}
X
to_forward() {
	on bob nft list chain inet docker first | sed -n 's/.* packets \([0-9]*\) .*/\1/p'
}
check connects third # that is bob's own doing
# Its end comes to third as well, and must not be taken for alice's.
check wait_until 10 not on inside sh -c 'ss -Htn sport 8080 | grep -q .'
way "beside a table that accepts and translates"
[ "$(to_forward)" -gt 0 ] || fail "alice's packets did not come as far as bob's forward chain"
alice_ip=$(ip4 alice)
check on inside ping -q -c 2 -i 0.2 -W 2 "$alice_ip"

step "only the copy is left"
kill -9 "$(pid_of bob)"
check wait_until 20 test -e "$W/bob/manager/failed"
check wait_until 20 not on bob nft list table inet kernscale
check on bob nft list table inet kernscale-held >/dev/null
before=$(to_forward)
way "the copy alone, beside that table"
[ "$(to_forward)" -gt "$before" ] || fail "alice's packets did not come as far as bob's forward chain"
check on inside ping -q -c 2 -i 0.2 -W 2 "$alice_ip"
