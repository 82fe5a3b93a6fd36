#!/bin/bash
# limit: 180 s
# The kernel's answers to alice's daemon are spoiled every so often: lost for want of memory (ENOBUFS), dumps
# with a change in between, refusals (EBUSY). What comes and goes in the map, what others take away, and a
# daemon that is killed and started in the midst of it end in what is wanted; no packet is lost, little is
# logged and nothing spins.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11 (liar.so)
#                                                 - bob   198.51.100.12
#                                                 - carol 198.51.100.13
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob carol
start_coordinator
told() { tr -cd "$1" <"$W/told" | wc -c; }
lies
NODE_UNDER=$(liar "$W/alice/state") join alice
join bob
bob_ip=$(ip4 bob) alice_ip=$(ip4 alice)
check wait_until 20 reach alice bob
start traffic alice ping -i 0.05 -W 1 "$bob_ip"
start back bob ping -i 0.05 -W 1 "$alice_ip"
both_direct 20 alice bob
# What a person sees: not what is told at debug level, which is on for the scenario's sake.
loud() { grep -cE 'kernscaled: (cannot|nftables|routing|interface|no memory|lines like)|lines like the next' "$LOGS/alice.log"; }
cpu_since() {
	local now

	now=$(now_msec)
	echo $((($(cpu_msec alice) - CPU) * 1000 / (now - SINCE)))
}
watch_cpu() { CPU=$(cpu_msec alice) SINCE=$(now_msec); }
# calm NAME LINES: what it cost since watch_cpu
calm() {
	local cpu lines

	cpu=$(cpu_since) lines=$(($(loud) - LOUD))
	LOUD=$(loud)
	step "$1: $cpu ms of CPU a second, $lines lines in the log; told so far: $(told n) lost, $(told i) interrupted, $(told b) refused"
	[ "$cpu" -lt $((250 * ${SLOWNESS:-1})) ] || fail "$1: $cpu ms of CPU a second"
	[ "$lines" -le "$2" ] || fail "$1: $lines lines in the log: $(tail -n 40 "$LOGS/alice.log")"
}
LOUD=$(loud)

in_kernel() { on alice wg show kernscale0 allowed-ips | grep -q "$1/32"; }
# A kernel that refuses every third message, or loses every fifth answer, is worse than any that is.
for spell in nobufs=5 intr=3 busy=7 'nobufs=11 intr=5 busy=13'; do
	before=$(stat -c %s "$W/told")
	watch_cpu
	lies "$spell"
	join carol
	carol_ip=$(ip4 carol)
	check wait_until 20 in_kernel "$carol_ip"
	check wait_until 20 reach alice carol
	expect 0 wgctl carol logout
	stop carol
	rm -rf "$W/carol"
	check wait_until 20 not in_kernel "$carol_ip"
	[ "$(stat -c %s "$W/told")" -gt $((before + 3)) ] || fail "$spell: nothing was spoiled"
	calm "$spell, a peer came and went" 12
done
check direct alice bob
all_answered traffic
all_answered back

# Others meddle, which may cost packets, but not for long.
start traffic alice ping -i 0.05 -W 1 "$bob_ip"
watch_cpu
on alice nft flush ruleset 2>/dev/null
on alice nft delete table inet kernscale 2>/dev/null
check wait_until 10 table_stands alice
check rules alice 5
delete_rules alice
check wait_until 20 rules alice 5
check on alice ip addr del "$alice_ip/32" dev kernscale0
check wait_until 20 has_address alice "$alice_ip"
check wait_until 20 reach alice bob
calm "others meddled" 12
stop traffic INT

# Killed and started in the midst of it.
map_settled alice bob
both_direct 20 alice bob
mesh_of alice >"$W/mesh"
start traffic alice ping -i 0.05 -W 1 "$bob_ip"
for spell in nobufs=5 busy=7 'nobufs=11 intr=5 busy=13'; do
	lies "$spell"
	stop alice KILL
	NODE_UNDER=$(liar "$W/alice/state") start_node alice
	watch_cpu
	check wait_until 15 wgctl bob ping -c 1 --timeout 500ms alice
	both_direct 7 alice bob
	wait_until 10 same_mesh alice || fail "$spell: after a start: $(diff "$W/mesh" "$W/now")"
	calm "$spell, killed and started" 12
done
lies
all_answered traffic
check reach bob alice 4

step "answers are lost while the table is handed over, where it would go with its owner"
stop alice KILL
lied_to=$(preload killer:liar NO_PERSIST=1 "LIES=$W/lies" "LIES_TOLD=$W/told" "LIES_BELOW=$W/alice/state")
NODE_UNDER=$lied_to manage alice
start traffic alice ping -i 0.05 -W 1 "$bob_ip"
for spell in nobufs=5 nobufs=4 nobufs=3 nobufs=7; do
	before=$(told n)
	check wait_until 10 wgctl alice status
	lies "$spell"
	stop alice
	lies
	[ "$(told n)" -gt "$before" ] || fail "$spell: nothing was lost"
	check table_stands alice
	check link_is_up alice
	NODE_UNDER=$lied_to manage alice
done
all_answered traffic
check reach bob alice 4
expect 0 wgctl alice down
nothing_left alice
