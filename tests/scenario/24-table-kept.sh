#!/bin/bash
# limit: 300 s
# Under a service manager with a descriptor store: the packet filter has an owner at every moment that
# the daemon may be dead at, so that nobody else can take it away, and it is handed over without an
# owner when the daemon is stopped. All along alice pings bob, and mallory, who is no member, sends as
# bob from outside of the tunnel: no ping is lost, none of mallory's packets gets in.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice   198.51.100.11
#                                                 - bob     198.51.100.12
#                                                 - mallory 198.51.100.66
. "$(dirname "$0")/lib.sh"
need wg nft nstat
hosts alice bob
host mallory 198.51.100.66
start_coordinator
manage alice
up alice || fail "alice does not come up"
join bob
alice_ip=$(ip4 alice) bob_ip=$(ip4 bob)
expect 0 wgctl alice ping --until-direct -c 20 --timeout 5s bob
start first alice ping -q -i 0.1 "$bob_ip"
both_direct 10 alice bob
sleep 2.5 # the map is on disk
stop first INT

# Every rule with its handle: a table that was replaced has others. (nft names the owner's process.)
table() {
	on alice nft -a list table inet kernscale 2>/dev/null | sed 's/ progname .*//'
}
# Where the emulator is so slow that the test of the shared port is not over in time, the rules change.
same() {
	[ "$(table)" = "$stands" ] || grep -q 'using a raw socket' "$LOGS/alice.log" || fail "$1: $(table)"
}
owned() {
	! on alice nft delete table inet kernscale 2>/dev/null
}
kept() {
	grep -qx nft "$W/alice/manager/store"
}
ready() {
	[ -e "$W/alice/manager/ready" ]
}

not_ready() {
	! ready
}
# Echo requests that alice's own kernel took: bob sends none.
got_in() {
	on alice nstat -asz IcmpInEchos | awk '/IcmpInEchos/ { print $2 }'
}
# The chain that keeps mallory out, looked at every 20 ms by one process, which says so when it is
# not there. It ends by itself: the user-mode kernel dies of a shell that is killed while it forks.
cat >"$W/look" <<-EOF
	while [ -e "$W/looking" ] && sleep 0.02; do echo 'list chain inet kernscale mangle-pre'; done | nft -i
EOF
begin() {
	start quiet alice ping -i 0.05 -W 1 "$bob_ip"
	start attack mallory ping -q -i 0.02 -I "$bob_ip" -W 1 "$alice_ip"
	touch "$W/looking"
	start look alice bash "$W/look"
	before=$(got_in)
}
end() {
	local sent looks

	[ "$(got_in)" = "$before" ] || fail "$1: mallory got in, $(($(got_in) - before)) times"
	all_answered quiet
	stop attack INT
	rm "$W/looking"
	wait "${PIDS[look]}"
	unset "PIDS[look]"
	sent=$(sed -n 's/^\([0-9]*\) packets transmitted.*/\1/p' "$LOGS/attack.log" | tail -n 1)
	looks=$(awk '/saddr @peers4 drop/ { there = 1 } /^}/ { looks++; bad += !there; there = 0 } /^Error/ { bad++ }
		END { print bad ? "bad" : looks }' "$LOGS/look.log")
	[ "$looks" != bad ] || fail "$1: the chain was not there: $(grep -m 1 -A 1 ^Error "$LOGS/look.log")"
	step "$1: $sent of mallory's packets, the chain looked at $looks times"
	if [ "$sent" -le 20 ] || [ "$looks" -le 5 ]; then fail "mallory was not at it, or nobody looked"; fi
	rm "$LOGS/look.log"
}
back() {
	wait_until 30 ready || fail "kernscaled is not back"
	wait_until 30 wgctl alice status || fail "kernscaled does not answer"
}
ip_batch mallory <<-EOF
	addr add $bob_ip/32 dev lo
	route add $alice_ip/32 via 198.51.100.11
EOF
check kept
check owned
stands=$(table)

begin
step "somebody flushes the ruleset"
check on alice nft flush ruleset
same "the table is not the same"
step "killed, and flushed while it is dead"
touch "$W/alice/manager/hold"
kill -9 "$(pid_of alice)"
check wait_until 5 not_ready
refute wait_until 1 ready
check on alice nft flush ruleset
check owned
sleep 1
same "the table is not the same"
rm "$W/alice/manager/hold"
back
same "the table was not left as it was"
for _ in 1 2 3 4 5; do
	kill -9 "$(pid_of alice)"
	sleep 0.3
	back
done
same "the table was not left as it was"
check owned
end "killed six times"

begin
kill -HUP "${PIDS[alice]}"
sleep 0.5
back
check owned
check kept
end "restarted in order"

begin
step "stopped in order: the store is emptied"
check stop alice
[ ! -s "$W/alice/manager/store" ] || fail "the store is not empty"
stands=$(table)
[ -n "$stands" ] || fail "the table went with the daemon"
sleep 2
manage alice
check owned
check kept
end "stopped, and started again"

# Neither daemon nor store: then nothing holds the table. This also shows that mallory can be seen.
check stop alice
check on alice nft flush ruleset
before=$(got_in)
start attack mallory ping -q -i 0.02 -I "$bob_ip" -W 1 "$alice_ip"
in_now() {
	[ "$(got_in)" -gt "$before" ]
}
wait_until 5 in_now || fail "mallory cannot be seen"
manage alice
[ -n "$(table)" ] || fail "no table"
sleep 0.1 # what is on its way
before=$(got_in)
sleep 1
refute in_now
stop attack INT
step "flushed while stopped: put back before the start is over"

step "it hangs, and the manager's watchdog ends it"
check stop alice
manage alice --watchdog 2000
begin
hangs=$(pid_of alice)
kill -STOP "$hangs"
another() {
	[ "$(pid_of alice)" != "$hangs" ]
}
wait_until 30 another 2>/dev/null || fail "nobody ended it"
back
check owned
end "hung and ended"

step "a manager that keeps nothing"
check stop alice
manage alice --no-store
begin
for _ in 1 2; do
	kill -9 "$(pid_of alice)"
	sleep 0.3
	back
done
end "killed twice without a store"
[ ! -s "$W/alice/manager/store" ] || fail "it was kept after all"

expect 0 wgctl alice down
nothing_left alice
check stop alice
manage alice
expect 0 wgctl alice up
check owned
check kept
expect 0 wgctl alice down
nothing_left alice
expect 0 wgctl alice up
check owned
check kept
expect 0 wgctl alice down
nothing_left alice
