#!/bin/bash
# Alice, a member of an open mesh, has her own WireGuard send to bob what is for other addresses: one of a bridge on
# his host, where something listens that is for his containers alone, the one of his network card, and what lies behind
# him. Linux would take all of it. Nothing is answered, by IPv4 and IPv6, also when bob's daemon was killed and comes
# back; what is for his mesh addresses is.
#
#   alice 198.51.100.11 - inet - bob 198.51.100.12, bridge0 172.17.0.1, 2001:db8:17::1 - inside 172.17.0.2
. "$(dirname "$0")/lib.sh"
. "$HERE/unanswered.sh"
need wg
hosts alice bob
space inside
cable bob bridge0 inside eth0
ip_batch bob <<-X
	addr add 172.17.0.1/24 dev bridge0
	addr add 2001:db8:17::1/64 dev bridge0 nodad
X
ip_batch inside <<-X
	addr add 172.17.0.2/24 dev eth0
	route add default via 172.17.0.1
X
start_coordinator
join alice bob
check wait_until 20 reach alice bob
both_direct 20 alice bob
ip4=$(ip4 bob) ip6=$(ip6 bob)

to_bob() {
	local key

	key=$(key_of bob)
	on alice wg set kernscale0 peer "$key" allowed-ips "$ip4/32,$ip6/128,172.17.0.0/24,198.51.100.12/32,2001:db8:17::1/128"
	ip -n "${P}alice" route replace 172.17.0.0/24 dev kernscale0
	ip -n "${P}alice" -6 route replace 2001:db8:17::1/128 dev kernscale0
}

# asks ADDRESS: alice, who has an answer
asks() {
	on alice ping -q -c 2 -i 0.2 -W 1 -I kernscale0 "$1" >/dev/null
}

others=(172.17.0.1 172.17.0.2 198.51.100.12 2001:db8:17::1)
count_from_tunnel "${others[@]}"
sends() {
	to_bob
	asks "$1"
}

# nothing_answers WHEN
nothing_answers() {
	check wait_until 20 asks "$ip4"
	check wait_until 20 asks "$ip6"
	unanswered "$1" "${others[@]}"
	step "$1: nothing answers that is not bob's in the mesh"
}

on bob ping -q -c 1 -W 4 172.17.0.2 >/dev/null || fail "inside does not answer bob"
nothing_answers "at first"

stop bob KILL
nothing_answers "with a dead daemon"
launch_node bob
check wait_until 20 listens bob
check wait_until 20 asks "$ip4"
nothing_answers "with the next one"
check grep -q 'daddr' <(on bob nft list chain inet kernscale for-us)
