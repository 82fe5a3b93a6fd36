#!/bin/bash
# How long a node takes from `wgctl up` to the first reply over the relay, and to a direct path; then
# what one TCP stream carries. Each time a fresh node "alice" behind a NAT, bob is there already.
#
#   alice - NAT 198.51.100.11 -+- inet - pub 198.51.100.10: coordinator, relay and STUN
#   bob   - NAT 198.51.100.12 -+
. "$(dirname "$0")/../scenario/lib.sh"
. "$(dirname "$0")/plain.sh"
need wg
ROUNDS=${KERNSCALE_BENCH_ROUNDS:-5}

inet
host pub 198.51.100.10
nat bob 198.51.100.12 192.168.2
start_coordinator
join bob
bob_ip=$(ip4 bob)
: >"$OUT/figures"

first_reply() {
	on "$1" ping -q -c 1 -W 1 "$bob_ip"
}
for i in $(seq "$ROUNDS"); do
	n=alice$i
	nat "$n" 198.51.100.$((20 + i)) 192.168.$((20 + i))
	start_node "$n"
	t=$(now_msec)
	check up "$n"
	t_up=$(($(now_msec) - t))
	wait_until 20 first_reply "$n" || fail "no reply"
	t_reply=$(($(now_msec) - t))
	start "traffic$i" "$n" ping -q -i 0.2 "$bob_ip"
	wait_until 30 direct "$n" bob || fail "not direct: $(wgctl "$n" status)"
	t_direct=$(($(now_msec) - t))
	echo "round $i: up $t_up ms, first reply $t_reply ms, direct $t_direct ms"
	echo "join $t_up $t_reply $t_direct" >>"$OUT/figures"
	stop "traffic$i" INT
done

nat carol 198.51.100.13 192.168.3
firewall_no_udp carol
join carol
tcp alice1 bob 5
echo "tcp-direct $MBITS" >>"$OUT/figures"
tcp carol bob 5
echo "tcp-relay $MBITS" >>"$OUT/figures"
host left 198.51.100.14
host right 198.51.100.15
plain_wg left=198.51.100.14 right=198.51.100.15
ip4() { echo 10.66.0.2; }
tcp left right 5
echo "tcp-plain $MBITS" >>"$OUT/figures"
