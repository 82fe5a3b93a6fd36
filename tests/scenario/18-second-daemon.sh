#!/bin/bash
# A second daemon on the same state, or on the same network namespace, is refused in words at once; the
# first one goes on undisturbed. A foreign interface of our name is not taken.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg
hosts alice bob
start_coordinator
join alice
before=$(key_of alice)

mkdir -p "$W/other/state" "$W/other/run"
chown -R "$NODE_USER" "$W/other"
chmod 755 "$W/other" "$W/other/run"
second() {
	timeout 10 ip netns exec "${P}alice" "$BIN/kernscaled" --statedir "$1" --runtimedir "$W/other/run" \
		--ca-file "$W/tls.pem" --user "$NODE_USER"
}
expect 1 second "$W/alice/state"
said "another kernscaled has the state folder $W/alice/state"

expect 1 second "$W/other/state"
said 'another kernscaled has interface kernscale0'
check running alice
expect 0 wgctl alice status
[ "$(key_of alice)" = "$before" ] || fail "the interface was touched"

step "a foreign interface of our name"
ip -n "${P}bob" link add kernscale0 type wireguard
wg genkey >"$W/foreign.key"
on bob wg set kernscale0 private-key "$W/foreign.key"
foreign=$(key_of bob)
start_node bob
expect 1 up bob
said 'kernscale0'
[ "$(key_of bob)" = "$foreign" ] || fail "the foreign interface was taken"
