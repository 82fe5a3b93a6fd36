#!/bin/bash
# limit: 240 s
# The network below the mesh behaves badly: packets are lost, doubled, late and out of order; the NAT
# restarts with another address; the host gets another address, another way out, and its cable is
# unplugged ten times. The mesh finds its way each time, and nothing piles up in the daemon.
#
#   alice 192.168.1.2 - NAT 198.51.100.11 -+- inet - pub 198.51.100.10 (coordinator, relay)
#      \--------------- NAT 198.51.100.21 -+     \- NAT 198.51.100.12 - bob 192.168.2.2
. "$(dirname "$0")/lib.sh"
need wg tc
nats alice bob
start_coordinator

# netem WHAT...: on what both NATs send into the internet; `netem` alone ends it
netem() {
	local n

	for n in ralice rbob; do
		on "$n" tc qdisc del dev eth0 root 2>/dev/null
		[ $# = 0 ] || on "$n" tc qdisc add dev eth0 root netem "$@" || skip "the kernel has no netem"
	done
}

# heals TEXT SECONDS: traffic both ways, then a direct path on both sides, within that time
heals() {
	local since

	since=$(now_msec)
	wait_until "$2" reach alice bob || fail "$1: alice does not reach bob: $(wgctl alice status)"
	check wait_until "$2" reach bob alice
	step "$1: traffic again after $(($(now_msec) - since)) ms"
	both_direct "$2" alice bob
	step "$1: direct after $(($(now_msec) - since)) ms"
}

step "joining while every tenth packet is lost, some are doubled, late and out of order"
netem delay 40ms 10ms loss 10% duplicate 2% reorder 10%
join alice bob
start load alice ping -q -i 0.2 "$(ip4 bob)"
heals "bad network" 20
expect 0 wgctl alice ping --until-direct -c 20 --timeout 5s bob
on alice ping -q -i 0.05 -c 200 -W 2 "$(ip4 bob)" | tee "$W/ping" | tail -n 2
lost=$(sed -n 's/^.* \([0-9]*\)[0-9.]*% packet loss.*/\1/p' "$W/ping")
[ "$lost" -le 35 ] || fail "$lost % of the packets were lost where the network loses 19 %"
step "a third is lost"
netem delay 20ms loss 33%
sleep 10
for n in alice bob; do expect 0 wgctl $n status; done
netem
heals "the network is good" 20
check wait_until 20 connected alice
before=$(descriptors alice)

step "the NAT restarts and gets another address"
ip_batch ralice <<-EOF
	addr flush dev eth0 scope global
	addr add 198.51.100.31/24 dev eth0
	route replace default via 198.51.100.1
EOF
heals "another address of the NAT" 15

step "the host gets another address"
ip_batch alice <<-EOF
	addr del 192.168.1.2/24 dev eth0
	addr add 192.168.1.77/24 dev eth0
	route replace default via 192.168.1.1
EOF
heals "another address of the host" 15

step "and another way out"
host r2 198.51.100.21
cable r2 lan0 alice eth1
ip -n "${P}r2" addr add 192.168.21.1/24 dev lan0
check on r2 nft -f - <<-EOF
	table ip nat { chain post { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }; }
EOF
ip_batch alice <<-EOF
	addr add 192.168.21.2/24 dev eth1
	route replace default via 192.168.21.1
	link set eth0 down
EOF
heals "another way out" 15

step "the cable is unplugged ten times"
for _ in $(seq 10); do
	ip -n "${P}alice" link set eth1 down
	sleep 0.3
	ip_batch alice <<-EOF
		link set eth1 up
		route replace default via 192.168.21.1
	EOF
	sleep 0.3
done
heals "the cable" 15
stop load INT
wait_until 15 at_most $((before + 2)) descriptors alice || fail "alice had $before descriptors, now $(descriptors alice)"
expect 0 wgctl alice down
nothing_left alice
