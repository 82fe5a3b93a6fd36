#!/bin/bash
# limit: 240 s
# Stock nodes among themselves on our coordinator with its embedded relay: they join, see each other, go
# directly and by relay, hear of what changes, are offline and expired when they log out, and gone when they are
# deleted.
#
#   stan - NAT 198.51.100.11 -+
#   sue  - NAT 198.51.100.12 -+- inet - pub 198.51.100.10: coordinator, relay and STUN
#   sid  - no UDP 198.51.100.13
. "$(dirname "$0")/lib.sh"
need_stock tailscaled tailscale
nats stan sue sid
firewall_no_udp sid
start_coordinator
for n in stan sue sid; do
	start_stock $n
	expect 0 ts_up $n
	step "$n joined"
done
expect 0 ts stan status
said ' sue '
said ' sid '
if grep '^#     - ' <<<"$SAID" | grep -v 'unstable version'; then fail "stock status complains"; fi
expect 0 ts stan netcheck
said 'UDP: true'
said 'Nearest DERP: Test'
expect 0 ts stan ping --until-direct -c 20 sue
said 'via 198\.51\.100\.12:'
expect 1 ts stan ping -c 3 sid
said 'via DERP\(tst\)'
tcp stan sue
tcp sue stan
tcp stan sid
tcp sid stan
expect 0 admin nodes list

step "sid logs out, sue is deleted"
check ts sid logout
logged_out() {
	[ "$(ts stan status --json | jq -c '.Peer[] | select(.HostName == "sid") | [.Online, .Expired]')" = '[false,true]' ] &&
		admin nodes list | grep -qE ' sid .* offline +\| yes *$'
}
wait_until 15 logged_out || fail "sid is not logged out: $(ts stan status --json; admin nodes list)"
id=$(admin nodes list --output json | jq -r '.[] | select((.givenName // .given_name // .name) == "sue") | .id')
expect 0 admin nodes delete --identifier "$id" --force
sees() {
	ts stan status | grep -q " $1 "
}
gone() {
	! sees sue
}
wait_until 15 gone || fail "stan still sees sue: $(ts stan status)"
expect 0 ts stan status

step "the coordinator is killed and comes back with its state"
stop coordinator KILL
run_coordinator
expect 0 admin nodes list
said 'stan'
check wait_until 60 ts stan status
start_stock_again() {
	ts sue up --login-server="$URL" --auth-key="file:$W/key" --hostname=sue --accept-dns=false --timeout=60s --force-reauth
}
expect 0 start_stock_again
wait_until 60 sees sue || fail "stan does not hear of sue after the restart: $(ts stan status)"
