#!/bin/bash
# How long a node takes from `wgctl up` to the first reply over the relay, and to a direct path; then
# what one TCP stream carries. Each time a fresh node behind a NAT, bob is there already.
#
#   one of alice, adam, anna - NAT 198.51.100.2x -+- inet - pub 198.51.100.10: coordinator, relay, STUN
#                        bob - NAT 198.51.100.12 -+
#
# adam's router lets no UDP through to or from bob's, and anna's none at all: what answers them came
# over the relay. alice has no such firewall.
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

# timed_up NAME: join as NAME; sets t (when it began), t_up and t_reply
timed_up() {
	start_node "$1"
	t=$(now_msec)
	check up "$1"
	t_up=$(($(now_msec) - t))
	wait_until 20 first_reply "$1" || fail "no reply for $1"
	t_reply=$(($(now_msec) - t))
}

no_udp_to_bob() {
	check on "r$1" nft -f - <<-EOF
		table inet noudp {
			chain through { type filter hook forward priority 0; ip daddr 198.51.100.12 meta l4proto udp drop; }
			chain in { type filter hook prerouting priority -300; ip saddr 198.51.100.12 meta l4proto udp drop; }
		}
	EOF
}

for i in $(seq "$ROUNDS"); do
	nat "adam$i" 198.51.100.$((20 + i)) 192.168.$((20 + i))
	no_udp_to_bob "adam$i"
	timed_up "adam$i"
	relayed "adam$i" bob || fail "not by relay: $(wgctl "adam$i" status)"
	echo "round $i: no UDP to bob: up $t_up ms, first reply by relay $t_reply ms"
	echo "relay $t_up $t_reply" >>"$OUT/figures"
	stop "adam$i"

	nat "anna$i" 198.51.100.$((40 + i)) 192.168.$((40 + i))
	firewall_no_udp "anna$i"
	timed_up "anna$i"
	echo "round $i: no UDP at all: up $t_up ms, first reply by relay $t_reply ms"
	echo "noudp $t_up $t_reply" >>"$OUT/figures"
	stop "anna$i"

	n=alice$i
	nat "$n" 198.51.100.$((60 + i)) 192.168.$((60 + i))
	timed_up "$n"
	start "traffic$i" "$n" ping -q -i 0.2 "$bob_ip"
	wait_until 30 direct "$n" bob || fail "not direct: $(wgctl "$n" status)"
	t_direct=$(($(now_msec) - t))
	echo "round $i: first reply $t_reply ms, direct $t_direct ms"
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
