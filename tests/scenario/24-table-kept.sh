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
start_coordinator
manage alice
. "$HERE/mallory.sh"

# Every rule with its handle: a table that was replaced has others. (nft names the owner's process.)
table() {
	on alice nft -a list table inet kernscale 2>/dev/null | sed 's/ progname .*//'
}
# Where the emulator is so slow that the test of the shared port is not over in time, the rules change.
same() {
	[ "$(table)" = "$stands" ] || grep -q 'using a raw socket' "$LOGS/alice.log" || fail "$1: $(table)"
}
kept() {
	grep -qx nft "$W/alice/manager/store"
}
# The chain that keeps mallory out, looked at every 20 ms by one process, which says so when it is
# not there. It ends by itself: the user-mode kernel dies of a shell that is killed while it forks.
cat >"$W/look" <<-EOF
	while [ -e "$W/looking" ] && sleep 0.02; do echo 'list chain inet kernscale mangle-pre'; done | nft -i
EOF
begin_looking() {
	touch "$W/looking"
	start look alice bash "$W/look"
	begin
}
end_looking() {
	local looks

	wait_until 15 at_least 6 grep -c '^}' "$LOGS/look.log" || fail "$1: nobody looked"
	end "$1"
	rm "$W/looking"
	await look
	looks=$(awk '/saddr @peers4 drop/ { there = 1 } /^}/ { looks++; bad += !there; there = 0 } /^Error/ { bad++ }
		END { print bad ? "bad" : looks }' "$LOGS/look.log")
	[ "$looks" != bad ] || fail "$1: the chain was not there: $(grep -m 1 -A 1 ^Error "$LOGS/look.log")"
	step "$1: the chain looked at $looks times"
	[ "$looks" -gt 5 ] || fail "$1: nobody looked"
	rm "$LOGS/look.log"
}
check kept
check owned
stands=$(table)

begin_looking
step "somebody flushes the ruleset"
check on alice nft flush ruleset
same "the table is not the same"
step "killed, and flushed while it is dead"
touch "$W/alice/manager/hold"
kill -9 "$(pid_of alice)"
check wait_until 5 not ready
refute wait_until 1 ready
check on alice nft flush ruleset
check owned
sleep 1
same "the table is not the same"
rm "$W/alice/manager/hold"
is_back
same "the table was not left as it was"
for _ in 1 2 3 4 5; do
	end_alice KILL
	is_back
done
same "the table was not left as it was"
check owned
end_looking "killed six times"

begin_looking
end_alice HUP
is_back
check owned
check kept
end_looking "restarted in order"

begin_looking
step "stopped in order: the store is emptied"
check stop alice
[ ! -s "$W/alice/manager/store" ] || fail "the store is not empty"
stands=$(table)
[ -n "$stands" ] || fail "the table went with the daemon"
sleep 2
manage alice
check owned
check kept
end_looking "stopped, and started again"

# Neither daemon nor store: then nothing holds the table. This also shows that mallory can be seen.
check stop alice
check on alice nft flush ruleset
attack
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
begin_looking
hangs=$(pid_of alice)
kill -STOP "$hangs"
another() {
	[ "$(pid_of alice)" != "$hangs" ]
}
wait_until 30 another 2>/dev/null || fail "nobody ended it"
is_back
check owned
end_looking "hung and ended"

step "a manager that keeps nothing"
check stop alice
manage alice --no-store
begin_looking
for _ in 1 2; do
	end_alice KILL
	is_back
done
end_looking "killed twice without a store"
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
