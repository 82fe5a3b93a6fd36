#!/bin/bash
# limit: 180 s
# A node behind a link of 1,280 bytes, with a tunnel of 1,280: what the tunnel sends is larger than the
# link, so the kernel fragments it, by IPv4 where the link is and by IPv6 at the source, once a router
# has said so. Full packets and TCP pass both ways.
#
#   alice 192.168.1.2, 2001:db8:1::2 -(1,280)- ralice 198.51.100.11 - inet - bob 198.51.100.12
#                                                                        \- pub 198.51.100.10
. "$(dirname "$0")/lib.sh"
nats alice
host bob 198.51.100.12
ip -n "${P}alice" link set eth0 mtu 1280
ip -n "${P}ralice" link set lan0 mtu 1280
start_coordinator
join alice bob
check wait_until 20 reach alice bob
check wait_until 20 direct alice bob
[ "$(on alice cat /sys/class/net/kernscale0/mtu)" = 1280 ] || fail "the tunnel's MTU is not 1,280"

fragments() { on "$1" nstat -asz "$2" | awk -v n="$2" '$1 == n { print $2 }'; }
# full: packets of 1,280 bytes that must not be fragmented inside, and TCP
full() {
	check on alice ping -q -c 3 -i 0.2 -s 1252 -M "do" -W 1 "$(ip4 bob)"
	# By IPv6 the first one shows the path's MTU.
	on bob ping -q -c 1 -s 1252 -W 1 "$(ip4 alice)" >/dev/null
	check on bob ping -q -c 3 -i 0.2 -s 1252 -M "do" -W 1 "$(ip4 alice)"
	tcp alice bob
	[ "$BYTES" -gt 1000000 ] || fail "only $BYTES bytes of TCP from alice to bob"
	tcp bob alice
	[ "$BYTES" -gt 1000000 ] || fail "only $BYTES bytes of TCP from bob to alice"
}

step "by IPv4"
full
[ "$(fragments ralice IpFragCreates)" -gt 100 ] || fail "nothing was fragmented: the test shows nothing"

step "by IPv6"
ip -n "${P}alice" addr add 2001:db8:1::2/64 dev eth0 nodad
ip -n "${P}ralice" addr add 2001:db8:1::1/64 dev lan0 nodad
ip -n "${P}alice" route add default via 2001:db8:1::1
ip -n "${P}inet" route add 2001:db8:1::/64 via 2001:db8::11
# A direct path as short as this one is not given up for another: it has to end.
check on bob nft -f - <<-EOF
	table ip no4 { chain in { type filter hook input priority 0; meta l4proto udp drop; }; }
EOF
by_v6() { direct "$1" "$2" | grep -F '[2001:'; }
check wait_until 40 by_v6 bob alice
check wait_until 20 by_v6 alice bob
full
[ "$(fragments bob Ip6FragCreates)" -gt 100 ] || fail "nothing was fragmented: the test shows nothing"
