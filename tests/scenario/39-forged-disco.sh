#!/bin/bash
# Somebody knows bob's disco key, which every message of bob's shows, but no secret, and floods alice
# with forged disco in its name, and with random keys: no answer, no path moves, no packet is lost, and
# the daemon's memory stays as it is. (CPU is only shown: in the test kernels receiving costs more than
# all that is done with a datagram.)
#
#   alice 198.51.100.11 \
#                        inet - pub 198.51.100.10 (coordinator, relay; here the forger)
#   bob   198.51.100.12 /
. "$(dirname "$0")/lib.sh"
need_programs tests/interop/flood
hosts alice bob
start_coordinator
join alice bob
check wait_until 20 reach alice bob
check wait_until 20 direct alice bob
check wait_until 10 in_map alice bob
key=$(grep -oE 'discokey:[0-9a-f]{64}' "$W/alice/state/netmap.json" | cut -d: -f2 | sort -u)
[ -n "$key" ] || fail "no disco key in the maps"
changes() { grep -cE 'peer bob: .* → (doubtful|relay|held)' "$LOGS/alice.log"; }
before=$(status_of alice RssAnon) moved=$(changes)
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"

# flood KEY...: 10,000 a second for 10 s: longer than a path is trusted without a pong
flood() {
	local cpu said

	cpu=$(cpu_msec alice)
	said=$(on pub "$BIN/tests/interop/flood" 198.51.100.11 41641 10000 10 "$@")
	cpu=$((($(cpu_msec alice) - cpu) / 10))
	step "$said; alice: CPU $cpu ms a second, RssAnon $(status_of alice RssAnon) KiB"
	[ "${said##* }" = 0 ] || fail "forged disco is answered"
	check direct alice bob
	check direct bob alice
}
for k in $key; do flood "$k"; done # one of them is alice's own: a stranger's to her
flood

step "afterwards"
all_answered traffic
[ "$(changes)" = "$moved" ] || fail "the path moved: $(grep 'peer bob:' "$LOGS/alice.log")"
grown_less 1024 alice "$before"
