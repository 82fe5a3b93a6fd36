#!/bin/bash
# limit: 300 s
# On a kernel where a table goes with its owner, and under a service manager that empties its store with
# the daemon not there to do anything about it: a start limit that is hit, and a stop in which the daemon
# hangs. Each death leaves a copy of the table that has no owner; it filters when the table goes, and the
# next start takes it away again. All along alice pings bob, and mallory, who is no member, sends as bob
# from outside of the tunnel: no ping is lost, none of mallory's packets gets in.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice   198.51.100.11
#                                                 - bob     198.51.100.12
#                                                 - mallory 198.51.100.66
. "$(dirname "$0")/lib.sh"
need wg nft nstat
hosts alice bob
start_coordinator
old_kernel manage alice
. "$HERE/mallory.sh"

# filter TABLE: as text, without what a copy has not.
filter() {
	on alice nft -s list table inet "$1" 2>/dev/null |
		sed -E "s/ # progname .*//; /^.*flags owner/d; /^$/d; s/table inet $1 /table inet kernscale /"
}
there() {
	on alice nft list table inet "$1" >/dev/null 2>&1
}
# The copy, alone, is what the table was.
held() {
	wait_until 15 not there kernscale || fail "$1: the table did not go with its owner"
	there kernscale-held || fail "$1: nothing filters: $(on alice nft list tables)"
	[ "$(filter kernscale-held)" = "$stands" ] || fail "$1: another copy: $(filter kernscale-held)"
	[ ! -s "$W/alice/manager/store" ] || fail "$1: the store is not empty"
}
back() {
	is_back
	check owned
	not there kernscale-held || fail "the copy was left"
	[ "$(filter kernscale)" = "$stands" ] || grep -q 'using a raw socket' "$LOGS/alice.log" || fail "another table: $(filter kernscale)"
}
failed() {
	[ -e "$W/alice/manager/failed" ]
}
check owned
stands=$(filter kernscale)
grep -q 'saddr @peers4 drop' <<<"$stands" || fail "no filter: $stands"

begin
touch "$W/alice/manager/hold"
end_alice KILL
wait_until 15 there kernscale-held || fail "no copy"
check owned
[ "$(filter kernscale-held)" = "$stands" ] || fail "another copy: $(filter kernscale-held)"
# The settings may have been changed meanwhile.
check on alice nft delete table inet kernscale-held
expect 0 on alice "$BIN/kernscaled" --hold-filter --interface another0 --table another --runtimedir "$W/alice/run" --user "$NODE_USER"
[ "$(filter kernscale-held)" = "$stands" ] || fail "another copy, with other settings: $(filter kernscale-held)"
sleep 1
rm "$W/alice/manager/hold"
back
end "killed: both tables, then the one"
check on bob ping -q -c 2 -i 0.2 -W 1 "$alice_ip"

step "by hand while the daemon runs: refused, for it would be out of date"
expect 1 on alice "$BIN/kernscaled" --hold-filter --user "$NODE_USER"
said 'another kernscaled has interface kernscale0'
check not there kernscale-held

# Both tables while the daemon works, which no start leaves so for long: what comes in and goes out twice
# through the same rules is not harmed.
filter kernscale | sed 's/table inet kernscale /table inet twice /' | check on alice nft -f -
check on bob ping -q -c 2 -i 0.2 -W 1 "$alice_ip"
tcp bob alice 1
expect 0 wgctl alice ping -c 3 --timeout 5s bob
said 'via .*:41641'
expect 0 wgctl bob ping -c 3 --timeout 5s alice
check on alice nft delete table inet twice
step "the same rules twice"

begin
end_alice HUP
back
check stop alice
check there kernscale
check not there kernscale-held
refute eval 'on alice nft list table inet kernscale | grep -q "flags owner"'
old_kernel manage alice --limit 3
back
end "restarted and stopped in order: handed over without an owner, and taken back"
begin
for n in 1 2 3; do
	wait_until 30 ready || fail "death number $n was the last"
	end_alice KILL
done
wait_until 10 failed || fail "the limit was not hit"
held "given up"
sleep 1
end "given up after three deaths"
check on bob ping -q -c 2 -i 0.2 -W 1 "$alice_ip" # the policy lets him
begin
stop alice
old_kernel manage alice
back
end "started again"

begin
step "it hangs while it is stopped, and is killed for that"
kill -STOP "$(pid_of alice)"
stop alice
held "hung and stopped"
sleep 1
old_kernel manage alice
back
end "hung, stopped, started again"

step "the copy's name is another's: let alone, and the mesh goes on"
check on alice nft add table inet kernscale-held
end_alice KILL
wait_until 30 ready || fail "kernscaled is not back"
check owned
[ "$(on alice nft list table inet kernscale-held | wc -l)" = 2 ] || fail "it was changed"
grep 'nothing can hold its place.*kernscale-held exists and is not ours' "$LOGS/alice.log" || fail "nothing was said"
check on alice nft delete table inet kernscale-held

# Taken down: nothing is held any more.
end_alice KILL
back
expect 0 wgctl alice down
nothing_left alice
end_alice KILL
wait_until 30 ready
nothing_left alice
expect 0 wgctl alice up
check owned
check stop alice

# This shows that mallory can be seen, and that a table goes with its owner here: without the copy.
NODE_UNDER="$BIN/tests/scenario/standin --limit 1 $W/alice/manager" old_kernel start_node alice
wait_until 30 ready || fail "kernscaled is not back"
attack
check wait_until 15 at_it
[ "$(got_in)" = "$before" ] || fail "mallory gets in"
end_alice KILL
wait_until 10 failed || fail "the limit was not hit"
check wait_until 15 not there kernscale
wait_until 5 in_now || fail "mallory cannot be seen"
step "without a copy mallory is in"
stop attack INT
stop alice
