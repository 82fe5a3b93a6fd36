#!/bin/bash
# limit: 600 s
# A hostile coordinator after the login: maps that cannot be read, that do not end, that are small on the
# way and large in memory, again and again; maps that can be read and lie. What the map cannot rightly
# change is as before, alice stays within her limits, answers, and is well when the server is.
. "$(dirname "$0")/lib.sh"
. "$HERE/bad.sh"

# --- maps
try map-never 1 600 4 'waiting for the first map'
try map-length 1 600 4 'cannot be read'
try map-stall 1 700 24 ''
try map-garbage 1 600 4 'cannot be read'
try map-truncated 1 600 4 'cannot be read'
try map-bomb 1 700 24 'cannot be read'
try map-deep 1 600 8 'cannot be read'
try map-deep-unknown 2 600 8 ''
try map-tree 2 600 24 ''
try map-no-node 1 600 4 'no node of ours'
try map-flap 2 600 8 ''
try map-bye 2 600 8 ''
# What was sent before she notices is read to the end, as far as it came: tens of thousands of keep-alives.
BACK=20000 try map-alive 3 600 8 ''
BACK=40000 try map-blank 5 600 8 ''
try map-pings 3 600 8 ''
[ "$(calls)" = 0 ] || fail "alice called herself $(calls) times because the server said so"

# bob's address stays bob's; nobody has ours, nor all, nor what is this host's own.
nothing_stolen() {
	local all

	wait_until 5 eval 'ask | grep -q mallory' || return 1
	sleep 0.5
	all=$(on alice wg show kernscale0 allowed-ips)
	! grep -E "0\.0\.0\.0/0|::/0|[[:space:]]$(ip4 alice)/|[[:space:]]$(ip6 alice)/|127\.|224\.|::1/" <<<"$all" || return 1
	[ "$(grep -c "[[:space:]]$(ip4 bob)/32" <<<"$all")" = 1 ] || return 1
	grep "[[:space:]]$(ip4 bob)/32" <<<"$all" | grep -q "^$bob_key"
}
bob_key=$(on bob wg show kernscale0 public-key)
CHECK=nothing_stolen try map-thieves 1 600 8 ''

# As a person at a terminal sees it.
names_shown() {
	wait_until 5 eval 'ask | grep -q passwd' || return 1
	ask >>"$W/all-said"
	wgctl alice status --detail >>"$W/all-said"
	! command -v script >/dev/null || script -qec "ip netns exec ${P}alice $BIN/wgctl \
		--socket $W/alice/run/kernscaled.sock status --json" /dev/null | sed 's/\r$//' >>"$W/all-said"
}
CHECK=names_shown try map-names 1 600 8 ''
try map-rules 3 600 64 ''
FDS=100 try map-relays 4 600 64 ''
FDS=100 try map-too-many-relays 2 600 64 ''
try map-too-many 1 700 100 'cannot be read'
# Twenty thousand peers are work for the processor of a test kernel, whatever their numbers are; with numbers that
# fall on one place it would be minutes.
# A thousand at a time go into the kernel, and in the end all of them.
in_kernel() { on alice wg show kernscale0 peers | wc -l; }
all_in() { wait_until 60 at_least $((${SLOWNESS:-1} > 1 ? 5001 : 20001)) in_kernel; }
CHECK=all_in LEFT=16384 SLOW=20000 BACK=20000 try map-colliding 3 900 100 ''
none_lost

# A policy that is not allow-all lets in less, at once, and more again when it is: what we cannot compile yet is closed.
narrowed() {
	wait_until 5 eval 'ask | grep -q "Packet filter: only replies are let in"' || return 1
	refute reach bob alice
	wait_until 5 reach alice bob
}
check wait_until 5 reach bob alice
CHECK=narrowed try map-narrow 1 600 8 ''
check wait_until 5 reach bob alice
refute grep -q "only replies" <(ask)

# A map that takes everybody away is a map: but who is back with the next one is reached again.
# The twenty thousand of before leave the kernel eight at a time, which takes minutes: but none of them has an address
# any more within seconds.
nobody_left() {
	wait_until 5 eval '! ask | grep -q " bob "' || return 1
	wait_until 15 eval '! on alice wg show kernscale0 allowed-ips | grep -v "(none)"' || return 1
	step "$(on alice wg show kernscale0 peers | wc -l) peers without an address are still to leave the kernel"
}
CHECK=nobody_left try map-alone 1 600 16 ''
check wait_until 10 reach alice bob
recovered
