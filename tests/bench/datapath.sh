#!/bin/bash
# What a packet costs: 1,200-byte UDP packets alice → bob, each answered, a fixed count with a fixed
# number on the way, in instructions of the one CPU that is both ends (scripts/kernel, ICOUNT=1).
# Plain `wg` with a two-rule stateful table first, then our node between the same hosts.
#
#   alice 198.51.100.11 - inet - bob 198.51.100.12        pub 198.51.100.10: coordinator and relay
. "$(dirname "$0")/../scenario/lib.sh"
. "$(dirname "$0")/plain.sh"
need wg nft ping
WAIT_FACTOR=100
COUNT=${KERNSCALE_BENCH_COUNT:-10000} IN_FLIGHT=8 SIZE=1200

# measure LABEL ADDRESS-OF-BOB: instructions for a packet and its answer
measure() {
	local n line

	line=$(on alice "$BIN/tests/bench/netload" udp "$2" 7777 "$COUNT" $IN_FLIGHT $SIZE) ||
		fail "$1: no answers"
	read -r _ n _ _ _ nsec <<<"$line"
	echo "$1: $((nsec / n)) instructions a packet answered ($line)"
	echo "$1 $((nsec / n))" >>"$OUT/figures"
}

hosts alice bob
start echo bob "$BIN/tests/bench/netload" echo 7777
wait_until 10 on bob sh -c 'ss -Hlun sport 7777 | grep -q .' || fail "the echo does not come up"
: >"$OUT/figures"
measure veth 198.51.100.12
plain_wg alice=198.51.100.11 bob=198.51.100.12
measure plain 10.66.0.2
for n in alice bob; do
	on $n nft delete table inet plain
	ip -n "$P$n" link del wg0
done

[ -x "$BIN/kernscaled" ] || exit 0
start_coordinator
join alice bob
# A path is looked for when there is traffic, from either side.
wait_until 10 reach alice bob || fail "alice does not reach bob"
wait_until 10 reach bob alice || fail "bob does not reach alice"
both_direct 30 bob alice
measure ours "$(ip4 bob)"
direct alice bob >/dev/null || fail "the path was not direct to the end: $(wgctl alice status)"
