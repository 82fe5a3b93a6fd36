#!/bin/bash
# limit: 240 s
# The only relay turns hostile: floods, replays and forges in the peers' names, frames of 4 GiB, cut
# frames, other answers than a relay's, connections that end at once, stay silent or give a byte a second. The direct path loses no packet, memory,
# descriptors, CPU and log stay small, the relay is not stormed, and when it is good again the peer
# behind it is reached as before.
#
#   alice 198.51.100.11 \
#                        inet - pub 198.51.100.10 (coordinator without relay; badrelay :8443)
#   bob   198.51.100.12 /  |
#   carol 198.51.100.13 ---+ (no UDP: by relay only)
. "$(dirname "$0")/lib.sh"
need_programs tests/interop/badrelay
hosts alice bob carol
firewall_no_udp carol
relay_map 903 bad Bad -1
put mode good
start badrelay pub "$BIN/tests/interop/badrelay" 8443 "$W/mode"
coordinator_config false "$W/derp.yaml"
start_coordinator
for n in alice bob carol; do
	start_node $n --allow-plain-relay
	check up $n
done
check wait_until 20 reach alice bob
check wait_until 20 direct alice bob
check wait_until 20 reach alice carol

lines() { wc -l <"$LOGS/alice.log"; }
# Not counted: what is logged at debug level, here on for the sake of the scenario, and shown by default.
loud() { grep -cE 'relay bad|lines like the next' "$LOGS/alice.log"; }
before=$(status_of alice RssAnon) fds=$(descriptors alice) loud=$(loud)
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"

# try MODE SECONDS: for so long; then what it cost.
try() {
	local cpu=0 said

	put mode "$1"
	cpu=$(cpu_msec alice)
	sleep "$2"
	cpu=$((($(cpu_msec alice) - cpu) / $2))
	check wgctl alice status >/dev/null
	check direct alice bob
	put mode good
	said=$(wait_until 20 grep -q "^$1 " "$LOGS/badrelay.log" && grep "^$1 " "$LOGS/badrelay.log" | tail -n 1)
	step "$said; alice: CPU $cpu ms a second, RssAnon $(status_of alice RssAnon) KiB, descriptors $(descriptors alice)"
	[ "$cpu" -lt "$3" ] || fail "$1: $cpu ms of CPU a second"
	ACCEPTS=$(cut -d' ' -f3 <<<"$said")
	check wait_until 30 reach alice carol
	check wait_until 10 reach carol alice
}

step "flood"
try flood 6 1000
for m in bye info huge trunc refuse moved head; do
	try $m 5 100
	# Three nodes, each less and less often.
	[ "$ACCEPTS" -lt 90 ] || fail "$m: $ACCEPTS connections in 5 s"
done
try mute 5 100
try hole 5 100
try drip 12 100
[ "$ACCEPTS" -lt 90 ] || fail "drip: $ACCEPTS connections in 12 s"
try dregs 8 100
[ "$ACCEPTS" -lt 90 ] || fail "dregs: $ACCEPTS connections in 8 s"

step "afterwards"
all_answered traffic
grep -qE '[0-9]{3,} packets transmitted' "$LOGS/traffic.log" || fail "no traffic"
grown_less 3072 alice "$before"
check wait_until 10 at_most $((fds + 2)) descriptors alice
grep -q 'relay bad: does not keep a connection' "$LOGS/alice.log" || fail "nothing tells of the relay"
[ "$(($(loud) - loud))" -lt 150 ] || fail "the relay fills the log: $(($(loud) - loud)) lines"
check direct alice bob
check direct bob alice
