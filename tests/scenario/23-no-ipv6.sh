#!/bin/bash
# A host with IPv6 switched off: its mesh is IPv4's alone, what the kernel refuses is told once, and
# neither asked nor told each second.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11 (no IPv6)
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg jq
hosts alice bob
start_coordinator
check on alice sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
join alice bob
wait_until 10 reach alice bob || fail "alice does not reach bob: $(wgctl alice status)"
wait_until 10 reach bob alice || fail "bob does not reach alice: $(wgctl bob status)"
wait_until 10 direct alice bob || fail "alice has no direct path: $(wgctl alice status)"
os_has_ipv6() {
	[ "$(wgctl "$1" netcheck --format json | jq .OSHasIPv6)" = "$2" ]
}
check os_has_ipv6 bob true
check os_has_ipv6 alice false
said=$(grep -c 'cannot set all routes' "$LOGS/alice.log")
[ "$said" -ge 1 ] || fail "the kernel has refused nothing: this tests nothing"
sleep 5
said=$(grep -c 'cannot set all routes' "$LOGS/alice.log")
[ "$said" -le 1 ] || fail "the same refusal was told $said times"
expect 0 wgctl alice down
nothing_left alice
