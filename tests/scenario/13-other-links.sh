#!/bin/bash
# Links and addresses that have nothing to do with the path in use come, change and go, as containers, router
# advertisements and leases make them: the path stays as it is. What it goes by goes and comes back: so does the path.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg
hosts alice bob
start_coordinator
join alice bob
check wait_until 20 reach alice bob
both_direct 10 alice bob
doubts() {
	grep -c 'direct → doubtful (link changed)' "$LOGS/alice.log"
}
doubted() {
	[ "$(doubts)" -gt "$before" ]
}
relayed_bytes() {
	on pub cat /sys/class/net/eth0/statistics/rx_bytes
}
sleep 1 # what the joining did to the links has been heard
before=$(doubts)
bytes=$(relayed_bytes)
on alice ping -q -i 0.05 -c 120 "$(ip4 bob)" >"$LOGS/pings.log" 2>&1 &
ping=$!
for i in 1 2 3 4 5 6 7 8; do
	on alice ip link add "c$i" type veth peer name "d$i"
	on alice ip link set "c$i" up
	on alice ip address change 198.51.100.11/24 dev eth0 valid_lft $((3000 + i)) preferred_lft $((2000 + i))
	sleep 0.4
	[ $((i % 2)) = 1 ] || on alice ip link delete "c$i"
done
on alice ip link set d1 up
on alice ip address add 192.0.2.1/24 dev c1
sleep 0.6
wait $ping || fail "$(cat "$LOGS/pings.log")"
grep -q ' 0% packet loss' "$LOGS/pings.log" || fail "$(cat "$LOGS/pings.log")"
[ "$(doubts)" = "$before" ] || fail "the path was doubted: $(grep 'link changed' "$LOGS/alice.log")"
check direct alice bob
[ $(($(relayed_bytes) - bytes)) -lt 20000 ] || fail "$(($(relayed_bytes) - bytes)) bytes reached the relay's host"
step "others' links: nothing happens"

# As a daemon that takes router advertisements tells it: the same route, each time with another end.
again() {
	on alice ip -6 route replace default via fe80::1 dev eth0 proto ra expires "$1"
	on alice ip route replace default via 198.51.100.10 dev eth0 proto dhcp
}
again 1800
check wait_until 5 doubted
check wait_until 10 direct alice bob
sleep 1
before=$(doubts)
on alice ip -6 monitor route >"$LOGS/routes.log" 2>&1 &
monitor=$!
told() {
	again $((RANDOM % 1000 + 800))
	[ "$(grep -c '^default via fe80::1' "$LOGS/routes.log")" -ge "$1" ]
}
for i in 1 2 3 4; do
	wait_until 10 told $i || fail "no such events: $(cat "$LOGS/routes.log")"
	sleep 0.4
done
kill $monitor
[ "$(doubts)" = "$before" ] || fail "the path was doubted: $(grep 'link changed' "$LOGS/alice.log")"
on alice ip route replace default via 198.51.100.12 dev eth0 proto dhcp
check wait_until 5 doubted
check wait_until 10 direct alice bob
step "the same default route again is nothing; another one is"

before=$(doubts)
on alice ip address delete 192.0.2.1/24 dev c1
check wait_until 5 doubted
check wait_until 10 direct alice bob
step "an address that was there is not any more: the path is tried anew"

before=$(doubts)
on alice ip link set eth0 down
sleep 1
on alice ip link set eth0 up
check wait_until 5 doubted
check wait_until 20 direct alice bob
check wait_until 10 reach alice bob
step "its own link goes and comes back"
